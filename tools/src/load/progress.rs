//! How a run goes: a bar with the figures of the last second on a terminal, a line now and then elsewhere.

use std::{
    io::IsTerminal as _,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};

use super::report::{float, ratio};

/// Between two looks at the figures on a terminal, and between two lines elsewhere.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Longest latency that is told from longer ones, in microseconds.
const LATENCY_US_MAX: u64 = 3_600_000_000;

/// Latencies since somebody last looked.
#[derive(Debug)]
pub(crate) struct Recent(Mutex<Histogram<u64>>);

impl Default for Recent {
    fn default() -> Self {
        Self(Mutex::new(Histogram::new_with_bounds(1, LATENCY_US_MAX, 2).expect("bounds that a histogram can have")))
    }
}

impl Recent {
    pub(crate) fn add(&self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(micros.max(1));
    }

    /// How long half of them took, and 99 in 100, in milliseconds.
    fn take(&self) -> (f64, f64) {
        let mut latencies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = |quantile| float(latencies.value_at_quantile(quantile)) / 1_000.0;
        let taken = (at(0.5), at(0.99));
        latencies.reset();
        taken
    }
}

/// Where a run is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Standing {
    pub(crate) accepted: u64,
    pub(crate) included: u64,
    pub(crate) height: u64,
}

/// Progress of one part of a run.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    name: &'static str,
    total: u64,
    began: Instant,
    last: (Instant, Standing),
}

impl Progress {
    pub(crate) fn new(name: &'static str, total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{prefix:8} {bar:30} {pos}/{len} {msg} eta {eta}");
            let bar = ProgressBar::new(total).with_prefix(name);
            match style {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        });
        Self { bar, name, total, began: Instant::now(), last: (Instant::now(), Standing::default()) }
    }

    /// Shows where it is, and from time to time what it was like since the last time.
    pub(crate) fn show(&mut self, now: Standing, latencies: &Recent) {
        if let Some(bar) = &self.bar {
            bar.set_position(now.included);
        }
        let (last, before) = self.last;
        let since = last.elapsed();
        if since < if self.bar.is_some() { LOOK_EVERY } else { LINE_EVERY } {
            return;
        }
        self.last = (Instant::now(), now);
        let rate = |now: u64, before: u64| ratio(float(now.saturating_sub(before)), since.as_secs_f64());
        let (p50, p99) = latencies.take();
        let figures = format!(
            "{:.0} accepted/s, {:.0} included/s, p50 {p50:.0}, p99 {p99:.0} ms, {} waiting, height {}",
            rate(now.accepted, before.accepted),
            rate(now.included, before.included),
            now.accepted.saturating_sub(now.included),
            now.height,
        );
        match &self.bar {
            Some(bar) => bar.set_message(figures),
            None => {
                let seconds = self.began.elapsed().as_secs();
                eprintln!("{}: {seconds} s, {} of {} included; {figures}", self.name, now.included, self.total);
            }
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
