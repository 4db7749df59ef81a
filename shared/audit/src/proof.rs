//! One record with the proof that it is in the log (C2SP `tlog-proof`), for whoever may not see
//! the others.
//!
//! The extra data is `{"record", "key", "certificate"}`: the record's exact bytes, the node's key,
//! and the control plane's word about it.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use crate::checkpoint::Checkpoint;
use crate::line::{self, Line};
use crate::merkle::{self, Hash};
use crate::note::{Note, Verifier};
use crate::verify::vouched;

/// First line of a proof.
const BEGIN: &str = "c2sp.org/tlog-proof@v1";
/// Longest proof that is read.
const PROOF_BYTES_MAX: usize = 1024 * 1024;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// From zero.
    pub index: u64,
    /// The record's exact bytes.
    pub record: Vec<u8>,
    /// From the leaf to the root.
    pub hashes: Vec<Hash>,
    /// The checkpoint.
    pub note: Note,
    /// The node's key.
    pub key: [u8; 32],
    /// The control plane's word about it.
    pub certificate: Option<String>,
}

/// Why a proof proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadProof {
    /// The text is none.
    #[error("not a proof: {0}")]
    Malformed(&'static str),
    /// It does not hold.
    #[error("the proof does not hold: {0}")]
    Wrong(String),
}

#[derive(Serialize, Deserialize)]
struct Extra {
    record: String,
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
}

impl Proof {
    /// Checks it: the record is in the log of its node at its number, a checkpoint that the node
    /// has signed covers it, and the control plane knows the node by that key.
    ///
    /// # Errors
    /// [`BadProof::Wrong`].
    pub fn check(&self, authority: Option<&Verifier>) -> Result<Checkpoint, BadProof> {
        let wrong = |why: &str| BadProof::Wrong(why.to_owned());
        let checkpoint: Checkpoint =
            self.note.text().parse().map_err(|_| wrong("its checkpoint cannot be read"))?;
        let Ok(Line::Record(record)) = line::parse(&self.record) else {
            return Err(wrong("what it proves is no record"));
        };
        let (id, head) = (&record.id, &checkpoint.head);
        let named = (id.node.as_str(), id.epoch, id.sequence);
        if named != (checkpoint.node.as_str(), head.epoch, self.index + 1) {
            return Err(wrong("the record belongs to another log or place"));
        }
        let leaf = merkle::leaf(&self.record);
        if !merkle::includes((self.index, leaf), (head.size, head.root), &self.hashes) {
            return Err(wrong("the record is not under the checkpoint"));
        }
        let known = (self.certificate.as_deref(), authority);
        vouched(&self.note, (&checkpoint.node, self.key), known).map_err(BadProof::Wrong)?;
        Ok(checkpoint)
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let extra = Extra {
            record: String::from_utf8_lossy(&self.record).into_owned(),
            key: BASE64.encode(self.key),
            certificate: self.certificate.clone(),
        };
        let extra = serde_json::to_string(&extra).map_err(|_| fmt::Error)?;
        writeln!(f, "{BEGIN}\nextra {}\nindex {}", BASE64.encode(extra), self.index)?;
        for hash in &self.hashes {
            writeln!(f, "{}", BASE64.encode(hash.0))?;
        }
        write!(f, "\n{}", self.note)
    }
}

impl FromStr for Proof {
    type Err = BadProof;
    fn from_str(text: &str) -> Result<Self, BadProof> {
        let bad = BadProof::Malformed;
        if text.len() > PROOF_BYTES_MAX {
            return Err(bad("it is too long"));
        }
        let (head, note) = text.split_once("\n\n").ok_or(bad("no checkpoint"))?;
        let mut lines = head.lines();
        if lines.next() != Some(BEGIN) {
            return Err(bad("its first line"));
        }
        let mut after = |word: &'static str| lines.next()?.strip_prefix(word);
        let extra = after("extra ").ok_or(bad("no record with it"))?;
        let index = after("index ").and_then(|n| n.parse().ok()).ok_or(bad("its index"))?;
        let extra = BASE64.decode(extra).map_err(|_| bad("the record with it"))?;
        let extra: Extra = serde_json::from_slice(&extra).map_err(|_| bad("the record with it"))?;
        let hash = |text: &str| Some(Hash(BASE64.decode(text).ok()?.try_into().ok()?));
        let bytes = |text: &str| BASE64.decode(text).ok()?.try_into().ok();
        Ok(Self {
            index,
            record: extra.record.into_bytes(),
            hashes: lines.map(hash).collect::<Option<_>>().ok_or(bad("a hash"))?,
            note: note.parse().map_err(|_| bad("its checkpoint"))?,
            key: bytes(&extra.key).ok_or(bad("the key with it"))?,
            certificate: extra.certificate,
        })
    }
}
