//! A full disk and a failing sync stop the node with a clear message and no damage.
//!
//! These need root, mounts and strace; they run when `SLUICE_FAULTS=1` and say plainly when they do not.

use std::{path::Path, process::Command, time::Duration};

use tests::{
    client::Client,
    node::{Node, binary},
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
    fn tmpfs(path: &'a Path, mebibytes: u64) -> Self {
        std::fs::create_dir_all(path).expect("a folder");
        let size = format!("size={mebibytes}m");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(path));
        Self(path)
    }

    fn resize(&self, mebibytes: u64) {
        let size = format!("remount,size={mebibytes}m");
        run(Command::new("mount").args(["-o", &size]).arg(self.0));
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

#[test]
fn a_full_disk_stops_the_node_and_harms_nothing() {
    if skipped("full disk") {
        return;
    }
    let mut rng = Rng::seeded("full disk", 3);
    let home = tempfile::tempdir().expect("a folder");
    let disk = home.path().join("disk");
    let mount = Mount::tmpfs(&disk, 96);
    let folder = disk.join("data");
    let mut client = Client::default();
    let mut node = Node::dev(&folder, &SMALL_SEGMENTS);
    client.send(&node, &mut rng, 50).expect("accepted");
    client.look(&node);
    // Whatever room is left is taken by somebody else; the node goes on until it needs more.
    let filler = disk.join("filler");
    let _ = std::fs::write(&filler, vec![1; 96 << 20]);
    for _ in 0..400 {
        if client.send(&node, &mut rng, 100).is_err() || node.wait(Duration::ZERO).is_some() {
            break;
        }
        client.look(&node);
    }
    let status = node.wait(Duration::from_secs(60)).expect("it stops by itself once it needs room");
    assert_eq!(status.code(), Some(1), "{}", log_of(&folder));
    let log = log_of(&folder);
    assert!(log.contains("No space left") || log.contains("ENOSPC") || log.contains("full"), "{log}");
    std::fs::remove_file(&filler).expect("ours");
    mount.resize(400);
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
                        if injected() || client.send(&node, &mut rng, 5).is_err() {
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
