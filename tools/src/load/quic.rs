//! Clients over QUIC for a drive: what nodes tell of its transactions goes to the board.

use std::sync::{Arc, OnceLock};

use alloy_primitives::keccak256;
use eyre::WrapErr as _;
use net::{
    NodeKey,
    client::{Client, ClientConfig},
    ingress::wire::Event,
};

use super::board::Board;
use crate::threads::Threads;

/// The board of a drive, once it has begun.
pub(crate) type Later = Arc<OnceLock<Arc<Board>>>;

/// Connects so many clients, each with a key of its own, to nodes in turn; on threads of their own, so that what they
/// hear waits for no block that is looked at.
pub(crate) async fn connect(nodes: &[String], count: usize, board: &Later) -> eyre::Result<(Vec<Client>, Threads)> {
    let (handle, threads) = Threads::start("load-quic", || ())?;
    let (nodes, board) = (nodes.to_vec(), board.clone());
    Ok((handle.spawn(async move { connect_here(&nodes, count, &board).await }).await??, threads))
}

async fn connect_here(nodes: &[String], count: usize, board: &Later) -> eyre::Result<Vec<Client>> {
    let mut clients = Vec::with_capacity(count);
    for (number, node) in nodes.iter().cycle().take(count).enumerate() {
        let key = keccak256(format!("sluice load client {number} of process {}", std::process::id()));
        let board = board.clone();
        let listener = Box::new(move |event: &Event| {
            if let Some(board) = board.get() {
                hear(board, event);
            }
        });
        let config = ClientConfig { listener: Some(listener), ..ClientConfig::new(node, NodeKey::from_seed(&key.0)?) };
        clients.push(Client::connect(config).await.wrap_err_with(|| format!("cannot reach {node} over QUIC"))?);
    }
    Ok(clients)
}

fn hear(board: &Board, event: &Event) {
    let Some(index) = event.hash().and_then(|hash| board.index_of(&hash)) else { return };
    match event {
        Event::Admitted(_) => board.accept(index),
        Event::Notarized(..) => {
            board.notarized[index].set(board.start.elapsed());
        }
        Event::Final(..) => board.hear_included(index),
        Event::Refused(_, reason) | Event::Dropped(_, reason) => board.lose(index, &reason.text),
        Event::Welcome { .. } | Event::Unknown(_) | Event::Head(_) | Event::Log(_) => {}
    }
}
