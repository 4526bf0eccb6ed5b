//! A peer that answers whoever is behind, and lies.
//!
//! | lie | the answer to a wish for blocks |
//! |---|---|
//! | `wrong-blocks` | what an honest node answers, with a byte changed, or blocks of other heights |
//! | `false-heights` | none, and the word that there are many |
//! | `empty` | nothing, or a chain without blocks |
//! | `slow` | a byte now and then |
//!
//! Who finds it out ends the connection; the liar comes again at once, as somebody else.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use clap::ValueEnum;
use engine::types::{Chain, Domain, Height, Message, Range};
use net::{
    NodeKey,
    testing::{self, Answer, Intruder, RawPeer},
    transport::record::NodeRecord,
};
use tokio::time::{sleep, timeout, timeout_at};

use crate::rng::Rng;

/// How long a step of a connection may take.
const STEP: Duration = Duration::from_secs(2);

/// Time between two bytes of a slow answer.
const DRIP: Duration = Duration::from_millis(500);

/// What is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Lie {
    /// Other blocks.
    WrongBlocks,
    /// A height that nobody has.
    FalseHeights,
    /// Nothing.
    Empty,
    /// Hardly anything.
    Slow,
}

impl Lie {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::WrongBlocks, Self::FalseHeights, Self::Empty, Self::Slow];
}

/// A liar.
#[derive(Clone, Debug)]
pub struct Options {
    /// What it answers.
    pub lie: Lie,
    /// Own address.
    pub from: Ipv4Addr,
    /// Whom it lies to.
    pub to: SocketAddrV4,
    /// Of whom it has its blocks.
    pub honest: SocketAddrV4,
    /// How long.
    pub lasts: Duration,
    /// Chance follows from it.
    pub seed: u64,
}

/// Lies until the time is over; gives how many wishes it answered, and how often it was let in.
///
/// # Errors
/// If the honest node cannot be reached, in words.
pub fn run(options: &Options) -> Result<(u64, u64), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("no runtime: {error}"))?;
    let until = Instant::now() + options.lasts;
    runtime.block_on(async {
        let liar = Liar::new(options).await?;
        let lying = async {
            loop {
                // Who is not let in tries again soon.
                let _ = liar.once().await;
                sleep(Duration::from_millis(50)).await;
            }
        };
        let _ = timeout_at(until.into(), lying).await;
        let counts = liar.0.counts.lock().map_err(|_| "a task has panicked".to_owned())?;
        Ok(*counts)
    })
}

struct Shared {
    options: Options,
    intruder: Intruder,
    domain: Domain,
    honest: RawPeer,
    rng: Mutex<Rng>,
    counts: Mutex<(u64, u64)>,
}

#[derive(Clone)]
struct Liar(Arc<Shared>);

impl Liar {
    async fn new(options: &Options) -> Result<Self, String> {
        let intruder = Intruder::new(IpAddr::V4(options.from)).map_err(|error| format!("no socket: {error}"))?;
        let mut rng = Rng::new(options.seed);
        let seen = intruder.dial(&node_key(&mut rng), options.honest.into(), STEP).await?;
        let shown = timeout(STEP, seen.record()).await.ok().flatten().ok_or("the honest node shows no record")?;
        let domain = Domain { chain_id: shown.chain_id, genesis: shown.genesis };
        let (own, dialled) = (node_key(&mut rng), options.honest.into());
        let honest = intruder.dial(&own, dialled, STEP).await?;
        honest
            .hello(&NodeRecord::sign(&domain, &own, 1, Vec::new(), None).encoded())
            .await
            .ok_or("it is not let in")?;
        let (rng, counts) = (Mutex::new(rng), Mutex::default());
        Ok(Self(Arc::new(Shared { options: options.clone(), intruder, domain, honest, rng, counts })))
    }

    /// One connection with whom it lies to, from its beginning to its end.
    async fn once(&self) -> Option<()> {
        let key = node_key(&mut *self.0.rng.lock().ok()?);
        let peer = self.0.intruder.dial(&key, self.0.options.to.into(), STEP).await.ok()?;
        let record = NodeRecord::sign(&self.0.domain, &key, 1, Vec::new(), None);
        timeout(STEP, peer.hello(&record.encoded())).await.ok()??;
        self.0.counts.lock().ok()?.1 += 1;
        while let Some((message, answer)) = peer.asked().await {
            let liar = self.clone();
            tokio::spawn(async move { liar.lie(message, answer).await });
        }
        Some(())
    }

    async fn lie(&self, wish: Message, mut answer: Answer) -> Option<()> {
        self.0.counts.lock().ok()?.0 += 1;
        let Message::Range(range) = wish else { return answer.nothing().await };
        let empty = |height| Chain { from: range.from, height, headers: Vec::new(), bodies: 0, certificate: None };
        match self.0.options.lie {
            Lie::Slow => loop {
                answer.raw(&[0]).await?;
                sleep(DRIP).await;
            },
            Lie::Empty if self.below(2)? == 0 => answer.nothing().await,
            Lie::Empty => answer.raw(&letter(&empty(range.from), &[])).await,
            Lie::FalseHeights => answer.raw(&letter(&empty(Height(u64::MAX >> 1)), &[])).await,
            Lie::WrongBlocks => {
                let shift = self.below(3)? * range.count;
                let other = Range { from: Height(range.from.0.saturating_sub(shift)), count: range.count };
                let mut bytes = timeout(STEP, self.0.honest.ask(&Message::Range(other))).await.ok()??;
                if shift == 0 {
                    let place = usize::try_from(self.below(bytes.len() as u64)?).ok()?;
                    bytes[place] ^= 1 << self.below(8)?;
                } else if let Some((Message::Chain(chain), bodies)) = testing::opened(&bytes) {
                    bytes = letter(&Chain { from: range.from, ..*chain }, &bodies);
                }
                answer.raw(&bytes).await
            }
        }
    }

    fn below(&self, bound: u64) -> Option<u64> {
        Some(self.0.rng.lock().ok()?.below(bound.max(1)))
    }
}

/// A chain as an answer, with the bodies behind it as they came.
fn letter(chain: &Chain, bodies: &[u8]) -> Vec<u8> {
    testing::letter(&Message::Chain(Box::new(chain.clone())), bodies)
}

/// A key that nobody has had before.
pub(crate) fn node_key(rng: &mut Rng) -> NodeKey {
    let mut seed = [0; 32];
    seed.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&rng.next().to_le_bytes()));
    NodeKey::from_seed(&seed).expect("any seed gives a key")
}
