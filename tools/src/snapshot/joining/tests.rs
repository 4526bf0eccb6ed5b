//! A state from peers most of which lie, each in its own way.

use std::{path::Path, sync::Mutex};

use engine::{genesis::OrderingParams, ports::Store as _};

use storage::{
    Database,
    portable::BlocksFile,
    testing::world::{State, block_after, chain, random_changes, root_of, state_of},
};
use tokio::sync::Notify;

use super::{super::judge::judge_from, *};

/// What a peer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Honest,
    /// It has nothing.
    Empty,
    /// It changes a bit of every part.
    Flips,
    /// It gives the first part, whatever is asked for.
    First,
    /// It changes a bit of what shows that the block is final.
    Head,
    /// It names a block that nobody knows.
    Block,
    /// It gives the first part and then nothing.
    Stops,
}

struct Peers {
    store: Database,
    manners: Vec<Manner>,
    refused: Mutex<BTreeSet<u64>>,
    /// Somebody was refused.
    told: Notify,
    given: Mutex<BTreeMap<u64, usize>>,
}

impl Peers {
    fn new(store: Database, manners: &[Manner]) -> Arc<Self> {
        let (refused, told, given) = Default::default();
        Arc::new(Self { store, manners: manners.to_vec(), refused, told, given })
    }

    /// Waits until all are refused that give wrong parts. A part of so small a state is all of it, and nobody's word
    /// counts once it is here.
    async fn liars_are_refused(&self) {
        let is_liar = |manner: &Manner| matches!(manner, Manner::Flips | Manner::First);
        let liars = || (0..).zip(&self.manners).filter(|(_, manner)| is_liar(manner)).map(|(peer, _)| peer);
        loop {
            let told = self.told.notified();
            if liars().all(|peer| self.refused.lock().unwrap().contains(&peer)) {
                return;
            }
            told.await;
        }
    }

    fn answer(&self, peer: u64, wish: StateWish) -> Option<Bytes> {
        let manner = self.manners[usize::try_from(peer).unwrap()];
        let slice = |block: B256, bytes: Bytes, at: u64| {
            let at = usize::try_from(at).unwrap();
            let end = (at + limits::STATE_PART_BYTES).min(bytes.len());
            let total = bytes.len() as u64;
            HeadSlice { block, total, bytes: bytes.slice(at..end) }.encoded().into()
        };
        match wish {
            StateWish::Head { block, from, at } => {
                let (found, bytes) = self.store.state_head(block, from).ok()?;
                let mut bytes = bytes.to_vec();
                if manner == Manner::Head {
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 1;
                }
                match manner {
                    Manner::Empty => None,
                    Manner::Block => Some(slice(B256::repeat_byte(9), bytes.into(), at)),
                    _ => Some(slice(found, bytes.into(), at)),
                }
            }
            StateWish::Part { block, owner, from } => {
                let given = {
                    let mut given = self.given.lock().unwrap();
                    let given = given.entry(peer).or_default();
                    *given += 1;
                    *given
                };
                let (owner, from) = if manner == Manner::First { (None, B256::ZERO) } else { (owner, from) };
                let mut part = self.store.state_part(block, owner, from).ok()?.to_vec();
                match manner {
                    Manner::Empty => return None,
                    Manner::Stops if given > 1 => return None,
                    Manner::Flips => {
                        let last = part.len() - 1;
                        part[last] ^= 1;
                    }
                    _ => {}
                }
                Some(part.into())
            }
        }
    }
}

impl Givers for Peers {
    fn peers(&self) -> Vec<u64> {
        let refused = self.refused.lock().unwrap();
        (0..self.manners.len() as u64).filter(|peer| !refused.contains(peer)).collect()
    }

    async fn changed(&self) {
        std::future::pending().await
    }

    async fn ask(&self, peer: u64, wish: StateWish) -> Option<Bytes> {
        let answer = self.answer(peer, wish);
        let manner = self.manners[usize::try_from(peer).unwrap()];
        let is_true = !matches!(manner, Manner::Empty | Manner::Flips | Manner::First);
        if is_true && matches!(wish, StateWish::Part { .. }) {
            self.liars_are_refused().await;
        }
        answer
    }

    fn refuse(&self, peer: u64, _reason: &'static str) {
        self.refused.lock().unwrap().insert(peer);
        self.told.notify_waiters();
    }
}

const HEIGHT: u64 = 8;

/// A chain that gives its state at the eighth height, which is its tip; and that state.
fn giver(dir: &Path) -> (Arc<ChainSpec>, Database, State) {
    let plain = chain();
    let ordering = OrderingParams { epoch_slots: HEIGHT, ..plain.ordering.clone() };
    let chain = Arc::new(ChainSpec { ordering, ..ChainSpec::clone(&plain) });
    let store = Database::open(Config::dev(dir), chain.clone()).unwrap();
    let (mut state, mut random) = (state_of(&chain), 7);
    for _ in 0..HEIGHT {
        let changes = random_changes(&mut state, &mut random, false);
        let block = block_after(&store, &store.tip(), None, changes, Vec::new());
        store.commit(&[block]).unwrap();
        store.checkpoint().unwrap();
    }
    (chain, store, state)
}

async fn joined(peers: &Arc<Peers>, chain: &ChainSpec, config: &Config) {
    let trusted = Trusted { chain, set: B256::ZERO, judge: hangs_together };
    join(peers.clone(), trusted, config).await.unwrap();
}

/// Takes what hangs together for final: whether validators signed it is for other tests.
fn hangs_together(chain: &ChainSpec, _set: B256, head: Head) -> eyre::Result<Foundation> {
    let proof = head.proofs.last().ok_or_else(|| eyre!("no block"))?;
    let header = proof.headers.last().cloned().ok_or_else(|| eyre!("no header"))?;
    let block = head.blocks.blocks[0].block(header, proof.certificate).map_err(|reason| eyre!(reason))?;
    ensure!(block.is_whole() && block.block.header.inner() == &proof.block, "no block");
    head.blocks.check_headers(&block, chain.genesis_hash()).map_err(|reason| eyre!(reason))?;
    Ok(Foundation { blocks: vec![block], headers: head.blocks.headers, epochs: Vec::new() })
}

#[tokio::test(flavor = "multi_thread")]
async fn one_honest_peer_among_liars_is_enough() {
    use Manner::{Block, Empty, First, Flips, Head, Honest, Stops};
    let home = tempfile::tempdir().unwrap();
    let (chain, store, state) = giver(&home.path().join("a"));
    let peers = Peers::new(store, &[Empty, Flips, First, Head, Block, Honest, Stops]);
    let config = Config::dev(home.path().join("b"));
    joined(&peers, &chain, &config).await;
    let refused = peers.refused.lock().unwrap().clone();
    assert!(!refused.contains(&0) && !refused.contains(&5) && !refused.contains(&6), "{refused:?}");
    assert!(refused.contains(&1) && refused.contains(&2), "whoever gave a wrong part is refused: {refused:?}");
    let made = Database::open(config.clone(), chain.clone()).unwrap();
    assert_eq!(made.tip().block.header.state_root, root_of(&state));
    assert_eq!(made.tip().hash(), peers.store.tip().hash());
    assert_eq!(made.rebuild_root().unwrap(), root_of(&state));
    made.close().unwrap();
    // A folder that holds a chain asks nobody.
    let asked = peers.given.lock().unwrap().clone();
    joined(&peers, &chain, &config).await;
    assert_eq!(*peers.given.lock().unwrap(), asked);
}

/// A part of a state stays over a stop; where nobody gives that state any more, the newest one is taken.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_begun_goes_on_or_is_let_go_of() {
    let home = tempfile::tempdir().unwrap();
    let (chain, store, state) = giver(&home.path().join("a"));
    let (block, _) = store.state_head(None, Epoch(0)).unwrap();
    let root = store.tip().block.header.state_root;
    let first = store.state_part(block, None, B256::ZERO).unwrap();
    let peers = Peers::new(store, &[Manner::Honest]);
    let config = Config::dev(home.path().join("b"));
    let mut intake = Intake::open(&config, &chain, block).unwrap();
    let _ = intake.gaps(PARTS_MAX);
    intake.take(root, &first).unwrap().unwrap();
    drop(intake);
    joined(&peers, &chain, &config).await;
    let made = Database::open(config, chain.clone()).unwrap();
    assert_eq!(made.rebuild_root().unwrap(), root_of(&state));

    let config = Config::dev(home.path().join("c"));
    drop(Intake::open(&config, &chain, B256::repeat_byte(1)).unwrap());
    joined(&peers, &chain, &config).await;
    assert_eq!(Database::open(config, chain).unwrap().rebuild_root().unwrap(), root_of(&state));
}

#[test]
fn a_set_that_no_handover_leads_to_is_named() {
    let head = Head {
        handovers: Vec::new(),
        proofs: Vec::new(),
        blocks: BlocksFile { blocks: Vec::new(), headers: Vec::new() },
    };
    let refused = judge_from(&chain(), B256::repeat_byte(7), head).unwrap_err().to_string();
    assert!(refused.contains(&format!("no handover leads to the trusted set {}", B256::repeat_byte(7))), "{refused}");
}
