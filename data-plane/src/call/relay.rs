//! Streams towards the client: messages as they come, and one end.
//!
//! A [`Flow`] is polled by the connection, so a slow client slows the server down instead of
//! filling memory. It ends with the final message, a refusal, the client's cancellation, or (for
//! streams that belong to no call) a drain, the end of the caller's token, or a change of the
//! rules. Dropping it cancels the exchange at the server.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use tokio::sync::mpsc::Receiver;
use tracing::Instrument as _;
use weir_model::audit::Outcome;
use weir_model::bounds;
use weir_model::reason::{Reason, Refusal};
use weir_runtime::drain::Watch;

use super::Gateway;
use super::Stop;
use super::forward::{Finish, Scope, cancelled};
use super::http_sse::Open;
use super::record::Record;
use super::reserve::Held;
use super::respond::{self, Answer};
use super::tasks::Tasks;
use super::watched::{self, Watched};
use crate::mcp::sse::{self, Frame};
use crate::sessions::Cancellable;
use crate::upstream::{Exchange, Message, Messages};

/// A stream towards the client.
#[derive(Debug)]
pub struct Flow {
    first: Option<Message>,
    messages: Source,
    /// None for streams that belong to no call.
    finish: Option<Finish>,
    /// The client can be asked: requests of the server go to it.
    asks: bool,
    /// For the ids of tasks in what belongs to no call.
    tasks: Option<Arc<Tasks>>,
    primed: bool,
    drain: Watch,
    /// Belongs to no call: ends with a drain.
    endless: bool,
    watch: Option<Watched>,
    /// The result with which such a stream ends in good order.
    farewell: Option<Bytes>,
    /// Of a client of 2024-11-05.
    pair: Option<Pair>,
    cancellable: Option<Cancellable>,
    ticket: Option<Held>,
    reply: Option<(Bytes, Record)>,
    done: bool,
}

/// Where the messages of a stream come from; ends after the last.
pub enum Source {
    /// A task that reads them from a server.
    Queue(Receiver<Result<Message, Refusal>>),
    /// They are made when they are asked for.
    Here(Pin<Box<dyn Stream<Item = Result<Message, Refusal>> + Send>>),
}

impl Source {
    async fn next(&mut self) -> Option<Result<Message, Refusal>> {
        match self {
            Self::Queue(messages) => messages.recv().await,
            Self::Here(messages) => messages.next().await,
        }
    }
}

impl From<Receiver<Result<Message, Refusal>>> for Source {
    fn from(messages: Receiver<Result<Message, Refusal>>) -> Self {
        Self::Queue(messages)
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Queue(_) => "Queue",
            Self::Here(_) => "Here",
        })
    }
}

/// What makes a stream the one stream of its client.
#[derive(Debug)]
struct Pair {
    greeting: Option<Bytes>,
    frames: Receiver<Bytes>,
    open: Open,
}

enum Event {
    Frame(Option<Bytes>),
    Message(Option<Result<Message, Refusal>>),
    Quiet,
    Cancelled,
    Over,
}

/// What a turn of the loop gives.
enum Step {
    Send(Frame),
    Last(Bytes, Outcome),
    End(Outcome),
}

impl Flow {
    /// The stream that answers a request.
    pub fn answer(
        first: Option<Message>,
        messages: Receiver<Result<Message, Refusal>>,
        finish: Finish,
        (scope, gateway): (Scope<'_>, &Gateway),
    ) -> Self {
        Self {
            first,
            messages: messages.into(),
            finish: Some(finish),
            asks: !scope.client.modern(),
            tasks: None,
            primed: false,
            drain: gateway.drain.clone(),
            endless: false,
            watch: None,
            farewell: None,
            pair: None,
            cancellable: None,
            ticket: None,
            reply: None,
            done: false,
        }
    }

    /// A stream on which a server pushes what belongs to no call.
    ///
    /// # Errors
    /// See [`Self::open`].
    pub fn push(exchange: Exchange, scope: Scope<'_>, gateway: &Gateway) -> Result<Self, Refusal> {
        let messages = match exchange.messages {
            Messages::Stream(messages) => messages,
            Messages::One(message) => {
                let (sender, messages) = tokio::sync::mpsc::channel(1);
                // The one message fits into the empty channel.
                let _ = sender.try_send(Ok(message));
                messages
            }
        };
        Self::open(messages, scope, gateway)
    }

    /// A stream that belongs to no call.
    ///
    /// # Errors
    /// [`Reason::ConcurrencyLimited`] when the caller has too many of them.
    pub fn open(
        messages: impl Into<Source>,
        scope: Scope<'_>,
        gateway: &Gateway,
    ) -> Result<Self, Refusal> {
        let listen = scope.call.message().and_then(|message| message.id());
        Ok(Self {
            first: None,
            messages: messages.into(),
            finish: None,
            asks: !scope.client.modern(),
            tasks: Tasks::of_session(gateway, scope),
            primed: false,
            drain: gateway.drain.clone(),
            endless: true,
            watch: Some(Watched::new(scope, gateway)?),
            farewell: listen.map(|id| farewell(id.raw())),
            pair: None,
            cancellable: None,
            ticket: None,
            reply: None,
            done: false,
        })
    }

    /// Begins with a message that has come already.
    #[must_use]
    pub fn beginning_with(mut self, first: Option<Message>) -> Self {
        self.first = first;
        self
    }

    /// Keeps capacity taken and the call cancellable until the stream ends.
    #[must_use]
    pub fn holding(mut self, ticket: Held, cancellable: Option<Cancellable>) -> Self {
        self.ticket = Some(ticket);
        self.cancellable = cancellable;
        self
    }

    /// Carries what all calls of a client say, after a greeting.
    #[must_use]
    pub fn of_pair(mut self, greeting: Bytes, frames: Receiver<Bytes>, open: Open) -> Self {
        self.pair = Some(Pair { greeting: Some(greeting), frames, open });
        self
    }

    /// Ends when its call would not be allowed any more.
    #[must_use]
    pub fn watching(mut self, watch: Watched) -> Self {
        self.watch.get_or_insert(watch.lasting());
        self
    }

    /// Ends with the final result, whose treatment this is, though it belongs to no call.
    #[must_use]
    pub fn ending_with(mut self, finish: Finish) -> Self {
        self.finish = Some(finish);
        self
    }

    /// Waits for the final message alone, for clients that take no stream.
    ///
    /// # Errors
    /// What a stream would tell as its last message.
    pub async fn settle(mut self) -> Result<Answer, Stop> {
        loop {
            let refusal = match self.event().await {
                Event::Message(Some(Ok(Message::Result(raw)))) => match &self.finish {
                    Some(finish) => {
                        let (raw, outcome) = finish.result(raw)?;
                        return Ok(Answer::Result { raw, outcome, session: None });
                    }
                    None => Reason::Internal.into(),
                },
                Event::Message(Some(Ok(Message::Error(raw)))) => match &self.finish {
                    Some(finish) => {
                        let (raw, code) = finish.error(raw);
                        return Ok(Answer::Error { raw, code });
                    }
                    None => Reason::Internal.into(),
                },
                Event::Message(Some(Ok(Message::Request(_)))) => Refusal::new(
                    Reason::CannotBridge,
                    "the server asks something that this client cannot be asked",
                ),
                Event::Message(Some(Ok(_))) | Event::Quiet | Event::Frame(_) => continue,
                Event::Message(Some(Err(refusal))) => refusal,
                Event::Message(None) => Reason::UpstreamClosed.into(),
                Event::Cancelled => Reason::Cancelled.into(),
                Event::Over => Reason::Denied.into(),
            };
            return Err(refusal.into());
        }
    }

    /// The body: every frame is one event. `id` is the client's, for the final message.
    pub fn into_stream(mut self, id: Bytes, record: Record) -> impl Stream<Item = Frame> + Send {
        let span = record.span();
        self.reply = Some((id, record));
        futures_util::stream::unfold(self, move |mut flow| {
            let next = async move {
                let frame = flow.next().await?;
                Some((frame, flow))
            };
            next.instrument(span.clone())
        })
    }

    async fn next(&mut self) -> Option<Frame> {
        if self.done {
            return None;
        }
        loop {
            let event = self.event().await;
            let frame = match self.step(event) {
                None => continue,
                Some(Step::Send(frame)) => frame,
                // Boxed: a stream that waits does not hold the room of its end.
                Some(Step::Last(frame, outcome)) => {
                    Frame::Message(Box::pin(self.close(frame, outcome)).await)
                }
                Some(Step::End(outcome)) => {
                    Box::pin(self.close(Bytes::new(), outcome)).await;
                    return None;
                }
            };
            if let Some((_, record)) = &mut self.reply {
                record.facts.response_bytes += frame.bytes();
            }
            return Some(frame);
        }
    }

    async fn event(&mut self) -> Event {
        if let Some(first) = self.first.take() {
            return Event::Message(Some(Ok(first)));
        }
        if let Some(greeting) = self.pair.as_mut().and_then(|pair| pair.greeting.take()) {
            return Event::Frame(Some(greeting));
        }
        let endless = self.endless;
        let (frames, open) = match &mut self.pair {
            Some(pair) => (Some(&mut pair.frames), Some(&pair.open)),
            None => (None, None),
        };
        tokio::select! {
            biased;
            message = self.messages.next() => Event::Message(message),
            () = cancelled(self.cancellable.as_ref()) => Event::Cancelled,
            () = over(self.watch.as_mut()) => Event::Over,
            frame = framed(frames) => Event::Frame(frame),
            () = drained(&self.drain, open), if endless => Event::Over,
            () = tokio::time::sleep(Duration::from_millis(bounds::SSE_KEEPALIVE_MS)) => Event::Quiet,
        }
    }

    fn step(&mut self, event: Event) -> Option<Step> {
        Some(match event {
            Event::Quiet => Step::Send(Frame::Comment),
            Event::Frame(Some(frame)) => Step::Send(Frame::Message(frame)),
            Event::Frame(None) => Step::End(Outcome::Success),
            Event::Cancelled => self.refused(&Reason::Cancelled.into()),
            Event::Over if !self.endless => self.refused(&watched::withdrawn()),
            Event::Over => match &self.farewell {
                Some(raw) => Step::Last(self.envelope("result", raw), Outcome::Success),
                None => Step::End(Outcome::Success),
            },
            Event::Message(Some(Ok(message))) => return self.message(message),
            Event::Message(Some(Err(refusal))) => self.refused(&refusal),
            // The server asked the client to come back, or pushed until it had enough.
            Event::Message(None) if self.primed || self.finish.is_none() => {
                Step::End(Outcome::Success)
            }
            Event::Message(None) => self.refused(&Reason::UpstreamClosed.into()),
        })
    }

    fn message(&mut self, message: Message) -> Option<Step> {
        Some(match message {
            Message::Notification(raw) => {
                let tasks = self.finish.as_ref().map_or(self.tasks.as_deref(), Finish::tasks);
                if self.watch.as_ref().is_some_and(|watch| !watch.may_hear(&raw, tasks)) {
                    return None;
                }
                let raw = match (&self.finish, &self.tasks) {
                    (Some(finish), _) => finish.notice(raw)?,
                    (None, Some(tasks)) => tasks.notice(raw)?,
                    (None, None) => raw,
                };
                Step::Send(Frame::Message(sse::message(&[&raw])))
            }
            Message::Response(raw) => Step::Send(Frame::Message(sse::message(&[&raw]))),
            // Nobody can be asked here; it is answered by being dropped.
            Message::Ask(_) => return None,
            Message::Request(raw) if self.asks => {
                let raw = match (&self.finish, &self.tasks) {
                    (Some(finish), _) => finish.asked(raw)?,
                    (None, Some(tasks)) => tasks.asked(raw)?,
                    (None, None) => raw,
                };
                Step::Send(Frame::Message(sse::message(&[&raw])))
            }
            Message::Request(_) if self.finish.is_none() => return None,
            Message::Request(_) => self.refused(&Refusal::new(
                Reason::CannotBridge,
                "the server asks something that this client cannot be asked",
            )),
            Message::Prime { id, retry_ms } => {
                self.primed = true;
                Step::Send(Frame::Prime { id, retry_ms })
            }
            Message::Result(raw) => match self.finish.as_ref().map(|f| f.result(raw)) {
                Some(Ok((raw, outcome))) => {
                    self.told(&raw);
                    Step::Last(self.envelope("result", &raw), outcome)
                }
                Some(Err(refusal)) => self.refused(&refusal),
                None => Step::End(Outcome::Success),
            },
            Message::Error(raw) => match self.finish.as_ref().map(|f| f.error(raw)) {
                Some((raw, code)) => {
                    self.told(&raw);
                    Step::Last(self.envelope("error", &raw), Outcome::ProtocolError(code))
                }
                None => Step::End(Outcome::Success),
            },
        })
    }

    /// Streams have begun with 200; a refusal is their last message.
    fn refused(&self, refusal: &Refusal) -> Step {
        let outcome = Outcome::Refused(refusal.reason);
        if self.finish.is_none() {
            return Step::End(outcome);
        }
        tracing::info!(%refusal, "stream refused");
        Step::Last(self.envelope("error", respond::error_object(refusal).as_bytes()), outcome)
    }

    /// What the record says of the answer.
    fn told(&mut self, raw: &[u8]) {
        if let Some((_, record)) = &mut self.reply {
            record.answered(raw);
        }
    }

    fn envelope(&self, member: &str, raw: &[u8]) -> Bytes {
        let id = self.reply.as_ref().map_or(&b"null"[..], |(id, _)| id);
        let mut head = BytesMut::with_capacity(48 + id.len());
        respond::put_head(&mut head, id, member);
        sse::message(&[&head, raw, b"}"])
    }

    /// Writes the record before the last frame leaves.
    async fn close(&mut self, frame: Bytes, outcome: Outcome) -> Bytes {
        self.done = true;
        self.ticket = None;
        let Some((id, record)) = self.reply.take() else { return frame };
        match record.close(outcome, frame.len() as u64).await {
            Ok(()) => frame,
            Err(_) if frame.is_empty() => frame,
            Err(reason) => {
                let mut head = BytesMut::new();
                respond::put_head(&mut head, &id, "error");
                let error = respond::error_object(&reason.into());
                sse::message(&[&head, error.as_bytes(), b"}"])
            }
        }
    }
}

async fn framed(frames: Option<&mut Receiver<Bytes>>) -> Option<Bytes> {
    match frames {
        Some(frames) => frames.recv().await,
        None => std::future::pending().await,
    }
}

/// Returns when a drain wants the stream to end: not before the calls that are told on it.
async fn drained(drain: &Watch, open: Option<&Open>) {
    drain.drained().await;
    if let Some(open) = open {
        open.idle().await;
    }
}

async fn over(watch: Option<&mut Watched>) {
    match watch {
        Some(watch) => watch.over().await,
        None => std::future::pending().await,
    }
}

/// The result that ends a listen stream.
fn farewell(id: &[u8]) -> Bytes {
    let mut raw = BytesMut::with_capacity(96 + id.len());
    raw.extend_from_slice(br#"{"resultType":"complete","_meta":{"#);
    raw.extend_from_slice(br#""io.modelcontextprotocol/subscriptionId":"#);
    raw.extend_from_slice(id);
    raw.extend_from_slice(b"}}");
    raw.freeze()
}
