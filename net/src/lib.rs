//! Talks: the only room that opens a socket, and the only asynchronous one.
//!
//! ```text
//! Ethereum's tools --HTTP, WebSocket--> rpc --> engine::query (reads)
//!                                           --> engine::admission (transactions)
//! engine::events --> rpc::hub --> subscriptions, filters, callers who wait for a receipt
//! market makers  --QUIC--> ingress --> engine::admission; engine::events --> ingress
//! ```
//!
//! | module | promise |
//! |---|---|
//! | [`rpc`] | JSON-RPC as Ethereum's tools expect it, bounded in every direction |
//! | [`transport`] | the `Network` port over QUIC: votes, blocks, transactions between nodes that know each other by key |
//! | [`ingress`] | transactions over QUIC: clients known by key, and told what becomes of each |
//! | [`client`] | the other end of it |
//! | [`rpc_client`] | a small JSON-RPC client for load generation and tests |
//! | [`endpoint`] | sockets on which QUIC is served |
//! | `tls`, `doorkeeper` | handshakes on them: keys alone, and places |
//! | [`identity`] | the key by which the network knows a node |
//! | [`ports`] | ports of this machine that nobody has |
//! | [`solitary`] | the `Network` port of a network of one |
//! | [`metrics`] | names of this room's metrics |
//! | `testing` | a peer that keeps no rule, for tests |

pub mod client;
mod doorkeeper;
pub mod endpoint;
pub mod identity;
pub mod ingress;
pub mod metrics;
pub mod ports;
pub mod rpc;
pub mod rpc_client;
pub mod solitary;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod tls;
pub mod transport;

pub use identity::NodeKey;
pub use solitary::Solitary;
