//! The events of one stream, and who reads them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::BodyExt as _;
use tokio::sync::watch;
use tokio::time::Instant;
use weir_model::bounds;
use weir_model::reason::{Reason, Refusal};

use super::Sent;
use crate::hop::{Body, Holding, streamed};
use crate::mcp::sse;

/// What a track is asked between proxies: the body is the number of the last event that the
/// client has, in decimal; the answer are the events after it, and all to come.
pub const RESUME: &str = "resume";

/// One stream.
#[derive(Debug)]
pub(super) struct Track {
    state: watch::Sender<State>,
    total: Arc<AtomicUsize>,
    /// How long one connection may read.
    polls: Option<Duration>,
}

#[derive(Debug)]
struct State {
    events: VecDeque<Bytes>,
    /// Number of the first event that is kept.
    first: u64,
    /// Number of the first event that no reader has taken.
    unread: u64,
    bytes: usize,
    unread_bytes: usize,
    /// Counts readers: the newest one reads.
    reader: u64,
    /// Since when nobody reads.
    left: Option<Instant>,
    end: End,
    evicted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// More may come.
    Open,
    /// Nothing more comes.
    Over,
    /// The server goes on elsewhere: its client has to come back to it.
    Elsewhere,
}

impl State {
    fn next(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    fn room(&self) -> bool {
        let unread = self.next() - self.unread;
        unread < bounds::STREAM_QUEUE_MESSAGES as u64
            && self.unread_bytes < bounds::REPLAY_BYTES_MAX
    }

    /// Lets go of what was read until no more than `keep` bytes are kept.
    fn trim(&mut self, keep: usize) -> usize {
        let before = self.bytes;
        while self.bytes > keep && self.first < self.unread {
            let Some(event) = self.events.pop_front() else { break };
            self.bytes -= event.len();
            self.first += 1;
        }
        before - self.bytes
    }

    fn event(&self, at: u64) -> Option<&Bytes> {
        self.events.get(usize::try_from(at.checked_sub(self.first)?).ok()?)
    }
}

impl Track {
    pub(super) fn new(total: Arc<AtomicUsize>, polls: Option<Duration>) -> Self {
        let state = State {
            events: VecDeque::new(),
            first: 0,
            unread: 0,
            bytes: 0,
            unread_bytes: 0,
            reader: 0,
            left: Some(Instant::now()),
            end: End::Open,
            evicted: false,
        };
        Self { state: watch::Sender::new(state), total, polls }
    }

    /// Number of the next event.
    pub(super) fn next(&self) -> u64 {
        self.state.borrow().next()
    }

    /// Adds an event, whole, with its id.
    pub(super) fn push(&self, event: Bytes) {
        self.total.fetch_add(event.len(), Ordering::AcqRel);
        self.state.send_modify(|state| {
            state.bytes += event.len();
            state.unread_bytes += event.len();
            state.events.push_back(event);
            self.trim(state);
        });
    }

    fn trim(&self, state: &mut State) {
        let crowded = self.total.load(Ordering::Acquire) > bounds::REPLAY_TOTAL_BYTES_MAX;
        let gone = state.trim(if crowded { 0 } else { bounds::REPLAY_BYTES_MAX });
        self.total.fetch_sub(gone, Ordering::AcqRel);
    }

    pub(super) fn end(&self, end: End) {
        self.state.send_modify(|state| state.end = end);
    }

    /// Makes room for another track of the same caller.
    pub(super) fn evict(&self) {
        self.state.send_modify(|state| state.evicted = true);
    }

    /// True when only what was sent already is kept.
    pub(super) fn done(&self) -> bool {
        let state = self.state.borrow();
        state.end != End::Open && state.unread == state.next()
    }

    /// Returns when more may be taken from the server.
    pub(super) async fn room(&self) {
        let _ = self.state.subscribe().wait_for(State::room).await;
    }

    /// Returns when all was read.
    pub(super) async fn drained(&self) {
        let all = |state: &State| state.unread == state.next();
        let _ = self.state.subscribe().wait_for(all).await;
    }

    /// Returns when nobody has read for that long.
    pub(super) async fn abandoned(&self, grace: Duration) {
        let mut state = self.state.subscribe();
        loop {
            let left = match state.wait_for(|s| s.left.is_some() || s.evicted).await {
                Ok(state) if !state.evicted => state.left,
                _ => return,
            };
            let Some(left) = left else { continue };
            let back = state.wait_for(|s| s.left != Some(left) || s.evicted);
            if tokio::time::timeout_at(left + grace, back).await.is_err() {
                return;
            }
        }
    }

    /// The first reader, from the beginning.
    pub(super) fn read(self: &Arc<Self>) -> Sent {
        self.reader(0)
    }

    /// A reader that has what came before `at`. Whoever read until now is done.
    fn reader(self: &Arc<Self>, at: u64) -> Sent {
        let mut number = 0;
        self.state.send_modify(|state| {
            state.reader += 1;
            state.left = None;
            number = state.reader;
            // What it has not got yet must not be let go of.
            state.unread = at;
            let skip = usize::try_from(at - state.first).unwrap_or(usize::MAX);
            state.unread_bytes = state.events.iter().skip(skip).map(Bytes::len).sum();
        });
        let reader = Reader {
            state: self.state.subscribe(),
            track: Arc::clone(self),
            number,
            at,
            until: self.polls.map(|time| Instant::now() + time),
        };
        Box::pin(futures_util::stream::unfold(reader, |mut reader| async move {
            let event = reader.next().await?;
            Some((event, reader))
        }))
    }

    /// The events after number `last`.
    pub(super) fn after(self: &Arc<Self>, last: u64) -> Option<Sent> {
        let at = last.checked_add(1)?;
        {
            let state = self.state.borrow();
            let elsewhere = state.end == End::Elsewhere && at == state.next();
            if at < state.first || at > state.next() || state.evicted || elsewhere {
                return None;
            }
        }
        Some(self.reader(at))
    }
}

impl Drop for Track {
    fn drop(&mut self) {
        self.total.fetch_sub(self.state.borrow().bytes, Ordering::AcqRel);
    }
}

#[async_trait]
impl Holding for Arc<Track> {
    async fn ask(&self, verb: &str, body: Body) -> Result<Body, Refusal> {
        let gone = || Refusal::new(Reason::InvalidRequest, "the events are gone");
        if verb != RESUME {
            return Err(Refusal::new(Reason::Internal, "not what a stream is asked"));
        }
        let number = http_body_util::Limited::new(body, 32);
        let number = number.collect().await.map_err(|_| gone())?.to_bytes();
        let number = std::str::from_utf8(&number).ok().and_then(|text| text.parse().ok());
        let events = number.and_then(|number| self.after(number)).ok_or_else(gone)?;
        Ok(streamed(events.map(Ok)))
    }
}

/// One connection's reading.
struct Reader {
    track: Arc<Track>,
    state: watch::Receiver<State>,
    number: u64,
    at: u64,
    /// When it is sent away; what is there by then it still gets.
    until: Option<Instant>,
}

impl Reader {
    async fn next(&mut self) -> Option<Bytes> {
        let quiet = Instant::now() + Duration::from_millis(bounds::SSE_KEEPALIVE_MS);
        let end = self.until.map_or(quiet, |until| until.min(quiet));
        let (number, at) = (self.number, self.at);
        let ready =
            |state: &State| state.reader != number || state.end != End::Open || at < state.next();
        let event = match tokio::time::timeout_at(end, self.state.wait_for(ready)).await {
            Err(_) if self.until.is_some_and(|until| until <= Instant::now()) => return None,
            Err(_) => return Some(sse::KEEP_ALIVE),
            Ok(Err(_)) => return None,
            Ok(Ok(state)) if state.reader != number => return None,
            Ok(Ok(state)) => state.event(at).cloned()?,
        };
        self.at += 1;
        let taken = self.at;
        self.track.state.send_modify(|state| {
            if state.unread < taken {
                state.unread = taken;
                state.unread_bytes -= event.len();
            }
            self.track.trim(state);
        });
        Some(event)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let number = self.number;
        self.track.state.send_if_modified(|state| {
            let mine = state.reader == number;
            if mine {
                state.left = Some(Instant::now());
            }
            mine
        });
    }
}
