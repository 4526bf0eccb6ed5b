//! Worst calls as a block carries them.

use std::sync::Arc;

use alloy_consensus::{SignableTransaction, TxEip1559};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, Signature, U256};
use bench::worst::WorstCall;
use engine::types::{Envelope, Transaction};

pub(crate) const CHAIN_ID: u64 = 31_337;

/// A call as a transaction that pays up to `fee_max` wei for each gas.
///
/// Nothing here recovers a sender, so any signature will do.
pub(crate) fn transaction(sender: Address, nonce: u64, fee_max: u128, call: &WorstCall) -> Arc<Transaction> {
    let tx = TxEip1559 {
        chain_id: CHAIN_ID,
        nonce,
        gas_limit: call.gas_limit,
        max_fee_per_gas: fee_max,
        max_priority_fee_per_gas: 1,
        to: call.call.to,
        value: call.call.value,
        access_list: Default::default(),
        input: call.call.input.clone(),
    };
    let envelope: Envelope = tx.into_signed(Signature::new(U256::from(1), U256::from(1), false)).into();
    let raw = envelope.encoded_2718().into();
    Arc::new(Transaction::with_known_sender(raw, sender).expect("it was encoded here"))
}
