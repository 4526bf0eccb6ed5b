//! Sockets: listening, accepting, stopping.
//!
//! ```text
//! accept --permit--> task of the connection: socket with time limits -> door -> jsonrpsee
//!    no permit: 503        ends with the connection, or STOP_GRACE after the server stops
//! ```

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use ::metrics::counter;
use jsonrpsee::{
    Methods,
    core::middleware::RpcServiceBuilder,
    server::{
        BatchRequestConfig, PingConfig, Server, ServerConfig, ServerConfigBuilder, ServerHandle, StopHandle,
        serve_with_graceful_shutdown, stop_channel,
    },
};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
};

use super::{
    Node, RpcLimits,
    connection::{Connection, Socket},
    door::{DoorLayer, Rules},
    limits::{PING_INTERVAL, SOCKET_IDLE_MAX, STOP_GRACE, SUBSCRIBER_MESSAGES_MAX},
    meter::{Metered, Meters},
    subscribe::HexIds,
};
use crate::metrics;

/// Which protocols a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaks {
    /// Requests only.
    Http,
    /// Requests and WebSocket.
    Both,
}

/// What every connection is served with.
#[derive(Clone)]
pub(super) struct Service {
    /// The methods.
    pub(super) methods: Methods,
    /// Their counters.
    pub(super) meters: Arc<Meters>,
    /// The node behind them.
    pub(super) node: Arc<Node>,
    /// Who may ask.
    pub(super) rules: Arc<Rules>,
}

/// A listener at work.
pub(super) struct Listening {
    /// Where.
    pub(super) address: SocketAddr,
    stop: ServerHandle,
    task: JoinHandle<()>,
}

impl Listening {
    /// Begins to listen.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub(super) async fn start(address: SocketAddr, speaks: Speaks, service: Service) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (stopped, stop) = stop_channel();
        let config = server_config(&service.node.limits, speaks);
        let task = tokio::spawn(accept(listener, service, config, stopped));
        Ok(Self { address, stop, task })
    }

    /// Stops accepting, lets open connections finish for [`STOP_GRACE`], then closes them.
    pub(super) async fn stop(self) {
        // An error says that it has stopped already.
        let _ = self.stop.stop();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the listener's task failed");
        }
    }
}

fn server_config(limits: &RpcLimits, speaks: Speaks) -> ServerConfig {
    // A client that answers no ping for the time of an idle socket is gone.
    let ping = PingConfig::new().ping_interval(PING_INTERVAL).inactive_limit(SOCKET_IDLE_MAX).max_failures(1);
    let config = ServerConfigBuilder::new()
        .max_request_body_size(limits.request_bytes_max)
        .max_response_body_size(limits.response_bytes_max)
        .max_connections(limits.connections_max)
        .max_subscriptions_per_connection(limits.subscriptions_max)
        .set_batch_request_config(BatchRequestConfig::Limit(limits.batch_calls_max))
        .set_message_buffer_capacity(SUBSCRIBER_MESSAGES_MAX)
        .enable_ws_ping(ping)
        .set_id_provider(HexIds::default());
    match speaks {
        Speaks::Http => config.http_only().build(),
        Speaks::Both => config.build(),
    }
}

async fn accept(listener: TcpListener, service: Service, config: ServerConfig, stopped: StopHandle) {
    let permits = usize::try_from(service.node.limits.connections_max).unwrap_or(usize::MAX);
    let permits = Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
    let mut connections = JoinSet::new();
    let mut stopping = std::pin::pin!(stopped.clone().shutdown());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stopping => break,
            Some(_) = connections.join_next() => continue,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Most often too many open files; trying again at once would only burn the core.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        match Arc::clone(&permits).try_acquire_owned() {
            Ok(permit) => {
                let serving = serve(stream, service.clone(), config.clone(), stopped.clone());
                connections.spawn(async move {
                    serving.await;
                    drop(permit);
                });
            }
            Err(_) => turn_away(stream),
        }
    }
    drop(listener);
    // Every task ends by itself within the grace; one that panicked has ended too.
    while connections.join_next().await.is_some() {}
}

/// Tells a client that there is no room for it, if it listens at all.
fn turn_away(mut stream: TcpStream) {
    counter!(metrics::RPC_TURNED_AWAY, "reason" => "connections").increment(1);
    let answer = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    tokio::spawn(async move {
        let _ = tokio::time::timeout(Duration::from_secs(1), stream.write_all(answer)).await;
    });
}

/// Serves one connection until either side ends it.
async fn serve(stream: TcpStream, service: Service, config: ServerConfig, server: StopHandle) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection without TCP_NODELAY");
    }
    let (stopped, end) = stop_channel();
    let connection = Arc::new(Connection::new(end.clone(), service.node.unsent.clone()));
    let socket = Socket::new(stream, Arc::clone(&connection));
    let door = DoorLayer { rules: service.rules, connection };
    let (meters, node) = (service.meters, service.node);
    let rpc = RpcServiceBuilder::new().layer_fn(move |inner| Metered {
        inner,
        meters: Arc::clone(&meters),
        node: Arc::clone(&node),
    });
    let tower = Server::builder()
        .set_config(config)
        .set_rpc_middleware(rpc)
        .set_http_middleware(tower::ServiceBuilder::new().layer(door))
        .to_service_builder()
        .build(service.methods, stopped.clone());
    let serving = serve_with_graceful_shutdown(socket, tower, stopped.shutdown());
    let closing = end.clone();
    let ended = async move {
        if let Err(error) = serving.await {
            tracing::debug!(%error, "a connection ended");
        }
        // After an upgrade the WebSocket lives on in a task of its own.
        closing.stopped().await;
    };
    let mut ended = std::pin::pin!(ended);
    tokio::select! {
        () = &mut ended => {}
        () = server.shutdown() => {
            let _ = end.stop();
            let _ = tokio::time::timeout(STOP_GRACE, ended).await;
        }
    }
}
