//! Secrets at rest: envelope encryption before anything reaches the store.
//!
//! Each secret has a data key of its own (AES-256-GCM); the data key is wrapped by a
//! key-encryption key that a [`KeyProvider`] holds. The envelope names that key, so keys can be
//! rotated: the newest seals, all of them open. The context (the path of the entry) is
//! authenticated: an envelope that was moved to another path does not open.
//!
//! Losing the key-encryption keys loses every secret; no copy of them is in the store.

mod keys;

pub use keys::{KeyProvider, LocalKeys, Wrapped};

use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use weir_model::secret::Secret;
use zeroize::Zeroize;

/// First bytes of every envelope; the last of them is the format's version.
const MAGIC: &[u8; 4] = b"WRV1";
/// Bytes of data keys and key-encryption keys.
const KEY_BYTES: usize = 32;

/// Why a secret could not be sealed or opened. Never says anything about the secret.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// Not written by a vault, or cut short.
    #[error("the sealed secret is damaged")]
    Damaged,
    /// The bytes, their path or their key differ from when they were sealed.
    #[error("the sealed secret does not belong here or was changed")]
    Forged,
    /// The key was retired too early.
    #[error("the secret is sealed with key {0}, which is not among the vault's keys; add it back")]
    UnknownKey(String),
    /// The keys cannot be read.
    #[error("the vault's keys: {0}")]
    Keys(String),
    /// The system has no randomness, or the key service did not answer.
    #[error("the secret could not be sealed: {0}")]
    Seal(String),
}

/// Seals and opens secrets. Cheap to clone.
#[derive(Clone)]
pub struct Vault {
    keys: Arc<dyn KeyProvider>,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault").field("seals_with", &self.keys.newest()).finish()
    }
}

impl Vault {
    /// A vault over these keys.
    pub fn new(keys: Arc<dyn KeyProvider>) -> Self {
        Self { keys }
    }

    /// Seals `plain` for the entry at `context`.
    ///
    /// # Errors
    /// [`VaultError::Seal`] without randomness or without the key service.
    pub fn seal(&self, context: &str, plain: &[u8]) -> Result<Vec<u8>, VaultError> {
        let mut data_key = [0; KEY_BYTES];
        aws_lc_rs::rand::fill(&mut data_key)
            .map_err(|_| VaultError::Seal("no randomness".to_owned()))?;
        let sealed = self.seal_with(&data_key, context, plain);
        data_key.zeroize();
        sealed
    }

    fn seal_with(
        &self,
        data_key: &[u8; KEY_BYTES],
        context: &str,
        plain: &[u8],
    ) -> Result<Vec<u8>, VaultError> {
        let wrapped = self.keys.wrap(data_key, &about("key", context))?;
        let body = aead_seal(data_key, &about("data", context), plain)?;
        let mut out = Vec::with_capacity(body.len() + wrapped.bytes.len() + 64);
        out.extend_from_slice(MAGIC);
        for part in [wrapped.key.as_bytes(), &wrapped.bytes] {
            let length = u16::try_from(part.len())
                .map_err(|_| VaultError::Seal("the key service's answer is too long".into()))?;
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(part);
        }
        out.extend_from_slice(&body);
        Ok(out)
    }

    /// Opens what [`Vault::seal`] made for the same context.
    ///
    /// # Errors
    /// When it is damaged, was made for another context, or its key is gone.
    pub fn open(&self, context: &str, sealed: &[u8]) -> Result<Secret<Vec<u8>>, VaultError> {
        let (key, wrapped, body) = split(sealed)?;
        let data_key = self.keys.unwrap(key, wrapped, &about("key", context))?;
        aead_open(data_key.expose(), &about("data", context), body)
    }

    /// True when the newest key did not seal this: seal it anew before that key is retired.
    pub fn is_outdated(&self, sealed: &[u8]) -> bool {
        split(sealed).is_ok_and(|(key, _, _)| key != self.keys.newest())
    }
}

/// What an AEAD authenticates beside its text; the parts cannot run into each other.
fn about(what: &str, context: &str) -> Vec<u8> {
    format!("weir-vault\0{what}\0{context}").into_bytes()
}

/// Key id, wrapped data key, body.
fn split(sealed: &[u8]) -> Result<(&str, &[u8], &[u8]), VaultError> {
    fn part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
        let (length, rest) = bytes.split_first_chunk::<2>()?;
        rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
    }
    let rest = sealed.strip_prefix(MAGIC).ok_or(VaultError::Damaged)?;
    let (key, rest) = part(rest).ok_or(VaultError::Damaged)?;
    let (wrapped, body) = part(rest).ok_or(VaultError::Damaged)?;
    Ok((std::str::from_utf8(key).map_err(|_| VaultError::Damaged)?, wrapped, body))
}

/// Nonce, then ciphertext with its tag.
fn aead_seal(key: &[u8], about: &[u8], plain: &[u8]) -> Result<Vec<u8>, VaultError> {
    let failed = |_| VaultError::Seal("the cipher refused".to_owned());
    let key = RandomizedNonceKey::new(&AES_256_GCM, key).map_err(failed)?;
    let mut text = plain.to_vec();
    let nonce = key.seal_in_place_append_tag(Aad::from(about), &mut text).map_err(failed)?;
    let mut out = Vec::with_capacity(NONCE_LEN + text.len());
    out.extend_from_slice(nonce.as_ref());
    out.extend_from_slice(&text);
    Ok(out)
}

fn aead_open(key: &[u8], about: &[u8], sealed: &[u8]) -> Result<Secret<Vec<u8>>, VaultError> {
    let (nonce, text) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(VaultError::Damaged)?;
    let key = RandomizedNonceKey::new(&AES_256_GCM, key).map_err(|_| VaultError::Damaged)?;
    let mut text = text.to_vec();
    let length = key
        .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(about), &mut text)
        .map_err(|_| VaultError::Forged)?
        .len();
    text.truncate(length);
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault(keys: &[&str]) -> Vault {
        Vault::new(Arc::new(LocalKeys::parse(&keys.join("\n")).unwrap()))
    }

    fn key() -> String {
        LocalKeys::generate().unwrap().expose().clone()
    }

    #[test]
    fn opens_what_it_sealed_and_only_there() {
        let vault = vault(&[&key()]);
        let sealed = vault.seal("secrets/a", b"s3cr3t").unwrap();
        assert_eq!(vault.open("secrets/a", &sealed).unwrap().expose(), b"s3cr3t");
        assert!(matches!(vault.open("secrets/b", &sealed), Err(VaultError::Forged)));
        assert_ne!(vault.seal("secrets/a", b"s3cr3t").unwrap(), sealed, "a fresh key and nonce");
        assert!(!sealed.windows(6).any(|w| w == b"s3cr3t"));
        assert!(vault.open("x", &vault.seal("x", b"").unwrap()).unwrap().expose().is_empty());
    }

    #[test]
    fn any_changed_or_missing_byte_is_noticed() {
        let vault = vault(&[&key()]);
        let sealed = vault.seal("c", b"text").unwrap();
        for at in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            assert!(vault.open("c", &bad).is_err(), "byte {at}");
            assert!(vault.open("c", &sealed[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn keys_rotate() {
        let (old, new) = (key(), key());
        let before = vault(&[&old]);
        let sealed = before.seal("c", b"text").unwrap();
        let both = vault(&[&new, &old]);
        assert_eq!(both.open("c", &sealed).unwrap().expose(), b"text");
        assert!(both.is_outdated(&sealed) && !before.is_outdated(&sealed));
        let anew = both.seal("c", b"text").unwrap();
        assert!(!both.is_outdated(&anew));
        let after = vault(&[&new]);
        assert_eq!(after.open("c", &anew).unwrap().expose(), b"text");
        assert!(matches!(after.open("c", &sealed), Err(VaultError::UnknownKey(_))));
    }

    #[test]
    fn nothing_shows_a_key() {
        let text = key();
        let keys = LocalKeys::parse(&text).unwrap();
        assert!(!format!("{keys:?}").contains(&text[..8]));
    }
}
