//! Ports of 127.0.0.1 that nobody has, for networks of nodes on one machine.

use std::{
    any::Any,
    hash::{BuildHasher as _, RandomState},
    io,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    ops::Range,
};

/// What goes over a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// Streams.
    Tcp,
    /// Datagrams.
    Udp,
}

/// Ports that [`free`] gives: below those that Linux gives to connections, so that no connection takes the port of a
/// node that is down.
const RANGE: Range<u16> = 10_000..32_000;

fn take(port: u16, carrier: Carrier) -> io::Result<Box<dyn Any>> {
    let address = (Ipv4Addr::LOCALHOST, port);
    Ok(match carrier {
        Carrier::Tcp => Box::new(TcpListener::bind(address)?),
        Carrier::Udp => Box::new(UdpSocket::bind(address)?),
    })
}

/// Whether nobody has this port.
#[must_use]
pub fn is_free(port: u16, carrier: Carrier) -> bool {
    take(port, carrier).is_ok()
}

/// A port for each, all different, that nobody has at this moment.
///
/// # Errors
/// There are not so many.
pub fn free(carriers: &[Carrier]) -> io::Result<Vec<u16>> {
    free_in(RANGE, carriers)
}

fn free_in(range: Range<u16>, carriers: &[Carrier]) -> io::Result<Vec<u16>> {
    let count = range.end.saturating_sub(range.start);
    // Two networks that are made at once should not look in the same places.
    let first = u16::try_from(RandomState::new().hash_one("port") % u64::from(count.max(1))).unwrap_or_default();
    let places = (0..count).map(|place| u32::from(place).saturating_add(u32::from(first)) % u32::from(count));
    let mut ports = places.filter_map(|place| range.start.checked_add(u16::try_from(place).ok()?));
    let mut held = Vec::new();
    let found: Vec<_> = carriers
        .iter()
        .map_while(|carrier| {
            ports.find(|port| {
                take(*port, *carrier).is_ok_and(|socket| {
                    held.push(socket);
                    true
                })
            })
        })
        .collect();
    if found.len() < carriers.len() {
        let text = format!("{} ports are wanted, {} are free", carriers.len(), found.len());
        return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ports_are_free_and_different() {
        let carriers = [Carrier::Tcp, Carrier::Udp, Carrier::Tcp, Carrier::Tcp, Carrier::Udp];
        let ports = free(&carriers).unwrap();
        assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), carriers.len());
        assert!(ports.iter().all(|port| RANGE.contains(port)));
    }

    #[test]
    fn a_port_that_somebody_has_is_not_free() {
        for carrier in [Carrier::Tcp, Carrier::Udp] {
            // One that others do not get in this instant, for connections get others.
            let port = free(&[carrier]).unwrap()[0];
            let held = take(port, carrier).unwrap();
            assert!(!is_free(port, carrier), "{carrier:?}");
            drop(held);
        }
    }

    #[test]
    fn no_more_ports_are_given_than_there_are() {
        let first = free(&[Carrier::Tcp]).unwrap()[0];
        for (carriers, range) in [(2, first..first + 1), (1, first..first)] {
            assert!(free_in(range, &vec![Carrier::Tcp; carriers]).is_err());
        }
    }
}
