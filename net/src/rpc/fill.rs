//! Completes a transaction that a caller only described: nonce, gas, fees.
//!
//! Source: go-ethereum `internal/ethapi/transaction_args.go`, `setDefaults`.

use std::sync::atomic::AtomicBool;

use alloy_consensus::{
    EthereumTypedTransaction, SignableTransaction as _, TxEip1559, TxEip2930, TxEip4844, TxEip7702, TxLegacy,
};
use alloy_eips::eip2718::Encodable2718 as _;
use alloy_primitives::{Bytes, Signature, TxKind, U256};
use alloy_rlp::Encodable as _;
use engine::types::Envelope;
use serde::Serialize;
use serde_json::Value;

use super::{
    Node,
    call::CallArguments,
    error::{self, Refusal, internal, invalid, refused},
    methods::{Registered, Registry},
    params::Arguments,
};

/// A complete transaction that nobody signed yet.
pub(super) type Unsigned = EthereumTypedTransaction<TxEip4844>;

/// Adds the methods of this file.
pub(super) fn register(registry: &mut Registry) -> Registered {
    registry.call("eth_fillTransaction", fill_transaction)
}

/// A transaction as bytes and as JSON.
#[derive(Serialize)]
pub(super) struct Filled {
    raw: Bytes,
    tx: Value,
}

impl Filled {
    /// A signed transaction.
    pub(super) fn signed(envelope: &Envelope) -> Result<Self, Refusal> {
        let tx = serde_json::to_value(envelope).map_err(|error| internal(&error))?;
        Ok(Self { raw: envelope.encoded_2718().into(), tx })
    }

    /// An unsigned transaction: v, r and s are zero, as geth writes it.
    fn unsigned(transaction: Unsigned) -> Result<Self, Refusal> {
        let legacy = match &transaction {
            Unsigned::Legacy(legacy) => Some(unsigned_legacy(legacy)),
            _ => None,
        };
        let signature = Signature::new(U256::ZERO, U256::ZERO, false);
        let mut filled = Self::signed(&transaction.into_signed(signature).into())?;
        if let Some(raw) = legacy {
            filled.tx["v"] = Value::from("0x0");
            filled.tx["hash"] = Value::from(alloy_primitives::keccak256(&raw).to_string());
            filled.raw = raw;
        }
        Ok(filled)
    }
}

/// The list of a legacy transaction with zeros in place of a signature.
fn unsigned_legacy(transaction: &TxLegacy) -> Bytes {
    let mut fields = Vec::new();
    transaction.nonce.encode(&mut fields);
    transaction.gas_price.encode(&mut fields);
    transaction.gas_limit.encode(&mut fields);
    transaction.to.encode(&mut fields);
    transaction.value.encode(&mut fields);
    transaction.input.encode(&mut fields);
    fields.extend([alloy_rlp::EMPTY_STRING_CODE; 3]);
    let mut raw = Vec::new();
    alloy_rlp::Header { list: true, payload_length: fields.len() }.encode(&mut raw);
    raw.extend(fields);
    raw.into()
}

fn fill_transaction(node: &Node, mut arguments: Arguments<'_>, cancel: &AtomicBool) -> Result<Filled, Refusal> {
    let call: CallArguments = arguments.required()?;
    arguments.end()?;
    let nonce = node.nonce_for(&call)?;
    Filled::unsigned(node.fill(call, nonce, cancel)?)
}

impl Node {
    /// The nonce a caller names, else the sender's next one.
    pub(super) fn nonce_for(&self, call: &CallArguments) -> Result<u64, Refusal> {
        match call.0.nonce {
            Some(nonce) => Ok(nonce),
            None => self.query.pending_nonce(call.0.from.unwrap_or_default()).map_err(error::store),
        }
    }

    /// Completes a transaction; what the caller named is kept.
    pub(super) fn fill(&self, mut call: CallArguments, nonce: u64, cancel: &AtomicBool) -> Result<Unsigned, Refusal> {
        call.check(self)?;
        let input = call.input()?;
        let to = call.0.to.unwrap_or(TxKind::Create);
        if to.is_create() && input.is_empty() {
            return Err(invalid("contract creation without any data provided"));
        }
        let fees = self.fees(&call)?;
        call.0.nonce = Some(nonce);
        let gas_limit = match call.0.gas {
            Some(gas) => gas,
            None => self.estimate(call.clone(), cancel)?,
        };
        let chain_id = self.query.chain().chain_id;
        let request = call.0;
        let value = request.value.unwrap_or_default();
        Ok(match (fees, request.access_list, request.authorization_list) {
            (Fees::Legacy(_), _, Some(_)) => return Err(refused("gasPrice cannot be used with an authorization list")),
            (Fees::Legacy(gas_price), None, None) => {
                let chain_id = Some(chain_id);
                Unsigned::Legacy(TxLegacy { chain_id, nonce, gas_price, gas_limit, to, value, input })
            }
            (Fees::Legacy(gas_price), Some(access_list), None) => {
                Unsigned::Eip2930(TxEip2930 { chain_id, nonce, gas_price, gas_limit, to, value, access_list, input })
            }
            (Fees::Dynamic { tip, fee }, access_list, None) => Unsigned::Eip1559(TxEip1559 {
                chain_id,
                nonce,
                gas_limit,
                max_fee_per_gas: fee,
                max_priority_fee_per_gas: tip,
                to,
                value,
                access_list: access_list.unwrap_or_default(),
                input,
            }),
            (Fees::Dynamic { tip, fee }, access_list, Some(authorization_list)) => Unsigned::Eip7702(TxEip7702 {
                chain_id,
                nonce,
                gas_limit,
                max_fee_per_gas: fee,
                max_priority_fee_per_gas: tip,
                to: to
                    .into_to()
                    .ok_or_else(|| invalid("input transaction of type 4 cannot be used to create contract"))?,
                value,
                access_list: access_list.unwrap_or_default(),
                authorization_list,
                input,
            }),
        })
    }

    /// The fees a caller names, else enough for a base fee that doubles.
    fn fees(&self, call: &CallArguments) -> Result<Fees, Refusal> {
        if let Some(price) = call.0.gas_price {
            return Ok(Fees::Legacy(price));
        }
        let base_fee = u128::from(self.query.next_base_fee());
        let tip = match (call.0.max_priority_fee_per_gas, call.0.max_fee_per_gas) {
            (Some(tip), _) => tip,
            (None, Some(fee)) => self.suggested_tip()?.min(fee),
            (None, None) => self.suggested_tip()?,
        };
        let fee = call.0.max_fee_per_gas.unwrap_or_else(|| base_fee.saturating_mul(2).saturating_add(tip));
        Ok(Fees::Dynamic { tip, fee })
    }

    fn estimate(&self, call: CallArguments, cancel: &AtomicBool) -> Result<u64, Refusal> {
        let place = self.later_place();
        let request = call.into_call(self, place.block)?;
        self.query.estimate_gas(place.height, &request, cancel).map_err(|error| error::call(error, request.gas))
    }
}

enum Fees {
    Legacy(u128),
    Dynamic { tip: u128, fee: u128 },
}
