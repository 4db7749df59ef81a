//! The keyring `sessions`: keys that seal session ids and cursors, the same for every proxy.
//!
//! Made on first start by whichever replica comes first; the keys themselves are sealed secrets
//! like any other, and reach proxies in the same way.

use std::sync::Arc;

use aws_lc_rs::rand;
use uuid::Uuid;
use weir_model::resource::{
    FieldError, Keyring, KeyringEntry, Kind, Resource, ResourceKey, SecretRef, Spec,
};

use crate::admit::secret_path;
use crate::index;
use crate::store::{Op, Store, StoreError};
use crate::vault::{Vault, VaultError};

/// The name under which proxies look.
pub const SESSIONS: &str = "sessions";
/// Attempts while others change the configuration too.
const TRIES_MAX: usize = 32;

/// Why there is no keyring.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The vault.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The system gives no random bytes.
    #[error("no random bytes can be had")]
    Random,
    /// The document was refused by its own kind.
    #[error("the keyring cannot be written: {0:?}")]
    Unfit(Vec<FieldError>),
}

/// Makes the keyring unless there is one.
///
/// # Errors
/// See [`KeyringError`].
pub async fn ensure(store: &Arc<dyn Store>, vault: &Vault) -> Result<(), KeyringError> {
    let key = ResourceKey::global(Kind::Keyring, SESSIONS);
    for _ in 0..TRIES_MAX {
        let (indexed, _) = index::Indexed::load(&**store).await?;
        if indexed.set.get(&key).is_some() {
            return Ok(());
        }
        let id = Uuid::new_v4().simple().to_string();
        let mut bytes = [0; 32];
        rand::fill(&mut bytes).map_err(|_| KeyringError::Random)?;
        let path = secret_path(&id);
        let sealed = vault.seal(&path, &bytes)?;
        let entry = KeyringEntry { id: id[..8].to_owned(), key: SecretRef { secret: id } };
        let ring = Resource::new(key.clone(), Spec::Keyring(Keyring { keys: vec![entry] }))
            .map_err(KeyringError::Unfit)?;
        let (guard, head) = index::head(indexed.revision);
        let ops = vec![
            head,
            Op::Put(path, sealed.into()),
            Op::Put(index::path(&ring.key), ring.canonical.clone()),
        ];
        match store.commit(vec![guard], ops).await {
            Ok(_) => return Ok(()),
            Err(StoreError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(KeyringError::Store(StoreError::Conflict))
}
