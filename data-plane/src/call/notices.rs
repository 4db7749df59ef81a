//! The streams on which the gateway announces changes: of the caller's lists, and of single
//! resources that it asked to hear of.
//!
//! A list counts as changed when what this caller sees of it has changed, whatever its servers
//! said. Resources are followed at the servers that they come from ([`follow`]); a server that is
//! slow or gone is missing from the acknowledgement and holds up nothing else.

mod follow;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, stream};
use serde_json::{Value, json};
use tokio::sync::watch;
use weir_model::audit::Outcome;
use weir_model::bounds;
use weir_model::id::{Digest, Revision};
use weir_model::policy::Action;
use weir_model::reason::{Reason, Refusal};
use weir_model::snapshot::Hints;

use super::Gateway;
use super::endpoint::{self, Endpoint};
use super::forward::Scope;
use super::relay::{Flow, Source};
use super::resolve::{home_of, sources};
use super::respond::Answer;
use super::sight::Sight;
use crate::config::State;
use crate::mcp::list::View;
use crate::mcp::members::{self, Members};
use crate::mcp::methods::List;
use crate::neighbours::Tiding;
use crate::upstream::{Front, Message};
use follow::Follower;

/// Opens the stream on which changes are announced.
///
/// # Errors
/// [`Reason::InvalidParams`] for a listen request without a filter.
pub fn open(gateway: &Gateway, scope: Scope<'_>) -> Result<Answer, Refusal> {
    let wanted = Wanted::of(gateway, scope)?;
    let client = scope.client;
    let front = Front {
        modern: true,
        revision: crate::mcp::revision::Revision::V2026_07_28.to_string(),
        client_info: client.info.clone(),
        capabilities: Bytes::from_static(b"{}"),
        isolation: client.isolation.clone(),
        log_level: None,
    };
    let watcher = Watcher {
        sight: scope.sight.clone(),
        endpoint: scope.endpoint.clone(),
        resources: wanted.resources.clone(),
        wanted,
        follower: Follower::new(gateway.upstreams.clone(), front),
        config: Arc::clone(&gateway.config),
        revisions: gateway.config.subscribe(),
        seen: None,
        ready: VecDeque::new(),
    };
    let messages = Source::Here(Box::pin(watcher.into_stream()));
    Ok(Answer::Stream(Box::new(Flow::open(messages, scope, gateway)?)))
}

/// `resources/subscribe` and `resources/unsubscribe` of an older revision: updates come on the
/// stream of the session.
///
/// # Errors
/// [`Reason::UnknownTarget`] for what the caller may not read, [`Reason::ConcurrencyLimited`].
pub fn subscription(gateway: &Gateway, scope: Scope<'_>, on: bool) -> Result<Answer, Refusal> {
    let session = scope.client.session.as_ref().ok_or(Reason::SessionMissing)?;
    let params = scope.call.message().and_then(|m| m.params());
    let uri = params.and_then(|p| p.uri.as_deref()).unwrap_or_default();
    gateway.subscriptions.set(&session.nonce, uri, on)?;
    // The stream may be at another proxy.
    let (session, uri) = (session.nonce.clone(), uri.to_owned());
    gateway.neighbours.tell(&Tiding::Subscribed { session, uri, on });
    let raw = Bytes::from_static(b"{}");
    Ok(Answer::Result { raw, outcome: Outcome::Success, session: None })
}

/// Which changes a client wants to hear of.
#[derive(Debug)]
struct Wanted {
    kinds: Vec<List>,
    /// Changes while the stream is open, for older revisions.
    resources: watch::Receiver<BTreeSet<String>>,
    /// Of the listen request, raw.
    id: Option<Bytes>,
}

impl Wanted {
    fn of(gateway: &Gateway, scope: Scope<'_>) -> Result<Self, Refusal> {
        if scope.client.modern() {
            return Self::read(scope);
        }
        let resources = match &scope.client.session {
            Some(session) => gateway.subscriptions.follow(&session.nonce),
            None => watch::channel(BTreeSet::new()).1,
        };
        Ok(Self { kinds: vec![List::Tools, List::Resources, List::Prompts], resources, id: None })
    }

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
        let uris: BTreeSet<String> = match filter.get("resourceSubscriptions") {
            None => BTreeSet::new(),
            Some(raw) => serde_json::from_str(raw.get()).map_err(|_| {
                Refusal::new(Reason::InvalidParams, "resourceSubscriptions")
                    .hint("The member resourceSubscriptions must be an array of URIs.")
            })?,
        };
        // What is over the bound is not acknowledged.
        let uris = uris.into_iter().take(bounds::RESOURCE_SUBSCRIPTIONS_MAX).collect();
        let id = message.and_then(|m| m.id()).map(|id| id.raw().clone());
        Ok(Self { kinds: kinds.collect(), resources: watch::channel(uris).1, id })
    }

    fn meta(&self) -> Option<Value> {
        let id: Value = serde_json::from_slice(self.id.as_ref()?).ok()?;
        Some(json!({ "io.modelcontextprotocol/subscriptionId": id }))
    }

    fn acknowledged(&self, resources: &[String]) -> Option<Bytes> {
        let meta = self.meta()?;
        let mut honoured = json!({});
        for kind in &self.kinds {
            honoured[format!("{}ListChanged", kind.member())] = true.into();
        }
        if !self.resources.borrow().is_empty() {
            honoured["resourceSubscriptions"] = json!(resources);
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

    fn updated(&self, uri: &str) -> Bytes {
        let mut params = json!({ "uri": uri });
        if let Some(meta) = self.meta() {
            params["_meta"] = meta;
        }
        notification("notifications/resources/updated", params)
    }
}

fn notification(method: &str, params: Value) -> Bytes {
    let mut message = json!({ "jsonrpc": "2.0", "method": method });
    if !params.is_null() {
        message["params"] = params;
    }
    message.to_string().into()
}

/// Follows the configuration, and resources, for one stream, whenever that is polled.
struct Watcher {
    sight: Sight,
    endpoint: Endpoint,
    wanted: Wanted,
    resources: watch::Receiver<BTreeSet<String>>,
    follower: Follower,
    config: Arc<State>,
    revisions: watch::Receiver<Revision>,
    /// What the caller saw of each list; none before the beginning.
    seen: Option<Vec<(List, Digest)>>,
    /// To be sent.
    ready: VecDeque<Bytes>,
}

/// What a stream has to react to.
enum Event {
    Configuration,
    Subscriptions,
    Updated(follow::Update),
    Gone,
}

impl Watcher {
    fn into_stream(self) -> impl Stream<Item = Result<Message, Refusal>> + Send {
        stream::unfold(self, |mut watcher| async move {
            let raw = watcher.next().await?;
            Some((Ok(Message::Notification(raw)), watcher))
        })
    }

    /// The next announcement; none when the stream has to end.
    async fn next(&mut self) -> Option<Bytes> {
        if self.seen.is_none() {
            self.begin().await;
        }
        loop {
            if let Some(raw) = self.ready.pop_front() {
                return Some(raw);
            }
            let event = tokio::select! {
                changed = self.revisions.changed() => changed.map_or(Event::Gone, |()| Event::Configuration),
                () = moved(&mut self.resources) => Event::Subscriptions,
                update = self.follower.updated() => Event::Updated(update),
            };
            match event {
                Event::Gone => return None,
                Event::Configuration => {
                    self.reconfigured()?;
                    self.follow();
                }
                Event::Subscriptions => self.follow(),
                Event::Updated(update) => self.updated(&update),
            }
        }
    }

    async fn begin(&mut self) {
        self.revisions.borrow_and_update();
        self.seen = Some(self.digests());
        self.follow();
        let patience = Duration::from_millis(bounds::SUBSCRIBE_MS);
        let accepted = self.follower.accepted(patience).await;
        self.ready.extend(self.wanted.acknowledged(&accepted));
    }

    /// Tells of lists that have changed; none when the stream has to end.
    fn reconfigured(&mut self) -> Option<()> {
        // A group that is gone ends the stream: what it showed is nobody's any more.
        let path = format!("/{}/mcp", self.endpoint.group.name);
        let found = endpoint::find(&path, &self.config.current()).ok()?;
        self.sight.group = Arc::clone(&found.group);
        self.endpoint.group = found.group;
        let now = self.digests();
        let before = self.seen.replace(now.clone()).unwrap_or_default();
        let changed = now.iter().zip(&before).filter(|(now, before)| now != before);
        self.ready.extend(changed.map(|((kind, _), _)| self.wanted.changed(*kind)));
        Some(())
    }

    /// Tells of a resource, if the caller may read it.
    fn updated(&mut self, (server, uri): &follow::Update) {
        // What a server names may be a part of what was asked for, which no catalog lists. It is
        // held against the rules for that server's resources and no other's.
        if self.sight.may(server, Action::ReadResource, uri, Hints::default()) {
            self.ready.push_back(self.wanted.updated(uri));
        }
    }

    /// Follows what is wanted now at the servers that have it now.
    fn follow(&mut self) {
        let mut homes = follow::Homes::default();
        for uri in &*self.wanted.resources.borrow() {
            if let Some(version) = home_of(&self.endpoint, &self.sight.who, &self.sight, uri) {
                homes.add(version, uri);
            }
        }
        self.follower.set(homes, &self.config.current(), &self.endpoint.group);
    }

    /// What the caller sees of each wanted list, digested.
    fn digests(&self) -> Vec<(List, Digest)> {
        let sources = sources(&self.endpoint, &self.sight, &mut true);
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

/// Returns when the set has changed; never, when nobody can change it.
async fn moved(resources: &mut watch::Receiver<BTreeSet<String>>) {
    if resources.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
