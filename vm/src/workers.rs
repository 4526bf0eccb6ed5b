//! The room's threads: started once, parked when idle, borrowed for one block at a time.

use std::sync::{Mutex, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

/// Threads that are started to read state where reads are slow: one that waits for the disk needs no core, and a disk
/// serves many at once.
const READERS: usize = 30;
/// Places that are worth starting a thread to read.
const READER_WORTH: usize = 64;
/// Reads are slow if no more were begun while a thread woke up, some 50 microseconds.
const READ_WHILE_WAKING_MAX: usize = 32;

/// Threads that work on one block together with the caller.
#[derive(Debug)]
pub struct Workers {
    /// `None` for one thread: the caller alone.
    pool: Option<ThreadPool>,
    threads: usize,
}

impl Workers {
    /// The caller alone.
    #[must_use]
    pub const fn alone() -> Self {
        Self { pool: None, threads: 1 }
    }

    /// Threads in all, the caller's own included; at least 1.
    ///
    /// # Errors
    /// The system starts no more threads.
    pub fn new(threads: usize) -> Result<Self, ThreadPoolBuildError> {
        let threads = threads.max(1);
        let name = |at| format!("vm-{at}");
        let pool = match threads {
            1 => None,
            more => Some(ThreadPoolBuilder::new().num_threads(more.saturating_sub(1)).thread_name(name).build()?),
        };
        Ok(Self { pool, threads })
    }

    /// Threads in all.
    #[must_use]
    pub const fn threads(&self) -> usize {
        self.threads
    }

    /// Runs `lane` here and `help` on every other thread; returns when all are done.
    pub(crate) fn run_beside<R>(&self, help: &(dyn Fn() + Sync), lane: impl FnOnce() -> R) -> R {
        match &self.pool {
            None => lane(),
            Some(pool) => pool.in_place_scope(|scope| {
                for _ in 1..self.threads {
                    scope.spawn(|_| help());
                }
                lane()
            }),
        }
    }

    /// Does `there` on another thread while `here` is done on this one; what nobody has begun by then is done here.
    pub(crate) fn beside<A: Send, B>(&self, there: impl FnOnce() -> A + Send, here: impl FnOnce() -> B) -> (A, B) {
        let Some(pool) = &self.pool else { return (there(), here()) };
        let (waiting, done) = (Mutex::new(Some(there)), Mutex::new(None));
        let take = || {
            // Apart from the work, so that the lock is free while it is done.
            let work = waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(work) = work {
                *done.lock().unwrap_or_else(PoisonError::into_inner) = Some(work());
            }
        };
        let own = pool.in_place_scope(|scope| {
            scope.spawn(|_| take());
            let own = here();
            take();
            own
        });
        let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        // The scope ends with both done, or passes the panic of either on.
        (done.expect("one of the two has taken it"), own)
    }

    /// Reads on every thread, and on many more if reads are slow: by the time a thread is awake it can tell.
    pub(crate) fn read(&self, reading: &Reading<'_>) {
        let Reading { work, claimed, all } = *reading;
        let before = claimed();
        let help = || {
            if claimed().saturating_sub(before) >= READ_WHILE_WAKING_MAX {
                return work();
            }
            std::thread::scope(|scope| {
                for _ in 0..READERS.div_ceil(self.threads.saturating_sub(1).max(1)) {
                    if claimed().saturating_add(READER_WORTH) >= all {
                        break;
                    }
                    // A system that starts no more threads lets those read that there are.
                    if std::thread::Builder::new().spawn_scoped(scope, work).is_err() {
                        break;
                    }
                }
                work();
            });
        };
        self.run_beside(&help, work);
    }

    /// Runs `work` on every thread at once and returns when all are done.
    pub fn run(&self, work: &(dyn Fn() + Sync)) {
        match &self.pool {
            None => work(),
            Some(pool) => pool.in_place_scope(|scope| {
                for _ in 1..self.threads {
                    scope.spawn(|_| work());
                }
                work();
            }),
        }
    }
}

/// Something to read on several threads.
#[derive(Clone, Copy)]
pub(crate) struct Reading<'r> {
    /// Reads until nothing is left.
    pub(crate) work: &'r (dyn Fn() + Sync),
    /// How much has been claimed so far.
    pub(crate) claimed: &'r (dyn Fn() -> usize + Sync),
    /// How much there is.
    pub(crate) all: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_beside_is_done_once_whoever_begins_it() {
        for threads in [1, 2, 4] {
            let workers = Workers::new(threads).unwrap();
            for number in 0..200 {
                let mut here = 0;
                let (there, own) = workers.beside(|| number * 2, || here = number);
                assert_eq!((there, own, here), (number * 2, (), number));
            }
        }
    }
}
