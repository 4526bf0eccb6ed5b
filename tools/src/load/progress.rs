//! How far a run is: a bar on a terminal, a line now and then elsewhere.

use std::{
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Progress of one part of a run.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    name: &'static str,
    total: u64,
    began: Instant,
    last: Instant,
}

impl Progress {
    pub(crate) fn new(name: &'static str, total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{prefix:8} {bar:40} {pos}/{len} {per_sec} {msg} eta {eta}");
            let bar = ProgressBar::new(total).with_prefix(name);
            match style {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        });
        Self { bar, name, total, began: Instant::now(), last: Instant::now() }
    }

    /// Shows how many transactions were accepted and included.
    pub(crate) fn show(&mut self, accepted: u64, included: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(included);
            bar.set_message(format!("{} waiting", accepted.saturating_sub(included)));
        } else if self.last.elapsed() >= LINE_EVERY {
            self.last = Instant::now();
            let seconds = self.began.elapsed().as_secs();
            eprintln!("{}: {seconds} s, {accepted} accepted, {included} of {} included", self.name, self.total);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
