//! One connection at work: what is written to a peer, what is read from it, and when it is cut.
//!
//! ```text
//!  Lanes --+-- votes ---------> datagrams          datagrams ------------+
//!          +-- words ---------> one stream         words stream ---------+--> Shared: opened, checked, delivered
//!          +-- shares --------> a stream each      share streams ---------+
//!          +-- lists ---------> a stream each          as shares
//!          +-- transactions --> one stream         transactions stream --+--> admission
//!          +-- requests ------> a stream each      requests -------------+--> Shared::answer
//! ```
//!
//! Every task of a connection ends with it. A peer that sends what no honest one sends is cut and its faults are
//! counted; what a slow network can do costs the stream alone.

use std::{sync::Arc, time::Duration};

use alloy_primitives::Bytes;
use engine::{
    limits,
    types::{Message, StateWish},
};
use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};

use super::{
    Shared,
    frame::{self, FrameError, Kind, Lane},
    lanes::Lanes,
    peers::Peer,
    quota::Quota,
    relay::Cargo,
};

/// How long a peer has for the answer to a request.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

/// How long one share may take to be written.
const SHARE_TIME_MAX: Duration = Duration::from_secs(10);

/// Receive window of a connection with a node that has no place of its own.
const STRANGER_WINDOW_BYTES: u32 = 2 * 1024 * 1024;

/// What a frame that took too long weighs among a peer's faults.
const SLOW_WEIGHT: f64 = 10.0;

/// Order of service among streams; votes go as datagrams, before all of these.
const WORDS_PRIORITY: i32 = 4;
const SHARE_PRIORITY: i32 = 3;
const LIST_PRIORITY: i32 = 2;
const REQUEST_PRIORITY: i32 = 1;
const TRANSACTIONS_PRIORITY: i32 = 0;

/// Why a connection ends, as the other side reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Close {
    /// The node stops.
    Stopping = 0,
    /// There is another connection between the two.
    Duplicate = 1,
    /// No place is free.
    Full = 2,
    /// It did what an honest node does not.
    Misbehaviour = 3,
    /// It does not read what it is sent.
    Slow = 4,
    /// The record that it showed is not taken.
    Record = 5,
    /// The operator wants it so.
    Blocked = 6,
}

impl Close {
    pub(crate) fn close(self, connection: &Connection, reason: &str) {
        connection.close(VarInt::from_u32(self as u32), reason.as_bytes());
    }
}

/// What all tasks of a connection share.
pub(super) struct Link {
    pub(super) peer: Peer,
    pub(super) shared: Arc<Shared>,
    /// Memory for what is in the middle of arriving, in units of [`frame::ROOM_UNIT_BYTES`].
    room: Arc<Semaphore>,
    /// The same for answers, which come only where this node has asked.
    answers: Arc<Semaphore>,
    /// What it may say per second.
    quota: Quota,
}

/// Serves a connection until it ends.
pub(super) async fn run(peer: Peer, shared: Arc<Shared>) {
    let quota = Quota::new(peer.validator.is_some());
    let room = |bytes: usize| Arc::new(Semaphore::new(bytes / frame::ROOM_UNIT_BYTES));
    let incoming = if peer.is_reserved {
        limits::PEER_INCOMING_BYTES_MAX
    } else {
        peer.connection.set_receive_window(VarInt::from_u32(STRANGER_WINDOW_BYTES));
        limits::STRANGER_INCOMING_BYTES_MAX
    };
    let (room, answers) = (room(incoming), room(limits::PEER_INCOMING_BYTES_MAX));
    let link = Arc::new(Link { peer, shared, room, answers, quota });
    let mut tasks = JoinSet::new();
    tasks.spawn(write_votes(link.clone()));
    tasks.spawn(write_stream(link.clone(), Lane::Words));
    tasks.spawn(write_stream(link.clone(), Lane::Transactions));
    tasks.spawn(write_shares(link.clone(), Cargo::Body));
    tasks.spawn(write_shares(link.clone(), Cargo::List));
    tasks.spawn(write_requests(link.clone()));
    tasks.spawn(read_datagrams(link.clone()));
    tasks.spawn(read_streams(link.clone()));
    tasks.spawn(read_requests(link.clone()));
    let reason = link.peer.connection.closed().await;
    tracing::debug!(peer = %link.peer.identity, %reason, "a peer is gone");
    // The rest is waiting for a connection that is gone.
    tasks.shutdown().await;
}

impl Link {
    fn connection(&self) -> &Connection {
        &self.peer.connection
    }

    fn lanes(&self) -> &Lanes {
        &self.peer.lanes
    }

    /// Judges what a peer sent that cannot be taken.
    fn refuse(&self, error: &FrameError) {
        match error {
            FrameError::Gone => {}
            // So may a bad network; but whoever holds many streams half open wants something else.
            FrameError::Slow if self.peer.is_reserved => {}
            FrameError::Slow => self.shared.fault(&self.peer, SLOW_WEIGHT, "many frames that took too long"),
            error => self.shared.punish(&self.peer, &error.to_string()),
        }
    }
}

async fn write_votes(link: Arc<Link>) {
    loop {
        let datagram = link.lanes().next_vote().await;
        if link.connection().send_datagram_wait(datagram.0).await.is_err() {
            return;
        }
    }
}

/// Opens a lane's stream and writes to it for the life of the connection.
async fn write_stream(link: Arc<Link>, lane: Lane) {
    let (priority, is_words) = match lane {
        Lane::Words => (WORDS_PRIORITY, true),
        _ => (TRANSACTIONS_PRIORITY, false),
    };
    let Some(mut stream) = open(&link, lane, priority).await else { return };
    loop {
        let frame = if is_words { link.lanes().next_word().await } else { link.lanes().next_transactions().await };
        if stream.write_chunk(frame.0).await.is_err() {
            // Without its streams a connection is of no use.
            return Close::Slow.close(link.connection(), "a stream was stopped");
        }
    }
}

async fn open(link: &Link, lane: Lane, priority: i32) -> Option<SendStream> {
    let mut stream = link.connection().open_uni().await.ok()?;
    stream.set_priority(priority).ok()?;
    stream.write_all(&[lane as u8]).await.ok()?;
    Some(stream)
}

async fn write_shares(link: Arc<Link>, cargo: Cargo) {
    let mut writing = JoinSet::new();
    loop {
        // Who has a body can vote, with its list or without.
        let (share, priority) = match cargo {
            Cargo::Body => (link.lanes().next_share().await, SHARE_PRIORITY),
            Cargo::List => (link.lanes().next_list().await, LIST_PRIORITY),
        };
        while writing.len() >= limits::PEER_REQUESTS_MAX {
            writing.join_next().await;
        }
        let link = link.clone();
        writing.spawn(async move {
            let Some(mut stream) = open(&link, Lane::Share, priority).await else { return };
            match timeout(SHARE_TIME_MAX, stream.write_chunk(share.0)).await {
                Ok(_) => drop(stream.finish()),
                // What is dropped half written would look whole; and whoever lacks it asks.
                Err(_) => drop(stream.reset(VarInt::from_u32(0))),
            }
        });
    }
}

async fn write_requests(link: Arc<Link>) {
    let mut asking = JoinSet::new();
    loop {
        let request = link.lanes().next_request().await;
        while asking.len() >= limits::PEER_REQUESTS_MAX {
            asking.join_next().await;
        }
        let link = link.clone();
        asking.spawn(async move {
            if let Ok(Err(error)) = timeout(ANSWER_TIME_MAX, ask(&link, &request)).await {
                link.refuse(&error);
            }
        });
    }
}

/// Asks for a piece of a state; `None` where the peer has none, or none now.
pub(super) async fn ask_state(connection: &Connection, wish: &StateWish) -> Result<Option<Bytes>, FrameError> {
    let asked = async {
        let (mut send, mut receive) = connection.open_bi().await.map_err(|_| FrameError::Gone)?;
        let _ = send.set_priority(REQUEST_PRIORITY);
        let frame = frame::frame(Kind::StateWish, &[&alloy_rlp::encode(wish)]);
        send.write_chunk(Bytes::from(frame).0).await.map_err(|_| FrameError::Gone)?;
        let _ = send.finish();
        // Who asks decides how many pieces are on their way.
        let max = frame::PIECE_FRAME_BYTES_MAX;
        let room = Arc::new(Semaphore::new(max.div_ceil(frame::ROOM_UNIT_BYTES)));
        let frame = frame::read_frame(&mut receive, max, &room).await?.ok_or(FrameError::Cut)?;
        match frame.kind {
            Kind::StatePiece => Ok(Some(frame.payload)),
            Kind::Nothing | Kind::Busy => Ok(None),
            kind => Err(FrameError::Kind(kind as u8)),
        }
    };
    timeout(ANSWER_TIME_MAX, asked).await.unwrap_or(Err(FrameError::Slow))
}

/// Asks and hands the answer on.
async fn ask(link: &Arc<Link>, request: &Message) -> Result<(), FrameError> {
    let (mut send, mut receive) = link.connection().open_bi().await.map_err(|_| FrameError::Gone)?;
    let _ = send.set_priority(REQUEST_PRIORITY);
    let letter = engine::types::Letter::of(request.clone());
    let frame = frame::frame(Kind::Letter, &[&frame::encode_letter(&letter, false)]);
    send.write_chunk(Bytes::from(frame).0).await.map_err(|_| FrameError::Gone)?;
    let _ = send.finish();
    let Some(frame) = frame::read_frame(&mut receive, frame::ANSWER_BYTES_MAX, &link.answers).await? else {
        return Err(FrameError::Cut);
    };
    match frame.kind {
        Kind::Letter => link.shared.take_letter(&link.peer, &frame.payload).await,
        // Somebody else may have it.
        Kind::Nothing | Kind::Busy => Ok(()),
        kind => Err(FrameError::Kind(kind as u8)),
    }
}

async fn read_datagrams(link: Arc<Link>) {
    while let Ok(datagram) = link.connection().read_datagram().await {
        if !link.quota.vote() {
            continue;
        }
        match frame::read_datagram(&datagram) {
            Ok(vote) => link.shared.take_vote(&link.peer, vote),
            Err(error) => return link.refuse(&error),
        }
    }
}

async fn read_streams(link: Arc<Link>) {
    let mut reading = JoinSet::new();
    loop {
        let stream = tokio::select! {
            stream = link.connection().accept_uni() => stream,
            Some(_) = reading.join_next() => continue,
        };
        let Ok(mut stream) = stream else { return };
        let link = link.clone();
        reading.spawn(async move {
            if let Err(error) = read_stream(&link, &mut stream).await {
                let _ = stream.stop(VarInt::from_u32(0));
                link.refuse(&error);
            }
        });
    }
}

async fn read_stream(link: &Arc<Link>, stream: &mut RecvStream) -> Result<(), FrameError> {
    let mut lane = [0_u8; 1];
    timeout(ANSWER_TIME_MAX, stream.read_exact(&mut lane)).await.map_err(|_| FrameError::Slow)??;
    let [byte] = lane;
    match Lane::from_byte(byte).ok_or(FrameError::Lane(byte))? {
        Lane::Words => read_words(link, stream).await,
        Lane::Share => read_share(link, stream).await,
        Lane::Transactions => read_transactions(link, stream).await,
    }
}

async fn read_words(link: &Arc<Link>, stream: &mut RecvStream) -> Result<(), FrameError> {
    let max = Lane::Words.frame_bytes_max();
    while let Some(frame) = frame::read_frame(stream, max, &link.room).await? {
        link.quota.word().await;
        match frame.kind {
            Kind::Letter => link.shared.take_letter(&link.peer, &frame.payload).await?,
            Kind::ListNotice => {
                link.shared.relay.open_list(&link.shared, &link.peer, frame::decode_notice(&frame.payload)?);
            }
            Kind::Records => {
                for record in frame::decode_records(&frame.payload)? {
                    link.quota.record().await;
                    link.shared.take_record(record);
                }
            }
            kind => return Err(FrameError::Kind(kind as u8)),
        }
    }
    Ok(())
}

async fn read_share(link: &Arc<Link>, stream: &mut RecvStream) -> Result<(), FrameError> {
    if link.peer.validator.is_none() {
        // Nobody else has a share to pass on; one that was a validator in another epoch may not know.
        let _ = stream.stop(VarInt::from_u32(0));
        return Ok(());
    }
    link.quota.word().await;
    let frame = frame::read_frame(stream, Lane::Share.frame_bytes_max(), &link.room).await?;
    let frame = frame.ok_or(FrameError::Cut)?;
    let cargo = match frame.kind {
        Kind::Share => Cargo::Body,
        Kind::ListShare => Cargo::List,
        kind => return Err(FrameError::Kind(kind as u8)),
    };
    link.shared.relay.take(&link.shared, &link.peer, cargo, frame.payload).await
}

async fn read_transactions(link: &Arc<Link>, stream: &mut RecvStream) -> Result<(), FrameError> {
    let max = Lane::Transactions.frame_bytes_max();
    while let Some(frame) = frame::read_frame(stream, max, &link.room).await? {
        if frame.kind != Kind::Transactions {
            return Err(FrameError::Kind(frame.kind as u8));
        }
        for transaction in frame::decode_batch(&frame.payload)? {
            link.quota.transaction().await;
            link.shared.take_transaction(&link.peer, transaction).await;
        }
    }
    Ok(())
}

/// Answers what the peer asks; flow control lets it ask [`limits::PEER_REQUESTS_MAX`] times at once.
async fn read_requests(link: Arc<Link>) {
    let mut answering = JoinSet::new();
    loop {
        let streams = tokio::select! {
            streams = link.connection().accept_bi() => streams,
            Some(_) = answering.join_next() => continue,
        };
        let Ok((mut send, mut receive)) = streams else { return };
        let link = link.clone();
        answering.spawn(async move {
            match timeout(ANSWER_TIME_MAX, answer(&link, &mut send, &mut receive)).await {
                Ok(Ok(())) => drop(send.finish()),
                Ok(Err(error)) => link.refuse(&error),
                // What is dropped half written would look whole.
                Err(_) => drop(send.reset(VarInt::from_u32(0))),
            }
        });
    }
}

async fn answer(link: &Arc<Link>, send: &mut SendStream, receive: &mut RecvStream) -> Result<(), FrameError> {
    let frame = frame::read_frame(receive, frame::REQUEST_BYTES_MAX, &link.room).await?;
    let frame = frame.ok_or(FrameError::Cut)?;
    let _ = send.set_priority(REQUEST_PRIORITY);
    let frame = match frame.kind {
        Kind::Letter => link.shared.answer(&link.peer, frame::SealedLetter::decode(&frame.payload)?.message).await?,
        Kind::StateWish => link.shared.answer_wish(&link.peer, frame::decode_wish(&frame.payload)?).await,
        kind => return Err(FrameError::Kind(kind as u8)),
    };
    // A peer that went away needs no answer.
    let _ = send.write_chunk(frame.into()).await;
    Ok(())
}
