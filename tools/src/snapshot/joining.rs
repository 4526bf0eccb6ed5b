//! A state from other nodes, over the network, into a folder that holds no chain.
//!
//! ```text
//! heads   what most peers name as their newest state -> shown to be final, by a set of validators that is trusted
//! parts   ranges of keys that are missing -> whichever peer is free -> each proven under that block's state root
//! chain   begins with that block; the rest is caught up block by block
//! ```
//!
//! A peer that gives what does not hold is refused. One that gives nothing is asked again later; if none gives the
//! state any more, it is let go of and the newest is taken from its beginning. What is here stays over a restart.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use alloy_primitives::{B256, Bytes};
use engine::{
    genesis::ChainSpec,
    limits,
    ports::{Network as _, Offender},
    types::{Epoch, HeadSlice, StateWish},
};
use eyre::{WrapErr, ensure, eyre};
use net::transport::Transport;
use storage::{
    Config,
    portable::{Foundation, Gap, Head, Held, Intake, Part},
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

/// Parts that are on their way at a time.
const PARTS_MAX: usize = 16;
/// Of those, from one peer.
const PARTS_PER_PEER_MAX: usize = 2;
/// How long a peer that gave nothing is left alone.
const REST: Duration = Duration::from_millis(500);
/// How long nobody may give anything of a state before another one is looked for.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a peer may take for all that shows its block to be final.
const HEAD_TIME_MAX: Duration = Duration::from_secs(60);
/// How often a person is told.
const TOLD_EVERY: Duration = Duration::from_secs(5);

/// Who can be asked.
pub(crate) trait Givers: Send + Sync + 'static {
    /// Those who are connected.
    fn peers(&self) -> Vec<u64>;

    /// Waits until one comes or goes.
    fn changed(&self) -> impl Future<Output = ()> + Send;

    /// Asks one; `None` where it has nothing.
    fn ask(&self, peer: u64, wish: StateWish) -> impl Future<Output = Option<Bytes>> + Send;

    /// Refuses one for what it gave.
    fn refuse(&self, peer: u64, reason: &'static str);
}

impl Givers for Transport {
    fn peers(&self) -> Vec<u64> {
        engine::ports::Network::peers(self).into_iter().map(|contact| contact.peer).collect()
    }

    async fn changed(&self) {
        self.peers_changed().await;
    }

    async fn ask(&self, peer: u64, wish: StateWish) -> Option<Bytes> {
        self.ask_state(peer, &wish).await
    }

    fn refuse(&self, peer: u64, reason: &'static str) {
        self.ban(&Offender::Peer(peer), reason);
    }
}

/// Says whether what a head says holds, to whoever trusts the set with this hash.
pub(crate) type Judge = fn(&ChainSpec, B256, Head) -> eyre::Result<Foundation>;

/// What is trusted of a chain, and how.
#[derive(Clone, Copy)]
pub(crate) struct Trusted<'c> {
    pub(crate) chain: &'c ChainSpec,
    /// Hash of a set of validators.
    pub(crate) set: B256,
    pub(crate) judge: Judge,
}

impl Trusted<'_> {
    fn judge(&self, head: Head) -> eyre::Result<Foundation> {
        (self.judge)(self.chain, self.set, head)
    }
}

/// Takes a state over from others, unless the folder holds a chain. Only a store that fails ends it.
pub(crate) async fn join<G: Givers>(givers: Arc<G>, trusted: Trusted<'_>, config: &Config) -> eyre::Result<()> {
    loop {
        let wanted = match Intake::held(config)? {
            Held::Chain => return Ok(()),
            Held::Part(block) => Some(block),
            Held::Nothing => None,
        };
        let Some((block, foundation)) = found(&givers, trusted, wanted).await else {
            tracing::warn!("no peer gives the state any more of which a part is here; another is looked for");
            Intake::discard(config)?;
            continue;
        };
        let newest = foundation.blocks.last().ok_or_else(|| eyre!("there is no block"))?;
        let (height, root) = (newest.height(), newest.block.header.state_root);
        tracing::info!(%height, %block, "a state is taken over");
        let mut intake = Intake::open(config, trusted.chain, block)?;
        if Collecting::new(givers.clone(), block, root).run(&mut intake).await? {
            let finished = tokio::task::block_in_place(|| intake.finish(trusted.chain, &foundation, &|_| ()));
            finished.wrap_err("the state that was taken over is not right")?;
            tracing::info!(%height, %block, "the state is here");
            return Ok(());
        }
    }
}

/// Finds a block whose state is given, and what shows that it is final; `None` if it is wanted and nobody gives it.
async fn found<G: Givers>(givers: &Arc<G>, trusted: Trusted<'_>, wanted: Option<B256>) -> Option<(B256, Foundation)> {
    let (begun, mut told) = (Instant::now(), Instant::now());
    loop {
        // Many may lie; those who do not name the same block.
        let mut named = BTreeMap::<B256, BTreeSet<u64>>::new();
        for (peer, slice) in first_slices(givers, wanted).await {
            named.entry(slice.block).or_default().insert(peer);
        }
        let mut named: Vec<_> =
            named.into_iter().filter(|(block, _)| wanted.is_none_or(|held| held == *block)).collect();
        named.sort_by_key(|(_, peers)| std::cmp::Reverse(peers.len()));
        for (block, peers) in named {
            for peer in peers {
                match timeout(HEAD_TIME_MAX, head_of(givers, peer, block, trusted)).await {
                    Ok(Ok(Some(foundation))) => return Some((block, foundation)),
                    Ok(Ok(None)) | Err(_) => {}
                    Ok(Err(error)) => {
                        tracing::warn!(peer, %error, "a peer's word on the state is refused");
                        givers.refuse(peer, "it does not show that the block is final whose state it gives");
                    }
                }
            }
        }
        if wanted.is_some() && begun.elapsed() >= PATIENCE {
            return None;
        }
        if told.elapsed() >= TOLD_EVERY {
            told = Instant::now();
            tracing::warn!(peers = givers.peers().len(), "no peer gives a state yet");
        }
        if givers.peers().is_empty() {
            let _ = timeout(TOLD_EVERY, givers.changed()).await;
        } else {
            sleep(REST).await;
        }
    }
}

const fn head_wish(block: Option<B256>, at: u64) -> StateWish {
    StateWish::Head { block, from: Epoch(0), at }
}

/// What every peer names.
async fn first_slices<G: Givers>(givers: &Arc<G>, wanted: Option<B256>) -> Vec<(u64, HeadSlice)> {
    let mut asking = JoinSet::new();
    for peer in givers.peers() {
        let givers = givers.clone();
        asking.spawn(async move {
            let piece = givers.ask(peer, head_wish(wanted, 0)).await?;
            Some((peer, HeadSlice::decode(&piece)?))
        });
    }
    asking.join_all().await.into_iter().flatten().collect()
}

/// What a peer says of a block, judged; `None` if it says too little.
async fn head_of<G: Givers>(
    givers: &Arc<G>,
    peer: u64,
    block: B256,
    trusted: Trusted<'_>,
) -> eyre::Result<Option<Foundation>> {
    let mut bytes = Vec::new();
    loop {
        let at = u64::try_from(bytes.len())?;
        let Some(piece) = givers.ask(peer, head_wish(Some(block), at)).await else { return Ok(None) };
        let slice = HeadSlice::decode(&piece).ok_or_else(|| eyre!("a slice of a head that is too short"))?;
        ensure!(slice.block == block, "a slice of the head of {}, not of {block}", slice.block);
        let total = slice.total;
        ensure!(total <= limits::STATE_HEAD_BYTES_MAX, "a head of {total} bytes");
        let due = total.saturating_sub(at).min(u64::try_from(limits::STATE_PART_BYTES)?);
        let found = slice.bytes.len();
        ensure!(u64::try_from(found)? == due, "{found} bytes from {at} on of a head of {total}, not {due}");
        bytes.extend_from_slice(&slice.bytes);
        if u64::try_from(bytes.len())? == total {
            break;
        }
    }
    tokio::task::block_in_place(|| {
        let head = Head::decode(&bytes).map_err(|reason| eyre!(reason))?;
        ensure!(head.block() == Some(block), "a head of another block than {block}");
        trusted.judge(head).map(Some)
    })
}

/// The parts of one state.
struct Collecting<G> {
    givers: Arc<G>,
    block: B256,
    root: B256,
    asked: BTreeMap<(Option<B256>, B256), u64>,
    /// When who gave nothing is asked again.
    resting: BTreeMap<u64, Instant>,
    parts: u64,
    rows: u64,
}

type Answer = (u64, Gap, Option<Bytes>);

impl<G: Givers> Collecting<G> {
    const fn new(givers: Arc<G>, block: B256, root: B256) -> Self {
        Self { givers, block, root, asked: BTreeMap::new(), resting: BTreeMap::new(), parts: 0, rows: 0 }
    }

    /// Asks until nothing is missing; `false` if nobody gives anything of it any more.
    async fn run(mut self, intake: &mut Intake) -> eyre::Result<bool> {
        let (mut asking, mut progress, mut told) = (JoinSet::<Answer>::new(), Instant::now(), Instant::now());
        loop {
            let gaps = intake.gaps(PARTS_MAX);
            if gaps.is_empty() {
                return Ok(true);
            }
            self.ask(&gaps, &mut asking);
            tokio::select! {
                Some(answer) = asking.join_next() => {
                    let (peer, gap, piece) = answer.wrap_err("a task ended")?;
                    self.asked.remove(&(gap.owner, gap.from));
                    if self.take(intake, (peer, gap), piece)? {
                        progress = Instant::now();
                    }
                }
                () = self.givers.changed() => {}
                () = sleep(REST) => {}
            }
            if progress.elapsed() >= PATIENCE {
                return Ok(false);
            }
            if told.elapsed() >= TOLD_EVERY {
                told = Instant::now();
                tracing::info!(
                    parts = self.parts,
                    rows = self.rows,
                    peers = self.givers.peers().len(),
                    "a state comes"
                );
            }
        }
    }

    /// Asks those who have time for what nobody is asked for yet.
    fn ask(&mut self, gaps: &[Gap], asking: &mut JoinSet<Answer>) {
        let peers = self.givers.peers();
        self.resting.retain(|peer, until| peers.contains(peer) && *until > Instant::now());
        for gap in gaps {
            if self.asked.len() >= PARTS_MAX || self.asked.contains_key(&(gap.owner, gap.from)) {
                continue;
            }
            let busy = |peer: &u64| self.asked.values().filter(|asked| *asked == peer).count();
            let is_free = |peer: &&u64| busy(peer) < PARTS_PER_PEER_MAX && !self.resting.contains_key(peer);
            let Some(peer) = peers.iter().filter(is_free).min_by_key(|peer| busy(peer)).copied() else { return };
            self.asked.insert((gap.owner, gap.from), peer);
            let (givers, gap) = (self.givers.clone(), *gap);
            let wish = StateWish::Part { block: self.block, owner: gap.owner, from: gap.from };
            asking.spawn(async move { (peer, gap, givers.ask(peer, wish).await) });
        }
    }

    /// Takes what a peer gave; whether that was a part.
    fn take(&mut self, intake: &mut Intake, (peer, gap): (u64, Gap), piece: Option<Bytes>) -> eyre::Result<bool> {
        let Some(piece) = piece else {
            self.resting.insert(peer, Instant::now() + REST);
            return Ok(false);
        };
        match tokio::task::block_in_place(|| intake.take(self.root, &piece))? {
            Ok(Part { owner, from, rows, slots, .. }) if (owner, from) == (gap.owner, gap.from) => {
                self.parts = self.parts.saturating_add(1);
                self.rows = self.rows.saturating_add(rows).saturating_add(slots);
                Ok(true)
            }
            // True and not what was asked for: it would come again and again.
            Ok(_) => {
                self.givers.refuse(peer, "it gives another part of the state than it was asked for");
                Ok(false)
            }
            Err(error) => {
                tracing::warn!(peer, %error, "a part of the state is refused");
                self.givers.refuse(peer, "a part of the state that does not prove itself");
                Ok(false)
            }
        }
    }
}

#[cfg(test)]
mod tests;
