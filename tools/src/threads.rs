//! Threads that serve sockets.

use std::time::Duration;

use eyre::WrapErr as _;
use tokio::runtime::{Builder, Handle, Runtime};

/// How long tasks may take to end.
pub(crate) const END_MAX: Duration = Duration::from_secs(2);

/// A runtime beside that of whoever holds it; dropped, it ends without waiting, so that it can be dropped anywhere.
#[derive(Debug)]
pub(crate) struct Threads(Option<Runtime>);

impl Threads {
    /// Starts threads of this name, each of which does `first` first; gives where to put tasks.
    ///
    /// # Errors
    /// There are no threads to be had.
    pub(crate) fn start(name: &str, first: fn()) -> eyre::Result<(Handle, Self)> {
        let runtime = sockets(name).on_thread_start(first).build();
        let runtime = runtime.wrap_err_with(|| format!("cannot start the threads \"{name}\""))?;
        Ok((runtime.handle().clone(), Self(Some(runtime))))
    }

    /// Ends them, and with them what their tasks hold; those that do not end within a moment are left alone.
    pub(crate) async fn end(mut self) {
        let Some(runtime) = self.0.take() else { return };
        let ended = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(END_MAX)).await;
        if let Err(error) = ended {
            tracing::warn!(%error, "threads did not end");
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

/// One thread for every four cores: a thread that serves all sockets is woken less often than several that help each
/// other. On two cores two threads took twice the CPU of one, for the same requests.
pub(crate) fn sockets(name: &str) -> Builder {
    let threads = std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 4).max(1));
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(threads).enable_all().thread_name(name);
    builder
}

/// How long a thread that answers somebody runs in one go where others want to run. So little at a time makes its turn
/// come soon: with the usual 3 ms it waits for as long as somebody else signs a block.
const SLICE: Duration = Duration::from_micros(100);

/// Lets other threads go first from now on, with a ninth of their share where all want to run, in small slices.
pub(crate) fn give_way() {
    const NICE: i32 = 10;
    // On Linux it is the calling thread that this names.
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::warn!(%error, "a thread cannot give way to others");
    }
    be_prompt();
}

/// Takes the calling thread's time in small slices.
pub(crate) fn be_prompt() {
    if let Err(error) = set_slice() {
        tracing::debug!(%error, "a thread cannot run in small slices");
    }
}

/// Asks for small slices; kernels before 6.12 take no notice.
///
/// Source: sched_setattr(2), `sched_runtime` of a thread that is scheduled by `SCHED_OTHER`.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the system call has no safe interface")]
fn set_slice() -> std::io::Result<()> {
    let attributes = libc::sched_attr {
        size: u32::try_from(size_of::<libc::sched_attr>()).unwrap_or_default(),
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: rustix::process::getpriority_process(None)?,
        sched_priority: 0,
        sched_runtime: u64::try_from(SLICE.as_nanos()).unwrap_or_default(),
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: 0 is the calling thread, and the kernel reads as many bytes as the first of them say.
    match unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

#[cfg(not(target_os = "linux"))]
fn set_slice() -> std::io::Result<()> {
    Ok(())
}
