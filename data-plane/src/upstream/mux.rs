//! Which of the calls on one connection a message belongs to: the pipes of a child, or the stream of
//! an HTTP+SSE session.
//!
//! Answers are told apart by id, progress by token, subscriptions by their id. Nothing else on a
//! shared (modern) child may be guessed: it would show one caller what another one did. A legacy
//! connection has one caller, so there what names no call goes to a call that is in flight.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{broadcast, mpsc};
use weir_model::bounds;
use weir_model::reason::{Reason, Refusal};
use weir_model::snapshot::UpstreamKey;

use super::envelope::{self, Id, Incoming};
use super::hop::{Hop, Sink, Step, is_push};
use super::question::Reply;
use super::{Message, Question, adapt, refuse};

/// Messages that belong to nobody, within the time, after which a server counts as flooding.
const STRAY_MAX: u32 = 10_000;
const STRAY_TIME: Duration = Duration::from_secs(10);

/// Who uses a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// Every caller: a modern server.
    Shared,
    /// One caller, on a session that the gateway keeps.
    Own,
    /// One client, that sees the server's session through and through.
    Transparent,
}

#[derive(Debug)]
struct Pending {
    hop: Hop,
    /// The token by which the child names this call, raw.
    token: Option<Id>,
    sink: Sink,
    order: u64,
}

#[derive(Debug, Default)]
struct State {
    pending: HashMap<Id, Pending>,
    listener: Option<Sink>,
    ended: Option<Refusal>,
    order: u64,
    stray: u32,
    stray_since: Option<Instant>,
    answered: bool,
}

/// The calls in flight on one connection.
#[derive(Debug)]
pub(crate) struct Mux {
    kind: Use,
    key: UpstreamKey,
    changes: broadcast::Sender<UpstreamKey>,
    state: Mutex<State>,
}

impl Mux {
    /// A connection that nobody has called on yet.
    pub(crate) fn new(
        kind: Use,
        key: UpstreamKey,
        changes: broadcast::Sender<UpstreamKey>,
    ) -> Self {
        Self { kind, key, changes, state: Mutex::default() }
    }

    /// Waits for the messages of a call.
    pub(crate) fn register(
        &self,
        hop: Hop,
        token: Option<Id>,
    ) -> Result<mpsc::Receiver<Result<Message, Refusal>>, Refusal> {
        let mut state = self.state.lock();
        if let Some(refusal) = &state.ended {
            return Err(refusal.clone());
        }
        if state.pending.len() >= bounds::CHILD_CALLS_MAX {
            return Err(Refusal::new(
                Reason::Overloaded,
                "too many calls in flight on one connection",
            ));
        }
        if state.pending.contains_key(&hop.id) {
            return Err(Refusal::new(Reason::InvalidRequest, "the request id is in use already"));
        }
        // One place is kept free for the answer.
        let (sink, messages) = mpsc::channel(bounds::STREAM_QUEUE_MESSAGES + 1);
        state.order += 1;
        let order = state.order;
        state.pending.insert(hop.id.clone(), Pending { hop, token, sink, order });
        Ok(messages)
    }

    /// Stops to wait; true when the answer was still to come.
    pub(crate) fn unregister(&self, id: &Id) -> bool {
        self.state.lock().pending.remove(id).is_some()
    }

    /// Takes what belongs to no call from now on.
    pub(crate) fn listen(&self) -> Result<mpsc::Receiver<Result<Message, Refusal>>, Refusal> {
        let mut state = self.state.lock();
        if let Some(refusal) = &state.ended {
            return Err(refusal.clone());
        }
        let (sink, messages) = mpsc::channel(bounds::STREAM_QUEUE_MESSAGES + 1);
        state.listener = Some(sink);
        Ok(messages)
    }

    /// One message of the server. An answer that the gateway gives in the client's place comes back;
    /// `reply` is how a question is answered later.
    pub(crate) fn line(
        &self,
        line: &Bytes,
        reply: impl Fn() -> Reply,
    ) -> Result<Option<Bytes>, Refusal> {
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        // Many programs print a greeting where only messages belong.
        let Ok(incoming) = envelope::split(line)
            .and_then(|parts| parts.iter().map(envelope::read).collect::<Result<Vec<_>, _>>())
        else {
            return self.stray(&mut self.state.lock()).map(|()| None);
        };
        let mut answer = None;
        for one in incoming {
            answer = self.message(one, &reply)?.or(answer);
        }
        Ok(answer)
    }

    fn message(
        &self,
        incoming: Incoming,
        reply: &impl Fn() -> Reply,
    ) -> Result<Option<Bytes>, Refusal> {
        let mut state = self.state.lock();
        match &incoming {
            Incoming::Result { id, .. } | Incoming::Error { id: Some(id), .. } => {
                let Some(pending) = state.pending.remove(id) else {
                    return self.stray(&mut state).map(|()| None);
                };
                state.answered = true;
                if let Step::Final(message) = pending.hop.step(incoming) {
                    let _ = pending.sink.try_send(message);
                }
                Ok(None)
            }
            Incoming::Error { id: None, .. } => self.stray(&mut state).map(|()| None),
            Incoming::Notification { method, whole } => {
                if method.ends_with("/list_changed") {
                    // Nobody may be watching.
                    let _ = self.changes.send(self.key.clone());
                }
                let message = match self.owner(&state, method, whole) {
                    Some(pending) => match pending.hop.step(incoming) {
                        Step::Pass(message) => Some((pending.sink.clone(), message)),
                        _ => None,
                    },
                    None => {
                        let listener = state.listener.clone();
                        listener.map(|sink| (sink, Message::Notification(whole.clone())))
                    }
                };
                self.pass(&mut state, message).map(|()| None)
            }
            Incoming::Request { id, method, whole } => match self.kind {
                Use::Shared => self.stray(&mut state).map(|()| None),
                // The client that sees through answers pings as well; elsewhere they are ours.
                Use::Own | Use::Transparent => match Self::anyone(&state) {
                    Some(sink) if self.kind == Use::Transparent => {
                        let message = Message::Request(whole.clone());
                        self.pass(&mut state, Some((sink, message))).map(|()| None)
                    }
                    Some(sink) if method != "ping" => {
                        let question = Question::new(id.clone(), method.clone(), whole, reply());
                        let message = Message::Ask(question);
                        self.pass(&mut state, Some((sink, message))).map(|()| None)
                    }
                    _ => {
                        let (member, body) = adapt::stand_in(method);
                        Ok(Some(envelope::response(id, member, body)))
                    }
                },
            },
        }
    }

    /// The call that a notification belongs to.
    fn owner<'a>(&self, state: &'a State, method: &str, whole: &Bytes) -> Option<&'a Pending> {
        if method == "notifications/progress" {
            let token = Id::of(adapt::progress_token(whole)?);
            return state.pending.values().find(|one| one.token.as_ref() == Some(&token));
        }
        if let Some(id) = adapt::subscription(whole) {
            return state.pending.get(&Id::of(id));
        }
        match self.kind {
            Use::Shared => None,
            // Whoever listens gets what concerns no call.
            _ if is_push(method) && state.listener.is_some() => None,
            Use::Own | Use::Transparent => state.pending.values().max_by_key(|one| one.order),
        }
    }

    /// Where a client can be reached that sees everything of its connection.
    fn anyone(state: &State) -> Option<Sink> {
        let newest = state.pending.values().max_by_key(|one| one.order);
        newest.map(|one| one.sink.clone()).or_else(|| state.listener.clone())
    }

    /// Queues a message, unless the client is too slow: then it loses notifications, never the
    /// answer, and never holds up the others.
    fn pass(&self, state: &mut State, message: Option<(Sink, Message)>) -> Result<(), Refusal> {
        let Some((sink, message)) = message else { return self.stray(state) };
        if sink.capacity() > 1 && sink.try_send(Ok(message)).is_ok() {
            return Ok(());
        }
        self.stray(state)
    }

    /// Counts what nobody wants.
    fn stray(&self, state: &mut State) -> Result<(), Refusal> {
        if state.stray_since.is_none_or(|since| since.elapsed() > STRAY_TIME) {
            state.stray_since = Some(Instant::now());
            state.stray = 0;
        }
        state.stray += 1;
        if state.stray > STRAY_MAX {
            return Err(refuse::protocol("the server floods its output"));
        }
        Ok(())
    }

    /// Ends every call. The first reason stays.
    pub(crate) fn close(&self, refusal: Refusal) {
        let mut state = self.state.lock();
        let refusal = state.ended.get_or_insert(refusal).clone();
        for (_, pending) in state.pending.drain() {
            let _ = pending.sink.try_send(Err(refusal.clone()));
        }
        state.listener = None;
    }

    /// Why the connection takes no more calls.
    pub(crate) fn ended(&self) -> Refusal {
        let ended = self.state.lock().ended.clone();
        ended.unwrap_or_else(|| refuse::closed("the connection takes no more calls"))
    }

    /// True when the connection has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().ended.is_some()
    }

    /// True when nobody waits for anything.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.state.lock();
        state.pending.is_empty() && state.listener.as_ref().is_none_or(mpsc::Sender::is_closed)
    }

    /// True after the server has answered anything.
    pub(crate) fn has_answered(&self) -> bool {
        self.state.lock().answered
    }
}
