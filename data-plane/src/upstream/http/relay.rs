//! Carries a server's event stream to the client that waits for it.
//!
//! Ends with the request's answer, with the deadline, or when the client is gone; the last two
//! cancel the request at the server. A legacy server may close the stream early and expect a GET
//! with `Last-Event-ID`; for pooled sessions the gateway does that itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use weir_model::reason::Refusal;
use weir_runtime::task::on_payload;

use super::super::envelope::{self, Incoming};
use super::super::hop::{Hop, Sink, Step};
use super::super::sse::Event;
use super::super::{Message, Question, refuse};
use super::Remote;
use super::legacy::{Bound, Cancel};
use super::post::Events;

/// Attempts to resume one stream without a message in between.
const RESUMES_MAX: u32 = 5;
/// Wait before a resume when the server names none.
const RESUME_DEFAULT: Duration = Duration::from_millis(1_000);
/// Longest wait that a server may ask for.
const RESUME_MAX: Duration = Duration::from_secs(30);
/// How long a full queue may hold up the reason for the end.
const LAST_WORD: Duration = Duration::from_secs(5);

/// A stream on its way to a client.
#[derive(Debug)]
pub(crate) struct Relay {
    remote: Arc<Remote>,
    /// None on a stream that belongs to no request.
    hop: Option<Hop>,
    events: Events,
    deadline: Instant,
    /// The pooled session, kept busy while the stream lives.
    bound: Option<Bound>,
    cancel: Option<Cancel>,
    transparent: bool,
    last_id: Option<String>,
    retry: Duration,
    resumes: u32,
}

/// How a stream ended before its answer.
enum Cause {
    /// The answer went out, or the client is gone.
    Done,
    /// The server closed it.
    Closed(Refusal),
}

impl Relay {
    /// The answer of a modern server.
    pub(super) fn modern(remote: Arc<Remote>, hop: Hop, events: Events, deadline: Instant) -> Self {
        Self {
            remote,
            hop: Some(hop),
            events,
            deadline,
            bound: None,
            cancel: None,
            transparent: false,
            last_id: None,
            retry: RESUME_DEFAULT,
            resumes: 0,
        }
    }

    /// The answer of a legacy server on a session of the pool.
    pub(super) fn pooled(bound: Bound, hop: Hop, events: Events, cancel: Cancel) -> Self {
        let (remote, deadline) = (Arc::clone(&bound.remote), bound.deadline);
        let modern = Self::modern(remote, hop, events, deadline);
        Self { bound: Some(bound), cancel: Some(cancel), ..modern }
    }

    /// The answer of a legacy server on the client's own session.
    pub(super) fn transparent(
        remote: Arc<Remote>,
        hop: Hop,
        events: Events,
        cancel: Cancel,
        deadline: Instant,
    ) -> Self {
        let modern = Self::modern(remote, hop, events, deadline);
        Self { cancel: Some(cancel), transparent: true, ..modern }
    }

    /// A stream of the client's own session that answers no request.
    pub(super) fn push(remote: Arc<Remote>, events: Events, deadline: Instant) -> Self {
        Self {
            remote,
            hop: None,
            events,
            deadline,
            bound: None,
            cancel: None,
            transparent: true,
            last_id: None,
            retry: RESUME_DEFAULT,
            resumes: 0,
        }
    }

    /// Runs until the end.
    pub(super) async fn run(mut self, sink: Sink) {
        let deadline = self.deadline.into();
        let end = tokio::select! {
            () = sink.closed() => None,
            done = tokio::time::timeout_at(deadline, self.pump(&sink)) => Some(done),
        };
        match end {
            Some(Ok(Cause::Done)) => self.settled(),
            Some(Ok(Cause::Closed(refusal))) => {
                self.settled();
                last_word(&sink, refusal).await;
            }
            Some(Err(_)) => {
                last_word(&sink, refuse::timeout("no answer before the deadline")).await;
            }
            None => {}
        }
    }

    /// Nothing is left to cancel.
    fn settled(&mut self) {
        if let Some(cancel) = &mut self.cancel {
            cancel.disarm();
        }
    }

    async fn pump(&mut self, sink: &Sink) -> Cause {
        loop {
            let refusal = match self.events.next().await {
                Ok(Some(event)) => match self.event(event, sink).await {
                    Ok(true) => return Cause::Done,
                    Ok(false) => continue,
                    Err(refusal) => return Cause::Closed(refusal),
                },
                Ok(None) => refuse::closed("the stream ended before the answer"),
                Err(refusal) => refusal,
            };
            // The server asks the client to come back, or a push stream has simply ended.
            if self.transparent && (self.hop.is_none() || self.last_id.is_some()) {
                return Cause::Done;
            }
            if let Err(refusal) = self.resume(refusal).await {
                return Cause::Closed(refusal);
            }
        }
    }

    /// Handles one event; true when the answer went out.
    async fn event(&mut self, event: Event, sink: &Sink) -> Result<bool, Refusal> {
        if let Some(retry) = event.retry_ms {
            self.retry = Duration::from_millis(retry).min(RESUME_MAX);
        }
        if event.id.is_some() {
            self.last_id.clone_from(&event.id);
            if self.transparent {
                // The client can come back for the rest: its leaving is no cancellation.
                self.settled();
            }
        }
        let mut done = false;
        if event.name.as_deref().is_none_or(|name| name == "message")
            && let Some(data) = &event.data
        {
            self.resumes = 0;
            for part in envelope::split(data).map_err(refuse::protocol)? {
                done |= self.message(&part, sink).await?;
            }
        }
        let prime = event.id.is_some() || event.retry_ms.is_some();
        if self.transparent && prime && !done {
            let prime = Message::Prime { id: event.id, retry_ms: event.retry_ms };
            let _ = sink.send(Ok(prime)).await;
        }
        Ok(done)
    }

    async fn message(&mut self, part: &bytes::Bytes, sink: &Sink) -> Result<bool, Refusal> {
        let incoming = on_payload(part.len(), || envelope::read(part)).map_err(refuse::protocol)?;
        if let Incoming::Notification { method, .. } = &incoming {
            self.remote.noticed(method);
        }
        let Some(hop) = &self.hop else {
            let message = match incoming {
                Incoming::Notification { whole, .. } => Message::Notification(whole),
                Incoming::Request { whole, .. } => Message::Request(whole),
                Incoming::Result { .. } | Incoming::Error { .. } => Message::Response(part.clone()),
            };
            let _ = sink.send(Ok(message)).await;
            return Ok(false);
        };
        match hop.step(incoming) {
            Step::Pass(message) => {
                let _ = sink.send(Ok(message)).await;
            }
            Step::Final(message) => {
                let _ = sink.send(message).await;
                return Ok(true);
            }
            Step::Ask { id, method, whole } => {
                if let Some(bound) = &self.bound {
                    let question = Question::new(id, method, &whole, bound.reply());
                    // A ping is between the gateway and the server.
                    if question.method != "ping" {
                        let _ = sink.send(Ok(Message::Ask(question))).await;
                    }
                }
            }
            Step::Skip => {}
        }
        Ok(false)
    }

    /// Opens the stream again after the last event that was seen.
    async fn resume(&mut self, refusal: Refusal) -> Result<(), Refusal> {
        let (Some(bound), Some(last)) = (&self.bound, &self.last_id) else { return Err(refusal) };
        self.resumes += 1;
        if self.resumes > RESUMES_MAX {
            return Err(refusal);
        }
        tokio::time::sleep(self.retry).await;
        match bound.reopen(last).await {
            Ok(events) => {
                self.events = events;
                Ok(())
            }
            Err(later) => {
                tracing::debug!(server = %self.remote.key, %later, "a stream cannot be resumed");
                Err(refusal)
            }
        }
    }
}

/// Tells a client, slow ones too, why nothing more comes. One that is gone needs no reason.
async fn last_word(sink: &Sink, refusal: Refusal) {
    let _ = tokio::time::timeout(LAST_WORD, sink.send(Err(refusal))).await;
}
