//! Logs for people and machines, and the metrics port.

use std::{io::IsTerminal as _, net::SocketAddr, thread, time::Duration};

use engine::{metrics, spans};
use eyre::WrapErr;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use tracing::Level;
use tracing_subscriber::{
    EnvFilter, Layer as _, filter::Targets, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::stages::{self, StageTimes};

/// Seconds between two exports of the counters that rooms keep in atomics.
const EXPORT_EVERY: Duration = Duration::from_millis(500);

/// Starts logging to standard error, and measuring the engine's stages if that is wanted.
pub(crate) fn logs(filter: &str, json: bool, stages: bool) -> eyre::Result<()> {
    let filter = EnvFilter::try_new(filter).wrap_err("--log")?;
    // A log that cannot be written must not end the node.
    let lines = fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    let lines = if json {
        lines.json().flatten_event(true).boxed()
    } else {
        lines.with_ansi(std::io::stderr().is_terminal()).with_target(false).boxed()
    };
    let times = stages.then(|| StageTimes.with_filter(Targets::new().with_target(spans::TARGET, Level::DEBUG)));
    tracing_subscriber::registry().with(times).with(lines.with_filter(filter)).init();
    Ok(())
}

/// Serves Prometheus metrics; must be called inside the runtime.
pub(crate) fn metrics(address: SocketAddr) -> eyre::Result<()> {
    PrometheusBuilder::new()
        .with_http_listener(address)
        .set_buckets_for_metric(
            Matcher::Suffix("_seconds".to_owned()),
            &[0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0],
        )?
        .set_buckets_for_metric(Matcher::Full(metrics::STAGE_SECONDS.to_owned()), &stages::buckets())?
        .install()
        .wrap_err_with(|| format!("cannot serve metrics on {address}"))?;
    thread::Builder::new()
        .name("metrics".to_owned())
        .spawn(|| {
            loop {
                export();
                thread::sleep(EXPORT_EVERY);
            }
        })
        .wrap_err("cannot start the metrics thread")?;
    Ok(())
}

fn export() {
    metrics::export();
    storage::metrics::export();
    vm::metrics::export();
    net::metrics::export();
}
