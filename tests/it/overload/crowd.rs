//! Many accounts that send transfers over some connections, and a ledger of how each submission ended.
//!
//! Transactions are signed before a phase begins, so that sending takes little of the machine that the node runs on as
//! well. What is refused or dropped leaves its nonce free; the account's next submission uses it again.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use alloy_consensus::TxEip1559;
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, keccak256, map::B256Map};
use alloy_signer_local::PrivateKeySigner;
use net::{
    NodeKey,
    client::{Client, ClientConfig},
    ingress::wire::{Event, REPLACED},
};
use parking_lot::Mutex;
use tests::wallet::{sign, template};
use tokio::{
    sync::Notify,
    time::{interval, timeout_at},
};

/// Threads that sign before a phase.
const SIGNERS: usize = 2;

/// The codes of refused and of dropped ones whose nonce was used.
const NONCE_USED: u16 = 15;
const NONCE_TAKEN: u16 = 101;

/// How often the senders of a phase look what is due.
const TICK: Duration = Duration::from_millis(2);

/// One submission in so many is replaced at once.
const REPLACEMENT_EVERY: u64 = 50;

/// What every transaction does: it sends one wei.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    pub(crate) to: Address,
    pub(crate) gas_limit: u64,
    /// Whether some are replaced at once.
    pub(crate) is_replaced: bool,
}

impl Work {
    fn sign(&self, key: &PrivateKeySigner, nonce: u64) -> Bytes {
        sign(key, self.plain(nonce))
    }

    /// What takes the place of one that waits.
    fn sign_dearer(&self, key: &PrivateKeySigner, nonce: u64) -> Bytes {
        let plain = self.plain(nonce);
        let (fee, tip) = (plain.max_fee_per_gas / 10 * 11, plain.max_priority_fee_per_gas / 10 * 11);
        sign(key, TxEip1559 { max_fee_per_gas: fee, max_priority_fee_per_gas: tip, ..plain })
    }

    fn plain(&self, nonce: u64) -> TxEip1559 {
        let Self { to, gas_limit, .. } = *self;
        TxEip1559 { to: TxKind::Call(to), value: U256::from(1), gas_limit, ..template(nonce) }
    }
}

/// An account that sends.
struct Sender {
    key: PrivateKeySigner,
    work: Work,
    /// Transactions of the nonces from `first` on.
    signed: VecDeque<Bytes>,
    first: u64,
    next: u64,
    /// Nonces that are free again.
    again: BTreeSet<u64>,
}

impl Sender {
    /// The transaction that its account submits next.
    fn take(&mut self) -> (u64, Bytes) {
        let nonce = self.again.pop_first().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        });
        let place = usize::try_from(nonce - self.first).expect("it is not below the first");
        while self.signed.len() <= place {
            let nonce = self.first + u64::try_from(self.signed.len()).expect("a few");
            self.signed.push_back(self.work.sign(&self.key, nonce));
        }
        (nonce, self.signed[place].clone())
    }

    /// Forgets what has ended, and signs so many more.
    fn sign(&mut self, count: usize) {
        let begun = self.again.first().copied().unwrap_or(self.next);
        while self.first < begun && self.signed.pop_front().is_some() {
            self.first += 1;
        }
        while self.signed.len() < count {
            let nonce = self.first + u64::try_from(self.signed.len()).expect("a few");
            self.signed.push_back(self.work.sign(&self.key, nonce));
        }
    }
}

/// A submission that has no end yet.
struct Flight {
    sender: usize,
    nonce: u64,
    admitted: Option<Instant>,
    is_replacement: bool,
}

/// How submissions ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) submitted: u64,
    pub(crate) admitted: u64,
    pub(crate) included: u64,
    /// By code.
    pub(crate) refused: BTreeMap<u16, u64>,
    /// By code.
    pub(crate) dropped: BTreeMap<u16, u64>,
    /// Events of transactions that have ended, or were never submitted.
    pub(crate) strange: u64,
    /// Of each that was included: when, and how long after it was admitted.
    pub(crate) finals: Vec<(Instant, Duration)>,
}

impl Tally {
    pub(crate) fn ended(&self) -> u64 {
        self.included + self.refused.values().sum::<u64>() + self.dropped.values().sum::<u64>()
    }

    fn add(&mut self, other: Self) {
        self.submitted += other.submitted;
        self.admitted += other.admitted;
        self.included += other.included;
        self.strange += other.strange;
        self.finals.extend(other.finals);
        for (code, count) in other.refused {
            *self.refused.entry(code).or_default() += count;
        }
        for (code, count) in other.dropped {
            *self.dropped.entry(code).or_default() += count;
        }
    }
}

struct Board {
    senders: Vec<Sender>,
    /// Senders that have nothing under way, where each has one at most.
    idle: VecDeque<usize>,
    flights: B256Map<Flight>,
    turn: usize,
    /// The sender and nonce whose transaction the next one replaces.
    replaced: Option<(usize, u64)>,
    tally: Tally,
}

impl Board {
    /// Takes the next submission of a sender.
    fn take(&mut self, sender: usize) -> (B256, Bytes) {
        let (nonce, raw) = self.senders[sender].take();
        self.begin(sender, nonce, raw, false)
    }

    /// Takes the next submission of the next sender, or what replaces the last one.
    fn take_next(&mut self) -> (B256, Bytes) {
        if let Some((sender, nonce)) = self.replaced.take() {
            let Sender { work, key, .. } = &self.senders[sender];
            let raw = work.sign_dearer(key, nonce);
            return self.begin(sender, nonce, raw, true);
        }
        let sender = self.turn;
        self.turn = (sender + 1) % self.senders.len();
        let (nonce, raw) = self.senders[sender].take();
        let Sender { work, next, .. } = &self.senders[sender];
        let is_new = nonce + 1 == *next;
        if work.is_replaced && is_new && self.tally.submitted.is_multiple_of(REPLACEMENT_EVERY) {
            self.replaced = Some((sender, nonce));
        }
        self.begin(sender, nonce, raw, false)
    }

    fn begin(&mut self, sender: usize, nonce: u64, raw: Bytes, is_replacement: bool) -> (B256, Bytes) {
        let hash = keccak256(&raw);
        self.flights.insert(hash, Flight { sender, nonce, admitted: None, is_replacement });
        self.tally.submitted += 1;
        (hash, raw)
    }

    /// What is to be submitted again so that nothing waits behind a gap.
    fn fill_gaps(&mut self) -> Vec<Bytes> {
        let mut more = Vec::new();
        for sender in 0..self.senders.len() {
            while !self.senders[sender].again.is_empty() {
                more.push(self.take(sender).1);
            }
        }
        more
    }

    /// It was not submitted after all.
    fn take_back(&mut self, hash: &B256) {
        let Some(flight) = self.flights.remove(hash) else { return };
        self.tally.submitted -= 1;
        self.free(&flight);
    }

    /// Its nonce is to be used again, unless another one has it.
    fn free(&mut self, flight: &Flight) {
        if !flight.is_replacement {
            self.senders[flight.sender].again.insert(flight.nonce);
        }
    }

    fn hear(&mut self, event: &Event) {
        let Some(hash) = event.hash() else { return };
        if let Event::Admitted(_) = event {
            if let Some(flight) = self.flights.get_mut(&hash) {
                flight.admitted = Some(Instant::now());
                self.tally.admitted += 1;
            }
            return;
        }
        if !event.is_end() {
            return;
        }
        let Some(flight) = self.flights.remove(&hash) else {
            self.tally.strange += 1;
            return;
        };
        match event {
            Event::Final(..) => {
                let now = Instant::now();
                self.tally.included += 1;
                self.tally.finals.push((now, flight.admitted.map_or(Duration::ZERO, |admitted| now - admitted)));
            }
            Event::Refused(_, reason) => {
                *self.tally.refused.entry(reason.code).or_default() += 1;
                if reason.code != NONCE_USED {
                    self.free(&flight);
                }
            }
            Event::Dropped(_, reason) => {
                *self.tally.dropped.entry(reason.code).or_default() += 1;
                if ![REPLACED, NONCE_TAKEN].contains(&reason.code) {
                    self.free(&flight);
                }
            }
            _ => self.tally.strange += 1,
        }
        self.idle.push_back(flight.sender);
    }
}

/// One connection with the accounts that send over it.
struct Lane {
    client: Client,
    board: Arc<Mutex<Board>>,
    heard: Arc<Notify>,
}

/// How fast a lane sends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// Each account sends once its last one has ended.
    Closed,
    /// So many a second, whatever becomes of them; what flow control holds back comes later, or never.
    Open(f64),
}

impl Lane {
    async fn connect(node: &str, key: NodeKey, keys: Vec<PrivateKeySigner>, work: Work) -> Self {
        let sender = |key| {
            let (signed, first, next, again) = Default::default();
            Sender { key, work, signed, first, next, again }
        };
        let senders: Vec<Sender> = keys.into_iter().map(sender).collect();
        let (idle, flights, tally) = Default::default();
        let board = Arc::new(Mutex::new(Board { senders, idle, flights, turn: 0, replaced: None, tally }));
        let heard = Arc::new(Notify::new());
        let (told, wakes) = (board.clone(), heard.clone());
        let listener = Box::new(move |event: &Event| {
            told.lock().hear(event);
            if event.is_end() {
                wakes.notify_one();
            }
        });
        let config = ClientConfig { listener: Some(listener), ..ClientConfig::new(node, key) };
        Self { client: Client::connect(config).await.expect("it is let in"), board, heard }
    }

    /// Sends until `until`; how many were due.
    async fn send(self: Arc<Self>, pace: Pace, until: Instant) -> u64 {
        match pace {
            Pace::Closed => self.send_closed(until).await,
            Pace::Open(rate) => self.send_open(rate, until).await,
        }
    }

    async fn send_closed(&self, until: Instant) -> u64 {
        let mut count = 0;
        {
            let mut board = self.board.lock();
            board.idle = (0..board.senders.len()).collect();
        }
        while Instant::now() < until {
            let next = {
                let mut board = self.board.lock();
                board.idle.pop_front().map(|sender| board.take(sender))
            };
            match next {
                Some(next) => count += u64::from(self.hand_in(next, until).await),
                None => drop(timeout_at(until.into(), self.heard.notified()).await),
            }
        }
        count
    }

    async fn send_open(&self, rate: f64, until: Instant) -> u64 {
        let begun = Instant::now();
        let mut ticks = interval(TICK);
        let mut count = 0_u64;
        let due_by = |when: Instant| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts are small")]
            let due = ((when - begun).as_secs_f64() * rate) as u64;
            due
        };
        loop {
            ticks.tick().await;
            let due = due_by(Instant::now().min(until));
            while count < due {
                let next = self.board.lock().take_next();
                if !self.hand_in(next, until).await {
                    return due_by(until);
                }
                count += 1;
            }
            if Instant::now() >= until {
                return due;
            }
        }
    }

    /// Whether it was submitted in time.
    async fn hand_in(&self, (hash, raw): (B256, Bytes), until: Instant) -> bool {
        if let Ok(sent) = timeout_at(until.into(), self.client.send(raw)).await {
            sent.expect("the client serves");
            return true;
        }
        self.board.lock().take_back(&hash);
        false
    }
}

/// Accounts and connections.
pub(crate) struct Crowd {
    lanes: Vec<Arc<Lane>>,
}

/// The keys of so many accounts; those of one name are the same each time.
pub(crate) fn keys(name: &str, count: usize) -> Vec<PrivateKeySigner> {
    let key = |number: usize| PrivateKeySigner::from_bytes(&keccak256(format!("{name} {number}"))).expect("a key");
    (0..count).map(key).collect()
}

/// The key of a client.
pub(crate) fn client_key(name: &str, number: usize) -> NodeKey {
    NodeKey::from_seed(&keccak256(format!("{name} {number}")).0).expect("any seed")
}

impl Crowd {
    /// Lets accounts send over connections of these keys, the same number over each.
    pub(crate) async fn connect(node: &str, clients: Vec<NodeKey>, accounts: &[PrivateKeySigner], work: Work) -> Self {
        let each = accounts.len() / clients.len();
        let mut lanes = Vec::new();
        for (client, accounts) in clients.into_iter().zip(accounts.chunks(each)) {
            lanes.push(Arc::new(Lane::connect(node, client, accounts.to_vec(), work).await));
        }
        Self { lanes }
    }

    /// Signs so many transactions of each account, on threads of its own.
    pub(crate) fn sign(&self, each: usize) {
        thread::scope(|scope| {
            for lanes in self.lanes.chunks(self.lanes.len().div_ceil(SIGNERS)) {
                scope.spawn(move || {
                    for lane in lanes {
                        lane.board.lock().senders.iter_mut().for_each(|sender| sender.sign(each));
                    }
                });
            }
        });
    }

    /// Sends at these paces, one of each connection, for a while; how many submissions were due.
    pub(crate) async fn send(&self, paces: &[Pace], time: Duration) -> u64 {
        let until = Instant::now() + time;
        let lanes = self.lanes.iter().zip(paces);
        let tasks: Vec<_> = lanes.map(|(lane, pace)| tokio::spawn(lane.clone().send(*pace, until))).collect();
        let mut due = 0;
        for task in tasks {
            due += task.await.expect("it sends");
        }
        due
    }

    /// Submissions that have no end yet.
    pub(crate) fn under_way(&self) -> usize {
        self.lanes.iter().map(|lane| lane.board.lock().flights.len()).sum()
    }

    /// How many were admitted, by connection.
    pub(crate) fn admitted(&self) -> Vec<u64> {
        self.lanes.iter().map(|lane| lane.board.lock().tally.admitted).collect()
    }

    /// Submits again what is missing before something that waits, until everything has ended or nothing more ends for
    /// so long; takes the counts of all.
    pub(crate) async fn settle(&self, patience: Duration) -> Tally {
        let mut all = Tally::default();
        for lane in &self.lanes {
            loop {
                let heard = lane.heard.notified();
                let missing = {
                    let mut board = lane.board.lock();
                    if board.flights.is_empty() { break } else { board.fill_gaps() }
                };
                for raw in missing {
                    lane.client.send(raw).await.expect("the client serves");
                }
                if tokio::time::timeout(patience, heard).await.is_err() {
                    break;
                }
            }
            all.add(std::mem::take(&mut lane.board.lock().tally));
        }
        all
    }
}
