//! The control plane's word that a key is a node's: a signed note that goes with checkpoints.
//!
//! ```text
//! weir.audit/key
//! NODE
//! REGION            (`-` for none)
//! BASE64(KEY)
//! SECONDS           since when, since the epoch
//! ```
//!
//! Signed under [`AUTHORITY`] by the key that all replicas of a control plane share. Whoever holds
//! that one public key can check the records of every node.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::note::{Note, NoteError, Signer, Verifier};

/// The name under which a control plane signs.
pub const AUTHORITY: &str = "weir.control-plane";
const BEGIN: &str = "weir.audit/key";

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The node.
    pub node: String,
    /// Its region; empty for a replica of the control plane.
    pub region: String,
    /// Its key.
    pub key: [u8; 32],
    /// Since when, in seconds since the epoch.
    pub since: u64,
}

impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let region = if self.region.is_empty() { "-" } else { &self.region };
        let key = BASE64.encode(self.key);
        writeln!(f, "{BEGIN}\n{}\n{region}\n{key}\n{}", self.node, self.since)
    }
}

impl FromStr for Certificate {
    type Err = NoteError;
    fn from_str(text: &str) -> Result<Self, NoteError> {
        let parse = || {
            let lines: Vec<&str> = text.lines().collect();
            let [begin, node, region, key, since] = lines[..] else { return None };
            let region = if region == "-" { "" } else { region };
            let read = Self {
                node: node.to_owned(),
                region: region.to_owned(),
                key: BASE64.decode(key).ok()?.try_into().ok()?,
                since: since.parse().ok()?,
            };
            (begin == BEGIN && read.to_string() == text).then_some(read)
        };
        parse().ok_or(NoteError::Malformed("not a certificate of an audit key"))
    }
}

impl Certificate {
    /// The signed note.
    ///
    /// # Errors
    /// When the node's name cannot stand in a note.
    pub fn sign(&self, authority: &Signer) -> Result<Note, NoteError> {
        authority.sign(AUTHORITY, self.to_string())
    }

    /// Reads a certificate that this authority has signed.
    ///
    /// # Errors
    /// When it is none, or somebody else's.
    pub fn read(note: &str, authority: &Verifier) -> Result<Self, NoteError> {
        let note: Note = note.parse()?;
        authority.verify(&note)?;
        note.text().parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_binds_a_key_to_a_node() {
        let (authority, other) = (Signer::generate().unwrap(), Signer::generate().unwrap());
        let key = authority.verifier(AUTHORITY).unwrap();
        for region in ["eu", ""] {
            let (node, region) = ("eu-1".to_owned(), region.to_owned());
            let certificate = Certificate { node, region, key: other.public(), since: 7 };
            let note = certificate.sign(&authority).unwrap().to_string();
            assert_eq!(Certificate::read(&note, &key), Ok(certificate.clone()));
            assert!(Certificate::read(&note.replace("eu-1", "eu-2"), &key).is_err());
            assert!(
                Certificate::read(&certificate.sign(&other).unwrap().to_string(), &key).is_err()
            );
            // A key that signs checkpoints as well says nothing else by them.
            let wrong = authority.sign(AUTHORITY, "weir.audit/n/1\n0\nx\n".to_owned()).unwrap();
            assert!(Certificate::read(&wrong.to_string(), &key).is_err());
        }
    }
}
