//! Blocks that cost the most time per gas: for each resource that a price may miss, a contract that uses up
//! that resource and little else.
//!
//! | case | what a round does | why it is slow for its price |
//! |---|---|---|
//! | `modexp` | a cube modulo 112 bytes, an odd word times a power of two | two powers and an inverse for 500 gas |
//! | `ec_add`, `ec_mul`, `pairing` | BN254 | inversion; 256 doublings; final exponentiation |
//! | `kzg_point` | point evaluation without a point at infinity | two pairings |
//! | `bls_g1_msm`, `bls_g2_msm` | 31 pairs | the discount is deeper than what 31 pairs save |
//! | `bls_pairing` | one pair | final exponentiation |
//! | `blake2` | 50,000 rounds | one gas each |
//! | `ec_recover`, `p256_verify` | one good signature | a multiplication of two points |
//! | `mulmod` | 512 squarings modulo a full-width number | a division of 512 bits for 8 gas |
//! | `keccak` | 16,320 bytes | a permutation for 25.5 gas |
//! | `cold_sload`, `cold_account` | one look-up in the state | |
//! | `cold_code` | the size of one of 4,096 contracts of 24 KiB | code is read and analysed for 2,600 gas |
//! | `sstore_fresh` | one new slot | |
//! | `create` | CREATE2 with 48 KiB of creation code | hashed and analysed |
//! | `log` | one log of four new topics | each is hashed for the bloom filter |
//! | `calldata` | copies the input, which is as long as the gas allows | bytes of blocks |
//!
//! Inputs are valid under Osaka's rules (EIP-2537, 7623, 7823, 7825, 7883, 7951). A contract loops until less
//! gas is left than a round takes, reverts as soon as a round does not do what it should, and logs the number
//! of rounds as one word. What a round touches follows from a counter that starts at the first word of the
//! call data, so every transaction touches something else.

mod code;
mod opcodes;
mod precompiles;

use alloy_primitives::{Address, Bytes, TxKind, U256};

use crate::encode::Call;

/// Gas that one transaction may ask for (EIP-7825).
pub const TRANSACTION_GAS_MAX: u64 = 1 << 24;

/// Gas of a transaction that reads code: fewer rounds than there are contracts, so that each is cold.
const CODE_GAS_MAX: u64 = 8_000_000;

/// Contracts from the first of one such transaction to the first of the next: no fewer than a transaction reads,
/// and no divisor of their number, so that all have their turn.
const CODE_STRIDE: u64 = 3_072;

/// Slots that [`WorstCase::ColdSload`] finds filled, from 0 on; what is behind them is empty.
pub const FILLED_SLOTS: u64 = 2 * COUNTER_STRIDE;

/// Counters of a transaction: more than the rounds of any case whose rounds must differ.
const COUNTER_STRIDE: u64 = 8_192;

/// Counter of the first transaction where 0 and other small numbers will not do: they are precompiles, or empty
/// values.
const COUNTER_FROM: u64 = 1 << 32;

/// A resource that is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WorstCase {
    /// Modular exponentiation (EIP-198, EIP-7883).
    Modexp,
    /// Addition on BN254 (EIP-196).
    EcAdd,
    /// Multiplication on BN254 (EIP-196).
    EcMul,
    /// Pairing on BN254 (EIP-197).
    Pairing,
    /// KZG point evaluation (EIP-4844).
    KzgPoint,
    /// Multi-scalar multiplication in the first group of BLS12-381 (EIP-2537).
    BlsG1Msm,
    /// Multi-scalar multiplication in the second group of BLS12-381 (EIP-2537).
    BlsG2Msm,
    /// Pairing on BLS12-381 (EIP-2537).
    BlsPairing,
    /// The compression function of BLAKE2b (EIP-152).
    Blake2,
    /// Recovery of a signer on secp256k1.
    EcRecover,
    /// Verification of a signature on secp256r1 (EIP-7951).
    P256Verify,
    /// Wide modular arithmetic.
    MulMod,
    /// Hashing.
    Keccak,
    /// Reads of slots.
    ColdSload,
    /// Reads of accounts.
    ColdAccount,
    /// Reads of large code.
    ColdCode,
    /// Writes of new slots.
    SstoreFresh,
    /// Creations with large creation code.
    Create,
    /// Logs.
    Log,
    /// Large call data.
    Calldata,
}

/// An account that must be there before the first transaction; its nonce is 1, its balance 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Where.
    pub address: Address,
    /// Code that runs, not code that creates.
    pub code: Bytes,
    /// Slots and their values.
    pub storage: Vec<(U256, U256)>,
}

/// What a transaction does, and the gas it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorstCall {
    /// Target, value and input.
    pub call: Call,
    /// Gas limit, at most [`TRANSACTION_GAS_MAX`].
    pub gas_limit: u64,
}

/// A contract and what a round of its loop costs at least.
#[derive(Clone, Debug)]
struct Program {
    code: Bytes,
    gas_per_round: u64,
}

impl WorstCase {
    /// Every case.
    pub const ALL: [Self; 20] = [
        Self::Modexp,
        Self::EcAdd,
        Self::EcMul,
        Self::Pairing,
        Self::KzgPoint,
        Self::BlsG1Msm,
        Self::BlsG2Msm,
        Self::BlsPairing,
        Self::Blake2,
        Self::EcRecover,
        Self::P256Verify,
        Self::MulMod,
        Self::Keccak,
        Self::ColdSload,
        Self::ColdAccount,
        Self::ColdCode,
        Self::SstoreFresh,
        Self::Create,
        Self::Log,
        Self::Calldata,
    ];

    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Modexp => "modexp",
            Self::EcAdd => "ec_add",
            Self::EcMul => "ec_mul",
            Self::Pairing => "pairing",
            Self::KzgPoint => "kzg_point",
            Self::BlsG1Msm => "bls_g1_msm",
            Self::BlsG2Msm => "bls_g2_msm",
            Self::BlsPairing => "bls_pairing",
            Self::Blake2 => "blake2",
            Self::EcRecover => "ec_recover",
            Self::P256Verify => "p256_verify",
            Self::MulMod => "mulmod",
            Self::Keccak => "keccak",
            Self::ColdSload => "cold_sload",
            Self::ColdAccount => "cold_account",
            Self::ColdCode => "cold_code",
            Self::SstoreFresh => "sstore_fresh",
            Self::Create => "create",
            Self::Log => "log",
            Self::Calldata => "calldata",
        }
    }

    /// The contract that is called.
    #[must_use]
    pub fn address(self) -> Address {
        Address::from_word(U256::from(0xbad_0000 + self as u64).into())
    }

    /// Every account that must be there, the called contract first. [`Self::ColdCode`] needs 96 MiB of code.
    #[must_use]
    pub fn accounts(self) -> Vec<Account> {
        let storage = if self == Self::ColdSload { opcodes::filled_slots().collect() } else { Vec::new() };
        let mut accounts = vec![Account { address: self.address(), code: self.program().code, storage }];
        if self == Self::ColdCode {
            accounts.extend(opcodes::large_contracts());
        }
        accounts
    }

    /// Gas that a round takes at least, of which the contract logs the number: what the resource itself costs.
    #[must_use]
    pub fn gas_per_round(self) -> u64 {
        self.program().gas_per_round
    }

    /// Transactions that ask for `gas` together, all alike; 2,000,000 and more are nearly used up.
    #[must_use]
    pub fn calls(self, gas: u64) -> Vec<WorstCall> {
        self.calls_after(gas, 0)
    }

    /// The same for a chain on which `sent` transactions of the case were sent already, so that what must be new
    /// is new again.
    #[must_use]
    pub fn calls_after(self, gas: u64, sent: u64) -> Vec<WorstCall> {
        let gas_max = if self == Self::ColdCode { CODE_GAS_MAX } else { TRANSACTION_GAS_MAX };
        let count = gas.div_ceil(gas_max);
        (0..count).map(|nth| self.call(gas / count, sent + nth)).collect()
    }

    fn call(self, gas_limit: u64, nth: u64) -> WorstCall {
        let (from, stride) = match self {
            Self::ColdSload => (0, COUNTER_STRIDE),
            Self::ColdCode => (0, CODE_STRIDE),
            _ => (COUNTER_FROM, COUNTER_STRIDE),
        };
        let mut input = U256::from(from + nth * stride).to_be_bytes_vec();
        if self == Self::Calldata {
            let length = usize::try_from(opcodes::input_bytes(gas_limit)).expect("a few megabytes");
            input.resize(length.max(input.len()), 0);
        }
        let call = Call { to: TxKind::Call(self.address()), value: U256::ZERO, input: input.into() };
        WorstCall { call, gas_limit }
    }

    fn program(self) -> Program {
        match self {
            Self::Modexp => precompiles::modexp().program(),
            Self::EcAdd => precompiles::ec_add().program(),
            Self::EcMul => precompiles::ec_mul().program(),
            Self::Pairing => precompiles::pairing().program(),
            Self::KzgPoint => precompiles::kzg_point().program(),
            Self::BlsG1Msm => precompiles::bls_g1_msm().program(),
            Self::BlsG2Msm => precompiles::bls_g2_msm().program(),
            Self::BlsPairing => precompiles::bls_pairing().program(),
            Self::Blake2 => precompiles::blake2().program(),
            Self::EcRecover => precompiles::ec_recover().program(),
            Self::P256Verify => precompiles::p256_verify().program(),
            Self::MulMod => opcodes::mulmod(),
            Self::Keccak => opcodes::keccak(),
            Self::ColdSload => opcodes::cold_sload(),
            Self::ColdAccount => opcodes::cold_account(),
            Self::ColdCode => opcodes::cold_code(),
            Self::SstoreFresh => opcodes::sstore_fresh(),
            Self::Create => opcodes::create(),
            Self::Log => opcodes::log(),
            Self::Calldata => opcodes::calldata(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_cases_share_a_name_or_a_contract() {
        assert_eq!(WorstCase::ALL.map(WorstCase::name).into_iter().collect::<BTreeSet<_>>().len(), 20);
        assert_eq!(WorstCase::ALL.map(WorstCase::address).into_iter().collect::<BTreeSet<_>>().len(), 20);
    }

    #[test]
    fn transactions_share_the_gas_below_the_cap() {
        for case in WorstCase::ALL {
            for gas in [2_000_000, TRANSACTION_GAS_MAX, TRANSACTION_GAS_MAX + 1, 100_000_000] {
                let calls = case.calls(gas);
                let asked: u64 = calls.iter().map(|call| call.gas_limit).sum();
                assert!(asked <= gas && gas - asked < 20, "{} of {gas}", case.name());
                assert!(calls.iter().all(|call| call.gas_limit <= TRANSACTION_GAS_MAX));
            }
        }
    }

    #[test]
    fn no_two_transactions_start_at_one_counter() {
        let mut calls = WorstCase::SstoreFresh.calls(50_000_000);
        calls.extend(WorstCase::SstoreFresh.calls_after(50_000_000, 3));
        assert_eq!(calls.iter().map(|call| &call.call.input).collect::<BTreeSet<_>>().len(), 6);
    }

    #[test]
    fn code_fits_a_contract() {
        for case in WorstCase::ALL {
            assert!(case.accounts()[0].code.len() <= 24_576, "{}", case.name());
        }
    }
}
