//! Looking for damage in what has no checksum: the rows of MDBX.
//!
//! | table | compared with |
//! |---|---|
//! | `account` | the state root that the header of the applied block names: rows under a prefix must make its node |
//! | `storage` | the storage root of the account, in the same way |
//! | `account_node`, `storage_node` | the records that those rows make |
//! | `code` | the hash that is its key |
//! | `canonical`, `header`, `height_by_hash` | the block in its segment, and the rows of the height below |
//! | `epoch` | its checksum, the id that is its key, and how many rows there are |
//!
//! Each row is read in order and looked up by its key as well: damage in MDBX's own pages may hide a row from one of
//! both. Work is done in steps of some thousand rows, each on the newest checkpoint, so that neither a write nor a view
//! waits. A thread looks at random places once a minute; [`Scrub`] at all of them.
//!
//! A store that was found damaged twice in one place takes no further block: whatever it says may be wrong, and a
//! validator that votes on it would contradict the others. What is left of it can be read.

use std::{ops::ControlFlow, sync::Arc};

use alloy_primitives::{B256, U256, keccak256};

use crate::{
    error::Fault,
    kv::{Env, Snapshot, Table},
    metrics,
    snapshot::{Snapshots, StateSnapshot},
    store::Inner,
    tables::{self, AccountRow, Applied, meta},
    trie::{
        node::{Key as _, Root, Source, Tree, Value},
        prefix, record,
        state::{AccountLeaf, AccountSource, Incarnation, StateTrie, StorageSource, StorageTrie},
    },
};

mod chain;
mod thread;

#[cfg(test)]
pub(crate) use thread::look;
pub(crate) use thread::start;

/// Rows that one step reads in order, about.
const ROWS_MAX: usize = 2_048;
/// Bytes of code that one step reads, about.
const CODE_BYTES_MAX: usize = 1 << 20;
/// Blocks that one step reads.
const BLOCKS_MAX: u64 = 32;
/// Findings that are told; a store that has more is no better known by them.
const FINDINGS_MAX: usize = 64;

/// A place that is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The table.
    pub table: &'static str,
    /// Where in it, and what is wrong.
    pub what: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "table {}: {}", self.table, self.what)
    }
}

/// What was looked at, and what is damaged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Rows that were compared.
    pub rows: u64,
    /// The first places that are damaged.
    pub findings: Vec<Finding>,
}

impl Scrubbed {
    fn find(&mut self, table: &'static str, what: impl Into<String>) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { table, what: what.into() });
        }
    }

    fn count(&mut self, rows: usize) {
        self.rows = self.rows.saturating_add(u64::try_from(rows).unwrap_or(u64::MAX));
    }
}

/// A first key, `None` behind the last.
type Next = Option<B256>;

/// A whole pass, in steps.
pub(crate) struct Scrub<'a> {
    inner: &'a Inner,
    accounts: Next,
    /// Accounts with the first slot that is not compared yet.
    storages: Vec<(B256, B256)>,
    codes: Next,
    /// The next height.
    height: Option<u64>,
    /// The next key of an epoch's row.
    epochs: Option<Vec<u8>>,
    pub(crate) done: Scrubbed,
}

/// The state environment as of one checkpoint, with the root that it must have.
struct State {
    rows: Arc<StateSnapshot>,
    source: Snapshots,
    root: B256,
}

impl State {
    /// The newest checkpoint.
    fn newest(inner: &Inner, done: &mut Scrubbed) -> Result<Option<Self>, Fault> {
        let rows = inner.snapshots.current();
        let applied = rows.rows().get(tables::STATE_META, meta::APPLIED, Applied::decode)?.flatten();
        let Some(applied) = applied else {
            done.find("meta", "the applied row is missing or does not decode");
            return Ok(None);
        };
        let header = inner.blocks.header(applied.height)?;
        let root = header.map(|header| header.state_root);
        if root != Some(applied.root) || applied.height != rows.applied {
            done.find("meta", format!("the applied row names root {} at {}: {root:?}", applied.root, applied.height));
        }
        let source = Snapshots::pinned(Arc::clone(&rows));
        Ok(Some(Self { rows, source, root: root.unwrap_or(applied.root) }))
    }
}

/// The key that begins with these nibbles, filled up with zeros, `depth` of them.
fn begin(key: &B256, depth: usize) -> B256 {
    let mut begin = B256::ZERO;
    begin[..depth / 2].copy_from_slice(&key[..depth / 2]);
    if depth % 2 == 1 {
        begin[depth / 2] = key[depth / 2] & 0xf0;
    }
    begin
}

/// The first key that does not begin with the same `depth` nibbles.
fn behind(key: &B256, depth: usize) -> Next {
    let step = if depth == 0 { return None } else { U256::ONE << (4 * (64 - depth)) };
    U256::from_be_bytes(begin(key, depth).0).checked_add(step).map(B256::from)
}

fn nibbles(key: &B256, depth: usize) -> Vec<u8> {
    (0..depth).map(|index| key.nibble(index)).collect()
}

/// The shortest prefix that begins with `from` and of which all rows were read, in nibbles.
fn depth(from: &B256, part: &Part) -> usize {
    let is_read = |depth: &usize| part.is_read(behind(from, *depth));
    (0..64).filter(|depth| begin(from, *depth) == *from).find(is_read).unwrap_or(64)
}

/// Rows of a table, keys without what all of them begin with.
struct Part {
    rows: Vec<(B256, Vec<u8>)>,
    /// There is none behind them.
    is_all: bool,
}

impl Part {
    /// Whether all rows before `end` were read.
    fn is_read(&self, end: Next) -> bool {
        let last = self.rows.last().map(|(last, _)| *last);
        self.is_all || end.zip(last).is_some_and(|(end, last)| last >= end)
    }
}

/// Reads rows from a key on whose keys begin with `id`.
fn read(
    snapshot: &Snapshot,
    (table, name): (Table, &'static str),
    id: &[u8],
    from: &B256,
    done: &mut Scrubbed,
) -> Result<Part, Fault> {
    let mut part = Part { rows: Vec::new(), is_all: true };
    let mut strange = None;
    snapshot.scan(table, &[id, from.as_slice()].concat(), |key, value| {
        let Some(key) = key.strip_prefix(id) else { return ControlFlow::Break(()) };
        if part.rows.len() > ROWS_MAX {
            part.is_all = false;
            return ControlFlow::Break(());
        }
        let last = part.rows.last().map(|(last, _)| *last);
        match B256::try_from(key).ok().filter(|key| key >= from && last.is_none_or(|last| last < *key)) {
            Some(key) => part.rows.push((key, value.to_vec())),
            None => {
                strange = Some(format!("a row with {} bytes of key behind {last:?} is out of place", key.len()));
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })?;
    if let Some(strange) = strange {
        done.find(name, strange);
    }
    Ok(part)
}

impl<'a> Scrub<'a> {
    /// A pass over everything.
    pub(crate) const fn new(inner: &'a Inner) -> Self {
        let (accounts, codes) = (Some(B256::ZERO), Some(B256::ZERO));
        let done = Scrubbed { rows: 0, findings: Vec::new() };
        Self { inner, accounts, storages: Vec::new(), codes, height: Some(0), epochs: Some(Vec::new()), done }
    }

    /// Compares the next places; `false` when there is none left. What cannot be read is a finding.
    pub(crate) fn step(&mut self) -> bool {
        let outcome = self.try_step();
        outcome.unwrap_or_else(|fault| {
            self.done.find("unknown", fault.to_string());
            // Whatever could not be read would not be read again.
            (self.accounts, self.codes, self.height, self.epochs) = (None, None, None, None);
            self.storages.clear();
            false
        })
    }

    fn try_step(&mut self) -> Result<bool, Fault> {
        if let Some((account, slot)) = self.storages.pop() {
            let state = State::newest(self.inner, &mut self.done)?;
            if let Some(state) = state {
                let next = self.storage(&state, &account, &slot, true)?;
                self.storages.extend(next.map(|next| (account, next)));
            }
        } else if let Some(from) = self.accounts.take() {
            let state = State::newest(self.inner, &mut self.done)?;
            if let Some(state) = state {
                self.accounts = self.accounts_from(&state, &from, true)?;
            }
        } else if let Some(from) = self.codes.take() {
            self.codes = self.codes_from(&from)?;
        } else if let Some(height) = self.height.take() {
            self.height = chain::blocks(self.inner, height, &mut self.done)?;
        } else if let Some(from) = self.epochs.take() {
            self.epochs = chain::epochs(self.inner, &from, &mut self.done)?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// Compares accounts from a key on, or around it if it need not be the first of a prefix.
    fn accounts_from(&mut self, state: &State, from: &B256, is_aligned: bool) -> Result<Next, Fault> {
        let from = if is_aligned {
            *from
        } else {
            around(from, &|begin| read(state.rows.rows(), ACCOUNTS, &[], begin, &mut Scrubbed::default()))?
        };
        let part = read(state.rows.rows(), ACCOUNTS, &[], &from, &mut self.done)?;
        let depth = depth(&from, &part);
        let end = behind(&from, depth);
        let mut leaves = Vec::with_capacity(part.rows.len());
        let rows = part.rows.iter().take_while(|(key, _)| end.is_none_or(|end| *key < end));
        for (key, bytes) in rows {
            self.look_up(state.rows.rows(), ACCOUNTS, key.as_slice(), bytes)?;
            match AccountRow::decode(bytes) {
                Some(AccountRow { account, storage_id, storage_root }) => {
                    if storage_id != 0 {
                        self.storages.push((*key, B256::ZERO));
                    }
                    let storage = StorageTrie { hash: storage_root, ..StorageTrie::default() };
                    leaves.push((*key, AccountLeaf { account, storage }));
                }
                None => self.done.find(ACCOUNTS.1, format!("the row of {key} does not decode")),
            }
        }
        let trie = StateTrie::stored(state.root);
        let compared = Compared {
            names: (ACCOUNTS.1, "account_node"),
            root: &trie.root,
            source: &AccountSource(&state.source),
            snapshot: state.rows.rows(),
            nodes: (tables::ACCOUNT_NODE, &[]),
            of: String::new(),
        };
        compared.rows(&nibbles(&from, depth), &leaves, &mut self.done)?;
        Ok(end)
    }

    /// Compares slots of an account from a key on; the next key.
    fn storage(&mut self, state: &State, account: &B256, from: &B256, is_aligned: bool) -> Result<Next, Fault> {
        // The account may have changed since it was met, or be gone.
        let Ok(Some(row)) = state.rows.account(account) else { return Ok(None) };
        if row.storage_id == 0 {
            return Ok(None);
        }
        let id = row.storage_id.to_be_bytes();
        let from = if is_aligned {
            *from
        } else {
            around(from, &|begin| read(state.rows.rows(), SLOTS, &id, begin, &mut Scrubbed::default()))?
        };
        let part = read(state.rows.rows(), SLOTS, &id, &from, &mut self.done)?;
        let depth = depth(&from, &part);
        let end = behind(&from, depth);
        let mut leaves = Vec::with_capacity(part.rows.len());
        let rows = part.rows.iter().take_while(|(key, _)| end.is_none_or(|end| *key < end));
        for (key, bytes) in rows {
            self.look_up(state.rows.rows(), SLOTS, &tables::storage_key(row.storage_id, key), bytes)?;
            match U256::try_from_be_slice(bytes) {
                Some(value) => leaves.push((*key, value)),
                None => self.done.find(SLOTS.1, format!("the row of {key} of account {account} does not decode")),
            }
        }
        let (root, owner) = (Root::stored(row.storage_root), Incarnation::stored(row.storage_id));
        let compared = Compared {
            names: (SLOTS.1, "storage_node"),
            root: &root,
            source: &StorageSource { source: &state.source, owner: Some(&owner) },
            snapshot: state.rows.rows(),
            nodes: (tables::STORAGE_NODE, &id),
            of: format!(" of account {account}"),
        };
        compared.rows(&nibbles(&from, depth), &leaves, &mut self.done)?;
        Ok(end)
    }

    fn codes_from(&mut self, from: &B256) -> Result<Next, Fault> {
        let snapshot = self.inner.snapshots.current();
        let (mut bytes, mut next, mut found) = (0, None, Vec::new());
        snapshot.rows().scan(tables::CODE, from.as_slice(), |key, code| {
            if bytes > CODE_BYTES_MAX {
                next = B256::try_from(key).ok();
                return ControlFlow::Break(());
            }
            bytes = bytes.saturating_add(code.len()).saturating_add(64);
            found.push((key.to_vec(), keccak256(code)));
            ControlFlow::Continue(())
        })?;
        self.done.count(found.len());
        for (key, hash) in found {
            let looked_up = snapshot.rows().get(tables::CODE, &key, |code| keccak256(code))?;
            if key != hash.as_slice() || looked_up != Some(hash) {
                let key = alloy_primitives::hex::encode(&key);
                self.done.find("code", format!("the row of {key} has code with hash {hash}"));
            }
        }
        Ok(next)
    }

    fn look_up(
        &mut self,
        snapshot: &Snapshot,
        (table, name): (Table, &'static str),
        key: &[u8],
        value: &[u8],
    ) -> Result<(), Fault> {
        self.done.count(1);
        if snapshot.get(table, key, |found| found == value)? != Some(true) {
            let key = alloy_primitives::hex::encode(key);
            self.done.find(name, format!("the row of {key} is not found by its key"));
        }
        Ok(())
    }
}

const ACCOUNTS: (Table, &str) = (tables::ACCOUNT, "account");
const SLOTS: (Table, &str) = (tables::STORAGE, "storage");

/// The first key of the shortest prefix of `key` under which there are no more rows than one step reads.
fn around(key: &B256, read: &dyn Fn(&B256) -> Result<Part, Fault>) -> Result<B256, Fault> {
    for depth in 0..64 {
        let begin = begin(key, depth);
        if read(&begin)?.is_read(behind(&begin, depth)) {
            return Ok(begin);
        }
    }
    Ok(*key)
}

/// A trie, and the rows that it must be made of.
struct Compared<'a, V> {
    /// The tables of rows and of records.
    names: (&'static str, &'static str),
    root: &'a Tree<B256, V>,
    source: &'a dyn Source<B256, V>,
    snapshot: &'a Snapshot,
    /// The table of records, and what its keys begin with.
    nodes: (Table, &'a [u8]),
    /// Whose trie it is, in words.
    of: String,
}

impl<V: Value> Compared<'_, V> {
    /// Compares all rows under a prefix with the trie; what differs is narrowed down to single rows.
    fn rows(&self, under: &[u8], rows: &[(B256, V)], done: &mut Scrubbed) -> Result<(), Fault> {
        let told: String = under.iter().map(|nibble| format!("{nibble:x}")).collect();
        let records = match prefix::records(self.root, under, rows, self.source) {
            Ok(Some(records)) => records,
            Ok(None) if rows.len() > 1 => return self.narrow(under, rows, done),
            Ok(None) => {
                let row =
                    rows.first().map_or_else(|| "a row is missing".to_owned(), |(key, _)| format!("the row of {key}"));
                done.find(self.names.0, format!("{row}{} does not make the node at {told:?}", self.of));
                return Ok(());
            }
            Err(error) => {
                done.find(self.names.1, format!("{error}{}", self.of));
                return Ok(());
            }
        };
        for (position, expected) in records {
            let mut key = self.nodes.1.to_vec();
            record::position_key(&position, &mut key);
            if self.snapshot.get(self.nodes.0, &key, |found| found == expected)? != Some(true) {
                let key = alloy_primitives::hex::encode(key);
                done.find(self.names.1, format!("the row of {key}{} is not what its rows make", self.of));
            }
        }
        Ok(())
    }

    fn narrow(&self, under: &[u8], rows: &[(B256, V)], done: &mut Scrubbed) -> Result<(), Fault> {
        let before = done.findings.len();
        for nibble in 0..16 {
            let first = rows.partition_point(|(key, _)| key.nibble(under.len()) < nibble);
            let last = rows.partition_point(|(key, _)| key.nibble(under.len()) <= nibble);
            self.rows(&[under, &[nibble]].concat(), &rows[first..last], done)?;
        }
        if done.findings.len() == before && before < FINDINGS_MAX {
            let told: String = under.iter().map(|nibble| format!("{nibble:x}")).collect();
            done.find(self.names.0, format!("rows{} under {told:?} do not make their node", self.of));
        }
        Ok(())
    }
}

/// How many rows there are to look at, about; 0 if that cannot be told.
pub(crate) fn rows(inner: &Inner) -> u64 {
    let of = |env: &Env, tables: &[Table]| -> Result<u64, Fault> {
        let size = env.size()?;
        let rows = tables.iter().filter_map(|table| size.tables.get(table.0)).map(|table| table.rows);
        Ok(rows.fold(0, u64::saturating_add))
    };
    let state = of(&inner.state, &[tables::ACCOUNT, tables::STORAGE, tables::CODE]);
    let chain = of(&inner.chain_env, &[tables::CANONICAL, tables::HEADER, tables::HEIGHT_BY_HASH, tables::EPOCH]);
    state.unwrap_or_default().saturating_add(chain.unwrap_or_default())
}

/// Looks at everything, telling how many rows were compared.
pub(crate) fn all(inner: &Inner, listen: &mut dyn FnMut(u64)) -> Scrubbed {
    let mut scrub = Scrub::new(inner);
    while scrub.step() {
        listen(scrub.done.rows);
    }
    tell(&scrub.done);
    scrub.done
}

/// Says what is damaged.
fn tell(done: &Scrubbed) {
    metrics::SCRUB_ROWS.add(done.rows);
    for finding in &done.findings {
        metrics::SCRUB_FOUND.increment();
        tracing::error!(table = finding.table, what = %finding.what, "the store is damaged");
    }
}
