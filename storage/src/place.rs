//! What kind of disk a folder is on, and how much room it has.
//!
//! | file system | what is done |
//! |---|---|
//! | on another machine (NFS, SMB, Ceph, 9P, AFS, FUSE) | refused, unless a setting allows it: it need not keep what syncs, locks and mapped files promise |
//! | in memory (tmpfs, ramfs) | told of: nothing in it survives a power cut |
//! | ext4 with `fast_commit` | told of: its log of names and lengths is younger than what everybody else uses |
//!
//! Room is looked at before anything is written that could need more of it. Below the lower floor nothing is begun: no
//! block, no checkpoint, no segment; what is there is read, and what was promised needs no room. Below the upper one
//! only blocks matter: indices of a few full segments wait in memory.

use std::{
    fs::{self, File},
    os::linux::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU8, Ordering},
};

use rustix::fs::{fstatfs, fstatvfs};

use crate::{
    disk::DiskError,
    error::{Fault, OpenError},
};

/// What `statfs` says of a file system, with its name.
const REMOTE: [(u64, &str); 9] = [
    (0x6969, "NFS"),
    (0x517B, "SMB"),
    (0xFF53_4D42, "CIFS"),
    (0xFE53_4D42, "SMB2"),
    (0x00C3_6400, "Ceph"),
    (0x0102_1997, "9P"),
    (0x5346_414F, "AFS"),
    (0x7375_7245, "Coda"),
    (0x6573_5546, "FUSE"),
];
const MEMORY: [(u64, &str); 2] = [(0x0102_1994, "tmpfs"), (0x8584_58F6, "ramfs")];
const EXT4: u64 = 0xEF53;

/// How much room there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Room {
    /// Enough.
    Ample,
    /// Less than the upper floor.
    Little,
    /// Less than the lower floor.
    None,
}

/// The disk that a store is on.
pub(crate) struct Place {
    dir: File,
    path: PathBuf,
    /// The lower floor and the upper one, in bytes.
    floors: (u64, u64),
    last: AtomicU8,
}

impl Place {
    /// The disk of a folder, if a store can be on it.
    pub(crate) fn of(path: &Path, floors: (u64, u64), allow_remote: bool) -> Result<Self, OpenError> {
        let failed = |error: &dyn std::fmt::Display| Fault::Failed(format!("looking at {}: {error}", path.display()));
        let dir = File::open(path).map_err(|error| failed(&error))?;
        let kind =
            u64::try_from(fstatfs(&dir).map_err(|error| failed(&error))?.f_type).unwrap_or_default() & 0xFFFF_FFFF;
        let named = |kinds: &[(u64, &'static str)]| kinds.iter().find(|(of, _)| *of == kind).map(|(_, name)| *name);
        if let Some(system) = named(&REMOTE) {
            if !allow_remote {
                return Err(OpenError::RemoteDisk { dir: path.to_owned(), system });
            }
            tracing::warn!(dir = %path.display(), system, "the store is on a disk of another machine, as its settings say");
        }
        if let Some(system) = named(&MEMORY) {
            tracing::warn!(dir = %path.display(), system, "the store is in memory: nothing of it survives a power cut");
        }
        if kind == EXT4 && has_fast_commit(&dir) {
            tracing::warn!(dir = %path.display(), "the store is on ext4 with fast_commit, which tune2fs can end");
        }
        Ok(Self { dir, path: path.to_owned(), floors, last: AtomicU8::new(Room::Ample as u8) })
    }

    /// Bytes that may still be written.
    fn free(&self) -> Result<u64, DiskError> {
        free(&self.dir, &self.path)
    }

    /// How much room there is once so many bytes are written.
    pub(crate) fn room(&self, bytes: u64) -> Result<Room, DiskError> {
        let (lower, upper) = self.floors;
        let free = self.free()?;
        let room = match free.saturating_sub(bytes) {
            left if left < lower || free < bytes => Room::None,
            left if left < upper => Room::Little,
            _ => Room::Ample,
        };
        if bytes == 0 && self.last.swap(room as u8, Ordering::Relaxed) != room as u8 {
            let dir = self.path.display();
            match room {
                Room::Ample => tracing::info!(%dir, free, "the disk has room again"),
                Room::Little => tracing::warn!(%dir, free, "the disk is nearly full: indices wait"),
                Room::None => {
                    tracing::error!(%dir, free, lower, "the disk is full: nothing is written until it has room")
                }
            }
        }
        Ok(room)
    }

    /// Refuses what needs so many bytes of a disk that has no room for them above the lower floor.
    pub(crate) fn check(&self, bytes: u64) -> Result<(), Fault> {
        // The level itself is looked at first, so that a change of it is told.
        if self.room(0)? < Room::None && (bytes == 0 || self.room(bytes)? < Room::None) {
            return Ok(());
        }
        let (dir, free, lower) = (self.path.display(), self.free()?, self.floors.0);
        Err(Fault::Full(format!("{dir} has {free} bytes left; {lower} must stay free, and {bytes} are needed")))
    }
}

fn free(dir: &File, path: &Path) -> Result<u64, DiskError> {
    let status = fstatvfs(dir).map_err(|error| DiskError::new("measuring", path, &error.into()))?;
    Ok(status.f_bavail.saturating_mul(status.f_frsize))
}

/// Bytes that may still be written where a folder is.
pub(crate) fn free_bytes(path: &Path) -> Result<u64, DiskError> {
    let dir = File::open(path).map_err(|error| DiskError::new("opening", path, &error))?;
    free(&dir, path)
}

/// Whether the file system of a folder on ext4 has fast commits: the kernel lists that among its options.
fn has_fast_commit(dir: &File) -> bool {
    let Ok(device) = dir.metadata().map(|status| status.st_dev()) else { return false };
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // Fields: mount id, parent id, major:minor, .., a dash, the kind, the device.
    let number = format!("{major}:{minor}");
    let device = mounts.lines().find_map(|line| {
        let is_it = line.split(' ').nth(2) == Some(number.as_str());
        line.split_once(" - ").filter(|_| is_it)?.1.split(' ').nth(1)?.rsplit('/').next()
    });
    let options =
        device.map(|device| fs::read_to_string(format!("/proc/fs/ext4/{device}/options")).unwrap_or_default());
    // Kernels show the feature by the name of the option that forces it.
    options.is_some_and(|text| text.lines().any(|option| ["fc_debug_force", "fast_commit"].contains(&option)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_told_by_what_is_left_above_the_floors() {
        let dir = tempfile::tempdir().unwrap();
        let place = |floors| Place::of(dir.path(), floors, false).unwrap();
        let free = place((0, 0)).free().unwrap();
        assert!(free > 1 << 20, "the machine that tests has some room");
        let all = 1 << 60;
        for (floors, bytes, room) in [
            ((0, 0), 0, Room::Ample),
            ((0, all), 0, Room::Little),
            ((all, all), 0, Room::None),
            ((0, 0), all, Room::None),
            ((0, 0), u64::MAX, Room::None),
        ] {
            assert_eq!(place(floors).room(bytes).unwrap(), room, "{floors:?} {bytes}");
        }
        place((0, 0)).check(1).unwrap();
        let text = place((all, all)).check(0).unwrap_err().to_string();
        assert!(text.contains(&dir.path().display().to_string()) && text.contains("must stay free"), "{text}");
    }
}
