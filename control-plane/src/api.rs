//! REST v1: thin handlers over [`crate::author`], [`crate::operator`] and what the fleet reports.
//!
//! Every request under `/v1` but the API's description needs an operator's token. Every refusal
//! is a problem document with a remedy ([`problem`]); all field errors come at once. Whatever
//! changes something, whatever was not let in, and where a token begins to be used, leaves an
//! audit record ([`guard`]).

mod apply;
mod audit;
mod difference;
mod fleet;
mod guard;
mod input;
mod keyring;
mod limits;
pub mod openapi;
mod operators;
mod policy;
pub mod problem;
mod read;
mod revocations;
pub mod route;
mod tokens;
mod uses;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use tokio::sync::Semaphore;
use weir_audit::Pipeline;
use weir_model::bounds;
use weir_runtime::clock::SharedClock;
use weir_runtime::drain;
use weir_runtime::ready::Ready;

use crate::author::Author;
use crate::enrol::Enrolment;
use crate::fleet::Fleet;
use crate::keyring::Keys;
use crate::observe::Observer;
use crate::operator::Operators;
use crate::sign_ins::SignIns;
use crate::witness::Witness;
use problem::{Kind, Problem};

/// What the API is made of.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Changes documents.
    pub author: Author,
    /// Who may.
    pub operators: Operators,
    /// What proxies run.
    pub fleet: Fleet,
    /// Lets proxies in.
    pub enrolment: Enrolment,
    /// Keeps the checkpoints of audit logs.
    pub witness: Witness,
    /// The turns of people's sign-ins.
    pub sign_ins: SignIns,
    /// Pins what proxies see.
    pub observer: Observer,
    /// Seal what travels through clients.
    pub keys: Keys,
    /// Where records go.
    pub audit: Pipeline,
    /// What is still missing.
    pub ready: Ready,
    /// Whether this replica is going away.
    pub drain: drain::Watch,
    /// The time.
    pub clock: SharedClock,
}

/// The address of the peer, as the listener saw it; an extension of the request.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// What handlers share.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    author: Author,
    operators: Operators,
    fleet: Fleet,
    enrolment: Enrolment,
    witness: Witness,
    sign_ins: SignIns,
    observer: Observer,
    keys: Keys,
    audit: Pipeline,
    ready: Ready,
    drain: drain::Watch,
    clock: SharedClock,
    uses: uses::Uses,
    /// Requests at a time.
    room: Semaphore,
}

/// The API as a service.
pub fn router(parts: Parts) -> Router {
    let Parts {
        author,
        operators,
        fleet,
        enrolment,
        witness,
        sign_ins,
        observer,
        keys,
        audit,
        ready,
        drain,
        clock,
    } = parts;
    let room = Semaphore::new(bounds::OPERATOR_REQUESTS_MAX);
    let shared = Shared {
        author,
        operators,
        fleet,
        enrolment,
        witness,
        sign_ins,
        observer,
        keys,
        audit,
        ready,
        drain,
        clock,
        uses: uses::Uses::default(),
        room,
    };
    route::router(&Api { shared: Arc::new(shared) })
}

async fn unknown_path() -> Problem {
    Kind::UnknownPath.into()
}

async fn unknown_method() -> Problem {
    Kind::MethodNotAllowed.into()
}
