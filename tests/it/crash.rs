//! Nothing acknowledged is lost: the node is killed at random moments under load and at every named point of
//! the write path, and each time everything a client had seen as final is there again.
//!
//! `SLUICE_CRASH_KILLS` sets the number of random kills (default 6), `SLUICE_SEED` the seed.

use std::{
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use alloy_consensus::TxEip1559;
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, hex};
use serde_json::{Value, json};
use tests::{
    client::Client,
    node::{Node, binary},
    rng::Rng,
    rpc::{Rpc, quantity},
    wallet::{account, hash, hex_of, sign, template, transfer},
};

/// Logs 5 bytes, stores 7 in slot 5 and deploys nothing.
const LOGGING_INITCODE: [u8; 10] = hex!("60055fa0600760055500");

/// A node must serve again within this time after it was killed.
const RESTART_MAX: Duration = Duration::from_secs(5);

/// Rebuilds the state root from nothing and compares it with the tip's header.
pub(crate) fn check_root(folder: &Path) {
    let root = Command::new(binary()).args(["db", "root", "--dev", "--datadir"]).arg(folder).output().expect("it runs");
    let said = String::from_utf8_lossy(&root.stdout);
    assert!(
        root.status.success() && said.contains("\"match\":true"),
        "{said} {}",
        String::from_utf8_lossy(&root.stderr)
    );
}

fn restart(folder: &Path, more: &[&str]) -> Node {
    let node = Node::dev(folder, more);
    assert!(node.started_in <= RESTART_MAX, "serving after {:?}", node.started_in);
    node
}

/// Sends one transaction after the other, transfers and creations that log, and keeps the receipts it is given
/// until the connection breaks.
fn witness(http: &str, index: u32, mut rng: Rng) -> Vec<(B256, Value)> {
    let (rpc, key, mut given) = (Rpc::new(http), account(index), Vec::new());
    let Some(Ok(nonce)) = rpc.try_call("eth_getTransactionCount", &json!([key.address(), "latest"])) else {
        return given;
    };
    for nonce in quantity(&nonce).. {
        let raw = if rng.below(2) == 0 {
            transfer(&key, nonce, Address::from_word(B256::from(U256::from(rng.next()))))
        } else {
            let input = Bytes::from_static(&LOGGING_INITCODE);
            sign(&key, TxEip1559 { to: TxKind::Create, input, gas_limit: 100_000, ..template(nonce) })
        };
        match rpc.try_call("eth_sendRawTransactionSync", &json!([hex_of(&raw)])) {
            Some(Ok(receipt)) => given.push((hash(&raw), receipt)),
            Some(Err(error)) => panic!("refused: {error:?}"),
            None => break,
        }
    }
    given
}

#[test]
fn what_a_client_saw_as_final_survives_a_kill_at_any_moment() {
    let kills: u64 = std::env::var("SLUICE_CRASH_KILLS").map_or(6, |text| text.parse().expect("a number"));
    let mut rng = Rng::seeded("crash", 1);
    let home = tempfile::tempdir().expect("a folder");
    let folder = home.path().join("data");
    let (mut client, mut slowest) = (Client::default(), Duration::ZERO);
    let mut node = Node::dev(&folder, &[]);
    for _ in 0..kills {
        client.check(&node);
        let sends = rng.below(60);
        client.send(&node, &mut rng, sends).expect("accepted");
        client.look(&node);
        let delay = Duration::from_micros(rng.below(30_000));
        let mut killer = rng.clone();
        std::thread::scope(|scope| {
            // The kill falls into a burst of further sends.
            let (pid, until) = (node.pid(), Instant::now() + delay);
            scope.spawn(move || {
                while Instant::now() < until {
                    std::hint::spin_loop();
                }
                let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("our own child");
            });
            // Two more wait for each receipt, so that what they were given is from the last moment.
            let witnesses = [4, 5].map(|index| {
                let (http, rng) = (node.http.clone(), Rng::new(killer.next()));
                scope.spawn(move || witness(&http, index, rng))
            });
            client.send(&node, &mut killer, 1_000).expect("accepted");
            client.seen.extend(witnesses.into_iter().flat_map(|witness| witness.join().expect("no refusal")));
        });
        node.kill();
        check_root(&folder);
        node = restart(&folder, &[]);
        slowest = slowest.max(node.started_in);
    }
    client.check(&node);
    println!("kills {kills}, receipts kept {}, slowest restart {slowest:?}", client.seen.len());
}

/// Small segments, so that a short run rolls several of them over.
pub(crate) const SMALL_SEGMENTS: [&str; 2] = ["--segment-bytes", "65536"];

/// Starts a node that ends itself at `armed`, loads it, and tells whether the point was reached.
fn run_into(folder: &Path, armed: &str, client: &mut Client, rng: &mut Rng) -> bool {
    let flags = [&SMALL_SEGMENTS[..], &["--fail-point", armed]].concat();
    let status = match Node::try_dev(folder, &flags) {
        Err((status, _)) => status,
        Ok(mut node) => {
            // The armed point may be met before anything is asked.
            let _ = client.try_check(&node);
            // A checkpoint is written at the stop; what needs many blocks gets them, however slow the machine.
            let rounds = if armed.starts_with("checkpoint") { 12 } else { 200 };
            for _ in 0..rounds {
                client.send(&node, rng, 10).expect("accepted");
                client.look(&node);
                if node.wait(Duration::ZERO).is_some() {
                    break;
                }
            }
            node.stop_or_dead()
        }
    };
    status.signal().is_some()
}

#[test]
fn every_named_point_of_the_write_path_survives_a_kill() {
    let mut rng = Rng::seeded("fail points", 2);
    for point in storage::failpoint::FAIL_POINTS {
        let home = tempfile::tempdir().expect("a folder");
        let folder = home.path().join("data");
        let mut client = Client::default();
        if !point.starts_with("genesis.") {
            let mut node = Node::dev(&folder, &SMALL_SEGMENTS);
            client.send(&node, &mut rng, 40).expect("accepted");
            client.look(&node);
            node.kill();
        }
        let count = if point.starts_with("segment.append") { 1 + rng.below(20) } else { 1 };
        let armed = format!("{point}:{count}");
        let reached = run_into(&folder, &armed, &mut client, &mut rng);
        let node = restart(&folder, &SMALL_SEGMENTS);
        client.check(&node);
        drop(node);
        check_root(&folder);
        println!("{armed}: {}, {} receipts kept", if reached { "reached" } else { "not reached" }, client.seen.len());
        assert!(reached, "{armed} was not reached");
    }
}
