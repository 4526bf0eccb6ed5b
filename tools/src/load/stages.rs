//! How long transactions spent in the stages of the nodes, by their own metrics.

use std::collections::BTreeMap;

use engine::{metrics::STAGE_SECONDS, spans::STAGES};
use eyre::{WrapErr as _, ensure};
use serde::Serialize;

use super::report::{float, ratio};

/// What nodes counted of one stage, since they were started.
#[derive(Clone, Debug, Default, PartialEq)]
struct Counted {
    seconds: f64,
    transactions: u64,
    /// Transactions up to each bound, by the bound's bits; bounds are positive, so those are in order.
    up_to: BTreeMap<u64, u64>,
}

/// What nodes counted of all stages.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Stages(BTreeMap<&'static str, Counted>);

/// A stage in a report.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct StageReport {
    pub(crate) stage: &'static str,
    /// Transactions that passed it, at each of the nodes.
    pub(crate) transactions: u64,
    pub(crate) mean_ms: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

impl Stages {
    /// Reads the metrics of these nodes and adds them up.
    pub(crate) async fn read(urls: &[String]) -> eyre::Result<Self> {
        let mut all = Self::default();
        for url in urls {
            let words = || format!("cannot read the metrics of {url}");
            let answer = reqwest::get(url).await.and_then(reqwest::Response::error_for_status).wrap_err_with(words)?;
            all.add(&answer.text().await.wrap_err_with(words)?);
        }
        Ok(all)
    }

    /// Adds what a text in Prometheus' format says; its other lines are passed over.
    fn add(&mut self, text: &str) {
        for line in text.lines() {
            let Some((name, labels, value)) = line.strip_prefix(STAGE_SECONDS).and_then(split) else { continue };
            let Some(stage) = STAGES.iter().find(|stage| label(labels, "stage") == Some(**stage)) else { continue };
            let counted = self.0.entry(stage).or_default();
            match name {
                "_sum" => counted.seconds += value.parse::<f64>().unwrap_or_default(),
                "_count" => counted.transactions += value.parse::<u64>().unwrap_or_default(),
                "_bucket" => {
                    let bound = label(labels, "le").and_then(|bound| bound.parse::<f64>().ok());
                    if let Some(bound) = bound.filter(|bound| bound.is_finite()) {
                        *counted.up_to.entry(bound.to_bits()).or_default() += value.parse::<u64>().unwrap_or_default();
                    }
                }
                _ => {}
            }
        }
    }

    /// What came since then, in the order of the stages.
    pub(crate) fn since(&self, before: &Self) -> eyre::Result<Vec<StageReport>> {
        ensure!(!self.0.is_empty(), "the metrics say nothing of stages: start the node with --stages");
        let none = Counted::default();
        let report = |stage: &&'static str| {
            let (now, before) = (self.0.get(stage)?, before.0.get(stage).unwrap_or(&none));
            let transactions = now.transactions.saturating_sub(before.transactions);
            let quantile = |part: f64| now.quantile(before, part * float(transactions)) * 1e3;
            (transactions > 0).then(|| StageReport {
                stage,
                transactions,
                mean_ms: ratio((now.seconds - before.seconds) * 1e3, float(transactions)),
                p50_ms: quantile(0.5),
                p99_ms: quantile(0.99),
            })
        };
        Ok(STAGES.iter().filter_map(report).collect())
    }
}

impl Counted {
    /// The time in seconds below which so many lie that came since then; between two bounds they are taken to lie
    /// evenly, and above the last one at it.
    fn quantile(&self, before: &Self, wanted: f64) -> f64 {
        let (mut low, mut below) = (0.0, 0.0);
        for (bits, count) in &self.up_to {
            let count = float(count.saturating_sub(before.up_to.get(bits).copied().unwrap_or_default()));
            let bound = f64::from_bits(*bits);
            if count >= wanted && count > below {
                return low + (bound - low) * (wanted - below) / (count - below);
            }
            (low, below) = (bound, count);
        }
        low
    }
}

/// Name, labels and value of a line such as `name{label="word"} 3`.
fn split(line: &str) -> Option<(&str, &str, &str)> {
    let (name, rest) = line.split_once('{')?;
    let (labels, value) = rest.split_once('}')?;
    Some((name, labels, value.trim()))
}

/// The value of a label; of those that are looked for here none holds a comma or a quotation mark.
fn label<'t>(labels: &'t str, name: &str) -> Option<&'t str> {
    let of = |pair: &'t str| pair.trim().strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"');
    labels.split(',').find_map(of)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(counts: [u64; 2], sum: f64) -> String {
        let [low, all] = counts;
        format!(
            "# TYPE engine_stage_seconds histogram\nengine_height 7\nother{{stage=\"vote\"}} 9\n\
             engine_stage_seconds_bucket{{stage=\"vote\",le=\"0.1\"}} {low}\n\
             engine_stage_seconds_bucket{{stage=\"vote\",le=\"0.3\"}} {all}\n\
             engine_stage_seconds_bucket{{stage=\"vote\",le=\"+Inf\"}} {all}\n\
             engine_stage_seconds_sum{{stage=\"vote\"}} {sum}\nengine_stage_seconds_count{{stage=\"vote\"}} {all}\n\
             engine_stage_seconds_count{{stage=\"nothing\"}} 3\n"
        )
    }

    #[test]
    fn what_came_since_is_reported() {
        let (mut before, mut now) = (Stages::default(), Stages::default());
        before.add(&text([10, 20], 1.0));
        now.add(&text([110, 220], 31.0));
        let reports = now.since(&before).unwrap();
        let [StageReport { stage, transactions, mean_ms, p50_ms, p99_ms }] = &reports[..] else {
            panic!("{reports:?}")
        };
        assert_eq!((*stage, *transactions), ("vote", 200));
        let near = |figure: f64, wanted: f64| (figure - wanted).abs() < 1e-6;
        assert!(near(*mean_ms, 150.0) && near(*p50_ms, 100.0) && near(*p99_ms, 100.0 + 200.0 * 0.98), "{reports:?}");
    }

    #[test]
    fn metrics_without_stages_are_named_as_such() {
        let mut now = Stages::default();
        now.add("engine_height 7\nother{stage=\"vote\"} 9\n");
        assert!(now.since(&Stages::default()).unwrap_err().to_string().contains("--stages"));
    }
}
