//! Ids of tasks: a server's own never reach a client.
//!
//! Who knows a task's id gets at what it made, and the server, which sees the gateway's credential
//! alone, cannot tell callers apart. So clients get sealed ids: good for the caller, the endpoint,
//! the server version and the tool that the task was made with; who may not call that tool any more
//! has lost its tasks too ([`right`]). The same task always has the same id (until keys are rotated,
//! and even then the id that a client asked with is the one in its answer), so that clients can
//! compare; a list and what a server pushes name it by that one where the proxy knows its tool
//! ([`makers`]). Whatever does not open is told as an unknown task, -32602.
//!
//! Both forms are covered: tasks of 2025-11-25 and the extension of 2026-07-28. Ids of tasks that
//! a client runs for its server are the client's, and pass as they are.

pub mod eras;
pub mod makers;
pub mod right;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use weir_model::id::Name;
use weir_model::principal::Principal;
use weir_model::reason::{Reason, Refusal};
use weir_model::seal::Sealer;
use weir_model::snapshot::{CatalogView, ServerView, ToolView};

use super::Gateway;
use super::client::bond;
use super::endpoint::Endpoint;
use super::forward::Scope;
use super::inbound::Call;
use super::resolve::Upstream;
use super::sight::Sight;
use crate::hop::Holder;
use crate::mcp::adapt::{quoted, replaced};
use crate::mcp::envelope::{Params, utf8};
use crate::mcp::extensions;
use crate::mcp::members::{self, Members, position};
use crate::mcp::methods::{Kind, Method};
use crate::mcp::revision::Revision;
use eras::Turn;
use makers::Makers;

const PURPOSE: &str = "task";
const RELATED: &str = "io.modelcontextprotocol/related-task";
const ID: &str = "taskId";

/// What is sealed.
#[derive(Debug, Serialize, Deserialize)]
struct Token {
    #[serde(rename = "v")]
    version: Name,
    /// The server's own.
    #[serde(rename = "t")]
    id: String,
    /// The tool that made it, where that was known.
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    tool: Option<String>,
    /// The proxy in whose session with the server it was made, where that is no session of the
    /// client's.
    #[serde(rename = "h", default, skip_serializing_if = "Option::is_none")]
    home: Option<Holder>,
}

/// The task that a request is about.
#[derive(Debug, Clone)]
pub struct Task {
    /// The server's own id.
    pub id: String,
    /// The tool that made it, where that is known.
    pub tool: Option<String>,
    /// The same, as it is pinned now.
    pub view: Option<Arc<ToolView>>,
}

/// What a client's id stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The server's own id.
    pub id: String,
    /// The server version that has the task.
    pub version: Name,
    /// The tool that made it, where that is known.
    pub tool: Option<String>,
    /// The request's `params` with it.
    pub params: Option<Bytes>,
}

/// Seals the ids of one caller's tasks at one server.
#[derive(Debug)]
pub struct Tasks {
    sealer: Arc<Sealer>,
    aad: Vec<u8>,
    version: Name,
    /// Ids that the client named: own and sealed.
    known: Vec<(String, String)>,
    /// The tool that is called.
    tool: Option<String>,
    /// For what is made here: [`Token::home`].
    home: Option<Holder>,
    makers: Makers,
    /// For whom a list of tasks is, and of which server.
    listed: Option<Box<(Sight, Arc<ServerView>)>>,
}

/// The task that a request is about; none when it is about none.
///
/// # Errors
/// [`Reason::InvalidParams`] for an id that this caller did not get here.
pub fn given(
    (sealer, aad): (&Sealer, &[u8]),
    method: &Method,
    params: &Params,
) -> Result<Option<Given>, Refusal> {
    let (true, Some(sealed)) = (of_tasks(method), &params.task) else { return Ok(None) };
    let token = open(sealer, aad, sealed).ok_or_else(unknown)?;
    let text = params.text();
    let members = Members::parse(text).map_err(Refusal::from)?;
    let part = members.get(ID).ok_or_else(unknown)?.get();
    let raw = params.raw.as_ref().map(|raw| replaced(raw, part, &quoted(&token.id)));
    Ok(Some(Given { id: token.id, version: token.version, tool: token.tool, params: raw }))
}

/// Where a stateless client's task of an older server is known best: many of those servers tell of a
/// task in the session that made it and in no other, and that session is a proxy's.
pub fn home(
    sealer: &Sealer,
    (endpoint, who): (&Endpoint, &Principal),
    call: &Call<'_>,
) -> Option<Holder> {
    let message = call.message()?;
    message.method().filter(|name| name.starts_with("tasks/"))?;
    let sealed = message.params()?.task.as_deref()?;
    open(sealer, &bond(endpoint, &who.id()).bytes(), sealed)?.home
}

/// True for a server that says that it has tasks of either form.
pub fn has(catalog: &CatalogView) -> bool {
    let own = &catalog.capabilities;
    own.get("tasks").is_some() || own["extensions"].get(extensions::TASKS).is_some()
}

/// The refusal of an id.
pub fn unknown() -> Refusal {
    Refusal::new(Reason::InvalidParams, "task id").hint("Unknown task.")
}

fn of_tasks(method: &Method) -> bool {
    method.kind == Kind::Relay && method.name.starts_with("tasks/")
}

fn open(sealer: &Sealer, aad: &[u8], sealed: &str) -> Option<Token> {
    serde_json::from_slice(&sealer.open(PURPOSE, aad, sealed).ok()?).ok()
}

/// `params` of `subscriptions/listen` with the server's own ids of the tasks that it names.
/// Those that are not this caller's, or that it `may` not have, are left out, so they are not
/// acknowledged.
pub fn listened(
    (sealer, aad): (&Sealer, &[u8]),
    raw: &Bytes,
    may: impl Fn(&Name, Option<&str>) -> bool,
) -> Bytes {
    let rewritten = || -> Option<Bytes> {
        let (part, sealed) = listed(utf8(raw))?;
        let opened = sealed.iter().filter_map(|id| open(sealer, aad, id));
        let own: Vec<String> = opened
            .filter(|token| may(&token.version, token.tool.as_deref()))
            .map(|token| token.id)
            .collect();
        Some(replaced(raw, part, &serde_json::to_string(&own).ok()?))
    };
    rewritten().unwrap_or_else(|| raw.clone())
}

/// `notifications.taskIds` of a listen request: as it is written, and what it says.
fn listed(params: &str) -> Option<(&str, Vec<String>)> {
    let filter = Members::parse(params).ok()?.get("notifications")?.get();
    let part = Members::parse(filter).ok()?.get("taskIds")?.get();
    Some((part, serde_json::from_str(part).ok()?))
}

/// A message of the client for the server's session, with the server's own id of the task that it
/// belongs to.
pub fn delivered(scope: Scope<'_>) -> Bytes {
    let raw = &scope.call.body;
    let rewritten = || -> Option<Bytes> {
        let text = std::str::from_utf8(raw).ok().filter(|text| text.contains(RELATED))?;
        let members = Members::parse(text).ok()?;
        let object = members.get("result").or(members.get("params"))?.get();
        let part = related(object)?;
        let principal = scope.sight.who.id();
        let aad = bond(scope.endpoint, &principal).bytes();
        let sealed: String = serde_json::from_str(part).ok()?;
        let token = open(scope.sealing.sealer?, &aad, &sealed)?;
        let server = scope.endpoint.group.servers.get(scope.endpoint.server.as_ref()?)?;
        may_have(scope.sight, server, (&token.version, token.tool.as_deref()))
            .then(|| replaced(raw, part, &quoted(&token.id)))
    };
    rewritten().unwrap_or_else(|| raw.clone())
}

/// True when the caller may have a task of this version of a server.
pub fn may_have(
    sight: &Sight,
    server: &ServerView,
    (version, tool): (&Name, Option<&str>),
) -> bool {
    let version = server.versions.iter().find(|one| one.name == *version);
    version.is_some_and(|version| {
        let place = (&server.name, version.catalog.as_deref());
        right::check(sight, place, tool).is_ok()
    })
}

impl Tasks {
    /// For the answer to a request that may be about tasks; none for all others.
    pub fn of_call(
        gateway: &Gateway,
        scope: Scope<'_>,
        (target, method): (&Upstream, &Method),
        turn: Option<Turn>,
    ) -> Option<Arc<Self>> {
        scope.endpoint.server.as_ref()?;
        let params = scope.call.message()?.params()?;
        let contains = |text: &str, part: &str| text.contains(part);
        let may = match method.kind {
            Kind::CallTool if scope.client.modern() => {
                contains(utf8(&scope.client.capabilities), extensions::TASKS)
            }
            Kind::CallTool => params.augmented,
            Kind::Listen => contains(params.text(), "\"taskIds\""),
            _ => of_tasks(method),
        };
        if !may {
            return None;
        }
        let mut tasks = Self::new(gateway, scope, &target.version.name)?;
        if method.kind == Kind::CallTool {
            tasks.tool.clone_from(&target.name);
        }
        if let Some(Turn::Begin { follows: true }) = turn {
            tasks.home = Some(gateway.hop.home());
        }
        if method.name == "tasks/list" {
            tasks.listed = Some(Box::new((scope.sight.clone(), Arc::clone(&target.server))));
        }
        let named = listed(params.text()).map(|(_, ids)| ids).into_iter().flatten();
        for sealed in params.task.iter().cloned().chain(named) {
            if let Some(token) = open(&tasks.sealer, &tasks.aad, &sealed) {
                if let Some(tool) = &token.tool {
                    tasks.makers.remember(tasks.caller(), &token.id, tool);
                }
                tasks.known.push((token.id, sealed));
            }
        }
        Some(Arc::new(tasks))
    }

    /// For what the server pushes to a session that its client sees through to.
    pub fn of_session(gateway: &Gateway, scope: Scope<'_>) -> Option<Arc<Self>> {
        let session = scope.client.session.as_ref().filter(|s| s.upstream.is_some())?;
        if scope.client.revision < Revision::V2025_11_25 {
            return None;
        }
        Self::new(gateway, scope, session.version.as_ref()?).map(Arc::new)
    }

    fn new(gateway: &Gateway, scope: Scope<'_>, version: &Name) -> Option<Self> {
        let sealer = gateway.sealer(&gateway.config.current())?;
        let principal = scope.sight.who.id();
        let aad = bond(scope.endpoint, &principal).bytes();
        let (version, makers) = (version.clone(), gateway.makers.clone());
        Some(Self {
            sealer,
            aad,
            version,
            known: Vec::new(),
            tool: None,
            home: None,
            makers,
            listed: None,
        })
    }

    fn caller(&self) -> (&[u8], &Name) {
        (&self.aad, &self.version)
    }

    /// The tool that made a task, where that is known.
    fn maker(&self, own: &str) -> Option<String> {
        let named = || {
            let (_, sealed) = self.known.iter().find(|(known, _)| known == own)?;
            open(&self.sealer, &self.aad, sealed)?.tool
        };
        named().or_else(|| self.makers.of(self.caller(), own).as_deref().map(str::to_owned))
    }

    /// False for news of a task that the caller may not have (any more), and for a result that
    /// breaks its tool's schema: who asks for that one is told so.
    pub fn may_hear(&self, sight: &Sight, server: &Name, params: &str) -> bool {
        let own = id_of(params).and_then(|part| serde_json::from_str::<String>(part).ok());
        let Some(own) = own else { return true };
        let Some(server) = sight.group.servers.get(server) else { return false };
        let tool = self.maker(&own);
        let version = server.versions.iter().find(|one| one.name == self.version);
        let catalog = version.and_then(|version| version.catalog.as_deref());
        let view = catalog.zip(tool.as_deref()).and_then(|(catalog, name)| catalog.tool(name));
        may_have(sight, server, (&self.version, tool.as_deref()))
            && right::inside(view.map(Arc::as_ref), params).is_ok()
    }

    /// A list without the tasks that the caller may not have.
    fn shown(&self, raw: Bytes) -> Bytes {
        let Some((sight, server)) = self.listed.as_deref() else { return raw };
        let kept = |text: &str| -> Option<Bytes> {
            let members = Members::parse(text).ok()?;
            let part = members.get("tasks")?.get();
            let all = items(part);
            let may = |one: &&RawValue| {
                let own = id_of(one.get()).and_then(|id| serde_json::from_str::<String>(id).ok());
                let tool = own.as_deref().and_then(|own| self.maker(own));
                may_have(sight, server, (&self.version, tool.as_deref()))
            };
            let count = all.len();
            let kept: Vec<&str> = all.into_iter().filter(may).map(RawValue::get).collect();
            (kept.len() < count).then(|| replaced(&raw, part, &format!("[{}]", kept.join(","))))
        };
        std::str::from_utf8(&raw).ok().and_then(kept).unwrap_or_else(|| raw.clone())
    }

    /// A result as the client gets it.
    ///
    /// # Errors
    /// [`Reason::UpstreamProtocol`] for an id that is too long to be carried.
    pub fn result(&self, raw: Bytes) -> Result<Bytes, Refusal> {
        self.sealed(self.shown(raw), in_result)
    }

    /// A notification of the server as the client gets it; none when its ids cannot be carried.
    pub fn notice(&self, raw: Bytes) -> Option<Bytes> {
        self.sealed(raw, in_notice).ok()
    }

    /// A request of the server as the client gets it: what it says about a task of the client's
    /// own stays.
    pub fn asked(&self, raw: Bytes) -> Option<Bytes> {
        self.sealed(raw, in_request).ok()
    }

    /// Replaces ids, each written as `parts` finds it.
    fn sealed(
        &self,
        raw: Bytes,
        parts: for<'t> fn(&'t str) -> Vec<&'t str>,
    ) -> Result<Bytes, Refusal> {
        let Ok(text) = std::str::from_utf8(&raw) else { return Ok(raw) };
        if !text.contains(ID) && !text.contains("taskIds") {
            return Ok(raw);
        }
        let mut parts = parts(text);
        parts.sort_by_key(|part| position(text, part).start);
        let mut out = BytesMut::with_capacity(raw.len() + 200 * parts.len());
        let mut at = 0;
        for part in parts {
            let Ok(own) = serde_json::from_str::<String>(part) else { continue };
            let range = position(text, part);
            out.extend_from_slice(&raw[at..range.start]);
            out.extend_from_slice(quoted(&self.seal(&own)?).as_bytes());
            at = range.end;
        }
        if at == 0 {
            return Ok(raw);
        }
        out.extend_from_slice(&raw[at..]);
        Ok(out.freeze())
    }

    fn seal(&self, own: &str) -> Result<String, Refusal> {
        if let Some((_, sealed)) = self.known.iter().find(|(known, _)| known == own) {
            return Ok(sealed.clone());
        }
        if let Some(tool) = &self.tool {
            self.makers.remember(self.caller(), own, tool);
        }
        let tool = self.tool.clone().or_else(|| self.maker(own));
        let token = Token {
            version: self.version.clone(),
            id: own.to_owned(),
            tool,
            home: self.home.clone(),
        };
        let plain = serde_json::to_vec(&token)
            .map_err(|e| Refusal::new(Reason::Internal, format!("task to JSON: {e}")))?;
        let long = |_| Refusal::new(Reason::UpstreamProtocol, "the server's task id is too long");
        self.sealer.seal_same(PURPOSE, &self.aad, &plain).map_err(long)
    }
}

/// Ids in a result, as they are written.
fn in_result(text: &str) -> Vec<&str> {
    let Ok(members) = Members::parse(text) else { return Vec::new() };
    let mut parts = Vec::new();
    // What a tool says of itself may look the same: only what makes or shows a task counts.
    if members.get("content").is_none() {
        parts.extend(members.get(ID).map(RawValue::get));
        parts.extend(members.get("task").and_then(|raw| id_of(raw.get())));
        let tasks = items(members.get("tasks").map_or("[]", RawValue::get));
        parts.extend(tasks.into_iter().filter_map(|one| id_of(one.get())));
    }
    parts.extend(related(text));
    parts
}

/// Ids in a notification.
fn in_notice(text: &str) -> Vec<&str> {
    let Some(params) = params(text) else { return Vec::new() };
    let mut parts: Vec<&str> = id_of(params).into_iter().collect();
    parts.extend(related(params));
    let acknowledged = listed(params).map_or("[]", |(part, _)| part);
    parts.extend(items(acknowledged).into_iter().map(RawValue::get));
    parts
}

/// Ids in a request of a server.
fn in_request(text: &str) -> Vec<&str> {
    params(text).and_then(related).into_iter().collect()
}

fn params(message: &str) -> Option<&str> {
    Members::parse(message).ok()?.get("params").map(RawValue::get)
}

fn items(array: &str) -> Vec<&RawValue> {
    serde_json::from_str(array).unwrap_or_default()
}

/// `taskId` of an object, as it is written.
fn id_of(object: &str) -> Option<&str> {
    Members::parse(object).ok()?.get(ID).map(|raw| raw.get())
}

/// The task that something belongs to, as it is written in its `_meta`.
fn related(object: &str) -> Option<&str> {
    let meta = Members::parse(object).ok()?.get("_meta").filter(|raw| members::is_object(raw))?;
    id_of(Members::parse(meta.get()).ok()?.get(RELATED)?.get())
}

#[cfg(test)]
mod tests {
    use weir_model::secret::Secret;

    use super::*;
    use crate::mcp::methods;

    fn sealer() -> Arc<Sealer> {
        let key = ("k".to_owned(), Arc::new(Secret::new(vec![7; 32])));
        Arc::new(Sealer::new(&[key]).unwrap())
    }

    fn tasks(known: &[(&str, &str)]) -> Tasks {
        let owned = |(own, sealed): &(&str, &str)| ((*own).to_owned(), (*sealed).to_owned());
        let known = known.iter().map(owned).collect();
        Tasks {
            sealer: sealer(),
            aad: b"alice".to_vec(),
            version: "v1".parse().unwrap(),
            known,
            tool: None,
            home: None,
            makers: Makers::default(),
            listed: None,
        }
    }

    /// Everything in it but the id stays as it was.
    #[test]
    fn ids_are_sealed_wherever_they_stand() {
        let tasks = tasks(&[]);
        let sealed = tasks.seal("t-1").unwrap();
        assert_eq!(sealed, tasks.seal("t-1").unwrap(), "one task, one id");
        assert_ne!(sealed, tasks.seal("t-2").unwrap());
        let result = |raw: &str| tasks.result(Bytes::copy_from_slice(raw.as_bytes())).unwrap();
        let notice = |raw: &str| tasks.notice(Bytes::copy_from_slice(raw.as_bytes())).unwrap();
        let asked = |raw: &str| tasks.asked(Bytes::copy_from_slice(raw.as_bytes())).unwrap();
        type Form<'a> = &'a dyn Fn(&str) -> Bytes;
        let forms: [(Form<'_>, &str); 8] = [
            (&result, r#"{"resultType":"task","taskId": "t-1","ttlMs":1.0}"#),
            (&result, r#"{"task":{"status":"working","taskId":"t-1" } }"#),
            (&result, r#"{"tasks":[{"taskId":"t-1"}, {"taskId":"t-1","x":1.10}]}"#),
            (
                &result,
                r#"{"content":[],"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"t-1"}}}"#,
            ),
            (&notice, r#"{"method":"notifications/tasks","params":{"taskId":"t-1"}}"#),
            (
                &notice,
                r#"{"method":"notifications/progress","params":{"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"t-1"}}}}"#,
            ),
            (
                &notice,
                r#"{"method":"notifications/subscriptions/acknowledged","params":{"notifications":{"taskIds":["t-1"]}}}"#,
            ),
            (
                &asked,
                r#"{"id":1,"method":"elicitation/create","params":{"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"t-1"}}}}"#,
            ),
        ];
        for (form, raw) in forms {
            assert_eq!(utf8(&form(raw)), raw.replace("t-1", &sealed));
        }
        for same in [
            r#"{"content":[],"taskId":"t-1","structuredContent":{"taskId":"t-1"}}"#,
            r#"{"taskId":7}"#,
            "taskId",
        ] {
            assert_eq!(utf8(&result(same)), same);
        }
        // A task of the client's own.
        let own = r#"{"id":1,"method":"tasks/get","params":{"taskId":"t-1"}}"#;
        assert_eq!(utf8(&asked(own)), own);
    }

    #[test]
    fn clients_get_back_the_id_that_they_asked_with() {
        let tasks = tasks(&[("t-1", "k.older")]);
        let raw = Bytes::from_static(br#"{"taskId":"t-1"}"#);
        assert_eq!(utf8(&tasks.result(raw).unwrap()), r#"{"taskId":"k.older"}"#);
    }

    #[test]
    fn only_the_caller_s_own_ids_open() {
        let sealed = tasks(&[]).seal("t-1").unwrap();
        let params = |id: &str| Params {
            task: Some(id.to_owned()),
            raw: Some(format!(r#"{{"x":1.0,"taskId":{}}}"#, quoted(id)).into()),
            ..Params::default()
        };
        let get = methods::find("tasks/get").unwrap();
        let own = given((&sealer(), b"alice"), get, &params(&sealed)).unwrap().unwrap();
        assert_eq!((&*own.id, own.version.as_str()), ("t-1", "v1"));
        assert_eq!(own.params.unwrap(), r#"{"x":1.0,"taskId":"t-1"}"#);
        for (aad, id) in [(&b"bob"[..], &*sealed), (b"alice", "t-1"), (b"alice", &sealed[1..])] {
            let refused = given((&sealer(), aad), get, &params(id)).unwrap_err();
            assert_eq!(refused.reason, Reason::InvalidParams, "{id}");
        }
        let call = methods::find("tools/call").unwrap();
        assert_eq!(given((&sealer(), b"alice"), call, &params("x")).unwrap(), None);
        let filter = format!(r#"{{"notifications":{{"taskIds":["{sealed}","t-2"]}}}}"#);
        for (may, ids) in [(true, r#"["t-1"]"#), (false, "[]")] {
            let raw = filter.clone().into();
            let listened = listened((&sealer(), b"alice"), &raw, |version, tool| {
                assert_eq!((version.as_str(), tool), ("v1", None));
                may
            });
            assert_eq!(utf8(&listened), format!(r#"{{"notifications":{{"taskIds":{ids}}}}}"#));
        }
    }

    /// What a call has told is known to lists and pushes of the same proxy.
    #[test]
    fn an_id_holds_the_tool_that_made_the_task() {
        let called = Tasks { tool: Some("build".to_owned()), ..tasks(&[]) };
        let sealed = called.seal("t-1").unwrap();
        assert_eq!(open(&sealer(), b"alice", &sealed).unwrap().tool.as_deref(), Some("build"));
        let later = Tasks { makers: called.makers.clone(), ..tasks(&[]) };
        assert_eq!(later.seal("t-1").unwrap(), sealed);
        let elsewhere = tasks(&[]).seal("t-1").unwrap();
        assert_eq!(open(&sealer(), b"alice", &elsewhere).unwrap().tool, None);
        assert_eq!(tasks(&[("t-1", &sealed)]).maker("t-1").as_deref(), Some("build"));
    }
}
