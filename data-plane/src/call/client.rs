//! What is known about the client's side of the protocol: of a stateless request from its
//! `_meta`, of an older one from its sealed session.

use bytes::Bytes;
use weir_model::principal::Principal;
use weir_model::reason::{Reason, Refusal};
use weir_model::seal::Sealer;

use super::endpoint::Endpoint;
use super::inbound::{Call, Wants};
use crate::mcp::discover;
use crate::mcp::envelope::{Message, Params, utf8};
use crate::mcp::era::Era;
use crate::mcp::headers;
use crate::mcp::members::Members;
use crate::mcp::revision::Revision;
use crate::mcp::session::{self, Bond, Session};
use crate::sessions::Ended;

/// The client's side.
#[derive(Debug)]
pub struct Client {
    /// What it speaks.
    pub revision: Revision,
    /// `clientInfo`, raw.
    pub info: Option<Bytes>,
    /// `capabilities`, raw.
    pub capabilities: Bytes,
    /// Of a client of an older revision: what its id was opened to, or what `initialize` starts.
    pub session: Option<Session>,
    /// Tells callers and sessions apart towards servers that keep state.
    pub isolation: String,
}

impl Client {
    /// True for stateless revisions.
    pub fn modern(&self) -> bool {
        self.revision.modern()
    }
}

/// What sessions are sealed with and held against.
#[derive(Debug, Clone, Copy)]
pub struct Sealing<'a> {
    /// With the snapshot's keys; none before there are some.
    pub sealer: Option<&'a Sealer>,
    /// Sessions that their clients ended here.
    pub ended: &'a Ended,
    /// Seconds since the epoch.
    pub now: i64,
}

impl<'a> Sealing<'a> {
    /// The sealer.
    ///
    /// # Errors
    /// [`Reason::SnapshotMissing`] when there is no key yet.
    pub fn sealer(&self) -> Result<&'a Sealer, Refusal> {
        self.sealer.ok_or_else(|| Refusal::new(Reason::SnapshotMissing, "no sealing key"))
    }
}

/// What sealed tokens of this caller on this endpoint are bound to.
pub fn bond<'a>(endpoint: &'a Endpoint, principal: &'a str) -> Bond<'a> {
    Bond {
        group: endpoint.group.name.as_str(),
        server: endpoint.server.as_ref().map(weir_model::id::Name::as_str),
        principal,
        epoch: endpoint.group.spec.policy_epoch,
    }
}

/// Finds out with what kind of client we speak.
///
/// # Errors
/// [`Reason::SessionMissing`], [`Reason::SessionUnknown`], [`Reason::InvalidParams`] for a broken
/// `initialize`.
pub fn identify(
    call: &Call<'_>,
    who: &Principal,
    endpoint: &Endpoint,
    sealing: Sealing<'_>,
) -> Result<Client, Refusal> {
    let principal = who.id();
    match (&call.era, &call.wants) {
        (Era::Modern(claim), _) => Ok(Client {
            revision: claim.revision,
            info: claim.client_info.clone(),
            capabilities: claim.capabilities.clone(),
            session: None,
            isolation: principal,
        }),
        // Its session begins on the stream.
        (Era::Legacy(_), Wants::Open | Wants::Posted { .. }) => Ok(Client {
            revision: Revision::V2024_11_05,
            info: None,
            capabilities: Bytes::from_static(b"{}"),
            session: None,
            isolation: principal,
        }),
        (Era::Legacy(_), Wants::Message(message)) if message.method() == Some("initialize") => {
            match &**message {
                Message::Request { params, .. } => start(params, &principal, sealing.now),
                _ => Err(Refusal::new(Reason::InvalidRequest, "initialize without an id")),
            }
        }
        (Era::Legacy(_), _) => {
            let id = headers::single(call.headers, session::HEADER)
                .map_err(|_| session::unknown("more than one session id"))?
                .ok_or_else(|| Refusal::from(Reason::SessionMissing))?;
            let bond = bond(endpoint, &principal);
            let session = Session::open(sealing.sealer()?, bond, id, sealing.now)?;
            let life = endpoint.group.spec.sessions.life_secs.map(i64::from);
            if life.is_some_and(|life| sealing.now.saturating_sub(session.created) > life) {
                return Err(session::unknown("too old for its group"));
            }
            if sealing.ended.contains(&session.nonce) {
                return Err(session::unknown("ended by its client"));
            }
            if endpoint.group.withdrawn.session(&session.nonce, sealing.now).is_some() {
                return Err(session::unknown("revoked by an operator"));
            }
            of_session(session, &principal)
        }
    }
}

fn of_session(session: Session, principal: &str) -> Result<Client, Refusal> {
    Ok(Client {
        revision: session.revision()?,
        info: session.client_info.as_ref().map(|raw| Bytes::copy_from_slice(raw.get().as_bytes())),
        capabilities: Bytes::copy_from_slice(session.capabilities.get().as_bytes()),
        isolation: format!("{principal}\0{}", session.nonce),
        session: Some(session),
    })
}

/// The client that sends `initialize`.
fn start(params: &Params, principal: &str, now: i64) -> Result<Client, Refusal> {
    let invalid = |what: &str| {
        Refusal::new(Reason::InvalidParams, format!("initialize: {what}"))
            .hint(format!("initialize needs {what}."))
    };
    let members = Members::parse(params.text()).map_err(Refusal::from)?;
    let asked =
        members.text("protocolVersion").ok_or_else(|| invalid("protocolVersion as a string"))?;
    let object = |name: &str, what: &str| match members.get(name) {
        Some(raw) if crate::mcp::members::is_object(raw) => Ok(Some(raw.to_owned())),
        Some(_) => Err(invalid(what)),
        None => Ok(None),
    };
    let capabilities = object("capabilities", "capabilities as an object")?
        .ok_or_else(|| invalid("capabilities as an object"))?;
    let session = Session {
        nonce: uuid::Uuid::new_v4().simple().to_string(),
        revision: discover::negotiate(Some(&asked)).as_str().to_owned(),
        capabilities,
        client_info: object("clientInfo", "clientInfo as an object")?,
        upstream: None,
        home: None,
        version: None,
        created: now,
    };
    of_session(session, principal)
}

/// The name that a client gives itself, for rules that read it.
pub fn reported_name(client: &Client) -> Option<String> {
    let members = Members::parse(utf8(client.info.as_ref()?)).ok()?;
    members.text("name").map(std::borrow::Cow::into_owned)
}
