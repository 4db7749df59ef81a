//! Where proxies reach each other: told to every proxy that says where it is itself.
//!
//! A proxy asks every few seconds, at any replica. What it says of itself lives in the store
//! under `state/neighbours/{region}/{node}`, written when it changes and otherwise once in
//! [`WRITE_SECS`]; one that is silent for [`SILENT_SECS`] is not told of any more. A replica reads
//! the list at most every [`READ_MS`], so the store is asked little however many proxies there are.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weir_model::id::Name;
use weir_model::sync::identity::NodeId;
use weir_runtime::clock::SharedClock;

use crate::store::{Op, Store, StoreError};

const PATH: &str = "state/neighbours/";
/// Seconds after which an unchanged address is written again.
const WRITE_SECS: i64 = 60;
/// Seconds of silence after which a proxy counts as gone.
const SILENT_SECS: i64 = 3 * WRITE_SECS;
/// Seconds after which it is forgotten.
const FORGET_SECS: i64 = 24 * 3600;
/// Milliseconds for which what was read is good.
const READ_MS: u64 = 1_000;
/// Longest address.
const ADDRESS_CHARS_MAX: usize = 300;

/// Where one proxy is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    address: String,
    /// Seconds since the epoch.
    seen: i64,
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Neighbours {
    store: Arc<dyn Store>,
    clock: SharedClock,
    read: Arc<tokio::sync::Mutex<Read>>,
}

/// What the store said last.
#[derive(Default)]
struct Read {
    /// Milliseconds since the epoch.
    at: u64,
    places: BTreeMap<NodeId, Place>,
}

impl std::fmt::Debug for Neighbours {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Neighbours")
    }
}

impl Neighbours {
    /// What is known lives in the store.
    pub fn new(store: Arc<dyn Store>, clock: SharedClock) -> Self {
        Self { store, clock, read: Arc::default() }
    }

    /// Takes note of where a proxy is, and gives the places of all others.
    ///
    /// # Errors
    /// Those of the store; [`StoreError::Malformed`] for an address that cannot be one.
    pub async fn meet(
        &self,
        node: &NodeId,
        address: &str,
    ) -> Result<Vec<(NodeId, String)>, StoreError> {
        let fair = |c: char| c.is_ascii_graphic();
        if address.is_empty() || address.len() > ADDRESS_CHARS_MAX || !address.chars().all(fair) {
            return Err(StoreError::Malformed("not an address".to_owned()));
        }
        let now = i64::try_from(self.clock.now_secs()).unwrap_or(i64::MAX);
        let mut read = self.read.lock().await;
        if self.clock.now_ms().saturating_sub(read.at) > READ_MS {
            self.read(&mut read, now).await?;
        }
        let known = read.places.get(node);
        if known.is_none_or(|known| known.address != address || now - known.seen >= WRITE_SECS) {
            let place = Place { address: address.to_owned(), seen: now };
            let value = serde_json::to_vec(&place).map_err(|e| corrupt(&e))?;
            let op = Op::Put(format!("{PATH}{node}"), value.into());
            self.store.commit(Vec::new(), vec![op]).await?;
            read.places.insert(node.clone(), place);
        }
        let others = read.places.iter().filter(|(other, _)| *other != node);
        let there = others.filter(|(_, place)| now - place.seen <= SILENT_SECS);
        Ok(there.map(|(other, place)| (other.clone(), place.address.clone())).collect())
    }

    async fn read(&self, read: &mut Read, now: i64) -> Result<(), StoreError> {
        let entries = self.store.list(PATH).await?.entries;
        let mut places = BTreeMap::new();
        let mut old = Vec::new();
        for entry in entries {
            let node = entry.key.strip_prefix(PATH).and_then(node_of);
            let place = serde_json::from_slice::<Place>(&entry.value).ok();
            match (node, place) {
                (Some(node), Some(place)) if now - place.seen < FORGET_SECS => {
                    places.insert(node, place);
                }
                _ => old.push(Op::Delete(entry.key)),
            }
        }
        if !old.is_empty() {
            old.truncate(weir_model::bounds::COMMIT_OPS_MAX);
            self.store.commit(Vec::new(), old).await?;
        }
        *read = Read { at: self.clock.now_ms(), places };
        Ok(())
    }
}

fn node_of(path: &str) -> Option<NodeId> {
    let (region, node) = path.split_once('/')?;
    Some(NodeId { region: region.parse::<Name>().ok()?, node: node.parse().ok()? })
}

fn corrupt(error: &serde_json::Error) -> StoreError {
    StoreError::Corrupt(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::embedded::{Embedded, History};
    use weir_runtime::clock::ManualClock;

    fn id(text: &str) -> NodeId {
        node_of(text).unwrap()
    }

    #[tokio::test]
    async fn proxies_hear_of_each_other_at_every_replica() {
        let store: Arc<dyn Store> = Arc::new(Embedded::in_memory(History::default()).unwrap());
        let clock = ManualClock::at_ms(1_700_000_000_000);
        let replica = || Neighbours::new(Arc::clone(&store), Arc::new(clock.clone()));
        let (one, two) = (replica(), replica());
        let (a, b) = (id("eu/a"), id("us/b"));
        assert_eq!(one.meet(&a, "a:1").await.unwrap(), []);
        assert_eq!(two.meet(&b, "b:1").await.unwrap(), [(a.clone(), "a:1".to_owned())]);
        clock.advance(std::time::Duration::from_secs(2));
        assert_eq!(one.meet(&a, "a:1").await.unwrap(), [(b.clone(), "b:1".to_owned())]);
        // It has moved.
        assert_eq!(two.meet(&b, "b:2").await.unwrap().len(), 1);
        clock.advance(std::time::Duration::from_secs(2));
        assert_eq!(one.meet(&a, "a:1").await.unwrap(), [(b.clone(), "b:2".to_owned())]);
        // The first one is silent.
        clock.advance(std::time::Duration::from_secs(SILENT_SECS.unsigned_abs() + 1));
        assert_eq!(two.meet(&b, "b:2").await.unwrap(), []);
        clock.advance(std::time::Duration::from_secs(FORGET_SECS.unsigned_abs()));
        assert_eq!(two.meet(&b, "b:2").await.unwrap(), []);
        clock.advance(std::time::Duration::from_secs(2));
        two.meet(&b, "b:2").await.unwrap();
        assert_eq!(store.list(PATH).await.unwrap().entries.len(), 1);
    }

    #[tokio::test]
    async fn what_is_no_address_is_refused() {
        let store: Arc<dyn Store> = Arc::new(Embedded::in_memory(History::default()).unwrap());
        let neighbours = Neighbours::new(store, Arc::new(ManualClock::at_ms(0)));
        for bad in ["", "a b:1", "a\n:1", &"a".repeat(400)] {
            assert!(neighbours.meet(&id("eu/a"), bad).await.is_err(), "{bad}");
        }
    }
}
