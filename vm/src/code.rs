//! Analysed code, shared by all blocks and calls of a node.
//!
//! Finding the jump destinations of a contract costs more than many calls into it, so the result is
//! kept by code hash. Two generations bound the memory: when the young one is full it becomes the old
//! one, and what the old one held and nobody asked for is gone.

use alloy_primitives::{B256, Bytes, KECCAK256_EMPTY, map::B256Map};
use engine::ports::{StateError, StateView};
use parking_lot::RwLock;
use revm::state::Bytecode;

use crate::metrics;

/// Bytes of code in one generation; some 5,000 contracts of usual size in both.
const GENERATION_BYTES_MAX: usize = 32 * 1024 * 1024;

#[derive(Debug, Default)]
struct Generations {
    young: B256Map<Bytecode>,
    young_bytes: usize,
    old: B256Map<Bytecode>,
}

/// A bounded map from code hash to analysed code.
#[derive(Debug, Default)]
pub struct CodeCache(RwLock<Generations>);

impl CodeCache {
    /// The code with this hash, read through `view` if nobody asked for it lately.
    ///
    /// # Errors
    /// Those of [`StateView::code`].
    pub fn get(&self, view: &dyn StateView, hash: B256) -> Result<Bytecode, StateError> {
        let found = {
            let generations = self.0.read();
            if let Some(code) = generations.young.get(&hash) {
                return Ok(code.clone());
            }
            generations.old.get(&hash).cloned()
        };
        let code = match found {
            Some(code) => code,
            None => {
                metrics::CODE_ANALYSED.increment();
                analyse(view.code(hash)?)
            }
        };
        self.insert(hash, code.clone());
        Ok(code)
    }

    fn insert(&self, hash: B256, code: Bytecode) {
        let mut generations = self.0.write();
        // Bytes of the code and of its jump table, an eighth.
        let bytes = code.bytes_slice().len();
        if generations.young_bytes.saturating_add(bytes) > GENERATION_BYTES_MAX {
            generations.old = std::mem::take(&mut generations.young);
            generations.young_bytes = 0;
        }
        if generations.young.insert(hash, code).is_none() {
            generations.young_bytes = generations.young_bytes.saturating_add(bytes);
        }
    }
}

/// The codes that one EVM has met, in front of those that all share.
#[derive(Debug)]
pub(crate) struct NearCodes<'a> {
    shared: &'a CodeCache,
    near: B256Map<Bytecode>,
}

impl<'a> NearCodes<'a> {
    pub(crate) fn new(shared: &'a CodeCache) -> Self {
        Self { shared, near: B256Map::default() }
    }

    /// The code with this hash if it was met or put here.
    pub(crate) fn known(&self, hash: B256) -> Option<&Bytecode> {
        self.near.get(&hash)
    }

    /// Puts a code here that only this EVM's block knows yet.
    pub(crate) fn insert(&mut self, hash: B256, code: Bytecode) {
        self.near.insert(hash, code);
    }

    /// The code with this hash.
    ///
    /// # Errors
    /// Those of [`StateView::code`].
    pub(crate) fn get(&mut self, view: &dyn StateView, hash: B256) -> Result<Bytecode, StateError> {
        if hash == KECCAK256_EMPTY {
            return Ok(Bytecode::default());
        }
        if let Some(code) = self.near.get(&hash) {
            return Ok(code.clone());
        }
        let code = self.shared.get(view, hash)?;
        self.near.insert(hash, code.clone());
        Ok(code)
    }
}

/// Analyses code as the state holds it: a delegation of EIP-7702 if it has exactly that form.
#[must_use]
pub fn analyse(code: Bytes) -> Bytecode {
    Bytecode::new_raw_checked(code.clone()).unwrap_or_else(|_| Bytecode::new_legacy(code))
}
