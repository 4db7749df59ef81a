//! Little that a proxy remembers about clients of older revisions, all of it expendable.
//!
//! Sessions themselves live in their ids. What is kept here, bounded: which sessions were ended
//! before their time (so that the id is refused although it still opens), which calls are in
//! flight (so that `notifications/cancelled` finds them), and what sessions are subscribed to.
//! Proxies tell each other what of this they all have to know: see [`crate::neighbours`].

mod ended;
mod live;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use weir_model::bounds;
use weir_model::reason::{Reason, Refusal};

pub use ended::{Ended, Ending, Past};
pub use live::{InUse, Live, Sighting};

/// Calls in flight of clients that cancel by notification.
#[derive(Debug, Clone, Default)]
pub struct InFlight(Arc<Shards>);

type Shard = Mutex<HashMap<String, CancellationToken>>;

#[derive(Debug, Default)]
struct Shards([Shard; 16]);

/// One call in flight; ends with the guard.
#[derive(Debug)]
pub struct Cancellable {
    calls: InFlight,
    key: String,
    token: CancellationToken,
}

impl InFlight {
    /// Makes a call cancellable under its session and id.
    pub fn register(&self, session: &str, id: &str) -> Cancellable {
        let key = format!("{session}\0{id}");
        let token = CancellationToken::new();
        self.shard(&key).lock().insert(key.clone(), token.clone());
        Cancellable { calls: self.clone(), key, token }
    }

    /// Cancels a call; false when it is not in flight here.
    pub fn cancel(&self, session: &str, id: &str) -> bool {
        let key = format!("{session}\0{id}");
        match self.shard(&key).lock().get(&key) {
            Some(token) => {
                token.cancel();
                true
            }
            None => false,
        }
    }

    fn shard(&self, key: &str) -> &Shard {
        let sum = key.bytes().fold(0u8, |sum, b| sum.wrapping_mul(31).wrapping_add(b));
        &self.0.0[usize::from(sum) % self.0.0.len()]
    }
}

impl Cancellable {
    /// Returns once the client has cancelled.
    pub async fn cancelled(&self) {
        self.token.cancelled().await;
    }
}

impl Drop for Cancellable {
    fn drop(&mut self) {
        self.calls.shard(&self.key).lock().remove(&self.key);
    }
}

/// Which resources the sessions of older revisions are subscribed to, by nonce. Lost with the
/// proxy: updates are a hint, and a client whose stream breaks subscribes again.
#[derive(Debug, Clone)]
pub struct Subscriptions(Cache<String, Arc<watch::Sender<BTreeSet<String>>>>);

impl Default for Subscriptions {
    fn default() -> Self {
        let age = Duration::from_secs(bounds::SESSION_SECS_MAX.unsigned_abs());
        Self(
            Cache::builder()
                .max_capacity(bounds::SUBSCRIBED_SESSIONS_MAX)
                .time_to_idle(age)
                .build(),
        )
    }
}

impl Subscriptions {
    fn of(&self, session: &str) -> Arc<watch::Sender<BTreeSet<String>>> {
        self.0.get_with_by_ref(session, Arc::default)
    }

    /// Subscribes a session to a resource, or ends that. Doing either twice is no error.
    ///
    /// # Errors
    /// [`Reason::ConcurrencyLimited`] beyond [`bounds::RESOURCE_SUBSCRIPTIONS_MAX`].
    pub fn set(&self, session: &str, uri: &str, on: bool) -> Result<(), Refusal> {
        let mut full = false;
        self.of(session).send_if_modified(|uris| match on {
            true if uris.contains(uri) => false,
            true if uris.len() >= bounds::RESOURCE_SUBSCRIPTIONS_MAX => {
                full = true;
                false
            }
            true => uris.insert(uri.to_owned()),
            false => uris.remove(uri),
        });
        match full {
            true => {
                Err(Refusal::new(Reason::ConcurrencyLimited, "resource subscriptions")
                    .retry_after(5))
            }
            false => Ok(()),
        }
    }

    /// What a session is subscribed to, now and later.
    pub fn follow(&self, session: &str) -> watch::Receiver<BTreeSet<String>> {
        self.of(session).subscribe()
    }
}

/// How many streams that belong to no call each caller has open.
#[derive(Debug, Clone, Default)]
pub struct Streams(Arc<Mutex<HashMap<String, usize>>>);

/// One open stream; counted until it is dropped.
#[derive(Debug)]
pub struct OpenStream {
    streams: Streams,
    caller: String,
}

impl Streams {
    /// Counts one more stream of a caller, of whom its group may allow less than the gateway.
    ///
    /// # Errors
    /// [`Reason::ConcurrencyLimited`] beyond that, or [`bounds::STREAMS_PER_PRINCIPAL_MAX`].
    pub fn open(&self, caller: &str, most: Option<u32>) -> Result<OpenStream, Refusal> {
        let most = most.map_or(bounds::STREAMS_PER_PRINCIPAL_MAX, |most| most as usize);
        let mut streams = self.0.lock();
        let count = streams.entry(caller.to_owned()).or_default();
        if *count >= most {
            return Err(Refusal::new(Reason::ConcurrencyLimited, "open streams").retry_after(5));
        }
        *count += 1;
        Ok(OpenStream { streams: self.clone(), caller: caller.to_owned() })
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut streams = self.streams.0.lock();
        if let Some(count) = streams.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                streams.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_streams_are_counted_per_caller() {
        let streams = Streams::default();
        let most = bounds::STREAMS_PER_PRINCIPAL_MAX;
        let mut held: Vec<_> = (0..most).map(|_| streams.open("a", None).unwrap()).collect();
        assert_eq!(streams.open("a", None).unwrap_err().reason, Reason::ConcurrencyLimited);
        assert!(streams.open("b", Some(1)).is_ok() && streams.open("a", Some(1)).is_err());
        held.pop();
        assert!(streams.open("a", None).is_ok());
        held.clear();
        assert!(streams.0.lock().is_empty());
    }

    #[test]
    fn subscriptions_belong_to_their_session_and_are_bounded() {
        let subscriptions = Subscriptions::default();
        let followed = subscriptions.follow("a");
        for number in 0..bounds::RESOURCE_SUBSCRIPTIONS_MAX {
            subscriptions.set("a", &format!("x://{number}"), true).unwrap();
        }
        subscriptions.set("a", "x://0", true).unwrap();
        let full = subscriptions.set("a", "x://more", true).unwrap_err();
        assert_eq!(full.reason, Reason::ConcurrencyLimited);
        subscriptions.set("a", "x://0", false).unwrap();
        assert_eq!(followed.borrow().len(), bounds::RESOURCE_SUBSCRIPTIONS_MAX - 1);
        assert!(subscriptions.follow("b").borrow().is_empty());
    }

    #[tokio::test]
    async fn calls_are_cancelled_by_session_and_id() {
        let calls = InFlight::default();
        let call = calls.register("s", "n1");
        assert!(!calls.cancel("other", "n1"));
        assert!(!calls.cancel("s", "n2"));
        assert!(!call.token.is_cancelled());
        assert!(calls.cancel("s", "n1"));
        call.cancelled().await;
        drop(call);
        assert!(calls.0.0.iter().all(|shard| shard.lock().is_empty()));
    }
}
