//! From proxy to proxy: what only one proxy can answer is asked of that one.
//!
//! Nearly everything that outlives a request travels inside of sealed tokens, so that any proxy
//! goes on with it. Little cannot: an upstream call that waits for its client's input, the events
//! that a client may ask for again, the stream of a 2024-11-05 session. Such a thing is a
//! [`Holding`] of the proxy that has it. Whoever holds it [keeps](Hop::keep) it under an id that
//! nobody can guess, and puts the [`Holder`] (proxy, life of its process, address, id) into a
//! sealed token. The proxy at which the token comes back [relays](Hop::relay) to the holder:
//! itself, or another one over HTTP/2 and mutual TLS.
//!
//! ```text
//! let kept = hop.keep(owner, Arc::new(holding))?;        // here, as long as `kept` lives
//! let token = seal(kept.holder());                       // to the client
//! let answer = hop.relay(&holder, Ask { owner, verb: "resume", body }).await?;  // anywhere
//! ```
//!
//! Promises. There is no directory: tokens say where to go, and they are sealed, so no client
//! chooses an address. Both ends show the certificates of nodes that Weir's own authority gave
//! them; nobody else is answered, and the asker checks that it met the very node that the token
//! names. A holding is served only to the owner that it was kept for, compared again by the
//! holder. A process that was started anew says that what it held is gone; so does a proxy that
//! no longer has it, and one that cannot be reached is as good as gone. Bodies stream both ways
//! with back pressure; connections, requests, waits and holdings are bounded.
//!
//! Besides what it holds, a proxy answers to the others as a [`Neighbour`]: what all proxies must
//! know of sessions is told in this way ([`crate::neighbours`]).
//!
//! A proxy without an address of its own for this (`hop.address`) serves what it holds when the
//! token comes back to it, and nothing else.

mod holdings;
mod listen;
mod metrics;
mod peers;
mod tls;
mod wire;

#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use serde::{Deserialize, Serialize};
use weir_model::id::Digest;
use weir_model::reason::{Reason, Refusal};
use weir_model::sync::identity::NodeId;
use weir_runtime::metrics::Metrics;

use crate::config::Identity;

pub use holdings::Kept;
pub use listen::Listener;
pub use wire::{tell, told};

use holdings::Holdings;
use metrics::HopMetrics;
use peers::Peers;

/// What is streamed between two proxies.
pub type Body = UnsyncBoxBody<Bytes, Cut>;

/// The other end, or the way to it, was lost half way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the other proxy was lost half way")]
pub struct Cut;

/// A body that is there already.
pub fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body that comes as it comes.
pub fn streamed(
    frames: impl futures_util::Stream<Item = Result<Bytes, Cut>> + Send + 'static,
) -> Body {
    StreamBody::new(frames.map_ok(Frame::data)).boxed_unsync()
}

/// Where something is held; lives in sealed tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// `region/node`, as in the node's certificate; empty for a proxy without one.
    #[serde(rename = "n")]
    pub node: String,
    /// One life of the process: random.
    #[serde(rename = "e")]
    pub epoch: String,
    /// `host:port` of its hop listener; none where it has none.
    #[serde(rename = "a", default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Of the holding: random, 32 hex digits.
    #[serde(rename = "i")]
    pub id: String,
}

/// A question to whoever holds something.
#[derive(Debug)]
pub struct Ask {
    /// Whose it must be: a digest of principal, group and endpoint (`Bond::bytes`).
    pub owner: Digest,
    /// What is wanted, in the words of the holding: letters and dashes.
    pub verb: &'static str,
    /// Whatever the verb needs.
    pub body: Body,
}

/// Something that only this process has.
#[async_trait]
pub trait Holding: std::fmt::Debug + Send + Sync {
    /// Answers one question. Must give the answer's body soon, within
    /// [`weir_model::bounds::HOP_ANSWER_MS`]; what takes longer comes as the body's frames.
    ///
    /// # Errors
    /// Whatever the asker's client has to be told.
    async fn ask(&self, verb: &str, body: Body) -> Result<Body, Refusal>;
}

/// What a proxy answers to every other one, whatever it holds.
#[async_trait]
pub trait Neighbour: std::fmt::Debug + Send + Sync {
    /// Answers one question of that node; the body comes soon, as for [`Holding::ask`].
    ///
    /// # Errors
    /// Whatever the asker has to know.
    async fn ask(&self, from: &NodeId, verb: &str, body: Body) -> Result<Body, Refusal>;
}

/// Stands for the process itself where a holding or an epoch is named.
const ITSELF: &str = "-";

/// Why a holder did not answer.
#[derive(Debug)]
pub enum Lost {
    /// It has no such thing (any more), for this owner.
    Gone,
    /// It cannot be reached.
    Unreachable(String),
    /// It has no room.
    Busy,
    /// It refused.
    Refused(Refusal),
}

impl Lost {
    /// What the client is told, where `gone` is what its protocol says about things that are gone.
    /// To a client a holder that is out of reach makes no difference.
    pub fn refusal(self, gone: Refusal) -> Refusal {
        match self {
            Self::Gone => gone,
            Self::Unreachable(why) => Refusal { detail: format!("{}; {why}", gone.detail), ..gone },
            Self::Busy => Refusal::new(Reason::Overloaded, "the holder has no room").retry_after(1),
            Self::Refused(refusal) => refusal,
        }
    }
}

/// This proxy's end. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Hop(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    epoch: String,
    identity: Option<Arc<ArcSwap<Identity>>>,
    address: Option<String>,
    holdings: Arc<Holdings>,
    peers: Peers,
    neighbour: OnceLock<Arc<dyn Neighbour>>,
    metrics: HopMetrics,
}

impl Hop {
    /// The hop of a proxy: reached at `address` (`host:port`) by others when it has one, and then
    /// it needs an identity.
    pub fn new(
        identity: Option<Arc<ArcSwap<Identity>>>,
        address: Option<String>,
        metrics: &Metrics,
    ) -> Self {
        let holdings = Arc::new(Holdings::default());
        Self(Arc::new(Inner {
            epoch: uuid::Uuid::new_v4().simple().to_string(),
            identity,
            address,
            metrics: HopMetrics::register(metrics, Arc::clone(&holdings)),
            holdings,
            peers: Peers::default(),
            neighbour: OnceLock::new(),
        }))
    }

    /// Holds something for an owner for as long as the guard lives.
    ///
    /// # Errors
    /// [`Reason::Overloaded`] when this proxy holds [`weir_model::bounds::HOLDINGS_MAX`] things.
    pub fn keep(&self, owner: Digest, holding: Arc<dyn Holding>) -> Result<Kept, Refusal> {
        self.0.holdings.keep(owner, holding, |id| self.holder(id))
    }

    /// Asks the holder, wherever it is.
    ///
    /// # Errors
    /// See [`Lost`].
    pub async fn relay(&self, holder: &Holder, ask: Ask) -> Result<Body, Lost> {
        let here = holder.epoch == self.0.epoch;
        let answer = match here {
            true => self.here(&holder.id, ask).await,
            false => self.there(holder, ask).await,
        };
        self.0.metrics.asked(here, answer.as_ref().err());
        if let Err(lost) = &answer {
            tracing::debug!(node = holder.node, ?lost, "a holder did not answer");
        }
        answer
    }

    /// Says who answers to other proxies; the first to be named does.
    pub fn answered_by(&self, neighbour: Arc<dyn Neighbour>) {
        let _ = self.0.neighbour.set(neighbour);
    }

    /// Who this proxy is, for others; none where it has not enrolled.
    pub fn node(&self) -> Option<NodeId> {
        self.0.identity.as_ref().map(|identity| identity.load().id.clone())
    }

    /// Where others reach this proxy.
    pub fn address(&self) -> Option<&str> {
        self.0.address.as_deref()
    }

    /// This process, for tokens that lead back to it though it holds nothing.
    pub fn home(&self) -> Holder {
        self.holder(ITSELF.to_owned())
    }

    /// True when it names this very process.
    pub fn is_home(&self, holder: &Holder) -> bool {
        holder.epoch == self.0.epoch
    }

    /// Asks another proxy as a neighbour: the process that `holder` names, or whichever runs there
    /// now ([`Self::whoever`]).
    ///
    /// # Errors
    /// See [`Lost`].
    pub async fn tell(
        &self,
        holder: &Holder,
        verb: &'static str,
        body: Body,
    ) -> Result<Body, Lost> {
        let answer = self.there(holder, Ask { owner: Digest::default(), verb, body }).await;
        self.0.metrics.asked(false, answer.as_ref().err());
        answer
    }

    /// Whichever process is that node now.
    pub fn whoever(node: &NodeId, address: &str) -> Holder {
        Holder {
            node: node.to_string(),
            epoch: ITSELF.to_owned(),
            address: Some(address.to_owned()),
            id: ITSELF.to_owned(),
        }
    }

    fn holder(&self, id: String) -> Holder {
        let node = self.0.identity.as_ref().map(|i| i.load().id.to_string()).unwrap_or_default();
        Holder { node, epoch: self.0.epoch.clone(), address: self.0.address.clone(), id }
    }

    async fn here(&self, id: &str, ask: Ask) -> Result<Body, Lost> {
        let holding = self.0.holdings.find(id, &ask.owner).ok_or(Lost::Gone)?;
        holding.ask(ask.verb, ask.body).await.map_err(Lost::Refused)
    }

    async fn there(&self, holder: &Holder, ask: Ask) -> Result<Body, Lost> {
        let unreachable = |why: &str| Lost::Unreachable(why.to_owned());
        let address = holder.address.as_deref().ok_or_else(|| unreachable("it has no address"))?;
        let identity =
            self.0.identity.as_ref().ok_or_else(|| unreachable("this proxy has none"))?;
        // Boxed: few calls go to another proxy, and all of them would carry the room for it.
        Box::pin(self.0.peers.ask(&identity.load_full(), (holder, address), ask)).await
    }
}
