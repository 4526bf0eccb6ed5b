//! However a block is cut, it comes to what the plain loop makes of it, and no fragment but its own is taken.
//!
//! `SLUICE_ARRIVALS` sets the blocks per fork and length (default 1), `SLUICE_TAMPERED` the tampered arrivals
//! (default 4,000), `SLUICE_SEED` the seed.

use std::ops::Range;

use alloy_consensus::Sealable;
use alloy_primitives::{Address, B256, Bloom, Bytes, TxKind, U256};
use engine::{
    genesis::Fork,
    ports::{BuildSettings, BuildTime, Executor as _},
    types::access_list::{AccountChanges, PartialList, SlotChanges, Wipe},
};

use super::*;
use crate::{
    testing::{
        BOB, Queue, World, send,
        tamper::tamper,
        traffic::{Random, Traffic, block_paying, count, world},
    },
    workers::Workers,
};

const FORKS: [Fork; 5] = [Fork::London, Fork::Shanghai, Fork::Cancun, Fork::Prague, Fork::Osaka];

fn executor(world: &World, threads: usize) -> RevmExecutor {
    RevmExecutor::new(world.chain.clone()).with_workers(Workers::new(threads).unwrap()).with_threads_from(0)
}

fn built(world: &World, random: &mut Random, length: usize) -> ExecutedBlock {
    let mut traffic = Traffic::new(random, world);
    let settings = BuildSettings { beneficiary: traffic.beneficiary, ..world.settings() };
    let mut queue = Queue::of(traffic.block(length));
    executor(world, 1).build(&world.state, &world.parent, &settings, &mut queue, &BuildTime::UNLIMITED).unwrap().0
}

/// What is known of a header before its transactions, and nonsense in the other fields.
fn opening(header: &Header) -> Header {
    Header {
        state_root: B256::repeat_byte(1),
        transactions_root: B256::repeat_byte(2),
        receipts_root: B256::repeat_byte(3),
        logs_bloom: Bloom::repeat_byte(4),
        gas_used: u64::MAX,
        blob_gas_used: None,
        requests_hash: None,
        extra_data: Bytes::new(),
        ..header.clone()
    }
}

/// A part of a block.
type Part = (Vec<Arc<Transaction>>, AccessList);

fn parts(block: &Block, list: &AccessList, cuts: &[usize]) -> Vec<Part> {
    let transactions = &block.body.transactions;
    let starts = std::iter::once(0).chain(cuts.iter().copied());
    let ends = cuts.iter().copied().chain([transactions.len()]);
    let places: Vec<Range<usize>> = starts.zip(ends).map(|(start, end)| start..end).collect();
    let fragments = list.fragments(cuts);
    assert_eq!(fragments.len(), places.len());
    places.into_iter().map(|places| transactions[places].to_vec()).zip(fragments).collect()
}

/// Feeds the parts, and checks that the receipts come in order and each once.
fn feed(
    executor: &RevmExecutor,
    world: &World,
    block: &Arc<Block>,
    parts: Vec<Part>,
) -> Result<ExecutedBlock, ReplayError> {
    let mut arrival = executor.arriving(&world.state, &world.parent, &opening(&block.header))?;
    let mut streamed = Vec::new();
    for (transactions, fragment) in parts {
        streamed.extend_from_slice(arrival.push(transactions, fragment)?);
    }
    let executed = arrival.finish(block)?;
    assert!(executed.receipts.starts_with(&streamed));
    Ok(executed)
}

fn same(one: &ExecutedBlock, other: &ExecutedBlock) -> bool {
    (&one.receipts, &one.changes, &one.access_list) == (&other.receipts, &other.changes, &other.access_list)
}

/// Rising cuts of a block of this length; some of them may be equal.
fn random_cuts(random: &mut Random, length: usize) -> Vec<usize> {
    let number = random.below(length + 3);
    let mut cuts: Vec<usize> = (0..number).map(|_| random.below(length + 1)).collect();
    cuts.sort_unstable();
    cuts
}

#[test]
fn small_blocks_come_to_the_same_in_every_cut() {
    let mut random = Random::seeded("every cut");
    for fork in FORKS {
        let world = world(fork);
        let executors = [1, 2, 4].map(|threads| executor(&world, threads));
        for length in (0..=8).flat_map(|length| vec![length; count("SLUICE_ARRIVALS", 1)]) {
            let built = built(&world, &mut random, length);
            for mask in 0..1_u32 << length.saturating_sub(1) {
                let mut cuts: Vec<usize> = (1..length).filter(|cut| mask & (1 << (cut - 1)) != 0).collect();
                // What comes before and after the transactions may come alone as well.
                if random.below(2) == 0 {
                    cuts.insert(0, 0);
                }
                if random.below(2) == 0 {
                    cuts.push(length);
                }
                for executor in &executors {
                    let parts = parts(&built.block, &built.access_list, &cuts);
                    let executed = feed(executor, &world, &built.block, parts)
                        .unwrap_or_else(|error| panic!("{} of {length} cut at {cuts:?}: {error}", fork.name()));
                    assert!(same(&executed, &built), "{} of {length} cut at {cuts:?}", fork.name());
                }
            }
        }
    }
}

#[test]
fn larger_blocks_come_to_the_same_however_they_are_cut_and_collected() {
    let mut random = Random::seeded("random cuts");
    for fork in FORKS {
        let world = world(fork);
        let built = built(&world, &mut random, 60);
        let length = built.block.body.transactions.len();
        let plain = executor(&world, 1).execute(&world.state, &world.parent, &built.block).unwrap();
        assert!(same(&plain, &built));
        let one_each: Vec<usize> = (1..length).collect();
        let random_ones = (0..20).map(|_| random_cuts(&mut random, length));
        for (number, cuts) in random_ones.chain([one_each]).enumerate() {
            for threads in [1, 2, 4] {
                // All at once, a few together, and so many that nothing is worth waking threads.
                let gas_min = [0, 300_000, 0, 1_000_000, u64::MAX][number % 5];
                let executor = executor(&world, threads).with_threads_from(gas_min);
                let parts = parts(&built.block, &built.access_list, &cuts);
                let executed = feed(&executor, &world, &built.block, parts).unwrap();
                assert!(same(&executed, &built), "{} cut at {cuts:?}", fork.name());
            }
        }
    }
}

#[test]
fn fragments_make_up_their_list_byte_for_byte() {
    let mut random = Random::seeded("merge");
    for fork in Fork::ALL.into_iter().filter(|fork| *fork >= Fork::Petersburg) {
        let world = world(fork);
        let executor = executor(&world, 1);
        for length in [0, 1, 2, 5, 13, 40] {
            let block = Traffic::new(&mut random, &world).sealed(length);
            let list = executor.transactions(&world.state, &block, true).unwrap().access_list.unwrap();
            let items_max = AccessList::items_max(fork, block.header.gas_limit);
            for _ in 0..20 {
                let cuts = random_cuts(&mut random, length);
                let (mut lent, mut given) = (PartialList::new(items_max), PartialList::new(items_max));
                let fragments = list.fragments(&cuts);
                for (fragment, end) in fragments.iter().zip(cuts.iter().chain([&length])) {
                    let bytes = alloy_rlp::encode(fragment);
                    assert_eq!(AccessList::decode_exact(&bytes).as_ref(), Ok(fragment));
                    assert!(!lent.is(&list) || fragment.accounts.is_empty(), "before the last change");
                    lent.extend(Cow::Borrowed(fragment), *end).unwrap();
                    given.extend(Cow::Owned(fragment.clone()), *end).unwrap();
                }
                assert!(lent.is(&list) && given.is(&list), "{length} cut at {cuts:?}");
                let (lent, given) = (lent.into_list(), given.into_list());
                assert_eq!(alloy_rlp::encode(&lent), alloy_rlp::encode(&list));
                assert_eq!((&lent, lent.hash()), (&given, list.hash()));
            }
        }
    }
}

/// What `after` has more than `before`: the fragment of a leader that does not know what comes.
fn difference(after: &AccessList, before: &AccessList) -> AccessList {
    let mut fragment = AccessList::default();
    for account in &after.accounts {
        let none = AccountChanges::new(account.address);
        let old = before.accounts.iter().find(|old| old.address == account.address);
        let known = old.unwrap_or(&none);
        let mut part = AccountChanges::new(account.address);
        for slot in &account.storage_changes {
            let writes =
                known.storage_changes.iter().find(|old| old.slot == slot.slot).map_or(0, |old| old.changes.len());
            let more = slot.changes[writes..].to_vec();
            if !more.is_empty() {
                part.storage_changes.push(SlotChanges::new(slot.slot, more));
            }
        }
        let named: Vec<U256> = known.storage_slots().collect();
        part.storage_reads = account.storage_reads.iter().copied().filter(|key| !named.contains(key)).collect();
        part.balance_changes = account.balance_changes[known.balance_changes.len()..].to_vec();
        part.nonce_changes = account.nonce_changes[known.nonce_changes.len()..].to_vec();
        part.code_changes = account.code_changes[known.code_changes.len()..].to_vec();
        if old.is_none() || part.has_changes() || !part.storage_reads.is_empty() {
            fragment.accounts.push(part);
        }
    }
    for wipe in &after.wipes {
        let known = before.wipes.iter().find(|old| old.address == wipe.address).map_or(0, |old| old.indices.len());
        let more = wipe.indices[known..].to_vec();
        if !more.is_empty() {
            fragment.wipes.push(Wipe { address: wipe.address, indices: more });
        }
    }
    fragment
}

#[test]
fn a_leader_may_name_what_it_touches_as_it_goes() {
    let mut random = Random::seeded("as it goes");
    for fork in FORKS {
        let world = world(fork);
        let executor = executor(&world, 2);
        let mut traffic = Traffic::new(&mut random, &world);
        let transactions = traffic.block(25);
        let list_of = |length: usize| {
            let block = block_paying(&world, traffic.beneficiary, transactions[..length].to_vec());
            executor.transactions(&world.state, &block, true).unwrap()
        };
        let block = block_paying(&world, traffic.beneficiary, transactions.clone());
        let whole = list_of(transactions.len());
        for step in [1, 4] {
            let mut replay = executor.replay(&world.state, &block.header, false);
            let mut before = AccessList::default();
            for start in (0..transactions.len()).step_by(step) {
                let end = (start + step).min(transactions.len());
                let after = list_of(end).access_list.unwrap();
                let fragment = difference(&after, &before);
                replay.push(transactions[start..end].to_vec().into(), Cow::Owned(fragment)).unwrap();
                before = after;
            }
            let finished = replay.close(None).unwrap();
            assert_eq!((&finished.receipts, &finished.changes), (&whole.receipts, &whole.changes));
            assert_eq!(Some(replay.into_list()), whole.access_list);
        }
    }
}

/// Changes one thing about the fragments of a block, or about their order.
fn tamper_parts(parts: &mut [Part], random: &mut Random) {
    let (one, other) = (random.below(parts.len()), random.below(parts.len()));
    match random.below(10) {
        0 => parts[one].1 = AccessList::default(),
        1 => parts[one].1 = parts[other].1.clone(),
        2 => {
            let fragment = std::mem::take(&mut parts[one].1);
            parts[one].1 = std::mem::replace(&mut parts[other].1, fragment);
        }
        3 | 4 => {
            // A whole account into another fragment.
            let Some(last) = parts[one].1.accounts.len().checked_sub(1) else { return };
            let moved = parts[one].1.accounts.remove(random.below(last + 1));
            let accounts = &mut parts[other].1.accounts;
            match accounts.binary_search_by_key(&moved.address, |account| account.address) {
                Ok(place) => accounts[place] = moved,
                Err(place) => accounts.insert(place, moved),
            }
        }
        5 => {
            // One change into another fragment.
            let Some(account) = parts[one].1.accounts.iter_mut().find(|account| !account.balance_changes.is_empty())
            else {
                return;
            };
            let (address, change) = (account.address, account.balance_changes.remove(0));
            let theirs = parts[other].1.accounts.iter_mut().find(|account| account.address == address);
            theirs.into_iter().for_each(|account| account.balance_changes.push(change.clone()));
        }
        6 => {
            // Reads into another fragment, where the account is named.
            let Some(account) = parts[one].1.accounts.iter_mut().find(|account| !account.storage_reads.is_empty())
            else {
                return;
            };
            let (address, reads) = (account.address, std::mem::take(&mut account.storage_reads));
            let theirs = parts[other].1.accounts.iter_mut().find(|account| account.address == address);
            theirs.into_iter().for_each(|account| account.storage_reads = reads.clone());
        }
        _ => tamper(&mut parts[one].1, random),
    }
}

#[test]
fn tampered_fragments_are_refused_unless_they_make_up_the_same_list() {
    let mut random = Random::seeded("tampered fragments");
    for fork in [Fork::London, Fork::Osaka] {
        let world = world(fork);
        let executors = [executor(&world, 2), executor(&world, 1).with_threads_from(300_000)];
        let built = built(&world, &mut random, 10);
        let length = built.block.body.transactions.len();
        let (mut refused, mut taken) = (0, 0);
        for number in 0..count("SLUICE_TAMPERED", 4_000) / 2 {
            let cuts = random_cuts(&mut random, length);
            let original = parts(&built.block, &built.access_list, &cuts);
            let mut tampered = original.clone();
            for _ in 0..=random.below(2) {
                tamper_parts(&mut tampered, &mut random);
            }
            if tampered == original {
                continue;
            }
            match feed(&executors[number % 2], &world, &built.block, tampered.clone()) {
                Err(ReplayError::Mismatch(_)) => refused += 1,
                // Another cut of the same list, such as a name that came later and still in time.
                Ok(executed) if same(&executed, &built) => taken += 1,
                other => panic!("{} cut at {cuts:?}: {tampered:?} for {original:?}: {other:?}", fork.name()),
            }
        }
        eprintln!("{}: {refused} tampered arrivals refused, {taken} are other cuts", fork.name());
        assert!(refused > 10 * taken);
    }
}

/// A block of 8 in three parts, on a chain of the newest fork.
fn three_parts(random: &mut Random) -> (World, ExecutedBlock, Vec<Part>) {
    let world = world(Fork::Osaka);
    let built = built(&world, random, 8);
    let parts = parts(&built.block, &built.access_list, &[3, 6]);
    (world, built, parts)
}

fn resealed(block: &Block, change: impl FnOnce(&mut Header)) -> Arc<Block> {
    let mut header = block.header.inner().clone();
    change(&mut header);
    let mut block = Block { header: header.seal_slow(), ..block.clone() };
    block.consensus.block_hash = block.header.seal();
    Arc::new(block)
}

#[test]
fn errors_are_the_plain_loops() {
    let mut random = Random::seeded("errors");
    let (world, built, parts) = three_parts(&mut random);
    let executor = executor(&world, 2);
    let changes: [fn(&mut Header); 6] = [
        |header| header.gas_used += 1,
        |header| header.receipts_root.0[0] ^= 1,
        |header| header.logs_bloom.0[0] ^= 1,
        |header| header.state_root.0[0] ^= 1,
        |header| header.requests_hash = Some(B256::ZERO),
        |header| header.transactions_root.0[0] ^= 1,
    ];
    for change in changes {
        let block = resealed(&built.block, change);
        let plain = executor.execute(&world.state, &world.parent, &block).unwrap_err();
        assert_eq!(feed(&executor, &world, &block, parts.clone()).unwrap_err(), ReplayError::Execution(plain));
    }
    // A transaction that is not valid, and one that asks for more gas than is left.
    let stranger = Address::repeat_byte(0x77);
    for (sender, gas) in [(stranger, 21_000), (crate::testing::ALICE, 16_000_000)] {
        let mut block = (*built.block).clone();
        let more = (0..2).map(|nonce| send(sender, nonce, TxKind::Call(BOB), U256::ZERO, Bytes::new(), gas));
        block.body.transactions.extend(more);
        let root = crate::outcome::transactions_root(&block.body.transactions);
        let block = resealed(&block, |header| header.transactions_root = root);
        let plain = executor.execute(&world.state, &world.parent, &block).unwrap_err();
        let mut arrival = executor.arriving(&world.state, &world.parent, &block.header).unwrap();
        let more = block.body.transactions[built.block.body.transactions.len()..].to_vec();
        for (transactions, fragment) in parts.iter().cloned().chain([(more, AccessList::default())]) {
            let _ = arrival.push(transactions, fragment);
        }
        assert_eq!(arrival.settle(&block).unwrap_err(), plain);
    }
}

#[test]
fn a_block_that_is_not_the_one_that_arrived_is_refused() {
    let mut random = Random::seeded("another block");
    let (world, built, parts) = three_parts(&mut random);
    let executor = executor(&world, 2);
    let arrive = |change: fn(&mut Header), dropped: usize| {
        let mut header = opening(&built.block.header);
        change(&mut header);
        let mut arrival = executor.arriving(&world.state, &world.parent, &header)?;
        for (transactions, fragment) in parts[..parts.len() - dropped].iter().cloned() {
            arrival.push(transactions, fragment)?;
        }
        Ok::<_, ReplayError>(arrival)
    };
    let refusal =
        |change, dropped, block| arrive(change, dropped).and_then(|arrival| arrival.finish(block)).unwrap_err();
    for (change, named) in [
        ((|header| header.mix_hash.0[0] ^= 1) as fn(&mut Header), "mix_hash"),
        (|header| header.timestamp += 1, "timestamp"),
        (|header| header.parent_beacon_block_root = Some(B256::ZERO), "parent_beacon_block_root"),
    ] {
        let error = match arrive(change, 0) {
            Ok(arrival) => arrival.finish(&built.block).unwrap_err(),
            // What the header says reaches the state.
            Err(ReplayError::Mismatch(_)) => continue,
            Err(other) => panic!("{named}: {other}"),
        };
        assert!(matches!(&error, ReplayError::Another(reason) if reason.contains(named)), "{named}: {error}");
    }
    let error = executor.arriving(&world.state, &world.parent, &Header::default()).unwrap_err();
    assert!(matches!(error, ReplayError::Execution(ExecutionError::Invalid(_))), "{error}");
    let error = refusal(|_| {}, 1, &built.block);
    assert_eq!(error.to_string(), "not the block that arrived: 6 transactions arrived, it has 8");
    let mut block = (*built.block).clone();
    block.body.transactions.swap(0, 1);
    let error = refusal(|_| {}, 0, &Arc::new(block));
    assert!(matches!(&error, ReplayError::Another(reason) if reason.starts_with("transaction 0")), "{error}");
    // The plain loop has the last word, and another beneficiary would have earned other fees.
    let arrival = arrive(|_| {}, 1).unwrap();
    assert!(same(&arrival.settle(&built.block).unwrap(), &built));
    let mut header = opening(&built.block.header);
    header.beneficiary = BOB;
    let mut arrival = executor.arriving(&world.state, &world.parent, &header).unwrap();
    for (transactions, fragment) in parts.clone() {
        let _ = arrival.push(transactions, fragment);
    }
    assert!(same(&arrival.settle(&built.block).unwrap(), &built));
}

#[test]
fn nothing_is_taken_after_an_error() {
    let mut random = Random::seeded("after an error");
    let (world, built, parts) = three_parts(&mut random);
    let executor = executor(&world, 2);
    let mut arrival = executor.arriving(&world.state, &world.parent, &built.block.header).unwrap();
    arrival.push(parts[0].0.clone(), parts[0].1.clone()).unwrap();
    let error = arrival.push(parts[1].0.clone(), parts[0].1.clone()).unwrap_err();
    assert!(matches!(error, ReplayError::Mismatch(_)), "{error}");
    assert_eq!(arrival.push(parts[1].0.clone(), parts[1].1.clone()).unwrap_err(), error);
    assert_eq!(arrival.finish(&built.block).unwrap_err(), error);
}

#[test]
fn a_list_that_grows_beyond_what_the_gas_pays_for_is_refused() {
    let address = |number: u64| Address::from_word(U256::from(number).into());
    let names = |numbers: Range<u64>| {
        let accounts = numbers.map(|number| AccountChanges::new(address(number))).collect();
        Cow::Owned(AccessList { accounts, wipes: Vec::new() })
    };
    let mut list = PartialList::new(100);
    list.extend(names(0..60), 1).unwrap();
    list.extend(names(60..100), 2).unwrap();
    assert_eq!(list.extend(names(0..1), 2).unwrap_err(), format!("account {} is named again", address(0)));
    let error = list.extend(names(100..101), 3).unwrap_err();
    assert_eq!(error, "101 items in the access list, the block's gas pays for 100");
}
