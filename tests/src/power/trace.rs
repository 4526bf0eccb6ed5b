//! The trace that the recorder writes.
//!
//! ```text
//! record   kind u32 | length u32 | file u64 | offset u64 | count u64 | length bytes
//! ```
//!
//! Integers are little-endian, as the recorder's machine has them. A record's place in the trace is its position.

use std::path::PathBuf;

/// What a file is known by: the number that the file system gives it.
pub type FileNumber = u64;

/// One step of a recorded process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// An empty file was made.
    Create(FileNumber, PathBuf),
    /// Bytes were written at an offset.
    Write(FileNumber, u64, Vec<u8>),
    /// A file got this length.
    Size(FileNumber, u64),
    /// A write that was to be durable is: so many bytes at an offset.
    Flush(FileNumber, u64, u64),
    /// A sync of a file or folder began.
    SyncBegin,
    /// The sync that began at this position ended.
    SyncEnd(FileNumber, u64),
    /// It failed.
    SyncFailed(FileNumber, u64),
    /// A name changed.
    Rename(PathBuf, PathBuf),
    /// A name went.
    Unlink(PathBuf),
    /// A folder was made.
    MakeDir(FileNumber, PathBuf),
    /// The process said what it promised.
    Mark(String),
    /// A call was made to fail.
    Fault,
}

const FRONT: usize = 32;

/// Decodes a trace.
///
/// # Errors
/// What in it no recorder wrote, or that it tells of writes that nobody can record.
pub fn decode(mut bytes: &[u8]) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    while !bytes.is_empty() {
        let at = steps.len();
        let (front, rest) = bytes.split_at_checked(FRONT).ok_or_else(|| format!("record {at} is cut"))?;
        let (words, longs) = (front[..8].as_chunks::<4>().0, front[8..].as_chunks::<8>().0);
        let (kind, length) = (u32::from_le_bytes(words[0]), u32::from_le_bytes(words[1]));
        let [file, offset, count] = [0, 1, 2].map(|index| u64::from_le_bytes(longs[index]));
        let length = usize::try_from(length).map_err(|_| format!("record {at} is too long"))?;
        let (data, rest) = rest.split_at_checked(length).ok_or_else(|| format!("record {at} is cut"))?;
        bytes = rest;
        let mut texts = data.split(|byte| *byte == 0).map(|text| PathBuf::from(&*String::from_utf8_lossy(text)));
        let mut path = || texts.next().ok_or_else(|| format!("record {at} has no path"));
        steps.push(match kind {
            1 => Step::Create(file, path()?),
            2 => Step::Write(file, offset, data.to_vec()),
            3 => Step::Size(file, offset),
            4 => Step::Flush(file, offset, count),
            5 => Step::SyncBegin,
            6 => Step::SyncEnd(file, offset),
            7 => Step::SyncFailed(file, offset),
            8 => Step::Rename(path()?, path()?),
            9 => Step::Unlink(path()?),
            10 => Step::MakeDir(file, path()?),
            11 => Step::Mark(String::from_utf8_lossy(data).into_owned()),
            12 => Step::Fault,
            13 => return Err(format!("record {at}: file {file} is mapped for writing")),
            other => return Err(format!("record {at} has kind {other}")),
        });
    }
    Ok(steps)
}
