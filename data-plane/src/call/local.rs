//! What the gateway answers itself, without a server: lists and handshakes from what is pinned,
//! and messages that need no answer.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use serde_json::{Value, json};
use weir_model::audit::Outcome;
use weir_model::bounds;
use weir_model::id::{Digest, Name};
use weir_model::reason::{Reason, Refusal};

use super::Gateway;
use super::client::bond;
use super::forward::{Scope, Through, seal_session};
use super::http_sse;
use super::inbound::Conn;
use super::notices;
use super::resolve::{Here, shortfalls, sources};
use super::respond::Answer;
use crate::mcp::discover::{self, About};
use crate::mcp::envelope::{self, utf8};
use crate::mcp::level::Level;
use crate::mcp::list::{Cursors, View};
use crate::mcp::members::Members;
use crate::mcp::methods::List;
use crate::neighbours::Tiding;

/// Answers.
///
/// # Errors
/// [`Reason::InvalidParams`] for a foreign cursor, [`Reason::MethodNotAllowed`].
pub async fn answer(
    gateway: &Arc<Gateway>,
    scope: Scope<'_>,
    here: &Here,
    from: (&Conn, &Parts),
) -> Result<Answer, Refusal> {
    let success = |raw| Ok(Answer::Result { raw, outcome: Outcome::Success, session: None });
    let all = || About::all(&sources(scope.endpoint, scope.sight, &mut true));
    match here {
        Here::Pong => success(Bytes::from_static(b"{}")),
        Here::Discover => success(all().discover()),
        Here::Handshake => success(handshake(gateway, scope)?),
        Here::Initialize => {
            let revision = scope.client.revision;
            let session = Some(seal_session(gateway, scope, revision, Through::default())?);
            let raw = all().initialize(revision);
            Ok(Answer::Result { raw, outcome: Outcome::Success, session })
        }
        Here::List(kind) => success(list(gateway, scope, *kind)?.0),
        Here::Notices => notices::open(gateway, scope),
        Here::Subscription { on } => notices::subscription(gateway, scope, *on),
        Here::Open => http_sse::open(gateway, scope, from),
        // Answers to questions are told where the question is, by `bridge`.
        Here::Accepted | Here::Answered(_) => Ok(Answer::Accepted),
        Here::LogLevel => {
            log_level(gateway, scope)?;
            success(Bytes::from_static(b"{}"))
        }
        Here::Cancel => {
            cancel(gateway, scope);
            Ok(Answer::Accepted)
        }
        Here::End => {
            if let Some(session) = &scope.client.session {
                gateway.neighbours.end(&session.nonce).await;
            }
            Ok(Answer::Ended)
        }
    }
}

/// Remembers from which severity on a session wants to hear log messages.
fn log_level(gateway: &Gateway, scope: Scope<'_>) -> Result<(), Refusal> {
    let session = scope.client.session.as_ref().ok_or(Reason::SessionMissing)?;
    let params = scope.call.message().and_then(|m| m.params()).map_or("{}", |p| p.text());
    let members = Members::parse(params).map_err(Refusal::from)?;
    let level = members.text("level").and_then(|text| Level::parse(&text)).ok_or_else(|| {
        Refusal::new(Reason::InvalidParams, "level")
            .hint("The parameter level must be one of the levels of RFC 5424, in lower case.")
    })?;
    gateway.levels.set(&session.nonce, level);
    let session = session.nonce.clone();
    gateway.neighbours.tell(&Tiding::Level { session, level: level.as_str().to_owned() });
    Ok(())
}

/// One page of a list, and the cursor for the next one.
fn list(
    gateway: &Gateway,
    scope: Scope<'_>,
    kind: List,
) -> Result<(Bytes, Option<String>), Refusal> {
    let key = list_key(scope, kind);
    let shortfalls = shortfalls(scope, &gateway.upstreams);
    if let Some(kept) = gateway.lists.get(&key).filter(|_| shortfalls.is_empty()) {
        return Ok((kept, None));
    }
    let principal = scope.sight.who.id();
    let cursor = scope.call.message().and_then(|m| m.params()).and_then(|p| p.cursor.as_deref());
    let cursors = || {
        let sealer = scope.sealing.sealer()?;
        let rules = scope.endpoint.group.rules.digest;
        Ok::<_, Refusal>(Cursors { sealer, bond: bond(scope.endpoint, &principal), kind, rules })
    };
    let after = match cursor {
        Some(cursor) => Some(cursors()?.open(cursor)?),
        None => None,
    };
    let mut lasting = shortfalls.is_empty();
    let sources = sources(scope.endpoint, scope.sight, &mut lasting);
    let view =
        View { kind, joined: scope.endpoint.server.is_none(), page: bounds::LIST_PAGE_ENTRIES };
    let page = view.page(&sources, after.as_ref(), |item| {
        let (item, hints) = ((item.server, item.action), (item.name, item.hints));
        scope.sight.sees(item, hints, &mut lasting)
    });
    let next = match &page.next {
        Some(position) => Some(cursors()?.seal(position)?),
        None => None,
    };
    let mut page = page.noting(&shortfalls);
    if scope.client.modern() {
        let one = sources.first().filter(|_| scope.endpoint.server.is_some());
        page = page.told_by(discover::info_of(one));
    }
    let list = page.render(kind, scope.client.modern(), next.as_deref());
    if lasting && cursor.is_none() && next.is_none() {
        gateway.lists.keep(key, &list);
    }
    Ok((list, next))
}

/// Of everything that a first page depends on, time, place and ill servers apart.
fn list_key(scope: Scope<'_>, kind: List) -> Digest {
    let server = scope.endpoint.server.as_ref().map_or("", Name::as_str);
    let cursor = scope.call.message().and_then(|m| m.params()).and_then(|p| p.cursor.as_deref());
    let first = [u8::from(cursor.is_none())];
    Digest::of_parts(&[
        &scope.endpoint.configuration.0,
        scope.endpoint.group.name.as_str().as_bytes(),
        b"/",
        server.as_bytes(),
        b"/",
        kind.member().as_bytes(),
        &first,
        scope.client.revision.as_str().as_bytes(),
        &scope.sight.identity.0,
    ])
}

/// Discovery and the first page of every list in one result. A list with more pages gives its
/// cursor in `nextCursors`, for the standard method of that list.
fn handshake(gateway: &Gateway, scope: Scope<'_>) -> Result<Bytes, Refusal> {
    let sources = sources(scope.endpoint, scope.sight, &mut true);
    let about = match (&scope.endpoint.server, sources.first()) {
        (Some(_), Some(source)) => About::one(source),
        _ => About::all(&sources),
    };
    let mut out = BytesMut::from(&*about.discover());
    out.truncate(out.len() - 1);
    let transports = json!(["streamable-http", "sse"]);
    out.extend_from_slice(format!(r#","transports":{transports}"#).as_bytes());
    let mut more = serde_json::Map::new();
    for kind in [List::Tools, List::Resources, List::Templates, List::Prompts] {
        let (page, next) = list(gateway, scope, kind)?;
        let members = Members::parse(utf8(&page)).map_err(Refusal::from)?;
        let items = members.get(kind.member()).map_or("[]", |raw| raw.get());
        out.extend_from_slice(format!(r#","{}":{items}"#, kind.member()).as_bytes());
        if let Some(next) = next {
            more.insert(kind.member().to_owned(), next.into());
        }
    }
    if !more.is_empty() {
        out.extend_from_slice(format!(r#","nextCursors":{}"#, Value::Object(more)).as_bytes());
    }
    out.extend_from_slice(b"}");
    Ok(out.freeze())
}

/// Ends the call that a `notifications/cancelled` of an older revision is about.
pub fn cancel(gateway: &Gateway, scope: Scope<'_>) {
    let (Some(session), Some(message)) = (&scope.client.session, scope.call.message()) else {
        return;
    };
    if message.method() != Some("notifications/cancelled") {
        return;
    }
    let id = message.params().and_then(|params| {
        let members = Members::parse(params.text()).ok()?;
        envelope::id_key(members.get("requestId")?)
    });
    let Some(request) = id else { return };
    if !gateway.in_flight.cancel(&session.nonce, &request) {
        let session = session.nonce.clone();
        gateway.neighbours.tell(&Tiding::Cancelled { session, request });
    }
}

/// The text of a raw message, for tests and logs.
pub fn text(raw: &Bytes) -> &str {
    utf8(raw)
}
