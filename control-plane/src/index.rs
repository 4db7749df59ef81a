//! The configuration as this replica knows it: the store's documents, parsed, at one revision.
//!
//! A single task lists, then watches; readers get the newest state from a `watch` channel, so a
//! slow reader skips revisions instead of queueing them. When the store cannot be reached the last
//! state stays, and the task goes on trying; when history was compacted it lists again. A document
//! that this build cannot read stays in the set as unreadable, so that what depends on it is
//! quarantined and never served without it, and is reported in [`Indexed::broken`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use weir_model::bounds;
use weir_model::id::Revision;
use weir_model::resource::{FieldError, Resource, ResourceKey, ResourceSet};

use crate::store::{CONFIG, Change, Entry, Guard, HEAD, Listing, Op, Store, StoreError};

/// What both [`HEAD`] and all documents begin with.
const WATCHED: &str = "config";
/// First pause after the store failed; doubles up to the last.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_LAST: Duration = Duration::from_secs(5);

/// The configuration at one revision.
#[derive(Debug, Clone, Default)]
pub struct Indexed {
    /// Revision of [`crate::store::HEAD`].
    pub revision: Revision,
    /// All documents.
    pub set: ResourceSet,
    /// Documents of the store that cannot be read: path to what is wrong.
    pub broken: BTreeMap<String, String>,
}

/// The newest configuration and its changes.
pub type Newest = watch::Receiver<Arc<Indexed>>;

/// Where a document lives in the store.
pub fn path(key: &ResourceKey) -> String {
    format!("{CONFIG}{key}")
}

/// The guard and the operation that every change of documents carries, so that admission against
/// a whole set at `base` is guarded by one revision, and `base` moves.
pub fn head(base: Revision) -> (Guard, Op) {
    let guard = Guard { key: HEAD.to_owned(), revision: base };
    (guard, Op::Put(HEAD.to_owned(), bytes::Bytes::new()))
}

impl Indexed {
    /// Lists the configuration.
    ///
    /// # Errors
    /// Those of the store. Documents that cannot be read are no error, see [`Indexed::broken`].
    pub async fn load(store: &dyn Store) -> Result<(Self, Revision), StoreError> {
        let listing = store.list(WATCHED).await?;
        let listed = listing.revision;
        // Parsing a large configuration takes long enough to hold up other tasks.
        let indexed = tokio::task::spawn_blocking(move || Self::of(listing))
            .await
            .map_err(|_| StoreError::Unavailable("reading the configuration aborted".to_owned()))?;
        Ok((indexed, listed))
    }

    /// The configuration as it was at a revision, as far back as the store's history goes.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn past(store: &dyn Store, revision: Revision) -> Result<Self, StoreError> {
        let listing = store.list_at(WATCHED, revision).await?;
        tokio::task::spawn_blocking(move || Self::of(listing))
            .await
            .map_err(|_| StoreError::Unavailable("reading the configuration aborted".to_owned()))
    }

    fn of(listing: Listing) -> Self {
        let mut indexed = Self::default();
        for Entry { key, value, revision } in listing.entries {
            if key == HEAD {
                indexed.revision = revision;
            } else {
                indexed.put(&key, value);
            }
        }
        indexed
    }

    fn put(&mut self, path: &str, value: bytes::Bytes) {
        let Some(name) = path.strip_prefix(CONFIG) else { return };
        self.broken.remove(path);
        let why = match Resource::from_canonical(value.clone()) {
            Ok(resource) if resource.key.to_string() == name => {
                self.set.insert(Arc::new(resource));
                return;
            }
            Ok(resource) => format!("it says that it is {}", resource.key),
            Err(errors) => told(&errors),
        };
        tracing::error!(path, why, "a document of the store cannot be read");
        if let Some(key) = ResourceKey::parse(name) {
            self.set.insert(Arc::new(Resource::unreadable(key, value, why.clone())));
        }
        self.broken.insert(path.to_owned(), why);
    }

    fn remove(&mut self, path: &str) {
        self.broken.remove(path);
        if let Some(key) = path.strip_prefix(CONFIG).and_then(ResourceKey::parse) {
            self.set.remove(&key);
        }
    }

    fn apply(&mut self, change: Change) {
        for op in change.ops {
            match op {
                Op::Put(key, _) if key == HEAD => self.revision = change.revision,
                Op::Put(key, value) => self.put(&key, value),
                Op::Delete(key) if key == HEAD => self.revision = Revision(0),
                Op::Delete(key) => self.remove(&key),
            }
        }
    }
}

fn told(errors: &[FieldError]) -> String {
    let each = errors.iter().map(|e| format!("{}: {}", e.path, e.message));
    let text: Vec<_> = each.take(3).collect();
    text.join("; ")
}

/// The running index. Dropping it ends its task.
#[derive(Debug)]
pub struct Index {
    newest: Newest,
    /// False while the store cannot be watched.
    live: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

impl Drop for Index {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Index {
    /// Lists the configuration, then follows it until `stop`.
    ///
    /// # Errors
    /// When the first listing fails: a control plane that cannot read its store must not start.
    pub async fn start(store: Arc<dyn Store>, stop: CancellationToken) -> Result<Self, StoreError> {
        let (indexed, listed) = Indexed::load(&*store).await?;
        let (tell, newest) = watch::channel(Arc::new(indexed));
        let (tell_live, live) = watch::channel(true);
        let follower = Follower { store, tell, live: tell_live, seen: listed };
        let task = tokio::spawn(async move {
            stop.run_until_cancelled(follower.run()).await;
        });
        Ok(Self { newest, live, task })
    }

    /// The newest configuration.
    pub fn newest(&self) -> Newest {
        self.newest.clone()
    }

    /// Whether the store is being followed.
    pub fn live(&self) -> watch::Receiver<bool> {
        self.live.clone()
    }
}

/// Waits until the configuration is at `revision` or later; false when it takes too long.
pub async fn reached(newest: &mut Newest, revision: Revision) -> bool {
    let limit = Duration::from_millis(bounds::STORE_CALL_MS);
    let reached = newest.wait_for(|indexed| indexed.revision >= revision);
    matches!(tokio::time::timeout(limit, reached).await, Ok(Ok(_)))
}

struct Follower {
    store: Arc<dyn Store>,
    tell: watch::Sender<Arc<Indexed>>,
    live: watch::Sender<bool>,
    /// Everything up to here is in what readers have.
    seen: Revision,
}

impl Follower {
    async fn run(mut self) {
        let mut pause = PAUSE_FIRST;
        loop {
            let before = self.seen;
            let error = self.follow().await;
            self.live.send_replace(false);
            let lost = matches!(error, StoreError::Compacted(_) | StoreError::Corrupt(_))
                || self.went_back().await;
            tracing::warn!(%error, after = %self.seen, "the store's watch ended; trying again");
            if lost && self.list().await {
                pause = PAUSE_FIRST;
                continue;
            }
            if self.seen > before {
                pause = PAUSE_FIRST;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_LAST);
        }
    }

    /// Follows from the last seen revision, until the watch ends.
    async fn follow(&mut self) -> StoreError {
        let mut changes = match self.store.watch(WATCHED, self.seen).await {
            Ok(changes) => changes,
            Err(error) => return error,
        };
        self.live.send_replace(true);
        loop {
            match changes.next().await {
                Some(Ok(change)) => {
                    self.seen = change.revision;
                    let mut indexed = Indexed::clone(&self.tell.borrow());
                    indexed.apply(change);
                    self.tell.send_replace(Arc::new(indexed));
                }
                Some(Err(error)) => return error,
                None => return StoreError::Unavailable("the watch ended".to_owned()),
            }
        }
    }

    /// True when the store holds an older configuration than we do: it was restored from a backup,
    /// and a watch from our revision would wait for a future that may never come.
    async fn went_back(&self) -> bool {
        let ours = self.tell.borrow().revision;
        let head = self.store.get(HEAD).await;
        head.is_ok_and(|head| head.map_or(Revision(0), |head| head.revision) < ours)
    }

    /// Lists again after a gap; true when that went well.
    async fn list(&mut self) -> bool {
        match Indexed::load(&*self.store).await {
            Ok((indexed, listed)) => {
                self.seen = listed;
                self.tell.send_replace(Arc::new(indexed));
                true
            }
            Err(error) => {
                tracing::warn!(%error, "the configuration cannot be listed");
                false
            }
        }
    }
}
