//! What grew behind a known state of a tree: the perfect subtrees over some leaves that follow
//! each other, at most two for each level of the tree. With the peaks of that state it proves
//! that a later state continues it (RFC 6962, 2.1.2), without a leaf.

use std::ops::Range;

use super::{Hash, Ranges, Tree, consistency, node};

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Span {
    end: u64,
    parts: Vec<(Range<u64>, Hash)>,
}

impl Span {
    /// Behind so many leaves, with none yet.
    pub fn behind(size: u64) -> Self {
        Self { end: size, parts: Vec::new() }
    }

    /// Leaves of the tree up to its end.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The next leaf.
    pub fn push(&mut self, leaf: Hash) {
        self.add(self.end..self.end + 1, leaf);
    }

    fn add(&mut self, range: Range<u64>, root: Hash) {
        self.end = range.end;
        let (mut range, mut root) = (range, root);
        while let Some((left, hash)) = self.parts.last() {
            let length = range.end - range.start;
            let siblings = left.end - left.start == length && left.start.is_multiple_of(2 * length);
            if !siblings {
                break;
            }
            root = node(*hash, root);
            range.start = left.start;
            self.parts.pop();
        }
        self.parts.push((range, root));
    }

    /// Appends what follows.
    pub fn append(&mut self, next: &Self) {
        for (range, root) in &next.parts {
            self.add(range.clone(), *root);
        }
    }

    /// Appends this growth to the tree behind which it is.
    pub fn grow(&self, tree: &mut Tree) {
        for (range, root) in &self.parts {
            tree.add(range.end - range.start, *root);
        }
    }

    /// The proof that the tree with this growth continues `old`, behind which it is. None when it
    /// is not behind it.
    pub fn proof(&self, old: &Tree) -> Option<Vec<Hash>> {
        let Some(ranges) = consistency(old.size(), self.end) else {
            // The same, or nothing before: no proof is needed.
            return (old.size() == 0 || old.size() == self.end).then(Vec::new);
        };
        let mut found = Ranges::new(&ranges, old);
        for (range, root) in &self.parts {
            found.add(range.clone(), *root);
        }
        found.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{continues, leaf};
    use super::*;

    fn leaves(from: u64, to: u64) -> impl Iterator<Item = Hash> {
        (from..to).map(|n| leaf(&n.to_be_bytes()))
    }

    fn tree(size: u64) -> Tree {
        let mut tree = Tree::default();
        leaves(0, size).for_each(|leaf| tree.push(leaf));
        tree
    }

    fn span(from: u64, to: u64) -> Span {
        let mut span = Span::behind(from);
        leaves(from, to).for_each(|leaf| span.push(leaf));
        span
    }

    #[test]
    fn growth_proves_that_every_small_tree_continues_every_smaller_one() {
        for new in 0..34 {
            for old in 0..=new {
                let (before, after) = (tree(old), tree(new));
                let whole = span(old, new);
                assert!(whole.parts.len() <= 2 * 6, "{}", whole.parts.len());
                let proof = whole.proof(&before).unwrap();
                let states = ((old, before.root()), (new, after.root()));
                assert!(continues(states.0, states.1, &proof), "{old} to {new}");
                let mut grown = before.clone();
                whole.grow(&mut grown);
                assert_eq!(grown, after);
                // In pieces it is the same.
                for middle in old..=new {
                    let mut pieces = span(old, middle);
                    pieces.append(&span(middle, new));
                    assert_eq!(pieces.parts, whole.parts, "{old}, {middle}, {new}");
                }
                // Other records under the same number prove nothing.
                if old > 0 && new > old {
                    let mut other = Span::behind(old);
                    leaves(old + 100, new + 100).for_each(|leaf| other.push(leaf));
                    let proof = other.proof(&before).unwrap();
                    assert!(!continues(states.0, states.1, &proof), "{old} to {new}");
                }
            }
        }
        assert_eq!(span(4, 6).proof(&tree(3)), None);
    }
}
