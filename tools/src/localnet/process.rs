//! Processes that were started here or by an earlier run, known again by more than their number.
//!
//! The system gives the number of a process that is gone to another one. So a process is remembered with the moment at
//! which it began and the boot in which that was, and a signal goes through a descriptor of the process that was
//! looked at, never to a number.

use std::{
    fs::File,
    io,
    os::fd::OwnedFd,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use eyre::{WrapErr, eyre};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use serde::{Deserialize, Serialize};

/// One process for all time.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Process {
    /// Its number.
    pub(super) pid: u32,
    /// When it began, in clock ticks after the boot.
    started: u64,
    /// The boot.
    boot: String,
}

impl Process {
    /// The process that has this number; the caller knows that it is not gone, for it has not waited for it.
    pub(super) fn of(pid: u32) -> eyre::Result<Self> {
        let (started, _) = stat(pid).ok_or_else(|| eyre!("process {pid} is gone"))?;
        Ok(Self { pid, started, boot: boot()? })
    }

    /// A descriptor of it; `None` if it has ended, whoever has its number.
    fn open(&self) -> Option<OwnedFd> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw)?;
        let descriptor = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // The descriptor holds whoever had the number when it was opened; the moment says whether it is the same.
        let (started, state) = stat(self.pid)?;
        let is_same = started == self.started && boot().is_ok_and(|boot| boot == self.boot);
        (is_same && !matches!(state, 'Z' | 'X')).then_some(descriptor)
    }

    /// Whether it has not ended; one that nobody has waited for has.
    pub(super) fn is_alive(&self) -> bool {
        self.open().is_some()
    }

    /// Sends a signal; `false` if there is nobody to send it to.
    pub(super) fn signal(&self, signal: Signal) -> eyre::Result<bool> {
        let Some(descriptor) = self.open() else { return Ok(false) };
        match pidfd_send_signal(descriptor, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(error) => Err(error).wrap_err_with(|| format!("cannot send a signal to process {}", self.pid)),
        }
    }

    /// Waits until it has ended; `false` if that takes longer.
    pub(super) fn wait(&self, longest: Duration) -> eyre::Result<bool> {
        let Some(descriptor) = self.open() else { return Ok(true) };
        let began = Instant::now();
        loop {
            let left = Timespec::try_from(longest.saturating_sub(began.elapsed()))?;
            match poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&left)) {
                Ok(0) => return Ok(false),
                Ok(_) => return Ok(true),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).wrap_err_with(|| format!("cannot wait for process {}", self.pid)),
            }
        }
    }
}

/// When a process began and what it does, such as `S` for sleeping or `Z` for ended.
fn stat(pid: u32) -> Option<(u64, char)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in brackets, which may hold anything.
    let (_, fields) = text.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    // Source: proc_pid_stat(5), field 22; the state is field 3.
    let started = fields.nth(18)?.parse().ok()?;
    Some((started, state))
}

fn boot() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim_end().to_owned())
}

/// Starts a program whose words go to the end of a file, and which the keys of this terminal do not reach.
pub(super) fn start(program: &Path, arguments: &[String], log: &Path) -> eyre::Result<(Child, Process)> {
    let out = File::options().create(true).append(true).open(log);
    let out = out.wrap_err_with(|| format!("cannot write {}", log.display()))?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stderr(out.try_clone()?).stdout(out).process_group(0);
    let child = command.spawn().wrap_err_with(|| format!("cannot start {}", program.display()))?;
    let process = Process::of(child.id())?;
    Ok((child, process))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper() -> (Child, Process) {
        start(Path::new("/bin/sleep"), &["1000".to_owned()], Path::new("/dev/null")).unwrap()
    }

    #[test]
    fn a_process_is_alive_until_it_ends() {
        let (mut child, process) = sleeper();
        assert!(process.is_alive());
        assert!(!process.wait(Duration::ZERO).unwrap());
        assert!(process.signal(Signal::KILL).unwrap());
        assert!(process.wait(Duration::from_secs(60)).unwrap());
        // Nobody has waited for it, so it has its number, but it has ended.
        assert!(stat(process.pid).is_some());
        assert!(!process.is_alive());
        assert!(!process.signal(Signal::KILL).unwrap());
        child.wait().unwrap();
        assert!(!process.is_alive() && process.wait(Duration::ZERO).unwrap());
        assert!(Process::of(process.pid).is_err());
    }

    /// Whoever has the number of a process that is gone is left alone.
    #[test]
    fn a_number_alone_is_no_process() {
        let (mut child, process) = sleeper();
        for other in [
            Process { started: process.started + 1, ..process.clone() },
            Process { started: process.started - 1, ..process.clone() },
            Process { boot: "another".to_owned(), ..process.clone() },
            Process { pid: 0, ..process.clone() },
            Process { pid: u32::MAX, ..process.clone() },
        ] {
            assert!(!other.is_alive());
            assert!(!other.signal(Signal::KILL).unwrap());
            assert!(other.wait(Duration::ZERO).unwrap());
        }
        assert!(child.try_wait().unwrap().is_none(), "it lives");
        assert!(process.signal(Signal::KILL).unwrap());
        child.wait().unwrap();
    }

    #[test]
    fn the_name_of_a_program_confuses_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("a) Z 1 (b");
        std::fs::copy("/bin/sleep", &program).unwrap();
        let (mut child, process) = start(&program, &["1000".to_owned()], &folder.path().join("log")).unwrap();
        assert!(process.is_alive());
        assert!(process.signal(Signal::KILL).unwrap());
        child.wait().unwrap();
    }
}
