//! Applying sorted batches of changes to tries.
//!
//! One descent serves a whole batch: each node on a changed path is planned exactly once, each node beside it is
//! shared. What is planned has no hash yet and lies in two lists, leaves and branches; any number of tries may be
//! planned before all of them are hashed together, from the deepest up, so that many messages go through the hash side
//! by side. A trie in which nothing changed comes back as itself.
//!
//! ```text
//! Forest::plan(tree, items) -> Plan          once per trie
//! Forest::grow()                             hashes and makes every planned node
//! Forest::tree(tree, plan)  -> Tree          once per trie
//! ```
//!
//! A large batch is split over threads at the children of the first branch; each thread grows a forest of its own.

use std::{sync::OnceLock, thread};

use super::{
    encode::{HASHED_TOGETHER, NodeRef, References, encode_branch, encode_extension, encode_leaf},
    evict,
    node::{Body, Branch, Child, Key, Kind, Link, Origin, Root, Source, Tree, TrieError, Value},
};

/// Changes below which one thread is faster than starting another.
const PARALLEL_ITEMS_MIN: usize = 512;
/// Most threads for one batch.
const THREADS_MAX: usize = 8;
/// Changes that are planned, and of which a forest is grown, before the next ones: what they touch fits the cache of a
/// core.
const GROWN_TOGETHER_MAX: usize = 512;

/// A change of one key.
#[derive(Clone)]
pub(crate) struct Item<K, V> {
    pub(crate) key: K,
    /// Its new value, `None` to delete it.
    pub(crate) value: Option<V>,
    /// Whether it is known that the trie has the key: then the old leaf is not read.
    pub(crate) is_there: bool,
}

impl<K, V> Item<K, V> {
    /// A change of a key of which nothing is known.
    pub(crate) const fn new(key: K, value: Option<V>) -> Self {
        Self { key, value, is_there: false }
    }

    fn entry(&self) -> Option<(&K, &V)> {
        Some((&self.key, self.value.as_ref()?))
    }
}

/// Applies `items`, in order of key and each key once, to one trie.
///
/// # Errors
/// [`TrieError`] when a node on the way cannot be resolved.
pub(crate) fn apply<K: Key, V: Value>(
    tree: &Tree<K, V>,
    items: &[Item<K, V>],
    source: &dyn Source<K, V>,
) -> Result<Tree<K, V>, TrieError> {
    let mut forest = Forest::default();
    let plan = forest.plan(tree, items, source)?;
    forest.grow();
    Ok(forest.tree(tree, plan))
}

/// The value at `key`.
///
/// # Errors
/// [`TrieError`] when a node on the way cannot be resolved.
pub(crate) fn find<K: Key, V: Value>(
    tree: &Tree<K, V>,
    key: &K,
    source: &dyn Source<K, V>,
) -> Result<Option<V>, TrieError> {
    let Some(root) = tree else { return Ok(None) };
    let mut path = Vec::with_capacity(16);
    let mut next = Some(root.node(source)?);
    while let Some(node) = next.take() {
        match node.body() {
            Body::Leaf(found, value) => return Ok((found == key).then(|| value.clone())),
            Body::Branch(branch) => {
                let depth = path.len();
                if key.nibbles() < depth + branch.prefix.len()
                    || common(&branch.prefix, key, depth) < branch.prefix.len()
                {
                    return Ok(None);
                }
                path.extend_from_slice(&branch.prefix);
                if path.len() == key.nibbles() {
                    return Ok(branch.value.as_ref().map(|entry| entry.1.clone()));
                }
                let nibble = key.nibble(path.len());
                path.push(nibble);
                next = branch.resolve(nibble, &path, source)?;
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

/// How many nibbles of a prefix a key has from `depth` on.
fn common<K: Key>(prefix: &[u8], key: &K, depth: usize) -> usize {
    let rest = key.nibbles() - depth;
    (0..prefix.len().min(rest)).take_while(|index| key.nibble(depth + index) == prefix[*index]).count()
}

/// What becomes of a subtree.
pub(crate) enum Plan<K, V> {
    /// It is empty.
    Empty,
    /// It stays what it is.
    Same,
    /// It is this node, which has its hash.
    Made(Child<K, V>),
    /// It is the planned leaf of this number.
    Leaf(usize),
    /// It is the planned branch of this number.
    Branch(usize),
}

/// The changes below one child.
type Group<'i, K, V> = (u8, &'i [Item<K, V>]);
/// The change of the key that ends at a branch, and those below its children.
type Split<'i, K, V> = (Option<&'i Item<K, V>>, Vec<Group<'i, K, V>>);
/// Children after a change, by nibble.
type Changed<K, V> = Vec<(u8, Plan<K, V>)>;

struct PlannedLeaf<K, V> {
    depth: usize,
    key: K,
    value: V,
}

struct PlannedBranch<K, V> {
    /// Nibbles above it.
    depth: usize,
    prefix: Box<[u8]>,
    /// The branch whose children it has where they are not changed.
    base: Option<Link<K, V>>,
    /// In order of nibble.
    changed: Changed<K, V>,
    value: Option<Box<(K, V)>>,
}

/// Tries that are being changed.
pub(crate) struct Forest<K, V> {
    leaves: Vec<PlannedLeaf<K, V>>,
    branches: Vec<PlannedBranch<K, V>>,
    made_leaves: Vec<Option<Child<K, V>>>,
    made_branches: Vec<Option<Child<K, V>>>,
    path: Vec<u8>,
}

impl<K, V> Default for Forest<K, V> {
    fn default() -> Self {
        Self {
            leaves: Vec::new(),
            branches: Vec::new(),
            made_leaves: Vec::new(),
            made_branches: Vec::new(),
            path: Vec::with_capacity(64),
        }
    }
}

impl<K: Key, V: Value> Forest<K, V> {
    /// Plans `items`, in order of key and each key once, for one trie.
    ///
    /// # Errors
    /// [`TrieError`] when a node on the way cannot be resolved.
    pub(crate) fn plan(
        &mut self,
        tree: &Tree<K, V>,
        items: &[Item<K, V>],
        source: &dyn Source<K, V>,
    ) -> Result<Plan<K, V>, TrieError> {
        debug_assert!(items.is_sorted_by(|left, right| left.key < right.key), "keys must rise");
        if items.is_empty() {
            return Ok(Plan::Same);
        }
        let node = tree.as_ref().map(|root| root.node(source)).transpose()?;
        self.path.clear();
        let plan =
            Planner { source, threads: threads_for(items.len()), is_warm: false, forest: self }.change(node, items)?;
        Ok(match (plan, tree) {
            (Plan::Empty, None) => Plan::Same,
            (plan, _) => plan,
        })
    }

    /// A planned trie, once everything has grown.
    pub(crate) fn tree(&mut self, before: &Tree<K, V>, plan: Plan<K, V>) -> Tree<K, V> {
        match plan {
            Plan::Same => before.clone(),
            plan => self.take(plan).map(Root::of),
        }
    }

    /// A planned node, once it has grown; each is taken once.
    fn take(&mut self, plan: Plan<K, V>) -> Option<Child<K, V>> {
        match plan {
            Plan::Empty | Plan::Same => None,
            Plan::Made(child) => Some(child),
            Plan::Leaf(number) => self.made_leaves[number].take(),
            Plan::Branch(number) => self.made_branches[number].take(),
        }
    }

    /// A plan that needs the forest no more, once everything has grown.
    fn made(&mut self, plan: Plan<K, V>) -> Plan<K, V> {
        match plan {
            Plan::Same => Plan::Same,
            plan => self.take(plan).map_or(Plan::Empty, Plan::Made),
        }
    }

    /// Hashes and makes every planned node.
    pub(crate) fn grow(&mut self) {
        let mut references = References::default();
        let mut leaves = std::mem::take(&mut self.leaves).into_iter();
        self.made_leaves.reserve(leaves.len());
        let mut bytes = 0;
        loop {
            let together: Vec<_> = leaves.by_ref().take(HASHED_TOGETHER).collect();
            if together.is_empty() {
                break;
            }
            for leaf in &together {
                references.add(|out| encode_leaf(&leaf.key, &leaf.value, leaf.depth, out));
            }
            let made = together.into_iter().zip(references.take()).map(|(leaf, reference)| {
                let link = Link::leaf(leaf.key, leaf.value, Origin::Built);
                bytes += evict::weight(&link);
                Some(Child { reference, kind: Kind::Leaf, link: Some(link) })
            });
            self.made_leaves.extend(made);
        }
        let mut branches: Vec<_> = std::mem::take(&mut self.branches).into_iter().map(Some).collect();
        self.made_branches.resize_with(branches.len(), || None);
        // A child lies deeper than its parent, so what is hashed together needs only what was hashed before.
        let depth = |branch: &Option<PlannedBranch<K, V>>| branch.as_ref().map_or(0, |branch| branch.depth);
        let mut order: Vec<(usize, usize)> =
            branches.iter().enumerate().map(|(number, branch)| (depth(branch), number)).collect();
        order.sort_unstable_by_key(|(depth, number)| (std::cmp::Reverse(*depth), *number));
        let mut rest = &order[..];
        let mut grown = Vec::with_capacity(HASHED_TOGETHER);
        while let Some((depth, _)) = rest.first() {
            let level = rest.iter().take(HASHED_TOGETHER).take_while(|(other, _)| other == depth).count();
            let (together, others) = rest.split_at(level);
            rest = others;
            for (_, number) in together {
                let planned = branches[*number].take().expect("each branch grows once");
                grown.push(self.branch(planned));
            }
            let hashed = references_of(&grown, &mut references);
            for (((_, number), link), reference) in together.iter().zip(grown.drain(..)).zip(hashed) {
                bytes += evict::weight(&link);
                self.made_branches[*number] = Some(Child { reference, kind: Kind::Branch, link: Some(link) });
            }
        }
        evict::made(bytes);
    }

    /// A planned branch with its children, which have grown.
    fn branch(&mut self, planned: PlannedBranch<K, V>) -> Link<K, V> {
        let PlannedBranch { prefix, base, changed, value, .. } = planned;
        let changed = changed.into_iter().map(|(nibble, plan)| (nibble, self.take(plan)));
        match base.as_ref().and_then(Link::as_branch) {
            Some(base) => base.with(prefix, changed.collect(), value),
            None => {
                let children = changed.filter_map(|(nibble, child)| Some((nibble, child?)));
                Link::branch(prefix, children, value, Origin::Built)
            }
        }
    }
}

/// References of branches, with their extensions.
pub(crate) fn references_of<K, V: Value>(branches: &[Link<K, V>], references: &mut References) -> Vec<NodeRef> {
    let branches = || branches.iter().filter_map(Link::as_branch);
    for branch in branches() {
        references.add(|out| encode_branch(&branch, out));
    }
    let mut found: Vec<NodeRef> = references.take().collect();
    let extended = || branches().enumerate().filter(|(_, branch)| !branch.prefix.is_empty());
    for (number, branch) in extended() {
        references.add(|out| encode_extension(&branch.prefix, &found[number], out));
    }
    if references.len() > 0 {
        let outer: Vec<NodeRef> = references.take().collect();
        for ((number, _), reference) in extended().zip(outer) {
            found[number] = reference;
        }
    }
    found
}

/// Brings what it takes to change `groups` below a branch, `depth` nibbles from the root, into the core's cache.
///
/// Nodes lie far apart in memory, and a descent waits for one after the other. Here all of a level are asked for before
/// the first of them is waited for.
fn warm<K: Key, V>(branch: &Branch<'_, K, V>, top: &[Group<'_, K, V>], depth: usize) {
    branch.ask(mask_of(top));
    let mut level = Vec::with_capacity(64);
    level.extend(top.iter().filter_map(|(nibble, items)| Some((branch.link(*nibble)?, *items, depth + 1))));
    while !level.is_empty() {
        let branches = level.iter().filter_map(|(node, items, depth)| {
            let branch = node.as_branch()?;
            branch.ask_references();
            let inner = depth + branch.prefix.len();
            let is_below = |item: &Item<K, V>| {
                item.key.nibbles() > inner && common(&branch.prefix, &item.key, *depth) == branch.prefix.len()
            };
            // What lies between two keys that share a prefix shares it too.
            let all_are = items.first().is_some_and(is_below) && items.last().is_some_and(is_below);
            all_are.then(|| (branch, split(items, inner).1, inner + 1))
        });
        let branches: Vec<_> = branches.collect();
        branches.iter().for_each(|(branch, groups, _)| branch.ask(mask_of(groups)));
        let below = branches.iter().flat_map(|(branch, groups, depth)| {
            groups.iter().filter_map(|(nibble, items)| Some((branch.link(*nibble)?, *items, *depth)))
        });
        level = below.collect();
    }
}

fn mask_of<K, V>(groups: &[Group<'_, K, V>]) -> u16 {
    groups.iter().fold(0, |mask, (nibble, _)| mask | 1 << nibble)
}

/// Splits items that share their first `inner` nibbles by the next one; apart the one that ends there.
fn split<K: Key, V>(items: &[Item<K, V>], inner: usize) -> Split<'_, K, V> {
    let ended = items.first().filter(|item| item.key.nibbles() == inner);
    let mut rest = &items[usize::from(ended.is_some())..];
    let mut groups = Vec::with_capacity(rest.len().min(16));
    while let Some(first) = rest.first() {
        let nibble = first.key.nibble(inner);
        let (group, others) = rest.split_at(rest.partition_point(|item| item.key.nibble(inner) <= nibble));
        rest = others;
        groups.push((nibble, group));
    }
    (ended, groups)
}

/// The descent of one batch.
struct Planner<'a, K, V> {
    source: &'a dyn Source<K, V>,
    /// Threads that may work on this batch; 1 below the first branch that was split.
    threads: usize,
    /// Whether what lies on the way has been brought into the core's cache.
    is_warm: bool,
    forest: &'a mut Forest<K, V>,
}

impl<K: Key, V: Value> Planner<'_, K, V> {
    fn depth(&self) -> usize {
        self.forest.path.len()
    }

    fn leaf(&mut self, depth: usize, key: K, value: V) -> Plan<K, V> {
        self.forest.leaves.push(PlannedLeaf { depth, key, value });
        Plan::Leaf(self.forest.leaves.len() - 1)
    }

    fn branch(&mut self, planned: PlannedBranch<K, V>) -> Plan<K, V> {
        self.forest.branches.push(planned);
        Plan::Branch(self.forest.branches.len() - 1)
    }

    /// Plans `items`, at least one, for the subtree at the path.
    fn change(&mut self, node: Option<Link<K, V>>, items: &[Item<K, V>]) -> Result<Plan<K, V>, TrieError> {
        let Some(node) = node else {
            return Ok(self.build_items(items));
        };
        match node.body() {
            Body::Leaf(key, value) => Ok(self.change_leaf(key, value, items)),
            Body::Branch(branch) if branch.prefix.is_empty() => self.change_children(&node, branch, items),
            Body::Branch(branch) => self.change_extension(&node, branch, items),
        }
    }

    fn change_leaf(&mut self, key: &K, value: &V, items: &[Item<K, V>]) -> Plan<K, V> {
        let mut entries: Vec<(&K, &V)> = Vec::with_capacity(items.len() + 1);
        let at = items.partition_point(|item| item.key < *key);
        let replaced = items.get(at).is_some_and(|item| item.key == *key);
        entries.extend(items[..at].iter().filter_map(Item::entry));
        if !replaced {
            entries.push((key, value));
        }
        entries.extend(items[at..].iter().filter_map(Item::entry));
        match entries[..] {
            [(only, kept)] if only == key && kept == value => Plan::Same,
            _ => self.build(self.depth(), &entries),
        }
    }

    /// Changes what lies at and below an extension.
    fn change_extension(
        &mut self,
        node: &Link<K, V>,
        branch: Branch<'_, K, V>,
        items: &[Item<K, V>],
    ) -> Result<Plan<K, V>, TrieError> {
        let (depth, prefix) = (self.depth(), &branch.prefix);
        // Deleting a key that is not below this branch changes nothing.
        let is_below = |key: &K| common(prefix, key, depth) == prefix.len();
        let relevant: Vec<Item<K, V>> =
            items.iter().filter(|item| item.value.is_some() || is_below(&item.key)).cloned().collect();
        let Some(length) = relevant.iter().map(|item| common(prefix, &item.key, depth)).min() else {
            return Ok(Plan::Same);
        };
        if length == prefix.len() {
            return self.change_children(node, branch, &relevant);
        }
        // A key leaves the extension: a new branch stands there, and under it what was below, at the same position.
        let nibble = prefix[length];
        let below = branch.nibbles().filter_map(|nibble| Some((nibble, branch.child(nibble)?)));
        let shorter = Link::branch(prefix[length + 1..].into(), below, branch.value.clone(), Origin::Built);
        evict::made(evict::weight(&shorter));
        self.forest.path.extend_from_slice(&prefix[..length]);
        let (ended, groups) = split(&relevant, self.depth());
        let mut changed = Vec::with_capacity(groups.len() + 1);
        for (at, group) in groups {
            self.forest.path.push(at);
            let plan = self.change((at == nibble).then(|| shorter.clone()), group)?;
            self.forest.path.pop();
            if !matches!(plan, Plan::Same) {
                changed.push((at, plan));
            }
        }
        if let Err(place) = changed.binary_search_by_key(&nibble, |(at, _)| *at) {
            let (depth, value) = (self.depth() + 1, branch.value.clone());
            let prefix = prefix[length + 1..].into();
            let moved = PlannedBranch { depth, prefix, base: Some(shorter), changed: Vec::new(), value };
            changed.insert(place, (nibble, self.branch(moved)));
        }
        self.forest.path.truncate(depth);
        let value = ended.and_then(Item::entry).map(|(key, value)| Box::new((key.clone(), value.clone())));
        self.normalise(PlannedBranch { depth, prefix: prefix[..length].into(), base: None, changed, value })
    }

    /// Changes the children of a branch; all of `items` match its whole prefix.
    fn change_children(
        &mut self,
        node: &Link<K, V>,
        branch: Branch<'_, K, V>,
        items: &[Item<K, V>],
    ) -> Result<Plan<K, V>, TrieError> {
        let depth = self.depth();
        self.forest.path.extend_from_slice(&branch.prefix);
        let (ended, groups) = split(items, self.depth());
        let value = match ended {
            Some(item) => item.entry().map(|(key, value)| Box::new((key.clone(), value.clone()))),
            None => branch.value.clone(),
        };
        let changed = self.change_groups(branch, &groups)?;
        self.forest.path.truncate(depth);
        if changed.is_empty() && value == branch.value {
            return Ok(Plan::Same);
        }
        let prefix = branch.prefix.clone();
        self.normalise(PlannedBranch { depth, prefix, base: Some(node.clone()), changed, value })
    }

    /// Changes each group's child; gives those that became something else.
    fn change_groups(
        &mut self,
        branch: Branch<'_, K, V>,
        groups: &[Group<'_, K, V>],
    ) -> Result<Changed<K, V>, TrieError> {
        let items: usize = groups.iter().map(|(_, group)| group.len()).sum();
        let threads = self.threads.min(groups.len()).min(threads_for(items));
        if threads < 2 {
            return self.change_each(branch, groups);
        }
        let (source, path) = (self.source, &self.forest.path);
        let work = |part: &[Group<'_, K, V>]| -> Result<Changed<K, V>, TrieError> {
            let mut forest = Forest { path: path.clone(), ..Forest::default() };
            let changed =
                Planner { source, threads: 1, is_warm: false, forest: &mut forest }.change_each(branch, part)?;
            forest.grow();
            Ok(changed.into_iter().map(|(nibble, plan)| (nibble, forest.made(plan))).collect())
        };
        thread::scope(|scope| {
            let mut parts = groups.chunks(groups.len().div_ceil(threads));
            let own = parts.next().unwrap_or_default();
            let others: Vec<_> = parts.map(|part| scope.spawn(|| work(part))).collect();
            let mut changed = work(own)?;
            for other in others {
                changed.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
            }
            Ok(changed)
        })
    }

    fn change_each(
        &mut self,
        branch: Branch<'_, K, V>,
        groups: &[Group<'_, K, V>],
    ) -> Result<Changed<K, V>, TrieError> {
        let items: usize = groups.iter().map(|(_, group)| group.len()).sum();
        let mut changed = Vec::with_capacity(groups.len());
        let warms = !self.is_warm && (2..=GROWN_TOGETHER_MAX).contains(&items);
        if warms {
            warm(&branch, groups, self.depth());
            self.is_warm = true;
        }
        for (nibble, group) in groups {
            self.forest.path.push(*nibble);
            let plan = if items > GROWN_TOGETHER_MAX && group.len() <= GROWN_TOGETHER_MAX {
                // What was just read is hashed while the cache still has it.
                let mut forest = Forest { path: self.forest.path.clone(), ..Forest::default() };
                let mut planner = Planner { source: self.source, threads: 1, is_warm: false, forest: &mut forest };
                let plan = planner.change_child(branch, *nibble, group)?;
                forest.grow();
                forest.made(plan)
            } else {
                self.change_child(branch, *nibble, group)?
            };
            self.forest.path.pop();
            if !matches!(plan, Plan::Same) {
                changed.push((*nibble, plan));
            }
        }
        self.is_warm &= !warms;
        Ok(changed)
    }

    /// Changes the child at `nibble`, where the path leads.
    fn change_child(
        &mut self,
        branch: Branch<'_, K, V>,
        nibble: u8,
        items: &[Item<K, V>],
    ) -> Result<Plan<K, V>, TrieError> {
        let is_new = branch.state & (1 << nibble) == 0;
        // The only key below a leaf is the one that is known to be there.
        if !is_new && branch.kind(nibble) == Kind::Leaf && items.iter().any(|item| item.is_there) {
            return Ok(self.build_items(items));
        }
        let child = branch.resolve(nibble, &self.forest.path, self.source)?;
        Ok(match self.change(child, items)? {
            Plan::Empty if is_new => Plan::Same,
            plan => plan,
        })
    }

    /// Gives a branch that may have lost children the one form the trie allows; the path leads to where it begins.
    fn normalise(&mut self, planned: PlannedBranch<K, V>) -> Result<Plan<K, V>, TrieError> {
        let base = planned.base.clone();
        let branch = base.as_ref().and_then(Link::as_branch);
        let touched = planned.changed.iter().fold(0u16, |mask, (nibble, _)| mask | 1 << nibble);
        let kept = branch.map_or(0, |branch| branch.state) & !touched;
        let added = planned.changed.iter().filter(|(_, plan)| !matches!(plan, Plan::Empty)).count();
        let count = kept.count_ones() as usize + added;
        match (count, &planned.value) {
            (0, None) => Ok(Plan::Empty),
            (0, Some(entry)) => {
                let (key, value) = (**entry).clone();
                Ok(self.leaf(planned.depth, key, value))
            }
            (1, None) => self.collapse(planned, branch, kept),
            _ => Ok(self.branch(planned)),
        }
    }

    /// Merges a branch with its only child.
    fn collapse(
        &mut self,
        planned: PlannedBranch<K, V>,
        branch: Option<Branch<'_, K, V>>,
        kept: u16,
    ) -> Result<Plan<K, V>, TrieError> {
        let PlannedBranch { depth, prefix, changed, .. } = planned;
        let only = changed.into_iter().find(|(_, plan)| !matches!(plan, Plan::Empty));
        let (nibble, plan) = match only {
            Some((nibble, plan)) => (nibble, plan),
            None => (u8::try_from(kept.trailing_zeros()).expect("a mask has 16 bits"), Plan::Same),
        };
        let longer = |below: &[u8]| [&prefix[..], &[nibble], below].concat().into_boxed_slice();
        let node = match plan {
            Plan::Leaf(number) => {
                self.forest.leaves[number].depth = depth;
                return Ok(Plan::Leaf(number));
            }
            Plan::Branch(number) => {
                let below = &mut self.forest.branches[number];
                below.prefix = longer(&below.prefix);
                below.depth = depth;
                return Ok(Plan::Branch(number));
            }
            Plan::Made(child) => child.link,
            Plan::Same | Plan::Empty => {
                self.forest.path.extend_from_slice(&prefix);
                self.forest.path.push(nibble);
                let found = branch.map(|branch| branch.resolve(nibble, &self.forest.path, self.source));
                self.forest.path.truncate(depth);
                found.transpose()?.flatten()
            }
        };
        let node = node.expect("the only child is there, and what was just made is in memory");
        Ok(match node.body() {
            Body::Leaf(key, value) => self.leaf(depth, key.clone(), value.clone()),
            Body::Branch(below) => self.branch(PlannedBranch {
                depth,
                prefix: longer(&below.prefix),
                base: Some(node.clone()),
                changed: Vec::new(),
                value: below.value.clone(),
            }),
        })
    }

    /// Plans the trie of what `items` set, at the path.
    fn build_items(&mut self, items: &[Item<K, V>]) -> Plan<K, V> {
        match items {
            [Item { key, value: Some(value), .. }] => self.leaf(self.depth(), key.clone(), value.clone()),
            items => {
                let entries: Vec<_> = items.iter().filter_map(Item::entry).collect();
                self.build(self.depth(), &entries)
            }
        }
    }

    /// Plans the trie of `entries`, in order of key, that share their first `depth` nibbles.
    fn build(&mut self, depth: usize, entries: &[(&K, &V)]) -> Plan<K, V> {
        let (first, last) = match entries {
            [] => return Plan::Empty,
            [(key, value)] => return self.leaf(depth, (*key).clone(), (*value).clone()),
            [(first, _), .., (last, _)] => (*first, *last),
        };
        // Keys are sorted, so what the first and the last share, all share.
        let prefix: Box<[u8]> = (depth..first.nibbles().min(last.nibbles()))
            .map(|index| (first.nibble(index), last.nibble(index)))
            .take_while(|(left, right)| left == right)
            .map(|(nibble, _)| nibble)
            .collect();
        let inner = depth + prefix.len();
        let (mut value, mut rest) = (None, entries);
        if first.nibbles() == inner {
            value = Some(Box::new((first.clone(), rest[0].1.clone())));
            rest = &rest[1..];
        }
        let mut changed = Vec::new();
        while let Some((key, _)) = rest.first() {
            let nibble = key.nibble(inner);
            let (group, others) = rest.split_at(rest.partition_point(|(key, _)| key.nibble(inner) <= nibble));
            rest = others;
            changed.push((nibble, self.build(inner + 1, group)));
        }
        self.branch(PlannedBranch { depth, prefix, base: None, changed, value })
    }
}
