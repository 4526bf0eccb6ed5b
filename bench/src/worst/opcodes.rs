//! Loops over the opcodes that take the longest for their gas.

use alloy_primitives::{Address, U256, keccak256};

use super::{
    Account, Program,
    code::{Code, op},
};

/// Multiplications of a round, all on the stack at once.
const MULMODS: usize = 512;

/// Gas of a multiplication with the two copies it needs.
const MULMOD: u64 = 3 + 3 + 8;

/// Squares a number modulo a full-width one, over and over: a division of 512 bits each time.
pub(super) fn mulmod() -> Program {
    let modulus = U256::from_be_bytes(keccak256("modulus").0) >> 1 | U256::from(1);
    let gas_per_round = MULMODS as u64 * MULMOD;
    let squared = [op::DUP1, op::MULMOD].repeat(MULMODS);
    let code = Code::new().word(modulus).op(op::SWAP1).repeat(gas_per_round + 50, |code| {
        // The modulus once for each multiplication, then the number; the last result is not zero.
        let copies = code.op(op::DUP2).ops(&[op::DUP1; MULMODS - 1]);
        copies.word(U256::from_be_bytes(keccak256("number").0)).ops(&squared).require()
    });
    Program { code: code.finish(&[]), gas_per_round }
}

/// Bytes that a round hashes: a whole number of permutations of 136 bytes, plus the one of the padding. Longer
/// input costs less per permutation, by 1 % here: 25.5 gas without the fixed part.
const KECCAK_BYTES: u64 = 136 * 120;

/// Hashes long input.
pub(super) fn keccak() -> Program {
    let gas_per_round = 30 + 6 * KECCAK_BYTES.div_ceil(32);
    let code = Code::new().push(KECCAK_BYTES).ops(&[op::PUSH0, op::KECCAK256, op::POP]);
    let code = code.repeat(gas_per_round + 20, |code| {
        let other = code.ops(&[op::DUP1, op::PUSH0, op::MSTORE]);
        other.push(KECCAK_BYTES).ops(&[op::PUSH0, op::KECCAK256]).require()
    });
    Program { code: code.finish(&[]), gas_per_round }
}

/// Reads slots that nobody read before in the transaction.
pub(super) fn cold_sload() -> Program {
    let code = Code::new().repeat(2_100, |code| code.ops(&[op::DUP1, op::SLOAD, op::POP]));
    Program { code: code.finish(&[]), gas_per_round: 2_100 }
}

/// Slots from 0 on that are not empty, enough for two full transactions.
pub(super) fn filled_slots() -> impl Iterator<Item = (U256, U256)> {
    (0..super::FILLED_SLOTS).map(|key| (U256::from(key), U256::from(key + 1)))
}

/// Writes slots that are empty: the costliest growth of the state for its gas.
pub(super) fn sstore_fresh() -> Program {
    let code = Code::new().repeat(22_100, |code| code.ops(&[op::DUP1, op::DUP1, op::SSTORE]));
    Program { code: code.finish(&[]), gas_per_round: 22_100 }
}

/// Asks for the balance of accounts that do not exist, which takes a look-up to know.
pub(super) fn cold_account() -> Program {
    let code = Code::new().repeat(2_600, |code| code.ops(&[op::DUP1, op::BALANCE, op::POP]));
    Program { code: code.finish(&[]), gas_per_round: 2_600 }
}

/// Contracts of the largest size, each with code of its own: a power of two, and more bytes than a node keeps
/// analysed.
const CODES: u64 = 4_096;

/// Bytes of a contract, the most that EIP-170 allows.
const CODE_BYTES: usize = 24_576;

/// Where the contracts lie, a multiple of their number.
const CODES_FROM: u64 = 0xc0de_0000_0000;

/// Reads the size of large contracts, for which their code has to be there.
pub(super) fn cold_code() -> Program {
    let code = Code::new().repeat(2_600 + 50, |code| {
        let nth = code.op(op::DUP1).push(CODES - 1).op(op::AND);
        nth.push(CODES_FROM).ops(&[op::OR, op::EXTCODESIZE]).require()
    });
    Program { code: code.finish(&[]), gas_per_round: 2_600 }
}

/// The large contracts: every byte but the first is a jump destination, every one has its number at the end.
pub(super) fn large_contracts() -> impl Iterator<Item = Account> {
    (0..CODES).map(|number| {
        let mut code = vec![op::JUMPDEST; CODE_BYTES];
        code[0] = op::STOP;
        code[CODE_BYTES - 8..].copy_from_slice(&number.to_be_bytes());
        let address = Address::from_word(U256::from(CODES_FROM + number).into());
        Account { address, code: code.into(), storage: Vec::new() }
    })
}

/// Bytes of creation code, the most that EIP-3860 allows.
const INIT_BYTES: u64 = 49_152;

/// Creates accounts with creation code of the largest size: it is hashed for the address (EIP-1014), and searched
/// for jump destinations, of which it is full.
pub(super) fn create() -> Program {
    let words = INIT_BYTES / 32;
    let gas_per_round = 32_000 + (2 + 6) * words;
    let destinations = U256::from_be_bytes([op::JUMPDEST; 32]);
    let code = Code::new().word(destinations >> 8).ops(&[op::PUSH0, op::MSTORE]);
    let mut code = code.word(destinations).push(32).op(op::MSTORE);
    let mut filled = 32;
    while filled < INIT_BYTES {
        code = code.push(filled).push(32).push(32 + filled).op(op::MCOPY);
        filled *= 2;
    }
    let code = code.repeat(gas_per_round + 50, |code| {
        // The counter is the salt.
        code.op(op::DUP1).push(INIT_BYTES).ops(&[op::PUSH0, op::PUSH0, op::CREATE2]).require()
    });
    Program { code: code.finish(&[]), gas_per_round }
}

/// Topics of a log, the most there are.
const TOPICS: u8 = 4;

/// Emits logs without data whose topics nobody saw before: each is hashed for the bloom filter.
pub(super) fn log() -> Program {
    let gas_per_round = 375 * (1 + u64::from(TOPICS));
    let code = Code::new().repeat(gas_per_round + 50, |code| {
        // The counter times what gas is left.
        let topic = |code: Code, nth| code.ops(&[op::DUP1 + nth, op::GAS, op::MUL]);
        (0..TOPICS).fold(code, topic).ops(&[op::PUSH0, op::PUSH0, op::LOG0 + TOPICS])
    });
    Program { code: code.finish(&[]), gas_per_round }
}

/// Gas of a call before its input (EIP-2028 and before).
const CALL: u64 = 21_000;

/// Least gas of a zero byte of call data (EIP-7623), whatever is done with it.
const ZERO_BYTE: u64 = 10;

/// Bytes of input that do not have the price of a zero byte, with room: the counter.
const COUNTER_BYTES: u64 = 200;

/// Bytes of input that use up the gas of a transaction.
pub(super) const fn input_bytes(gas_limit: u64) -> u64 {
    (gas_limit.saturating_sub(CALL) / ZERO_BYTE).saturating_sub(COUNTER_BYTES)
}

/// Copies its input over and over. Input alone costs 4 gas a byte and 10 at least, so the most bytes that a
/// transaction can carry leave three fifths of its gas for that.
pub(super) fn calldata() -> Program {
    let copy = [op::CALLDATASIZE, op::PUSH0, op::PUSH0, op::CALLDATACOPY];
    let gas_per_round = 3 * input_bytes(super::TRANSACTION_GAS_MAX).div_ceil(32);
    let code = Code::new().ops(&copy).repeat(gas_per_round + 50, |code| code.ops(&copy));
    Program { code: code.finish(&[]), gas_per_round }
}
