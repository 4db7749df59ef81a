//! What the fleet sees of servers becomes catalogs: stored by digest, compared, pinned.
//!
//! Proxies report everything that a server version offers. The group's [`PinRule`] says which of
//! it is served at once and which waits for an operator ([`merge`]). Several proxies, and several
//! replicas of the control plane, that report the same thing cause one write: an offer that
//! changes nothing is recognised against the index, and a lost race is decided anew.
//!
//! Definitions are content-addressed and written before the catalog that names them, in as many
//! transactions as it takes; proxies never see one that no catalog names.

pub mod intake;
pub mod merge;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use weir_model::bounds;
use weir_model::id::{Digest, Name, Revision};
use weir_model::observation::{Offer, Offered};
use weir_model::resource::{
    Catalog, CatalogEntry, Definition, FieldError, Kind, PinRule, Resource, ResourceKey,
    ResourceSet, Spec,
};

use crate::author::{Author, AuthorError};
use crate::index::{self, Indexed};
use crate::store::{Op, Store, StoreError};

/// Attempts at one change while others change the configuration too.
const TRIES_MAX: usize = 32;
/// Longest wait for the index to see what made a commit fail.
const CATCH_UP: std::time::Duration = std::time::Duration::from_secs(2);

/// Keeps catalogs up to date. Cheap to clone.
#[derive(Clone)]
pub struct Observer {
    store: Arc<dyn Store>,
    author: Author,
    /// One offer at a time: a replica never races with itself.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Names of definitions that may be unused.
    unused: Arc<Mutex<BTreeSet<String>>>,
}

impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Observer").finish_non_exhaustive()
    }
}

/// What came of an offer or of pinning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// Of the configuration that has it.
    pub revision: Revision,
    /// False when it was all known.
    pub changed: bool,
    /// Definitions that wait for an operator.
    pub waiting: usize,
    /// Definitions that were left out or that clients are not shown, and why.
    pub dropped: Vec<String>,
}

/// Why an offer was not taken, or a pin not set.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// The server version is not registered (any more).
    #[error("there is no version {2} of server {1} in group {0}")]
    Unknown(Name, Name, Name),
    /// Nothing was observed of the version yet.
    #[error("nothing has been observed of {0} yet; a proxy has to reach the server first")]
    Unobserved(String),
    /// The catalog breaks a bound of its kind.
    #[error("the catalog cannot be kept: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Unfit(Vec<FieldError>),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Others changed the configuration again and again meanwhile.
    #[error("the configuration changes too fast")]
    Busy,
}

/// How long definitions that a change left unused stay, so that one sweep takes many.
const SWEEP_AFTER: std::time::Duration = std::time::Duration::from_secs(1);

/// Names the version that an offer is about.
#[derive(Debug, Clone, Copy)]
pub struct Version<'a> {
    /// Group.
    pub group: &'a Name,
    /// Server.
    pub server: &'a Name,
    /// Version.
    pub version: &'a Name,
}

/// A decision about a catalog: the catalog after it, if it changes, with new definitions.
type Decided = Result<Option<(Catalog, BTreeMap<Digest, String>)>, ObserveError>;

impl Observer {
    /// Over a store and the author whose index follows it.
    pub fn new(store: Arc<dyn Store>, author: Author) -> Self {
        Self { store, author, turn: Arc::default(), unused: Arc::default() }
    }

    /// Takes an offer in.
    ///
    /// # Errors
    /// See [`ObserveError`]; nothing that is served has changed then.
    pub async fn offer(&self, of: Version<'_>, offer: Offer) -> Result<Observed, ObserveError> {
        let (offer, mut dropped) = merge::within_bounds(offer);
        dropped.extend(merge::hidden(&offer));
        let texts: BTreeMap<Digest, String> =
            offer.definitions.iter().map(|o| (digest(o), o.json.clone())).collect();
        let decide = |set: &ResourceSet, existing: Option<&Catalog>| {
            let rule = pin_rule(set, of)?;
            let after = merge::after_offer((of.server, of.version), existing, &offer, rule);
            Ok((existing != Some(&after)).then(|| (after, texts.clone())))
        };
        let mut observed = self.change(of, decide).await?;
        observed.dropped = dropped;
        Ok(observed)
    }

    /// Pins everything that waits.
    ///
    /// # Errors
    /// See [`ObserveError`].
    pub async fn pin(&self, of: Version<'_>) -> Result<Observed, ObserveError> {
        let decide = |set: &ResourceSet, existing: Option<&Catalog>| {
            pin_rule(set, of)?;
            let name = Catalog::name_of(of.server, of.version);
            let existing = existing.ok_or(ObserveError::Unobserved(name))?;
            let after = merge::after_pin(existing);
            Ok((*existing != after).then(|| (after, BTreeMap::new())))
        };
        self.change(of, decide).await
    }

    async fn change(
        &self,
        of: Version<'_>,
        decide: impl Fn(&ResourceSet, Option<&Catalog>) -> Decided,
    ) -> Result<Observed, ObserveError> {
        let _turn = self.turn.lock().await;
        let mut newest = self.author.newest();
        let name = Catalog::name_of(of.server, of.version);
        let key = ResourceKey::grouped(Kind::Catalog, of.group, name);
        let mut tries = 0;
        while tries < TRIES_MAX {
            let base = newest.borrow_and_update().clone();
            let existing = base.set.get(&key).and_then(|resource| match &resource.spec {
                Spec::Catalog(catalog) => Some(catalog),
                _ => None,
            });
            let Some((catalog, texts)) = decide(&base.set, existing)? else {
                let waiting = existing.map_or(0, |catalog| catalog.waiting.len());
                return Ok(observed(base.revision, false, waiting));
            };
            let waiting = catalog.waiting.len();
            let unused = no_longer_named(existing, &catalog);
            let step = next_step(&base, &key, catalog, texts)?;
            let (guard, head) = index::head(base.revision);
            let ops = std::iter::once(head).chain(step.ops).collect();
            match self.store.commit(vec![guard], ops).await {
                Ok(revision) => {
                    index::reached(&mut newest, revision).await;
                    if step.last {
                        self.sweep_later(unused);
                        return Ok(observed(revision, true, waiting));
                    }
                }
                Err(StoreError::Conflict) => {
                    tries += 1;
                    let moved = newest.wait_for(|indexed| indexed.revision > base.revision);
                    tokio::time::timeout(CATCH_UP, moved).await.ok();
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(ObserveError::Busy)
    }

    /// Definitions that the change left unused go in the background, after a moment: others may
    /// join them, and each sweep is a change of its own at every proxy.
    fn sweep_later(&self, unused: BTreeSet<String>) {
        if unused.is_empty() {
            return;
        }
        let mut gathered = self.unused.lock();
        let first = gathered.is_empty();
        gathered.extend(unused);
        drop(gathered);
        if !first {
            return;
        }
        let (author, gathered) = (self.author.clone(), Arc::clone(&self.unused));
        weir_runtime::task::spawn("sweep", async move {
            tokio::time::sleep(SWEEP_AFTER).await;
            let unused = std::mem::take(&mut *gathered.lock());
            match author.sweep(Some(unused)).await {
                Ok(()) | Err(AuthorError::Busy) => {}
                Err(error) => tracing::warn!(%error, "unused definitions could not be deleted"),
            }
        });
    }
}

/// Definitions that a catalog named and no longer names. Another may.
fn no_longer_named(before: Option<&Catalog>, after: &Catalog) -> BTreeSet<String> {
    fn all(catalog: &Catalog) -> impl Iterator<Item = &CatalogEntry> {
        catalog.entries.iter().chain(&catalog.waiting).chain(&catalog.absent)
    }
    let kept: HashSet<&Digest> = all(after).map(|entry| &entry.digest).collect();
    let gone = before.into_iter().flat_map(all).filter(|entry| !kept.contains(&entry.digest));
    gone.map(|entry| Definition::name_of(&entry.digest)).collect()
}

fn observed(revision: Revision, changed: bool, waiting: usize) -> Observed {
    Observed { revision, changed, waiting, dropped: Vec::new() }
}

fn digest(offered: &Offered) -> Digest {
    Digest::of(offered.json.as_bytes())
}

/// The rule of the group, when the version is registered.
fn pin_rule(set: &ResourceSet, of: Version<'_>) -> Result<PinRule, ObserveError> {
    let unknown = || ObserveError::Unknown(of.group.clone(), of.server.clone(), of.version.clone());
    let group = set.get(&ResourceKey::global(Kind::Group, of.group.as_str()));
    let server = set.get(&ResourceKey::grouped(Kind::Server, of.group, of.server.as_str()));
    match (group.map(|g| &g.spec), server.map(|s| &s.spec)) {
        (Some(Spec::Group(group)), Some(Spec::Server(server)))
            if server.versions.iter().any(|v| v.name == *of.version) =>
        {
            Ok(group.pin)
        }
        _ => Err(unknown()),
    }
}

/// What one transaction does about a change.
struct Step {
    ops: Vec<Op>,
    /// True when it writes the catalog, which is what completes the change.
    last: bool,
}

/// The next transaction towards `catalog`: as many of the definitions that are missing as fit, and
/// the catalog itself once they all do.
fn next_step(
    base: &Indexed,
    key: &ResourceKey,
    catalog: Catalog,
    texts: BTreeMap<Digest, String>,
) -> Result<Step, ObserveError> {
    let catalog =
        Resource::new(key.clone(), Spec::Catalog(catalog)).map_err(ObserveError::Unfit)?;
    let mut ops = Vec::new();
    let mut bytes = 0;
    let mut room = |ops: &Vec<Op>, value: &Bytes| {
        bytes += value.len() + 256;
        ops.len() + 2 < bounds::COMMIT_OPS_MAX && bytes < bounds::COMMIT_BYTES_MAX
    };
    for (digest, json) in texts {
        let key = ResourceKey::global(Kind::Definition, Definition::name_of(&digest));
        if base.set.get(&key).is_some() {
            continue;
        }
        let definition = Resource::new(key, Spec::Definition(Definition { json }))
            .map_err(ObserveError::Unfit)?;
        if !room(&ops, &definition.canonical) {
            return Ok(Step { ops, last: false });
        }
        ops.push(Op::Put(index::path(&definition.key), definition.canonical));
    }
    let last = room(&ops, &catalog.canonical);
    if last {
        ops.push(Op::Put(index::path(&catalog.key), catalog.canonical));
    }
    Ok(Step { ops, last })
}

#[cfg(test)]
mod tests;
