//! What a node asks others for that takes the state over from them.

use alloy_primitives::B256;
use alloy_rlp::{BufMut, Decodable, Encodable, Error, Header, Result};

use super::ids::Epoch;

/// A wish for a piece of what a state is taken over from. Its encoding is an RLP list of its kind and its fields; what
/// may be absent is a list of one or of none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateWish {
    /// What shows that the block is final whose state others give: some bytes of it.
    Head {
        /// The block; `None` for the newest.
        block: Option<B256>,
        /// The epoch whose set is trusted.
        from: Epoch,
        /// Bytes before those that are wanted.
        at: u64,
    },
    /// A chunk of the state after a block.
    Part {
        /// The block.
        block: B256,
        /// The account whose slots are wanted, by its hashed address; `None` for accounts.
        owner: Option<B256>,
        /// The first key that may be in it.
        from: B256,
    },
}

impl Encodable for StateWish {
    fn encode(&self, out: &mut dyn BufMut) {
        let optional = |hash: &Option<B256>| hash.iter().copied().collect::<Vec<_>>();
        let fields: [&dyn Encodable; 4] = match self {
            Self::Head { block, from, at } => [&1_u8, &optional(block), from, at],
            Self::Part { block, owner, from } => [&2_u8, block, &optional(owner), from],
        };
        let payload_length = fields.iter().fold(0_usize, |sum, field| sum.saturating_add(field.length()));
        Header { list: true, payload_length }.encode(out);
        fields.iter().for_each(|field| field.encode(out));
    }
}

impl Decodable for StateWish {
    fn decode(bytes: &mut &[u8]) -> Result<Self> {
        let mut rest = Header::decode_bytes(bytes, true)?;
        let optional = |rest: &mut &[u8]| match Vec::<B256>::decode(rest)?.as_slice() {
            [] => Ok(None),
            [hash] => Ok(Some(*hash)),
            _ => Err(Error::ListLengthMismatch { expected: 1, got: 2 }),
        };
        let rest = &mut rest;
        let wish = match u8::decode(rest)? {
            1 => Self::Head { block: optional(rest)?, from: Epoch::decode(rest)?, at: u64::decode(rest)? },
            2 => Self::Part { block: B256::decode(rest)?, owner: optional(rest)?, from: B256::decode(rest)? },
            _ => return Err(Error::Custom("no wish of this kind")),
        };
        if rest.is_empty() { Ok(wish) } else { Err(Error::UnexpectedLength) }
    }
}

/// Some bytes of a head, as they travel: `block 32 | total u64, big end first | bytes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadSlice {
    /// The block that it is of.
    pub block: B256,
    /// Bytes of the whole head.
    pub total: u64,
    /// Those that were asked for.
    pub bytes: alloy_primitives::Bytes,
}

impl HeadSlice {
    /// Its encoding.
    #[must_use]
    pub fn encoded(&self) -> Vec<u8> {
        [self.block.as_slice(), &self.total.to_be_bytes(), &self.bytes].concat()
    }

    /// Reads what [`Self::encoded`] made; `None` for what is too short.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (block, rest) = bytes.split_first_chunk::<32>()?;
        let (total, bytes) = rest.split_first_chunk::<8>()?;
        let bytes = alloy_primitives::Bytes::copy_from_slice(bytes);
        Some(Self { block: B256::from(*block), total: u64::from_be_bytes(*total), bytes })
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::hex;

    use super::*;

    #[test]
    fn encodings_are_pinned_and_nothing_else_decodes() {
        let (a, b) = (B256::repeat_byte(0xaa), B256::repeat_byte(0xbb));
        let wishes = [
            (StateWish::Head { block: None, from: Epoch(3), at: 1_000 }, "c601c0038203e8".to_owned()),
            (StateWish::Head { block: Some(a), from: Epoch(0), at: 0 }, format!("e501e1a0{}8080", hex::encode(a))),
            (
                StateWish::Part { block: a, owner: None, from: b },
                format!("f84402a0{}c0a0{}", hex::encode(a), hex::encode(b)),
            ),
            (
                StateWish::Part { block: a, owner: Some(b), from: a },
                format!("f86502a0{0}e1a0{1}a0{0}", hex::encode(a), hex::encode(b)),
            ),
        ];
        for (wish, expected) in wishes {
            let bytes = alloy_rlp::encode(wish);
            assert_eq!(hex::encode(&bytes), expected);
            assert_eq!(alloy_rlp::decode_exact::<StateWish>(&bytes), Ok(wish));
            assert!((0..bytes.len()).all(|end| alloy_rlp::decode_exact::<StateWish>(&bytes[..end]).is_err()));
            assert!(alloy_rlp::decode_exact::<StateWish>([&bytes[..], &[0]].concat()).is_err());
        }
        let of_no_kind = alloy_rlp::decode_exact::<StateWish>([0xc4, 3, 0xc0, 3, 4]);
        assert_eq!(of_no_kind, Err(Error::Custom("no wish of this kind")));
    }

    #[test]
    fn a_slice_of_a_head_says_what_it_is_of() {
        let slice = HeadSlice { block: B256::repeat_byte(1), total: 258, bytes: vec![7, 8].into() };
        assert_eq!(hex::encode(slice.encoded()), format!("{}00000000000001020708", "01".repeat(32)));
        assert_eq!(HeadSlice::decode(&slice.encoded()), Some(slice.clone()));
        assert!((0..40).all(|end| HeadSlice::decode(&slice.encoded()[..end]).is_none()));
    }
}
