//! A relay for UDP packets between nodes, in this process: delay, jitter, loss, duplication, reordering, a rate, cuts.
//!
//! ```text
//! node i --> door (i, j) ... link i -> j: waits, loses, doubles ... door (j, i) --> node j
//! node i <-- door (i, j) ... link j -> i                        ... door (j, i) <-- node j
//! ```
//! For every ordered pair there is one door, a socket: node i is told that node j lives at door (i, j). What i sends
//! there comes to j from door (j, i), which is where j was told that i lives; so both see one stable address, and an
//! answer takes the way back. Conditions change while it runs. Only loopback addresses, and those of a network that
//! its owner made for the test, are ever sent to. The kernel of the build machines has no netem; this stands for it.

pub mod link;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::Arc,
    thread::JoinHandle,
    time::Instant,
};

use parking_lot::Mutex;
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};
use tokio::{
    runtime::Builder,
    sync::{Notify, oneshot},
};

use self::link::Link;
pub use self::link::{Conditions, Counts};

/// Most nodes behind one relay: 32 x 31 doors.
pub const NODES_MAX: usize = 32;

/// Largest UDP packet.
const PACKET_BYTES_MAX: usize = 65_536;

/// What the kernel may keep for a door while the relay is busy elsewhere: a burst of segmented sends is 64 KiB a call,
/// and a small packet counts as 2 KiB.
const DOOR_BUFFER_BYTES: usize = 8 << 20;

/// Packets taken from a door before it is looked at who has to leave.
const BURST_PACKETS: usize = 64;

/// What a relay stands between.
#[derive(Clone, Debug)]
pub struct Options {
    /// Chance follows from it.
    pub seed: u64,
    /// Where the doors are.
    pub bind: IpAddr,
    /// Where the nodes are, and nothing else is.
    pub nodes: Vec<SocketAddr>,
    /// A network made for this test: address and length of its prefix. Loopback is always allowed.
    pub network: Option<(Ipv4Addr, u8)>,
    /// What all links do at first.
    pub conditions: Conditions,
}

impl Options {
    /// A relay on loopback that passes everything.
    #[must_use]
    pub fn new(seed: u64, nodes: Vec<SocketAddr>) -> Self {
        let bind = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self { seed, bind, nodes, network: None, conditions: Conditions::default() }
    }
}

/// A running relay; ends when dropped.
#[derive(Debug)]
pub struct Relay {
    nodes: usize,
    doors: Vec<Option<Arc<Door>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the relay's thread and its owner share of one ordered pair.
#[derive(Debug)]
struct Door {
    address: SocketAddr,
    link: Mutex<Link>,
    changed: Notify,
}

/// One ordered pair as its task has it.
struct Pair {
    door: Arc<Door>,
    socket: Arc<tokio::net::UdpSocket>,
    /// The node that speaks at this door.
    speaker: SocketAddr,
    /// The door behind which the other node knows the speaker.
    exit: Arc<tokio::net::UdpSocket>,
    listener: SocketAddr,
}

impl Relay {
    /// Opens all doors, in the network of the calling thread, and begins to pass packets.
    ///
    /// # Errors
    /// An address that is neither loopback nor in the network of the test, too many nodes, or no sockets.
    pub fn start(options: &Options) -> io::Result<Self> {
        let count = options.nodes.len();
        if count > NODES_MAX {
            return Err(refused(format!("{count} nodes are more than {NODES_MAX}")));
        }
        for address in options.nodes.iter().map(SocketAddr::ip).chain([options.bind]) {
            if !allowed(address, options.network) {
                return Err(refused(format!("{address} is neither loopback nor of a network made for this test")));
            }
        }
        let (mut doors, mut sockets) = (Vec::new(), Vec::new());
        for (from, to) in pairs(count) {
            if from == to {
                doors.push(None);
                sockets.push(None);
                continue;
            }
            let socket = UdpSocket::bind((options.bind, 0))?;
            socket.set_nonblocking(true)?;
            // Without the right to force it, as large as the machine allows.
            set_socket_recv_buffer_size_force(&socket, DOOR_BUFFER_BYTES)
                .or_else(|_| set_socket_recv_buffer_size(&socket, DOOR_BUFFER_BYTES))?;
            let link = Mutex::new(Link::new(options.seed, from, to, options.conditions));
            doors.push(Some(Arc::new(Door { address: socket.local_addr()?, link, changed: Notify::new() })));
            sockets.push(Some(socket));
        }
        let (stop, stopped) = oneshot::channel();
        let (nodes, shared) = (options.nodes.clone(), doors.clone());
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("relay".to_owned()).spawn(move || {
            runtime.block_on(async {
                run(&nodes, shared, sockets);
                let _ = stopped.await;
            });
        })?;
        Ok(Self { nodes: count, doors, stop: Some(stop), thread: Some(thread) })
    }

    fn door(&self, from: usize, to: usize) -> &Arc<Door> {
        assert!(from < self.nodes && to < self.nodes, "there are {} nodes, no {from} or {to}", self.nodes);
        self.doors[from * self.nodes + to].as_ref().expect("no node speaks to itself")
    }

    /// How many nodes it stands between.
    #[must_use]
    pub const fn nodes(&self) -> usize {
        self.nodes
    }

    /// Where node `from` finds node `to`.
    ///
    /// # Panics
    /// If there is no such pair.
    #[must_use]
    pub fn address(&self, from: usize, to: usize) -> SocketAddr {
        self.door(from, to).address
    }

    /// What the way from one node to another does to packets.
    ///
    /// # Panics
    /// If there is no such pair.
    #[must_use]
    pub fn conditions(&self, from: usize, to: usize) -> Conditions {
        self.door(from, to).link.lock().conditions()
    }

    /// Changes it.
    ///
    /// # Panics
    /// If there is no such pair.
    pub fn set(&self, from: usize, to: usize, conditions: Conditions) {
        let door = self.door(from, to);
        door.link.lock().set(conditions);
        door.changed.notify_one();
    }

    /// Changes every way.
    pub fn set_all(&self, conditions: Conditions) {
        for (from, to) in self.pairs() {
            self.set(from, to, conditions);
        }
    }

    /// Opens or closes the way from one node to another, and that alone.
    ///
    /// # Panics
    /// If there is no such pair.
    pub fn open(&self, from: usize, to: usize, open: bool) {
        self.set(from, to, Conditions { open, ..self.conditions(from, to) });
    }

    /// Closes every way between nodes of different groups and opens those within; who is in no group is alone.
    pub fn partition(&self, groups: &[&[usize]]) {
        for (from, to) in self.pairs() {
            self.open(from, to, groups.iter().any(|group| group.contains(&from) && group.contains(&to)));
        }
    }

    /// Opens every way.
    pub fn heal(&self) {
        for (from, to) in self.pairs() {
            self.open(from, to, true);
        }
    }

    /// What became of the packets from one node to another.
    ///
    /// # Panics
    /// If there is no such pair.
    #[must_use]
    pub fn counts(&self, from: usize, to: usize) -> Counts {
        self.door(from, to).link.lock().counts
    }

    /// What became of all packets.
    #[must_use]
    pub fn total(&self) -> Counts {
        self.pairs().map(|(from, to)| self.counts(from, to)).fold(Counts::default(), Counts::and)
    }

    /// Every ordered pair.
    pub fn pairs(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        pairs(self.nodes).filter(|(from, to)| from != to)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn pairs(count: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
    (0..count).flat_map(move |from| (0..count).map(move |to| (from, to)))
}

fn refused(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

/// Whether a test may send there.
fn allowed(address: IpAddr, network: Option<(Ipv4Addr, u8)>) -> bool {
    let inside = |address: Ipv4Addr| {
        network.is_some_and(|(of, prefix)| {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            // A network as wide as the whole world is not one that was made for a test.
            prefix >= 8 && of.is_private() && u32::from(address) & mask == u32::from(of) & mask
        })
    };
    match address {
        IpAddr::V4(address) => address.is_loopback() || inside(address),
        IpAddr::V6(address) => address.is_loopback(),
    }
}

/// Starts a task for every ordered pair.
fn run(nodes: &[SocketAddr], doors: Vec<Option<Arc<Door>>>, sockets: Vec<Option<UdpSocket>>) {
    let sockets: Vec<_> = sockets
        .into_iter()
        .map(|socket| {
            socket.map(|socket| Arc::new(tokio::net::UdpSocket::from_std(socket).expect("it does not block")))
        })
        .collect();
    let at = |from: usize, to: usize| from * nodes.len() + to;
    for (from, to) in pairs(nodes.len()) {
        let parts = (&doors[at(from, to)], &sockets[at(from, to)], &sockets[at(to, from)]);
        if let (Some(door), Some(socket), Some(exit)) = parts {
            let (door, socket, exit) = (door.clone(), socket.clone(), exit.clone());
            tokio::spawn(Pair { door, socket, speaker: nodes[from], exit, listener: nodes[to] }.run());
        }
    }
}

impl Pair {
    async fn run(self) {
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        loop {
            let next = self.send_due().await;
            let due = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = self.socket.readable() => self.take(&mut buffer),
                () = due => {}
                () = self.door.changed.notified() => {}
            }
        }
    }

    /// Takes what has come to the door.
    fn take(&self, buffer: &mut [u8]) {
        for _ in 0..BURST_PACKETS {
            let Ok((length, from)) = self.socket.try_recv_from(buffer) else { return };
            let mut link = self.door.link.lock();
            if from == self.speaker {
                link.push(Instant::now(), &buffer[..length]);
            } else {
                link.counts.stray += 1;
            }
        }
    }

    /// Sends what has to leave by now and tells when the next packet has to.
    async fn send_due(&self) -> Option<Instant> {
        loop {
            let packet = {
                let mut link = self.door.link.lock();
                match link.pop(Instant::now()) {
                    Some(packet) => packet,
                    None => return link.next(),
                }
            };
            if self.exit.send_to(&packet, self.listener).await.is_err() {
                self.door.link.lock().counts.failed += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests;
