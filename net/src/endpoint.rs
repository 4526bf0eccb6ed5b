//! Sockets on which QUIC is served: those of nodes and of clients are opened alike.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
};

use quinn::{Connection, Endpoint, EndpointConfig, ServerConfig, TransportConfig, crypto::rustls::QuicServerConfig};
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size};
use rustls::pki_types::CertificateDer;

/// Bytes that the system keeps of packets that nobody has read, or not yet sent: a large body from three peers at once.
const SOCKET_BYTES: usize = 4 * 1024 * 1024;

/// Packets of handshakes that nobody has looked at.
const INCOMING_MAX: usize = 256;

/// Why nobody is served.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The key does not serve TLS.
    #[error("the node's key is not taken: {0}")]
    Key(#[from] rustls::Error),
    /// The socket cannot be opened.
    #[error("cannot listen on {address}: {error}")]
    Socket {
        /// Where.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
}

/// Opens a socket and serves QUIC on it; gives where that is.
///
/// # Errors
/// [`ListenError::Socket`].
pub(crate) fn listen(
    address: SocketAddr,
    crypto: QuicServerConfig,
    transport: Arc<TransportConfig>,
    endpoint: EndpointConfig,
) -> Result<(Endpoint, SocketAddr), ListenError> {
    let mut server = ServerConfig::with_crypto(Arc::new(crypto));
    server.transport_config(transport);
    server.migration(false);
    server.max_incoming(INCOMING_MAX);
    server.incoming_buffer_size(16 * 1024);
    server.incoming_buffer_size_total(1024 * 1024);
    let open = || {
        let socket = UdpSocket::bind(address)?;
        // As much as the system allows; with less, bursts lose packets.
        set_socket_recv_buffer_size(&socket, SOCKET_BYTES)?;
        set_socket_send_buffer_size(&socket, SOCKET_BYTES)?;
        let runtime = quinn::default_runtime().ok_or_else(|| io::Error::other("there is no runtime"))?;
        let endpoint = Endpoint::new(endpoint, Some(server), socket, runtime)?;
        let address = endpoint.local_addr()?;
        Ok((endpoint, address))
    };
    open().map_err(|error| ListenError::Socket { address, error })
}

/// What the other side of a connection has shown: a certificate, or a key.
pub(crate) fn shown(connection: &Connection) -> Option<CertificateDer<'static>> {
    let shown = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    shown.into_iter().next()
}
