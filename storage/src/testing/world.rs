//! A chain of made-up blocks with a plain model of its state at every height.
//!
//! Everything follows from a seed: two worlds with one seed make the same blocks, on whatever store.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use alloy_consensus::{Header, Sealable, SignableTransaction, TxEip1559, proofs::ordered_trie_root_encoded};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, Log, LogData, Signature, U256, keccak256};
use alloy_trie::{EMPTY_ROOT_HASH, HashBuilder, Nibbles, TrieAccount, proof::verify_proof};
use engine::{
    genesis::{BaseFeeParams, ChainSpec, Fork, ForkSchedule, GenesisAccount, OrderingParams},
    ports::{Store, StoreError},
    types::{
        Account, AccountChange, Block, BlockBody, CommittedBlock, ConsensusHeader, Envelope, ExecutedBlock,
        FinalizedBlock, Height, Receipt, SlotChange, StateChanges, Transaction, TrieHandle,
    },
};

use crate::{Database, disk::faulty::next, genesis, portable::HEADERS_MAX};

/// Accounts with their slots.
pub type State = BTreeMap<Address, (Account, BTreeMap<U256, U256>)>;

/// The address of a number.
#[must_use]
pub fn address(index: u64) -> Address {
    Address::left_padding_from(&(index + 1).to_be_bytes())
}

/// A chain that begins with these accounts.
#[must_use]
pub fn chain_with(alloc: BTreeMap<Address, GenesisAccount>) -> Arc<ChainSpec> {
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
#[must_use]
pub fn chain() -> Arc<ChainSpec> {
    let mut alloc: BTreeMap<_, _> = (0..3)
        .map(|index| (address(index), GenesisAccount { balance: U256::from(1_000), ..GenesisAccount::default() }))
        .collect();
    let storage = (0..40u64).map(|slot| (U256::from(slot), U256::from(slot % 5))).collect();
    let contract =
        GenesisAccount { nonce: 1, code: Bytes::from_static(&[0x60, 0, 0xff]), storage, balance: U256::ZERO };
    alloc.insert(address(3), contract);
    chain_with(alloc)
}

/// The state that a chain begins with.
#[must_use]
pub fn state_of(chain: &ChainSpec) -> State {
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
#[must_use]
pub fn root_of(state: &State) -> B256 {
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

/// A transaction whose signature nobody checks.
///
/// # Panics
/// Never: it decodes.
#[must_use]
pub fn transaction(seed: u64) -> Arc<Transaction> {
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
    Arc::new(Transaction::with_known_sender(envelope.encoded_2718().into(), address(seed % 5)).expect("it decodes"))
}

/// A small number as an index.
fn small(number: u64) -> usize {
    usize::try_from(number).expect("a small number")
}

/// A log of one of three addresses with up to four of three topics.
fn log(random: &mut u64) -> Log {
    let topics = (0..next(random) % 5).map(|_| B256::from(U256::from(next(random) % 3))).collect();
    let data = LogData::new_unchecked(topics, Bytes::from(vec![7; small(next(random) % 40)]));
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
///
/// # Panics
/// If the store cannot compute its root.
#[must_use]
pub fn block_after(
    store: &Database,
    parent: &CommittedBlock,
    parent_trie: Option<&TrieHandle>,
    changes: StateChanges,
    transactions: Vec<Arc<Transaction>>,
) -> FinalizedBlock {
    let view = store.view(store.tip().height()).expect("the tip has a state");
    let (state_root, trie) = view.root_after(parent_trie, &changes).expect("its root can be computed");
    let encoded: Vec<&[u8]> = transactions.iter().map(|transaction| transaction.encoded().as_ref()).collect();
    let header = Header {
        parent_hash: parent.hash(),
        number: parent.height().next().0,
        state_root,
        transactions_root: ordered_trie_root_encoded(&encoded),
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
    let receipts = (0..).take(transactions.len()).map(|index| receipt(header.number << 16 | index)).collect();
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
#[must_use]
pub fn random_changes(state: &mut State, random: &mut u64, wipes: bool) -> StateChanges {
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
#[derive(Clone, Debug)]
pub struct World {
    /// The chain.
    pub chain: Arc<ChainSpec>,
    /// State after each height, from genesis on.
    pub states: Vec<Arc<State>>,
    /// Blocks by height, from genesis on.
    pub blocks: Vec<Arc<CommittedBlock>>,
    /// State of the generator.
    pub random: u64,
    /// Whether accounts are wiped and deleted as well.
    pub wipes: bool,
    /// The block whose state the store took over: of what lies below it there are some headers. 0 for none.
    pub base: Height,
    /// Transactions of a block, at most. Nobody who decodes one by itself takes their signatures.
    pub transactions_max: u64,
}

impl World {
    /// A world that has block 0 only.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let chain = chain();
        let states = vec![Arc::new(state_of(&chain))];
        let blocks = vec![Arc::new(genesis::block(&chain))];
        Self {
            chain,
            states,
            blocks,
            random: seed.wrapping_mul(0x1234_5678_9abc_def1),
            wipes: true,
            base: Height::GENESIS,
            transactions_max: 3,
        }
    }

    /// A world whose epochs have so many heights.
    #[must_use]
    pub fn with_epochs(seed: u64, heights: u64) -> Self {
        let mut world = Self::new(seed);
        let mut chain = ChainSpec::clone(&world.chain);
        chain.ordering.epoch_slots = heights;
        world.blocks = vec![Arc::new(genesis::block(&chain))];
        world.chain = Arc::new(chain);
        world
    }

    /// A number below `sides`.
    pub fn roll(&mut self, sides: u64) -> u64 {
        next(&mut self.random) % sides
    }

    /// Makes a group of blocks on the tip, without committing it.
    ///
    /// # Panics
    /// If the store computes another root than the model.
    pub fn group(&mut self, store: &Database, count: u64) -> (Vec<FinalizedBlock>, Vec<Arc<State>>) {
        let mut state = State::clone(self.states.last().expect("block 0 has a state"));
        let mut parent = Arc::clone(self.last());
        let mut trie: Option<TrieHandle> = None;
        let (mut blocks, mut states) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let changes = random_changes(&mut state, &mut self.random, self.wipes);
            let transactions =
                (0..self.roll(self.transactions_max + 1)).map(|_| transaction(next(&mut self.random) >> 8)).collect();
            let block = block_after(store, &parent, trie.as_ref(), changes, transactions);
            let (root, height) = (block.executed.block.header.state_root, parent.height().next());
            assert_eq!(root, root_of(&state), "root of block {height}");
            trie = Some(block.executed.trie.clone());
            parent = Arc::new(CommittedBlock {
                block: block.executed.block.clone(),
                receipts: block.executed.receipts.clone(),
                finality: Some(block.finality),
            });
            blocks.push(block);
            states.push(Arc::new(state.clone()));
        }
        (blocks, states)
    }

    /// Commits a group of blocks.
    ///
    /// # Errors
    /// Those of the store; then nothing was taken over.
    pub fn commit(&mut self, store: &Database, count: u64) -> Result<(), StoreError> {
        let group = self.group(store, count);
        self.commit_group(store, group)
    }

    /// Commits a group that was made on the tip.
    ///
    /// # Errors
    /// Those of the store; then nothing was taken over.
    pub fn commit_group(
        &mut self,
        store: &Database,
        (blocks, states): (Vec<FinalizedBlock>, Vec<Arc<State>>),
    ) -> Result<(), StoreError> {
        let committed = store.commit(&blocks)?;
        self.states.extend(states);
        self.blocks.extend(committed);
        Ok(())
    }

    fn last(&self) -> &Arc<CommittedBlock> {
        self.blocks.last().expect("block 0 is always there")
    }

    /// Height of the newest block.
    #[must_use]
    pub fn tip(&self) -> Height {
        self.last().height()
    }

    /// Takes over how many blocks a crashed store really kept.
    pub fn truncate(&mut self, tip: Height) {
        self.states.truncate(small(tip.0).saturating_add(1));
        self.blocks.truncate(small(tip.0).saturating_add(1));
    }

    /// Compares everything the store says with the model.
    ///
    /// # Panics
    /// If there is a difference.
    pub fn check(&self, store: &Database) {
        self.compare(store).assert_none();
    }

    /// Compares all blocks with the model.
    ///
    /// # Panics
    /// If there is a difference.
    pub fn check_blocks(&self, store: &Database) {
        let mut found = Differences::default();
        self.compare_blocks(store, &mut found);
        found.assert_none();
    }

    /// Compares the state at a height with the model.
    ///
    /// # Panics
    /// If there is a difference.
    pub fn check_state(&self, store: &Database, height: Height) {
        let mut found = Differences::default();
        self.compare_state(store, height, &mut found);
        found.assert_none();
    }

    /// What the store says otherwise than the model: of all blocks, and of the state at some heights.
    #[must_use]
    pub fn compare(&self, store: &Database) -> Differences {
        let mut found = Differences::default();
        let tip = store.tip();
        found.note(|| "the tip".to_owned(), Ok::<_, StoreError>(&tip), &self.last());
        found.note(|| "the root".to_owned(), store.rebuild_root(), &tip.block.header.state_root);
        self.compare_blocks(store, &mut found);
        let lowest = self.tip().0.saturating_sub(engine::limits::STATE_WINDOW_HEIGHTS);
        let lowest = lowest.max(store.inner.segments.lowest().0).min(self.tip().0);
        let middle = lowest + (self.tip().0 - lowest) / 2;
        let heights = [lowest, middle, self.tip().0.saturating_sub(1), self.tip().0];
        for height in heights.map(|height| height.max(lowest)).into_iter().collect::<BTreeSet<_>>() {
            self.compare_state(store, Height(height), &mut found);
        }
        found
    }

    /// Compares what is proven of the state at a height with the model, and every proof with the root in the header.
    ///
    /// # Panics
    /// If there is a difference.
    pub fn check_proofs(&self, store: &Database, height: Height) {
        let mut found = Differences::default();
        self.compare_proofs(store, height, &mut found);
        found.assert_none();
    }

    /// The same, collecting differences.
    pub fn compare_proofs(&self, store: &Database, height: Height, found: &mut Differences) {
        let (block, state) = (&self.blocks[small(height.0)], &self.states[small(height.0)]);
        let keys: Vec<U256> = (0..21).map(U256::from).collect();
        for index in 0..13 {
            let who = address(index);
            let proof = match store.proof(height, who, &keys) {
                Ok(proof) => proof,
                Err(error) => {
                    found.errors.push(format!("proof of account {index}: {error}"));
                    continue;
                }
            };
            let expected = state.get(&who);
            let account: Result<_, StoreError> = Ok(proof.account);
            found.note(|| format!("proven account {index}"), account, &expected.map(|entry| entry.0));
            let leaf = proof.account.map(|Account { nonce, balance, code_hash }| {
                alloy_rlp::encode(TrieAccount { nonce, balance, storage_root: proof.storage_root, code_hash })
            });
            let (root, key) = (block.block.header.state_root, Nibbles::unpack(keccak256(who)));
            if let Err(error) = verify_proof(root, key, leaf, &proof.nodes) {
                found.wrong.push(format!("proof of account {index}: {error}"));
            }
            for (key, value, nodes) in proof.slots {
                let held = expected.and_then(|entry| entry.1.get(&key)).copied().unwrap_or_default();
                found.note(|| format!("proven slot {key} of account {index}"), Ok::<_, StoreError>(value), &held);
                let leaf = (!value.is_zero()).then(|| alloy_rlp::encode(value));
                let key = Nibbles::unpack(keccak256(key.to_be_bytes::<32>()));
                if let Err(error) = verify_proof(proof.storage_root, key, leaf, &nodes) {
                    found.wrong.push(format!("proof of a slot of account {index}: {error}"));
                }
            }
        }
    }

    fn compare_blocks(&self, store: &Database, found: &mut Differences) {
        let lowest = store.inner.segments.lowest();
        let is_in_segment = |block: &&Arc<CommittedBlock>| block.height() > lowest || block.height() == Height::GENESIS;
        self.blocks
            .iter()
            .filter(|block| !is_in_segment(block))
            .for_each(|block| self.compare_below(store, block, found));
        for block in self.blocks.iter().filter(is_in_segment) {
            let (height, hash, id) = (block.height(), block.hash(), block.block.consensus.id());
            let named = |what: &'static str| move || format!("{what} {height}");
            found.note(named("header"), store.header(height), &Some(block.block.header.clone()));
            found.note(named("height by hash of block"), store.height_of(hash), &Some(height));
            found.note(named("height by id of block"), store.height_of_id(id), &Some(height));
            found.note(named("hash as id of block"), store.height_of_id(hash), &None);
            found.note(named("id as hash of block"), store.height_of(id), &None);
            found.note(named("block"), store.block(height), &Some(Arc::clone(block)));
            for (index, transaction) in block.block.body.transactions.iter().enumerate() {
                let position = store.transaction_position(transaction.hash());
                found.note(named("position of a transaction of block"), position, &Some((height, index)));
            }
        }
        let unknown = B256::repeat_byte(9);
        found.note(|| "header above the tip".to_owned(), store.header(self.tip().next()), &None);
        found.note(|| "block above the tip".to_owned(), store.block(self.tip().next()), &None);
        found.note(|| "height of no block".to_owned(), store.height_of(unknown), &None);
        found.note(|| "position of no transaction".to_owned(), store.transaction_position(unknown), &None);
    }

    /// Compares what is left of a block that no segment holds: all of it where an epoch began, its header as far as
    /// `BLOCKHASH` reaches, and what is not swept yet; the rest is refused. Of imported headers nothing tells the ids.
    fn compare_below(&self, store: &Database, block: &Arc<CommittedBlock>, found: &mut Differences) {
        let lowest = store.inner.segments.lowest();
        let (height, hash, id) = (block.height(), block.hash(), block.block.consensus.id());
        let is_refused = |error: Option<StoreError>| {
            let refusal = (height, lowest.next());
            matches!(error, Some(StoreError::NotKept { height, lowest }) if (height, lowest) == refusal)
        };
        let named = |what: &'static str| move || format!("{what} {height}");
        let begins_epoch = height.0.is_multiple_of(self.chain.ordering.epoch_slots.max(1));
        let is_whole = height == self.base || height > self.base && begins_epoch;
        let answer = store.block(height);
        if is_whole || !is_refused(answer.as_ref().err().cloned()) {
            found.note(named("block"), answer, &Some(Arc::clone(block)));
        }
        let answer = store.header(height);
        let is_gone = is_refused(answer.as_ref().err().cloned());
        if is_whole || height.0.saturating_add(HEADERS_MAX) >= lowest.0 || !is_gone {
            found.note(named("header"), answer, &Some(block.block.header.clone()));
        }
        let known = Some(height).filter(|_| !is_gone);
        found.note(named("height by hash of block"), store.height_of(hash), &known);
        found.note(named("height by id of block"), store.height_of_id(id), &known.filter(|_| height >= self.base));
        for transaction in &block.block.body.transactions {
            let position = store.transaction_position(transaction.hash());
            found.note(named("position of a transaction of block"), position, &None);
        }
    }

    /// Compares the state at a height with the model, collecting differences.
    pub fn compare_state(&self, store: &Database, height: Height, found: &mut Differences) {
        let view = match store.view(height) {
            Ok(view) => view,
            Err(error) => return found.errors.push(format!("state at {height}: {error}")),
        };
        let state = &self.states[small(height.0)];
        for index in 0..13 {
            let who = address(index);
            let expected = state.get(&who);
            let account = view.account(who);
            let code = account.as_ref().ok().copied().flatten().map(|account| account.code_hash);
            found.note(|| format!("account {index} at {height}"), account, &expected.map(|entry| entry.0));
            if let Some(hash) = code {
                let of = || format!("code of account {index} at {height}");
                found.note(of, view.code(hash).map(keccak256), &hash);
            }
            for key in (0..21).map(U256::from) {
                let value = expected.and_then(|entry| entry.1.get(&key)).copied().unwrap_or_default();
                let read = view.slot(who, key);
                found.note(|| format!("slot {key} of account {index} at {height}"), read, &value);
            }
        }
    }
}

/// What a store says otherwise than the model.
#[derive(Clone, Debug, Default)]
pub struct Differences {
    /// What it could not say, with its reasons.
    pub errors: Vec<String>,
    /// What it said wrongly.
    pub wrong: Vec<String>,
}

impl Differences {
    /// Compares one answer.
    pub fn note<T: PartialEq + fmt::Debug, E: fmt::Display>(
        &mut self,
        what: impl FnOnce() -> String,
        found: Result<T, E>,
        expected: &T,
    ) {
        match found {
            Ok(found) if found == *expected => {}
            Ok(found) => self.wrong.push(format!("{}: {found:?}, not {expected:?}", what())),
            Err(error) => self.errors.push(format!("{}: {error}", what())),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.errors.is_empty() && self.wrong.is_empty()
    }

    /// Demands that there is none.
    ///
    /// # Panics
    /// If there is one.
    pub fn assert_none(&self) {
        assert!(self.is_empty(), "{self:#?}");
    }
}
