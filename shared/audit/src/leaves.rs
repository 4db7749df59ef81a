//! The first bytes of each leaf that a checkpoint adds, so that a changed record can be named.
//!
//! A root tells that one of many records was changed and not which. So a checkpoint carries
//! [`PREFIX_BYTES`] of the hash of every record since the one before, and the signed note the
//! digest of that list: who changes a record cannot change what is said about it. The root stays
//! what proves; the list only finds. Somebody who wants a later record to be named would have to
//! find another text with the same first 64 bits of SHA-256.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::merkle::Hash;

/// What is kept of a leaf's hash.
pub const PREFIX_BYTES: usize = 8;
/// Leaves of one list; of more, the newest are listed.
pub const LEAVES_MAX: usize = 30_000;

/// The leaves of some records that follow each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaves {
    first: u64,
    bytes: Vec<u8>,
}

/// What a signed note says about the list beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// The first record of the list, which ends with the last that the note covers.
    pub first: u64,
    /// SHA-256 over the list.
    pub digest: Hash,
}

impl Leaves {
    /// Of the records from `first` on; none of no records.
    pub fn of(first: u64, leaves: impl ExactSizeIterator<Item = Hash>) -> Option<Self> {
        let skipped = leaves.len().saturating_sub(LEAVES_MAX);
        let mut bytes = Vec::with_capacity((leaves.len() - skipped) * PREFIX_BYTES);
        for leaf in leaves.skip(skipped) {
            bytes.extend_from_slice(&leaf.0[..PREFIX_BYTES]);
        }
        (!bytes.is_empty()).then_some(Self { first: first + skipped as u64, bytes })
    }

    /// The number of the first record.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The number of the last record.
    pub fn last(&self) -> u64 {
        self.first + (self.bytes.len() / PREFIX_BYTES) as u64 - 1
    }

    /// True when this leaf is the one that is listed under the number; none when none is.
    pub fn fits(&self, sequence: u64, leaf: Hash) -> Option<bool> {
        let at = usize::try_from(sequence.checked_sub(self.first)?).ok()?;
        let begin = at.checked_mul(PREFIX_BYTES)?;
        let listed = self.bytes.get(begin..begin + PREFIX_BYTES)?;
        Some(listed == &leaf.0[..PREFIX_BYTES])
    }

    /// What the note has to say.
    pub fn listed(&self) -> Listed {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, &self.bytes).as_ref());
        Listed { first: self.first, digest: Hash(hash) }
    }

    /// As the event has it.
    pub fn encode(&self) -> String {
        BASE64.encode(&self.bytes)
    }

    /// The list of an event whose note says this of it and covers `size` records; none when it is
    /// another list.
    pub fn decode(text: &str, listed: Listed, size: u64) -> Option<Self> {
        let leaves = Self { first: listed.first, bytes: BASE64.decode(text).ok()? };
        let whole = !leaves.bytes.is_empty() && leaves.bytes.len().is_multiple_of(PREFIX_BYTES);
        (whole && leaves.first > 0 && leaves.last() == size && leaves.listed() == listed)
            .then_some(leaves)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle::leaf;

    fn all(count: u64) -> Vec<Hash> {
        (0..count).map(|n| leaf(&n.to_be_bytes())).collect()
    }

    #[test]
    fn a_list_reads_as_it_was_written_and_nothing_else_does() {
        let leaves = Leaves::of(5, all(3).into_iter()).unwrap();
        assert_eq!((leaves.first(), leaves.last()), (5, 7));
        let (text, listed) = (leaves.encode(), leaves.listed());
        assert_eq!(Leaves::decode(&text, listed, 7), Some(leaves.clone()));
        let other = Leaves::of(5, all(2).into_iter()).unwrap();
        for (text, listed, size) in [
            (other.encode(), listed, 6),
            (text.clone(), listed, 8),
            (text.clone(), Listed { first: 4, ..listed }, 7),
            (text.clone(), other.listed(), 7),
            (String::new(), listed, 4),
            ("!".to_owned(), listed, 7),
        ] {
            assert_eq!(Leaves::decode(&text, listed, size), None, "{text} {listed:?} {size}");
        }
        assert_eq!(leaves.fits(6, all(3)[1]), Some(true));
        assert_eq!(leaves.fits(6, all(3)[2]), Some(false));
        assert_eq!((leaves.fits(4, all(1)[0]), leaves.fits(8, all(1)[0])), (None, None));
        assert_eq!(Leaves::of(1, [].into_iter()), None);
    }

    #[test]
    fn of_very_many_the_newest_are_listed() {
        let count = LEAVES_MAX as u64 + 10;
        let leaves = Leaves::of(1, all(count).into_iter()).unwrap();
        assert_eq!((leaves.first(), leaves.last()), (11, count));
        assert_eq!(leaves.fits(count, leaf(&(count - 1).to_be_bytes())), Some(true));
    }
}
