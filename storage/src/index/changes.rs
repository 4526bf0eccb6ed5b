//! When an account or a slot changed, before and after a height.

use engine::types::Height;

use super::{
    Index,
    key::{Key, Posting},
    part_of,
    sealed::Half,
};
use crate::error::Fault;

impl Index {
    /// The first height above `after`, and up to `end`, that a key has.
    pub(crate) fn first_above(&self, key: Key, after: Height, end: Height) -> Result<Option<Height>, Fault> {
        self.absorb();
        let parts = self.parts(Half::Changes);
        let start = after.next();
        for part in parts[part_of(&parts, start)..].iter().take_while(|part| part.first <= end) {
            let Some(at) = Posting::at(part.first, part.first.max(start), 0) else { continue };
            if let Some(posting) = self.ask(part, |content| content.seek(key, at))?.first() {
                return Ok(Some(posting.height(part.first)).filter(|height| *height <= end));
            }
        }
        Ok(None)
    }

    /// The last height up to `end` that a key has.
    pub(crate) fn last_up_to(&self, key: Key, end: Height) -> Result<Option<Height>, Fault> {
        self.absorb();
        let parts = self.parts(Half::Changes);
        for part in parts.iter().rev().skip_while(|part| part.first > end) {
            let above = u32::try_from(end.0.saturating_sub(part.first.0)).unwrap_or(u32::MAX);
            let at = Posting { above, index: u32::MAX };
            if let Some(posting) = self.ask(part, |content| content.last(key, at))? {
                return Ok(Some(posting.height(part.first)));
            }
        }
        Ok(None)
    }
}
