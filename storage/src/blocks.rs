//! Committed blocks: recent ones in memory, older ones read from their segment.

use std::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use alloy_consensus::{Header, Sealable, Sealed};
use alloy_primitives::{B256, map::B256Map};
use alloy_rlp::{Decodable, Encodable};
use engine::{
    limits::{RECENT_BLOCKS_BYTES_MAX, RECENT_BLOCKS_MAX, STATE_WINDOW_HEIGHTS},
    types::{CommittedBlock, ExecutedBlock, FinalizedBlock, Height, StateChanges, codec},
};
use parking_lot::RwLock;

use crate::{
    error::Fault,
    kv::{Env, Snapshot, WriteTxn},
    record,
    segment::{Entry, Segments},
    tables::{self, Position, meta},
    trie::state::StateTrie,
};

/// What is in memory about the newest blocks.
struct Recent {
    /// Contiguous, the tip last, never empty; each with its bytes on disk.
    blocks: VecDeque<(Arc<CommittedBlock>, usize)>,
    /// Bytes of all of them.
    bytes: usize,
    /// Tries of the newest heights, contiguous, the tip's last.
    tries: VecDeque<(Height, Arc<StateTrie>)>,
    /// Blocks without rows in the chain environment.
    unindexed: BTreeMap<Height, (Position, Sealed<Header>)>,
    heights: B256Map<Height>,
    /// Transactions in all blocks up to the tip.
    transactions: u64,
}

impl Recent {
    /// Whether a height is at or below the tip.
    fn is_committed(&self, height: Height) -> bool {
        self.blocks.back().is_some_and(|(tip, _)| height <= tip.height())
    }
}

/// What a new block pushed out of memory.
#[derive(Default)]
pub(crate) struct Outdated {
    blocks: Vec<Arc<CommittedBlock>>,
    tries: Vec<Arc<StateTrie>>,
}

impl Outdated {
    /// Whether there is nothing to drop.
    pub(crate) const fn is_empty(&self) -> bool {
        self.blocks.is_empty() && self.tries.is_empty()
    }
}

/// The chain of committed blocks.
pub(crate) struct Blocks {
    /// Block 0, which no segment holds.
    genesis: Arc<CommittedBlock>,
    recent: RwLock<Recent>,
    rows: RwLock<Arc<Snapshot>>,
    segments: Arc<Segments>,
}

/// A block read back from its segment.
pub(crate) struct Stored {
    pub(crate) block: Arc<CommittedBlock>,
    pub(crate) changes: Arc<StateChanges>,
}

/// Decodes the records of a block.
pub(crate) fn decode(bytes: &[u8], height: Height, salt: u32) -> Result<Stored, Fault> {
    let (block, changes) = decode_block(bytes, height, salt)?;
    let changes = codec::decode_changes(&changes).map_err(|_| undecodable(height))?;
    Ok(Stored { block, changes: Arc::new(changes) })
}

/// Seed of the checksums of landmarks: nobody looks for one in other bytes.
const LANDMARK_SALT: u32 = 0;

/// The records of a block that no segment will hold; `None` if nothing makes it final.
pub(crate) fn encode_landmark(block: &CommittedBlock) -> Option<Vec<u8>> {
    let finality = block.finality?;
    let executed = ExecutedBlock {
        block: Arc::clone(&block.block),
        receipts: Arc::clone(&block.receipts),
        changes: Arc::default(),
        trie: Arc::new(StateTrie::stored(block.block.header.state_root)).handle(),
        access_list: Arc::default(),
    };
    let mut bytes = Vec::new();
    let style = record::Style { salt: LANDMARK_SALT, compress: false };
    record::append_block(&mut bytes, &FinalizedBlock { executed, finality }, Height::GENESIS, style);
    Some(bytes)
}

/// A block that no segment holds, if it is kept whole.
pub(crate) fn landmark(rows: &Snapshot, height: Height) -> Result<Option<Arc<CommittedBlock>>, Fault> {
    let decode = |bytes: &[u8]| decode_block(bytes, height, LANDMARK_SALT).map(|(block, _)| block);
    rows.get(tables::LANDMARK, &height.0.to_be_bytes(), decode)?.transpose()
}

fn undecodable(height: Height) -> Fault {
    Fault::corrupt(format!("records of block {height} do not decode"))
}

/// Decodes the records of a block but for what it changed.
fn decode_block(bytes: &[u8], height: Height, salt: u32) -> Result<(Arc<CommittedBlock>, Cow<'_, [u8]>), Fault> {
    let damaged = || undecodable(height);
    let [block, receipts, changes, finality] = record::split_block(bytes, height, salt).ok_or_else(damaged)?;
    let block = codec::decode_block(&block).map_err(|_| damaged())?;
    let receipts = codec::decode_receipts(&receipts).map_err(|_| damaged())?;
    let (finality, _) = record::decode_finalization(&finality).ok_or_else(damaged)?;
    let block = CommittedBlock { block: Arc::new(block), receipts: Arc::new(receipts), finality: Some(finality) };
    Ok((Arc::new(block), changes))
}

impl Blocks {
    /// The chain up to a block whose rows are written; `trie` is that of the checkpoint, at or above it.
    pub(crate) fn new(
        (genesis, tip): (Arc<CommittedBlock>, Arc<CommittedBlock>),
        trie: (Height, Arc<StateTrie>),
        transactions: u64,
        rows: Snapshot,
        segments: Arc<Segments>,
    ) -> Self {
        let recent = Recent {
            blocks: VecDeque::from([(tip, 0)]),
            bytes: 0,
            tries: VecDeque::from([trie]),
            unindexed: BTreeMap::new(),
            heights: B256Map::default(),
            transactions,
        };
        Self { genesis, recent: RwLock::new(recent), rows: RwLock::new(Arc::new(rows)), segments }
    }

    /// Appends a committed block; `trie` is `None` for a height below the applied one.
    ///
    /// Returns what fell out of the kept range. Dropping that takes milliseconds, so the caller decides
    /// where it happens.
    #[must_use]
    pub(crate) fn push(
        &self,
        block: Arc<CommittedBlock>,
        mut position: Position,
        trie: Option<Arc<StateTrie>>,
    ) -> Outdated {
        let mut outdated = Outdated::default();
        let height = block.height();
        let mut recent = self.recent.write();
        position.first_transaction = recent.transactions;
        recent.transactions = recent.transactions.saturating_add(u64::from(position.transactions));
        recent.heights.insert(position.hash, height);
        recent.heights.insert(position.id, height);
        recent.unindexed.insert(height, (position, block.block.header.clone()));
        let bytes = usize::try_from(position.length).unwrap_or(usize::MAX);
        recent.bytes = recent.bytes.saturating_add(bytes);
        recent.blocks.push_back((block, bytes));
        while recent.blocks.len() > RECENT_BLOCKS_MAX
            || (recent.bytes > RECENT_BLOCKS_BYTES_MAX && recent.blocks.len() > 1)
        {
            let Some((block, bytes)) = recent.blocks.pop_front() else { break };
            recent.bytes = recent.bytes.saturating_sub(bytes);
            outdated.blocks.push(block);
        }
        if let Some(trie) = trie {
            recent.tries.push_back((height, trie));
            // What is above the checkpoint can be had from its trie only.
            let kept =
                recent.unindexed.first_key_value().map_or(height, |(lowest, _)| Height(lowest.0.saturating_sub(1)));
            let kept = kept.min(Height(height.0.saturating_sub(STATE_WINDOW_HEIGHTS)));
            while recent.tries.front().is_some_and(|(old, _)| *old < kept) {
                outdated.tries.extend(recent.tries.pop_front().map(|(_, trie)| trie));
            }
        }
        outdated
    }

    /// The newest block.
    pub(crate) fn tip(&self) -> Arc<CommittedBlock> {
        Arc::clone(&self.recent.read().blocks.back().expect("there is always a tip").0)
    }

    /// The trie of the newest height that has one, with that height.
    pub(crate) fn newest_trie(&self) -> (Height, Arc<StateTrie>) {
        self.recent.read().tries.back().cloned().expect("there is always a trie")
    }

    /// The trie of a height, `None` if it is not kept.
    pub(crate) fn trie(&self, height: Height) -> Option<Arc<StateTrie>> {
        let recent = self.recent.read();
        let first = recent.tries.front()?.0;
        let index = usize::try_from(height.0.checked_sub(first.0)?).ok()?;
        recent.tries.get(index).map(|(_, trie)| Arc::clone(trie))
    }

    fn recent_block(&self, height: Height) -> Option<Arc<CommittedBlock>> {
        let recent = self.recent.read();
        let first = recent.blocks.front()?.0.height();
        let index = usize::try_from(height.0.checked_sub(first.0)?).ok()?;
        recent.blocks.get(index).map(|(block, _)| Arc::clone(block))
    }

    /// The rows of the chain environment, as of the newest checkpoint.
    pub(crate) fn rows(&self) -> Arc<Snapshot> {
        Arc::clone(&self.rows.read())
    }

    /// Where a block is.
    pub(crate) fn position(&self, height: Height) -> Result<Option<Position>, Fault> {
        let is_committed = {
            // Asked for together: a block that is committed after this look has no row yet.
            let recent = self.recent.read();
            if let Some((position, _)) = recent.unindexed.get(&height) {
                return Ok(Some(*position));
            }
            recent.is_committed(height)
        };
        let row = self.rows().get(tables::CANONICAL, &height.0.to_be_bytes(), Position::decode)?;
        match row {
            Some(None) => Err(Fault::corrupt(format!("canonical row {height} does not decode"))),
            Some(found) => Ok(found),
            None if is_committed && height >= self.segments.lowest() => {
                Err(Fault::corrupt(format!("there is no canonical row {height}")))
            }
            None => Ok(None),
        }
    }

    /// Reads the records of a block back and decodes them; `None` for block 0, unknown heights, and what is kept no
    /// longer.
    fn read<R>(
        &self,
        height: Height,
        decode: impl FnOnce(&[u8], u32) -> Result<R, Fault>,
        block: impl FnOnce(&R) -> &CommittedBlock,
    ) -> Result<Option<R>, Fault> {
        let Some(position) = self.position(height)?.filter(|position| position.length > 0) else { return Ok(None) };
        let length = usize::try_from(position.length).expect("a length of 32 bits fits");
        let segment = match self.segments.get(position.segment) {
            Err(_) if height <= self.segments.lowest() => return Ok(None),
            segment => segment?,
        };
        let found = decode(&segment.read(position.offset, length)?, segment.salt)?;
        let hash = block(&found).hash();
        if hash != position.hash {
            return Err(Fault::corrupt(format!("block {height} has hash {hash}, not {}", position.hash)));
        }
        Ok(Some(found))
    }

    /// Reads a block and its changes back from its segment; `None` if it is in none.
    pub(crate) fn stored(&self, height: Height) -> Result<Option<Stored>, Fault> {
        self.read(height, |bytes, salt| decode(bytes, height, salt), |stored| &stored.block)
    }

    /// What the block at `height` changed, encoded, out of its segment; nothing else of it is read.
    pub(crate) fn changes(&self, height: Height) -> Result<Vec<u8>, Fault> {
        let damaged = || Fault::corrupt(format!("the changes of block {height} are damaged or missing"));
        let position = self.position(height)?.ok_or_else(damaged)?;
        let segment = self.segments.get(position.segment)?;
        let end = position.offset.saturating_add(u64::from(position.length));
        let mut offset = position.offset;
        while offset < end {
            let front = segment.front(offset)?.filter(|front| front.height == height).ok_or_else(damaged)?;
            if front.kind == record::Kind::Changes {
                let Entry::Record(header, payload) = segment.entry(offset)? else { return Err(damaged()) };
                let unpacked = match header.unpack(&payload).ok_or_else(damaged)? {
                    Cow::Owned(unpacked) => Some(unpacked),
                    Cow::Borrowed(_) => None,
                };
                return Ok(unpacked.unwrap_or(payload));
            }
            let length = u64::try_from(record::HEADER_BYTES.saturating_add(front.length)).unwrap_or(u64::MAX);
            offset = offset.saturating_add(length);
        }
        Err(damaged())
    }

    /// The block at `height`; of those below the lowest segment only landmarks are there.
    pub(crate) fn block(&self, height: Height) -> Result<Option<Arc<CommittedBlock>>, Fault> {
        if let Some(block) = self.recent_block(height) {
            return Ok(Some(block));
        }
        if height == Height::GENESIS {
            return Ok(Some(Arc::clone(&self.genesis)));
        }
        if height > self.tip().height() {
            return Ok(None);
        }
        let held = self.read(height, |bytes, salt| Ok(decode_block(bytes, height, salt)?.0), |block| block)?;
        if held.is_some() || height > self.segments.lowest() {
            return Ok(held);
        }
        let (found, position) = (landmark(&self.rows(), height)?, self.position(height)?);
        match found.as_ref().map(|block| block.hash()) {
            Some(hash) if position.is_none_or(|position| position.hash != hash) => {
                Err(Fault::corrupt(format!("landmark {height} has hash {hash}, its canonical row another")))
            }
            _ => Ok(found),
        }
    }

    /// The header at `height`.
    pub(crate) fn header(&self, height: Height) -> Result<Option<Sealed<Header>>, Fault> {
        if let Some(block) = self.recent_block(height) {
            return Ok(Some(block.block.header.clone()));
        }
        let is_committed = {
            let recent = self.recent.read();
            if let Some((_, header)) = recent.unindexed.get(&height) {
                return Ok(Some(header.clone()));
            }
            recent.is_committed(height)
        };
        let row = self.rows().get(tables::HEADER, &height.0.to_be_bytes(), |mut row| Header::decode(&mut row))?;
        match row {
            Some(Ok(header)) => {
                let header = header.seal_slow();
                let named = self.position(height)?.map(|position| position.hash);
                if named.is_none() && height < self.segments.lowest() {
                    // It has just gone.
                    return Ok(None);
                }
                if named != Some(header.seal()) {
                    let text =
                        format!("header row {height} has hash {}, its canonical row names {named:?}", header.seal());
                    return Err(Fault::corrupt(text));
                }
                Ok(Some(header))
            }
            Some(Err(_)) => Err(Fault::corrupt(format!("header row {height} does not decode"))),
            None if is_committed && height >= self.segments.lowest() => {
                Err(Fault::corrupt(format!("there is no header row {height}")))
            }
            None => Ok(None),
        }
    }

    /// Hash of the block at `height`.
    pub(crate) fn hash(&self, height: Height) -> Result<Option<B256>, Fault> {
        if let Some(block) = self.recent_block(height) {
            return Ok(Some(block.hash()));
        }
        Ok(self.header(height)?.map(|header| header.seal()))
    }

    /// Height of the block with this hash.
    pub(crate) fn height_of(&self, hash: B256) -> Result<Option<Height>, Fault> {
        self.height_where(hash, |position| position.hash == hash)
    }

    /// Height of the block whose consensus header has this id.
    pub(crate) fn height_of_id(&self, id: B256) -> Result<Option<Height>, Fault> {
        self.height_where(id, |position| position.id == id)
    }

    fn height_where(&self, key: B256, is_it: impl Fn(&Position) -> bool) -> Result<Option<Height>, Fault> {
        let recent = self.recent.read().heights.get(&key).copied();
        let height = match recent {
            Some(height) => Some(height),
            None => {
                let row = self.rows().get(tables::HEIGHT_BY_HASH, key.as_slice(), |row| tables::Fields(row).u64())?;
                row.flatten().map(Height)
            }
        };
        let Some(height) = height else { return Ok(None) };
        match self.position(height)? {
            Some(position) if is_it(&position) => Ok(Some(height)),
            Some(position) if [position.hash, position.id].contains(&key) => Ok(None),
            None if height < self.segments.lowest() => Ok(None),
            _ => Err(Fault::corrupt(format!("height_by_hash row {key} names {height}, where another block is"))),
        }
    }

    /// Writes the rows of blocks up to `height` that lack them.
    pub(crate) fn write_rows(&self, txn: &mut WriteTxn<'_>, height: Height) -> Result<(), Fault> {
        let rows: Vec<_> = {
            let recent = self.recent.read();
            recent.unindexed.range(..=height).map(|(height, row)| (*height, row.clone())).collect()
        };
        let mut encoded = Vec::with_capacity(640);
        for (height, (position, header)) in rows {
            write_row(txn, height, &position, header.inner(), &mut encoded)?;
        }
        txn.put(tables::CHAIN_META, meta::INDEXED, &height.0.to_be_bytes())?;
        Ok(())
    }

    /// Reads rows as they are now.
    pub(crate) fn refresh(&self, env: &Env) -> Result<(), Fault> {
        // The lock comes first, so that no older rows take the place of newer ones.
        let mut rows = self.rows.write();
        *rows = Arc::new(env.snapshot()?);
        Ok(())
    }

    /// Height up to which blocks have rows.
    pub(crate) fn indexed(&self) -> Height {
        let recent = self.recent.read();
        let lowest = recent.unindexed.first_key_value().and_then(|(lowest, _)| lowest.previous());
        lowest.or_else(|| recent.blocks.back().map(|(tip, _)| tip.height())).unwrap_or_default()
    }

    /// Takes over the rows that [`Self::write_rows`] made durable.
    pub(crate) fn rows_written(&self, env: &Env, height: Height) -> Result<(), Fault> {
        self.refresh(env)?;
        let mut recent = self.recent.write();
        let kept = recent.unindexed.split_off(&height.next());
        for (position, _) in std::mem::replace(&mut recent.unindexed, kept).into_values() {
            recent.heights.remove(&position.hash);
            recent.heights.remove(&position.id);
        }
        Ok(())
    }
}

/// Deletes the chain rows of the block at a key, whose canonical row is this.
pub(crate) fn forget_rows(txn: &mut WriteTxn<'_>, key: &[u8], row: &[u8]) -> Result<(), Fault> {
    // A row that does not decode says of no other rows where they are; nothing leads to those any more.
    for name in Position::decode(row).into_iter().flat_map(|position| [position.hash, position.id]) {
        txn.delete(tables::HEIGHT_BY_HASH, name.as_slice())?;
    }
    txn.delete(tables::HEADER, key)?;
    Ok(txn.delete(tables::CANONICAL, key)?)
}

/// Writes the chain rows of one block.
pub(crate) fn write_row(
    txn: &mut WriteTxn<'_>,
    height: Height,
    position: &Position,
    header: &Header,
    buffer: &mut Vec<u8>,
) -> Result<(), Fault> {
    let key = height.0.to_be_bytes();
    buffer.clear();
    header.encode(buffer);
    txn.put(tables::CANONICAL, &key, &position.encode())?;
    txn.put(tables::HEIGHT_BY_HASH, position.hash.as_slice(), &key)?;
    if !position.id.is_zero() {
        txn.put(tables::HEIGHT_BY_HASH, position.id.as_slice(), &key)?;
    }
    txn.put(tables::HEADER, &key, buffer)?;
    Ok(())
}
