//! Carries the messages of one call from its server to its client, and what the server wants to
//! know the other way.
//!
//! One task per call that streams; it ends with the answer, or when the client leaves, and takes
//! the exchange with it, which cancels it at the server.

use std::collections::HashMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc::{self, Receiver};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::Instrument as _;
use weir_model::bounds;
use weir_model::reason::{Reason, Refusal};

use super::ask::{Questions, Said};
use super::park::{Back, Sink, Waiting};
use super::state::{What, wants_url};
use super::{Bridge, Wanted, is_url, wants_input};
use crate::mcp::adapt::quoted;
use crate::mcp::envelope::utf8;
use crate::mcp::members::Members;
use crate::upstream::{Member, Message, Messages, Outbound, Question};

type Incoming = Receiver<Result<Message, Refusal>>;

/// Questions that come within this time of each other are given out together.
const TOGETHER: Duration = Duration::from_millis(10);
/// Wait before a server that asks for nothing but a repeat is called again, per round.
const REPEAT: Duration = Duration::from_millis(200);
/// The longest of these waits.
const REPEAT_MAX: Duration = Duration::from_secs(2);

/// Whether a call goes on.
enum Next {
    On,
    End,
}

impl Bridge {
    /// Starts to carry. `again` is the request where the server may have to be called again.
    pub(super) fn drive(self, messages: Incoming, again: Option<Outbound>) -> Incoming {
        let (sink, out) = mpsc::channel(bounds::STREAM_QUEUE_MESSAGES);
        let modern = self.nonce.is_none();
        let carry = async move {
            if modern {
                Parker { bridge: self }.run(messages, sink).await;
            } else {
                let asker = Asker {
                    bridge: self,
                    again,
                    sink,
                    questions: None,
                    open: HashMap::new(),
                    asked: false,
                    rounds: 0,
                };
                asker.run(messages).await;
            }
        };
        tokio::spawn(carry.in_current_span());
        out
    }

    /// When patience ends: with the client's time while it is asked, else with the server's.
    fn until(&self, asked: bool) -> Instant {
        let client = Duration::from_millis(bounds::ASK_MS);
        Instant::now() + if asked { client.max(self.patience) } else { self.patience }
    }
}

fn late() -> Refusal {
    Refusal::new(Reason::UpstreamTimeout, "no answer before the deadline")
}

fn is_last(message: &Result<Message, Refusal>) -> bool {
    matches!(message, Err(_) | Ok(Message::Result(_) | Message::Error(_)))
}

// === clients of older revisions ===

/// A call of a client that can be asked.
struct Asker {
    bridge: Bridge,
    again: Option<Outbound>,
    sink: Sink,
    questions: Option<Questions>,
    /// Questions of a server with a session, by number.
    open: HashMap<u64, Question>,
    /// A client that sees through to the server's session was asked by the server itself.
    asked: bool,
    rounds: u32,
}

impl Asker {
    async fn run(mut self, mut messages: Incoming) {
        let mut until = self.bridge.until(false);
        loop {
            let waits = !self.open.is_empty() || self.asked;
            let next = tokio::select! {
                biased;
                () = self.sink.closed() => return,
                said = said(self.questions.as_mut()), if !self.open.is_empty() => {
                    self.said(said);
                    Ok(Next::On)
                }
                message = timeout_at(until, messages.recv()) => match message {
                    Ok(Some(Ok(message))) => self.message(message, &mut messages).await,
                    Ok(Some(Err(refusal))) => Err(refusal),
                    // Whoever reads the other end knows what it means that nothing more comes.
                    Ok(None) => return,
                    Err(_) if waits => Err(late().hint("The client did not answer in time.")),
                    Err(_) => Err(late()),
                },
            };
            match next {
                Ok(Next::On) => until = self.bridge.until(!self.open.is_empty() || self.asked),
                Ok(Next::End) => return,
                Err(refusal) => {
                    let _ = self.sink.send(Err(refusal)).await;
                    return;
                }
            }
        }
    }

    async fn message(
        &mut self,
        message: Message,
        messages: &mut Incoming,
    ) -> Result<Next, Refusal> {
        self.asked = false;
        let message = match message {
            Message::Ask(question) => return self.ask(question).await,
            Message::Result(raw) if self.again.is_some() && wants_input(&raw) => {
                *messages = self.round(&raw).await?;
                return Ok(Next::On);
            }
            Message::Request(raw) => {
                self.asked = true;
                Message::Request(raw)
            }
            Message::Notification(raw) => match self.taken_back(&raw) {
                Some(told) => Message::Notification(told),
                None => Message::Notification(raw),
            },
            other => other,
        };
        let message = Ok(message);
        let last = is_last(&message);
        let gone = self.sink.send(message).await.is_err();
        Ok(if gone || last { Next::End } else { Next::On })
    }

    /// Passes a question of the server on. One that the client does not understand is answered
    /// when it is dropped.
    async fn ask(&mut self, question: Question) -> Result<Next, Refusal> {
        if !self.bridge.able.may(&question.method, question.params.as_deref()) {
            return Ok(Next::On);
        }
        let asked = self.questions()?;
        let params = question.params.as_deref();
        let (questions, bridge) = asked;
        let Some((number, raw)) = questions.ask(bridge, &question.method, params)? else {
            return Ok(Next::On);
        };
        self.open.insert(number, question);
        let gone = self.sink.send(Ok(Message::Request(raw))).await.is_err();
        Ok(if gone { Next::End } else { Next::On })
    }

    fn questions(&mut self) -> Result<(&mut Questions, &Bridge), Refusal> {
        if self.questions.is_none() {
            self.questions = Some(Questions::new(&self.bridge)?);
        }
        let questions = self.questions.as_mut().ok_or(Reason::Internal)?;
        Ok((questions, &self.bridge))
    }

    fn said(&mut self, said: Option<Said>) {
        let Some(said) = said else { return };
        if let Some(question) = self.open.remove(&said.number) {
            question.answer(said.member, &said.body);
        }
    }

    /// A server that takes its own question back names it by its own id.
    fn taken_back(&mut self, raw: &Bytes) -> Option<Bytes> {
        if self.open.is_empty() {
            return None;
        }
        let members = Members::parse(utf8(raw)).ok()?;
        if members.text("method")? != "notifications/cancelled" {
            return None;
        }
        let params = Members::parse(members.get("params")?.get()).ok()?;
        let id = params.get("requestId")?.get().as_bytes();
        let number = *self.open.iter().find(|(_, question)| question.is(id))?.0;
        self.open.remove(&number);
        self.questions.as_mut()?.taken_back(number)
    }

    /// Asks the client what a stateless server wants to know, and calls that server again.
    async fn round(&mut self, raw: &Bytes) -> Result<Incoming, Refusal> {
        self.rounds += 1;
        if self.rounds > bounds::INPUT_ROUNDS_MAX {
            return Err(Refusal::new(Reason::CannotBridge, "the server asks without end"));
        }
        let wanted = Wanted::read(raw)?;
        let mut keys = HashMap::new();
        for (key, method, params) in &wanted.requests {
            let number = self.put(method, params.as_ref()).await?;
            keys.insert(number, (key.clone(), method.clone()));
        }
        if keys.is_empty() {
            tokio::time::sleep((REPEAT * self.rounds).min(REPEAT_MAX)).await;
        }
        let mut responses = Vec::with_capacity(keys.len());
        let until = self.bridge.until(true);
        while !keys.is_empty() {
            let said = tokio::select! {
                () = self.sink.closed() => return Err(Reason::Cancelled.into()),
                said = timeout_at(until, said(self.questions.as_mut())) => said,
            };
            let said = said.map_err(|_| late().hint("The client did not answer in time."))?;
            let Some(said) = said else { continue };
            let Some((key, method)) = keys.remove(&said.number) else { continue };
            responses.push((key, response(&method, said)?));
        }
        self.call_again(&responses, wanted.state.as_deref()).await
    }

    async fn put(&mut self, method: &str, params: Option<&Bytes>) -> Result<u64, Refusal> {
        if !self.bridge.able.may(method, params.map(|p| &p[..])) {
            return Err(Refusal::new(
                Reason::CannotBridge,
                format!("the server asks for {method}"),
            )
            .hint(format!("The server asks for {method}, which this client does not offer.")));
        }
        let own = params.filter(|raw| is_url(Some(&raw[..]))).map(with_elicitation_id);
        let params = own.as_ref().or(params);
        let (questions, bridge) = self.questions()?;
        let asked = questions.ask(bridge, method, params.map(|p| &p[..]))?;
        let (number, raw) = asked
            .ok_or_else(|| Refusal::new(Reason::UpstreamProtocol, "too many questions at once"))?;
        let gone = |_| Refusal::from(Reason::Cancelled);
        self.sink.send(Ok(Message::Request(raw))).await.map_err(gone)?;
        Ok(number)
    }

    async fn call_again(
        &mut self,
        responses: &[(String, Bytes)],
        state: Option<&[u8]>,
    ) -> Result<Incoming, Refusal> {
        let again = self.again.as_ref().ok_or(Reason::Internal)?;
        let given = (!responses.is_empty()).then(|| object(responses));
        let outbound = again.answering(given.as_deref(), state)?;
        let patience = self.bridge.patience;
        let called = tokio::select! {
            () = self.sink.closed() => return Err(Reason::Cancelled.into()),
            called = timeout(patience, self.bridge.upstreams.call(outbound)) => called,
        };
        match called.map_err(|_| late())??.messages {
            Messages::Stream(messages) => Ok(messages),
            Messages::One(message) => {
                let (sender, messages) = mpsc::channel(1);
                // The one message fits into the empty channel.
                let _ = sender.try_send(Ok(message));
                Ok(messages)
            }
        }
    }
}

/// The next answer; never, without questions.
async fn said(questions: Option<&mut Questions>) -> Option<Said> {
    match questions {
        Some(questions) => questions.said().await,
        None => std::future::pending().await,
    }
}

/// What a client said, as a stateless server gets it, which knows results only.
fn response(method: &str, said: Said) -> Result<Bytes, Refusal> {
    if said.member == Member::Result {
        return Ok(said.body);
    }
    match method {
        "elicitation/create" => Ok(Bytes::from_static(br#"{"action":"cancel"}"#)),
        "roots/list" => Ok(Bytes::from_static(br#"{"roots":[]}"#)),
        _ => Err(Refusal::new(Reason::CannotBridge, "the client answered with an error")
            .hint(format!("The client answered {method} with an error."))),
    }
}

/// Clients of 2025-11-25 know an elicitation by an id, which stateless servers do not give.
fn with_elicitation_id(params: &Bytes) -> Bytes {
    let id = quoted(&uuid::Uuid::new_v4().to_string());
    match Members::parse(utf8(params)) {
        Ok(all) if all.get("elicitationId").is_none() => {
            let rest = utf8(params).trim_start().trim_start_matches('{');
            format!(r#"{{"elicitationId":{id},{rest}"#).into()
        }
        _ => params.clone(),
    }
}

/// An object of raw values.
fn object(members: &[(String, Bytes)]) -> Bytes {
    let mut out = BytesMut::from(&b"{"[..]);
    for (at, (key, value)) in members.iter().enumerate() {
        if at > 0 {
            out.extend_from_slice(b",");
        }
        out.extend_from_slice(quoted(key).as_bytes());
        out.extend_from_slice(b":");
        out.extend_from_slice(value);
    }
    out.extend_from_slice(b"}");
    out.freeze()
}

// === stateless clients ===

/// A call of a client that answers by calling again.
struct Parker {
    bridge: Bridge,
}

impl Parker {
    async fn run(self, mut messages: Incoming, mut sink: Sink) {
        let mut rounds = 0;
        loop {
            let next = tokio::select! {
                () = sink.closed() => return,
                next = timeout(self.bridge.patience, messages.recv()) => next,
            };
            let message = match next {
                Ok(Some(message)) => message,
                Ok(None) => return,
                Err(_) => Err(late()),
            };
            let message = match message {
                Ok(Message::Ask(question)) => {
                    let (questions, after) = self.together(question, &mut messages).await;
                    if !questions.is_empty() {
                        rounds += 1;
                        match self.park(questions, rounds, &sink).await {
                            Ok(Some(back)) => sink = back,
                            Ok(None) => return,
                            Err(refusal) => {
                                let _ = sink.send(Err(refusal)).await;
                                return;
                            }
                        }
                    }
                    match after {
                        Some(message) => message,
                        None => continue,
                    }
                }
                Ok(Message::Error(raw)) => self.error(raw),
                other => other,
            };
            let last = is_last(&message);
            if sink.send(message).await.is_err() || last {
                return;
            }
        }
    }

    /// A question and those that come with it, as far as the client understands them; and what
    /// came after them.
    async fn together(
        &self,
        first: Question,
        messages: &mut Incoming,
    ) -> (Vec<Question>, Option<Result<Message, Refusal>>) {
        let mut questions = vec![first];
        let mut after = None;
        while questions.len() < bounds::QUESTIONS_MAX {
            match timeout(TOGETHER, messages.recv()).await {
                Ok(Some(Ok(Message::Ask(question)))) => questions.push(question),
                Ok(other) => {
                    after = other;
                    break;
                }
                Err(_) => break,
            }
        }
        // The others are answered by being dropped.
        questions.retain(|q| self.bridge.able.may(&q.method, q.params.as_deref()));
        (questions, after)
    }

    /// Gives the questions out and waits until the client is back with all answers. None when it
    /// does not come.
    async fn park(
        &self,
        questions: Vec<Question>,
        round: u32,
        sink: &Sink,
    ) -> Result<Option<Sink>, Refusal> {
        if round > bounds::INPUT_ROUNDS_MAX {
            return Err(Refusal::new(Reason::CannotBridge, "the server asks without end"));
        }
        let _place = self.bridge.parking.take(&self.bridge.principal, self.bridge.parked_most)?;
        let _in_flight = self.bridge.drain.guard("parked calls");
        let keyed = questions.into_iter().enumerate();
        let mut open: Vec<_> = keyed.map(|(at, q)| (format!("{round}-{at}"), q)).collect();
        let mut out = sink.clone();
        loop {
            let (sender, mut back) = mpsc::channel::<Back>(1);
            let holding = std::sync::Arc::new(Waiting(sender));
            let kept = self.bridge.hop.keep(self.bridge.owner, holding)?;
            let state = self.bridge.seal.seal(What::Parked(kept.holder().clone()))?;
            let result = Message::Result(required(&open, &state));
            if out.send(Ok(result)).await.is_err() {
                return Ok(None);
            }
            let patience = Duration::from_millis(bounds::PARKED_MS);
            let Ok(Some(mut came)) = timeout(patience, back.recv()).await else {
                tracing::debug!("a parked call was given up");
                return Ok(None);
            };
            drop(kept);
            let mut left = Vec::new();
            for (key, question) in open {
                match came.responses.remove(&key) {
                    Some(raw) => question.answer(Member::Result, &raw),
                    None => left.push((key, question)),
                }
            }
            if left.is_empty() {
                return Ok(Some(came.sink));
            }
            // What is still missing is asked for again.
            (open, out) = (left, came.sink);
        }
    }

    fn error(&self, raw: Bytes) -> Result<Message, Refusal> {
        match wants_url(&raw) {
            Some(wanted) => wanted.for_client(self.bridge.able, &self.bridge.seal),
            None => Ok(Message::Error(raw)),
        }
    }
}

/// The result that asks a stateless client for input.
fn required(open: &[(String, Question)], state: &str) -> Bytes {
    let mut requests = BytesMut::from(&b"{"[..]);
    for (at, (key, question)) in open.iter().enumerate() {
        if at > 0 {
            requests.extend_from_slice(b",");
        }
        let method = quoted(&question.method);
        requests.extend_from_slice(format!("{}:{{\"method\":{method}", quoted(key)).as_bytes());
        if let Some(params) = &question.params {
            requests.extend_from_slice(b",\"params\":");
            requests.extend_from_slice(&stateless(params));
        }
        requests.extend_from_slice(b"}");
    }
    requests.extend_from_slice(b"}");
    let mut out = BytesMut::from(&br#"{"resultType":"input_required","inputRequests":"#[..]);
    out.extend_from_slice(&requests);
    out.extend_from_slice(b",\"requestState\":");
    out.extend_from_slice(quoted(state).as_bytes());
    out.extend_from_slice(b"}");
    out.freeze()
}

/// Params without what the stateless revision does not have.
fn stateless(params: &Bytes) -> Bytes {
    let Ok(all) = Members::parse(utf8(params)) else { return params.clone() };
    let gone = |name: &str| matches!(name, "elicitationId" | "task");
    if !all.iter().any(|(name, _)| gone(name)) {
        return params.clone();
    }
    let copy = |raw: &str| Bytes::copy_from_slice(raw.as_bytes());
    let kept = all.iter().filter(|(name, _)| !gone(name));
    let kept: Vec<_> = kept.map(|(name, raw)| (name.to_owned(), copy(raw.get()))).collect();
    object(&kept)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ids_of_elicitations_come_and_go_with_the_era() {
        let plain = Bytes::from_static(br#"{"mode":"url","url":"https://a","n":1.0}"#);
        let with: serde_json::Value = serde_json::from_slice(&with_elicitation_id(&plain)).unwrap();
        assert!(with["elicitationId"].is_string());
        assert_eq!(with["url"], "https://a");
        let back = stateless(&with_elicitation_id(&plain));
        assert_eq!(back, plain);
        assert_eq!(stateless(&plain), plain);
        let named = Bytes::from_static(br#"{"elicitationId":"x"}"#);
        assert_eq!(with_elicitation_id(&named), named);
    }

    #[test]
    fn errors_of_clients_have_a_stateless_form_where_there_is_one() {
        let said = |member| Said { number: 0, member, body: Bytes::from_static(b"{\"code\":-1}") };
        let of = |method: &str| response(method, said(Member::Error)).map_err(|r| r.reason);
        assert_eq!(of("elicitation/create").unwrap(), json!({"action": "cancel"}).to_string());
        assert_eq!(of("roots/list").unwrap(), json!({"roots": []}).to_string());
        assert_eq!(of("sampling/createMessage"), Err(Reason::CannotBridge));
        assert_eq!(response("x", said(Member::Result)).unwrap(), "{\"code\":-1}");
    }
}
