//! Checkpoints (C2SP `tlog-checkpoint`): what a node signs about the log of one epoch.
//!
//! ```text
//! weir.audit/NODE/EPOCH
//! SIZE
//! BASE64(ROOT)
//! previous EPOCH SIZE BASE64(ROOT)      or: previous none
//! leaves FIRST BASE64(DIGEST)           of the list beside it, see [`crate::leaves`]
//! lost NUMBER                           records of class `counted` that found no room, if any
//! end                                   in the last checkpoint of an epoch alone
//! ```
//!
//! The first line names the log and is the name of its key. `previous` is the last state of the
//! epoch before: epochs form a chain, so none can be left out.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::leaves::Listed;
use crate::merkle::Hash;
use crate::note::{Note, NoteError, Signer};

/// Begins the name of every log.
const ORIGIN: &str = "weir.audit";

/// The state of an epoch's log: how many records, and the root over them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The epoch.
    pub epoch: u64,
    /// Records.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
}

/// One checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The node.
    pub node: String,
    /// What its log holds.
    pub head: Head,
    /// The last state of the epoch before; none for a node's first.
    pub previous: Option<Head>,
    /// The list of the leaves that it adds; none when it adds none.
    pub leaves: Option<Listed>,
    /// Records of class `counted` that found no room in this epoch so far.
    pub lost: u64,
    /// True when no record follows in this epoch.
    pub end: bool,
}

/// A text that is no checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a checkpoint of an audit log")]
pub struct BadCheckpoint;

impl Checkpoint {
    /// The name of the log and of its key.
    pub fn origin(&self) -> String {
        origin(&self.node, self.head.epoch)
    }

    /// The signed note.
    ///
    /// # Errors
    /// When the node's name cannot stand in a note.
    pub fn sign(&self, signer: &Signer) -> Result<Note, NoteError> {
        signer.sign(&self.origin(), self.to_string())
    }
}

/// The name of the log of one epoch.
pub fn origin(node: &str, epoch: u64) -> String {
    format!("{ORIGIN}/{node}/{epoch}")
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Head { size, root, .. } = &self.head;
        writeln!(f, "{}\n{size}\n{}", self.origin(), BASE64.encode(root.0))?;
        match &self.previous {
            Some(Head { epoch, size, root }) => {
                writeln!(f, "previous {epoch} {size} {}", BASE64.encode(root.0))?;
            }
            None => writeln!(f, "previous none")?,
        }
        if let Some(Listed { first, digest }) = &self.leaves {
            writeln!(f, "leaves {first} {}", BASE64.encode(digest.0))?;
        }
        if self.lost > 0 {
            writeln!(f, "lost {}", self.lost)?;
        }
        if self.end { writeln!(f, "end") } else { Ok(()) }
    }
}

impl FromStr for Checkpoint {
    type Err = BadCheckpoint;
    fn from_str(text: &str) -> Result<Self, BadCheckpoint> {
        parse(text).filter(|read| read.to_string() == text).ok_or(BadCheckpoint)
    }
}

fn parse(text: &str) -> Option<Checkpoint> {
    let mut lines = text.lines();
    let origin = lines.next()?.strip_prefix(ORIGIN)?.strip_prefix('/')?;
    let (node, epoch) = origin.rsplit_once('/')?;
    let size = lines.next()?.parse().ok()?;
    let root = hash(lines.next()?)?;
    let previous = match lines.next()?.strip_prefix("previous ")? {
        "none" => None,
        head => {
            let mut words = head.split(' ');
            let mut number = || words.next()?.parse().ok();
            let (epoch, size) = (number()?, number()?);
            Some(Head { epoch, size, root: hash(words.next()?)? })
        }
    };
    let head = Head { epoch: epoch.parse().ok()?, size, root };
    let mut line = lines.next();
    let leaves = match line.and_then(|line| line.strip_prefix("leaves ")) {
        Some(listed) => {
            line = lines.next();
            let (first, digest) = listed.split_once(' ')?;
            Some(Listed { first: first.parse().ok()?, digest: hash(digest)? })
        }
        None => None,
    };
    let lost = match line.and_then(|line| line.strip_prefix("lost ")) {
        Some(lost) => {
            line = lines.next();
            lost.parse().ok()?
        }
        None => 0,
    };
    let end = line == Some("end");
    Some(Checkpoint { node: node.to_owned(), head, previous, leaves, lost, end })
}

fn hash(text: &str) -> Option<Hash> {
    Some(Hash(BASE64.decode(text).ok()?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle::leaf;

    fn checkpoint() -> Checkpoint {
        let head = |epoch, size| Head { epoch, size, root: leaf(b"x") };
        let leaves = Some(Listed { first: 4, digest: leaf(b"y") });
        let previous = Some(head(8, 3));
        Checkpoint { node: "eu-1".into(), head: head(9, 7), previous, leaves, lost: 3, end: true }
    }

    #[test]
    fn a_checkpoint_reads_as_it_is_written_and_nothing_else_does() {
        let whole = checkpoint();
        for end in [true, false] {
            for previous in [whole.previous, None] {
                for leaves in [whole.leaves, None] {
                    let lost = if end { whole.lost } else { 0 };
                    let one = Checkpoint { previous, leaves, lost, end, ..whole.clone() };
                    assert_eq!(one.to_string().parse(), Ok(one));
                }
            }
        }
        let text = whole.to_string();
        assert!(text.starts_with("weir.audit/eu-1/9\n7\n"), "{text}");
        for (from, to) in [
            ("weir.audit", "other"),
            ("\n7\n", "\n07\n"),
            ("\n7\n", "\n-7\n"),
            ("end\n", "end\nmore\n"),
            ("end\n", "END\n"),
            ("previous 8", "previous  8"),
            ("previous", "next"),
            ("leaves 4", "leaves 04"),
            ("leaves", "leafs"),
            ("=", ""),
        ] {
            assert_eq!(
                text.replacen(from, to, 1).parse::<Checkpoint>(),
                Err(BadCheckpoint),
                "{to}"
            );
        }
    }

    #[test]
    fn it_is_signed_under_the_name_of_its_log() {
        let signer = Signer::generate().unwrap();
        let note = checkpoint().sign(&signer).unwrap();
        signer.verifier("weir.audit/eu-1/9").unwrap().verify(&note).unwrap();
        assert_eq!(note.text().parse(), Ok(checkpoint()));
        assert!(Checkpoint { node: "a b".into(), ..checkpoint() }.sign(&signer).is_err());
    }
}
