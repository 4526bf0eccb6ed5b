//! Names of this room's metrics. Labels come from fixed tables, never from what a client sent.

use ::metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use engine::metrics::Counter;

/// JSON-RPC calls answered, by `method`; methods this node does not know count as `unknown`.
pub const RPC_REQUEST: &str = "net_rpc_requests_total";
/// JSON-RPC calls answered with an error, by `method`.
pub const RPC_ERROR: &str = "net_rpc_errors_total";
/// Seconds from a parsed call to its answer, by `group` of methods.
pub const RPC_REQUEST_SECONDS: &str = "net_rpc_request_seconds";
/// Open client sockets.
pub const RPC_SOCKET: &str = "net_rpc_socket_level";
/// Live subscriptions.
pub const RPC_SUBSCRIPTION: &str = "net_rpc_subscription_level";
/// Connections, calls and readers turned away, by `reason`.
pub const RPC_TURNED_AWAY: &str = "net_rpc_turned_away_total";
/// Calls waiting for a thread, by `lane`.
pub const RPC_LANE_DEPTH: &str = "net_rpc_lane_depth";
/// Peers that were cut off for what they sent.
pub const PEER_BANNED: &str = "net_peer_banned_total";
/// Connections that were not taken, by `reason`.
pub const PEER_REFUSED: &str = "net_peer_refused_total";
/// Letters, shares, requests and transactions that found no room, by `lane`.
pub const PEER_DROPPED: &str = "net_peer_dropped_total";

/// Connected clients over QUIC.
pub const CLIENT_CONNECTION: &str = "net_client_connection_level";
/// Connections of clients that were not taken, by `reason`.
pub const CLIENT_REFUSED: &str = "net_client_refused_total";

/// Access lists of this node's own blocks that went whole, beside their headers.
pub static LIST_SENT_WHOLE: Counter = Counter::new("net_list_sent_whole_total");
/// Access lists of this node's own blocks that were to be cut into shares.
pub static LIST_SENT_CUT: Counter = Counter::new("net_list_sent_cut_total");
/// Access lists that came beside their headers.
pub static LIST_BESIDE: Counter = Counter::new("net_list_beside_total");
/// Access lists that were put together of shares.
pub static LIST_ASSEMBLED: Counter = Counter::new("net_list_assembled_total");
/// Access lists that were not the ones that their headers name, or larger than gas pays for.
pub static LIST_REFUSED: Counter = Counter::new("net_list_refused_total");

/// Exports every counter of this room that is kept beside the recorder.
pub fn export() {
    for counter in [&LIST_SENT_WHOLE, &LIST_SENT_CUT, &LIST_BESIDE, &LIST_ASSEMBLED, &LIST_REFUSED] {
        counter.export();
    }
}

/// Describes every metric of this room to the installed recorder.
pub fn describe() {
    describe_counter!(RPC_REQUEST, "JSON-RPC calls answered, by method");
    describe_counter!(RPC_ERROR, "JSON-RPC calls answered with an error, by method");
    describe_histogram!(RPC_REQUEST_SECONDS, Unit::Seconds, "Seconds from a parsed call to its answer, by group");
    describe_gauge!(RPC_SOCKET, "Open client sockets");
    describe_gauge!(RPC_SUBSCRIPTION, "Live subscriptions");
    describe_counter!(RPC_TURNED_AWAY, "Connections, calls and readers turned away, by reason");
    describe_counter!(PEER_BANNED, "Peers that were cut off for what they sent");
    describe_counter!(PEER_REFUSED, "Connections that were not taken, by reason");
    describe_counter!(PEER_DROPPED, "Letters, shares, requests and transactions that found no room, by lane");
    describe_gauge!(CLIENT_CONNECTION, "Connected clients over QUIC");
    describe_counter!(CLIENT_REFUSED, "Connections of clients that were not taken, by reason");
    describe_gauge!(RPC_LANE_DEPTH, "Calls waiting for a thread, by lane");
}
