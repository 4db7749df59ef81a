//! Secrets that nodes need: opened by the vault once, sealed to each node's key.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use weir_model::resource::ResourceSet;
use weir_model::seal::{NodePublic, seal_to};
use weir_model::secret::Secret;
use weir_model::sync::secrets_of;

use crate::admit::secret_path;
use crate::store::Store;
use crate::vault::Vault;

pub(super) struct Opened {
    store: Arc<dyn Store>,
    vault: Vault,
    /// By id. A secret never changes under its id.
    cache: Mutex<HashMap<String, Arc<Secret<Vec<u8>>>>>,
}

impl Opened {
    pub(super) fn new(store: Arc<dyn Store>, vault: Vault) -> Self {
        Self { store, vault, cache: Mutex::default() }
    }

    /// Forgets what the configuration no longer refers to.
    pub(super) fn retain(&self, set: &ResourceSet) {
        let mut cache = self.cache.lock();
        if !cache.is_empty() {
            let used: std::collections::HashSet<&str> = secrets_of(set).collect();
            cache.retain(|id, _| used.contains(id.as_str()));
        }
    }

    /// The secrets, sealed to a node. One that is missing or does not open is left out: the node
    /// quarantines what needs it, and says so.
    pub(super) async fn sealed(&self, ids: &[String], node: NodePublic) -> Vec<(String, Bytes)> {
        let mut sealed = Vec::with_capacity(ids.len());
        for id in ids {
            let Some(secret) = self.get(id).await else { continue };
            match seal_to(node, id, secret.expose()) {
                Ok(bytes) => sealed.push((id.clone(), bytes.into())),
                Err(error) => tracing::warn!(%error, id, "a secret cannot be sealed to a node"),
            }
        }
        sealed
    }

    async fn get(&self, id: &str) -> Option<Arc<Secret<Vec<u8>>>> {
        if let Some(secret) = self.cache.lock().get(id) {
            return Some(Arc::clone(secret));
        }
        let path = secret_path(id);
        let entry = match self.store.get(&path).await {
            Ok(Some(entry)) => entry,
            Ok(None) => {
                tracing::error!(path, "a secret that the configuration needs is missing");
                return None;
            }
            Err(error) => {
                tracing::error!(%error, path, "a secret cannot be read");
                return None;
            }
        };
        match self.vault.open(&path, &entry.value) {
            Ok(secret) => {
                let secret = Arc::new(secret);
                self.cache.lock().insert(id.to_owned(), Arc::clone(&secret));
                Some(secret)
            }
            Err(error) => {
                tracing::error!(%error, path, "a secret cannot be opened");
                None
            }
        }
    }
}
