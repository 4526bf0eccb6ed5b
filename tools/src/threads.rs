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

/// Lets other threads go first from now on, with a ninth of their share where all want to run.
pub(crate) fn give_way() {
    const NICE: i32 = 10;
    // On Linux it is the calling thread that this names.
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::warn!(%error, "a thread cannot give way to others");
    }
}
