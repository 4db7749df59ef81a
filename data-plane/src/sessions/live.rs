//! Which sessions are in use here, for groups that bound that: how long one may be idle, and how
//! many a principal may have.
//!
//! A session may be in use at any proxy, so none can tell alone that one is idle. A proxy that
//! has not seen a session for the time that the group allows asks the others of its region
//! ([`crate::neighbours`]); the session ends when none of them has seen it either. Who was started
//! within that time cannot know, and who cannot be reached may have seen it: then it goes on. So a
//! session that is used never ends, and one that is idle ends at the next attempt to use it.
//!
//! Sessions are counted at the proxy that opened them, until they are ended, idle for too long, or
//! over.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::Mutex;
use weir_model::bounds;
use weir_model::reason::{Reason, Refusal};
use weir_model::resource::SessionLimits;

use super::Ended;

/// When sessions were used here. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Live(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    seen: Cache<String, Arc<Seen>>,
    opened: Mutex<HashMap<String, Vec<(String, i64)>>>,
    /// Since when anything is known here.
    began: i64,
}

#[derive(Debug, Default)]
struct Seen {
    last: AtomicI64,
    /// Streams that are open.
    streams: AtomicUsize,
}

/// What a proxy knows of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Sighting {
    /// When it was used last, in seconds since the epoch; none where it was not.
    pub last: Option<i64>,
    /// Since when the proxy would know.
    pub began: i64,
}

impl Sighting {
    /// True when the session may have been used within that time.
    pub fn may_be_live(self, idle: i64, now: i64) -> bool {
        now.saturating_sub(self.last.unwrap_or(self.began).max(self.began)) <= idle
    }
}

/// A stream of a session; until it is dropped the session is in use.
#[derive(Debug)]
pub struct InUse {
    seen: Arc<Seen>,
    clock: weir_runtime::clock::SharedClock,
}

impl Drop for InUse {
    fn drop(&mut self) {
        let now = i64::try_from(self.clock.now_secs()).unwrap_or(i64::MAX);
        self.seen.last.fetch_max(now, Ordering::Relaxed);
        self.seen.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Live {
    /// Nothing was seen before now.
    pub fn new(now: i64) -> Self {
        let age = Duration::from_secs(bounds::SESSION_SECS_MAX.unsigned_abs());
        let seen = Cache::builder()
            .max_capacity(bounds::LIVE_SESSIONS_MAX)
            .time_to_idle(age)
            .eviction_policy(EvictionPolicy::lru())
            .build();
        Self(Arc::new(Inner { seen, opened: Mutex::default(), began: now }))
    }

    /// A session is used now; what was known of it before.
    pub fn touch(&self, nonce: &str, now: i64) -> Sighting {
        let before = self.sighting(nonce, now);
        self.of(nonce).last.fetch_max(now, Ordering::Relaxed);
        before
    }

    /// What is known of a session.
    pub fn sighting(&self, nonce: &str, now: i64) -> Sighting {
        let seen = self.0.seen.get(nonce);
        let last = seen.map(|seen| match seen.streams.load(Ordering::Relaxed) {
            0 => seen.last.load(Ordering::Relaxed),
            _ => now,
        });
        Sighting { last, began: self.0.began }
    }

    /// A stream of the session is open.
    pub fn stream(&self, nonce: &str, clock: &weir_runtime::clock::SharedClock) -> InUse {
        let seen = self.of(nonce);
        seen.streams.fetch_add(1, Ordering::Relaxed);
        InUse { seen, clock: Arc::clone(clock) }
    }

    fn of(&self, nonce: &str) -> Arc<Seen> {
        self.0.seen.get_with_by_ref(nonce, Arc::default)
    }

    /// Checks that a principal may open one more session here.
    ///
    /// # Errors
    /// [`Reason::ConcurrencyLimited`] when it has as many as the group allows.
    pub fn admit(
        &self,
        principal: &str,
        limits: SessionLimits,
        (ended, now): (&Ended, i64),
    ) -> Result<(), Refusal> {
        let Some(most) = limits.per_principal else { return Ok(()) };
        let mut all = self.0.opened.lock();
        let Some(opened) = all.get_mut(principal) else { return Ok(()) };
        let life = limits.life_secs.map_or(bounds::SESSION_SECS_MAX, i64::from);
        opened.retain(|(nonce, created)| {
            let idle = limits.idle_secs.is_some_and(|idle| {
                let last = self.sighting(nonce, now).last.unwrap_or(*created).max(*created);
                now.saturating_sub(last) > i64::from(idle)
            });
            now.saturating_sub(*created) <= life && !idle && !ended.contains(nonce)
        });
        if opened.len() >= most as usize {
            return Err(Refusal::new(Reason::ConcurrencyLimited, "sessions of one principal")
                .hint("Too many sessions are open: end some of them with DELETE.")
                .retry_after(60));
        }
        if opened.is_empty() {
            all.remove(principal);
        }
        Ok(())
    }

    /// A principal has opened a session.
    pub fn opened(&self, principal: &str, limits: SessionLimits, (nonce, now): (&str, i64)) {
        if limits.per_principal.is_none() {
            return;
        }
        let mut all = self.0.opened.lock();
        let fits = all.len() < bounds::SESSION_HOLDERS_MAX || all.contains_key(principal);
        if fits {
            all.entry(principal.to_owned()).or_default().push((nonce.to_owned(), now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_cannot_know_does_not_end_anything() {
        let live = Live::new(1_000);
        let idle = |nonce: &str, now: i64| !live.sighting(nonce, now).may_be_live(60, now);
        assert!(!idle("a", 1_060) && idle("a", 1_061));
        assert_eq!(live.touch("a", 1_100), Sighting { last: None, began: 1_000 });
        assert_eq!(live.touch("a", 1_150).last, Some(1_100));
        assert!(!idle("a", 1_210) && idle("a", 1_211) && idle("b", 1_150));
        let clock: weir_runtime::clock::SharedClock =
            Arc::new(weir_runtime::clock::ManualClock::at_ms(1_300_000));
        let stream = live.stream("a", &clock);
        assert!(!idle("a", 9_000));
        drop(stream);
        assert!(!idle("a", 1_360) && idle("a", 1_361));
    }

    #[test]
    fn sessions_of_a_principal_are_counted_until_they_are_over() {
        let (live, ended) = (Live::new(0), Ended::default());
        let limits = SessionLimits { per_principal: Some(2), ..SessionLimits::default() };
        let idle = SessionLimits { idle_secs: Some(60), ..limits };
        let open = |principal: &str, limits, nonce: &str, now: i64| {
            live.admit(principal, limits, (&ended, now))?;
            live.opened(principal, limits, (nonce, now));
            Ok::<_, Refusal>(())
        };
        open("a", limits, "1", 0).unwrap();
        open("a", limits, "2", 0).unwrap();
        let full = open("a", limits, "3", 0).unwrap_err();
        assert_eq!(full.reason, Reason::ConcurrencyLimited);
        open("b", limits, "4", 0).unwrap();
        open("a", SessionLimits::default(), "5", 0).unwrap();
        ended.insert("1", 0);
        open("a", limits, "6", 0).unwrap();
        assert!(open("a", idle, "7", 60).is_err());
        live.touch("2", 50);
        open("a", idle, "7", 61).unwrap();
        assert!(open("a", idle, "8", 61).is_err());
        open("a", limits, "9", bounds::SESSION_SECS_MAX + 62).unwrap();
    }
}
