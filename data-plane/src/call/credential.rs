//! Phase 7: the request as it leaves: the server's credential in, the caller's out.
//!
//! Nothing of the caller's HTTP headers travels, except mirrored arguments and the trace context.

use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue};
use weir_model::bounds;
use weir_model::reason::{Reason, Refusal};
use weir_model::resource::{Credential, HeaderCredential};
use weir_model::snapshot::{GroupView, Snapshot, VersionView};
use weir_runtime::traceparent::TraceParent;

use super::authorize::Permit;
use super::inbound::Call;
use super::reserve::Held;
use super::resolve::Upstream;
use crate::mcp::envelope::utf8;
use crate::mcp::headers;
use crate::mcp::members::Members;

/// Headers for one server version, opened.
pub type Headers = Vec<(HeaderName, HeaderValue)>;

/// What may be sent: a target that a permit was given for, with capacity and credentials.
#[derive(Debug)]
pub struct Outgoing {
    target: Upstream,
    headers: Headers,
    held: Held,
}

impl Outgoing {
    /// Where to.
    pub fn target(&self) -> &Upstream {
        &self.target
    }
    /// Puts other parameters in the place of the client's own.
    pub fn with_params(&mut self, params: bytes::Bytes) {
        self.target.params = Some(params);
    }
    /// The server's credentials.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }
    /// The parts, for the one request.
    pub fn into_parts(self) -> (Upstream, Headers, Held) {
        (self.target, self.headers, self.held)
    }
}

/// Makes what can be sent. Consumes the permit: one permit, one request.
///
/// # Errors
/// See [`open`]; [`Reason::Internal`] when the permit is for something else.
#[allow(clippy::needless_pass_by_value)] // a permit is spent
pub fn attach(
    target: Upstream,
    permit: Permit,
    held: Held,
    (snapshot, group): (&Snapshot, &GroupView),
) -> Result<Outgoing, Refusal> {
    let same = permit.server() == &target.server.name
        && permit.action() == target.action
        && permit.target() == target.name.as_deref().unwrap_or_default();
    if !same {
        return Err(Refusal::new(Reason::Internal, "a permit for something else"));
    }
    let headers = open(snapshot, group, &target.version)?;
    Ok(Outgoing { target, headers, held })
}

/// The credential headers of a server version.
///
/// # Errors
/// [`Reason::Quarantined`] when the credential, or its secret, is not there: better no call than
/// one without what the operator wanted it to carry.
pub fn open(
    snapshot: &Snapshot,
    group: &GroupView,
    version: &VersionView,
) -> Result<Headers, Refusal> {
    let Some(name) = &version.spec.credential else { return Ok(Vec::new()) };
    let missing =
        |what: &str| Refusal::new(Reason::Quarantined, format!("credential {name}: {what}"));
    match group.credentials.get(name) {
        Some(Credential::Header(header)) => {
            one_header(snapshot, header).map(|h| vec![h]).map_err(missing)
        }
        None => Err(missing("not there")),
    }
}

fn one_header(
    snapshot: &Snapshot,
    header: &HeaderCredential,
) -> Result<(HeaderName, HeaderValue), &'static str> {
    let secret = snapshot.secret(&header.value).ok_or("its secret is not there")?;
    let mut value = header.prefix.clone().into_bytes();
    value.extend_from_slice(secret.expose());
    let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| "bad header name")?;
    let parsed = HeaderValue::from_bytes(&value);
    zeroize::Zeroize::zeroize(&mut value);
    let mut parsed = parsed.map_err(|_| "its secret cannot stand in a header")?;
    parsed.set_sensitive(true);
    Ok((name, parsed))
}

/// How long a call to this version may take.
pub fn patience(version: &VersionView) -> Duration {
    Duration::from_millis(version.spec.timeout_ms.unwrap_or(bounds::CALL_MS))
}

/// When to give up on a call to this version.
pub fn deadline(version: &VersionView) -> Instant {
    Instant::now() + patience(version)
}

/// The W3C trace parent of the caller: from `_meta` where it is, else from the header.
pub fn traceparent(call: &Call<'_>) -> Option<TraceParent> {
    let meta = call.message().and_then(|m| m.params()).and_then(|p| p.meta.as_ref());
    let of_meta = meta.and_then(|raw| {
        let members = Members::parse(utf8(raw)).ok()?;
        TraceParent::parse(&members.text("traceparent")?)
    });
    of_meta.or_else(|| TraceParent::parse(headers::single(call.headers, "traceparent").ok()??))
}
