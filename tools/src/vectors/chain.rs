//! The chain a vector runs on: its fork or fork transition, blob schedule and chain id.

use std::collections::BTreeMap;

use alloy_consensus::Header;
use alloy_eips::{eip6110::MAINNET_DEPOSIT_CONTRACT_ADDRESS, eip7594, eip7840::BlobParams};
use engine::genesis::{BaseFeeParams, ChainSpec, Fork, ForkSchedule, OrderingParams};
use eyre::{WrapErr, eyre};
use serde_json::Value;

use super::json;

/// Why a vector names a fork that no code here knows.
#[derive(Debug)]
pub(crate) enum ForkError {
    /// Ethereum has it, this chain's code has not.
    Unsupported(String),
    /// The vector is malformed.
    Malformed(eyre::Report),
}

/// A fork as vectors name it; forks that only change blob parameters are Osaka.
fn fork(name: &str) -> Option<Fork> {
    let known = match name {
        "EIP150" => Fork::Tangerine,
        "EIP158" => Fork::SpuriousDragon,
        "ConstantinopleFix" => Fork::Petersburg,
        "Merge" => Fork::Paris,
        other if other.strip_prefix("BPO").is_some_and(|number| number.parse::<u8>().is_ok()) => Fork::Osaka,
        other => return Fork::ALL.into_iter().find(|fork| fork.name() == other),
    };
    Some(known)
}

/// The forks of `Prague`, or of `PragueToOsakaAtTime15k`, with the times from which they hold.
fn stages(network: &str) -> Result<Vec<(&str, Fork, u64)>, ForkError> {
    let known = |name| fork(name).ok_or_else(|| ForkError::Unsupported(format!("fork {network} is not supported")));
    let Some((before, rest)) = network.split_once("To") else {
        return Ok(vec![(network, known(network)?, 0)]);
    };
    let Some((after, time)) = rest.split_once("AtTime") else {
        return Err(ForkError::Unsupported(format!("fork {network} is not supported")));
    };
    let (digits, unit) = time.strip_suffix('k').map_or((time, 1), |digits| (digits, 1_000));
    let time: u64 = digits.parse().map_err(|_| ForkError::Malformed(eyre!("{network} names no time")))?;
    Ok(vec![(before, known(before)?, 0), (after, known(after)?, time.saturating_mul(unit))])
}

/// Blob parameters by default, where the vector carries none.
const fn default_blobs(fork: Fork) -> Option<BlobParams> {
    match fork {
        Fork::Cancun => Some(BlobParams::cancun()),
        Fork::Prague => Some(BlobParams::prague()),
        Fork::Osaka => Some(BlobParams::osaka()),
        _ => None,
    }
}

/// Blob parameters of a stage: the vector's if it has a schedule.
fn blobs(name: &str, fork: Fork, config: Option<&Value>) -> eyre::Result<Option<BlobParams>> {
    let Some(defaults) = default_blobs(fork) else {
        return Ok(None);
    };
    let Some(given) = config.and_then(|config| config.get("blobSchedule")).and_then(|schedule| schedule.get(name))
    else {
        return Ok(Some(defaults));
    };
    let max_blob_count = json::u64(given, "max")?;
    Ok(Some(BlobParams {
        target_blob_count: json::u64(given, "target")?,
        max_blob_count,
        update_fraction: u128::from(json::u64(given, "baseFeeUpdateFraction")?),
        // Osaka bounds a transaction beside the block (EIP-7594).
        max_blobs_per_tx: if fork >= Fork::Osaka { eip7594::MAX_BLOBS_PER_TX_FUSAKA } else { max_blob_count },
        ..defaults
    }))
}

/// The chain of a vector with this fork name and `config`.
pub(crate) fn spec(network: &str, config: Option<&Value>, genesis_header: Header) -> Result<ChainSpec, ForkError> {
    let stages = stages(network)?;
    let mut forks = ForkSchedule { base: Fork::Paris, times: Vec::new(), blobs: Vec::new() };
    for (stage, (name, fork, time)) in stages.into_iter().enumerate() {
        if stage == 0 {
            forks.base = fork;
        } else {
            forks.times.push((fork, time));
        }
        let blobs = blobs(name, fork, config).wrap_err("`config.blobSchedule`").map_err(ForkError::Malformed)?;
        forks.blobs.extend(blobs.map(|blobs| (time, blobs)));
    }
    let chain_id = match config.map(|config| json::u64_if_any(config, "chainid")).transpose() {
        Ok(chain_id) => chain_id.flatten().unwrap_or(1),
        Err(error) => return Err(ForkError::Malformed(error)),
    };
    Ok(ChainSpec {
        chain_id,
        forks,
        base_fee: BaseFeeParams::ETHEREUM,
        deposit_contract: Some(MAINNET_DEPOSIT_CONTRACT_ADDRESS),
        ordering: OrderingParams::default(),
        genesis_header,
        alloc: BTreeMap::new(),
    })
}
