//! Where a transaction is, by its hash.

use alloy_primitives::B256;
use engine::types::Height;

use super::{Index, key::Posting, sealed::Half};
use crate::error::Fault;

impl Index {
    /// Height and index in the block of a transaction.
    pub(crate) fn transaction(&self, hash: &B256) -> Result<Option<(Height, u32)>, Fault> {
        self.absorb();
        let key = self.keys().transaction(hash);
        for part in self.parts(Half::Places).iter().rev() {
            let found = self.ask(part, |content| content.seek(key, Posting::FIRST))?;
            if let Some(posting) = found.first() {
                return Ok(Some((posting.height(part.first), posting.index)));
            }
        }
        Ok(None)
    }
}
