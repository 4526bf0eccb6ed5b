//! A chain of fake blocks with a plain model of its state at every height.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use alloy_consensus::{Header, Sealable, SignableTransaction, TxEip1559};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, Log, LogData, Signature, U256, keccak256};
use alloy_trie::{EMPTY_ROOT_HASH, HashBuilder, Nibbles, TrieAccount};
use engine::{
    genesis::{BaseFeeParams, ChainSpec, Fork, ForkSchedule, GenesisAccount, OrderingParams},
    ports::{Store, StoreError},
    types::{
        Account, AccountChange, Block, BlockBody, CommittedBlock, ConsensusHeader, Envelope, ExecutedBlock,
        FinalizedBlock, Height, Receipt, SlotChange, StateChanges, Transaction, TrieHandle,
    },
};

pub(crate) use crate::disk::faulty::{FaultyDisk, next};
use crate::{
    CheckpointPolicy, Config, Database, OpenError,
    disk::Disk,
    failpoint::{Action, FailPoints},
    genesis,
};

/// Accounts with their slots.
pub(crate) type State = BTreeMap<Address, (Account, BTreeMap<U256, U256>)>;

pub(crate) fn address(index: u64) -> Address {
    Address::left_padding_from(&(index + 1).to_be_bytes())
}

pub(crate) fn chain_with(alloc: BTreeMap<Address, GenesisAccount>) -> Arc<ChainSpec> {
    let genesis_header = Header {
        state_root: genesis::state_root(&alloc),
        gas_limit: 30_000_000,
        timestamp: 1,
        base_fee_per_gas: Some(7),
        ..Header::default()
    };
    Arc::new(ChainSpec {
        chain_id: 1_337,
        forks: ForkSchedule::all_at_zero(Fork::Osaka),
        base_fee: BaseFeeParams::ETHEREUM,
        deposit_contract: None,
        ordering: OrderingParams::default(),
        genesis_header,
        alloc,
    })
}

/// Three funded accounts, one with code and storage.
pub(crate) fn chain() -> Arc<ChainSpec> {
    let mut alloc: BTreeMap<_, _> = (0..3)
        .map(|index| (address(index), GenesisAccount { balance: U256::from(1_000), ..GenesisAccount::default() }))
        .collect();
    let storage = (0..40u64).map(|slot| (U256::from(slot), U256::from(slot % 5))).collect();
    let contract =
        GenesisAccount { nonce: 1, code: Bytes::from_static(&[0x60, 0, 0xff]), storage, balance: U256::ZERO };
    alloc.insert(address(3), contract);
    chain_with(alloc)
}

pub(crate) fn state_of(chain: &ChainSpec) -> State {
    let account = |genesis: &GenesisAccount| Account {
        nonce: genesis.nonce,
        balance: genesis.balance,
        code_hash: if genesis.code.is_empty() { KECCAK256_EMPTY } else { keccak256(&genesis.code) },
    };
    let slots =
        |genesis: &GenesisAccount| genesis.storage.clone().into_iter().filter(|(_, value)| !value.is_zero()).collect();
    chain.alloc.iter().map(|(address, genesis)| (*address, (account(genesis), slots(genesis)))).collect()
}

/// The root by alloy's hash builder.
pub(crate) fn root_of(state: &State) -> B256 {
    let root = |pairs: BTreeMap<B256, Vec<u8>>| {
        let mut builder = HashBuilder::default();
        for (key, value) in &pairs {
            builder.add_leaf(Nibbles::unpack(key), value);
        }
        if pairs.is_empty() { EMPTY_ROOT_HASH } else { builder.root() }
    };
    root(
        state
            .iter()
            .map(|(address, (account, slots))| {
                let storage_root = root(
                    slots
                        .iter()
                        .map(|(key, value)| (keccak256(key.to_be_bytes::<32>()), alloy_rlp::encode(value)))
                        .collect(),
                );
                let Account { nonce, balance, code_hash } = *account;
                (keccak256(address), alloy_rlp::encode(TrieAccount { nonce, balance, storage_root, code_hash }))
            })
            .collect(),
    )
}

pub(crate) fn config(dir: &Path) -> Config {
    Config {
        segment_bytes: 64 << 10,
        log_bytes: 16 << 10,
        checkpoint: CheckpointPolicy { interval: Duration::from_secs(3_600), ..CheckpointPolicy::default() },
        trie_bytes_max: 64 << 20,
        map_bytes_max: 1 << 30,
        background: false,
        ..Config::new(dir)
    }
}

pub(crate) fn open_on(disk: &FaultyDisk, config: Config, chain: &Arc<ChainSpec>) -> Result<Database, OpenError> {
    let fail = FailPoints::parse(config.fail_point.as_deref(), Action::Fail).map_err(OpenError::Config)?;
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Database::open_on(disk, fail, config, Arc::clone(chain))
}

/// A transaction whose signature nobody checks.
pub(crate) fn transaction(seed: u64) -> Arc<Transaction> {
    let unsigned = TxEip1559 {
        chain_id: 1_337,
        nonce: seed,
        gas_limit: 21_000,
        max_fee_per_gas: 100,
        to: address(seed % 7).into(),
        value: U256::from(seed),
        ..TxEip1559::default()
    };
    let signature = Signature::new(U256::from(seed | 1), U256::from(7), false);
    let envelope = Envelope::Eip1559(unsigned.into_signed(signature));
    Arc::new(Transaction::with_known_sender(envelope.encoded_2718().into(), address(seed % 5)).unwrap())
}

/// A log of one of three addresses with up to four of three topics.
fn log(random: &mut u64) -> Log {
    let topics = (0..next(random) % 5).map(|_| B256::from(U256::from(next(random) % 3))).collect();
    let data = LogData::new_unchecked(topics, Bytes::from(vec![7; (next(random) % 40) as usize]));
    Log { address: address(next(random) % 3), data }
}

fn receipt(mut seed: u64) -> Receipt {
    let logs = (0..next(&mut seed) % 4).map(|_| log(&mut seed)).collect();
    seed %= 1_000;
    Receipt {
        type_byte: 2,
        success: !seed.is_multiple_of(5),
        gas_used: 21_000,
        cumulative_gas_used: 21_000 + seed,
        contract: seed.is_multiple_of(3).then(|| address(seed)),
        logs,
    }
}

/// The block after `parent` with these changes.
pub(crate) fn block_after(
    store: &Database,
    parent: &CommittedBlock,
    parent_trie: Option<&TrieHandle>,
    changes: StateChanges,
    transactions: Vec<Arc<Transaction>>,
) -> FinalizedBlock {
    let view = store.view(store.tip().height()).unwrap();
    let (state_root, trie) = view.root_after(parent_trie, &changes).unwrap();
    let header = Header {
        parent_hash: parent.hash(),
        number: parent.height().next().0,
        state_root,
        gas_limit: 30_000_000,
        timestamp: parent.block.header.timestamp + 1,
        base_fee_per_gas: Some(7),
        ..Header::default()
    }
    .seal_slow();
    let consensus = ConsensusHeader {
        chain_id: 1_337,
        slot: header.number,
        height: header.number,
        block_hash: header.seal(),
        timestamp_ms: header.timestamp * 1_000,
        ..ConsensusHeader::default()
    };
    let finality = engine::testing::finality(&consensus);
    let receipts = (0..transactions.len()).map(|index| receipt(header.number << 16 | index as u64)).collect();
    let block = Block { consensus, header, body: BlockBody { transactions, withdrawals: None } };
    let executed = ExecutedBlock {
        block: Arc::new(block),
        receipts: Arc::new(receipts),
        changes: Arc::new(changes),
        trie,
        access_list: Arc::default(),
    };
    FinalizedBlock { executed, finality }
}

/// A random change of `state`, applied to it, with the record a block would carry.
pub(crate) fn random_changes(state: &mut State, random: &mut u64, wipes: bool) -> StateChanges {
    let mut changes = StateChanges::default();
    for _ in 0..next(random) % 6 {
        let who = address(next(random) % 12);
        if changes.accounts.contains_key(&who) {
            continue;
        }
        let before = state.get(&who).cloned();
        let mut change = AccountChange { before: before.as_ref().map(|entry| entry.0), ..AccountChange::default() };
        let roll = if wipes { next(random) % 12 } else { 2 + next(random) % 10 };
        if roll == 0 && before.is_some() {
            change.wiped = true;
            state.remove(&who);
        } else {
            let (mut account, mut slots) = before.clone().unwrap_or_default();
            account.nonce += 1;
            account.balance = U256::from(next(random) % 1_000);
            change.wiped = roll == 1;
            if change.wiped {
                slots.clear();
            }
            if roll == 2 {
                let code = Bytes::from(next(random).to_be_bytes()[..4].to_vec());
                account.code_hash = keccak256(&code);
                changes.codes.insert(account.code_hash, code);
            }
            for _ in 0..next(random) % 8 {
                let key = U256::from(next(random) % 20);
                let value = U256::from((next(random) % 4) * 100);
                let old = before.as_ref().and_then(|entry| entry.1.get(&key)).copied().unwrap_or_default();
                if value.is_zero() {
                    slots.remove(&key);
                } else {
                    slots.insert(key, value);
                }
                change.slots.insert(key, SlotChange { before: old, after: value });
            }
            change.after = Some(account);
            state.insert(who, (account, slots));
        }
        changes.accounts.insert(who, change);
    }
    changes
}

/// A chain under test: what was committed and the state at every height.
pub(crate) struct World {
    pub(crate) chain: Arc<ChainSpec>,
    /// State after each height, from genesis on.
    pub(crate) states: Vec<State>,
    pub(crate) blocks: Vec<Arc<CommittedBlock>>,
    pub(crate) random: u64,
    /// Whether accounts are wiped and deleted as well.
    pub(crate) wipes: bool,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let chain = chain();
        let states = vec![state_of(&chain)];
        let blocks = vec![Arc::new(genesis::block(&chain))];
        Self { chain, states, blocks, random: seed.wrapping_mul(0x1234_5678_9abc_def1), wipes: true }
    }

    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        next(&mut self.random) % sides
    }

    /// Makes a group of blocks on the tip, without committing it.
    pub(crate) fn group(&mut self, store: &Database, count: u64) -> (Vec<FinalizedBlock>, Vec<State>) {
        let mut state = self.states.last().unwrap().clone();
        let mut parent = Arc::clone(self.blocks.last().unwrap());
        let mut trie: Option<TrieHandle> = None;
        let (mut blocks, mut states) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let changes = random_changes(&mut state, &mut self.random, self.wipes);
            let transactions = (0..self.roll(4)).map(|_| transaction(next(&mut self.random) >> 8)).collect();
            let block = block_after(store, &parent, trie.as_ref(), changes, transactions);
            assert_eq!(
                block.executed.block.header.state_root,
                root_of(&state),
                "root of block {}",
                parent.height().next()
            );
            trie = Some(block.executed.trie.clone());
            parent = Arc::new(CommittedBlock {
                block: block.executed.block.clone(),
                receipts: block.executed.receipts.clone(),
                finality: Some(block.finality),
            });
            blocks.push(block);
            states.push(state.clone());
        }
        (blocks, states)
    }

    /// Commits a group of blocks.
    pub(crate) fn commit(&mut self, store: &Database, count: u64) -> Result<(), StoreError> {
        let (blocks, states) = self.group(store, count);
        let committed = store.commit(&blocks)?;
        self.states.extend(states);
        self.blocks.extend(committed);
        Ok(())
    }

    pub(crate) fn tip(&self) -> Height {
        self.blocks.last().unwrap().height()
    }

    /// Takes over how many blocks a crashed store really kept.
    pub(crate) fn truncate(&mut self, tip: Height) {
        self.states.truncate(tip.0 as usize + 1);
        self.blocks.truncate(tip.0 as usize + 1);
    }

    /// Compares everything the store says with the model.
    pub(crate) fn check(&self, store: &Database) {
        assert_eq!(store.tip(), *self.blocks.last().unwrap());
        assert_eq!(store.rebuild_root().unwrap(), store.tip().block.header.state_root);
        self.check_blocks(store);
        let lowest = self.tip().0.saturating_sub(engine::limits::STATE_WINDOW_HEIGHTS);
        for height in [lowest, lowest + (self.tip().0 - lowest) / 2, self.tip().0.saturating_sub(1), self.tip().0] {
            self.check_state(store, Height(height));
        }
    }

    pub(crate) fn check_blocks(&self, store: &Database) {
        for block in &self.blocks {
            let height = block.height();
            assert_eq!(store.header(height).unwrap().as_ref(), Some(&block.block.header), "header {height}");
            assert_eq!(store.height_of(block.hash()).unwrap(), Some(height));
            let id = block.block.consensus.id();
            assert_eq!((store.height_of_id(id).unwrap(), store.height_of(id).unwrap()), (Some(height), None));
            assert_eq!(store.height_of_id(block.hash()).unwrap(), None);
            assert_eq!(store.block(height).unwrap().as_ref(), Some(block), "block {height}");
            for (index, transaction) in block.block.body.transactions.iter().enumerate() {
                assert_eq!(store.transaction_position(transaction.hash()).unwrap(), Some((height, index)));
            }
        }
        assert_eq!(store.header(self.tip().next()).unwrap(), None);
        assert_eq!(store.block(self.tip().next()).unwrap(), None);
        assert_eq!(store.height_of(B256::repeat_byte(9)).unwrap(), None);
        assert_eq!(store.transaction_position(B256::repeat_byte(9)).unwrap(), None);
    }

    pub(crate) fn check_state(&self, store: &Database, height: Height) {
        let view = store.view(height).unwrap();
        let state = &self.states[height.0 as usize];
        for index in 0..13 {
            let who = address(index);
            let expected = state.get(&who);
            assert_eq!(view.account(who).unwrap(), expected.map(|entry| entry.0), "account {index} at {height}");
            if let Some(account) = view.account(who).unwrap() {
                assert_eq!(keccak256(view.code(account.code_hash).unwrap()), account.code_hash);
            }
            for key in (0..21).map(U256::from) {
                let value = expected.and_then(|entry| entry.1.get(&key)).copied().unwrap_or_default();
                assert_eq!(view.slot(who, key), Ok(value), "slot {key} of account {index} at {height}");
            }
        }
    }
}
