//! The one way in which documents change: admit against the newest configuration, seal, commit
//! under the guard of its revision; when somebody else was faster, admit anew.
//!
//! A dry run is the same call without the commit. Every answer of a change means that it is in
//! the store, and that this replica's index has it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::timeout;
use weir_model::bounds;
use weir_model::id::Revision;
use weir_model::resource::{Definition, Kind, Resource, ResourceKey, ResourceSet, Spec};
use weir_model::secret::Secret;
use weir_model::snapshot::{Secrets, Snapshot};

use crate::admit::{self, Current, Plan, Proposal, Refused, secret_path};
use crate::index::{self, Indexed, Newest};
use crate::store::{HEAD, Op, Store, StoreError, check_size};
use crate::vault::{Vault, VaultError};

/// Admissions of one change, while others change the configuration at the same time.
const TRIES_MAX: usize = 32;
/// Between two compilations ahead of the next change.
const COMPILE_PAUSE: Duration = Duration::from_millis(250);
/// Waiting for the index to see what made a commit fail.
const CATCH_UP: Duration = Duration::from_secs(2);

/// Changes documents. Cheap to clone.
#[derive(Clone)]
pub struct Author {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<dyn Store>,
    vault: Vault,
    newest: Newest,
    /// The configuration compiled last: lends what has not changed to the next compilation.
    compiled: Mutex<Arc<Snapshot>>,
    /// Held by the change that is being made.
    turn: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Author {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Author").finish_non_exhaustive()
    }
}

/// Whether a change is made or only tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Made.
    Commit,
    /// Tried: everything but the commit.
    DryRun,
}

/// A change that was made, or could be.
#[derive(Debug)]
pub struct Authored {
    /// Of the configuration after it (of the one that it was tried on, for a dry run).
    pub revision: Revision,
    /// What it does.
    pub plan: Plan,
}

/// Why a change was not made. Nothing of it was.
#[derive(Debug, thiserror::Error)]
pub enum AuthorError {
    /// Not admitted.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The configuration is at another revision than the one that was expected.
    #[error("the configuration is at revision {actual}, not {expected}")]
    Moved {
        /// By the caller.
        expected: Revision,
        /// The newest known.
        actual: Revision,
    },
    /// Others changed the configuration again and again meanwhile.
    #[error("the configuration changes too fast")]
    Busy,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The vault.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// Admission itself failed.
    #[error("admission aborted")]
    Aborted,
}

impl Author {
    /// An author over a store and the index that follows it.
    pub fn new(store: Arc<dyn Store>, vault: Vault, newest: Newest) -> Self {
        let compiled = Mutex::new(Arc::new(Snapshot::default()));
        let turn = tokio::sync::Mutex::default();
        Self { shared: Arc::new(Shared { store, vault, newest, compiled, turn }) }
    }

    /// The configuration as this replica knows it.
    pub fn newest(&self) -> Newest {
        self.shared.newest.clone()
    }

    /// Where it all is.
    pub fn store(&self) -> &dyn Store {
        &*self.shared.store
    }

    /// The configuration as it was at a revision, as far back as the store's history goes.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] beyond.
    pub async fn past(&self, revision: Revision) -> Result<Arc<Indexed>, StoreError> {
        Indexed::past(&*self.shared.store, revision).await.map(Arc::new)
    }

    /// Makes or tries a change; with `expected`, only on that very revision.
    ///
    /// # Errors
    /// See [`AuthorError`].
    pub async fn change(
        &self,
        proposal: Proposal,
        expected: Option<Revision>,
        mode: Mode,
    ) -> Result<Authored, AuthorError> {
        if let Some(expected) = expected {
            // The caller may have seen the revision at another replica.
            index::reached(&mut self.newest(), expected).await;
        }
        let proposal = Arc::new(proposal);
        let propose = |base: &Indexed| match expected {
            Some(expected) if expected != base.revision => {
                Err(AuthorError::Moved { expected, actual: base.revision })
            }
            _ => Ok(Arc::clone(&proposal)),
        };
        self.author(propose, mode).await
    }

    /// Makes a change that depends on what is there; `propose` is asked anew when somebody else
    /// was faster.
    ///
    /// # Errors
    /// Those of `propose`, and [`AuthorError`].
    pub async fn edit<E: From<AuthorError>>(
        &self,
        mut propose: impl FnMut(&Indexed) -> Result<Proposal, E>,
    ) -> Result<Authored, E> {
        self.author(|base| propose(base).map(Arc::new), Mode::Commit).await
    }

    async fn author<E: From<AuthorError>>(
        &self,
        mut propose: impl FnMut(&Indexed) -> Result<Arc<Proposal>, E>,
        mode: Mode,
    ) -> Result<Authored, E> {
        // Changes at one replica wait for each other; only other replicas are raced with.
        let turn = match mode {
            Mode::Commit => Some(self.shared.turn.lock().await),
            Mode::DryRun => None,
        };
        let mut newest = self.newest();
        for _ in 0..TRIES_MAX {
            let base = newest.borrow_and_update().clone();
            let proposal = propose(&base)?;
            if let Some(authored) = self.attempt(&base, proposal, mode).await? {
                drop(turn);
                return Ok(authored);
            }
            // Somebody was faster. Wait until the index knows it, and decide anew.
            let moved = newest.wait_for(|indexed| indexed.revision > base.revision);
            let _ = timeout(CATCH_UP, moved).await;
        }
        Err(AuthorError::Busy.into())
    }

    /// One attempt; none when the configuration has moved meanwhile.
    async fn attempt(
        &self,
        base: &Arc<Indexed>,
        proposal: Arc<Proposal>,
        mode: Mode,
    ) -> Result<Option<Authored>, AuthorError> {
        let plan = self.admit(Arc::clone(base), proposal).await?;
        let sealed = self.seal(&plan)?;
        let (guards, ops) = plan.transaction(base.revision, sealed);
        check_size(&guards, &ops)?;
        if mode == Mode::DryRun {
            return Ok(Some(Authored { revision: base.revision, plan }));
        }
        if plan.is_empty() {
            // Nothing to write; but is what we compared with still the newest?
            let head = self.shared.store.get(HEAD).await?;
            let newest = head.map_or(Revision(0), |head| head.revision) == base.revision;
            return Ok(newest.then_some(Authored { revision: base.revision, plan }));
        }
        match self.shared.store.commit(guards, ops).await {
            Ok(revision) => {
                index::reached(&mut self.newest(), revision).await;
                self.sweep_later(&plan);
                Ok(Some(Authored { revision, plan }))
            }
            Err(StoreError::Conflict) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn admit(
        &self,
        base: Arc<Indexed>,
        proposal: Arc<Proposal>,
    ) -> Result<Plan, AuthorError> {
        let opened = self.opened(&base.set, &proposal).await?;
        let shared = self.shared.clone();
        let admitted = tokio::task::spawn_blocking(move || {
            let compiled = shared.compiled(&base);
            admit::admit(&Current { indexed: base, compiled, opened }, &proposal)
        });
        Ok(admitted.await.map_err(|_| AuthorError::Aborted)??)
    }

    /// Opens the stored secrets of documents that come with a secret, to see whether they differ.
    async fn opened(&self, set: &ResourceSet, proposal: &Proposal) -> Result<Secrets, AuthorError> {
        let mut opened = Secrets::new();
        for document in proposal.documents.iter().filter(|d| !d.secrets.is_empty()) {
            let Some(stored) = set.get(&document.resource.key) else { continue };
            for (_, reference) in stored.secret_refs() {
                let path = secret_path(&reference.secret);
                let Some(entry) = self.shared.store.get(&path).await? else { continue };
                match self.shared.vault.open(&path, &entry.value) {
                    Ok(secret) => drop(opened.insert(reference.secret.clone(), Arc::new(secret))),
                    // A secret that cannot be opened is replaced by the one that was sent.
                    Err(error) => tracing::warn!(%error, path, "a stored secret does not open"),
                }
            }
        }
        Ok(opened)
    }

    fn seal(&self, plan: &Plan) -> Result<Vec<(String, Vec<u8>)>, VaultError> {
        let seal = |(id, text): &(String, Secret<String>)| {
            let sealed = self.shared.vault.seal(&secret_path(id), text.expose().as_bytes())?;
            Ok((id.clone(), sealed))
        };
        plan.secrets.iter().map(seal).collect()
    }

    /// Definitions that no catalog refers to any more go after the change, not with it: there may
    /// be more of them than one transaction takes.
    fn sweep_later(&self, plan: &Plan) {
        let catalog = |resource: &Arc<Resource>| resource.key.kind == Kind::Catalog;
        let deleted = plan.steps.iter().filter(|step| step.after.is_none());
        let steps = deleted.filter_map(|step| step.before.as_ref());
        if plan.swept.iter().chain(steps).any(catalog) {
            let author = self.clone();
            weir_runtime::task::spawn("sweep", async move {
                if let Err(error) = author.sweep(None).await {
                    tracing::warn!(%error, "unused definitions could not be deleted");
                }
            });
        }
    }

    /// Compiles what comes by other ways (catalogs, other replicas, the start) when it comes, so
    /// that the next change of an operator does not wait for it. Ends with the index.
    pub fn keep_compiled(&self) -> impl Future<Output = ()> + Send + use<> {
        // What outlives the author must not keep its store open.
        let (shared, mut newest) = (Arc::downgrade(&self.shared), self.newest());
        async move {
            newest.mark_changed();
            while newest.changed().await.is_ok() {
                let base = newest.borrow_and_update().clone();
                let Some(shared) = shared.upgrade() else { return };
                let compile = move || drop(shared.compiled(&base));
                if let Err(error) = tokio::task::spawn_blocking(compile).await {
                    tracing::error!(%error, "compiling ahead aborted");
                }
                tokio::time::sleep(COMPILE_PAUSE).await;
            }
        }
    }

    /// Deletes definitions that no catalog refers to; with `among`, only some of these.
    ///
    /// # Errors
    /// Those of the store. What is left over is found by the next sweep.
    pub async fn sweep(&self, among: Option<BTreeSet<String>>) -> Result<(), AuthorError> {
        let among = Arc::new(among);
        let mut newest = self.newest();
        for _ in 0..TRIES_MAX {
            let base = newest.borrow_and_update().clone();
            let (looked_at, among) = (Arc::clone(&base), Arc::clone(&among));
            let look = move || unused_definitions(&looked_at.set, (*among).as_ref());
            let unused = tokio::task::spawn_blocking(look).await;
            let unused = unused.map_err(|_| AuthorError::Aborted)?;
            if unused.is_empty() {
                return Ok(());
            }
            let (guard, head) = index::head(base.revision);
            let some = unused.iter().take(bounds::COMMIT_OPS_MAX - 1);
            let ops = std::iter::once(head).chain(some.map(|key| Op::Delete(index::path(key))));
            match self.shared.store.commit(vec![guard], ops.collect()).await {
                Ok(revision) => drop(index::reached(&mut newest, revision).await),
                Err(StoreError::Conflict) => {
                    let _ = timeout(CATCH_UP, newest.changed()).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(AuthorError::Busy)
    }
}

impl Shared {
    /// The configuration, compiled; most of it was compiled before.
    fn compiled(&self, base: &Indexed) -> Arc<Snapshot> {
        let last = Arc::clone(&*self.compiled.lock());
        if last.source() == &base.set {
            return last;
        }
        let secrets = admit::stand_ins(&base.set);
        let compiled = Snapshot::compile(base.revision, &base.set, secrets, Some(&*last));
        let compiled = Arc::new(compiled);
        *self.compiled.lock() = Arc::clone(&compiled);
        compiled
    }
}

fn unused_definitions(set: &ResourceSet, among: Option<&BTreeSet<String>>) -> Vec<ResourceKey> {
    let asked = |name: &str| among.is_none_or(|among| among.contains(name));
    let catalogs = set.kinds_by_group().filter(|(kind, _)| *kind == Kind::Catalog);
    let used: std::collections::HashSet<String> = catalogs
        .flat_map(|(kind, group)| set.of_kind(kind, Some(group)))
        .filter_map(|resource| match &resource.spec {
            Spec::Catalog(catalog) => Some(catalog),
            _ => None,
        })
        .flat_map(|catalog| catalog.entries.iter().chain(&catalog.waiting).chain(&catalog.absent))
        .map(|entry| Definition::name_of(&entry.digest))
        .filter(|name| asked(name))
        .collect();
    let unused = |key: &ResourceKey| !used.contains(&key.name);
    match among {
        Some(among) => {
            let keys = among.iter().map(|name| ResourceKey::global(Kind::Definition, name));
            keys.filter(|key| unused(key) && set.get(key).is_some()).collect()
        }
        None => {
            let definitions = set.of_kind(Kind::Definition, None).map(|definition| &definition.key);
            definitions.filter(|key| unused(key)).cloned().collect()
        }
    }
}
