//! How configuration travels: both ends of the stream between control plane and proxies, as
//! state machines without sockets, clocks or threads.
//!
//! [`publisher::Publisher`] is one node's stream as the control plane sees it;
//! [`subscriber::Subscriber`] is the node's end. Both take what happened and the time, and give
//! back what is to be done. The planes move bytes, sleep, seal, sign and compile for them.
//!
//! What the protocol promises:
//! - The node speaks first and says what it has. It gets the whole state, or what leads from
//!   what it has to the newest state; a slow node skips revisions.
//! - An update is acknowledged after it is in force. What the node cannot use of it is named and
//!   quarantined, never skipped.
//! - A set is applied only when its digest is the one that the control plane signed for that
//!   revision and region. Anything else makes the node ask for the whole state.
//! - A node's revision goes back only when the control plane says that history was rewritten.
//! - Heartbeats carry revision and digest, so that a difference is found without a change; a peer
//!   that is silent for [`Timing::missed`] heartbeats is given up.
//! - A node that cannot connect tries again with capped, jittered backoff, for ever.

pub mod delta;
mod held;
pub mod identity;
pub mod publisher;
pub mod report;
pub mod statement;
pub mod subscriber;

use std::time::Duration;

use bytes::Bytes;

use crate::bounds;
use crate::id::{Digest, Name, Revision};
use crate::resource::{Credential, Kind, ResourceSet, Spec};
use crate::seal::NodePublic;
pub use held::{Assembled, Held};
use report::ReportPart;
use statement::SignedStatement;

/// The document schema that this build reads and writes.
pub const SCHEMA: u32 = 1;

/// The time, as far as the machines need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Since some fixed moment; never goes back.
    pub mono: Duration,
    /// Seconds since the epoch.
    pub unix: i64,
}

/// How long the machines wait for what.
#[derive(Debug, Clone)]
pub struct Timing {
    /// Between heartbeats.
    pub heartbeat: Duration,
    /// Silent heartbeats after which a peer is given up.
    pub missed: u32,
    /// From an update to its acknowledgement.
    pub ack: Duration,
    /// For which a replica that is behind a node waits to catch up, before it concludes that
    /// history was rewritten.
    pub lag: Duration,
    /// First pause before connecting again.
    pub backoff_min: Duration,
    /// Longest pause before connecting again.
    pub backoff_max: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(bounds::HEARTBEAT_MS),
            missed: 3,
            ack: Duration::from_secs(120),
            lag: Duration::from_secs(30),
            backoff_min: Duration::from_millis(250),
            backoff_max: Duration::from_secs(15),
        }
    }
}

impl Timing {
    fn silence(&self) -> Duration {
        self.heartbeat * self.missed
    }
}

/// What a node has, or is believed to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Applied {
    /// Zero when it has nothing.
    pub revision: Revision,
    /// Of the region's set.
    pub digest: Digest,
}

/// What a node refuses of what it has.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Refused {
    /// The document's key.
    pub key: String,
    /// Why.
    pub message: String,
}

/// A node's first message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Its name.
    pub node: Name,
    /// Its region.
    pub region: Name,
    /// Version and commit, for people.
    pub build: String,
    /// The newest document schema that it reads.
    pub schema: u32,
    /// What it has.
    pub applied: Applied,
    /// What secrets are sealed to.
    pub sealing_key: NodePublic,
    /// What it refuses of what it has.
    pub refused: Vec<Refused>,
}

/// From the node.
#[derive(Debug, Clone, PartialEq)]
pub enum NodeFrame {
    /// First.
    Hello(Hello),
    /// An update is in force. With refusals, this is a negative acknowledgement: the rest is.
    Ack {
        /// Of the update.
        nonce: u64,
        /// What the node has now.
        applied: Applied,
        /// What it refuses of that.
        refused: Vec<Refused>,
    },
    /// What the node has.
    Heartbeat(Applied),
    /// The node cannot use an update and asks for the whole state.
    Resync {
        /// Of the update; zero when a heartbeat told of a difference.
        nonce: u64,
        /// Why.
        message: String,
    },
    /// A part of an observation.
    Report(Box<ReportPart>),
    /// When API tokens were last used at the node.
    TokensUsed(Vec<TokenUse>),
}

/// When an API token was last used at one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenUse {
    /// The group that it is of.
    pub group: Name,
    /// Public part of the token.
    pub id: String,
    /// Seconds since the epoch.
    pub at: i64,
}

/// From the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlaneFrame {
    /// The answer to Hello.
    Welcome {
        /// For people.
        replica: String,
        /// What the replica has.
        revision: Revision,
    },
    /// A part of an update.
    Update(Box<UpdatePart>),
    /// What the control plane believes the node has.
    Heartbeat(Applied),
    /// A report is kept; the node may forget it.
    ReportStored {
        /// Of the report.
        sequence: u64,
    },
}

/// What all parts of an update have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdateHead {
    /// Grows within a stream.
    pub nonce: u64,
    /// How many parts there are.
    pub parts: u32,
    /// The state after the update.
    pub target: Applied,
    /// The state before it; none when the update is the whole state.
    pub base: Option<Applied>,
    /// The revision may be at or below the node's, since history was rewritten.
    pub rollback: bool,
    /// The control plane's signature over the state after the update.
    pub statement: SignedStatement,
}

/// One part of an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdatePart {
    /// The same in all parts.
    pub head: UpdateHead,
    /// From zero.
    pub part: u32,
    /// New and changed documents: key and canonical bytes.
    pub upserts: Vec<(String, Bytes)>,
    /// Keys of documents that are gone.
    pub removals: Vec<String>,
    /// Secrets by id, sealed to the node.
    pub secrets: Vec<(String, Bytes)>,
}

impl UpdatePart {
    fn bytes(&self) -> usize {
        let pairs = self.upserts.iter().chain(&self.secrets);
        pairs.map(|(a, b)| a.len() + b.len()).sum::<usize>()
            + self.removals.iter().map(String::len).sum::<usize>()
    }
}

/// Ids of the secrets that a document refers to.
pub fn secret_ids(spec: &Spec) -> Vec<&str> {
    match spec {
        Spec::Credential(Credential::Header(header)) => vec![&header.value.secret],
        Spec::IdentityProvider(provider) => {
            let client = provider.sign_in.as_ref();
            let secret = client.and_then(|client| client.client_secret.as_ref());
            secret.into_iter().map(|secret| secret.secret.as_str()).collect()
        }
        Spec::Keyring(keyring) => keyring.keys.iter().map(|k| k.key.secret.as_str()).collect(),
        _ => Vec::new(),
    }
}

/// Ids of all secrets that the documents of a set refer to. Looks at the kinds that have any, and
/// costs nothing for the others.
pub fn secrets_of(set: &ResourceSet) -> impl Iterator<Item = &str> {
    let holds = |kind: Kind| matches!(kind, Kind::Credential | Kind::IdentityProvider);
    let grouped = set.kinds_by_group().filter(move |(kind, _)| holds(*kind));
    grouped
        .flat_map(|(kind, group)| set.of_kind(kind, Some(group)))
        .chain(set.of_kind(Kind::Keyring, None))
        .flat_map(|resource| secret_ids(&resource.spec))
}

/// A small generator for jitter: repeatable from its seed, good for nothing secret.
#[derive(Debug, Clone)]
struct Jitter(u64);

impl Jitter {
    /// A fraction in `0.5..1.0`.
    fn factor(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        // 32 bits fit a float exactly.
        0.5 + f64::from(u32::try_from(z >> 32).unwrap_or(0)) / f64::from(u32::MAX) / 2.0
    }
}

#[cfg(test)]
mod tests;
