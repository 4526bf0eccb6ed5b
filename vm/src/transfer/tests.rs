//! A transfer done here leaves what revm leaves, and what is not plainly valid is refused in revm's words.

use std::{collections::BTreeMap, sync::Arc};

use alloy_consensus::{Sealable, SignableTransaction, TxEip1559, TxEip2930, TxLegacy};
use alloy_eips::eip2930::{AccessList, AccessListItem};
use alloy_primitives::{Bytes, Signature, TxKind, address, bytes};
use engine::{
    genesis::GenesisAccount,
    types::{Block, BlockBody, ConsensusHeader},
};

use super::*;
use crate::{
    code::CodeCache,
    sequential::Run,
    testing::{ALICE, BOB, ETHER, GAS_LIMIT, GWEI, POOR, PROPOSER, STORE, World, known},
};

/// Delegated by EIP-7702.
const DELEGATED: Address = address!("00000000000000000000000000000000000de1e9");
/// At the last nonce there is.
const SPENT: Address = address!("0000000000000000000000000000000000005be7");
/// Has all the wei that fit.
const FULL: Address = address!("000000000000000000000000000000000000f011");

fn world(fork: Fork) -> World {
    let account = |balance, nonce, code: Bytes| GenesisAccount { balance, nonce, code, storage: BTreeMap::new() };
    let delegation = bytes!("ef01000000000000000000000000000000000000005708");
    World::with(
        fork,
        [
            (DELEGATED, account(ETHER, 0, delegation)),
            (SPENT, account(ETHER, u64::MAX, Bytes::new())),
            (FULL, account(U256::MAX, 0, Bytes::new())),
        ],
    )
}

fn header(world: &World, beneficiary: Address) -> Header {
    Header {
        number: 1,
        timestamp: world.parent.timestamp + 1,
        gas_limit: GAS_LIMIT,
        beneficiary,
        base_fee_per_gas: Some(GWEI.try_into().unwrap()),
        excess_blob_gas: Some(0),
        ..Header::default()
    }
}

/// Executes on both paths; both give the same, whether that is a block or a refusal. Gives what it was.
fn check(world: &World, beneficiary: Address, transactions: &[Arc<Transaction>]) -> Result<Vec<Receipt>, String> {
    let header = header(world, beneficiary);
    let block = Block {
        consensus: ConsensusHeader::default(),
        header: header.clone().seal_slow(),
        body: BlockBody { transactions: transactions.to_vec(), withdrawals: None },
    };
    let codes = CodeCache::default();
    let run = |interpret: bool| {
        let mut run = Run::open(&world.chain, &codes, &world.state, &header);
        run.start_record();
        if interpret {
            run.interpret_transfers();
        }
        for transaction in &block.body.transactions {
            run.transact(transaction).map_err(|refusal| refusal.to_string())?;
        }
        Ok::<_, String>(run.close(None).unwrap())
    };
    match (run(false), run(true)) {
        (Ok(ours), Ok(revms)) => {
            assert_eq!(ours.receipts, revms.receipts);
            assert_eq!(ours.changes, revms.changes);
            assert_eq!(ours.access_list, revms.access_list);
            assert_eq!(ours.gas_used, revms.gas_used);
            Ok(ours.receipts)
        }
        (Err(ours), Err(revms)) => {
            assert_eq!(ours, revms);
            Err(ours)
        }
        (ours, revms) => panic!("{ours:?} and {revms:?}"),
    }
}

fn any() -> Signature {
    Signature::new(U256::from(1), U256::from(1), false)
}

fn base(nonce: u64, to: Address) -> TxEip1559 {
    TxEip1559 {
        chain_id: 7,
        nonce,
        gas_limit: 50_000,
        max_fee_per_gas: 3 * GWEI,
        max_priority_fee_per_gas: GWEI / 3,
        to: TxKind::Call(to),
        value: U256::from(12_345),
        ..TxEip1559::default()
    }
}

fn sent(from: Address, tx: TxEip1559) -> Arc<Transaction> {
    known(tx.into_signed(any()).into(), from)
}

#[test]
fn every_pair_of_accounts_on_every_fork_ends_as_revm_ends_it() {
    let precompiles = [1_u8, 2, 9, 10, 11, 17, 18].map(Address::with_last_byte);
    let p256 = address!("0000000000000000000000000000000000000100");
    let others =
        [ALICE, BOB, POOR, PROPOSER, STORE, DELEGATED, SPENT, FULL, Address::ZERO, Address::repeat_byte(9), p256];
    for fork in Fork::ALL {
        let world = world(fork);
        for from in others {
            for to in others.into_iter().chain(precompiles) {
                for beneficiary in [PROPOSER, from, to, Address::repeat_byte(8)] {
                    for value in [0_u64, 1, 1 << 60] {
                        let tx = TxLegacy {
                            chain_id: Some(7),
                            nonce: if from == SPENT { u64::MAX } else { 0 },
                            gas_price: 2 * GWEI,
                            gas_limit: 21_000,
                            to: TxKind::Call(to),
                            value: U256::from(value),
                            ..TxLegacy::default()
                        };
                        let _ = check(&world, beneficiary, &[known(tx.into_signed(any()).into(), from)]);
                    }
                }
            }
        }
    }
}

#[test]
fn every_field_that_does_not_fit_is_refused_as_revm_refuses_it() {
    for fork in Fork::ALL {
        let world = world(fork);
        let good = base(0, BOB);
        if fork < Fork::London {
            assert!(check(&world, PROPOSER, &[sent(ALICE, good)]).is_err(), "{} knows no fee caps", fork.name());
            continue;
        }
        assert!(check(&world, PROPOSER, &[sent(ALICE, good.clone())]).is_ok());
        for tx in [
            TxEip1559 { nonce: 1, ..good.clone() },
            TxEip1559 { chain_id: 8, ..good.clone() },
            TxEip1559 { gas_limit: 20_999, ..good.clone() },
            TxEip1559 { max_fee_per_gas: GWEI - 1, max_priority_fee_per_gas: 0, ..good.clone() },
            TxEip1559 { max_priority_fee_per_gas: 4 * GWEI, ..good.clone() },
            TxEip1559 { value: ETHER * U256::from(1_000), ..good.clone() },
            TxEip1559 { value: U256::MAX, ..good.clone() },
            TxEip1559 { max_fee_per_gas: u128::MAX, ..good.clone() },
        ] {
            assert!(check(&world, PROPOSER, &[sent(ALICE, tx.clone())]).is_err(), "{} {tx:?}", fork.name());
        }
        let many_keys = AccessListItem { address: BOB, storage_keys: vec![Default::default(); 3] };
        let listed = TxEip2930 {
            chain_id: 7,
            gas_limit: 60_000,
            gas_price: 2 * GWEI,
            to: TxKind::Call(BOB),
            access_list: AccessList(vec![many_keys]),
            ..TxEip2930::default()
        };
        let used = check(&world, PROPOSER, &[known(listed.into_signed(any()).into(), ALICE)]).unwrap();
        assert!(used[0].gas_used > TRANSFER_GAS, "a list costs gas, so revm does it");
        let over_cap = TxEip1559 { gas_limit: 16_777_217, ..good };
        assert_eq!(check(&world, PROPOSER, &[sent(ALICE, over_cap)]).is_err(), fork >= Fork::Osaka);
    }
}

#[test]
fn chains_of_transfers_between_calls_end_as_revm_ends_them() {
    for fork in [Fork::Paris, Fork::Cancun, Fork::Osaka] {
        let world = world(fork);
        let new = Address::repeat_byte(0x5e);
        let call =
            |nonce| TxEip1559 { input: bytes!("01"), value: U256::ZERO, gas_limit: 90_000, ..base(nonce, STORE) };
        let funding = TxEip1559 { value: ETHER, ..base(2, new) };
        let transactions = [
            sent(ALICE, base(0, BOB)),
            sent(ALICE, call(1)),
            sent(ALICE, funding),
            sent(new, base(0, ALICE)),
            sent(new, TxEip1559 { gas_limit: 16_000_000, value: U256::ZERO, ..base(1, Address::repeat_byte(0x5f)) }),
            sent(BOB, base(0, new)),
            sent(BOB, call(1)),
            sent(new, base(2, PROPOSER)),
        ];
        for beneficiary in [PROPOSER, new, ALICE, Address::repeat_byte(0x60)] {
            let receipts = check(&world, beneficiary, &transactions).unwrap();
            assert_eq!(receipts.len(), transactions.len());
        }
    }
}
