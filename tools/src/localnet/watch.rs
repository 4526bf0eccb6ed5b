//! Watches a local network while it runs: asks every node each second how it is.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use alloy_primitives::U64;
use net::rpc_client::{ClientError, RpcClient};
use serde::{Deserialize, Serialize};

use super::{
    record::{Network, Node},
    table::Row,
};

/// Longest wait for one answer; below the second between two looks.
const ANSWER_TIME_MAX: Duration = Duration::from_millis(900);

/// Looks that a rate is taken over.
const LOOKS_KEPT: usize = 6;

/// What `sluice_status` answers.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Status {
    height: U64,
    slot: U64,
    peers: U64,
    finality: Option<Finality>,
    /// Included since the node's start.
    transactions: U64,
}

/// Milliseconds from a block's proposal to its being final and durable here.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) struct Finality {
    p50: f64,
    p95: f64,
    p99: f64,
}

/// What is known of a node.
#[derive(Default)]
pub(super) struct Watched {
    client: Option<(String, RpcClient)>,
    pid: Option<u32>,
    /// It has a process.
    pub(super) is_alive: bool,
    /// Its process has answered; begins anew with another process.
    pub(super) has_answered: bool,
    status: Option<Status>,
    /// The newest answer, kept when none comes any more.
    last: Option<Status>,
    /// When it was looked at, and how much had been included by then.
    looks: VecDeque<(Instant, u64)>,
    /// Included while it was watched, over all its processes.
    included: u64,
}

/// What one node came to.
#[derive(Serialize)]
pub(super) struct Summary<'a> {
    name: &'a str,
    up: bool,
    height: Option<u64>,
    slot: Option<u64>,
    peers: Option<u64>,
    finality_ms: Option<Finality>,
    transactions: u64,
    transactions_per_second: f64,
}

/// Asks every node at once.
pub(super) async fn look(network: &Network, watched: &mut Vec<Watched>) {
    watched.resize_with(network.nodes.len(), Watched::default);
    let asked: Vec<_> = network
        .nodes
        .iter()
        .zip(watched.iter_mut())
        .map(|(node, watched)| watched.client(node).map(|client| tokio::spawn(ask(client))))
        .collect();
    for (watched, asked) in watched.iter_mut().zip(asked) {
        let answer = match asked {
            Some(asked) => asked.await.unwrap_or(Answer::Silence),
            None => Answer::Silence,
        };
        watched.hear(answer);
    }
}

/// What came of asking.
enum Answer {
    Silence,
    /// It answered, but not what was asked for.
    Words,
    Status(Box<Status>),
}

async fn ask(client: RpcClient) -> Answer {
    let nothing: [(); 0] = [];
    match tokio::time::timeout(ANSWER_TIME_MAX, client.call::<Status>("sluice_status", nothing)).await {
        Ok(Ok(status)) => Answer::Status(Box::new(status)),
        Ok(Err(ClientError::Call { .. } | ClientError::Answer(_))) => Answer::Words,
        Ok(Err(ClientError::Transport(_) | ClientError::Status(_))) | Err(_) => Answer::Silence,
    }
}

impl Watched {
    /// Takes over which process the node has; gives a client if it has one.
    fn client(&mut self, node: &Node) -> Option<RpcClient> {
        let alive = node.process.as_ref().filter(|process| process.is_alive());
        self.is_alive = alive.is_some();
        let pid = alive.map(|process| process.pid);
        if pid != self.pid {
            self.pid = pid;
            self.has_answered = false;
            self.looks.clear();
        }
        pid?;
        if self.client.as_ref().is_none_or(|(url, _)| *url != node.rpc) {
            self.client = RpcClient::new(&node.rpc).ok().map(|client| (node.rpc.clone(), client));
        }
        self.client.as_ref().map(|(_, client)| client.clone())
    }

    fn hear(&mut self, answer: Answer) {
        self.has_answered |= !matches!(answer, Answer::Silence);
        self.status = match answer {
            Answer::Status(status) => Some(*status),
            Answer::Words | Answer::Silence => None,
        };
        let Some(status) = &self.status else { return };
        let included = status.transactions.to::<u64>();
        // What a process included before it was first seen is not counted, unless it began while it was watched.
        let before = match (self.looks.back(), &self.last) {
            (Some((_, before)), _) => *before,
            (None, Some(_)) => 0,
            (None, None) => included,
        };
        self.included = self.included.saturating_add(included.saturating_sub(before));
        self.looks.push_back((Instant::now(), included));
        if self.looks.len() > LOOKS_KEPT {
            self.looks.pop_front();
        }
        self.last = Some(status.clone());
    }

    fn rate(&self) -> Option<f64> {
        let ((began, before), (ended, after)) = (self.looks.front()?, self.looks.back()?);
        let seconds = ended.duration_since(*began).as_secs_f64();
        (seconds > 0.0).then(|| float(after.saturating_sub(*before)) / seconds)
    }

    /// What a person sees.
    pub(super) fn row(&self, node: &Node) -> Row {
        let status = self.status.as_ref();
        let finality = status.and_then(|status| status.finality);
        Row {
            name: node.name.clone(),
            state: match (self.is_alive, status.is_some(), self.has_answered) {
                (false, ..) => "down",
                (true, true, _) => "up",
                (true, false, false) => "starting",
                (true, false, true) => "silent",
            },
            height: status.map(|status| status.height.to()),
            slot: status.map(|status| status.slot.to()),
            finality_p50: finality.map(|finality| finality.p50),
            finality_p99: finality.map(|finality| finality.p99),
            rate: status.and_then(|_| self.rate()),
            peers: status.map(|status| status.peers.to()),
            pid: self.pid,
        }
    }

    /// What it came to in so many seconds.
    pub(super) fn summary<'a>(&self, node: &'a Node, seconds: f64) -> Summary<'a> {
        let last = self.last.as_ref();
        Summary {
            name: &node.name,
            up: self.is_alive,
            height: last.map(|status| status.height.to()),
            slot: last.map(|status| status.slot.to()),
            peers: last.map(|status| status.peers.to()),
            finality_ms: last.and_then(|status| status.finality).map(Finality::rounded),
            transactions: self.included,
            transactions_per_second: if seconds > 0.0 { rounded(float(self.included) / seconds) } else { 0.0 },
        }
    }
}

impl Finality {
    fn rounded(self) -> Self {
        Self { p50: rounded(self.p50), p95: rounded(self.p95), p99: rounded(self.p99) }
    }
}

/// To one place behind the point: more would say nothing.
pub(super) fn rounded(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

fn float(count: u64) -> f64 {
    u32::try_from(count).map_or_else(|_| f64::from(u32::MAX), f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(transactions: u64) -> Answer {
        let text = format!(
            r#"{{"height":"0x10","epoch":"0x0","slot":"0x12","peers":"0x3","validator":true,
                "finality":{{"p50":61.5,"p95":80,"p99":120}},"transactions":"{transactions:#x}"}}"#
        );
        Answer::Status(Box::new(serde_json::from_str(&text).unwrap()))
    }

    #[test]
    fn what_is_included_is_counted_while_it_is_watched_and_over_restarts() {
        let mut watched = Watched::default();
        // It ran before it was watched.
        watched.hear(status(500));
        watched.hear(status(700));
        watched.hear(Answer::Silence);
        watched.hear(status(750));
        assert_eq!(watched.included, 250);
        // Another process counts from nothing.
        watched.looks.clear();
        watched.hear(status(30));
        watched.hear(status(40));
        assert_eq!(watched.included, 290);
    }

    #[test]
    fn a_node_that_stops_answering_is_silent_and_keeps_its_last_words() {
        let mut watched = Watched { is_alive: true, ..Watched::default() };
        let node = super::super::tests::node("validator-0");
        assert_eq!(watched.row(&node).state, "starting");
        watched.hear(status(5));
        let row = watched.row(&node);
        assert_eq!((row.state, row.height, row.slot, row.peers), ("up", Some(16), Some(18), Some(3)));
        assert_eq!((row.finality_p50, row.finality_p99), (Some(61.5), Some(120.0)));
        watched.hear(Answer::Silence);
        let row = watched.row(&node);
        assert_eq!((row.state, row.height), ("silent", None));
        assert_eq!(watched.summary(&node, 2.0).height, Some(16));
        watched.is_alive = false;
        assert_eq!(watched.row(&node).state, "down");
    }
}
