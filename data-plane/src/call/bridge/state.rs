//! The request state that stateless clients carry from one attempt of a call to the next.
//!
//! It is ours, sealed: bound to the principal and the endpoint by its key, and to server, version,
//! method, target and arguments by what is in it, for at most
//! [`bounds::REQUEST_STATE_SECS_MAX`]. Inside is the server's own state, or where the call is
//! parked. Whatever does not open, does not fit or is too old is refused as a wrong parameter.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use weir_model::bounds;
use weir_model::id::{Digest, Name};
use weir_model::reason::{Reason, Refusal};
use weir_model::seal::{SealError, Sealer};
use weir_runtime::clock::SharedClock;

use super::{Able, Place};
use crate::call::Gateway;
use crate::call::client::bond;
use crate::call::forward::Scope;
use crate::call::resolve::Upstream;
use crate::hop::Holder;
use crate::mcp::adapt::{quoted, replaced};
use crate::mcp::envelope::{Params, utf8};
use crate::mcp::members::Members;
use crate::upstream::Message;

const PURPOSE: &str = "state";
/// Of 2025-11-25: the call needs the user to visit URLs first.
const URL_WANTED: i64 = -32042;

/// What is sealed.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    #[serde(rename = "s")]
    server: Name,
    #[serde(rename = "v")]
    version: Name,
    /// Of method, target and arguments.
    #[serde(rename = "d")]
    digest: Digest,
    /// Seconds since the epoch.
    #[serde(rename = "x")]
    expires: i64,
    #[serde(rename = "k")]
    what: What,
}

/// What a retry goes on with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// The server's own state.
    #[serde(rename = "u")]
    Server(String),
    /// A parked call.
    #[serde(rename = "p")]
    Parked(Holder),
    /// Nothing: the call is made once more.
    #[serde(rename = "a")]
    Again,
}

/// Makes states of one call.
#[derive(Debug, Clone)]
pub struct Seal {
    sealer: Arc<Sealer>,
    clock: SharedClock,
    aad: Vec<u8>,
    server: Name,
    version: Name,
    digest: Digest,
}

/// The refusal of a state.
pub fn refused(detail: &str) -> Refusal {
    Refusal::new(Reason::InvalidParams, format!("request state: {detail}")).hint(
        "The requestState is not one that was given for this very call, or it is too old: call \
         again without it.",
    )
}

impl Seal {
    /// For a call to a server version.
    ///
    /// # Errors
    /// [`Reason::SnapshotMissing`] when there is no key yet.
    pub fn new(
        gateway: &Gateway,
        scope: Scope<'_>,
        (place, method): (&Place, &str),
    ) -> Result<Self, Refusal> {
        let sealer = gateway.sealer(&gateway.config.current());
        let principal = scope.sight.who.id();
        let params = scope.call.message().and_then(|message| message.params());
        Ok(Self {
            sealer: sealer.ok_or(Reason::SnapshotMissing)?,
            clock: gateway.clock.clone(),
            aad: bond(scope.endpoint, &principal).bytes(),
            server: place.server.clone(),
            version: place.version.clone(),
            digest: digest(method, params),
        })
    }

    /// The sealer and what it binds to.
    pub(super) fn key(&self) -> (&Sealer, &[u8]) {
        (&self.sealer, &self.aad)
    }

    /// A state.
    ///
    /// # Errors
    /// [`Reason::UpstreamProtocol`] when the server's own is too long to be carried.
    pub fn seal(&self, what: What) -> Result<String, Refusal> {
        let now = i64::try_from(self.clock.now_secs()).unwrap_or(i64::MAX);
        let state = State {
            server: self.server.clone(),
            version: self.version.clone(),
            digest: self.digest,
            expires: now.saturating_add(bounds::REQUEST_STATE_SECS_MAX),
            what,
        };
        let plain = serde_json::to_vec(&state)
            .map_err(|e| Refusal::new(Reason::Internal, format!("state to JSON: {e}")))?;
        let max = bounds::REQUEST_STATE_BYTES_MAX;
        self.sealer.seal_within(max, PURPOSE, &self.aad, &plain).map_err(|error| match error {
            SealError::TooLong => {
                Refusal::new(Reason::UpstreamProtocol, "the server's request state is too long")
            }
            other => Refusal::new(Reason::SnapshotMissing, other.to_string()),
        })
    }

    /// An `input_required` result of a stateless server with its state in ours.
    ///
    /// # Errors
    /// See [`Self::seal`].
    pub fn wrap(&self, raw: &Bytes) -> Result<Bytes, Refusal> {
        let broken = |_| Refusal::new(Reason::UpstreamProtocol, "the result is no object");
        let members = Members::parse(utf8(raw)).map_err(broken)?;
        let Some(own) = members.get("requestState") else { return Ok(raw.clone()) };
        let text = crate::mcp::members::text(own)
            .ok_or_else(|| Refusal::new(Reason::UpstreamProtocol, "requestState is no string"))?;
        let sealed = self.seal(What::Server(text.into_owned()))?;
        Ok(replaced(raw, own.get(), &quoted(&sealed)))
    }
}

/// What a call that brings a state back is to go on with; none when it brings none.
///
/// # Errors
/// [`Reason::InvalidParams`] for every state but the right one.
pub fn open(scope: Scope<'_>, target: &Upstream, method: &str) -> Result<Option<What>, Refusal> {
    let params = scope.call.message().and_then(|message| message.params());
    let Some(params) = params.filter(|params| params.retry && scope.client.modern()) else {
        return Ok(None);
    };
    let members =
        Members::parse(params.raw.as_ref().map_or("{}", |raw| utf8(raw))).map_err(Refusal::from)?;
    let Some(raw) = members.get("requestState") else { return Ok(None) };
    let text = crate::mcp::members::text(raw).ok_or_else(|| refused("no string"))?;
    let principal = scope.sight.who.id();
    let aad = bond(scope.endpoint, &principal).bytes();
    let max = bounds::REQUEST_STATE_BYTES_MAX;
    let plain = scope.sealing.sealer()?.open_within(max, PURPOSE, &aad, &text);
    let plain = plain.map_err(|error| refused(&error.to_string()))?;
    let state: State = serde_json::from_slice(&plain).map_err(|_| refused("not of this build"))?;
    let same = state.server == target.server.name
        && state.version == target.version.name
        && state.digest == digest(method, Some(params));
    if !same {
        return Err(refused("for another call"));
    }
    if scope.sealing.now > state.expires {
        return Err(refused("too old"));
    }
    Ok(Some(state.what))
}

/// Of what has to stay the same from one attempt to the next: method, target and arguments, in
/// whatever order and spacing their members are written.
fn digest(method: &str, params: Option<&Params>) -> Digest {
    let name = params.and_then(|p| p.name.as_deref().or(p.uri.as_deref())).unwrap_or_default();
    let raw = params.and_then(|p| p.arguments.as_ref()).map_or("{}", |raw| utf8(raw));
    let mut arguments = String::with_capacity(raw.len());
    match serde_json::from_str::<Value>(raw) {
        Ok(value) => canonical(&value, &mut arguments),
        Err(_) => arguments.push_str(raw),
    }
    Digest::of_parts(&[method.as_bytes(), b"\0", name.as_bytes(), b"\0", arguments.as_bytes()])
}

fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(members) => {
            let mut names: Vec<&String> = members.keys().collect();
            names.sort_unstable();
            out.push('{');
            for name in names {
                out.push_str(&quoted(name));
                out.push(':');
                canonical(&members[name], out);
                out.push(',');
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for item in items {
                canonical(item, out);
                out.push(',');
            }
            out.push(']');
        }
        other => out.push_str(&other.to_string()),
    }
}

/// The URLs that a server of 2025-11-25 wants its user to visit before it does anything.
#[derive(Debug)]
pub struct WantsUrl(Vec<Value>);

/// Reads a JSON-RPC error; none when it is about something else.
pub fn wants_url(raw: &Bytes) -> Option<WantsUrl> {
    if crate::call::forward::error_code(raw) != URL_WANTED {
        return None;
    }
    let error: Value = serde_json::from_slice(raw).ok()?;
    Some(WantsUrl(error["data"]["elicitations"].as_array().cloned().unwrap_or_default()))
}

impl WantsUrl {
    /// As a stateless client is told: asked for, then called again.
    ///
    /// # Errors
    /// [`Reason::MissingCapability`] when this client cannot be sent anywhere.
    pub fn for_client(self, able: Able, seal: &Seal) -> Result<Message, Refusal> {
        if !able.url {
            return Err(Refusal::new(Reason::MissingCapability, "the server wants a URL visited")
                .data(json!({ "requiredCapabilities": { "elicitation": { "url": {} } } })));
        }
        let mut requests = serde_json::Map::new();
        for (at, mut params) in self.0.into_iter().take(bounds::QUESTIONS_MAX).enumerate() {
            if let Some(params) = params.as_object_mut() {
                // Stateless revisions have no such id.
                params.remove("elicitationId");
            }
            let request = json!({ "method": "elicitation/create", "params": params });
            requests.insert(format!("url-{at}"), request);
        }
        let result = json!({
            "resultType": "input_required",
            "inputRequests": requests,
            "requestState": seal.seal(What::Again)?,
        });
        Ok(Message::Result(result.to_string().into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(arguments: &str) -> Params {
        Params {
            name: Some("t".into()),
            arguments: Some(Bytes::copy_from_slice(arguments.as_bytes())),
            ..Params::default()
        }
    }

    #[test]
    fn a_digest_is_of_what_is_meant() {
        let of = |arguments: &str| digest("tools/call", Some(&params(arguments)));
        assert_eq!(
            of(r#"{"a":1,"b":[{"c":2,"d":"e"}]}"#),
            of(r#"{ "b":[{"d":"\u0065","c":2}],"a":1 }"#)
        );
        assert_eq!(of("{}"), digest("tools/call", Some(&Params { arguments: None, ..params("") })));
        for other in [r#"{"a":2}"#, r#"{"a":"1"}"#, r#"{"a":[1]}"#, r#"{"b":1}"#, "{}"] {
            assert_ne!(of(r#"{"a":1}"#), of(other), "{other}");
        }
        assert_ne!(of("{}"), digest("prompts/get", Some(&params("{}"))));
    }
}
