//! Streams that their clients may ask for again (2025-03-26 and later: `Last-Event-ID`).
//!
//! A stream to a client with a session is not read by its connection but by a task of its own,
//! into a [`Track`]: numbered events, those that were sent kept for a while behind those that
//! were not. Connections come and go; the newest one reads. Other proxies read over the
//! [hop](crate::hop): an event's id is a sealed token that says where the track is.
//!
//! Bounds: a track takes no more from the server while [`bounds::STREAM_QUEUE_MESSAGES`] events or
//! [`bounds::REPLAY_BYTES_MAX`] are unread, and keeps no more than that of what was read (nothing
//! when all tracks together are over [`bounds::REPLAY_TOTAL_BYTES_MAX`]). A caller has at most
//! [`bounds::REPLAYS_PER_PRINCIPAL_MAX`]; the oldest that has ended makes room, and where none
//! has, or the proxy holds too much already, the stream cannot be asked for again and its events
//! carry no ids. A track that nobody reads ends after a grace, and with it the call.
//!
//! Where something on the way does not like long answers, the gateway itself ends them: with a time to
//! poll, a client of 2025-11-25 has its connection closed and comes back for the rest.

mod pump;
mod track;

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use weir_model::bounds;
use weir_model::id::Digest;
use weir_model::seal::Sealer;

use crate::hop::{Holder, Hop};
use crate::mcp::sse::Frame;
use track::Track;
use weir_runtime::drain::Watch;
use weir_runtime::task;

pub use pump::plain;
pub use track::RESUME;

/// Frames of one stream, as they are made.
pub type Frames = Pin<Box<dyn Stream<Item = Frame> + Send>>;
/// Frames of one stream, as they are sent.
pub type Sent = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

const PURPOSE: &str = "event";

/// What an event's id says, sealed.
#[derive(Debug, Serialize, Deserialize)]
pub struct EventId {
    /// Who has the stream.
    #[serde(rename = "h")]
    pub holder: Holder,
    /// Number of the event.
    #[serde(rename = "q")]
    pub at: u64,
    /// The server's own id of the last event that had one.
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// Id of the request that the stream answers, as raw JSON; none when it answers none.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

/// Whose stream it is, and how its events are marked.
#[derive(Debug)]
pub struct Owner {
    /// Principal, endpoint and session, which sealed ids are bound to.
    pub bond: Vec<u8>,
    /// [`weir_model::principal::Principal::id`].
    pub principal: String,
    /// With the snapshot's keys.
    pub sealer: Arc<Sealer>,
    /// The client knows events without data (2025-11-25).
    pub primes: bool,
    /// Id of the request, raw; none for a stream that answers none.
    pub request: Option<Bytes>,
}

impl Owner {
    /// Whose holdings they are.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.bond)
    }
}

impl EventId {
    /// Opens an event's id; none for what this gateway did not give to this caller here.
    pub fn open(sealer: &Sealer, bond: &[u8], text: &str) -> Option<Self> {
        serde_json::from_slice(&sealer.open(PURPOSE, bond, text).ok()?).ok()
    }

    /// None when it would be too long.
    fn seal(&self, sealer: &Sealer, bond: &[u8]) -> Option<String> {
        sealer.seal(PURPOSE, bond, &serde_json::to_vec(self).ok()?).ok()
    }
}

/// The tracks of a proxy. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Replays(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    callers: Mutex<HashMap<String, VecDeque<Weak<Track>>>>,
    bytes: Arc<AtomicUsize>,
    grace: Duration,
    polls: Option<Duration>,
}

impl Replays {
    /// Tracks that wait for `grace` for their client to come back. With `polls`, clients that know
    /// it (2025-11-25) are sent away after that time, to come back.
    pub fn new(grace: Duration, polls: Option<Duration>) -> Self {
        Self(Arc::new(Inner { callers: Mutex::default(), bytes: Arc::default(), grace, polls }))
    }

    /// The same stream, with ids, read on when the client leaves. As it is, with no ids, when
    /// there is no room for one more.
    pub fn track(&self, hop: &Hop, owner: Owner, frames: Frames, drain: &Watch) -> Sent {
        let polls = self.0.polls.filter(|_| owner.primes);
        let track = Arc::new(Track::new(Arc::clone(&self.0.bytes), polls));
        let kept = match self.admit(&owner.principal, &track) {
            true => hop.keep(owner.digest(), Arc::new(Arc::clone(&track))).ok(),
            false => None,
        };
        let Some(kept) = kept else { return plain(frames) };
        let sent = track.read();
        let pump = pump::Pump::new(track, owner, kept, (self.clone(), drain));
        // What there is already leaves with the head of the answer.
        task::spawn_begun(pump.run(frames));
        sent
    }

    /// Counts a caller's track; the oldest that has ended makes room.
    fn admit(&self, principal: &str, track: &Arc<Track>) -> bool {
        let mut callers = self.0.callers.lock();
        let tracks = callers.entry(principal.to_owned()).or_default();
        tracks.retain(|track| track.strong_count() > 0);
        if tracks.len() >= bounds::REPLAYS_PER_PRINCIPAL_MAX {
            let ended = |track: &Weak<Track>| track.upgrade().is_some_and(|track| track.done());
            let Some(at) = tracks.iter().position(ended) else { return false };
            if let Some(track) = tracks.remove(at).and_then(|track| track.upgrade()) {
                track.evict();
            }
        }
        tracks.push_back(Arc::downgrade(track));
        true
    }

    fn leave(&self, principal: &str, track: &Arc<Track>) {
        let mut callers = self.0.callers.lock();
        let Some(tracks) = callers.get_mut(principal) else { return };
        tracks.retain(|other| !std::ptr::eq(other.as_ptr(), Arc::as_ptr(track)));
        if tracks.is_empty() {
            callers.remove(principal);
        }
    }
}

#[cfg(test)]
mod tests;
