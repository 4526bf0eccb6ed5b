//! What a block did, line by line, and the access list that follows from it.
//!
//! A line is appended per change while the block runs, which costs no look-up: accounts and slots have
//! numbers already. Sorting is left to the end, once per block; within an account or slot the lines are in
//! order of index as they come.

use alloy_primitives::{Address, Bytes, KECCAK256_EMPTY, U256};
use engine::types::{
    AccessList, Account,
    access_list::{
        AccountChanges, BalanceChange, BlockAccessIndex, CodeChange, NonceChange, SlotChanges, StorageChange, Wipe,
        first_word,
    },
};
use revm::state::Bytecode;

/// A line: number of an account or slot, index, and the value from there on.
type Line<V> = (u32, u32, V);

/// Lines of one block in progress.
#[derive(Debug, Default)]
pub(crate) struct Record {
    index: u32,
    /// By account number: whether a transaction or the block itself touched it.
    touched: Vec<bool>,
    balances: Vec<Line<U256>>,
    nonces: Vec<Line<u64>>,
    codes: Vec<Line<Bytes>>,
    wipes: Vec<Line<()>>,
    writes: Vec<Line<U256>>,
}

/// Accounts and slots are numbered in the order of their first use, which memory ends long before the numbers do.
fn line_number(id: usize) -> u32 {
    u32::try_from(id).unwrap_or(u32::MAX)
}

impl Record {
    pub(crate) const fn next_index(&mut self) {
        self.index = self.index.saturating_add(1);
    }

    /// An account was accessed.
    pub(crate) fn touch(&mut self, id: usize) {
        if self.touched.len() <= id {
            self.touched.resize(id.saturating_add(1), false);
        }
        self.touched[id] = true;
    }

    /// All storage of an account that existed is gone.
    pub(crate) fn wipe(&mut self, id: usize) {
        self.wipes.push((line_number(id), self.index, ()));
    }

    /// A slot was written.
    pub(crate) fn write(&mut self, slot: u32, value: U256) {
        self.writes.push((slot, self.index, value));
    }

    /// An account went from one value to another; `code` is that of `after`.
    pub(crate) fn account(
        &mut self,
        id: usize,
        before: Option<Account>,
        after: Option<Account>,
        code: Option<&Bytecode>,
    ) {
        self.touch(id);
        let id = line_number(id);
        let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
        if before.balance != after.balance {
            self.balances.push((id, self.index, after.balance));
        }
        if before.nonce != after.nonce {
            self.nonces.push((id, self.index, after.nonce));
        }
        if before.code_hash != after.code_hash {
            let code = code.filter(|_| after.code_hash != KECCAK256_EMPTY);
            self.codes.push((id, self.index, code.map(Bytecode::original_bytes).unwrap_or_default()));
        }
    }

    /// Makes room for the lines of transactions that touch so many accounts.
    pub(crate) fn reserve(&mut self, accounts: usize) {
        self.touched.reserve(accounts);
        // Sender, recipient and fee recipient; the sender's nonce.
        self.balances.reserve(accounts.saturating_add(accounts / 2));
        self.nonces.reserve(accounts / 2);
    }

    /// How many lines there are.
    pub(crate) const fn len(&self) -> usize {
        self.balances.len().saturating_add(self.nonces.len()).saturating_add(self.writes.len())
    }

    /// The list; `slots` gives keys and numbers of an account's slots in any order.
    pub(crate) fn into_list<'s, S: Iterator<Item = (&'s U256, u32)>>(
        self,
        address: impl Fn(usize) -> &'s Address,
        accounts: usize,
        slot_count: u32,
        slots: impl Fn(usize) -> S,
    ) -> AccessList {
        let balances = Grouped::new(self.balances, accounts);
        let nonces = Grouped::new(self.nonces, accounts);
        let writes = Grouped::new(self.writes, usize::try_from(slot_count).unwrap_or(usize::MAX));
        let (mut codes, mut wipes) = (self.codes, self.wipes);
        // Few if any; a stable sort keeps the order of indices.
        codes.sort_by_key(|line| line.0);
        wipes.sort_by_key(|line| line.0);
        let touched = self.touched.iter().enumerate().filter(|(_, touched)| **touched);
        let order = sorted(touched.map(|(id, _)| (address(id), id)), |address: &&Address| first_word(address));
        let mut list = AccessList { accounts: Vec::with_capacity(order.len()), wipes: Vec::new() };
        for (_, address, id) in order {
            let mut account = AccountChanges::new(*address);
            for (_, key, slot) in sorted(slots(id), |key| key.as_limbs()[3]) {
                let lines = writes.of(usize::try_from(slot).unwrap_or(usize::MAX));
                if lines.is_empty() {
                    account.storage_reads.push(*key);
                } else {
                    let changes = lines.iter().map(|(at, value)| StorageChange::new(index(*at), *value)).collect();
                    account.storage_changes.push(SlotChanges::new(*key, changes));
                }
            }
            account.balance_changes = last_values(balances.of(id));
            let lines = nonces.of(id).iter();
            account.nonce_changes = lines.map(|(at, nonce)| NonceChange::new(index(*at), *nonce)).collect();
            let lines = lines_of(&codes, id).iter();
            account.code_changes = lines.map(|line| CodeChange::new(index(line.1), line.2.clone())).collect();
            list.accounts.push(account);
            let wipes = lines_of(&wipes, id);
            if !wipes.is_empty() {
                list.wipes
                    .push(Wipe { address: *address, indices: wipes.iter().map(|line| u64::from(line.1)).collect() });
            }
        }
        list
    }
}

fn index(at: u32) -> BlockAccessIndex {
    BlockAccessIndex::new(u64::from(at))
}

/// Sorts by key. The keys' first words are compared first: hardly any two are equal, and so the keys stay untouched.
fn sorted<K: Ord, V>(pairs: impl Iterator<Item = (K, V)>, word: impl Fn(&K) -> u64) -> Vec<(u64, K, V)> {
    let mut sorted: Vec<_> = pairs.map(|(key, value)| (word(&key), key, value)).collect();
    sorted.sort_unstable_by(|one, other| one.0.cmp(&other.0).then_with(|| one.1.cmp(&other.1)));
    sorted
}

/// Balances by index. Withdrawals credit one account several times at one index: the last value stands.
fn last_values(lines: &[(u32, U256)]) -> Vec<BalanceChange> {
    let mut changes: Vec<BalanceChange> = Vec::with_capacity(lines.len());
    for (at, balance) in lines {
        let change = BalanceChange::new(index(*at), *balance);
        match changes.last_mut().filter(|last| last.block_access_index == change.block_access_index) {
            Some(last) => *last = change,
            None => changes.push(change),
        }
    }
    changes
}

/// The lines of one account among lines sorted by account.
fn lines_of<V>(lines: &[Line<V>], id: usize) -> &[Line<V>] {
    let id = line_number(id);
    let start = lines.partition_point(|line| line.0 < id);
    let length = lines[start..].partition_point(|line| line.0 == id);
    &lines[start..start.saturating_add(length)]
}

/// Lines grouped by account or slot, each group in order of index.
struct Grouped<V> {
    starts: Vec<u32>,
    lines: Vec<(u32, V)>,
}

impl<V: Copy + Default> Grouped<V> {
    /// Sorts by counting: the numbers are dense, all below `count`.
    fn new(lines: Vec<Line<V>>, count: usize) -> Self {
        let at = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let mut starts = vec![0_u32; count.saturating_add(1)];
        for (number, ..) in &lines {
            let next = &mut starts[at(*number).saturating_add(1)];
            *next = next.saturating_add(1);
        }
        for number in 1..starts.len() {
            starts[number] = starts[number].saturating_add(starts[number - 1]);
        }
        let (mut cursors, mut grouped) = (starts.clone(), vec![(0, V::default()); lines.len()]);
        for (number, index, value) in lines {
            let cursor = &mut cursors[at(number)];
            grouped[at(*cursor)] = (index, value);
            *cursor = cursor.saturating_add(1);
        }
        Self { starts, lines: grouped }
    }

    fn of(&self, number: usize) -> &[(u32, V)] {
        let at = |number: usize| usize::try_from(self.starts[number]).unwrap_or(usize::MAX);
        &self.lines[at(number)..at(number.saturating_add(1))]
    }
}
