//! Subscriptions over WebSocket: heads, logs, admitted transactions.
//!
//! ```text
//! hub ring --> task of the subscription --> the connection's queue --> socket
//!   full: lagged        full, or 1 MiB waiting: it waits, and lags        full: stalled
//! ```
//! A reader that lags by a whole ring, or takes nothing for [`SLOW_READER_MAX`], is cut off: it could
//! not know what it missed, and a closed connection tells it.

use std::{sync::Arc, time::Duration};

use ::metrics::gauge;
use alloy_primitives::B256;
use engine::types::{LogFilter, PooledTransaction};
use jsonrpsee::{
    SubscriptionMessage, SubscriptionSink,
    core::traits::IdProvider,
    server::PendingSubscriptionSink,
    types::{Params, SubscriptionId},
};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::{
    Node,
    connection::Connection,
    convert,
    error::{Refusal, limit, no_notifications, unknown_subscription},
    hub::Head,
    limits::SUBSCRIPTION_ITEMS_MAX,
    logs::{self, LogBlooms, LogQuery},
    methods::{Registered, Registry},
    params::Arguments,
};
use crate::metrics;

/// How long a connection with a full queue may take nothing.
const SLOW_READER_MAX: Duration = Duration::from_secs(10);

/// How often a full queue is looked at again.
const SLOW_READER_CHECK: Duration = Duration::from_millis(5);

/// Adds the methods of this file.
pub(super) fn register(registry: &mut Registry) -> Registered {
    registry.module.register_subscription(
        "eth_subscribe",
        "eth_subscription",
        "eth_unsubscribe",
        |params, pending, node, extensions| async move {
            let connection = extensions.get::<Arc<Connection>>().cloned();
            let wanted =
                Wanted::read(&params).and_then(|wanted| Ok((wanted, connection.ok_or_else(no_notifications)?)));
            match wanted {
                Ok((wanted, connection)) => serve(wanted, pending, &node, connection).await,
                Err(refusal) => pending.reject(refusal).await,
            }
        },
    )?;
    Ok(())
}

/// What a client subscribed to.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Heads,
    Logs(LogFilter),
    Hashes,
    Transactions,
    Syncing,
}

impl Wanted {
    fn read(params: &Params<'_>) -> Result<Self, Refusal> {
        let mut arguments = Arguments::new(params)?;
        let kind: String = arguments.required()?;
        let wanted = match kind.as_str() {
            "newHeads" => Self::Heads,
            "logs" => {
                let query: Option<LogQuery> = arguments.optional()?;
                Self::Logs(query.map(|query| query.filter).unwrap_or_default())
            }
            "newPendingTransactions" if arguments.optional()?.unwrap_or(false) => Self::Transactions,
            "newPendingTransactions" => Self::Hashes,
            "syncing" => Self::Syncing,
            _ => return Err(unknown_subscription(&kind)),
        };
        arguments.end()?;
        Ok(wanted)
    }

    /// Addresses and topics it names.
    fn items(&self) -> usize {
        if let Self::Logs(filter) = self { filter.items() } else { 0 }
    }
}

/// Follows one ring until the client leaves, unsubscribes or is too slow. The ring is opened before
/// the client hears of the subscription, so that it misses nothing after.
async fn serve(wanted: Wanted, pending: PendingSubscriptionSink, node: &Node, connection: Arc<Connection>) {
    let Some(_items) = connection.keep_items(wanted.items()) else {
        let text = format!("too many subscriptions: at most {SUBSCRIPTION_ITEMS_MAX} addresses and topics in all");
        return pending.reject(limit(text)).await;
    };
    let mut feed = Feed::open(wanted, node);
    let Ok(sink) = pending.accept().await else { return };
    let _level = Level::raise();
    let outlet = Outlet { sink, connection };
    loop {
        let news = tokio::select! {
            () = outlet.sink.closed() => return,
            news = feed.next() => news,
        };
        match news {
            Ok(news) => {
                if !feed.deliver(news, &outlet).await {
                    return;
                }
            }
            Err(RecvError::Closed) => return,
            Err(RecvError::Lagged(_)) => return outlet.connection.cut_slow_reader(),
        }
    }
}

/// Where the news of one subscription comes from.
enum Feed {
    Heads(Receiver<Arc<Head>>),
    Logs {
        heads: Receiver<Arc<Head>>,
        filter: LogFilter,
        blooms: LogBlooms,
    },
    Hashes(Receiver<B256>),
    Transactions(Receiver<PooledTransaction>),
    /// This node is never behind, so there is never anything to tell.
    Nothing,
}

/// Something to tell a subscriber.
enum News {
    Head(Arc<Head>),
    Hash(B256),
    Transaction(PooledTransaction),
}

impl Feed {
    fn open(wanted: Wanted, node: &Node) -> Self {
        match wanted {
            Wanted::Heads => Self::Heads(node.hub.heads()),
            Wanted::Logs(filter) => Self::Logs { heads: node.hub.heads(), blooms: LogBlooms::of(&filter), filter },
            Wanted::Hashes => Self::Hashes(node.hub.pending_hashes()),
            Wanted::Transactions => Self::Transactions(node.hub.pending()),
            Wanted::Syncing => Self::Nothing,
        }
    }

    async fn next(&mut self) -> Result<News, RecvError> {
        match self {
            Self::Heads(heads) | Self::Logs { heads, .. } => heads.recv().await.map(News::Head),
            Self::Hashes(hashes) => hashes.recv().await.map(News::Hash),
            Self::Transactions(transactions) => transactions.recv().await.map(News::Transaction),
            Self::Nothing => std::future::pending().await,
        }
    }

    /// Sends what there is to send; `false` ends the subscription.
    async fn deliver(&self, news: News, outlet: &Outlet) -> bool {
        match (self, news) {
            (Self::Logs { filter, blooms, .. }, News::Head(head)) => {
                !blooms.may_be_in(&head.block.block.header.logs_bloom) || send_logs(filter, &head, outlet).await
            }
            (_, News::Head(head)) => match head.header_json() {
                Some(json) => outlet.send(json).await,
                None => true,
            },
            (_, News::Hash(hash)) => outlet.send(&hash).await,
            (_, News::Transaction(pooled)) => outlet.send(&convert::waiting(&pooled)).await,
        }
    }
}

async fn send_logs(filter: &LogFilter, head: &Head, outlet: &Outlet) -> bool {
    for place in logs::places(filter, &head.block) {
        if let Some(log) = place.json(&head.block)
            && !outlet.send(&log).await
        {
            return false;
        }
    }
    true
}

/// The way to one subscriber.
struct Outlet {
    sink: SubscriptionSink,
    connection: Arc<Connection>,
}

impl Outlet {
    /// Queues one message; waits while the connection has too much queued. `false` ends the
    /// subscription.
    async fn send<T: Serialize + ?Sized>(&self, item: &T) -> bool {
        let Ok(json) = to_raw_value(item) else { return false };
        if tokio::time::timeout(SLOW_READER_MAX, self.room_for(&json)).await.is_err() {
            self.connection.cut_slow_reader();
            return false;
        }
        let message = SubscriptionMessage::new(self.sink.method_name(), self.sink.subscription_id(), &json);
        let Ok(message) = message else { return false };
        match tokio::time::timeout(SLOW_READER_MAX, self.sink.send(message)).await {
            Ok(sent) => sent.is_ok(),
            Err(_) => {
                self.connection.cut_slow_reader();
                false
            }
        }
    }

    /// Waits until the connection has room for `json`, or is closed.
    async fn room_for(&self, json: &RawValue) {
        loop {
            let drained = self.sink.capacity() == self.sink.max_capacity();
            if self.connection.reserve(json.get().len(), drained) || self.sink.is_closed() {
                return;
            }
            tokio::time::sleep(SLOW_READER_CHECK).await;
        }
    }
}

/// Counts one live subscription while it lives.
struct Level;

impl Level {
    fn raise() -> Self {
        gauge!(metrics::RPC_SUBSCRIPTION).increment(1);
        Self
    }
}

impl Drop for Level {
    fn drop(&mut self) {
        gauge!(metrics::RPC_SUBSCRIPTION).decrement(1);
    }
}

/// Ids as geth writes them: a hex number of 128 bits.
#[derive(Debug, Default)]
pub(super) struct HexIds(std::hash::RandomState);

impl IdProvider for HexIds {
    fn next_id(&self) -> SubscriptionId<'static> {
        use std::hash::BuildHasher as _;
        // Each new state has keys of its own, so that no id follows from another.
        let half = || self.0.hash_one(std::hash::RandomState::new().hash_one(()));
        SubscriptionId::Str(format!("0x{:016x}{:016x}", half() | 1 << 63, half()).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscriptions_are_read_strictly() {
        let read = |text| Wanted::read(&Params::new(Some(text)));
        assert_eq!(read(r#"["newHeads"]"#), Ok(Wanted::Heads));
        assert_eq!(read(r#"["logs"]"#), Ok(Wanted::Logs(LogFilter::default())));
        assert_eq!(read(r#"["logs",{}]"#), Ok(Wanted::Logs(LogFilter::default())));
        assert_eq!(read(r#"["newPendingTransactions"]"#), Ok(Wanted::Hashes));
        assert_eq!(read(r#"["newPendingTransactions",false]"#), Ok(Wanted::Hashes));
        assert_eq!(read(r#"["newPendingTransactions",true]"#), Ok(Wanted::Transactions));
        assert_eq!(read(r#"["syncing"]"#), Ok(Wanted::Syncing));
        for (text, code) in [
            ("[]", -32602),
            ("[1]", -32602),
            (r#"["logs",5]"#, -32602),
            (r#"["newHeads",1]"#, -32602),
            (r#"["newPendingTransactions","x"]"#, -32602),
            (r#"["everything"]"#, -32601),
        ] {
            assert_eq!(read(text).unwrap_err().code(), code, "{text}");
        }
    }

    #[test]
    fn ids_differ_and_are_hex() {
        let ids = HexIds::default();
        let (SubscriptionId::Str(one), SubscriptionId::Str(two)) = (ids.next_id(), ids.next_id()) else {
            panic!("ids are strings")
        };
        assert_ne!(one, two);
        assert!(one.len() == 34 && one.starts_with("0x"), "{one}");
        assert!(one[2..].bytes().all(|digit| digit.is_ascii_hexdigit()), "{one}");
    }
}
