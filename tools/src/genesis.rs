//! Genesis files: geth's format in, [`ChainSpec`] out; and the genesis of a development chain.
//!
//! Sluice's own parameters stand in `config.sluice`; every one of them has a default:
//!
//! ```json
//! { "config": { "chainId": 1001, "shanghaiTime": 0, "cancunTime": 0, "pragueTime": 0, "osakaTime": 0,
//!     "sluice": { "slot_time_ms": 200, "window": 4, "delta_ms": 150, "epoch_slots": 18000,
//!                 "idle_interval_ms": 1000, "base_fee_denominator": 480, "base_fee_elasticity": 2,
//!                 "base_fee_minimum": 10000000, "validators": [] } },
//!   "gasLimit": "0x11e1a300", "baseFeePerGas": "0x3b9aca00", "alloc": { } }
//! ```

use std::{collections::BTreeMap, io::Read as _, path::Path};

use alloy_consensus::{
    EMPTY_OMMER_ROOT_HASH, EMPTY_ROOT_HASH, Header,
    constants::{EMPTY_WITHDRAWALS, GWEI_TO_WEI},
};
use alloy_eips::{eip2935, eip4788, eip7002, eip7251, eip7685::EMPTY_REQUESTS_HASH, eip7840::BlobParams};
use alloy_genesis::{ChainConfig, Genesis};
use alloy_primitives::{Address, B64, B256, Bytes, U256, address, hex};
use engine::genesis::{BaseFeeParams, ChainSpec, Fork, ForkSchedule, GenesisAccount, GenesisValidator, OrderingParams};
use eyre::{WrapErr, bail, ensure, eyre};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Gas limit of a block unless the genesis file says otherwise.
pub(crate) const GAS_LIMIT: u64 = 300_000_000;

/// Chain id of a development chain unless a flag says otherwise.
pub(crate) const DEV_CHAIN_ID: u64 = 31_337;

/// The deterministic deployer that CREATE2 tools expect (EIP-1014 tooling, Arachnid's proxy).
const CREATE2_DEPLOYER: Address = address!("4e59b44847b379578588920cA78FbF26c0B4956C");
const CREATE2_DEPLOYER_CODE: [u8; 69] = hex!(
    "7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffe03601600081602082378035828234f58015156039578182fd5b8082525050506014600cf3"
);

/// Multicall3, which clients look for at the same address on every chain.
const MULTICALL3: Address = address!("cA11bde05977b3631167028862bE2a173976CA11");
const MULTICALL3_CODE: &str = include_str!("../data/multicall3.hex");

/// Balance of a development account: 10,000 ether.
const DEV_BALANCE_ETHER: u64 = 10_000;

/// Largest file of validators that is read, in bytes: the most validators, each at its most addresses.
const VALIDATORS_BYTES_MAX: u64 = 1 << 20;

/// `config.sluice` of a genesis file.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
struct SluiceConfig {
    slot_time_ms: u64,
    window: u64,
    delta_ms: u64,
    epoch_slots: u64,
    idle_interval_ms: u64,
    base_fee_denominator: u64,
    base_fee_elasticity: u64,
    base_fee_minimum: u64,
    validators: Vec<ValidatorConfig>,
}

/// A validator as a genesis file names it.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ValidatorConfig {
    pub(crate) bls_pubkey: Bytes,
    pub(crate) proof_of_possession: Bytes,
    pub(crate) identity: Bytes,
    #[serde(default)]
    pub(crate) addresses: Vec<String>,
    pub(crate) stake: u64,
    pub(crate) fee_recipient: Address,
}

impl Default for SluiceConfig {
    fn default() -> Self {
        let ordering = OrderingParams::default();
        Self {
            slot_time_ms: ordering.slot_time_ms,
            window: ordering.window,
            delta_ms: ordering.delta_ms,
            epoch_slots: ordering.epoch_slots,
            idle_interval_ms: ordering.idle_interval_ms,
            base_fee_denominator: BaseFeeParams::SLUICE.denominator,
            base_fee_elasticity: BaseFeeParams::SLUICE.elasticity,
            base_fee_minimum: BaseFeeParams::SLUICE.minimum,
            validators: Vec::new(),
        }
    }
}

/// Reads and checks a genesis file.
pub(crate) fn load(path: &Path) -> eyre::Result<ChainSpec> {
    let text = std::fs::read_to_string(path).wrap_err_with(|| format!("cannot read {}", path.display()))?;
    parse(&text).wrap_err_with(|| format!("{} is not a genesis file of this chain", path.display()))
}

/// Turns the text of a genesis file into a checked chain.
pub(crate) fn parse(text: &str) -> eyre::Result<ChainSpec> {
    let genesis: Genesis = serde_json::from_str(text)?;
    let sluice = match genesis.config.extra_fields.get("sluice") {
        Some(value) => SluiceConfig::deserialize(value).wrap_err("config.sluice")?,
        None => SluiceConfig::default(),
    };
    let forks = schedule(&genesis.config)?;
    if genesis.excess_blob_gas.is_some_and(|gas| gas > 0) || genesis.blob_gas_used.is_some_and(|gas| gas > 0) {
        bail!("excessBlobGas and blobGasUsed must be 0: this chain takes no blobs");
    }
    let mut alloc = BTreeMap::new();
    for (address, account) in &genesis.alloc {
        let storage = account.storage_slots().map(|(key, value)| (key.into(), value)).collect();
        let code = account.code.clone().unwrap_or_default();
        let nonce = account.nonce.unwrap_or_default();
        alloc.insert(*address, GenesisAccount { nonce, balance: account.balance, code, storage });
    }
    let base_fee = u64::try_from(genesis.base_fee_per_gas.unwrap_or_else(|| u128::from(GWEI_TO_WEI)))
        .map_err(|_| eyre!("baseFeePerGas is larger than 64 bits"))?;
    let header = Header {
        parent_hash: genesis.parent_hash.unwrap_or_default(),
        beneficiary: genesis.coinbase,
        difficulty: genesis.difficulty,
        number: genesis.number.unwrap_or_default(),
        gas_limit: genesis.gas_limit,
        timestamp: genesis.timestamp,
        extra_data: genesis.extra_data.clone(),
        mix_hash: genesis.mix_hash,
        nonce: B64::from(genesis.nonce),
        base_fee_per_gas: Some(base_fee),
        ..Header::default()
    };
    finish(genesis.config.chain_id, genesis.config.deposit_contract_address, forks, sluice, header, alloc)
}

/// The genesis of a development chain.
pub(crate) fn dev(chain_id: u64, gas_limit: u64, accounts: &[Address]) -> eyre::Result<ChainSpec> {
    parse(&file(chain_id, gas_limit, accounts).to_string())
}

/// A genesis file with funded accounts, system contracts, CREATE2 deployer and Multicall3.
pub(crate) fn file(chain_id: u64, gas_limit: u64, funded: &[Address]) -> Value {
    let code = |code: &[u8]| json!({"nonce": "0x1", "balance": "0x0", "code": hex::encode_prefixed(code)});
    let mut alloc: serde_json::Map<String, Value> = [
        (eip4788::BEACON_ROOTS_ADDRESS, code(&eip4788::BEACON_ROOTS_CODE)),
        (eip2935::HISTORY_STORAGE_ADDRESS, code(&eip2935::HISTORY_STORAGE_CODE)),
        (eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS, code(&eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_CODE)),
        (eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS, code(&eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_CODE)),
        (CREATE2_DEPLOYER, code(&CREATE2_DEPLOYER_CODE)),
        (MULTICALL3, json!({"nonce": "0x1", "balance": "0x0", "code": format!("0x{}", MULTICALL3_CODE.trim())})),
    ]
    .into_iter()
    .map(|(address, account)| (address.to_string(), account))
    .collect();
    let balance = U256::from(DEV_BALANCE_ETHER).saturating_mul(U256::from(10_u64.pow(18)));
    alloc.extend(funded.iter().map(|address| (address.to_string(), json!({ "balance": balance }))));
    json!({
        "config": {
            "chainId": chain_id,
            "shanghaiTime": 0, "cancunTime": 0, "pragueTime": 0, "osakaTime": 0,
            "sluice": SluiceConfig::default(),
        },
        "gasLimit": format!("{gas_limit:#x}"),
        "baseFeePerGas": format!("{GWEI_TO_WEI:#x}"),
        "difficulty": "0x0",
        "alloc": alloc,
    })
}

/// Reads validators, one behind the other as `sluice keys prove` prints them.
pub(crate) fn validators(path: &Path) -> eyre::Result<Vec<ValidatorConfig>> {
    let failed = || format!("cannot read validators from {}", path.display());
    let mut text = String::new();
    let file = std::fs::File::open(path).wrap_err_with(failed)?;
    file.take(VALIDATORS_BYTES_MAX.saturating_add(1)).read_to_string(&mut text).wrap_err_with(failed)?;
    let is_short = u64::try_from(text.len()).is_ok_and(|bytes| bytes <= VALIDATORS_BYTES_MAX);
    ensure!(is_short, "{} has more than {VALIDATORS_BYTES_MAX} bytes", path.display());
    let read: Result<Vec<_>, _> = serde_json::Deserializer::from_str(&text).into_iter().collect();
    let read: Vec<ValidatorConfig> = read.wrap_err_with(failed)?;
    ensure!(!read.is_empty(), "{} names no validator", path.display());
    Ok(read)
}

/// Puts validators into a genesis file; whoever reads the file checks them.
pub(crate) fn name_validators(file: &mut Value, validators: &[ValidatorConfig]) -> eyre::Result<()> {
    let sluice = file.pointer_mut("/config/sluice/validators").ok_or_else(|| eyre!("the file has no config.sluice"))?;
    *sluice = serde_json::to_value(validators)?;
    Ok(())
}

/// Fills in what follows from the rest, and checks the whole.
fn finish(
    chain_id: u64,
    deposit_contract: Option<Address>,
    forks: ForkSchedule,
    sluice: SluiceConfig,
    header: Header,
    alloc: BTreeMap<Address, GenesisAccount>,
) -> eyre::Result<ChainSpec> {
    let fork = forks.fork_at(header.timestamp);
    let from = |first: Fork| fork >= first;
    let genesis_header = Header {
        ommers_hash: EMPTY_OMMER_ROOT_HASH,
        state_root: storage::genesis::state_root(&alloc),
        transactions_root: EMPTY_ROOT_HASH,
        receipts_root: EMPTY_ROOT_HASH,
        withdrawals_root: from(Fork::Shanghai).then_some(EMPTY_WITHDRAWALS),
        blob_gas_used: from(Fork::Cancun).then_some(0),
        excess_blob_gas: from(Fork::Cancun).then_some(0),
        parent_beacon_block_root: from(Fork::Cancun).then_some(B256::ZERO),
        requests_hash: from(Fork::Prague).then_some(EMPTY_REQUESTS_HASH),
        ..header
    };
    let validators = sluice
        .validators
        .into_iter()
        .map(|validator| GenesisValidator {
            bls_pubkey: validator.bls_pubkey,
            proof_of_possession: validator.proof_of_possession,
            identity: validator.identity,
            addresses: validator.addresses,
            stake: validator.stake,
            fee_recipient: validator.fee_recipient,
        })
        .collect();
    let chain = ChainSpec {
        chain_id,
        forks,
        base_fee: BaseFeeParams {
            denominator: sluice.base_fee_denominator,
            elasticity: sluice.base_fee_elasticity,
            minimum: sluice.base_fee_minimum,
        },
        deposit_contract,
        ordering: OrderingParams {
            slot_time_ms: sluice.slot_time_ms,
            window: sluice.window,
            delta_ms: sluice.delta_ms,
            epoch_slots: sluice.epoch_slots,
            idle_interval_ms: sluice.idle_interval_ms,
            validators,
        },
        genesis_header,
        alloc,
    };
    chain.check()?;
    Ok(chain)
}

/// Reads the fork times; a later fork must not begin before an earlier one.
fn schedule(config: &ChainConfig) -> eyre::Result<ForkSchedule> {
    if config.amsterdam_time.is_some() || config.bogota_time.is_some() {
        bail!("config: forks after Osaka are not supported");
    }
    for (name, block) in [
        ("homesteadBlock", config.homestead_block),
        ("eip150Block", config.eip150_block),
        ("eip155Block", config.eip155_block),
        ("eip158Block", config.eip158_block),
        ("byzantiumBlock", config.byzantium_block),
        ("constantinopleBlock", config.constantinople_block),
        ("petersburgBlock", config.petersburg_block),
        ("istanbulBlock", config.istanbul_block),
        ("berlinBlock", config.berlin_block),
        ("londonBlock", config.london_block),
        ("mergeNetsplitBlock", config.merge_netsplit_block),
    ] {
        if let Some(block) = block.filter(|block| *block > 0) {
            bail!("config.{name} is {block}: every fork up to Paris is active from block 0");
        }
    }
    let times = [
        (Fork::Shanghai, "shanghaiTime", config.shanghai_time),
        (Fork::Cancun, "cancunTime", config.cancun_time),
        (Fork::Prague, "pragueTime", config.prague_time),
        (Fork::Osaka, "osakaTime", config.osaka_time),
    ];
    let mut schedule = ForkSchedule { base: Fork::Paris, times: Vec::new(), blobs: Vec::new() };
    let nothing_named = times.iter().all(|(_, _, time)| time.is_none());
    for (index, (fork, name, time)) in times.into_iter().enumerate() {
        let time = if nothing_named { Some(0) } else { time };
        let Some(time) = time else {
            if let Some((_, later, _)) = times[index..].iter().find(|(_, _, later)| later.is_some()) {
                bail!("config.{later} is set but {name}, which comes before it, is not");
            }
            break;
        };
        if schedule.times.last().is_some_and(|(_, before)| *before > time) {
            bail!("config.{name} is {time}, before the fork it builds on");
        }
        schedule.times.push((fork, time));
        if let Some(default) = default_blobs(fork) {
            let named = config.blob_schedule.get(&fork.name().to_lowercase()).copied();
            schedule.blobs.push((time, named.unwrap_or(default)));
        }
    }
    let bpo = [config.bpo1_time, config.bpo2_time, config.bpo3_time, config.bpo4_time, config.bpo5_time];
    for (index, time) in bpo.into_iter().enumerate() {
        let Some(time) = time else { continue };
        let name = format!("bpo{}", index.saturating_add(1));
        let params = config.blob_schedule.get(&name).copied();
        schedule
            .blobs
            .push((time, params.ok_or_else(|| eyre!("config.{name}Time is set but blobSchedule.{name} is not"))?));
    }
    Ok(schedule)
}

const fn default_blobs(fork: Fork) -> Option<BlobParams> {
    match fork {
        Fork::Cancun => Some(BlobParams::cancun()),
        Fork::Prague => Some(BlobParams::prague()),
        Fork::Osaka => Some(BlobParams::osaka()),
        _ => None,
    }
}
