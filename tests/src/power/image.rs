//! What a power cut leaves of a machine's disk, as chance says; and putting it into a folder.

use std::{
    fs, io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use super::machine::{File, Machine, Node, SECTOR, Version};
use crate::rng::Rng;

const SECTOR_BYTES: u64 = SECTOR as u64;

/// How chance picks among the states that something may be left in.
#[derive(Clone, Copy, Debug)]
enum Choice {
    /// Nothing that was not synced is there.
    Oldest,
    /// All of it is.
    Newest,
    /// What was written up to a moment is.
    Until(u64),
    /// Each on its own.
    Any,
}

impl Choice {
    fn random(position: u64, rng: &mut Rng) -> Self {
        match rng.below(6) {
            0 => Self::Oldest,
            1 => Self::Newest,
            2 | 3 => Self::Until(position.saturating_sub(rng.below(40))),
            _ => Self::Any,
        }
    }

    /// The state that is left, `None` for the one that is on the disk for certain.
    fn of<'v, T>(self, versions: &'v [Version<T>], rng: &mut Rng) -> Option<&'v T> {
        let count = match self {
            Self::Oldest => 0,
            Self::Newest => versions.len(),
            Self::Until(at) => versions.partition_point(|version| version.at <= at),
            Self::Any => index(rng.below(1 + count(versions))),
        };
        count.checked_sub(1).map(|last| &versions[last].state)
    }
}

fn count<T>(items: &[T]) -> u64 {
    u64::try_from(items.len()).expect("a length fits")
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("an index fits")
}

/// A file's bytes where they are not zero.
#[derive(Clone, Debug)]
struct Content {
    size: u64,
    runs: Vec<(u64, Vec<u8>)>,
}

/// Folders and files, by their paths from the root.
#[derive(Clone, Debug, Default)]
pub struct Image {
    folders: Vec<PathBuf>,
    files: Vec<(PathBuf, Content)>,
}

impl Machine {
    /// What a cut of the power leaves here and now.
    #[must_use]
    pub fn cut(&self, rng: &mut Rng) -> Image {
        let mut image = Image::default();
        // The same for all, or for each its own.
        let common = (rng.below(3) > 0).then(|| Choice::random(self.position(), rng));
        self.cut_folder(0, Path::new(""), common, rng, &mut image);
        image
    }

    fn cut_folder(&self, number: usize, path: &Path, common: Option<Choice>, rng: &mut Rng, image: &mut Image) {
        let folder = &self.folders[number];
        let choice = common.unwrap_or_else(|| Choice::random(self.position(), rng));
        let names = choice.of(&folder.pending, rng).unwrap_or(&folder.names);
        for (name, node) in names {
            let path = path.join(name);
            match node {
                Node::Folder(inner) => {
                    image.folders.push(path.clone());
                    self.cut_folder(*inner, &path, common, rng, image);
                }
                Node::File(file) => {
                    let choice = common.unwrap_or_else(|| Choice::random(self.position(), rng));
                    image.files.push((path, content(&self.files[*file], choice, rng)));
                }
            }
        }
    }
}

fn content(file: &File, choice: Choice, rng: &mut Rng) -> Content {
    let size = *choice.of(&file.sizes, rng).unwrap_or(&file.size);
    let mut runs: Vec<(u64, Vec<u8>)> = Vec::new();
    let mut add = |sector: u64, bytes: &[u8; SECTOR]| {
        let offset = sector * SECTOR_BYTES;
        match runs.last_mut() {
            Some((begin, run)) if *begin + count(run) == offset => run.extend_from_slice(bytes),
            _ => runs.push((offset, bytes.to_vec())),
        }
    };
    let (mut durable, mut pending) = (file.sectors.iter().peekable(), file.pending.iter().peekable());
    loop {
        let next = [durable.peek().map(|(sector, _)| **sector), pending.peek().map(|(sector, _)| **sector)];
        let Some(sector) = next.into_iter().flatten().min() else { break };
        let old = durable.next_if(|(at, _)| **at == sector).map(|(_, bytes)| bytes);
        let new = pending.next_if(|(at, _)| **at == sector).and_then(|(_, versions)| choice.of(versions, rng));
        if let Some(bytes) = new.or(old)
            && sector * SECTOR_BYTES < size
        {
            add(sector, bytes);
        }
    }
    Content { size, runs }
}

impl Image {
    /// The files.
    pub(super) fn files(&self) -> impl Iterator<Item = PathBuf> {
        self.files.iter().map(|(path, _)| path.clone())
    }

    /// Puts everything below a folder, which is emptied first.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, root: &Path) -> io::Result<()> {
        match fs::remove_dir_all(root) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir_all(root)?,
        }
        for folder in &self.folders {
            fs::create_dir(root.join(folder))?;
        }
        for (path, Content { size, runs }) in &self.files {
            let file = fs::File::create(root.join(path))?;
            for (offset, bytes) in runs {
                file.write_all_at(bytes, *offset)?;
            }
            file.set_len(*size)?;
        }
        Ok(())
    }
}
