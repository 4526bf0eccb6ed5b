//! From operations to signed EIP-1559 transactions, on all cores, before any clock starts.

use std::{collections::BTreeMap, thread};

use alloy_consensus::{SignableTransaction, TxEip1559, TxEnvelope};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{B256, Bytes};
use alloy_signer::SignerSync;

use crate::{
    accounts::{AccountId, Accounts, threads},
    operation::{Kind, Operation},
    world::World,
};

/// A transaction, ready to be submitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedTransaction {
    /// Its hash.
    pub hash: B256,
    /// EIP-2718 encoding.
    pub raw: Bytes,
    /// Who sends it.
    pub from: AccountId,
    /// Its place among the sender's transactions.
    pub nonce: u64,
}

/// What every transaction of a run has in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fees {
    /// Chain the signatures hold on.
    pub chain_id: u64,
    /// Wei per gas, at most, base fee included.
    pub fee_max: u128,
    /// Wei per gas for the block's proposer.
    pub priority_fee: u128,
}

/// Gas limits by kind; a kind that is not named gets what is always enough.
pub type GasLimits = BTreeMap<Kind, u64>;

/// Signs operations with successive nonces per sender; `nonces` is indexed by account and moved on.
///
/// Takes some 40 us of one core for each. The same arguments give the same bytes (RFC 6979).
///
/// # Panics
/// For ids of another plan.
#[must_use]
pub fn sign(
    operations: &[(AccountId, Operation)],
    world: &World,
    accounts: &Accounts,
    fees: Fees,
    gas: &GasLimits,
    nonces: &mut [u64],
) -> Vec<SignedTransaction> {
    let numbered: Vec<u64> = operations
        .iter()
        .map(|(from, _)| {
            let nonce = nonces[from.index()];
            nonces[from.index()] += 1;
            nonce
        })
        .collect();
    let chunk = operations.len().div_ceil(threads()).max(1);
    let jobs = operations.chunks(chunk).zip(numbered.chunks(chunk));
    thread::scope(|scope| {
        let handles: Vec<_> = jobs
            .map(|(operations, nonces)| {
                scope.spawn(move || {
                    let each = operations.iter().zip(nonces);
                    each.map(|((from, operation), nonce)| {
                        sign_one(*from, operation, *nonce, world, accounts, fees, gas)
                    })
                    .collect::<Vec<_>>()
                })
            })
            .collect();
        handles.into_iter().flat_map(|handle| handle.join().expect("signing does not panic")).collect()
    })
}

/// Signs one operation with a nonce.
///
/// # Panics
/// For ids of another plan.
#[must_use]
pub fn sign_one(
    from: AccountId,
    operation: &Operation,
    nonce: u64,
    world: &World,
    accounts: &Accounts,
    fees: Fees,
    gas: &GasLimits,
) -> SignedTransaction {
    let call = operation.call(from, world, accounts);
    let transaction = TxEip1559 {
        chain_id: fees.chain_id,
        nonce,
        gas_limit: gas.get(&operation.kind()).copied().unwrap_or_else(|| operation.gas_limit_max()),
        max_fee_per_gas: fees.fee_max,
        max_priority_fee_per_gas: fees.priority_fee,
        to: call.to,
        value: call.value,
        access_list: Default::default(),
        input: call.input,
    };
    let hash = transaction.signature_hash();
    let signature = accounts.signer(from).sign_hash_sync(&hash).expect("a local key signs any hash");
    let envelope = TxEnvelope::from(transaction.into_signed(signature));
    SignedTransaction { hash: *envelope.tx_hash(), raw: envelope.encoded_2718().into(), from, nonce }
}

#[cfg(test)]
mod tests {
    use alloy_consensus::transaction::SignerRecoverable;
    use alloy_eips::eip2718::Decodable2718;

    use super::*;
    use crate::{Plan, Shape, plan::tests::plan};

    fn signed(plan: &Plan) -> Vec<SignedTransaction> {
        let fees = Fees { chain_id: 31_337, fee_max: 8_000_000_000, priority_fee: 1 };
        let mut nonces = vec![3; plan.accounts.count()];
        sign(&plan.operations, &plan.world, &plan.accounts, fees, &GasLimits::new(), &mut nonces)
    }

    #[test]
    fn one_seed_gives_one_sequence_of_bytes() {
        for shape in Shape::ALL {
            assert_eq!(signed(&plan(shape, 9, 60)), signed(&plan(shape, 9, 60)), "{}", shape.name());
        }
    }

    #[test]
    fn nonces_of_a_sender_follow_one_another_and_signatures_name_it() {
        let plan = plan(Shape::Mixed, 4, 40);
        let mut next = vec![3; plan.accounts.count()];
        for transaction in signed(&plan) {
            assert_eq!(transaction.nonce, next[transaction.from.index()]);
            next[transaction.from.index()] += 1;
            let envelope = TxEnvelope::decode_2718(&mut transaction.raw.as_ref()).unwrap();
            assert_eq!(envelope.recover_signer().unwrap(), plan.accounts.address(transaction.from));
            assert_eq!(*envelope.tx_hash(), transaction.hash);
        }
    }
}
