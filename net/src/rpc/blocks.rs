//! Blocks, transactions and receipts.

use alloy_primitives::{B256, Bytes, U64};
use alloy_rpc_types_eth::TransactionReceipt;
use engine::{
    query::{BlockRef, TransactionPlace},
    types::CommittedBlock,
};
use std::sync::Arc;

use super::{
    Node,
    block_id::{BlockId, BlockTag},
    convert::{self, JsonBlock, JsonTransaction},
    error::{self, Refusal},
    methods::{Registered, Registry},
    params::{Arguments, Quantity},
};

/// Adds the methods of this file.
pub(super) fn register(registry: &mut Registry) -> Registered {
    registry.inline("eth_blockNumber", block_number)?;
    registry.read("eth_getBlockByNumber", block_by_number)?;
    registry.read("eth_getBlockByHash", block_by_hash)?;
    registry.read("eth_getBlockReceipts", block_receipts)?;
    registry
        .read("eth_getBlockTransactionCountByNumber", |node, arguments| count(node, arguments, tag, transactions))?;
    registry
        .read("eth_getBlockTransactionCountByHash", |node, arguments| count(node, arguments, hash, transactions))?;
    registry.read("eth_getUncleCountByBlockNumber", |node, arguments| count(node, arguments, tag, |_| 0))?;
    registry.read("eth_getUncleCountByBlockHash", |node, arguments| count(node, arguments, hash, |_| 0))?;
    registry.inline("eth_getUncleByBlockNumberAndIndex", |_, arguments| uncle(arguments, tag))?;
    registry.inline("eth_getUncleByBlockHashAndIndex", |_, arguments| uncle(arguments, hash))?;
    registry.read("eth_getTransactionByHash", transaction_by_hash)?;
    registry.read("eth_getTransactionByBlockHashAndIndex", |node, arguments| by_index(node, arguments, hash))?;
    registry.read("eth_getTransactionByBlockNumberAndIndex", |node, arguments| by_index(node, arguments, tag))?;
    registry.read("eth_getRawTransactionByHash", raw_by_hash)?;
    registry.read("eth_getRawTransactionByBlockHashAndIndex", |node, arguments| raw_by_index(node, arguments, hash))?;
    registry
        .read("eth_getRawTransactionByBlockNumberAndIndex", |node, arguments| raw_by_index(node, arguments, tag))?;
    registry.read("eth_getTransactionReceipt", transaction_receipt)
}

type Found = Option<Arc<CommittedBlock>>;
type BlockArgument = fn(&mut Arguments<'_>) -> Result<BlockRef, Refusal>;

fn tag(arguments: &mut Arguments<'_>) -> Result<BlockRef, Refusal> {
    Ok(arguments.required::<BlockTag>()?.0)
}

fn hash(arguments: &mut Arguments<'_>) -> Result<BlockRef, Refusal> {
    Ok(BlockRef::Hash(arguments.required()?))
}

impl Node {
    /// The block, `None` if there is none.
    pub(super) fn block(&self, block: BlockRef) -> Result<Found, Refusal> {
        self.query.block(block).map_err(error::store)
    }

    /// The receipt of a durable transaction, `None` while there is none.
    pub(super) fn receipt(&self, hash: B256) -> Result<Option<TransactionReceipt>, Refusal> {
        Ok(match self.query.transaction(hash).map_err(error::store)? {
            Some(TransactionPlace::Included { block, index }) => convert::receipt(&block, index, self.query.chain()),
            Some(TransactionPlace::Waiting(_)) | None => None,
        })
    }
}

fn block_number(node: &Node, arguments: Arguments<'_>) -> Result<U64, Refusal> {
    arguments.end()?;
    Ok(U64::from(node.query.tip().height().0))
}

fn block_by_number(node: &Node, mut arguments: Arguments<'_>) -> Result<Option<JsonBlock>, Refusal> {
    let block = tag(&mut arguments)?;
    block_json(node, block, arguments)
}

fn block_by_hash(node: &Node, mut arguments: Arguments<'_>) -> Result<Option<JsonBlock>, Refusal> {
    let block = hash(&mut arguments)?;
    block_json(node, block, arguments)
}

fn block_json(node: &Node, block: BlockRef, mut arguments: Arguments<'_>) -> Result<Option<JsonBlock>, Refusal> {
    let full = arguments.optional()?.unwrap_or(false);
    arguments.end()?;
    let Some(block) = node.block(block)? else { return Ok(None) };
    if full {
        let bytes = block.block.body.transactions.iter();
        let bytes = bytes.fold(0_usize, |sum, signed| sum.saturating_add(convert::transaction_json_bytes(signed)));
        // From above, so only what is far too large is refused before it is built.
        if bytes > node.response_bytes_max().saturating_mul(4) {
            return Err(error::too_large());
        }
    }
    Ok(Some(convert::block(&block, full)))
}

fn block_receipts(node: &Node, mut arguments: Arguments<'_>) -> Result<Option<Vec<TransactionReceipt>>, Refusal> {
    let BlockId(block) = arguments.required()?;
    arguments.end()?;
    let Some(block) = node.block(block)? else { return Ok(None) };
    if convert::receipts_json_bytes(&block) > node.response_bytes_max().saturating_mul(2) {
        return Err(error::too_large());
    }
    Ok(Some(convert::receipts(&block, node.query.chain())))
}

fn count(
    node: &Node,
    mut arguments: Arguments<'_>,
    block: BlockArgument,
    of: fn(&CommittedBlock) -> usize,
) -> Result<Option<U64>, Refusal> {
    let block = block(&mut arguments)?;
    arguments.end()?;
    Ok(node.block(block)?.map(|block| U64::from(convert::count(of(&block)))))
}

fn transactions(block: &CommittedBlock) -> usize {
    block.block.body.transactions.len()
}

/// Sluice has no uncles; the parameters are checked and the answer is null.
fn uncle(mut arguments: Arguments<'_>, block: BlockArgument) -> Result<Option<()>, Refusal> {
    block(&mut arguments)?;
    arguments.required::<Quantity>()?;
    arguments.end()?;
    Ok(None)
}

fn transaction_by_hash(node: &Node, mut arguments: Arguments<'_>) -> Result<Option<JsonTransaction>, Refusal> {
    let hash = arguments.required()?;
    arguments.end()?;
    Ok(match node.query.transaction(hash).map_err(error::store)? {
        Some(TransactionPlace::Included { block, index }) => convert::included(&block, index),
        Some(TransactionPlace::Waiting(pooled)) => Some(convert::waiting(&pooled)),
        None => None,
    })
}

fn raw_by_hash(node: &Node, mut arguments: Arguments<'_>) -> Result<Option<Bytes>, Refusal> {
    let hash = arguments.required()?;
    arguments.end()?;
    Ok(match node.query.transaction(hash).map_err(error::store)? {
        Some(TransactionPlace::Included { block, index }) => {
            block.block.body.transactions.get(index).map(|signed| signed.encoded().clone())
        }
        Some(TransactionPlace::Waiting(pooled)) => Some(pooled.encoded().clone()),
        None => None,
    })
}

fn place(node: &Node, mut arguments: Arguments<'_>, block: BlockArgument) -> Result<(Found, usize), Refusal> {
    let block = block(&mut arguments)?;
    let Quantity(index) = arguments.required()?;
    arguments.end()?;
    Ok((node.block(block)?, usize::try_from(index).unwrap_or(usize::MAX)))
}

fn by_index(node: &Node, arguments: Arguments<'_>, block: BlockArgument) -> Result<Option<JsonTransaction>, Refusal> {
    let (block, index) = place(node, arguments, block)?;
    Ok(block.and_then(|block| convert::included(&block, index)))
}

fn raw_by_index(node: &Node, arguments: Arguments<'_>, block: BlockArgument) -> Result<Option<Bytes>, Refusal> {
    let (block, index) = place(node, arguments, block)?;
    Ok(block.and_then(|block| block.block.body.transactions.get(index).map(|signed| signed.encoded().clone())))
}

fn transaction_receipt(node: &Node, mut arguments: Arguments<'_>) -> Result<Option<TransactionReceipt>, Refusal> {
    let hash = arguments.required()?;
    arguments.end()?;
    node.receipt(hash)
}
