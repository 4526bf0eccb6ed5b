//! RLP tests: a value encodes to these bytes and these bytes decode to it, or to nothing at all.

use alloy_primitives::{Bytes, U512};
use alloy_rlp::{Decodable, Encodable, Header};
use eyre::{OptionExt, WrapErr, bail, eyre};
use serde_json::{Value, json as value};

use super::{
    case::{Case, Judged, Verdict},
    json,
};

/// Lists deeper than this are refused rather than recursed into.
const DEPTH_MAX: usize = 1_024;

/// Anything RLP can say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// A string of bytes.
    String(Bytes),
    /// A list of items.
    List(Vec<Self>),
}

impl Encodable for Item {
    fn encode(&self, out: &mut dyn alloy_rlp::BufMut) {
        match self {
            Self::String(bytes) => bytes.encode(out),
            Self::List(items) => items.encode(out),
        }
    }

    fn length(&self) -> usize {
        match self {
            Self::String(bytes) => bytes.length(),
            Self::List(items) => items.length(),
        }
    }
}

impl Item {
    /// Decodes one item and nothing behind it, in the only form that encodes it.
    pub(crate) fn decode_exact(mut bytes: &[u8]) -> alloy_rlp::Result<Self> {
        let item = Self::decode_at(&mut bytes, 0)?;
        if bytes.is_empty() { Ok(item) } else { Err(alloy_rlp::Error::UnexpectedLength) }
    }

    fn decode_at(bytes: &mut &[u8], depth: usize) -> alloy_rlp::Result<Self> {
        if depth > DEPTH_MAX {
            return Err(alloy_rlp::Error::Custom("too deep"));
        }
        let mut behind = *bytes;
        let header = Header::decode(&mut behind)?;
        if !header.list {
            return Bytes::decode(bytes).map(Self::String);
        }
        let mut payload = Header::decode_bytes(bytes, true)?;
        let mut items = Vec::new();
        while !payload.is_empty() {
            items.push(Self::decode_at(&mut payload, depth + 1)?);
        }
        Ok(Self::List(items))
    }

    /// The value as a vector writes it: text, number, list, or a decimal behind `#`.
    fn from_json(input: &Value) -> eyre::Result<Self> {
        let integer = |number: U512| {
            let bytes = number.to_be_bytes_trimmed_vec();
            Self::String(bytes.into())
        };
        Ok(match input {
            Value::String(text) => match text.strip_prefix('#') {
                Some(digits) => integer(digits.parse().wrap_err("`in` is not a decimal")?),
                None => Self::String(Bytes::copy_from_slice(text.as_bytes())),
            },
            Value::Number(number) => integer(U512::from(number.as_u64().ok_or_eyre("`in` is not a natural number")?)),
            Value::Array(items) => Self::List(items.iter().map(Self::from_json).collect::<eyre::Result<_>>()?),
            other => bail!("`in` is {other}"),
        })
    }
}

/// Runs one case.
pub(crate) fn run(name: &str, case: &Value) -> Vec<Case> {
    vec![Case::judge(name, None, 0, || check(case))]
}

fn check(case: &Value) -> Verdict {
    let input = json::field(case, "in")?;
    let bytes = json::bytes(case, "out")?;
    let decoded = Item::decode_exact(&bytes);
    match input.as_str() {
        Some("INVALID") => {
            let mut got = value!({"decodes": decoded.is_ok()});
            let pass = decoded.is_err();
            if let Err(error) = decoded {
                got["error"] = error.to_string().into();
            }
            Ok(Judged { got, want: value!({"decodes": false}), pass })
        }
        Some("VALID") => {
            let item = decoded.map_err(|error| eyre!("does not decode: {error}"))?;
            Ok(Judged::equal(value!({"encoded": Bytes::from(alloy_rlp::encode(&item))}), value!({"encoded": bytes})))
        }
        _ => {
            let item = Item::from_json(input)?;
            let encoded = Bytes::from(alloy_rlp::encode(&item));
            let round = decoded.as_ref() == Ok(&item);
            Ok(Judged::equal(
                value!({"encoded": encoded, "decodes": round}),
                value!({"encoded": bytes, "decodes": true}),
            ))
        }
    }
}
