//! Records of the log with any payload.

use super::record::{Batch, FRONT_BYTES, Unsealed};

/// Takes bytes for the payload of a record; what decodes is the same once written and read again.
pub(crate) fn fuzzed(bytes: &[u8]) {
    let Ok(batch) = Batch::decode(bytes) else { return };
    let record = Unsealed::new(batch.entries.iter(), batch.blocks.iter());
    // An entry may be longer than this program writes one.
    let Ok(record) = record else { return };
    let record = if batch.is_first { record.first(batch.is_lost) } else { record };
    let written = record.seal(1, 1, 0, batch.mark);
    assert_eq!(Batch::decode(&written[FRONT_BYTES..]), Ok(batch));
}
