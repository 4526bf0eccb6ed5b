//! A full disk holds the node back until it has room, a failing sync stops it with a clear message; no damage is done.
//!
//! These need root, mounts and strace; they run when `SLUICE_FAULTS=1` and say plainly when they do not.
//! `SLUICE_FULL_DISKS` sets how many disks are filled (default 10).

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use engine::ports::{Store as _, StoreError};
use serde_json::json;
use storage::{Database, testing::crash};
use tests::{
    client::Client,
    node::{Node, binary},
    power::work::{self, Work},
    rng::Rng,
};

use crate::crash::{SMALL_SEGMENTS, check_root};

fn skipped(test: &str) -> bool {
    let skip = std::env::var("SLUICE_FAULTS").as_deref() != Ok("1");
    if skip {
        println!("{test}: SKIPPED, set SLUICE_FAULTS=1 as root with strace installed");
    }
    skip
}

/// A small file system of its own; unmounted when dropped.
struct Mount<'a>(&'a Path);

impl<'a> Mount<'a> {
    fn ext4(path: &'a Path, image: &Path, mebibytes: u64) -> Self {
        std::fs::create_dir_all(path).expect("a folder");
        let file = std::fs::File::create(image).expect("a file");
        file.set_len(mebibytes << 20).expect("a length");
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(image));
        run(Command::new("mount").args(["-o", "loop"]).arg(image).arg(path));
        Self(path)
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

fn run(command: &mut Command) {
    assert!(command.status().expect("it runs").success(), "{command:?}");
}

fn log_of(folder: &Path) -> String {
    std::fs::read_to_string(folder.with_extension("log")).unwrap_or_default()
}

/// A file that takes room away, until it is dropped.
struct Filler(PathBuf);

impl Filler {
    /// Leaves about so many bytes of a disk free.
    fn leave(disk: &Path, bytes: u64) -> Self {
        let path = disk.join("filler");
        let free = || rustix::fs::statvfs(disk).map(|status| status.f_bavail * status.f_frsize).expect("a disk");
        let file = std::fs::File::create(&path).expect("a file");
        let (mut taken, mut next) = (0, free().saturating_sub(bytes));
        // A piece for which there is no room is taken in halves.
        while next >= 4_096 {
            match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), taken, next) {
                Ok(()) => (taken, next) = (taken + next, free().saturating_sub(bytes)),
                Err(_) => next /= 2,
            }
        }
        Self(path)
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).expect("ours");
    }
}

/// Bytes that what was begun may still take of a disk, the least floor.
const BEGUN_BYTES: u64 = 4 << 20;

/// Works on a small disk that is filled at some moment; gives how often the store refused, and its height.
fn fill(mount: &Mount<'_>, seed: u64, rng: &mut Rng) -> (u64, u64) {
    let dir = mount.0.join("data");
    let (floor, left) = (BEGUN_BYTES + (rng.below(8) << 20), rng.below(14) << 20);
    let config = storage::Config {
        segment_bytes: 1 << 20,
        log_bytes: 1 << 20,
        free_bytes_min: floor,
        free_bytes_low: floor * 2,
        background: rng.below(2) == 0,
        ..work::config(&dir, seed)
    };
    let mut done = Work::new(seed);
    let chain = done.world.chain.clone();
    let open = || Database::open(config.clone(), chain.clone()).expect("a disk opens, full or not");
    let mut store = open();
    let (before, rounds) = (rng.below(20), 60);
    let (mut filler, mut refused) = (None, 0);
    for round in 0..rounds {
        if round == before {
            // Another program may take all but the floor at any time, and the rest while nothing is under way.
            if left < BEGUN_BYTES {
                crash(store);
                filler = Some(Filler::leave(mount.0, left));
                store = open();
            } else {
                filler = Some(Filler::leave(mount.0, left));
            }
        }
        match rng.below(8) {
            0 => match store.checkpoint() {
                Ok(()) => {}
                Err(StoreError::Full(_)) => refused += 1,
                Err(error) => panic!("a checkpoint: {error}"),
            },
            1 => {
                crash(store);
                store = open();
            }
            _ => {}
        }
        let count = 1 + rng.below(4);
        let held = done.clone();
        if let Err(why) = done.round(&store, count, &mut |_| {}) {
            assert!(why.starts_with("storage is full: "), "seed {seed}: {why}");
            // What was voted on without being committed stays in the log; the blocks come again.
            done.world = held.world;
            refused += 1;
            assert_eq!(store.tip().height(), done.world.tip());
            done.world.compare(&store).assert_none();
        }
        if round == before + 25 {
            drop(filler.take());
        }
    }
    drop(filler);
    let tip = done.world.tip();
    done.round(&store, 2, &mut |_| {}).unwrap_or_else(|why| panic!("seed {seed}: with room again: {why}"));
    store.close().expect("it has room again");
    let store = open();
    done.world.compare(&store).assert_none();
    assert!(!store.take_recovered().is_lost);
    (refused, tip.0)
}

#[test]
fn a_disk_that_fills_up_is_refused_cleanly_and_goes_on_with_room() {
    if skipped("small full disks") {
        return;
    }
    let disks: u64 = std::env::var("SLUICE_FULL_DISKS").map_or(10, |text| text.parse().expect("a number"));
    let mut rng = Rng::seeded("small full disks", 8);
    let home = tempfile::tempdir().expect("a folder");
    let (mut refused, mut blocks) = (0, 0);
    for _ in 0..disks {
        let path = home.path().join("disk");
        let mount = Mount::ext4(&path, &home.path().join("image"), 64);
        // A seed of work that begins with nothing.
        let (refusals, height) = fill(&mount, rng.next() >> 19 << 3, &mut rng);
        (refused, blocks) = (refused + refusals, blocks + height);
    }
    println!("small full disks: {disks}, {refused} times refused, {blocks} blocks kept");
    assert!(refused > 0, "no disk was full");
}

#[test]
fn a_node_on_a_full_disk_answers_on_and_goes_on_with_room() {
    if skipped("full disk") {
        return;
    }
    let mut rng = Rng::seeded("full disk", 3);
    let home = tempfile::tempdir().expect("a folder");
    let disk = home.path().join("disk");
    let _mount = Mount::ext4(&disk, &home.path().join("image"), 128);
    // Its words go beside the link, where there is room for them.
    let folder = home.path().join("data");
    std::fs::create_dir(disk.join("data")).expect("a folder");
    std::os::unix::fs::symlink(disk.join("data"), &folder).expect("a link");
    let mut client = Client::default();
    let mut node = Node::dev(&folder, &SMALL_SEGMENTS);
    client.send(&node, &mut rng, 50).expect("accepted");
    client.look(&node);
    let filler = Filler::leave(&disk, 0);
    client.send(&node, &mut rng, 50).expect("the pool has room");
    let until = Instant::now() + Duration::from_secs(30);
    while !log_of(&folder).contains("the disk is full") {
        assert!(Instant::now() < until, "it does not say that the disk is full: {}", log_of(&folder));
        client.look(&node);
    }
    let stopped = node.rpc.call("eth_blockNumber", json!([]));
    client.look(&node);
    assert_eq!(node.rpc.call("eth_blockNumber", json!([])), stopped, "a block on a full disk");
    assert_eq!(node.wait(Duration::ZERO), None, "{}", log_of(&folder));
    drop(filler);
    let until = Instant::now() + Duration::from_secs(30);
    while client.waiting() > 0 {
        assert!(Instant::now() < until, "{} receipts are missing: {}", client.waiting(), log_of(&folder));
        client.look(&node);
    }
    assert!(node.stop().success());
    let node = Node::dev(&folder, &SMALL_SEGMENTS);
    client.check(&node);
    drop(node);
    check_root(&folder);
    println!("full disk: {} receipts kept", client.seen.len());
}

#[test]
fn a_failing_sync_stops_the_node_and_harms_nothing() {
    if skipped("failing sync") {
        return;
    }
    let mut rng = Rng::seeded("failing sync", 4);
    let mut injected_in_all = 0;
    for call in ["fdatasync", "fsync"] {
        for nth in [1, 2, 3, 5, 9, 17, 33] {
            let home = tempfile::tempdir().expect("a folder");
            let folder = home.path().join("data");
            let trace = home.path().join("trace");
            let mut client = Client::default();
            drop(Node::dev(&folder, &[]));
            let mut command = Command::new("strace");
            command.args(["-f", "-q", "-e", &format!("trace={call}"), "-e"]);
            command.arg(format!("inject={call}:error=EIO:when={nth}+")).arg("-o").arg(&trace);
            command.arg(binary());
            command.args(["node", "--dev", "--http.port", "0", "--ws.port", "0", "--log", "warn", "--datadir"]);
            command.arg(&folder);
            let injected = || std::fs::read_to_string(&trace).is_ok_and(|text| text.contains("INJECTED"));
            let (status, log) = match Node::spawn(command, &folder.with_extension("log")) {
                Err(ended) => ended,
                Ok(mut node) => {
                    for _ in 0..40 {
                        // A sync beside the path of blocks may have failed, which the next block meets.
                        let has_failed = injected();
                        if client.send(&node, &mut rng, 5).is_err() || has_failed {
                            break;
                        }
                        client.look(&node);
                    }
                    let status = if injected() {
                        node.wait(Duration::from_secs(30)).expect("it stops by itself once a sync has failed")
                    } else {
                        node.stop_or_dead()
                    };
                    (status, log_of(&folder))
                }
            };
            if injected() {
                injected_in_all += 1;
                assert_eq!(status.code(), Some(1), "{log}");
                assert!(log.contains("Input/output error") || log.contains("EIO"), "{log}");
            } else {
                assert!(status.success(), "{log}");
            }
            let node = Node::dev(&folder, &[]);
            client.check(&node);
            drop(node);
            check_root(&folder);
            println!("{call} fails from call {nth} on: injected {}, {} receipts kept", injected(), client.seen.len());
        }
    }
    assert!(injected_in_all >= 8, "only {injected_in_all} runs met a failing sync");
}
