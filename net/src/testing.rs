//! A peer that keeps no rule: what floods and lies are made of, in tests.
//!
//! It shakes hands as a node does; from there on it sends whatever the test wants.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use engine::types::{Letter, Message};
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, EndpointConfig, SendStream};
use tokio::{sync::Semaphore, time::timeout};

use crate::{
    identity::NodeKey,
    tls::{self, Protocol},
    transport::{
        frame::{self, HELLO_BYTES_MAX, Kind, Lane},
        record::NodeRecord,
    },
};

/// First bytes of one-way streams: words, shares, transactions.
pub const LANES: [u8; 3] = [Lane::Words as u8, Lane::Share as u8, Lane::Transactions as u8];

/// A socket from which others are dialled.
#[derive(Clone, Debug)]
pub struct Intruder(Endpoint);

impl Intruder {
    /// A socket on any port of this address; on the calling runtime.
    ///
    /// # Errors
    /// If there is none to be had.
    pub fn new(from: IpAddr) -> io::Result<Self> {
        Endpoint::client(SocketAddr::new(from, 0)).map(Self)
    }

    /// Shakes hands with this key, and no more.
    ///
    /// # Errors
    /// Why there is no connection, in words.
    pub async fn dial(&self, key: &NodeKey, to: SocketAddr, within: Duration) -> Result<RawPeer, String> {
        let client = Protocol::Peers.client(key, None).map_err(|error| error.to_string())?;
        let config = ClientConfig::new(Arc::new(client));
        let connecting = self.0.connect_with(config, to, tls::NAME).map_err(|error| error.to_string())?;
        let connection = timeout(within, connecting).await.map_err(|_| "no handshake in time".to_owned())?;
        connection.map(RawPeer).map_err(|error| error.to_string())
    }
}

/// A connection on which anything may be sent.
#[derive(Clone, Debug)]
pub struct RawPeer(Connection);

impl RawPeer {
    /// The connection itself.
    #[must_use]
    pub const fn connection(&self) -> &Connection {
        &self.0
    }

    /// Shows some bytes where a record is awaited, and gives the record that the other side shows; `None` if it shows
    /// none, or ends the connection before that is read.
    pub async fn hello(&self, shown: &[u8]) -> Option<NodeRecord> {
        self.exchange(&frame::frame(Kind::Record, &[shown])).await
    }

    /// The record that the other side shows, which it does to whoever begins to show one.
    pub async fn record(&self) -> Option<NodeRecord> {
        self.exchange(&[0]).await
    }

    async fn exchange(&self, bytes: &[u8]) -> Option<NodeRecord> {
        let (mut send, mut receive) = self.0.open_bi().await.ok()?;
        send.write_all(bytes).await.ok()?;
        let room = Arc::new(Semaphore::new(HELLO_BYTES_MAX));
        let frame = frame::read_frame(&mut receive, HELLO_BYTES_MAX, &room).await.ok()??;
        NodeRecord::decode(&mut &frame.payload[..]).ok()
    }

    /// What the other side asks next, and where the answer goes; `None` if the connection has ended.
    pub async fn asked(&self) -> Option<(Message, Answer)> {
        loop {
            let (send, mut receive) = self.0.accept_bi().await.ok()?;
            let Ok(bytes) = receive.read_to_end(frame::REQUEST_BYTES_MAX).await else { continue };
            if let Some((message, _)) = opened(&bytes) {
                return Some((message, Answer(send)));
            }
        }
    }

    /// Asks for something and gives the bytes of the answer.
    pub async fn ask(&self, wish: &Message) -> Option<Vec<u8>> {
        let (mut send, mut receive) = self.0.open_bi().await.ok()?;
        send.write_all(&letter(wish, &[])).await.ok()?;
        send.finish().ok()?;
        receive.read_to_end(frame::ANSWER_BYTES_MAX).await.ok()
    }

    /// Why the other side has ended the connection; waits until it has.
    pub async fn end(&self) -> String {
        match self.0.closed().await {
            ConnectionError::ApplicationClosed(close) => String::from_utf8_lossy(&close.reason).into_owned(),
            other => other.to_string(),
        }
    }
}

/// Where an answer is awaited.
#[derive(Debug)]
pub struct Answer(SendStream);

impl Answer {
    /// Sends bytes of any kind; `None` if nobody waits for them any more.
    pub async fn raw(&mut self, bytes: &[u8]) -> Option<()> {
        self.0.write_all(bytes).await.ok()
    }

    /// Says that nothing is here.
    pub async fn nothing(&mut self) -> Option<()> {
        self.raw(&frame::frame(Kind::Nothing, &[])).await
    }
}

/// A message as a frame, with bodies behind it as they came out of another.
#[must_use]
pub fn letter(message: &Message, bodies: &[u8]) -> Vec<u8> {
    frame::frame(Kind::Letter, &[&frame::encode_letter(&Letter::of(message.clone()), false), bodies])
}

/// The message of a frame, and the bodies behind it; `None` if it is no frame with a message.
#[must_use]
pub fn opened(frame: &[u8]) -> Option<(Message, Vec<u8>)> {
    let mut payload = frame.get(frame::HEAD_BYTES..)?;
    let message = frame::take_part(&mut payload).ok()?;
    Some((Message::decode_exact(message).ok()?, payload.to_vec()))
}

/// A vote as it travels: a datagram.
#[must_use]
pub fn vote_datagram(message: &Message) -> Vec<u8> {
    frame::vote_datagram(message)
}

/// First packets of so many handshakes with a node, all of which hold.
///
/// # Errors
/// If they cannot be made, in words.
pub fn initials(key: &NodeKey, to: SocketAddr, count: usize) -> Result<Vec<Vec<u8>>, String> {
    let client = Protocol::Peers.client(key, None).map_err(|error| error.to_string())?;
    let config = ClientConfig::new(Arc::new(client));
    let mut endpoint = quinn_proto::Endpoint::new(Arc::new(EndpointConfig::default()), None, true, None);
    let now = Instant::now();
    let packet = |_| {
        let (_, mut connection) =
            endpoint.connect(now, config.clone(), to, tls::NAME).map_err(|error| error.to_string())?;
        let mut packet = Vec::new();
        let _sent =
            connection.poll_transmit(now, 1, &mut packet).ok_or_else(|| "a handshake that sends nothing".to_owned())?;
        Ok(packet)
    };
    (0..count).map(packet).collect()
}
