//! What the tests of the store stand on: settings for small stores, a disk that forgets, a world of blocks.

use std::{path::Path, sync::Arc, time::Duration};

use engine::{
    genesis::ChainSpec,
    limits::STATE_WINDOW_HEIGHTS,
    ports::{Store as _, StoreError},
    types::{Epoch, EpochStart, Height, Signature, SignedHeader},
};

use crate::{
    CheckpointPolicy, Config, Database, Keep, OpenError,
    disk::Disk,
    failpoint::{Action, FailPoints},
    index::Half,
};
pub(crate) use crate::{
    disk::faulty::{FaultyDisk, next},
    testing::world::{World, address, block_after, chain, chain_with, state_of, transaction},
};

pub(crate) fn config(dir: &Path) -> Config {
    Config {
        segment_bytes: 64 << 10,
        log_bytes: 16 << 10,
        checkpoint: CheckpointPolicy { interval: Duration::from_secs(3_600), ..CheckpointPolicy::default() },
        trie_bytes_max: 64 << 20,
        map_bytes_max: 1 << 30,
        background: false,
        ..Config::new(dir)
    }
}

pub(crate) fn open_on(disk: &FaultyDisk, config: Config, chain: &Arc<ChainSpec>) -> Result<Database, OpenError> {
    let fail = FailPoints::parse(config.fail_point.as_deref(), Action::Fail).map_err(OpenError::Config)?;
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Database::open_on(disk, fail, config, Arc::clone(chain))
}

/// Notes how an epoch begins on the tip.
pub(crate) fn begin_epoch(store: &Database, epoch: u64) -> Result<EpochStart, StoreError> {
    let header = store.tip().block.consensus.clone();
    let set = store.chain().validator_set().unwrap().in_epoch(Epoch(epoch));
    let handover = engine::testing::finality(&header).certificate;
    let tail = vec![SignedHeader { header: header.clone(), signature: Signature::default() }];
    let start = EpochStart { set, base: header.id(), handover, tail };
    store.begin_epoch(&start)?;
    Ok(start)
}

/// Heights of an epoch, where epochs are short.
pub(crate) const EPOCH_HEIGHTS: u64 = 8;

/// The height below the lowest block that is kept in a segment.
pub(crate) fn lowest(store: &Database) -> Height {
    store.inner.segments.lowest()
}

fn is_not_kept<T>(answer: Result<T, StoreError>, height: Height, lowest: Height) -> bool {
    let refusal = (height, lowest);
    matches!(answer, Err(StoreError::NotKept { height, lowest }) if (height, lowest) == refusal)
}

/// Compares what is kept with the model, and sees that the rest is refused.
pub(crate) fn check_kept(world: &World, store: &Database) {
    let mut found = world.compare(store);
    let lowest = lowest(store);
    let (known, state) = (store.inner.index.lowest(Half::Places), store.inner.index.lowest(Half::Changes));
    let (keep, window) = (store.inner.config.keep, Height(world.tip().0.saturating_sub(STATE_WINDOW_HEIGHTS)));
    assert_eq!(known, lowest);
    match keep {
        Some(Keep::All | Keep::Window { .. }) => assert_eq!(state, lowest),
        Some(Keep::Blocks { .. }) => assert!(lowest <= state && state <= window.max(lowest), "{state} of {window}"),
        None => assert!(lowest <= state),
    }
    for block in &world.blocks[1..] {
        let height = block.height();
        let logs = store.blocks_with_logs(&Default::default(), height..=height);
        if height <= lowest {
            assert!(is_not_kept(logs, height, lowest.next()), "logs of {height}");
        } else {
            let has_logs = block.receipts.iter().any(|receipt| !receipt.logs.is_empty());
            assert_eq!(logs.unwrap().heights, if has_logs { vec![height] } else { vec![] });
        }
        if height < state {
            // What is in memory is told whatever files there are.
            assert!(
                height >= store.inner.overlay.floor() || is_not_kept(store.view(height), height, state),
                "state at {height}"
            );
        } else if height.0.is_multiple_of(40) || height == state {
            world.compare_state(store, height, &mut found);
        }
    }
    assert_eq!(found.wrong, [""; 0]);
    // Slots that were wiped and that no block kept names cannot be told.
    assert!(
        found.errors.iter().all(|error| world.wipes && state > Height::GENESIS && error.contains("is not available")),
        "{found:?}"
    );
    world.check_proofs(store, world.tip());
    let view = store.view(Height(state.0.max(1)).min(world.tip())).unwrap();
    for block in &world.blocks[state.0.saturating_sub(255) as usize..=state.0 as usize] {
        assert_eq!(view.block_hash(block.height()), Ok(Some(block.hash())));
    }
    assert_eq!(store.scrub().findings, []);
}
