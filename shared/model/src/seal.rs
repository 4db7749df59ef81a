//! Sealing: tokens that only Weir can read, and secrets that only one node can read.
//!
//! [`Sealer`] makes the sealed session ids, cursors and states that travel through clients. A
//! token is bound to a purpose and to associated data (principal, group, server, ...); changing
//! either makes it unreadable, and so does changing one character of it.
//!
//! [`NodeKey`] and [`seal_to`] carry secrets from the control plane to one proxy, which alone
//! holds the private half.

mod node;

pub use node::{NODE_KEY_BYTES, NodeKey, NodePublic, seal_to};

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::bounds;
use crate::secret::Secret;

/// Length of the keys that a [`Sealer`] takes.
pub const SEALING_KEY_BYTES: usize = 32;

/// Random bytes in front of each ciphertext: one half makes the key, the other is the nonce, so
/// that no number of tokens in the life of a keyring makes a collision likely.
const SALT_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
const HEAD_BYTES: usize = SALT_BYTES + NONCE_LEN;
/// Longest key id that may stand in front of a token.
const KEY_ID_CHARS_MAX: usize = 16;

/// Why something cannot be sealed or opened. Says nothing about keys or content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The keyring is empty.
    #[error("there is no key to seal with")]
    NoKey,
    /// A key has the wrong length, or an id that cannot stand in a token.
    #[error("a sealing key is malformed")]
    BadKey,
    /// More than [`bounds::SEALED_BYTES_MAX`] once sealed.
    #[error("too long to be sealed")]
    TooLong,
    /// Not a sealed token, or longer than any that we make.
    #[error("this is no sealed token")]
    Malformed,
    /// Sealed with a key that is not (or no longer) in the keyring.
    #[error("sealed with an unknown key")]
    UnknownKey,
    /// Made for something else, for somebody else, or altered.
    #[error("the sealed token does not fit")]
    Mismatch,
}

/// Seals and opens tokens with a keyring: the first key seals, all of them open.
///
/// Build one per snapshot; it is cheap, and opening takes a few microseconds.
pub struct Sealer {
    keys: Vec<(String, hkdf::Prk)>,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|(id, _)| id)).finish()
    }
}

impl Sealer {
    /// Takes the keys of [`crate::snapshot::Snapshot::sealing`], newest first.
    ///
    /// # Errors
    /// [`SealError::NoKey`] for an empty keyring, [`SealError::BadKey`] for a malformed one.
    pub fn new(keys: &[(String, Arc<Secret<Vec<u8>>>)]) -> Result<Self, SealError> {
        if keys.is_empty() {
            return Err(SealError::NoKey);
        }
        let keys = keys
            .iter()
            .map(|(id, key)| {
                let key = key.expose();
                if !is_key_id(id) || key.len() != SEALING_KEY_BYTES {
                    return Err(SealError::BadKey);
                }
                Ok((id.clone(), hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, key)))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { keys })
    }

    /// Seals `plain` for `purpose`, bound to `aad`. The result is `{key id}.{base64url}`: visible
    /// ASCII without a character that headers, URLs or JSON would escape.
    ///
    /// # Errors
    /// [`SealError::TooLong`] when the token would exceed [`bounds::SEALED_BYTES_MAX`].
    pub fn seal(&self, purpose: &str, aad: &[u8], plain: &[u8]) -> Result<String, SealError> {
        self.seal_within(bounds::SEALED_BYTES_MAX, purpose, aad, plain)
    }

    /// The same for ids that their holders compare: the same content, sealed for the same with the
    /// same key, is the same token. It shows that two of them are equal, and nothing else.
    ///
    /// # Errors
    /// As [`Self::seal`].
    pub fn seal_same(&self, purpose: &str, aad: &[u8], plain: &[u8]) -> Result<String, SealError> {
        let (_, prk) = self.keys.first().ok_or(SealError::NoKey)?;
        let length = |part: &[u8]| (part.len() as u64).to_be_bytes();
        let lengths = [length(purpose.as_bytes()), length(aad)].concat();
        // A synthetic nonce: it repeats with everything else, and never otherwise.
        let info: [&[u8]; 5] = [b"weir seal same v1\0", &lengths, purpose.as_bytes(), aad, plain];
        let okm = prk.expand(&info, HeadBytes).map_err(|_| SealError::BadKey)?;
        let mut head = [0; HEAD_BYTES];
        okm.fill(&mut head).map_err(|_| SealError::BadKey)?;
        self.seal_with(head, bounds::SEALED_BYTES_MAX, (purpose, aad), plain)
    }

    /// The same for tokens that travel in bodies and may be longer.
    ///
    /// # Errors
    /// [`SealError::TooLong`] when the token would exceed `max` bytes.
    pub fn seal_within(
        &self,
        max: usize,
        purpose: &str,
        aad: &[u8],
        plain: &[u8],
    ) -> Result<String, SealError> {
        let mut head = [0; HEAD_BYTES];
        fill_random(&mut head);
        self.seal_with(head, max, (purpose, aad), plain)
    }

    fn seal_with(
        &self,
        head: [u8; HEAD_BYTES],
        max: usize,
        (purpose, aad): (&str, &[u8]),
        plain: &[u8],
    ) -> Result<String, SealError> {
        let (id, prk) = self.keys.first().ok_or(SealError::NoKey)?;
        let body_bytes = HEAD_BYTES + plain.len() + TAG_BYTES;
        if id.len() + 1 + body_bytes.div_ceil(3) * 4 > max {
            return Err(SealError::TooLong);
        }
        let mut body = Vec::with_capacity(body_bytes);
        body.extend_from_slice(&head);
        let (key, nonce) = derive(prk, purpose, &body)?;
        let mut sealed = plain.to_vec();
        key.seal_in_place_append_tag(nonce, Aad::from(aad), &mut sealed)
            .map_err(|_| SealError::TooLong)?;
        body.append(&mut sealed);
        let mut text = String::with_capacity(id.len() + 1 + body.len().div_ceil(3) * 4);
        text.push_str(id);
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(&body, &mut text);
        Ok(text)
    }

    /// Opens what [`Self::seal`] made for the same purpose and associated data.
    ///
    /// # Errors
    /// See [`SealError`]. Towards a client all of them are the same.
    pub fn open(&self, purpose: &str, aad: &[u8], text: &str) -> Result<Vec<u8>, SealError> {
        self.open_within(bounds::SEALED_BYTES_MAX, purpose, aad, text)
    }

    /// Opens what [`Self::seal_within`] made.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_within(
        &self,
        max: usize,
        purpose: &str,
        aad: &[u8],
        text: &str,
    ) -> Result<Vec<u8>, SealError> {
        if text.len() > max {
            return Err(SealError::Malformed);
        }
        let (id, body) = text.split_once('.').ok_or(SealError::Malformed)?;
        let (_, prk) = self.keys.iter().find(|(k, _)| k == id).ok_or(SealError::UnknownKey)?;
        let mut body = URL_SAFE_NO_PAD.decode(body).map_err(|_| SealError::Malformed)?;
        if body.len() < HEAD_BYTES + TAG_BYTES {
            return Err(SealError::Malformed);
        }
        let (key, nonce) = derive(prk, purpose, &body[..HEAD_BYTES])?;
        let plain = key
            .open_in_place(nonce, Aad::from(aad), &mut body[HEAD_BYTES..])
            .map_err(|_| SealError::Mismatch)?;
        Ok(plain.to_vec())
    }
}

/// Length of what stands in front of a ciphertext, for the key derivation.
struct HeadBytes;

impl hkdf::KeyType for HeadBytes {
    fn len(&self) -> usize {
        HEAD_BYTES
    }
}

fn is_key_id(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= KEY_ID_CHARS_MAX
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// The key and nonce of one token.
fn derive(prk: &hkdf::Prk, purpose: &str, head: &[u8]) -> Result<(LessSafeKey, Nonce), SealError> {
    let (salt, nonce) = head.split_at(SALT_BYTES);
    let info: [&[u8]; 3] = [b"weir seal v1\0", salt, purpose.as_bytes()];
    let okm = prk.expand(&info, &AES_256_GCM).map_err(|_| SealError::BadKey)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Malformed)?;
    Ok((LessSafeKey::new(UnboundKey::from(okm)), nonce))
}

fn fill_random(out: &mut [u8]) {
    aws_lc_rs::rand::fill(out).expect("the operating system gives random bytes");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str, byte: u8) -> (String, Arc<Secret<Vec<u8>>>) {
        (id.to_owned(), Arc::new(Secret::new(vec![byte; SEALING_KEY_BYTES])))
    }

    #[test]
    fn tokens_round_trip_and_are_never_alike() {
        let sealer = Sealer::new(&[key("k1", 1)]).unwrap();
        let a = sealer.seal("session", b"alice", b"state").unwrap();
        let b = sealer.seal("session", b"alice", b"state").unwrap();
        assert_ne!(a, b);
        assert!(a.starts_with("k1.") && a.bytes().all(|b| (0x21..=0x7e).contains(&b)));
        for token in [&a, &b] {
            assert_eq!(sealer.open("session", b"alice", token).unwrap(), b"state");
        }
    }

    #[test]
    fn a_token_fits_one_purpose_one_binding_and_no_other_text() {
        let sealer = Sealer::new(&[key("k1", 1)]).unwrap();
        let token = sealer.seal("session", b"alice", b"state").unwrap();
        assert_eq!(sealer.open("cursor", b"alice", &token), Err(SealError::Mismatch));
        assert_eq!(sealer.open("session", b"bob", &token), Err(SealError::Mismatch));
        for at in 3..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(bytes).unwrap();
            assert!(sealer.open("session", b"alice", &altered).is_err(), "at {at}");
        }
        for bad in ["", "k1", "k1.", "k1.AAAA", "k1.*", &token[..token.len() - 1]] {
            assert!(sealer.open("session", b"alice", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_same_is_the_same_token_where_that_is_wanted() {
        let sealer = Sealer::new(&[key("k1", 1)]).unwrap();
        let same = |purpose: &str, aad: &[u8], plain: &[u8]| {
            let token = sealer.seal_same(purpose, aad, plain).unwrap();
            assert_eq!(sealer.open(purpose, aad, &token).unwrap(), plain);
            token
        };
        let token = same("task", b"alice", b"t-1");
        assert_eq!(token, same("task", b"alice", b"t-1"));
        let others = [
            same("task", b"alice", b"t-2"),
            same("task", b"bob", b"t-1"),
            same("tasks", b"alice", b"t-1"),
            same("task", b"alicet", b"-1"),
            Sealer::new(&[key("k1", 2)]).unwrap().seal_same("task", b"alice", b"t-1").unwrap(),
        ];
        for other in others {
            assert_ne!(token[..20], other[..20], "the nonce differs too");
        }
        assert_eq!(sealer.open("task", b"bob", &token), Err(SealError::Mismatch));
    }

    #[test]
    fn keys_rotate() {
        let old = Sealer::new(&[key("k1", 1)]).unwrap();
        let both = Sealer::new(&[key("k2", 2), key("k1", 1)]).unwrap();
        let new = Sealer::new(&[key("k2", 2)]).unwrap();
        let token = old.seal("session", b"", b"x").unwrap();
        assert_eq!(both.open("session", b"", &token).unwrap(), b"x");
        assert_eq!(new.open("session", b"", &token), Err(SealError::UnknownKey));
        assert!(both.seal("session", b"", b"x").unwrap().starts_with("k2."));
    }

    #[test]
    fn bounds_hold_on_both_ways() {
        let sealer = Sealer::new(&[key("k1", 1)]).unwrap();
        let most = (bounds::SEALED_BYTES_MAX - 3) / 4 * 3 - HEAD_BYTES - TAG_BYTES - 3;
        let token = sealer.seal("session", b"", &vec![0; most]).unwrap();
        assert!(token.len() <= bounds::SEALED_BYTES_MAX);
        assert_eq!(sealer.open("session", b"", &token).unwrap().len(), most);
        let over = vec![0; bounds::SEALED_BYTES_MAX];
        assert_eq!(sealer.seal("session", b"", &over), Err(SealError::TooLong));
        let long = format!("k1.{}", "A".repeat(bounds::SEALED_BYTES_MAX));
        assert_eq!(sealer.open("session", b"", &long), Err(SealError::Malformed));
    }

    #[test]
    fn malformed_keyrings_are_refused() {
        assert_eq!(Sealer::new(&[]).unwrap_err(), SealError::NoKey);
        assert_eq!(Sealer::new(&[key("a.b", 1)]).unwrap_err(), SealError::BadKey);
        let short = ("k".to_owned(), Arc::new(Secret::new(vec![0; 31])));
        assert_eq!(Sealer::new(&[short]).unwrap_err(), SealError::BadKey);
    }
}
