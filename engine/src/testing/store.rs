//! A store in memory that can be told to fail.

use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use alloy_consensus::{Header, Sealed};
use alloy_primitives::{Address, B256, Bytes, U256};
use parking_lot::RwLock;

use super::MapState;
use crate::{
    genesis::ChainSpec,
    limits::LOG_LOOK_BLOCKS_MAX,
    ports::{AccountProof, StateView, Store, StoreError},
    types::{CommittedBlock, Epoch, EpochStart, FinalizedBlock, Height, LogBlocks, LogFilter, SignedHeader},
};

/// Blocks and the state after each, for ever.
#[derive(Debug)]
pub struct MemoryStore {
    chain: Arc<ChainSpec>,
    blocks: RwLock<Vec<(Arc<CommittedBlock>, Arc<MapState>)>>,
    epochs: RwLock<BTreeMap<Epoch, EpochStart>>,
    failing: AtomicBool,
}

impl MemoryStore {
    /// A store that holds block 0.
    #[must_use]
    pub fn new(chain: Arc<ChainSpec>) -> Self {
        let block = Arc::new(chain.genesis_block());
        let genesis = Arc::new(CommittedBlock { block, receipts: Arc::default(), finality: None });
        let state = Arc::new(MapState::genesis(&chain.alloc));
        let blocks = RwLock::new(vec![(genesis, state)]);
        Self { chain, blocks, epochs: RwLock::default(), failing: AtomicBool::new(false) }
    }

    /// From here on every commit fails.
    pub fn fail(&self) {
        self.failing.store(true, Ordering::Release);
    }

    fn at(&self, height: Height) -> Option<(Arc<CommittedBlock>, Arc<MapState>)> {
        self.blocks.read().get(usize::try_from(height.0).ok()?).cloned()
    }
}

impl Store for MemoryStore {
    fn chain(&self) -> &Arc<ChainSpec> {
        &self.chain
    }

    fn tip(&self) -> Arc<CommittedBlock> {
        self.blocks.read().last().expect("block 0 is always there").0.clone()
    }

    fn commit(&self, group: &[FinalizedBlock]) -> Result<Vec<Arc<CommittedBlock>>, StoreError> {
        if self.failing.load(Ordering::Acquire) {
            return Err(StoreError::Failed("told to fail".to_owned()));
        }
        let mut blocks = self.blocks.write();
        let mut committed = Vec::with_capacity(group.len());
        for FinalizedBlock { executed, finality } in group {
            let (tip, state) = blocks.last().expect("block 0 is always there");
            if executed.block.height() != tip.height().next() {
                return Err(StoreError::OutOfOrder { got: executed.block.height(), tip: tip.height() });
            }
            let mut state = MapState::clone(state);
            state.apply(&executed.changes).map_err(|error| StoreError::Corrupt(error.to_string()))?;
            state.block_hashes.insert(tip.height().0, tip.hash());
            committed.push(Arc::new(CommittedBlock {
                block: executed.block.clone(),
                receipts: executed.receipts.clone(),
                finality: Some(*finality),
            }));
            blocks.push((committed[committed.len() - 1].clone(), Arc::new(state)));
        }
        Ok(committed)
    }

    fn begin_epoch(&self, start: &EpochStart) -> Result<(), StoreError> {
        self.epochs.write().insert(start.set.epoch(), start.clone());
        Ok(())
    }

    fn epoch(&self, epoch: Epoch) -> Result<Option<EpochStart>, StoreError> {
        Ok(self.epochs.read().get(&epoch).cloned())
    }

    fn tail_header(&self, id: B256) -> Result<Option<SignedHeader>, StoreError> {
        let epochs = self.epochs.read();
        let mut all = epochs.values().flat_map(|start| &start.tail);
        Ok(all.find(|above| above.header.id() == id).cloned())
    }

    fn view(&self, height: Height) -> Result<Arc<dyn StateView>, StoreError> {
        match self.at(height) {
            Some((_, state)) => Ok(state),
            None => Err(StoreError::Unavailable(height)),
        }
    }

    fn block(&self, height: Height) -> Result<Option<Arc<CommittedBlock>>, StoreError> {
        Ok(self.at(height).map(|(block, _)| block))
    }

    fn header(&self, height: Height) -> Result<Option<Sealed<Header>>, StoreError> {
        Ok(self.at(height).map(|(block, _)| block.block.header.clone()))
    }

    fn height_of(&self, hash: B256) -> Result<Option<Height>, StoreError> {
        Ok(self.blocks.read().iter().find(|(block, _)| block.hash() == hash).map(|(block, _)| block.height()))
    }

    fn height_of_id(&self, id: B256) -> Result<Option<Height>, StoreError> {
        Ok(self
            .blocks
            .read()
            .iter()
            .map(|(block, _)| &block.block.consensus)
            .find(|at| at.id() == id)
            .map(|at| at.height()))
    }

    fn transaction_position(&self, hash: B256) -> Result<Option<(Height, usize)>, StoreError> {
        let places: BTreeMap<B256, (Height, usize)> = self
            .blocks
            .read()
            .iter()
            .flat_map(|(block, _)| {
                let hashes = block.block.body.transactions.iter().map(|tx| tx.hash());
                hashes.enumerate().map(|(index, hash)| (hash, (block.height(), index))).collect::<Vec<_>>()
            })
            .collect();
        Ok(places.get(&hash).copied())
    }

    fn blocks_with_logs(&self, filter: &LogFilter, heights: RangeInclusive<Height>) -> Result<LogBlocks, StoreError> {
        let mut found = LogBlocks::default();
        for (block, _) in self.blocks.read().iter().filter(|(block, _)| heights.contains(&block.height())) {
            if found.heights.len() == LOG_LOOK_BLOCKS_MAX {
                found.next = Some(block.height());
                break;
            }
            if block.receipts.iter().flat_map(|receipt| &receipt.logs).any(|log| filter.matches(log)) {
                found.heights.push(block.height());
            }
        }
        Ok(found)
    }

    fn state_head(&self, _block: Option<B256>, _from: Epoch) -> Result<(B256, Bytes), StoreError> {
        Err(StoreError::Unavailable(Height::GENESIS))
    }

    fn state_part(&self, _block: B256, _owner: Option<B256>, _from: B256) -> Result<Bytes, StoreError> {
        Err(StoreError::Unavailable(Height::GENESIS))
    }

    fn proof(&self, height: Height, _address: Address, _slots: &[U256]) -> Result<AccountProof, StoreError> {
        Err(StoreError::Unavailable(height))
    }
}
