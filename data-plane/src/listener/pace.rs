//! How fast a peer has to be: headers within [`bounds::HEADER_READ_MS`] of their first byte (or of
//! the connection), something to do within [`bounds::IDLE_CONNECTION_MS`], and reading on within
//! [`bounds::WRITE_STALL_MS`] while there is something to read.
//!
//! Bodies of requests have their own limit, in the phase that reads them.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use weir_model::bounds;

/// What one connection is doing, shared by its socket, its requests and its watchdog.
#[derive(Debug)]
pub(super) struct Pace {
    started: Instant,
    /// Requests whose answers have not ended.
    busy: AtomicUsize,
    /// Milliseconds since the start at which the connection fell idle.
    idle_since: AtomicU64,
    /// Milliseconds since the start of the first byte after that, plus one; 0 when there is none.
    first_byte: AtomicU64,
    /// A request was seen.
    used: AtomicBool,
    http2: bool,
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Busy(Arc<Pace>);

impl Drop for Busy {
    fn drop(&mut self) {
        if self.0.busy.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle_since.store(self.0.now(), Ordering::Release);
        }
    }
}

impl Pace {
    /// Of a connection that was made then. Over HTTP/2 bytes say nothing about requests.
    pub(super) fn new(http2: bool, started: Instant) -> Arc<Self> {
        Arc::new(Self {
            started,
            busy: AtomicUsize::new(0),
            idle_since: AtomicU64::new(0),
            first_byte: AtomicU64::new(0),
            used: AtomicBool::new(false),
            http2,
        })
    }

    /// A request has begun.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::AcqRel);
        self.used.store(true, Ordering::Release);
        self.first_byte.store(0, Ordering::Release);
        Busy(Arc::clone(self))
    }

    /// Returns when the peer has used up its time.
    pub(super) async fn exhausted(&self) {
        while let Some(wait) = self.left() {
            tokio::time::sleep(wait).await;
        }
    }

    /// How long to wait before looking again; none when the time is up.
    fn left(&self) -> Option<Duration> {
        let headers = bounds::HEADER_READ_MS;
        if self.busy.load(Ordering::Acquire) > 0 {
            return Some(Duration::from_millis(headers));
        }
        let first = self.first_byte.load(Ordering::Acquire);
        let end = if !self.used.load(Ordering::Acquire) {
            headers
        } else if first > 0 && !self.http2 {
            first + headers
        } else {
            self.idle_since.load(Ordering::Acquire) + bounds::IDLE_CONNECTION_MS
        };
        // Never longer than the shortest limit, since a first byte may come meanwhile.
        let left = end.checked_sub(self.now()).filter(|left| *left > 0)?;
        Some(Duration::from_millis(left.min(headers)))
    }

    fn read_something(&self) {
        if self.busy.load(Ordering::Acquire) == 0 {
            let now = self.now() + 1;
            let _ = self.first_byte.compare_exchange(0, now, Ordering::AcqRel, Ordering::Acquire);
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// A socket under a [`Pace`].
#[derive(Debug)]
pub(super) struct Paced<I> {
    io: I,
    pace: Arc<Pace>,
    /// Runs while the peer does not read.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<I> Paced<I> {
    /// Watches a socket.
    pub(super) fn new(io: I, pace: Arc<Pace>) -> Self {
        Self { io, pace, stalled: None }
    }

    /// Passes a write's outcome on, unless it has been pending for too long.
    fn stall<T>(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stalled = None;
            return outcome;
        }
        let limit = Duration::from_millis(bounds::WRITE_STALL_MS);
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer stopped reading")))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Paced<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.io).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.pace.read_something();
        }
        outcome
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Paced<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write(context, data);
        self.stall(context, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write_vectored(context, data);
        self.stall(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.io).poll_flush(context);
        self.stall(context, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.io).poll_shutdown(context);
        self.stall(context, outcome)
    }
}

/// A body that keeps its connection busy until it has ended.
#[derive(Debug)]
pub(super) struct Held<B> {
    body: B,
    _busy: Busy,
}

impl<B> Held<B> {
    /// Holds until dropped.
    pub(super) fn new(body: B, busy: Busy) -> Self {
        Self { body, _busy: busy }
    }
}

impl<B: Body + Unpin> Body for Held<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(pace: &Pace, busy: usize, used: bool, first_byte: u64) -> Option<Duration> {
        pace.busy.store(busy, Ordering::Release);
        pace.used.store(used, Ordering::Release);
        pace.first_byte.store(first_byte, Ordering::Release);
        pace.left()
    }

    #[test]
    fn peers_have_as_long_as_what_they_do_may_take() {
        let mut pace = Arc::into_inner(Pace::new(false, Instant::now())).unwrap();
        let back = Duration::from_millis(bounds::HEADER_READ_MS + 1);
        pace.started = Instant::now().checked_sub(back).unwrap();
        // No request within the time for headers: cut. Busy or idle: not yet.
        assert_eq!(at(&pace, 0, false, 0), None);
        assert!(at(&pace, 1, false, 0).is_some());
        assert!(at(&pace, 0, true, 0).is_some());
        // Headers of a later request that began long ago: cut, but not over HTTP/2.
        assert_eq!(at(&pace, 0, true, 1), None);
        pace.http2 = true;
        assert!(at(&pace, 0, true, 1).is_some());
        let back = Duration::from_millis(bounds::IDLE_CONNECTION_MS + 1);
        pace.started = Instant::now().checked_sub(back).unwrap();
        assert_eq!(at(&pace, 0, true, 1), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_stops_reading_is_cut() {
        use tokio::io::AsyncWriteExt;
        let (near, _far) = tokio::io::duplex(16);
        let mut paced = Paced::new(near, Pace::new(false, Instant::now()));
        let error = paced.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
