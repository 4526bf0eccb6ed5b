//! A node with a way in, and clients that keep the rules and that do not.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use alloy_primitives::{B256, Bytes, keccak256};
use quinn::{Connection, ConnectionError, Endpoint, VarInt};
use tokio::time::timeout;

use super::{
    Close, Doors, Ingress, IngressConfig,
    limits::{CONNECTIONS_PER_KEY_MAX, FAULTS_MAX, PIECE_TIME_MAX, UNREAD_BYTES_MAX},
    wire::{self, Cutter, EVENT_BYTES_MAX, Event, Head, Included, Notarized, Question},
};
use crate::{
    client::{Client, ClientConfig, ClientError},
    endpoint::ListenError,
    identity::NodeKey,
    tls::{self, Protocol},
    transport::{
        record::NodeId,
        tests::kit::{Cluster, PATIENCE, node_key, submit, transaction},
    },
};

const LOCAL: &str = "127.0.0.1:0";

fn client_key(number: u8) -> NodeKey {
    NodeKey::from_seed(&[100 + number; 32]).expect("any seed")
}

fn try_open(cluster: &Cluster, address: SocketAddr) -> Result<Ingress, ListenError> {
    let node = &cluster.node(0).node;
    let doors = Doors { admission: node.admission.clone(), query: node.query.clone(), events: node.events.clone() };
    Ingress::start(IngressConfig { listen: address, key: node_key(0), weights: Vec::new() }, doors)
}

/// A validator alone on its chain, rich senders, and its way in.
async fn node(senders: u64) -> (Cluster, Ingress, Vec<Bytes>) {
    let (raw, senders): (Vec<_>, Vec<_>) = (0..senders).map(|index| transaction(index, 0)).unzip();
    let cluster = Cluster::new(1, 0, &senders).await;
    let ingress = try_open(&cluster, LOCAL.parse().expect("an address")).expect("it listens");
    (cluster, ingress, raw)
}

async fn client(ingress: &Ingress, number: u8) -> Client {
    let config = ClientConfig::new(&ingress.address().to_string(), client_key(number));
    Client::connect(config).await.expect("it is let in")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_submitted_is_admitted_and_final_with_its_receipt() {
    let (cluster, ingress, raw) = node(200).await;
    let client = client(&ingress, 0).await;
    assert_eq!(client.welcome().chain_id, 9);
    let mut submissions = Vec::new();
    for raw in &raw {
        submissions.push(client.submit(raw.clone()).await.expect("it is taken"));
    }
    let mut early = 0;
    for (submission, raw) in submissions.iter_mut().zip(&raw) {
        assert_eq!(submission.hash, keccak256(raw));
        let (mut stages, mut notarized) = (Vec::new(), Vec::new());
        let included = loop {
            match timeout(PATIENCE, submission.stage()).await.expect("in time").expect("it has an end") {
                Event::Notarized(_, place) => notarized.push(place),
                Event::Final(hash, included) if hash == submission.hash => break included,
                stage => stages.push(stage),
            }
        };
        assert!(stages.is_empty() || stages == [Event::Admitted(submission.hash)], "{stages:?}");
        let Included { height, index, block, success, .. } = included;
        assert!(notarized.iter().all(|place| *place == Notarized { height, index, block, success }), "{notarized:?}");
        early += usize::from(!stages.is_empty() && !notarized.is_empty());
        let block = cluster.block(0, included.height);
        let index = usize::try_from(included.index).expect("small");
        assert_eq!(block.hash(), included.block);
        assert_eq!(block.block.body.transactions[index].hash(), submission.hash);
        assert_eq!(block.receipts[index].gas_used, included.gas_used);
        assert!(included.success && included.gas_price > 0);
    }
    assert_eq!(cluster.included(0), raw.len());
    // A stage that is not over before the next one is told.
    assert!(early > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_transaction_is_refused_with_its_reason_and_harms_no_other() {
    let (_cluster, ingress, raw) = node(2).await;
    let client = client(&ingress, 0).await;
    let refused = |error: ClientError| match error {
        ClientError::Refused(reason) => reason,
        other => panic!("{other}"),
    };
    let mut nonsense = client.submit(Bytes::from_static(b"\x02no transaction")).await.expect("it has bytes");
    let reason = refused(nonsense.admitted().await.expect_err("it is none"));
    assert!(reason.code == 1 && !reason.text.is_empty(), "{reason:?}");
    let poor = transaction(77, 0).0;
    let reason = refused(client.submit(poor).await.expect("bytes").admitted().await.expect_err("nobody pays"));
    assert!(reason.code == 18 && reason.text.contains("insufficient funds"), "{reason:?}");
    assert!(matches!(client.submit(Bytes::new()).await, Err(ClientError::Length(0))));
    let huge = vec![0; engine::limits::TRANSACTION_BYTES_MAX + 1];
    assert!(matches!(client.submit(huge.into()).await, Err(ClientError::Length(_))));
    for raw in raw {
        let mut submission = client.submit(raw.clone()).await.expect("it is taken");
        assert!(matches!(client.submit(raw).await, Err(ClientError::UnderWay(_))));
        timeout(PATIENCE, submission.included()).await.expect("in time").expect("it is included");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_submit_the_same_are_both_told_and_so_is_who_asks() {
    let (cluster, ingress, raw) = node(1).await;
    let (one, other) = (client(&ingress, 0).await, client(&ingress, 1).await);
    let mut first = one.submit(raw[0].clone()).await.expect("it is taken");
    let mut second = other.submit(raw[0].clone()).await.expect("it is taken");
    let included = timeout(PATIENCE, first.included()).await.expect("in time").expect("it is included");
    let same = timeout(PATIENCE, second.included()).await.expect("in time");
    assert_eq!(same.expect("it is included"), included);
    // However long it is included, it is not refused for its nonce.
    let mut third = other.submit(raw[0].clone()).await.expect("it is taken");
    assert_eq!(third.stage().await, Some(Event::Final(third.hash, included.clone())));
    // Over JSON-RPC or from a peer: whoever knows the hash may ask.
    let raw_client = RawClient::dial(ingress.address(), 2).await;
    let unknown = B256::repeat_byte(7);
    let events = raw_client.ask(&[keccak256(&raw[0]), unknown]).await;
    assert_eq!(events, [Event::Final(keccak256(&raw[0]), included), Event::Unknown(unknown)]);
    drop(cluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_goes_on_where_a_connection_was_lost() {
    let (cluster, ingress, raw) = node(60).await;
    let address = ingress.address();
    let client = client(&ingress, 0).await;
    let mut submissions = Vec::new();
    for raw in &raw[..30] {
        submissions.push(client.submit(raw.clone()).await.expect("it is taken"));
    }
    ingress.stop().await;
    drop(ingress);
    // What others submit meanwhile is in the pool when the client asks; what it submits itself waits with it.
    submit(&cluster.node(0).node, &raw[30]).await.expect("valid");
    for raw in &raw[30..] {
        submissions.push(client.submit(raw.clone()).await.expect("it is taken"));
    }
    // The socket is free once the last task has let go of it.
    let again = async {
        loop {
            if let Ok(again) = try_open(&cluster, address) {
                return again;
            }
            tokio::task::yield_now().await;
        }
    };
    // Who asks for blocks while there is no connection is answered over the next one.
    let (heads, again) = tokio::join!(timeout(PATIENCE, client.heads()), timeout(PATIENCE, again));
    let again = again.expect("it listens again");
    assert!(matches!(heads, Ok(Ok(_))), "{heads:?}");
    for submission in &mut submissions {
        let ended = timeout(PATIENCE, submission.included()).await.expect("in time");
        assert!(ended.is_ok(), "{ended:?}");
    }
    assert_eq!(cluster.included(0), raw.len(), "each once");
    drop(again);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_the_chain_hears_of_each_block_once_and_in_order() {
    let (cluster, ingress, raw) = node(5).await;
    let client = client(&ingress, 0).await;
    let mut heads = client.heads().await.expect("it is answered");
    let mut included = Vec::new();
    for raw in &raw {
        let mut submission = client.submit(raw.clone()).await.expect("it is taken");
        included.push(timeout(PATIENCE, submission.included()).await.expect("in time").expect("it is included").height);
    }
    let (mut before, mut transactions) = (None, 0);
    while before.is_none_or(|height| height < *included.last().expect("some")) {
        let event = timeout(PATIENCE, heads.next()).await.expect("in time").expect("a head");
        let Event::Head(head) = event else { panic!("{event:?}") };
        assert!(before.is_none_or(|before| head.height == before + 1), "{before:?}, {head:?}");
        let block = cluster.block(0, head.height);
        let header = block.block.header.inner();
        let expected = Head {
            height: header.number,
            hash: block.hash(),
            parent: header.parent_hash,
            timestamp: header.timestamp,
            gas_used: header.gas_used,
            gas_limit: header.gas_limit,
            base_fee: header.base_fee_per_gas.unwrap_or_default(),
            transactions: u32::try_from(block.receipts.len()).expect("a few"),
        };
        assert_eq!(head, expected);
        transactions += head.transactions;
        before = Some(head.height);
    }
    assert_eq!(transactions, 5);
    ingress.stop().await;
    assert!(matches!(heads.next().await, Err(ClientError::Connect(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_expects_another_node_does_not_talk_to_this_one() {
    let (_cluster, ingress, _) = node(0).await;
    let connect = |expected: [u8; 32]| {
        let config = ClientConfig::new(&ingress.address().to_string(), client_key(0));
        Client::connect(ClientConfig { expected: Some(NodeId::from(expected)), ..config })
    };
    assert!(matches!(connect(node_key(1).public_key()).await, Err(ClientError::Connect(_))));
    assert!(connect(node_key(0).public_key()).await.is_ok());
}

/// A client that keeps no rule.
struct RawClient {
    connection: Connection,
    _endpoint: Endpoint,
}

impl RawClient {
    async fn dial(to: SocketAddr, number: u8) -> Self {
        Self::try_dial(to, number).await.expect("a handshake")
    }

    async fn try_dial(to: SocketAddr, number: u8) -> Result<Self, ConnectionError> {
        let mut endpoint = Endpoint::client(LOCAL.parse().expect("an address")).expect("a socket");
        let crypto = Protocol::Clients.client(&client_key(number), None).expect("a key");
        endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
        let connection = endpoint.connect(to, tls::NAME).expect("an address").await?;
        Ok(Self { connection, _endpoint: endpoint })
    }

    /// Sends bytes on a stream of their own, which stays open.
    async fn send(&self, bytes: &[u8]) -> quinn::SendStream {
        let mut stream = self.connection.open_uni().await.expect("a stream");
        // A node that has seen enough reads no further.
        let _ = stream.write_all(bytes).await;
        stream
    }

    async fn ask(&self, hashes: &[B256]) -> Vec<Event> {
        let (mut question, mut answer) = self.connection.open_bi().await.expect("a stream");
        question.write_all(&Question::Transactions(hashes.to_vec()).encode()).await.expect("it is read");
        question.finish().expect("it is open");
        let bytes = answer.read_to_end(EVENT_BYTES_MAX).await.expect("an answer");
        let (mut cutter, mut rest, mut events) = (Cutter::new(EVENT_BYTES_MAX), &bytes[..], Vec::new());
        while let Some(piece) = cutter.next(&mut rest).expect("lengths") {
            events.push(Event::decode(&piece).expect("an event").expect("of a known kind"));
        }
        events
    }

    /// Why the node closed the connection.
    async fn closed(&self) -> (VarInt, String) {
        let closed = timeout(PATIENCE, self.connection.closed()).await.expect("it is closed in time");
        let ConnectionError::ApplicationClosed(close) = closed else { panic!("{closed}") };
        (close.error_code, String::from_utf8_lossy(&close.reason).into_owned())
    }
}

fn code(close: Close) -> VarInt {
    VarInt::from_u32(close as u32)
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_sends_what_no_client_sends_is_cut_with_a_reason_and_others_go_on() {
    let (_cluster, ingress, raw) = node(1).await;
    let honest = client(&ingress, 0).await;
    for bad in [[0; 4], [0xff; 4], 131_073_u32.to_be_bytes()] {
        let intruder = RawClient::dial(ingress.address(), 1).await;
        let _stream = intruder.send(&bad).await;
        let (closed, reason) = intruder.closed().await;
        assert_eq!(closed, code(Close::Malformed), "{reason}");
        assert!(reason.contains("a transaction of"), "{reason}");
    }
    for bad in [&[][..], &[1], &[9; 33], &[3; 40], &vec![1; wire::QUESTION_BYTES_MAX + 1]] {
        let intruder = RawClient::dial(ingress.address(), 1).await;
        let (mut question, _answer) = intruder.connection.open_bi().await.expect("a stream");
        let _ = question.write_all(bad).await;
        let _ = question.finish();
        let (closed, reason) = intruder.closed().await;
        assert_eq!(closed, code(Close::Malformed), "{bad:02x?}: {reason}");
    }
    let mut submission = honest.submit(raw[0].clone()).await.expect("it is taken");
    timeout(PATIENCE, submission.included()).await.expect("in time").expect("it is included");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_begins_and_does_not_end_is_cut_and_what_ends_early_is_not() {
    let (_cluster, ingress, raw) = node(1).await;
    let (late, early) = (RawClient::dial(ingress.address(), 1).await, RawClient::dial(ingress.address(), 2).await);
    let _stream = late.send(&[0, 0, 1, 0, 2]).await;
    let mut stream = early.send(&[0, 0, 1, 0, 2]).await;
    stream.finish().expect("it is open");
    let began = std::time::Instant::now();
    let (closed, reason) = late.closed().await;
    assert_eq!(closed, code(Close::Late), "{reason}");
    assert!(began.elapsed() + Duration::from_millis(100) >= PIECE_TIME_MAX);
    // Pieces that come byte by byte are whole in the end, and streams are as many as a client likes.
    let mut bytes = Vec::new();
    wire::put(&mut bytes, &raw[0]);
    let mut stream = early.send(&bytes[..1]).await;
    for byte in &bytes[1..] {
        stream.write_all(&[*byte]).await.expect("it is read");
    }
    while !matches!(early.ask(&[keccak256(&raw[0])]).await[..], [Event::Final(..)]) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_read_is_cut_before_it_costs_memory() {
    let (_cluster, ingress, _) = node(0).await;
    let deaf = RawClient::dial(ingress.address(), 1).await;
    // Each is refused in some hundred bytes, beyond what flow control lets wait on its way.
    let mut bytes = Vec::new();
    for index in 0..u32::try_from(UNREAD_BYTES_MAX / 32).expect("small") {
        // Of a type that is refused at once.
        wire::put(&mut bytes, &[&[3, 0xc1][..], &index.to_be_bytes()].concat());
    }
    let _stream = deaf.send(&bytes).await;
    let (closed, reason) = deaf.closed().await;
    assert_eq!(closed, code(Close::Slow), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_senders_recovered_in_vain_is_not_heard_for_long_and_others_are() {
    const SENT: u64 = 2 * FAULTS_MAX + 128;
    let (_cluster, ingress, raw) = node(1).await;
    let (costly, honest) = (client(&ingress, 0).await, client(&ingress, 1).await);
    let mut poor = Vec::new();
    for index in 0..SENT {
        poor.push(costly.submit(transaction(1_000 + index, 0).0).await.expect("bytes"));
    }
    let mut submission = honest.submit(raw[0].clone()).await.expect("it is taken");
    timeout(PATIENCE, submission.included()).await.expect("in time").expect("it is included");
    let mut codes = BTreeMap::<u16, u64>::new();
    for submission in &mut poor {
        let Err(ClientError::Refused(reason)) = submission.admitted().await else { panic!("nobody pays") };
        *codes.entry(reason.code).or_default() += 1;
    }
    // As many as were on their way when it had none left were recovered too.
    let (recovered, cut) = (codes[&18], codes[&wire::FAULTS]);
    assert_eq!(recovered + cut, SENT, "{codes:?}");
    assert!(recovered >= FAULTS_MAX && cut >= FAULTS_MAX / 2, "{codes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_has_so_many_connections_and_a_place_is_free_again() {
    let (_cluster, ingress, _) = node(0).await;
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS_PER_KEY_MAX {
        held.push(RawClient::dial(ingress.address(), 1).await);
    }
    let refused = RawClient::dial(ingress.address(), 1).await;
    assert_eq!(refused.closed().await.0, code(Close::Full));
    held.pop().expect("one").connection.close(VarInt::from_u32(0), b"");
    // The node may hear of it after the next handshake.
    let let_in = async {
        loop {
            let next = RawClient::dial(ingress.address(), 1).await;
            if next.connection.accept_uni().await.is_ok() {
                return;
            }
        }
    };
    timeout(PATIENCE, let_in).await.expect("there is a place again");
}
