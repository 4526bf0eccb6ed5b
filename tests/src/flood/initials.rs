//! First packets of handshakes, at a rate; every second one with the address of somebody else.

use std::{
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use net::{NodeKey, testing};
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};

use super::{Counts, Options};
use crate::rng::Rng;

/// How often packets are sent.
const TICK: Duration = Duration::from_millis(2);

/// Packets that are made at most; then they are sent again.
const PACKETS_MAX: u64 = 100_000;

/// Own ports.
const PORTS: usize = 16;

/// Bytes of the heads of IPv4 and UDP.
const HEADS: usize = 28;

/// Makes as many as will be sent.
pub(super) fn make(options: &Options) -> Result<Vec<Vec<u8>>, String> {
    let key = NodeKey::from_seed(&[7; 32]).map_err(|error| error.to_string())?;
    let count = (options.per_second * options.lasts.as_secs().max(1)).min(PACKETS_MAX);
    testing::initials(&key, options.to.into(), usize::try_from(count).unwrap_or(usize::MAX))
}

/// Sends them, each once if there are enough.
pub(super) fn send(options: &Options, packets: &[Vec<u8>], counts: &Counts) -> Result<(), String> {
    let open = |_| UdpSocket::bind((options.from, 0)).and_then(|socket| socket.connect(options.to).map(|()| socket));
    let own: Vec<UdpSocket> = (0..PORTS).map(open).collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    let raw = if options.spoofed.is_empty() { None } else { Some(raw()?) };
    let mut rng = Rng::new(options.seed);
    let (begun, mut sent) = (Instant::now(), 0);
    let mut packets = packets.iter().cycle();
    while begun.elapsed() < options.lasts {
        let due = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX) * options.per_second / 1_000_000;
        while sent < due {
            let packet = packets.next().ok_or("there are no packets")?;
            sent += 1;
            match &raw {
                Some(raw) if sent % 2 == 0 => {
                    let place = usize::try_from(rng.below(options.spoofed.len() as u64)).unwrap_or_default();
                    let port = u16::try_from(1_024 + rng.below(60_000)).unwrap_or(1_024);
                    let packet = headed(SocketAddrV4::new(options.spoofed[place], port), options.to, packet);
                    sendto(raw, &packet, SendFlags::DONTWAIT, &SocketAddrV4::new(*options.to.ip(), 0))
                        .map_or_else(|_| (), |_| counts.add("spoofed", 1));
                }
                _ => {
                    let own = &own[usize::try_from(rng.below(PORTS as u64)).unwrap_or_default()];
                    // A full queue loses it, as a network would.
                    own.send(packet).map_or_else(|_| (), |_| counts.add("packets", 1));
                }
            }
        }
        std::thread::park_timeout(TICK);
    }
    Ok(())
}

fn raw() -> Result<OwnedFd, String> {
    socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW))
        .map_err(|error| format!("addresses of others take a raw socket, which needs root: {error}"))
}

/// A datagram with the heads of IPv4 and UDP; the kernel adds the checksum of the first, the second goes without.
fn headed(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len() + HEADS).unwrap_or(u16::MAX);
    let mut out = Vec::with_capacity(payload.len() + HEADS);
    out.extend_from_slice(&[0x45, 0]);
    out.extend_from_slice(&length.to_be_bytes());
    // No identification, no fragments, 64 hops, UDP.
    out.extend_from_slice(&[0, 0, 0x40, 0, 64, 17, 0, 0]);
    let address = |address: &Ipv4Addr| address.octets();
    out.extend_from_slice(&address(from.ip()));
    out.extend_from_slice(&address(to.ip()));
    out.extend_from_slice(&from.port().to_be_bytes());
    out.extend_from_slice(&to.port().to_be_bytes());
    out.extend_from_slice(&(length - 20).to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(payload);
    out
}
