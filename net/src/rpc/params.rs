//! Parameters of a call, read one by one and strictly.
//!
//! Quantities are `0x` and one to sixteen (or sixty-four) digits without leading zeros, data is `0x`
//! and an even number of digits, as go-ethereum's `hexutil` has it: no sign, no white space.

use std::{borrow::Cow, fmt};

use alloy_primitives::{B256, Bytes, U256, hex};
use jsonrpsee::types::Params;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, Visitor},
};
use serde_json::value::RawValue;

use super::error::{Refusal, invalid};

/// The parameters of one call, in order.
pub(super) struct Arguments<'a> {
    values: Vec<&'a RawValue>,
    next: usize,
}

impl<'a> Arguments<'a> {
    /// Splits the parameters; what each holds is read later.
    ///
    /// # Errors
    /// Parameters by name: Ethereum's methods have none.
    pub(super) fn new(params: &'a Params<'_>) -> Result<Self, Refusal> {
        let values = match params.as_str() {
            None | Some("null" | "[]") => Vec::new(),
            Some(text) => serde_json::from_str(text).map_err(|_| invalid("non-array args"))?,
        };
        Ok(Self { values, next: 0 })
    }

    /// The next parameter, which must be there.
    pub(super) fn required<T: Deserialize<'a>>(&mut self) -> Result<T, Refusal> {
        let place = self.next;
        self.optional()?.ok_or_else(|| invalid(format!("missing value for required argument {place}")))
    }

    /// The next parameter, `None` if it is absent or null.
    pub(super) fn optional<T: Deserialize<'a>>(&mut self) -> Result<Option<T>, Refusal> {
        let place = self.next;
        self.next = place.saturating_add(1);
        match self.values.get(place).map(|value| value.get()) {
            None | Some("null") => Ok(None),
            Some(text) => match serde_json::from_str(text) {
                Ok(value) => Ok(Some(value)),
                Err(error) => Err(invalid(format!("invalid argument {place}: {}", reason(&error)))),
            },
        }
    }

    /// Refuses parameters behind the last one.
    pub(super) fn end(&self) -> Result<(), Refusal> {
        if self.values.len() > self.next {
            return Err(invalid(format!("too many arguments, want at most {}", self.next)));
        }
        Ok(())
    }
}

/// The words of a JSON error without its position, which means nothing to the caller; bounded.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(words, _)| words);
    text.chars().take(256).collect()
}

/// A quantity of at most 64 bits: a height, an index, a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quantity(pub(super) u64);

/// A quantity of at most 64 bits that may also be a JSON number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LooseQuantity(pub(super) u64);

/// Bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Data(pub(super) Bytes);

/// A storage key: up to 32 bytes, shorter ones are numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StorageKey {
    /// Its value.
    pub(super) key: U256,
    /// Whether it was written in full, so that an answer repeats it in full.
    pub(super) full: bool,
}

/// Reads a quantity of at most 256 bits.
pub(super) fn quantity(text: &str) -> Result<U256, &'static str> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).ok_or(if text.is_empty() {
        "empty hex string"
    } else {
        "hex string without 0x prefix"
    })?;
    if digits.is_empty() {
        return Err("hex string \"0x\"");
    }
    if digits.len() > 1 && digits.starts_with('0') {
        return Err("hex number with leading zero digits");
    }
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err("invalid hex string");
    }
    if digits.len() > 64 {
        return Err("hex number > 256 bits");
    }
    U256::from_str_radix(digits, 16).map_err(|_| "invalid hex string")
}

/// Reads a quantity of at most 64 bits.
pub(super) fn quantity_u64(text: &str) -> Result<u64, &'static str> {
    u64::try_from(quantity(text)?).map_err(|_| "hex number > 64 bits")
}

fn data(text: &str) -> Result<Bytes, &'static str> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).ok_or(if text.is_empty() {
        "empty hex string"
    } else {
        "hex string without 0x prefix"
    })?;
    if digits.len() % 2 == 1 {
        return Err("hex string of odd length");
    }
    // The decoder strips a prefix of its own, so `0x0x..` must not reach it.
    if digits.starts_with("0x") || digits.starts_with("0X") {
        return Err("invalid hex string");
    }
    hex::decode(digits).map(Bytes::from).map_err(|_| "invalid hex string")
}

fn storage_key(text: &str) -> Result<StorageKey, &'static str> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    if digits.len() > 64 {
        return Err("hex string too long, want at most 32 bytes");
    }
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err("hex string invalid");
    }
    let key = if digits.is_empty() { U256::ZERO } else { U256::from_str_radix(digits, 16).map_err(|_| "invalid")? };
    Ok(StorageKey { key, full: digits.len() == 64 })
}

impl StorageKey {
    /// The key as an answer repeats it.
    pub(super) fn display(&self) -> String {
        if self.full { B256::from(self.key).to_string() } else { format!("{:#x}", self.key) }
    }
}

fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cow<'de, str>, D::Error> {
    struct Text;
    impl<'de> Visitor<'de> for Text {
        type Value = Cow<'de, str>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a hex string")
        }

        fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
            Ok(Cow::Borrowed(text))
        }

        fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
            Ok(Cow::Owned(text.to_owned()))
        }
    }
    deserializer.deserialize_str(Text)
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        quantity_u64(&text(deserializer)?).map(Self).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for LooseQuantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Loose;
        impl Visitor<'_> for Loose {
            type Value = u64;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a hex string")
            }

            fn visit_u64<E>(self, value: u64) -> Result<u64, E> {
                Ok(value)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<u64, E> {
                quantity_u64(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Loose).map(Self)
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        data(&text(deserializer)?).map(Self).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for StorageKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        storage_key(&text(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse<T: for<'a> Deserialize<'a>>(params: &str) -> Result<T, String> {
        let params = Params::new(Some(params));
        let mut arguments = Arguments::new(&params).map_err(|error| error.message().to_owned())?;
        let value = arguments.required().map_err(|error| error.message().to_owned())?;
        arguments.end().map_err(|error| error.message().to_owned())?;
        Ok(value)
    }

    #[test]
    fn quantities_are_strict() {
        for (text, value) in [("0x0", 0), ("0x1", 1), ("0xfF", 255), ("0xffffffffffffffff", u64::MAX)] {
            assert_eq!(parse(&format!("[\"{text}\"]")), Ok(Quantity(value)));
        }
        for (text, reason) in [
            ("\"\"", "empty hex string"),
            ("\"0x\"", "hex string \"0x\""),
            ("\"1\"", "hex string without 0x prefix"),
            ("\"0x01\"", "hex number with leading zero digits"),
            ("\"0x+1\"", "invalid hex string"),
            ("\"0x-1\"", "invalid hex string"),
            ("\"0x1_0\"", "invalid hex string"),
            ("\"0x 1\"", "invalid hex string"),
            ("\" 0x1\"", "hex string without 0x prefix"),
            ("\"0xg\"", "invalid hex string"),
            ("\"0x10000000000000000\"", "hex number > 64 bits"),
            ("1", "invalid type: integer `1`, expected a hex string"),
            ("{}", "invalid type: map, expected a hex string"),
        ] {
            let found = parse::<Quantity>(&format!("[{text}]")).unwrap_err();
            assert_eq!(found, format!("invalid argument 0: {reason}"), "{text}");
        }
        assert!(parse::<Quantity>(&format!("[\"0x1{}\"]", "0".repeat(1 << 20))).is_err());
    }

    #[test]
    fn data_is_strict() {
        assert_eq!(parse("[\"0x\"]"), Ok(Data(Bytes::new())));
        assert_eq!(parse("[\"0x00fF\"]"), Ok(Data(Bytes::from_static(&[0, 255]))));
        for text in ["", "0", "00", "0x0", "0x+1", "0xzz", "0x0x00", "0x 0"] {
            assert!(parse::<Data>(&format!("[\"{text}\"]")).is_err(), "{text}");
        }
    }

    #[test]
    fn storage_keys_may_be_short() {
        let key = |text: &str| parse::<StorageKey>(&format!("[\"{text}\"]"));
        assert_eq!(key("0x").unwrap().key, U256::ZERO);
        assert_eq!(key("0x1").unwrap().display(), "0x1");
        assert_eq!(key("01").unwrap().key, U256::from(1));
        let full = format!("0x{:064x}", 5);
        assert_eq!(key(&full).unwrap().display(), full);
        assert!(key(&format!("0x{:065x}", 5)).is_err());
        assert!(key("0x+1").is_err());
    }

    #[test]
    fn counts_of_parameters_are_checked() {
        assert_eq!(parse::<Quantity>("[]").unwrap_err(), "missing value for required argument 0");
        assert_eq!(parse::<Quantity>("[null]").unwrap_err(), "missing value for required argument 0");
        assert_eq!(parse::<Quantity>("[\"0x1\",2]").unwrap_err(), "too many arguments, want at most 1");
        assert_eq!(parse::<Quantity>("{\"a\":1}").unwrap_err(), "non-array args");
        assert_eq!(parse::<Quantity>("[[[[").unwrap_err(), "non-array args");
        let params = Params::new(Some("[null]"));
        assert_eq!(Arguments::new(&params).unwrap().optional::<Quantity>().unwrap(), None);
    }

    #[test]
    fn loose_quantities_may_be_numbers() {
        assert_eq!(parse("[7]"), Ok(LooseQuantity(7)));
        assert_eq!(parse("[\"0x7\"]"), Ok(LooseQuantity(7)));
        for text in ["-1", "1.5", "\"7\"", "true"] {
            assert!(parse::<LooseQuantity>(&format!("[{text}]")).is_err(), "{text}");
        }
    }
}
