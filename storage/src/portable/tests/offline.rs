//! What is done to a closed folder, done to one that took a state over.

use engine::types::{Epoch, EpochStart};

use super::*;
use crate::{offline, tests::kit::begin_epoch};

/// How an epoch began on a block of which the folder has nothing.
fn long_ago(kit: &Kit, epoch: u64) -> EpochStart {
    let set = kit.chain.validator_set().expect("a set").in_epoch(Epoch(epoch));
    let handover = engine::testing::finality(&kit.foundation.blocks[0].block.consensus).certificate;
    EpochStart { set, base: B256::repeat_byte(epoch as u8), handover, tail: Vec::new() }
}

#[test]
fn an_imported_folder_is_whole_goes_back_and_keeps_how_epochs_began() {
    let mut kit = Kit::new(13, 3_000);
    let known = [1, 2].map(|epoch| long_ago(&kit, epoch));
    kit.foundation.epochs = known.to_vec();
    let settings = kit.folder("b");
    kit.import(&settings).expect("it is imported");
    let verified = |blocks: u64| {
        let found = offline::verify(&settings.dir, &kit.chain, &mut |_| {}).expect("it is read");
        assert_eq!((found.bad, found.blocks), (Vec::new(), blocks));
    };
    verified(0);
    let open = || Database::open(settings.clone(), Arc::clone(&kit.chain)).expect("it opens");
    let store = open();
    store.close().expect("it is closed");
    verified(0);
    let (store, mut state) = (open(), kit.state.clone());
    advance(&store, &mut state);
    let (kept, tip) = (state.clone(), store.tip());
    begin_epoch(&store, 3).expect("an epoch");
    (0..3).for_each(|_| advance(&store, &mut state));
    begin_epoch(&store, 4).expect("an epoch");
    store.close().expect("it is closed");
    verified(4);
    for (to, expected) in [(BLOCKS + 1, &kept), (BLOCKS, &kit.state)] {
        offline::rewind(settings.clone(), Arc::clone(&kit.chain), Height(to), &mut |_| {}).expect("it goes back");
        verified(to - BLOCKS);
        let store = open();
        check_state(&store, expected);
        let begun = |epoch| store.epoch(Epoch(epoch)).expect("rows of epochs");
        assert_eq!([begun(1), begun(2)], known.clone().map(Some), "at {to}");
        assert_eq!(begun(3).map(|start| start.base), (to > BLOCKS).then(|| tip.block.consensus.id()));
        assert_eq!(begun(4), None);
        store.close().expect("it is closed");
    }
    let refused = offline::rewind(settings.clone(), Arc::clone(&kit.chain), Height(BLOCKS - 1), &mut |_| {});
    assert!(matches!(refused, Err(offline::RewindError::Below { .. })), "{refused:?}");
}
