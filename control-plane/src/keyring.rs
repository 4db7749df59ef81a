//! The keyring `sessions`: keys that seal session ids, cursors, task ids and the like, the same
//! for every proxy, and what rotates them.
//!
//! The first key is made by whichever replica comes first; keys are sealed secrets like any other,
//! and reach proxies in the same way. The first entry of the document seals, all of them open. A
//! rotation has three steps, each one transaction that any replica may be the one to make
//! ([`rotation`] says when which is due):
//!
//! 1. a new key is added behind the others: proxies open with it and do not seal yet;
//! 2. after [`Timing::settle`] all of them have it, and it goes to the front;
//! 3. after [`Timing::overlap`] the one before is removed: what it sealed is unknown from then on.
//!
//! A leaked key is replaced at once ([`Keys::replace`]): nothing that was sealed before opens any
//! more, and every client begins anew. The document holds what proxies need and nothing else; when
//! which step was made stands beside it, under [`PATH`].

mod keeper;
pub mod rotation;

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::rand;
use serde::Serialize;
use uuid::Uuid;
use weir_model::id::Revision;
use weir_model::resource::{
    FieldError, Keyring, KeyringEntry, Kind, Resource, ResourceKey, SecretRef, Spec,
};
use weir_runtime::clock::SharedClock;

use crate::admit::secret_path;
use crate::index;
use crate::store::{Guard, HEAD, Op, Store, StoreError};
use crate::vault::{Vault, VaultError};

pub use keeper::keep;
pub use rotation::{Life, Lives, Step, Timing};

/// The name under which proxies look.
pub const SESSIONS: &str = "sessions";
/// Where it stands what became of each key when.
const PATH: &str = "state/keyring/sessions";
/// Attempts while others change the configuration too.
const TRIES_MAX: usize = 32;

/// Why there is no keyring, or none that is changed.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The vault.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// There is a document, and it cannot be read.
    #[error("the keyring cannot be read: was it written by a newer build?")]
    Unreadable,
    /// The system gives no random bytes.
    #[error("no random bytes can be had")]
    Random,
    /// The document was refused by its own kind.
    #[error("the keyring cannot be written: {0:?}")]
    Unfit(Vec<FieldError>),
}

/// One key, for operators. Never the key itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Key {
    /// What stands in front of the tokens that it seals.
    pub id: String,
    /// The one that seals now.
    pub seals: bool,
    /// Its life so far.
    #[serde(flatten)]
    pub life: Life,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// Which step.
    pub step: Step,
    /// The revision that it made.
    pub revision: Revision,
}

/// The keyring in the store. Cheap to clone.
#[derive(Clone)]
pub struct Keys {
    store: Arc<dyn Store>,
    vault: Vault,
    clock: SharedClock,
    timing: Timing,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("timing", &self.timing).finish_non_exhaustive()
    }
}

/// The document and what is known of its keys, at one revision.
struct Found {
    ring: Option<Keyring>,
    lives: Lives,
    guards: Vec<Guard>,
    head: Op,
}

impl Keys {
    /// The keyring of a store whose secrets the vault seals.
    pub fn new(store: Arc<dyn Store>, vault: Vault, clock: SharedClock, timing: Timing) -> Self {
        Self { store, vault, clock, timing }
    }

    fn now(&self) -> i64 {
        i64::try_from(self.clock.now_secs()).unwrap_or(i64::MAX)
    }

    /// Makes the keyring unless there is one.
    ///
    /// # Errors
    /// See [`KeyringError`].
    pub async fn ensure(&self) -> Result<(), KeyringError> {
        self.change(|ring, _| ring.keys.is_empty().then_some(Step::Replace)).await.map(drop)
    }

    /// Makes the step that is due, if one is.
    ///
    /// # Errors
    /// See [`KeyringError`].
    pub async fn turn(&self) -> Result<Option<Done>, KeyringError> {
        let (now, timing) = (self.now(), self.timing);
        self.change(|ring, lives| rotation::due(ring, lives, now, timing)).await
    }

    /// Begins a rotation before its time; none when one is on its way already.
    ///
    /// # Errors
    /// See [`KeyringError`].
    pub async fn rotate(&self) -> Result<Option<Done>, KeyringError> {
        self.change(|ring, lives| rotation::begins(ring, lives).then_some(Step::Add)).await
    }

    /// A new key, and no other: everything that was sealed before is void.
    ///
    /// # Errors
    /// See [`KeyringError`].
    pub async fn replace(&self) -> Result<Option<Done>, KeyringError> {
        self.change(|_, _| Some(Step::Replace)).await
    }

    /// All keys, the sealing one first.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn list(&self) -> Result<Vec<Key>, KeyringError> {
        let found = self.find().await?;
        let keys = found.ring.map(|ring| ring.keys).unwrap_or_default();
        let of = |(at, entry): (usize, KeyringEntry)| {
            let life = found.lives.get(&entry.id).copied().unwrap_or_default();
            Key { id: entry.id, seals: at == 0, life }
        };
        Ok(keys.into_iter().enumerate().map(of).collect())
    }

    async fn find(&self) -> Result<Found, KeyringError> {
        // The revision comes first: what is read after it may be newer, and then the guard fails.
        let head = self.store.get(HEAD).await?.map_or(Revision(0), |entry| entry.revision);
        let key = ResourceKey::global(Kind::Keyring, SESSIONS);
        let ring = match self.store.get(&index::path(&key)).await? {
            None => None,
            Some(entry) => match Resource::from_canonical(entry.value).map(|read| read.spec) {
                Ok(Spec::Keyring(ring)) => Some(ring),
                // Never taken for none: new keys would end every session.
                _ => return Err(KeyringError::Unreadable),
            },
        };
        let state = self.store.get(PATH).await?;
        let lives = state.as_ref().and_then(|entry| serde_json::from_slice(&entry.value).ok());
        let at = state.map_or(Revision(0), |entry| entry.revision);
        let (guard, head) = index::head(head);
        let guards = vec![guard, Guard { key: PATH.to_owned(), revision: at }];
        Ok(Found { ring, lives: lives.unwrap_or_default(), guards, head })
    }

    /// Makes a step in one transaction; decides anew when somebody else was faster.
    async fn change(
        &self,
        decide: impl Fn(&Keyring, &Lives) -> Option<Step>,
    ) -> Result<Option<Done>, KeyringError> {
        for _ in 0..TRIES_MAX {
            let Found { ring, mut lives, guards, head } = self.find().await?;
            let mut ring = ring.unwrap_or(Keyring { keys: Vec::new() });
            let now = self.now();
            // Of a key that is older than what is known, its life begins now.
            let fresh = rotation::adopt(&ring, &mut lives, now);
            let step = decide(&ring, &lives);
            if step.is_none() && !fresh {
                return Ok(None);
            }
            let mut ops = vec![head];
            if let Some(step) = &step {
                self.make(step, (&mut ring, &mut lives), &mut ops)?;
            }
            let state =
                serde_json::to_vec(&lives).map_err(|e| StoreError::Corrupt(e.to_string()))?;
            ops.push(Op::Put(PATH.to_owned(), state.into()));
            match self.store.commit(guards, ops).await {
                Ok(revision) => return Ok(step.map(|step| Done { step, revision })),
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(KeyringError::Store(StoreError::Conflict))
    }

    fn make(
        &self,
        step: &Step,
        (ring, lives): (&mut Keyring, &mut Lives),
        ops: &mut Vec<Op>,
    ) -> Result<(), KeyringError> {
        let gone: Vec<String> = ring.keys.iter().map(|k| k.key.secret.clone()).collect();
        let made = match step {
            Step::Add | Step::Replace => {
                let id = Uuid::new_v4().simple().to_string();
                let mut bytes = [0; 32];
                rand::fill(&mut bytes).map_err(|_| KeyringError::Random)?;
                let path = secret_path(&id);
                ops.push(Op::Put(path.clone(), self.vault.seal(&path, &bytes)?.into()));
                Some(KeyringEntry { id: id[..8].to_owned(), key: SecretRef { secret: id } })
            }
            Step::Promote(_) | Step::Remove(_) => None,
        };
        rotation::apply(step, made, (ring, lives), self.now());
        let left: Vec<&str> = ring.keys.iter().map(|k| k.key.secret.as_str()).collect();
        let gone = gone.iter().filter(|secret| !left.contains(&secret.as_str()));
        ops.extend(gone.map(|secret| Op::Delete(secret_path(secret))));
        let key = ResourceKey::global(Kind::Keyring, SESSIONS);
        let ring = Resource::new(key, Spec::Keyring(ring.clone())).map_err(KeyringError::Unfit)?;
        ops.push(Op::Put(index::path(&ring.key), ring.canonical.clone()));
        Ok(())
    }
}

/// What is kept of keys: by id.
pub type ById = BTreeMap<String, Life>;

#[cfg(test)]
mod tests;
