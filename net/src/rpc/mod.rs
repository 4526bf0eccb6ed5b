//! JSON-RPC over HTTP and WebSocket, as Ethereum's tools expect it.
//!
//! ```text
//! server -> door -> meter -> methods -> blocks accounts call fill fees logs filters send dev txpool
//! listen    who     count    table        |reads: lane   |calls: lane      |admission
//!                                       hub <- engine events -> subscribe, send and wait
//! ```
//!
//! Everything a client can make grow is bounded in [`limits`]; what a fault of the node looks like
//! from outside is in `error`. Nothing here decides: answers come from [`Query`], refusals of
//! transactions from [`Admission`].

mod accounts;
mod admin;
mod block_id;
mod blocks;
mod call;
mod connection;
mod convert;
mod dev;
mod door;
mod error;
mod fees;
mod fill;
mod filters;
mod finality;
mod hub;
mod lanes;
pub mod limits;
mod logs;
mod meter;
mod methods;
mod net_web3;
mod params;
mod revert;
mod send;
mod server;
mod status;
mod subscribe;
mod txpool;

use std::{io, net::SocketAddr, sync::Arc};

use engine::{admission::Admission, events::Events, ports::Network, query::Query};
use jsonrpsee::{Methods, core::RegisterMethodError};

use self::{
    connection::Unsent,
    door::Rules,
    fees::SuggestedTip,
    filters::Filters,
    hub::Hub,
    lanes::Lane,
    meter::Meters,
    methods::Registry,
    server::{Listening, Service, Speaks},
};
pub use self::{
    dev::{ACCOUNTS as DEV_ACCOUNTS, DevAccounts, PHRASE as DEV_PHRASE},
    door::CorsPolicy,
};
use crate::transport::Transport;

/// Where and whom to serve. The default serves nobody.
#[derive(Clone, Debug, Default)]
pub struct RpcConfig {
    /// Address for HTTP; `None` is off, port 0 any free one.
    pub http: Option<SocketAddr>,
    /// Address for WebSocket, which serves HTTP too; may equal `http`.
    pub ws: Option<SocketAddr>,
    /// Address for the operator's own methods, of this machine alone; `None` is off.
    pub admin: Option<SocketAddr>,
    /// Which web pages may read answers; none by default.
    pub cors: CorsPolicy,
    /// Host names that requests may name besides loopback and plain addresses; `*` is all.
    pub hosts: Vec<String>,
    /// Whether `txpool_*` is there; off by default.
    pub txpool: bool,
    /// Bounds; the defaults are those of [`limits`].
    pub limits: RpcLimits,
}

/// Bounds that an operator may move; the others are constants in [`limits`].
#[derive(Clone, Debug)]
pub struct RpcLimits {
    /// Open connections per listener.
    pub connections_max: u32,
    /// Bytes of one request or message.
    pub request_bytes_max: u32,
    /// Bytes of one answer or of all answers of a batch.
    pub response_bytes_max: u32,
    /// Calls in one batch.
    pub batch_calls_max: u32,
    /// Subscriptions of one connection.
    pub subscriptions_max: u32,
    /// Logs one query over several blocks may return.
    pub logs_max: usize,
    /// Blocks that one log query may span which names neither an address nor a topic.
    pub log_blocks_max: u64,
    /// Threads for EVM runs, log queries and proofs; each may be busy for seconds.
    pub call_threads: usize,
    /// Calls waiting for one of them.
    pub call_queue_max: usize,
}

impl Default for RpcLimits {
    fn default() -> Self {
        Self {
            connections_max: limits::CONNECTIONS_MAX,
            request_bytes_max: limits::REQUEST_BYTES_MAX,
            response_bytes_max: limits::RESPONSE_BYTES_MAX,
            batch_calls_max: limits::BATCH_CALLS_MAX,
            subscriptions_max: limits::SUBSCRIPTIONS_MAX,
            logs_max: limits::LOG_QUERY_LOGS_MAX,
            log_blocks_max: limits::LOG_QUERY_BLOCKS_MAX,
            call_threads: limits::call_threads(),
            call_queue_max: limits::CALL_QUEUE_CALLS_MAX,
        }
    }
}

/// The node as this room sees it.
#[derive(Clone)]
pub struct RpcNode {
    /// Reads.
    pub query: Query,
    /// Transactions.
    pub admission: Admission,
    /// News.
    pub events: Events,
    /// Peers.
    pub network: Arc<dyn Network>,
    /// The same network, if it is one over QUIC.
    pub transport: Option<Arc<Transport>>,
    /// Accounts the node signs for; development chains only.
    pub dev: Option<DevAccounts>,
}

impl std::fmt::Debug for RpcNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RpcNode").field("dev", &self.dev.is_some()).finish_non_exhaustive()
    }
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// Another program has the address, or it is not this machine's.
    #[error("cannot listen on {address} for {protocol}: {source}")]
    Listen {
        /// HTTP or WebSocket.
        protocol: &'static str,
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The operator's methods are for this machine alone.
    #[error("{0} is no loopback address: whoever reaches the operator's methods operates the node")]
    Admin(SocketAddr),
    /// The system starts no more threads.
    #[error("cannot start a thread for calls: {0}")]
    Thread(io::Error),
    /// Two methods have one name.
    #[error("cannot build the table of methods: {0}")]
    Methods(#[from] RegisterMethodError),
}

/// A server at work. Dropping it stops it without waiting.
pub struct RpcServer {
    http_addr: Option<SocketAddr>,
    ws_addr: Option<SocketAddr>,
    admin_addr: Option<SocketAddr>,
    listening: Vec<Listening>,
}

impl std::fmt::Debug for RpcServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RpcServer").field("http", &self.http_addr).field("ws", &self.ws_addr).finish_non_exhaustive()
    }
}

impl RpcServer {
    /// Where HTTP is served.
    #[must_use]
    pub const fn http_addr(&self) -> Option<SocketAddr> {
        self.http_addr
    }

    /// Where WebSocket is served.
    #[must_use]
    pub const fn ws_addr(&self) -> Option<SocketAddr> {
        self.ws_addr
    }

    /// Where the operator's methods are served.
    #[must_use]
    pub const fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin_addr
    }

    /// Stops accepting, lets open calls finish for a few seconds, and closes every connection.
    pub async fn stop(self) {
        for listening in self.listening {
            listening.stop().await;
        }
    }
}

/// Serves a node until [`RpcServer::stop`]. Must run inside a tokio runtime with time and I/O.
///
/// # Errors
/// [`RpcError`]; nothing is left listening then.
pub async fn serve(config: RpcConfig, node: RpcNode) -> Result<RpcServer, RpcError> {
    crate::metrics::describe();
    let node = Arc::new(Node::new(&config, node).map_err(RpcError::Thread)?);
    let methods = methods(&config, &node)?;
    let service = Service {
        meters: Arc::new(Meters::new(methods.method_names())),
        methods,
        node,
        rules: Arc::new(Rules { cors: config.cors, hosts: config.hosts }),
    };
    let mut server = RpcServer { http_addr: None, ws_addr: None, admin_addr: None, listening: Vec::new() };
    // Port 0 is another one each time.
    let shared = config.ws == config.http && config.ws.is_some_and(|address| address.port() != 0);
    if let Some(address) = config.http {
        let speaks = if shared { Speaks::Both } else { Speaks::Http };
        server.http_addr = Some(server.listen(address, speaks, "HTTP", &service).await?);
    }
    if let Some(address) = config.ws {
        server.ws_addr = match server.http_addr {
            Some(bound) if shared => Some(bound),
            _ => Some(server.listen(address, Speaks::Both, "WebSocket", &service).await?),
        };
    }
    if let Some(address) = config.admin {
        if !address.ip().is_loopback() {
            return Err(RpcError::Admin(address));
        }
        let methods = admin::methods(&service.node)?;
        let rules = Arc::new(Rules { cors: CorsPolicy::None, hosts: Vec::new() });
        let service = Service { meters: Arc::new(Meters::new(methods.method_names())), methods, rules, ..service };
        server.admin_addr = Some(server.listen(address, Speaks::Http, "administration", &service).await?);
    }
    Ok(server)
}

impl RpcServer {
    async fn listen(
        &mut self,
        address: SocketAddr,
        speaks: Speaks,
        protocol: &'static str,
        service: &Service,
    ) -> Result<SocketAddr, RpcError> {
        let listening = Listening::start(address, speaks, service.clone())
            .await
            .map_err(|source| RpcError::Listen { protocol, address, source })?;
        let bound = listening.address;
        self.listening.push(listening);
        Ok(bound)
    }
}

/// The table of methods of one node.
fn methods(config: &RpcConfig, node: &Arc<Node>) -> Result<Methods, RegisterMethodError> {
    let mut registry = Registry::new(Arc::clone(node));
    net_web3::register(&mut registry)?;
    finality::register(&mut registry)?;
    status::register(&mut registry)?;
    blocks::register(&mut registry)?;
    accounts::register(&mut registry)?;
    fees::register(&mut registry)?;
    call::register(&mut registry)?;
    fill::register(&mut registry)?;
    send::register(&mut registry)?;
    logs::register(&mut registry)?;
    filters::register(&mut registry)?;
    subscribe::register(&mut registry)?;
    dev::register(&mut registry, node.dev.is_some())?;
    if config.txpool {
        txpool::register(&mut registry)?;
    }
    Ok(registry.module.into())
}

/// What methods answer from.
struct Node {
    query: Query,
    admission: Admission,
    network: Arc<dyn Network>,
    transport: Option<Arc<Transport>>,
    dev: Option<DevAccounts>,
    txpool: bool,
    limits: RpcLimits,
    hub: Hub,
    unsent: Unsent,
    filters: Filters,
    suggested: SuggestedTip,
    /// One `eth_sendTransaction` at a time.
    sends: tokio::sync::Mutex<()>,
    reads: Lane,
    calls: Lane,
}

impl Node {
    fn new(config: &RpcConfig, node: RpcNode) -> io::Result<Self> {
        let limits = config.limits.clone();
        Ok(Self {
            reads: Lane::start("read", limits::READ_THREADS, limits::READ_QUEUE_CALLS_MAX)?,
            calls: Lane::start("call", limits.call_threads.max(1), limits.call_queue_max)?,
            hub: Hub::start(&node.events),
            unsent: Unsent::default(),
            query: node.query,
            admission: node.admission,
            network: node.network,
            transport: node.transport,
            dev: node.dev,
            txpool: config.txpool,
            limits,
            filters: Filters::default(),
            suggested: SuggestedTip::default(),
            sends: tokio::sync::Mutex::default(),
        })
    }

    fn response_bytes_max(&self) -> usize {
        usize::try_from(self.limits.response_bytes_max).unwrap_or(usize::MAX)
    }
}
