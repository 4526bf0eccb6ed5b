//! The inspector of every call: looks at the caller's flag, and remembers the last instruction.

use std::sync::atomic::{AtomicBool, Ordering};

use revm::{
    Inspector,
    context_interface::ContextTr,
    interpreter::{InstructionResult, Interpreter, interpreter_types::Jumps},
};

/// Interpreter steps between two looks at the flag; some microseconds.
pub const STEPS_PER_LOOK: u32 = 1_024;

/// Stops a call whose caller waits no longer.
#[derive(Clone, Debug)]
pub struct Watch<'a> {
    flag: &'a AtomicBool,
    steps_left: u32,
    cancelled: bool,
    /// Opcode of the last instruction that began.
    opcode: u8,
    /// Height of the stack before it.
    stack_height: usize,
}

impl<'a> Watch<'a> {
    /// Watches `flag`.
    #[must_use]
    pub const fn new(flag: &'a AtomicBool) -> Self {
        // The first step looks at once, so a flag that is set already stops the shortest call.
        Self { flag, steps_left: 0, cancelled: false, opcode: 0, stack_height: 0 }
    }

    /// Whether the flag was seen.
    #[must_use]
    pub const fn cancelled(&self) -> bool {
        self.cancelled
    }

    /// The last instruction that began, which is the one that halted a call that halted.
    #[must_use]
    pub const fn opcode(&self) -> u8 {
        self.opcode
    }

    /// Height of the stack before [`Watch::opcode`].
    #[must_use]
    pub const fn stack_height(&self) -> usize {
        self.stack_height
    }
}

impl<CTX: ContextTr> Inspector<CTX> for Watch<'_> {
    #[inline]
    fn step(&mut self, interpreter: &mut Interpreter, _context: &mut CTX) {
        self.opcode = interpreter.bytecode.opcode();
        self.stack_height = interpreter.stack.len();
        match self.steps_left.checked_sub(1) {
            Some(left) => self.steps_left = left,
            None => {
                self.steps_left = STEPS_PER_LOOK;
                self.cancelled |= self.flag.load(Ordering::Relaxed);
            }
        }
        if self.cancelled {
            interpreter.halt(InstructionResult::OutOfGas);
        }
    }
}
