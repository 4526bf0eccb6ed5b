//! The machine and the node's process, as Linux accounts for them.

use std::{fs, path::PathBuf};

use eyre::{WrapErr, eyre};
use serde::Serialize;

/// Where a run took place; a figure without it says nothing.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    /// Load averages over 1, 5 and 15 minutes when the clock started.
    pub(crate) load_average: [f64; 3],
}

impl Machine {
    pub(crate) fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = text("/proc/cpuinfo");
        let cpu = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let mut averages =
            text("/proc/loadavg").split_whitespace().map_while(|word| word.parse().ok()).collect::<Vec<_>>();
        averages.resize(3, 0.0);
        Self {
            cpu: cpu.map_or_else(|| "unknown".to_owned(), |(_, name)| name.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_average: [averages[0], averages[1], averages[2]],
        }
    }
}

/// What a process has used up to a moment.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Usage {
    pub(crate) user_seconds: f64,
    pub(crate) system_seconds: f64,
    /// Largest resident memory so far.
    pub(crate) memory_peak_bytes: u64,
    pub(crate) memory_bytes: u64,
    /// Bytes that went, or will go, to a disk.
    pub(crate) written_bytes: u64,
}

/// Clock ticks in a second of process accounting: the same on every Linux that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;

impl Usage {
    /// Reads the accounts of a process.
    pub(crate) fn of(pid: u32) -> eyre::Result<Self> {
        let folder = PathBuf::from(format!("/proc/{pid}"));
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).wrap_err_with(|| format!("cannot read {}", path.display()))
        };
        let stat = read("stat")?;
        // The name of the process is in brackets and may hold spaces.
        let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let ticks = |position: usize| {
            let field = fields.get(position).and_then(|field| field.parse::<f64>().ok());
            field.ok_or_else(|| eyre!("/proc/{pid}/stat is not as expected"))
        };
        let status = read("status")?;
        // Not readable for processes of others.
        let io = read("io").unwrap_or_default();
        Ok(Self {
            user_seconds: ticks(11)? / TICKS_PER_SECOND,
            system_seconds: ticks(12)? / TICKS_PER_SECOND,
            memory_peak_bytes: 1024 * number(&status, "VmHWM:"),
            memory_bytes: 1024 * number(&status, "VmRSS:"),
            written_bytes: number(&io, "write_bytes:"),
        })
    }

    /// What was used since `earlier`; the memory is that of the later moment.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            user_seconds: self.user_seconds - earlier.user_seconds,
            system_seconds: self.system_seconds - earlier.system_seconds,
            written_bytes: self.written_bytes.saturating_sub(earlier.written_bytes),
            ..self
        }
    }

    pub(crate) fn cpu_seconds(&self) -> f64 {
        self.user_seconds + self.system_seconds
    }
}

fn number(text: &str, key: &str) -> u64 {
    let rest = text.lines().find_map(|line| line.strip_prefix(key));
    rest.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accounts_of_this_process_can_be_read() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.memory_bytes > 0 && usage.memory_peak_bytes >= usage.memory_bytes);
        let none = usage.since(usage);
        assert!(none.cpu_seconds() < f64::EPSILON && none.written_bytes == 0);
    }

    #[test]
    fn the_machine_has_cores() {
        let machine = Machine::read();
        assert!(machine.cores > 0 && !machine.cpu.is_empty());
    }
}
