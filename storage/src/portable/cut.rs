//! Chunks cut out of a state at any height whose nodes can be read.
//!
//! Every node and row is compared with what its parent names, so what is damaged gives an error and no chunk. One state
//! gives the same chunk for the same first key and size, wherever it is cut.

use std::collections::BTreeMap;

use alloy_primitives::{B256, Bytes, KECCAK256_EMPTY};
use engine::ports::StateView;

use super::{
    PortableError,
    chunk::{Accounts, Row, Slots, Storage, slot_size},
    manifest::after,
};
use crate::trie::{
    node::{Source, Tree, Value as Leaf},
    proof::prove,
    range::{Range, edges, range, rows},
    state::{AccountLeaf, AccountSource, StateSource, StateTrie},
};

/// A state, and how large its chunks are to be.
pub(super) struct Cutter<'a> {
    pub(super) trie: &'a StateTrie,
    pub(super) source: &'a dyn StateSource,
    /// Some view of the chain, which has every code.
    pub(super) view: &'a dyn StateView,
    pub(super) chunk_bytes: usize,
}

/// Whether a trie has nothing behind a key.
fn ends<V: Leaf>(
    tree: &Tree<B256, V>,
    last: Option<B256>,
    source: &dyn Source<B256, V>,
) -> Result<bool, PortableError> {
    let Some(next) = last.and_then(after) else { return Ok(true) };
    Ok(rows(tree, next, source, |_, _| false)?.is_empty())
}

impl Cutter<'_> {
    /// Accounts from a key on; and whether there are none behind them.
    pub(super) fn accounts(&self, from: B256) -> Result<(Accounts, bool), PortableError> {
        let source = AccountSource(self.source);
        let (mut taken, mut codes, mut bytes, mut failure) = (Vec::new(), BTreeMap::new(), 0_usize, None);
        rows(&self.trie.root, from, &source, |key, leaf| {
            match self.row(key, leaf, &mut codes, &mut bytes) {
                Ok(row) => taken.push(row),
                Err(error) => failure = Some(error),
            }
            failure.is_none() && bytes < self.chunk_bytes
        })?;
        if let Some(failure) = failure {
            return Err(failure);
        }
        let last = taken.last().map(|row| row.key);
        let proof = edges(&self.trie.root, from, last.as_ref(), &source)?;
        let ends = ends(&self.trie.root, last, &source)?;
        Ok((Accounts { from, rows: taken, codes: codes.into_values().collect(), proof }, ends))
    }

    /// An account with what of it fits a chunk; adds its code.
    fn row(
        &self,
        key: &B256,
        leaf: &AccountLeaf,
        codes: &mut BTreeMap<B256, Bytes>,
        bytes: &mut usize,
    ) -> Result<Row, PortableError> {
        let source = leaf.storage.rows(self.source);
        let mut left = self.chunk_bytes / 4;
        let slots = rows(&leaf.storage.root, B256::ZERO, &source, |key, value| {
            left = left.saturating_sub(slot_size(&(*key, *value)));
            left > 0
        })?;
        let storage = if left == 0 { Storage::Apart(leaf.storage.hash) } else { Storage::Here(slots) };
        // Slots that were read and do not fit were read as well: a chunk ends with its fourth such account.
        let read = if left == 0 { self.chunk_bytes.div_ceil(4) } else { 0 };
        let row = Row { key: *key, account: leaf.account, storage };
        *bytes = bytes.saturating_add(row.size()).saturating_add(read);
        let hash = leaf.account.code_hash;
        if hash != KECCAK256_EMPTY && !codes.contains_key(&hash) {
            let code = self.view.code(hash).map_err(|error| PortableError::Store(error.to_string()))?;
            *bytes = bytes.saturating_add(code.len());
            codes.insert(hash, code);
        }
        Ok(row)
    }

    /// Slots of an account from a key on, and whether there are none behind them; `None` without such an account.
    pub(super) fn slots(&self, owner: B256, from: B256) -> Result<Option<(Slots, bool)>, PortableError> {
        let (leaf, owner_proof) = prove(&self.trie.root, &owner, &AccountSource(self.source))?;
        let Some(AccountLeaf { account, storage }) = leaf else { return Ok(None) };
        let owner = Row { key: owner, account, storage: Storage::Apart(storage.hash) };
        let source = storage.rows(self.source);
        let mut bytes = 0_usize;
        let Range { rows, proof } = range(&storage.root, from, &source, |key, value| {
            bytes = bytes.saturating_add(slot_size(&(*key, *value)));
            bytes < self.chunk_bytes
        })?;
        let ends = ends(&storage.root, rows.last().map(|(last, _)| *last), &source)?;
        Ok(Some((Slots { owner, owner_proof, from, rows, proof }, ends)))
    }
}
