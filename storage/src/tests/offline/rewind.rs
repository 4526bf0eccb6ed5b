//! A chain that goes back holds what it held at that height, and goes on from there.

use engine::types::Height;

use super::*;
use crate::{
    disk::RealDisk,
    failpoint::OFFLINE_FAIL_POINTS,
    offline::{RewindError, rewind::rewind_on},
    tables::EPOCH,
};

fn back(dir: &Path, world: &World, to: u64) -> offline::Rewound {
    offline::rewind(settings(dir), Arc::clone(&world.chain), Height(to), &mut |_| {}).unwrap()
}

/// What the folder holds is what the world holds, no more.
fn check(dir: &Path, world: &World) {
    let store = open(dir, world);
    assert!(!store.take_recovered().is_lost);
    world.check(&store);
    let scrubbed = store.scrub();
    assert_eq!(scrubbed.findings, []);
    store.close().unwrap();
    let verified = offline::verify(dir, &world.chain, &mut |_| {}).unwrap();
    assert_eq!((verified.bad, verified.blocks, verified.unfinished_bytes), (vec![], world.tip().0, 0));
    let names = world.blocks.iter().flat_map(|block| [block.hash(), block.block.consensus.id()]);
    let mut names: Vec<_> = names.map(|name| name.to_vec()).collect();
    names.sort_unstable();
    let chain = env(dir, "chain", CHAIN_TABLES);
    let keys = |table| rows(&chain, table).into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    assert_eq!(keys(crate::tables::HEIGHT_BY_HASH), names);
    assert_eq!(keys(crate::tables::CANONICAL).len(), world.blocks.len());
    for (key, row) in rows(&chain, EPOCH).into_iter().filter(|(key, _)| key.len() == 8) {
        let start = <EpochStart as alloy_rlp::Decodable>::decode(&mut &row[..]).unwrap();
        assert!(names.contains(&start.base.to_vec()), "epoch {key:?} begins on no block");
    }
}

#[test]
fn a_rewound_chain_holds_what_it_held_and_goes_on() {
    for seed in 0..6 {
        let dir = tempfile::tempdir().unwrap();
        let mut world = made(dir.path(), 100 + seed, 60);
        for _ in 0..3 {
            let recovered = open(dir.path(), &world).take_recovered().entries;
            let tip = world.tip().0;
            let to = tip - (1 + world.roll(tip - 1)).min(1 + world.roll(50));
            let rewound = back(dir.path(), &world, to);
            assert_eq!((rewound.from, rewound.to), (tip, to));
            world.truncate(Height(to));
            let block = world.blocks.last().unwrap();
            assert_eq!((rewound.hash, rewound.root), (block.hash(), block.block.header.state_root));
            check(dir.path(), &world);
            let store = open(dir.path(), &world);
            assert_eq!(store.take_recovered().entries, recovered, "the log is not touched");
            let count = 1 + world.roll(30);
            world.commit(&store, count).unwrap();
            begin_epoch(&store, 90).unwrap();
            sign_floor(&world, &store);
            store.close().unwrap();
        }
        check_after_growth(dir.path(), &world);
    }
}

fn check_after_growth(dir: &Path, world: &World) {
    let store = open(dir, world);
    world.check(&store);
    assert_eq!(store.scrub().findings, []);
    store.close().unwrap();
    assert_eq!(offline::verify(dir, &world.chain, &mut |_| {}).unwrap().bad, []);
}

#[test]
fn a_chain_goes_back_to_block_0_and_no_further_ahead_than_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = made(dir.path(), 7, 30);
    let tip = world.tip();
    let above = offline::rewind(settings(dir.path()), Arc::clone(&world.chain), tip.next(), &mut |_| {});
    assert_eq!(above.unwrap_err(), RewindError::Above { to: tip.next(), tip });
    let same = back(dir.path(), &world, tip.0);
    assert_eq!((same.from, same.to), (tip.0, tip.0));
    check(dir.path(), &world);
    back(dir.path(), &world, 0);
    world.truncate(Height::GENESIS);
    check(dir.path(), &world);
}

#[test]
fn a_kill_while_rewinding_leaves_the_whole_chain_or_the_shorter_one() {
    let points = OFFLINE_FAIL_POINTS.iter().filter(|point| point.starts_with("rewind."));
    let points: Vec<&&str> = points.collect();
    assert_eq!(points.len(), 8);
    for (seed, point) in (0..).zip(points) {
        let dir = tempfile::tempdir().unwrap();
        let mut world = made(dir.path(), 200 + seed, 50);
        let to = Height(world.tip().0 / 2);
        let outcome = rewind_on(
            Arc::new(RealDisk),
            killed_at(point),
            settings(dir.path()),
            Arc::clone(&world.chain),
            to,
            &mut |_| {},
        );
        assert!(outcome.unwrap_err().to_string().contains("stopped at fail point"), "{point}");
        if !["rewind.state", "rewind.before_mark"].contains(point) {
            world.truncate(to);
        }
        check(dir.path(), &world);
        let store = open(dir.path(), &world);
        world.commit(&store, 3).unwrap();
        store.close().unwrap();
        check_after_growth(dir.path(), &world);
    }
}
