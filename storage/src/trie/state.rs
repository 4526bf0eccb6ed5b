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

use alloy_primitives::{Address, B256, U256};
use alloy_trie::EMPTY_ROOT_HASH;
use engine::types::{Account, AccountChange, SlotChange, StateChanges, TrieHandle};

use super::{
    encode::Hasher,
    node::{Body, Kind, Link, Source, TrieError, Value},
    rlp, update,
};

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
    pub(crate) root: Option<Link<B256, U256>>,
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

    /// Whether both are versions of the same storage rows.
    pub(crate) fn same_incarnation(&self, other: &Self) -> bool {
        match (&self.incarnation, &other.incarnation) {
            (None, None) => true,
            (Some(left), Some(right)) => Arc::ptr_eq(left, right) || (left.id() != 0 && left.id() == right.id()),
            _ => false,
        }
    }

    fn apply<'a>(
        &self,
        slots: impl Iterator<Item = (&'a U256, &'a SlotChange)>,
        source: &dyn StateSource,
        hasher: &mut Hasher,
    ) -> Result<Self, TrieError> {
        let mut items: Vec<_> = slots
            .map(|(key, change)| {
                let value = (!change.after.is_zero()).then_some(change.after);
                (hasher.keccak(&key.to_be_bytes::<32>()), value)
            })
            .collect();
        items.sort_unstable_by_key(|item| item.0);
        let rows = StorageSource { source, id: self.id() };
        let root = update::apply(self.root.as_ref(), &items, &rows)?;
        let hash = root.as_ref().map_or(EMPTY_ROOT_HASH, |root| root.reference(hasher).root_hash());
        let incarnation = match (&self.incarnation, &root) {
            (None, Some(_)) => Some(Arc::default()),
            (kept, _) => kept.clone(),
        };
        Ok(Self { root, hash, incarnation })
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
    fn account_node(&self, position: &[u8], kind: Kind) -> Result<Option<Body<B256, AccountLeaf>>, TrieError>;

    /// A node of the storage trie with this id.
    ///
    /// # Errors
    /// [`TrieError::Unreadable`].
    fn storage_node(&self, id: u64, position: &[u8], kind: Kind) -> Result<Option<Body<B256, U256>>, TrieError>;
}

/// Nothing is stored: tries that never left memory.
pub(crate) struct NoState;

impl StateSource for NoState {
    fn account_node(&self, _: &[u8], _: Kind) -> Result<Option<Body<B256, AccountLeaf>>, TrieError> {
        Ok(None)
    }

    fn storage_node(&self, _: u64, _: &[u8], _: Kind) -> Result<Option<Body<B256, U256>>, TrieError> {
        Ok(None)
    }
}

/// The account trie of a [`StateSource`].
pub(crate) struct AccountSource<'a>(pub(crate) &'a dyn StateSource);

impl Source<B256, AccountLeaf> for AccountSource<'_> {
    fn load(&self, position: &[u8], kind: Kind) -> Result<Option<Body<B256, AccountLeaf>>, TrieError> {
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
    /// Storage id.
    pub(crate) id: u64,
}

impl Source<B256, U256> for StorageSource<'_> {
    fn load(&self, position: &[u8], kind: Kind) -> Result<Option<Body<B256, U256>>, TrieError> {
        self.source.storage_node(self.id, position, kind)
    }

    fn name(&self) -> String {
        format!("storage {}", self.id)
    }
}

/// The state after one block.
#[derive(Clone)]
pub(crate) struct StateTrie {
    /// Its root node, `None` when there is no account.
    pub(crate) root: Option<Link<B256, AccountLeaf>>,
    /// Its root hash.
    pub(crate) hash: B256,
}

impl StateTrie {
    /// The stored trie with this root hash.
    pub(crate) fn stored(hash: B256) -> Self {
        Self { root: super::node::Node::root(hash), hash }
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
        update::find(self.root.as_ref(), hashed, &AccountSource(source))
    }

    /// The trie after `changes`, hashed.
    ///
    /// # Errors
    /// [`TrieError`] when a node on the way cannot be resolved.
    pub(crate) fn apply(&self, changes: &StateChanges, source: &dyn StateSource) -> Result<Self, TrieError> {
        let mut hasher = Hasher::default();
        let mut order: Vec<(B256, &AccountChange)> =
            changes.accounts.iter().map(|(address, change)| (hash_address(*address, &mut hasher), change)).collect();
        order.sort_unstable_by_key(|(hashed, _)| *hashed);
        let items = self.leaves(&order, source)?;
        let root = update::apply(self.root.as_ref(), &items, &AccountSource(source))?;
        let hash = root.as_ref().map_or(EMPTY_ROOT_HASH, |root| root.reference(&mut hasher).root_hash());
        Ok(Self { root, hash })
    }
}

/// An account that changes, by its hash.
type Changed<'c> = (B256, &'c AccountChange);
/// Its leaf afterwards.
type Leaf = update::Item<B256, AccountLeaf>;

impl StateTrie {
    /// The new leaves of changed accounts, their storage hashed; over threads if there is much of it.
    fn leaves(&self, order: &[Changed<'_>], source: &dyn StateSource) -> Result<Vec<Leaf>, TrieError> {
        let slots: usize = order.iter().map(|(_, change)| change.slots.len()).sum();
        let threads = update::threads_for(slots).min(order.len());
        let work = |part: &[Changed<'_>]| -> Result<Vec<Leaf>, TrieError> {
            let mut hasher = Hasher::default();
            part.iter()
                .map(|(hashed, change)| Ok((*hashed, self.changed(hashed, change, source, &mut hasher)?)))
                .collect()
        };
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

    /// One account after its change, `None` when it is gone.
    fn changed(
        &self,
        hashed: &B256,
        change: &AccountChange,
        source: &dyn StateSource,
        hasher: &mut Hasher,
    ) -> Result<Option<AccountLeaf>, TrieError> {
        let Some(account) = change.after else { return Ok(None) };
        let base = if change.wiped {
            StorageTrie::default()
        } else {
            self.leaf(hashed, source)?.map(|leaf| leaf.storage).unwrap_or_default()
        };
        let storage = if change.slots.is_empty() { base } else { base.apply(change.slots.iter(), source, hasher)? };
        Ok(Some(AccountLeaf { account, storage }))
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
pub(crate) fn hash_address(address: Address, hasher: &mut Hasher) -> B256 {
    hasher.keccak(address.as_slice())
}
