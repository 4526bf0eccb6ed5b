//! A chain that is fed with blocks' worst cases goes on, and whoever pays more than they do is served.
//!
//! `SLUICE_WORST_ROUNDS` feeds more than the four rounds of six transactions with all the gas there is.

use std::time::{Duration, Instant};

use alloy_consensus::TxEip1559;
use alloy_primitives::{Address, B256, TxKind, U256, hex};
use bench::{WorstCase, worst::TRANSACTION_GAS_MAX};
use serde_json::{Value, json};
use tests::{
    node::Node,
    rpc::quantity,
    wallet::{account, hash, hex_of, sign, template},
};

use super::chain::{genesis, start};

/// Slow for their gas by arithmetic and by state; the slowest last.
const CASES: [WorstCase; 6] = [
    WorstCase::SstoreFresh,
    WorstCase::Modexp,
    WorstCase::P256Verify,
    WorstCase::BlsG1Msm,
    WorstCase::Blake2,
    WorstCase::KzgPoint,
];

/// Puts the contracts of the cases and a rich bystander into a genesis file.
fn prepare(chain: &mut Value) {
    chain["alloc"][account(1).address().to_string()] = json!({"balance": "0x56bc75e2d63100000"});
    for case in CASES {
        let contract = case.accounts().swap_remove(0);
        let code = hex::encode_prefixed(&contract.code);
        chain["alloc"][contract.address.to_string()] = json!({"nonce": "0x1", "balance": "0x0", "code": code});
    }
}

/// Sends every case over and over, each transaction with all the gas there is; gives the hashes.
fn attack(node: &Node) -> Vec<B256> {
    let rounds = std::env::var("SLUICE_WORST_ROUNDS").map_or(4, |text| text.parse().expect("a number of rounds"));
    let mut hashes = Vec::new();
    for round in 0..rounds {
        for case in CASES {
            let nonce = u64::try_from(hashes.len()).expect("few");
            let call = case.calls_after(TRANSACTION_GAS_MAX, round).swap_remove(0);
            let tx = TxEip1559 {
                to: call.call.to,
                input: call.call.input,
                gas_limit: call.gas_limit,
                value: U256::ZERO,
                ..template(nonce)
            };
            let raw = sign(&account(0), tx);
            node.rpc.call("eth_sendRawTransaction", json!([hex_of(&raw)]));
            hashes.push(hash(&raw));
        }
    }
    hashes
}

/// Waits until the transaction has left the pool and gives its block; one that was included must have done its work.
fn follow(node: &Node, hash: B256, until: Instant) -> Option<u64> {
    loop {
        let receipt = node.rpc.call("eth_getTransactionReceipt", json!([hash]));
        if !receipt.is_null() {
            assert_eq!(receipt["status"], "0x1", "{receipt}");
            return Some(quantity(&receipt["blockNumber"]));
        }
        // On a slow machine it may have been thrown out.
        if node.rpc.call("eth_getTransactionByHash", json!([hash])).is_null() {
            return None;
        }
        assert!(Instant::now() < until, "the pool is never worked off");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

#[test]
fn a_chain_fed_with_worst_cases_goes_on_and_serves_others() {
    let home = tempfile::tempdir().expect("a folder");
    let (file, folder) = (home.path().join("genesis.json"), home.path().join("data"));
    genesis(&file, prepare);
    let mut node = start(&file, &folder).expect("it serves");
    let begun = Instant::now();
    let hashes = attack(&node);
    let mut heights = Vec::new();
    for nonce in 0..5 {
        let tip = template(nonce).max_priority_fee_per_gas * 2;
        let to = TxKind::Call(Address::repeat_byte(9));
        let raw = sign(&account(1), TxEip1559 { to, max_priority_fee_per_gas: tip, ..template(nonce) });
        let receipt = node.rpc.call("eth_sendRawTransactionSync", json!([hex_of(&raw), "0x7530"]));
        assert_eq!(receipt["status"], "0x1", "{receipt}");
        heights.push(quantity(&receipt["blockNumber"]));
    }
    assert!(heights.is_sorted() && heights.first() < heights.last(), "the chain goes on: {heights:?}");
    let until = begun + Duration::from_secs(20) + Duration::from_secs(2) * u32::try_from(hashes.len()).expect("few");
    let blocks: Vec<_> = hashes.iter().filter_map(|hash| follow(&node, *hash, until)).collect();
    assert!(blocks.is_sorted(), "{blocks:?}");
    let (included, sent, seconds) = (blocks.len(), hashes.len(), begun.elapsed().as_secs_f64());
    println!(
        "{included} of {sent} transactions in {seconds:.1} s, in blocks {:?} to {:?}",
        blocks.first(),
        blocks.last()
    );
    let log = std::fs::read_to_string(folder.with_extension("log")).expect("the node's log");
    log.lines().filter(|line| line.contains("thrown out")).for_each(|line| println!("{line}"));
    assert!(node.stop().success());
}
