//! Bits that flip in the files of a closed store: nothing wrong is read that nobody tells of.
//!
//! A flip falls into any kind of file, and there into any part of any file that is not all zeros. Flips are judged by a
//! process of their own, so that one which ends the process is counted and not the end of all.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{
    Machine,
    campaign::scratch,
    check::Verdict,
    image::Image,
    work::{self, Work},
};
use crate::{power::Expected, rng::Rng};

/// What became of the flips.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Nothing that anybody reads became another.
    pub harmless: u64,
    /// Only the scrubber had to do with it.
    pub unread: u64,
    /// An error told of it.
    pub told: u64,
    /// A wrong value was read, and the scrubber found it.
    pub scrubbed: u64,
    /// The process died of it.
    pub deadly: u64,
}

/// Flips so many bits, one at a time, of the store that a seed's work leaves.
///
/// # Errors
/// The first flip that made a wrong value of which nothing tells, or what went wrong beside.
pub fn run(program: &Path, seed: u64, flips: u64) -> Result<Counts, String> {
    let mut counts = Counts::default();
    let mut next = 0;
    while next < flips {
        let mut child = Command::new(program)
            .args(["flip", &seed.to_string(), &next.to_string(), &flips.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        for line in lines {
            let line = line.map_err(|error| error.to_string())?;
            let (word, what) = line.split_once(' ').unwrap_or((&line, ""));
            match word {
                "harmless" => counts.harmless += 1,
                "unread" => counts.unread += 1,
                "told" => counts.told += 1,
                "scrubbed" => counts.scrubbed += 1,
                _ => {
                    // It has more to say, which nobody reads.
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(format!(
                        "seed {seed}, flip {next}: {what}\nagain: power flip {seed} {next} {}",
                        next + 1
                    ));
                }
            }
            next += 1;
        }
        let status = child.wait().map_err(|error| error.to_string())?;
        if !status.success() {
            counts.deadly += 1;
            next += 1;
        }
    }
    Ok(counts)
}

/// Files of a kind, and the numbers of their parts that have bytes which are not zero.
type Places = Vec<(PathBuf, Vec<u64>)>;

/// A store that was closed, and where a bit may flip, by kind of file.
struct Closed {
    image: Image,
    places: Vec<Places>,
    expected: Expected,
}

/// Bytes of a part of a file.
const PART: usize = 4_096;

impl Closed {
    fn of(seed: u64, dir: &Path) -> Result<Self, String> {
        let mut work = Work::new(seed);
        work.run(dir, seed, &mut |_| {})?;
        work.close(dir, seed)?;
        let image = Machine::with(dir).map_err(|error| error.to_string())?.cut(&mut Rng::new(seed));
        // A kind of file is a folder and an extension.
        let mut places = BTreeMap::<_, Places>::new();
        for path in image.files() {
            let bytes = fs::read(dir.join(&path)).map_err(|error| error.to_string())?;
            let parts = (0..).zip(bytes.chunks(PART)).filter(|(_, part)| part.iter().any(|byte| *byte != 0));
            let parts: Vec<u64> = parts.map(|(at, _)| at).collect();
            if !parts.is_empty() && path.extension().is_none_or(|kind| kind != "lck") {
                let kind = (path.parent().map(Path::to_owned), path.extension().map(OsStr::to_owned));
                places.entry(kind).or_default().push((path, parts));
            }
        }
        let places = places.into_values().collect();
        Ok(Self { image, places, expected: Expected::of(work, work::config(dir, seed)) })
    }

    /// Flips one bit and looks.
    fn flip(&self, dir: &Path, rng: &mut Rng) -> Result<(String, Verdict), String> {
        let failed = |error: std::io::Error| format!("{}: {error}", dir.display());
        self.image.write(dir).map_err(failed)?;
        let index = |random: u64, length: usize| usize::try_from(random).unwrap_or_default() % length;
        let files = &self.places[index(rng.next() >> 8, self.places.len())];
        let (path, parts) = &files[index(rng.next() >> 8, files.len())];
        let part = parts[index(rng.next() >> 8, parts.len())];
        let file = dir.join(path);
        let mut bytes = fs::read(&file).map_err(failed)?;
        let begin = usize::try_from(part).unwrap_or_default() * PART;
        let at = begin + index(rng.next() >> 8, PART.min(bytes.len() - begin));
        let bit = rng.below(8);
        bytes[at] ^= 1 << bit;
        fs::write(&file, bytes).map_err(failed)?;
        Ok((format!("bit {bit} of byte {at} of {}", path.display()), self.expected.judge(dir)))
    }
}

/// Judges flips one by one, and tells of each in a line.
///
/// # Errors
/// What goes wrong beside.
pub fn judge(seed: u64, flips: std::ops::Range<u64>, tell: &mut dyn FnMut(String)) -> Result<(), String> {
    let folder = scratch().map_err(|error| format!("no scratch folder: {error}"))?;
    let closed = Closed::of(seed, &folder.path().join("closed"))?;
    for flip in flips {
        let (place, verdict) =
            closed.flip(&folder.path().join("flipped"), &mut Rng::new(seed.rotate_left(32) ^ flip))?;
        let (word, what) = match verdict {
            Verdict::Harmless => ("harmless", String::new()),
            Verdict::Unread(what) => ("unread", what),
            Verdict::Told(what) => ("told", what),
            Verdict::Scrubbed(what) => ("scrubbed", what),
            Verdict::Silent(what) => ("silent", what),
        };
        tell(format!("{word} {place}: {}", what.replace('\n', " ")));
    }
    Ok(())
}
