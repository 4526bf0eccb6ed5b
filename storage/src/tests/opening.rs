//! What a folder is refused for, and what opening leaves alone.

use std::sync::Arc;

use engine::{
    genesis::{ChainSpec, Fork, ForkSchedule},
    ports::Store,
    types::Height,
};

use super::kit::{FaultyDisk, World, address, chain, chain_with, config, open_on};
use crate::{
    Config, Database, OpenError,
    kv::Env,
    tables::{CHAIN_META, CHAIN_TABLES, meta},
};

#[test]
fn a_folder_of_another_genesis_is_refused_whatever_differs() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let ours = chain();
    open_on(&disk, config(dir.path()), &ours).unwrap().close().unwrap();
    let change = |with: fn(&mut ChainSpec)| {
        let mut chain = (*ours).clone();
        with(&mut chain);
        Arc::new(chain)
    };
    for theirs in [
        chain_with(Default::default()),
        change(|chain| chain.chain_id += 1),
        change(|chain| chain.forks = ForkSchedule::all_at_zero(Fork::Cancun)),
        change(|chain| chain.forks.times.push((Fork::Osaka, 9_999_999_999))),
        change(|chain| chain.forks.blobs.clear()),
        change(|chain| chain.base_fee.minimum += 1),
        change(|chain| chain.ordering.slot_time_ms += 1),
        change(|chain| chain.deposit_contract = Some(address(3))),
    ] {
        let error = open_on(&disk, config(dir.path()), &theirs).unwrap_err();
        let expected = OpenError::WrongChain {
            dir: dir.path().to_owned(),
            found: (ours.chain_id, ours.digest()),
            expected: (theirs.chain_id, theirs.digest()),
        };
        assert_eq!(error, expected);
        let text = error.to_string();
        assert!(text.contains(&ours.digest().to_string()) && text.contains(&theirs.digest().to_string()), "{text}");
    }
    // The refusal changed nothing.
    open_on(&disk, config(dir.path()), &ours).unwrap();
}

#[test]
fn another_major_schema_is_refused_and_a_newer_minor_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    open_on(&disk, config(dir.path()), &chain()).unwrap().close().unwrap();
    let set = |schema: [u8; 4]| {
        let env = Env::open(&dir.path().join("chain"), CHAIN_TABLES, 1 << 30).unwrap();
        let mut txn = env.write().unwrap();
        txn.put(CHAIN_META, meta::SCHEMA, &schema).unwrap();
        txn.commit().unwrap();
    };
    set([0, 3, 0, 0]);
    let error = open_on(&disk, config(dir.path()), &chain()).unwrap_err();
    assert!(matches!(error, OpenError::NewerSchema { found: (3, 0), known: (2, 3), .. }), "{error}");
    set([0, 1, 0, 0]);
    let error = open_on(&disk, config(dir.path()), &chain()).unwrap_err();
    assert!(matches!(error, OpenError::OlderSchema { found: (1, 0), known: (2, 3), .. }), "{error}");
    set([0, 2, 0, 9]);
    open_on(&disk, config(dir.path()), &chain()).unwrap();
}

#[test]
fn a_second_opener_is_refused_while_the_store_or_a_view_lives() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Config { background: false, segment_bytes: 64 << 10, ..Config::new(dir.path()) };
    let store = Database::open(settings.clone(), chain()).unwrap();
    let locked = OpenError::Locked(dir.path().to_owned());
    assert_eq!(Database::open(settings.clone(), chain()).unwrap_err(), locked);
    let view = store.view(Height::GENESIS).unwrap();
    store.close().unwrap();
    assert_eq!(Database::open(settings.clone(), chain()).unwrap_err(), locked);
    drop(view);
    Database::open(settings, chain()).unwrap();
}

#[test]
fn a_genesis_header_with_another_root_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut wrong = (*chain()).clone();
    let accounts = wrong.genesis_header.state_root;
    wrong.genesis_header.state_root = alloy_primitives::B256::repeat_byte(1);
    let error = open_on(&FaultyDisk::default(), config(dir.path()), &wrong.into()).unwrap_err();
    assert_eq!(error, OpenError::GenesisRoot { header: alloy_primitives::B256::repeat_byte(1), accounts });
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let small = Config { segment_bytes: 100, ..config(dir.path()) };
    assert!(matches!(open_on(&FaultyDisk::default(), small, &chain()), Err(OpenError::Config(_))));
    for point in ["nowhere", "index.write:0", "index.write:x"] {
        let armed = Config { fail_point: Some(point.to_owned()), ..config(dir.path()) };
        assert!(matches!(open_on(&FaultyDisk::default(), armed, &chain()), Err(OpenError::Config(_))), "{point}");
    }
}

#[test]
fn damaged_missing_and_foreign_segments_are_corruption() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let mut world = World::new(3);
    let mut settings = config(dir.path());
    settings.segment_bytes = 8_192;
    let store = open_on(&disk, settings.clone(), &world.chain).unwrap();
    while world.tip() < Height(60) {
        world.commit(&store, 2).unwrap();
    }
    store.close().unwrap();
    let path = |number: u32| dir.path().join("segments").join(format!("{number:08}.seg"));
    assert!(disk.names().contains(&path(2)));
    let refused = |change: &dyn Fn(&FaultyDisk)| {
        let fork = disk.fork();
        change(&fork);
        let error = open_on(&fork, settings.clone(), &world.chain).unwrap_err();
        assert!(matches!(error, OpenError::Corrupt(_)), "{error}");
    };
    for at in [0, 9, 20, 30, 55, 60, 68, 73] {
        refused(&|disk| {
            let mut bytes = disk.bytes(&path(1));
            bytes[at] ^= 1;
            disk.set_bytes(&path(1), bytes);
        });
    }
    refused(&|disk| disk.forget(&path(1)));
    refused(&|disk| disk.set_bytes(&path(1), disk.bytes(&path(0))));
    refused(&|disk| disk.set_bytes(&path(1), disk.bytes(&path(1))[..5_000].to_vec()));
    refused(&|disk| disk.set_bytes(&path(1), Vec::new()));
    open_on(&disk, settings, &world.chain).unwrap();
}
