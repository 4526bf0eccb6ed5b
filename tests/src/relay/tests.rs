//! The relay between sockets on loopback.

use std::{collections::BTreeSet, time::Duration};

use super::*;

const MS: Duration = Duration::from_millis(1);

/// A relay between sockets that stand for nodes.
struct Bench {
    relay: Relay,
    nodes: Vec<UdpSocket>,
}

impl Bench {
    fn new(seed: u64, nodes: usize, words: &str) -> Self {
        let nodes: Vec<UdpSocket> = (0..nodes).map(|_| UdpSocket::bind("127.0.0.1:0").expect("a socket")).collect();
        let addresses = nodes.iter().map(|node| node.local_addr().expect("bound")).collect();
        let conditions = Conditions::default().with(words).expect("conditions");
        let relay = Relay::start(&Options { conditions, ..Options::new(seed, addresses) }).expect("a relay");
        Self { relay, nodes }
    }

    fn send(&self, from: usize, to: usize, packet: &[u8]) {
        self.nodes[from].send_to(packet, self.relay.address(from, to)).expect("sent");
    }

    /// The next packet for a node and where it came from; `None` if there is none for so long.
    fn receive(&self, node: usize, wait: Duration) -> Option<(Vec<u8>, SocketAddr)> {
        self.nodes[node].set_read_timeout(Some(wait)).expect("set");
        let mut buffer = [0; 2_048];
        let (length, from) = self.nodes[node].recv_from(&mut buffer).ok()?;
        Some((buffer[..length].to_vec(), from))
    }

    /// Waits until a count of a link is reached.
    fn until(&self, from: usize, to: usize, reached: impl Fn(Counts) -> bool) -> Counts {
        let limit = Instant::now() + Duration::from_secs(20);
        loop {
            let counts = self.relay.counts(from, to);
            if reached(counts) {
                return counts;
            }
            assert!(Instant::now() < limit, "{counts:?}");
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_packet_comes_from_where_its_sender_is_known_and_the_answer_goes_back() {
    let bench = Bench::new(1, 3, "");
    for (from, to) in bench.relay.pairs() {
        bench.send(from, to, &[1, 2, 3]);
        let (packet, seen) = bench.receive(to, 5_000 * MS).expect("it comes");
        assert_eq!((packet, seen), (vec![1, 2, 3], bench.relay.address(to, from)));
        bench.nodes[to].send_to(&[4], seen).expect("sent");
        let (packet, seen) = bench.receive(from, 5_000 * MS).expect("it comes back");
        assert_eq!((packet, seen), (vec![4], bench.relay.address(from, to)));
    }
    let addresses: BTreeSet<SocketAddr> = bench.relay.pairs().map(|(i, j)| bench.relay.address(i, j)).collect();
    assert_eq!(addresses.len(), 6);
}

#[test]
fn a_delay_is_kept_and_changes_while_it_runs() {
    let bench = Bench::new(1, 2, "delay=80");
    let round = |limit: Duration| {
        let begun = Instant::now();
        bench.send(0, 1, &[0]);
        bench.receive(1, limit).expect("it comes");
        begun.elapsed()
    };
    let took = round(5_000 * MS);
    assert!(took >= 80 * MS, "{took:?}");
    // Five tries, since the machine may be busy: a link without delay is faster than one with.
    bench.relay.set(0, 1, Conditions::default());
    assert!((0..5).any(|_| round(5_000 * MS) < 40 * MS));
    // The other direction still waits.
    let begun = Instant::now();
    bench.send(1, 0, &[0]);
    bench.receive(0, 5_000 * MS).expect("it comes");
    assert!(begun.elapsed() >= 80 * MS);
}

#[test]
fn a_cut_goes_one_way_and_a_partition_both_and_both_heal() {
    let bench = Bench::new(1, 4, "");
    bench.relay.open(0, 1, false);
    bench.send(0, 1, &[1]);
    bench.until(0, 1, |counts| counts.cut == 1);
    bench.send(1, 0, &[2]);
    assert_eq!(bench.receive(0, 5_000 * MS).expect("the other way is open").0, [2]);
    bench.relay.partition(&[&[0, 1], &[2, 3]]);
    for (from, to) in bench.relay.pairs() {
        bench.send(from, to, &[3]);
        if (from < 2) == (to < 2) {
            assert_eq!(bench.receive(to, 5_000 * MS).expect("within a group").0, [3]);
        } else {
            bench.until(from, to, |counts| counts.cut == 1);
        }
    }
    bench.relay.heal();
    bench.send(0, 3, &[4]);
    assert_eq!(bench.receive(3, 5_000 * MS).expect("healed").0, [4]);
    assert_eq!(bench.relay.total().cut, 9);
}

#[test]
fn loss_by_seed_hits_the_same_packets_again() {
    let run = |seed| {
        let bench = Bench::new(seed, 2, "loss=300 duplicate=100");
        let mut got = Vec::new();
        for number in 0..200_u32 {
            bench.send(0, 1, &number.to_be_bytes());
            // One at a time, so that the kernel loses none and the order is ours.
            let counts = bench.until(0, 1, |counts| counts.received == u64::from(number) + 1);
            while (got.len() as u64) < counts.forwarded {
                got.push(bench.receive(1, 5_000 * MS).expect("forwarded").0);
            }
        }
        let counts = bench.until(0, 1, |counts| counts.forwarded == 200 - counts.lost + counts.duplicated);
        while (got.len() as u64) < counts.forwarded {
            got.push(bench.receive(1, 5_000 * MS).expect("forwarded").0);
        }
        (got, counts)
    };
    let (got, counts) = run(3);
    assert!((30..90).contains(&counts.lost), "{counts:?}");
    assert_eq!(run(3), (got.clone(), counts));
    assert_ne!(run(4).0, got);
}

#[test]
fn a_stranger_does_not_get_through() {
    let bench = Bench::new(1, 2, "");
    let stranger = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    stranger.send_to(&[9], bench.relay.address(0, 1)).expect("sent");
    bench.until(0, 1, |counts| counts.stray == 1);
    bench.send(0, 1, &[1]);
    assert_eq!(bench.receive(1, 5_000 * MS).expect("the node's own").0, [1]);
}

#[test]
fn only_loopback_and_a_network_of_the_test_are_sent_to() {
    let start = |node: &str, bind: &str, network| {
        let mut options = Options::new(1, vec![node.parse().expect("an address")]);
        options.bind = bind.parse().expect("an address");
        options.network = network;
        Relay::start(&options).map(drop)
    };
    start("127.3.2.1:9", "127.0.0.1", None).expect("loopback");
    start("[::1]:9", "127.0.0.1", None).expect("loopback");
    let network = Some((Ipv4Addr::new(10, 77, 0, 0), 24));
    start("10.77.0.9:9", "127.0.0.1", network).expect("in the network");
    for (node, bind, network) in [
        ("10.77.0.9:9", "127.0.0.1", None),
        ("10.77.1.9:9", "127.0.0.1", network),
        ("8.8.8.8:9", "127.0.0.1", network),
        ("8.8.8.8:9", "127.0.0.1", Some((Ipv4Addr::new(8, 8, 8, 8), 32))),
        ("8.8.8.8:9", "127.0.0.1", Some((Ipv4Addr::new(10, 0, 0, 0), 0))),
        ("127.0.0.1:9", "0.0.0.0", None),
        ("[2001:db8::1]:9", "127.0.0.1", network),
    ] {
        let refusal = start(node, bind, network).expect_err(node);
        assert!(refusal.to_string().contains("neither loopback"), "{refusal}");
    }
    let many = vec!["127.0.0.1:9".parse().expect("an address"); NODES_MAX + 1];
    assert!(Relay::start(&Options::new(1, many)).is_err());
}

#[test]
fn a_burst_comes_whole() {
    let bench = Bench::new(1, 2, "delay=5");
    for number in 0..2_048_u32 {
        let mut packet = [0; 1_400];
        packet[..4].copy_from_slice(&number.to_be_bytes());
        bench.send(0, 1, &packet);
        // The receiving node's own socket is as small as the kernel makes it: it is emptied as it fills.
        if number % 32 == 31 {
            for expected in number - 31..=number {
                let (packet, _) = bench.receive(1, 5_000 * MS).expect("it comes");
                assert_eq!(packet[..4], expected.to_be_bytes());
            }
        }
    }
    assert_eq!(bench.relay.counts(0, 1).forwarded, 2_048);
}
