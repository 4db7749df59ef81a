//! Where key-encryption keys come from.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use weir_model::id::Digest;
use weir_model::secret::Secret;
use zeroize::Zeroize;

use super::{KEY_BYTES, VaultError, aead_open, aead_seal};

/// Holds key-encryption keys: a file here, an external key service elsewhere.
pub trait KeyProvider: Send + Sync + 'static {
    /// Id of the key that seals.
    fn newest(&self) -> &str;

    /// Wraps a data key with the newest key. `about` is authenticated with it.
    ///
    /// # Errors
    /// [`VaultError::Seal`].
    fn wrap(&self, data_key: &[u8], about: &[u8]) -> Result<Wrapped, VaultError>;

    /// Unwraps a data key that the key of that id wrapped.
    ///
    /// # Errors
    /// [`VaultError::UnknownKey`], or [`VaultError::Forged`] when it is not what was wrapped.
    fn unwrap(
        &self,
        key: &str,
        wrapped: &[u8],
        about: &[u8],
    ) -> Result<Secret<Vec<u8>>, VaultError>;
}

/// A data key, wrapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrapped {
    /// The id of the key that wrapped it.
    pub key: String,
    /// The wrapped data key.
    pub bytes: Vec<u8>,
}

/// Keys that this process holds: one per line, 32 bytes in base64, newest first. Empty lines and
/// lines that start with `#` count for nothing. A key's id derives from the key.
#[derive(Debug)]
pub struct LocalKeys {
    keys: Vec<(String, Secret<[u8; KEY_BYTES]>)>,
}

impl LocalKeys {
    /// Reads keys from the text of a file or variable.
    ///
    /// # Errors
    /// [`VaultError::Keys`] with the number of the line at fault, never its text.
    pub fn parse(text: &str) -> Result<Self, VaultError> {
        let mut keys = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut bytes = STANDARD.decode(line).unwrap_or_default();
            let key = <[u8; KEY_BYTES]>::try_from(&bytes[..]);
            bytes.zeroize();
            let key = key.map_err(|_| {
                VaultError::Keys(format!(
                    "line {} is no base64 of {KEY_BYTES} bytes (make one with \
                     `openssl rand -base64 32`)",
                    at + 1
                ))
            })?;
            let id = Digest::of_parts(&[b"weir-key-id\0", &key]).hex()[..16].to_owned();
            keys.push((id, Secret::new(key)));
        }
        if keys.is_empty() {
            return Err(VaultError::Keys(
                "there is none (make one with `openssl rand -base64 32`)".to_owned(),
            ));
        }
        Ok(Self { keys })
    }

    /// Reads a file of keys.
    ///
    /// # Errors
    /// [`VaultError::Keys`].
    pub fn read(path: &Path) -> Result<Self, VaultError> {
        let mut text = std::fs::read_to_string(path)
            .map_err(|e| VaultError::Keys(format!("{}: {e}", path.display())))?;
        let keys = Self::parse(&text);
        text.zeroize();
        keys
    }

    /// Reads a file of keys; makes it with one fresh key, readable by its owner alone, where it
    /// does not exist.
    ///
    /// # Errors
    /// [`VaultError::Keys`].
    pub fn read_or_make(path: &Path) -> Result<Self, VaultError> {
        let failed = |e: std::io::Error| VaultError::Keys(format!("{}: {e}", path.display()));
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        match options.open(path) {
            Ok(mut file) => {
                let key = Self::generate()?;
                std::io::Write::write_all(&mut file, format!("{}\n", key.expose()).as_bytes())
                    .and_then(|()| file.sync_all())
                    .map_err(failed)?;
            }
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(failed(e)),
        }
        Self::read(path)
    }

    /// A fresh key as a line of text.
    ///
    /// # Errors
    /// [`VaultError::Keys`] without randomness.
    pub fn generate() -> Result<Secret<String>, VaultError> {
        let mut key = [0; KEY_BYTES];
        aws_lc_rs::rand::fill(&mut key)
            .map_err(|_| VaultError::Keys("no randomness".to_owned()))?;
        let text = STANDARD.encode(key);
        key.zeroize();
        Ok(Secret::new(text))
    }
}

impl KeyProvider for LocalKeys {
    fn newest(&self) -> &str {
        &self.keys[0].0
    }

    fn wrap(&self, data_key: &[u8], about: &[u8]) -> Result<Wrapped, VaultError> {
        let (id, key) = &self.keys[0];
        let bytes = aead_seal(key.expose(), about, data_key)?;
        Ok(Wrapped { key: id.clone(), bytes })
    }

    fn unwrap(
        &self,
        key: &str,
        wrapped: &[u8],
        about: &[u8],
    ) -> Result<Secret<Vec<u8>>, VaultError> {
        let found = self.keys.iter().find(|(id, _)| id == key);
        let (_, key) = found.ok_or_else(|| VaultError::UnknownKey(printable(key)))?;
        aead_open(key.expose(), about, wrapped)
    }
}

/// An id out of a damaged envelope may be anything.
fn printable(id: &str) -> String {
    id.chars().filter(char::is_ascii_alphanumeric).take(32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_keys_are_refused_by_line_without_showing_them() {
        let good = LocalKeys::generate().unwrap();
        for (text, expect) in [
            (String::new(), "there is none"),
            ("# only\n\n".to_owned(), "there is none"),
            ("c2hvcnQ=".to_owned(), "line 1"),
            (format!("{}\nnot*base64", good.expose()), "line 2"),
        ] {
            let error = LocalKeys::parse(&text).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
            assert!(!error.contains("c2hv") && !error.contains("not*"), "{error}");
        }
    }

    #[test]
    fn a_made_file_is_private_and_lasts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let first = LocalKeys::read_or_make(&path).unwrap();
        let second = LocalKeys::read_or_make(&path).unwrap();
        assert_eq!(first.newest(), second.newest());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}
