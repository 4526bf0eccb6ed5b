//! The file of a signing history: its fields, its checks, and what it is refused for.

use std::path::PathBuf;

use alloy_primitives::{B256, Bytes, FixedBytes};
use alloy_rlp::{Decodable, Encodable};
use engine::{
    ordering::journal::Entry,
    types::{ConsensusHeader, Epoch, Signature, Slot, Statement, ValidatorIndex, Vote},
};
use serde::{Deserialize, Serialize};

use super::super::{Identity, live::Live};
use crate::error::{Fault, OpenError};

/// What the file calls itself.
const NAME: &str = "sluice-signing-history";
/// The version that this program writes and reads.
const VERSION: u64 = 1;

/// Why a signing history is not exported or imported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// The folder does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is nothing that a node left.
    #[error("{0} is no data folder of a chain")]
    NoFolder(PathBuf),
    /// The folder never had a log.
    #[error("{0} holds no log")]
    NoLog(PathBuf),
    /// An export would not tell everything that was signed.
    #[error("the log is lost, so it does not tell everything that was signed: {0}")]
    Lost(String),
    /// The file is no such file.
    #[error("the signing history cannot be read: {0}")]
    Unreadable(String),
    /// The file has another name or version.
    #[error("this is {name} version {version}; only {NAME} version {VERSION} is read")]
    Unknown {
        /// What it calls itself.
        name: String,
        /// Its version.
        version: u64,
    },
    /// The file is about another chain.
    #[error("{field} is {found} in the signing history, and {expected} in the folder")]
    WrongChain {
        /// What differs.
        field: &'static str,
        /// In the file.
        found: String,
        /// In the folder.
        expected: String,
    },
    /// An entry contradicts itself.
    #[error("{kind} {index} of the signing history: {reason}")]
    Entry {
        /// `proposal` or `vote`.
        kind: &'static str,
        /// Its place in the file's list, from 0.
        index: usize,
        /// What is wrong.
        reason: String,
    },
    /// The file is older than the folder.
    #[error(
        "the floor of the signing history is {}, below {} where the folder is: it is older than the folder{}",
        place(*floor), place(Some(*known)),
        if *is_covered { ", and tells nothing that the folder's floor does not cover" } else { "" }
    )]
    Older {
        /// The file's floor.
        floor: Option<(Epoch, Slot)>,
        /// The folder's, or the slot that its chain is at.
        known: (Epoch, Slot),
        /// Everything in the file lies at or below that.
        is_covered: bool,
    },
    /// The file has no floor and no entries.
    #[error("the signing history is empty, and so is the log: there is no floor to begin from")]
    Empty,
}

impl From<Fault> for HistoryError {
    fn from(fault: Fault) -> Self {
        Self::Open(fault.into())
    }
}

fn place(place: Option<(Epoch, Slot)>) -> String {
    place.map_or_else(|| "none".to_owned(), |(epoch, slot)| format!("epoch {epoch}, slot {slot}"))
}

/// What every version has.
#[derive(Deserialize)]
struct Front {
    interchange: String,
    version: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct History {
    interchange: String,
    version: u64,
    chain_id: u64,
    genesis_hash: B256,
    chain_digest: B256,
    #[serde(deserialize_with = "Option::deserialize")]
    floor: Option<Place>,
    proposals: Vec<SignedProposal>,
    votes: Vec<SignedVote>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    epoch: u64,
    slot: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignedProposal {
    epoch: u64,
    slot: u64,
    id: B256,
    header: Bytes,
    signature: FixedBytes<96>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignedVote {
    epoch: u64,
    slot: u64,
    kind: Kind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<B256>,
    voter: u16,
    signature: FixedBytes<96>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Notarize,
    Skip,
    Finalize,
}

/// What a history of the right chain says.
pub(super) struct Identified {
    pub(super) floor: Option<(Epoch, Slot)>,
    /// Proposals, then votes, each in the file's order.
    pub(super) entries: Vec<Entry>,
}

impl History {
    /// What a log tells.
    pub(super) fn of(identity: Identity, live: &Live) -> Self {
        let Identity { chain_id, chain_digest, genesis_hash } = identity;
        let floor = live.floor();
        let (mut proposals, mut votes) = (Vec::new(), Vec::new());
        for entry in live.entries.iter().filter(|entry| Some(entry.place()) > floor) {
            match entry {
                Entry::Proposal { epoch: Epoch(epoch), slot: Slot(slot), id, header, signature } => {
                    let (epoch, slot, header) = (*epoch, *slot, alloy_rlp::encode(&**header).into());
                    proposals.push(SignedProposal { epoch, slot, id: *id, header, signature: signature.0 });
                }
                Entry::Vote(vote) => {
                    let kind = match vote.statement {
                        Statement::Notarize { .. } => Kind::Notarize,
                        Statement::Skip { .. } => Kind::Skip,
                        Statement::Finalize { .. } => Kind::Finalize,
                    };
                    votes.push(SignedVote {
                        epoch: vote.epoch.0,
                        slot: vote.statement.slot().0,
                        kind,
                        id: vote.statement.id(),
                        voter: vote.voter.0,
                        signature: vote.signature.0,
                    });
                }
                Entry::Certificate(_) | Entry::Floor { .. } | Entry::EpochStart { .. } | Entry::Regained { .. } => {}
            }
        }
        let floor = floor.map(|(epoch, slot)| Place { epoch: epoch.0, slot: slot.0 });
        let interchange = NAME.to_owned();
        Self { interchange, version: VERSION, chain_id, genesis_hash, chain_digest, floor, proposals, votes }
    }

    /// The file's text.
    pub(super) fn encode(&self) -> String {
        let text = serde_json::to_string_pretty(self).expect("numbers and strings are JSON");
        text + "\n"
    }

    /// Reads a file.
    pub(super) fn decode(text: &str) -> Result<Self, HistoryError> {
        let unreadable = |error: serde_json::Error| HistoryError::Unreadable(error.to_string());
        let Front { interchange: name, version } = serde_json::from_str(text).map_err(unreadable)?;
        if name != NAME || version != VERSION {
            return Err(HistoryError::Unknown { name, version });
        }
        serde_json::from_str(text).map_err(unreadable)
    }

    /// Checks that the file is about this chain, and what it says.
    pub(super) fn identified(self, identity: Identity) -> Result<Identified, HistoryError> {
        let differs = |field, found: String, expected: String| {
            if found == expected { Ok(()) } else { Err(HistoryError::WrongChain { field, found, expected }) }
        };
        differs("chain_id", self.chain_id.to_string(), identity.chain_id.to_string())?;
        differs("genesis_hash", self.genesis_hash.to_string(), identity.genesis_hash.to_string())?;
        differs("chain_digest", self.chain_digest.to_string(), identity.chain_digest.to_string())?;
        let mut entries = Vec::new();
        for (index, proposal) in self.proposals.into_iter().enumerate() {
            let entry = proposal.entry(self.chain_id);
            entries.push(entry.map_err(|reason| HistoryError::Entry { kind: "proposal", index, reason })?);
        }
        for (index, vote) in self.votes.into_iter().enumerate() {
            let entry = vote.entry();
            entries.push(entry.map_err(|reason| HistoryError::Entry { kind: "vote", index, reason })?);
        }
        let floor = self.floor.map(|Place { epoch, slot }| (Epoch(epoch), Slot(slot)));
        Ok(Identified { floor, entries })
    }
}

impl SignedProposal {
    fn entry(self, chain_id: u64) -> Result<Entry, String> {
        let mut rest = &self.header[..];
        let header =
            ConsensusHeader::decode(&mut rest).map_err(|error| format!("its header does not decode: {error}"))?;
        if !rest.is_empty() || header.length() != self.header.len() {
            return Err("its header has bytes that do not belong to it".to_owned());
        }
        let (epoch, slot, id) = (header.epoch(), header.slot(), header.id());
        if (epoch.0, slot.0) != (self.epoch, self.slot) {
            return Err(format!("its header is of epoch {epoch}, slot {slot}, not {}, {}", self.epoch, self.slot));
        }
        if id != self.id {
            return Err(format!("its header has id {id}, not {}", self.id));
        }
        if header.chain_id != chain_id {
            return Err(format!("its header is of chain {}, not {chain_id}", header.chain_id));
        }
        Ok(Entry::Proposal { epoch, slot, id, header: Box::new(header), signature: Signature(self.signature) })
    }
}

impl SignedVote {
    fn entry(self) -> Result<Entry, String> {
        let slot = Slot(self.slot);
        let statement = match (self.kind, self.id) {
            (Kind::Notarize, Some(id)) => Statement::Notarize { slot, id },
            (Kind::Finalize, Some(id)) => Statement::Finalize { slot, id },
            (Kind::Skip, None) => Statement::Skip { slot },
            (Kind::Skip, Some(_)) => return Err("a skip names no block".to_owned()),
            (Kind::Notarize | Kind::Finalize, None) => return Err("it names no block".to_owned()),
        };
        let (epoch, voter) = (Epoch(self.epoch), ValidatorIndex(self.voter));
        Ok(Entry::Vote(Vote { epoch, statement, voter, signature: Signature(self.signature) }))
    }
}
