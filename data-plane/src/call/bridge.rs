//! Between the eras: what a server wants of its client in the middle of a call.
//!
//! Servers of older revisions send requests (input, sampling, roots) on the stream of a call;
//! stateless ones answer `input_required` and are called again. Here the one becomes the other:
//!
//! | client | server | what happens |
//! |---|---|---|
//! | older | older | the request goes to the client under an id of ours ([`ask`]); its answer, which may reach any proxy, goes back to the server |
//! | older | stateless | `input_required` becomes requests to the client, then the server is called again |
//! | stateless | older | the call is parked here ([`park`]), the client gets `input_required`; its retry, at any proxy, goes on with the parked call |
//! | stateless | stateless | passed through; the server's state is wrapped in ours ([`state`]) |
//!
//! Promises: a server is only told of capabilities that the client has; what it asks beyond them is
//! answered as unknown. No server and no client waits for ever: questions and parked calls have
//! time limits and numbers, and whoever leaves makes the other side's call end. The time that a
//! server has for its answer does not run while its client is asked.

pub mod ask;
mod drive;
mod frames;
pub mod notices;
pub mod park;
pub mod state;

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc::Receiver;
use weir_model::bounds;
use weir_model::id::{Digest, Name};
use weir_model::reason::{Reason, Refusal};

use super::Gateway;
use super::client::bond;
use super::forward::Scope;
use crate::hop::{Ask, Hop, whole};
use crate::mcp::adapt::{quoted, replaced};
use crate::mcp::envelope::utf8;
use crate::mcp::members::{self, Members};
use crate::mcp::methods::{Kind, Method};
use crate::mcp::revision::Revision;
use crate::upstream::{Exchange, Message, Messages, Outbound, Upstreams};
use park::Parking;
use state::{Seal, What};

/// True for methods during which a server may ask something.
pub fn may_ask(method: &Method) -> bool {
    matches!(method.kind, Kind::CallTool | Kind::GetPrompt) || method.name == "resources/read"
}

/// What a client can be asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Able {
    roots: bool,
    sampling: bool,
    form: bool,
    url: bool,
}

impl Able {
    /// Reads `capabilities`.
    pub fn of(capabilities: &[u8]) -> Self {
        let text = std::str::from_utf8(capabilities).unwrap_or_default();
        let Ok(all) = Members::parse(text) else { return Self::default() };
        let has = |name: &str| all.get(name).is_some_and(members::is_object);
        let modes = all.get("elicitation").filter(|raw| members::is_object(raw));
        let modes = modes.and_then(|raw| Members::parse(raw.get()).ok());
        let mode = |name: &str| modes.as_ref().is_some_and(|all| all.get(name).is_some());
        Self {
            roots: has("roots"),
            sampling: has("sampling"),
            // `{}` means forms only.
            form: modes.is_some() && (mode("form") || !mode("url")),
            url: mode("url"),
        }
    }

    /// True when the client can be asked anything at all.
    pub fn any(self) -> bool {
        self != Self::default()
    }

    /// True when the client said that it understands this request.
    pub fn may(self, method: &str, params: Option<&[u8]>) -> bool {
        match method {
            "roots/list" => self.roots,
            "sampling/createMessage" => self.sampling,
            "elicitation/create" if is_url(params) => self.url,
            "elicitation/create" => self.form,
            _ => false,
        }
    }
}

/// True for an elicitation that sends the user to a URL.
fn is_url(params: Option<&[u8]>) -> bool {
    let text = params.and_then(|raw| std::str::from_utf8(raw).ok()).unwrap_or("{}");
    Members::parse(text).is_ok_and(|all| all.text("mode").as_deref() == Some("url"))
}

/// A call whose server may want something of its client.
#[derive(Debug)]
pub struct Bridge {
    hop: Hop,
    upstreams: Upstreams,
    parking: Parking,
    /// How many a principal may have there.
    parked_most: Option<u32>,
    drain: weir_runtime::drain::Watch,
    /// Whose holdings they are.
    owner: Digest,
    /// [`weir_model::principal::Principal::id`].
    principal: String,
    /// Of the session, for a client of an older revision.
    nonce: Option<String>,
    seal: Seal,
    able: Able,
    /// How long the server may be silent.
    patience: Duration,
}

/// Which server version a call went to.
#[derive(Debug, Clone)]
pub struct Place {
    /// The server.
    pub server: Name,
    /// Its version.
    pub version: Name,
    /// How long it may take.
    pub patience: Duration,
}

impl Bridge {
    /// What is needed to go between client and server of one call.
    ///
    /// # Errors
    /// [`Reason::SnapshotMissing`] when there is nothing to seal with.
    pub fn new(
        gateway: &Gateway,
        scope: Scope<'_>,
        place: &Place,
        method: &str,
    ) -> Result<Self, Refusal> {
        let principal = scope.sight.who.id();
        let able = Able::of(&scope.client.capabilities);
        Ok(Self {
            hop: gateway.hop.clone(),
            upstreams: gateway.upstreams.clone(),
            parking: gateway.parking.clone(),
            parked_most: scope.endpoint.group.spec.sessions.parked_per_principal,
            drain: gateway.drain.clone(),
            owner: owner(scope, &principal),
            nonce: scope.client.session.as_ref().map(|session| session.nonce.clone()),
            seal: Seal::new(gateway, scope, (place, method))?,
            able,
            patience: place.patience,
            principal,
        })
    }
}

/// Who may answer questions and go on with parked calls of this caller on this endpoint.
pub fn owner(scope: Scope<'_>, principal: &str) -> Digest {
    Digest::of(&bond(scope.endpoint, principal).bytes())
}

/// Until when the back edge may keep an exchange: the client's time to answer comes on top of the
/// server's, which the bridge keeps itself.
pub fn deadline(scope: Scope<'_>, method: &Method, patience: Duration) -> Instant {
    let now = Instant::now();
    if may_ask(method) && Able::of(&scope.client.capabilities).any() {
        let rounds = u64::from(bounds::INPUT_ROUNDS_MAX);
        now + patience + Duration::from_millis(rounds * bounds::ASK_MS.max(bounds::PARKED_MS))
    } else {
        now + patience
    }
}

/// The messages of an exchange as this client can take them. `again` is the request, for clients
/// whose server may have to be called again.
///
/// # Errors
/// [`Reason::SnapshotMissing`], [`Reason::MissingCapability`].
pub fn over(
    gateway: &Gateway,
    scope: Scope<'_>,
    (place, method): (&Place, &Method),
    (exchange, again): (Exchange, Option<Outbound>),
) -> Result<Messages, Refusal> {
    let front = scope.client.modern();
    let back = modern(&exchange.back_revision);
    let bridge = || Bridge::new(gateway, scope, place, method.name);
    let able = Able::of(&scope.client.capabilities).any();
    if !may_ask(method) {
        return Ok(exchange.messages);
    }
    match exchange.messages {
        Messages::One(Message::Result(raw)) if !front && back && wants_input(&raw) => {
            let (sender, messages) = tokio::sync::mpsc::channel(1);
            // The one message fits into the empty channel.
            let _ = sender.try_send(Ok(Message::Result(raw)));
            Ok(Messages::Stream(bridge()?.drive(messages, again)))
        }
        Messages::One(Message::Error(raw)) if front && !back => match state::wants_url(&raw) {
            Some(wanted) => {
                let bridge = bridge()?;
                Ok(Messages::One(wanted.for_client(bridge.able, &bridge.seal)?))
            }
            None => Ok(Messages::One(Message::Error(raw))),
        },
        Messages::Stream(messages) if able || front != back => {
            Ok(Messages::Stream(bridge()?.drive(messages, again.filter(|_| back))))
        }
        messages => Ok(messages),
    }
}

fn modern(revision: &str) -> bool {
    Revision::parse(revision).is_some_and(Revision::modern)
}

/// What seals the state of a stateless server for a stateless client; none where the answer is
/// there and has no state.
///
/// # Errors
/// [`Reason::SnapshotMissing`].
pub fn seal(
    gateway: &Gateway,
    scope: Scope<'_>,
    (place, method): (&Place, &Method),
    messages: &Messages,
) -> Result<Option<Seal>, Refusal> {
    let needed = match messages {
        Messages::One(Message::Result(raw)) => wants_input(raw),
        Messages::One(_) => false,
        Messages::Stream(_) => true,
    };
    (needed && may_ask(method)).then(|| Seal::new(gateway, scope, (place, method.name))).transpose()
}

/// True when the server of a call may be called again with the client's input.
pub fn may_be_called_again(scope: Scope<'_>, method: &Method) -> bool {
    let through = scope.client.session.as_ref().is_some_and(|s| s.upstream.is_some());
    may_ask(method) && !scope.client.modern() && !through
}

/// The request with what its client has brought back, in the server's own words.
///
/// # Errors
/// [`Reason::InvalidParams`] when `params` is no object.
pub fn brought(outbound: Outbound, what: Option<What>) -> Result<Outbound, Refusal> {
    match what {
        None | Some(What::Parked(_)) => Ok(outbound),
        Some(What::Again) => outbound.answering(None, None),
        Some(What::Server(own)) => {
            let Some(params) = &outbound.params else { return Ok(outbound) };
            let members = Members::parse(utf8(params)).map_err(Refusal::from)?;
            let Some(ours) = members.get("requestState") else { return Ok(outbound) };
            let params = replaced(params, ours.get(), &quoted(&own));
            Ok(Outbound { params: Some(params), ..outbound })
        }
    }
}

/// Goes on with a parked call, wherever it is.
///
/// # Errors
/// [`Reason::InvalidParams`] when it is gone: the client has to start over.
pub async fn resume(
    gateway: &Gateway,
    scope: Scope<'_>,
    holder: &crate::hop::Holder,
) -> Result<Receiver<Result<Message, Refusal>>, Refusal> {
    let params = scope.call.message().and_then(|m| m.params()).and_then(|p| p.raw.as_ref());
    let members = Members::parse(params.map_or("{}", |raw| utf8(raw))).map_err(Refusal::from)?;
    let responses = match members.get("inputResponses") {
        Some(raw) if members::is_object(raw) => Bytes::copy_from_slice(raw.get().as_bytes()),
        Some(_) => {
            return Err(Refusal::new(Reason::InvalidParams, "inputResponses is no object")
                .hint("The parameter inputResponses must be an object."));
        }
        None => Bytes::from_static(b"{}"),
    };
    let principal = scope.sight.who.id();
    let ask = Ask { owner: owner(scope, &principal), verb: park::RESUME, body: whole(responses) };
    let answer = gateway.hop.relay(holder, ask).await;
    let gone = state::refused("the parked call is gone")
        .hint("The call that waited for this input is gone: call again without requestState.");
    Ok(frames::read(answer.map_err(|lost| lost.refusal(gone))?))
}

/// True for a result that asks for more input.
pub fn wants_input(raw: &[u8]) -> bool {
    let text = std::str::from_utf8(raw).unwrap_or_default();
    text.contains("input_required")
        && Members::parse(text)
            .is_ok_and(|all| all.text("resultType").as_deref() == Some("input_required"))
}

/// What a server wants to know, out of an `input_required` result.
#[derive(Debug)]
struct Wanted {
    /// Key, method, params.
    requests: Vec<(String, String, Option<Bytes>)>,
    /// `requestState`, raw.
    state: Option<Bytes>,
}

impl Wanted {
    fn read(raw: &[u8]) -> Result<Self, Refusal> {
        let broken =
            || Refusal::new(Reason::UpstreamProtocol, "input_required without its members");
        let text = std::str::from_utf8(raw).map_err(|_| broken())?;
        let members = Members::parse(text).map_err(|_| broken())?;
        let copy = |raw: &serde_json::value::RawValue| Bytes::copy_from_slice(raw.get().as_bytes());
        let state = members.get("requestState").map(copy);
        let mut requests = Vec::new();
        if let Some(all) = members.get("inputRequests") {
            let all = Members::parse(all.get()).map_err(|_| broken())?;
            for (key, request) in all.iter() {
                let request = Members::parse(request.get()).map_err(|_| broken())?;
                let method = request.text("method").ok_or_else(broken)?.into_owned();
                requests.push((key.to_owned(), method, request.get("params").map(copy)));
            }
        }
        if requests.is_empty() && state.is_none() {
            return Err(broken());
        }
        if requests.len() > bounds::QUESTIONS_MAX {
            return Err(Refusal::new(Reason::UpstreamProtocol, "too many questions at once"));
        }
        Ok(Self { requests, state })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_asked_what_they_said_they_understand() {
        let form = Some(&br#"{"message":"m","requestedSchema":{}}"#[..]);
        let url = Some(&br#"{"mode":"url","url":"https://a"}"#[..]);
        let table = [
            ("{}", [false; 4]),
            (r#"{"elicitation":{}}"#, [true, false, false, false]),
            (r#"{"elicitation":{"form":{}}}"#, [true, false, false, false]),
            (r#"{"elicitation":{"url":{}}}"#, [false, true, false, false]),
            (r#"{"elicitation":{"form":{},"url":{}}}"#, [true, true, false, false]),
            (r#"{"sampling":{},"roots":{"listChanged":true}}"#, [false, false, true, true]),
            (r#"{"sampling":true}"#, [false; 4]),
            ("[]", [false; 4]),
        ];
        for (capabilities, expected) in table {
            let able = Able::of(capabilities.as_bytes());
            let got = [
                able.may("elicitation/create", form),
                able.may("elicitation/create", url),
                able.may("sampling/createMessage", None),
                able.may("roots/list", None),
            ];
            assert_eq!(got, expected, "{capabilities}");
            assert_eq!(able.any(), expected.contains(&true), "{capabilities}");
            assert!(!able.may("tools/call", None));
        }
    }

    #[test]
    fn what_is_wanted_is_read() {
        let raw = br#"{"resultType":"input_required","requestState":"s","inputRequests":{
            "a":{"method":"roots/list"},"b":{"method":"elicitation/create","params":{"x":1.0}}}}"#;
        assert!(wants_input(raw));
        let wanted = Wanted::read(raw).unwrap();
        assert_eq!(wanted.state.as_deref(), Some(&br#""s""#[..]));
        let (key, method, params) = &wanted.requests[1];
        assert_eq!((key.as_str(), method.as_str()), ("b", "elicitation/create"));
        assert_eq!(params.as_deref(), Some(&br#"{"x":1.0}"#[..]));
        for broken in [r#"{}"#, r#"{"inputRequests":{}}"#, r#"{"inputRequests":{"a":{}}}"#, "[]"] {
            let refusal = Wanted::read(broken.as_bytes()).unwrap_err();
            assert_eq!(refusal.reason, Reason::UpstreamProtocol, "{broken}");
        }
        assert!(!wants_input(br#"{"resultType":"complete","content":["input_required"]}"#));
    }
}
