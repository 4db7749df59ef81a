//! Whether records are complete and unaltered, and where not.
//!
//! Lines come from files, from a topic or from a pipe; each is a record or a checkpoint. All
//! leaves are kept (some 50 bytes a record) and judged at the end, against everything that was
//! signed: the checkpoints among the lines, the link from each epoch to the one before, and what
//! the control plane has witnessed. What is missing, twice or out of place is named itself; the
//! first changed record is named by the list of leaves that its checkpoint signs for, and without
//! one as one of those between two checkpoints.

mod log;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use weir_model::audit::EventId;

use crate::certificate::Certificate;
use crate::checkpoint::{Checkpoint, Head};
use crate::line::{self, Line, Sealed};
use crate::merkle::{self, Tree};
use crate::note::{Algorithm, Note, Verifier};
use log::Log;

/// What is said of a key without a certificate.
const UNCERTIFIED: &str = "the control plane has not certified its key";

/// How lines come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// As they were written: what is out of place was moved.
    Written,
    /// In any order and perhaps more than once, as a topic gives them.
    Any,
}

/// What is trusted besides the lines themselves.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// The control plane's key. Without it any key may sign.
    pub authority: Option<Verifier>,
    /// Checkpoints that the control plane has witnessed.
    pub witnessed: Vec<Note>,
    /// Witnesses whose cosignature every newest checkpoint of `witnessed` must carry.
    pub cosigners: Vec<Verifier>,
    /// Nodes whose logs must be here; all that were witnessed when there is none.
    pub nodes: Vec<String>,
}

/// One thing that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The node, the epoch, and the first record that is concerned; 0 for the epoch as a whole.
    pub at: (String, u64, u64),
    /// What is wrong.
    pub what: String,
    /// Where it was read, when that is known.
    pub place: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (node, epoch, record) = &self.at;
        write!(f, "{node}/{epoch}/{record}: {}", self.what)?;
        match &self.place {
            Some(place) => write!(f, " ({place})"),
            None => Ok(()),
        }
    }
}

/// What is known of one epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The node.
    pub node: String,
    /// The epoch.
    pub epoch: u64,
    /// First and last record that was read.
    pub records: (u64, u64),
    /// Up to here everything is signed for.
    pub signed: u64,
    /// The last record is known to be the last.
    pub ended: bool,
    /// Requests of class `counted` that left no record, as its checkpoints say.
    pub lost: u64,
    /// Records that came again, the same.
    pub repeats: u64,
    /// Records before the first checkpoint of data whose beginning is gone: nobody can judge them.
    pub before: u64,
    /// The first record of a topic that is not there, behind everything that is signed for: it may
    /// be on its way in a slower partition.
    pub open: Option<u64>,
}

/// The judgement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// What is wrong, first things first. Empty: complete and unaltered.
    pub findings: Vec<Finding>,
    /// Every epoch that was read, by node.
    pub epochs: Vec<Summary>,
    /// What could not be judged, and why.
    pub notes: Vec<String>,
}

impl Report {
    /// Complete and unaltered, as far as there is anything to hold it against.
    pub fn is_good(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Takes lines and judges them at the end.
#[derive(Debug, Clone)]
pub struct Verification {
    order: Order,
    trust: Trust,
    logs: BTreeMap<(String, u64), Log>,
    findings: Vec<Finding>,
    /// What the control plane says about keys, wherever it was found.
    certificates: BTreeMap<Key, Arc<str>>,
    /// The first checkpoint of each key that came without: before the node had reached the control
    /// plane for the first time. Another checkpoint of the same key may bring it.
    uncertified: BTreeMap<Key, Finding>,
    wanted: Option<(EventId, Option<Vec<u8>>)>,
}

/// A node and its key.
type Key = (String, [u8; 32]);

impl Verification {
    /// Nothing is read yet.
    pub fn new(order: Order, trust: Trust) -> Self {
        Self {
            order,
            trust,
            logs: BTreeMap::new(),
            findings: Vec::new(),
            certificates: BTreeMap::new(),
            uncertified: BTreeMap::new(),
            wanted: None,
        }
    }

    /// Keeps the bytes of one record, for [`Self::prove`].
    pub fn want(&mut self, id: EventId) {
        self.wanted = Some((id, None));
    }

    /// One line, without its break, and where it was read.
    pub fn line(&mut self, bytes: &[u8], place: &dyn fmt::Display) {
        self.line_of(None, bytes, place);
    }

    /// The same of a part of the data that has lost its beginning, apart from other parts: a
    /// partition of a topic with retention. What is missing before the first record of each such
    /// part is nobody's fault.
    pub fn line_of(&mut self, cut: Option<i32>, bytes: &[u8], place: &dyn fmt::Display) {
        match line::parse(bytes) {
            Ok(Line::Segment(head)) => {
                let key = (head.node.clone(), head.epoch);
                let log = self.logs.entry(key).or_insert_with(|| Log::new(self.order));
                log.known(head.tree);
                log.follows(head.previous);
            }
            Ok(Line::Record(head)) => {
                if let Some((wanted, kept)) = &mut self.wanted
                    && *wanted == head.id
                {
                    *kept = Some(bytes.to_vec());
                }
                let EventId { node, epoch, sequence } = head.id;
                let log = self.logs.entry((node.clone(), epoch));
                let log = log.or_insert_with(|| Log::new(self.order));
                if let Some(part) = cut {
                    log.cut(part, sequence);
                }
                if let Err(what) = log.record(sequence, merkle::leaf(bytes)) {
                    let place = Some(place.to_string());
                    self.findings.push(Finding { at: (node, epoch, sequence), what, place });
                }
            }
            Ok(Line::Checkpoint(sealed)) => self.sealed(*sealed, place),
            Err(error) => self.findings.push(Finding {
                at: (String::new(), 0, 0),
                what: error.to_string(),
                place: Some(place.to_string()),
            }),
        }
    }

    fn sealed(&mut self, sealed: Sealed, place: &dyn fmt::Display) {
        let Checkpoint { node, head, .. } = &sealed.checkpoint;
        let at = (node.clone(), head.epoch, head.size);
        let finding = |what: &str| Finding {
            at: at.clone(),
            what: format!("its checkpoint: {what}"),
            place: Some(place.to_string()),
        };
        let key = (node.clone(), sealed.key);
        let log = self.logs.entry((node.clone(), head.epoch));
        let log = log.or_insert_with(|| Log::new(self.order));
        let authority = self.trust.authority.as_ref();
        match checked(&sealed, authority.filter(|_| sealed.certificate.is_some())) {
            Err(what) => return self.findings.push(finding(&what)),
            Ok(()) => match &sealed.certificate {
                Some(certificate) => {
                    self.certificates.entry(key).or_insert_with(|| Arc::clone(certificate));
                }
                None if authority.is_some() => {
                    self.uncertified.entry(key).or_insert_with(|| finding(UNCERTIFIED));
                }
                None => {}
            },
        }
        log.seal(sealed);
    }

    /// Keys that nobody has vouched for.
    fn uncertified(&mut self) {
        for (key, finding) in std::mem::take(&mut self.uncertified) {
            if !self.certificates.contains_key(&key) && !self.cosigned(&key) {
                self.findings.push(finding);
            }
        }
    }

    /// The control plane has cosigned something that this key has signed for its node, which it does
    /// for nodes that it knows. A node that was killed within its first seconds leaves nothing else.
    fn cosigned(&self, (node, key): &Key) -> bool {
        let Some(authority) = self.trust.authority.as_ref().map(Verifier::cosigner) else {
            return false;
        };
        self.trust.witnessed.iter().any(|note| {
            let Ok(checkpoint) = note.text().parse::<Checkpoint>() else { return false };
            let signer = Verifier::new(&checkpoint.origin(), Algorithm::Ed25519, *key);
            checkpoint.node == *node
                && signer.is_some_and(|signer| signer.verify(note).is_ok())
                && authority.verify(note).is_ok()
        })
    }

    /// The judgement over what has come so far, in an order in which checkpoints follow what they
    /// sign for ([`crate::consume`]). What the control plane has witnessed may be further on, and a
    /// key may yet be certified: neither is asked for. Costs as much as the last judgement.
    pub fn so_far(&self) -> Report {
        let mut so_far = self.clone();
        so_far.trust.witnessed.clear();
        so_far.uncertified.clear();
        so_far.finish()
    }

    /// The judgement over all lines.
    pub fn finish(mut self) -> Report {
        let mut report = Report::default();
        self.uncertified();
        self.link(&mut report);
        self.witness(&mut report);
        let mut findings = std::mem::take(&mut self.findings);
        for ((node, epoch), log) in &self.logs {
            let (summary, found) = log.judge((node, *epoch));
            findings.extend(found);
            if let (first @ 2.., _) = summary.records {
                report.notes.push(format!(
                    "{node}/{epoch}: records before {first} are not in this data: retention, or \
                     somebody removed them"
                ));
            }
            if let Some(open) = summary.open {
                report.notes.push(format!(
                    "{node}/{epoch}: record {open} is not here yet, or nobody who signs for it is"
                ));
            }
            if let Some(edge) = log.ragged() {
                report.notes.push(format!(
                    "{node}/{epoch}: before record {edge} records are missing whose partitions \
                     have lost their beginning: retention, or somebody removed them"
                ));
            }
            report.epochs.push(summary);
        }
        if self.trust.authority.is_none() {
            report.notes.push(
                "the keys of the nodes are not checked: nobody said which control plane to trust"
                    .to_owned(),
            );
        }
        if !self.trust.nodes.is_empty() {
            let nodes = self.trust.nodes.join(", ");
            report.notes.push(format!("of no other node than {nodes} is a log asked for"));
        }
        if self.trust.witnessed.is_empty() {
            report.notes.push(
                "without the control plane's witness a missing end cannot be seen".to_owned(),
            );
        }
        findings.sort();
        findings.dedup();
        report.findings = findings;
        report
    }

    /// Each epoch holds the one before to what it says about it.
    fn link(&mut self, report: &mut Report) {
        let keys: Vec<(String, u64)> = self.logs.keys().cloned().collect();
        for (index, (node, epoch)) in keys.iter().enumerate() {
            let before = index.checked_sub(1).map(|i| &keys[i]).filter(|(n, _)| n == node);
            let Some(said) = self.logs.get(&(node.clone(), *epoch)).and_then(Log::previous) else {
                continue;
            };
            let at = (node.clone(), *epoch, 0);
            let wrong = |what: String| Finding { at: at.clone(), what, place: None };
            match (said, before) {
                (None, None) => {}
                (Some(head), None) => report.notes.push(format!(
                    "{node}: epoch {} and what was before are not in this data",
                    head.epoch
                )),
                (None, Some((_, older))) => self.findings.push(wrong(format!(
                    "this epoch says that it is the first, but there is epoch {older}"
                ))),
                (Some(head), Some((_, older))) if head.epoch != *older => {
                    self.findings.push(wrong(format!(
                        "epoch {} is missing: this one continues it, and not {older}",
                        head.epoch
                    )));
                }
                (Some(head), Some(key)) => {
                    if let Some(log) = self.logs.get_mut(key) {
                        log.expect(head, "the epoch that follows", true);
                    }
                }
            }
        }
    }

    /// What the control plane has seen must be here.
    fn witness(&mut self, report: &mut Report) {
        for note in &self.trust.witnessed {
            let Ok(checkpoint) = note.text().parse::<Checkpoint>() else {
                report.notes.push("a witnessed checkpoint cannot be read".to_owned());
                continue;
            };
            let Checkpoint { node, head, end, .. } = checkpoint;
            if !self.trust.nodes.is_empty() && !self.trust.nodes.contains(&node) {
                continue;
            }
            let at = (node.clone(), head.epoch, 0);
            for cosigner in &self.trust.cosigners {
                if let Err(error) = cosigner.verify(note) {
                    let what = format!("its newest checkpoint: {error}");
                    self.findings.push(Finding { at: at.clone(), what, place: None });
                }
            }
            let newest = self.logs.keys().filter(|(n, _)| *n == node).map(|(_, e)| *e).max();
            if let Some(log) = self.logs.get_mut(&(node.clone(), head.epoch)) {
                log.expect(head, "the control plane", end);
            } else if newest.is_none_or(|newest| newest < head.epoch) {
                let size = head.size;
                let what = format!("missing: the control plane has seen {size} records of it");
                self.findings.push(Finding { at, what, place: None });
            } else {
                report.notes.push(format!("{node}: epoch {} is not in this data", head.epoch));
            }
        }
    }

    /// The wanted record with its proof.
    ///
    /// # Errors
    /// When the record is not there, no checkpoint covers it, or the log does not fit together.
    pub fn prove(self) -> Result<crate::proof::Proof, String> {
        let Some((id, bytes)) = self.wanted else { return Err("no record is wanted".to_owned()) };
        let uid = format!("{}/{}/{}", id.node, id.epoch, id.sequence);
        let bytes = bytes.ok_or_else(|| format!("there is no record {uid}"))?;
        let log = self.logs.get(&(id.node.clone(), id.epoch));
        let log = log.ok_or_else(|| format!("there is no record {uid}"))?;
        let (sealed, hashes) = log.prove(id.sequence - 1)?;
        Ok(crate::proof::Proof {
            index: id.sequence - 1,
            record: bytes,
            hashes,
            note: sealed.note.clone(),
            key: sealed.key,
            certificate: {
                let known = self.certificates.get(&(id.node, sealed.key));
                sealed.certificate.as_ref().or(known).map(|text| text.to_string())
            },
        })
    }
}

/// The signature, and whose it is.
fn checked(sealed: &Sealed, authority: Option<&Verifier>) -> Result<(), String> {
    let Checkpoint { node, head, .. } = &sealed.checkpoint;
    let known = sealed.peaks.as_ref().is_none_or(|peaks| {
        Tree::from_peaks(head.size, peaks.clone()).is_some_and(|tree| tree.root() == head.root)
    });
    if !known {
        return Err("its peaks do not make its root".to_owned());
    }
    if sealed.checkpoint.leaves.is_some() && sealed.leaves.is_none() {
        return Err("its list of leaves is not the one that was signed for".to_owned());
    }
    vouched(&sealed.note, (node, sealed.key), (sealed.certificate.as_deref(), authority))
}

/// Checks a note of a node, and that the control plane knows the node by this key.
pub(crate) fn vouched(
    note: &Note,
    (node, key): (&str, [u8; 32]),
    (certificate, authority): (Option<&str>, Option<&Verifier>),
) -> Result<(), String> {
    let origin = note.text().lines().next().unwrap_or_default();
    let verifier = Verifier::new(origin, Algorithm::Ed25519, key);
    let verifier = verifier.ok_or_else(|| "a log without a name".to_owned())?;
    verifier.verify(note).map_err(|error| error.to_string())?;
    let Some(authority) = authority else { return Ok(()) };
    let Some(certificate) = certificate else {
        return Err(UNCERTIFIED.to_owned());
    };
    let certificate = Certificate::read(certificate, authority).map_err(|e| e.to_string())?;
    match certificate.node == node && certificate.key == key {
        true => Ok(()),
        false => Err(format!("its key is certified for {}, or another is", certificate.node)),
    }
}

/// What somebody says about the state of an epoch.
#[derive(Debug, Clone)]
struct Expected {
    head: Head,
    by: &'static str,
    end: bool,
}

#[cfg(test)]
mod tests;
