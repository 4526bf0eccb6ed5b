//! Threads for what may block: one lane for reads, one for calls, so that neither starves the other
//! nor the sockets.
//!
//! ```text
//! async worker --try push--> [ bounded queue ] --> thread 1..n --> answer through a oneshot
//!        |                        full: busy           |
//!        +-- gone, or time up: cancel flag ------------+--> the EVM stops at its next check
//! ```

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ::metrics::{Gauge, counter, gauge};
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::{
    error::{Refusal, busy, internal, out_of_time},
    limits::LANE_BYTES_MAX,
};
use crate::metrics;

type Job = Box<dyn FnOnce() + Send>;

/// A bounded queue and the threads that serve it; dropping the lane ends them.
pub(super) struct Lane {
    name: &'static str,
    shared: Arc<Shared>,
    queue_max: usize,
}

struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
    depth: Gauge,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<(usize, Job)>,
    bytes: usize,
    closed: bool,
}

impl Lane {
    /// Starts `threads` threads behind a queue of `queue_max` jobs.
    ///
    /// # Errors
    /// The system starts no more threads.
    pub(super) fn start(name: &'static str, threads: usize, queue_max: usize) -> std::io::Result<Self> {
        let depth = gauge!(metrics::RPC_LANE_DEPTH, "lane" => name);
        let shared = Arc::new(Shared { queue: Mutex::default(), filled: Condvar::new(), depth });
        let lane = Self { name, shared, queue_max };
        for number in 0..threads {
            let shared = Arc::clone(&lane.shared);
            std::thread::Builder::new().name(format!("rpc-{name}-{number}")).spawn(move || serve(&shared))?;
        }
        Ok(lane)
    }

    /// Runs `job`, which holds `bytes` of parameters, on a thread of this lane. The flag it is given
    /// is set when the time is up or nobody waits for the answer any more.
    ///
    /// # Errors
    /// `busy` if the queue is full; what the job refuses; `out_of_time` after `time_max`, the wait
    /// in the queue included.
    pub(super) async fn run<R: Send + 'static>(
        &self,
        bytes: usize,
        time_max: Option<Duration>,
        job: impl FnOnce(&AtomicBool) -> Result<R, Refusal> + Send + 'static,
    ) -> Result<R, Refusal> {
        let (sender, receiver) = oneshot::channel();
        let cancel = CancelOnDrop(Arc::new(AtomicBool::new(false)));
        let cancelled = Arc::clone(&cancel.0);
        let run = Box::new(move || {
            if !cancelled.load(Ordering::Relaxed) {
                // A caller that is gone wants no answer.
                let _ = sender.send(job(&cancelled));
            }
        });
        self.push(bytes, run)?;
        let answer = match time_max {
            Some(time) => tokio::time::timeout(time, receiver).await.map_err(|_| out_of_time())?,
            None => receiver.await,
        };
        answer.unwrap_or_else(|_| Err(internal(&"the thread of a call ended without an answer")))
    }

    fn push(&self, bytes: usize, job: Job) -> Result<(), Refusal> {
        {
            let mut queue = self.shared.queue.lock();
            let after = queue.bytes.saturating_add(bytes);
            if queue.jobs.len() >= self.queue_max || after > LANE_BYTES_MAX {
                counter!(metrics::RPC_TURNED_AWAY, "reason" => self.name).increment(1);
                return Err(busy());
            }
            queue.bytes = after;
            queue.jobs.push_back((bytes, job));
            self.shared.depth.increment(1);
        }
        self.shared.filled.notify_one();
        Ok(())
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        let mut queue = self.shared.queue.lock();
        queue.closed = true;
        queue.jobs.clear();
        self.shared.filled.notify_all();
    }
}

struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn serve(shared: &Shared) {
    loop {
        let job = {
            let mut queue = shared.queue.lock();
            loop {
                if queue.closed {
                    return;
                }
                if let Some((bytes, job)) = queue.jobs.pop_front() {
                    queue.bytes = queue.bytes.saturating_sub(bytes);
                    break job;
                }
                shared.filled.wait(&mut queue);
            }
        };
        shared.depth.decrement(1);
        // A panic in one call must not take the lane's thread from all later ones; its caller is
        // told "internal error" because the sender is dropped.
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            tracing::error!("a JSON-RPC call panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_full_lane_is_busy_and_recovers() {
        let lane = Lane::start("test", 1, 1).unwrap();
        let (release, held) = mpsc::sync_channel::<()>(1);
        let (started, running) = mpsc::sync_channel::<()>(1);
        let first = lane.run(0, None, move |_| {
            started.send(()).unwrap();
            held.recv().unwrap();
            Ok(1)
        });
        tokio::pin!(first);
        // Polled once, the first job is on its thread; the second fills the queue; the third is refused.
        assert!(futures_poll(first.as_mut()).is_none());
        running.recv().unwrap();
        let second = lane.run(0, None, |_| Ok(2));
        tokio::pin!(second);
        assert!(futures_poll(second.as_mut()).is_none());
        assert_eq!(lane.run(0, None, |_| Ok(3)).await.unwrap_err().code(), -32005);
        release.send(()).unwrap();
        assert_eq!(first.await.unwrap(), 1);
        assert_eq!(second.await.unwrap(), 2);
    }

    #[tokio::test]
    async fn the_bytes_that_wait_are_bounded() {
        let lane = Lane::start("test", 1, 100).unwrap();
        assert_eq!(lane.run(LANE_BYTES_MAX, None, |_| Ok(1)).await.unwrap(), 1);
        assert_eq!(lane.run(LANE_BYTES_MAX + 1, None, |_| Ok(2)).await.unwrap_err().code(), -32005);
        assert_eq!(lane.run(LANE_BYTES_MAX, None, |_| Ok(3)).await.unwrap(), 3);
    }

    #[tokio::test]
    async fn a_caller_that_leaves_cancels_its_job() {
        let lane = Lane::start("test", 1, 4).unwrap();
        let (sender, seen) = mpsc::sync_channel(1);
        let (started, running) = mpsc::sync_channel::<()>(1);
        let call = lane.run(0, None, move |cancel| {
            started.send(()).unwrap();
            while !cancel.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
            sender.send(true).unwrap();
            Ok(())
        });
        {
            tokio::pin!(call);
            assert!(futures_poll(call.as_mut()).is_none());
            running.recv().unwrap();
        }
        assert!(seen.recv().unwrap());
    }

    #[tokio::test]
    async fn time_runs_out() {
        let lane = Lane::start("test", 1, 4).unwrap();
        let endless = |cancel: &AtomicBool| {
            while !cancel.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
            Ok(())
        };
        let refusal = lane.run(0, Some(Duration::from_millis(1)), endless).await.unwrap_err();
        assert!(refusal.message().starts_with("execution aborted (timeout"), "{refusal:?}");
        assert_eq!(lane.run(0, None, |_| Ok(1)).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_panic_costs_one_answer_only() {
        let lane = Lane::start("test", 1, 4).unwrap();
        let refusal = lane.run::<()>(0, None, |_| panic!("a fault in a call")).await.unwrap_err();
        assert_eq!((refusal.code(), refusal.message()), (-32603, "internal error"));
        assert_eq!(lane.run(0, None, |_| Ok(1)).await.unwrap(), 1);
    }

    fn futures_poll<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        match future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }
}
