//! The relay of the cluster tests as a program: UDP between nodes on this machine, with delay, loss, reordering, cuts.
//!
//! ```text
//! relay --node 127.0.0.1:30001 --node 127.0.0.1:30002 --seed 7 --conditions "delay=40 jitter=10 loss=20"
//! 0 finds 1 at 127.0.0.1:41234
//! 1 finds 0 at 127.0.0.1:41235
//! ```
//! While it runs it takes lines, in which `*` stands for every node:
//!
//! ```text
//! set FROM TO WORDS..    changes conditions, such as `set 0 * delay=100 loss=50`; times in ms, shares per mille
//! partition 0,1 2,3      closes every way between groups
//! heal                   opens every way
//! counts                 prints what became of the packets of every way
//! ```
//! It ends with its input.

#![expect(clippy::print_stdout, reason = "a command for people and scripts")]

use std::{
    io::{self, BufRead as _},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::ExitCode,
};

use ::tests::relay::{Conditions, Options, Relay};
use clap::Parser;

#[derive(Clone, Debug, Parser)]
struct Arguments {
    /// Where a node receives; given once for each, in order.
    #[arg(long = "node", required = true, value_name = "ADDR:PORT")]
    nodes: Vec<SocketAddr>,
    /// Chance follows from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Address of the doors.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST), value_name = "ADDR")]
    bind: IpAddr,
    /// A network made for the test, beside loopback, such as 10.77.0.0/24.
    #[arg(long, value_parser = network, value_name = "ADDR/LENGTH")]
    network: Option<(Ipv4Addr, u8)>,
    /// What every way does at first.
    #[arg(long, default_value = "", value_name = "WORDS")]
    conditions: String,
}

fn network(text: &str) -> Result<(Ipv4Addr, u8), String> {
    let (address, length) = text.split_once('/').ok_or("no ADDR/LENGTH")?;
    let address = address.parse().map_err(|_| format!("{address} is no IPv4 address"))?;
    let length = length.parse().ok().filter(|length| *length <= 32).ok_or("the length is not from 0 to 32")?;
    Ok((address, length))
}

/// The nodes that a word names.
fn named(word: &str, nodes: usize) -> Result<Vec<usize>, String> {
    if word == "*" {
        return Ok((0..nodes).collect());
    }
    let known = |part: &str| part.parse().ok().filter(|node| *node < nodes).ok_or_else(|| format!("no node {part}"));
    word.split(',').map(known).collect()
}

/// Does what a line says and gives what it prints.
fn obey(relay: &Relay, line: &str) -> Result<Vec<String>, String> {
    let line = line.trim();
    let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
    match command {
        "" => {}
        "set" => {
            let mut words = rest.splitn(3, ' ');
            let (Some(from), Some(to)) = (words.next(), words.next()) else { return Err("set FROM TO WORDS".into()) };
            let words = words.next().unwrap_or_default();
            let (from, to) = (named(from, relay.nodes())?, named(to, relay.nodes())?);
            for (one, other) in relay.pairs().filter(|(one, other)| from.contains(one) && to.contains(other)) {
                relay.set(one, other, relay.conditions(one, other).with(words)?);
            }
        }
        "partition" => {
            let groups = rest.split_whitespace().map(|group| named(group, relay.nodes()));
            let groups = groups.collect::<Result<Vec<_>, _>>()?;
            relay.partition(&groups.iter().map(Vec::as_slice).collect::<Vec<_>>());
        }
        "heal" => relay.heal(),
        "counts" => {
            let line = |(from, to)| format!("{from} to {to}: {:?}", relay.counts(from, to));
            return Ok(relay.pairs().map(line).collect());
        }
        other => return Err(format!("no command {other}")),
    }
    Ok(Vec::new())
}

fn run(arguments: Arguments) -> Result<(), String> {
    let Arguments { nodes, seed, bind, network, conditions } = arguments;
    let conditions = Conditions::default().with(&conditions)?;
    let relay = Relay::start(&Options { seed, bind, nodes, network, conditions }).map_err(|error| error.to_string())?;
    for (from, to) in relay.pairs() {
        println!("{from} finds {to} at {}", relay.address(from, to));
    }
    for line in io::stdin().lock().lines() {
        match obey(&relay, &line.map_err(|error| error.to_string())?) {
            Ok(lines) => lines.iter().for_each(|line| println!("{line}")),
            Err(error) => println!("error: {error}"),
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_change_ways_and_nonsense_is_refused() {
        let nodes = vec!["127.0.0.1:9".parse().expect("an address"); 3];
        let relay = Relay::start(&Options::new(1, nodes)).expect("a relay");
        obey(&relay, "set 0 * delay=20 loss=5").expect("set");
        assert_eq!(relay.conditions(0, 2).loss, 5);
        assert_eq!(relay.conditions(2, 0).loss, 0);
        obey(&relay, "partition 0,1 2").expect("cut");
        assert_eq!([(0, 1), (1, 0), (0, 2)].map(|(from, to)| relay.conditions(from, to).open), [true, true, false]);
        assert_eq!(relay.conditions(0, 2).loss, 5);
        obey(&relay, "heal").expect("healed");
        assert!(relay.conditions(0, 2).open);
        assert_eq!(obey(&relay, "counts").expect("counted").len(), 6);
        for line in ["set", "set 0", "set 0 3 loss=1", "set x 1", "set 0 1 loss=9999", "partition 7", "dance"] {
            assert!(obey(&relay, line).is_err(), "{line}");
        }
        assert!(network("10.0.0.0").is_err() && network("10.0.0.0/33").is_err());
    }
}
