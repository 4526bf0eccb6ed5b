//! Blocks: an ordinary Ethereum block, and the consensus header that orders it.
//!
//! The Ethereum header is what every Ethereum tool hashes; the consensus header names it and carries
//! what ordering needs. Their ties are listed in `docs/architecture.md`, "How a block ties to
//! Ethereum's header".

use std::sync::Arc;

use alloy_consensus::{
    Header, Sealed,
    proofs::{calculate_withdrawals_root, ordered_trie_root_encoded},
};
use alloy_eips::eip4895::Withdrawals;
use alloy_primitives::{B256, keccak256};
use alloy_rlp::{Encodable, RlpDecodable, RlpEncodable};

use super::{
    access_list::AccessList,
    ids::{Epoch, Height, Slot, ValidatorIndex},
    layer::{StateChanges, TrieHandle},
    receipt::{Receipt, receipts_root},
    transaction::Transaction,
    vote::{Certificate, Signature},
};

/// What ordering agrees on about one block; its `id` is what votes sign.
///
/// Encoding: RLP list of the fields in order, integers as RLP integers. Pinned by a golden test.
#[derive(Clone, Debug, Default, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct ConsensusHeader {
    /// Chain id, so that no header is valid on two chains.
    pub chain_id: u64,
    /// Period of the validator set.
    pub epoch: u64,
    /// Slot within the epoch.
    pub slot: u64,
    /// Height of the block.
    pub height: u64,
    /// Slot of the parent.
    pub parent_slot: u64,
    /// Id of the parent's consensus header.
    pub parent_id: B256,
    /// Index of the proposer in the epoch's set.
    pub proposer: u16,
    /// Hash of the Ethereum header.
    pub block_hash: B256,
    /// Hash of the block's access list.
    pub access_list_hash: B256,
    /// Root over the shares of a body that travels in shares ([`crate::dissemination`]); zero when it travels whole.
    pub body_root: B256,
    /// Bytes of a body that travels in shares; 0 when it travels whole.
    pub body_size_bytes: u64,
    /// keccak256 over the hashes of the certificates that came with the proposal; zero where there are none.
    pub certificates_hash: B256,
    /// Milliseconds since 1970; the Ethereum header carries the whole seconds.
    pub timestamp_ms: u64,
    /// The proposer's share of the seed: its signature over epoch and slot.
    pub seed_share: Signature,
    /// Hash of the next epoch's validator set on the last height of an epoch; zero elsewhere.
    pub next_set_hash: B256,
}

impl ConsensusHeader {
    /// keccak256 of the encoding.
    #[must_use]
    pub fn id(&self) -> B256 {
        let mut bytes = Vec::with_capacity(self.length());
        self.encode(&mut bytes);
        keccak256(bytes)
    }

    /// Height as its own type.
    #[must_use]
    pub const fn height(&self) -> Height {
        Height(self.height)
    }

    /// Slot as its own type.
    #[must_use]
    pub const fn slot(&self) -> Slot {
        Slot(self.slot)
    }

    /// Epoch as its own type.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        Epoch(self.epoch)
    }

    /// Proposer as its own type.
    #[must_use]
    pub const fn proposer(&self) -> ValidatorIndex {
        ValidatorIndex(self.proposer)
    }
}

/// Transactions with their senders, and withdrawals from Shanghai on (always empty on a Sluice chain).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockBody {
    /// Transactions in block order.
    pub transactions: Vec<Arc<Transaction>>,
    /// Withdrawals of EIP-4895; `None` before Shanghai.
    pub withdrawals: Option<Withdrawals>,
}

/// A whole block: consensus header, Ethereum header, body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// What ordering agreed on.
    pub consensus: ConsensusHeader,
    /// The Ethereum header with its hash.
    pub header: Sealed<Header>,
    /// The body.
    pub body: BlockBody,
}

impl Block {
    /// Position in the chain.
    #[must_use]
    pub fn height(&self) -> Height {
        Height(self.header.number)
    }

    /// Hash of the Ethereum header.
    #[must_use]
    pub const fn hash(&self) -> B256 {
        self.header.seal()
    }

    /// Whether the body is the one that the headers name.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let header = self.header.inner();
        let encoded: Vec<&[u8]> = self.body.transactions.iter().map(|sent| sent.encoded().as_ref()).collect();
        self.consensus.block_hash == self.hash()
            && header.transactions_root == ordered_trie_root_encoded(&encoded)
            && header.withdrawals_root == self.body.withdrawals.as_ref().map(|all| calculate_withdrawals_root(all))
    }

    /// Size of the Ethereum block's RLP in bytes, as `eth_getBlockByNumber` reports it.
    #[must_use]
    pub fn rlp_size_bytes(&self) -> usize {
        let body: usize = self.body.transactions.iter().map(|tx| tx.envelope().length()).sum();
        let withdrawals = self.body.withdrawals.as_ref().map_or(0, Encodable::length);
        let payload = self
            .header
            .inner()
            .length()
            .saturating_add(alloy_rlp::length_of_length(body).saturating_add(body))
            .saturating_add(1)
            .saturating_add(withdrawals);
        payload.saturating_add(alloy_rlp::length_of_length(payload))
    }
}

/// A block with its layer: executed here, every header field equal to ours.
#[derive(Clone, Debug)]
pub struct ExecutedBlock {
    /// The block.
    pub block: Arc<Block>,
    /// One receipt per transaction.
    pub receipts: Arc<Vec<Receipt>>,
    /// What it changed.
    pub changes: Arc<StateChanges>,
    /// The trie it leads to.
    pub trie: TrieHandle,
    /// What it touched, with the values it left there.
    pub access_list: Arc<AccessList>,
}

/// A block that this node built as leader; executed by building it.
#[derive(Clone, Debug)]
pub struct BuiltBlock(pub ExecutedBlock);

/// What orders a block for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct Finality {
    /// Its leader's signature over its consensus header.
    pub proposal: Signature,
    /// A Finalization of the block, or of a block above it.
    pub certificate: Certificate,
}

/// An executed block that no other block at its height can replace.
#[derive(Clone, Debug)]
pub struct FinalizedBlock {
    /// The block and its layer.
    pub executed: ExecutedBlock,
    /// What makes it final.
    pub finality: Finality,
}

/// A finalized block that would be recovered after a power cut; only storage makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedBlock {
    /// The block.
    pub block: Arc<Block>,
    /// One receipt per transaction.
    pub receipts: Arc<Vec<Receipt>>,
    /// What makes it final; block 0 is so by itself.
    pub finality: Option<Finality>,
}

impl CommittedBlock {
    /// Position in the chain.
    #[must_use]
    pub fn height(&self) -> Height {
        self.block.height()
    }

    /// Hash of the Ethereum header.
    #[must_use]
    pub fn hash(&self) -> B256 {
        self.block.hash()
    }

    /// Whether body and receipts are those that the headers name.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let transactions = &self.block.body.transactions;
        let mut gas_before = 0;
        let fits = transactions.iter().zip(&*self.receipts).all(|(sent, receipt)| {
            let gas = receipt.cumulative_gas_used.checked_sub(gas_before);
            gas_before = receipt.cumulative_gas_used;
            receipt.type_byte == sent.type_byte()
                && gas == Some(receipt.gas_used)
                && receipt.contract == sent.created_address().filter(|_| receipt.success)
        });
        fits && transactions.len() == self.receipts.len()
            && self.block.is_whole()
            && self.block.header.receipts_root == receipts_root(&self.receipts)
    }
}
