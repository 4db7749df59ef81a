//! Names, revisions and digests: parsed once at the edge, never re-validated inside.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::bounds;

/// The name of a resource: 1 to 40 characters of `a-z`, `0-9` and inner single `-`.
///
/// The alphabet leaves out `_`, so that `server__tool` splits in one way only.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

/// Why a text is no name; says what to do instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to {max} characters of a-z, 0-9 and '-', starting and ending with a letter or digit", max = bounds::NAME_CHARS_MAX)]
pub struct BadName;

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        let bytes = text.as_bytes();
        let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
        let edge = |b: Option<&u8>| b.is_some_and(|b| *b != b'-');
        let fits = bytes.len() <= bounds::NAME_CHARS_MAX && bytes.iter().all(inner);
        if fits && edge(bytes.first()) && edge(bytes.last()) && !text.contains("--") {
            Ok(Self(text.into()))
        } else {
            Err(BadName)
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}
impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}
impl Serialize for Name {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}
impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_newtype_struct("Name", Parsed::default())
    }
}

/// Reads a text that has a form of its own. Types ask for it under their own names, so that a
/// reader that reports all errors of a document at once can check the form by itself.
struct Parsed<T>(std::marker::PhantomData<T>);

impl<T> Default for Parsed<T> {
    fn default() -> Self {
        Self(std::marker::PhantomData)
    }
}

impl<'de, T: FromStr<Err: fmt::Display>> serde::de::Visitor<'de> for Parsed<T> {
    type Value = T;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }
    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
    fn visit_newtype_struct<D: Deserializer<'de>>(self, d: D) -> Result<T, D::Error> {
        d.deserialize_str(self)
    }
}

/// A point in the history of the store. etcd's own revision where etcd is the store.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// SHA-256 over canonical bytes of our own, or over the exact bytes that a peer sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Digest(pub [u8; 32]);

/// A text that is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be 64 hexadecimal characters")]
pub struct BadDigest;

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        // In one go: a context for several parts would cost more than the digest of a short text.
        Self::sha256(&aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes))
    }

    /// The digest of the concatenation of `parts`. The caller frames them, so that two lists of
    /// parts never read alike.
    pub fn of_parts(parts: &[&[u8]]) -> Self {
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        for part in parts {
            context.update(part);
        }
        Self::sha256(&context.finish())
    }

    fn sha256(digest: &aws_lc_rs::digest::Digest) -> Self {
        let mut out = [0; 32];
        out.copy_from_slice(digest.as_ref());
        Self(out)
    }

    /// Lower-case hexadecimal, 64 characters.
    pub fn hex(&self) -> String {
        self.digits(&mut [0; 64]).to_owned()
    }

    fn digits<'a>(&self, into: &'a mut [u8; 64]) -> &'a str {
        // Without a table: the compiler makes it a few instructions that work on many digits.
        let digit = |half: u8| half + if half < 10 { b'0' } else { b'a' - 10 };
        for (two, byte) in into.as_chunks_mut().0.iter_mut().zip(&self.0) {
            *two = [digit(byte >> 4), digit(byte & 15)];
        }
        str::from_utf8(into).expect("hexadecimal digits are ASCII")
    }

    /// The first 12 hexadecimal characters, for people.
    pub fn short(&self) -> String {
        self.digits(&mut [0; 64])[..12].to_owned()
    }
}

impl FromStr for Digest {
    type Err = BadDigest;
    fn from_str(text: &str) -> Result<Self, BadDigest> {
        let bytes = text.as_bytes();
        if bytes.len() != 64 || !bytes.iter().all(u8::is_ascii_hexdigit) {
            return Err(BadDigest);
        }
        let mut out = [0; 32];
        for (slot, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| BadDigest)?;
            *slot = u8::from_str_radix(pair, 16).map_err(|_| BadDigest)?;
        }
        Ok(Self(out))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.digits(&mut [0; 64]))
    }
}
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}…", self.short())
    }
}
impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.digits(&mut [0; 64]))
    }
}
impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_newtype_struct("Digest", Parsed::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_alphabet() {
        for good in ["a", "dev", "a-b", "9to5", &"a".repeat(40)] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a--b", "ä", "a b", &"a".repeat(41)] {
            assert_eq!(bad.parse::<Name>(), Err(BadName), "{bad}");
        }
    }

    #[test]
    fn digests_round_trip() {
        let digest = Digest::of(b"weir");
        assert_eq!(digest.hex().parse(), Ok(digest));
        for byte in 0..=255 {
            let expected = format!("{byte:02x}").repeat(32);
            assert_eq!(Digest([byte; 32]).hex(), expected);
            assert_eq!(Digest([byte; 32]).to_string(), expected);
        }
        assert_eq!("xyz".parse::<Digest>(), Err(BadDigest));
    }

    #[test]
    fn parts_are_digested_as_one() {
        for (whole, parts) in [("", ["", ""]), ("weir", ["we", "ir"]), ("weir", ["", "weir"])] {
            assert_eq!(Digest::of_parts(&parts.map(str::as_bytes)), Digest::of(whole.as_bytes()));
        }
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").hex(), empty);
    }
}
