//! A client that remembers: what it was told is final must be there for ever.

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256, Bytes, U256};
use serde_json::{Value, json};

use crate::{
    node::Node,
    rng::Rng,
    rpc::{RpcError, quantity},
    wallet::{self, account, hex_of, transfer},
};

/// What a client knows of the chain: receipts it was given, and nonces it has used.
#[derive(Debug, Default)]
pub struct Client {
    /// Receipts it was given.
    pub seen: BTreeMap<B256, Value>,
    sent: Vec<Bytes>,
    nonces: [u64; 4],
}

impl Client {
    /// Sends up to `count` transfers from four accounts, each to an address of its own.
    ///
    /// Stops when the connection breaks; gives the error if the node refuses one.
    ///
    /// # Errors
    /// The refusal.
    ///
    /// # Panics
    /// Never for the four accounts there are.
    pub fn send(&mut self, node: &Node, rng: &mut Rng, count: u64) -> Result<(), RpcError> {
        for _ in 0..count {
            let from = rng.below(4);
            let index = usize::try_from(from).expect("below 4");
            let key = account(u32::try_from(from).expect("below 4"));
            let to = Address::from_word(B256::from(U256::from(rng.next())));
            let raw = transfer(&key, self.nonces[index], to);
            match node.rpc.try_call("eth_sendRawTransaction", &json!([hex_of(&raw)])) {
                Some(Ok(_)) => {
                    self.nonces[index] += 1;
                    self.sent.push(raw);
                }
                Some(Err(error)) => return Err(error),
                None => break,
            }
        }
        Ok(())
    }

    /// Asks for the receipts of everything sent and remembers those there are.
    ///
    /// # Panics
    /// If the node answers with an error.
    pub fn look(&mut self, node: &Node) {
        for raw in &self.sent {
            let hash = wallet::hash(raw);
            if self.seen.contains_key(&hash) {
                continue;
            }
            match node.rpc.try_call("eth_getTransactionReceipt", &json!([hash])) {
                Some(Ok(Value::Null)) => {}
                Some(Ok(receipt)) => drop(self.seen.insert(hash, receipt)),
                Some(Err(error)) => panic!("no receipt: {error:?}"),
                None => return,
            }
        }
    }

    /// How many of those that were sent have no receipt that was seen.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.sent.iter().filter(|raw| !self.seen.contains_key(&wallet::hash(raw))).count()
    }

    /// After a restart: every receipt seen before is there, to the letter; then take up the chain's nonces.
    ///
    /// # Panics
    /// If a receipt is missing or differs, or the node ends meanwhile.
    pub fn check(&mut self, node: &Node) {
        assert!(self.try_check(node), "the connection broke");
    }

    /// The same for a node that may end at any moment: `false` if it did.
    ///
    /// # Panics
    /// If a receipt is missing or differs.
    pub fn try_check(&mut self, node: &Node) -> bool {
        for (hash, receipt) in &self.seen {
            let Some(again) = node.rpc.try_call("eth_getTransactionReceipt", &json!([hash])) else { return false };
            assert_eq!(again.as_ref(), Ok(receipt), "a receipt that a client had seen has changed");
        }
        for (index, nonce) in (0..).zip(self.nonces.iter_mut()) {
            let address = account(index).address();
            let count = node.rpc.try_call("eth_getTransactionCount", &json!([address, "latest"]));
            let Some(count) = count else { return false };
            *nonce = quantity(&count.expect("a count"));
        }
        self.sent.retain(|raw| self.seen.contains_key(&wallet::hash(raw)));
        true
    }
}
