//! Calls, estimates and access lists, with the texts that geth's users know.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
};

use alloy_eips::{
    eip2930::AccessListItem,
    eip7702::{Authorization, SignedAuthorization},
};
use alloy_primitives::{Address, B256, address, bytes};
use engine::{
    genesis::{Fork, GenesisAccount},
    ports::Executor,
    query::{AccessListOutcome, AccountOverride, BlockOverride, CallBlock},
    testing::MapState,
    types::{Account, Height, StateChanges, TrieHandle},
};

use super::*;
use crate::{
    RevmExecutor,
    testing::{ALICE, BOB, ENV, ETHER, GAS_LIMIT, GWEI, LOOP, POOR, REVERT, STORE, STORE_CODE, World},
};

/// Where a test puts code by override.
const HERE: Address = address!("00000000000000000000000000000000000c0de5");

fn request(world: &World, to: Address) -> CallRequest {
    let block = CallBlock { header: world.parent.inner().clone(), overrides: BlockOverride::default() };
    CallRequest { from: ALICE, to: TxKind::Call(to), block, ..CallRequest::default() }
}

/// A call of this code.
fn code_request(world: &World, code: Bytes) -> CallRequest {
    let account = AccountOverride { code: Some(code), ..AccountOverride::default() };
    CallRequest { state_overrides: BTreeMap::from([(HERE, account)]), ..request(world, HERE) }
}

fn call(world: &World, request: &CallRequest) -> Result<CallOutcome, CallError> {
    RevmExecutor::new(world.chain.clone()).call(&world.state, request, &AtomicBool::new(false))
}

fn estimate(world: &World, request: &CallRequest) -> Result<u64, CallError> {
    RevmExecutor::new(world.chain.clone()).estimate_gas(&world.state, request, &AtomicBool::new(false))
}

fn access_list(world: &World, request: &CallRequest) -> Result<AccessListOutcome, CallError> {
    RevmExecutor::new(world.chain.clone()).access_list(&world.state, request, &AtomicBool::new(false))
}

fn refused<T: std::fmt::Debug>(result: Result<T, CallError>) -> String {
    match result {
        Err(CallError::Refused(text)) => text,
        other => panic!("not refused: {other:?}"),
    }
}

fn words(output: &Bytes) -> Vec<U256> {
    output.chunks(32).map(U256::from_be_slice).collect()
}

#[test]
fn a_call_returns_reverts_or_halts() {
    let world = World::new(Fork::Osaka);
    let mut stored = request(&world, STORE);
    stored.input = U256::from(9).to_be_bytes_vec().into();
    let outcome = call(&world, &stored).unwrap();
    assert_eq!((outcome.result, outcome.logs.len()), (CallResult::Success, 1));
    let outcome = call(&world, &request(&world, REVERT)).unwrap();
    assert_eq!((outcome.result, words(&outcome.output)), (CallResult::Revert, vec![U256::from(42)]));
    // Nobody is there, so nothing happens.
    let outcome = call(&world, &request(&world, HERE)).unwrap();
    assert_eq!((outcome.result, outcome.gas_used), (CallResult::Success, 21_000));
}

#[test]
fn a_halt_is_told_in_geths_words() {
    let world = World::new(Fork::Osaka);
    for (code, text) in [
        (bytes!("fe"), "invalid opcode: INVALID"),
        (bytes!("0c"), "invalid opcode: opcode 0xc not defined"),
        (bytes!("600301"), "stack underflow (1 <=> 2)"),
        (bytes!("600356"), "invalid jump destination"),
        (bytes!("5b5f600056"), "stack limit reached 1024 (1023)"),
        (bytes!("60205f5f3e"), "return data out of bounds"),
        (bytes!("5b5f56"), "out of gas"),
    ] {
        let outcome = call(&world, &code_request(&world, code)).unwrap();
        assert_eq!(outcome.result, CallResult::Halt(text.to_owned()));
    }
    let mut creation = request(&world, HERE);
    creation.to = TxKind::Create;
    for (init, text) in [
        (bytes!("6160015ff3"), "max code size exceeded"),
        (bytes!("60ef5f5360015ff3"), "invalid code: must not begin with 0xef"),
    ] {
        creation.input = init;
        assert_eq!(call(&world, &creation).unwrap().result, CallResult::Halt(text.to_owned()));
    }
}

#[test]
fn a_call_needs_money_only_for_what_it_names() {
    let world = World::new(Fork::Osaka);
    let mut poor = request(&world, BOB);
    poor.from = POOR;
    assert!(call(&world, &poor).is_ok());
    poor.value = U256::from(2);
    assert_eq!(
        refused(call(&world, &poor)),
        format!(
            "err: insufficient funds for gas * price + value: address {POOR} have 1 want 2 (supplied gas {})",
            limits::CALL_GAS_MAX
        )
    );
    let mut cheap = request(&world, BOB);
    cheap.gas_price = 1;
    cheap.gas = Some(21_000);
    assert_eq!(
        refused(call(&world, &cheap)),
        format!(
            "err: max fee per gas less than block base fee: address {ALICE}, maxFeePerGas: 1, baseFee: 1000000000 \
             (supplied gas 21000)"
        )
    );
    cheap.gas_price = 2 * GWEI;
    assert!(call(&world, &cheap).is_ok());
    cheap.priority_fee = Some(3 * GWEI);
    assert!(refused(call(&world, &cheap)).contains("max priority fee per gas higher than max fee per gas"));
    cheap.priority_fee = None;
    cheap.gas = Some(20_999);
    assert!(refused(call(&world, &cheap)).contains("intrinsic gas too low: have 20999, want 21000"));
}

#[test]
fn a_call_may_come_from_a_contract_and_with_any_nonce() {
    let world = World::new(Fork::Osaka);
    let mut odd = request(&world, STORE);
    odd.from = REVERT;
    odd.nonce = Some(77);
    odd.gas = Some(u64::MAX);
    assert_eq!(call(&world, &odd).unwrap().result, CallResult::Success);
}

#[test]
fn a_call_sees_the_block_it_names_and_what_replaces_it() {
    let world = World::new(Fork::Osaka);
    let mut seen = request(&world, ENV);
    // Without a fee the base fee is zero, as in geth.
    let expected = [0_u64, 1_000, 0, 0, 0].map(U256::from);
    assert_eq!(words(&call(&world, &seen).unwrap().output), expected);
    seen.gas_price = 2 * GWEI;
    seen.gas = Some(100_000);
    assert_eq!(words(&call(&world, &seen).unwrap().output)[2], U256::from(GWEI));
    seen.gas_price = 0;
    seen.block.overrides = BlockOverride {
        number: Some(U256::from(1_u128 << 100)),
        timestamp: Some(5),
        base_fee: Some(6),
        beneficiary: Some(BOB),
        random: Some(B256::repeat_byte(8)),
        ..BlockOverride::default()
    };
    let expected = [
        U256::from(1_u128 << 100),
        U256::from(5),
        U256::from(6),
        U256::from_be_slice(BOB.as_slice()),
        U256::from_be_bytes(B256::repeat_byte(8).0),
    ];
    assert_eq!(words(&call(&world, &seen).unwrap().output), expected);
    // BLOCKHASH of 3, asked in block 4.
    let mut hash = code_request(&world, bytes!("6003405f5260205ff3"));
    hash.block.overrides.number = Some(U256::from(4));
    assert_eq!(words(&call(&world, &hash).unwrap().output), [U256::ZERO]);
    hash.block.overrides.block_hashes.insert(3, B256::repeat_byte(9));
    assert_eq!(words(&call(&world, &hash).unwrap().output), [U256::from_be_bytes(B256::repeat_byte(9).0)]);
}

#[test]
fn state_overrides_replace_accounts_and_slots() {
    // Returns slots 1 and 2 and the own balance.
    let code = bytes!("6001545f5260025460205247604052" "60605ff3");
    let storage = BTreeMap::from([(U256::from(1), U256::from(11)), (U256::from(2), U256::from(12))]);
    let account = GenesisAccount { nonce: 1, balance: U256::from(13), code, storage };
    let world = World::with(Fork::Osaka, [(HERE, account)]);
    let run = |changed: AccountOverride| {
        let request = CallRequest { state_overrides: BTreeMap::from([(HERE, changed)]), ..request(&world, HERE) };
        call(&world, &request)
    };
    let seen = |changed| words(&run(changed).unwrap().output);
    let slot = BTreeMap::from([(U256::from(1), U256::from(21))]);
    let numbers = |values: [u64; 3]| values.map(U256::from).to_vec();
    assert_eq!(seen(AccountOverride::default()), numbers([11, 12, 13]));
    let diff = AccountOverride { storage_diff: slot.clone(), ..AccountOverride::default() };
    assert_eq!(seen(diff), numbers([21, 12, 13]));
    let whole = AccountOverride { storage: Some(slot.clone()), ..AccountOverride::default() };
    assert_eq!(seen(whole), numbers([21, 0, 13]));
    let balance = AccountOverride { balance: Some(U256::from(23)), ..AccountOverride::default() };
    assert_eq!(seen(balance), numbers([11, 12, 23]));
    let no_code = AccountOverride { code: Some(Bytes::new()), ..AccountOverride::default() };
    assert_eq!(seen(no_code), Vec::<U256>::new());
    let both = AccountOverride { storage: Some(slot.clone()), storage_diff: slot, ..AccountOverride::default() };
    assert_eq!(refused(run(both)), format!("account {HERE} has both 'state' and 'stateDiff'"));
}

/// Sets the flag when POOR is read: the caller leaves in the middle of the call.
struct Leaving<'a> {
    state: &'a MapState,
    flag: &'a AtomicBool,
}

impl StateView for Leaving<'_> {
    fn account(&self, address: Address) -> Result<Option<Account>, StateError> {
        if address == POOR {
            self.flag.store(true, Ordering::Relaxed);
        }
        self.state.account(address)
    }

    fn slot(&self, address: Address, key: U256) -> Result<U256, StateError> {
        self.state.slot(address, key)
    }

    fn code(&self, hash: B256) -> Result<Bytes, StateError> {
        self.state.code(hash)
    }

    fn block_hash(&self, height: Height) -> Result<Option<B256>, StateError> {
        self.state.block_hash(height)
    }

    fn root_after(
        &self,
        parent: Option<&TrieHandle>,
        changes: &StateChanges,
    ) -> Result<(B256, TrieHandle), StateError> {
        self.state.root_after(parent, changes)
    }
}

#[test]
fn a_call_without_end_stops_when_its_flag_is_set() {
    let world = World::new(Fork::Osaka);
    let executor = RevmExecutor::new(world.chain.clone());
    // Reads a balance, then jumps in a circle; the other one calls, in a circle, a contract that does.
    let endless = code_request(&world, bytes!("61900931505b600556"));
    let nested = code_request(&world, bytes!("61900931505b5f5f5f5f5f6110095af150600556"));
    for request in [endless, nested] {
        let flag = AtomicBool::new(false);
        let view = Leaving { state: &world.state, flag: &flag };
        assert_eq!(executor.call(&view, &request, &flag), Err(CallError::Cancelled));
        // A flag that is set already stops whatever has an instruction to run.
        assert_eq!(executor.estimate_gas(&world.state, &request, &flag), Err(CallError::Cancelled));
        assert_eq!(executor.access_list(&world.state, &request, &flag), Err(CallError::Cancelled));
    }
}

#[test]
fn a_plain_transfer_is_estimated_at_21000() {
    let world = World::new(Fork::Osaka);
    let mut transfer = request(&world, BOB);
    transfer.value = ETHER;
    assert_eq!(estimate(&world, &transfer), Ok(21_000));
    transfer.gas_price = 2 * GWEI;
    assert_eq!(estimate(&world, &transfer), Ok(21_000));
}

#[test]
fn an_estimate_is_enough_and_not_much_more_than_that() {
    let world = World::new(Fork::Osaka);
    let mut stored = request(&world, STORE);
    stored.input = U256::from(9).to_be_bytes_vec().into();
    // Keeps 1/64 back at each call, so the gas used is not the gas needed.
    let caller = code_request(&world, bytes!("60095f525f5f60205f5f6157085af1156100" "1a57005bfe"));
    for request in [stored, caller] {
        let gas = estimate(&world, &request).unwrap();
        let with = |gas| call(&world, &CallRequest { gas: Some(gas), ..request.clone() }).map(|outcome| outcome.result);
        assert_eq!(with(gas), Ok(CallResult::Success));
        assert_ne!(with(gas - gas / 50), Ok(CallResult::Success), "estimate {gas} is more than 2 % too high");
    }
}

#[test]
fn an_estimate_of_a_revert_carries_the_revert() {
    let world = World::new(Fork::Osaka);
    match estimate(&world, &request(&world, REVERT)) {
        Err(CallError::Failed(outcome)) => {
            assert_eq!((outcome.result, words(&outcome.output)), (CallResult::Revert, vec![U256::from(42)]));
        }
        other => panic!("{other:?}"),
    }
    match estimate(&world, &code_request(&world, bytes!("fe"))) {
        Err(CallError::Failed(outcome)) => {
            assert_eq!(outcome.result, CallResult::Halt("invalid opcode: INVALID".to_owned()));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_estimate_knows_its_allowance() {
    let world = World::new(Fork::Osaka);
    // Osaka caps a transaction below the block and below the node's own bound.
    let cap = limits::TRANSACTION_GAS_MAX_OSAKA;
    assert!(cap < GAS_LIMIT);
    assert_eq!(refused(estimate(&world, &request(&world, LOOP))), format!("gas required exceeds allowance ({cap})"));
    let mut little = request(&world, STORE);
    little.gas = Some(22_000);
    assert_eq!(refused(estimate(&world, &little)), "gas required exceeds allowance (22000)");
    let mut broke = request(&world, STORE);
    broke.from = POOR;
    broke.gas_price = 2 * GWEI;
    assert_eq!(refused(estimate(&world, &broke)), "gas required exceeds allowance (0)");
    broke.value = U256::from(1);
    assert_eq!(refused(estimate(&world, &broke)), "insufficient funds for transfer");
    broke.gas_price = 0;
    broke.value = U256::from(2);
    let text = "insufficient funds for gas * price + value: address";
    assert_eq!(refused(estimate(&world, &broke)), format!("failed with {cap} gas: {text} {POOR} have 1 want 2"));
}

#[test]
fn an_access_list_holds_what_is_touched_beside_the_parties() {
    let world = World::new(Fork::Osaka);
    // Reads the balance of BOB and the own slot 5, and calls STORE.
    let code = bytes!("610b0b3150600554505f5f5f5f5f6157085af100");
    let touching = code_request(&world, code);
    let outcome = access_list(&world, &touching).unwrap();
    let mut items = outcome.access_list.0.clone();
    items.sort_by_key(|item| item.address);
    let item = |address, keys: &[u8]| AccessListItem {
        address,
        storage_keys: keys.iter().map(|key| B256::with_last_byte(*key)).collect(),
    };
    assert_eq!(items, [item(BOB, &[]), item(STORE, &[0]), item(HERE, &[5])]);
    assert_eq!(outcome.error, None);
    let with_list = CallRequest { access_list: outcome.access_list, ..touching };
    assert_eq!(call(&world, &with_list).unwrap().gas_used, outcome.gas_used);
    let failed = access_list(&world, &request(&world, REVERT)).unwrap();
    assert_eq!((failed.access_list.is_empty(), failed.error.as_deref()), (true, Some("execution reverted")));
}

#[test]
fn a_creation_cannot_delegate() {
    let world = World::new(Fork::Osaka);
    let authorization = Authorization { chain_id: U256::ZERO, address: STORE, nonce: 0 };
    let signed = SignedAuthorization::new_unchecked(authorization, 0, U256::from(1), U256::from(1));
    let mut creation = request(&world, HERE);
    creation.to = TxKind::Create;
    creation.input = STORE_CODE;
    creation.authorizations = vec![signed];
    assert_eq!(refused(call(&world, &creation)), "EIP-7702 transaction cannot be used to create contract");
    creation.to = TxKind::Call(BOB);
    assert!(call(&world, &creation).is_ok());
}

#[test]
fn the_code_of_a_precompile_cannot_be_replaced() {
    let world = World::new(Fork::Osaka);
    let mut request = request(&world, Address::with_last_byte(4));
    let account = AccountOverride { balance: Some(ETHER), ..AccountOverride::default() };
    request.state_overrides = BTreeMap::from([(Address::with_last_byte(4), account.clone())]);
    call(&world, &request).expect("its balance can");
    let account = AccountOverride { code: Some(bytes!("00")), ..account };
    request.state_overrides = BTreeMap::from([(Address::with_last_byte(4), account)]);
    assert!(refused(call(&world, &request)).contains("is a precompile"));
}
