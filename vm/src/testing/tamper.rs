//! Access lists that are wrong in one thing.

use alloy_primitives::{Address, U256, bytes};
use engine::types::{
    AccessList,
    access_list::{AccountChanges, BalanceChange, BlockAccessIndex, CodeChange, NonceChange, Wipe},
};

use super::traffic::Random;

/// Changes one thing about a list.
pub(crate) fn tamper(list: &mut AccessList, random: &mut Random) {
    if list.accounts.is_empty() {
        return list.accounts.push(AccountChanges::new(Address::repeat_byte(0xee)));
    }
    let place = random.below(list.accounts.len());
    let other = list.accounts[random.below(list.accounts.len())].clone();
    let account = &mut list.accounts[place];
    let slot = |random: &mut Random, slots: usize| random.below(slots.max(1));
    let at = BlockAccessIndex::new(u64::try_from(random.below(12)).unwrap());
    match random.below(24) {
        0 => drop(list.accounts.remove(place)),
        1 => list.accounts.push(AccountChanges::new(Address::repeat_byte(0xee))),
        2 => list.accounts.insert(place, other),
        3 => list.accounts.swap(place, 0),
        4 => account.address.0[random.below(20)] ^= 1,
        5 => account.storage_reads.push(U256::MAX),
        6 => drop(account.storage_reads.pop()),
        7 => account.storage_reads.extend(account.storage_reads.first().copied()),
        8 => account.storage_reads.reverse(),
        9 => drop(account.storage_changes.pop()),
        10 => account.storage_changes.extend(other.storage_changes),
        11 => {
            let key = slot(random, account.storage_changes.len());
            account.storage_changes.get_mut(key).into_iter().for_each(|slot| slot.slot += U256::from(1));
        }
        12 | 13 => {
            let key = slot(random, account.storage_changes.len());
            let changes = account.storage_changes.get_mut(key).map(|slot| &mut slot.changes);
            changes.and_then(|changes| changes.last_mut()).into_iter().for_each(|change| {
                change.new_value ^= U256::from(1);
            });
        }
        14 => {
            let key = slot(random, account.storage_changes.len());
            let changes = account.storage_changes.get_mut(key).map(|slot| &mut slot.changes);
            changes.and_then(|changes| changes.first_mut()).into_iter().for_each(|change| {
                change.block_access_index = at;
            });
        }
        15 => {
            let key = slot(random, account.storage_changes.len());
            account
                .storage_changes
                .get_mut(key)
                .into_iter()
                .for_each(|slot| slot.changes.truncate(slot.changes.len().saturating_sub(1)));
        }
        16 => account.balance_changes.push(BalanceChange::new(at, U256::from(random.below(9)))),
        17 => account.balance_changes.iter_mut().take(1).for_each(|change| change.post_balance += U256::from(1)),
        18 => drop(account.balance_changes.pop()),
        19 => account.nonce_changes.push(NonceChange::new(at, 3)),
        20 => account.nonce_changes.iter_mut().take(1).for_each(|change| change.new_nonce += 1),
        21 => account.code_changes.push(CodeChange::new(at, bytes!("00"))),
        22 => list.wipes.push(Wipe { address: account.address, indices: vec![at.get()] }),
        _ => match list.wipes.first_mut() {
            Some(wipe) => wipe.indices.iter_mut().take(1).for_each(|index| *index += 1),
            None => account.nonce_changes.iter_mut().take(1).for_each(|change| change.block_access_index = at),
        },
    }
}
