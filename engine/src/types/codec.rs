//! Bytes of blocks, receipts and state changes, as storage writes them and peers will send them.
//!
//! Everything is RLP. Layouts:
//!
//! ```text
//! body     [Ethereum header, [encoded tx as string, ..], withdrawals or empty string]
//! block    [consensus header, Ethereum header, [encoded tx as string, ..], senders (20 bytes each),
//!           withdrawals or empty string]
//! receipts [[type, success, gas used, cumulative gas, contract or empty, [log, ..]], ..]
//! changes  [[[address, before, after, wiped, [[slot, before, after], ..]], ..], [code, ..]]
//! account  [nonce, balance, code hash], or the empty string where there is none
//! ```
//!
//! Accounts are in order of address, slots in order of key, codes in order of hash, so that equal
//! values have equal bytes. On disk senders are kept, because this node recovered them once already; a body travels
//! without them, for nobody believes others about them.

mod body;

use std::sync::Arc;

use alloy_consensus::{Header, Sealable};
use alloy_eips::eip4895::Withdrawals;
use alloy_primitives::{Address, B256, Bytes, Log, U256, keccak256};
use alloy_rlp::{BufMut, Decodable, Encodable, Error, Header as ListHeader, Result};

pub use self::body::{BodyError, body_bytes, decode_body, encode_body};
use super::{
    block::{Block, BlockBody, ConsensusHeader},
    layer::{Account, AccountChange, SlotChange, StateChanges},
    receipt::Receipt,
    transaction::Transaction,
};

fn list(out: &mut Vec<u8>, payload: &[u8]) {
    ListHeader { list: true, payload_length: payload.len() }.encode(out);
    out.put_slice(payload);
}

/// Splits the payload of the list at the front of `bytes` off it.
fn open<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8]> {
    ListHeader::decode_bytes(bytes, true)
}

fn finished(bytes: &[u8]) -> Result<()> {
    if bytes.is_empty() { Ok(()) } else { Err(Error::UnexpectedLength) }
}

/// Encodes a block with the senders of its transactions.
#[must_use]
pub fn encode_block(block: &Block) -> Vec<u8> {
    let mut payload = Vec::with_capacity(1024);
    block.consensus.encode(&mut payload);
    block.header.inner().encode(&mut payload);
    let mut transactions = Vec::new();
    let mut senders = Vec::with_capacity(block.body.transactions.len().saturating_mul(20));
    for transaction in &block.body.transactions {
        transaction.encoded().encode(&mut transactions);
        senders.extend_from_slice(transaction.sender().as_slice());
    }
    list(&mut payload, &transactions);
    senders.as_slice().encode(&mut payload);
    match &block.body.withdrawals {
        Some(withdrawals) => withdrawals.encode(&mut payload),
        None => payload.put_u8(alloy_rlp::EMPTY_STRING_CODE),
    }
    let mut out = Vec::with_capacity(payload.len().saturating_add(9));
    list(&mut out, &payload);
    out
}

/// Decodes what [`encode_block`] wrote.
///
/// # Errors
/// Whatever does not decode, and bytes behind the block.
pub fn decode_block(mut bytes: &[u8]) -> Result<Block> {
    let mut rest = open(&mut bytes)?;
    finished(bytes)?;
    let consensus = ConsensusHeader::decode(&mut rest)?;
    let header = Header::decode(&mut rest)?;
    let mut encoded = open(&mut rest)?;
    let senders = ListHeader::decode_bytes(&mut rest, false)?;
    let mut transactions = Vec::with_capacity(senders.len() / 20);
    for sender in senders.chunks(20) {
        let sender = Address::try_from(sender).map_err(|_| Error::Custom("sender of less than 20 bytes"))?;
        let bytes = Bytes::decode(&mut encoded)?;
        let transaction = Transaction::with_known_sender(bytes, sender)
            .map_err(|_| Error::Custom("transaction in a stored block does not decode"))?;
        transactions.push(Arc::new(transaction));
    }
    finished(encoded)?;
    let withdrawals = if rest.first() == Some(&alloy_rlp::EMPTY_STRING_CODE) {
        rest = &rest[1..];
        None
    } else {
        Some(Withdrawals::decode(&mut rest)?)
    };
    finished(rest)?;
    Ok(Block { consensus, header: header.seal_slow(), body: BlockBody { transactions, withdrawals } })
}

/// Encodes the receipts of one block.
#[must_use]
pub fn encode_receipts(receipts: &[Receipt]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(receipts.len().saturating_mul(64));
    let mut one = Vec::new();
    let mut logs = Vec::new();
    for receipt in receipts {
        one.clear();
        logs.clear();
        receipt.type_byte.encode(&mut one);
        receipt.success.encode(&mut one);
        receipt.gas_used.encode(&mut one);
        receipt.cumulative_gas_used.encode(&mut one);
        receipt.contract.as_ref().map_or(&[][..], |address| address.as_slice()).encode(&mut one);
        for log in &receipt.logs {
            log.encode(&mut logs);
        }
        list(&mut one, &logs);
        list(&mut payload, &one);
    }
    let mut out = Vec::with_capacity(payload.len().saturating_add(9));
    list(&mut out, &payload);
    out
}

/// Decodes what [`encode_receipts`] wrote.
///
/// # Errors
/// Whatever does not decode, and bytes behind the list.
pub fn decode_receipts(mut bytes: &[u8]) -> Result<Vec<Receipt>> {
    let mut rest = open(&mut bytes)?;
    finished(bytes)?;
    let mut receipts = Vec::new();
    while !rest.is_empty() {
        let mut one = open(&mut rest)?;
        let type_byte = u8::decode(&mut one)?;
        let success = bool::decode(&mut one)?;
        let gas_used = u64::decode(&mut one)?;
        let cumulative_gas_used = u64::decode(&mut one)?;
        let contract = match ListHeader::decode_bytes(&mut one, false)? {
            [] => None,
            address => Some(Address::try_from(address).map_err(|_| Error::UnexpectedLength)?),
        };
        let mut entries = open(&mut one)?;
        finished(one)?;
        let mut logs = Vec::new();
        while !entries.is_empty() {
            logs.push(Log::decode(&mut entries)?);
        }
        receipts.push(Receipt { type_byte, success, gas_used, cumulative_gas_used, contract, logs });
    }
    Ok(receipts)
}

fn encode_account(account: Option<&Account>, out: &mut Vec<u8>) {
    let Some(account) = account else {
        out.put_u8(alloy_rlp::EMPTY_STRING_CODE);
        return;
    };
    let mut payload = Vec::with_capacity(80);
    account.nonce.encode(&mut payload);
    account.balance.encode(&mut payload);
    account.code_hash.encode(&mut payload);
    list(out, &payload);
}

fn decode_account(bytes: &mut &[u8]) -> Result<Option<Account>> {
    if bytes.first() == Some(&alloy_rlp::EMPTY_STRING_CODE) {
        *bytes = &bytes[1..];
        return Ok(None);
    }
    let mut rest = open(bytes)?;
    let account = Account {
        nonce: u64::decode(&mut rest)?,
        balance: U256::decode(&mut rest)?,
        code_hash: B256::decode(&mut rest)?,
    };
    finished(rest)?;
    Ok(Some(account))
}

/// Encodes what a block changed, in one fixed order.
#[must_use]
pub fn encode_changes(changes: &StateChanges) -> Vec<u8> {
    let mut accounts: Vec<_> = changes.accounts.iter().collect();
    accounts.sort_unstable_by_key(|(address, _)| **address);
    let mut codes: Vec<_> = changes.codes.iter().collect();
    codes.sort_unstable_by_key(|(hash, _)| **hash);

    let (mut account_list, mut one, mut slot_list) = (Vec::new(), Vec::new(), Vec::new());
    for (address, change) in accounts {
        one.clear();
        slot_list.clear();
        address.encode(&mut one);
        encode_account(change.before.as_ref(), &mut one);
        encode_account(change.after.as_ref(), &mut one);
        change.wiped.encode(&mut one);
        let mut slots: Vec<_> = change.slots.iter().map(|(key, slot)| (*key, slot)).collect();
        slots.sort_unstable_by_key(|(key, _)| *key);
        for (key, slot) in slots {
            let fields = [key, slot.before, slot.after];
            let payload_length = fields.iter().map(U256::length).sum();
            ListHeader { list: true, payload_length }.encode(&mut slot_list);
            fields.iter().for_each(|field| field.encode(&mut slot_list));
        }
        list(&mut one, &slot_list);
        list(&mut account_list, &one);
    }
    let mut code_list = Vec::new();
    for (_, code) in codes {
        code.encode(&mut code_list);
    }
    let mut payload = Vec::with_capacity(account_list.len().saturating_add(code_list.len()).saturating_add(18));
    list(&mut payload, &account_list);
    list(&mut payload, &code_list);
    let mut out = Vec::with_capacity(payload.len().saturating_add(9));
    list(&mut out, &payload);
    out
}

/// Decodes what follows the address of a changed account, and of its slots those that are wanted.
fn decode_change(mut bytes: &[u8], is_wanted: impl Fn(&U256) -> bool) -> Result<AccountChange> {
    let before = decode_account(&mut bytes)?;
    let after = decode_account(&mut bytes)?;
    let wiped = bool::decode(&mut bytes)?;
    let mut slot_list = open(&mut bytes)?;
    finished(bytes)?;
    let mut change = AccountChange { before, after, wiped, ..AccountChange::default() };
    while !slot_list.is_empty() {
        let mut slot = open(&mut slot_list)?;
        let key = U256::decode(&mut slot)?;
        let before = U256::decode(&mut slot)?;
        let after = U256::decode(&mut slot)?;
        finished(slot)?;
        if is_wanted(&key) {
            change.slots.insert(key, SlotChange { before, after });
        }
    }
    Ok(change)
}

/// What a block did to one account, out of what [`encode_changes`] wrote, with no slot but `key`; `None` if nothing.
///
/// # Errors
/// Whatever does not decode on the way there.
pub fn find_change(mut bytes: &[u8], address: Address, key: Option<U256>) -> Result<Option<AccountChange>> {
    let mut rest = open(&mut bytes)?;
    finished(bytes)?;
    let mut accounts = open(&mut rest)?;
    while !accounts.is_empty() {
        let mut one = open(&mut accounts)?;
        if Address::decode(&mut one)? == address {
            return decode_change(one, |slot| key == Some(*slot)).map(Some);
        }
    }
    Ok(None)
}

/// Decodes what [`encode_changes`] wrote.
///
/// # Errors
/// Whatever does not decode, and bytes behind the record.
pub fn decode_changes(mut bytes: &[u8]) -> Result<StateChanges> {
    let mut rest = open(&mut bytes)?;
    finished(bytes)?;
    let mut changes = StateChanges::default();
    let mut accounts = open(&mut rest)?;
    while !accounts.is_empty() {
        let mut one = open(&mut accounts)?;
        let address = Address::decode(&mut one)?;
        changes.accounts.insert(address, decode_change(one, |_| true)?);
    }
    let mut codes = open(&mut rest)?;
    finished(rest)?;
    while !codes.is_empty() {
        let code = Bytes::decode(&mut codes)?;
        changes.codes.insert(keccak256(&code), code);
    }
    Ok(changes)
}
