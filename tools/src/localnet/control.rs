//! Plays with a local network from another terminal.

use std::{path::Path, time::Duration};

use alloy_primitives::B256;
use eyre::{WrapErr, bail, ensure};
use net::rpc_client::RpcClient;
use rustix::process::Signal;
use serde::Serialize;
use serde_json::Value;

use super::{
    process::{self, Process},
    record::Folder,
};

/// Longest time in which a node stops when it is asked to.
pub(super) const STOP_TIME_MAX: Duration = Duration::from_secs(30);

/// Longest time in which a process that is killed is gone.
const KILL_TIME_MAX: Duration = Duration::from_secs(10);

/// Longest wait for a node to say that it cut a peer.
const ADMIN_TIME_MAX: Duration = Duration::from_secs(10);

/// What was done to a node.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Done {
    pub(super) node: usize,
    pub(super) name: String,
    pub(super) did: &'static str,
    pub(super) pid: Option<u32>,
}

/// Ends nodes as a power cut would, all of them before any is waited for.
pub(super) fn kill(folder: &Folder, numbers: &[usize]) -> eyre::Result<Vec<Done>> {
    end(folder, numbers, Signal::KILL, KILL_TIME_MAX, "killed")
}

/// Asks nodes to stop, and waits until they have.
pub(super) fn stop(folder: &Folder, numbers: &[usize]) -> eyre::Result<Vec<Done>> {
    end(folder, numbers, Signal::TERM, STOP_TIME_MAX, "stopped")
}

fn end(
    folder: &Folder,
    numbers: &[usize],
    signal: Signal,
    longest: Duration,
    did: &'static str,
) -> eyre::Result<Vec<Done>> {
    // Whoever runs the network has to know first that this is no accident.
    let found: Vec<_> = folder.edit(|network| {
        let mut named = |number: &usize| {
            let node = network.node(*number)?;
            node.should_run = false;
            eyre::Ok((*number, node.name.clone(), node.process.clone()))
        };
        numbers.iter().map(&mut named).collect::<eyre::Result<_>>()
    })?;
    let mut sent = Vec::new();
    for (node, name, process) in found {
        let hit = match &process {
            Some(process) => process.signal(signal)?,
            None => false,
        };
        sent.push((node, name, process.filter(|_| hit)));
    }
    let mut done = Vec::new();
    for (node, name, process) in sent {
        let Some(process) = process else {
            done.push(Done { node, name, did: "was down", pid: None });
            continue;
        };
        ensure!(process.wait(longest)?, "node {node}, process {}, has not ended after {longest:?}", process.pid);
        done.push(Done { node, name, did, pid: Some(process.pid) });
        forget(folder, node, &process)?;
    }
    Ok(done)
}

/// Takes out a process that has ended, unless another one has been started instead.
fn forget(folder: &Folder, number: usize, ended: &Process) -> eyre::Result<()> {
    folder.edit(|network| {
        let node = network.node(number)?;
        if node.process.as_ref() == Some(ended) {
            node.process = None;
        }
        Ok(())
    })
}

/// Starts nodes again, with what they were started with before; those that run are stopped first.
pub(super) fn restart(folder: &Folder, program: &Path, numbers: &[usize]) -> eyre::Result<Vec<Done>> {
    stop(folder, numbers)?;
    numbers.iter().map(|number| start(folder, program, *number).map(|(done, _)| done)).collect()
}

/// Starts a node that is down; gives its process for whoever has to wait for it.
pub(super) fn start(
    folder: &Folder,
    program: &Path,
    number: usize,
) -> eyre::Result<(Done, Option<std::process::Child>)> {
    folder.edit(|network| {
        let node = network.node(number)?;
        node.should_run = true;
        let name = node.name.clone();
        if let Some(process) = node.process.as_ref().filter(|process| process.is_alive()) {
            return Ok((Done { node: number, name, did: "was up", pid: Some(process.pid) }, None));
        }
        let (child, process) = process::start(program, &node.arguments, &node.log)?;
        let pid = Some(process.pid);
        node.process = Some(process);
        Ok((Done { node: number, name, did: "started", pid }, Some(child)))
    })
}

/// Cuts the group of these nodes from all others, or lets them talk again.
///
/// Each side is told to take nothing from the other and to send it nothing, so that one that starts anew is still cut.
pub(super) fn partition(folder: &Folder, numbers: &[usize], heal: bool) -> eyre::Result<Vec<Done>> {
    let mut network = folder.read()?;
    for number in numbers {
        network.node(*number)?;
    }
    let (method, did) = if heal { ("admin_unblock", "healed") } else { ("admin_block", "cut") };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut done = Vec::new();
    for (number, node) in network.nodes.iter().enumerate() {
        let is_inside = numbers.contains(&number);
        let beyond = network.nodes.iter().enumerate().filter(|(other, _)| numbers.contains(other) != is_inside);
        let beyond: Vec<B256> = beyond.map(|(_, other)| other.identity).collect();
        let alive = node.process.as_ref().filter(|process| process.is_alive());
        let Some(process) = alive else {
            // The others are told all the same; a node that starts knows of no cut.
            done.push(Done { node: number, name: node.name.clone(), did: "is down", pid: None });
            continue;
        };
        let told = runtime.block_on(tell(&node.admin, method, &beyond));
        told.wrap_err_with(|| format!("node {number} ({}) at {}", node.name, node.admin))?;
        done.push(Done { node: number, name: node.name.clone(), did, pid: Some(process.pid) });
    }
    Ok(done)
}

async fn tell(admin: &str, method: &str, peers: &[B256]) -> eyre::Result<()> {
    let client = RpcClient::new(admin)?;
    for peer in peers {
        match tokio::time::timeout(ADMIN_TIME_MAX, client.call::<Value>(method, [peer])).await {
            Ok(answer) => answer.map(|_| ()).wrap_err_with(|| format!("{method} {peer}"))?,
            Err(_) => bail!("{method} {peer} was not answered in {ADMIN_TIME_MAX:?}"),
        }
    }
    Ok(())
}
