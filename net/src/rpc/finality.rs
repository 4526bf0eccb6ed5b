//! What shows that blocks are final: certificates and the headers that they are about, for light clients.
//!
//! `sluice_getFinality(block)` gives the consensus headers from the certified one down to the block's own, the
//! certificate and the block's Ethereum header, with what every signature of the chain is bound to.
//! `sluice_getEpoch(epoch)` gives the validators of an epoch and, but for epoch 0, the header and certificate that
//! handed over to them. Everything is RLP, as the chain signs it.

use alloy_primitives::{Address, B256, Bytes, FixedBytes, U64};
use alloy_rlp::Encodable;
use engine::types::{Certificate, ConsensusHeader, Epoch, ValidatorSet};
use serde::Serialize;

use super::{
    Node,
    block_id::BlockTag,
    error::{self, Refusal, header_not_found, refused},
    methods::{Registered, Registry},
    params::{Arguments, Quantity},
};

/// Adds the methods of this file.
pub(super) fn register(registry: &mut Registry) -> Registered {
    registry.read("sluice_getFinality", finality)?;
    registry.read("sluice_getEpoch", epoch)
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Finality {
    chain_id: U64,
    /// Id of block 0's consensus header.
    genesis: B256,
    epoch: U64,
    headers: Vec<Bytes>,
    certificate: Bytes,
    block: Bytes,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Member {
    public_key: FixedBytes<48>,
    stake: U64,
    operator: Address,
}

#[derive(Clone, Debug, Serialize)]
struct EpochAnswer {
    epoch: U64,
    validators: Vec<Member>,
    header: Option<Bytes>,
    certificate: Option<Bytes>,
}

fn rlp(value: &impl Encodable) -> Bytes {
    alloy_rlp::encode(value).into()
}

fn finality(node: &Node, mut arguments: Arguments<'_>) -> Result<Finality, Refusal> {
    let BlockTag(block) = arguments.required()?;
    arguments.end()?;
    let height = node.query.height(block).map_err(error::store)?.ok_or_else(header_not_found)?;
    let shown = node.query.finality(height).map_err(error::store)?;
    let shown = shown.ok_or_else(|| refused("block 0 is final by itself: whoever knows the chain knows it"))?;
    let Certificate { epoch, .. } = shown.certificate;
    let domain = node.query.chain().domain();
    Ok(Finality {
        chain_id: U64::from(domain.chain_id),
        genesis: domain.genesis,
        epoch: U64::from(epoch.0),
        headers: shown.headers.iter().map(rlp).collect(),
        certificate: rlp(&shown.certificate),
        block: rlp(&shown.block),
    })
}

fn epoch(node: &Node, mut arguments: Arguments<'_>) -> Result<EpochAnswer, Refusal> {
    let Quantity(number) = arguments.required()?;
    arguments.end()?;
    let begun = node.query.epoch(Epoch(number)).map_err(error::store)?;
    let (set, handover) = begun.ok_or_else(|| refused(format!("epoch {number} has not begun")))?;
    Ok(answer(&set, handover.as_ref()))
}

fn answer(set: &ValidatorSet, handover: Option<&(ConsensusHeader, Certificate)>) -> EpochAnswer {
    let member = |validator: &engine::types::Validator| Member {
        public_key: validator.public_key.0,
        stake: U64::from(validator.stake),
        operator: validator.operator,
    };
    EpochAnswer {
        epoch: U64::from(set.epoch().0),
        validators: set.validators().iter().map(member).collect(),
        header: handover.map(|(header, _)| rlp(header)),
        certificate: handover.map(|(_, certificate)| rlp(certificate)),
    }
}
