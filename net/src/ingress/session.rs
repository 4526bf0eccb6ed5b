//! One client at work: what it submits, what it is told, and when it is cut.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use alloy_primitives::{B256, Bytes};
use engine::{
    admission::AdmissionError,
    limits::TRANSACTION_BYTES_MAX,
    types::{CommittedBlock, LogFilter, RawTransaction},
};
use parking_lot::Mutex;
use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::{
    runtime::Handle,
    sync::{Mutex as AsyncMutex, Notify, OwnedSemaphorePermit, broadcast::error::RecvError},
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    Found, Shared,
    backlog::Inside,
    limits::{
        EVENTS_AHEAD, EVENTS_APART, EVENTS_REST, EVENTS_REST_BUSY, OUTSTANDING_MAX, PIECE_TIME_MAX,
        SMALL_PIECE_BYTES_MAX, UNREAD_BYTES_MAX,
    },
    places::Share,
    wire::{self, Cutter, Event, FoundLog, Head, Question, Reason, WireError},
};
use crate::transport::record::NodeId;

/// Bytes that are read at a time.
const READ_BYTES_MAX: usize = 64 * 1024;

/// Why a connection ends, as the client reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// The node stops.
    Stopping = 0,
    /// No place is free.
    Full = 1,
    /// It sent what no client sends.
    Malformed = 2,
    /// It does not read what it is told.
    Slow = 3,
    /// What it began to send did not end in time.
    Late = 4,
    /// Its certificate is over no Ed25519 key.
    Key = 5,
}

impl Close {
    pub(super) fn close(self, connection: &Connection, reason: &str) {
        connection.close(VarInt::from_u32(self as u32), reason.as_bytes());
    }
}

/// A client's connection, for whoever tells it something.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) identity: NodeId,
    pub(super) connection: Connection,
    pub(super) share: Share,
    /// Whose turn it is to wait for others: one stream's, so that many streams get no more than one.
    turn: AsyncMutex<()>,
    /// Who may have begun a long piece.
    long: AsyncMutex<()>,
    /// Transactions that wait to be included.
    outstanding: AtomicUsize,
    unread: Mutex<Vec<u8>>,
    told: Notify,
}

/// Room of one transaction on its way into the pool.
type Room = (OwnedSemaphorePermit, OwnedSemaphorePermit);

impl Session {
    pub(super) fn new(identity: NodeId, connection: Connection, share: Share) -> Self {
        let (turn, long, outstanding, unread, told) = Default::default();
        Self { identity, connection, share, turn, long, outstanding, unread, told }
    }

    /// Tells the client; one that has not read too much of what it was told is cut.
    pub(super) fn tell(&self, event: &Event) {
        let mut unread = self.unread.lock();
        if unread.len() > UNREAD_BYTES_MAX {
            drop(unread);
            return Close::Slow.close(&self.connection, "it does not read what it is told");
        }
        event.encode(&mut unread);
        drop(unread);
        self.told.notify_one();
    }

    /// One of its transactions waits no more.
    pub(super) fn ended(&self) {
        self.outstanding.fetch_sub(1, Ordering::Relaxed);
    }

    /// One more of its transactions waits.
    pub(super) fn begun(&self) {
        self.outstanding.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether more of its transactions wait than may.
    pub(super) fn has_too_many(&self) -> bool {
        self.outstanding.load(Ordering::Relaxed) > OUTSTANDING_MAX
    }

    /// What it is told of a transaction that is one too many.
    pub(super) fn refusal(hash: B256) -> Event {
        let text = format!("{OUTSTANDING_MAX} transactions of this connection wait to be included");
        Event::Refused(hash, Reason { code: wire::OUTSTANDING, text })
    }

    /// Why nothing more of it is looked at now, if so.
    fn cut(&self, hash: B256) -> Option<Event> {
        if self.has_too_many() {
            return Some(Self::refusal(hash));
        }
        if !self.share.conduct.is_spent() {
            return None;
        }
        let text = "too many transactions of this client were refused; some time must pass".to_owned();
        Some(Event::Refused(hash, Reason { code: wire::FAULTS, text }))
    }

    async fn enter(&self) -> Option<Inside> {
        let backlog = &self.share.backlog;
        self.in_turn(backlog.try_enter(), backlog.enter()).await
    }

    async fn room(&self) -> Option<Room> {
        let own = self.share.window.take().await?;
        let ways = &self.share.ways_in;
        let later = async { ways.clone().acquire_owned().await.ok() };
        let way = self.in_turn(ways.clone().try_acquire_owned().ok(), later).await?;
        Some((own, way))
    }

    /// What is there now, or later when it is this session's turn.
    async fn in_turn<T>(&self, now: Option<T>, later: impl Future<Output = Option<T>>) -> Option<T> {
        match now {
            Some(now) => Some(now),
            None => {
                let _turn = self.turn.lock().await;
                later.await
            }
        }
    }
}

/// Serves a client until it is gone.
pub(super) async fn run(session: Arc<Session>, shared: Arc<Shared>) {
    session.tell(&shared.welcome(&session));
    let mut tasks = JoinSet::new();
    tasks.spawn(write_events(session.clone()));
    tasks.spawn(read_streams(session.clone(), shared.clone()));
    tasks.spawn(read_questions(session.clone(), shared));
    let reason = session.connection.closed().await;
    tracing::debug!(client = %session.identity, %reason, "a client is gone");
    tasks.shutdown().await;
}

/// How often a client was written to lately.
///
/// Source: the virtual scheduling algorithm of ITU-T I.371 (generic cell rate).
struct Writes {
    /// When the next one would be due if all so far had been [`EVENTS_APART`].
    due: Instant,
}

impl Writes {
    /// One is made now; tells whether there were too many.
    fn are_many(&mut self, now: Instant) -> bool {
        let (due, latest) = (self.due.max(now) + EVENTS_APART, now + EVENTS_AHEAD);
        self.due = due.min(latest);
        due > latest
    }
}

/// Writes events: at once where they are few, else the first at once and those that follow it closely together.
async fn write_events(session: Arc<Session>) {
    let Ok(mut stream) = session.connection.open_uni().await else { return };
    let mut bytes = Vec::new();
    let mut writes = Writes { due: Instant::now() };
    loop {
        std::mem::swap(&mut bytes, &mut *session.unread.lock());
        if bytes.is_empty() {
            session.told.notified().await;
            continue;
        }
        if stream.write_all(&bytes).await.is_err() {
            return;
        }
        bytes.clear();
        // A burst leaves no more behind than the next one needs.
        bytes.shrink_to(READ_BYTES_MAX);
        if writes.are_many(Instant::now()) {
            sleep(if session.share.window.is_busy() { EVENTS_REST_BUSY } else { EVENTS_REST }).await;
        }
    }
}

async fn read_streams(session: Arc<Session>, shared: Arc<Shared>) {
    let mut streams = JoinSet::new();
    while let Ok(stream) = session.connection.accept_uni().await {
        let (session, shared) = (session.clone(), shared.clone());
        // There are no more than flow control allows; those that have ended are let go of.
        while streams.try_join_next().is_some() {}
        streams.spawn(async move {
            match read_stream(stream, &session, &shared).await {
                Ok(()) => {}
                Err(Fault::Gone) => {}
                Err(Fault::Late) => Close::Late.close(&session.connection, "a transaction took too long to arrive"),
                Err(Fault::Wire(error)) => Close::Malformed.close(&session.connection, &error.to_string()),
            }
        });
    }
}

enum Fault {
    Gone,
    Late,
    Wire(WireError),
}

/// Reads transactions of one stream and hands them in.
async fn read_stream(mut stream: RecvStream, session: &Arc<Session>, shared: &Arc<Shared>) -> Result<(), Fault> {
    let mut cutter = Cutter::new(TRANSACTION_BYTES_MAX);
    let mut begun: Option<Instant> = None;
    let mut long = None;
    loop {
        let chunk = match begun {
            None => stream.read_chunk(READ_BYTES_MAX, true).await,
            Some(since) => {
                let due = since.checked_add(PIECE_TIME_MAX).ok_or(Fault::Late)?;
                timeout_at(due, stream.read_chunk(READ_BYTES_MAX, true)).await.map_err(|_| Fault::Late)?
            }
        };
        let Some(chunk) = chunk.map_err(|_| Fault::Gone)? else {
            // The end of a stream within a transaction is the client's own business: it wanted it back.
            return Ok(());
        };
        let mut arrived = &chunk.bytes[..];
        while let Some(raw) = cutter.next(&mut arrived).map_err(|length| Fault::Wire(WireError::Length(length)))? {
            begun = None;
            submit(raw, session, shared).await.ok_or(Fault::Gone)?;
        }
        match cutter.begun_bytes() {
            0 => (begun, long) = (None, None),
            bytes => {
                begun = begun.or_else(|| Some(Instant::now()));
                if bytes > SMALL_PIECE_BYTES_MAX && long.is_none() {
                    long = Some(session.long.lock().await);
                }
            }
        }
    }
}

/// Hands a transaction in once there is room for it; `None` if the node stops.
async fn submit(raw: Bytes, session: &Arc<Session>, shared: &Arc<Shared>) -> Option<()> {
    if session.share.conduct.is_spent() {
        session.share.conduct.rest().await;
    }
    let inside = session.enter().await?;
    let room = session.room().await?;
    let raw = RawTransaction::new(raw);
    let hash = raw.hash();
    // From here on whatever becomes of it is told, though it be included before admission has answered.
    let is_new = shared.watch(hash, session, Some(inside));
    if is_new && let Some(refusal) = session.cut(hash) {
        if shared.unwatch(hash, session) {
            session.tell(&refusal);
        }
        return Some(());
    }
    let sent = Sent { hash, is_new, session: session.clone(), shared: shared.clone(), _room: room };
    let runtime = Handle::current();
    let answer = Box::new(move |answer: Result<B256, AdmissionError>| {
        let conduct = &sent.session.share.conduct;
        match &answer {
            Ok(_) => conduct.merit(),
            Err(error) if error.is_own_fault() => conduct.fault(),
            Err(_) => {}
        }
        match answer {
            // Whoever submits it again is told what becomes of it as the first one is.
            Ok(_) | Err(AdmissionError::AlreadyKnown) => sent.session.tell(&Event::Admitted(hash)),
            // Its nonce was used, or was not looked at: perhaps it is included itself, which is looked up where nobody
            // else waits for it.
            Err(error @ (AdmissionError::NonceTooLow { .. } | AdmissionError::PoolFull)) => {
                drop(runtime.spawn(sent.find_or_refuse(error)))
            }
            Err(error) => sent.refuse(&error),
        }
    });
    shared.doors.admission.submit(raw, answer);
    Some(())
}

/// A transaction on its way into the pool.
struct Sent {
    hash: B256,
    /// Whether the session was not told of it before.
    is_new: bool,
    session: Arc<Session>,
    shared: Arc<Shared>,
    _room: Room,
}

impl Sent {
    fn refuse(&self, error: &AdmissionError) {
        self.end(&Event::Refused(self.hash, Reason::from(error)));
    }

    /// Tells its end, unless that was told meanwhile.
    fn end(&self, event: &Event) {
        if !self.is_new || self.shared.unwatch(self.hash, &self.session) {
            self.session.tell(event);
        }
    }

    /// It did not enter the pool: it is included, or it is refused.
    async fn find_or_refuse(self, error: AdmissionError) {
        let Ok(_place) = self.shared.looking_up.acquire().await else { return };
        let (shared, hash) = (self.shared.clone(), self.hash);
        // Its thread is gone where the node stops.
        let found = tokio::task::spawn_blocking(move || shared.find(hash)).await;
        match found {
            Ok(Found::Ended(event)) => self.end(&event),
            _ => self.refuse(&error),
        }
    }
}

async fn read_questions(session: Arc<Session>, shared: Arc<Shared>) {
    let mut questions = JoinSet::new();
    while let Ok((answer, question)) = session.connection.accept_bi().await {
        let (session, shared) = (session.clone(), shared.clone());
        while questions.try_join_next().is_some() {}
        questions.spawn(async move {
            match timeout(PIECE_TIME_MAX, read_question(question)).await {
                Ok(Some(Ok(question))) => answer_question(answer, question, &session, &shared).await,
                Ok(Some(Err(error))) => Close::Malformed.close(&session.connection, &error.to_string()),
                Ok(None) => {}
                Err(_) => Close::Late.close(&session.connection, "a question took too long to arrive"),
            }
        });
    }
}

async fn read_question(mut question: RecvStream) -> Option<Result<Question, WireError>> {
    match question.read_to_end(wire::QUESTION_BYTES_MAX).await {
        Ok(question) => Some(Question::decode(&question)),
        Err(quinn::ReadToEndError::TooLong) => Some(Err(WireError::Question)),
        Err(quinn::ReadToEndError::Read(_)) => None,
    }
}

async fn answer_question(answer: SendStream, question: Question, session: &Arc<Session>, shared: &Arc<Shared>) {
    match question {
        Question::Transactions(hashes) => look_up(answer, hashes, session, shared).await,
        Question::Heads => follow(answer, shared, |block, out| head(block).encode(out)).await,
        Question::Logs(filter) => follow(answer, shared, move |block, out| logs(block, &filter, out)).await,
    }
}

/// Answers what became of transactions; those that wait are told of from now on as if they had been submitted here.
async fn look_up(mut answer: SendStream, hashes: Vec<B256>, session: &Arc<Session>, shared: &Arc<Shared>) {
    let Ok(_place) = shared.looking_up.acquire().await else { return };
    let (session, looking) = (session.clone(), shared.clone());
    let look_up = move || {
        let mut events = Vec::new();
        for hash in hashes {
            looking.look_up(hash, &session).encode(&mut events);
        }
        events
    };
    // Its thread is gone where the node stops.
    let Ok(events) = tokio::task::spawn_blocking(look_up).await else { return };
    if answer.write_all(&events).await.is_ok() {
        let _ = answer.finish();
    }
}

/// Tells of blocks from now on until the client stops the stream; one that reads too slowly is told so by a reset.
async fn follow(mut answer: SendStream, shared: &Shared, mut tell: impl FnMut(&CommittedBlock, &mut Vec<u8>) + Send) {
    let mut blocks = shared.told.subscribe();
    let mut out = Vec::new();
    loop {
        let block = tokio::select! {
            block = blocks.recv() => block,
            _ = answer.stopped() => return,
        };
        match block {
            Ok(block) => tell(&block, &mut out),
            Err(RecvError::Lagged(_)) => {
                let _ = answer.reset(VarInt::from_u32(Close::Slow as u32));
                return;
            }
            Err(RecvError::Closed) => return,
        }
        if answer.write_all(&out).await.is_err() {
            return;
        }
        out.clear();
    }
}

fn head(block: &CommittedBlock) -> Event {
    let header = block.block.header.inner();
    Event::Head(Head {
        height: header.number,
        hash: block.hash(),
        parent: header.parent_hash,
        timestamp: header.timestamp,
        gas_used: header.gas_used,
        gas_limit: header.gas_limit,
        base_fee: header.base_fee_per_gas.unwrap_or_default(),
        transactions: u32::try_from(block.receipts.len()).unwrap_or(u32::MAX),
    })
}

fn logs(block: &CommittedBlock, filter: &LogFilter, out: &mut Vec<u8>) {
    let mut log_index = 0_u32;
    for ((receipt, sent), index) in block.receipts.iter().zip(&block.block.body.transactions).zip(0_u32..) {
        for log in &receipt.logs {
            if filter.matches(log) {
                let (height, block, transaction) = (block.height().0, block.hash(), sent.hash());
                let log = log.clone();
                Event::Log(FoundLog { height, block, transaction, index, log_index, log }).encode(out);
            }
            log_index = log_index.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn few_writes_are_made_at_once_and_many_together() {
        let mut now = Instant::now();
        let mut writes = Writes { due: now };
        let mut are_many = |after: Duration| {
            now += after;
            writes.are_many(now)
        };
        // However long it goes on.
        assert!((0..1_000).all(|_| !are_many(EVENTS_APART)));
        let at_once = (0..100).take_while(|_| !are_many(Duration::ZERO)).count();
        assert_eq!(at_once, 7, "eight, of which one is used up all the time");
        for rest in [EVENTS_REST, EVENTS_REST_BUSY] {
            assert!((0..1_000).all(|_| are_many(rest)));
        }
        // What was too many is forgotten.
        assert!((0..8).all(|at| !are_many(if at == 0 { EVENTS_AHEAD } else { Duration::ZERO })));
    }
}
