//! The machine and the node's process, as Linux accounts for them.

use std::{collections::BTreeMap, fs, path::PathBuf};

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

/// CPU time of the threads of one stage, up to a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Threads {
    pub(crate) count: usize,
    pub(crate) cpu_seconds: f64,
}

/// Threads by name; those of one name with other numbers are one stage.
pub(crate) type ByName = BTreeMap<String, Threads>;

/// Reads the accounts of the threads of these processes; one that ends meanwhile is passed over.
pub(crate) fn threads(pids: &[u32]) -> eyre::Result<ByName> {
    let mut all = ByName::new();
    for pid in pids {
        let folder = PathBuf::from(format!("/proc/{pid}/task"));
        let words = || format!("cannot read {}", folder.display());
        for thread in fs::read_dir(&folder).wrap_err_with(words)? {
            let thread = thread.wrap_err_with(words)?.path();
            let read = |name: &str| fs::read_to_string(thread.join(name));
            let (Ok(name), Ok(stat)) = (read("comm"), read("stat")) else { continue };
            let stage = name.trim().trim_end_matches(|c: char| c.is_ascii_digit() || "-: ".contains(c)).to_owned();
            let threads = all.entry(stage).or_default();
            threads.count += 1;
            threads.cpu_seconds += cpu_seconds(&stat).iter().flatten().sum::<f64>();
        }
    }
    Ok(all)
}

/// What was used since `earlier`.
pub(crate) fn threads_since(mut now: ByName, earlier: &ByName) -> ByName {
    for (stage, threads) in &mut now {
        threads.cpu_seconds -= earlier.get(stage).map_or(0.0, |earlier| earlier.cpu_seconds);
    }
    now
}

/// Seconds in user and in system mode, of the `stat` of a process or thread.
fn cpu_seconds(stat: &str) -> [Option<f64>; 2] {
    // The name is in brackets and may hold spaces.
    let mut fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().skip(11);
    [(); 2].map(|()| Some(fields.next()?.parse::<f64>().ok()? / TICKS_PER_SECOND))
}

/// What a process has used up to a moment.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Usage {
    pub(crate) user_seconds: f64,
    pub(crate) system_seconds: f64,
    /// Largest resident memory so far.
    pub(crate) memory_peak_bytes: u64,
    pub(crate) memory_bytes: u64,
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
        let [user, system] = cpu_seconds(&stat).map(|part| part.ok_or_else(|| eyre!("/proc/{pid}/stat is strange")));
        let status = read("status")?;
        Ok(Self {
            user_seconds: user?,
            system_seconds: system?,
            memory_peak_bytes: 1024 * number(&status, "VmHWM:"),
            memory_bytes: 1024 * number(&status, "VmRSS:"),
        })
    }

    /// The sum over several processes.
    pub(crate) fn of_all(pids: &[u32]) -> eyre::Result<Self> {
        pids.iter().try_fold(Self::default(), |sum, pid| {
            let one = Self::of(*pid)?;
            Ok(Self {
                user_seconds: sum.user_seconds + one.user_seconds,
                system_seconds: sum.system_seconds + one.system_seconds,
                memory_peak_bytes: sum.memory_peak_bytes + one.memory_peak_bytes,
                memory_bytes: sum.memory_bytes + one.memory_bytes,
            })
        })
    }

    /// What was used since `earlier`; the memory is that of the later moment.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            user_seconds: self.user_seconds - earlier.user_seconds,
            system_seconds: self.system_seconds - earlier.system_seconds,
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
        assert!(none.cpu_seconds() < f64::EPSILON);
    }

    #[test]
    fn threads_of_one_name_are_one_stage() {
        let (stop, stopped) = std::sync::mpsc::sync_channel::<()>(0);
        let stopped = std::sync::Arc::new(std::sync::Mutex::new(stopped));
        let wait = |number: usize| {
            let stopped = stopped.clone();
            let thread = std::thread::Builder::new().name(format!("stage-{number}"));
            let wait = move || {
                let _ended = stopped.lock().unwrap().recv();
            };
            thread.spawn(wait).unwrap()
        };
        let waiting = [wait(0), wait(17)];
        let seen = || threads(&[std::process::id()]).unwrap();
        // A thread names itself once it runs.
        while seen().get("stage").is_none_or(|threads| threads.count < 2) {
            std::thread::yield_now();
        }
        let before = seen();
        assert!(threads_since(seen(), &before)["stage"].cpu_seconds < 1.0);
        drop(stop);
        waiting.into_iter().for_each(|thread| thread.join().unwrap());
    }

    #[test]
    fn the_machine_has_cores() {
        let machine = Machine::read();
        assert!(machine.cores > 0 && !machine.cpu.is_empty());
    }
}
