//! Logs for people and machines, and the metrics port.

use std::{io::IsTerminal as _, net::SocketAddr, thread, time::Duration};

use eyre::WrapErr;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use tracing_subscriber::EnvFilter;

/// Seconds between two exports of the counters that rooms keep in atomics.
const EXPORT_EVERY: Duration = Duration::from_millis(500);

/// Starts logging to standard error.
pub(crate) fn logs(filter: &str, json: bool) -> eyre::Result<()> {
    let filter = EnvFilter::try_new(filter).wrap_err("--log")?;
    // A log that cannot be written must not end the node.
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false);
    if json {
        builder.json().flatten_event(true).init();
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).init();
    }
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
    engine::metrics::export();
    storage::metrics::export();
    vm::metrics::export();
    net::metrics::export();
}
