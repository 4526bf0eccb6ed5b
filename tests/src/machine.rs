//! What a test takes from the machine: tools, control groups, slow syncs by strace, shifted clocks by libfaketime.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

/// Where libfaketime's form for programs with threads is looked for.
const FAKETIME: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];

/// Where control groups of version 1 are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Microseconds after which a control group's share of CPU time is renewed.
const PERIOD_US: u64 = 20_000;

/// Says which package is missing if a tool is.
///
/// # Errors
/// What to install.
pub fn need(tool: &str, package: &str) -> Result<(), String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Tools of the administrator are not on everybody's path.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let mut folders = folders.map(|folder| folder.join(tool));
    if folders.any(|file| file.is_file()) { Ok(()) } else { Err(format!("{tool} is missing: install {package}")) }
}

/// The begin of a command line under which every sync takes so much longer.
///
/// # Errors
/// If strace is missing.
pub fn slow_syncs(delay: Duration) -> Result<Vec<String>, String> {
    need("strace", "strace")?;
    let calls = "fsync,fdatasync,msync,sync_file_range,syncfs";
    let delay = delay.as_micros();
    let line = [
        "strace".to_owned(),
        // Only what is traced stops at all.
        "--seccomp-bpf".to_owned(),
        "-f".to_owned(),
        "-qq".to_owned(),
        "-e".to_owned(),
        format!("trace={calls}"),
        "-e".to_owned(),
        format!("inject={calls}:delay_exit={delay}"),
        "-o".to_owned(),
        "/dev/null".to_owned(),
    ];
    Ok(line.into())
}

/// The environment in which a program's clock of the day is off by so many milliseconds; time spans stay as they are.
///
/// # Errors
/// If libfaketime is missing.
pub fn shifted_clock(offset_ms: i64) -> Result<Vec<(String, String)>, String> {
    let library = FAKETIME.iter().find(|path| Path::new(path).is_file());
    let library = library.ok_or("libfaketime is missing: install faketime")?;
    let (sign, span) = (if offset_ms < 0 { '-' } else { '+' }, offset_ms.unsigned_abs());
    let pairs = [
        ("LD_PRELOAD", (*library).to_owned()),
        ("FAKETIME", format!("{sign}{}.{:03}s", span / 1_000, span % 1_000)),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        // Files keep the times of the disk.
        ("NO_FAKE_STAT", "1".to_owned()),
    ];
    Ok(pairs.map(|(name, value)| (name.to_owned(), value)).into())
}

/// A control group of version 1; removed when dropped, once its processes have ended.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// A group whose processes get so many percent of one core, all together.
    ///
    /// # Errors
    /// Why there is none: no root, or no such controller.
    pub fn cpu(percent: u64) -> Result<Self, String> {
        let group = Self::new("cpu")?;
        group.write("cpu.cfs_period_us", PERIOD_US)?;
        group.write("cpu.cfs_quota_us", PERIOD_US * percent / 100)?;
        Ok(group)
    }

    /// A group whose processes get so many bytes of memory, all together; one that wants more is killed.
    ///
    /// # Errors
    /// Why there is none: no root, or no such controller.
    pub fn memory(bytes: u64) -> Result<Self, String> {
        let group = Self::new("memory")?;
        group.write("memory.limit_in_bytes", bytes)?;
        Ok(group)
    }

    fn new(controller: &str) -> Result<Self, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let root = Path::new(CGROUPS).join(controller);
        if !root.join("cgroup.procs").is_file() {
            return Err(format!("no control group of version 1 for {controller} at {}", root.display()));
        }
        let name = format!("sluice-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = root.join(name);
        fs::create_dir(&path).map_err(|error| format!("cannot make {}, which needs root: {error}", path.display()))?;
        Ok(Self { path })
    }

    fn write(&self, file: &str, value: u64) -> Result<(), String> {
        let path = self.path.join(file);
        fs::write(&path, value.to_string()).map_err(|error| format!("cannot write {}: {error}", path.display()))
    }

    /// Takes in a process with all its threads and the children it has from here on.
    ///
    /// # Errors
    /// If it is no more.
    pub fn add(&self, process: u32) -> Result<(), String> {
        self.write("cgroup.procs", process.into())
    }

    /// A number that the group shows, such as `memory.max_usage_in_bytes` or `cpu.stat`'s `nr_throttled`.
    #[must_use]
    pub fn read(&self, file: &str, name: Option<&str>) -> Option<u64> {
        let text = fs::read_to_string(self.path.join(file)).ok()?;
        match name {
            None => text.trim().parse().ok(),
            Some(name) => text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok()),
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Processes that were killed may still be on their way out.
        let until = Instant::now() + Duration::from_secs(2);
        while let Err(error) = fs::remove_dir(&self.path) {
            if error.kind() == io::ErrorKind::NotFound || Instant::now() >= until {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

/// What a process holds and has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes in memory at this moment.
    pub resident_bytes: u64,
    /// Those of them that are its own. The others are pages of files that it maps, a database among them: the kernel
    /// keeps them as long as nobody wants the room, and they become more as the file does.
    pub own_bytes: u64,
    /// Most bytes it had in memory.
    pub resident_bytes_max: u64,
    /// CPU time of all its threads.
    pub cpu: Duration,
}

impl Usage {
    /// Of a running process; `None` if it is no more.
    #[must_use]
    pub fn of(process: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let kibibytes = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().strip_suffix(" kB")?.trim().parse().ok()
        };
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // Fields are counted behind the name, which may hold spaces: the 12th and 13th are user and system time.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
        Some(Self {
            resident_bytes: kibibytes("VmRSS:")? << 10,
            own_bytes: (kibibytes("RssAnon:")? + kibibytes("RssShmem:")?) << 10,
            resident_bytes_max: kibibytes("VmHWM:")? << 10,
            // The kernel shows hundredths of a second to programs, whatever it counts in.
            cpu: Duration::from_millis(ticks * 10),
        })
    }
}
