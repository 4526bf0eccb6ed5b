//! What a folder must hold after a cut, and whether it does.

use std::{collections::HashMap, path::Path, sync::Arc};

use alloy_rlp::encode;
use engine::{
    ordering::journal::{Entry, KeptBlock},
    ports::{Recovered, Store as _},
    types::{Epoch, Height},
};
use storage::{
    Config, Database,
    testing::{crash, lowest, world::Differences},
};

use super::{taking::Taken, trace::Step, work::Work};

/// What was promised before a cut, and how far the store may be beyond it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Promise {
    /// Blocks up to this height are there.
    pub committed: u64,
    /// None above this is.
    pub committing: u64,
    /// So many entries of the log are there.
    pub logged: usize,
    /// No more than these are.
    pub begun: usize,
    /// Rows of epochs up to this one are there.
    pub epochs: u64,
    /// Blocks up to this height are gone.
    pub lowest: u64,
    /// Parts of the state that the store begins with.
    pub taken: Taken,
}

impl Promise {
    /// Takes over a mark.
    ///
    /// # Panics
    /// If nobody wrote such a mark.
    pub fn take(&mut self, step: &Step) {
        let Step::Mark(text) = step else { return };
        for line in text.lines() {
            let (word, number) = line.split_once(' ').expect("a mark has a number");
            let number: u64 = number.parse().expect("a mark has a number");
            let index = usize::try_from(number).expect("a count fits");
            match word {
                "begins" => self.begun = index,
                "logged" => self.logged = index,
                "commits" => self.committing = number,
                "committed" => self.committed = number,
                "epoch" => self.epochs = number,
                "lowest" => self.lowest = number,
                "takes" => self.taken.begun = index,
                "took" => self.taken.done = index,
                other => panic!("no mark is called {other}"),
            }
        }
    }
}

/// What a changed bit does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing that anybody reads is another.
    Harmless,
    /// Nothing that was read is another, and the scrubber found it.
    Unread(String),
    /// The store says so when it is opened or read.
    Told(String),
    /// A wrong value was read, and the scrubber found it.
    Scrubbed(String),
    /// A wrong value was read, and nothing tells of it.
    Silent(String),
}

/// Everything that a run can have left in a store.
#[derive(Debug)]
pub struct Expected {
    work: Work,
    /// Where entries are, by their bytes.
    places: HashMap<Vec<u8>, usize>,
    config: Config,
}

impl Expected {
    /// What work that was done leaves, with the settings that the store has.
    #[must_use]
    pub fn of(work: Work, config: Config) -> Self {
        let places = work.entries.iter().enumerate().map(|(at, entry)| (encode(entry), at)).collect();
        Self { work, places, config }
    }

    fn open(&self, dir: &Path) -> Result<(Database, Recovered), String> {
        let config = Config { dir: dir.to_owned(), background: false, ..self.config.clone() };
        let store = Database::open(config, Arc::clone(&self.work.world.chain));
        let store = store.map_err(|error| format!("it does not open: {error}"))?;
        let recovered = store.take_recovered();
        Ok((store, recovered))
    }

    /// Opens the store in a folder twice, as if the first start had been cut as well, and looks at everything in it;
    /// then, if `goes_on`, lets it take further blocks and opens it once more.
    ///
    /// # Errors
    /// What is missing, wrong, or too much.
    pub fn check(&self, dir: &Path, promise: &Promise, goes_on: bool) -> Result<(), String> {
        let promise = self.begin(dir, promise)?;
        let (store, recovered) = self.open(dir)?;
        let tip = store.tip().height();
        self.check_store(&store, tip, &promise)?;
        self.check_log(&recovered, tip, &promise)?;
        crash(store);
        let (store, again) = self.open(dir)?;
        if store.tip().height() != tip {
            return Err(format!("the second start is at {}, the first was at {tip}", store.tip().height()));
        }
        if again != recovered {
            return Err(format!("the second start has another log: {again:?}, not {recovered:?}"));
        }
        if goes_on {
            return self.go_on(dir, store, (tip, recovered.is_lost));
        }
        crash(store);
        Ok(())
    }

    /// What is promised of a store that begins with a state of others; what is missing of that is taken in.
    fn begin(&self, dir: &Path, promise: &Promise) -> Result<Promise, String> {
        let (mut promise, mut lacked) = (*promise, false);
        self.work.begin(dir, promise.taken, &mut |_| lacked = true)?;
        let base = self.work.world.base.0;
        if lacked && promise.committed > 0 {
            return Err(format!("the state that was taken in is not there: {promise:?}"));
        }
        promise.committed = promise.committed.max(base);
        promise.committing = promise.committing.max(base);
        Ok(promise)
    }

    fn check_store(&self, store: &Database, tip: Height, promise: &Promise) -> Result<(), String> {
        if !(promise.committed..=promise.committing).contains(&tip.0) {
            return Err(format!("the tip is {tip}: {promise:?}"));
        }
        if lowest(store).0 < promise.lowest {
            return Err(format!("blocks above {} are kept: {promise:?}", lowest(store)));
        }
        let mut world = self.work.world.clone();
        world.truncate(tip);
        let found = world.compare(store);
        if !found.is_empty() {
            return Err(format!("{found:?}"));
        }
        for epoch in (1..=promise.epochs).map(Epoch) {
            let row = store.epoch(epoch).map_err(|error| error.to_string())?;
            if row.as_ref() != self.work.epochs.get(index(epoch.0 - 1)) {
                return Err(format!("epoch {epoch} has {row:?}"));
            }
        }
        Ok(())
    }

    fn check_log(&self, recovered: &Recovered, tip: Height, promise: &Promise) -> Result<(), String> {
        if recovered.is_lost {
            // Whoever begins with a state of others does not know what it signed before.
            let may_be = self.work.given.is_some() && promise.logged == 0;
            return may_be.then_some(()).ok_or_else(|| "the log is lost".to_owned());
        }
        let mut found = vec![false; self.work.entries.len()];
        let mut last = None;
        for entry in &recovered.entries {
            let place = self.places.get(&encode(entry)).copied();
            match place.filter(|place| *place < promise.begun && last.is_none_or(|last| last < *place)) {
                Some(place) => found[place] = true,
                None => return Err(format!("the log has {entry:?} behind entry {last:?}: {promise:?}")),
            }
            last = place;
        }
        // What belongs to the tip's slot or later ones is never forgotten, nor is the newest floor.
        let acknowledged = self.work.entries.iter().zip(&found).take(promise.logged);
        let mut needed = acknowledged.clone().filter(|(entry, _)| entry.place().1.0 >= tip.0.max(1));
        if let Some((entry, _)) = needed.find(|(_, found)| !**found) {
            return Err(format!("the log lacks {entry:?}: {promise:?}"));
        }
        let floor = acknowledged.filter_map(|(entry, _)| entry.floor()).max();
        if recovered.entries.iter().filter_map(Entry::floor).max() < floor {
            return Err(format!("the log's floor is below {floor:?}"));
        }
        let begun = |at: usize| self.work.kept_at[at] <= promise.begun;
        let may = |kept: &KeptBlock| self.work.kept.iter().enumerate().any(|(at, other)| other == kept && begun(at));
        if let Some(kept) = recovered.blocks.iter().find(|kept| kept.signed.header.height() <= tip || !may(kept)) {
            return Err(format!("the log has a block that it should not have: {:?}", kept.signed.header));
        }
        let must = self
            .work
            .kept
            .iter()
            .zip(&self.work.kept_at)
            .filter(|(kept, at)| **at <= promise.logged && kept.signed.header.height() > tip);
        match must.map(|(kept, _)| kept).find(|kept| !recovered.blocks.contains(kept)) {
            Some(kept) => Err(format!("the log lacks a block: {:?}", kept.signed.header)),
            None => Ok(()),
        }
    }

    /// Opens a store that was closed in order, of which a bit was changed since, and looks at everything in it.
    pub fn judge(&self, dir: &Path) -> Verdict {
        let work = &self.work;
        let (tip, logged) = (work.world.tip(), work.entries.len());
        let epochs = u64::try_from(work.epochs.len()).expect("a few");
        let promise =
            Promise { committed: tip.0, committing: tip.0, logged, begun: logged, epochs, ..Promise::default() };
        let (store, recovered) = match self.open(dir) {
            Ok(opened) => opened,
            Err(why) => return Verdict::Told(why),
        };
        let mut found = if store.tip().height() == tip {
            work.world.compare(&store)
        } else {
            Differences { wrong: vec![format!("the tip is {}", store.tip().height())], ..Differences::default() }
        };
        work.world.compare_proofs(&store, work.world.tip(), &mut found);
        for start in &work.epochs {
            found.note(|| "an epoch".to_owned(), store.epoch(start.set.epoch()), &Some(start.clone()));
            let above = &start.tail[0];
            found.note(|| "a tail header".to_owned(), store.tail_header(above.header.id()), &Some(above.clone()));
        }
        if recovered.is_lost {
            found.errors.push("the log is lost".to_owned());
        } else if let Err(why) = self.check_log(&recovered, tip, &promise) {
            found.wrong.push(why);
        }
        let scrubbed = store.scrub().findings;
        crash(store);
        match (found.wrong.first(), found.errors.first(), scrubbed.first()) {
            (Some(wrong), _, None) => Verdict::Silent(wrong.clone()),
            (Some(_), _, Some(finding)) => Verdict::Scrubbed(finding.to_string()),
            (None, Some(error), _) => Verdict::Told(error.clone()),
            (None, None, Some(finding)) => Verdict::Unread(finding.to_string()),
            (None, None, None) => Verdict::Harmless,
        }
    }

    /// Further blocks on what is there: nothing that was cut off may come back behind them.
    fn go_on(&self, dir: &Path, store: Database, (tip, is_lost): (Height, bool)) -> Result<(), String> {
        let mut work = self.work.clone();
        work.world.truncate(tip);
        if is_lost {
            work.regain(&store, &mut |_| {})?;
        }
        work.world.random ^= 0x60e5_0ff5;
        for _ in 0..2 {
            work.round(&store, 2, &mut |_| {})?;
        }
        store.checkpoint().map_err(|error| error.to_string())?;
        work.round(&store, 1, &mut |_| {})?;
        crash(store);
        let (store, recovered) = self.open(dir)?;
        let found = work.world.compare(&store);
        crash(store);
        if !found.is_empty() || recovered.is_lost {
            return Err(format!("after further blocks on {tip}: {found:?}, log lost {}", recovered.is_lost));
        }
        Ok(())
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("an index fits")
}
