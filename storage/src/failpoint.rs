//! Named places where a crash test ends the process.
//!
//! A test starts a process with `name:count` in [`crate::Config::fail_point`]; the process aborts the
//! `count`-th time it comes by. Nothing runs after an abort: no destructor, no flush. Tests in this
//! crate use an action of their own instead, which makes the operation fail as a dead process would leave it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Every fail point on the way of a block, so that a crash test can visit them all.
pub const FAIL_POINTS: [&str; 23] = [
    "genesis.identity",
    "genesis.rows",
    "genesis.applied",
    "segment.append.before_write",
    "segment.append.partial",
    "segment.append.before_sync",
    "segment.append.after_sync",
    "segment.roll.before_header",
    "segment.roll.before_rename",
    "segment.roll.before_dir_sync",
    "segment.roll.after",
    "segment.spare",
    "index.write",
    "index.rename",
    "checkpoint.start",
    "past.write",
    "past.rename",
    "checkpoint.before_state",
    "checkpoint.between",
    "checkpoint.after",
    "recovery.cut",
    "recovery.confirmed",
    "recovery.apply",
];

/// Every fail point of an epoch that begins.
pub const EPOCH_FAIL_POINTS: [&str; 1] = ["epoch.row"];

/// Every fail point of the log, which is written beside the blocks.
pub const LOG_FAIL_POINTS: [&str; 14] = [
    "log.open.cut",
    "log.open.settled",
    "log.open.made",
    "log.append.before_write",
    "log.append.partial",
    "log.append.after_write",
    "log.sync.before",
    "log.sync.after",
    "log.roll.before_header",
    "log.roll.before_rename",
    "log.roll.before_dir_sync",
    "log.roll.after",
    "log.recycle",
    "log.spare",
];

/// Every fail point of taking old blocks away.
pub const PRUNE_FAIL_POINTS: [&str; 4] = ["prune.before_mark", "prune.marked", "prune.removed", "prune.done"];

/// Every fail point of what is done to a folder that no node uses.
pub const OFFLINE_FAIL_POINTS: [&str; 16] = [
    "compact.copied",
    "compact.before_rename",
    "compact.renamed",
    "compact.synced",
    "rewind.state",
    "rewind.before_mark",
    "rewind.marked",
    "rewind.epochs",
    "rewind.rows",
    "rewind.segment",
    "rewind.tail",
    "rewind.done",
    "migrate.state",
    "migrate.chain",
    "migrate.files",
    "migrate.schema",
];

/// Every fail point of a snapshot's export and import.
pub const PORTABLE_FAIL_POINTS: [&str; 7] = [
    "export.chunk",
    "export.manifest",
    "import.begun",
    "import.chunk",
    "import.nodes",
    "import.chain",
    "import.applied",
];

fn known() -> Vec<&'static str> {
    let path = [&FAIL_POINTS[..], &EPOCH_FAIL_POINTS, &LOG_FAIL_POINTS].concat();
    [&path[..], &PRUNE_FAIL_POINTS, &OFFLINE_FAIL_POINTS, &PORTABLE_FAIL_POINTS].concat()
}

/// What happens at an armed point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// The process aborts.
    Abort,
    /// The operation fails, and so does every later one that passes a fail point.
    #[cfg(any(test, feature = "testing"))]
    Fail,
}

/// The one point that is armed, if any.
#[derive(Debug, Default)]
pub(crate) struct FailPoints {
    armed: Option<(String, Action)>,
    left: AtomicU64,
}

impl FailPoints {
    /// Arms `name:count`, or `name` for the first time.
    ///
    /// # Errors
    /// The reason why the text names no fail point.
    pub(crate) fn parse(text: Option<&str>, action: Action) -> Result<Self, String> {
        let Some(text) = text else { return Ok(Self::default()) };
        let (name, count) = text.split_once(':').unwrap_or((text, "1"));
        if !known().contains(&name) {
            return Err(format!("fail_point names {name}, which is none of {:?}", known()));
        }
        let count: u64 =
            count.parse().ok().filter(|count| *count > 0).ok_or_else(|| format!("fail_point counts {count}"))?;
        Ok(Self { armed: Some((name.to_owned(), action)), left: AtomicU64::new(count) })
    }

    /// Whether `name` is the armed point and about to be hit for the last time.
    pub(crate) fn is_armed(&self, name: &'static str) -> bool {
        self.armed.as_ref().is_some_and(|(armed, _)| armed == name)
    }

    /// Passes the point `name`.
    ///
    /// # Errors
    /// A text, if a test wants the operation to fail here.
    pub(crate) fn hit(&self, name: &'static str) -> Result<(), String> {
        debug_assert!(known().contains(&name), "{name} is not listed");
        let Some((armed, action)) = &self.armed else { return Ok(()) };
        let left = self.left.load(Ordering::SeqCst);
        if left == 0 {
            return Err(format!("stopped at fail point {armed}"));
        }
        if armed != name {
            return Ok(());
        }
        let left = self.left.fetch_sub(1, Ordering::SeqCst).saturating_sub(1);
        match action {
            _ if left > 0 => Ok(()),
            Action::Abort => std::process::abort(),
            #[cfg(any(test, feature = "testing"))]
            Action::Fail => Err(format!("stopped at fail point {name}")),
        }
    }
}
