//! Network namespaces for nodes: one for each, on one bridge, with cuts and losses between them.
//!
//! ```text
//! PREFIX-hub:  bridge 10.77.0.254, the tests' own side
//!                |        |        |
//! PREFIX-0: 10.77.0.1  PREFIX-1: .2  PREFIX-2: .3    nftables drop on arrival, by source
//! ```
//! The bridge lies in a namespace of its own, so nothing of this machine's network is touched and no packet can leave:
//! there is no way out. A thread that speaks to the nodes enters the hub. Names carry the process id; whatever a
//! killed process left behind is removed by the next one.

use std::{
    fs::File,
    io::Write as _,
    marker::PhantomData,
    net::Ipv4Addr,
    os::fd::AsFd as _,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::machine::need;

/// Begin of every name.
const FAMILY: &str = "sluice";

/// Name of the table with what is counted.
const COUNTS: &str = "counts";

/// Network of the nodes: 254 addresses, the last one the hub's.
pub const NETWORK: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 77, 0, 0), 24);

/// Address of the hub.
pub const HUB: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 254);

/// Most nodes on one bridge.
pub const NODES_MAX: usize = 200;

/// The whole of a loss: 1,000 per mille.
const WHOLE: u16 = 1_000;

/// Namespaces of one test; removed when dropped.
#[derive(Debug)]
pub struct Namespaces {
    prefix: String,
    /// Losses per mille from node to node, row by row.
    losses: Vec<u16>,
    nodes: usize,
}

/// Where a thread can live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The tests' own side, which reaches every node.
    Hub,
    /// Where a node lives.
    Node(usize),
}

/// A stay in a namespace; the thread goes back when it is dropped.
#[derive(Debug)]
pub struct Stay {
    back: File,
    /// A thread goes back by itself: this stays on it.
    _here: PhantomData<*const ()>,
}

impl Namespaces {
    /// Namespaces for so many nodes, connected and without any loss.
    ///
    /// # Errors
    /// Why there are none: no root, no `ip`, no `nft`, or what they said.
    pub fn new(nodes: usize) -> Result<Self, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::geteuid().is_root() {
            return Err("network namespaces need root".to_owned());
        }
        need("ip", "iproute2")?;
        need("nft", "nftables")?;
        if nodes > NODES_MAX {
            return Err(format!("{nodes} nodes are more than {NODES_MAX}"));
        }
        sweep()?;
        let prefix = format!("{FAMILY}-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        // From here on whatever was made is removed, whichever step fails.
        let made = Self { prefix, losses: vec![0; nodes * nodes], nodes };
        made.build()?;
        Ok(made)
    }

    fn build(&self) -> Result<(), String> {
        let hub = self.name(Place::Hub);
        ip(&["netns", "add", &hub])?;
        ip(&["-n", &hub, "link", "set", "lo", "up"])?;
        ip(&["-n", &hub, "link", "add", "bridge", "type", "bridge", "forward_delay", "0"])?;
        ip(&["-n", &hub, "addr", "add", &format!("{HUB}/{}", NETWORK.1), "dev", "bridge"])?;
        ip(&["-n", &hub, "link", "set", "bridge", "up"])?;
        for node in 0..self.nodes {
            let (name, port) = (self.name(Place::Node(node)), format!("node{node}"));
            ip(&["netns", "add", &name])?;
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
            ip(&["-n", &hub, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &name])?;
            ip(&["-n", &hub, "link", "set", &port, "master", "bridge", "up"])?;
            ip(&["-n", &name, "addr", "add", &format!("{}/{}", address(node), NETWORK.1), "dev", "eth0"])?;
            ip(&["-n", &name, "link", "set", "eth0", "up"])?;
        }
        Ok(())
    }

    /// Name of a namespace, as `ip netns` knows it.
    #[must_use]
    pub fn name(&self, place: Place) -> String {
        match place {
            Place::Hub => format!("{}-hub", self.prefix),
            Place::Node(node) => format!("{}-{node}", self.prefix),
        }
    }

    /// Address of a node.
    ///
    /// # Panics
    /// If there is no such node.
    #[must_use]
    pub fn address(&self, node: usize) -> Ipv4Addr {
        assert!(node < self.nodes, "there are {} nodes", self.nodes);
        address(node)
    }

    /// The begin of a command line that runs a program where a node lives.
    #[must_use]
    pub fn command(&self, place: Place) -> Vec<String> {
        ["ip", "netns", "exec"].map(str::to_owned).into_iter().chain([self.name(place)]).collect()
    }

    /// Moves this thread, and those it starts from here on, into a namespace until the stay ends.
    ///
    /// # Panics
    /// If it cannot.
    #[must_use]
    pub fn enter(&self, place: Place) -> Stay {
        let back = File::open("/proc/thread-self/ns/net").expect("a thread has a network");
        let path = Path::new("/run/netns").join(self.name(place));
        let there = File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        move_into_link_name_space(there.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may enter");
        Stay { back, _here: PhantomData }
    }

    /// Loses so many per mille, by chance, of what one node sends to another; 1,000 is a cut.
    ///
    /// # Panics
    /// If there is no such pair or share, or nftables refuses.
    pub fn lose(&mut self, from: usize, to: usize, per_mille: u16) {
        assert!(from < self.nodes && to < self.nodes && from != to, "no way from {from} to {to}");
        assert!(per_mille <= WHOLE, "{per_mille} per mille");
        self.losses[from * self.nodes + to] = per_mille;
        self.apply(to);
    }

    /// Loses so many per mille between all nodes.
    ///
    /// # Panics
    /// If there is no such share, or nftables refuses.
    pub fn lose_everywhere(&mut self, per_mille: u16) {
        assert!(per_mille <= WHOLE, "{per_mille} per mille");
        self.losses.fill(per_mille);
        (0..self.nodes).for_each(|node| self.apply(node));
    }

    /// Cuts the way from one node to another; the way back stays.
    ///
    /// # Panics
    /// If there is no such pair, or nftables refuses.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.lose(from, to, WHOLE);
    }

    /// Cuts every way between nodes of different groups, and opens those within; who is in no group is alone.
    ///
    /// # Panics
    /// If nftables refuses.
    pub fn partition(&mut self, groups: &[&[usize]]) {
        for from in 0..self.nodes {
            for to in 0..self.nodes {
                let together = groups.iter().any(|group| group.contains(&from) && group.contains(&to));
                self.losses[from * self.nodes + to] = if together { 0 } else { WHOLE };
            }
        }
        (0..self.nodes).for_each(|node| self.apply(node));
    }

    /// Sends what a node has for a network that lies nowhere to another one, where it ends, and counts from here on
    /// what comes to the node from there and goes there.
    ///
    /// # Panics
    /// If `ip` or nftables refuses.
    pub fn count_elsewhere(&self, node: usize, network: &str, by: usize) {
        let (name, gate) = (self.name(Place::Node(node)), self.address(by).to_string());
        ip(&["-n", &name, "route", "replace", network, "via", &gate]).unwrap_or_else(|why| panic!("{why}"));
        let chain = |hook: &str, end: &str| {
            let head = format!("chain {hook} {{\ntype filter hook {hook} priority -10; policy accept;\n");
            head + &format!("ip {end} {network} counter\n}}\n")
        };
        let chains = chain("input", "saddr") + &chain("output", "daddr");
        self.nft(node, COUNTS, &chains);
    }

    /// Bytes that have come from, and gone to, the network that is counted; heads of IP included.
    ///
    /// # Panics
    /// If nothing is counted there.
    #[must_use]
    pub fn counted_elsewhere(&self, node: usize) -> (u64, u64) {
        let line = self.command(Place::Node(node));
        let output = Command::new(&line[0]).args(&line[1..]).args(["nft", "list", "table", "inet", COUNTS]).output();
        let text = String::from_utf8_lossy(&output.expect("nft starts").stdout).into_owned();
        let words: Vec<&str> = text.split_whitespace().collect();
        let bytes = words.windows(2).filter(|pair| pair[0] == "bytes").filter_map(|pair| pair[1].parse().ok());
        let bytes: Vec<u64> = bytes.collect();
        let [came, went] = bytes[..] else { panic!("nothing is counted: {text}") };
        (came, went)
    }

    /// Opens every way.
    ///
    /// # Panics
    /// If nftables refuses.
    pub fn heal(&mut self) {
        self.lose_everywhere(0);
    }

    /// Puts a node's rules in force, all at once.
    fn apply(&self, to: usize) {
        let mut rules = String::new();
        for from in (0..self.nodes).filter(|from| *from != to) {
            let from_address = address(from);
            match self.losses[from * self.nodes + to] {
                0 => {}
                WHOLE => rules += &format!("ip saddr {from_address} drop\n"),
                share => rules += &format!("ip saddr {from_address} numgen random mod {WHOLE} < {share} drop\n"),
            }
        }
        let chain = format!("chain arrival {{\ntype filter hook input priority 0; policy accept;\n{rules}}}\n");
        self.nft(to, FAMILY, &chain);
    }

    /// Puts a table of nftables in force where a node lives.
    fn nft(&self, node: usize, table: &str, chains: &str) {
        // It is made if it is absent, so that it can be replaced in one step.
        let script = format!("add table inet {table}\ndelete table inet {table}\ntable inet {table} {{\n{chains}}}\n");
        let line = self.command(Place::Node(node));
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).args(["nft", "-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("nft starts");
        child.stdin.take().expect("piped").write_all(script.as_bytes()).expect("it reads");
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        // A thread that panics is on its way out as well: nothing here may panic.
        for place in (0..self.nodes).map(Place::Node).chain([Place::Hub]) {
            let _ = ip(&["netns", "del", &self.name(place)]);
        }
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        let back = move_into_link_name_space(self.back.as_fd(), Some(LinkNameSpaceType::Network));
        assert!(back.is_ok() || std::thread::panicking(), "a thread may go back: {back:?}");
    }
}

/// Address of a node.
fn address(node: usize) -> Ipv4Addr {
    let [a, b, c, _] = NETWORK.0.octets();
    Ipv4Addr::new(a, b, c, u8::try_from(node + 1).expect("at most 200 nodes"))
}

fn ip(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("ip").args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("ip does not start: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

/// Removes the namespaces of processes that are no more.
fn sweep() -> Result<(), String> {
    for line in ip(&["netns", "list"])?.lines() {
        let name = line.split_whitespace().next().unwrap_or_default();
        let mut parts = name.split('-');
        let (family, process) = (parts.next(), parts.next().and_then(|part| part.parse::<u32>().ok()));
        if family == Some(FAMILY) && process.is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists()) {
            // Another process may sweep at the same time.
            let _ = ip(&["netns", "del", name]);
        }
    }
    Ok(())
}
