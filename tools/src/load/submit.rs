//! One connection: sends the transactions of its senders, each sender's in nonce order.
//!
//! Closed loop: as fast as answers come, with so many transactions of a sender under way. Open loop: each at
//! its own time; one that is late is not forgiven, its latency counts from when it was due.

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use alloy_primitives::{B256, hex};
use net::{
    client::Client,
    rpc_client::{ClientError, RpcClient},
};
use serde_json::json;

use super::board::Board;

/// Pause after a node said that it is full; doubles up to the longest.
const PAUSE: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Longest sleep between two looks at what may be sent.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Times a transaction is sent again after the connection broke.
const TRANSPORT_RETRIES_MAX: u32 = 5;

/// How a connection sends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Transactions per second of the whole drive; as fast as possible if `None`.
    pub(crate) rate: Option<u64>,
    /// Transactions in one request.
    pub(crate) batch: usize,
    /// Transactions of one sender under way; closed loop only.
    pub(crate) outstanding: u32,
    /// No transaction is sent after this time.
    pub(crate) duration: Option<Duration>,
}

impl Pace {
    /// When a transaction is meant to be sent, in open loop.
    pub(crate) fn due(&self, index: usize) -> Option<Duration> {
        let index = u128::try_from(index).unwrap_or(u128::MAX);
        let nanoseconds = index.saturating_mul(1_000_000_000) / u128::from(self.rate?.max(1));
        Some(Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX)))
    }
}

/// What became of a submission.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Accepted,
    /// The node has no room now.
    Full,
    /// It is not known whether the node got it.
    Broken,
    Refused(String),
}

/// Transactions of one sender that were not sent, by index.
type Queue = VecDeque<u32>;

/// What a connection sends over.
#[derive(Clone)]
pub(crate) enum Carrier {
    /// JSON-RPC over HTTP: each request waits for its answer.
    Rpc(RpcClient),
    /// QUIC: the board hears what becomes of what is sent.
    Quic(Client),
}

/// A connection with its senders.
pub(crate) struct Connection {
    carrier: Carrier,
    board: Arc<Board>,
    pace: Pace,
    queues: Vec<Queue>,
    /// Senders that may send, by the index of their next transaction.
    ready: BTreeSet<(u32, usize)>,
    /// Senders that wait for a block.
    waiting: Vec<usize>,
    /// Transactions of which nobody has said whether they are taken, when they were sent.
    unanswered: Vec<u32>,
    /// Transactions sent more than once.
    again: HashSet<u32>,
    pause: Duration,
    broken: u32,
}

impl Connection {
    pub(crate) fn new(carrier: Carrier, board: Arc<Board>, pace: Pace, queues: Vec<Queue>) -> Self {
        let heads = queues.iter().enumerate();
        let ready = heads.filter_map(|(sender, queue)| queue.front().map(|head| (*head, sender))).collect();
        let (waiting, unanswered, again) = (Vec::new(), Vec::new(), HashSet::new());
        Self { carrier, board, pace, queues, ready, waiting, unanswered, again, pause: PAUSE, broken: 0 }
    }

    /// Sends until nothing is left, the time is over or the drive is stopped.
    pub(crate) async fn run(mut self) {
        self.send_all().await;
        // Over QUIC answers come later.
        while let Some(last) = self.unanswered.last()
            && !self.board.stop.load(Ordering::Relaxed)
        {
            if self.board.is_answered(*last as usize) {
                self.unanswered.pop();
            } else {
                let _ = tokio::time::timeout(LOOK_EVERY, self.board.block_seen.notified()).await;
            }
        }
    }

    async fn send_all(&mut self) {
        loop {
            let elapsed = self.board.start.elapsed();
            let over = self.pace.duration.is_some_and(|duration| elapsed >= duration);
            if over || self.board.stop.load(Ordering::Relaxed) {
                return;
            }
            self.wake();
            let batch = self.take(elapsed);
            if !batch.is_empty() {
                self.send(batch).await;
            } else if self.ready.is_empty() && self.waiting.is_empty() {
                return;
            } else {
                self.rest(elapsed).await;
            }
        }
    }

    /// Makes senders ready whose transactions were included.
    fn wake(&mut self) {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.retain(|sender| {
            let Some(head) = self.queues[*sender].front() else { return false };
            if self.board.is_lost(self.board.transactions[*head as usize].from.index()) {
                self.queues[*sender].clear();
                return false;
            }
            let blocked = self.is_blocked(*head);
            if !blocked {
                self.ready.insert((*head, *sender));
            }
            blocked
        });
        self.waiting = waiting;
    }

    fn is_blocked(&self, head: u32) -> bool {
        let account = self.board.transactions[head as usize].from.index();
        self.pace.rate.is_none() && self.board.outstanding[account].load(Ordering::Relaxed) >= self.pace.outstanding
    }

    /// The next transactions that are due, in order.
    fn take(&mut self, elapsed: Duration) -> Vec<(u32, usize)> {
        let mut batch = Vec::with_capacity(self.pace.batch);
        while batch.len() < self.pace.batch {
            let Some((index, sender)) = self.ready.first().copied() else { break };
            if self.pace.due(index as usize).is_some_and(|due| due > elapsed) {
                break;
            }
            self.ready.pop_first();
            self.queues[sender].pop_front();
            self.board.outstanding[self.board.transactions[index as usize].from.index()]
                .fetch_add(1, Ordering::Relaxed);
            batch.push((index, sender));
            self.enqueue(sender);
        }
        batch
    }

    /// Puts a sender where its next transaction belongs.
    fn enqueue(&mut self, sender: usize) {
        if let Some(head) = self.queues[sender].front().copied() {
            if self.is_blocked(head) {
                self.waiting.push(sender);
            } else {
                self.ready.insert((head, sender));
            }
        }
    }

    async fn send(&mut self, batch: Vec<(u32, usize)>) {
        let now = self.board.start.elapsed();
        for (index, _) in &batch {
            self.board.sent[*index as usize].set(now);
        }
        match &self.carrier {
            Carrier::Rpc(client) => {
                let answers = call(client, &self.board, &batch).await;
                self.judge(batch, answers).await;
            }
            Carrier::Quic(client) => {
                let client = client.clone();
                for (index, sender) in batch {
                    match client.send(self.board.transactions[index as usize].raw.clone()).await {
                        Ok(_) => self.unanswered.push(index),
                        Err(error) => self.give_up(index, sender, error.to_string()),
                    }
                }
            }
        }
    }

    /// Looks at what a node answered.
    async fn judge(&mut self, batch: Vec<(u32, usize)>, answers: Vec<Result<B256, ClientError>>) {
        let mut back = Vec::new();
        let mut broken = false;
        for ((index, sender), answer) in batch.into_iter().zip(answers) {
            let expected = self.board.transactions[index as usize].hash;
            match verdict(&answer, expected, self.again.contains(&index)) {
                Verdict::Accepted => self.board.accept(index as usize),
                Verdict::Refused(reason) => self.give_up(index, sender, reason),
                Verdict::Broken if self.broken >= TRANSPORT_RETRIES_MAX => {
                    self.give_up(index, sender, answer.err().map(|e| e.to_string()).unwrap_or_default());
                }
                verdict => {
                    broken |= verdict == Verdict::Broken;
                    back.push((index, sender));
                }
            }
        }
        self.broken = if broken { self.broken + 1 } else { 0 };
        self.retry(back).await;
    }

    /// Puts refused transactions back at the head of their senders' queues, and pauses.
    async fn retry(&mut self, back: Vec<(u32, usize)>) {
        if back.is_empty() {
            self.pause = PAUSE;
            return;
        }
        let senders: BTreeSet<usize> = back.iter().map(|(_, sender)| *sender).collect();
        self.ready.retain(|(_, sender)| !senders.contains(sender));
        self.waiting.retain(|sender| !senders.contains(sender));
        for (index, sender) in back.into_iter().rev() {
            self.board.release(index as usize);
            self.board.retries.fetch_add(1, Ordering::Relaxed);
            self.again.insert(index);
            self.queues[sender].push_front(index);
        }
        for sender in senders {
            self.enqueue(sender);
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }

    /// A refused transaction leaves a gap, so nothing of its sender can follow.
    fn give_up(&mut self, index: u32, sender: usize, reason: String) {
        self.board.release(index as usize);
        self.board.refuse(&reason);
        self.queues[sender].clear();
        self.ready.retain(|(_, other)| *other != sender);
        self.waiting.retain(|other| *other != sender);
    }

    /// Sleeps until the next transaction is due or a block was seen.
    async fn rest(&self, elapsed: Duration) {
        let due = self.ready.first().and_then(|(index, _)| self.pace.due(*index as usize));
        let sleep = due.map_or(LOOK_EVERY, |due| due.saturating_sub(elapsed).min(LOOK_EVERY));
        let _ = tokio::time::timeout(sleep, self.board.block_seen.notified()).await;
    }
}

const METHOD: &str = "eth_sendRawTransaction";

/// Sends transactions in one request.
async fn call(client: &RpcClient, board: &Board, batch: &[(u32, usize)]) -> Vec<Result<B256, ClientError>> {
    let raws: Vec<String> =
        batch.iter().map(|(index, _)| hex::encode_prefixed(&board.transactions[*index as usize].raw)).collect();
    if let [raw] = raws.as_slice() {
        return vec![client.call(METHOD, (raw,)).await];
    }
    let calls = raws.iter().map(|raw| (METHOD, json!([raw]))).collect();
    let parse = |value| serde_json::from_value(value).map_err(|e| ClientError::Answer(e.to_string()));
    client.batch(calls).await.into_iter().map(|answer| answer.and_then(parse)).collect()
}

/// JSON-RPC code of geth and others for a limit that was reached.
const LIMIT_EXCEEDED: i64 = -32005;

fn verdict(answer: &Result<B256, ClientError>, expected: B256, again: bool) -> Verdict {
    match answer {
        Ok(hash) if *hash == expected => Verdict::Accepted,
        Ok(hash) => Verdict::Refused(format!("the node answered with another hash: {hash} for {expected}")),
        Err(ClientError::Call { code, message, .. }) => {
            let words = message.to_lowercase();
            let says = |parts: &[&str]| parts.iter().any(|part| words.contains(part));
            if again && says(&["already known", "already imported", "known transaction", "nonce too low"]) {
                Verdict::Accepted
            } else if *code == LIMIT_EXCEEDED || says(&["full", "limit exceeded", "too many", "nonce too high"]) {
                Verdict::Full
            } else {
                Verdict::Refused(words)
            }
        }
        Err(_) => Verdict::Broken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: i64, message: &str) -> Result<B256, ClientError> {
        Err(ClientError::Call { code, message: message.to_owned(), data: None })
    }

    #[test]
    fn full_pools_are_tried_again_and_other_refusals_are_not() {
        let verdict = |answer| verdict(&answer, B256::ZERO, false);
        assert_eq!(verdict(Ok(B256::ZERO)), Verdict::Accepted);
        assert_eq!(verdict(error(-32000, "txpool is full")), Verdict::Full);
        assert_eq!(verdict(error(-32005, "busy")), Verdict::Full);
        assert_eq!(verdict(error(-32000, "account limit exceeded: 9 transactions wait")), Verdict::Full);
        assert_eq!(verdict(Err(ClientError::Status(502))), Verdict::Broken);
        assert!(matches!(verdict(error(-32000, "already known")), Verdict::Refused(_)));
        assert!(matches!(verdict(error(-32000, "insufficient funds")), Verdict::Refused(_)));
        assert!(matches!(verdict(Ok(B256::repeat_byte(1))), Verdict::Refused(_)));
    }

    #[test]
    fn a_transaction_sent_again_may_be_known() {
        assert_eq!(verdict(&error(-32000, "already known"), B256::ZERO, true), Verdict::Accepted);
        assert_eq!(verdict(&error(-32000, "nonce too low: next 5"), B256::ZERO, true), Verdict::Accepted);
    }

    #[test]
    fn arrivals_are_evenly_spaced_and_do_not_drift() {
        let pace = Pace { rate: Some(3), batch: 1, outstanding: 1, duration: None };
        assert_eq!(pace.due(0), Some(Duration::ZERO));
        assert_eq!(pace.due(3_000_000), Some(Duration::from_secs(1_000_000)));
        assert_eq!(Pace { rate: None, ..pace }.due(5), None);
    }
}
