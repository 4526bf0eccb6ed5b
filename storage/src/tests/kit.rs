//! What the tests of the store stand on: settings for small stores, a disk that forgets, a world of blocks.

use std::{path::Path, sync::Arc, time::Duration};

use engine::genesis::ChainSpec;

use crate::{
    CheckpointPolicy, Config, Database, OpenError,
    disk::Disk,
    failpoint::{Action, FailPoints},
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
