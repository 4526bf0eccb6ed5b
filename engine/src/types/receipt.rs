//! What one transaction did.
//!
//! Source: EIP-658 (status), EIP-2718 (typed receipts).

use alloy_consensus::{
    Eip658Value, Receipt as EthereumReceipt, ReceiptWithBloom, TxReceipt as _, proofs::ordered_trie_root_with_encoder,
};
use alloy_primitives::{Address, B256, Bloom, Log};
use alloy_rlp::Encodable as _;

/// The receipt of one executed transaction.
///
/// Holds what Ethereum's receipt trie commits to, and what clients ask for besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// EIP-2718 type of the transaction.
    pub type_byte: u8,
    /// Whether the outermost call succeeded.
    pub success: bool,
    /// Gas this transaction used, after refunds.
    pub gas_used: u64,
    /// Gas used in the block up to and including this transaction.
    pub cumulative_gas_used: u64,
    /// Address of the contract the transaction created, if it did.
    pub contract: Option<Address>,
    /// Logs in order of emission; empty when the transaction failed.
    pub logs: Vec<Log>,
}

impl Receipt {
    /// The bloom filter over the logs' addresses and topics.
    #[must_use]
    pub fn bloom(&self) -> Bloom {
        alloy_primitives::logs_bloom(&self.logs)
    }

    /// The consensus form: status, cumulative gas, bloom and logs.
    #[must_use]
    pub fn consensus(&self) -> ReceiptWithBloom<EthereumReceipt> {
        EthereumReceipt {
            status: Eip658Value::Eip658(self.success),
            cumulative_gas_used: self.cumulative_gas_used,
            logs: self.logs.clone(),
        }
        .into_with_bloom()
    }
}

/// Root of the trie of a block's receipts.
#[must_use]
pub fn receipts_root(receipts: &[Receipt]) -> B256 {
    ordered_trie_root_with_encoder(receipts, |receipt, out| {
        out.extend((receipt.type_byte != 0).then_some(receipt.type_byte));
        receipt.consensus().encode(out);
    })
}
