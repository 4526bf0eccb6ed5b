//! Fields of a vector: hex of every kind, with the field's name in every error.

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256, Bytes, U256};
use engine::genesis::GenesisAccount;
use eyre::{OptionExt, WrapErr, eyre};
use serde_json::Value;

/// A field that must be there.
pub(crate) fn field<'a>(object: &'a Value, name: &str) -> eyre::Result<&'a Value> {
    object.get(name).ok_or_else(|| eyre!("`{name}` is missing"))
}

/// A field that must be a text.
pub(crate) fn text<'a>(object: &'a Value, name: &str) -> eyre::Result<&'a str> {
    field(object, name)?.as_str().ok_or_else(|| eyre!("`{name}` is not a text"))
}

/// A list that must be there.
pub(crate) fn list<'a>(object: &'a Value, name: &str) -> eyre::Result<&'a Vec<Value>> {
    field(object, name)?.as_array().ok_or_else(|| eyre!("`{name}` is not a list"))
}

/// Bytes from hex.
pub(crate) fn bytes(object: &Value, name: &str) -> eyre::Result<Bytes> {
    text(object, name)?.parse().wrap_err_with(|| format!("`{name}` is not hex"))
}

/// 32 bytes from hex.
pub(crate) fn hash(object: &Value, name: &str) -> eyre::Result<B256> {
    text(object, name)?.parse().wrap_err_with(|| format!("`{name}` is not a hash"))
}

/// An address from hex.
pub(crate) fn address(object: &Value, name: &str) -> eyre::Result<Address> {
    text(object, name)?.parse().wrap_err_with(|| format!("`{name}` is not an address"))
}

/// A number: hex with any leading zeros, decimal, or a JSON number.
pub(crate) fn number(value: &Value) -> eyre::Result<U256> {
    if let Some(small) = value.as_u64() {
        return Ok(U256::from(small));
    }
    let text = value.as_str().ok_or_eyre("neither a text nor a number")?;
    match text.strip_prefix("0x") {
        Some("") => Ok(U256::ZERO),
        Some(digits) => U256::from_str_radix(digits, 16).wrap_err_with(|| format!("{text} is not a number")),
        None => U256::from_str_radix(text, 10).wrap_err_with(|| format!("{text} is not a number")),
    }
}

/// A number of 256 bits.
pub(crate) fn u256(object: &Value, name: &str) -> eyre::Result<U256> {
    number(field(object, name)?).wrap_err_with(|| format!("`{name}`"))
}

/// A number of 64 bits.
pub(crate) fn u64(object: &Value, name: &str) -> eyre::Result<u64> {
    u64::try_from(u256(object, name)?).map_err(|_| eyre!("`{name}` does not fit into 64 bits"))
}

/// A number of 64 bits that may be missing.
pub(crate) fn u64_if_any(object: &Value, name: &str) -> eyre::Result<Option<u64>> {
    object.get(name).map(|_| u64(object, name)).transpose()
}

/// Accounts by address.
pub(crate) fn accounts(object: &Value, name: &str) -> eyre::Result<BTreeMap<Address, GenesisAccount>> {
    let named = field(object, name)?.as_object().ok_or_else(|| eyre!("`{name}` is not an object"))?;
    named
        .iter()
        .map(|(address, fields)| account(address, fields).wrap_err_with(|| format!("`{name}.{address}`")))
        .collect()
}

fn account(address: &str, fields: &Value) -> eyre::Result<(Address, GenesisAccount)> {
    let mut storage = BTreeMap::new();
    let slots = field(fields, "storage")?.as_object().ok_or_eyre("`storage` is not an object")?;
    for (key, value) in slots {
        storage.insert(number(&Value::String(key.clone()))?, number(value)?);
    }
    let account = GenesisAccount {
        nonce: u64(fields, "nonce")?,
        balance: u256(fields, "balance")?,
        code: bytes(fields, "code")?,
        storage,
    };
    Ok((address.parse()?, account))
}
