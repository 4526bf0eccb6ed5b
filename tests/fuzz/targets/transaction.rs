//! Raw transactions: every check before the curve, and the round trip of what decodes.

#![no_main]

use std::{collections::BTreeMap, sync::LazyLock};

use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::Bytes;
use engine::{
    admission::checks,
    genesis::{BaseFeeParams, ChainSpec, Fork, ForkSchedule, OrderingParams},
    types::transaction,
};
use libfuzzer_sys::fuzz_target;

static CHAIN: LazyLock<ChainSpec> = LazyLock::new(|| ChainSpec {
    chain_id: 1,
    forks: ForkSchedule::all_at_zero(Fork::Osaka),
    base_fee: BaseFeeParams::SLUICE,
    deposit_contract: None,
    ordering: OrderingParams::default(),
    genesis_header: alloy_consensus::Header::default(),
    alloc: BTreeMap::new(),
});

fuzz_target!(|data: &[u8]| {
    let raw = Bytes::copy_from_slice(data);
    for fork in [Fork::Paris, Fork::Shanghai, Fork::Osaka] {
        let _ = checks::stateless(&raw, &CHAIN, fork, 300_000_000).map_err(|error| error.to_string());
    }
    if let Ok(envelope) = transaction::decode(data) {
        assert_eq!(envelope.encoded_2718(), data, "one transaction, one encoding");
    }
});
