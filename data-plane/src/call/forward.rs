//! Phase 8: the exchange with the server, and what becomes of its messages.
//!
//! Only [`super::credential::attach`] makes what this sends, and that takes a permit. Nothing is
//! sent twice here; dropping an exchange (the client left, or cancelled) cancels it at the server.

mod outgoing;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use weir_model::audit::Outcome;
use weir_model::bounds;
use weir_model::id::Name;
use weir_model::policy::Action;
use weir_model::reason::{Reason, Refusal};
use weir_model::resource::Extension;
use weir_model::snapshot::{Hints, ToolView};
use weir_runtime::task::on_payload;

use super::Gateway;
use super::bridge::notices::{Notices, too_quiet};
use super::bridge::state::{self, Seal, What};
use super::bridge::{self, Place};
use super::client::{Client, Sealing, bond};
use super::credential::Outgoing;
use super::endpoint::Endpoint;
use super::inbound::Call;
use super::record::Record;
use super::relay::Flow;
use super::resolve::Errand;
use super::respond::{self, Answer};
use super::sight::Sight;
use super::tasks::eras::{self, Turn};
use super::tasks::{self, Tasks};
use super::validate;
use super::watched::{self, Watched};
use crate::hop::Holder;
use crate::mcp::adapt::Adapt;
use crate::mcp::discover::About;
use crate::mcp::envelope::utf8;
use crate::mcp::extensions::Carried;
use crate::mcp::level::Level;
use crate::mcp::list::{self, Source};
use crate::mcp::members::Members;
use crate::mcp::methods::{Kind, List, Method};
use crate::mcp::revision::Revision;
use crate::sessions::Cancellable;
use crate::upstream::{Channel, Exchange, Message, Messages, Outbound, Wire};

/// What the phases before know about the caller's side.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// The call.
    pub call: &'a Call<'a>,
    /// With what client.
    pub client: &'a Client,
    /// Where.
    pub endpoint: &'a Endpoint,
    /// What the caller may see.
    pub sight: &'a Sight,
    /// For the session that `initialize` starts.
    pub sealing: Sealing<'a>,
}

/// Which list of a server is shown in part.
#[derive(Debug, Clone, Copy)]
enum Filter {
    List(List),
    /// Of the skills extension.
    Skills,
}

impl Filter {
    fn of(method: &Method) -> Option<Self> {
        match method.kind {
            Kind::List(kind) => Some(Self::List(kind)),
            Kind::Relay if method.name == "skills/list" => Some(Self::Skills),
            _ => None,
        }
    }
}

/// What is done to the final message before the client gets it.
#[derive(Debug)]
pub struct Finish {
    adapt: Adapt,
    tool: Option<Arc<ToolView>>,
    filter: Option<(Filter, Sight, Name)>,
    /// Of the group, where the result tells what the server can do.
    extensions: Option<Vec<Extension>>,
    /// For the state of a stateless server, where there may be some.
    seal: Option<Box<Seal>>,
    /// Of a stateless client that hears a server of an older revision.
    notices: Option<Box<Notices>>,
    /// Of a client of an older revision that does not want to hear everything.
    level: Option<Level>,
    /// For the ids of tasks, where there may be some.
    tasks: Option<Arc<Tasks>>,
}

impl Finish {
    /// The result as the client gets it, and how the call ended.
    ///
    /// # Errors
    /// When the result breaks the tool's own schema, or cannot be told to this client.
    pub fn result(&self, raw: Bytes) -> Result<(Bytes, Outcome), Refusal> {
        on_payload(raw.len(), || self.finished(raw))
    }

    fn finished(&self, raw: Bytes) -> Result<(Bytes, Outcome), Refusal> {
        let mut outcome = Outcome::Success;
        let tool = self.tool.as_deref();
        let verdict = match self.adapt.method.kind {
            Kind::CallTool => validate::result(tool, &raw)?,
            _ => tasks::right::result(tool, self.adapt.method, &raw)?,
        };
        if verdict.tool_error {
            outcome = Outcome::ToolError;
        }
        let raw = match &self.filter {
            Some((Filter::List(kind), sight, server)) => {
                list::filter(&raw, *kind, |name, hints| {
                    sight.may(server, action_of(*kind), name, hints)
                })?
            }
            Some((Filter::Skills, sight, server)) => list::filter_skills(&raw, |uri| {
                sight.may(server, Action::ReadResource, uri, Hints::default())
            })?,
            None => raw,
        };
        let raw = match &self.extensions {
            Some(named) => Carried { named, joined: false }.handshake(&raw),
            None => raw,
        };
        let raw = self.adapt.result(raw)?;
        let raw = match &self.tasks {
            Some(tasks) => tasks.result(raw)?,
            None => raw,
        };
        let raw = match &self.seal {
            Some(seal) if bridge::wants_input(&raw) => seal.wrap(&raw)?,
            _ => raw,
        };
        Ok((raw, outcome))
    }

    /// A notification as the client gets it; none when it does not.
    pub fn notice(&self, raw: Bytes) -> Option<Bytes> {
        let raw = match &self.tasks {
            Some(tasks) => tasks.notice(raw)?,
            None => raw,
        };
        match (&self.notices, self.level) {
            (Some(notices), _) => notices.pass(raw),
            (None, Some(level)) if too_quiet(&raw, level) => None,
            (None, _) => Some(raw),
        }
    }

    /// True for an error that this client has to be told by a status, and so not on a stream.
    fn has_status(&self, message: &Message) -> bool {
        match message {
            Message::Error(raw) => respond::has_status(error_code(raw), self.adapt.front_modern),
            _ => false,
        }
    }

    /// For the ids of tasks.
    pub fn tasks(&self) -> Option<&Tasks> {
        self.tasks.as_deref()
    }

    /// A request of the server as the client gets it.
    pub fn asked(&self, raw: Bytes) -> Option<Bytes> {
        match &self.tasks {
            Some(tasks) => tasks.asked(raw),
            None => Some(raw),
        }
    }

    /// The error as the client gets it, and its code.
    pub fn error(&self, raw: Bytes) -> (Bytes, i64) {
        self.adapt.error(raw)
    }

    /// The same for a stateless client of a server of an older revision, which may say more than
    /// the request wants to hear.
    fn hearing(mut self, scope: Scope<'_>, method: &Method) -> Self {
        if scope.client.modern() && method.kind != Kind::Listen {
            self.notices = Some(Box::new(Notices::of(scope)));
        }
        self
    }

    /// The same for a server of the given revision.
    fn back(mut self, revision: &str) -> Self {
        self.adapt.back_modern = Revision::parse(revision).is_some_and(Revision::modern);
        self
    }
}

/// What showing an item of a list stands for.
pub fn action_of(kind: List) -> Action {
    match kind {
        List::Tools => Action::CallTool,
        List::Resources | List::Templates => Action::ReadResource,
        List::Prompts => Action::GetPrompt,
    }
}

/// Sends what may be sent and waits for the first thing that the client can be told.
///
/// # Errors
/// The `upstream_*` reasons, [`Reason::Cancelled`], [`Reason::CannotBridge`].
pub async fn send(
    gateway: &Gateway,
    scope: Scope<'_>,
    outgoing: Outgoing,
    record: &mut Record,
) -> Result<Answer, Refusal> {
    let started = Instant::now();
    let answer = match outgoing.target().errand.clone() {
        Errand::Request(method) => request(gateway, scope, outgoing, method, record).await,
        Errand::Deliver => {
            let channel = outgoing.channel(scope)?;
            let delivered = gateway.upstreams.deliver(&channel, tasks::delivered(scope)).await;
            // A server need not answer what was cancelled: the exchange ends on our side too.
            super::local::cancel(gateway, scope);
            delivered.map(|()| Answer::Accepted)
        }
        Errand::Stream { after } => {
            let channel = outgoing.channel(scope)?;
            let exchange = gateway.upstreams.open_stream(&channel, after.as_deref()).await?;
            Ok(Answer::Stream(Box::new(Flow::push(exchange, scope, gateway)?)))
        }
        Errand::End => {
            let channel = outgoing.channel(scope)?;
            end(gateway, scope, &channel).await
        }
    };
    record.facts.upstream_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    answer
}

/// A client that ends its session is rid of it, whatever the server says.
async fn end(gateway: &Gateway, scope: Scope<'_>, channel: &Channel) -> Result<Answer, Refusal> {
    if let Some(session) = &scope.client.session {
        gateway.neighbours.end(&session.nonce).await;
    }
    match gateway.upstreams.delete_session(channel).await {
        Err(refusal) if refusal.reason != Reason::MethodNotAllowed => {
            tracing::debug!(%refusal, "the server did not end a session");
        }
        _ => {}
    }
    Ok(Answer::Ended)
}

async fn request(
    gateway: &Gateway,
    scope: Scope<'_>,
    outgoing: Outgoing,
    method: &'static Method,
    record: &mut Record,
) -> Result<Answer, Refusal> {
    if let Some(answer) = other_era(gateway, scope, &outgoing, method).await? {
        return Ok(answer);
    }
    let cancellable = cancellable(gateway, scope);
    let place = outgoing.place();
    let brought = match bridge::may_ask(method) {
        true => state::open(scope, outgoing.target(), method.name)?,
        false => None,
    };
    let turn = eras::turn(gateway, scope, (outgoing.target(), outgoing.headers()), method).await?;
    let finish = Finish {
        adapt: Adapt { front_modern: scope.client.modern(), back_modern: false, method },
        tool: outgoing.target().definition().cloned(),
        filter: Filter::of(method)
            .map(|filter| (filter, scope.sight.clone(), outgoing.target().server.name.clone())),
        extensions: (method.kind == Kind::Discover)
            .then(|| scope.endpoint.group.spec.extensions.clone()),
        seal: None,
        notices: None,
        level: log_level(gateway, scope),
        tasks: Tasks::of_call(gateway, scope, (outgoing.target(), method), turn),
    };
    let mut watch = Watched::call(scope, gateway, outgoing.target());
    if let Some(What::Parked(holder)) = brought {
        let messages = Messages::Stream(bridge::resume(gateway, scope, &holder).await?);
        let finish = finish.hearing(scope, method);
        let (_, _, ticket) = outgoing.into_parts();
        return answer((gateway, scope), (finish, messages), (ticket, cancellable, watch)).await;
    }
    let (mut outbound, ticket) = outgoing.into_outbound(scope, method);
    outbound.front.log_level = finish.level;
    outbound.traceparent = record.sends(super::credential::traceparent(scope.call));
    let outbound = bridge::brought(outbound, brought)?;
    let again = bridge::may_be_called_again(scope, method).then(|| outbound.clone());
    let retries = Arc::clone(&outbound.retries);
    let limits = (place.patience, cancellable.as_ref(), &mut watch);
    let exchange = exchange(gateway, (outbound, turn), limits);
    let exchange = exchange.await;
    record.facts.retries = retries.load(Ordering::Relaxed);
    let exchange = exchange?;
    record.facts.back_revision = Some(exchange.back_revision.clone());
    let mut finish = finish.back(&exchange.back_revision);
    if method.kind == Kind::Initialize {
        return initialized(gateway, scope, exchange, &place).await;
    }
    match finish.adapt.back_modern {
        true if finish.adapt.front_modern => {
            let seal = bridge::seal(gateway, scope, (&place, method), &exchange.messages)?;
            finish.seal = seal.map(Box::new);
        }
        true => {}
        false => finish = finish.hearing(scope, method),
    }
    let messages = bridge::over(gateway, scope, (&place, method), (exchange, again))?;
    answer((gateway, scope), (finish, messages), (ticket, cancellable, watch)).await
}

/// Calls the server; gives up when the client does, or patience ends.
async fn exchange(
    gateway: &Gateway,
    (outbound, turn): (Outbound, Option<Turn>),
    (patience, cancellable, watch): (Duration, Option<&Cancellable>, &mut Watched),
) -> Result<Exchange, Refusal> {
    let late = |_| Refusal::new(Reason::UpstreamTimeout, "no answer before the deadline");
    tokio::select! {
        biased;
        called = tokio::time::timeout(patience, eras::call(&gateway.upstreams, outbound, turn)) => {
            called.map_err(late)?
        }
        () = cancelled(cancellable) => Err(Reason::Cancelled.into()),
        () = watch.over() => Err(watched::withdrawn()),
    }
}

/// The answer that the messages of a call make.
async fn answer(
    (gateway, scope): (&Gateway, Scope<'_>),
    (finish, messages): (Finish, Messages),
    (ticket, cancellable, mut watch): (super::reserve::Held, Option<Cancellable>, Watched),
) -> Result<Answer, Refusal> {
    let mut messages = match messages {
        Messages::One(message) => return one(&finish, message),
        Messages::Stream(messages) => messages,
    };
    // Behind the joined endpoint a stream that only brings the answer is told as one JSON body.
    // Elsewhere the client sees what the server chose.
    let collapse = scope.endpoint.server.is_none();
    let patience = Duration::from_millis(bounds::SSE_KEEPALIVE_MS);
    let first = tokio::select! {
        first = tokio::time::timeout(patience, messages.recv()) => first,
        () = cancelled(cancellable.as_ref()) => return Err(Reason::Cancelled.into()),
        () = watch.over() => return Err(watched::withdrawn()),
    };
    let first = match first {
        Ok(Some(Ok(message @ (Message::Result(_) | Message::Error(_)))))
            if collapse || finish.has_status(&message) =>
        {
            return one(&finish, message);
        }
        Ok(Some(first)) => Some(first?),
        Ok(None) => return Err(Reason::UpstreamClosed.into()),
        Err(_) => None,
    };
    let flow = match finish.adapt.method.kind {
        Kind::Listen => {
            Flow::open(messages, scope, gateway)?.beginning_with(first).ending_with(finish)
        }
        _ => Flow::answer(first, messages, finish, (scope, gateway)).watching(watch),
    };
    Ok(Answer::Stream(Box::new(flow.holding(ticket, cancellable))))
}

fn one(finish: &Finish, message: Message) -> Result<Answer, Refusal> {
    match message {
        Message::Result(raw) => {
            let (raw, outcome) = finish.result(raw)?;
            Ok(Answer::Result { raw, outcome, session: None })
        }
        Message::Error(raw) => {
            let (raw, code) = finish.error(raw);
            Ok(Answer::Error { raw, code })
        }
        _ => Err(Refusal::new(Reason::UpstreamProtocol, "an answer that is none")),
    }
}

/// The extensions that the endpoint carries.
fn carried<'a>(scope: Scope<'a>) -> Carried<'a> {
    let joined = scope.endpoint.server.is_none();
    Carried { named: &scope.endpoint.group.spec.extensions, joined }
}

/// From which severity on the client wants to hear log messages, if it has told the gateway.
fn log_level(gateway: &Gateway, scope: Scope<'_>) -> Option<Level> {
    let session = scope.client.session.as_ref().filter(|session| session.upstream.is_none())?;
    gateway.levels.get(&session.nonce)
}

/// Clients of older revisions cancel by a notification that comes on another request.
fn cancellable(gateway: &Gateway, scope: Scope<'_>) -> Option<Cancellable> {
    let session = scope.client.session.as_ref()?;
    let id = scope.call.message()?.id()?;
    Some(gateway.in_flight.register(&session.nonce, id.key()))
}

/// Returns when the client cancels; never, when it has no way to.
pub async fn cancelled(call: Option<&Cancellable>) {
    match call {
        Some(call) => call.cancelled().await,
        None => std::future::pending().await,
    }
}

/// What the gateway has to answer for a server that speaks the other era than the client.
async fn other_era(
    gateway: &Gateway,
    scope: Scope<'_>,
    outgoing: &Outgoing,
    method: &'static Method,
) -> Result<Option<Answer>, Refusal> {
    let subscribes = matches!(method.name, "resources/subscribe" | "resources/unsubscribe");
    if !subscribes && !matches!(method.kind, Kind::Initialize | Kind::Discover | Kind::Listen) {
        return Ok(None);
    }
    let modern = scope.client.modern();
    let target = outgoing.target();
    let wire = gateway.upstreams.wire(&target.version, modern, outgoing.headers()).await?;
    if (wire == Wire::Modern) == modern {
        return Ok(None);
    }
    let about = || match &target.version.catalog {
        Some(catalog) => Ok(About::one(&Source { server: &target.server.name, catalog })),
        None => {
            Err(Refusal::new(Reason::UpstreamUnreachable, "nothing is known of the server yet"))
        }
    };
    match method.kind {
        Kind::Initialize => {
            let raw = about()?.initialize(scope.client.revision);
            let version = Some(target.version.name.clone());
            let through = Through { version, ..Through::default() };
            let session = seal_session(gateway, scope, scope.client.revision, through)?;
            Ok(Some(Answer::Result { raw, outcome: Outcome::Success, session: Some(session) }))
        }
        Kind::Discover => {
            let raw = about()?.discover();
            Ok(Some(Answer::Result { raw, outcome: Outcome::Success, session: None }))
        }
        Kind::Resource => {
            let on = method.name == "resources/subscribe";
            super::notices::subscription(gateway, scope, on).map(Some)
        }
        _ => super::notices::open(gateway, scope).map(Some),
    }
}

/// The server's own answer to `initialize`: its session goes into ours, and with one that this
/// proxy alone has also where that is.
async fn initialized(
    gateway: &Gateway,
    scope: Scope<'_>,
    exchange: Exchange,
    place: &Place,
) -> Result<Answer, Refusal> {
    let opened = exchange.session;
    let home = opened.as_ref().filter(|opened| opened.local).map(|_| gateway.hop.home());
    let upstream = opened.map(|opened| opened.id);
    let last = match exchange.messages {
        Messages::One(message) => message,
        Messages::Stream(mut messages) => loop {
            match messages.recv().await {
                Some(Ok(message @ (Message::Result(_) | Message::Error(_)))) => break message,
                Some(Ok(_)) => {}
                Some(Err(refusal)) => return Err(refusal),
                None => return Err(Reason::UpstreamClosed.into()),
            }
        },
    };
    let raw = match last {
        Message::Result(raw) => raw,
        Message::Error(raw) => {
            let code = error_code(&raw);
            return Ok(Answer::Error { raw, code });
        }
        _ => return Err(Refusal::new(Reason::UpstreamProtocol, "an answer that is none")),
    };
    let text = std::str::from_utf8(&raw).unwrap_or_default();
    let settled = Members::parse(text)
        .ok()
        .and_then(|members| Revision::parse(&members.text("protocolVersion")?))
        .filter(|revision| !revision.modern())
        .ok_or_else(|| {
            Refusal::new(Reason::UpstreamProtocol, "initialize settled on no known revision")
        })?;
    let through = Through { upstream, home, version: Some(place.version.clone()) };
    let session = seal_session(gateway, scope, settled, through)?;
    let raw = carried(scope).handshake(&raw);
    Ok(Answer::Result { raw, outcome: Outcome::Success, session: Some(session) })
}

/// What a client's session leads through to.
#[derive(Debug, Default)]
pub struct Through {
    /// The server's own session.
    pub upstream: Option<String>,
    /// The proxy that alone has it, where one does.
    pub home: Option<Holder>,
    /// Of the server.
    pub version: Option<Name>,
}

/// The session id that `initialize` answers.
///
/// # Errors
/// See [`crate::mcp::session::Session::seal`].
pub fn seal_session(
    gateway: &Gateway,
    scope: Scope<'_>,
    revision: Revision,
    through: Through,
) -> Result<String, Refusal> {
    let start = scope.client.session.as_ref().ok_or(Reason::Internal)?;
    let Through { upstream, home, version } = through;
    let session = crate::mcp::session::Session {
        nonce: start.nonce.clone(),
        revision: revision.as_str().to_owned(),
        capabilities: start.capabilities.clone(),
        client_info: start.client_info.clone(),
        upstream,
        home,
        version,
        created: start.created,
    };
    let principal = scope.sight.who.id();
    let limits = scope.endpoint.group.spec.sessions;
    let id = session.seal(scope.sealing.sealer()?, bond(scope.endpoint, &principal))?;
    gateway.live.opened(&principal, limits, (&session.nonce, session.created));
    Ok(id)
}

/// `code` of a JSON-RPC error.
pub fn error_code(raw: &Bytes) -> i64 {
    std::str::from_utf8(raw)
        .ok()
        .and_then(|text| Members::parse(text).ok()?.get("code")?.get().parse().ok())
        .unwrap_or(-32603)
}

/// The text of a raw message, for tests and logs.
pub fn text(raw: &Bytes) -> &str {
    utf8(raw)
}
