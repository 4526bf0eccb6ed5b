//! Which block a caller means: a tag, a height, a hash, or an object of EIP-1898.
//!
//! `safe` and `finalized` are one; `pending` answers as `latest`, whose block is durable
//! milliseconds after it is built. Every block this node knows is canonical, so `requireCanonical`
//! has nothing to refuse.

use std::fmt;

use alloy_primitives::B256;
use engine::{query::BlockRef, types::Height};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};

use super::params::quantity_u64;

/// The block a caller means, by tag, height or hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockId(pub(super) BlockRef);

/// The block a caller means, by tag or height only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockTag(pub(super) BlockRef);

fn tag(text: &str) -> Result<BlockRef, &'static str> {
    Ok(match text {
        "latest" => BlockRef::Latest,
        "pending" => BlockRef::Pending,
        "safe" | "finalized" => BlockRef::Finalized,
        "earliest" => BlockRef::Height(Height::GENESIS),
        _ => BlockRef::Height(Height(quantity_u64(text)?)),
    })
}

struct Id;

impl<'de> Visitor<'de> for Id {
    type Value = BlockRef;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a block tag, a height, a hash or an object of EIP-1898")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<BlockRef, E> {
        if text.len() == 66 {
            return text.parse().map(BlockRef::Hash).map_err(|_| E::custom("invalid block hash"));
        }
        tag(text).map_err(E::custom)
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<BlockRef, M::Error> {
        let (mut number, mut hash) = (None, None);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "blockNumber" => number = map.next_value::<Option<BlockTag>>()?,
                "blockHash" => hash = map.next_value::<Option<B256>>()?,
                "requireCanonical" => {
                    map.next_value::<Option<bool>>()?;
                }
                _ => {
                    map.next_value::<serde::de::IgnoredAny>()?;
                }
            }
        }
        match (number, hash) {
            (Some(_), Some(_)) => {
                Err(M::Error::custom("cannot specify both BlockHash and BlockNumber, choose one or the other"))
            }
            (Some(BlockTag(block)), None) => Ok(block),
            (None, Some(hash)) => Ok(BlockRef::Hash(hash)),
            (None, None) => Err(M::Error::custom("invalid arguments; neither block nor hash specified")),
        }
    }
}

impl<'de> Deserialize<'de> for BlockId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Id).map(Self)
    }
}

impl<'de> Deserialize<'de> for BlockTag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        tag(&String::deserialize(deserializer)?).map(Self).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_block_is_read() {
        let hash = B256::repeat_byte(7);
        for (text, block) in [
            ("\"latest\"".to_owned(), BlockRef::Latest),
            ("\"pending\"".to_owned(), BlockRef::Pending),
            ("\"safe\"".to_owned(), BlockRef::Finalized),
            ("\"finalized\"".to_owned(), BlockRef::Finalized),
            ("\"earliest\"".to_owned(), BlockRef::Height(Height(0))),
            ("\"0x10\"".to_owned(), BlockRef::Height(Height(16))),
            (format!("\"{hash}\""), BlockRef::Hash(hash)),
            ("{\"blockNumber\":\"0x1\"}".to_owned(), BlockRef::Height(Height(1))),
            ("{\"blockNumber\":\"latest\"}".to_owned(), BlockRef::Latest),
            (format!("{{\"blockHash\":\"{hash}\",\"requireCanonical\":true}}"), BlockRef::Hash(hash)),
            (format!("{{\"requireCanonical\":false,\"blockHash\":\"{hash}\"}}"), BlockRef::Hash(hash)),
        ] {
            assert_eq!(serde_json::from_str::<BlockId>(&text).unwrap(), BlockId(block), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let hash = B256::repeat_byte(7);
        for text in [
            "\"\"".to_owned(),
            "\"newest\"".to_owned(),
            "\"Latest\"".to_owned(),
            "\"0x\"".to_owned(),
            "\"0x01\"".to_owned(),
            "\"0x+1\"".to_owned(),
            "\"10\"".to_owned(),
            "10".to_owned(),
            "null".to_owned(),
            "[]".to_owned(),
            "{}".to_owned(),
            "\"0x10000000000000000\"".to_owned(),
            format!("\"0x{}\"", "g".repeat(64)),
            format!("{{\"blockHash\":\"{hash}\",\"blockNumber\":\"0x1\"}}"),
            "{\"blockHash\":\"0x12\"}".to_owned(),
            "{\"blockNumber\":1}".to_owned(),
            "{\"blockNumber\":\"0x1\",\"requireCanonical\":\"yes\"}".to_owned(),
        ] {
            assert!(serde_json::from_str::<BlockId>(&text).is_err(), "{text}");
        }
    }
}
