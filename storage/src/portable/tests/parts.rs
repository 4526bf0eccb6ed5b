//! A state that is given part by part out of what was, while its chain goes on, and taken over in any order.

use engine::{genesis::OrderingParams, types::Epoch};

use super::*;
use crate::portable::{ChunkError, Gap, Head, Held, Intake, serve::part};

const STEP: u64 = 4;

/// A chain that gives its state at every fourth height.
fn stepping(seed: u64) -> Arc<ChainSpec> {
    let chain = chain(seed);
    let ordering = OrderingParams { epoch_slots: STEP, ..chain.ordering.clone() };
    Arc::new(ChainSpec { ordering, ..ChainSpec::clone(&chain) })
}

/// A store at height 7 after a checkpoint there, and the state at height 4.
fn giver(dir: &Path, chain: &Arc<ChainSpec>) -> (Database, State, State) {
    let mut state = state_of(chain);
    let store =
        open_on(&FaultyDisk::default(), Config { dir: dir.to_owned(), ..config(dir) }, chain).expect("it opens");
    let mut given = state.clone();
    for height in 1..=7 {
        advance(&store, &mut state);
        store.checkpoint().expect("a checkpoint");
        if height == STEP {
            given = state.clone();
        }
    }
    (store, given, state)
}

/// What a caller has seen to be final.
fn founded(store: &Database, head: &Head) -> Foundation {
    let proof = head.proofs.last().expect("a block");
    let (header, certificate) = (proof.headers.last().expect("a header").clone(), proof.certificate);
    let block = head.blocks.blocks[0].block(header, certificate).expect("it is carried");
    head.blocks.check_headers(&block, store.chain().genesis_hash()).expect("they lead down");
    Foundation { blocks: vec![block], headers: head.blocks.headers.clone(), epochs: Vec::new() }
}

#[test]
fn a_state_is_taken_over_in_any_order_while_its_chain_goes_on() {
    for seed in [21, 22, 23] {
        let home = tempfile::tempdir().expect("a folder");
        let chain = stepping(seed);
        let (store, given, mut state) = giver(&home.path().join("a"), &chain);
        let (block, bytes) = store.state_head(None, Epoch(0)).expect("a head");
        let head = Head::decode(&bytes).expect("it decodes");
        assert_eq!((head.block(), &head.encode()[..]), (Some(block), &bytes[..]));
        let foundation = founded(&store, &head);
        let newest = &foundation.blocks[0];
        let root = newest.block.header.state_root;
        assert_eq!((newest.height(), root), (Height(STEP), root_of(&given)));

        let settings = config(&home.path().join("b"));
        let open = || Intake::open(&settings, &chain, block).expect("it goes on");
        let (mut random, mut intake, mut taken) = (seed, open(), 0);
        loop {
            let gaps = intake.gaps(8);
            if gaps.is_empty() {
                break;
            }
            let Gap { owner, from, .. } = gaps[next(&mut random) as usize % gaps.len()];
            let part = part(&store, block, (owner, from), 700).expect("a part");
            // What somebody changed on the way changes nothing here.
            let mut lie = part.to_vec();
            let at = next(&mut random) as usize % lie.len();
            lie[at] ^= 1 << (next(&mut random) % 8);
            match intake.take(root, &lie).expect("the store works") {
                Err(_) => assert_eq!(intake.gaps(0), gaps),
                // No account or slot lies between the two keys.
                Ok(part) => assert_ne!((part.owner, part.from), (owner, from), "seed {seed}, byte {at}"),
            }
            // An old part may come again.
            for _ in 0..=next(&mut random) % 2 {
                let part = intake.take(root, &part).expect("the store works").expect("it is one");
                assert_eq!((part.owner, part.from), (owner, from));
            }
            taken += 1;
            match next(&mut random) % 4 {
                0 => {
                    drop(intake);
                    assert_eq!(Intake::held(&settings), Ok(Held::Part(block)));
                    intake = open();
                }
                1 => {
                    advance(&store, &mut state);
                    store.checkpoint().expect("a checkpoint");
                }
                _ => {}
            }
        }
        assert!(taken > 15, "seed {seed}: {taken} parts");
        intake.finish(&chain, &foundation, &|_| ()).expect("it is all here");
        let made = open_on(&FaultyDisk::default(), settings, &chain).expect("it opens");
        assert_eq!(made.tip(), Arc::new(newest.clone()));
        check_state(&made, &given);
        let mut state = given;
        advance(&made, &mut state);
        check_state(&made, &state);
    }
}

/// That an account has slots is shown by their root alone, however few there are.
#[test]
fn a_part_that_puts_off_slots_that_fit_is_refused() {
    let home = tempfile::tempdir().expect("a folder");
    let chain = stepping(26);
    let (store, ..) = giver(&home.path().join("a"), &chain);
    let (block, root) = {
        let header = store.header(Height(STEP)).expect("kept").expect("a header");
        (header.seal(), header.state_root)
    };
    let mut part = Chunk::decode(&store.state_part(block, None, B256::ZERO).expect("a part")).expect("it decodes");
    let roots = part.check(root).expect("it is right").roots;
    let Body::Accounts(accounts) = &mut part.body else { panic!("accounts") };
    let mut put_off = 0;
    for (row, root) in accounts.rows.iter_mut().zip(roots) {
        if row.storage != Storage::Here(Vec::new()) {
            row.storage = Storage::Apart(root);
            put_off += 1;
        }
    }
    assert!(put_off > 4, "{put_off}");
    part.check(root).expect("nothing of it is wrong");
    let mut intake = Intake::open(&config(&home.path().join("b")), &chain, block).expect("it is empty");
    let refused = intake.take(root, &part.encode()).expect("the store works");
    assert_eq!(refused, Err(ChunkError::Apart(put_off)));
}

#[test]
fn what_is_not_given_is_refused() {
    let home = tempfile::tempdir().expect("a folder");
    let chain = stepping(24);
    let (store, ..) = giver(&home.path().join("a"), &chain);
    let hash = |height| store.header(Height(height)).expect("kept").expect("a header").seal();
    for (height, reason) in [(0, "genesis"), (3, "no multiple"), (5, "no multiple")] {
        assert!(store.state_head(Some(hash(height)), Epoch(0)).is_err(), "{height}: {reason}");
        assert!(store.state_part(hash(height), None, B256::ZERO).is_err(), "{height}: {reason}");
    }
    assert!(store.state_part(B256::repeat_byte(1), None, B256::ZERO).is_err(), "no block");
    let block = hash(STEP);
    assert!(store.state_part(block, Some(B256::repeat_byte(1)), B256::ZERO).is_err(), "no account");
    assert!(store.state_part(block, None, B256::repeat_byte(0xff)).is_ok(), "behind the last account");
    // A folder with a part of one state takes no other, and does not open.
    let settings = config(&home.path().join("b"));
    let mut intake = Intake::open(&settings, &chain, block).expect("it is empty");
    let root = store.header(Height(STEP)).expect("kept").expect("a header").state_root;
    let part = store.state_part(block, None, B256::ZERO).expect("a part");
    let other = intake.take(B256::repeat_byte(2), &part).expect("the store works");
    assert!(other.is_err(), "{other:?}");
    intake.take(root, &part).expect("the store works").expect("it is one");
    drop(intake);
    let other = Intake::open(&settings, &chain, B256::repeat_byte(3)).map(drop);
    assert!(matches!(other, Err(PortableError::OtherImport(_))), "{other:?}");
    let opened = open_on(&FaultyDisk::default(), settings.clone(), &chain).map(drop);
    assert!(matches!(opened, Err(crate::OpenError::Unfinished(_))), "{opened:?}");
    // It does once it is told to let go.
    Intake::discard(&settings).expect("it lets go");
    assert_eq!(Intake::held(&settings), Ok(Held::Nothing));
    Intake::open(&settings, &chain, B256::repeat_byte(3)).map(drop).expect("it takes another");
    // Nor does a whole store become one.
    drop(store);
    let held = Intake::open(&config(&home.path().join("a")), &chain, block).map(drop);
    assert!(matches!(held, Err(PortableError::HoldsChain(_))), "{held:?}");
    assert_eq!(Intake::held(&config(&home.path().join("a"))), Ok(Held::Chain));
    assert_eq!(Intake::held(&config(&home.path().join("c"))), Ok(Held::Nothing));
}

#[test]
fn a_state_of_which_a_part_is_missing_is_not_finished() {
    let home = tempfile::tempdir().expect("a folder");
    let chain = stepping(25);
    let (store, ..) = giver(&home.path().join("a"), &chain);
    let (block, bytes) = store.state_head(None, Epoch(0)).expect("a head");
    let foundation = founded(&store, &Head::decode(&bytes).expect("it decodes"));
    let intake = Intake::open(&config(&home.path().join("b")), &chain, block).expect("it is empty");
    let refused = intake.finish(&chain, &foundation, &|_| ());
    assert!(refused.as_ref().is_err_and(|error| error.to_string().contains("is missing")), "{refused:?}");
}
