//! What all proxies must know of sessions, told by each to all others.
//!
//! Sessions have no table: any proxy continues any of them. Little has to be known everywhere all
//! the same: that a session was ended, that a call was cancelled (the call may run elsewhere), and
//! what a session is subscribed to and wants to hear (its stream may be elsewhere). Such a [`Tiding`] goes to every
//! other proxy over the [hop](crate::hop), at once. Which ones there are is what the control plane
//! says, and what newcomers say of themselves.
//!
//! Promises. The end of a session is answered when every proxy of the region that can be reached
//! knows of it, or after [`bounds::TOLD_MS`]; other regions follow a moment later. A proxy that
//! cannot be reached is told when it is back; one that was started anew asks the others for all
//! that have ended before it is ready. Cancellations and subscriptions are told to whom can be
//! reached, and nothing waits for them. Everything is bounded: who is behind by more than
//! [`bounds::TIDINGS_MAX`] is told of all ended sessions instead.
//!
//! A proxy that nobody can reach (`hop.address` is not set) neither hears nor tells.

mod answer;
mod metrics;
mod teller;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Limited};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use weir_model::bounds;
use weir_model::sync::identity::NodeId;
use weir_runtime::clock::SharedClock;

use crate::hop::{Holder, Hop, whole};
use crate::sessions::{Ended, Past, Sighting};

pub use answer::Answering;
pub use metrics::NeighbourMetrics;

use teller::{Mailbox, Teller};

/// What one proxy tells another: see the module.
const TELL: &str = "tell";
/// Besides, the other one is asked for every session that has ended.
const MEET: &str = "meet";
/// When a session was used there; the body is its nonce.
const SEEN: &str = "seen";
/// How long a proxy that the control plane does not know of counts as one.
const UNLISTED: Duration = Duration::from_secs(120);

/// Something that all proxies must know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Tiding {
    /// A session was ended.
    Ended(Past),
    /// A client has cancelled a call, which runs somewhere else.
    Cancelled {
        /// Nonce of its session.
        session: String,
        /// Key of the request's id.
        request: String,
    },
    /// A session was subscribed to a resource, or that was ended.
    Subscribed {
        /// Its nonce.
        session: String,
        /// The resource.
        uri: String,
        /// False for the end.
        on: bool,
    },
    /// A session said from which severity on it wants to hear log messages.
    Level {
        /// Its nonce.
        session: String,
        /// In words.
        level: String,
    },
}

/// What is said, and by whom.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Said {
    /// Where the other one reaches this proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(default)]
    tidings: Vec<Tiding>,
}

/// The other proxies. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Neighbours(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    hop: Hop,
    ended: Ended,
    clock: SharedClock,
    runtime: Handle,
    known: Mutex<HashMap<NodeId, Known>>,
    /// The control plane has said who there is.
    listed: watch::Sender<bool>,
}

/// One of them.
#[derive(Debug)]
struct Known {
    address: String,
    /// The control plane knows of it.
    listed: bool,
    /// When it last said something.
    met: Instant,
    mailbox: Arc<Mailbox>,
    task: JoinHandle<()>,
}

impl Drop for Known {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Neighbours {
    /// Nobody yet. Must be made inside of a runtime, whose tasks tell.
    pub fn new(hop: Hop, ended: Ended, clock: SharedClock) -> Self {
        let runtime = Handle::current();
        let (known, listed) = (Mutex::default(), watch::Sender::new(false));
        Self(Arc::new(Inner { hop, ended, clock, runtime, known, listed }))
    }

    /// Where others reach this proxy; none where they cannot.
    pub fn own_address(&self) -> Option<&str> {
        self.0.hop.address()
    }

    /// All there are, as the control plane says.
    pub fn listed(&self, all: Vec<(NodeId, String)>) {
        let own = self.0.hop.node();
        let mut known = self.0.known.lock();
        for one in known.values_mut() {
            one.listed = false;
        }
        for (node, address) in all.into_iter().take(bounds::NEIGHBOURS_MAX) {
            if Some(&node) != own.as_ref() {
                self.add(&mut known, &node, address).listed = true;
            }
        }
        known.retain(|_, one| one.listed || one.met.elapsed() < UNLISTED);
        drop(known);
        self.0.listed.send_replace(true);
    }

    /// Another proxy has said where it is.
    fn met(&self, node: &NodeId, address: String) {
        if address.len() > bounds::URI_BYTES_MAX || Some(node) == self.0.hop.node().as_ref() {
            return;
        }
        let mut known = self.0.known.lock();
        if known.contains_key(node) || known.len() < bounds::NEIGHBOURS_MAX {
            self.add(&mut known, node, address).met = Instant::now();
        }
    }

    fn add<'k>(
        &self,
        known: &'k mut HashMap<NodeId, Known>,
        node: &NodeId,
        address: String,
    ) -> &'k mut Known {
        if known.get(node).is_some_and(|one| one.address != address) {
            known.remove(node);
        }
        known.entry(node.clone()).or_insert_with(|| {
            let own = self.0.hop.node();
            let near = own.is_some_and(|own| own.region == node.region);
            let mailbox = Arc::new(Mailbox::new(near));
            let teller = Teller {
                hop: self.0.hop.clone(),
                to: Hop::whoever(node, &address),
                mailbox: Arc::clone(&mailbox),
                ended: self.0.ended.clone(),
                clock: Arc::clone(&self.0.clock),
            };
            let task = self.0.runtime.spawn(teller.run());
            Known { address, listed: false, met: Instant::now(), mailbox, task }
        })
    }

    /// Tells all others; nothing waits for it.
    pub fn tell(&self, tiding: &Tiding) {
        for mailbox in self.mailboxes() {
            mailbox.put(tiding.clone());
        }
    }

    /// Ends a session everywhere. Returns when the proxies of the region know of it, as far as
    /// they can be reached.
    pub async fn end(&self, nonce: &str) {
        let now = i64::try_from(self.0.clock.now_secs()).unwrap_or(i64::MAX);
        let past = self.0.ended.insert(nonce, now);
        let tiding = Tiding::Ended(past);
        let put = |mailbox: Arc<Mailbox>| {
            let number = mailbox.put(tiding.clone());
            (mailbox, number)
        };
        let told: Vec<_> = self.mailboxes().into_iter().map(put).collect();
        let near = told.iter().filter(|(mailbox, _)| mailbox.near);
        let all = futures_util::future::join_all(near.map(|(mailbox, at)| mailbox.told(*at)));
        let patience = Duration::from_millis(bounds::TOLD_MS);
        if tokio::time::timeout(patience, all).await.is_err() {
            tracing::warn!("not all proxies know yet that a session has ended");
        }
    }

    /// True when a session may have been used at another proxy of the region within that time: one
    /// has seen it, cannot know, or cannot be asked.
    pub async fn may_be_live(&self, nonce: &str, (idle, now): (i64, i64)) -> bool {
        let near: Vec<_> = {
            let known = self.0.known.lock();
            let near = known.iter().filter(|(_, one)| one.mailbox.near);
            near.map(|(node, one)| Hop::whoever(node, &one.address)).collect()
        };
        let ask = |to: Holder| async move {
            let body = self.0.hop.tell(&to, SEEN, whole(nonce.to_owned())).await.ok()?;
            let body = Limited::new(body, bounds::SEALED_BYTES_MAX).collect().await.ok()?;
            serde_json::from_slice::<Sighting>(&body.to_bytes()).ok()
        };
        let all = futures_util::future::join_all(near.into_iter().map(ask));
        match tokio::time::timeout(Duration::from_millis(bounds::TOLD_MS), all).await {
            Ok(all) => all.iter().any(|one| one.is_none_or(|one| one.may_be_live(idle, now))),
            Err(_) => true,
        }
    }

    /// Returns when it is known who there is, and all of them were reached, or cannot be.
    pub async fn settled(&self) {
        let _ = self.0.listed.subscribe().wait_for(|listed| *listed).await;
        let mailboxes = self.mailboxes();
        futures_util::future::join_all(mailboxes.iter().map(|mailbox| mailbox.tried())).await;
    }

    /// How many there are, and how many of them were reached when that was last tried.
    pub fn count(&self) -> (usize, usize) {
        let mailboxes = self.mailboxes();
        (mailboxes.len(), mailboxes.iter().filter(|mailbox| mailbox.reached()).count())
    }

    fn mailboxes(&self) -> Vec<Arc<Mailbox>> {
        self.0.known.lock().values().map(|one| Arc::clone(&one.mailbox)).collect()
    }
}

#[cfg(test)]
mod tests;
