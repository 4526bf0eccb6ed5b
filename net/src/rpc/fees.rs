//! What gas costs: suggestions for the next block, and the history that wallets derive their own from.
//!
//! A priority fee buys a place only where places are scarce. The suggestion therefore looks at full
//! blocks alone and is the smallest fee worth naming while there are none; copying what others paid
//! in half-empty blocks would keep a fee high for ever.

use std::sync::Arc;

use alloy_consensus::{Header, Transaction as _};
use alloy_primitives::{B256, U128};
use alloy_rpc_types_eth::FeeHistory;
use engine::{
    query::BlockRef,
    types::{CommittedBlock, Height},
};
use jsonrpsee::types::Params;
use parking_lot::Mutex;

use super::{
    Node,
    block_id::BlockTag,
    error::{self, Refusal, header_not_found, invalid, refused},
    limits::{
        CALL_TIME_MAX, FEE_HISTORY_BLOCKS_MAX, FEE_HISTORY_PERCENTILES_MAX, SUGGESTED_TIP_BLOCKS, SUGGESTED_TIP_MAX,
        SUGGESTED_TIP_MIN,
    },
    methods::{Json, Registered, Registry},
    params::{Arguments, LooseQuantity},
};

/// Histories of at most this many blocks are read beside other reads; longer ones queue with calls.
const SHORT_HISTORY_BLOCKS: u64 = 32;

/// Adds the methods of this file.
pub(super) fn register(registry: &mut Registry) -> Registered {
    registry.read("eth_gasPrice", gas_price)?;
    registry.read("eth_maxPriorityFeePerGas", max_priority_fee)?;
    registry.inline("eth_blobBaseFee", blob_base_fee)?;
    registry.future("eth_feeHistory", |params, node| async move { fee_history(&params, node).await })
}

/// The suggested tip of one tip of the chain, kept until the next block.
#[derive(Default)]
pub(super) struct SuggestedTip(Mutex<Option<(B256, u128)>>);

impl Node {
    /// A priority fee that gets a transaction into one of the next blocks, in wei.
    pub(super) fn suggested_tip(&self) -> Result<u128, Refusal> {
        let tip = self.query.tip();
        if let Some((hash, fee)) = *self.suggested.0.lock()
            && hash == tip.hash()
        {
            return Ok(fee);
        }
        let fee = self.compute_suggested_tip(&tip)?;
        *self.suggested.0.lock() = Some((tip.hash(), fee));
        Ok(fee)
    }

    /// The sixtieth percentile of the three lowest tips of each full block among the last twenty.
    fn compute_suggested_tip(&self, tip: &CommittedBlock) -> Result<u128, Refusal> {
        let newest = tip.height().0;
        let mut lowest = Vec::new();
        for height in newest.saturating_sub(SUGGESTED_TIP_BLOCKS.saturating_sub(1))..=newest {
            let height = BlockRef::Height(Height(height));
            let header = self.query.header(height).map_err(error::store)?;
            if !header.is_some_and(|header| is_full(&header)) {
                continue;
            }
            if let Some(block) = self.block(height)? {
                let mut tips: Vec<_> = tips(&block).map(|(tip, _)| tip).collect();
                tips.sort_unstable();
                lowest.extend(tips.into_iter().take(3));
            }
        }
        lowest.sort_unstable();
        let place = lowest.len().saturating_sub(1).saturating_mul(60) / 100;
        Ok(lowest.get(place).copied().unwrap_or_default().clamp(SUGGESTED_TIP_MIN, SUGGESTED_TIP_MAX))
    }
}

fn is_full(header: &Header) -> bool {
    header.gas_used >= header.gas_limit / 10 * 9
}

/// Tip per gas and gas used of each transaction.
fn tips(block: &CommittedBlock) -> impl Iterator<Item = (u128, u64)> + '_ {
    let base_fee = block.block.header.base_fee_per_gas.unwrap_or_default();
    block.block.body.transactions.iter().zip(block.receipts.iter()).map(move |(signed, receipt)| {
        (signed.envelope().effective_tip_per_gas(base_fee).unwrap_or_default(), receipt.gas_used)
    })
}

fn gas_price(node: &Node, arguments: Arguments<'_>) -> Result<U128, Refusal> {
    arguments.end()?;
    Ok(U128::from(u128::from(node.query.next_base_fee()).saturating_add(node.suggested_tip()?)))
}

fn max_priority_fee(node: &Node, arguments: Arguments<'_>) -> Result<U128, Refusal> {
    arguments.end()?;
    node.suggested_tip().map(U128::from)
}

fn blob_base_fee(node: &Node, arguments: Arguments<'_>) -> Result<U128, Refusal> {
    arguments.end()?;
    let tip = node.query.tip();
    let header = tip.block.header.inner();
    let params = node.query.chain().forks.blobs_at(header.timestamp);
    Ok(U128::from(params.and_then(|params| header.next_block_blob_fee(*params)).unwrap_or_default()))
}

/// What `eth_feeHistory` was asked for, checked.
struct HistoryRequest {
    blocks: u64,
    newest: BlockRef,
    percentiles: Vec<f64>,
}

impl HistoryRequest {
    fn read(params: &Params<'_>) -> Result<Self, Refusal> {
        let mut arguments = Arguments::new(params)?;
        let LooseQuantity(blocks) = arguments.required()?;
        let BlockTag(newest) = arguments.required()?;
        let percentiles: Vec<f64> = arguments.optional()?.unwrap_or_default();
        arguments.end()?;
        if percentiles.len() > FEE_HISTORY_PERCENTILES_MAX {
            return Err(invalid(format!("over the query limit {FEE_HISTORY_PERCENTILES_MAX} of reward percentiles")));
        }
        let mut last = 0.0;
        for percentile in &percentiles {
            if !(0.0..=100.0).contains(percentile) || *percentile < last {
                return Err(refused(format!("invalid reward percentile: {percentile}")));
            }
            last = *percentile;
        }
        Ok(Self { blocks: blocks.min(FEE_HISTORY_BLOCKS_MAX), newest, percentiles })
    }
}

async fn fee_history(params: &Params<'_>, node: Arc<Node>) -> Result<Json, Refusal> {
    let request = HistoryRequest::read(params)?;
    let worker = Arc::clone(&node);
    let lane = if request.blocks <= SHORT_HISTORY_BLOCKS { &node.reads } else { &node.calls };
    lane.run(params.len_bytes(), Some(CALL_TIME_MAX), move |cancel| {
        let gone = || cancel.load(std::sync::atomic::Ordering::Relaxed);
        worker.json(&history(&worker, &request, &gone)?)
    })
    .await
}

fn history(node: &Node, request: &HistoryRequest, gone: &dyn Fn() -> bool) -> Result<FeeHistory, Refusal> {
    if request.blocks == 0 {
        return Ok(FeeHistory::default());
    }
    let newest = node.query.height(request.newest).map_err(error::store)?.ok_or_else(header_not_found)?.0;
    let oldest = newest.saturating_sub(request.blocks.saturating_sub(1));
    let mut history = FeeHistory { oldest_block: oldest, ..FeeHistory::default() };
    let mut rewards = Vec::new();
    let mut last = None;
    for height in oldest..=newest {
        if gone() {
            return Err(error::out_of_time());
        }
        let block = BlockRef::Height(Height(height));
        let header = node.query.header(block).map_err(error::store)?.ok_or_else(header_not_found)?;
        add_header(&mut history, node, &header);
        if !request.percentiles.is_empty() {
            let block = node.block(block)?.ok_or_else(header_not_found)?;
            rewards.push(percentile_tips(&block, &request.percentiles));
        }
        last = Some(header);
    }
    if let Some(header) = last {
        history.base_fee_per_gas.push(u128::from(node.query.chain().base_fee.next(&header)));
        let params = node.query.chain().forks.blobs_at(header.timestamp);
        let next = params.and_then(|params| header.next_block_blob_fee(*params));
        history.base_fee_per_blob_gas.push(next.unwrap_or_default());
    }
    history.reward = (!request.percentiles.is_empty()).then_some(rewards);
    Ok(history)
}

fn add_header(history: &mut FeeHistory, node: &Node, header: &Header) {
    history.base_fee_per_gas.push(header.base_fee_per_gas.map_or(0, u128::from));
    history.gas_used_ratio.push(ratio(header.gas_used, header.gas_limit));
    let params = node.query.chain().forks.blobs_at(header.timestamp);
    let fee = params.and_then(|params| header.blob_fee(*params)).unwrap_or_default();
    history.base_fee_per_blob_gas.push(fee);
    let blob_gas_max = params.map_or(0, |params| params.max_blob_gas_per_block());
    history.blob_gas_used_ratio.push(ratio(header.blob_gas_used.unwrap_or_default(), blob_gas_max));
}

fn ratio(used: u64, limit: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people; gas is far below 2^53")]
    let ratio = used as f64 / limit.max(1) as f64;
    ratio
}

/// For each percentile the smallest tip such that this share of the block's gas paid it or less.
fn percentile_tips(block: &CommittedBlock, percentiles: &[f64]) -> Vec<u128> {
    let mut sorted: Vec<_> = tips(block).collect();
    sorted.sort_unstable_by_key(|(tip, _)| *tip);
    let total = block.block.header.gas_used;
    let mut remaining = sorted.into_iter();
    let (mut tip, mut gas) = remaining.next().unwrap_or_default();
    percentiles
        .iter()
        .map(|percentile| {
            while ratio(gas, total) * 100.0 < *percentile {
                let Some((next, used)) = remaining.next() else { break };
                tip = next;
                gas = gas.saturating_add(used);
            }
            tip
        })
        .collect()
}
