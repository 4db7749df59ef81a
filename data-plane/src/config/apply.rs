//! From what came to what is in force. Takes time; runs on threads that serve no calls.

use std::sync::Arc;

use weir_model::bounds;
use weir_model::seal::NodeKey;
use weir_model::snapshot::{Secrets, Snapshot};
use weir_model::sync::{Held, Refused};

/// A configuration, ready to be put in force.
pub(super) struct Applied {
    pub(super) snapshot: Snapshot,
    /// What is quarantined of it.
    pub(super) refused: Vec<Refused>,
    /// Secrets that did not open.
    pub(super) unopened: usize,
}

/// Opens the secrets and compiles. `previous` lends what has not changed.
pub(super) fn compile(held: &Held, key: &NodeKey, previous: &Snapshot) -> Applied {
    let mut secrets = Secrets::with_capacity(held.sealed.len());
    let mut unopened = 0;
    for (id, sealed) in &held.sealed {
        // A secret never changes under its id.
        if let Some(secret) = previous.secrets.get(id) {
            secrets.insert(id.clone(), Arc::clone(secret));
            continue;
        }
        match key.open(id, sealed) {
            Ok(secret) => drop(secrets.insert(id.clone(), Arc::new(secret))),
            Err(error) => {
                tracing::error!(%error, id, "a secret does not open");
                unopened += 1;
            }
        }
    }
    let revision = held.applied.revision;
    let snapshot = Snapshot::compile(revision, &held.set, secrets, Some(previous));
    let refused = refusals(&snapshot);
    Applied { snapshot, refused, unopened }
}

fn refusals(snapshot: &Snapshot) -> Vec<Refused> {
    let refused = |(key, why): (&weir_model::resource::ResourceKey, &String)| Refused {
        key: key.to_string(),
        message: why.chars().take(500).collect(),
    };
    let mut all: Vec<Refused> =
        snapshot.quarantined.iter().take(bounds::REFUSED_MAX).map(refused).collect();
    let more = snapshot.quarantined.len() - all.len();
    if let Some(last) = all.last_mut().filter(|_| more > 0) {
        last.message = format!("{} (and {more} more documents)", last.message);
    }
    all
}
