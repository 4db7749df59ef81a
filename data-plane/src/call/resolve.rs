//! Phase 3: what the call is about: one server, or something that the gateway answers itself.
//!
//! What a caller may not see is resolved like what does not exist: the same words, the same code.
//! The truth goes into the audit record ([`Stop::truth`]). The rules are asked about what does not
//! exist as well, so that neither the words nor the way there tell one from the other.

mod listen;
mod rename;
mod shown;
mod task;
mod unknown;

use std::sync::Arc;

use bytes::Bytes;
use weir_model::id::Name;
use weir_model::policy::Action;
use weir_model::principal::Principal;
use weir_model::reason::{Reason, Refusal};
use weir_model::resource::PinRule;
use weir_model::snapshot::{CatalogView, Hints, ServerView, ToolView, VersionView};

use shown::{draw, has_reference, has_resource, lists_no_resources};
pub use shown::{home_of, shortfalls, sources};

use super::Stop;
use super::client::{Client, Sealing};
use super::endpoint::Endpoint;
use super::inbound::{Call, Wants};
use super::resume::Rest;
use super::sight::Sight;
use super::tasks::Task;
use crate::mcp::envelope::{Message, Params, Reference};
use crate::mcp::extensions;
use crate::mcp::headers;
use crate::mcp::methods::{self, Kind, List, Method};
use crate::mcp::template;
use crate::mcp::verbs::Verb;
use rename::{renamed, renamer};
use unknown::{unknown_prompt, unknown_resource, unknown_tool};

/// What a call is about.
#[derive(Debug)]
pub enum Target {
    /// The gateway answers.
    Here(Here),
    /// One server does.
    Upstream(Box<Upstream>),
    /// A stream goes on.
    Again(Rest),
}

/// What the gateway answers itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Here {
    /// `initialize` of the endpoint that joins all servers.
    Initialize,
    /// `server/discover` of it.
    Discover,
    /// `mcp.handshake`.
    Handshake,
    /// `ping`.
    Pong,
    /// A list from pinned catalogs.
    List(List),
    /// The stream on which changes are announced (`subscriptions/listen`, or GET).
    Notices,
    /// `resources/subscribe` and its opposite, for that stream.
    Subscription {
        /// False to end it.
        on: bool,
    },
    /// A notification that needs nothing done, or an answer to nothing that we asked.
    Accepted,
    /// The client's answer to a question, whose id this is.
    Answered(String),
    /// `logging/setLevel`, where the gateway keeps the session.
    LogLevel,
    /// `notifications/cancelled`.
    Cancel,
    /// DELETE.
    End,
    /// The one stream of a client of 2024-11-05.
    Open,
}

/// One server, and what is wanted of it.
#[derive(Debug)]
pub struct Upstream {
    /// The server.
    pub server: Arc<ServerView>,
    /// The version that serves this caller.
    pub version: Arc<VersionView>,
    /// How.
    pub errand: Errand,
    /// What the rules are asked about.
    pub action: Action,
    /// Tool or prompt name, or URI, as the server has it.
    pub name: Option<String>,
    /// The pinned tool.
    pub tool: Option<Arc<ToolView>>,
    /// `params` with the server's own names in it.
    pub params: Option<Bytes>,
    /// The task that it is about.
    pub task: Option<Task>,
}

/// What is wanted of a server.
#[derive(Debug, Clone)]
pub enum Errand {
    /// A request.
    Request(&'static Method),
    /// A notification or a response of the client, for the session that it sees through.
    Deliver,
    /// The server's push stream.
    Stream {
        /// `Last-Event-ID`.
        after: Option<String>,
    },
    /// The end of the server's session.
    End,
}

impl Upstream {
    /// The tool whose result may come back.
    pub fn definition(&self) -> Option<&Arc<ToolView>> {
        self.tool.as_ref().or_else(|| self.task.as_ref()?.view.as_ref())
    }
    /// Of the tool; the default for everything else.
    pub fn hints(&self) -> Hints {
        self.tool.as_ref().map_or_else(Hints::default, |tool| tool.hints)
    }
}

/// What resolving looks at.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    /// The call.
    pub call: &'a Call<'a>,
    /// Who calls.
    pub who: &'a Principal,
    /// With what.
    pub client: &'a Client,
    /// Where.
    pub endpoint: &'a Endpoint,
    /// What may be seen.
    pub sight: &'a Sight,
    /// Opens the ids of tasks.
    pub sealing: Sealing<'a>,
}

/// Finds what the call is about.
///
/// # Errors
/// [`Reason::MethodUnknown`], [`Reason::UnknownTarget`], [`Reason::UnknownEndpoint`],
/// [`Reason::HeaderMismatch`], [`Reason::InvalidParams`], [`Reason::Quarantined`].
pub fn find(scene: Scene<'_>) -> Result<Target, Stop> {
    let server = match &scene.endpoint.server {
        Some(name) => Some(scene.single(name)?),
        None => None,
    };
    match &scene.call.wants {
        Wants::Message(message) => {
            let Message::Request { method: name, params, .. } = &**message else {
                return Ok(scene.without_answer(server, message));
            };
            let method = scene.method(name)?;
            let mirrored = method.mirrored(params).map_err(missing)?;
            match scene.call.verb {
                Some(verb) => {
                    let names = [method.name, verb.name()];
                    headers::check_sent_mirrors(scene.call.headers, names, mirrored)?;
                    if verb == Verb::Handshake {
                        return Ok(Target::Here(Here::Handshake));
                    }
                }
                None if scene.client.modern() => {
                    headers::check_mirrors(scene.call.headers, name, mirrored)?;
                    if let Some(extension) = method.extension {
                        extensions::check_declared(&scene.client.capabilities, extension)?;
                    }
                }
                None => {}
            }
            match server {
                Some(server) => scene.of_one(server, method, params),
                None => scene.of_all(method, params),
            }
        }
        // Their messages are calls of their own.
        Wants::Batch(_) | Wants::Posted { .. } => Err(Reason::Internal.into()),
        Wants::Open => Ok(Target::Here(Here::Open)),
        Wants::Stream { after } => {
            Ok(scene.errand(server, Errand::Stream { after: after.clone() }, Here::Notices))
        }
        Wants::End => Ok(scene.errand(server, Errand::End, Here::End)),
    }
}

fn missing(name: &'static str) -> Refusal {
    Refusal::new(Reason::InvalidParams, format!("params.{name} is missing"))
        .hint(format!("The parameter {name} is missing."))
}

impl<'a> Scene<'a> {
    /// The server of a transparent endpoint. One that the caller may not use does not exist.
    fn single(&self, name: &Name) -> Result<Arc<ServerView>, Stop> {
        let unknown = || Refusal::from(Reason::UnknownEndpoint);
        let server = self.endpoint.group.servers.get(name).ok_or_else(unknown)?;
        self.sight
            .decide(name, Action::UseServer, ("", Hints::default()), None)
            .map_err(|denial| Stop::denied(denial, unknown()))?;
        usable(server)?;
        Ok(Arc::clone(server))
    }

    fn method(&self, name: &str) -> Result<&'static Method, Refusal> {
        let transparent = self.endpoint.server.is_some();
        let carried = extensions::Carried {
            named: &self.endpoint.group.spec.extensions,
            joined: !transparent,
        };
        if carried.adds(name) {
            return Ok(&methods::NAMED);
        }
        methods::find(name)
            .filter(|m| m.exists_in(self.client.revision) && (transparent || m.aggregated))
            .ok_or_else(|| Refusal::new(Reason::MethodUnknown, "").hint("Method not found."))
    }

    /// The version that serves this caller: that of the session where it is still there, else by
    /// the traffic shares, always the same for one principal.
    fn version(&self, server: &ServerView) -> Arc<VersionView> {
        let session = self.client.session.as_ref().and_then(|s| s.version.as_ref());
        let of_session = |name: &Name| server.versions.iter().find(|v| v.name == *name);
        let version = session.and_then(of_session);
        Arc::clone(version.unwrap_or_else(|| server.version(draw(self.who))))
    }

    // === one server ===

    fn of_one(
        &self,
        server: Arc<ServerView>,
        method: &'static Method,
        params: &Params,
    ) -> Result<Target, Stop> {
        let (version, mut given) = self.placed(&server, method, params)?;
        let catalog = version.catalog.as_deref();
        // Until a definition is pinned, a group that wants to be asked first serves none.
        let closed = catalog.is_none() && self.endpoint.group.spec.pin == PinRule::Ask;
        match method.kind {
            Kind::Ping => return Ok(Target::Here(Here::Pong)),
            Kind::LogLevel if !self.sees_through() => return Ok(Target::Here(Here::LogLevel)),
            Kind::List(list) if catalog.is_some() || closed => {
                return Ok(Target::Here(Here::List(list)));
            }
            Kind::Listen => {
                let heard = listen::heard(self, &server.name, (catalog, closed), params)?;
                given.params = self.listened(&server, heard);
            }
            _ => {}
        }
        let found = Found::of(method, params, catalog);
        found.plain()?;
        let there = match catalog {
            Some(catalog) => found.is_in(catalog, method),
            None => !closed || found.action == Action::UseServer,
        };
        let visible = self.visible(&server.name, &found, || self.unknown(&found));
        if !there {
            return Err(self.unknown(&found).into());
        }
        visible?;
        Ok(Target::Upstream(Box::new(Upstream {
            server,
            version,
            errand: Errand::Request(method),
            action: found.action,
            name: found.name,
            tool: found.tool,
            params: given.params,
            task: given.task,
        })))
    }

    /// A message that gets no answer of its own.
    fn without_answer(&self, server: Option<Arc<ServerView>>, message: &Message) -> Target {
        if self.client.modern() {
            return Target::Here(Here::Accepted);
        }
        let here = match (message.method(), message) {
            (Some("notifications/cancelled"), _) => Here::Cancel,
            (_, Message::Response { id }) => match id.key().strip_prefix('s') {
                Some(text) => Here::Answered(text.to_owned()),
                None => Here::Accepted,
            },
            _ => Here::Accepted,
        };
        self.errand(server, Errand::Deliver, here)
    }

    /// True where the client's session is the server's own.
    fn sees_through(&self) -> bool {
        self.client.session.as_ref().is_some_and(|session| session.upstream.is_some())
    }

    /// Something for the server's own session where the client sees through to one.
    fn errand(&self, server: Option<Arc<ServerView>>, errand: Errand, here: Here) -> Target {
        match server {
            Some(server) if self.sees_through() => Target::Upstream(Box::new(Upstream {
                version: self.version(&server),
                server,
                errand,
                action: Action::UseServer,
                name: None,
                tool: None,
                params: None,
                task: None,
            })),
            _ => Target::Here(here),
        }
    }

    /// What may not be seen is told as `unknown`.
    fn visible(
        &self,
        server: &Name,
        found: &Found,
        unknown: impl FnOnce() -> Refusal,
    ) -> Result<(), Stop> {
        let name = found.name.as_deref().unwrap_or_default();
        let hints = found.tool.as_ref().map_or_else(Hints::default, |tool| tool.hints);
        match self.sight.decide(server, found.action, (name, hints), None) {
            Ok(_) => Ok(()),
            Err(denial) => Err(Stop::denied(denial, unknown())),
        }
    }

    // === all servers ===

    fn of_all(&self, method: &'static Method, params: &Params) -> Result<Target, Stop> {
        let name = params.name.as_deref().unwrap_or_default();
        match method.kind {
            Kind::Initialize => Ok(Target::Here(Here::Initialize)),
            Kind::Discover => Ok(Target::Here(Here::Discover)),
            Kind::Ping => Ok(Target::Here(Here::Pong)),
            Kind::LogLevel => Ok(Target::Here(Here::LogLevel)),
            Kind::List(list) => Ok(Target::Here(Here::List(list))),
            Kind::Listen => Ok(Target::Here(Here::Notices)),
            Kind::CallTool => {
                let told = || unknown_tool(name);
                let place = self.exposing(name);
                let exposed = |version: &VersionView| {
                    version.catalog.as_deref().and_then(|c| c.exposed_tool(name)).cloned()
                };
                let Some((server, version, tool)) =
                    place.and_then(|(s, v)| exposed(&v).map(|tool| (s, v, tool)))
                else {
                    return Err(self.nobody_has(Action::CallTool, name, told()));
                };
                let params = renamed(params, &["name"], &tool.name)?;
                let found = Found {
                    action: Action::CallTool,
                    name: Some(tool.name.clone()),
                    tool: Some(tool),
                };
                self.joined((server, version), method, (found, params), told)
            }
            Kind::GetPrompt => self.prompt(method, name, renamer(params, &["name"])),
            Kind::Resource => {
                self.resource(method, params.uri.as_deref().unwrap_or_default(), params)
            }
            Kind::Complete => match &params.reference {
                Some(Reference::Prompt(name)) => {
                    self.prompt(method, name, renamer(params, &["ref", "name"]))
                }
                Some(Reference::Resource(uri)) => self.resource(method, uri, params),
                None => Err(missing("ref").into()),
            },
            Kind::Relay => Err(Reason::MethodUnknown.into()),
        }
    }

    /// Server and version that a name of the joined endpoint belongs to.
    fn exposing(&self, name: &str) -> Option<(Arc<ServerView>, Arc<VersionView>)> {
        let server = self.endpoint.group.exposing_server(name)?;
        Some((Arc::clone(server), self.version(server)))
    }

    fn prompt(
        &self,
        method: &'static Method,
        name: &str,
        rename: impl FnOnce(&str) -> Result<Option<Bytes>, Refusal>,
    ) -> Result<Target, Stop> {
        let unknown = || unknown_prompt(name);
        let exposed = |version: &VersionView| {
            Some(version.catalog.as_deref()?.exposed_prompt(name)?.name.clone())
        };
        let Some((server, version, own)) =
            self.exposing(name).and_then(|(s, v)| exposed(&v).map(|own| (s, v, own)))
        else {
            return Err(self.nobody_has(Action::GetPrompt, name, unknown()));
        };
        let params = rename(&own)?;
        let found = Found { action: Action::GetPrompt, ..Found::named(&own) };
        self.joined((server, version), method, (found, params), unknown)
    }

    /// The first server, by name, that has the resource or a template for it and lets this
    /// caller read it.
    fn resource(
        &self,
        method: &'static Method,
        uri: &str,
        params: &Params,
    ) -> Result<Target, Stop> {
        if method.name == "resources/unsubscribe" {
            // What is gone can be unsubscribed from too.
            return Ok(Target::Here(Here::Subscription { on: false }));
        }
        let found = Found { action: Action::ReadResource, ..Found::named(uri) };
        found.plain()?;
        let known = match method.kind {
            Kind::Complete => has_reference,
            _ => has_resource,
        };
        let mut hidden = None;
        for server in self.endpoint.group.servers.values() {
            let version = self.version(server);
            if server.quarantined.is_some()
                || !version.catalog.as_deref().is_some_and(|catalog| known(catalog, uri))
            {
                continue;
            }
            let found = Found { action: Action::ReadResource, ..Found::named(uri) };
            let place = (Arc::clone(server), version);
            let params = params.raw.clone();
            match self.joined(place, method, (found, params), || {
                unknown_resource((self.endpoint, self.sight), uri)
            }) {
                Ok(_) if method.name == "resources/subscribe" => {
                    return Ok(Target::Here(Here::Subscription { on: true }));
                }
                Ok(target) => return Ok(target),
                Err(stop) => hidden = hidden.or(Some(stop)),
            }
        }
        Err(hidden.unwrap_or_else(|| {
            self.nobody_has(
                Action::ReadResource,
                uri,
                unknown_resource((self.endpoint, self.sight), uri),
            )
        }))
    }

    /// The refusal of what no server of the joined endpoint has. The rules are asked all the same.
    fn nobody_has(&self, action: Action, name: &str, told: Refusal) -> Stop {
        let (server, name) = weir_model::naming::split(name).unwrap_or(("unknown", name));
        let nobody = "unknown".parse::<Name>();
        if let Ok(server) = server.parse::<Name>().or(nobody) {
            self.sight.may(&server, action, name, Hints::default());
        }
        told.into()
    }

    /// As if it did not exist.
    fn unknown(&self, found: &Found) -> Refusal {
        let name = found.name.as_deref().unwrap_or_default();
        match found.action {
            Action::CallTool => unknown_tool(name),
            Action::GetPrompt => unknown_prompt(name),
            Action::ReadResource => unknown_resource((self.endpoint, self.sight), name),
            Action::UseServer => Reason::UnknownEndpoint.into(),
        }
    }

    fn joined(
        &self,
        (server, version): (Arc<ServerView>, Arc<VersionView>),
        method: &'static Method,
        (found, params): (Found, Option<Bytes>),
        unknown: impl FnOnce() -> Refusal,
    ) -> Result<Target, Stop> {
        self.visible(&server.name, &found, unknown)?;
        usable(&server)?;
        Ok(Target::Upstream(Box::new(Upstream {
            server,
            version,
            errand: Errand::Request(method),
            action: found.action,
            name: found.name,
            tool: found.tool,
            params,
            task: None,
        })))
    }
}

struct Found {
    action: Action,
    name: Option<String>,
    tool: Option<Arc<ToolView>>,
}

impl Found {
    fn named(name: &str) -> Self {
        Self { action: Action::UseServer, name: Some(name.to_owned()), tool: None }
    }

    /// What a request to one server is about.
    fn of(method: &Method, params: &Params, catalog: Option<&CatalogView>) -> Self {
        let named =
            |action, name: Option<&str>| Self { action, ..Self::named(name.unwrap_or_default()) };
        match (method.kind, &params.reference) {
            (Kind::CallTool, _) => {
                let name = params.name.as_deref();
                let tool = catalog.zip(name).and_then(|(c, name)| c.tool(name)).cloned();
                Self { tool, ..named(Action::CallTool, name) }
            }
            (Kind::GetPrompt, _) => named(Action::GetPrompt, params.name.as_deref()),
            // What is gone, or may no longer be read, can be unsubscribed from too.
            (Kind::Resource, _) if method.name != "resources/unsubscribe" => {
                named(Action::ReadResource, params.uri.as_deref())
            }
            (Kind::Complete, Some(Reference::Prompt(name))) => named(Action::GetPrompt, Some(name)),
            (Kind::Complete, Some(Reference::Resource(uri))) => {
                named(Action::ReadResource, Some(uri))
            }
            (Kind::Relay, _) if method.reads_resource() => {
                named(Action::ReadResource, params.uri.as_deref())
            }
            _ => Self { action: Action::UseServer, name: None, tool: None },
        }
    }

    /// Whether what is pinned has it.
    fn is_in(&self, catalog: &CatalogView, method: &Method) -> bool {
        let name = self.name.as_deref().unwrap_or_default();
        match (self.action, method.kind) {
            (Action::CallTool, _) => self.tool.is_some(),
            (Action::GetPrompt, _) => catalog.prompt(name).is_some(),
            (Action::ReadResource, Kind::Complete) => has_reference(catalog, name),
            // Skills have lists of their own.
            (Action::ReadResource, Kind::Relay) | (Action::UseServer, _) => true,
            (Action::ReadResource, _) => lists_no_resources(catalog) || has_resource(catalog, name),
        }
    }

    /// # Errors
    /// [`Reason::InvalidParams`] for a URI that stands for another one.
    fn plain(&self) -> Result<(), Refusal> {
        let name = self.name.as_deref().unwrap_or_default();
        if self.action != Action::ReadResource || template::is_plain(name) {
            return Ok(());
        }
        Err(Refusal::new(Reason::InvalidParams, "a URI that stands for another one").hint(
            "The parameter uri has a segment \".\" or \"..\", or escapes a character that needs no \
             escape: write the URI that it stands for.",
        ))
    }
}

fn usable(server: &ServerView) -> Result<(), Refusal> {
    match &server.quarantined {
        Some(why) => Err(Refusal::new(Reason::Quarantined, format!("{}: {why}", server.name))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use weir_model::resource::TrafficShare;
    use weir_model::testing::World;

    use super::*;

    #[test]
    fn versions_get_their_shares_and_a_caller_stays_on_one() {
        let name = |text: &str| text.parse::<Name>().unwrap();
        let shares = [("v1", 90), ("v2", 10)];
        let world = World::new().group("g").server("g", "s", "http://u.example/mcp").server_with(
            "g",
            "s",
            |server| {
                let mut canary = server.versions[0].clone();
                server.versions[0].name = name("v1");
                canary.name = name("v2");
                server.versions.push(canary);
                server.traffic = shares
                    .map(|(version, percent)| TrafficShare { version: name(version), percent })
                    .into();
            },
        );
        let snapshot = world.snapshot();
        let server = &snapshot.group("g").unwrap().servers[&name("s")];
        let caller = |number: usize| Principal {
            proof: weir_model::principal::Proof::ApiToken,
            subject: format!("user-{number}").into(),
            ..Principal::anonymous()
        };
        let on = |number| server.version(draw(&caller(number))).name.clone();
        let canaries: Vec<usize> = (0..2_000).filter(|n| on(*n) == name("v2")).collect();
        assert!((140..260).contains(&canaries.len()), "{} of 2000 are not 10 %", canaries.len());
        assert!(canaries.iter().all(|n| on(*n) == name("v2")));
    }
}
