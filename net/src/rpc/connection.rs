//! One client's TCP connection: its end, what it has under way, and a socket that slows or gives up.
//!
//! ```text
//! socket --> calls under way --> answers --> socket
//!   ^                |                         |
//!   +-- not read while too much is under way, or while the client takes no answers
//! ```
//! The dispatcher starts a task for every WebSocket message it reads, so the only place to bound them
//! is before it: a connection with too much under way is not read from. TCP then tells the client.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use ::metrics::{counter, gauge};
use jsonrpsee::server::ServerHandle;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep},
};

use super::limits::{
    CONNECTION_BYTES_MAX, CONNECTION_CALLS_MAX, SOCKET_IDLE_MAX, SOCKET_STALL_MAX, SUBSCRIBER_BYTES_MAX,
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

/// What the calls of one connection share.
#[derive(Debug)]
pub(super) struct Connection {
    end: ServerHandle,
    queued_bytes: AtomicUsize,
    calls: AtomicUsize,
    read_bytes: AtomicUsize,
}

impl Connection {
    /// A connection that `end` closes.
    pub(super) fn new(end: ServerHandle) -> Self {
        let zero = || AtomicUsize::new(0);
        Self { end, queued_bytes: zero(), calls: zero(), read_bytes: zero() }
    }

    /// Counts a call, or a batch, as under way until the guard is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> UnderWay {
        self.calls.fetch_add(1, Ordering::Relaxed);
        UnderWay(Arc::clone(self))
    }

    /// Whether nothing more may be read yet.
    fn is_full(&self) -> bool {
        self.calls.load(Ordering::Relaxed) >= CONNECTION_CALLS_MAX
            || self.read_bytes.load(Ordering::Relaxed) >= CONNECTION_BYTES_MAX
    }

    /// Forgets the bytes that were read once no call needs them.
    fn settle(&self) {
        if self.calls.load(Ordering::Relaxed) == 0 {
            self.read_bytes.store(0, Ordering::Relaxed);
        }
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

/// A call under way.
#[derive(Debug)]
pub(super) struct UnderWay(Arc<Connection>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
        self.0.settle();
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
            self.connection.settle();
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
    fn after_write<T>(&mut self, written: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.moved = Instant::now();
            self.stall = None;
            return written;
        }
        let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(SOCKET_STALL_MAX)));
        ready!(stall.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes no bytes")))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
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
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Pending => self.poll_idle(context).map(Err),
            ready => {
                let bytes = buffer.filled().len().saturating_sub(before);
                self.connection.read_bytes.fetch_add(bytes, Ordering::Relaxed);
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
        let connection = Connection::new(end);
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
        let connection = Arc::new(Connection::new(stop_channel().1));
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
        let mut calls: Vec<_> = (0..CONNECTION_CALLS_MAX).map(|_| connection.begin()).collect();
        let early = tokio::time::timeout(PAUSE * 10, socket.read_u8()).await;
        assert!(early.is_err(), "nothing is read while too many calls run");
        calls.pop();
        assert_eq!(socket.read_u8().await.unwrap(), 1);
        connection.read_bytes.store(CONNECTION_BYTES_MAX, Ordering::Relaxed);
        let early = tokio::time::timeout(PAUSE * 10, socket.read_u8()).await;
        assert!(early.is_err(), "nothing is read while the calls hold too many bytes");
        calls.clear();
        assert_eq!(socket.read_u8().await.unwrap(), 2);
        // Bytes that became no call are forgotten after a pause.
        connection.read_bytes.store(CONNECTION_BYTES_MAX, Ordering::Relaxed);
        assert_eq!(socket.read_u8().await.unwrap(), 3);
    }
}
