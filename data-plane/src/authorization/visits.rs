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

/// What is too much.
#[derive(Debug, Clone, Copy)]
struct Most {
    running: u32,
    minute: u32,
}

const ONE: Most = Most {
    running: bounds::CLIENT_DOCUMENT_HOST_RUNNING_MAX,
    minute: bounds::CLIENT_DOCUMENT_HOST_MINUTE_MAX,
};
const ALL: Most = Most {
    running: bounds::CLIENT_DOCUMENT_RUNNING_MAX,
    minute: bounds::CLIENT_DOCUMENT_MINUTE_MAX,
};

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
        // Whoever is refused uses up nothing: a host is remembered once there is a visit to it, so
        // there are never so many of them in a minute that one is forgotten.
        if self.hosts.get(host).is_some_and(|one| !one.lock().affords(ONE, now)) {
            return None;
        }
        let mut visit = Visit(Vec::new());
        if !named && !visit.counted(&self.all, ALL, now) {
            return None;
        }
        let one = self.hosts.get_with_by_ref(host, Arc::default);
        visit.counted(&one, ONE, now).then_some(visit)
    }
}

impl Count {
    fn affords(&mut self, most: Most, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.duration_since(since) >= MINUTE) {
            (self.since, self.begun) = (Some(now), 0);
        }
        self.running < most.running && self.begun < most.minute
    }
}

impl Visit {
    fn counted(&mut self, by: &Arc<Mutex<Count>>, most: Most, now: Instant) -> bool {
        let mut count = by.lock();
        let may = count.affords(most, now);
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
        assert!(visits.hosts.get("late.example").is_none());
    }
}
