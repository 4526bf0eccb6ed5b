//! Random batches, and what of them a log may and must give back.

use std::{path::Path, sync::Arc};

use alloy_consensus::{Header, Sealable};
use alloy_primitives::{B256, FixedBytes};
use engine::{
    ordering::journal::{Entry, KeptBlock},
    ports::Recovered,
    types::{
        Block, BlockBody, Certificate, ConsensusHeader, Epoch, Height, PublicKey, Signature, SignedHeader, Signers,
        Slot, Statement, Validator, ValidatorIndex, ValidatorSet, Vote,
    },
};

pub(super) use crate::disk::faulty::{FaultyDisk, next};
use crate::{
    OpenError,
    disk::Disk,
    error::Fault,
    failpoint::{Action, FailPoints},
    log::{Folder, Identity, Log, Mark, open},
    tests::kit::transaction,
};

/// Where the log of these tests lies.
pub(super) const DIR: &str = "/data/log";
/// Size of its files.
pub(super) const BYTES: u64 = 16_384;

pub(super) fn identity() -> Identity {
    Identity { chain_id: 7, chain_digest: B256::repeat_byte(1), genesis_hash: B256::repeat_byte(2) }
}

pub(super) fn folder(disk: &FaultyDisk, bytes: u64, fail_point: Option<&str>) -> Folder {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let fail = Arc::new(FailPoints::parse(fail_point, Action::Fail).unwrap());
    Folder { disk, dir: DIR.into(), identity: identity(), bytes, fail, housekeeper: None }
}

/// Opens the log beside a store without blocks.
pub(super) fn open_on(disk: &FaultyDisk) -> Result<(Log, Recovered), OpenError> {
    open(folder(disk, BYTES, None), true, Mark::default())
}

/// A log that was just made.
pub(super) fn fresh(disk: &FaultyDisk) -> Log {
    let (log, recovered) = open(folder(disk, BYTES, None), false, Mark::default()).unwrap();
    assert_eq!(recovered, Recovered::default());
    log
}

pub(super) fn mark(epoch: u64, slot: u64, height: u64) -> Mark {
    Mark { epoch: Epoch(epoch), slot: Slot(slot), height: Height(height) }
}

pub(super) fn floor(epoch: u64, slot: u64) -> Entry {
    Entry::Floor { epoch: Epoch(epoch), slot: Slot(slot) }
}

pub(super) fn regained(epoch: u64, slot: u64) -> Entry {
    Entry::Regained { epoch: Epoch(epoch), slot: Slot(slot) }
}

fn signature(seed: u64) -> Signature {
    Signature(FixedBytes::left_padding_from(&seed.to_be_bytes()))
}

pub(super) fn vote(epoch: u64, slot: u64, seed: u64) -> Entry {
    let (epoch, slot, id) = (Epoch(epoch), Slot(slot), B256::left_padding_from(&seed.to_be_bytes()));
    let statement = match seed % 3 {
        0 => Statement::Notarize { slot, id },
        1 => Statement::Skip { slot },
        _ => Statement::Finalize { slot, id },
    };
    Entry::Vote(Vote { epoch, statement, voter: ValidatorIndex(1), signature: signature(seed) })
}

fn header(epoch: u64, slot: u64, height: u64, seed: u64) -> ConsensusHeader {
    ConsensusHeader { epoch, slot, height, timestamp_ms: seed, ..ConsensusHeader::default() }
}

pub(super) fn entry(epoch: u64, slot: u64, seed: u64) -> Entry {
    match seed % 11 {
        0 => {
            let header = Box::new(header(epoch, slot, slot, seed));
            let (epoch, slot, id) = (header.epoch(), header.slot(), header.id());
            Entry::Proposal { epoch, slot, id, header, signature: signature(seed) }
        }
        1 | 2 => {
            let mut signers = Signers::none(5);
            signers.add(ValidatorIndex(3));
            let statement = Statement::Skip { slot: Slot(slot) };
            Entry::Certificate(Certificate { epoch: Epoch(epoch), statement, signers, signature: signature(seed) })
        }
        3 => floor(epoch, slot),
        4 => {
            let public_key = PublicKey(FixedBytes::left_padding_from(&seed.to_be_bytes()));
            let validator = Validator { public_key, stake: 1, operator: [7; 20].into() };
            let set = ValidatorSet::new(Epoch(epoch), vec![validator]).unwrap();
            Entry::EpochStart { epoch: Epoch(epoch), base: B256::repeat_byte(9), set }
        }
        5 => regained(epoch, slot),
        _ => vote(epoch, slot, seed),
    }
}

/// A block of a height, whose transactions take some 120 bytes each; without any it is a tail header.
pub(super) fn block(epoch: u64, slot: u64, height: u64, transactions: u64) -> KeptBlock {
    let inner = Header { number: height, timestamp: slot, ..Header::default() }.seal_slow();
    let consensus = ConsensusHeader { block_hash: inner.seal(), ..header(epoch, slot, height, slot) };
    let transactions: Vec<_> = (0..transactions).map(|at| transaction(slot * 1_000 + at)).collect();
    let signed = SignedHeader { header: consensus.clone(), signature: signature(height) };
    let body = BlockBody { transactions, withdrawals: None };
    let block = (!body.transactions.is_empty()).then(|| Arc::new(Block { consensus, header: inner, body }));
    KeptBlock { signed, block }
}

/// What was appended at once.
#[derive(Clone, Debug, Default)]
pub(super) struct Batch {
    pub(super) entries: Vec<Entry>,
    pub(super) blocks: Vec<KeptBlock>,
}

/// Everything that was done to a log, and how much of it counts.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    pub(super) batches: Vec<Batch>,
    /// Batches that a sync was answered for.
    pub(super) synced: usize,
    /// The newest mark that was given.
    pub(super) mark: Mark,
}

impl History {
    /// A batch that nothing else looks like: slots and heights only rise.
    pub(super) fn batch(&self, random: &mut u64) -> Batch {
        let at = u64::try_from(self.batches.len()).unwrap();
        let (epoch, slot) = (at / 20, at * 4);
        let count = 1 + next(random) % 3;
        let mut entries = vec![vote(epoch, slot, at * 1_000)];
        entries.extend((1..count).map(|more| entry(epoch, slot + more, next(random) >> 32)));
        let blocks =
            if next(random).is_multiple_of(3) { vec![block(epoch, slot, at + 1, next(random) % 2)] } else { vec![] };
        Batch { entries, blocks }
    }

    /// Appends a random batch and notes it, whether that works or not: it may be there in the end.
    pub(super) fn append(&mut self, log: &Log, random: &mut u64) -> Result<(), Fault> {
        let batch = self.batch(random);
        let outcome = log.append(&batch.entries, &batch.blocks);
        self.batches.push(batch);
        outcome
    }

    pub(super) fn sync(&mut self, log: &Log) -> Result<(), Fault> {
        log.sync()?;
        self.synced = self.batches.len();
        Ok(())
    }

    /// Lets the log forget all but the newest `keep` batches.
    pub(super) fn forget(&mut self, log: &Log, keep: usize) {
        let Some(batch) = self.batches.len().checked_sub(keep).and_then(|at| self.batches.get(at)) else { return };
        let (epoch, slot) = batch.entries[0].place();
        self.mark = self.mark.max(mark(epoch.0, slot.0, slot.0 / 4));
        log.forget(self.mark);
    }

    /// A life of a log: appends, syncs and marks, until something fails.
    pub(super) fn live(&mut self, log: &Log, rounds: u64, random: &mut u64) -> Result<(), Fault> {
        for _ in 0..rounds {
            self.append(log, random)?;
            if next(random).is_multiple_of(2) {
                self.sync(log)?;
            }
            if next(random).is_multiple_of(2) || self.batches.len().is_multiple_of(4) {
                self.forget(log, 4);
            }
        }
        Ok(())
    }

    fn needs(&self, entry: &Entry, all: &[Entry]) -> bool {
        let Mark { epoch, slot, .. } = self.mark;
        let is_newest = |of: fn(&Entry) -> bool| {
            of(entry) && all.iter().filter(|other| of(other)).all(|other| other.place() <= entry.place())
        };
        match entry {
            Entry::EpochStart { epoch: of, .. } => *of >= epoch,
            _ => {
                entry.place() >= (epoch, slot)
                    || is_newest(|entry| matches!(entry, Entry::Floor { .. }))
                    || is_newest(|entry| matches!(entry, Entry::Regained { .. }))
            }
        }
    }

    /// Checks that this is what the first so many batches leave, and returns how many they are.
    pub(super) fn check(&self, recovered: &Recovered) -> usize {
        let holds = |batch: &Batch| {
            batch.entries.iter().any(|entry| recovered.entries.contains(entry))
                || batch.blocks.iter().any(|block| recovered.blocks.contains(block))
        };
        let count = self.batches.iter().rposition(holds).map_or(0, |last| last + 1);
        let entries: Vec<_> = self.batches[..count].iter().flat_map(|batch| batch.entries.clone()).collect();
        let blocks: Vec<_> = self.batches[..count].iter().flat_map(|batch| batch.blocks.clone()).collect();
        check_kept(&recovered.entries, &entries, |entry| self.needs(entry, &entries));
        let mark = self.mark;
        check_kept(
            &recovered.blocks,
            &blocks,
            |KeptBlock { signed: SignedHeader { header, .. }, block }| match block {
                Some(_) => header.height() > mark.height,
                None => (header.epoch(), header.slot()) > (mark.epoch, mark.slot),
            },
        );
        count
    }

    /// Checks what a start after any crash finds.
    pub(super) fn check_crashed(&self, recovered: &Recovered) -> usize {
        assert!(!recovered.is_lost, "a crash is no loss");
        let count = self.check(recovered);
        assert!(count >= self.synced, "{count} batches are there, {} were synced", self.synced);
        count
    }
}

/// `found` is `all` in its order, less some that are not needed.
fn check_kept<T: PartialEq + std::fmt::Debug>(found: &[T], all: &[T], needs: impl Fn(&T) -> bool) {
    let mut rest = found.iter().peekable();
    for one in all {
        if rest.peek() == Some(&one) {
            rest.next();
        } else {
            assert!(!needs(one), "{one:?} is missing");
        }
    }
    assert_eq!(rest.next(), None, "this was never appended, or not in this order");
}

pub(super) fn path(number: u32) -> std::path::PathBuf {
    crate::log::file::path(Path::new(DIR), number)
}

/// The numbers of the files that are there.
pub(super) fn numbers(disk: &FaultyDisk) -> Vec<u32> {
    crate::log::file::numbers(disk, Path::new(DIR)).unwrap()
}
