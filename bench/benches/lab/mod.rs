//! What the benches share: a chain on a disk, set up for some traffic, and an endless supply of it.
//!
//! The supply starts over when a plan is through, which an order book does not bear: its cancels name orders.

use std::{convert::Infallible, sync::Arc};

use alloy_consensus::{Header, Sealable};
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_signer_local::PrivateKeySigner;
use bench::{
    Plan, Settings, Step, Traffic,
    shapes::Scale,
    sign::{Fees, GasLimits, SignedTransaction, sign},
};
use engine::{
    genesis::{BaseFeeParams, ChainSpec, Fork, ForkSchedule, GenesisAccount, OrderingParams},
    ports::{BuildSettings, BuildTime, Candidates, Executor, Store},
    testing::MapState,
    types::{BuiltBlock, ConsensusHeader, FinalizedBlock, Transaction},
};
use storage::Database;
use vm::RevmExecutor;

/// Gas limit of a block: more than any bench fills.
const GAS_LIMIT: u64 = 3_000_000_000;

const FEES: Fees = Fees { chain_id: 31_337, fee_max: 8_000_000_000, priority_fee: 10_000_000 };

/// Times the plan's operations can be sent before an account is out of wei.
const ROUNDS: u128 = 1_000_000;

/// Operations of a plan; benches start over when they have sent all.
const OPERATIONS: usize = 20_000;

/// A chain that was set up for its traffic.
pub(crate) struct Lab {
    pub(crate) plan: Plan,
    pub(crate) executor: Arc<RevmExecutor>,
    pub(crate) store: Arc<Database>,
    nonces: Vec<u64>,
    sent: usize,
    _folder: tempfile::TempDir,
}

impl Lab {
    /// A chain in a folder below `target`, with everything deployed that the traffic needs.
    pub(crate) fn new(traffic: impl Into<Traffic>, senders: u32) -> Self {
        let funder = PrivateKeySigner::from_bytes(&B256::repeat_byte(7)).expect("any small number is a key");
        let (traffic, scale) = (traffic.into(), Scale::default());
        let settings = Settings { traffic, seed: 1, senders, transactions: OPERATIONS, scale, funder };
        let Ok(plan) = Plan::new(&settings, |_| Ok::<_, Infallible>(0));
        let chain = Arc::new(chain(plan.accounts.address(bench::AccountId::FUNDER)));
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("cargo made the folder");
        let config = storage::Config { segment_bytes: 16 << 20, ..storage::Config::dev(folder.path()) };
        let store = Arc::new(Database::open(config, chain.clone()).expect("a new folder can be opened"));
        let executor = Arc::new(RevmExecutor::new(chain));
        let nonces = vec![0; plan.accounts.count()];
        let mut lab = Self { plan, executor, store, nonces, sent: 0, _folder: folder };
        lab.set_up();
        lab
    }

    fn set_up(&mut self) {
        for phase in self.plan.phases(FEES.fee_max * ROUNDS) {
            for steps in blocks(phase.steps) {
                let operations: Vec<_> = steps.into_iter().map(|step| (step.from, step.operation)).collect();
                let Plan { world, accounts, .. } = &self.plan;
                let signed = sign(&operations, world, accounts, FEES, &GasLimits::new(), &mut self.nonces);
                let block = self.build(&self.transactions(&signed));
                let receipts = &block.0.receipts;
                assert_eq!(receipts.len(), signed.len(), "a part of phase {} fits a block", phase.name);
                assert!(receipts.iter().all(|receipt| receipt.success), "phase {} has no failures", phase.name);
                self.commit(block);
            }
        }
    }

    /// The next transactions of the plan, signed.
    pub(crate) fn signed(&mut self, count: usize) -> Vec<SignedTransaction> {
        let operations: Vec<_> = self.plan.operations.iter().cycle().skip(self.sent).take(count).cloned().collect();
        self.sent = (self.sent + count) % self.plan.operations.len();
        let Plan { world, accounts, .. } = &self.plan;
        sign(&operations, world, accounts, FEES, &GasLimits::new(), &mut self.nonces)
    }

    /// The same with their senders, as a block carries them.
    pub(crate) fn transactions(&self, signed: &[SignedTransaction]) -> Vec<Arc<Transaction>> {
        let known = |sent: &SignedTransaction| {
            let sender = self.plan.accounts.address(sent.from);
            Arc::new(Transaction::with_known_sender(sent.raw.clone(), sender).expect("the plan signs transactions"))
        };
        signed.iter().map(known).collect()
    }

    /// Builds a block on the tip.
    pub(crate) fn build(&self, transactions: &[Arc<Transaction>]) -> BuiltBlock {
        let tip = self.store.tip();
        let view = self.store.view(tip.height()).expect("the tip's state is kept");
        let mut candidates = Queue(transactions.iter());
        let settings = self.settings();
        self.executor
            .build(&*view, &tip.block.header, &settings, &mut candidates, &BuildTime::UNLIMITED)
            .expect("plans make valid blocks")
    }

    fn settings(&self) -> BuildSettings {
        let tip = self.store.tip();
        let parent = &tip.block.consensus;
        let consensus = ConsensusHeader {
            chain_id: FEES.chain_id,
            slot: tip.height().0,
            height: tip.height().next().0,
            parent_slot: parent.slot,
            parent_id: parent.id(),
            timestamp_ms: tip.block.header.timestamp * 1_000 + 1_000,
            ..ConsensusHeader::default()
        };
        BuildSettings {
            parent_id: consensus.parent_id,
            consensus,
            beneficiary: Address::with_last_byte(0xfe),
            gas_limit: GAS_LIMIT,
            extra_data: Bytes::new(),
            mix_hash: keccak256(tip.block.header.mix_hash),
        }
    }

    /// Makes a block durable.
    pub(crate) fn commit(&self, block: BuiltBlock) {
        self.store.commit(&[finalized(block)]).expect("the disk takes a block");
    }
}

/// Parts of a phase that fit a block each, whatever gas they use up to their limits.
fn blocks(steps: Vec<Step>) -> Vec<Vec<Step>> {
    let mut blocks = vec![Vec::new()];
    let mut left = GAS_LIMIT;
    for step in steps {
        let gas = step.operation.gas_limit_max();
        if gas > left {
            blocks.push(Vec::new());
            left = GAS_LIMIT;
        }
        left -= gas;
        blocks.last_mut().expect("there is always one").push(step);
    }
    blocks
}

/// What the decision of a sole validator makes of a block.
pub(crate) fn finalized(BuiltBlock(executed): BuiltBlock) -> FinalizedBlock {
    let consensus = &executed.block.consensus;
    let finality = engine::testing::finality(consensus);
    FinalizedBlock { executed, finality }
}

/// Candidates in a given order.
struct Queue<'a>(std::slice::Iter<'a, Arc<Transaction>>);

impl Candidates for Queue<'_> {
    fn next(&mut self) -> Option<Arc<Transaction>> {
        self.0.next().cloned()
    }

    fn skip_sender(&mut self, sender: Address) {
        panic!("{sender} cannot be included, which would measure something else");
    }
}

fn chain(funder: Address) -> ChainSpec {
    let rich = GenesisAccount { balance: U256::MAX >> 8, ..GenesisAccount::default() };
    let mut alloc = engine::testing::system_contracts();
    alloc.insert(funder, rich);
    let genesis_header = Header {
        gas_limit: GAS_LIMIT,
        timestamp: 1_000,
        base_fee_per_gas: Some(1_000_000_000),
        state_root: MapState::genesis(&alloc).root(),
        excess_blob_gas: Some(0),
        blob_gas_used: Some(0),
        ..Header::default()
    };
    ChainSpec {
        chain_id: FEES.chain_id,
        forks: ForkSchedule::all_at_zero(Fork::Osaka),
        base_fee: BaseFeeParams::SLUICE,
        deposit_contract: None,
        ordering: OrderingParams::default(),
        genesis_header: genesis_header.seal_slow().into_inner(),
        alloc,
    }
}
