//! Snapshots of made-up states: taken over whole, resumed wherever they are cut, and refused in every lie.

mod lies;
mod offline;
mod parts;
mod resume;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use alloy_primitives::{Address, B256, Bytes, U256, hex, keccak256};
use engine::{
    genesis::{ChainSpec, GenesisAccount},
    ports::{Store as _, StoreError},
    types::{AccountChange, Height, SlotChange, StateChanges},
};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{
    CHUNK_BYTES, Foundation, Imported, MANIFEST, Manifest, PortableError, Progress, Source,
    chunk::{Accounts, Body, Chunk, Row, Slots, Storage},
    export, import, verify,
};
use crate::{
    Config, Database,
    testing::world::{State, block_after, chain_with, root_of, state_of},
    tests::kit::{FaultyDisk, config, next, open_on},
};

const BLOCKS: u64 = 5;

/// Some hundred accounts: payers, contracts that share codes, storage from one slot to many.
fn chain(seed: u64) -> Arc<ChainSpec> {
    println!("seed {seed}");
    let mut random = seed;
    let mut alloc = BTreeMap::new();
    for index in 0..60u64 {
        let roll = next(&mut random) % 10;
        let slots = match roll {
            0..6 => 0,
            6..9 => next(&mut random) % 4,
            _ => next(&mut random) % 60,
        };
        let code = if slots > 0 { Bytes::from(vec![0x60, (roll % 3) as u8, 0xff]) } else { Bytes::new() };
        let storage = (0..slots).map(|slot| (U256::from(slot), U256::from(next(&mut random) >> (roll * 6)))).collect();
        let balance = U256::from(next(&mut random) >> (roll * 6));
        let account = GenesisAccount { nonce: roll / 3, code, storage, balance };
        alloc.insert(Address::from_word(keccak256(index.to_be_bytes())), account);
    }
    chain_with(alloc)
}

/// A store with some blocks, each of which changes accounts and slots; and the state that they lead to.
fn store(dir: &Path, chain: &Arc<ChainSpec>, settings: Config) -> (Database, State) {
    let store = open_on(&FaultyDisk::default(), Config { dir: dir.to_owned(), ..settings }, chain).expect("it opens");
    let mut state = state_of(chain);
    for _ in 0..BLOCKS {
        advance(&store, &mut state);
    }
    (store, state)
}

/// Commits a block that changes three accounts, deploys code, and makes one account.
fn advance(store: &Database, state: &mut State) {
    let height = store.tip().height().0;
    let mut changes = StateChanges::default();
    let known: Vec<Address> = state.keys().copied().collect();
    let made = Address::from_word(keccak256((1_000 + height).to_be_bytes()));
    let at = height as usize % (known.len() / 2);
    for (index, who) in [known[at], known[known.len() - 1 - at], made].into_iter().enumerate() {
        let before = state.get(&who).cloned();
        let (mut account, mut slots) = before.clone().unwrap_or_default();
        account.nonce += 1;
        account.balance += U256::from(height);
        if index == 2 {
            let code = Bytes::from(height.to_be_bytes().to_vec());
            account.code_hash = keccak256(&code);
            changes.codes.insert(account.code_hash, code);
        }
        let mut change = AccountChange { before: before.map(|entry| entry.0), ..AccountChange::default() };
        for slot in 0..3 * index as u64 {
            let key = U256::from(slot);
            let old = slots.insert(key, U256::from(height + 1)).unwrap_or_default();
            change.slots.insert(key, SlotChange { before: old, after: U256::from(height + 1) });
        }
        change.after = Some(account);
        changes.accounts.insert(who, change);
        state.insert(who, (account, slots));
    }
    let tip = store.tip();
    let block = block_after(store, &tip, None, changes, Vec::new());
    assert_eq!(block.executed.block.header.state_root, root_of(state));
    store.commit(&[block]).expect("it is committed");
}

fn exported(store: &Database, to: &Path, chunk_bytes: usize) -> Source {
    let tip = store.tip().height();
    let manifest = export(store, vec![(tip, json!({}))], to, chunk_bytes, &|_| ()).expect("it is exported");
    let source = Source::open(to).expect("it has a manifest");
    assert_eq!(source.manifest, manifest);
    source
}

/// What a caller has seen to be final: the block itself.
fn foundation(store: &Database, source: &Source) -> Foundation {
    let (file, tip) = (source.blocks().expect("blocks"), store.tip());
    let certificate = tip.finality.expect("final").certificate;
    let block = file.blocks[0].block(tip.block.consensus.clone(), certificate).expect("it is carried");
    assert_eq!(block, *tip);
    file.check_headers(&block, store.chain().genesis_hash()).expect("they lead down");
    Foundation { blocks: vec![block], headers: file.headers, epochs: Vec::new() }
}

/// A snapshot with what belongs to it.
struct Kit {
    home: tempfile::TempDir,
    chain: Arc<ChainSpec>,
    state: State,
    source: Source,
    foundation: Foundation,
}

impl Kit {
    fn new(seed: u64, chunk_bytes: usize) -> Self {
        let home = tempfile::tempdir().expect("a folder");
        let chain = chain(seed);
        let (store, state) = store(&home.path().join("a"), &chain, config(home.path()));
        let source = exported(&store, &home.path().join("snapshot"), chunk_bytes);
        let foundation = foundation(&store, &source);
        Self { home, chain, state, source, foundation }
    }

    fn folder(&self, name: &str) -> Config {
        config(&self.home.path().join(name))
    }

    fn import(&self, config: &Config) -> Result<Imported, PortableError> {
        import(config, &self.chain, &self.source, &self.foundation, 2, &|_| ())
    }

    fn open(&self, config: Config) -> Database {
        open_on(&FaultyDisk::default(), config, &self.chain).expect("it opens")
    }
}

/// Compares everything that a store says of the state at its tip with the model.
fn check_state(store: &Database, state: &State) {
    let tip = store.tip();
    assert_eq!(tip.block.header.state_root, root_of(state));
    assert_eq!(store.rebuild_root().expect("it is read"), root_of(state));
    let view = store.view(tip.height()).expect("the tip has a state");
    for (who, (account, slots)) in state {
        assert_eq!(view.account(*who), Ok(Some(*account)));
        assert_eq!(view.code(account.code_hash).map(keccak256), Ok(account.code_hash));
        let keys: Vec<U256> = slots.keys().copied().chain([U256::from(10_000)]).collect();
        let proof = store.proof(tip.height(), *who, &keys).expect("it is proven");
        assert_eq!(proof.account, Some(*account));
        for (key, value, _) in proof.slots {
            assert_eq!(value, slots.get(&key).copied().unwrap_or_default());
            assert_eq!(view.slot(*who, key), Ok(value));
        }
    }
    assert_eq!(store.scrub().findings, Vec::new());
}

#[test]
fn a_snapshot_is_taken_over_whole_and_the_chain_goes_on_from_there() {
    for (seed, chunk_bytes) in [(1, *CHUNK_BYTES.start()), (2, 3_000), (3, 1 << 20)] {
        let kit = Kit::new(seed, chunk_bytes);
        let chunks = &kit.source.manifest.chunks;
        let has_apart = chunks.iter().any(|chunk| chunk.part.owner.is_some());
        assert_eq!((chunks.len() > 5, has_apart), (chunk_bytes < 10_000, chunk_bytes < 10_000), "{}", chunks.len());
        assert_eq!(verify(&kit.source, 2, &|_| ()), Vec::new());
        let settings = kit.folder("b");
        let imported = kit.import(&settings).expect("it is imported");
        assert_eq!((imported.resumed, imported.chunks), (0, chunks.len() as u64));
        let disk = FaultyDisk::default();
        let store = open_on(&disk, settings.clone(), &kit.chain).expect("it opens");
        let mut state = kit.state.clone();
        assert_eq!(store.tip(), Arc::new(kit.foundation.blocks[0].clone()));
        check_state(&store, &state);
        let again = exported(&store, &kit.home.path().join("again"), chunk_bytes);
        assert_eq!(again.manifest, kit.source.manifest, "one state has one snapshot");
        let expected: Vec<_> = kit.foundation.headers.iter().map(|header| header.seal()).collect();
        for reopened in [false, true] {
            check_below(&store, &expected);
            if !reopened {
                advance(&store, &mut state);
                store.checkpoint().expect("a checkpoint");
                advance(&store, &mut state);
                check_state(&store, &state);
            }
        }
        crate::testing::crash(store);
        let store = open_on(&disk, settings, &kit.chain).expect("it opens again");
        assert_eq!(store.tip().height(), Height(BLOCKS + 2));
        check_state(&store, &state);
        check_below(&store, &expected);
        let old = store.view(Height(BLOCKS)).expect("the state that was imported");
        for (who, (account, _)) in &kit.state {
            assert_eq!(old.account(*who), Ok(Some(*account)));
        }
    }
}

/// What there is of the blocks before the one whose state was imported: hashes and headers, newest first.
fn check_below(store: &Database, expected: &[B256]) {
    let view = store.view(store.tip().height()).expect("a state");
    for (height, hash) in (1..BLOCKS).rev().map(Height).zip(expected) {
        assert_eq!(store.header(height).expect("kept").expect("a header").seal(), *hash);
        assert_eq!(view.block_hash(height), Ok(Some(*hash)));
        assert_eq!(store.height_of(*hash).expect("kept"), Some(height));
        let refused = |outcome: Result<(), StoreError>| {
            assert!(matches!(outcome, Err(StoreError::NotKept { height: at, .. }) if at == height), "{outcome:?}");
        };
        refused(store.block(height).map(drop));
        refused(store.view(height).map(drop));
        let lowest = Height(BLOCKS);
        let proof = store.proof(height, Address::ZERO, &[]);
        assert!(matches!(proof, Err(StoreError::NoProof { lowest: at, .. }) if at == lowest), "{proof:?}");
        refused(store.blocks_with_logs(&Default::default(), height..=Height(BLOCKS + 9)).map(drop));
    }
    assert!(store.block(Height::GENESIS).expect("kept").is_some());
    assert!(store.block(Height(BLOCKS)).expect("kept").is_some());
    assert!(store.block(Height(BLOCKS + 9)).expect("unknown").is_none());
}

#[test]
fn an_old_chain_keeps_as_many_headers_as_blocks_can_ask_for() {
    let home = tempfile::tempdir().expect("a folder");
    let chain = chain(4);
    let (store, mut state) = store(&home.path().join("a"), &chain, config(home.path()));
    while store.tip().height() < Height(300) {
        let tip = store.tip();
        let block = block_after(&store, &tip, None, StateChanges::default(), Vec::new());
        store.commit(&[block]).expect("it is committed");
    }
    let source = exported(&store, &home.path().join("snapshot"), 1 << 20);
    let foundation = foundation(&store, &source);
    assert_eq!(foundation.headers.len(), 255);
    let settings = config(&home.path().join("b"));
    import(&settings, &chain, &source, &foundation, 2, &|_| ()).expect("it is imported");
    let imported = open_on(&FaultyDisk::default(), settings, &chain).expect("it opens");
    advance(&imported, &mut state);
    check_state(&imported, &state);
    let view = imported.view(Height(301)).expect("a state");
    for height in 0..=300 {
        let hash = view.block_hash(Height(height)).expect("it can be asked");
        let known = store.header(Height(height)).expect("kept").map(|header| header.seal());
        let expected = if (1..45).contains(&height) { None } else { known };
        assert_eq!(hash, expected, "block {height}");
    }
    let refused = imported.header(Height(44));
    assert!(matches!(refused, Err(StoreError::NotKept { height: Height(44), lowest: Height(301) })), "{refused:?}");
}

/// The newest state that can be shown is not always the tip's.
#[test]
fn the_state_of_a_block_below_the_tip_is_exported() {
    let home = tempfile::tempdir().expect("a folder");
    let chain = chain(5);
    let (store, state) = store(&home.path().join("a"), &chain, config(home.path()));
    advance(&store, &mut state.clone());
    let manifest = export(&store, vec![(Height(BLOCKS), json!({}))], &home.path().join("snapshot"), 5_000, &|_| ());
    assert_eq!(manifest.expect("it is exported").state_root, root_of(&state));
    assert_eq!(verify(&Source::open(&home.path().join("snapshot")).expect("a snapshot"), 1, &|_| ()), Vec::new());
    for (height, words) in [(Height(BLOCKS + 2), "there is no block 7"), (Height::GENESIS, "final by itself")] {
        let refused = export(&store, vec![(height, json!({}))], &home.path().join(words), 5_000, &|_| ());
        assert!(refused.as_ref().is_err_and(|error| error.to_string().contains(words)), "{refused:?}");
    }
}

#[test]
fn an_empty_state_has_a_snapshot() {
    let home = tempfile::tempdir().expect("a folder");
    let chain = chain_with(BTreeMap::new());
    let store = open_on(&FaultyDisk::default(), config(&home.path().join("a")), &chain).expect("it opens");
    let block = block_after(&store, &store.tip(), None, StateChanges::default(), Vec::new());
    store.commit(&[block]).expect("it is committed");
    let source = exported(&store, &home.path().join("snapshot"), 5_000);
    assert_eq!((source.manifest.chunks.len(), verify(&source, 1, &|_| ())), (1, Vec::new()));
    let (foundation, settings) = (foundation(&store, &source), config(&home.path().join("b")));
    import(&settings, &chain, &source, &foundation, 2, &|_| ()).expect("it is imported");
    check_state(&open_on(&FaultyDisk::default(), settings, &chain).expect("it opens"), &State::new());
}

#[test]
fn progress_goes_up_to_the_end() {
    let kit = Kit::new(6, 2_000);
    let check = |told: Vec<Progress>| {
        assert!(told.windows(2).all(|pair| pair[0].done <= pair[1].done && pair[0].rows <= pair[1].rows), "{told:?}");
        let last = told.last().expect("it was told");
        assert_eq!(last.done, last.all);
    };
    let told = parking_lot::Mutex::new(Vec::new());
    let store = open_on(&FaultyDisk::default(), kit.folder("c"), &kit.chain).expect("it opens");
    let block = block_after(&store, &store.tip(), None, StateChanges::default(), Vec::new());
    store.commit(&[block]).expect("it is committed");
    export(&store, vec![(Height(1), json!({}))], &kit.home.path().join("d"), 2_000, &|at| told.lock().push(at))
        .expect("it is exported");
    check(std::mem::take(&mut told.lock()));
    assert_eq!(verify(&kit.source, 2, &|at| told.lock().push(at)), Vec::new());
    let told = told.into_inner();
    assert_eq!(told.len(), kit.source.manifest.chunks.len());
    check(told);
}

#[test]
fn encodings_are_pinned() {
    let slot = |byte: u8| (B256::repeat_byte(byte), U256::from(byte));
    let account = engine::types::Account { nonce: 7, balance: U256::from(0x1234), code_hash: keccak256([0xfe]) };
    let row = |key: u8, storage| Row { key: B256::repeat_byte(key), account, storage };
    let node = vec![Bytes::from_static(&[0xc0])];
    let plain = Row { account: Default::default(), ..row(1, Storage::Here(Vec::new())) };
    let rows = vec![plain, row(2, Storage::Here(vec![slot(3), slot(4)])), row(5, Storage::Apart(B256::repeat_byte(6)))];
    let accounts = Accounts { from: B256::ZERO, rows, codes: vec![Bytes::from_static(&[0xfe])], proof: node.clone() };
    let root = B256::repeat_byte(0xaa);
    let (a, b) = ("aa".repeat(32), keccak256([0xfe]).to_string()[2..].to_owned());
    let key = |byte: u8| hex::encode([byte; 32]);
    let fields = format!("0000000000000007021234{b}");
    let slots = format!("00000002{}0103{}0104", key(3), key(4));
    let check = |body: Body, expected: String| {
        let chunk = Chunk { root, body };
        assert_eq!(hex::encode(chunk.encode()), expected);
        assert_eq!(Chunk::decode(&chunk.encode()), Ok(chunk));
    };
    let rows = format!("{}00{}0f{fields}{slots}{}17{fields}{}", key(1), key(2), key(5), key(6));
    let head = format!("534c554943534e4300010000{a}");
    check(Body::Accounts(accounts), format!("{head}00{}00000003{rows}0000000100000001fe00010001c0", key(0)));
    let (owner, rows) = (row(5, Storage::Apart(B256::repeat_byte(6))), vec![slot(3), slot(4)]);
    let body = Body::Slots(Slots { owner, owner_proof: node.clone(), from: slot(2).0, rows, proof: node });
    check(body, format!("{head}01{}17{fields}{}00010001c0{}{slots}00010001c0", key(5), key(6), key(2)));

    let kit = Kit::new(7, 2_000);
    let blocks = kit.source.blocks().expect("blocks").encode();
    assert_eq!(super::BlocksFile::decode(&blocks).map(|file| file.encode()), Ok(blocks.clone()));
    assert_eq!(hex::encode(&blocks[..14]), "534c554943534e42000100000001");
    let digest = |bytes: &[u8]| hex::encode(Sha256::digest(bytes));
    let manifest = kit.source.manifest.to_json();
    assert_eq!(Manifest::parse(manifest.as_bytes()).map(|manifest| manifest.to_json()), Ok(manifest.clone()));
    let pinned = [
        "8a9fe3d06dd75c887438b88af432644c92b2ec46cfa296af1bfb9bf60c7dd31f",
        "0903b8944bebdd424ad66f3f8f9096c6acc3edd2baf27ceca61f9d72c6df33d8",
    ];
    assert_eq!([digest(&blocks), digest(manifest.as_bytes())], pinned, "{manifest}");
}
