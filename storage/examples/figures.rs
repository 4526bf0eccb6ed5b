//! Figures of the store on this machine: `cargo run --release -p storage --example figures -- DIR`.
#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use alloy_consensus::{Header, Sealable, SignableTransaction, TxEip1559};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, Signature, U256};
use engine::{
    genesis::{BaseFeeParams, ChainSpec, Fork, ForkSchedule, GenesisAccount, OrderingParams},
    ports::Store,
    types::*,
};
use storage::{Config, Database, genesis, metrics};

fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *seed;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Nanoseconds this thread was on a processor.
fn cpu() -> u128 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

fn address(index: u64) -> Address {
    Address::left_padding_from(&(index + 1).to_be_bytes())
}

fn main() {
    let dir = std::env::args().nth(1).unwrap();
    let accounts: u64 = 200_000;
    let hot: u64 = std::env::var("HOT").map_or(1, |v| v.parse().unwrap());
    let contracts: u64 = 10;
    let slots: u64 = 100_000;
    let mut alloc = BTreeMap::new();
    for index in 0..accounts {
        alloc.insert(address(index), GenesisAccount { balance: U256::from(1u64 << 40), ..Default::default() });
    }
    for contract in 0..contracts {
        let storage = (0..slots).map(|slot| (U256::from(slot), U256::from(slot + 1))).collect();
        alloc.insert(address(accounts + contract), GenesisAccount { nonce: 1, storage, ..Default::default() });
    }
    let start = Instant::now();
    let state_root = genesis::state_root(&alloc);
    println!("genesis root of {accounts} accounts, {} slots: {:?}", contracts * slots, start.elapsed());
    let genesis_header =
        Header { state_root, gas_limit: 30_000_000, timestamp: 1, base_fee_per_gas: Some(7), ..Default::default() };
    let chain = Arc::new(ChainSpec {
        chain_id: 1_337,
        forks: ForkSchedule::all_at_zero(Fork::Osaka),
        base_fee: BaseFeeParams::ETHEREUM,
        deposit_contract: None,
        ordering: OrderingParams::default(),
        genesis_header,
        alloc,
    });
    let mut config = Config::new(&dir);
    if let Some(mb) = std::env::args().nth(2) {
        config.trie_bytes_max = mb.parse::<usize>().unwrap() << 20;
    }
    config.compress = std::env::args().nth(3).is_some();
    let start = Instant::now();
    let store = Database::open(config.clone(), Arc::clone(&chain)).unwrap();
    println!("create with genesis: {:?}", start.elapsed());

    let mut random = 1;
    let mut balances: BTreeMap<u64, (u64, U256)> = BTreeMap::new();
    let mut values: BTreeMap<(u64, u64), U256> = BTreeMap::new();
    let (mut root_ns, mut commit_ns, mut bytes0) = (0u128, 0u128, metrics::SEGMENT_BYTES.value());
    let (mut keccaks, rounds) =
        (metrics::KECCAK.value(), std::env::var("ROUNDS").map_or(100u64, |v| v.parse().unwrap()));
    let mut max_commit = 0;
    let (mut root_cpu, mut commit_cpu) = (0u128, 0u128);
    for round in 0..rounds {
        // 2,000 slots and 1,000 accounts per block, 3,000 transactions.
        let mut changes = StateChanges::default();
        for _ in 0..1_000 {
            let who = next(&mut random) % (accounts / hot);
            let entry = balances.entry(who).or_insert((0, U256::from(1u64 << 40)));
            let before = Account { nonce: entry.0, balance: entry.1, ..Account::default() };
            if changes.accounts.contains_key(&address(who)) {
                continue;
            }
            entry.0 += 1;
            entry.1 -= U256::from(1);
            let after = Account { nonce: entry.0, balance: entry.1, ..Account::default() };
            changes
                .accounts
                .insert(address(who), AccountChange { before: Some(before), after: Some(after), ..Default::default() });
        }
        for _ in 0..2_000 {
            let contract = next(&mut random) % contracts;
            let slot = next(&mut random) % (slots / hot);
            let account = Account { nonce: 1, ..Account::default() };
            let change = changes.accounts.entry(address(accounts + contract)).or_insert_with(|| AccountChange {
                before: Some(account),
                after: Some(account),
                ..Default::default()
            });
            let value = values.entry((contract, slot)).or_insert(U256::from(slot + 1));
            let before = *value;
            if change.slots.contains_key(&U256::from(slot)) {
                continue;
            }
            *value = U256::from(next(&mut random));
            change.slots.insert(U256::from(slot), SlotChange { before, after: *value });
        }
        let transactions: Vec<_> = (0..3_000u64)
            .map(|i| {
                let unsigned = TxEip1559 {
                    chain_id: 1_337,
                    nonce: round,
                    gas_limit: 21_000,
                    max_fee_per_gas: 100,
                    to: address(i).into(),
                    value: U256::from(next(&mut random)),
                    ..Default::default()
                };
                let signature =
                    Signature::new(U256::from(next(&mut random)) << 190, U256::from(next(&mut random)) << 190, false);
                let envelope = Envelope::Eip1559(unsigned.into_signed(signature));
                Arc::new(Transaction::with_known_sender(envelope.encoded_2718().into(), address(i)).unwrap())
            })
            .collect();
        let receipts = (0..3_000u64)
            .map(|i| Receipt {
                type_byte: 2,
                success: true,
                gas_used: 21_000,
                cumulative_gas_used: 21_000 * (i + 1),
                contract: None,
                logs: Vec::new(),
            })
            .collect();
        let tip = store.tip();
        let view = store.view(tip.height()).unwrap();
        let start = Instant::now();
        let cpu0 = cpu();
        let (state_root, trie) = view.root_after(None, &changes).unwrap();
        root_ns += start.elapsed().as_nanos();
        root_cpu += cpu() - cpu0;
        let header = Header {
            parent_hash: tip.hash(),
            number: round + 1,
            state_root,
            gas_limit: 30_000_000,
            timestamp: round + 2,
            base_fee_per_gas: Some(7),
            ..Default::default()
        }
        .seal_slow();
        let consensus = ConsensusHeader {
            chain_id: 1_337,
            height: round + 1,
            slot: round + 1,
            block_hash: header.seal(),
            ..Default::default()
        };
        let finalization = Finalization { epoch: Epoch(0), slot: Slot(round + 1), id: consensus.id() };
        let block = Block { consensus, header, body: BlockBody { transactions, withdrawals: None } };
        let executed =
            ExecutedBlock { block: Arc::new(block), receipts: Arc::new(receipts), changes: Arc::new(changes), trie };
        let start = Instant::now();
        let cpu0 = cpu();
        store.commit(&[FinalizedBlock { executed, finalization }]).unwrap();
        let took = start.elapsed().as_nanos();
        commit_ns += took;
        commit_cpu += cpu() - cpu0;
        max_commit = max_commit.max(took);
        if round % 20 == 9 && round < 40 || round == 9 {
            println!("round {round}: root {:.2} ms, commit {:.2} ms", root_ns as f64 / 1e7, commit_ns as f64 / 1e7);
            (root_ns, commit_ns, root_cpu, commit_cpu) = (0, 0, 0, 0);
            keccaks = metrics::KECCAK.value();
            bytes0 = metrics::SEGMENT_BYTES.value();
        }
    }
    let n = (rounds - 30) as f64;
    println!(
        "per block of 3,000 tx, 2,000 slots, 1,000 accounts: root {:.2} ms ({:.0} keccaks), commit {:.2} ms (max {:.1}) of {:.0} bytes",
        root_ns as f64 / 1e6 / n,
        (metrics::KECCAK.value() - keccaks) as f64 / n,
        commit_ns as f64 / 1e6 / n,
        max_commit as f64 / 1e6,
        (metrics::SEGMENT_BYTES.value() - bytes0) as f64 / n
    );
    println!(
        "  processor time: root {:.2} ms, commit {:.2} ms",
        root_cpu as f64 / 1e6 / n,
        commit_cpu as f64 / 1e6 / n
    );
    println!(
        "  of commit: to durable {:.2} ms, in fdatasync {:.2} ms",
        metrics::COMMIT_BUSY.value() as f64 / 1e6 / rounds as f64,
        metrics::SYNC_BUSY.value() as f64 / 1e6 / rounds as f64
    );

    let time = |name: &str, count: u64, act: &mut dyn FnMut(u64)| {
        let start = Instant::now();
        for i in 0..count {
            act(i);
        }
        println!("{name}: {:.0} ns", start.elapsed().as_nanos() as f64 / count as f64);
    };
    let tip = store.tip().height();
    time("view open", 100_000, &mut |_| {
        let _ = store.view(tip).unwrap();
    });
    let view = store.view(tip).unwrap();
    let touched: Vec<_> = balances.keys().copied().collect();
    time("account from overlay", 100_000, &mut |i| {
        view.account(address(touched[i as usize % touched.len()])).unwrap();
    });
    time("account any", 100_000, &mut |_| {
        view.account(address(next(&mut random) % accounts)).unwrap();
    });
    let keys: Vec<_> = values.keys().copied().collect();
    time("slot from overlay", 100_000, &mut |i| {
        let (c, s) = keys[i as usize % keys.len()];
        view.slot(address(accounts + c), U256::from(s)).unwrap();
    });
    time("slot from snapshot", 200_000, &mut |_| {
        view.slot(address(accounts + next(&mut random) % contracts), U256::from(next(&mut random) % slots)).unwrap();
    });
    time("slot absent", 100_000, &mut |i| {
        view.slot(address(accounts), U256::from(slots + i)).unwrap();
    });
    drop(view);
    let start = Instant::now();
    let (rows0, bytes0) = (metrics::CHECKPOINT_ROWS.value(), metrics::CHECKPOINT_BYTES.value());
    println!(
        "checkpoints so far: {} in {:.0} ms",
        metrics::CHECKPOINT.value(),
        metrics::CHECKPOINT_BUSY.value() as f64 / 1e6
    );
    let before = store.checkpointed();
    store.checkpoint().unwrap();
    println!(
        "checkpoint of {} blocks: {:?}, {} rows, {} bytes",
        tip.0 - before.0,
        start.elapsed(),
        metrics::CHECKPOINT_ROWS.value() - rows0,
        metrics::CHECKPOINT_BYTES.value() - bytes0
    );
    let start = Instant::now();
    assert_eq!(store.rebuild_root().unwrap(), store.tip().block.header.state_root);
    println!("rebuild root: {:?}", start.elapsed());
    let start = Instant::now();
    store.close().unwrap();
    println!("close: {:?}", start.elapsed());
    let start = Instant::now();
    let store = Database::open(config, chain).unwrap();
    println!("open: {:?}", start.elapsed());
    drop(store);
}
