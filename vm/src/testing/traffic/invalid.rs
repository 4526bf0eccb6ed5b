//! Transactions that no block may carry, wherever they stand in it.

use std::sync::Arc;

use alloy_consensus::{SignableTransaction, TxEip1559, TxEip7702};
use alloy_primitives::{Address, TxKind, U256, address};
use engine::types::Transaction;

use super::FACTORY;
use crate::testing::{BOB, GAS_LIMIT, GWEI, known, signature};

/// Has sent before, is rich, and appears in no traffic.
pub(crate) const VETERAN: Address = address!("00000000000000000000000000000000000e7e4a");
pub(crate) const VETERAN_NONCE: u64 = 3;

/// How many ways there are.
pub(crate) const INVALID: usize = 12;

/// A transaction that is invalid in one way, below [`INVALID`], under Osaka's rules.
pub(crate) fn invalid(way: usize) -> Arc<Transaction> {
    let good = TxEip1559 {
        chain_id: 7,
        nonce: VETERAN_NONCE,
        gas_limit: 100_000,
        max_fee_per_gas: 100 * GWEI,
        max_priority_fee_per_gas: GWEI,
        to: TxKind::Call(BOB),
        ..TxEip1559::default()
    };
    let (from, tx) = match way {
        0 => (VETERAN, TxEip1559 { nonce: VETERAN_NONCE + 1, ..good }),
        1 => (VETERAN, TxEip1559 { nonce: VETERAN_NONCE - 1, ..good }),
        // Nobody who has nothing can pay.
        2 => (Address::repeat_byte(0x77), TxEip1559 { nonce: 0, ..good }),
        3 => (VETERAN, TxEip1559 { value: U256::MAX, ..good }),
        // Below the base fee.
        4 => (VETERAN, TxEip1559 { max_fee_per_gas: 1, max_priority_fee_per_gas: 0, ..good }),
        // More to the proposer than in all.
        5 => (VETERAN, TxEip1559 { max_priority_fee_per_gas: 101 * GWEI, ..good }),
        6 => (VETERAN, TxEip1559 { gas_limit: 20_999, ..good }),
        // More than a transaction may ask for, and more than a block has.
        7 => (VETERAN, TxEip1559 { gas_limit: (1 << 24) + 1, ..good }),
        8 => (VETERAN, TxEip1559 { gas_limit: GAS_LIMIT + 1, ..good }),
        9 => (VETERAN, TxEip1559 { chain_id: 8, ..good }),
        // A contract sends nothing.
        10 => (FACTORY, TxEip1559 { nonce: 1, ..good }),
        _ => return without_authorizations(),
    };
    known(tx.into_signed(signature()).into(), from)
}

/// EIP-7702 wants at least one.
fn without_authorizations() -> Arc<Transaction> {
    let tx = TxEip7702 {
        chain_id: 7,
        nonce: VETERAN_NONCE,
        gas_limit: 100_000,
        max_fee_per_gas: 100 * GWEI,
        max_priority_fee_per_gas: GWEI,
        to: BOB,
        ..TxEip7702::default()
    };
    known(tx.into_signed(signature()).into(), VETERAN)
}
