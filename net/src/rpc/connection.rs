//! One client's TCP connection: its end, what it has waiting, and a socket that gives up on silence.

use std::{
    io,
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
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

use super::limits::{SOCKET_IDLE_MAX, SOCKET_STALL_MAX, SUBSCRIBER_BYTES_MAX};
use crate::metrics;

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
}

impl Connection {
    /// A connection that `end` closes.
    pub(super) const fn new(end: ServerHandle) -> Self {
        Self { end, queued_bytes: AtomicUsize::new(0) }
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

/// A socket that fails when nothing moves for too long, and is counted while it is open.
pub(super) struct Socket {
    stream: TcpStream,
    moved: Instant,
    idle: Pin<Box<Sleep>>,
    stall: Option<Pin<Box<Sleep>>>,
    idle_max: Duration,
}

impl Socket {
    /// Wraps an accepted stream.
    pub(super) fn new(stream: TcpStream) -> Self {
        gauge!(metrics::RPC_SOCKET).increment(1);
        Self {
            stream,
            moved: Instant::now(),
            idle: Box::pin(sleep(SOCKET_IDLE_MAX)),
            stall: None,
            idle_max: SOCKET_IDLE_MAX,
        }
    }

    /// Fails once nothing moved for `idle_max`; registers for that moment.
    fn poll_idle(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            ready!(self.idle.as_mut().poll(context));
            let end = self.moved + self.idle_max;
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

    #[tokio::test(start_paused = true)]
    async fn silence_ends_a_connection() {
        use tokio::io::AsyncReadExt as _;

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let start = Instant::now();
        let error = Socket::new(accepted).read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() >= SOCKET_IDLE_MAX);
    }
}
