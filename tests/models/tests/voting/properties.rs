//! What must hold in every state: that nothing conflicts, and that everything can go on.

use engine::{ordering::planted::Bug, types::Statement};
use stateright::Property;

use super::{
    block::{Block, SLOTS, Word},
    network::{Knowledge, Network, Restarts, Setting, State},
    records::{Records, Wish},
};

pub const AGREEMENT: &str = "all final blocks lie on one chain";
pub const ONE_NOTARIZATION: &str = "a slot has one notarization";
pub const SKIP_OR_FINAL: &str = "a slot is not both skipped and final";
pub const ANCESTRY: &str = "what is final has notarized ancestors, and leaps only over skipped slots";
pub const HONEST_WORD: &str = "an honest validator does not contradict itself";
pub const ONE_PROPOSAL: &str = "an honest leader makes one block for a slot";
pub const VALID: &str = "what is notarized is valid";
pub const NO_ALARM: &str = "no certificate contradicts one that is held";
pub const FRONTIER: &str = "what lies below a frontier is decided";
pub const LEFT: &str = "what all have skipped is not notarized later";
pub const FINISHED: &str = "what all know as notarized can be finalized, whatever timers do";
pub const PROGRESS: &str = "the honest can go on by themselves";
pub const HEARD: &str = "a timely honest leader gets its window finalized";

const CHAIN_OF_THREE: &str = "a block in every slot, and the last final";
const LEAP: &str = "a final block beyond a skipped slot";
const BOTH: &str = "a slot both notarized and skipped";

/// The properties of a setting.
pub fn of(setting: &Setting) -> Vec<Property<Network>> {
    let mut properties = vec![
        Property::always(AGREEMENT, agreement),
        Property::always(ONE_NOTARIZATION, one_notarization),
        Property::always(SKIP_OR_FINAL, skip_or_final),
        Property::always(ANCESTRY, ancestry),
        Property::always(HONEST_WORD, honest_word),
        Property::always(ONE_PROPOSAL, one_proposal),
        Property::always(VALID, valid),
        Property::always(NO_ALARM, |_, state: &State| !state.alarm),
        Property::always(FRONTIER, frontier),
        Property::always(LEFT, left),
        Property::sometimes(CHAIN_OF_THREE, |network, state| {
            let whole = |block: Block| block.chain().count() == network.setting.slots;
            finals(&network.certificates(state)).any(whole)
        }),
        Property::sometimes(BOTH, |network, state| {
            let words = network.certificates(state);
            (0..SLOTS).any(|slot| {
                words.contains(&Word::Skip(slot)) && notarizations(&words).any(|block| block.slot() == Some(slot))
            })
        }),
    ];
    if setting.window < setting.slots {
        properties.push(Property::sometimes(LEAP, |network, state| {
            let leaps = |block: Block| block.slot() >= Some(1) && block.chain().count() == 1;
            finals(&network.certificates(state)).any(leaps)
        }));
    }
    let is_live = setting.restarts != Restarts::LogWithoutCertificates && setting.knowledge == Knowledge::Any;
    if is_live || setting.only.is_some() {
        properties.extend([
            Property::always(FINISHED, finished),
            Property::always(PROGRESS, progress),
            Property::always(HEARD, heard),
        ]);
    }
    properties.retain(|property| setting.only.is_none_or(|only| property.name == only));
    properties
}

fn finals(words: &[Word]) -> impl Iterator<Item = Block> {
    words.iter().filter_map(|word| if let Word::Finalize(block) = word { Some(*block) } else { None })
}

fn notarizations(words: &[Word]) -> impl Iterator<Item = Block> {
    words.iter().filter_map(|word| if let Word::Notarize(block) = word { Some(*block) } else { None })
}

fn agreement(network: &Network, state: &State) -> bool {
    let words = network.certificates(state);
    finals(&words).all(|one| finals(&words).all(|two| one.is_on(two) || two.is_on(one)))
}

fn one_notarization(network: &Network, state: &State) -> bool {
    let words = network.certificates(state);
    notarizations(&words).all(|one| notarizations(&words).all(|two| one == two || one.slot() != two.slot()))
}

fn skip_or_final(network: &Network, state: &State) -> bool {
    let words = network.certificates(state);
    finals(&words).all(|block| !words.contains(&Word::Skip(block.slot().expect("not the base"))))
}

fn ancestry(network: &Network, state: &State) -> bool {
    let words = network.certificates(state);
    let stands = |block: Block| {
        let between = block.parent().slot().map_or(0, |slot| slot + 1)..block.slot().expect("not the base");
        words.contains(&Word::Notarize(block)) && between.into_iter().all(|slot| words.contains(&Word::Skip(slot)))
    };
    finals(&words).all(|block| block.chain().all(stands))
}

fn honest_word(network: &Network, state: &State) -> bool {
    network.honest().all(|who| {
        let said: Vec<Statement> = state.parties[who].words().map(Word::statement).collect();
        said.iter().all(|one| said.iter().all(|two| !one.contradicts(two)))
    })
}

fn one_proposal(_: &Network, state: &State) -> bool {
    (0..SLOTS).all(|slot| state.proposed(slot).count() < 2)
}

fn valid(network: &Network, state: &State) -> bool {
    notarizations(&network.certificates(state)).all(Block::is_valid)
}

/// Certificates of everything below, or of a later final block.
fn frontier(network: &Network, state: &State) -> bool {
    let words = network.certificates(state);
    let last = finals(&words).filter_map(Block::slot).max();
    let decided = |slot| {
        last >= Some(slot)
            || words.contains(&Word::Skip(slot))
            || notarizations(&words).any(|block| block.slot() == Some(slot))
    };
    let records = network.records.lock().expect("no one panicked");
    network.honest().all(|who| (0..records.known(state.parties[who].record).frontier).all(decided))
}

/// Every honest validator skipped a slot and none voted for a block there: no block of it is notarized any more, so
/// the next leader knows what to build on.
fn left(network: &Network, state: &State) -> bool {
    let mut records = network.records.lock().expect("no one panicked");
    let gone = |slot: &usize| {
        network.honest().all(|who| state.parties[who].said[*slot].skipped) && state.voted(*slot).is_empty()
    };
    (0..network.setting.slots).filter(gone).all(|slot| {
        network.candidates(state, slot).into_iter().filter(|block| block.is_valid()).all(|block| {
            let mut later = *state;
            let votes = |who: &usize| network.put(&mut records, &mut later, *who, Wish::Vote(Word::Notarize(block)));
            let mask = network.honest().filter(votes).fold(0, |mask, who| mask | 1 << who);
            !network.is_decided_by(mask)
        })
    })
}

/// All hold a notarization and none had skipped: timers fire, and still it can become final.
fn finished(network: &Network, state: &State) -> bool {
    let mut records = network.records.lock().expect("no one panicked");
    (0..network.setting.slots).all(|slot| {
        let Some(block) = records.known(state.parties[0].record).notarized[slot] else { return true };
        let is_past = |who: usize| records.known(state.parties[who].record).last_final >= Some(slot);
        let holds = |who: usize| {
            records.known(state.parties[who].record).notarized[slot] == Some(block)
                && !state.parties[who].said[slot].skipped
        };
        if !network.honest().all(holds) || network.honest().any(is_past) {
            return true;
        }
        let mut later = *state;
        for who in network.honest() {
            network.put(&mut records, &mut later, who, Wish::Vote(Word::Skip(slot)));
            network.put(&mut records, &mut later, who, Wish::Vote(Word::Finalize(block)));
        }
        finals(&network.certificates_of_the_honest(&later)).any(|last| last.slot() >= Some(slot))
    })
}

/// The network is steady and the faulty are silent: all tell each other what they hold and said, finalize what they
/// may, and their timers fire, until nothing changes or all have reached a slot.
fn settle(network: &Network, records: &mut Records, state: &mut State, until: usize) {
    loop {
        let mut heard = network.certificates_of_the_honest(state);
        if !network.is_planted(Bug::KeepCertificates) {
            for who in network.honest() {
                heard.extend(records.known(state.parties[who].record).certificates());
            }
        }
        heard.sort_unstable();
        heard.dedup();
        let mut moved = false;
        for who in network.honest() {
            for word in &heard {
                moved |= network.put(records, state, who, Wish::Learn(*word)) && !state.alarm;
            }
            for block in records.known(state.parties[who].record).notarized.into_iter().flatten() {
                moved |= network.put(records, state, who, Wish::Vote(Word::Finalize(block)));
            }
        }
        if moved {
            continue;
        }
        for who in network.honest() {
            let frontier = records.known(state.parties[who].record).frontier;
            if frontier < until {
                for slot in frontier..network.window_of(frontier).end {
                    moved |= network.put(records, state, who, Wish::Vote(Word::Skip(slot)));
                }
            }
        }
        if !moved {
            return;
        }
    }
}

fn frontiers(network: &Network, records: &Records, state: &State) -> Vec<usize> {
    network.honest().map(|who| records.known(state.parties[who].record).frontier).collect()
}

fn progress(network: &Network, state: &State) -> bool {
    let mut records = network.records.lock().expect("no one panicked");
    let mut later = *state;
    settle(network, &mut records, &mut later, network.setting.slots);
    later.alarm || frontiers(network, &records, &later).into_iter().all(|frontier| frontier >= network.setting.slots)
}

/// Before anything happened in a window that an honest validator leads: all reach it, it proposes, and if all hear all
/// in time, its last block is final.
fn heard(network: &Network, state: &State) -> bool {
    let mut records = network.records.lock().expect("no one panicked");
    (0..network.setting.slots).step_by(network.setting.window).all(|start| {
        let Some(leader) = network.leader(start) else { return true };
        let untouched = |slot: usize| {
            let silent = |who: usize| state.parties[who].said[slot] == Default::default();
            network.honest().all(silent) && state.proposed(slot).count() == 0
        };
        if !(start..network.setting.slots).all(untouched) {
            return true;
        }
        let mut later = *state;
        settle(network, &mut records, &mut later, start);
        if later.alarm || frontiers(network, &records, &later).iter().any(|frontier| *frontier != start) {
            return later.alarm;
        }
        lead(network, &mut records, &mut later, start, leader)
    })
}

/// A leader leads its window, and all hear all of it at once.
fn lead(network: &Network, records: &mut Records, state: &mut State, start: usize, leader: usize) -> bool {
    let mut parent = records.known(state.parties[leader].record).base[start];
    for slot in network.window_of(start) {
        let Some(block) = parent.map(|parent| parent.child(slot, 1)) else { return false };
        if !network.put(records, state, leader, Wish::Propose(block)) {
            return false;
        }
        for who in network.honest() {
            network.put(records, state, who, Wish::Vote(Word::Notarize(block)));
        }
        settle(network, records, state, 0);
        parent = Some(block);
    }
    let last = network.window_of(start).end - 1;
    network.honest().all(|who| records.known(state.parties[who].record).finalized[last] == parent)
}
