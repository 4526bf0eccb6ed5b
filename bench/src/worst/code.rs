//! EVM code by hand: opcodes, numbers, and loops that stop before their gas does.
//!
//! ```text
//! refuse:  revert, where every failed requirement jumps to
//! start:   counter = first word of the call data
//! ...      what a case prepares; the counter stays on top of the stack
//! head:    if gas < a round's: leave;  round;  counter += 1;  back to head
//! end:     log the number of rounds; stop
//! data     read with CODECOPY
//! ```

use alloy_primitives::{Bytes, U256};

pub(super) mod op {
    //! Opcodes, by the names the yellow paper and the EIPs give them.

    pub(crate) const STOP: u8 = 0x00;
    pub(crate) const ADD: u8 = 0x01;
    pub(crate) const MUL: u8 = 0x02;
    pub(crate) const SUB: u8 = 0x03;
    pub(crate) const MULMOD: u8 = 0x09;
    pub(crate) const GT: u8 = 0x11;
    pub(crate) const EQ: u8 = 0x14;
    pub(crate) const ISZERO: u8 = 0x15;
    pub(crate) const AND: u8 = 0x16;
    pub(crate) const OR: u8 = 0x17;
    pub(crate) const KECCAK256: u8 = 0x20;
    pub(crate) const BALANCE: u8 = 0x31;
    pub(crate) const CALLDATALOAD: u8 = 0x35;
    pub(crate) const CALLDATASIZE: u8 = 0x36;
    pub(crate) const CALLDATACOPY: u8 = 0x37;
    pub(crate) const CODESIZE: u8 = 0x38;
    pub(crate) const CODECOPY: u8 = 0x39;
    pub(crate) const EXTCODESIZE: u8 = 0x3b;
    pub(crate) const RETURNDATASIZE: u8 = 0x3d;
    pub(crate) const POP: u8 = 0x50;
    pub(crate) const MLOAD: u8 = 0x51;
    pub(crate) const MSTORE: u8 = 0x52;
    pub(crate) const SLOAD: u8 = 0x54;
    pub(crate) const SSTORE: u8 = 0x55;
    pub(crate) const JUMP: u8 = 0x56;
    pub(crate) const JUMPI: u8 = 0x57;
    pub(crate) const GAS: u8 = 0x5a;
    pub(crate) const JUMPDEST: u8 = 0x5b;
    pub(crate) const MCOPY: u8 = 0x5e;
    pub(crate) const PUSH0: u8 = 0x5f;
    pub(crate) const PUSH2: u8 = 0x61;
    pub(crate) const DUP1: u8 = 0x80;
    pub(crate) const DUP2: u8 = 0x81;
    pub(crate) const SWAP1: u8 = 0x90;
    pub(crate) const LOG0: u8 = 0xa0;
    pub(crate) const CREATE2: u8 = 0xf5;
    pub(crate) const STATICCALL: u8 = 0xfa;
    pub(crate) const REVERT: u8 = 0xfd;
}

/// Jumps over the block that reverts, whose destination is [`REFUSE`].
const HEAD: [u8; 8] = [0x60, 7, op::JUMP, op::JUMPDEST, op::PUSH0, op::PUSH0, op::REVERT, op::JUMPDEST];

/// Destination of every failed requirement.
const REFUSE: u64 = 3;

/// Gas beyond a round's own that a round is not begun without: the loop around it and the log at the end.
const SPARE: u64 = 2_000;

/// Code under construction; the counter is on top of the stack wherever a case takes over.
#[derive(Clone, Debug)]
pub(super) struct Code(Vec<u8>);

impl Code {
    /// Code that has read its counter.
    pub(super) fn new() -> Self {
        Self(HEAD.to_vec()).op(op::PUSH0).op(op::CALLDATALOAD)
    }

    pub(super) fn op(mut self, opcode: u8) -> Self {
        self.0.push(opcode);
        self
    }

    pub(super) fn ops(mut self, opcodes: &[u8]) -> Self {
        self.0.extend_from_slice(opcodes);
        self
    }

    /// The shortest push of a number.
    pub(super) fn push(self, number: u64) -> Self {
        self.word(U256::from(number))
    }

    /// The shortest push of a word.
    pub(super) fn word(mut self, word: U256) -> Self {
        let bytes = word.to_be_bytes_trimmed_vec();
        let length = u8::try_from(bytes.len()).expect("a word has 32 bytes");
        self.0.push(op::PUSH0 + length);
        self.0.extend(bytes);
        self
    }

    /// Takes a word from the stack and reverts if it is zero.
    pub(super) fn require(self) -> Self {
        self.op(op::ISZERO).push(REFUSE).op(op::JUMPI)
    }

    /// Copies the last bytes of the code, its data, to the start of the memory.
    pub(super) fn load_data(self, bytes: u64) -> Self {
        self.push(bytes).ops(&[op::DUP1, op::CODESIZE, op::SUB, op::PUSH0, op::CODECOPY])
    }

    /// Does `round` over and over while there is gas for it.
    ///
    /// A precompile is given 63 of 64 parts of what is left (EIP-150), so a round waits for a 63rd more.
    pub(super) fn repeat(self, gas: u64, round: impl FnOnce(Self) -> Self) -> Self {
        let head = u64::try_from(self.0.len()).expect("code is short");
        let code = self.ops(&[op::JUMPDEST, op::GAS]).push(gas + gas / 63 + SPARE).op(op::GT).op(op::PUSH2);
        let exit = code.0.len();
        let mut code = round(code.ops(&[0, 0, op::JUMPI])).push(1).op(op::ADD).push(head).op(op::JUMP);
        let end = u16::try_from(code.0.len()).expect("code is short");
        code.0[exit..exit + 2].copy_from_slice(&end.to_be_bytes());
        code.op(op::JUMPDEST)
    }

    /// Logs how far the counter went, stops, and puts the data behind.
    pub(super) fn finish(self, data: &[u8]) -> Bytes {
        let counted = self.ops(&[op::PUSH0, op::CALLDATALOAD, op::SWAP1, op::SUB, op::PUSH0, op::MSTORE]);
        counted.push(32).ops(&[op::PUSH0, op::LOG0, op::STOP]).ops(data).0.into()
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::hex;

    use super::*;

    #[test]
    fn pushes_are_as_short_as_they_can_be() {
        let code = Code(Vec::new()).push(0).push(1).push(256).word(U256::MAX);
        assert_eq!(code.0[..6], hex!("5f6001610100"));
        assert_eq!(code.0[6], 0x7f);
    }

    #[test]
    fn a_loop_leaves_at_its_end_and_returns_to_its_head() {
        let code = Code(Vec::new()).op(op::STOP).repeat(63, |code| code.op(op::POP));
        // Head at 1, 63 + 1 + 2000 = 0x810 gas, out to 0x12.
        assert_eq!(code.0, hex!("00" "5b5a610810116100125750" "6001016001565b").to_vec());
    }
}
