//! Building the recorder, and starting processes under it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::OnceLock,
};

/// A call that fails, as the recorder takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which calls count.
    pub kind: Kind,
    /// Which of them fails, from 1 on.
    pub nth: u32,
    /// The number of the error.
    pub errno: i32,
    /// What becomes of the calls after it.
    pub course: Course,
}

/// Kinds of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Writes, and changes of a file's length.
    Write = 1,
    /// Syncs of files and folders, and writes that are to be durable when they return.
    Sync = 2,
    /// Files and folders that are made, renamed or removed.
    Name = 4,
}

/// How a fault goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// Only this call fails.
    Once = 0,
    /// Every later one of the kind fails as well.
    OnAndOn = 1,
    /// Half of this write is done; every later one fails.
    Torn = 2,
}

/// A process under the recorder.
#[derive(Debug)]
pub struct Recorded<'a> {
    /// The program, with what it takes.
    pub program: &'a Path,
    /// Its arguments.
    pub arguments: &'a [String],
    /// Below this folder everything is recorded.
    pub root: &'a Path,
    /// Where the trace goes; an older one is replaced.
    pub trace: &'a Path,
    /// A call that fails.
    pub fault: Option<Fault>,
    /// What all randomness follows from.
    pub seed: u64,
}

impl Recorded<'_> {
    /// Runs the process to its end; gives its status and what it said on its error output.
    ///
    /// # Errors
    /// If the recorder cannot be built or the process not be started.
    pub fn run(&self) -> Result<(ExitStatus, String), String> {
        let failed = |error: std::io::Error| format!("{}: {error}", self.program.display());
        let _ = fs::remove_file(self.trace);
        let mut command = Command::new(self.program);
        command.args(self.arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.env("LD_PRELOAD", library()?);
        command.env("SLUICE_POWER_ROOT", self.root).env("SLUICE_POWER_TRACE", self.trace);
        command.env("SLUICE_POWER_RANDOM", self.seed.to_string());
        if let Some(Fault { kind, nth, errno, course }) = self.fault {
            command.env("SLUICE_POWER_FAIL", format!("{},{nth},{errno},{}", kind as u8, course as u8));
        }
        let output = command.output().map_err(failed)?;
        Ok((output.status, String::from_utf8_lossy(&output.stderr).into_owned()))
    }
}

/// The recorder's library, built once with the C compiler that MDBX is built with.
///
/// # Errors
/// What the compiler says.
pub fn library() -> Result<&'static Path, String> {
    static LIBRARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    LIBRARY.get_or_init(build).as_deref().map_err(Clone::clone)
}

fn build() -> Result<PathBuf, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/power/recorder.c");
    // Beside the programs; several processes may build it at once, so each builds its own and puts it in place.
    let folder = std::env::current_exe().map_err(|error| format!("this program has no path: {error}"))?;
    let folder = folder.parent().unwrap_or_else(|| Path::new("."));
    let (own, library) = (folder.join(format!("recorder-{}.so", std::process::id())), folder.join("recorder.so"));
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let built = Command::new(&compiler)
        .args(["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-pthread", "-o"])
        .args([&own, &source])
        .output()
        .map_err(|error| format!("{compiler}: {error}"))?;
    if !built.status.success() {
        return Err(format!("{compiler}: {}", String::from_utf8_lossy(&built.stderr)));
    }
    fs::rename(&own, &library).map_err(|error| format!("{}: {error}", library.display()))?;
    Ok(library)
}
