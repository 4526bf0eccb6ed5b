//! Submits transactions over many connections and follows them into blocks.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bench::sign::SignedTransaction;
use eyre::{WrapErr, ensure};
use net::rpc_client::RpcClient;
use tokio::task::JoinSet;

use super::{
    board::{Board, Moment},
    chain::{BlockSummary, Chain},
    progress::{Progress, Standing},
    quic::{self, Later},
    submit::{Carrier, Connection, Pace},
};
use crate::threads::Threads;

/// How transactions are driven into a chain.
#[derive(Clone, Debug)]
pub(crate) struct Drive {
    pub(crate) urls: Vec<String>,
    /// Where transactions are sent over QUIC; over JSON-RPC if it is empty.
    pub(crate) quic: Vec<String>,
    pub(crate) pace: Pace,
    pub(crate) connections: usize,
    /// Between two looks for a new block.
    pub(crate) poll: Duration,
    /// The drive ends when nothing was included for so long.
    pub(crate) stall: Duration,
}

/// What became of the transactions of a drive, each list by index.
#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) sent: Vec<Option<Duration>>,
    pub(crate) accepted: Vec<Option<Duration>>,
    pub(crate) notarized: Vec<Option<Duration>>,
    pub(crate) included: Vec<Option<Duration>>,
    /// Blocks since the start, those without transactions of this drive too.
    pub(crate) blocks: Vec<BlockSummary>,
    pub(crate) refusals: BTreeMap<String, u64>,
    pub(crate) retries: u64,
    pub(crate) duplicates: u64,
    pub(crate) stalled: bool,
}

impl Drive {
    /// Runs until every accepted transaction is included, or nothing is included for too long.
    pub(crate) async fn run(
        &self,
        chain: &Chain,
        transactions: Arc<Vec<SignedTransaction>>,
        accounts: usize,
        name: &'static str,
    ) -> eyre::Result<Trace> {
        let later = Later::default();
        let (carriers, _threads) = self.connect(&later).await?;
        let first = chain.height().await? + 1;
        let queues = queues(&transactions, accounts, carriers.len());
        let board = Arc::new(Board::new(transactions, accounts, self.pace));
        let _ = later.set(board.clone());
        let mut tasks = JoinSet::new();
        // What was sent over QUIC is heard of until the end, long after the last one was sent.
        let _kept = carriers.clone();
        for (carrier, queues) in carriers.into_iter().zip(queues) {
            tasks.spawn(Connection::new(carrier, board.clone(), self.pace, queues).run());
        }
        let (blocks, stalled) = self.follow(chain, &board, &mut tasks, first, name).await?;
        board.stop.store(true, Ordering::Relaxed);
        while tasks.join_next().await.is_some() {}
        let times = |moments: &[Moment]| moments.iter().map(Moment::get).collect();
        Ok(Trace {
            sent: times(&board.sent),
            accepted: times(&board.accepted),
            notarized: times(&board.notarized),
            included: times(&board.included),
            blocks,
            refusals: board.refusals(),
            retries: board.retries.load(Ordering::Relaxed),
            duplicates: board.duplicates.load(Ordering::Relaxed),
            stalled,
        })
    }

    /// Opens the connections, so that the clock does not count their handshakes.
    async fn connect(&self, board: &Later) -> eyre::Result<(Vec<Carrier>, Option<Threads>)> {
        if !self.quic.is_empty() {
            let (clients, threads) = quic::connect(&self.quic, self.connections, board).await?;
            return Ok((clients.into_iter().map(Carrier::Quic).collect(), Some(threads)));
        }
        let mut clients = Vec::with_capacity(self.connections);
        for url in self.urls.iter().cycle().take(self.connections) {
            let client = RpcClient::new(url)?;
            client.call::<String>("eth_chainId", [(); 0]).await.wrap_err_with(|| format!("cannot reach {url}"))?;
            clients.push(Carrier::Rpc(client));
        }
        ensure!(!clients.is_empty(), "no connection");
        Ok((clients, None))
    }

    /// Looks for blocks until all that was accepted is included.
    async fn follow(
        &self,
        chain: &Chain,
        board: &Board,
        tasks: &mut JoinSet<()>,
        first: u64,
        name: &'static str,
    ) -> eyre::Result<(Vec<BlockSummary>, bool)> {
        let total = u64::try_from(board.transactions.len()).unwrap_or(u64::MAX);
        let mut progress = Progress::new(name, total);
        let mut blocks = Vec::new();
        let mut next = first;
        let mut moved = (0, Instant::now());
        loop {
            while tasks.try_join_next().is_some() {}
            // Read before the chain is looked at: what is accepted later may be in a later block.
            let finished = tasks.is_empty().then(|| board.accepted_count.load(Ordering::Relaxed));
            let failure = catch_up(chain, board, &mut blocks, &mut next).await.err();
            let accepted = board.accepted_count.load(Ordering::Relaxed);
            let included = board.included_count.load(Ordering::Relaxed);
            progress.show(Standing { accepted, included, height: next.saturating_sub(1) }, &board.latencies);
            // Over QUIC a client may hear of a block before it is looked at.
            let seen = board.in_block_count.load(Ordering::Relaxed);
            if failure.is_none() && finished.is_some_and(|accepted| seen >= accepted) {
                return Ok((blocks, false));
            }
            if moved.0 != included + accepted {
                moved = (included + accepted, Instant::now());
            } else if moved.1.elapsed() > self.stall {
                return failure.map_or(Ok((blocks, true)), Err);
            }
            tokio::time::sleep(self.poll).await;
        }
    }
}

/// Reads the blocks that came since the last look; a node that is too busy to answer is asked again.
async fn catch_up(chain: &Chain, board: &Board, blocks: &mut Vec<BlockSummary>, next: &mut u64) -> eyre::Result<()> {
    let height = chain.height().await?;
    while *next <= height {
        let Some(block) = chain.block(*next).await? else { break };
        note(board, &block);
        blocks.push(block);
        *next += 1;
    }
    Ok(())
}

fn note(board: &Board, block: &BlockSummary) {
    let now = board.start.elapsed();
    let ours = block.transactions.iter().filter(|hash| board.include(hash, now)).count();
    if ours > 0 {
        board.block_seen.notify_waiters();
    }
}

/// Gives every connection its senders, and every sender its transactions in order.
fn queues(transactions: &[SignedTransaction], accounts: usize, connections: usize) -> Vec<Vec<VecDeque<u32>>> {
    let mut of_account = vec![VecDeque::new(); accounts];
    for (transaction, index) in transactions.iter().zip(0_u32..) {
        of_account[transaction.from.index()].push_back(index);
    }
    let mut of_connection = vec![Vec::new(); connections];
    let busy = of_account.into_iter().filter(|queue| !queue.is_empty());
    for (position, queue) in busy.enumerate() {
        of_connection[position % connections].push(queue);
    }
    of_connection
}
