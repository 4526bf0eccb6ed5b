//! Compares every receipt of a drive with what it must be.

use std::collections::{BTreeMap, HashMap, VecDeque};

use alloy_primitives::{Address, B256, TxKind, U256};
use bench::{
    AccountId, Operation, Plan,
    sign::{Fees, SignedTransaction},
};
use eyre::bail;
use tokio::task::JoinHandle;

use super::chain::{BlockSummary, Chain, Receipt};

/// A transaction that a block holds, in the order of the chain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inclusion {
    pub(crate) index: usize,
    pub(crate) timestamp: u64,
    pub(crate) gas_used: u64,
    pub(crate) fee: U256,
    pub(crate) succeeded: bool,
}

/// What is not as it must be; counted by kind, with the first few in words.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub(crate) struct Problems {
    pub(crate) counts: BTreeMap<&'static str, u64>,
    pub(crate) examples: Vec<String>,
}

/// Problems told in words.
const EXAMPLES_MAX: usize = 20;

impl Problems {
    pub(crate) fn add(&mut self, kind: &'static str, words: impl FnOnce() -> String) {
        *self.counts.entry(kind).or_default() += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(format!("{kind}: {}", words()));
        }
    }

    pub(crate) fn count(&self, kind: &str) -> u64 {
        self.counts.get(kind).copied().unwrap_or_default()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }
}

/// What was sent, to compare with.
pub(crate) struct Sent<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) operations: &'a [(AccountId, Operation)],
    pub(crate) transactions: &'a [SignedTransaction],
    pub(crate) fees: Fees,
}

impl Sent<'_> {
    /// Reads the receipts of all blocks and compares them; returns what was included, in chain order.
    pub(crate) async fn verify(
        &self,
        chain: &Chain,
        blocks: &[BlockSummary],
        problems: &mut Problems,
    ) -> eyre::Result<Vec<Inclusion>> {
        let index: HashMap<B256, usize> =
            self.transactions.iter().enumerate().map(|(index, sent)| (sent.hash, index)).collect();
        let mut inclusions = Vec::with_capacity(self.transactions.len());
        let mut previous: Option<&BlockSummary> = None;
        let mut ahead = Ahead::new(chain, blocks);
        for block in blocks {
            if previous.is_some_and(|parent| parent.hash != block.parent_hash) {
                problems.add("chain", || format!("block {} is not a child of the block before it", block.number));
            }
            previous = Some(block);
            if block.transactions.is_empty() {
                continue;
            }
            self.compare(block, &ahead.next().await?, &index, &mut inclusions, problems);
        }
        self.check_counts(&inclusions, problems);
        Ok(inclusions)
    }

    /// Compares the receipts of one block.
    fn compare(
        &self,
        block: &BlockSummary,
        receipts: &[Receipt],
        index: &HashMap<B256, usize>,
        inclusions: &mut Vec<Inclusion>,
        problems: &mut Problems,
    ) {
        check_block(block, receipts, problems);
        for receipt in receipts {
            let Some(index) = index.get(&receipt.transaction_hash) else { continue };
            self.check_receipt(*index, block, receipt, problems);
            inclusions.push(Inclusion {
                index: *index,
                timestamp: block.timestamp.to(),
                gas_used: receipt.gas_used.to(),
                fee: receipt.effective_gas_price * U256::from(receipt.gas_used),
                succeeded: receipt.status.to::<u64>() == 1,
            });
        }
    }

    /// Asks for some transactions by hash, as a wallet does.
    pub(crate) async fn sample(&self, chain: &Chain, count: usize, problems: &mut Problems) -> eyre::Result<()> {
        let step = self.transactions.len().div_ceil(count.max(1)).max(1);
        let hashes: Vec<B256> = self.transactions.iter().step_by(step).map(|sent| sent.hash).collect();
        for (hash, receipt) in hashes.iter().zip(chain.receipts_by_hash(&hashes).await?) {
            if receipt.is_none_or(|receipt| receipt.transaction_hash != *hash) {
                problems.add("lookup", || format!("{hash} is included and has no receipt by its hash"));
            }
        }
        Ok(())
    }

    fn check_receipt(&self, index: usize, block: &BlockSummary, receipt: &Receipt, problems: &mut Problems) {
        let (from, operation) = &self.operations[index];
        let hash = receipt.transaction_hash;
        if receipt.status.to::<u64>() != 1 {
            let gas = receipt.gas_used;
            problems.add("reverted", || format!("{hash} in block {} at {gas} gas: {operation:?}", block.number));
            return;
        }
        let accounts = &self.plan.accounts;
        if receipt.from != accounts.address(*from) {
            problems.add("wrong receipt", || format!("{hash} is said to be from {}", receipt.from));
        }
        let (to, created) = self.target(*from, operation);
        if (receipt.to, receipt.contract_address) != (to, created) {
            let words = || format!("{hash} goes to {:?} and creates {:?}", receipt.to, receipt.contract_address);
            problems.add("wrong receipt", words);
        }
        let price = (block.base_fee_per_gas + U256::from(self.fees.priority_fee)).min(U256::from(self.fees.fee_max));
        if receipt.effective_gas_price != price {
            let words = || format!("{hash} pays {} per gas, not {price}", receipt.effective_gas_price);
            problems.add("wrong receipt", words);
        }
        if operation.logs().is_some_and(|logs| logs != receipt.logs.len()) {
            problems.add("wrong receipt", || format!("{hash} has {} logs: {operation:?}", receipt.logs.len()));
        }
    }

    fn target(&self, from: AccountId, operation: &Operation) -> (Option<Address>, Option<Address>) {
        if let Operation::Deploy(deployment) = operation {
            let address = self.plan.world.deployments.iter().find(|(other, _)| other == deployment);
            return (None, address.map(|(_, address)| *address));
        }
        match operation.call(from, &self.plan.world, &self.plan.accounts).to {
            TxKind::Call(to) => (Some(to), None),
            TxKind::Create => (None, None),
        }
    }

    fn check_counts(&self, inclusions: &[Inclusion], problems: &mut Problems) {
        let mut seen = vec![0_u32; self.transactions.len()];
        let mut next_nonce = HashMap::new();
        for sent in self.transactions {
            next_nonce.entry(sent.from).or_insert(sent.nonce);
        }
        for inclusion in inclusions {
            seen[inclusion.index] += 1;
            let sent = &self.transactions[inclusion.index];
            let Some(expected) = next_nonce.get_mut(&sent.from) else { continue };
            if sent.nonce != *expected {
                problems.add("order", || format!("{} has nonce {}, {expected} was next", sent.hash, sent.nonce));
            }
            *expected = sent.nonce + 1;
        }
        for (sent, count) in self.transactions.iter().zip(seen) {
            if count > 1 {
                problems.add("duplicated", || format!("{} has {count} receipts", sent.hash));
            }
        }
    }
}

/// Receipts of blocks with transactions, asked for ahead of their use.
struct Ahead<'a> {
    chain: &'a Chain,
    blocks: std::slice::Iter<'a, BlockSummary>,
    asked: VecDeque<JoinHandle<eyre::Result<Vec<Receipt>>>>,
}

/// Blocks whose receipts are asked for at a time: for some nodes that is long work of one core.
const BLOCKS_AHEAD: usize = 2;

impl<'a> Ahead<'a> {
    fn new(chain: &'a Chain, blocks: &'a [BlockSummary]) -> Self {
        Self { chain, blocks: blocks.iter(), asked: VecDeque::new() }
    }

    async fn next(&mut self) -> eyre::Result<Vec<Receipt>> {
        while self.asked.len() < BLOCKS_AHEAD {
            let Some(block) = self.blocks.find(|block| !block.transactions.is_empty()) else { break };
            let (chain, block) = (self.chain.clone(), block.clone());
            self.asked.push_back(tokio::spawn(async move { chain.receipts(&block).await }));
        }
        let Some(task) = self.asked.pop_front() else { bail!("no block is left to ask receipts of") };
        task.await?
    }
}

/// Checks what holds for a block whoever sent its transactions.
fn check_block(block: &BlockSummary, receipts: &[Receipt], problems: &mut Problems) {
    let number = block.number;
    if receipts.len() != block.transactions.len() {
        let words = || format!("block {number}: {} receipts of {}", receipts.len(), block.transactions.len());
        problems.add("wrong receipt", words);
    }
    let (mut gas, mut logs) = (0_u64, 0_u64);
    for (position, (hash, receipt)) in block.transactions.iter().zip(receipts).enumerate() {
        let used: u64 = receipt.gas_used.to();
        gas += used;
        let place = (receipt.block_hash, receipt.block_number, receipt.transaction_index.to::<usize>());
        let right = receipt.transaction_hash == *hash
            && place == (block.hash, number, position)
            && used > 0
            && receipt.cumulative_gas_used.to::<u64>() == gas;
        let logs_right = receipt.logs.iter().all(|log| {
            let right =
                log.log_index.to::<u64>() == logs && log.transaction_hash == *hash && log.block_hash == block.hash;
            logs += 1;
            right
        });
        if !right || !logs_right {
            problems.add("wrong receipt", || format!("block {number}, transaction {position}: {receipt:?}"));
        }
    }
    if gas != block.gas_used.to::<u64>() {
        problems.add("wrong receipt", || format!("block {number} used {} gas, its receipts {gas}", block.gas_used));
    }
}

#[cfg(test)]
mod tests;
