//! Between transport and methods: counts, times, and answers batches.
//!
//! The calls of a batch run in order, except that a run of `eth_sendRawTransaction` is handed to
//! admission as a whole before its first answer is awaited. The bytes of the answers are counted as
//! they come; once they are too many, the remaining calls are not run.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use ::metrics::{Counter, Histogram, counter, histogram};
use jsonrpsee::{
    BatchResponseBuilder, MethodResponse,
    core::middleware::{Batch, BatchEntry, Notification, RpcServiceT},
    server::ResponsePayload,
    types::{Id, Params, Request},
};

use super::{
    Node,
    connection::{Connection, NoAnswer, Transport},
    error::{self, Refusal},
    methods::Group,
    send::Sending,
};
use crate::metrics;

const SEND: &str = "eth_sendRawTransaction";
const SUBSCRIBE: &str = "eth_subscribe";
const UNSUBSCRIBE: &str = "eth_unsubscribe";

/// How long an id may be unknown after it was given out.
const SUBSCRIBING: Duration = Duration::from_millis(20);

/// Bytes an answer takes besides its result, from above; keeps errors sendable when results are not.
const ENVELOPE_BYTES: usize = 512;

/// The counters of one method.
struct Meter {
    calls: Counter,
    errors: Counter,
    seconds: Histogram,
}

/// Counters of every method there may be.
pub(super) struct Meters {
    by_name: HashMap<&'static str, Meter>,
    unknown: Meter,
}

impl Meters {
    /// Makes all counters once, for the methods this node has.
    pub(super) fn new(methods: impl Iterator<Item = &'static str>) -> Self {
        let meter = |name: &'static str| Meter {
            calls: counter!(metrics::RPC_REQUEST, "method" => name),
            errors: counter!(metrics::RPC_ERROR, "method" => name),
            seconds: histogram!(metrics::RPC_REQUEST_SECONDS, "group" => Group::of(name).name()),
        };
        Self { by_name: methods.map(|name| (name, meter(name))).collect(), unknown: meter("unknown") }
    }
}

impl Meter {
    fn answered(&self, start: Instant, response: &MethodResponse) {
        self.calls.increment(1);
        if response.is_error() {
            self.errors.increment(1);
        }
        self.seconds.record(start.elapsed().as_secs_f64());
    }
}

/// Wraps the dispatcher of one connection.
#[derive(Clone)]
pub(super) struct Metered<S> {
    /// The dispatcher.
    pub(super) inner: S,
    /// The counters.
    pub(super) meters: Arc<Meters>,
    /// The node behind the methods.
    pub(super) node: Arc<Node>,
}

impl<S> RpcServiceT for Metered<S>
where
    S: RpcServiceT<MethodResponse = MethodResponse> + Clone + Send + Sync + 'static,
{
    type MethodResponse = MethodResponse;
    type NotificationResponse = MethodResponse;
    type BatchResponse = MethodResponse;

    fn call<'a>(&self, request: Request<'a>) -> impl Future<Output = MethodResponse> + Send + 'a {
        let this = self.clone();
        async move {
            let connection = request.extensions().get::<Arc<Connection>>().cloned();
            let _under_way = connection.as_ref().map(|connection| connection.begin(held_bytes(&request)));
            this.in_turn(connection.as_ref(), request).await
        }
    }

    fn batch<'a>(&self, batch: Batch<'a>) -> impl Future<Output = MethodResponse> + Send + 'a {
        let this = self.clone();
        async move {
            let calls = || batch.iter().filter_map(|entry| entry.as_ref().ok());
            let connection = calls().find_map(|entry| entry.extensions().get::<Arc<Connection>>()).cloned();
            let bytes = calls().fold(0, |sum: usize, entry| match entry {
                BatchEntry::Call(request) => sum.saturating_add(held_bytes(request)),
                BatchEntry::Notification(_) => sum,
            });
            let _under_way = connection.as_ref().map(|connection| connection.begin(bytes));
            let _turn = match &connection {
                Some(connection) => match connection.turn().await {
                    Some(turn) => Some(turn),
                    None => return no_answer(),
                },
                None => None,
            };
            let response = this.answer_batch(batch).await;
            if let Some(connection) = &connection {
                connection.answered(response.as_json().get().len());
            }
            response
        }
    }

    /// A call without an id wants no answer, and no method here is worth running without one.
    fn notification<'a>(&self, _: Notification<'a>) -> impl Future<Output = MethodResponse> + Send + 'a {
        std::future::ready(no_answer())
    }
}

impl<S> Metered<S>
where
    S: RpcServiceT<MethodResponse = MethodResponse> + Clone + Send + Sync + 'static,
{
    /// Answers a call when its connection has room for another answer; a call that waits for the chain or for
    /// admission has a small answer and takes no turn, or a few of them would hold up all others.
    async fn in_turn(&self, connection: Option<&Arc<Connection>>, request: Request<'_>) -> MethodResponse {
        let Some(connection) = connection else { return self.answer(request).await };
        let turn = if Group::of(&request.method) == Group::Send { None } else { Some(connection.turn().await) };
        if turn.as_ref().is_some_and(Option::is_none) {
            return MethodResponse::error(request.id, error::busy());
        }
        let response = self.answer(request).await;
        connection.answered(response.as_json().get().len());
        response
    }

    async fn answer(&self, request: Request<'_>) -> MethodResponse {
        let start = Instant::now();
        let Some(meter) = self.meters.by_name.get(request.method.as_ref()) else {
            let response = MethodResponse::error(request.id, error::unknown_method(&request.method));
            self.meters.unknown.answered(start, &response);
            return response;
        };
        let subscribes = matches!(request.method.as_ref(), SUBSCRIBE | UNSUBSCRIBE);
        let response = if subscribes && request.extensions().get() != Some(&Transport::WebSocket) {
            MethodResponse::error(request.id, error::no_notifications())
        } else if request.method == UNSUBSCRIBE {
            self.unsubscribe(request).await
        } else {
            self.inner.call(request).await
        };
        meter.answered(start, &response);
        response
    }

    /// The dispatcher sends the answer to a subscription before it knows the id itself, so a quick client could be
    /// told that there is no such subscription, and keep it for ever.
    async fn unsubscribe(&self, request: Request<'_>) -> MethodResponse {
        let first = self.inner.call(request.clone()).await;
        if first.as_json().get().contains("\"result\":true") {
            return first;
        }
        tokio::time::sleep(SUBSCRIBING).await;
        self.inner.call(request).await
    }

    async fn answer_batch(&self, batch: Batch<'_>) -> MethodResponse {
        let mut answers = Answers::new(self.node.response_bytes_max(), batch.len());
        let mut sends = Sends::default();
        for entry in batch {
            match entry {
                Ok(BatchEntry::Call(request)) if request.method == SEND => {
                    sends.start(&self.node, request, answers.is_full());
                }
                Ok(BatchEntry::Call(request)) => {
                    sends.finish(self, &mut answers).await;
                    let response = if answers.is_full() {
                        MethodResponse::error(request.id, error::too_large())
                    } else if request.method == SUBSCRIBE {
                        // Its answer goes out by itself, before the first notification.
                        MethodResponse::error(request.id, error::refused("subscriptions cannot be made in a batch"))
                    } else {
                        self.answer(request).await
                    };
                    answers.add(response);
                }
                Ok(BatchEntry::Notification(_)) => answers.silent = true,
                Err(error) => {
                    sends.finish(self, &mut answers).await;
                    let (error, id) = error.into_parts();
                    answers.add(MethodResponse::error(id, error));
                }
            }
        }
        sends.finish(self, &mut answers).await;
        answers.finish()
    }
}

/// Bytes that a request keeps while it is under way.
fn held_bytes(request: &Request<'_>) -> usize {
    let params = request.params.as_ref().map_or(0, |params| params.get().len());
    params.saturating_add(request.method.len())
}

/// What calls without ids are answered with: nothing, and a mark for the door that says so.
fn no_answer() -> MethodResponse {
    let mut response = MethodResponse::notification();
    response.extensions_mut().insert(NoAnswer);
    response
}

/// Sends of a batch that admission has, oldest first.
#[derive(Default)]
struct Sends<'a>(VecDeque<(Id<'a>, Instant, Result<Sending, Refusal>)>);

impl<'a> Sends<'a> {
    fn start(&mut self, node: &Node, request: Request<'a>, full: bool) {
        let start = Instant::now();
        let sending = if full {
            Err(error::too_large())
        } else {
            node.start_send(&Params::new(request.params.as_ref().map(|params| params.get())))
        };
        self.0.push_back((request.id, start, sending));
    }

    async fn finish<S>(&mut self, metered: &Metered<S>, answers: &mut Answers) {
        while let Some((id, start, sending)) = self.0.pop_front() {
            let sent = match sending {
                Ok(sending) => sending.admitted().await,
                Err(refusal) => Err(refusal),
            };
            let response = match sent {
                Ok(hash) => MethodResponse::response(id, ResponsePayload::success(hash), usize::MAX),
                Err(refusal) => MethodResponse::error(id, refusal),
            };
            if let Some(meter) = metered.meters.by_name.get(SEND) {
                meter.answered(start, &response);
            }
            answers.add(response);
        }
    }
}

/// The answers of a batch so far.
struct Answers {
    builder: BatchResponseBuilder,
    bytes: usize,
    bytes_max: usize,
    silent: bool,
}

impl Answers {
    fn new(bytes_max: usize, calls: usize) -> Self {
        // Room for an error in place of each answer that no longer fits.
        let room = bytes_max.saturating_mul(2).saturating_add(calls.saturating_mul(ENVELOPE_BYTES));
        Self { builder: BatchResponseBuilder::new_with_limit(room), bytes: 0, bytes_max, silent: false }
    }

    /// Whether no further answer may be added, only errors that say so.
    const fn is_full(&self) -> bool {
        self.bytes >= self.bytes_max
    }

    fn add(&mut self, response: MethodResponse) {
        self.bytes = self.bytes.saturating_add(response.as_json().get().len());
        if self.builder.append(response).is_err() {
            self.bytes = self.bytes_max;
        }
    }

    fn finish(self) -> MethodResponse {
        if self.builder.is_empty() && self.silent {
            no_answer()
        } else {
            MethodResponse::from_batch(self.builder.finish())
        }
    }
}
