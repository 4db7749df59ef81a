//! Which address is used: the one that answers quickest, the next one when it fails.
//!
//! The bridge stays with a region until it fails: sessions of the gateway are good in every
//! region, so moving back for a few milliseconds would gain less than it risks.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use parking_lot::Mutex;

use super::http::{Http, endpoint, origin};

/// Timed requests per region; the quickest counts. One more before them opens the connection.
const ROUNDS: usize = 3;
/// A region that needs longer than this for one of them counts as dead.
const PATIENCE: Duration = Duration::from_secs(2);

/// The addresses, best first.
#[derive(Debug)]
pub(super) struct Regions {
    urls: Vec<String>,
    current: Mutex<usize>,
}

impl Regions {
    /// Measures all of them at once. With one address there is nothing to measure.
    pub(super) async fn measured(urls: &[String], http: &Http) -> Self {
        if urls.len() < 2 {
            return Self::in_order(urls.to_vec());
        }
        let times = join_all(urls.iter().map(|url| latency(url, http))).await;
        for (url, time) in urls.iter().zip(&times) {
            match time {
                Some(time) => tracing::info!(url, micros = time.as_micros(), "measured"),
                None => tracing::warn!(url, "does not answer"),
            }
        }
        Self::in_order(sorted(urls, &times))
    }

    fn in_order(urls: Vec<String>) -> Self {
        Self { urls, current: Mutex::new(0) }
    }

    /// The address to use.
    pub(super) fn current(&self) -> &str {
        &self.urls[*self.current.lock() % self.urls.len()]
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.urls.len()
    }

    /// `url` did not work: unless somebody has moved on already, the next one is used.
    pub(super) fn failed(&self, url: &str, why: &str) {
        let mut current = self.current.lock();
        if self.urls[*current] == url {
            *current = (*current + 1) % self.urls.len();
            tracing::warn!(url, why, next = self.urls[*current], "a region failed");
        }
    }
}

/// Dead ones last; the given order where times are equal.
fn sorted(urls: &[String], times: &[Option<Duration>]) -> Vec<String> {
    let mut all: Vec<_> = urls.iter().zip(times).collect();
    all.sort_by_key(|(_, time)| time.unwrap_or(Duration::MAX));
    all.into_iter().map(|(url, _)| url.clone()).collect()
}

/// The shortest time that a small request takes on an open connection. Its path needs no
/// credentials; any answer will do.
async fn latency(url: &str, http: &Http) -> Option<Duration> {
    let uri = endpoint(url)?;
    let probe = format!("{}/.well-known/oauth-protected-resource{}", origin(&uri), uri.path());
    let mut best = None;
    for round in 0..=ROUNDS {
        let begun = Instant::now();
        let (status, _) = tokio::time::timeout(PATIENCE, http.get(&probe)).await.ok()?.ok()?;
        if status.is_server_error() {
            return None;
        }
        if round > 0 {
            let took = begun.elapsed();
            best = Some(best.map_or(took, |best: Duration| best.min(took)));
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_quickest_is_first_and_the_dead_are_last() {
        let ms = |ms| Some(Duration::from_millis(ms));
        let sorted = sorted(&urls(&["a", "b", "c", "d"]), &[ms(30), None, ms(2), ms(30)]);
        assert_eq!(sorted, urls(&["c", "a", "d", "b"]));
    }

    #[test]
    fn a_failure_counts_once_however_many_saw_it() {
        let regions = Regions::in_order(urls(&["a", "b"]));
        regions.failed("a", "x");
        regions.failed("a", "x");
        assert_eq!(regions.current(), "b");
        regions.failed("b", "x");
        assert_eq!(regions.current(), "a");
    }
}
