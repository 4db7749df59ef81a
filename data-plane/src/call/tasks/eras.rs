//! Tasks between a client of one era and a server of the other.
//!
//! | client | server | what happens |
//! |---|---|---|
//! | stateless | older; the tool runs as a task and in no other way | it is called as one. A client that declared the extension gets the task in its own form and follows it by `tasks/get` and `tasks/cancel`; for any other the gateway waits for the result |
//! | older, on the endpoint that joins all servers | older; the same | the gateway waits for the result: there nobody can follow a task |
//! | older | stateless; it insists on the extension (-32021) | the gateway declares it, follows the task, and answers the call with what it came to |
//!
//! A call that the gateway waits for takes no longer than calls of its server may, and who leaves
//! it cancels the task. What has no form on the other side ends in [`Reason::CannotBridge`]: a
//! task that wants input, `tasks/update` for an older server, and methods of older tasks for a
//! stateless one, whose client is told of no tasks.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use weir_model::bounds;
use weir_model::reason::{Reason, Refusal};

use super::{ID, RELATED, right};
use crate::call::Gateway;
use crate::call::forward::Scope;
use crate::call::resolve::Upstream;
use crate::mcp::adapt::{quoted, replaced};
use crate::mcp::extensions::{self, TASKS};
use crate::mcp::members::{self, Members};
use crate::mcp::methods::{Kind, Method};
use crate::upstream::{Exchange, Message, Messages, Outbound, Upstreams, Wire};

/// What a request takes to cross the eras.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// The tool of an older server runs only as a task; `follows` where the client can follow it.
    Begin {
        /// The client declared the extension.
        follows: bool,
    },
    /// How a task of an older server is.
    Get,
    /// Its end.
    Cancel,
    /// A stateless server may insist on tasks, which an older client does not know.
    Insists,
}

/// Finds out; none for what goes as it is.
///
/// # Errors
/// [`Reason::CannotBridge`]; when the server cannot be asked what it speaks.
pub async fn turn(
    gateway: &Gateway,
    scope: Scope<'_>,
    (target, headers): (&Upstream, &[(http::HeaderName, http::HeaderValue)]),
    method: &Method,
) -> Result<Option<Turn>, Refusal> {
    let modern = scope.client.modern();
    let own = target.version.catalog.as_deref().map(|catalog| &catalog.capabilities);
    let has_older = || own.is_some_and(|own| own.get("tasks").is_some());
    let has_newer = || own.is_some_and(|own| own["extensions"].get(TASKS).is_some());
    let joined = scope.endpoint.server.is_none();
    let only = || target.tool.as_deref().is_some_and(right::only_as_task);
    let turn = match (method.kind, method.name) {
        (Kind::CallTool, _) if (modern || joined) && has_older() && only() => {
            let knows = || extensions::check_declared(&scope.client.capabilities, TASKS).is_ok();
            Some(Turn::Begin { follows: modern && !joined && knows() })
        }
        (Kind::CallTool, _) if !modern && has_newer() => Some(Turn::Insists),
        // It has the form of the extension, whatever it speaks besides.
        (Kind::Relay, _) if modern && has_newer() => return Ok(None),
        (Kind::Relay, "tasks/get") if modern => Some(Turn::Get),
        (Kind::Relay, "tasks/cancel") if modern => Some(Turn::Cancel),
        (Kind::Relay, name) if name.starts_with("tasks/") => None,
        _ => return Ok(None),
    };
    let wire = gateway.upstreams.wire(&target.version, modern, headers).await?;
    let older = wire != Wire::Modern;
    match turn {
        Some(Turn::Insists) => Ok(turn.filter(|_| !older)),
        Some(_) => Ok(turn.filter(|_| older)),
        None if older != modern => Ok(None),
        None => Err(Refusal::new(Reason::CannotBridge, "tasks of the other era")
            .hint("The tasks of this server are of another revision than this client's.")),
    }
}

/// Sends a request, in as many as it takes to cross the eras.
///
/// # Errors
/// As [`Upstreams::call`]; [`Reason::CannotBridge`] for a task that wants input.
pub async fn call(
    upstreams: &Upstreams,
    outbound: Outbound,
    turn: Option<Turn>,
) -> Result<Exchange, Refusal> {
    match turn {
        None => upstreams.call(outbound).await,
        // Boxed: calls that need none of it do not hold its room.
        Some(Turn::Begin { follows }) => Box::pin(begin(upstreams, outbound, follows)).await,
        Some(Turn::Get) => Box::pin(get(upstreams, outbound)).await,
        Some(Turn::Cancel) => {
            let exchange = Box::pin(upstreams.call(outbound)).await?;
            let acknowledged = async |_| Ok(Message::Result(Bytes::from_static(b"{}")));
            Box::pin(last(exchange, acknowledged)).await
        }
        Some(Turn::Insists) => Box::pin(insisted(upstreams, outbound)).await,
    }
}

/// Calls a tool of an older server as a task.
async fn begin(
    upstreams: &Upstreams,
    outbound: Outbound,
    follows: bool,
) -> Result<Exchange, Refusal> {
    let params = outbound.params.as_ref().map(with_task).transpose()?;
    let outbound = Outbound { params, ..outbound };
    let exchange = upstreams.call(outbound.clone()).await?;
    last(exchange, async |raw| {
        let Some(task) = Members::parse(text_of(&raw)?).map_err(broken)?.get("task") else {
            return Ok(Message::Result(raw));
        };
        if follows {
            return renamed(task.get(), Some("task"), &[]).map(Message::Result);
        }
        let id = id_of(task.get())?;
        let left = Left::new(upstreams, &outbound, &id);
        let message = upstreams.call(about(&outbound, "tasks/result", &id)).await?.last().await?;
        left.settled();
        Ok(match message {
            Message::Result(raw) => Message::Result(unrelated(&raw)),
            other => other,
        })
    })
    .await
}

/// How a task of an older server is, with what it came to.
async fn get(upstreams: &Upstreams, outbound: Outbound) -> Result<Exchange, Refusal> {
    let exchange = upstreams.call(outbound.clone()).await?;
    last(exchange, async |raw| {
        let text = text_of(&raw)?;
        let status = Members::parse(text).map_err(broken)?;
        let status = status.text("status").map(|status| status.into_owned());
        let told = match status.as_deref() {
            Some("completed" | "failed") => {
                let asked = about(&outbound, "tasks/result", &id_of(text)?);
                let (status, member, came) = match upstreams.call(asked).await?.last().await? {
                    Message::Result(raw) => ("completed", "result", unrelated(&raw)),
                    Message::Error(raw) => ("failed", "error", raw),
                    _ => return Err(broken(Reason::UpstreamProtocol)),
                };
                let added = [("status", quoted(status)), (member, text_of(&came)?.to_owned())];
                renamed(text, None, &added)?
            }
            Some("input_required") => return Err(wants_input()),
            _ => renamed(text, None, &[])?,
        };
        Ok(Message::Result(told))
    })
    .await
}

/// Calls a tool of a stateless server; where that insists on tasks, as one, until it is done.
async fn insisted(upstreams: &Upstreams, outbound: Outbound) -> Result<Exchange, Refusal> {
    let refusal = match upstreams.call(outbound.clone()).await {
        Err(refusal) if insists(&refusal) => refusal,
        answered => return answered,
    };
    let Some(capabilities) = declaring(&outbound.front.capabilities) else { return Err(refusal) };
    let mut outbound = outbound;
    outbound.front.capabilities = capabilities;
    let exchange = upstreams.call(outbound.clone()).await?;
    last(exchange, async |raw| {
        let kind = Members::parse(text_of(&raw)?).map_err(broken)?;
        if kind.text("resultType").as_deref() != Some("task") {
            return Ok(Message::Result(raw));
        }
        let left = Left::new(upstreams, &outbound, &id_of(text_of(&raw)?)?);
        let came = finished(upstreams, &outbound, raw).await?;
        left.settled();
        Ok(came)
    })
    .await
}

/// Asks how a task is until it is over.
async fn finished(
    upstreams: &Upstreams,
    outbound: &Outbound,
    mut raw: Bytes,
) -> Result<Message, Refusal> {
    loop {
        let text = text_of(&raw)?;
        let task = Members::parse(text).map_err(broken)?;
        let part = |name: &str| {
            let part = task.get(name).ok_or_else(|| broken(Reason::UpstreamProtocol));
            part.map(|part| Bytes::copy_from_slice(part.get().as_bytes()))
        };
        match task.text("status").as_deref() {
            Some("completed") => return part("result").map(Message::Result),
            Some("failed") => return part("error").map(Message::Error),
            Some("cancelled") => {
                let refusal = Refusal::new(Reason::UpstreamClosed, "its task was cancelled");
                return Err(refusal.hint("The server has cancelled the task of this call."));
            }
            Some("input_required") => return Err(wants_input()),
            Some(_) => {}
            None => return Err(broken(Reason::UpstreamProtocol)),
        }
        let wished = task.get("pollIntervalMs").and_then(|raw| raw.get().parse::<u64>().ok());
        let pause = wished.unwrap_or(bounds::TASK_POLL_MS);
        let pause = pause.clamp(bounds::TASK_POLL_LEAST_MS, bounds::TASK_POLL_MOST_MS);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let asked = about(outbound, "tasks/get", &id_of(text)?);
        raw = match upstreams.call(asked).await?.last().await? {
            Message::Result(raw) => raw,
            other => return Ok(other),
        };
    }
}

/// Cancels a task that nobody waits for any more.
struct Left(Option<(Upstreams, Outbound)>);

impl Left {
    fn new(upstreams: &Upstreams, outbound: &Outbound, id: &str) -> Self {
        let mut cancel = about(outbound, "tasks/cancel", id);
        cancel.deadline = std::time::Instant::now() + Duration::from_millis(bounds::CALL_MS);
        Self(Some((upstreams.clone(), cancel)))
    }

    fn settled(mut self) {
        self.0 = None;
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        let Some((upstreams, cancel)) = self.0.take() else { return };
        tokio::spawn(async move {
            if let Err(refusal) = upstreams.call(cancel).await {
                tracing::debug!(%refusal, "a task that nobody waits for was not cancelled");
            }
        });
    }
}

/// A request about a task, from the same client to the same server.
fn about(outbound: &Outbound, method: &str, id: &str) -> Outbound {
    Outbound {
        method: method.to_owned(),
        params: Some(json!({ ID: id }).to_string().into()),
        name: Some(id.to_owned()),
        tool: None,
        param_headers: Vec::new(),
        ..outbound.clone()
    }
}

/// `params` of a call that is to run as a task.
fn with_task(raw: &Bytes) -> Result<Bytes, Refusal> {
    let text = text_of(raw)?;
    let has = Members::parse(text).map_err(Refusal::from)?.get("task").is_some();
    let open = text.find('{').filter(|_| !has);
    Ok(open.map_or_else(|| raw.clone(), |at| format!("{{\"task\":{{}},{}", &text[at + 1..]).into()))
}

/// `params` of a call that is not to run as a task.
pub fn plain(raw: &Bytes) -> Bytes {
    let text = std::str::from_utf8(raw).ok();
    let kept = text.and_then(|text| except(text, "task"));
    kept.map_or_else(|| raw.clone(), Bytes::from)
}

/// An object without one of its members; none where it cannot be read.
fn except(object: &str, left_out: &str) -> Option<String> {
    let all = Members::parse(object).ok()?;
    let kept = all.iter().filter(|(name, _)| *name != left_out);
    let kept: Vec<_> = kept.map(|(n, value)| format!("{}:{}", quoted(n), value.get())).collect();
    Some(format!("{{{}}}", kept.join(",")))
}

/// A task of 2025-11-25 as the extension has it: the same members, two of them under other names,
/// and `added` in the place of members of those names.
fn renamed(
    task: &str,
    result_type: Option<&str>,
    added: &[(&str, String)],
) -> Result<Bytes, Refusal> {
    let members = Members::parse(task).map_err(broken)?;
    let mut parts: Vec<String> = Vec::new();
    parts.extend(result_type.map(|kind| format!("\"resultType\":{}", quoted(kind))));
    for (name, value) in members.iter() {
        let name = match name {
            "ttl" => "ttlMs",
            "pollInterval" => "pollIntervalMs",
            "_meta" => continue,
            name => name,
        };
        if !added.iter().any(|(other, _)| *other == name) {
            parts.push(format!("{}:{}", quoted(name), value.get()));
        }
    }
    parts.extend(added.iter().map(|(name, value)| format!("{}:{value}", quoted(name))));
    Ok(format!("{{{}}}", parts.join(",")).into())
}

/// A result that does not say which task it belongs to: its client knows of none by that id.
fn unrelated(raw: &Bytes) -> Bytes {
    let changed = || -> Option<Bytes> {
        let text = std::str::from_utf8(raw).ok().filter(|text| text.contains(RELATED))?;
        let meta =
            Members::parse(text).ok()?.get("_meta").filter(|meta| members::is_object(meta))?;
        Some(replaced(raw, meta.get(), &except(meta.get(), RELATED)?))
    };
    changed().unwrap_or_else(|| raw.clone())
}

/// Capabilities with the extension.
fn declaring(capabilities: &Bytes) -> Option<Bytes> {
    let mut all: Value = serde_json::from_slice(capabilities).ok()?;
    all.as_object_mut()?
        .entry("extensions")
        .or_insert_with(|| json!({}))
        .as_object_mut()?
        .entry(TASKS)
        .or_insert_with(|| json!({}));
    Some(all.to_string().into())
}

/// True for the refusal of a call that the server takes only from who knows tasks.
fn insists(refusal: &Refusal) -> bool {
    let required = refusal.data.as_ref().map(|data| &data["requiredCapabilities"]["extensions"]);
    refusal.reason == Reason::MissingCapability
        && required.is_some_and(|extensions| extensions.get(TASKS).is_some())
}

fn id_of(task: &str) -> Result<String, Refusal> {
    let id = Members::parse(task).map_err(broken)?.text(ID).map(|id| id.into_owned());
    id.ok_or_else(|| broken(Reason::UpstreamProtocol))
}

fn text_of(raw: &Bytes) -> Result<&str, Refusal> {
    std::str::from_utf8(raw).map_err(|_| broken(Reason::UpstreamProtocol))
}

fn broken(_: Reason) -> Refusal {
    Refusal::new(Reason::UpstreamProtocol, "a task without its members")
}

fn wants_input() -> Refusal {
    Refusal::new(Reason::CannotBridge, "a task of the other era wants input")
        .hint("The task waits for input, which cannot be passed on between these revisions.")
}

/// The final message alone; a result becomes what `change` makes of it, anything else stays.
async fn last(
    exchange: Exchange,
    change: impl AsyncFnOnce(Bytes) -> Result<Message, Refusal>,
) -> Result<Exchange, Refusal> {
    let back_revision = exchange.back_revision.clone();
    let message = match exchange.last().await? {
        Message::Result(raw) => change(raw).await?,
        other => other,
    };
    Ok(Exchange { back_revision, session: None, messages: Messages::One(message) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(raw: &Bytes) -> &str {
        std::str::from_utf8(raw).unwrap()
    }

    #[test]
    fn a_task_gets_the_names_of_the_extension() {
        let task =
            r#"{"taskId":"t","status":"failed","ttl":1.0,"pollInterval":5,"x":null,"_meta":{}}"#;
        let got = renamed(task, Some("task"), &[]).unwrap();
        let expected = r#"{"resultType":"task","taskId":"t","status":"failed","ttlMs":1.0,"pollIntervalMs":5,"x":null}"#;
        assert_eq!(text(&got), expected);
        let added = [("status", "\"completed\"".to_owned()), ("result", r#"{"a":1.0}"#.to_owned())];
        let got = renamed(r#"{"taskId":"t","status":"failed"}"#, None, &added).unwrap();
        assert_eq!(text(&got), r#"{"taskId":"t","status":"completed","result":{"a":1.0}}"#);
        assert!(renamed("[]", None, &[]).is_err());
    }

    #[test]
    fn requests_and_results_are_changed_where_they_must() {
        let call = Bytes::from_static(br#" {"name":"a","arguments":{"n":1.0}}"#);
        let called = with_task(&call).unwrap();
        assert_eq!(text(&called), r#"{"task":{},"name":"a","arguments":{"n":1.0}}"#);
        assert_eq!(with_task(&called).unwrap(), called);
        assert_eq!(text(&plain(&called)), r#"{"name":"a","arguments":{"n":1.0}}"#);
        let told = r#"{"content":[1.0],"_meta":{"a/b":1,"io.modelcontextprotocol/related-task":{"taskId":"t"}}}"#;
        let told = unrelated(&Bytes::copy_from_slice(told.as_bytes()));
        assert_eq!(text(&told), r#"{"content":[1.0],"_meta":{"a/b":1}}"#);
        let declared = declaring(&Bytes::from_static(br#"{"roots":{}}"#)).unwrap();
        let expected = r#"{"roots":{},"extensions":{"io.modelcontextprotocol/tasks":{}}}"#;
        assert_eq!(text(&declared), expected);
        assert_eq!(declaring(&declared).unwrap(), declared);
        assert!(declaring(&Bytes::from_static(b"[]")).is_none());
    }

    #[test]
    fn a_server_insists_by_naming_the_extension() {
        let refusal = |extension: &str| {
            let required = json!({ "extensions": { extension: {} } });
            Refusal::new(Reason::MissingCapability, "")
                .data(json!({ "requiredCapabilities": required }))
        };
        assert!(insists(&refusal(TASKS)));
        assert!(!insists(&refusal("other/one")));
        assert!(!insists(&Refusal::new(Reason::MissingCapability, "")));
    }
}
