//! A finality file of version 1 keeps its bytes and its meaning.

use alloy_primitives::{B256, Bytes};
use alloy_rlp::Encodable;
use engine::{
    crypto::{Signer as _, bls::SecretKey},
    types::{Certificate, ConsensusHeader, Epoch, Signers, Statement, ValidatorIndex, ValidatorSet},
};

use super::{FORMAT, File, Member, Set, Step, VERSION};
use crate::genesis;

fn rlp(value: &impl Encodable) -> Bytes {
    alloy_rlp::encode(value).into()
}

fn shown(set: &ValidatorSet) -> Set {
    let members = set.validators().iter().map(|member| Member {
        public_key: member.public_key.0,
        stake: member.stake,
        operator: member.operator,
    });
    Set { epoch: set.epoch().0, validators: members.collect() }
}

/// Block 2 of a development chain whose first epoch ended with block 1.
fn file() -> File {
    let chain = genesis::dev(31_337, genesis::GAS_LIMIT, &[]).expect("a chain");
    let (domain, first) = (chain.domain(), chain.validator_set().expect("a set"));
    let next = first.in_epoch(Epoch(1));
    let finalization = |header: &ConsensusHeader| {
        let statement = Statement::Finalize { slot: header.slot(), id: header.id() };
        let mut signers = Signers::none(1);
        signers.add(ValidatorIndex(0));
        let signature = SecretKey::development().sign(domain.vote(header.epoch(), &statement));
        rlp(&Certificate { epoch: header.epoch(), statement, signers, signature })
    };
    let block = |number| alloy_consensus::Header { number, state_root: B256::repeat_byte(7), ..Default::default() };
    let header = |epoch, height, next_set_hash| ConsensusHeader {
        chain_id: 31_337,
        epoch,
        height,
        block_hash: block(height).hash_slow(),
        next_set_hash,
        ..ConsensusHeader::default()
    };
    let (last, own) = (header(0, 1, next.hash()), header(1, 2, B256::ZERO));
    File {
        format: FORMAT.to_owned(),
        version: VERSION,
        chain_id: 31_337,
        genesis: domain.genesis,
        set: shown(&first),
        handovers: vec![Step { header: rlp(&last), certificate: finalization(&last), next: shown(&next) }],
        headers: vec![rlp(&own)],
        certificate: finalization(&own),
        block: rlp(&block(2)),
    }
}

#[test]
fn a_file_of_version_1_keeps_its_bytes_and_is_verified() {
    let golden = include_str!("../../data/finality.json");
    let made = serde_json::to_string_pretty(&file()).expect("JSON");
    assert_eq!(made, golden.trim_end(), "the format changed: raise the version\n{made}");
    let chain = genesis::dev(31_337, genesis::GAS_LIMIT, &[]).expect("a chain");
    let read: File = serde_json::from_str(golden).expect("a file");
    let trusted = chain.validator_set().expect("a set").hash();
    let found = read.verify(chain.domain(), trusted).expect("it shows finality");
    assert_eq!((found.height.0, found.epoch, found.state_root), (2, Epoch(1), B256::repeat_byte(7)));
}
