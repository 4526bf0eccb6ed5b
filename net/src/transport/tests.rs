//! Nodes over QUIC: what one admits, all commit; large bodies travel in shares; who was away comes back; and whoever
//! sends what no honest node sends is gone.

mod hostile;
pub(crate) mod kit;
mod lists;
mod wire;

use std::time::Duration;

use kit::{Cluster, submit, transaction};
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn four_validators_and_a_follower_commit_one_chain() {
    let transactions: Vec<_> = (0..60).map(|index| transaction(index, 0)).collect();
    let senders: Vec<_> = transactions.iter().map(|(_, sender)| *sender).collect();
    let cluster = Cluster::new(4, 1, &senders).await;
    for (at, (raw, _)) in transactions.iter().enumerate() {
        // To validators and to the follower alike.
        let number = u8::try_from(at % 5).expect("small");
        submit(&cluster.node(number).node, raw).await.expect("valid");
    }
    cluster
        .until("everything is included", |cluster| (0..5).all(|number| cluster.included(number) >= transactions.len()))
        .await;
    assert_eq!(cluster.included(4), transactions.len(), "each once");
    cluster.agree();
    for number in 0..4_u8 {
        let peers = cluster.node(number).transport.peer_infos();
        assert_eq!(peers.iter().filter(|peer| peer.validator.is_some()).count(), 3, "{peers:?}");
        assert!(peers.iter().all(|peer| peer.score == 0.0), "nobody did anything wrong: {peers:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_body_travels_in_shares_and_reaches_everybody() {
    // Twelve transactions of 60 kB make bodies that no frame of words holds.
    let transactions: Vec<_> = (0..12).map(|index| transaction(index, 60_000)).collect();
    let senders: Vec<_> = transactions.iter().map(|(_, sender)| *sender).collect();
    let cluster = Cluster::new(4, 1, &senders).await;
    cluster.reach(&[0, 1, 2, 3, 4], 2).await;
    for (raw, _) in &transactions {
        submit(&cluster.node(0).node, raw).await.expect("valid");
    }
    cluster
        .until("everything is included", |cluster| (0..5).all(|number| cluster.included(number) >= transactions.len()))
        .await;
    cluster.agree();
    let largest = (1..=cluster.height(0)).map(|height| cluster.block(0, height).block.consensus.body_size_bytes).max();
    assert!(largest > Some(64 * 1024), "a body in shares: {largest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_was_away_comes_back_and_the_others_go_on() {
    let mut cluster = Cluster::new(4, 0, &[]).await;
    cluster.reach(&[0, 1, 2, 3], 3).await;
    cluster.kill(2);
    let now = cluster.height(0);
    cluster.reach(&[0, 1, 3], now + 10).await;
    cluster.start(2).await;
    let now = cluster.height(0);
    cluster.reach(&[0, 1, 2, 3], now + 8).await;
    cluster.agree();
}

/// Nothing else tells a node that takes a state over that there is somebody to ask.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_for_a_peer_is_woken_by_it() {
    let cluster = Cluster::new(2, 0, &[]).await;
    let transport = &cluster.node(0).transport;
    let met = async {
        while transport.peer_infos().is_empty() {
            transport.peers_changed().await;
        }
    };
    timeout(Duration::from_secs(60), met).await.expect("they meet");
}
