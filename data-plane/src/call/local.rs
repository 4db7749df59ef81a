//! What the gateway answers itself, without a server: lists and handshakes from what is pinned,
//! the stream on which changes are announced, and messages that need no answer.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use serde_json::{Value, json};
use weir_model::audit::Outcome;
use weir_model::bounds;
use weir_model::id::Digest;
use weir_model::reason::{Reason, Refusal};

use super::Gateway;
use super::client::bond;
use super::endpoint::{self, Endpoint};
use super::forward::{Scope, seal_session};
use super::http_sse;
use super::inbound::Conn;
use super::relay::Flow;
use super::resolve::{Here, sources};
use super::respond::Answer;
use super::sight::Sight;
use crate::mcp::discover::About;
use crate::mcp::envelope::{self, utf8};
use crate::mcp::list::{Cursors, View};
use crate::mcp::members::{self, Members};
use crate::mcp::methods::List;
use crate::upstream::Message;

/// Answers.
///
/// # Errors
/// [`Reason::InvalidParams`] for a foreign cursor, [`Reason::MethodNotAllowed`].
pub fn answer(
    gateway: &Arc<Gateway>,
    scope: Scope<'_>,
    here: Here,
    from: (&Conn, &Parts),
) -> Result<Answer, Refusal> {
    let success = |raw| Ok(Answer::Result { raw, outcome: Outcome::Success, session: None });
    let all = || About::all(&sources(scope.endpoint, &scope.sight.who, scope.sight));
    match here {
        Here::Pong => success(Bytes::from_static(b"{}")),
        Here::Discover => success(all().discover()),
        Here::Handshake => success(handshake(scope)?),
        Here::Initialize => {
            let revision = scope.client.revision;
            let session = Some(seal_session(scope, revision, None, None)?);
            let raw = all().initialize(revision);
            Ok(Answer::Result { raw, outcome: Outcome::Success, session })
        }
        Here::List(kind) => success(list(scope, kind)?.0),
        Here::Notices => notices(gateway, scope),
        Here::Open => http_sse::open(gateway, scope, from),
        Here::Accepted => Ok(Answer::Accepted),
        Here::Cancel => {
            cancel(gateway, scope);
            Ok(Answer::Accepted)
        }
        Here::End => {
            if let Some(session) = &scope.client.session {
                gateway.ended.insert(&session.nonce);
            }
            Ok(Answer::Ended)
        }
    }
}

/// One page of a list, and the cursor for the next one.
fn list(scope: Scope<'_>, kind: List) -> Result<(Bytes, Option<String>), Refusal> {
    let principal = scope.sight.who.id();
    let cursor = scope.call.message().and_then(|m| m.params()).and_then(|p| p.cursor.as_deref());
    let cursors = || {
        let sealer = scope.sealing.sealer()?;
        Ok::<_, Refusal>(Cursors { sealer, bond: bond(scope.endpoint, &principal), kind })
    };
    let after = match cursor {
        Some(cursor) => Some(cursors()?.open(cursor)?),
        None => None,
    };
    let sources = sources(scope.endpoint, &scope.sight.who, scope.sight);
    let view =
        View { kind, joined: scope.endpoint.server.is_none(), page: bounds::LIST_PAGE_ENTRIES };
    let page = view.page(&sources, after.as_ref(), |item| {
        scope.sight.may(item.server, item.action, item.name, item.hints)
    });
    let next = match &page.next {
        Some(position) => Some(cursors()?.seal(position)?),
        None => None,
    };
    Ok((page.render(kind, scope.client.modern(), next.as_deref()), next))
}

/// Discovery and the first page of every list in one result. A list with more pages gives its
/// cursor in `nextCursors`, for the standard method of that list.
fn handshake(scope: Scope<'_>) -> Result<Bytes, Refusal> {
    let sources = sources(scope.endpoint, &scope.sight.who, scope.sight);
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
        let (page, next) = list(scope, kind)?;
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
    if let Some(id) = id {
        gateway.in_flight.cancel(&session.nonce, &id);
    }
}

/// The stream on which the gateway announces that the caller's lists have changed.
///
/// # Errors
/// [`Reason::InvalidParams`] for a listen request without a filter.
pub fn notices(gateway: &Gateway, scope: Scope<'_>) -> Result<Answer, Refusal> {
    let wanted = match scope.client.modern() {
        true => Wanted::read(scope)?,
        false => Wanted { kinds: vec![List::Tools, List::Resources, List::Prompts], id: None },
    };
    let (sender, messages) = tokio::sync::mpsc::channel(bounds::STREAM_QUEUE_MESSAGES);
    if let Some(acknowledged) = wanted.acknowledged() {
        // The first message fits into the empty queue.
        let _ = sender.try_send(Ok(Message::Notification(acknowledged)));
    }
    let watcher =
        Watcher { sight: scope.sight.clone(), endpoint: scope.endpoint.clone(), wanted, sender };
    let flow = Flow::open(messages, scope, gateway)?;
    tokio::spawn(watcher.run(gateway.config.clone()));
    Ok(Answer::Stream(Box::new(flow)))
}

/// Which changes a client wants to hear of.
#[derive(Debug)]
struct Wanted {
    kinds: Vec<List>,
    /// Of the listen request, raw.
    id: Option<Bytes>,
}

impl Wanted {
    fn read(scope: Scope<'_>) -> Result<Self, Refusal> {
        let message = scope.call.message();
        let params = message.and_then(|m| m.params());
        let text = params.map_or("{}", |params| params.text());
        let members = Members::parse(text).map_err(Refusal::from)?;
        let filter = members.get("notifications").filter(|raw| members::is_object(raw));
        let filter = filter.ok_or_else(|| {
            Refusal::new(Reason::InvalidParams, "listen without notifications")
                .hint("The parameter notifications must be an object.")
        })?;
        let filter = Members::parse(filter.get()).map_err(Refusal::from)?;
        let asked = |name: &str| filter.get(name).is_some_and(|raw| raw.get() == "true");
        let kinds = [
            ("toolsListChanged", List::Tools),
            ("resourcesListChanged", List::Resources),
            ("promptsListChanged", List::Prompts),
        ];
        let kinds = kinds.into_iter().filter(|(name, _)| asked(name)).map(|(_, kind)| kind);
        let id = message.and_then(|m| m.id()).map(|id| id.raw().clone());
        Ok(Self { kinds: kinds.collect(), id })
    }

    fn meta(&self) -> Option<Value> {
        let id: Value = serde_json::from_slice(self.id.as_ref()?).ok()?;
        Some(json!({ "io.modelcontextprotocol/subscriptionId": id }))
    }

    fn acknowledged(&self) -> Option<Bytes> {
        let meta = self.meta()?;
        let mut honoured = json!({});
        for kind in &self.kinds {
            honoured[format!("{}ListChanged", kind.member())] = true.into();
        }
        Some(notification(
            "notifications/subscriptions/acknowledged",
            json!({ "_meta": meta, "notifications": honoured }),
        ))
    }

    fn changed(&self, kind: List) -> Bytes {
        let method = format!("notifications/{}/list_changed", kind.member());
        let params = self.meta().map_or(Value::Null, |meta| json!({ "_meta": meta }));
        notification(&method, params)
    }
}

fn notification(method: &str, params: Value) -> Bytes {
    let mut message = json!({ "jsonrpc": "2.0", "method": method });
    if !params.is_null() {
        message["params"] = params;
    }
    message.to_string().into()
}

/// Follows the configuration for one stream.
struct Watcher {
    sight: Sight,
    endpoint: Endpoint,
    wanted: Wanted,
    sender: tokio::sync::mpsc::Sender<Result<Message, Refusal>>,
}

impl Watcher {
    async fn run(mut self, config: std::sync::Arc<crate::config::State>) {
        let mut revisions = config.subscribe();
        let mut seen = self.digests();
        loop {
            tokio::select! {
                () = self.sender.closed() => return,
                changed = revisions.changed() => if changed.is_err() { return },
            }
            revisions.borrow_and_update();
            // A group that is gone ends the stream: what it showed is nobody's any more.
            let path = format!("/{}/mcp", self.endpoint.group.name);
            let Ok(found) = endpoint::find(&path, &config.current()) else { return };
            self.sight.group = std::sync::Arc::clone(&found.group);
            self.endpoint.group = found.group;
            let now = self.digests();
            for (kind, _) in now
                .iter()
                .zip(&seen)
                .filter(|(a, b)| a != b)
                .map(|((kind, digest), _)| (kind, digest))
            {
                let message = Message::Notification(self.wanted.changed(*kind));
                if self.sender.send(Ok(message)).await.is_err() {
                    return;
                }
            }
            seen = now;
        }
    }

    /// What the caller sees of each wanted list, digested.
    fn digests(&self) -> Vec<(List, Digest)> {
        let sources = sources(&self.endpoint, &self.sight.who, &self.sight);
        let of = |kind: List| {
            let view = View { kind, joined: self.endpoint.server.is_none(), page: usize::MAX };
            let page = view.page(&sources, None, |item| {
                self.sight.may(item.server, item.action, item.name, item.hints)
            });
            Digest::of(&page.render(kind, false, None))
        };
        let both = |kind: &List| match kind {
            // Templates are announced as resources.
            List::Resources => {
                let parts = [of(List::Resources).0, of(List::Templates).0];
                (*kind, Digest::of_parts(&[&parts[0], &parts[1]]))
            }
            kind => (*kind, of(*kind)),
        };
        self.wanted.kinds.iter().map(both).collect()
    }
}

/// The text of a raw message, for tests and logs.
pub fn text(raw: &Bytes) -> &str {
    utf8(raw)
}
