//! What the proxies of a run have, since when, and what came over their wires.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use anyhow::bail;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Notify, OnceCell};
use weir_model::id::{Digest, Revision};
use weir_model::sync::Held;

/// Of one proxy.
#[derive(Debug, Default)]
struct One {
    /// How often a control plane has welcomed it.
    welcomes: AtomicU64,
    received: Arc<AtomicU64>,
    /// Whole states that came.
    wholes: AtomicU64,
    /// Revisions in the order in which they came into force.
    log: Mutex<Vec<(Revision, Instant)>>,
}

/// Of all proxies of a run.
#[derive(Debug)]
pub struct Seen {
    all: Vec<One>,
    news: Notify,
}

impl Seen {
    /// Of so many proxies, which have nothing yet.
    pub fn new(proxies: usize) -> Self {
        let all = std::iter::repeat_with(One::default).take(proxies).collect();
        Self { all, news: Notify::new() }
    }

    pub(super) fn welcome(&self, at: usize) {
        self.all[at].welcomes.fetch_add(1, Ordering::Release);
        self.news.notify_one();
    }

    /// How often each was welcomed so far.
    pub fn welcomes(&self) -> Vec<u64> {
        self.all.iter().map(|one| one.welcomes.load(Ordering::Acquire)).collect()
    }

    pub(super) fn in_force(&self, at: usize, revision: Revision, whole: bool) {
        if whole {
            self.all[at].wholes.fetch_add(1, Ordering::Relaxed);
        }
        self.all[at].log.lock().push((revision, Instant::now()));
        self.news.notify_one();
    }

    pub(super) fn forget(&self, at: usize) {
        self.all[at].received.store(0, Ordering::Relaxed);
        self.all[at].log.lock().clear();
    }

    /// Bytes that one proxy has got, TLS and everything included.
    pub fn received(&self, at: usize) -> u64 {
        self.all[at].received.load(Ordering::Relaxed)
    }

    /// Bytes that all have got.
    pub fn received_by_all(&self) -> u64 {
        (0..self.all.len()).map(|at| self.received(at)).sum()
    }

    /// Whole states that came, to all.
    pub fn wholes(&self) -> u64 {
        self.all.iter().map(|one| one.wholes.load(Ordering::Relaxed)).sum()
    }

    pub(super) fn wire(&self, at: usize, stream: TcpStream) -> Counted {
        Counted { stream, received: Arc::clone(&self.all[at].received) }
    }

    /// When each of the first `count` proxies had a revision or a later one, once all of them do.
    ///
    /// # Errors
    /// When that takes longer than the patience.
    pub async fn reached(
        &self,
        revision: Revision,
        count: usize,
        patience: Duration,
    ) -> anyhow::Result<Vec<Instant>> {
        let when = |one: &One| {
            let log = one.log.lock();
            // From the newest back: what came later than the first that is new enough.
            let since = log.partition_point(|(had, _)| *had < revision);
            log.get(since).map(|(_, at)| *at)
        };
        let all = || self.all[..count].iter().map(when).collect::<Option<Vec<_>>>();
        self.wait(patience, all, || {
            let have = self.all[..count].iter().filter_map(when).count();
            format!("{have} of {count} proxies have revision {revision}")
        })
        .await
    }

    /// Until every proxy was welcomed again, after it had been so often.
    ///
    /// # Errors
    /// When that takes longer than the patience.
    pub async fn all_welcomed(&self, before: &[u64], patience: Duration) -> anyhow::Result<()> {
        let again = || self.welcomes().iter().zip(before).filter(|(now, then)| now > then).count();
        let all = || (again() == self.all.len()).then_some(());
        self.wait(patience, all, || format!("{} proxies are connected", again())).await
    }

    async fn wait<T>(
        &self,
        patience: Duration,
        look: impl Fn() -> Option<T>,
        say: impl Fn() -> String,
    ) -> anyhow::Result<T> {
        let until = Instant::now() + patience;
        loop {
            if let Some(found) = look() {
                return Ok(found);
            }
            if Instant::now() > until {
                bail!("after {patience:?}: {}", say());
            }
            // A look costs something with many proxies; news come in bursts.
            let _ = tokio::time::timeout(Duration::from_millis(200), self.news.notified()).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// A connection that counts what comes.
#[derive(Debug)]
pub(super) struct Counted {
    stream: TcpStream,
    received: Arc<AtomicU64>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let came = u64::try_from(buf.filled().len() - before).unwrap_or(0);
        self.received.fetch_add(came, Ordering::Relaxed);
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// States that updates led to, by digest: the first proxy that gets one resolves it for all.
#[derive(Debug, Default)]
pub struct Resolved(Mutex<HashMap<Digest, Arc<OnceCell<Held>>>>);

/// Sets that are remembered: proxies are at most a few changes apart.
const RESOLVED_MAX: usize = 8;

impl Resolved {
    pub(super) fn of(&self, digest: Digest) -> Arc<OnceCell<Held>> {
        let mut sets = self.0.lock();
        if sets.len() >= RESOLVED_MAX && !sets.contains_key(&digest) {
            sets.clear();
        }
        Arc::clone(sets.entry(digest).or_default())
    }

    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_revision_is_reached_when_all_have_it_or_a_later_one() {
        let seen = Seen::new(2);
        let patience = Duration::from_millis(20);
        seen.in_force(0, Revision(5), true);
        assert!(seen.reached(Revision(5), 2, patience).await.is_err());
        assert_eq!(seen.reached(Revision(5), 1, patience).await.unwrap().len(), 1);
        seen.in_force(1, Revision(7), false);
        assert_eq!(seen.reached(Revision(5), 2, patience).await.unwrap().len(), 2);
        assert_eq!(seen.wholes(), 1);
        let before = seen.welcomes();
        seen.welcome(0);
        assert!(seen.all_welcomed(&before, patience).await.is_err());
        seen.welcome(1);
        seen.all_welcomed(&before, patience).await.unwrap();
    }
}
