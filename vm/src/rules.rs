//! What a header and a body must look like before anything is executed.
//!
//! One struct, [`HeaderRules`], holds every point in which Sluice differs from Ethereum. Blocks of a
//! Sluice chain are judged by [`HeaderRules::SLUICE`]; Ethereum's own test chains by
//! [`HeaderRules::ETHEREUM`]. Every refusal names the field and both values.
//!
//! Source: yellow paper 4.3.4, EIP-1559, EIP-3675, EIP-4399, EIP-4788, EIP-4844, EIP-4895, EIP-7685,
//! EIP-7840, EIP-7918, EIP-7934.

use std::fmt::Display;

use alloy_consensus::{
    EMPTY_OMMER_ROOT_HASH, EMPTY_ROOT_HASH, Header, Sealed, Transaction as _, proofs::calculate_withdrawals_root,
};
use alloy_eips::eip7840::BlobParams;
use alloy_primitives::{B64, U256};
use engine::{
    genesis::{ChainSpec, Fork},
    limits,
    types::Block,
};

use crate::outcome;

/// Ethereum lets a gas limit move by less than its parent's over this per block.
const GAS_LIMIT_BOUND: u64 = 1024;
/// The least gas limit Ethereum allows.
const GAS_LIMIT_MIN: u64 = 5_000;
/// The greatest gas limit Ethereum allows.
const GAS_LIMIT_MAX: u64 = (1 << 63) - 1;
/// EIP-2718 type of a blob transaction.
pub(crate) const BLOB_TYPE: u8 = 3;
/// Milliseconds in a second.
const SECOND_MS: u64 = 1_000;

/// Where the rules of Sluice and of Ethereum part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderRules {
    /// A timestamp may equal its parent's; Ethereum's rises.
    pub timestamp_repeats: bool,
    /// The gas limit is that of block 0; Ethereum's is moved by block producers.
    pub gas_limit_fixed: bool,
    /// Withdrawals may be credited.
    pub withdrawals: bool,
    /// Blob transactions may be included.
    pub blobs: bool,
    /// The consensus header beside the block names it and agrees with it.
    pub consensus_header: bool,
}

/// Says which field has which value, and which it must have.
fn differs(field: &str, got: impl Display, want: impl Display) -> String {
    format!("{field} is {got}, must be {want}")
}

fn shown<T: Display>(value: Option<&T>) -> String {
    value.map_or_else(|| "absent".to_owned(), ToString::to_string)
}

/// Compares one field.
///
/// # Errors
/// The field's name and both values.
pub(crate) fn equal<T: PartialEq + Display>(field: &str, got: &T, want: &T) -> Result<(), String> {
    if got == want { Ok(()) } else { Err(differs(field, got, want)) }
}

/// Compares one field that some forks do not have.
///
/// # Errors
/// The field's name and both values.
pub(crate) fn equal_if_any<T: PartialEq + Display>(field: &str, got: Option<T>, want: Option<T>) -> Result<(), String> {
    if got == want { Ok(()) } else { Err(differs(field, shown(got.as_ref()), shown(want.as_ref()))) }
}

fn present<T: Display>(field: &str, got: Option<T>, want: bool) -> Result<(), String> {
    if got.is_some() == want {
        return Ok(());
    }
    Err(differs(field, shown(got.as_ref()), if want { "present" } else { "absent" }))
}

impl HeaderRules {
    /// Ethereum's own rules, from Paris on.
    pub const ETHEREUM: Self = Self {
        timestamp_repeats: false,
        gas_limit_fixed: false,
        withdrawals: true,
        blobs: true,
        consensus_header: false,
    };

    /// The rules of a Sluice chain.
    pub const SLUICE: Self = Self {
        timestamp_repeats: true,
        gas_limit_fixed: true,
        withdrawals: false,
        blobs: false,
        consensus_header: true,
    };

    /// Checks everything about a block that does not need its execution.
    ///
    /// # Errors
    /// The first field that breaks a rule, with both values.
    pub fn check(&self, chain: &ChainSpec, parent: &Sealed<Header>, block: &Block) -> Result<(), String> {
        self.check_built(chain, parent, block)?;
        let root = outcome::transactions_root(&block.body.transactions);
        equal("transactions_root", &block.header.inner().transactions_root, &root)
    }

    /// The same of a block whose root of transactions was made here, of these.
    ///
    /// # Errors
    /// As of [`Self::check`].
    pub(crate) fn check_built(&self, chain: &ChainSpec, parent: &Sealed<Header>, block: &Block) -> Result<(), String> {
        let header = block.header.inner();
        equal("hash", &block.hash(), &header.hash_slow())?;
        if self.consensus_header {
            self.check_consensus_header(chain, block)?;
        }
        self.check_header(chain, parent, header)?;
        self.check_body(chain, block)
    }

    /// How the two headers of a Sluice block are tied.
    fn check_consensus_header(&self, chain: &ChainSpec, block: &Block) -> Result<(), String> {
        let (consensus, header) = (&block.consensus, block.header.inner());
        equal("consensus chain_id", &consensus.chain_id, &chain.chain_id)?;
        equal("consensus height", &consensus.height, &header.number)?;
        equal("consensus block_hash", &consensus.block_hash, &block.hash())?;
        equal("timestamp", &header.timestamp, &(consensus.timestamp_ms / SECOND_MS))?;
        if chain.fork_at(header.timestamp) >= Fork::Cancun {
            equal_if_any("parent_beacon_block_root", header.parent_beacon_block_root, Some(consensus.parent_id))?;
        }
        Ok(())
    }

    /// Checks what must be known of a header before the first transaction.
    ///
    /// # Errors
    /// The first field that breaks a rule, with both values.
    pub fn check_opening(&self, chain: &ChainSpec, parent: &Sealed<Header>, header: &Header) -> Result<(), String> {
        let fork = chain.fork_at(header.timestamp);
        equal("parent_hash", &header.parent_hash, &parent.seal())?;
        equal("number", &header.number, &parent.number.saturating_add(1))?;
        self.check_timestamp(parent, header)?;
        self.check_gas_limit(chain, parent, header)?;
        equal_if_any("base_fee_per_gas", header.base_fee_per_gas, Some(chain.base_fee.next(parent.inner())))?;
        equal("difficulty", &header.difficulty, &U256::ZERO)?;
        present("parent_beacon_block_root", header.parent_beacon_block_root, fork >= Fork::Cancun)?;
        equal_if_any("excess_blob_gas", header.excess_blob_gas, self.excess_blob_gas(chain, parent, header.timestamp))
    }

    fn check_header(&self, chain: &ChainSpec, parent: &Sealed<Header>, header: &Header) -> Result<(), String> {
        let fork = chain.fork_at(header.timestamp);
        self.check_opening(chain, parent, header)?;
        if header.gas_used > header.gas_limit {
            return Err(differs("gas_used", header.gas_used, format!("at most gas_limit {}", header.gas_limit)));
        }
        if header.extra_data.len() > limits::EXTRA_DATA_BYTES_MAX {
            return Err(differs("extra_data", header.extra_data.len(), "at most 32 bytes"));
        }
        equal("nonce", &header.nonce, &B64::ZERO)?;
        equal("ommers_hash", &header.ommers_hash, &EMPTY_OMMER_ROOT_HASH)?;
        present("withdrawals_root", header.withdrawals_root, fork >= Fork::Shanghai)?;
        present("requests_hash", header.requests_hash, fork >= Fork::Prague)?;
        present("block_access_list_hash", header.block_access_list_hash, false)?;
        present("slot_number", header.slot_number, false)?;
        present("blob_gas_used", header.blob_gas_used, fork >= Fork::Cancun)
    }

    fn check_timestamp(&self, parent: &Header, header: &Header) -> Result<(), String> {
        let least = if self.timestamp_repeats { parent.timestamp } else { parent.timestamp.saturating_add(1) };
        if header.timestamp >= least {
            return Ok(());
        }
        Err(differs("timestamp", header.timestamp, format!("at least {least}")))
    }

    fn check_gas_limit(&self, chain: &ChainSpec, parent: &Header, header: &Header) -> Result<(), String> {
        if self.gas_limit_fixed {
            return equal("gas_limit", &header.gas_limit, &chain.genesis_header.gas_limit);
        }
        let bound = parent.gas_limit / GAS_LIMIT_BOUND;
        if header.gas_limit.abs_diff(parent.gas_limit) >= bound {
            let want = format!("less than {bound} from {}", parent.gas_limit);
            return Err(differs("gas_limit", header.gas_limit, want));
        }
        if !(GAS_LIMIT_MIN..=GAS_LIMIT_MAX).contains(&header.gas_limit) {
            let want = format!("{GAS_LIMIT_MIN} to {GAS_LIMIT_MAX}");
            return Err(differs("gas_limit", header.gas_limit, want));
        }
        Ok(())
    }

    /// The excess blob gas after `parent`, `None` before Cancun; always 0 where no blobs are allowed.
    ///
    /// The schedule is that of the new block's time, also for the parent's part (EIP-7892).
    #[must_use]
    pub fn excess_blob_gas(&self, chain: &ChainSpec, parent: &Header, timestamp: u64) -> Option<u64> {
        if chain.fork_at(timestamp) < Fork::Cancun {
            return None;
        }
        if !self.blobs {
            return Some(0);
        }
        let blobs = chain.forks.blobs_at(timestamp).copied().unwrap_or_else(BlobParams::cancun);
        Some(blobs.next_block_excess_blob_gas_osaka(
            parent.excess_blob_gas.unwrap_or_default(),
            parent.blob_gas_used.unwrap_or_default(),
            parent.base_fee_per_gas.unwrap_or_default(),
        ))
    }

    fn check_body(&self, chain: &ChainSpec, block: &Block) -> Result<(), String> {
        let (header, body) = (block.header.inner(), &block.body);
        let fork = chain.fork_at(header.timestamp);
        if fork >= Fork::Osaka && block.rlp_size_bytes() > limits::BLOCK_RLP_BYTES_MAX_OSAKA {
            let want = format!("at most {}", limits::BLOCK_RLP_BYTES_MAX_OSAKA);
            return Err(differs("rlp size", block.rlp_size_bytes(), want));
        }
        present("withdrawals", body.withdrawals.as_ref().map(|list| list.len()), fork >= Fork::Shanghai)?;
        if let Some(withdrawals) = &body.withdrawals {
            if !self.withdrawals {
                equal("withdrawals", &withdrawals.len(), &0)?;
            }
            let root = if withdrawals.is_empty() {
                EMPTY_ROOT_HASH
            } else {
                calculate_withdrawals_root(withdrawals.as_slice())
            };
            equal_if_any("withdrawals_root", header.withdrawals_root, Some(root))?;
        }
        self.check_blobs(chain, block)
    }

    fn check_blobs(&self, chain: &ChainSpec, block: &Block) -> Result<(), String> {
        let header = block.header.inner();
        let Some(claimed) = header.blob_gas_used else {
            return Ok(());
        };
        let used = block.body.transactions.iter().fold(0_u64, |sum, transaction| {
            sum.saturating_add(transaction.envelope().blob_gas_used().unwrap_or_default())
        });
        equal("blob_gas_used", &claimed, &used)?;
        let max = match chain.forks.blobs_at(header.timestamp) {
            Some(blobs) if self.blobs => blobs.max_blob_gas_per_block(),
            _ => 0,
        };
        if used > max {
            return Err(differs("blob_gas_used", used, format!("at most {max}")));
        }
        let blob = block.body.transactions.iter().position(|transaction| transaction.type_byte() == BLOB_TYPE);
        match blob {
            Some(index) if !self.blobs => {
                Err(differs(&format!("type of transaction {index}"), BLOB_TYPE, "0, 1, 2 or 4"))
            }
            _ => Ok(()),
        }
    }
}
