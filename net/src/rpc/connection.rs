//! One client's TCP connection: its end, what it has under way, and a socket that slows or gives up.
//!
//! ```text
//! socket --> calls under way --> answers that wait --> socket
//!   ^             ^  |                |                   |
//!   |             +-- not run while too many bytes wait   |
//!   +-- not read while too much is under way, or while the client takes no answers
//! ```
//! The dispatcher starts a task for every WebSocket message it reads, so the only place to bound them
//! is before it: a connection with too much under way is not read from. TCP then tells the client.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use ::metrics::{counter, gauge};
use jsonrpsee::server::ServerHandle;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, Sleep, sleep},
};

use super::limits::{
    CONNECTION_BYTES_MAX, CONNECTION_CALLS_MAX, CONNECTION_RUNNING_MAX, CONNECTION_UNSENT_BYTES_MAX, SOCKET_IDLE_MAX,
    SOCKET_STALL_MAX, SUBSCRIBER_BYTES_MAX, SUBSCRIPTION_ITEMS_MAX, UNSENT_BYTES_MAX,
};
use crate::metrics;

/// How long a full connection is left alone before it is looked at again.
const PAUSE: Duration = Duration::from_millis(5);

/// How a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    /// One request, one answer.
    Http,
    /// Messages both ways.
    WebSocket,
}

/// Marks the response to calls that want none; its body is left out.
#[derive(Clone, Copy, Debug)]
pub(super) struct NoAnswer;

/// Bytes of all answers in the node that wait for their clients.
#[derive(Clone, Debug, Default)]
pub(super) struct Unsent(Arc<AtomicUsize>);

impl Unsent {
    /// Whether no further answer should be made yet.
    pub(super) fn is_full(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= UNSENT_BYTES_MAX
    }
}

/// What the calls of one connection share.
#[derive(Debug)]
pub(super) struct Connection {
    end: ServerHandle,
    queued_bytes: AtomicUsize,
    calls: AtomicUsize,
    held_bytes: AtomicUsize,
    running: Semaphore,
    unsent_bytes: AtomicUsize,
    unsent: Unsent,
    items: AtomicUsize,
    closed: AtomicBool,
}

impl Connection {
    /// A connection that `end` closes; `unsent` counts for the whole node.
    pub(super) fn new(end: ServerHandle, unsent: Unsent) -> Self {
        let zero = || AtomicUsize::new(0);
        Self {
            end,
            queued_bytes: zero(),
            calls: zero(),
            held_bytes: zero(),
            running: Semaphore::new(CONNECTION_RUNNING_MAX),
            unsent_bytes: zero(),
            unsent,
            items: zero(),
            closed: AtomicBool::new(false),
        }
    }

    /// Counts a call, or a batch, of so many bytes as under way until the guard is dropped.
    pub(super) fn begin(self: &Arc<Self>, bytes: usize) -> UnderWay {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.held_bytes.fetch_add(bytes, Ordering::Relaxed);
        UnderWay { connection: Arc::clone(self), bytes }
    }

    /// Waits for the client to take what it was answered, then for its turn to make another answer.
    /// `None` once the connection is closed: then nobody waits for the answer.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        let permit = self.running.acquire().await.ok()?;
        while self.unsent_bytes.load(Ordering::Relaxed) >= CONNECTION_UNSENT_BYTES_MAX || self.unsent.is_full() {
            if self.closed.load(Ordering::Relaxed) {
                return None;
            }
            sleep(PAUSE).await;
        }
        Some(permit)
    }

    /// Counts an answer that goes to the socket now.
    pub(super) fn answered(&self, bytes: usize) {
        self.unsent_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.unsent.0.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The socket took bytes: of answers, their frames and subscriptions, so at least what it took of answers.
    fn sent(&self, bytes: usize) {
        let before = self
            .unsent_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |unsent| Some(unsent.saturating_sub(bytes)));
        self.unsent.0.fetch_sub(before.unwrap_or_default().min(bytes), Ordering::Relaxed);
    }

    /// Counts so many addresses and topics of a subscription until the guard is dropped; `None` if the
    /// connection has too many.
    pub(super) fn keep_items(self: &Arc<Self>, items: usize) -> Option<Items> {
        let kept = Items { connection: Arc::clone(self), items };
        let before = self.items.fetch_add(items, Ordering::Relaxed);
        (before.saturating_add(items) <= SUBSCRIPTION_ITEMS_MAX).then_some(kept)
    }

    /// Whether nothing more may be read yet.
    fn is_full(&self) -> bool {
        self.calls.load(Ordering::Relaxed) >= CONNECTION_CALLS_MAX
            || self.held_bytes.load(Ordering::Relaxed) >= CONNECTION_BYTES_MAX
    }

    /// Counts `bytes` for the reader's queue unless it holds too many already; `drained` says that
    /// everything counted so far was taken. One message always fits into an empty queue.
    pub(super) fn reserve(&self, bytes: usize, drained: bool) -> bool {
        if drained {
            self.queued_bytes.store(0, Ordering::Relaxed);
        }
        let before = self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = before == 0 || before.saturating_add(bytes) <= SUBSCRIBER_BYTES_MAX;
        if !fits {
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        fits
    }

    /// Closes the connection, because its reader does not keep up.
    pub(super) fn cut_slow_reader(&self) {
        counter!(metrics::RPC_TURNED_AWAY, "reason" => "slow_reader").increment(1);
        // An error says that it is closed already.
        let _ = self.end.stop();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.unsent.0.fetch_sub(*self.unsent_bytes.get_mut(), Ordering::Relaxed);
    }
}

/// What the subscriptions of a connection name.
#[derive(Debug)]
pub(super) struct Items {
    connection: Arc<Connection>,
    items: usize,
}

impl Drop for Items {
    fn drop(&mut self) {
        self.connection.items.fetch_sub(self.items, Ordering::Relaxed);
    }
}

/// A call under way.
#[derive(Debug)]
pub(super) struct UnderWay {
    connection: Arc<Connection>,
    bytes: usize,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.connection.calls.fetch_sub(1, Ordering::Relaxed);
        self.connection.held_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A socket that fails when nothing moves for too long, and is counted while it is open.
pub(super) struct Socket {
    stream: TcpStream,
    connection: Arc<Connection>,
    moved: Instant,
    idle: Pin<Box<Sleep>>,
    /// Runs while the client takes no bytes.
    stall: Option<Pin<Box<Sleep>>>,
    /// Runs while nothing may be read.
    pause: Option<Pin<Box<Sleep>>>,
}

impl Socket {
    /// Wraps an accepted stream.
    pub(super) fn new(stream: TcpStream, connection: Arc<Connection>) -> Self {
        gauge!(metrics::RPC_SOCKET).increment(1);
        let idle = Box::pin(sleep(SOCKET_IDLE_MAX));
        Self { stream, connection, moved: Instant::now(), idle, stall: None, pause: None }
    }

    /// Ready once the client may be read from; looks again every few milliseconds until then.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.stall.is_some() || self.connection.is_full() {
            let pause = self.pause.get_or_insert_with(|| Box::pin(sleep(PAUSE)));
            ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        self.pause = None;
        Poll::Ready(())
    }

    /// Fails once nothing moved for [`SOCKET_IDLE_MAX`]; registers for that moment.
    fn poll_idle(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            ready!(self.idle.as_mut().poll(context));
            let end = self.moved + SOCKET_IDLE_MAX;
            if end <= Instant::now() {
                return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "connection was idle for too long"));
            }
            self.idle.as_mut().reset(end);
        }
    }

    /// Follows up on a write: what cannot be written for too long never will be.
    fn after_write(&mut self, written: Poll<io::Result<usize>>, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = &written {
            self.connection.sent(*written.as_ref().unwrap_or(&0));
            self.moved = Instant::now();
            self.stall = None;
        }
        if written.is_ready() {
            return written;
        }
        let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(SOCKET_STALL_MAX)));
        ready!(stall.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes no bytes")))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.connection.closed.store(true, Ordering::Relaxed);
        gauge!(metrics::RPC_SOCKET).decrement(1);
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_room(context));
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Pending => self.poll_idle(context).map(Err),
            ready => {
                self.moved = Instant::now();
                ready
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.after_write(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.after_write(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use jsonrpsee::server::stop_channel;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn a_queue_is_counted_until_it_is_drained() {
        let (_keep, end) = stop_channel();
        let connection = Connection::new(end, Unsent::default());
        assert!(connection.reserve(SUBSCRIBER_BYTES_MAX - 1, false));
        assert!(connection.reserve(1, false));
        assert!(!connection.reserve(1, false));
        assert!(connection.reserve(5 * SUBSCRIBER_BYTES_MAX, true));
        assert!(!connection.reserve(1, false));
        assert!(connection.reserve(1, true));
    }

    /// Both ends of a connection, and what its calls share.
    async fn pair() -> (TcpStream, Socket, Arc<Connection>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let connection = Arc::new(Connection::new(stop_channel().1, Unsent::default()));
        (client, Socket::new(accepted, Arc::clone(&connection)), connection)
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_a_connection() {
        let (_client, mut socket, _) = pair().await;
        let start = Instant::now();
        let error = socket.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() >= SOCKET_IDLE_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_given_up() {
        let (_client, mut socket, _) = pair().await;
        let start = Instant::now();
        let error = loop {
            if let Err(error) = socket.write_all(&[0; 65_536]).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() >= SOCKET_STALL_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_with_too_much_under_way_is_not_read_from() {
        let (mut client, mut socket, connection) = pair().await;
        client.write_all(&[1, 2, 3]).await.unwrap();
        let mut calls: Vec<_> = (0..CONNECTION_CALLS_MAX).map(|_| connection.begin(1)).collect();
        let early = tokio::time::timeout(PAUSE * 10, socket.read_u8()).await;
        assert!(early.is_err(), "nothing is read while too many calls run");
        calls.pop();
        assert_eq!(socket.read_u8().await.unwrap(), 1);
        let large = connection.begin(CONNECTION_BYTES_MAX);
        let early = tokio::time::timeout(PAUSE * 10, socket.read_u8()).await;
        assert!(early.is_err(), "nothing is read while the calls hold too many bytes");
        // One large call that ends is enough, however many small ones go on.
        drop(large);
        assert_eq!(socket.read_u8().await.unwrap(), 2);
        calls.clear();
        assert_eq!(socket.read_u8().await.unwrap(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn no_answer_is_made_while_too_many_bytes_wait_for_the_client() {
        let (mut client, mut socket, connection) = pair().await;
        drop(connection.turn().await.expect("nothing waits"));
        connection.answered(CONNECTION_UNSENT_BYTES_MAX);
        assert!(tokio::time::timeout(PAUSE * 10, connection.turn()).await.is_err());
        socket.write_all(&[0; 1_000]).await.unwrap();
        client.read_exact(&mut [0; 1_000]).await.unwrap();
        drop(connection.turn().await.expect("the client took some"));
        let unsent = connection.unsent.clone();
        connection.answered(5_000);
        drop(socket);
        assert!(connection.turn().await.is_none(), "nobody waits for an answer any more");
        drop(connection);
        assert_eq!(unsent.0.load(Ordering::Relaxed), 0, "a closed connection holds nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn the_whole_node_holds_a_bounded_number_of_unsent_bytes() {
        let (_client, _socket, greedy) = pair().await;
        let other = Connection::new(stop_channel().1, greedy.unsent.clone());
        greedy.answered(UNSENT_BYTES_MAX);
        assert!(other.unsent.is_full());
        assert!(tokio::time::timeout(PAUSE * 10, other.turn()).await.is_err());
        greedy.sent(1);
        drop(other.turn().await.expect("there is room again"));
    }

    #[tokio::test(start_paused = true)]
    async fn one_connection_makes_a_bounded_number_of_answers_at_a_time() {
        let (_client, _socket, connection) = pair().await;
        let mut turns = Vec::new();
        for _ in 0..CONNECTION_RUNNING_MAX {
            turns.push(connection.turn().await.expect("open"));
        }
        assert!(tokio::time::timeout(PAUSE * 10, connection.turn()).await.is_err());
        turns.pop();
        drop(connection.turn().await.expect("one has ended"));
    }
}
