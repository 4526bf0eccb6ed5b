//! Accounts: balance, code, storage, nonce, proofs.

use std::sync::{Arc, atomic::AtomicBool};

use alloy_primitives::{Address, B256, Bytes, U64, U256};
use alloy_rpc_types_eth::AccountInfo;
use engine::{
    ports::StateView,
    query::BlockRef,
    types::{Account, Height},
};
use serde::Serialize;

use super::{
    Node,
    block_id::BlockId,
    error::{self, Refusal, header_not_found, invalid},
    limits::PROOF_KEYS_MAX,
    methods::{Registered, Registry},
    params::{Arguments, StorageKey},
};

/// Adds the methods of this file.
pub(super) fn register(registry: &mut Registry) -> Registered {
    registry.read("eth_getBalance", balance)?;
    registry.read("eth_getCode", code)?;
    registry.read("eth_getStorageAt", storage_at)?;
    registry.read("eth_getTransactionCount", transaction_count)?;
    registry.read("eth_getAccountInfo", account_info)?;
    registry.call("eth_getProof", proof)
}

impl Node {
    /// Height of a block that a state is asked of; `latest` if none is named.
    pub(super) fn height(&self, block: Option<BlockId>) -> Result<Height, Refusal> {
        let block = block.map_or(BlockRef::Latest, |id| id.0);
        self.query.height(block).map_err(error::store)?.ok_or_else(header_not_found)
    }

    fn view(&self, block: Option<BlockId>) -> Result<Arc<dyn StateView>, Refusal> {
        self.query.view(self.height(block)?).map_err(error::store)
    }
}

fn account(view: &dyn StateView, address: Address) -> Result<Account, Refusal> {
    Ok(view.account(address).map_err(error::state)?.unwrap_or_default())
}

fn code_of(view: &dyn StateView, account: &Account) -> Result<Bytes, Refusal> {
    if account.has_code() { view.code(account.code_hash).map_err(error::state) } else { Ok(Bytes::new()) }
}

fn subject(node: &Node, mut arguments: Arguments<'_>) -> Result<(Arc<dyn StateView>, Account), Refusal> {
    let address = arguments.required()?;
    let block = arguments.optional()?;
    arguments.end()?;
    let view = node.view(block)?;
    let account = account(&*view, address)?;
    Ok((view, account))
}

fn balance(node: &Node, arguments: Arguments<'_>) -> Result<U256, Refusal> {
    Ok(subject(node, arguments)?.1.balance)
}

fn code(node: &Node, arguments: Arguments<'_>) -> Result<Bytes, Refusal> {
    let (view, account) = subject(node, arguments)?;
    code_of(&*view, &account)
}

fn account_info(node: &Node, arguments: Arguments<'_>) -> Result<AccountInfo, Refusal> {
    let (view, account) = subject(node, arguments)?;
    Ok(AccountInfo { balance: account.balance, nonce: account.nonce, code: code_of(&*view, &account)? })
}

fn storage_at(node: &Node, mut arguments: Arguments<'_>) -> Result<B256, Refusal> {
    let address = arguments.required()?;
    let slot: StorageKey = arguments.required()?;
    let block = arguments.optional()?;
    arguments.end()?;
    let value = node.view(block)?.slot(address, slot.key).map_err(error::state)?;
    Ok(B256::from(value))
}

fn transaction_count(node: &Node, mut arguments: Arguments<'_>) -> Result<U64, Refusal> {
    let address = arguments.required()?;
    let block: Option<BlockId> = arguments.optional()?;
    arguments.end()?;
    if block == Some(BlockId(BlockRef::Pending)) {
        return node.query.pending_nonce(address).map(U64::from).map_err(error::store);
    }
    Ok(U64::from(account(&*node.view(block)?, address)?.nonce))
}

/// Source: EIP-1186.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Proof {
    address: Address,
    account_proof: Vec<Bytes>,
    balance: U256,
    code_hash: B256,
    nonce: U64,
    storage_hash: B256,
    storage_proof: Vec<SlotProof>,
}

#[derive(Serialize)]
struct SlotProof {
    key: String,
    value: U256,
    proof: Vec<Bytes>,
}

fn proof(node: &Node, mut arguments: Arguments<'_>, _: &AtomicBool) -> Result<Proof, Refusal> {
    let address = arguments.required()?;
    let keys: Vec<StorageKey> = arguments.required()?;
    let block = arguments.optional()?;
    arguments.end()?;
    if keys.len() > PROOF_KEYS_MAX {
        return Err(invalid(format!("too many storage keys, want at most {PROOF_KEYS_MAX}")));
    }
    let slots: Vec<_> = keys.iter().map(|slot| slot.key).collect();
    let proof = node.query.proof(node.height(block)?, address, &slots).map_err(error::store)?;
    let account = proof.account.unwrap_or_default();
    let storage_proof = keys
        .iter()
        .zip(proof.slots)
        .map(|(slot, (_, value, nodes))| SlotProof { key: slot.display(), value, proof: nodes })
        .collect();
    Ok(Proof {
        address,
        account_proof: proof.nodes,
        balance: account.balance,
        code_hash: account.code_hash,
        nonce: U64::from(account.nonce),
        storage_hash: proof.storage_root,
        storage_proof,
    })
}
