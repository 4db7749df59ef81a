//! The Merkle tree of RFC 6962 over the records of one epoch, and proofs about it.
//!
//! Nothing here holds a whole tree. [`Tree`] keeps the roots of its perfect subtrees, which is all
//! that appending and the root need; proofs name the ranges of leaves whose hashes they consist
//! of, and [`Ranges`] hashes those in one pass over the leaves. So a log of any length is
//! verified and proved in memory that grows with its logarithm.

pub mod span;

use std::fmt;
use std::ops::Range;

use aws_lc_rs::digest::{Context, SHA256};

/// A node of the tree.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash(pub [u8; 32]);

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", weir_model::id::Digest(self.0).short())
    }
}

fn sha256(prefix: &[u8], parts: [&[u8]; 2]) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(prefix);
    context.update(parts[0]);
    context.update(parts[1]);
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    Hash(out)
}

/// The hash of a leaf: of a record's exact bytes.
pub fn leaf(bytes: &[u8]) -> Hash {
    sha256(&[0], [bytes, &[]])
}

/// The hash of a node over its children.
pub fn node(left: Hash, right: Hash) -> Hash {
    sha256(&[1], [&left.0, &right.0])
}

/// A tree that grows: its size and the roots of its perfect subtrees, largest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    size: u64,
    peaks: Vec<Hash>,
}

impl Tree {
    /// A tree of which only the peaks are known; none when their number does not fit the size.
    pub fn from_peaks(size: u64, peaks: Vec<Hash>) -> Option<Self> {
        (peaks.len() == size.count_ones() as usize).then_some(Self { size, peaks })
    }

    /// How many leaves it has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The roots of its perfect subtrees, largest first: one per bit of the size.
    pub fn peaks(&self) -> &[Hash] {
        &self.peaks
    }

    /// Appends a leaf.
    pub fn push(&mut self, leaf: Hash) {
        let mut right = leaf;
        let mut size = self.size;
        while size & 1 == 1 {
            let Some(left) = self.peaks.pop() else { break };
            right = node(left, right);
            size >>= 1;
        }
        self.peaks.push(right);
        self.size += 1;
    }

    /// The root over all leaves.
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev().copied();
        let Some(smallest) = peaks.next() else { return sha256(&[], [&[], &[]]) };
        peaks.fold(smallest, |right, left| node(left, right))
    }

    /// The peaks with the leaves that each covers.
    fn covered(&self) -> impl Iterator<Item = (Range<u64>, Hash)> {
        let mut at = 0;
        let bits = (0..u64::BITS).rev().filter(|bit| self.size >> bit & 1 == 1);
        bits.zip(&self.peaks).map(move |(bit, hash)| {
            let range = at..at + (1 << bit);
            at = range.end;
            (range, *hash)
        })
    }
}

/// The largest power of two below `n`, which is at least 2.
fn split(n: u64) -> u64 {
    1 << (n - 1).ilog2()
}

/// The subtrees whose roots prove that leaf `index` is in the tree of `size` leaves, in the order
/// of the proof (RFC 6962, 2.1.1). None when there is no such leaf.
pub fn inclusion(index: u64, size: u64) -> Option<Vec<Range<u64>>> {
    let mut path = Vec::new();
    let mut within = 0..size;
    if index >= size {
        return None;
    }
    while within.end - within.start > 1 {
        let middle = within.start + split(within.end - within.start);
        if index < middle {
            path.push(middle..within.end);
            within.end = middle;
        } else {
            path.push(within.start..middle);
            within.start = middle;
        }
    }
    path.reverse();
    Some(path)
}

/// The subtrees whose roots prove that the tree of `new` leaves continues that of `old` leaves, in
/// the order of the proof (RFC 6962, 2.1.2). None when the old one is not smaller or is empty.
pub fn consistency(old: u64, new: u64) -> Option<Vec<Range<u64>>> {
    if old == 0 || old >= new {
        return None;
    }
    let mut path = Vec::new();
    let (mut within, mut whole) = (0..new, true);
    while old != within.end {
        let middle = within.start + split(within.end - within.start);
        if old <= middle {
            path.push(middle..within.end);
            within.end = middle;
        } else {
            path.push(within.start..middle);
            within.start = middle;
            whole = false;
        }
    }
    if !whole {
        path.push(within);
    }
    path.reverse();
    Some(path)
}

/// True when the proof leads from the leaf to the root.
pub fn includes((index, leaf): (u64, Hash), (size, root): (u64, Hash), proof: &[Hash]) -> bool {
    let Some(path) = inclusion(index, size).filter(|path| path.len() == proof.len()) else {
        return false;
    };
    let fold = |hash, (range, other): (&Range<u64>, &Hash)| match range.start > index {
        true => node(hash, *other),
        false => node(*other, hash),
    };
    path.iter().zip(proof).fold(leaf, fold) == root
}

/// True when the proof shows that the new tree continues the old one.
pub fn continues(old: (u64, Hash), new: (u64, Hash), proof: &[Hash]) -> bool {
    if old.0 == new.0 {
        return proof.is_empty() && old.1 == new.1;
    }
    let Some(path) = consistency(old.0, new.0).filter(|path| path.len() == proof.len()) else {
        return old.0 == 0 && proof.is_empty();
    };
    let mut nodes = path.into_iter().zip(proof.iter().copied()).peekable();
    // Without a node inside of the old tree, that tree is itself a subtree of the new one.
    let inside = nodes.next_if(|(range, _)| range.end == old.0);
    let first = inside.map_or(old.1, |(_, hash)| hash);
    let (mut before, mut after) = (first, first);
    for (range, hash) in nodes {
        if range.start >= old.0 {
            after = node(after, hash);
        } else {
            before = node(hash, before);
            after = node(hash, after);
        }
    }
    (before, after) == (old.1, new.1)
}

/// Hashes disjoint ranges of leaves in one pass over the leaves.
#[derive(Debug)]
pub struct Ranges {
    /// By start, with the place that each has in the answer.
    wanted: Vec<(Range<u64>, usize)>,
    at: usize,
    next: u64,
    tree: Tree,
    found: Vec<Option<Hash>>,
}

impl Ranges {
    /// Begins behind the leaves of `known`. What lies within them is taken from its peaks.
    pub fn new(ranges: &[Range<u64>], known: &Tree) -> Self {
        let mut wanted: Vec<_> = ranges.iter().cloned().zip(0..).collect();
        wanted.sort_by_key(|(range, _)| range.start);
        let found = vec![None; wanted.len()];
        let mut all = Self { wanted, at: 0, next: 0, tree: Tree::default(), found };
        for (covered, hash) in known.covered() {
            all.add(covered, hash);
        }
        all
    }

    /// The next leaf.
    pub fn push(&mut self, leaf: Hash) {
        self.add(self.next..self.next + 1, leaf);
    }

    fn add(&mut self, covered: Range<u64>, hash: Hash) {
        self.next = covered.end;
        let Some((range, place)) = self.wanted.get(self.at) else { return };
        if covered.start < range.start || covered.end > range.end {
            return;
        }
        // Peaks of one range come by falling size, as a tree of that range has them.
        self.tree.add(covered.end - covered.start, hash);
        if covered.end == range.end {
            self.found[*place] = Some(std::mem::take(&mut self.tree).root());
            self.at += 1;
        }
    }

    /// The hashes in the order in which the ranges were given; none when leaves are missing.
    pub fn finish(self) -> Option<Vec<Hash>> {
        self.found.into_iter().collect()
    }
}

impl Tree {
    /// Appends a perfect subtree of `leaves`, which fits behind those that are there.
    fn add(&mut self, leaves: u64, root: Hash) {
        let mut right = root;
        let mut bit = leaves;
        while self.size & bit != 0 {
            let Some(left) = self.peaks.pop() else { break };
            right = node(left, right);
            bit <<= 1;
        }
        self.peaks.push(right);
        self.size += leaves;
    }
}

#[cfg(test)]
mod tests;
