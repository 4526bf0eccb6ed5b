//! Genesis values: the chain's parameters, its fork schedule and its block 0.
//!
//! The file format is the tools' affair; what arrives here is checked by [`ChainSpec::check`]
//! before anything is stored or executed.
//!
//! Source: EIP-1559 (base fee), EIP-7840 and EIP-7892 (blob schedule), EIP-2935, 4788, 7002, 7251
//! (system contracts).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use alloy_consensus::{Header, Sealable as _};
use alloy_eips::{eip4895::Withdrawals, eip7840::BlobParams};
use alloy_primitives::{Address, B256, Bytes, FixedBytes, U256, address, keccak256};
use alloy_rlp::Encodable;

use crate::{
    crypto::bls,
    limits,
    types::{
        AccessList, Block, BlockBody, ConsensusHeader, Domain, Epoch, PublicKey, Signature, Validator, ValidatorSet,
    },
};

/// A set of EVM and header rules, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fork {
    /// 2015.
    Frontier,
    /// EIP-606.
    Homestead,
    /// EIP-608.
    Tangerine,
    /// EIP-607.
    SpuriousDragon,
    /// EIP-609.
    Byzantium,
    /// EIP-1716 (Constantinople with EIP-1283 taken back).
    Petersburg,
    /// EIP-1679.
    Istanbul,
    /// EIP-2565, 2929, 2718, 2930.
    Berlin,
    /// EIP-1559, 3198, 3529, 3541.
    London,
    /// Proof of stake: EIP-3675, 4399.
    Paris,
    /// EIP-3651, 3855, 3860, 4895.
    Shanghai,
    /// EIP-1153, 4788, 4844, 5656, 6780, 7516.
    Cancun,
    /// EIP-2537, 2935, 6110, 7002, 7251, 7623, 7685, 7691, 7702.
    Prague,
    /// EIP-7594, 7642, 7823, 7825, 7883, 7918, 7934, 7939, 7951.
    Osaka,
}

impl Fork {
    /// All forks, oldest first.
    pub const ALL: [Self; 14] = [
        Self::Frontier,
        Self::Homestead,
        Self::Tangerine,
        Self::SpuriousDragon,
        Self::Byzantium,
        Self::Petersburg,
        Self::Istanbul,
        Self::Berlin,
        Self::London,
        Self::Paris,
        Self::Shanghai,
        Self::Cancun,
        Self::Prague,
        Self::Osaka,
    ];

    /// The name that genesis files and fixtures use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Frontier => "Frontier",
            Self::Homestead => "Homestead",
            Self::Tangerine => "Tangerine",
            Self::SpuriousDragon => "SpuriousDragon",
            Self::Byzantium => "Byzantium",
            Self::Petersburg => "Petersburg",
            Self::Istanbul => "Istanbul",
            Self::Berlin => "Berlin",
            Self::London => "London",
            Self::Paris => "Paris",
            Self::Shanghai => "Shanghai",
            Self::Cancun => "Cancun",
            Self::Prague => "Prague",
            Self::Osaka => "Osaka",
        }
    }
}

/// When each fork begins: at a time from Shanghai on; everything before is active from block 0.
///
/// A Sluice chain is proof of stake from its first block, so its oldest fork is Paris.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForkSchedule {
    /// Fork of block 0 when no time below has come.
    pub base: Fork,
    /// Seconds since 1970 at which a fork begins, in rising order of fork and time.
    pub times: Vec<(Fork, u64)>,
    /// Blob parameters by the time from which they hold, in rising order; of Cancun and later.
    pub blobs: Vec<(u64, BlobParams)>,
}

impl ForkSchedule {
    /// All forks up to `fork` from block 0 on, with Ethereum mainnet's blob parameters.
    #[must_use]
    pub fn all_at_zero(fork: Fork) -> Self {
        let times = Fork::ALL
            .into_iter()
            .filter(|later| *later >= Fork::Shanghai && *later <= fork)
            .map(|active| (active, 0))
            .collect();
        let blobs = match fork {
            Fork::Osaka => vec![(0, BlobParams::osaka())],
            Fork::Prague => vec![(0, BlobParams::prague())],
            Fork::Cancun => vec![(0, BlobParams::cancun())],
            _ => Vec::new(),
        };
        Self { base: fork.min(Fork::Paris), times, blobs }
    }

    /// The fork in force at a block time.
    #[must_use]
    pub fn fork_at(&self, timestamp: u64) -> Fork {
        self.times.iter().filter(|(_, time)| *time <= timestamp).map(|(fork, _)| *fork).max().unwrap_or(self.base)
    }

    /// Whether `fork` is in force at a block time.
    #[must_use]
    pub fn is_active(&self, fork: Fork, timestamp: u64) -> bool {
        self.fork_at(timestamp) >= fork
    }

    /// Blob parameters in force at a block time, `None` before Cancun.
    #[must_use]
    pub fn blobs_at(&self, timestamp: u64) -> Option<&BlobParams> {
        self.blobs.iter().rev().find(|(time, _)| *time <= timestamp).map(|(_, params)| params)
    }
}

/// How the base fee moves from block to block (EIP-1559).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseFeeParams {
    /// Bounds the change per block to one part in this many.
    pub denominator: u64,
    /// The gas target is the gas limit over this.
    pub elasticity: u64,
    /// The base fee never falls below this, in wei.
    pub minimum: u64,
}

impl BaseFeeParams {
    /// Ethereum's own: an eighth per block, no minimum.
    pub const ETHEREUM: Self = Self { denominator: 8, elasticity: 2, minimum: 0 };
    /// Ethereum's speed per 12 seconds at slots of 200 milliseconds, with a floor of 0.01 gwei.
    pub const SLUICE: Self = Self { denominator: 480, elasticity: 2, minimum: 10_000_000 };

    /// Base fee of the block after `parent`, in wei.
    ///
    /// Source: EIP-1559, `block.base_fee_per_gas`.
    #[must_use]
    pub fn next(&self, parent: &Header) -> u64 {
        let base_fee = parent.base_fee_per_gas.unwrap_or_default();
        let target = parent.gas_limit.checked_div(self.elasticity).unwrap_or_default().max(1);
        let step = |distance: u64| {
            let delta = u128::from(base_fee).saturating_mul(u128::from(distance)) / u128::from(target);
            u64::try_from(delta / u128::from(self.denominator.max(1))).unwrap_or(u64::MAX)
        };
        let next = match parent.gas_used.cmp(&target) {
            std::cmp::Ordering::Equal => base_fee,
            std::cmp::Ordering::Greater => base_fee.saturating_add(step(parent.gas_used.saturating_sub(target)).max(1)),
            std::cmp::Ordering::Less => base_fee.saturating_sub(step(target.saturating_sub(parent.gas_used))),
        };
        next.max(self.minimum)
    }
}

/// A validator of epoch 0, as the genesis file names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenesisValidator {
    /// Compressed BLS12-381 public key, 48 bytes.
    pub bls_pubkey: Bytes,
    /// Proof of possession, 96 bytes.
    pub proof_of_possession: Bytes,
    /// Network identity: an Ed25519 public key, 32 bytes, that no other validator has.
    pub identity: Bytes,
    /// Where its peers dial it: IP address and port, such as `192.0.2.1:30303` or `[2001:db8::1]:30303`.
    pub addresses: Vec<String>,
    /// Its stake.
    pub stake: u64,
    /// Who receives the priority fees of its blocks.
    pub fee_recipient: Address,
}

impl GenesisValidator {
    /// Its key, if it has the length of one.
    fn public_key(&self) -> Option<PublicKey> {
        FixedBytes::try_from(self.bls_pubkey.as_ref()).ok().map(PublicKey)
    }
}

/// Parameters of ordering, fixed for the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderingParams {
    /// Milliseconds from one block to the next under load.
    pub slot_time_ms: u64,
    /// Consecutive slots of one leader.
    pub window: u64,
    /// Assumed bound of network delay in milliseconds.
    pub delta_ms: u64,
    /// Heights in an epoch.
    pub epoch_slots: u64,
    /// Milliseconds between empty blocks on an idle chain.
    pub idle_interval_ms: u64,
    /// Validators of epoch 0; empty means one validator, whose key everybody has.
    pub validators: Vec<GenesisValidator>,
}

impl Default for OrderingParams {
    fn default() -> Self {
        Self {
            slot_time_ms: 200,
            window: 4,
            delta_ms: 150,
            epoch_slots: 18_000,
            idle_interval_ms: 1_000,
            validators: Vec::new(),
        }
    }
}

/// Bytes of a compressed point of G1.
const BLS_PUBKEY_BYTES: usize = 48;
/// Bytes of a compressed point of G2.
const BLS_SIGNATURE_BYTES: usize = 96;
/// Bytes of an Ed25519 public key.
pub const IDENTITY_BYTES: usize = 32;

/// An account of block 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GenesisAccount {
    /// Its nonce.
    pub nonce: u64,
    /// Its balance in wei.
    pub balance: U256,
    /// Its code, empty for none.
    pub code: Bytes,
    /// Its storage; zero values are left out of the trie.
    pub storage: BTreeMap<U256, U256>,
}

/// Everything that makes a chain this chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainSpec {
    /// Chain id of EIP-155.
    pub chain_id: u64,
    /// When each fork begins.
    pub forks: ForkSchedule,
    /// How the base fee moves.
    pub base_fee: BaseFeeParams,
    /// Where deposits of EIP-6110 are logged, if the chain has such a contract.
    pub deposit_contract: Option<Address>,
    /// Parameters of ordering.
    pub ordering: OrderingParams,
    /// Header of block 0, its state root included.
    pub genesis_header: Header,
    /// Accounts of block 0.
    pub alloc: BTreeMap<Address, GenesisAccount>,
}

/// Why genesis values make no chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GenesisError {
    /// The fork needs contracts that the file does not carry.
    #[error("fork {fork} needs system contracts that alloc lacks: {missing}")]
    MissingSystemContracts {
        /// The fork that needs them.
        fork: &'static str,
        /// Their names and addresses.
        missing: String,
    },
    /// A parameter has a value that cannot work.
    #[error("{field} is {value}: {reason}")]
    Parameter {
        /// Its name in the genesis file.
        field: &'static str,
        /// What stands there.
        value: String,
        /// What would work.
        reason: &'static str,
    },
}

/// The system contracts that a fork calls at the edges of a block, oldest first.
pub const SYSTEM_CONTRACTS: [(Fork, &str, Address); 4] = [
    (Fork::Cancun, "beacon roots (EIP-4788)", address!("000F3df6D732807Ef1319fB7B8bB8522d0Beac02")),
    (Fork::Prague, "block hash history (EIP-2935)", address!("0000F90827F1C53a10cb7A02335B175320002935")),
    (Fork::Prague, "withdrawal requests (EIP-7002)", address!("00000961Ef480Eb55e80D19ad83579A64c007002")),
    (Fork::Prague, "consolidation requests (EIP-7251)", address!("0000BBdDc7CE488642fb579F8B00f3a590007251")),
];

impl ChainSpec {
    /// Refuses values that cannot make a chain.
    ///
    /// # Errors
    /// The first parameter or missing contract found.
    pub fn check(&self) -> Result<(), GenesisError> {
        let parameter =
            |field, value: u64, reason| Err(GenesisError::Parameter { field, value: value.to_string(), reason });
        if self.chain_id == 0 {
            return parameter("config.chainId", 0, "must be at least 1");
        }
        if self.genesis_header.gas_limit < 5_000 {
            return parameter("gasLimit", self.genesis_header.gas_limit, "must be at least 5000");
        }
        if self.genesis_header.number != 0 {
            return parameter("number", self.genesis_header.number, "block 0 has number 0");
        }
        let extra = self.genesis_header.extra_data.len();
        if extra > limits::EXTRA_DATA_BYTES_MAX {
            let value = format!("{extra} bytes long");
            return Err(GenesisError::Parameter { field: "extraData", value, reason: "at most 32 bytes" });
        }
        let ordering = &self.ordering;
        for (field, value, max) in [
            ("config.sluice.slot_time_ms", ordering.slot_time_ms, 60_000),
            ("config.sluice.window", ordering.window, 1_024),
            ("config.sluice.delta_ms", ordering.delta_ms, 60_000),
            ("config.sluice.epoch_slots", ordering.epoch_slots, 10_000_000),
            ("config.sluice.idle_interval_ms", ordering.idle_interval_ms, 3_600_000),
        ] {
            if value == 0 || value > max {
                return parameter(field, value, "out of range");
            }
        }
        if self.base_fee.denominator == 0 {
            return parameter("config.sluice.base_fee_denominator", 0, "must be at least 1");
        }
        if self.base_fee.elasticity == 0 {
            return parameter("config.sluice.base_fee_elasticity", 0, "must be at least 1");
        }
        if ordering.validators.len() > limits::VALIDATORS_MAX {
            let count = u64::try_from(ordering.validators.len()).unwrap_or(u64::MAX);
            return parameter("config.sluice.validators", count, "at most 300");
        }
        self.check_validators()?;
        if self.forks.base < Fork::Paris {
            let value = self.forks.base.name().to_owned();
            return Err(GenesisError::Parameter {
                field: "config",
                value,
                reason: "the oldest fork of a chain is Paris",
            });
        }
        self.check_system_contracts()
    }

    fn check_validators(&self) -> Result<(), GenesisError> {
        let mut identities = BTreeSet::new();
        for (index, validator) in self.ordering.validators.iter().enumerate() {
            let refuse = |field, value: String, reason| {
                let value = format!("{value} for validator {index}");
                Err(GenesisError::Parameter { field, value, reason })
            };
            if validator.stake == 0 {
                return refuse("stake", "0".to_owned(), "must be at least 1");
            }
            for (field, bytes, length, reason) in [
                ("bls_pubkey", &validator.bls_pubkey, BLS_PUBKEY_BYTES, "must be 48 bytes"),
                ("proof_of_possession", &validator.proof_of_possession, BLS_SIGNATURE_BYTES, "must be 96 bytes"),
                ("identity", &validator.identity, IDENTITY_BYTES, "must be 32 bytes, an Ed25519 public key"),
            ] {
                if bytes.len() != length {
                    return refuse(field, format!("{} bytes", bytes.len()), reason);
                }
            }
            let Some(key) = validator.public_key().filter(|key| bls::check_key(key).is_ok()) else {
                return refuse("bls_pubkey", validator.bls_pubkey.to_string(), "is no BLS12-381 key");
            };
            let proof = FixedBytes::try_from(validator.proof_of_possession.as_ref()).map(Signature).unwrap_or_default();
            if !bls::verify_possession(&key, validator.fee_recipient, self.chain_id, &proof) {
                let reason = "does not prove possession of bls_pubkey for this fee_recipient and chain id";
                return refuse("proof_of_possession", validator.proof_of_possession.to_string(), reason);
            }
            if !identities.insert(&validator.identity) {
                return refuse("identity", validator.identity.to_string(), "is that of another validator");
            }
            if validator.addresses.len() > limits::VALIDATOR_ADDRESSES_MAX {
                return refuse("addresses", validator.addresses.len().to_string(), "at most 8");
            }
            for address in &validator.addresses {
                if !address.parse::<SocketAddr>().is_ok_and(|address| address.port() != 0) {
                    let address = address.chars().take(64).collect();
                    return refuse("addresses", address, "must be IP:PORT, such as 192.0.2.1:30303");
                }
            }
        }
        self.validator_set().map(|_| ())
    }

    /// Every fork the schedule ever reaches must find its contracts in block 0.
    fn check_system_contracts(&self) -> Result<(), GenesisError> {
        let reached = self.forks.times.iter().map(|(fork, _)| *fork).max().unwrap_or(self.forks.base);
        let missing: Vec<_> = SYSTEM_CONTRACTS
            .iter()
            .filter(|(fork, _, address)| {
                *fork <= reached && self.alloc.get(address).is_none_or(|account| account.code.is_empty())
            })
            .map(|(_, name, address)| format!("{name} at {address}"))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(GenesisError::MissingSystemContracts { fork: reached.name(), missing: missing.join(", ") })
    }

    /// Who votes in epoch 0: the validators of the file or, where it names none, whoever has the key that everybody
    /// has ([`bls::SecretKey::development`]).
    ///
    /// # Errors
    /// [`GenesisError::Parameter`] if they make no set.
    pub fn validator_set(&self) -> Result<ValidatorSet, GenesisError> {
        let named = self.ordering.validators.iter().map(|validator| Validator {
            public_key: validator.public_key().unwrap_or_default(),
            stake: validator.stake,
            operator: validator.fee_recipient,
        });
        let mut validators: Vec<Validator> = named.collect();
        if validators.is_empty() {
            let public_key = bls::SecretKey::development().public_key();
            validators.push(Validator { public_key, stake: 1, operator: Address::ZERO });
        }
        ValidatorSet::new(Epoch(0), validators).map_err(|error| GenesisError::Parameter {
            field: "config.sluice.validators",
            value: error.to_string(),
            reason: "must make a validator set",
        })
    }

    /// Block 0 as it is ordered: slot 0 of epoch 0, no transactions.
    ///
    /// The digest stands where other blocks name their parent, so that its id, which everything signed on this chain
    /// is bound to, depends on everything that makes the chain.
    #[must_use]
    pub fn genesis_block(&self) -> Block {
        let header = self.genesis_header.clone().seal_slow();
        let consensus = ConsensusHeader {
            chain_id: self.chain_id,
            parent_id: self.digest(),
            block_hash: header.seal(),
            timestamp_ms: header.timestamp.saturating_mul(1_000),
            next_set_hash: self.validator_set().map(|set| set.hash()).unwrap_or_default(),
            ..ConsensusHeader::default()
        };
        let withdrawals = header.withdrawals_root.map(|_| Withdrawals::default());
        Block { consensus, header, body: BlockBody { transactions: Vec::new(), withdrawals } }
    }

    /// Where signatures of this chain are valid.
    #[must_use]
    pub fn domain(&self) -> Domain {
        Domain { chain_id: self.chain_id, genesis: self.genesis_block().consensus.id() }
    }

    /// Hash of block 0.
    #[must_use]
    pub fn genesis_hash(&self) -> B256 {
        self.genesis_header.hash_slow()
    }

    /// keccak256 over everything that two nodes of one chain must agree on: block 0, chain id, forks, fees,
    /// ordering. A data folder belongs to one digest.
    ///
    /// Encoding: RLP lists one behind the other: identity, base fee, one per fork time, one per blob schedule
    /// entry, ordering, one per validator.
    #[must_use]
    pub fn digest(&self) -> B256 {
        let mut out = Vec::new();
        let mut list = |items: &[&dyn Encodable]| {
            let payload_length = items.iter().map(|item| item.length()).sum();
            alloy_rlp::Header { list: true, payload_length }.encode(&mut out);
            items.iter().for_each(|item| item.encode(&mut out));
        };
        list(&[
            &self.chain_id,
            &self.genesis_hash(),
            &self.forks.base.name(),
            &self.deposit_contract.unwrap_or_default(),
        ]);
        list(&[&self.base_fee.denominator, &self.base_fee.elasticity, &self.base_fee.minimum]);
        for (fork, time) in &self.forks.times {
            list(&[&fork.name(), time]);
        }
        for (time, blobs) in &self.forks.blobs {
            list(&[
                time,
                &blobs.target_blob_count,
                &blobs.max_blob_count,
                &blobs.update_fraction,
                &blobs.min_blob_fee,
                &blobs.max_blobs_per_tx,
                &blobs.blob_base_cost,
            ]);
        }
        let OrderingParams { slot_time_ms, window, delta_ms, epoch_slots, idle_interval_ms, validators } =
            &self.ordering;
        list(&[slot_time_ms, window, delta_ms, epoch_slots, idle_interval_ms]);
        for validator in validators {
            let GenesisValidator { bls_pubkey, proof_of_possession, identity, addresses, stake, fee_recipient } =
                validator;
            list(&[bls_pubkey, proof_of_possession, identity, addresses, stake, fee_recipient]);
        }
        keccak256(out)
    }

    /// The fork in force at a block time.
    #[must_use]
    pub fn fork_at(&self, timestamp: u64) -> Fork {
        self.forks.fork_at(timestamp)
    }

    /// Items that the access list of a block can have, by what its header says.
    #[must_use]
    pub fn list_items_max(&self, header: &ConsensusHeader) -> u64 {
        AccessList::items_max(self.fork_at(header.timestamp_ms / 1_000), self.genesis_header.gas_limit)
    }
}
