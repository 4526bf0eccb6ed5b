//! A real node as a child process: started, asked, killed, restarted.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        OnceLock,
        mpsc::{RecvTimeoutError, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::rpc::Rpc;

/// Longest until a node serves; one that takes longer is killed.
const START_MAX: Duration = Duration::from_secs(60);

/// A running node; killed when dropped.
#[derive(Debug)]
pub struct Node {
    child: Child,
    /// The node's own process, which is a child of `child` when that is a tracer.
    process: Pid,
    /// Where JSON-RPC is served over HTTP.
    pub http: String,
    /// Where it is served over WebSocket.
    pub ws: String,
    /// A client of it.
    pub rpc: Rpc,
    /// How long it took from the start of the process to the first line that names the port.
    pub started_in: Duration,
}

/// Builds the binary once with the profile of this test and names it.
///
/// # Panics
/// If it does not build.
#[must_use]
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    // Together with a test of its own, so that it has the features that this test has: nothing is built twice.
    BINARY.get_or_init(|| built(&["test", "--test", "program", "--no-run"]).join("sluice"))
}

/// Builds an example with the profile of this test and names it.
///
/// # Panics
/// If it does not build.
#[must_use]
pub fn example(name: &str) -> PathBuf {
    // What examples may use beside their package makes cargo choose the features that tests have.
    built(&["build", "--example", name]).join("examples").join(name)
}

/// Runs cargo on the workspace, and names the folder of this test's profile.
fn built(args: &[&str]) -> PathBuf {
    // .../target/PROFILE/deps/it-HASH
    let test = std::env::current_exe().expect("this test has a path");
    let folder = test.parent().and_then(Path::parent).expect("tests run from target/PROFILE/deps").to_owned();
    let profile = if folder.ends_with("release") { "release" } else { "dev" };
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace");
    let built = Command::new(cargo)
        .args(args)
        .args(["--quiet", "--workspace", "--profile", profile])
        .current_dir(root)
        .status()
        .expect("cargo runs");
    assert!(built.success(), "cargo {args:?} does not build");
    folder
}

impl Node {
    /// Starts a development node on free ports over `datadir`.
    ///
    /// # Panics
    /// If it does not come up.
    #[must_use]
    pub fn dev(datadir: &Path, more: &[&str]) -> Self {
        Self::try_dev(datadir, more).unwrap_or_else(|(status, log)| panic!("node ended with {status}: {log}"))
    }

    /// Starts a development node; gives its exit status and log if it ends before it serves.
    ///
    /// # Errors
    /// Exit status and log.
    ///
    /// # Panics
    /// If the binary cannot be started.
    pub fn try_dev(datadir: &Path, more: &[&str]) -> Result<Self, (ExitStatus, String)> {
        let mut command = Command::new(binary());
        command.args(["node", "--dev", "--http.port", "0", "--ws.port", "0", "--log", "warn", "--datadir"]);
        command.arg(datadir).args(more);
        Self::spawn(command, &datadir.with_extension("log"))
    }

    /// Starts a node by a command of the caller's making; its log goes to a file.
    ///
    /// # Errors
    /// Exit status and log if it ends before it serves.
    ///
    /// # Panics
    /// If the command cannot be started.
    pub fn spawn(mut command: Command, log: &Path) -> Result<Self, (ExitStatus, String)> {
        let begun = Instant::now();
        let stderr = File::options().create(true).append(true).open(log).expect("a log file");
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr).spawn().expect("it starts");
        let stdout = child.stdout.take().expect("piped");
        let _watchdog = Watchdog::new(child.id());
        let mut ws = String::new();
        for line in BufReader::new(stdout).lines() {
            let line = line.expect("text");
            if let Some(url) = line.strip_prefix("WebSocket  ") {
                url.clone_into(&mut ws);
            }
            if let Some(http) = line.strip_prefix("JSON-RPC   ") {
                let (http, rpc, process) = (http.to_owned(), Rpc::new(http), process_of(child.id()));
                return Ok(Self { child, process, http, ws, rpc, started_in: begun.elapsed() });
            }
        }
        let status = child.wait().expect("it ends");
        Err((status, std::fs::read_to_string(log).unwrap_or_default()))
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Process id of the node itself, which differs if it is traced.
    ///
    /// # Panics
    /// Never: a process has a positive id.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.process.as_raw_nonzero().get().unsigned_abs()
    }

    /// Kills it at once, as a power cut would.
    ///
    /// # Panics
    /// If it cannot be killed.
    pub fn kill(&mut self) {
        kill_process(self.process, Signal::KILL).expect("our own child");
        let _ = self.child.wait();
    }

    /// Asks it to stop and waits for its exit status.
    ///
    /// # Panics
    /// If it does not end within half a minute.
    pub fn stop(&mut self) -> ExitStatus {
        kill_process(self.process, Signal::TERM).expect("our own child");
        self.wait(Duration::from_secs(30)).expect("it stops when asked")
    }

    /// Asks it to stop, whether or not it is alive, and waits for its exit status.
    ///
    /// # Panics
    /// If it lives on for half a minute.
    pub fn stop_or_dead(&mut self) -> ExitStatus {
        // An error means that it has ended already.
        let _ = kill_process(self.process, Signal::TERM);
        self.wait(Duration::from_secs(30)).expect("it stops when asked")
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// If its status cannot be read.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                return Some(status);
            }
            if Instant::now() >= until {
                return None;
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill_process(self.process, Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// Kills a process that does not serve in time, so that whoever reads its output is not kept waiting.
struct Watchdog(Option<SyncSender<()>>);

impl Watchdog {
    fn new(started: u32) -> Self {
        let (called_off, waiting) = sync_channel(1);
        std::thread::spawn(move || {
            if waiting.recv_timeout(START_MAX) == Err(RecvTimeoutError::Timeout) {
                let _ = kill_process(process_of(started), Signal::KILL);
            }
        });
        Self(Some(called_off))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.0.take());
    }
}

/// The node's own process: the child of a tracer, else the process that was started.
fn process_of(started: u32) -> Pid {
    let traced = std::fs::read_to_string(format!("/proc/{started}/comm")).is_ok_and(|name| name.trim() == "strace");
    let children = std::fs::read_to_string(format!("/proc/{started}/task/{started}/children")).unwrap_or_default();
    let child = children.split_whitespace().next().and_then(|child| child.parse().ok()).and_then(Pid::from_raw);
    let itself = || Pid::from_raw(i32::try_from(started).expect("a process id")).expect("a process id");
    child.filter(|_| traced).unwrap_or_else(itself)
}
