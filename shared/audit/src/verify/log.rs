//! The leaves of one epoch, and everything that was signed about them.

use std::collections::{BTreeMap, VecDeque};

use super::{Expected, Finding, Order, Summary};
use crate::checkpoint::Head;
use crate::leaves::Leaves;
use crate::line::Sealed;
use crate::merkle::{self, Hash, Ranges, Tree};

/// Largest hole between two records that is kept open.
const HOLE_MAX: u64 = 10_000_000;

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Log {
    order: Order,
    /// The number of the first leaf in `leaves`.
    first: u64,
    leaves: VecDeque<Option<Hash>>,
    /// States from which the log can be followed when its beginning is gone.
    known: Vec<Tree>,
    /// Records before the first segment that is left.
    begins: Option<u64>,
    sealed: Vec<Sealed>,
    /// What checkpoints say about single leaves, by the first of each list.
    lists: BTreeMap<u64, Leaves>,
    expected: Vec<Expected>,
    /// What the segments say about the epoch before.
    follows: Option<Option<Head>>,
    repeats: u64,
    /// The first record of each part of the data that has lost its beginning.
    cut: BTreeMap<i32, u64>,
}

impl Log {
    pub(super) fn new(order: Order) -> Self {
        Self {
            order,
            first: 1,
            leaves: VecDeque::new(),
            known: Vec::new(),
            begins: None,
            sealed: Vec::new(),
            lists: BTreeMap::new(),
            expected: Vec::new(),
            follows: None,
            repeats: 0,
            cut: BTreeMap::new(),
        }
    }

    /// A record of a part that has lost its beginning.
    pub(super) fn cut(&mut self, part: i32, sequence: u64) {
        let first = self.cut.entry(part).or_insert(sequence);
        *first = sequence.min(*first);
    }

    /// The record before which some are missing because parts have lost their beginnings.
    pub(super) fn ragged(&self) -> Option<u64> {
        let edge = self.cut.values().max().copied()?;
        (self.first..edge).rev().find(|sequence| self.at(*sequence).is_none()).map(|_| edge)
    }

    /// A segment begins behind these leaves.
    pub(super) fn known(&mut self, tree: Tree) {
        self.begins = Some(self.begins.map_or(tree.size(), |begins| begins.min(tree.size())));
        self.known.push(tree);
    }

    pub(super) fn follows(&mut self, previous: Option<Head>) {
        self.follows = Some(previous);
    }

    pub(super) fn expect(&mut self, head: Head, by: &'static str, end: bool) {
        self.expected.push(Expected { head, by, end });
    }

    pub(super) fn seal(&mut self, mut sealed: Sealed) {
        if let Some(leaves) = sealed.leaves.take() {
            self.lists.insert(leaves.first(), leaves);
        }
        if let Some(peaks) = &sealed.peaks {
            self.known.extend(Tree::from_peaks(sealed.checkpoint.head.size, peaks.clone()));
        }
        let checkpoint = &sealed.checkpoint;
        self.expected.push(Expected {
            head: checkpoint.head,
            by: "its checkpoint",
            end: checkpoint.end,
        });
        self.sealed.push(sealed);
    }

    /// What is said about the epoch before; none when nobody says anything.
    pub(super) fn previous(&self) -> Option<Option<Head>> {
        self.sealed.first().map(|sealed| sealed.checkpoint.previous).or(self.follows)
    }

    fn last(&self) -> u64 {
        self.first + self.leaves.len() as u64 - 1
    }

    fn at(&self, sequence: u64) -> Option<Hash> {
        let index = usize::try_from(sequence.checked_sub(self.first)?).ok()?;
        *self.leaves.get(index)?
    }

    /// True when this leaf is the one that was signed for; none when no list speaks of it.
    fn as_signed(&self, sequence: u64, leaf: Hash) -> Option<bool> {
        let (_, leaves) = self.lists.range(..=sequence).next_back()?;
        leaves.fits(sequence, leaf)
    }

    /// The first of these records that is not as it was signed for, in words; without a list that
    /// tells, all of them that may be it.
    fn altered(&self, (first, last): (u64, u64), by: &str) -> (u64, String) {
        let mut unknown = None;
        for sequence in first..=last {
            match self.at(sequence).map(|leaf| self.as_signed(sequence, leaf)) {
                Some(Some(false)) if unknown.is_none() => {
                    return (sequence, format!("altered: {by} has signed for another"));
                }
                Some(Some(_)) => {}
                _ => unknown = unknown.or(Some(sequence)),
            }
        }
        match unknown.unwrap_or(first) {
            only if only >= last => (last, format!("altered: {by} has signed for another")),
            from => (
                from,
                format!("this record or one up to {last} is altered: {by} has signed for others"),
            ),
        }
    }

    /// The records before the state from which the log is followed: only lists speak of them.
    /// Gives how many nobody can judge, and the first that is not there though nobody has signed
    /// for it: partitions are not written at one pace, and the one of the first record may be late.
    fn judge_before(&self, start: u64, mut say: impl FnMut(u64, String)) -> (u64, Option<u64>) {
        let (mut unknown, mut open) = (0, None);
        let edge = self.ragged().unwrap_or(self.first);
        let signed = self.expected.iter().map(|expected| expected.head.size).max();
        let late = |sequence| self.order == Order::Any && signed.is_none_or(|to| sequence > to);
        for sequence in self.first..=start.min(self.last()) {
            match self.at(sequence).map(|leaf| self.as_signed(sequence, leaf)) {
                None if sequence < edge => {}
                None if late(sequence) => open = open.or(Some(sequence)),
                None => say(sequence, "missing; records around it are there".to_owned()),
                Some(Some(false)) => {
                    say(sequence, "altered: its checkpoint has signed for another".to_owned());
                }
                Some(Some(true)) => {}
                Some(None) => unknown += 1,
            }
        }
        (unknown, open)
    }

    /// Takes a record.
    pub(super) fn record(&mut self, sequence: u64, leaf: Hash) -> Result<(), String> {
        if sequence == 0 {
            return Err("records are numbered from 1".to_owned());
        }
        if self.leaves.is_empty() {
            self.first = sequence;
        }
        if let Some(known) = self.at(sequence) {
            return match (known == leaf, self.order) {
                (false, _) => Err("two different records have this name".to_owned()),
                (true, Order::Written) => Err("the record is there twice".to_owned()),
                (true, Order::Any) => {
                    self.repeats += 1;
                    Ok(())
                }
            };
        }
        let expected = self.last() + 1;
        if sequence > expected.saturating_add(HOLE_MAX) || self.first > sequence + HOLE_MAX {
            return Err(format!("far from the records around it, which end with {}", expected - 1));
        }
        while sequence < self.first {
            self.leaves.push_front(None);
            self.first -= 1;
        }
        while sequence > self.last() {
            self.leaves.push_back(None);
        }
        if let Some(place) =
            usize::try_from(sequence - self.first).ok().and_then(|at| self.leaves.get_mut(at))
        {
            *place = Some(leaf);
        }
        let moved = self.order == Order::Written && sequence != expected;
        match (moved, sequence > expected) {
            (false, _) => Ok(()),
            (true, true) => Err(format!("it stands where {expected} belongs")),
            (true, false) => Err("it stands behind a later record".to_owned()),
        }
    }

    /// Where the log can be followed from: its beginning, or the first known state from which on
    /// nothing that was read is left out.
    fn start(&self) -> Option<Tree> {
        let edge = self.ragged();
        if (self.first <= 1 && edge.is_none()) || self.leaves.is_empty() {
            return Some(Tree::default());
        }
        let from = edge.unwrap_or(self.first);
        let near = self.known.iter().filter(|tree| tree.size() + 1 >= from);
        near.min_by_key(|tree| tree.size()).cloned()
    }

    pub(super) fn judge(&self, (node, epoch): (&str, u64)) -> (Summary, Vec<Finding>) {
        let mut findings = Vec::new();
        let mut say = |record, what| {
            let at = (node.to_owned(), epoch, record);
            findings.push(Finding { at, what, place: None });
        };
        let mut expected = self.expected.clone();
        expected.sort_by_key(|e| e.head.size);
        let mut summary = Summary {
            node: node.to_owned(),
            epoch,
            records: if self.leaves.is_empty() { (0, 0) } else { (self.first, self.last()) },
            signed: 0,
            ended: false,
            lost: self.sealed.iter().map(|sealed| sealed.checkpoint.lost).max().unwrap_or(0),
            repeats: self.repeats,
            before: 0,
            open: None,
        };
        if let Some(begins) = self.begins.filter(|begins| begins + 1 < self.first) {
            say(begins + 1, "missing at the beginning of its segment".to_owned());
        }
        let Some(mut tree) = self.start() else {
            (summary.before, summary.open) = self.judge_before(self.last(), &mut say);
            return (summary, findings);
        };
        if self.first > 1 || self.ragged().is_some() {
            (summary.before, summary.open) = self.judge_before(tree.size(), &mut say);
        }
        summary.signed = tree.size();
        let end = expected.iter().filter(|e| e.end).map(|e| e.head.size).max();
        for Expected { head, by, .. } in &expected {
            while tree.size() < head.size {
                let Some(leaf) = self.at(tree.size() + 1) else { break };
                tree.push(leaf);
            }
            let next = tree.size() + 1;
            if tree.size() < head.size {
                let missing = format!("missing; {by} has signed for {} records", head.size);
                say(next, missing);
                return (summary, findings);
            }
            // States before the start cannot be judged any more.
            if tree.size() == head.size && tree.root() != head.root {
                let first = (summary.signed + 1).min(head.size);
                let (record, what) = self.altered((first, head.size), by);
                say(record, what);
                return (summary, findings);
            }
            summary.signed = tree.size();
        }
        while let Some(leaf) = self.at(tree.size() + 1) {
            tree.push(leaf);
        }
        let (reached, last) = (tree.size(), self.last());
        if !self.leaves.is_empty() && reached < last {
            match self.order {
                Order::Written => {
                    say(reached + 1, format!("missing; record {last} of the same epoch is there"));
                }
                // Partitions are not read at one pace. Who could take it out for good would have to
                // take out the checkpoints that follow, and then could have cut the end off as well.
                Order::Any => summary.open = Some(reached + 1),
            }
        }
        if let Some(end) = end {
            summary.ended = true;
            if !self.leaves.is_empty() && last > end {
                say(end + 1, format!("too much: the epoch ended with record {end}"));
            }
        }
        (summary, findings)
    }

    /// A checkpoint that covers leaf `index`, and the hashes from the leaf to its root.
    pub(super) fn prove(&self, index: u64) -> Result<(&Sealed, Vec<Hash>), String> {
        let covers = self.sealed.iter().filter(|sealed| sealed.checkpoint.head.size > index);
        let sealed = covers
            .min_by_key(|sealed| sealed.checkpoint.head.size)
            .ok_or_else(|| "no checkpoint covers it yet; try again in a moment".to_owned())?;
        let head = sealed.checkpoint.head;
        let start = match self.first <= 1 {
            true => Some(Tree::default()),
            false => {
                let before = self.known.iter().filter(|t| t.size() <= index);
                before.filter(|t| t.size() + 1 >= self.first).min_by_key(|t| t.size()).cloned()
            }
        };
        let start = start.ok_or_else(|| "what was before it is gone".to_owned())?;
        let path = merkle::inclusion(index, head.size).unwrap_or_default();
        let mut ranges = Ranges::new(&path, &start);
        for sequence in start.size() + 1..=head.size {
            let leaf = self.at(sequence);
            ranges.push(leaf.ok_or_else(|| format!("record {sequence} is missing"))?);
        }
        let hashes = ranges.finish().ok_or_else(|| "the log has a hole".to_owned())?;
        let leaf = self.at(index + 1).ok_or_else(|| "the record is missing".to_owned())?;
        match merkle::includes((index, leaf), (head.size, head.root), &hashes) {
            true => Ok((sealed, hashes)),
            false => Err("the log is not what was signed; verify it".to_owned()),
        }
    }
}
