//! A machine that runs a trace: what is on its disk for certain, and what may be.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::trace::{FileNumber, Step};

/// Bytes that a disk writes whole.
pub(super) const SECTOR: usize = 512;
const SECTOR_BYTES: u64 = SECTOR as u64;

/// The bytes of a sector.
pub(super) type Sector = [u8; SECTOR];

/// A state that something had at and after a step.
#[derive(Clone, Debug)]
pub(super) struct Version<T> {
    /// Position of the step.
    pub(super) at: u64,
    /// A sync failed that should have covered it: no later one does.
    pub(super) is_lost: bool,
    pub(super) state: T,
}

/// A file.
#[derive(Clone, Debug, Default)]
pub(super) struct File {
    /// Sectors that are on the disk; the others are zeros.
    pub(super) sectors: BTreeMap<u64, Box<Sector>>,
    /// Length on the disk.
    pub(super) size: u64,
    /// What sectors held since, oldest first; never empty.
    pub(super) pending: BTreeMap<u64, Vec<Version<Box<Sector>>>>,
    /// Lengths since.
    pub(super) sizes: Vec<Version<u64>>,
}

/// Takes over what a sync that began at a position covers; the newest state that it covers is returned.
fn covered<T>(versions: &mut Vec<Version<T>>, begin: u64) -> Option<T> {
    let last = versions.iter().rposition(|version| version.at <= begin && !version.is_lost)?;
    versions.drain(..=last).next_back().map(|version| version.state)
}

impl File {
    fn live_size(&self) -> u64 {
        self.sizes.last().map_or(self.size, |version| version.state)
    }

    fn live(&self, sector: u64) -> Sector {
        let newest = self.pending.get(&sector).and_then(|versions| versions.last()).map(|version| &version.state);
        newest.or_else(|| self.sectors.get(&sector)).map_or([0; SECTOR], |bytes| **bytes)
    }

    fn put(&mut self, at: u64, sector: u64, bytes: Sector) {
        let unsynced = self.pending.get(&sector).and_then(|versions| versions.last());
        let is_there = match unsynced {
            Some(newest) => !newest.is_lost && *newest.state == bytes,
            None => self.live(sector) == bytes,
        };
        if !is_there {
            let version = Version { at, is_lost: false, state: Box::new(bytes) };
            self.pending.entry(sector).or_default().push(version);
        }
    }

    fn write(&mut self, at: u64, offset: u64, mut data: &[u8]) {
        let end = offset + length(data);
        let mut place = offset;
        while !data.is_empty() {
            let (sector, within) = (place / SECTOR_BYTES, small(place % SECTOR_BYTES));
            let (now, rest) = data.split_at(data.len().min(SECTOR - within));
            let mut bytes = self.live(sector);
            bytes[within..within + now.len()].copy_from_slice(now);
            self.put(at, sector, bytes);
            (place, data) = (place + length(now), rest);
        }
        if end > self.live_size() {
            self.sizes.push(Version { at, is_lost: false, state: end });
        }
    }

    fn resize(&mut self, at: u64, size: u64) {
        let cut = |sector: u64| size.saturating_sub(sector * SECTOR_BYTES).min(SECTOR_BYTES);
        let first = size / SECTOR_BYTES;
        let behind: Vec<u64> = self
            .sectors
            .range(first..)
            .map(|(sector, _)| *sector)
            .chain(self.pending.range(first..).map(|(sector, _)| *sector))
            .collect();
        for sector in behind {
            let mut bytes = self.live(sector);
            bytes[small(cut(sector))..].fill(0);
            self.put(at, sector, bytes);
        }
        if size != self.live_size() {
            self.sizes.push(Version { at, is_lost: false, state: size });
        }
    }

    fn sync(&mut self, begin: u64, sectors: std::ops::Range<u64>) {
        let Self { sectors: durable, pending, .. } = self;
        for (sector, versions) in pending.range_mut(sectors) {
            match covered(versions, begin) {
                Some(bytes) if *bytes == [0; SECTOR] => drop(durable.remove(sector)),
                Some(bytes) => drop(durable.insert(*sector, bytes)),
                None => {}
            }
        }
        pending.retain(|_, versions| !versions.is_empty());
        self.size = covered(&mut self.sizes, begin).unwrap_or(self.size);
    }

    fn lose(&mut self, begin: u64) {
        let sectors = self.pending.values_mut().flatten().filter(|version| version.at <= begin);
        sectors.for_each(|version| version.is_lost = true);
        self.sizes.iter_mut().filter(|version| version.at <= begin).for_each(|version| version.is_lost = true);
    }
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    File(usize),
    Folder(usize),
}

/// Names in a folder.
pub(super) type Names = BTreeMap<String, Node>;

/// A folder.
#[derive(Clone, Debug, Default)]
pub(super) struct Folder {
    /// Names on the disk.
    pub(super) names: Names,
    /// Names after each change since.
    pub(super) pending: Vec<Version<Names>>,
}

impl Folder {
    fn live(&self) -> &Names {
        self.pending.last().map_or(&self.names, |version| &version.state)
    }

    fn change(&mut self, at: u64, change: impl FnOnce(&mut Names)) {
        let mut state = self.live().clone();
        change(&mut state);
        self.pending.push(Version { at, is_lost: false, state });
    }
}

/// A machine with a disk, and everything below one folder of it.
#[derive(Clone, Debug)]
pub struct Machine {
    root: PathBuf,
    pub(super) files: Vec<File>,
    /// The root is the first.
    pub(super) folders: Vec<Folder>,
    numbers: HashMap<FileNumber, Node>,
    /// Steps so far.
    position: u64,
    /// Files and folders whose path has this in it are never synced.
    pub(super) unsynced: Option<String>,
    paths: HashMap<FileNumber, PathBuf>,
}

impl Machine {
    /// A machine with an empty folder.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            root: PathBuf::new(),
            files: Vec::new(),
            folders: Vec::new(),
            numbers: HashMap::new(),
            position: 0,
            unsynced: None,
            paths: HashMap::new(),
        }
    }

    /// The machine with what is below a folder now, all of it on the disk.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn with(root: &Path) -> std::io::Result<Self> {
        let mut machine = Self { root: root.to_owned(), ..Self::empty() };
        machine.load(root)?;
        Ok(machine)
    }

    /// As a disk would be that forgets the syncs of everything whose path has this in it.
    #[must_use]
    pub fn without_syncs_of(mut self, part: &str) -> Self {
        self.unsynced = Some(part.to_owned());
        self
    }

    fn load(&mut self, dir: &Path) -> std::io::Result<usize> {
        let number = self.add_folder(fs::metadata(dir)?.ino(), dir.to_owned());
        for entry in fs::read_dir(dir)? {
            let (entry, path) = entry.map(|entry| (entry.file_name(), entry.path()))?;
            let node = if path.is_dir() {
                Node::Folder(self.load(&path)?)
            } else {
                let file = self.add_file(fs::metadata(&path)?.ino(), path.clone());
                let bytes = fs::read(&path)?;
                self.files[file].write(0, 0, &bytes);
                self.files[file].sync(u64::MAX, 0..u64::MAX);
                Node::File(file)
            };
            self.folders[number].names.insert(entry.to_string_lossy().into_owned(), node);
        }
        Ok(number)
    }

    /// The first step of a trace tells of the folder that it is about.
    fn begin(&mut self, number: FileNumber, root: &Path) -> Result<(), String> {
        if self.folders.is_empty() {
            root.clone_into(&mut self.root);
            self.add_folder(number, root.to_owned());
        }
        let is_known = self.numbers.get(&number) == Some(&Node::Folder(0));
        is_known
            .then_some(())
            .ok_or_else(|| format!("the trace is of {}, not of {}", root.display(), self.root.display()))
    }

    fn add_folder(&mut self, number: FileNumber, path: PathBuf) -> usize {
        self.folders.push(Folder::default());
        self.numbers.insert(number, Node::Folder(self.folders.len() - 1));
        self.paths.insert(number, path);
        self.folders.len() - 1
    }

    fn add_file(&mut self, number: FileNumber, path: PathBuf) -> usize {
        self.files.push(File::default());
        self.numbers.insert(number, Node::File(self.files.len() - 1));
        self.paths.insert(number, path);
        self.files.len() - 1
    }

    /// The folder that a path is in, and its name there.
    fn place(&self, path: &Path) -> Result<(usize, String), String> {
        let strange = || format!("{} is not below {}", path.display(), self.root.display());
        let inside = path.strip_prefix(&self.root).map_err(|_| strange())?;
        let name = inside.file_name().ok_or_else(strange)?.to_string_lossy().into_owned();
        let mut folder = 0;
        for part in inside.parent().into_iter().flat_map(Path::components) {
            match self.folders[folder].live().get(&*part.as_os_str().to_string_lossy()) {
                Some(Node::Folder(next)) => folder = *next,
                _ => return Err(format!("{} is in no folder", path.display())),
            }
        }
        Ok((folder, name))
    }

    fn file(&mut self, number: FileNumber) -> Result<&mut File, String> {
        match self.numbers.get(&number) {
            Some(Node::File(file)) => Ok(&mut self.files[*file]),
            _ => Err(format!("step {}: no file has number {number}", self.position)),
        }
    }

    /// Takes the next step of a trace.
    ///
    /// # Errors
    /// A step that no process could have taken.
    pub fn step(&mut self, step: &Step) -> Result<(), String> {
        let at = self.position;
        match step {
            Step::Create(number, path) => {
                let (folder, name) = self.place(path)?;
                let file = Node::File(self.add_file(*number, path.clone()));
                self.folders[folder].change(at, |names| {
                    names.insert(name, file);
                });
            }
            Step::Write(number, offset, data) => self.file(*number)?.write(at, *offset, data),
            Step::Size(number, size) => self.file(*number)?.resize(at, *size),
            Step::Flush(number, offset, count) if self.is_synced(*number) => {
                let sectors = offset / SECTOR_BYTES..(offset + count).div_ceil(SECTOR_BYTES);
                self.file(*number)?.sync(at, sectors);
            }
            Step::SyncEnd(number, begin) if self.is_synced(*number) => match self.numbers.get(number) {
                Some(Node::File(file)) => self.files[*file].sync(*begin, 0..u64::MAX),
                Some(Node::Folder(folder)) => {
                    let folder = &mut self.folders[*folder];
                    folder.names =
                        covered(&mut folder.pending, *begin).unwrap_or_else(|| std::mem::take(&mut folder.names));
                }
                None => return Err(format!("step {at}: nothing has number {number}")),
            },
            Step::SyncFailed(number, begin) => match self.numbers.get(number) {
                Some(Node::File(file)) => self.files[*file].lose(*begin),
                // Names are in the file system's own log: a later sync writes it from where it stopped.
                Some(Node::Folder(_)) => {}
                None => return Err(format!("step {at}: nothing has number {number}")),
            },
            Step::Rename(from, to) => {
                let ((folder, from), (other, to)) = (self.place(from)?, self.place(to)?);
                if folder != other {
                    return Err(format!("step {at}: {from} goes to another folder"));
                }
                let node = *self.folders[folder].live().get(&from).ok_or_else(|| format!("step {at}: no {from}"))?;
                self.folders[folder].change(at, |names| {
                    names.remove(&from);
                    names.insert(to, node);
                });
            }
            Step::Unlink(path) => {
                let (folder, name) = self.place(path)?;
                self.folders[folder].change(at, |names| {
                    names.remove(&name);
                });
            }
            Step::MakeDir(number, path) if at == 0 => self.begin(*number, path)?,
            Step::MakeDir(number, path) => {
                let (folder, name) = self.place(path)?;
                let made = Node::Folder(self.add_folder(*number, path.clone()));
                self.folders[folder].change(at, |names| {
                    names.insert(name, made);
                });
            }
            Step::Flush(..) | Step::SyncBegin | Step::SyncEnd(..) | Step::Mark(_) | Step::Fault => {}
        }
        self.position += 1;
        Ok(())
    }

    fn is_synced(&self, number: FileNumber) -> bool {
        let path = self.paths.get(&number);
        let inside = path.and_then(|path| path.strip_prefix(&self.root).ok()).map(|path| path.display().to_string());
        !self.unsynced.as_ref().is_some_and(|part| inside.is_some_and(|path| path.contains(part.as_str())))
    }

    /// Steps so far.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.position
    }
}

fn length(data: &[u8]) -> u64 {
    u64::try_from(data.len()).expect("a length fits")
}

fn small(number: u64) -> usize {
    usize::try_from(number).expect("below a sector")
}
