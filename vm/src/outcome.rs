//! What a block's transactions come to: receipts, blooms, roots.
//!
//! Source: EIP-658 (status), EIP-2718 (typed receipts), yellow paper 4.3.1 (bloom).

use std::sync::Arc;

use alloy_consensus::proofs::{ordered_trie_root_encoded, ordered_trie_root_with_encoder};
use alloy_primitives::{
    B256, Bloom, BloomInput, keccak256,
    map::{AddressMap, B256Map},
};
use alloy_rlp::{BufMut, Encodable, Header as RlpHeader};
use engine::types::{Receipt, Transaction};
use revm::context_interface::result::{ExecutionResult, HaltReason};

/// Makes the receipt of an executed transaction.
///
/// revm reports the logs of reverted and halted runs as well; a receipt has none.
#[must_use]
pub fn receipt(transaction: &Transaction, result: ExecutionResult<HaltReason>, gas_used_before: u64) -> Receipt {
    let gas_used = result.tx_gas_used();
    let success = result.is_success();
    Receipt {
        type_byte: transaction.type_byte(),
        success,
        gas_used,
        cumulative_gas_used: gas_used_before.saturating_add(gas_used),
        contract: transaction.created_address().filter(|_| success),
        logs: if success { result.into_logs() } else { Vec::new() },
    }
}

/// Root of the transactions trie.
#[must_use]
pub fn transactions_root(transactions: &[Arc<Transaction>]) -> B256 {
    let encoded: Vec<&[u8]> = transactions.iter().map(|transaction| &transaction.encoded()[..]).collect();
    ordered_trie_root_encoded(&encoded)
}

/// Makes the blooms of one block's receipts. The same contracts and topics log again and again, so their hashes
/// are kept: a look-up costs a tenth of a hash.
#[derive(Debug, Default)]
pub(crate) struct Blooms {
    addresses: AddressMap<B256>,
    topics: B256Map<B256>,
}

impl Blooms {
    pub(crate) fn of(&mut self, receipt: &Receipt) -> Bloom {
        let mut bloom = Bloom::ZERO;
        for log in &receipt.logs {
            let hash = self.addresses.entry(log.address).or_insert_with(|| keccak256(log.address));
            bloom.accrue(BloomInput::Hash(*hash));
            for topic in log.topics() {
                let hash = self.topics.entry(*topic).or_insert_with(|| keccak256(topic));
                bloom.accrue(BloomInput::Hash(*hash));
            }
        }
        bloom
    }
}

/// Root of the receipts trie and the bloom over all logs; each receipt's bloom is computed once.
#[must_use]
pub fn receipts_root(receipts: &[Receipt]) -> (B256, Bloom) {
    let mut blooms = Blooms::default();
    let blooms: Vec<_> = receipts.iter().map(|receipt| blooms.of(receipt)).collect();
    receipts_root_over(receipts, &blooms)
}

/// The same where each receipt's bloom is known.
pub(crate) fn receipts_root_over(receipts: &[Receipt], blooms: &[Bloom]) -> (B256, Bloom) {
    let with_bloom: Vec<_> = receipts.iter().zip(blooms).collect();
    let bloom = with_bloom.iter().fold(Bloom::ZERO, |all, (_, bloom)| all | **bloom);
    let root = ordered_trie_root_with_encoder(&with_bloom, |(receipt, bloom), out| encode_receipt(receipt, bloom, out));
    (root, bloom)
}

/// The consensus encoding `type || rlp([status, cumulative gas, bloom, logs])`, from borrowed logs.
fn encode_receipt(receipt: &Receipt, bloom: &Bloom, out: &mut Vec<u8>) {
    if receipt.type_byte != 0 {
        out.put_u8(receipt.type_byte);
    }
    let logs: usize = receipt.logs.iter().fold(0, |sum, log| sum.saturating_add(log.length()));
    let logs_header = RlpHeader { list: true, payload_length: logs };
    let payload_length = receipt
        .success
        .length()
        .saturating_add(receipt.cumulative_gas_used.length())
        .saturating_add(bloom.length())
        .saturating_add(logs_header.length_with_payload());
    RlpHeader { list: true, payload_length }.encode(out);
    receipt.success.encode(out);
    receipt.cumulative_gas_used.encode(out);
    bloom.encode(out);
    logs_header.encode(out);
    for log in &receipt.logs {
        log.encode(out);
    }
}
