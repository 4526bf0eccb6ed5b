//! What the scenarios stand on does what it says: namespaces, cuts, losses, the relay between them, slow syncs, shifted
//! clocks, shares of a core.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::{Child, Command},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tests::{
    cluster::{
        traffic::Traffic,
        until,
        watch::{Figures, Watch, latencies},
    },
    machine::{Cgroup, Usage, shifted_clock, slow_syncs},
    namespaces::{HUB, NETWORK, Namespaces, Place},
    node::Node,
    relay::{Conditions, Options, Relay},
};

use crate::skipped;

const PORT: u16 = 5_000;
const SOON: Duration = Duration::from_secs(5);

/// A socket where a node lives.
fn socket(spaces: &Namespaces, node: usize) -> UdpSocket {
    let stay = spaces.enter(Place::Node(node));
    let socket = UdpSocket::bind((spaces.address(node), PORT)).expect("its own address");
    drop(stay);
    socket
}

fn receive(socket: &UdpSocket, wait: Duration) -> Option<(u8, SocketAddr)> {
    socket.set_read_timeout(Some(wait)).expect("set");
    let mut buffer = [0];
    socket.recv_from(&mut buffer).ok().map(|(_, from)| (buffer[0], from))
}

#[test]
fn a_cut_between_namespaces_goes_one_way_and_heals() {
    if skipped("cuts") {
        return;
    }
    let mut spaces = Namespaces::new(3).expect("namespaces");
    let sockets = [0, 1, 2].map(|node| socket(&spaces, node));
    let addresses = [0, 1, 2].map(|node| spaces.address(node));
    let send = |from: usize, to: usize, word: u8| {
        sockets[from].send_to(&[word], (addresses[to], PORT)).expect("sent");
    };
    let arrives = |from: usize, to: usize, word: u8| {
        send(from, to, word);
        let (got, seen) = receive(&sockets[to], SOON).expect("it comes");
        assert_eq!((got, seen.ip()), (word, IpAddr::V4(addresses[from])));
    };
    arrives(0, 1, 1);
    spaces.cut(0, 1);
    send(0, 1, 2);
    // Later than the one that was cut, by an open way to the same node.
    arrives(2, 1, 3);
    arrives(1, 0, 4);
    spaces.partition(&[&[0, 1], &[2]]);
    send(2, 0, 5);
    send(1, 2, 5);
    arrives(0, 1, 6);
    arrives(1, 0, 7);
    spaces.heal();
    arrives(2, 0, 8);
    arrives(1, 2, 9);
    assert!(receive(&sockets[0], Duration::from_millis(1)).is_none());
    println!("cuts: one way, both ways, healed");
}

#[test]
fn losses_between_namespaces_are_of_the_share_that_was_asked_for() {
    if skipped("losses") {
        return;
    }
    let mut spaces = Namespaces::new(2).expect("namespaces");
    spaces.lose(0, 1, 300);
    let sockets = [0, 1].map(|node| socket(&spaces, node));
    let mut got = 0;
    for round in 0..100 {
        for _ in 0..20 {
            sockets[0].send_to(&[round], (spaces.address(1), PORT)).expect("sent");
        }
        // The way back loses nothing: the end of a round is known by a word that comes.
        sockets[1].send_to(&[round], (spaces.address(0), PORT)).expect("sent");
        assert_eq!(receive(&sockets[0], SOON).expect("it comes").0, round);
        while receive(&sockets[1], Duration::from_millis(2)).is_some() {
            got += 1;
        }
    }
    assert!((1_250..1_550).contains(&got), "{got} of 2000 came through a loss of 30 %");
    println!("losses: {got} of 2000 came through a loss of 30 %");
}

#[test]
fn namespaces_are_gone_with_their_owner_even_when_it_panics() {
    if skipped("clean-up") {
        return;
    }
    let there = |spaces: &Namespaces| Path::new("/run/netns").join(spaces.name(Place::Node(1))).exists();
    let network = || std::fs::read_link("/proc/thread-self/ns/net").expect("a link");
    let (before, mut names) = (network(), Vec::new());
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let spaces = Namespaces::new(2).expect("namespaces");
        let _stay = spaces.enter(Place::Hub);
        assert!(there(&spaces) && network() != before);
        names.extend([Place::Hub, Place::Node(0), Place::Node(1)].map(|place| spaces.name(place)));
        panic!("on purpose");
    }));
    assert!(panicked.is_err() && names.len() == 3);
    for name in &names {
        assert!(!Path::new("/run/netns").join(name).exists(), "{name} is left over");
    }
    assert_eq!(network(), before, "the thread is back");
    // What a killed process left over is swept by the next one: no process has the largest number.
    let left = "sluice-4194305-0-hub";
    assert!(Command::new("ip").args(["netns", "add", left]).status().expect("it runs").success());
    drop(Namespaces::new(1).expect("namespaces"));
    assert!(!Path::new("/run/netns").join(left).exists(), "{left} is left over");
    println!("clean-up: after a panic and after another process");
}

#[test]
fn the_relay_stands_between_namespaces() {
    if skipped("relay between namespaces") {
        return;
    }
    let spaces = Namespaces::new(2).expect("namespaces");
    let sockets = [0, 1].map(|node| socket(&spaces, node));
    let nodes = [0, 1].map(|node| (spaces.address(node), PORT).into()).to_vec();
    let stay = spaces.enter(Place::Hub);
    let conditions = Conditions::delay_ms(30);
    let options = Options { bind: HUB.into(), network: Some(NETWORK), conditions, ..Options::new(1, nodes) };
    let relay = Relay::start(&options).expect("a relay");
    drop(stay);
    let begun = Instant::now();
    sockets[0].send_to(&[1], relay.address(0, 1)).expect("sent");
    let (word, seen) = receive(&sockets[1], SOON).expect("it comes");
    assert_eq!((word, seen), (1, relay.address(1, 0)));
    sockets[1].send_to(&[2], seen).expect("sent");
    let (word, seen) = receive(&sockets[0], SOON).expect("it comes back");
    assert_eq!((word, seen), (2, relay.address(0, 1)));
    assert!(begun.elapsed() >= Duration::from_millis(60));
    println!("relay between namespaces: there and back in {:?}", begun.elapsed());
}

/// A process that is killed at the end.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_process_gets_its_share_of_a_core() {
    if skipped("shares of a core") {
        return;
    }
    let group = Cgroup::cpu(50).expect("a group");
    let busy = Killed(Command::new("sh").args(["-c", "while :; do :; done"]).spawn().expect("a shell"));
    group.add(busy.0.id()).expect("it lives");
    let usage = || Usage::of(busy.0.id()).expect("it lives");
    let (begun, before) = (Instant::now(), usage().cpu);
    while begun.elapsed() < Duration::from_secs(2) {
        std::thread::park_timeout(Duration::from_millis(100));
    }
    let (used, passed) = (usage().cpu - before, begun.elapsed());
    let share = used.as_secs_f64() / passed.as_secs_f64();
    assert!(share < 0.6, "{share:.2} of a core");
    assert!(group.read("cpu.stat", Some("nr_throttled")).expect("counted") > 0, "nothing held it back");
    assert!(usage().resident_bytes > 0 && usage().resident_bytes_max >= usage().resident_bytes);
    println!("shares: {share:.2} of a core of 0.50 allowed");
}

#[test]
fn memory_beyond_a_limit_is_not_given() {
    if skipped("limits of memory") {
        return;
    }
    let group = Cgroup::memory(64 << 20).expect("a group");
    // It doubles a string until somebody stops it, but not before it is in its group.
    let script = "read go; word=x; while :; do word=$word$word; done";
    let child = Command::new("sh").args(["-c", script]).stdin(std::process::Stdio::piped()).spawn();
    let mut greedy = Killed(child.expect("a shell"));
    group.add(greedy.0.id()).expect("it lives");
    drop(greedy.0.stdin.take());
    let status = greedy.0.wait().expect("it ends");
    assert!(!status.success(), "{status}");
    let most = group.read("memory.max_usage_in_bytes", None).expect("counted");
    assert!(most <= 64 << 20, "{most} bytes");
    println!("limits of memory: stopped at {most} bytes: {status}");
}

#[test]
fn syncs_are_slow_under_strace_and_the_rest_is_not() {
    if skipped("slow syncs") {
        return;
    }
    let home = tempfile::tempdir().expect("a folder");
    let took = |flag: &str| {
        let line = slow_syncs(Duration::from_millis(300)).expect("strace");
        let begun = Instant::now();
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).args(["dd", "if=/dev/zero", "bs=64k", "count=64", "status=none", flag]);
        command.arg(format!("of={}", home.path().join("file").display()));
        assert!(command.status().expect("it runs").success());
        begun.elapsed()
    };
    let (without, with) = (took("conv=notrunc"), took("conv=fdatasync"));
    assert!(with >= Duration::from_millis(300) && with > without, "{without:?} without a sync, {with:?} with one");
    assert!(without < Duration::from_millis(300), "{without:?}");
    println!("slow syncs: {without:?} without one, {with:?} with one of 300 ms");
}

#[test]
fn a_shifted_clock_is_off_by_what_was_asked_for() {
    if skipped("shifted clocks") {
        return;
    }
    for offset_ms in [-500, 500, 3_600_000, -3_600_000] {
        let mut command = Command::new("date");
        command.arg("+%s%3N").envs(shifted_clock(offset_ms).expect("libfaketime"));
        let now =
            || i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).expect("now").as_millis()).expect("now");
        let before = now();
        let output = command.output().expect("it runs");
        let (after, shown) = (now(), String::from_utf8_lossy(&output.stdout).trim().parse::<i64>());
        let shown = shown.expect("milliseconds");
        let range = before + offset_ms - 1..=after + offset_ms + 1;
        assert!(range.contains(&shown), "{shown} is not in {range:?} at an offset of {offset_ms} ms");
    }
    println!("shifted clocks: by 500 ms and by an hour, ahead and behind");
}

#[test]
fn traffic_is_sent_once_and_seen_with_its_times() {
    if skipped("traffic") {
        return;
    }
    let home = tempfile::tempdir().expect("a folder");
    let node = Node::dev(&home.path().join("data"), &[]);
    let watch = Watch::start(&node.http, 0);
    let traffic = Traffic::start(&[(0, node.http.clone()), (1, node.http.clone())], 400);
    let begun = Instant::now();
    until("1,000 transfers in blocks", Duration::from_secs(30), || {
        let seen = watch.seen();
        (seen.iter().map(|block| block.transactions.len()).sum::<usize>() >= 1_000).then_some(())
    });
    let took = begun.elapsed();
    let sent = traffic.sent();
    drop(traffic);
    let figures = Figures::of(&watch.seen(), begun, begun + took);
    assert!(took >= Duration::from_millis(2_300), "the pace was not kept: 1,000 in {took:?}");
    let hashes: Vec<_> = watch.seen().iter().flat_map(|block| block.transactions.clone()).collect();
    let once: std::collections::BTreeSet<_> = hashes.iter().collect();
    assert_eq!(once.len(), hashes.len(), "a transfer is in two blocks");
    assert!(hashes.iter().take(900).all(|hash| sent.contains_key(hash)), "somebody else's transfers");
    let latency = latencies(&sent, &watch.seen());
    assert!(latency.count >= 1_000 && latency.p50 > 0 && latency.p50 < 5_000, "{latency}");
    assert!(watch.seen().iter().all(|block| block.signers == [0]), "one validator signs alone");
    println!("traffic: {figures}; sent to final {latency}");
}
