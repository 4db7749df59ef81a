//! The store of a control plane that runs alone: one redb file, or memory.
//!
//! It promises what etcd promises: a revision that grows with every transaction that changes
//! something, entries that know the revision that last changed them, commits that are on disk
//! before they are answered, and a bounded history from which watchers catch up. Clones share
//! the file. A second process that opens the same file is refused.
//!
//! Work on the file runs on blocking threads, and goes on when its caller stops waiting: a commit
//! that timed out may have been applied.

mod tables;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream;
use redb::backends::InMemoryBackend;
use redb::{Database, DatabaseError};
use tokio::sync::watch;
use weir_model::bounds;
use weir_model::id::Revision;

use super::{Change, Changes, Entry, Guard, Listing, Op, Store, StoreError, check_size};

/// How much history watchers may catch up from. The oldest goes when either is exceeded.
#[derive(Debug, Clone, Copy)]
pub struct History {
    /// Revisions.
    pub revisions_max: u64,
    /// Bytes of keys and values.
    pub bytes_max: u64,
}

impl Default for History {
    fn default() -> Self {
        Self {
            revisions_max: bounds::STORE_HISTORY_REVISIONS_MAX,
            bytes_max: bounds::STORE_HISTORY_BYTES_MAX,
        }
    }
}

/// See the module.
#[derive(Clone)]
pub struct Embedded {
    shared: Arc<Shared>,
}

struct Shared {
    db: Database,
    history: History,
    /// The newest committed revision; wakes watchers.
    newest: watch::Sender<u64>,
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Embedded").field("newest", &*self.shared.newest.borrow()).finish()
    }
}

impl Embedded {
    /// Opens the file, or makes it, readable by its owner alone.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when it is open elsewhere or cannot be read;
    /// [`StoreError::Corrupt`] when it is no store of this build.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        make_private(path)
            .map_err(|e| StoreError::Unavailable(format!("cannot open {}: {e}", path.display())))?;
        let db = Database::create(path).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => StoreError::Unavailable(format!(
                "{} is in use: another control plane has it open; stop it, or give this one a \
                 data folder of its own",
                path.display()
            )),
            DatabaseError::UpgradeRequired(_) | DatabaseError::LockProtocolMismatch => {
                StoreError::Corrupt(format!("{}: {error}", path.display()))
            }
            error => StoreError::Unavailable(format!("cannot open {}: {error}", path.display())),
        })?;
        Self::with(db, History::default())
    }

    /// A store that is gone with its last clone.
    ///
    /// # Errors
    /// When memory cannot be had.
    pub fn in_memory(history: History) -> Result<Self, StoreError> {
        let db = Database::builder()
            .create_with_backend(InMemoryBackend::new())
            .map_err(|e| StoreError::Unavailable(e.to_string()))?;
        Self::with(db, history)
    }

    fn with(db: Database, history: History) -> Result<Self, StoreError> {
        let newest = tables::prepare(&db)?;
        let (newest, _) = watch::channel(newest);
        Ok(Self { shared: Arc::new(Shared { db, history, newest }) })
    }

    /// Forgets the history up to and including `revision`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.blocking(move |shared| tables::compact(&shared.db, revision.0)).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = self.shared.clone();
        let task = tokio::task::spawn_blocking(move || work(&shared));
        match tokio::time::timeout(Duration::from_millis(bounds::STORE_CALL_MS), task).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => Err(StoreError::Unavailable("the work on the file was aborted".into())),
            Err(_) => Err(StoreError::Unavailable("the file did not answer in time".into())),
        }
    }
}

/// Makes the file with narrow permissions before the database opens it with its own.
fn make_private(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

#[async_trait]
impl Store for Embedded {
    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        let prefix = prefix.to_owned();
        self.blocking(move |shared| tables::list(&shared.db, &prefix)).await
    }

    async fn list_at(&self, prefix: &str, revision: Revision) -> Result<Listing, StoreError> {
        let prefix = prefix.to_owned();
        self.blocking(move |shared| tables::list_at(&shared.db, &prefix, revision.0)).await
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let key = key.to_owned();
        self.blocking(move |shared| tables::get(&shared.db, &key)).await
    }

    async fn commit(&self, guards: Vec<Guard>, ops: Vec<Op>) -> Result<Revision, StoreError> {
        check_size(&guards, &ops)?;
        self.blocking(move |shared| {
            let revision = tables::commit(&shared.db, &guards, &ops, shared.history)?;
            // Commits wake watchers in any order; the number only grows.
            shared.newest.send_if_modified(|newest| {
                let grown = *newest < revision;
                *newest = (*newest).max(revision);
                grown
            });
            Ok(Revision(revision))
        })
        .await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Changes, StoreError> {
        let watcher = Watcher {
            store: self.clone(),
            woken: self.shared.newest.subscribe(),
            prefix: prefix.to_owned(),
            after: after.0,
            ready: Vec::new(),
        };
        // The first read happens here, so that compaction is told at once.
        let watcher = watcher.read().await?;
        Ok(Box::pin(stream::try_unfold(watcher, Watcher::next)))
    }
}

struct Watcher {
    store: Embedded,
    woken: watch::Receiver<u64>,
    prefix: String,
    /// Everything up to here was read.
    after: u64,
    /// Read and not handed out; newest first.
    ready: Vec<Change>,
}

impl Watcher {
    async fn next(mut self) -> Result<Option<(Change, Self)>, StoreError> {
        loop {
            if let Some(change) = self.ready.pop() {
                return Ok(Some((change, self)));
            }
            let after = self.after;
            if self.woken.wait_for(|newest| *newest > after).await.is_err() {
                return Ok(None);
            }
            self = self.read().await?;
        }
    }

    /// Reads the next run of history.
    async fn read(mut self) -> Result<Self, StoreError> {
        let (prefix, after) = (self.prefix.clone(), self.after);
        let read = move |shared: &Shared| tables::changes(&shared.db, &prefix, after);
        let (mut changes, upto) = self.store.blocking(read).await?;
        changes.reverse();
        self.ready = changes;
        self.after = upto;
        Ok(self)
    }
}
