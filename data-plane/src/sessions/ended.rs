//! Sessions that ended before their time: their ids would still open, and are refused.
//!
//! Each is kept until its id would have ended by itself. There is room for
//! [`bounds::ENDED_SESSIONS_MAX`]; beyond it the one that was ended first is forgotten, and its
//! own client could use it again. A session takes some 60 bytes.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use weir_model::bounds;
use weir_model::id::Digest;

/// One of them, as proxies tell each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    /// What its nonce comes to, in hexadecimal.
    #[serde(rename = "s")]
    pub session: String,
    /// When it is forgotten, in seconds since the epoch.
    #[serde(rename = "x")]
    pub until: i64,
}

/// Sessions that have ended. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Ended(Arc<RwLock<Set>>, Watchers);

type Watchers = Arc<Mutex<HashMap<u128, (CancellationToken, usize)>>>;

/// Waits for the end of one session.
#[derive(Debug)]
pub struct Ending {
    watchers: Watchers,
    key: u128,
    token: CancellationToken,
}

impl Ending {
    /// Returns when the session has ended.
    pub async fn over(&self) {
        self.token.cancelled().await;
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let mut watchers = self.watchers.lock();
        if let Some((_, count)) = watchers.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                watchers.remove(&self.key);
            }
        }
    }
}

#[derive(Debug, Default)]
struct Set {
    all: HashSet<u128>,
    /// In the order in which they were ended.
    order: VecDeque<(u128, i64)>,
}

impl Ended {
    /// From now on this session is unknown. The second in which it would have ended by itself is
    /// not known here, so it is remembered for the longest life of a session.
    pub fn insert(&self, nonce: &str, now: i64) -> Past {
        let (key, until) = (key(nonce), now.saturating_add(bounds::SESSION_SECS_MAX));
        self.0.write().insert(key, until, now);
        self.tell(key);
        Past { session: format!("{key:032x}"), until }
    }

    /// The same, as another proxy says; nonsense is ignored.
    pub fn hear(&self, past: &Past, now: i64) {
        let latest = now.saturating_add(bounds::SESSION_SECS_MAX);
        if let Ok(key) = u128::from_str_radix(&past.session, 16)
            && past.until > now
        {
            self.0.write().insert(key, past.until.min(latest), now);
            self.tell(key);
        }
    }

    fn tell(&self, key: u128) {
        if let Some((token, _)) = self.1.lock().get(&key) {
            token.cancel();
        }
    }

    /// Tells when a session ends; at once, when it has.
    pub fn watch(&self, nonce: &str) -> Ending {
        let key = key(nonce);
        let token = {
            let mut watchers = self.1.lock();
            let (token, count) = watchers.entry(key).or_default();
            *count += 1;
            token.clone()
        };
        if self.contains(nonce) {
            token.cancel();
        }
        Ending { watchers: Arc::clone(&self.1), key, token }
    }

    /// True when it has ended.
    pub fn contains(&self, nonce: &str) -> bool {
        let set = self.0.read();
        !set.all.is_empty() && set.all.contains(&key(nonce))
    }

    /// All of them, the newest last, some at a time.
    pub fn pages(&self, size: usize) -> Vec<Vec<Past>> {
        let set = self.0.read();
        let order = set.order.iter().collect::<Vec<_>>();
        let past =
            |(key, until): &&(u128, i64)| Past { session: format!("{key:032x}"), until: *until };
        order.chunks(size.max(1)).map(|page| page.iter().map(past).collect()).collect()
    }
}

impl Set {
    fn insert(&mut self, key: u128, until: i64, now: i64) {
        if !self.all.insert(key) {
            return;
        }
        self.order.push_back((key, until));
        let full = |set: &Self| set.order.len() > bounds::ENDED_SESSIONS_MAX;
        while full(self) || self.order.front().is_some_and(|(_, until)| *until <= now) {
            let Some((gone, _)) = self.order.pop_front() else { break };
            self.all.remove(&gone);
        }
    }
}

/// Nonces are 128 random bits; whatever else stands for itself by its digest.
fn key(nonce: &str) -> u128 {
    let digest = || {
        let Digest(bytes) = Digest::of(nonce.as_bytes());
        bytes.iter().take(16).fold(0, |sum, byte| sum << 8 | u128::from(*byte))
    };
    match nonce.len() {
        32 => u128::from_str_radix(nonce, 16).unwrap_or_else(|_| digest()),
        _ => digest(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_ended_is_known_until_its_id_would_have_ended() {
        let (here, there) = (Ended::default(), Ended::default());
        let nonce = uuid::Uuid::new_v4().simple().to_string();
        let past = here.insert(&nonce, 1_000);
        here.insert("short", 1_000);
        assert!(here.contains(&nonce) && here.contains("short") && !here.contains("other"));
        there.hear(&past, 1_000);
        there.hear(&past, 1_000);
        assert!(there.contains(&nonce) && !there.contains("short"));
        assert_eq!(there.pages(10), [[past.clone()]]);
        // Long after, the next one sweeps it out.
        let later = 1_000 + bounds::SESSION_SECS_MAX;
        there.insert("another", later);
        assert!(!there.contains(&nonce) && there.contains("another"));
        there.hear(&past, later);
        assert!(!there.contains(&nonce));
    }

    #[tokio::test]
    async fn who_waits_for_an_end_hears_of_it() {
        let ended = Ended::default();
        let (one, two, other) = (ended.watch("a"), ended.watch("a"), ended.watch("b"));
        let past = Ended::default().insert("a", 0);
        ended.hear(&past, 0);
        one.over().await;
        two.over().await;
        ended.watch("a").over().await;
        assert!(!other.token.is_cancelled());
        drop((one, two, other));
        assert!(ended.1.lock().is_empty());
    }

    #[test]
    fn nonsense_of_another_proxy_is_ignored() {
        let ended = Ended::default();
        for (session, until) in [("", 9), ("xyz", 9), ("-1", 9), ("ff", -9)] {
            ended.hear(&Past { session: session.into(), until }, 0);
        }
        assert!(ended.pages(1).is_empty());
        ended.hear(&Past { session: "ff".into(), until: i64::MAX }, 0);
        assert_eq!(ended.pages(1)[0][0].until, bounds::SESSION_SECS_MAX);
    }

    #[test]
    fn the_first_makes_room_for_the_last() {
        let ended = Ended::default();
        for number in 0..=bounds::ENDED_SESSIONS_MAX {
            ended.hear(&Past { session: format!("{number:x}"), until: 10 }, 0);
        }
        let set = ended.0.read();
        assert_eq!((set.all.len(), set.order.len()), (bounds::ENDED_SESSIONS_MAX, set.all.len()));
        assert!(!set.all.contains(&0) && set.all.contains(&(bounds::ENDED_SESSIONS_MAX as u128)));
    }
}
