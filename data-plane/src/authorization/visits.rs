//! How often a proxy goes to the web because somebody named a client by a URL there.
//!
//! Whoever asks has no token yet, so the bounds are what keeps a proxy from being made to knock at
//! somebody else's door: so many fetches at a time, so many a minute, and fewer of each for one
//! host. Hosts that a group's document names (`metadataHosts`) have only the bounds of a host: what
//! strangers do with other hosts does not keep their clients out.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::time::Instant;
use weir_model::bounds;

const MINUTE: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub(super) struct Visits {
    all: Arc<Mutex<Count>>,
    hosts: Cache<String, Arc<Mutex<Count>>>,
}

/// Fetches of a minute, and those that are under way.
#[derive(Debug, Default)]
struct Count {
    since: Option<Instant>,
    begun: u32,
    running: u32,
}

/// One fetch; it is over when this is dropped.
#[derive(Debug)]
pub(super) struct Visit(Vec<Arc<Mutex<Count>>>);

impl Visits {
    pub(super) fn new() -> Self {
        let hosts = Cache::builder()
            .max_capacity(bounds::CLIENT_DOCUMENTS_MAX)
            .time_to_idle(MINUTE)
            .build();
        Self { all: Arc::default(), hosts }
    }

    /// Leave to fetch from a host; none while there were too many.
    pub(super) fn begin(&self, host: &str, named: bool, now: Instant) -> Option<Visit> {
        let one = self.hosts.get_with_by_ref(host, Arc::default);
        let mut visit = Visit(Vec::new());
        let (running, minute) =
            (bounds::CLIENT_DOCUMENT_HOST_RUNNING_MAX, bounds::CLIENT_DOCUMENT_HOST_MINUTE_MAX);
        if !visit.counted(&one, (running, minute), now) {
            return None;
        }
        let (running, minute) =
            (bounds::CLIENT_DOCUMENT_RUNNING_MAX, bounds::CLIENT_DOCUMENT_MINUTE_MAX);
        (named || visit.counted(&self.all, (running, minute), now)).then_some(visit)
    }
}

impl Visit {
    fn counted(
        &mut self,
        by: &Arc<Mutex<Count>>,
        (running, minute): (u32, u32),
        now: Instant,
    ) -> bool {
        let mut count = by.lock();
        if count.since.is_none_or(|since| now.duration_since(since) >= MINUTE) {
            (count.since, count.begun) = (Some(now), 0);
        }
        let may = count.running < running && count.begun < minute;
        if may {
            count.running += 1;
            count.begun += 1;
            self.0.push(Arc::clone(by));
        }
        may
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        for count in &self.0 {
            count.lock().running -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_is_visited_so_often() {
        let (visits, now) = (Visits::new(), Instant::now());
        let at_once = bounds::CLIENT_DOCUMENT_HOST_RUNNING_MAX;
        let held: Vec<_> =
            (0..at_once).map(|_| visits.begin("a.example", false, now).unwrap()).collect();
        assert!(visits.begin("a.example", false, now).is_none(), "as many are under way");
        assert!(visits.begin("b.example", false, now).is_some(), "another host");
        drop(held);
        for n in at_once..bounds::CLIENT_DOCUMENT_HOST_MINUTE_MAX {
            assert!(visits.begin("a.example", true, now).is_some(), "{n}");
        }
        assert!(visits.begin("a.example", true, now).is_none(), "named hosts are hosts, too");
        assert!(visits.begin("a.example", false, now + MINUTE).is_some(), "a minute later");
    }

    #[test]
    fn all_hosts_are_visited_so_often_but_those_that_are_named() {
        let (visits, now) = (Visits::new(), Instant::now());
        let host = |n: u32| format!("h{n}.example");
        let at_once = bounds::CLIENT_DOCUMENT_RUNNING_MAX;
        let held: Vec<_> =
            (0..at_once).map(|n| visits.begin(&host(n), false, now).unwrap()).collect();
        assert!(visits.begin("late.example", false, now).is_none(), "as many are under way");
        assert!(visits.begin("named.example", true, now).is_some());
        drop(held);
        for n in at_once..bounds::CLIENT_DOCUMENT_MINUTE_MAX {
            assert!(visits.begin(&host(n), false, now).is_some(), "{n}");
        }
        assert!(visits.begin("late.example", false, now).is_none(), "this minute is full");
        assert!(visits.begin("named.example", true, now).is_some());
        // What was refused left nothing behind.
        assert_eq!(visits.all.lock().running, 0);
        let late = visits.hosts.get("late.example").unwrap();
        assert_eq!(late.lock().running, 0);
    }
}
