//! Receipts and balances that are wrong in one place each are noticed.

use std::convert::Infallible;

use bench::{Settings, Shape, shapes::Scale, sign::GasLimits, sign::sign};
use serde_json::{Value, json};

use super::*;

const FEES: Fees = Fees { chain_id: 1, fee_max: 8_000, priority_fee: 10 };
const BASE_FEE: u64 = 100;

/// Three transfers in one block, and what an honest node says of them.
struct Case {
    plan: Plan,
    transactions: Vec<SignedTransaction>,
    block: Value,
    receipts: Vec<Value>,
}

impl Case {
    fn new() -> Self {
        let funder = alloy_signer_local::PrivateKeySigner::from_bytes(&B256::repeat_byte(1)).unwrap();
        let scale = Scale::default();
        let settings =
            Settings { traffic: Shape::Transfer.into(), seed: 1, senders: 2, transactions: 3, scale, funder };
        let Ok(plan) = Plan::new(&settings, |_| Ok::<_, Infallible>(0));
        let mut nonces = vec![0; plan.accounts.count()];
        let transactions = sign(&plan.operations, &plan.world, &plan.accounts, FEES, &GasLimits::new(), &mut nonces);
        let hash = B256::repeat_byte(9);
        let block = json!({
            "number": "0x5", "hash": hash, "parentHash": B256::ZERO, "timestamp": "0x7", "gasUsed": "0xf618",
            "gasLimit": "0xffffff", "baseFeePerGas": format!("{BASE_FEE:#x}"),
            "transactions": transactions.iter().map(|sent| sent.hash).collect::<Vec<_>>(),
        });
        let receipt = |(position, sent): (usize, &SignedTransaction)| {
            let (from, operation) = &plan.operations[position];
            let to = operation.call(*from, &plan.world, &plan.accounts).to;
            json!({
                "transactionHash": sent.hash, "transactionIndex": format!("{position:#x}"), "blockHash": hash,
                "blockNumber": "0x5", "from": plan.accounts.address(*from), "to": to.to(), "contractAddress": null,
                "status": "0x1", "gasUsed": "0x5208", "cumulativeGasUsed": format!("{:#x}", 21_000 * (position + 1)),
                "effectiveGasPrice": "0x6e", "logs": [],
            })
        };
        let receipts = transactions.iter().enumerate().map(receipt).collect();
        Self { plan, transactions, block, receipts }
    }

    /// Counts of problems, by kind, as `kind=count`.
    fn found(&self) -> Vec<String> {
        let sent =
            Sent { plan: &self.plan, operations: &self.plan.operations, transactions: &self.transactions, fees: FEES };
        let index = self.transactions.iter().enumerate().map(|(index, sent)| (sent.hash, index)).collect();
        let block = serde_json::from_value(self.block.clone()).unwrap();
        let receipts: Vec<Receipt> =
            self.receipts.iter().map(|receipt| serde_json::from_value(receipt.clone()).unwrap()).collect();
        let (mut inclusions, mut problems) = (Vec::new(), Problems::default());
        sent.compare(&block, &receipts, &index, &mut inclusions, &mut problems);
        sent.check_counts(&inclusions, &mut problems);
        problems.counts.iter().map(|(kind, count)| format!("{kind}={count}")).collect()
    }
}

/// Each change to one receipt must be found.
fn check(change: impl FnOnce(&mut Case), expected: &[&str]) {
    let mut case = Case::new();
    change(&mut case);
    assert_eq!(case.found(), expected);
}

#[test]
fn an_honest_node_has_no_problems() {
    check(|_| {}, &[]);
}

#[test]
fn every_wrong_field_is_found() {
    let wrong = [
        ("blockHash", json!(B256::ZERO)),
        ("blockNumber", json!("0x6")),
        ("transactionIndex", json!("0x0")),
        ("cumulativeGasUsed", json!("0x5208")),
        ("effectiveGasPrice", json!("0x6f")),
        ("from", json!(Address::ZERO)),
        ("to", json!(Address::ZERO)),
        ("contractAddress", json!(Address::ZERO)),
    ];
    for (field, value) in wrong {
        check(|case| case.receipts[1][field] = value, &["wrong receipt=1"]);
    }
}

#[test]
fn a_revert_is_found() {
    check(|case| case.receipts[2]["status"] = json!("0x0"), &["reverted=1"]);
}

#[test]
fn logs_that_nobody_emitted_are_found() {
    let hash = B256::repeat_byte(9);
    let log =
        |case: &Case| json!({ "logIndex": "0x0", "transactionHash": case.transactions[0].hash, "blockHash": hash });
    check(|case| case.receipts[0]["logs"] = json!([log(case)]), &["wrong receipt=1"]);
}

#[test]
fn a_missing_receipt_is_found() {
    check(|case| drop(case.receipts.pop()), &["wrong receipt=2"]);
}

#[test]
fn a_transaction_included_twice_is_found() {
    check(
        |case| {
            let twice = case.receipts[0].clone();
            case.receipts.push(twice);
        },
        &["duplicated=1", "order=1", "wrong receipt=1"],
    );
}

#[test]
fn nonces_out_of_order_are_found() {
    // The first and the third are of one sender.
    check(|case| case.receipts.swap(0, 2), &["order=2", "wrong receipt=2"]);
}
