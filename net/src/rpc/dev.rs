//! Accounts whose keys this node holds: the well-known ones of development chains, nobody's else.
//!
//! Everybody knows these keys. Without them the node signs nothing, and the methods that would sign
//! answer as geth does for an account it does not know.

use std::{collections::BTreeMap, sync::Arc, sync::atomic::AtomicBool};

use alloy_consensus::{SignableTransaction as _, Transaction as _};
use alloy_dyn_abi::TypedData;
use alloy_eips::eip2718::Encodable2718 as _;
use alloy_primitives::{Address, B256, Bytes};
use alloy_signer::SignerSync as _;
use alloy_signer_local::{LocalSignerError, MnemonicBuilder, PrivateKeySigner};
use engine::types::Envelope;
use jsonrpsee::types::Params;
use serde_json::Value;

use super::{
    Node,
    call::CallArguments,
    error::{Refusal, internal, invalid, refused},
    fill::{Filled, Unsigned},
    limits::CALL_TIME_MAX,
    methods::{Json, Registered, Registry},
    params::{Arguments, Data},
};

/// The phrase that every development tool knows.
pub const PHRASE: &str = "test test test test test test test test test test test junk";

/// How many of its accounts development tools use.
pub const ACCOUNTS: u32 = 10;

/// Struct types in one piece of typed data.
const TYPES_MAX: usize = 64;
/// Structs that a type may be made of when everything is written out.
const EXPANSIONS_MAX: usize = 4_096;

/// Accounts whose keys this node holds.
#[derive(Clone, Debug)]
pub struct DevAccounts {
    order: Vec<Address>,
    signers: BTreeMap<Address, PrivateKeySigner>,
}

impl DevAccounts {
    /// The first `count` accounts of a phrase, at `m/44'/60'/0'/0/i`.
    ///
    /// # Errors
    /// The phrase is no BIP-39 phrase.
    pub fn from_phrase(phrase: &str, count: u32) -> Result<Self, LocalSignerError> {
        let mut accounts = Self { order: Vec::new(), signers: BTreeMap::new() };
        for index in 0..count {
            let signer = MnemonicBuilder::try_from_phrase_nth(phrase, index)?;
            accounts.order.push(signer.address());
            accounts.signers.insert(signer.address(), signer);
        }
        Ok(accounts)
    }

    /// The ten accounts of every development chain.
    ///
    /// # Panics
    /// Never: the phrase is a constant, and a test derives it.
    #[must_use]
    pub fn well_known() -> Self {
        Self::from_phrase(PHRASE, ACCOUNTS).expect("the well-known phrase is a valid BIP-39 phrase")
    }

    /// The addresses in order of derivation.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        &self.order
    }

    /// Addresses and private keys in order of derivation, to be printed at start.
    pub fn keys(&self) -> impl Iterator<Item = (Address, B256)> + '_ {
        self.order.iter().filter_map(|address| Some((*address, self.signers.get(address)?.to_bytes())))
    }

    fn signer(&self, address: Address) -> Result<&PrivateKeySigner, Refusal> {
        self.signers.get(&address).ok_or_else(unknown_account)
    }
}

fn unknown_account() -> Refusal {
    refused("unknown account")
}

/// Adds the methods of this file; those that are not geth's only where there are accounts.
pub(super) fn register(registry: &mut Registry, unlocked: bool) -> Registered {
    registry.inline("eth_accounts", accounts)?;
    registry.inline("eth_sign", |node, mut arguments| {
        let (address, Data(message)) = (arguments.required()?, arguments.required()?);
        arguments.end()?;
        sign_message(node, address, &message)
    })?;
    registry.call("eth_signTransaction", sign_transaction)?;
    registry.future("eth_sendTransaction", send_transaction)?;
    if unlocked {
        registry.inline("personal_sign", |node, mut arguments| {
            let (Data(message), address) = (arguments.required()?, arguments.required()?);
            let _password: Option<String> = arguments.optional()?;
            arguments.end()?;
            sign_message(node, address, &message)
        })?;
        registry.call("eth_signTypedData_v4", sign_typed_data)?;
    }
    Ok(())
}

impl Node {
    fn signer(&self, address: Option<Address>) -> Result<&PrivateKeySigner, Refusal> {
        self.dev.as_ref().ok_or_else(unknown_account)?.signer(address.unwrap_or_default())
    }

    /// Fills a transaction and signs it for its sender.
    fn sign(&self, call: CallArguments, nonce: u64, cancel: &AtomicBool) -> Result<Envelope, Refusal> {
        let signer = self.signer(call.0.from)?;
        let transaction = self.fill(call, nonce, cancel)?;
        let hash = match &transaction {
            Unsigned::Legacy(transaction) => transaction.signature_hash(),
            Unsigned::Eip2930(transaction) => transaction.signature_hash(),
            Unsigned::Eip1559(transaction) => transaction.signature_hash(),
            Unsigned::Eip4844(transaction) => transaction.signature_hash(),
            Unsigned::Eip7702(transaction) => transaction.signature_hash(),
        };
        let signature = signer.sign_hash_sync(&hash).map_err(|error| internal(&error))?;
        Ok(transaction.into_signed(signature).into())
    }
}

fn accounts(node: &Node, arguments: Arguments<'_>) -> Result<Vec<Address>, Refusal> {
    arguments.end()?;
    Ok(node.dev.as_ref().map(|dev| dev.order.clone()).unwrap_or_default())
}

/// Source: EIP-191, version 0x45.
fn sign_message(node: &Node, address: Address, message: &[u8]) -> Result<Bytes, Refusal> {
    let signature = node.signer(Some(address))?.sign_message_sync(message).map_err(|error| internal(&error))?;
    Ok(signature.as_bytes().into())
}

/// Source: EIP-712.
fn sign_typed_data(node: &Node, mut arguments: Arguments<'_>, _: &AtomicBool) -> Result<Bytes, Refusal> {
    let address: Address = arguments.required()?;
    let data: Value = arguments.required()?;
    arguments.end()?;
    let signer = node.signer(Some(address))?;
    // Some libraries send the data as a string that holds the JSON.
    let malformed = |_| invalid("invalid argument 1: not typed data of EIP-712");
    let data = match data {
        Value::String(text) => serde_json::from_str(&text).map_err(malformed)?,
        data => data,
    };
    check_types(&data)?;
    let data: TypedData = serde_json::from_value(data).map_err(malformed)?;
    let hash = data.eip712_signing_hash().map_err(|error| invalid(format!("invalid argument 1: {error}")))?;
    let signature = signer.sign_hash_sync(&hash).map_err(|error| internal(&error))?;
    Ok(signature.as_bytes().into())
}

/// Checks that hashing will end soon: it follows every field of every struct, so a type with two fields of the
/// next type doubles the work, and recursion is as deep as types are nested.
fn check_types(data: &Value) -> Result<(), Refusal> {
    let Some(types) = data.get("types").and_then(Value::as_object) else { return Ok(()) };
    if types.len() > TYPES_MAX {
        return Err(invalid(format!("invalid argument 1: {} types, at most {TYPES_MAX}", types.len())));
    }
    let fields = |name: &str| types.get(name).and_then(Value::as_array);
    // Structs that a type is made of when everything is written out; a type that contains itself grows at each
    // round until it is over the bound.
    let mut sizes: BTreeMap<&str, usize> = types.keys().map(|name| (name.as_str(), 1)).collect();
    for _ in 0..=types.len() {
        let mut next = sizes.clone();
        for (name, size) in &mut next {
            let kinds = fields(name).into_iter().flatten().filter_map(|field| field.get("type")?.as_str());
            let roots = kinds.map(|kind| kind.split_once('[').map_or(kind, |(root, _)| root));
            *size = roots.filter_map(|root| sizes.get(root)).fold(1, |sum: usize, size| sum.saturating_add(*size));
            if *size > EXPANSIONS_MAX {
                return Err(invalid(format!("invalid argument 1: type {name} expands to more than {EXPANSIONS_MAX}")));
            }
        }
        if next == sizes {
            return Ok(());
        }
        sizes = next;
    }
    Err(invalid("invalid argument 1: a type contains itself"))
}

fn sign_transaction(node: &Node, mut arguments: Arguments<'_>, cancel: &AtomicBool) -> Result<Filled, Refusal> {
    let call: CallArguments = arguments.required()?;
    arguments.end()?;
    node.signer(call.0.from)?;
    let nonce = node.nonce_for(&call)?;
    Filled::signed(&node.sign(call, nonce, cancel)?)
}

/// Sends are one at a time, so that two of one account do not take the same nonce.
async fn send_transaction(params: Params<'static>, node: Arc<Node>) -> Result<Json, Refusal> {
    let call: CallArguments = {
        let mut arguments = Arguments::new(&params)?;
        let call = arguments.required()?;
        arguments.end()?;
        call
    };
    node.signer(call.0.from)?;
    let _turn = node.sends.lock().await;
    let worker = Arc::clone(&node);
    let signed = node
        .calls
        .run(params.len_bytes(), Some(CALL_TIME_MAX), move |cancel| {
            let nonce = worker.nonce_for(&call)?;
            let envelope = worker.sign(call, nonce, cancel)?;
            debug_assert_eq!(envelope.nonce(), nonce, "filling keeps the nonce");
            Ok(envelope.encoded_2718())
        })
        .await?;
    let hash = node.submit(signed.into()).admitted().await?;
    node.json(&hash)
}

#[cfg(test)]
mod tests {
    use alloy_primitives::{address, b256};

    use super::*;

    #[test]
    fn the_well_known_accounts_are_the_ones_everybody_knows() {
        let accounts = DevAccounts::well_known();
        assert_eq!(accounts.addresses().len(), 10);
        let first = (
            address!("f39Fd6e51aad88F6F4ce6aB8827279cffFb92266"),
            b256!("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"),
        );
        assert_eq!(accounts.keys().next(), Some(first));
        assert_eq!(accounts.addresses()[9], address!("a0Ee7A142d267C1f36714E4a8F75612F20a79720"));
    }

    #[test]
    fn typed_data_that_would_take_for_ever_is_refused() {
        let field = |kind: &str| serde_json::json!({"name": "x", "type": kind});
        let types = |list: Vec<(String, Vec<Value>)>| {
            let types: serde_json::Map<_, _> = list.into_iter().map(|(name, fields)| (name, fields.into())).collect();
            serde_json::json!({"types": types})
        };
        let chain = |length: usize, fields: usize| {
            types((0..length).map(|n| (format!("T{n}"), vec![field(&format!("T{}[]", n + 1)); fields])).collect())
        };
        assert!(check_types(&chain(40, 1)).is_ok());
        assert!(check_types(&chain(65, 1)).unwrap_err().message().contains("65 types"));
        assert!(check_types(&chain(30, 2)).unwrap_err().message().contains("expands to more than"));
        let own = types(vec![("T".to_owned(), vec![field("T")])]);
        assert!(check_types(&own).unwrap_err().message().contains("contains itself"));
        let mail = types(vec![("Mail".to_owned(), vec![field("address"), field("string")])]);
        assert!(check_types(&mail).is_ok());
    }
}
