//! Floods over connections: by strangers, each with a key of its own, and by a validator gone bad.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use alloy_primitives::{B256, hex};
use engine::types::{Domain, Epoch, Message, Signature, Slot, Statement, ValidatorIndex, Vote};
use net::{
    NodeKey,
    testing::{Intruder, LANES, RawPeer, vote_datagram},
    transport::record::NodeRecord,
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout, timeout_at},
};

use super::{Counts, Kind, Options};
use crate::{liar::node_key, rng::Rng};

/// How long a step of a connection may take before it is given up.
const STEP: Duration = Duration::from_secs(1);

/// Connections at a time; a node lets fewer strangers of one network in.
const AT_A_TIME: usize = 16;

/// Streams that a node lets a peer have open, one way and both ways.
const STREAMS: [usize; 2] = [64, 8];

/// Slots that votes are for.
const SLOTS: u64 = 1_000_000;

/// Bytes that a slow frame says it has.
const SLOW_FRAME: [u8; 4] = (60_000_u32).to_be_bytes();

/// A flood with what it knows of the chain.
#[derive(Clone)]
pub(super) struct Flood {
    options: Options,
    intruder: Intruder,
    domain: Domain,
    validator: Option<Arc<(NodeKey, Vec<u8>)>>,
    counts: Arc<Counts>,
    rng: Arc<Mutex<Rng>>,
}

impl Flood {
    /// Asks the node which chain it is of: it says so to whoever dials.
    pub(super) async fn new(options: &Options, counts: Arc<Counts>) -> Result<Self, String> {
        let record = shown_record(options.from, options.to).await?;
        let intruder = Intruder::new(IpAddr::V4(options.from)).map_err(|error| format!("no socket: {error}"))?;
        let rng = Arc::new(Mutex::new(Rng::new(options.seed)));
        let domain = Domain { chain_id: record.chain_id, genesis: record.genesis };
        let validator = options.validator.as_ref().map(|(key, record)| {
            let read = |file| std::fs::read_to_string(file).map_err(|error| format!("cannot read {file:?}: {error}"));
            let decoded = |text: String| hex::decode(text.trim()).map_err(|error| error.to_string());
            let seed = decoded(read(key)?)?.try_into().map_err(|_| "a key has 32 bytes".to_owned())?;
            let key = NodeKey::from_seed(&seed).map_err(|error| error.to_string())?;
            Ok::<_, String>(Arc::new((key, decoded(read(record)?)?)))
        });
        let (options, validator) = (options.clone(), validator.transpose()?);
        Ok(Self { options, intruder, domain, validator, counts, rng })
    }

    /// Goes on until the time has come.
    pub(super) async fn run(self, until: Instant) {
        let mut tasks = JoinSet::new();
        for number in 0..AT_A_TIME {
            let flood = self.clone();
            tasks.spawn(async move {
                loop {
                    let validator = flood.validator.clone().filter(|_| number == 0);
                    // Whoever is cut or not let in comes again at once, as somebody else.
                    let _ = flood.once(validator.as_deref()).await;
                    tokio::task::yield_now().await;
                }
            });
        }
        drop(self);
        let ended = async { while tasks.join_next().await.is_some() {} };
        let _ = timeout_at(until.into(), ended).await;
        tasks.shutdown().await;
    }

    /// One connection, from its beginning to its end.
    async fn once(&self, validator: Option<&(NodeKey, Vec<u8>)>) -> Option<()> {
        let peer = match validator {
            Some((key, record)) => self.meet(key, record).await,
            None => {
                let key = self.key()?;
                let record = NodeRecord::sign(&self.domain, &key, 1, Vec::new(), None);
                self.meet(&key, &record.encoded()).await
            }
        }?;
        let flooding = async {
            match self.options.kind {
                Kind::Initials | Kind::Handshakes => None,
                Kind::Slow => self.slow(&peer).await,
                Kind::Streams => self.streams(&peer).await,
                Kind::Garbage => self.garbage(&peer).await,
                Kind::Votes => self.votes(&peer).await,
            }
        };
        tokio::select! {
            _ = flooding => {}
            _ = peer.end() => self.counts.add("cut", 1),
        }
        Some(())
    }

    async fn meet(&self, key: &NodeKey, record: &[u8]) -> Option<RawPeer> {
        let Ok(peer) = self.intruder.dial(key, self.options.to.into(), STEP).await else {
            // The node does not answer everybody; it is asked again soon.
            sleep(Duration::from_millis(10)).await;
            return None;
        };
        self.counts.add("handshakes", 1);
        timeout(STEP, peer.hello(record)).await.ok()??;
        self.counts.add("strangers", 1);
        Some(peer)
    }

    async fn slow(&self, peer: &RawPeer) -> Option<()> {
        let connection = peer.connection();
        let (mut streams, mut asked) = (Vec::new(), Vec::new());
        for lane in LANES.into_iter().cycle().take(STREAMS[0]) {
            let Ok(Ok(mut stream)) = timeout(STEP, connection.open_uni()).await else { break };
            if stream.write_all(&[&[lane], &SLOW_FRAME[..]].concat()).await.is_ok() {
                streams.push(stream);
            }
        }
        for _ in 0..STREAMS[1] {
            let Ok(Ok((mut send, receive))) = timeout(STEP, connection.open_bi()).await else { break };
            if send.write_all(&[0, 0]).await.is_ok() {
                streams.push(send);
                asked.push(receive);
            }
        }
        self.counts.add("streams", streams.len() as u64);
        loop {
            sleep(Duration::from_millis(500)).await;
            for stream in &mut streams {
                // One that the node has stopped is of no more use.
                let _ = stream.write_all(&[1]).await;
            }
        }
    }

    async fn streams(&self, peer: &RawPeer) -> Option<()> {
        let connection = peer.connection();
        loop {
            let mut stream = connection.open_uni().await.ok()?;
            stream.write_all(&LANES[..1]).await.ok()?;
            stream.reset(0_u32.into()).ok()?;
            self.counts.add("streams", 1);
            if self.below(8) == 0 {
                let (mut send, mut receive) = connection.open_bi().await.ok()?;
                send.write_all(&[0]).await.ok()?;
                send.reset(0_u32.into()).ok()?;
                receive.stop(0_u32.into()).ok()?;
                self.counts.add("streams", 1);
            }
        }
    }

    async fn garbage(&self, peer: &RawPeer) -> Option<()> {
        let connection = peer.connection();
        loop {
            let length = usize::try_from(self.below(2_000)).unwrap_or_default();
            let lane = usize::try_from(self.below(LANES.len() as u64)).unwrap_or_default();
            let head = match self.below(5) {
                0 => vec![LANES[lane], 0xff, 0xff, 0xff, 0xff, 1, 1],
                // A frame with a head that holds.
                1 => vec![LANES[lane], 0, 0, 4, 0, self.below(8).to_le_bytes()[0], 1],
                2 => vec![LANES[lane]],
                _ => Vec::new(),
            };
            let rest = (0..length).map(|_| self.below(256).to_le_bytes()[0]);
            let mut bytes: Vec<u8> = head.into_iter().chain(rest).collect();
            if self.below(3) == 0 {
                bytes.truncate(1_000);
                connection.send_datagram_wait(bytes.into()).await.ok()?;
            } else if self.below(4) == 0 {
                let (mut send, _receive) = connection.open_bi().await.ok()?;
                send.write_all(&bytes).await.ok()?;
            } else {
                connection.open_uni().await.ok()?.write_all(&bytes).await.ok()?;
            }
            self.counts.add("frames", 1);
        }
    }

    async fn votes(&self, peer: &RawPeer) -> Option<()> {
        let connection = peer.connection();
        for slot in (1..SLOTS).cycle() {
            let statement = Statement::Notarize { slot: Slot(slot), id: B256::left_padding_from(&slot.to_be_bytes()) };
            let voter = ValidatorIndex(u16::try_from(slot % 4).unwrap_or_default());
            let vote = Vote { epoch: Epoch(0), statement, voter, signature: Signature::default() };
            connection.send_datagram_wait(vote_datagram(&Message::Vote(vote)).into()).await.ok()?;
            self.counts.add("votes", 1);
        }
        Some(())
    }

    fn key(&self) -> Option<NodeKey> {
        Some(node_key(&mut *self.rng.lock().ok()?))
    }

    fn below(&self, bound: u64) -> u64 {
        self.rng.lock().map_or(0, |mut rng| rng.below(bound))
    }
}

/// The record that a node shows to whoever dials.
pub(super) async fn shown_record(from: Ipv4Addr, to: SocketAddrV4) -> Result<NodeRecord, String> {
    let intruder = Intruder::new(IpAddr::V4(from)).map_err(|error| format!("no socket: {error}"))?;
    let peer = intruder.dial(&node_key(&mut Rng::new(0)), to.into(), STEP * 5).await?;
    timeout(STEP * 5, peer.record()).await.ok().flatten().ok_or_else(|| "the node shows no record".to_owned())
}
