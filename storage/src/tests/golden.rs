//! The bytes of every table, record and file, as this schema has them.
//!
//! Some handmade blocks on a folder whose salt is fixed: what its tables and files then hold is compared with what they
//! held when `golden.txt` was written, the short in full, the long by its hash. A difference is another layout, which
//! goes with another number of the schema, a way for older folders, and a new `golden.txt`; or it is a mistake.
//!
//! Pinned elsewhere are the log (`log/tests/golden.rs`), the files of a snapshot (`portable/tests.rs`), indices and
//! their keys (`index/tests.rs`), the frame of files of the past (`past/tests.rs`).

use std::{collections::BTreeMap, fmt::Write as _, ops::ControlFlow, path::Path, sync::Arc};

use alloy_primitives::{Bytes, U256, hex, keccak256};
use engine::{
    genesis::{ChainSpec, GenesisAccount, OrderingParams},
    ports::Store as _,
    types::{Account, AccountChange, Epoch, Height, SlotChange, StateChanges},
};

use super::kit::{FaultyDisk, address, begin_epoch, block_after, chain_with, config, open_on, transaction};
use crate::{
    Config, Database, Keep,
    failpoint::{Action, FailPoints},
    kv::{Env, Table},
    offline::rewind::rewind_on,
    open,
    portable::{Foundation, Head, Intake, serve},
    record::{HEADER_BYTES, Header, Kind},
    segment::FIRST_OFFSET,
    tables::{CHAIN_META, CHAIN_TABLES, SCHEMA, STATE_TABLES, meta},
};

const GOLDEN: &str = include_str!("golden.txt");
/// Tables with more rows, but for `meta`, are told by the first, and all together by a hash.
const ROWS_MAX: usize = 8;
/// Longer values are told by their hash.
const BYTES_MAX: usize = 192;
const TIP: u64 = 460;

/// A payer, and a contract with slots; epochs of eight heights.
fn chain() -> Arc<ChainSpec> {
    let payer = GenesisAccount { balance: U256::from(0x1234), ..GenesisAccount::default() };
    let storage = (1..4).map(|slot| (U256::from(slot), U256::from(slot) << 100)).collect();
    let code = Bytes::from_static(&[0x60, 0, 0xff]);
    let contract = GenesisAccount { nonce: 1, code, storage, balance: U256::ZERO };
    let chain = chain_with(BTreeMap::from([(address(0), payer), (address(1), contract)]));
    let ordering = OrderingParams { epoch_slots: 8, ..chain.ordering.clone() };
    Arc::new(ChainSpec { ordering, ..ChainSpec::clone(&chain) })
}

/// A folder of that chain, with a salt that is no other the next time.
fn salted(dir: &Path, chain: &ChainSpec) -> Config {
    std::fs::create_dir(dir).unwrap();
    let env = open::environment(dir, "chain", CHAIN_TABLES, 1 << 30).unwrap();
    let mut txn = env.write().unwrap();
    for (name, value) in [
        (meta::SCHEMA, &hex!("00020003")[..]),
        (meta::CHAIN_ID, &hex!("0000000000000539")),
        (meta::SALT, &hex!("00005a17")),
        (meta::CHAIN_DIGEST, chain.digest().as_slice()),
    ] {
        txn.put(CHAIN_META, name, value).unwrap();
    }
    txn.commit().unwrap();
    let keep = Some(Keep::Window { time: std::time::Duration::ZERO, bytes: 0 });
    Config { segment_bytes: 16_384, proof_window: 40, keep, ..config(dir) }
}

/// A block that ends the contract and makes another; later ones change what that one has.
fn changes(height: u64) -> StateChanges {
    let mut changes = StateChanges::default();
    let (gone, made) = (address(1), address(2));
    let code = Bytes::from_static(&[0x5f, 0x5f, 0xfd]);
    let account = |nonce| Account { nonce, balance: U256::from(nonce * 256), code_hash: keccak256(&code) };
    let slot = |before: u64, after: u64| SlotChange { before: U256::from(before), after: U256::from(after) };
    let mut change = AccountChange { after: Some(account(height)), ..AccountChange::default() };
    if height == 1 {
        let before = Account { nonce: 1, balance: U256::ZERO, code_hash: keccak256([0x60, 0, 0xff]) };
        let end = AccountChange { before: Some(before), after: None, wiped: true, ..AccountChange::default() };
        changes.accounts.insert(gone, end);
        changes.codes.insert(keccak256(&code), code.clone());
        change.slots = (1..6).map(|key| (U256::from(key), slot(0, 1))).collect();
    } else {
        change.before = Some(account(height - 1));
        change.slots = [(U256::from(1), slot(height - 1, height))].into_iter().collect();
    }
    changes.accounts.insert(made, change);
    changes
}

fn advance(store: &Database, to: u64) {
    while store.tip().height().0 < to {
        let tip = store.tip();
        let height = tip.height().0 + 1;
        let transactions = if height == 1 { vec![transaction(1), transaction(2)] } else { Vec::new() };
        store.commit(&[block_after(store, &tip, None, changes(height), transactions)]).unwrap();
        if height.is_multiple_of(7) {
            store.checkpoint().unwrap();
        }
    }
}

/// Bytes in full, or their length and hash.
fn told(bytes: &[u8]) -> String {
    if bytes.len() <= BYTES_MAX {
        return hex::encode(bytes);
    }
    format!("{} bytes {}", bytes.len(), keccak256(bytes))
}

/// Tells what tables hold.
fn tell_tables(out: &mut String, env: &Env, name: &str, tables: &[&str]) {
    for (index, table) in tables.iter().enumerate() {
        let (mut rows, mut all) = (Vec::new(), Vec::new());
        let snapshot = env.snapshot().unwrap();
        let scanned = snapshot.scan(Table(index), &[0], |key, value| {
            let key_told = if *table == "meta" { String::from_utf8_lossy(key).into_owned() } else { hex::encode(key) };
            rows.push(format!("  {key_told} = {}", told(value)));
            [key, value].iter().for_each(|part| {
                all.extend_from_slice(&(part.len() as u32).to_be_bytes());
                all.extend_from_slice(part);
            });
            ControlFlow::Continue(())
        });
        scanned.unwrap();
        writeln!(out, "{name} {table}: {} rows {}", rows.len(), keccak256(&all)).unwrap();
        let shown = if rows.len() > ROWS_MAX && *table != "meta" { 1 } else { rows.len() };
        rows.iter().take(shown).for_each(|row| writeln!(out, "{row}").unwrap());
    }
}

fn tell_store(out: &mut String, store: &Database) {
    tell_tables(out, &store.inner.chain_env, "chain", CHAIN_TABLES);
    tell_tables(out, &store.inner.state, "state", STATE_TABLES);
}

/// Tells what the first file of each kind holds.
fn tell_files(out: &mut String, disk: &FaultyDisk, dir: &Path) {
    for kind in ["seg", "idx", "chg", "past"] {
        let mut paths = disk.names().into_iter().filter(|path| path.extension().is_some_and(|found| found == kind));
        let path = paths.next().unwrap();
        let (name, bytes) = (path.strip_prefix(dir).unwrap().display(), disk.bytes(&path));
        writeln!(out, "{name}: {}\n  {}", told(&bytes), hex::encode(&bytes[..96])).unwrap();
    }
}

/// Tells the records of the first block of a segment.
fn tell_records(out: &mut String, bytes: &[u8]) {
    let mut at = FIRST_OFFSET as usize;
    for kind in Kind::ALL {
        let front = bytes[at..].first_chunk::<HEADER_BYTES>().unwrap();
        let header = Header::decode(front).unwrap();
        assert_eq!(header.kind, kind);
        let payload = &bytes[at + HEADER_BYTES..][..header.length];
        writeln!(out, "record {kind:?}: {} | {}", hex::encode(front), told(payload)).unwrap();
        at += HEADER_BYTES + header.length;
    }
}

#[test]
fn what_lies_on_the_disk_keeps_its_bytes() {
    assert_eq!(SCHEMA, (2, 3), "another schema has another golden.txt");
    let home = tempfile::tempdir().unwrap();
    let (chain, disk, dir) = (chain(), FaultyDisk::default(), home.path().join("a"));
    let settings = salted(&dir, &chain);
    let mut out = String::new();
    let store = open_on(&disk, settings.clone(), &chain).unwrap();
    advance(&store, 1);
    begin_epoch(&store, 1).unwrap();
    store.checkpoint().unwrap();
    out.push_str("== block 1\n");
    tell_store(&mut out, &store);
    tell_records(&mut out, &disk.bytes(&dir.join("segments/00000000.seg")));
    advance(&store, TIP);
    writeln!(out, "== block {TIP}").unwrap();
    tell_store(&mut out, &store);
    tell_files(&mut out, &disk, &dir);

    out.push_str("== a state that is given and taken over\n");
    let (block, bytes) = store.state_head(None, Epoch(0)).unwrap();
    let head = Head::decode(&bytes).unwrap();
    let newest = head.blocks.blocks[0].block(head.proofs[0].headers[0].clone(), head.proofs[0].certificate).unwrap();
    let root = newest.block.header.state_root;
    let taken = salted(&home.path().join("b"), &chain);
    let mut intake = Intake::open(&taken, &chain, block).unwrap();
    writeln!(out, "head: {}", told(&bytes)).unwrap();
    for index in 0.. {
        let Some(gap) = intake.gaps(1).first().copied() else { break };
        let part = serve::part(&store, block, (gap.owner, gap.from), 80).unwrap();
        writeln!(out, "part: {}", told(&part)).unwrap();
        intake.take(root, &part).unwrap().unwrap();
        if index == 0 {
            drop(intake);
            let state = open::environment(&taken.dir, "state", STATE_TABLES, 1 << 30).unwrap();
            tell_tables(&mut out, &state, "state", STATE_TABLES);
            drop(state);
            intake = Intake::open(&taken, &chain, block).unwrap();
        }
    }
    let foundation = Foundation { blocks: vec![newest], headers: head.blocks.headers, epochs: Vec::new() };
    intake.finish(&chain, &foundation, &|_| ()).unwrap();
    let env = open::environment(&taken.dir, "chain", CHAIN_TABLES, 1 << 30).unwrap();
    tell_tables(&mut out, &env, "chain", CHAIN_TABLES);

    out.push_str("== a rewind that is not finished\n");
    store.close().unwrap();
    let fail = FailPoints::parse(Some("rewind.marked"), Action::Fail).unwrap();
    rewind_on(Arc::new(disk), fail, settings, chain, Height(TIP - 3), &mut |_| {}).unwrap_err();
    let env = open::environment(&dir, "chain", CHAIN_TABLES, 1 << 30).unwrap();
    tell_tables(&mut out, &env, "chain", CHAIN_TABLES);
    assert!(out == GOLDEN, "golden.txt would be:\n{out}");
}

/// How well a payload is packed is no part of the layout; that this one is read is.
#[test]
fn a_packed_record_is_read() {
    let front = hex!("00000011010100000000000000092443c3a8");
    let payload = hex!("58020000 1f610100ffff41506161616161");
    let header = Header::decode(&front).unwrap();
    assert!(header.matches(&payload, 0x5a17));
    assert_eq!(header.unpack(&payload).unwrap(), [0x61; 600].as_slice());
}
