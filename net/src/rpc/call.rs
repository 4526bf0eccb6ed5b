//! Runs of the EVM that change nothing: calls, gas estimates, access lists.
//!
//! A call at `latest` sees the environment of the newest block. An estimate sees that of the block
//! to come, since that is where the transaction will run: with several blocks to a second, code that
//! compares times takes another way one second later.

use std::{
    collections::BTreeMap,
    sync::atomic::AtomicBool,
    time::{SystemTime, UNIX_EPOCH},
};

use alloy_eips::eip2930::AccessListResult;
use alloy_primitives::{Address, Bytes, TxKind, U64, U256};
use alloy_rpc_types_eth::{BlockOverrides, TransactionRequest, state::StateOverride};
use engine::{
    limits::CALL_GAS_MAX,
    query::{AccountOverride, BlockOverride, BlockRef, CallBlock, CallRequest},
    types::Height,
};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::{Map, Value};

use super::{
    Node,
    block_id::BlockId,
    error::{self, Refusal, header_not_found, invalid, refused},
    methods::{Registered, Registry},
    params::{Arguments, quantity},
};

/// Adds the methods of this file.
pub(super) fn register(registry: &mut Registry) -> Registered {
    registry.call("eth_call", call)?;
    registry.call("eth_estimateGas", estimate_gas)?;
    registry.call("eth_createAccessList", create_access_list)
}

/// A transaction as a caller describes it: fields missing, `data` and `input` both there if equal,
/// quantities strict.
#[derive(Clone, Debug)]
pub(super) struct CallArguments(pub(super) TransactionRequest);

const QUANTITIES: [&str; 9] = [
    "gas",
    "gasPrice",
    "maxFeePerGas",
    "maxPriorityFeePerGas",
    "maxFeePerBlobGas",
    "value",
    "nonce",
    "chainId",
    "type",
];

impl<'de> Deserialize<'de> for CallArguments {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut fields = Map::deserialize(deserializer)?;
        // web3.py writes the type as a number, which geth, that ignores the field, never notices.
        if let Some(Value::Number(kind)) = fields.get("type")
            && let Some(kind) = kind.as_u64()
        {
            fields.insert("type".to_owned(), Value::String(format!("{kind:#x}")));
        }
        for name in QUANTITIES {
            match fields.get(name) {
                None | Some(Value::Null) => {}
                Some(Value::String(text)) => {
                    quantity(text).map_err(|reason| D::Error::custom(format_args!("{name}: {reason}")))?;
                }
                Some(_) => return Err(D::Error::custom(format_args!("{name}: not a hex string"))),
            }
        }
        serde_json::from_value(Value::Object(fields)).map(Self).map_err(D::Error::custom)
    }
}

impl CallArguments {
    /// The call data; both names may be given if they agree.
    pub(super) fn input(&self) -> Result<Bytes, Refusal> {
        let input = self.0.input.unique_input().map_err(|_| {
            invalid(
                "both \"data\" and \"input\" are set and not equal. Please use \"input\" to pass transaction call data",
            )
        })?;
        Ok(input.cloned().unwrap_or_default())
    }

    /// Refuses what no transaction of this chain can say.
    pub(super) fn check(&self, node: &Node) -> Result<(), Refusal> {
        let request = &self.0;
        let want = node.query.chain().chain_id;
        if let Some(have) = request.chain_id
            && have != want
        {
            return Err(refused(format!("chainId does not match node's (have={have}, want={want})")));
        }
        if request.blob_versioned_hashes.is_some() || request.sidecar.is_some() {
            return Err(refused("transaction type not supported: blob transactions are not taken by this chain"));
        }
        if request.gas_price.is_some()
            && (request.max_fee_per_gas.is_some() || request.max_priority_fee_per_gas.is_some())
        {
            return Err(refused("both gasPrice and (maxFeePerGas or maxPriorityFeePerGas) specified"));
        }
        if let (Some(fee), Some(tip)) = (request.max_fee_per_gas, request.max_priority_fee_per_gas)
            && fee < tip
        {
            return Err(refused(format!("maxFeePerGas ({fee}) < maxPriorityFeePerGas ({tip})")));
        }
        Ok(())
    }

    /// The call on the state of `block`.
    pub(super) fn into_call(self, node: &Node, block: CallBlock) -> Result<CallRequest, Refusal> {
        self.check(node)?;
        let input = self.input()?;
        let request = self.0;
        Ok(CallRequest {
            from: request.from.unwrap_or_default(),
            to: request.to.unwrap_or(TxKind::Create),
            gas: request.gas.map(|gas| gas.min(CALL_GAS_MAX)),
            gas_price: request.gas_price.or(request.max_fee_per_gas).unwrap_or_default(),
            // With a fee cap alone the tip is zero and the price the base fee, not the cap.
            priority_fee: request.max_priority_fee_per_gas.or_else(|| request.max_fee_per_gas.map(|_| 0)),
            value: request.value.unwrap_or_default(),
            input,
            nonce: request.nonce,
            access_list: request.access_list.unwrap_or_default(),
            authorizations: request.authorization_list.unwrap_or_default(),
            block,
            state_overrides: BTreeMap::new(),
        })
    }
}

/// Where a run happens: a state, and the block it believes to be in.
pub(super) struct Place {
    /// The state after this height.
    pub(super) height: Height,
    /// The environment.
    pub(super) block: CallBlock,
}

impl Node {
    /// The environment of a block itself; for `pending` that of the block to come.
    fn place(&self, block: Option<BlockId>) -> Result<Place, Refusal> {
        let block = block.map_or(BlockRef::Latest, |id| id.0);
        if block == BlockRef::Pending {
            return Ok(self.next_place());
        }
        let height = self.query.height(block).map_err(error::store)?.ok_or_else(header_not_found)?;
        let header = self.query.header(BlockRef::Height(height)).map_err(error::store)?.ok_or_else(header_not_found)?;
        Ok(Place { height, block: CallBlock { header: header.into_inner(), overrides: BlockOverride::default() } })
    }

    /// The newest state and the environment of the block to come.
    pub(super) fn next_place(&self) -> Place {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let header = self.query.pending_header(now);
        let height = Height(header.number.saturating_sub(1));
        Place { height, block: CallBlock { header, overrides: BlockOverride::default() } }
    }

    /// As [`Node::next_place`], a second later: the transaction may land in the next second, and a
    /// contract that keeps price sums or interest writes them once in every second it is used.
    pub(super) fn later_place(&self) -> Place {
        let mut place = self.next_place();
        place.block.header.timestamp = place.block.header.timestamp.saturating_add(1);
        place
    }

    fn estimate_place(&self, block: Option<BlockId>) -> Result<Place, Refusal> {
        match block.map(|id| id.0) {
            None | Some(BlockRef::Latest | BlockRef::Pending) => Ok(self.later_place()),
            Some(_) => self.place(block),
        }
    }
}

fn call(node: &Node, mut arguments: Arguments<'_>, cancel: &AtomicBool) -> Result<Bytes, Refusal> {
    let call: CallArguments = arguments.required()?;
    let place = node.place(arguments.optional()?)?;
    let (height, request) = overridden(node, call, place, &mut arguments)?;
    let outcome = node.query.call(height, &request, cancel).map_err(|error| error::call(error, request.gas))?;
    error::outcome(outcome)
}

fn estimate_gas(node: &Node, mut arguments: Arguments<'_>, cancel: &AtomicBool) -> Result<U64, Refusal> {
    let call: CallArguments = arguments.required()?;
    let place = node.estimate_place(arguments.optional()?)?;
    let (height, request) = overridden(node, call, place, &mut arguments)?;
    let gas = node.query.estimate_gas(height, &request, cancel).map_err(|error| error::call(error, request.gas))?;
    Ok(U64::from(gas))
}

fn create_access_list(
    node: &Node,
    mut arguments: Arguments<'_>,
    cancel: &AtomicBool,
) -> Result<AccessListResult, Refusal> {
    let call: CallArguments = arguments.required()?;
    let place = node.estimate_place(arguments.optional()?)?;
    let (height, request) = overridden(node, call, place, &mut arguments)?;
    let made = node.query.access_list(height, &request, cancel).map_err(|error| error::call(error, request.gas))?;
    Ok(AccessListResult { access_list: made.access_list, gas_used: U256::from(made.gas_used), error: made.error })
}

/// Reads the overrides behind the block and joins everything.
fn overridden(
    node: &Node,
    call: CallArguments,
    mut place: Place,
    arguments: &mut Arguments<'_>,
) -> Result<(Height, CallRequest), Refusal> {
    let state: Option<StateOverride> = arguments.optional()?;
    let block: Option<BlockOverrides> = arguments.optional()?;
    arguments.end()?;
    place.block.overrides = block.map(block_override).transpose()?.unwrap_or_default();
    let mut request = call.into_call(node, place.block)?;
    request.state_overrides = state_overrides(state.unwrap_or_default())?;
    Ok((place.height, request))
}

fn block_override(overrides: BlockOverrides) -> Result<BlockOverride, Refusal> {
    let unsupported = |name: &str| invalid(format!("block override \"{name}\" is not supported for this RPC method"));
    if overrides.beacon_root.is_some() {
        return Err(unsupported("beaconRoot"));
    }
    if overrides.blob_base_fee.is_some() {
        return Err(unsupported("blobBaseFee"));
    }
    let base_fee = overrides.base_fee.map(u64::try_from).transpose();
    Ok(BlockOverride {
        number: overrides.number,
        timestamp: overrides.time,
        gas_limit: overrides.gas_limit,
        beneficiary: overrides.coinbase,
        random: overrides.random,
        base_fee: base_fee.map_err(|_| invalid("block override \"baseFeePerGas\" is above 64 bits"))?,
        block_hashes: overrides.block_hash.unwrap_or_default(),
    })
}

fn state_overrides(overrides: StateOverride) -> Result<BTreeMap<Address, AccountOverride>, Refusal> {
    let words = |slots: alloy_primitives::map::B256HashMap<alloy_primitives::B256>| -> BTreeMap<U256, U256> {
        slots.into_iter().map(|(key, value)| (key.into(), value.into())).collect()
    };
    overrides
        .into_iter()
        .map(|(address, account)| {
            if account.state.is_some() && account.state_diff.is_some() {
                return Err(refused(format!("account {address} has both 'state' and 'stateDiff'")));
            }
            if account.move_precompile_to.is_some() {
                return Err(refused("state override 'movePrecompileToAddress' is not supported"));
            }
            let changed = AccountOverride {
                nonce: account.nonce,
                balance: account.balance,
                code: account.code,
                storage: account.state.map(words),
                storage_diff: account.state_diff.map(words).unwrap_or_default(),
            };
            Ok((address, changed))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<CallArguments, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn data_and_input_may_both_be_there_if_they_agree() {
        let input = |text| parse(text).unwrap().input().map_err(|refusal| refusal.code());
        assert_eq!(input("{}"), Ok(Bytes::new()));
        assert_eq!(input(r#"{"data":"0x01"}"#), Ok(Bytes::from_static(&[1])));
        assert_eq!(input(r#"{"input":"0x01"}"#), Ok(Bytes::from_static(&[1])));
        assert_eq!(input(r#"{"data":"0x01","input":"0x01"}"#), Ok(Bytes::from_static(&[1])));
        assert_eq!(input(r#"{"data":"0x01","input":"0x02"}"#), Err(-32602));
    }

    #[test]
    fn quantities_of_a_transaction_are_strict() {
        let largest = format!("0x{}", "f".repeat(64));
        assert!(parse(&format!(r#"{{"value":"{largest}"}}"#)).is_ok());
        for field in QUANTITIES {
            assert!(parse(&format!(r#"{{"{field}":null}}"#)).is_ok(), "{field}");
            assert!(parse(&format!(r#"{{"{field}":"0x1"}}"#)).is_ok(), "{field}");
            assert_eq!(parse(&format!(r#"{{"{field}":1}}"#)).is_ok(), field == "type", "{field}");
            for bad in ["\"\"", "\"0x\"", "\"1\"", "\"+0x1\"", "\"0x+1\"", "\"0x01\"", "-1", "[]", "\"0x1z\""] {
                assert!(parse(&format!(r#"{{"{field}":{bad}}}"#)).is_err(), "{field} {bad}");
            }
            assert!(parse(&format!(r#"{{"{field}":"{largest}f"}}"#)).is_err(), "{field}");
        }
        for bad in ["null", "[]", "\"0x\"", "{\"to\":\"0x12\"}", "{\"data\":\"0x1\"}", "{\"data\":\"0xzz\"}"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn overrides_that_cannot_be_honoured_are_refused() {
        let block = |text: &str| block_override(serde_json::from_str(text).unwrap());
        assert_eq!(block(r#"{"number":"0x5","time":"0x6"}"#).unwrap().timestamp, Some(6));
        assert!(block(r#"{"blobBaseFee":"0x1"}"#).is_err());
        assert!(block(&format!(r#"{{"beaconRoot":"0x{}"}}"#, "0".repeat(64))).is_err());
        let state = |text: &str| state_overrides(serde_json::from_str(text).unwrap());
        let address = "0x00000000000000000000000000000000000000aa";
        assert!(state(&format!(r#"{{"{address}":{{"balance":"0x1"}}}}"#)).is_ok());
        assert!(state(&format!(r#"{{"{address}":{{"state":{{}},"stateDiff":{{}}}}}}"#)).is_err());
        assert!(state(&format!(r#"{{"{address}":{{"movePrecompileToAddress":"{address}"}}}}"#)).is_err());
    }
}
