//! Whether a snapshot's blocks are final, to whoever trusts one set of validators.
//!
//! ```text
//! set of the first epoch -> handovers -> set of epoch e - 2   block that epoch e - 1 began on
//!                                     -> set of epoch e - 1   block that epoch e began on
//!                                     -> set of epoch e       the block whose state it is
//! ```
//!
//! Which blocks those are says `storage::portable::carried`.

use std::collections::BTreeMap;

use alloy_primitives::B256;
use engine::{
    crypto::bls::BlsScheme,
    genesis::ChainSpec,
    light::{Handover, Trust},
    ports::{Store, StoreError},
    types::{CommittedBlock, EpochStart, Height, Signature, SignedHeader, ValidatorSet},
};
use eyre::{WrapErr, ensure, eyre};
use storage::portable::{self, BlocksFile, Foundation, Head, Manifest};

use crate::finality::File;

/// The blocks that an export carries, each with the epoch from whose set on it is shown to be final.
pub(super) fn carried(store: &dyn Store, height: Height, from_epoch: u64) -> eyre::Result<Vec<(Height, u64)>> {
    let block = store.block(height)?.ok_or(StoreError::Unavailable(height))?;
    let (epoch, epoch_heights) = (block.block.consensus.epoch, store.chain().ordering.epoch_slots);
    let bases = portable::carried(height.0, epoch, epoch_heights);
    let oldest = bases[0].saturating_sub(1) / epoch_heights.max(1);
    ensure!(from_epoch <= oldest, "block {} of epoch {oldest} is carried, before epoch {from_epoch}", bases[0]);
    let own = |at: u64| if at == height.0 { from_epoch } else { at.saturating_sub(1) / epoch_heights.max(1) };
    Ok(bases.into_iter().map(|at| (Height(at), own(at))).collect())
}

/// Judges a snapshot in files; what it gives is final.
pub(super) fn judge(
    chain: &ChainSpec,
    manifest: &Manifest,
    blocks: BlocksFile,
    trusted: B256,
) -> eyre::Result<Foundation> {
    let files: Vec<File> = manifest
        .finality
        .iter()
        .map(|file| serde_json::from_value(file.clone()).wrap_err("what shows finality does not decode"))
        .collect::<eyre::Result<_>>()?;
    files.iter().try_for_each(|file| file.check_chain(&chain.domain()))?;
    let newest = files.last().ok_or_else(|| eyre!("nothing shows that its block is final"))?;
    let set = newest.set()?;
    let found = set.hash();
    ensure!(found == trusted, "the set of epoch {} has hash {found}; trusted is {trusted}", set.epoch());
    let proofs = files.iter().map(File::proof).collect::<eyre::Result<Vec<_>>>()?;
    judge_head(chain, set, Head { handovers: newest.handovers()?, proofs, blocks })
}

/// Judges what is said of a block to whoever trusts the set with a hash, the chain's first or one that a handover tells
/// of; what it gives is final. Handovers up to that one count for nothing.
pub(crate) fn judge_from(chain: &ChainSpec, trusted: B256, mut head: Head) -> eyre::Result<Foundation> {
    let first = chain.validator_set()?;
    if first.hash() == trusted {
        return judge_head(chain, first, head);
    }
    let place = head.handovers.iter().position(|handover| handover.next.hash() == trusted);
    let place = place.ok_or_else(|| eyre!("no handover leads to the trusted set {trusted}"))?;
    let after = head.handovers.split_off(place.saturating_add(1));
    let set = std::mem::replace(&mut head.handovers, after).pop().ok_or_else(|| eyre!("there is no handover"))?.next;
    judge_head(chain, set, head)
}

/// Judges what is said of a block and of those before it, to whoever trusts a set; what it gives is final.
fn judge_head(chain: &ChainSpec, trusted: ValidatorSet, head: Head) -> eyre::Result<Foundation> {
    let Head { handovers, proofs, blocks } = head;
    ensure!(
        proofs.len() == blocks.blocks.len(),
        "{} blocks, {} are shown to be final",
        blocks.blocks.len(),
        proofs.len()
    );
    // Of which epochs the sets are needed: those of the blocks.
    let mut trust = Trust::new(chain.domain(), trusted, &BlsScheme);
    let (mut sets, mut steps) = (BTreeMap::new(), handovers.iter());
    loop {
        let epoch = trust.set().epoch();
        if proofs.iter().any(|proof| proof.certificate.epoch == epoch) {
            sets.insert(epoch, trust.clone());
        }
        let Some(handover) = steps.next() else { break };
        let next = handover.next.epoch();
        trust.hand_over(handover).wrap_err_with(|| format!("handover from epoch {epoch} to {next}"))?;
    }
    let mut judged = Vec::new();
    for (proof, carried) in proofs.iter().zip(&blocks.blocks) {
        let epoch = proof.certificate.epoch;
        let trust = sets.get(&epoch).ok_or_else(|| eyre!("nothing leads to the set of epoch {epoch}"))?;
        let shown = trust.verify(proof)?;
        let header = proof.headers.last().cloned().ok_or_else(|| eyre!("there is no header"))?;
        trust.author(&SignedHeader { header: header.clone(), signature: carried.proposal })?;
        let block = carried.block(header, proof.certificate).map_err(|reason| eyre!(reason))?;
        ensure!(block.is_whole(), "block {} is not what its header says", shown.height);
        judged.push(block);
    }
    let newest_block = judged.last().ok_or_else(|| eyre!("there is no block"))?;
    let (height, epoch) = (newest_block.height().0, newest_block.block.consensus.epoch);
    let (expected, found) = (
        portable::carried(height, epoch, chain.ordering.epoch_slots),
        judged.iter().map(|block| block.height().0).collect::<Vec<_>>(),
    );
    ensure!(expected == found, "it carries blocks {found:?}, not {expected:?}");
    blocks.check_headers(newest_block, chain.genesis_hash()).map_err(|reason| eyre!(reason))?;
    let epochs = handovers.into_iter().map(|handover| began(handover, &judged)).collect();
    Ok(Foundation { headers: blocks.headers, blocks: judged, epochs })
}

/// How an epoch began, as far as a handover tells: of its tail headers there is the one that is certified, and nobody's
/// signature of that, for nobody asks this node for the blocks around it.
fn began(handover: Handover, blocks: &[CommittedBlock]) -> EpochStart {
    let Handover { header, certificate, next } = handover;
    let block = blocks.iter().find(|block| block.hash() == header.block_hash);
    let base = block.map_or_else(|| header.id(), |block| block.block.consensus.id());
    let tail = vec![SignedHeader { header, signature: Signature::default() }];
    EpochStart { set: next, base, handover: certificate, tail }
}
