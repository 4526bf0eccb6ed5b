//! Access lists beside their blocks, whole or in shares: used where they are right, of no account where they are not.

use engine::{limits, types::Block};

use super::kit::{Cluster, secret, submit, transaction};
use crate::metrics;

/// Blocks with transactions that validators executed along a list, and without one.
fn executed(cluster: &Cluster, numbers: &[u8]) -> (u64, u64) {
    let toys = numbers.iter().map(|number| &cluster.members[usize::from(*number)].toy);
    toys.fold((0, 0), |(listed, unlisted), toy| (listed + toy.listed(), unlisted + toy.unlisted()))
}

fn largest_body(cluster: &Cluster) -> Option<u64> {
    (1..=cluster.height(0)).map(|height| cluster.block(0, height).block.consensus.body_size_bytes).max()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_list_comes_with_its_block_and_is_used() {
    let transactions: Vec<_> = (0..60).map(|index| transaction(index, 0)).collect();
    let senders: Vec<_> = transactions.iter().map(|(_, sender)| *sender).collect();
    let cluster = Cluster::listing(4, 1, &senders, None).await;
    cluster.reach(&[0, 1, 2, 3, 4], 2).await;
    let mut sent = 0;
    for some in transactions.chunks(10) {
        for (raw, _) in some {
            submit(&cluster.node(0).node, raw).await.expect("valid");
        }
        sent += some.len();
        cluster.until("these are included", |cluster| (0..5).all(|number| cluster.included(number) >= sent)).await;
    }
    cluster.agree();
    let (listed, unlisted) = executed(&cluster, &[0, 1, 2, 3]);
    assert!(listed > 0 && listed > unlisted, "{listed} along their lists, {unlisted} without");
    for number in 0..4_u8 {
        let peers = cluster.node(number).transport.peer_infos();
        assert!(peers.iter().all(|peer| peer.score == 0.0), "nobody did anything wrong: {peers:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_list_travels_in_shares_and_reaches_others() {
    // Twenty-four transactions of 60 kB, whose lists are as large.
    let transactions: Vec<_> = (0..24).map(|index| transaction(index, 60_000)).collect();
    let senders: Vec<_> = transactions.iter().map(|(_, sender)| *sender).collect();
    let cluster = Cluster::listing(4, 1, &senders, None).await;
    cluster.reach(&[0, 1, 2, 3, 4], 2).await;
    let before = (metrics::LIST_SENT_CUT.value(), metrics::LIST_ASSEMBLED.value());
    let mut sent = 0;
    for some in transactions.chunks(8) {
        for (raw, _) in some {
            submit(&cluster.node(0).node, raw).await.expect("valid");
        }
        sent += some.len();
        cluster.until("these are included", |cluster| (0..5).all(|number| cluster.included(number) >= sent)).await;
    }
    cluster.agree();
    let whole = u64::try_from(limits::WHOLE_BODY_BYTES_MAX).expect("small");
    assert!(largest_body(&cluster) > Some(whole), "bodies travel in shares beside");
    assert!(metrics::LIST_SENT_CUT.value() > before.0, "lists that do not fit a frame");
    cluster.until("a list is put together", |_| metrics::LIST_ASSEMBLED.value() > before.1).await;
    for number in 0..4_u8 {
        let peers = cluster.node(number).transport.peer_infos();
        assert!(peers.iter().all(|peer| peer.score == 0.0), "nobody did anything wrong: {peers:?}");
    }
}

/// Whoever lies about its list, of so many slots, loses its connections, not its block.
async fn lie(slots: u64) {
    const LIAR: u8 = 3;
    let transactions: Vec<_> = (0..80).map(|index| transaction(index, 0)).collect();
    let senders: Vec<_> = transactions.iter().map(|(_, sender)| *sender).collect();
    let cluster = Cluster::listing(4, 0, &senders, Some((LIAR, slots))).await;
    cluster.reach(&[0, 1, 2, 3], 2).await;
    let refused = metrics::LIST_REFUSED.value();
    let set = cluster.spec.validator_set().expect("a set");
    let liar = set.index_of(&secret(LIAR).public_key()).expect("it is in it");
    let is_liars = |block: &Block| !block.body.transactions.is_empty() && block.consensus.proposer() == liar;
    let is_there = |cluster: &Cluster| (1..=cluster.height(0)).any(|height| is_liars(&cluster.block(0, height).block));
    // By whoever looked into the list: one that comes when its block is final is of no use to anybody, and dropped.
    let is_cut_off = |number| {
        let peers = cluster.node(number).transport.peer_infos();
        peers.iter().all(|peer| peer.validator != Some(secret(LIAR).public_key()))
    };
    let is_found_out = || metrics::LIST_REFUSED.value() > refused && (0..3).any(is_cut_off);
    for (at, (raw, _)) in transactions.iter().enumerate() {
        submit(&cluster.node(0).node, raw).await.expect("valid");
        cluster.until("it is included", |cluster| (0..3).all(|number| cluster.included(number) > at)).await;
        if is_there(&cluster) && is_found_out() {
            break;
        }
    }
    assert!(is_there(&cluster), "the liar's block is executed and final");
    assert!(is_found_out(), "its list is not taken, and it is cut off");
    cluster.reach(&[0, 1, 2], cluster.height(0) + 2).await;
    let (_, unlisted) = executed(&cluster, &[0, 1, 2]);
    assert!(unlisted >= 3, "three executed it without");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_its_header_does_not_name_is_dropped_and_its_block_executed() {
    lie(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_in_shares_that_its_header_does_not_name_is_its_leaders_fault_and_nobody_elses() {
    lie(5_000).await;
}
