//! Whole nodes with the toy executor that talk over QUIC on loopback.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use alloy_consensus::{Header, Sealed, SignableTransaction as _, TxEip1559};
use alloy_eips::eip2718::Encodable2718 as _;
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U256, keccak256};
use engine::{
    admission::{AdmissionError, PoolLimits},
    crypto::bls::{BlsScheme, SecretKey},
    genesis::{BaseFeeParams, ChainSpec, Fork, ForkSchedule, GenesisAccount, GenesisValidator, OrderingParams},
    ordering::event::Identity,
    pipeline::{Config, Node, Ports},
    ports::{BuildSettings, BuildTime, CallError, Candidates, ExecutionError, Executor, StateView, Store as _},
    query::{AccessListOutcome, CallOutcome, CallRequest},
    testing::{MemoryJournal, MemoryStore, ToyExecutor, system_contracts},
    types::{
        AccessList, Block, BuiltBlock, CommittedBlock, Envelope, ExecutedBlock, Height, RawTransaction, Transaction,
        access_list::AccountChanges,
    },
};
use tokio::sync::Notify;

use crate::{
    identity::NodeKey,
    transport::{Doors, PeerAddress, Transport, TransportConfig},
};

/// Gas limit of a block: the toy's transactions take 21,000 each.
const GAS_LIMIT: u64 = 100_000_000;

/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The validator's key with this number.
pub(crate) fn secret(number: u8) -> SecretKey {
    let mut secret = [0; 32];
    secret[31] = number + 1;
    SecretKey::from_bytes(&mut secret).expect("a small number is a key")
}

/// The node key with this number.
pub(crate) fn node_key(number: u8) -> NodeKey {
    NodeKey::from_seed(&[number + 1; 32]).expect("any seed")
}

/// A transfer with this many bytes of input; the sender is whoever the signature recovers to.
pub(crate) fn transaction(index: u64, input: usize) -> (Bytes, Address) {
    let tx = TxEip1559 {
        chain_id: 9,
        gas_limit: 21_000 + 40 * u64::try_from(input).expect("small"),
        max_fee_per_gas: 1_000_000_000,
        to: TxKind::Call(Address::repeat_byte(1)),
        value: U256::from(index),
        input: vec![0; input].into(),
        ..TxEip1559::default()
    };
    let envelope: Envelope = tx.into_signed(Signature::test_signature()).into();
    let encoded: Bytes = envelope.encoded_2718().into();
    let sender = Transaction::decode(encoded.clone()).expect("any signature recovers").sender();
    (encoded, sender)
}

/// One node: what it remembers, and the node while it runs.
pub(crate) struct Member {
    pub(crate) number: u8,
    pub(crate) store: Arc<MemoryStore>,
    journal: Arc<MemoryJournal>,
    pub(crate) toy: Arc<ToyExecutor>,
    pub(crate) running: Option<Running>,
}

pub(crate) struct Running {
    pub(crate) node: Node,
    pub(crate) transport: Arc<Transport>,
    pub(crate) address: SocketAddr,
}

/// Validators first, followers behind them.
pub(crate) struct Cluster {
    pub(crate) spec: Arc<ChainSpec>,
    pub(crate) members: Vec<Member>,
    validators: u8,
    /// Whose blocks name another access list than the one that it sends, and how many slots that one names.
    liar: Option<(u8, u64)>,
    /// Told whenever any node commits.
    committed: Arc<Notify>,
}

impl Cluster {
    /// Starts so many validators and followers on one chain, each with the addresses of those before it.
    pub(crate) async fn new(validators: u8, followers: u8, senders: &[Address]) -> Self {
        Self::start_all((validators, followers), senders, ToyExecutor::default, None).await
    }

    /// As [`Self::new`], of nodes that send access lists, one of them wrong ones.
    pub(crate) async fn listing(validators: u8, followers: u8, senders: &[Address], liar: Option<(u8, u64)>) -> Self {
        Self::start_all((validators, followers), senders, ToyExecutor::listing, liar).await
    }

    async fn start_all(
        (validators, followers): (u8, u8),
        senders: &[Address],
        toy: fn() -> ToyExecutor,
        liar: Option<(u8, u64)>,
    ) -> Self {
        let spec = Arc::new(spec(validators, senders));
        let member = |number| Member {
            number,
            store: Arc::new(MemoryStore::new(spec.clone())),
            journal: Arc::default(),
            toy: Arc::new(toy()),
            running: None,
        };
        let members = (0..validators + followers).map(member).collect();
        let mut cluster = Self { spec, members, validators, liar, committed: Arc::default() };
        for number in 0..validators + followers {
            cluster.start(number).await;
        }
        cluster
    }

    /// Starts a node on any free port, with the addresses of all that run.
    pub(crate) async fn start(&mut self, number: u8) {
        let running = self.members.iter().filter_map(|member| Some((member.number, member.running.as_ref()?.address)));
        let peers = running.map(|(other, address)| PeerAddress {
            identity: node_key(other).public_key().into(),
            address: address.to_string(),
        });
        let peers: Vec<_> = peers.collect();
        let is_validator = number < self.validators;
        let identity = is_validator.then(|| Identity::new(secret(number)));
        let transport = TransportConfig {
            listen: "127.0.0.1:0".parse().expect("an address"),
            external: None,
            key: node_key(number),
            peers,
            may_dial_private: true,
        };
        let transport = Transport::new(transport, &self.spec, identity.as_ref()).expect("a network");
        let member = &self.members[usize::from(number)];
        let ports = Ports {
            store: member.store.clone(),
            journal: member.journal.clone(),
            executor: match self.liar.filter(|(liar, _)| *liar == number) {
                Some((_, slots)) => Arc::new(Liar(member.toy.clone(), slots)),
                None => member.toy.clone(),
            },
            network: transport.clone(),
        };
        let node = Node::start(config(identity), ports, member.journal.recovered()).expect("it starts");
        let committed = self.committed.clone();
        node.events.listen(Box::new(move |_| committed.notify_waiters()));
        let doors = Doors {
            inbox: node.inbox.clone(),
            admission: node.admission.clone(),
            query: node.query.clone(),
            events: node.events.clone(),
        };
        let address = transport.start(doors).expect("it listens");
        self.members[usize::from(number)].running = Some(Running { node, transport, address });
    }

    /// Ends a node without a word to its peers, as a power cut would.
    pub(crate) fn kill(&mut self, number: u8) {
        self.members[usize::from(number)].running = None;
    }

    pub(crate) fn node(&self, number: u8) -> &Running {
        self.members[usize::from(number)].running.as_ref().expect("it runs")
    }

    pub(crate) fn height(&self, number: u8) -> u64 {
        self.members[usize::from(number)].store.tip().height().0
    }

    pub(crate) fn block(&self, number: u8, height: u64) -> Arc<CommittedBlock> {
        let found = self.members[usize::from(number)].store.block(Height(height)).expect("readable");
        found.expect("it was committed")
    }

    /// Waits until something holds that commits bring about.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let wait = async {
            loop {
                let committed = self.committed.notified();
                if holds(self) {
                    return;
                }
                // A node that stands still tells nobody.
                let _ = tokio::time::timeout(Duration::from_millis(100), committed).await;
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            let heights: Vec<_> = self.members.iter().map(|member| self.height(member.number)).collect();
            let peers: Vec<_> = self
                .members
                .iter()
                .filter_map(|member| member.running.as_ref())
                .map(|running| running.transport.peer_infos())
                .collect();
            panic!("{what}: heights {heights:?}, peers {peers:?}");
        }
    }

    /// Waits until these nodes have committed up to a height.
    pub(crate) async fn reach(&self, numbers: &[u8], height: u64) {
        self.until("heights", |cluster| numbers.iter().all(|number| cluster.height(*number) >= height)).await;
    }

    /// All nodes have the same chain as far as each has one.
    pub(crate) fn agree(&self) {
        let least = self.members.iter().map(|member| self.height(member.number)).min().expect("there are some");
        for height in 1..=least {
            let one = self.block(0, height).block.clone();
            for member in &self.members {
                assert_eq!(self.block(member.number, height).block, one, "block {height} of node {}", member.number);
            }
        }
    }

    /// Transactions in the chain of a node.
    pub(crate) fn included(&self, number: u8) -> usize {
        (1..=self.height(number)).map(|height| self.block(number, height).block.body.transactions.len()).sum()
    }
}

/// Builds what the toy builds, and shows another access list than the one that the header names, with so many slots.
struct Liar(Arc<ToyExecutor>, u64);

impl Executor for Liar {
    fn build(
        &self,
        view: &dyn StateView,
        parent: &Sealed<Header>,
        settings: &BuildSettings,
        candidates: &mut dyn Candidates,
        time: &BuildTime<'_>,
    ) -> Result<BuiltBlock, ExecutionError> {
        let BuiltBlock(built) = self.0.build(view, parent, settings, candidates, time)?;
        let mut account = AccountChanges::new(Address::repeat_byte(0x11));
        account.storage_reads = (0..self.1).map(|at| U256::from_be_bytes(keccak256(at.to_be_bytes()).0)).collect();
        let access_list = Arc::new(AccessList { accounts: vec![account], wipes: Vec::new() });
        Ok(BuiltBlock(ExecutedBlock { access_list, ..built }))
    }

    fn execute(
        &self,
        view: &dyn StateView,
        parent: &Sealed<Header>,
        block: &Arc<Block>,
    ) -> Result<ExecutedBlock, ExecutionError> {
        self.0.execute(view, parent, block)
    }

    fn wants_lists(&self) -> bool {
        self.0.wants_lists()
    }

    fn is_worth_listing(&self, block: &Block) -> bool {
        self.0.is_worth_listing(block)
    }

    fn call(&self, view: &dyn StateView, request: &CallRequest, cancel: &AtomicBool) -> Result<CallOutcome, CallError> {
        self.0.call(view, request, cancel)
    }

    fn estimate_gas(&self, view: &dyn StateView, request: &CallRequest, cancel: &AtomicBool) -> Result<u64, CallError> {
        self.0.estimate_gas(view, request, cancel)
    }

    fn access_list(
        &self,
        view: &dyn StateView,
        request: &CallRequest,
        cancel: &AtomicBool,
    ) -> Result<AccessListOutcome, CallError> {
        Executor::access_list(&*self.0, view, request, cancel)
    }
}

fn config(identity: Option<Identity>) -> Config {
    Config {
        slot_time: Duration::from_millis(50),
        build_time: Duration::from_millis(50),
        idle_interval: Some(Duration::from_millis(100)),
        identity,
        scheme: Arc::new(BlsScheme),
        beneficiary: Address::ZERO,
        extra_data: Bytes::new(),
        admission_workers: 1,
        pool: PoolLimits::default(),
        hint_percent: 0,
        give_way: || {},
    }
}

/// A chain with these validators of equal stake, whose addresses nobody knows.
pub(crate) fn spec(validators: u8, senders: &[Address]) -> ChainSpec {
    let mut alloc: BTreeMap<_, _> = system_contracts();
    let rich = GenesisAccount { balance: U256::from(u64::MAX), ..GenesisAccount::default() };
    alloc.extend(senders.iter().map(|sender| (*sender, rich.clone())));
    let validator = |number| {
        let key = secret(number);
        GenesisValidator {
            bls_pubkey: Bytes::copy_from_slice(key.public_key().0.as_slice()),
            proof_of_possession: Bytes::copy_from_slice(key.prove_possession(Address::ZERO, 9).0.as_slice()),
            identity: Bytes::copy_from_slice(&node_key(number).public_key()),
            addresses: Vec::new(),
            stake: 1,
            fee_recipient: Address::ZERO,
        }
    };
    let ordering = OrderingParams {
        slot_time_ms: 50,
        delta_ms: 50,
        idle_interval_ms: 100,
        validators: (0..validators).map(validator).collect(),
        ..OrderingParams::default()
    };
    ChainSpec {
        chain_id: 9,
        forks: ForkSchedule::all_at_zero(Fork::Osaka),
        base_fee: BaseFeeParams::ETHEREUM,
        deposit_contract: None,
        ordering,
        genesis_header: Header { gas_limit: GAS_LIMIT, ..Default::default() },
        alloc,
    }
}

/// Hands a transaction in as a client would.
pub(crate) async fn submit(node: &Node, raw: &Bytes) -> Result<B256, AdmissionError> {
    let (answer, answered) = tokio::sync::oneshot::channel();
    let done = Box::new(move |result| answer.send(result).expect("the test waits"));
    node.admission.submit(RawTransaction::new(raw.clone()), done);
    answered.await.expect("exactly one answer")
}
