//! The nodes below a branch that are in memory.
//!
//! A branch that replaces another in a newer version of a trie has most children in common with it. Both then look into
//! one table, and the newer one holds apart what changed: copying a table would touch every child in it for the sake of
//! its reference count, and those are rarely in the cache. A table that was left behind by more than
//! [`APART_MAX`] children is copied after all, so that what it keeps alive of older versions stays small.

use std::sync::Arc;

use parking_lot::RwLock;
use smallvec::SmallVec;

/// Most children that a branch holds apart from a table that it shares.
const APART_MAX: u32 = 4;

/// Values that need no memory of their own: most branches that a block changes have one child that does.
const INSIDE_MAX: usize = 2;

/// Values for some of sixteen nibbles, without room for the others.
pub(crate) struct Few<T> {
    /// Bit n: there is a value for nibble n.
    mask: u16,
    /// The values, in order of nibble.
    list: SmallVec<[T; INSIDE_MAX]>,
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self { mask: 0, list: SmallVec::new() }
    }
}

/// The bit of a nibble.
const fn bit(nibble: u8) -> u16 {
    1 << nibble
}

/// The nibbles of a mask, in order.
pub(crate) fn nibbles(mut mask: u16) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        let nibble = u8::try_from(mask.trailing_zeros()).ok().filter(|nibble| *nibble < 16)?;
        mask &= mask - 1;
        Some(nibble)
    })
}

impl<T> Few<T> {
    fn rank(&self, nibble: u8) -> usize {
        (self.mask & (bit(nibble) - 1)).count_ones() as usize
    }

    fn get(&self, nibble: u8) -> Option<&T> {
        (self.mask & bit(nibble) != 0).then(|| &self.list[self.rank(nibble)])
    }

    /// Sets the value of a nibble that has none.
    fn add(&mut self, nibble: u8, value: T) {
        if self.mask & bit(nibble) != 0 {
            return;
        }
        let rank = self.rank(nibble);
        self.list.reserve_exact(1);
        self.list.insert(rank, value);
        self.mask |= bit(nibble);
    }

    /// Drops the values that do not stay.
    fn retain(&mut self, stays: impl Fn(u8, &T) -> bool) {
        if self.iter().all(|(nibble, value)| stays(nibble, value)) {
            return;
        }
        let old = nibbles(self.mask).zip(std::mem::take(&mut self.list));
        *self = old.filter(|(nibble, value)| stays(*nibble, value)).collect();
    }

    fn iter(&self) -> impl Iterator<Item = (u8, &T)> {
        nibbles(self.mask).zip(&*self.list)
    }

    /// Bytes of memory beside its own.
    fn bytes(&self) -> usize {
        if self.list.spilled() { size_of_val(&*self.list) } else { 0 }
    }
}

impl<T> FromIterator<(u8, T)> for Few<T> {
    /// Values come in order of nibble.
    fn from_iter<I: IntoIterator<Item = (u8, T)>>(values: I) -> Self {
        let mut mask = 0;
        let values = values.into_iter().map(|(nibble, value)| {
            debug_assert!(mask < bit(nibble), "nibbles rise");
            mask |= bit(nibble);
            value
        });
        let all: SmallVec<[T; 16]> = values.collect();
        let mut list = SmallVec::with_capacity(all.len());
        list.extend(all);
        Self { mask, list }
    }
}

/// A table that several versions of a branch share.
type Shared<L> = Arc<RwLock<Few<L>>>;

/// The nodes below one version of a branch; two links are equal if they lead to one node.
pub(crate) struct Links<L> {
    /// What it has in common with older or newer versions.
    shared: Option<Shared<L>>,
    /// Bit n: the shared table does not speak of child n.
    apart: u16,
    /// Its own.
    own: Few<L>,
}

impl<L> Default for Links<L> {
    fn default() -> Self {
        Self { shared: None, apart: 0, own: Few::default() }
    }
}

impl<L> FromIterator<(u8, L)> for Links<L> {
    /// Children come in order of nibble.
    fn from_iter<I: IntoIterator<Item = (u8, L)>>(links: I) -> Self {
        Self { own: links.into_iter().collect(), ..Self::default() }
    }
}

impl<L: Clone + PartialEq> Links<L> {
    /// The table that speaks of a child, if that is a shared one.
    fn table(&self, nibble: u8) -> Option<&Shared<L>> {
        self.shared.as_ref().filter(|_| self.apart & bit(nibble) == 0)
    }

    /// The node of a child.
    pub(crate) fn get(&self, nibble: u8) -> Option<L> {
        match self.table(nibble) {
            Some(shared) => shared.read().get(nibble).cloned(),
            None => self.own.get(nibble).cloned(),
        }
    }

    /// Keeps the node of a child that has none.
    pub(crate) fn keep(&mut self, nibble: u8, node: L) {
        match self.table(nibble) {
            Some(shared) => shared.write().add(nibble, node),
            None => self.own.add(nibble, node),
        }
    }

    /// All nodes.
    pub(crate) fn all(&self) -> Vec<(u8, L)> {
        let mut all = Vec::with_capacity(16);
        self.see(u16::MAX, |nibble, node| all.push((nibble, node.clone())));
        all
    }

    /// Shows the nodes of some children, by a mask.
    pub(crate) fn see(&self, mask: u16, mut see: impl FnMut(u8, &L)) {
        let shared = self.shared.as_ref().map(|shared| shared.read());
        for nibble in nibbles(mask) {
            let table = shared.as_deref().filter(|_| self.apart & bit(nibble) == 0).unwrap_or(&self.own);
            if let Some(node) = table.get(nibble) {
                see(nibble, node);
            }
        }
    }

    /// The nodes below a newer version of the branch, of which children became something else: those of `mask`, and
    /// these nodes are in memory.
    pub(crate) fn fork(&mut self, mask: u16, set: impl Iterator<Item = (u8, L)>) -> Self {
        let apart = self.apart | mask;
        let mut own: SmallVec<[(u8, L); 16]> = SmallVec::new();
        if apart.count_ones() > APART_MAX {
            if mask != u16::MAX {
                own.extend(self.all());
                own.retain(|(nibble, _)| mask & bit(*nibble) == 0);
            }
            own.extend(set);
            own.sort_unstable_by_key(|(nibble, _)| *nibble);
            return own.into_iter().collect();
        }
        if self.shared.is_none() && self.own.mask == 0 {
            own.extend(set);
            return own.into_iter().collect();
        }
        let table = self.shared.get_or_insert_with(|| Arc::new(RwLock::new(std::mem::take(&mut self.own))));
        let shared = Some(Arc::clone(table));
        let kept = self.own.iter().filter(|(nibble, _)| mask & bit(*nibble) == 0);
        own.extend(kept.map(|(nibble, node)| (nibble, node.clone())));
        own.extend(set);
        own.sort_unstable_by_key(|(nibble, _)| *nibble);
        Self { shared, apart, own: own.into_iter().collect() }
    }

    /// Drops these nodes, and with them what a table keeps of versions that are gone; gives the bytes that the lists
    /// take beside the branch, `None` if no node is left.
    pub(crate) fn forget(&mut self, gone: &[(u8, L)]) -> Option<usize> {
        let stays = |nibble: u8, node: &L| !gone.iter().any(|(other, dropped)| *other == nibble && node == dropped);
        self.own.retain(stays);
        let mut bytes = 0;
        match self.shared.take().map(Arc::try_unwrap) {
            Some(Ok(table)) => {
                let (mut links, apart) = (table.into_inner(), std::mem::take(&mut self.apart));
                links.retain(|nibble, node| apart & bit(nibble) == 0 && stays(nibble, node));
                for (nibble, node) in nibbles(self.own.mask).zip(std::mem::take(&mut self.own).list) {
                    links.add(nibble, node);
                }
                self.own = links;
            }
            Some(Err(shared)) => {
                let mut links = shared.write();
                links.retain(|nibble, node| self.apart & bit(nibble) != 0 || stays(nibble, node));
                if links.mask & !self.apart == 0 && self.own.mask == 0 {
                    self.apart = 0;
                } else {
                    bytes = size_of::<RwLock<Few<L>>>() + 2 * size_of::<usize>() + links.bytes();
                    drop(links);
                    self.shared = Some(shared);
                }
            }
            None => {}
        }
        (self.shared.is_some() || self.own.mask != 0).then(|| bytes + self.own.bytes())
    }
}
