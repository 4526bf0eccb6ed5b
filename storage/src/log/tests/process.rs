//! A process that dies at every named point of the log, on a real disk.

use std::{io::Write as _, path::Path, process::Command};

use engine::types::{Epoch, Height, Slot};

use super::kit::{History, block, vote};
use crate::{
    Config, Database,
    failpoint::LOG_FAIL_POINTS,
    tests::kit::{chain, config},
};

const CHILD: &str = "SLUICE_STORAGE_LOG_CHILD";
const ROUNDS: u64 = 160;

fn settings(dir: &Path) -> Config {
    Config { background: true, ..config(dir) }
}

fn batch(at: u64) -> super::kit::Batch {
    let blocks = if at.is_multiple_of(5) { vec![block(0, at, at, 1)] } else { vec![] };
    super::kit::Batch { entries: vec![vote(0, at, at), vote(0, at, at + 1)], blocks }
}

/// Not a test of its own: the process that [`a_process_aborting_at_any_point_of_the_log_loses_nothing`] starts.
#[test]
fn log_child() {
    let Some(job) = std::env::var_os(CHILD) else { return };
    let job = job.into_string().unwrap();
    let (point, dir) = job.split_once('|').unwrap();
    let stored = Config { fail_point: Some(point.to_owned()), ..settings(dir.as_ref()) };
    let store = Database::open(stored, chain()).unwrap();
    let journal = store.journal();
    for at in 1..=ROUNDS {
        let super::kit::Batch { entries, blocks } = batch(at);
        journal.append(&entries, &blocks).unwrap();
        if at.is_multiple_of(3) {
            journal.sync().unwrap();
            println!("synced {at}");
            std::io::stdout().flush().unwrap();
        }
        let old = at.saturating_sub(6);
        journal.forget_below(Epoch(0), Slot(old), Height(old));
    }
}

#[test]
fn a_process_aborting_at_any_point_of_the_log_loses_nothing() {
    let mut aborted = 0;
    for (point, count) in LOG_FAIL_POINTS.into_iter().flat_map(|point| [(point, 1), (point, 2)]) {
        let dir = tempfile::tempdir().unwrap();
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["log::tests::process::log_child", "--exact", "--nocapture", "--test-threads=1"])
            .env(CHILD, format!("{point}:{count}|{}", dir.path().display()))
            .output()
            .unwrap();
        aborted += u32::from(!output.status.success());
        let text = String::from_utf8_lossy(&output.stdout);
        let synced =
            text.lines().filter_map(|line| line.rsplit_once("synced ")?.1.parse().ok()).max().unwrap_or(0_usize);
        let store =
            Database::open(settings(dir.path()), chain()).unwrap_or_else(|error| panic!("{point}:{count}: {error}"));
        let mut history = History { batches: (1..=ROUNDS).map(batch).collect(), synced, ..History::default() };
        let recovered = store.take_recovered();
        let Some(newest) = recovered.entries.iter().map(|entry| entry.place().1.0).max() else {
            assert_eq!(synced, 0, "{point}:{count}");
            continue;
        };
        let old = newest.saturating_sub(5);
        history.mark = super::kit::mark(0, old, old);
        let found = history.check_crashed(&recovered);
        assert_eq!(found as u64, newest, "{point}:{count}");
        println!("{point}:{count}: {found} found, {synced} synced");
    }
    // What is met when a log is opened is met once in a process.
    assert!(aborted >= 20, "{aborted} processes were stopped");
}
