//! What each proxy runs, and what it sees of its servers.
//!
//! Every replica knows the nodes that are connected to it, and writes what it knows to
//! `state/nodes/{region}/{node}`: when something changed, and otherwise at a low rate. So every
//! replica can tell of the whole fleet, and a replica that dies leaves its last word behind.

mod metrics;
mod uses;
mod write;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use weir_model::bounds;
use weir_model::id::{Digest, Name, Revision};
use weir_model::snapshot::UpstreamKey;
use weir_model::sync::identity::NodeId;
use weir_model::sync::{Applied, Refused};
use weir_runtime::clock::SharedClock;
use weir_runtime::drain::Watch;

use crate::store::{Entry, Store, StoreError};

pub use metrics::FleetMetrics;

const PATH: &str = "state/nodes/";
/// Changes are gathered for this long before they are written; for as much again for every
/// hundred nodes of which something was to be written.
const GATHER: Duration = Duration::from_millis(500);
const GATHER_MAX: Duration = Duration::from_secs(5);
/// Between two looks for nodes to forget.
const FORGET: Duration = Duration::from_secs(60);
/// Silence after which a node counts as gone, whatever its record says: its replica may be.
const SILENT_SECS: i64 = 3 * bounds::FLEET_WRITE_SECS as i64;

/// One proxy, as operators see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Its name.
    pub node: Name,
    /// Its region.
    pub region: Name,
    /// Version and commit.
    pub build: String,
    /// The document schema that it reads.
    pub schema: u32,
    /// What it has in force.
    pub revision: Revision,
    /// Of that.
    pub digest: Digest,
    /// True while a replica has a stream to it.
    pub connected: bool,
    /// The replica that has, or had last.
    pub replica: String,
    /// Seconds since the epoch.
    pub last_seen: i64,
    /// What it refuses of what it has.
    #[serde(default)]
    pub refused: Vec<Refused>,
    /// What it sees of its servers, by `group/server@version`.
    #[serde(default)]
    pub servers: BTreeMap<String, Health>,
}

/// A server version as one node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// Whether it answers.
    pub up: bool,
    /// Why not, or what is wrong with what it offers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Since when, in seconds since the epoch.
    pub since: i64,
}

/// What a node says of itself when it connects.
#[derive(Debug, Clone)]
pub struct Presence {
    /// Who.
    pub id: NodeId,
    /// Version and commit.
    pub build: String,
    /// Document schema.
    pub schema: u32,
}

/// A stream's hold on its node's record; when it is dropped the node counts as disconnected.
#[derive(Debug)]
pub struct Connected {
    fleet: Fleet,
    id: NodeId,
    stream: u64,
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Fleet {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<dyn Store>,
    replica: String,
    clock: SharedClock,
    nodes: Mutex<HashMap<NodeId, Local>>,
    streams: std::sync::atomic::AtomicU64,
    dirty: Notify,
    uses: Mutex<uses::Written>,
}

struct Local {
    /// Its servers too.
    node: Node,
    stream: u64,
    /// Without its servers.
    written: Option<Node>,
    /// What it sees of its servers is to be written.
    health_due: bool,
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fleet").field("here", &self.shared.nodes.lock().len()).finish()
    }
}

impl Fleet {
    /// The fleet as this replica sees it.
    pub fn new(store: Arc<dyn Store>, replica: String, clock: SharedClock) -> Self {
        let shared = Shared {
            store,
            replica,
            clock,
            nodes: Mutex::default(),
            streams: Default::default(),
            dirty: Notify::new(),
            uses: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    fn now(&self) -> i64 {
        i64::try_from(self.shared.clock.now_secs()).unwrap_or(i64::MAX)
    }

    /// A node has connected here. A stream that it had before no longer counts.
    pub fn connected(&self, presence: Presence) -> Connected {
        use std::sync::atomic::Ordering;
        let stream = self.shared.streams.fetch_add(1, Ordering::Relaxed) + 1;
        let Presence { id, build, schema } = presence;
        let mut nodes = self.shared.nodes.lock();
        let before = nodes.remove(&id);
        let node = Node {
            node: id.node.clone(),
            region: id.region.clone(),
            build,
            schema,
            revision: Revision(0),
            digest: Digest::default(),
            connected: true,
            replica: self.shared.replica.clone(),
            last_seen: self.now(),
            refused: Vec::new(),
            servers: before.as_ref().map(|b| b.node.servers.clone()).unwrap_or_default(),
        };
        let health_due = before.as_ref().is_some_and(|b| b.health_due);
        let written = before.and_then(|b| b.written);
        nodes.insert(id.clone(), Local { node, stream, written, health_due });
        drop(nodes);
        self.shared.dirty.notify_one();
        Connected { fleet: self.clone(), id, stream }
    }

    /// What a node sees of a server version: whether it answers, and what is wrong with it.
    pub fn health(&self, id: &NodeId, server: &UpstreamKey, (up, message): (bool, Option<String>)) {
        let now = self.now();
        let mut nodes = self.shared.nodes.lock();
        let Some(local) = nodes.get_mut(id) else { return };
        let message = message.map(|m| m.chars().take(500).collect::<String>());
        let servers = &mut local.node.servers;
        let key = server.to_string();
        let known = servers.get(&key);
        if known.is_some_and(|k| k.up == up && k.message == message)
            || (known.is_none() && servers.len() >= bounds::OUTBOX_ENTRIES_MAX)
        {
            return;
        }
        servers.insert(key, Health { up, message, since: now });
        local.health_due = true;
        drop(nodes);
        self.shared.dirty.notify_one();
    }

    /// Nodes that are connected here, and how many of them refuse something.
    fn counts(&self) -> (usize, usize) {
        let nodes = self.shared.nodes.lock();
        let connected = || nodes.values().filter(|local| local.node.connected);
        (connected().count(), connected().filter(|l| !l.node.refused.is_empty()).count())
    }

    /// All nodes that any replica knows of.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn list(&self) -> Result<Vec<Node>, StoreError> {
        let mut nodes = BTreeMap::new();
        for entry in self.shared.store.list(PATH).await?.entries {
            if let Some(mut node) = read(&entry) {
                node.connected &= self.now() - node.last_seen <= SILENT_SECS;
                nodes.insert((node.region.clone(), node.node.clone()), node);
            }
        }
        for (id, servers) in self.health_of_all().await? {
            if let Some(node) = nodes.get_mut(&(id.region, id.node)) {
                node.servers = servers;
            }
        }
        for local in self.shared.nodes.lock().values() {
            let key = (local.node.region.clone(), local.node.node.clone());
            let newer = nodes.get(&key).is_none_or(|n| n.last_seen <= local.node.last_seen);
            if local.node.connected || newer {
                nodes.insert(key, local.node.clone());
            }
        }
        Ok(nodes.into_values().collect())
    }

    /// Writes what changed, until the drain; then writes that everybody left.
    pub async fn run(self, drain: Watch) {
        let interval = Duration::from_secs(bounds::FLEET_WRITE_SECS);
        let (mut gather, mut forgotten) = (GATHER, Instant::now());
        loop {
            let wake = tokio::time::timeout(interval, self.shared.dirty.notified());
            let gathered = async {
                let _ = wake.await;
                tokio::time::sleep(gather).await;
            };
            tokio::select! {
                () = gathered => {}
                () = drain.drained() => break,
            }
            let written = u32::try_from(self.write().await).unwrap_or(u32::MAX);
            gather = GATHER.saturating_mul(1 + written / 100).min(GATHER_MAX);
            if forgotten.elapsed() >= FORGET {
                forgotten = Instant::now();
                if let Err(error) = self.forget().await {
                    tracing::debug!(%error, "old nodes could not be forgotten");
                }
            }
        }
        for local in self.shared.nodes.lock().values_mut() {
            local.node.connected = false;
        }
        self.write().await;
    }
}

impl Connected {
    /// The node was heard of, and has this in force.
    pub fn status(&self, applied: Applied, refused: &[Refused]) {
        let now = self.fleet.now();
        let mut nodes = self.fleet.shared.nodes.lock();
        let Some(local) = nodes.get_mut(&self.id).filter(|l| l.stream == self.stream) else {
            return;
        };
        local.node.last_seen = now;
        let same = local.node.revision == applied.revision
            && local.node.digest == applied.digest
            && local.node.refused == refused;
        if same {
            return;
        }
        local.node.revision = applied.revision;
        local.node.digest = applied.digest;
        local.node.refused = refused.to_vec();
        drop(nodes);
        self.fleet.shared.dirty.notify_one();
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let mut nodes = self.fleet.shared.nodes.lock();
        if let Some(local) = nodes.get_mut(&self.id).filter(|l| l.stream == self.stream) {
            local.node.connected = false;
        }
        drop(nodes);
        self.fleet.shared.dirty.notify_one();
    }
}

fn read(entry: &Entry) -> Option<Node> {
    serde_json::from_slice(&entry.value)
        .inspect_err(|e| tracing::warn!(path = entry.key, line = e.line(), "no node's record"))
        .ok()
}

#[cfg(test)]
mod tests;
