//! Reads a stream into its track, whoever listens.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::StreamExt as _;
use weir_model::bounds;
use weir_runtime::drain::{InFlight, Watch};

use super::track::{End, Track};
use super::{EventId, Frames, Owner, Replays, Sent};
use crate::hop::Kept;
use crate::mcp::sse::{self, Frame};

/// Longest id of a request that goes into the ids of events.
const REQUEST_ID_BYTES_MAX: usize = 256;

/// One stream's task.
pub(super) struct Pump {
    track: Arc<Track>,
    owner: Owner,
    kept: Kept,
    replays: Replays,
    drain: Watch,
    /// Others can fetch what a draining proxy still holds.
    _guard: Option<InFlight>,
    /// The server's own id of the last event that had one.
    upstream: Option<String>,
    request: Option<String>,
}

impl Pump {
    pub(super) fn new(
        track: Arc<Track>,
        owner: Owner,
        kept: Kept,
        (replays, drain): (Replays, &Watch),
    ) -> Self {
        let request = owner.request.as_ref().filter(|raw| raw.len() <= REQUEST_ID_BYTES_MAX);
        let request = request.and_then(|raw| String::from_utf8(raw.to_vec()).ok());
        let reachable = kept.holder().address.is_some();
        let guard = reachable.then(|| drain.guard("streams"));
        let drain = drain.clone();
        Self { track, owner, kept, replays, drain, _guard: guard, upstream: None, request }
    }

    /// Until the stream has ended and its client can be taken to have all of it, or until nobody
    /// wants it any more: dropping it then cancels the call.
    pub(super) async fn run(mut self, mut frames: Frames) {
        let grace = self.replays.0.grace;
        if self.owner.primes {
            self.mark(Some(bounds::SSE_RETRY_MS));
        }
        let mut primed = false;
        loop {
            let frame = tokio::select! {
                frame = async { self.track.room().await; frames.next().await } => frame,
                () = self.track.abandoned(grace) => return,
            };
            match frame {
                None => break,
                Some(Frame::Comment) => {}
                Some(Frame::Message(event)) => {
                    primed = false;
                    self.push(&event);
                }
                Some(Frame::Prime { id, retry_ms }) => {
                    primed = true;
                    if id.is_some() {
                        self.upstream = id;
                    }
                    if self.owner.primes {
                        self.mark(retry_ms);
                    }
                }
            }
        }
        drop(frames);
        if primed && self.upstream.is_some() {
            self.track.end(End::Elsewhere);
            tokio::select! {
                () = self.track.drained() => {}
                () = self.track.abandoned(grace) => {}
            }
            return;
        }
        self.track.end(End::Over);
        tokio::select! {
            // The last events may have got lost on their way.
            () = self.lingered(grace) => {}
            () = async { self.drain.drained().await; self.track.drained().await } => {}
        }
    }

    async fn lingered(&self, grace: Duration) {
        tokio::select! {
            () = async {
                self.track.drained().await;
                self.track.abandoned(grace.min(Duration::from_millis(bounds::REPLAY_LINGER_MS))).await;
            } => {}
            () = self.track.abandoned(grace) => {}
        }
    }

    /// An event without data: its id is where to go on from.
    fn mark(&self, retry_ms: Option<u64>) {
        let id = self.id();
        self.track.push(sse::prime(id.as_deref(), retry_ms));
    }

    fn push(&self, event: &Bytes) {
        let mut out = BytesMut::with_capacity(event.len() + 400);
        if let Some(id) = self.id() {
            out.put_slice(b"id: ");
            out.put_slice(id.as_bytes());
            out.put_u8(b'\n');
        }
        out.put_slice(event);
        self.track.push(out.freeze());
    }

    fn id(&self) -> Option<String> {
        let id = EventId {
            holder: self.kept.holder().clone(),
            at: self.track.next(),
            upstream: self.upstream.clone(),
            request: self.request.clone(),
        };
        id.seal(&self.owner.sealer, &self.owner.bond)
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.replays.leave(&self.owner.principal, &self.track);
    }
}

/// A stream that cannot be asked for again.
pub fn plain(frames: Frames) -> Sent {
    Box::pin(frames.map(Frame::plain))
}
