//! Runs a local network: starts its nodes, shows how they are, and stops them at the end.

use std::{
    fs::File,
    io::{IsTerminal as _, Read as _, Seek as _, SeekFrom, Write as _},
    path::Path,
    process::{Child, ExitCode},
    time::{Duration, Instant},
};

use eyre::{WrapErr, bail};
use serde::Serialize;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::MissedTickBehavior,
};

use super::{
    control,
    process::Process,
    record::{Folder, Network, Node},
    table,
    watch::{self, Summary, Watched},
};

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks between two tables where there is no terminal.
const TABLE_EVERY: u64 = 10;

/// Bytes of a node's log that are shown when it ends by accident.
const LOG_BYTES_SHOWN: u64 = 2_048;

/// How the network is run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    /// Print no table.
    pub(super) quiet: bool,
    /// Stop after this long.
    pub(super) seconds: Option<u64>,
}

/// What is printed at the end, as one line of JSON.
#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    seconds: f64,
    /// Nodes that ended without anybody having asked them to.
    fallen: &'a [String],
    nodes: Vec<Summary<'a>>,
}

/// Runs the network until it is told to stop; 1 if a node ended by accident.
pub(super) fn run(folder: &Folder, program: &Path, options: Options) -> eyre::Result<ExitCode> {
    let _only = folder.take()?;
    let mut run = Run::new(folder, options);
    let ran = run.run(program);
    // Whatever failed, no process is left behind.
    let stopped = stop_all(folder);
    if let (Err(_), Err(error)) = (&ran, &stopped) {
        warn(&format!("{error:#}"));
    }
    let (ran, ()) = (ran?, stopped?);
    let network = folder.read()?;
    let seconds = ran.as_secs_f64();
    let nodes = network.nodes.iter().zip(&run.watched).map(|(node, watched)| watched.summary(node, seconds));
    let report = Report {
        ok: run.fallen.is_empty(),
        seconds: watch::rounded(seconds),
        fallen: &run.fallen,
        nodes: nodes.collect(),
    };
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&report)?)?;
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Asks every node to stop, and kills those that do not.
fn stop_all(folder: &Folder) -> eyre::Result<()> {
    let all: Vec<usize> = (0..folder.read()?.nodes.len()).collect();
    if let Err(error) = control::stop(folder, &all) {
        warn(&format!("{error:#}; killing what is left"));
        control::kill(folder, &all)?;
    }
    Ok(())
}

/// Nobody has to listen.
fn warn(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

struct Run<'a> {
    folder: &'a Folder,
    options: Options,
    /// Nodes that were started here, to be waited for.
    children: Vec<Child>,
    watched: Vec<Watched>,
    /// Names of nodes that ended by accident.
    fallen: Vec<String>,
    /// Their processes.
    seen: Vec<Process>,
    /// Every node answered once.
    is_complete: bool,
    looks: u64,
    /// Lines of the table that stand on the terminal.
    lines: usize,
}

impl<'a> Run<'a> {
    const fn new(folder: &'a Folder, options: Options) -> Self {
        Self {
            folder,
            options,
            children: Vec::new(),
            watched: Vec::new(),
            fallen: Vec::new(),
            seen: Vec::new(),
            is_complete: false,
            looks: 0,
            lines: 0,
        }
    }

    /// Starts what is not running and watches; gives how long.
    fn run(&mut self, program: &Path) -> eyre::Result<Duration> {
        let network = self.folder.read()?;
        if !self.options.quiet {
            let urls: Vec<_> = network.nodes.iter().map(|node| &*node.rpc).collect();
            let _ = writeln!(std::io::stdout(), "{} nodes in {}", network.nodes.len(), network.dir.display());
            let _ = writeln!(std::io::stdout(), "JSON-RPC   {}", urls.join(","));
        }
        for number in 0..network.nodes.len() {
            let (_, child) = control::start(self.folder, program, number)?;
            self.children.extend(child);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.wrap_err("cannot start the network threads")?.block_on(self.watch())
    }

    async fn watch(&mut self) -> eyre::Result<Duration> {
        let take = |kind| signal(kind).wrap_err("cannot listen for signals");
        let (mut interrupt, mut terminate) = (take(SignalKind::interrupt())?, take(SignalKind::terminate())?);
        let mut hangup = take(SignalKind::hangup())?;
        let longest = self.options.seconds;
        let stop = async move {
            let end = async {
                match longest {
                    Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = interrupt.recv() => {},
                _ = terminate.recv() => {},
                _ = hangup.recv() => {},
                () = end => {},
            }
        };
        tokio::pin!(stop);
        let began = Instant::now();
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.look().await?,
                () = &mut stop => return Ok(began.elapsed()),
            }
        }
    }

    async fn look(&mut self) -> eyre::Result<()> {
        self.children.retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_))));
        let network = self.folder.read()?;
        watch::look(&network, &mut self.watched).await;
        self.find_fallen(&network)?;
        self.is_complete |= self.watched.iter().all(|watched| watched.has_answered);
        self.show(&network);
        self.looks = self.looks.saturating_add(1);
        Ok(())
    }

    /// Notes who has ended although nobody asked for it.
    fn find_fallen(&mut self, before: &Network) -> eyre::Result<()> {
        if before.nodes.iter().zip(&self.watched).all(|(node, watched)| watched.is_alive || !node.should_run) {
            return Ok(());
        }
        // Whoever ends a node says so before; so what is written after its end tells whether somebody did.
        let network = self.folder.read()?;
        for (number, node) in network.nodes.iter().enumerate() {
            let Some(process) = node.process.as_ref().filter(|process| node.should_run && !process.is_alive()) else {
                continue;
            };
            if self.seen.contains(process) {
                continue;
            }
            self.seen.push(process.clone());
            let has_answered = self.watched.get(number).is_some_and(|watched| watched.has_answered);
            let text =
                format!("node {number} ({}) ended by itself; its log ends with\n{}", node.name, end_of_log(node));
            if !self.is_complete && !has_answered {
                bail!("{text}");
            }
            self.erase();
            warn(&text);
            self.fallen.push(node.name.clone());
        }
        Ok(())
    }

    fn show(&mut self, network: &Network) {
        let is_terminal = std::io::stdout().is_terminal();
        if self.options.quiet || (!is_terminal && !self.looks.is_multiple_of(TABLE_EVERY)) {
            return;
        }
        let rows: Vec<_> = network.nodes.iter().zip(&self.watched).map(|(node, watched)| watched.row(node)).collect();
        let text = table::text(&rows);
        self.erase();
        let mut out = std::io::stdout().lock();
        // Nobody has to look.
        let _ = write!(out, "{text}").and_then(|()| out.flush());
        if is_terminal {
            self.lines = text.lines().count();
        }
    }

    /// Takes the table away from the terminal.
    fn erase(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        if lines > 0 {
            let mut out = std::io::stdout().lock();
            // Up so many lines, then clear to the end.
            let _ = write!(out, "\u{1b}[{lines}A\u{1b}[J").and_then(|()| out.flush());
        }
    }
}

/// Without the end of a line whose beginning is not there.
fn whole_lines(text: &str) -> &str {
    let is_cut = u64::try_from(text.len()).is_ok_and(|bytes| bytes >= LOG_BYTES_SHOWN);
    let begin = if is_cut { text.find('\n').map_or(0, |end| end.saturating_add(1)) } else { 0 };
    text.get(begin..).unwrap_or(text).trim_end()
}

fn end_of_log(node: &Node) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(&node.log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES_SHOWN)))?;
        let mut bytes = Vec::new();
        file.take(LOG_BYTES_SHOWN).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) => whole_lines(&String::from_utf8_lossy(&bytes)).to_owned(),
        Err(error) => format!("{}: {error}", node.log.display()),
    }
}
