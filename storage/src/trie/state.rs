//! The state trie: accounts, each with its own storage trie.
//!
//! A storage trie belongs to an [`Incarnation`]: the life of an account's storage from its first
//! slot to its wipe. The incarnation's storage id is local to this node and assigned by the first
//! checkpoint that writes it, so speculative tries need no ids and wiping an account costs nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use alloy_primitives::{Address, B256, U256, keccak256};
use alloy_trie::EMPTY_ROOT_HASH;
use engine::types::{Account, AccountChange, SlotChange, StateChanges, TrieHandle};

use super::{
    encode::hash_all,
    node::{Kind, Link, Root, Source, Tree, TrieError, Value, root_hash},
    rlp,
    update::{self, Forest, Item, Plan},
};
use crate::metrics;

/// Which storage rows belong to an account.
#[derive(Debug, Default)]
pub(crate) struct Incarnation {
    id: AtomicU64,
}

impl Incarnation {
    /// An incarnation that a checkpoint has written.
    pub(crate) fn stored(id: u64) -> Arc<Self> {
        Arc::new(Self { id: AtomicU64::new(id) })
    }

    /// The storage id, 0 before the first checkpoint.
    pub(crate) fn id(&self) -> u64 {
        self.id.load(Ordering::Acquire)
    }

    /// Gives the id; only the checkpoint does, once.
    pub(crate) fn assign(&self, id: u64) {
        let earlier = self.id.swap(id, Ordering::Release);
        assert_eq!(earlier, 0, "an incarnation gets one id");
    }
}

/// The storage of one account.
#[derive(Clone)]
pub(crate) struct StorageTrie {
    /// Its root node, `None` when empty.
    pub(crate) root: Tree<B256, U256>,
    /// Its root hash.
    pub(crate) hash: B256,
    /// Whose rows these are; `None` while there never was a slot.
    pub(crate) incarnation: Option<Arc<Incarnation>>,
}

impl Default for StorageTrie {
    fn default() -> Self {
        Self { root: None, hash: EMPTY_ROOT_HASH, incarnation: None }
    }
}

impl StorageTrie {
    /// The storage id, 0 if no checkpoint has written it.
    pub(crate) fn id(&self) -> u64 {
        self.incarnation.as_ref().map_or(0, |incarnation| incarnation.id())
    }

    /// Where its nodes come from.
    pub(crate) fn rows<'a>(&'a self, source: &'a dyn StateSource) -> StorageSource<'a> {
        StorageSource { source, owner: self.incarnation.as_deref() }
    }

    /// Whether both are versions of the same storage rows.
    pub(crate) fn same_incarnation(&self, other: &Self) -> bool {
        match (&self.incarnation, &other.incarnation) {
            (None, None) => true,
            (Some(left), Some(right)) => Arc::ptr_eq(left, right) || (left.id() != 0 && left.id() == right.id()),
            _ => false,
        }
    }

    /// Plans changes of slots, each with the hash of its key.
    fn plan<'c>(
        &self,
        slots: impl Iterator<Item = (B256, &'c SlotChange)>,
        source: &dyn StateSource,
        forest: &mut Forest<B256, U256>,
    ) -> Result<Plan<B256, U256>, TrieError> {
        let item = |(key, change): (B256, &SlotChange)| {
            let value = (!change.after.is_zero()).then_some(change.after);
            Item { key, value, is_there: !change.before.is_zero() }
        };
        let mut items: Vec<_> = slots.map(item).collect();
        items.sort_unstable_by_key(|item| item.key);
        forest.plan(&self.root, &items, &self.rows(source))
    }

    /// The storage after what was planned for it has grown.
    fn grown(self, plan: Plan<B256, U256>, forest: &mut Forest<B256, U256>) -> Self {
        let root = forest.tree(&self.root, plan);
        let hash = root_hash(&root);
        let incarnation = match (self.incarnation, &root) {
            (None, Some(_)) => Some(Arc::default()),
            (kept, _) => kept,
        };
        Self { root, hash, incarnation }
    }
}

/// What a leaf of the state trie holds.
#[derive(Clone)]
pub(crate) struct AccountLeaf {
    /// Nonce, balance and code hash.
    pub(crate) account: Account,
    /// Its storage.
    pub(crate) storage: StorageTrie,
}

impl PartialEq for AccountLeaf {
    fn eq(&self, other: &Self) -> bool {
        self.account == other.account
            && self.storage.hash == other.storage.hash
            && self.storage.same_incarnation(&other.storage)
    }
}

impl Value for AccountLeaf {
    /// The storage tries of accounts hang on their leaves.
    const IS_KEPT: bool = true;

    fn payload(&self, out: &mut Vec<u8>) {
        let start = out.len();
        rlp::integer(out, &self.account.nonce.to_be_bytes());
        rlp::integer(out, &self.account.balance.to_be_bytes::<32>());
        rlp::string(out, self.storage.hash.as_slice());
        rlp::string(out, self.account.code_hash.as_slice());
        rlp::close_list(out, start);
    }

    fn heap_bytes(&self) -> usize {
        if self.storage.incarnation.is_some() { 32 } else { 0 }
    }
}

/// Where nodes of the state's tries come from.
pub(crate) trait StateSource: Send + Sync {
    /// A node of the account trie.
    ///
    /// # Errors
    /// [`TrieError::Unreadable`].
    fn account_node(&self, position: &[u8], kind: Kind) -> Result<Option<Link<B256, AccountLeaf>>, TrieError>;

    /// A node of the storage trie with this id.
    ///
    /// # Errors
    /// [`TrieError::Unreadable`].
    fn storage_node(&self, id: u64, position: &[u8], kind: Kind) -> Result<Option<Link<B256, U256>>, TrieError>;
}

/// The account trie of a [`StateSource`].
pub(crate) struct AccountSource<'a>(pub(crate) &'a dyn StateSource);

impl Source<B256, AccountLeaf> for AccountSource<'_> {
    fn load(&self, position: &[u8], kind: Kind) -> Result<Option<Link<B256, AccountLeaf>>, TrieError> {
        self.0.account_node(position, kind)
    }

    fn name(&self) -> String {
        "account".to_owned()
    }
}

/// One storage trie of a [`StateSource`].
pub(crate) struct StorageSource<'a> {
    /// Where nodes come from.
    pub(crate) source: &'a dyn StateSource,
    /// Whose rows they are, not their id: a checkpoint may give it, and forget nodes, while somebody reads.
    pub(crate) owner: Option<&'a Incarnation>,
}

impl StorageSource<'_> {
    fn id(&self) -> u64 {
        self.owner.map_or(0, Incarnation::id)
    }
}

impl Source<B256, U256> for StorageSource<'_> {
    fn load(&self, position: &[u8], kind: Kind) -> Result<Option<Link<B256, U256>>, TrieError> {
        self.source.storage_node(self.id(), position, kind)
    }

    fn name(&self) -> String {
        format!("storage {}", self.id())
    }
}

/// The state after one block.
#[derive(Clone)]
pub(crate) struct StateTrie {
    /// Its root node, `None` when there is no account.
    pub(crate) root: Tree<B256, AccountLeaf>,
    /// Its root hash.
    pub(crate) hash: B256,
}

impl StateTrie {
    /// The stored trie with this root hash.
    pub(crate) fn stored(hash: B256) -> Self {
        Self { root: Root::stored(hash), hash }
    }

    /// The trie as layers carry it.
    pub(crate) fn handle(self: Arc<Self>) -> TrieHandle {
        TrieHandle(self)
    }

    /// The trie in a layer, `None` if another store made it.
    pub(crate) fn of(handle: &TrieHandle) -> Option<Arc<Self>> {
        Arc::clone(&handle.0).downcast().ok()
    }

    /// The leaf of an account.
    ///
    /// # Errors
    /// [`TrieError`].
    pub(crate) fn leaf(&self, hashed: &B256, source: &dyn StateSource) -> Result<Option<AccountLeaf>, TrieError> {
        update::find(&self.root, hashed, &AccountSource(source))
    }

    /// The trie after `changes`, hashed.
    ///
    /// # Errors
    /// [`TrieError`] when a node on the way cannot be resolved.
    pub(crate) fn apply(&self, changes: &StateChanges, source: &dyn StateSource) -> Result<Self, TrieError> {
        let hashes = hash_all(changes.accounts.keys().map(|address| address.as_slice()));
        let mut order: Vec<(B256, &AccountChange)> = hashes.into_iter().zip(changes.accounts.values()).collect();
        order.sort_unstable_by_key(|(hashed, _)| *hashed);
        let items = self.leaves(&order, source)?;
        let root = update::apply(&self.root, &items, &AccountSource(source))?;
        Ok(Self { hash: root_hash(&root), root })
    }
}

/// An account that changes, by its hash.
type Changed<'c> = (B256, &'c AccountChange);
/// Its leaf afterwards.
type Leaf = Item<B256, AccountLeaf>;

impl StateTrie {
    /// The new leaves of changed accounts, their storage hashed; over threads if there is much of it.
    fn leaves(&self, order: &[Changed<'_>], source: &dyn StateSource) -> Result<Vec<Leaf>, TrieError> {
        let slots: usize = order.iter().map(|(_, change)| change.slots.len()).sum();
        let threads = update::threads_for(slots).min(order.len());
        let work = |part: &[Changed<'_>]| self.changed(part, source);
        if threads < 2 {
            return work(order);
        }
        thread::scope(|scope| {
            let mut parts = split(order, slots.saturating_add(order.len()).div_ceil(threads)).into_iter();
            let own = parts.next().unwrap_or_default();
            let others: Vec<_> = parts.map(|part| scope.spawn(move || work(part))).collect();
            let mut leaves = work(own)?;
            for other in others {
                leaves.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
            }
            Ok(leaves)
        })
    }

    /// Some accounts after their changes, `None` where one is gone; their tries are hashed together.
    fn changed(&self, part: &[Changed<'_>], source: &dyn StateSource) -> Result<Vec<Leaf>, TrieError> {
        let keys: Vec<[u8; 32]> =
            part.iter().flat_map(|(_, change)| change.slots.keys()).map(U256::to_be_bytes).collect();
        let mut keys = hash_all(keys.iter().map(<[u8; 32]>::as_slice)).into_iter();
        let mut forest = Forest::default();
        let mut planned = Vec::with_capacity(part.len());
        for (hashed, change) in part {
            let slots: Vec<_> = change.slots.values().zip(keys.by_ref()).map(|(slot, hashed)| (hashed, slot)).collect();
            let is_there = change.before.is_some();
            let Some(account) = change.after else {
                planned.push((Item { key: *hashed, value: None, is_there }, None));
                continue;
            };
            let storage = if change.wiped {
                StorageTrie::default()
            } else {
                self.leaf(hashed, source)?.map(|leaf| leaf.storage).unwrap_or_default()
            };
            let plan = storage.plan(slots.into_iter(), source, &mut forest)?;
            planned.push((Item { key: *hashed, value: None, is_there }, Some((account, storage, plan))));
        }
        forest.grow();
        let leaf = |(item, after): (Leaf, Option<(Account, StorageTrie, Plan<_, _>)>)| {
            let value = after.map(|(account, storage, plan)| {
                let storage = storage.grown(plan, &mut forest);
                AccountLeaf { account, storage }
            });
            Item { value, ..item }
        };
        Ok(planned.into_iter().map(leaf).collect())
    }
}

/// Cuts changes into runs of about `weight` accounts and slots.
fn split<'o, 'c>(order: &'o [Changed<'c>], weight: usize) -> Vec<&'o [Changed<'c>]> {
    let mut parts = Vec::new();
    let (mut start, mut sum) = (0, 0);
    for (index, (_, change)) in order.iter().enumerate() {
        sum += 1 + change.slots.len();
        if sum >= weight {
            parts.push(&order[start..=index]);
            (start, sum) = (index + 1, 0);
        }
    }
    if start < order.len() {
        parts.push(&order[start..]);
    }
    parts
}

/// keccak256 of an address, counted.
pub(crate) fn hash_address(address: Address) -> B256 {
    metrics::KECCAK.increment();
    keccak256(address)
}
