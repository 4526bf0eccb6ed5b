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
    },
};
use revm::state::Bytecode;

/// Lines of one block in progress.
#[derive(Debug, Default)]
pub(crate) struct Record {
    index: u32,
    /// By account number: whether a transaction or the block itself touched it.
    touched: Vec<bool>,
    balances: Vec<(usize, u32, U256)>,
    nonces: Vec<(usize, u32, u64)>,
    codes: Vec<(usize, u32, Bytes)>,
    wipes: Vec<(usize, u32)>,
    /// By slot number.
    writes: Vec<(u32, u32, U256)>,
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
        self.wipes.push((id, self.index));
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

    /// The list; `slots` gives keys and numbers of an account's slots in any order.
    pub(crate) fn into_list(
        mut self,
        addresses: &[Address],
        slot_count: u32,
        slots: impl Fn(usize) -> Vec<(U256, u32)>,
    ) -> AccessList {
        // A stable sort keeps the order of indices.
        self.balances.sort_by_key(|line| line.0);
        // Withdrawals credit one account several times at one index: the last value stands.
        self.balances.dedup_by(|later, earlier| {
            let same = (later.0, later.1) == (earlier.0, earlier.1);
            if same {
                earlier.2 = later.2;
            }
            same
        });
        self.nonces.sort_by_key(|line| line.0);
        self.codes.sort_by_key(|line| line.0);
        self.wipes.sort_by_key(|line| line.0);
        let writes = Grouped::new(self.writes, slot_count);
        let mut order: Vec<usize> =
            (0..addresses.len()).filter(|id| self.touched.get(*id).copied().unwrap_or_default()).collect();
        order.sort_unstable_by_key(|id| addresses[*id]);
        let mut list = AccessList { accounts: Vec::with_capacity(order.len()), wipes: Vec::new() };
        for id in order {
            let mut account = AccountChanges::new(addresses[id]);
            let mut keys = slots(id);
            keys.sort_unstable_by_key(|(key, _)| *key);
            for (key, slot) in keys {
                let lines = writes.of(slot);
                if lines.is_empty() {
                    account.storage_reads.push(key);
                } else {
                    let changes = lines.iter().map(|(at, value)| StorageChange::new(index(*at), *value)).collect();
                    account.storage_changes.push(SlotChanges::new(key, changes));
                }
            }
            let balances = lines_of(&self.balances, id, |line| line.0);
            account.balance_changes = balances.iter().map(|line| BalanceChange::new(index(line.1), line.2)).collect();
            let nonces = lines_of(&self.nonces, id, |line| line.0);
            account.nonce_changes = nonces.iter().map(|line| NonceChange::new(index(line.1), line.2)).collect();
            let codes = lines_of(&self.codes, id, |line| line.0);
            account.code_changes = codes.iter().map(|line| CodeChange::new(index(line.1), line.2.clone())).collect();
            list.accounts.push(account);
            let wipes = lines_of(&self.wipes, id, |line| line.0);
            if !wipes.is_empty() {
                let indices = wipes.iter().map(|line| u64::from(line.1)).collect();
                list.wipes.push(Wipe { address: addresses[id], indices });
            }
        }
        list
    }
}

fn index(at: u32) -> BlockAccessIndex {
    BlockAccessIndex::new(u64::from(at))
}

/// The lines of one account among lines sorted by account.
fn lines_of<T>(lines: &[T], id: usize, of: impl Fn(&T) -> usize) -> &[T] {
    let start = lines.partition_point(|line| of(line) < id);
    let length = lines[start..].partition_point(|line| of(line) == id);
    &lines[start..start.saturating_add(length)]
}

/// Writes grouped by slot, each group in order of index.
struct Grouped {
    starts: Vec<u32>,
    lines: Vec<(u32, U256)>,
}

impl Grouped {
    /// Sorts by counting: slots are dense numbers.
    fn new(writes: Vec<(u32, u32, U256)>, slot_count: u32) -> Self {
        let slots = usize::try_from(slot_count).unwrap_or(usize::MAX);
        let at = |slot: u32| usize::try_from(slot).unwrap_or(usize::MAX);
        let mut starts = vec![0_u32; slots.saturating_add(1)];
        for (slot, ..) in &writes {
            let next = &mut starts[at(*slot).saturating_add(1)];
            *next = next.saturating_add(1);
        }
        for slot in 1..starts.len() {
            starts[slot] = starts[slot].saturating_add(starts[slot - 1]);
        }
        let (mut cursors, mut lines) = (starts.clone(), vec![(0, U256::ZERO); writes.len()]);
        for (slot, index, value) in writes {
            let cursor = &mut cursors[at(slot)];
            lines[at(*cursor)] = (index, value);
            *cursor = cursor.saturating_add(1);
        }
        Self { starts, lines }
    }

    fn of(&self, slot: u32) -> &[(u32, U256)] {
        let at = |slot: usize| usize::try_from(self.starts[slot]).unwrap_or(usize::MAX);
        let slot = usize::try_from(slot).unwrap_or(usize::MAX);
        &self.lines[at(slot)..at(slot.saturating_add(1))]
    }
}
