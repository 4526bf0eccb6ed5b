//! The engine's types in the shapes of Ethereum's JSON; the only place that makes them.

use alloy_consensus::{
    Receipt as Inner, ReceiptWithBloom, Transaction as _, TxReceipt as _, TxType, transaction::Recovered,
};
use alloy_network_primitives::BlockTransactions;
use alloy_primitives::U256;
use alloy_rpc_types_eth::{Block, Header, Log, ReceiptEnvelope, Transaction, TransactionReceipt};
use engine::{
    genesis::ChainSpec,
    types::{CommittedBlock, Envelope, Receipt, Transaction as Signed},
};

/// A transaction as clients see it.
pub(super) type JsonTransaction = Transaction<Envelope>;

/// A block as clients see it.
pub(super) type JsonBlock = Block<JsonTransaction>;

/// The header without the block's size, as `newHeads` sends it.
pub(super) fn header(block: &CommittedBlock) -> Header {
    Header { hash: block.hash(), inner: block.block.header.inner().clone(), total_difficulty: None, size: None }
}

/// The block, with whole transactions or their hashes.
pub(super) fn block(committed: &CommittedBlock, full: bool) -> JsonBlock {
    let body = &committed.block.body;
    let transactions = if full {
        BlockTransactions::Full((0..body.transactions.len()).filter_map(|index| included(committed, index)).collect())
    } else {
        BlockTransactions::Hashes(body.transactions.iter().map(|transaction| transaction.hash()).collect())
    };
    Block {
        header: Header { size: Some(U256::from(committed.block.rlp_size_bytes())), ..header(committed) },
        uncles: Vec::new(),
        transactions,
        withdrawals: body.withdrawals.clone(),
    }
}

/// A transaction of a block; `None` beyond the last.
pub(super) fn included(committed: &CommittedBlock, index: usize) -> Option<JsonTransaction> {
    let signed = committed.block.body.transactions.get(index)?;
    let header = committed.block.header.inner();
    Some(Transaction {
        inner: recovered(signed),
        block_hash: Some(committed.hash()),
        block_number: Some(header.number),
        transaction_index: Some(count(index)),
        effective_gas_price: Some(signed.envelope().effective_gas_price(header.base_fee_per_gas)),
        block_timestamp: Some(header.timestamp),
    })
}

/// A transaction that is in no block yet.
pub(super) fn waiting(signed: &Signed) -> JsonTransaction {
    Transaction {
        inner: recovered(signed),
        block_hash: None,
        block_number: None,
        transaction_index: None,
        effective_gas_price: None,
        block_timestamp: None,
    }
}

fn recovered(signed: &Signed) -> Recovered<Envelope> {
    Recovered::new_unchecked(signed.envelope().clone(), signed.sender())
}

/// The receipt of one transaction of a block; `None` beyond the last.
pub(super) fn receipt(committed: &CommittedBlock, index: usize, chain: &ChainSpec) -> Option<TransactionReceipt> {
    let earlier = committed.receipts.get(..index)?;
    let first_log = earlier.iter().fold(0_usize, |sum, receipt| sum.saturating_add(receipt.logs.len()));
    receipt_at(committed, index, first_log, chain)
}

/// All receipts of a block in order.
pub(super) fn receipts(committed: &CommittedBlock, chain: &ChainSpec) -> Vec<TransactionReceipt> {
    let mut first_log = 0_usize;
    let mut all = Vec::with_capacity(committed.receipts.len());
    for (index, receipt) in committed.receipts.iter().enumerate() {
        all.extend(receipt_at(committed, index, first_log, chain));
        first_log = first_log.saturating_add(receipt.logs.len());
    }
    all
}

fn receipt_at(
    committed: &CommittedBlock,
    index: usize,
    first_log: usize,
    chain: &ChainSpec,
) -> Option<TransactionReceipt> {
    let signed = committed.block.body.transactions.get(index)?;
    let receipt = committed.receipts.get(index)?;
    let header = committed.block.header.inner();
    let blob_gas_used = signed.envelope().blob_gas_used();
    let blob_params = blob_gas_used.and_then(|_| chain.forks.blobs_at(header.timestamp));
    let logs = (0..receipt.logs.len()).filter_map(|log| log_at(committed, index, log, first_log)).collect();
    Some(TransactionReceipt {
        inner: envelope(receipt, logs),
        transaction_hash: signed.hash(),
        transaction_index: Some(count(index)),
        block_hash: Some(committed.hash()),
        block_number: Some(header.number),
        gas_used: receipt.gas_used,
        effective_gas_price: signed.envelope().effective_gas_price(header.base_fee_per_gas),
        blob_gas_used,
        blob_gas_price: blob_params.and_then(|params| header.blob_fee(*params)),
        from: signed.sender(),
        to: signed.envelope().to(),
        contract_address: signed.created_address(),
    })
}

fn envelope(receipt: &Receipt, logs: Vec<Log>) -> ReceiptEnvelope<Log> {
    let consensus = receipt.consensus();
    let inner =
        Inner { status: consensus.status_or_post_state(), cumulative_gas_used: receipt.cumulative_gas_used, logs };
    // A type that no constant names cannot have been executed.
    let kind = TxType::try_from(receipt.type_byte).unwrap_or(TxType::Legacy);
    ReceiptEnvelope::from_typed(kind, ReceiptWithBloom { receipt: inner, logs_bloom: consensus.logs_bloom })
}

/// A log of a block: the `log`-th of transaction `index`, whose first log is the block's `first_log`-th.
pub(super) fn log_at(committed: &CommittedBlock, index: usize, log: usize, first_log: usize) -> Option<Log> {
    let header = committed.block.header.inner();
    Some(Log {
        inner: committed.receipts.get(index)?.logs.get(log)?.clone(),
        block_hash: Some(committed.hash()),
        block_number: Some(header.number),
        block_timestamp: Some(header.timestamp),
        transaction_hash: committed.block.body.transactions.get(index).map(|signed| signed.hash()),
        transaction_index: Some(count(index)),
        log_index: Some(count(first_log.saturating_add(log))),
        removed: false,
    })
}

/// Bytes of the JSON of a log, from above.
pub(super) fn log_json_bytes(log: &alloy_primitives::Log) -> usize {
    let topics = log.data.topics().len().saturating_mul(70);
    log.data.data.len().saturating_mul(2).saturating_add(topics).saturating_add(512)
}

/// Bytes of the JSON of a transaction, from above.
pub(super) fn transaction_json_bytes(signed: &Signed) -> usize {
    // Lists of EIP-2930 and EIP-7702 grow most: 32 bytes become 69, and their names are repeated.
    signed.size_bytes().saturating_mul(4).saturating_add(1_024)
}

/// Bytes of the JSON of all receipts of a block, from above.
pub(super) fn receipts_json_bytes(committed: &CommittedBlock) -> usize {
    let logs = committed.receipts.iter().flat_map(|receipt| &receipt.logs);
    let logs = logs.fold(0_usize, |sum, log| sum.saturating_add(log_json_bytes(log)));
    committed.receipts.len().saturating_mul(1_536).saturating_add(logs)
}

/// An index or a length as JSON writes it.
pub(super) fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
