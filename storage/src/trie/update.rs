//! Applying a sorted batch of changes to a trie.
//!
//! One descent serves the whole batch: each node on a changed path is rebuilt exactly once, each
//! node beside it is shared. A trie in which nothing changed comes back as the same node, so the
//! caller can compare pointers. A large batch is split over threads at the root's children, which
//! change and hash their subtrees apart from one another.

use std::{
    sync::{Arc, OnceLock},
    thread,
};

use super::{
    encode::Hasher,
    node::{Body, Branch, Key, Link, Node, Source, TrieError, Value},
};

/// Changes below which one thread is faster than starting another.
const PARALLEL_ITEMS_MIN: usize = 512;
/// Most threads for one batch.
const THREADS_MAX: usize = 8;

/// A change of one key: its new value, `None` to delete it.
pub(crate) type Item<K, V> = (K, Option<V>);

/// Applies `items`, in order of key and each key once, to the trie at `root`.
///
/// # Errors
/// [`TrieError`] when a node on the way cannot be resolved.
pub(crate) fn apply<K: Key, V: Value>(
    root: Option<&Link<K, V>>,
    items: &[Item<K, V>],
    source: &dyn Source<K, V>,
) -> Result<Option<Link<K, V>>, TrieError> {
    debug_assert!(items.is_sorted_by(|left, right| left.0 < right.0), "keys must rise");
    let threads = threads_for(items.len());
    Updater { source, path: Vec::with_capacity(64), threads }.apply(root, items)
}

/// The value at `key`.
///
/// # Errors
/// [`TrieError`] when a node on the way cannot be resolved.
pub(crate) fn find<K: Key, V: Value>(
    root: Option<&Link<K, V>>,
    key: &K,
    source: &dyn Source<K, V>,
) -> Result<Option<V>, TrieError> {
    let mut path = Vec::with_capacity(16);
    let mut next = root.cloned();
    while let Some(node) = next.take() {
        let body = node.body(&path, source)?;
        match &*body {
            Body::Leaf { key: found, value, .. } => return Ok((found == key).then(|| value.clone())),
            Body::Branch(branch) => {
                let rest = key.nibbles() - path.len();
                let matches = rest >= branch.prefix.len()
                    && branch.prefix.iter().enumerate().all(|(i, nibble)| key.nibble(path.len() + i) == *nibble);
                if !matches {
                    return Ok(None);
                }
                path.extend_from_slice(&branch.prefix);
                if path.len() == key.nibbles() {
                    return Ok(branch.value.as_ref().map(|entry| entry.1.clone()));
                }
                let nibble = key.nibble(path.len());
                path.push(nibble);
                next = branch.children[usize::from(nibble)].clone();
            }
        }
    }
    Ok(None)
}

/// Threads worth their start for this many changes.
pub(crate) fn threads_for(items: usize) -> usize {
    if items < PARALLEL_ITEMS_MIN {
        return 1;
    }
    // Asking the system reads files, so once is enough.
    static CORES: OnceLock<usize> = OnceLock::new();
    let cores = *CORES.get_or_init(|| thread::available_parallelism().map_or(1, usize::from));
    cores.min(THREADS_MAX).min(items / (PARALLEL_ITEMS_MIN / 2))
}

fn same<K, V>(left: Option<&Link<K, V>>, right: Option<&Link<K, V>>) -> bool {
    match (left, right) {
        (None, None) => true,
        (Some(left), Some(right)) => Arc::ptr_eq(left, right),
        _ => false,
    }
}

/// The changes below one child.
type Group<'i, K, V> = (u8, &'i [Item<K, V>]);
/// Children after a change, by nibble.
type Children<K, V> = Vec<(u8, Option<Link<K, V>>)>;

struct Updater<'a, K, V> {
    source: &'a dyn Source<K, V>,
    path: Vec<u8>,
    /// Threads that may work on this batch; 1 below the root's children.
    threads: usize,
}

impl<K: Key, V: Value> Updater<'_, K, V> {
    fn apply(&mut self, node: Option<&Link<K, V>>, items: &[Item<K, V>]) -> Result<Option<Link<K, V>>, TrieError> {
        if items.is_empty() {
            return Ok(node.cloned());
        }
        let Some(node) = node else {
            let entries: Vec<_> = items.iter().filter_map(|(key, value)| Some((key, value.as_ref()?))).collect();
            return Ok(build(self.path.len(), &entries));
        };
        let body = node.body(&self.path, self.source)?;
        match &*body {
            Body::Leaf { key, value, .. } => Ok(self.apply_to_leaf(node, key, value, items)),
            Body::Branch(branch) => self.apply_to_branch(node, branch, items),
        }
    }

    fn apply_to_leaf(&self, node: &Link<K, V>, key: &K, value: &V, items: &[Item<K, V>]) -> Option<Link<K, V>> {
        let mut entries: Vec<(&K, &V)> = Vec::with_capacity(items.len() + 1);
        let at = items.partition_point(|(other, _)| other < key);
        let replaced = items.get(at).is_some_and(|(other, _)| other == key);
        entries.extend(items[..at].iter().filter_map(|(key, value)| Some((key, value.as_ref()?))));
        if !replaced {
            entries.push((key, value));
        }
        entries.extend(items[at..].iter().filter_map(|(key, value)| Some((key, value.as_ref()?))));
        match entries[..] {
            [(only, kept)] if only == key && kept == value => Some(Arc::clone(node)),
            _ => build(self.path.len(), &entries),
        }
    }

    fn apply_to_branch(
        &mut self,
        node: &Link<K, V>,
        branch: &Branch<K, V>,
        items: &[Item<K, V>],
    ) -> Result<Option<Link<K, V>>, TrieError> {
        if branch.prefix.is_empty() {
            return self.apply_to_children(node, branch, 0, items);
        }
        let depth = self.path.len();
        let common = |key: &K| {
            let rest = key.nibbles() - depth;
            (0..branch.prefix.len().min(rest))
                .take_while(|index| key.nibble(depth + index) == branch.prefix[*index])
                .count()
        };
        // Deleting a key that is not below this branch changes nothing.
        let relevant: Vec<Item<K, V>> = items
            .iter()
            .filter(|(key, value)| value.is_some() || common(key) == branch.prefix.len())
            .cloned()
            .collect();
        let Some(length) = relevant.iter().map(|(key, _)| common(key)).min() else {
            return Ok(Some(Arc::clone(node)));
        };
        if length == branch.prefix.len() {
            return self.apply_to_children(node, branch, length, &relevant);
        }
        let tail = Branch { prefix: branch.prefix[length + 1..].into(), ..branch.clone() };
        let mut children = [const { None }; 16];
        children[usize::from(branch.prefix[length])] = Some(Node::built(Body::Branch(tail)));
        let split = Branch { prefix: branch.prefix[..length].into(), children, value: None };
        self.apply_to_children(node, &split, length, &relevant)
    }

    /// Applies `items`, all of which match the whole prefix of `branch`.
    fn apply_to_children(
        &mut self,
        node: &Link<K, V>,
        branch: &Branch<K, V>,
        prefix_length: usize,
        items: &[Item<K, V>],
    ) -> Result<Option<Link<K, V>>, TrieError> {
        let depth = self.path.len();
        self.path.extend_from_slice(&branch.prefix[..prefix_length]);
        let inner = self.path.len();
        let mut changed: Option<Branch<K, V>> = None;
        let mut rest = items;
        if let Some(((key, value), others)) = rest.split_first()
            && key.nibbles() == inner
        {
            let entry = value.clone().map(|value| Box::new((key.clone(), value)));
            changed.get_or_insert_with(|| branch.clone()).value = entry;
            rest = others;
        }
        let mut groups = Vec::with_capacity(16);
        while let Some((first, _)) = rest.first() {
            let nibble = first.nibble(inner);
            let (group, others) = rest.split_at(rest.partition_point(|(key, _)| key.nibble(inner) <= nibble));
            rest = others;
            groups.push((nibble, group));
        }
        for (nibble, new) in self.apply_to_groups(branch, &groups)? {
            let index = usize::from(nibble);
            if !same(branch.children[index].as_ref(), new.as_ref()) {
                changed.get_or_insert_with(|| branch.clone()).children[index] = new;
            }
        }
        self.path.truncate(depth);
        match changed {
            None => Ok(Some(Arc::clone(node))),
            Some(branch) => self.normalise(branch),
        }
    }

    /// Applies each group to its child of `branch`.
    fn apply_to_groups(
        &mut self,
        branch: &Branch<K, V>,
        groups: &[Group<'_, K, V>],
    ) -> Result<Children<K, V>, TrieError> {
        let child = |nibble: u8| branch.children[usize::from(nibble)].as_ref();
        let items: usize = groups.iter().map(|(_, group)| group.len()).sum();
        let threads = self.threads.min(groups.len()).min(threads_for(items));
        if threads < 2 {
            let mut children = Vec::with_capacity(groups.len());
            for (nibble, group) in groups {
                self.path.push(*nibble);
                let new = self.apply(child(*nibble), group);
                self.path.pop();
                children.push((*nibble, new?));
            }
            return Ok(children);
        }
        let (source, path) = (self.source, &self.path);
        let work = |part: &[Group<'_, K, V>]| -> Result<Children<K, V>, TrieError> {
            let mut hasher = Hasher::default();
            let mut updater = Updater { source, path: path.clone(), threads: 1 };
            let mut children = Vec::with_capacity(part.len());
            for (nibble, group) in part {
                updater.path.push(*nibble);
                let new = updater.apply(child(*nibble), group);
                updater.path.pop();
                let new = new?;
                if let Some(new) = &new {
                    new.reference(&mut hasher);
                }
                children.push((*nibble, new));
            }
            Ok(children)
        };
        thread::scope(|scope| {
            let mut parts = groups.chunks(groups.len().div_ceil(threads));
            let own = parts.next().unwrap_or_default();
            let others: Vec<_> = parts.map(|part| scope.spawn(|| work(part))).collect();
            let mut children = work(own)?;
            for other in others {
                children.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
            }
            Ok(children)
        })
    }

    /// Gives a branch that may have lost children the one form the trie allows.
    fn normalise(&mut self, branch: Branch<K, V>) -> Result<Option<Link<K, V>>, TrieError> {
        let depth = self.path.len();
        let mut present = branch.children.iter().enumerate().filter_map(|(i, child)| Some((i, child.as_ref()?)));
        let (first, second) = (present.next(), present.next());
        match (first, second, &branch.value) {
            (None, _, None) => Ok(None),
            (None, _, Some(entry)) => {
                let (key, value) = (**entry).clone();
                Ok(Some(Node::built(Body::Leaf { key, depth, value })))
            }
            (Some((index, child)), None, None) => {
                let nibble = u8::try_from(index).expect("a branch has 16 children");
                self.path.extend_from_slice(&branch.prefix);
                self.path.push(nibble);
                let body = child.body(&self.path, self.source);
                self.path.truncate(depth);
                Ok(Some(Node::built(match &*body? {
                    Body::Leaf { key, value, .. } => Body::Leaf { key: key.clone(), depth, value: value.clone() },
                    Body::Branch(below) => {
                        let prefix = [&branch.prefix[..], &[nibble], &below.prefix[..]].concat();
                        Body::Branch(Branch { prefix: prefix.into(), ..below.clone() })
                    }
                })))
            }
            _ => Ok(Some(Node::built(Body::Branch(branch)))),
        }
    }
}

/// Builds the trie of `entries`, in order of key, that share their first `depth` nibbles.
pub(crate) fn build<K: Key, V: Value>(depth: usize, entries: &[(&K, &V)]) -> Option<Link<K, V>> {
    let (first, last) = match entries {
        [] => return None,
        [(key, value)] => {
            return Some(Node::built(Body::Leaf { key: (*key).clone(), depth, value: (*value).clone() }));
        }
        [(first, _), .., (last, _)] => (*first, *last),
    };
    // Keys are sorted, so what the first and the last share, all share.
    let prefix: Box<[u8]> = (depth..first.nibbles().min(last.nibbles()))
        .map(|index| (first.nibble(index), last.nibble(index)))
        .take_while(|(left, right)| left == right)
        .map(|(nibble, _)| nibble)
        .collect();
    let inner = depth + prefix.len();
    let mut branch = Branch { prefix, children: [const { None }; 16], value: None };
    let mut rest = entries;
    if first.nibbles() == inner {
        branch.value = Some(Box::new((first.clone(), rest[0].1.clone())));
        rest = &rest[1..];
    }
    while let Some((key, _)) = rest.first() {
        let nibble = key.nibble(inner);
        let (group, others) = rest.split_at(rest.partition_point(|(key, _)| key.nibble(inner) <= nibble));
        rest = others;
        branch.children[usize::from(nibble)] = build(inner + 1, group);
    }
    Some(Node::built(Body::Branch(branch)))
}
