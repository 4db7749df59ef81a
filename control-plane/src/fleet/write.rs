//! The records of nodes in the store: many in one transaction, since after every change of the
//! configuration there is something to be written of every node.
//!
//! `state/nodes/{region}/{node}` says what a node runs; `state/node-servers/{region}/{node}` what
//! it sees of its servers, which is long and changes for other reasons.

use std::collections::{BTreeMap, HashMap};

use weir_model::bounds;
use weir_model::id::Revision;
use weir_model::sync::identity::NodeId;

use super::{Fleet, Health, Node, PATH, read};
use crate::store::{Entry, Guard, Op, StoreError};

const HEALTH: &str = "state/node-servers/";
/// Records of one transaction.
const RECORDS_MAX: usize = bounds::COMMIT_OPS_MAX - 20;
/// Nodes of which the records are read one by one; of more, all are listed.
const FEW: usize = 4;

type Servers = BTreeMap<String, Health>;

impl Fleet {
    /// Writes what is due; answers of how many nodes.
    pub(super) async fn write(&self) -> usize {
        self.write_health().await;
        let due: Vec<(NodeId, Node)> = {
            let nodes = self.shared.nodes.lock();
            let due = nodes.iter().filter(|(_, l)| is_due(&l.node, l.written.as_ref()));
            due.map(|(id, l)| (id.clone(), without_servers(&l.node))).collect()
        };
        match self.known(&due).await {
            Ok(known) => {
                for some in due.chunks(RECORDS_MAX) {
                    self.write_some(some, &known).await;
                }
            }
            Err(error) => tracing::warn!(%error, "what nodes run cannot be written"),
        }
        due.len()
    }

    /// The records that there are of these nodes, by path.
    pub(super) async fn known(
        &self,
        due: &[(NodeId, Node)],
    ) -> Result<HashMap<String, Entry>, StoreError> {
        let mut known = HashMap::new();
        if due.len() <= FEW {
            for (id, _) in due {
                let found = self.shared.store.get(&format!("{PATH}{id}")).await?;
                known.extend(found.map(|entry| (entry.key.clone(), entry)));
            }
        } else {
            let all = self.shared.store.list(PATH).await?.entries;
            known.extend(all.into_iter().map(|entry| (entry.key.clone(), entry)));
        }
        Ok(known)
    }

    /// One transaction; where another replica was faster, one for each node.
    pub(super) async fn write_some(&self, some: &[(NodeId, Node)], known: &HashMap<String, Entry>) {
        match self.commit(some, known).await {
            Err(StoreError::Conflict) if some.len() > 1 => {
                for one in some {
                    let known = self.known(std::slice::from_ref(one)).await;
                    let written = match known {
                        Ok(known) => self.commit(std::slice::from_ref(one), &known).await,
                        Err(error) => Err(error),
                    };
                    self.noted(std::slice::from_ref(one), written);
                }
            }
            written => self.noted(some, written),
        }
    }

    async fn commit(
        &self,
        some: &[(NodeId, Node)],
        known: &HashMap<String, Entry>,
    ) -> Result<(), StoreError> {
        let (mut guards, mut ops) = (Vec::new(), Vec::new());
        for (id, node) in some {
            let key = format!("{PATH}{id}");
            let entry = known.get(&key);
            let other = entry.and_then(read);
            if !node.connected && other.is_some_and(|o| o.connected && o.replica != node.replica) {
                // It has moved on to another replica, which tells of it now.
                continue;
            }
            let value = serde_json::to_vec(node).map_err(|e| StoreError::Corrupt(e.to_string()))?;
            let revision = entry.map_or(Revision(0), |entry| entry.revision);
            guards.push(Guard { key: key.clone(), revision });
            ops.push(Op::Put(key, value.into()));
        }
        if ops.is_empty() {
            return Ok(());
        }
        self.shared.store.commit(guards, ops).await.map(drop)
    }

    fn noted(&self, some: &[(NodeId, Node)], written: Result<(), StoreError>) {
        match written {
            Ok(()) => {
                let mut nodes = self.shared.nodes.lock();
                for (id, node) in some {
                    let Some(local) = nodes.get_mut(id) else { continue };
                    local.written = Some(node.clone());
                    // One that left meanwhile is still to be written so.
                    if !node.connected && !local.node.connected {
                        nodes.remove(id);
                    }
                }
            }
            // Another replica was faster; the next round decides anew.
            Err(StoreError::Conflict) => self.shared.dirty.notify_one(),
            Err(error) => tracing::warn!(%error, "what nodes run could not be written"),
        }
    }

    async fn write_health(&self) {
        let due: Vec<(NodeId, Servers)> = {
            let nodes = self.shared.nodes.lock();
            let due = nodes.iter().filter(|(_, local)| local.health_due);
            due.map(|(id, local)| (id.clone(), local.node.servers.clone())).collect()
        };
        for (id, servers) in due {
            let Ok(value) = serde_json::to_vec(&servers) else { continue };
            // A node is connected to one replica, which alone writes this.
            let put = Op::Put(format!("{HEALTH}{id}"), value.into());
            if let Err(error) = self.shared.store.commit(Vec::new(), vec![put]).await {
                tracing::warn!(%error, node = %id, "what a node sees could not be written");
                continue;
            }
            if let Some(local) = self.shared.nodes.lock().get_mut(&id) {
                local.health_due = local.node.servers != servers;
            }
        }
    }

    /// What all nodes see of their servers.
    pub(super) async fn health_of_all(&self) -> Result<Vec<(NodeId, Servers)>, StoreError> {
        let entries = self.shared.store.list(HEALTH).await?.entries;
        let of = |entry: Entry| {
            let (region, node) = entry.key.strip_prefix(HEALTH)?.split_once('/')?;
            let id = NodeId { region: region.parse().ok()?, node: node.parse().ok()? };
            Some((id, serde_json::from_slice(&entry.value).ok()?))
        };
        Ok(entries.into_iter().filter_map(of).collect())
    }

    /// Forgets nodes that were not heard of for long.
    pub(super) async fn forget(&self) -> Result<(), StoreError> {
        let oldest = self.now() - bounds::FLEET_FORGET_SECS;
        for entry in self.shared.store.list(PATH).await?.entries {
            if read(&entry).is_none_or(|node| node.last_seen < oldest) {
                let guard = Guard { key: entry.key.clone(), revision: entry.revision };
                let health = entry.key.replacen(PATH, HEALTH, 1);
                let gone = vec![Op::Delete(entry.key), Op::Delete(health)];
                match self.shared.store.commit(vec![guard], gone).await {
                    Ok(_) | Err(StoreError::Conflict) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

fn without_servers(node: &Node) -> Node {
    Node {
        node: node.node.clone(),
        region: node.region.clone(),
        build: node.build.clone(),
        replica: node.replica.clone(),
        refused: node.refused.clone(),
        servers: Servers::new(),
        ..*node
    }
}

fn is_due(node: &Node, written: Option<&Node>) -> bool {
    let Some(written) = written else { return true };
    let same = node.connected == written.connected
        && (node.revision, node.digest) == (written.revision, written.digest)
        && node.replica == written.replica
        && (&node.build, node.schema) == (&written.build, written.schema)
        && node.refused == written.refused;
    let write_secs = i64::try_from(bounds::FLEET_WRITE_SECS).unwrap_or(i64::MAX);
    !same || node.last_seen - written.last_seen >= write_secs
}
