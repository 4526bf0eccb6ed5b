//! Floods: what somebody sends to a node who wants it to stop.
//!
//! | kind | what is sent, as fast as it goes or at a given rate |
//! |---|---|
//! | `initials` | first packets of handshakes, made beforehand; half of them with addresses of others |
//! | `handshakes` | whole handshakes, each with a new key |
//! | `slow` | every stream that a stranger may open, a frame begun on each, a byte now and then |
//! | `streams` | streams opened and reset |
//! | `garbage` | frames too long, of no kind, of no content, on every lane |
//! | `votes` | votes for slots far ahead, by strangers and, with a record of one, by a validator |
//!
//! Nobody but the node that is named receives anything, and everything ends after the time that is given.

mod initials;
mod strangers;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddrV4},
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use clap::ValueEnum;

/// What kind of flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// First packets of handshakes.
    Initials,
    /// Whole handshakes.
    Handshakes,
    /// Streams that never come to an end.
    Slow,
    /// Streams that are reset.
    Streams,
    /// Frames that nobody understands.
    Garbage,
    /// Votes for slots far ahead.
    Votes,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 6] =
        [Self::Initials, Self::Handshakes, Self::Slow, Self::Streams, Self::Garbage, Self::Votes];
}

/// The word by which a program takes a kind of flood, or of lie.
///
/// # Panics
/// Never: every kind has one.
#[must_use]
pub fn word(kind: &impl ValueEnum) -> String {
    kind.to_possible_value().expect("none is hidden").get_name().to_owned()
}

/// A flood.
#[derive(Clone, Debug)]
pub struct Options {
    /// What kind.
    pub kind: Kind,
    /// Own address.
    pub from: Ipv4Addr,
    /// The node.
    pub to: SocketAddrV4,
    /// How long it lasts.
    pub lasts: Duration,
    /// First packets a second.
    pub per_second: u64,
    /// Addresses of others that are put on every second one.
    pub spoofed: Vec<Ipv4Addr>,
    /// Files with a validator's node key and with the record that it showed, by which votes are its own.
    pub validator: Option<(PathBuf, PathBuf)>,
    /// Chance follows from it.
    pub seed: u64,
}

/// What was sent, and what became of it.
#[derive(Debug, Default)]
pub struct Counts([AtomicU64; WHAT.len()]);

/// What is counted.
const WHAT: [&str; 8] = ["packets", "spoofed", "handshakes", "strangers", "streams", "frames", "votes", "cut"];

impl Counts {
    fn add(&self, what: &str, count: u64) {
        let place = WHAT.iter().position(|known| *known == what).expect("it is counted");
        self.0[place].fetch_add(count, Ordering::Relaxed);
    }

    /// All that are not zero.
    #[must_use]
    pub fn shown(&self) -> BTreeMap<&'static str, u64> {
        let counts = WHAT.iter().zip(&self.0).map(|(what, count)| (*what, count.load(Ordering::Relaxed)));
        counts.filter(|(_, count)| *count > 0).collect()
    }
}

/// The record that a node shows, encoded; on the calling thread.
///
/// # Errors
/// If it shows none, in words.
pub fn shown_record(from: Ipv4Addr, to: SocketAddrV4) -> Result<Vec<u8>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("no runtime: {error}"))?;
    runtime.block_on(strangers::shown_record(from, to)).map(|record| record.encoded())
}

/// Sends it all; `begin` is called when everything is made that can be made beforehand.
///
/// # Errors
/// What is missing, in words.
pub fn run(options: &Options, begin: impl FnOnce()) -> Result<Counts, String> {
    if !options.to.ip().is_private() && !options.to.ip().is_loopback() {
        return Err(format!("{} is neither on this machine nor in a network made for tests", options.to));
    }
    let counts = Counts::default();
    if options.kind == Kind::Initials {
        let packets = initials::make(options)?;
        begin();
        initials::send(options, &packets, &counts)?;
        return Ok(counts);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("no runtime: {error}"))?;
    let counts = std::sync::Arc::new(counts);
    runtime.block_on(async {
        let flood = strangers::Flood::new(options, counts.clone()).await?;
        begin();
        flood.run(Instant::now() + options.lasts).await;
        Ok::<(), String>(())
    })?;
    drop(runtime);
    std::sync::Arc::into_inner(counts).ok_or_else(|| "something is still under way".to_owned())
}
