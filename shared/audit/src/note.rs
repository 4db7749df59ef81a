//! Signed notes (C2SP `signed-note`) with Ed25519, and cosignatures of witnesses (C2SP
//! `tlog-cosignature`, `cosignature/v1`): texts that others can check with tools of their own.
//!
//! A note is a text that ends in a line break, an empty line, and a line per signature:
//! `— NAME BASE64(key id, signature)`. The key id binds name, algorithm and key, so that one key
//! under two names is two signers.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

/// Longest note that is read.
pub const NOTE_BYTES_MAX: usize = 16 * 1024;
/// Signatures of one note that are looked at.
const SIGNATURES_MAX: usize = 16;
const SIGNATURE_BEGIN: &str = "— ";
const KEY_BYTES: usize = 32;
const SIGNATURE_BYTES: usize = 64;

/// What a signature says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// Ed25519 over the text.
    Ed25519,
    /// Ed25519 over the text and the time at which a witness saw it.
    Cosignature,
}

impl Algorithm {
    fn byte(self) -> u8 {
        match self {
            Self::Ed25519 => 1,
            Self::Cosignature => 4,
        }
    }
}

/// Why a note, a key or a signature cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// The text is no note.
    #[error("not a signed note: {0}")]
    Malformed(&'static str),
    /// The text is no public key of a note.
    #[error("not a verifier key (`NAME+HASH+KEY`)")]
    BadKey,
    /// Nobody who is known has signed it.
    #[error("not signed by {0}")]
    Unsigned(String),
    /// A known key, and not its signature.
    #[error("the signature of {0} is wrong")]
    WrongSignature(String),
    /// The private key's file.
    #[error("signing key {path}: {why}")]
    KeyFile {
        /// Which.
        path: String,
        /// Why.
        why: String,
    },
}

/// A public key under a name, as `NAME+HASH+KEY`.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    name: String,
    algorithm: Algorithm,
    key: [u8; KEY_BYTES],
}

impl Verifier {
    /// A key under a name; none when the name cannot stand in a note.
    pub fn new(name: &str, algorithm: Algorithm, key: [u8; KEY_BYTES]) -> Option<Self> {
        let good = !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == '+');
        good.then(|| Self { name: name.to_owned(), algorithm, key })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key itself.
    pub fn key(&self) -> [u8; KEY_BYTES] {
        self.key
    }

    /// The same key as a witness uses it.
    #[must_use]
    pub fn cosigner(&self) -> Self {
        Self { algorithm: Algorithm::Cosignature, ..self.clone() }
    }

    /// The first four bytes of the digest over name, algorithm and key.
    fn id(&self) -> [u8; 4] {
        let bytes = [self.name.as_bytes(), b"\n", &[self.algorithm.byte()], &self.key].concat();
        let digest = digest(&SHA256, &bytes);
        let mut id = [0; 4];
        id.copy_from_slice(&digest.as_ref()[..4]);
        id
    }

    /// Checks that this key has signed the note; gives the time that a witness said.
    ///
    /// # Errors
    /// [`NoteError::Unsigned`] and [`NoteError::WrongSignature`].
    pub fn verify(&self, note: &Note) -> Result<Option<u64>, NoteError> {
        let id = self.id();
        let mine = |s: &&Signature| s.name == self.name && s.bytes.starts_with(&id);
        let signature = note.signatures.iter().find(mine);
        let signature = signature.ok_or_else(|| NoteError::Unsigned(self.name.clone()))?;
        let wrong = || NoteError::WrongSignature(self.name.clone());
        let bytes = &signature.bytes[id.len()..];
        let (message, bytes, time) = match self.algorithm {
            Algorithm::Ed25519 => (note.text.clone().into_bytes(), bytes, None),
            Algorithm::Cosignature => {
                let (time, bytes) = bytes.split_first_chunk::<8>().ok_or_else(wrong)?;
                let time = u64::from_be_bytes(*time);
                (cosigned(&note.text, time), bytes, Some(time))
            }
        };
        let key = UnparsedPublicKey::new(&ED25519, self.key);
        key.verify(&message, bytes).map_err(|_| wrong())?;
        Ok(time)
    }
}

/// What a witness signs.
fn cosigned(text: &str, time: u64) -> Vec<u8> {
    format!("cosignature/v1\ntime {time}\n{text}").into_bytes()
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = u32::from_be_bytes(self.id());
        let key = BASE64.encode([&[self.algorithm.byte()][..], &self.key].concat());
        write!(f, "{}+{id:08x}+{key}", self.name)
    }
}
impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Verifier {
    type Err = NoteError;
    fn from_str(text: &str) -> Result<Self, NoteError> {
        let parse = || {
            let (name, rest) = text.trim().split_once('+')?;
            let (id, key) = rest.split_once('+')?;
            let bytes = BASE64.decode(key).ok()?;
            let (algorithm, key) = bytes.split_first()?;
            let algorithm = [Algorithm::Ed25519, Algorithm::Cosignature]
                .into_iter()
                .find(|known| known.byte() == *algorithm)?;
            let verifier = Self::new(name, algorithm, key.try_into().ok()?)?;
            (format!("{:08x}", u32::from_be_bytes(verifier.id())) == id).then_some(verifier)
        };
        parse().ok_or(NoteError::BadKey)
    }
}

/// A private key. It is in memory alone and in its file.
pub struct Signer {
    pair: Ed25519KeyPair,
    public: [u8; KEY_BYTES],
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", BASE64.encode(self.public))
    }
}

impl Signer {
    fn of(pair: Ed25519KeyPair) -> Self {
        let mut public = [0; KEY_BYTES];
        public.copy_from_slice(pair.public_key().as_ref());
        Self { pair, public }
    }

    /// A new key.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn generate() -> Result<Self, NoteError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| NoteError::Malformed("no randomness"))?;
        Ok(Self::of(pair))
    }

    /// The key of these PKCS#8 bytes.
    ///
    /// # Errors
    /// When they are none.
    pub fn from_pkcs8(bytes: &[u8]) -> Result<Self, NoteError> {
        Ed25519KeyPair::from_pkcs8(bytes).map(Self::of).map_err(|_| NoteError::BadKey)
    }

    /// The key as PKCS#8, for whoever keeps it safe.
    ///
    /// # Errors
    /// When it cannot be encoded.
    pub fn to_pkcs8(&self) -> Result<zeroize::Zeroizing<Vec<u8>>, NoteError> {
        let document = self.pair.to_pkcs8().map_err(|_| NoteError::BadKey)?;
        Ok(zeroize::Zeroizing::new(document.as_ref().to_vec()))
    }

    /// The key of a file (PKCS#8, base64); made, for its owner alone, when there is none.
    ///
    /// # Errors
    /// When the file cannot be read, made or understood.
    pub fn load_or_make(path: &Path) -> Result<Self, NoteError> {
        let failed = |why: String| NoteError::KeyFile { path: path.display().to_string(), why };
        match std::fs::read_to_string(path) {
            Ok(text) => {
                let text = zeroize::Zeroizing::new(text);
                let bytes = BASE64.decode(text.trim()).map(zeroize::Zeroizing::new);
                let bytes = bytes.map_err(|_| failed("it is not base64".to_owned()))?;
                Self::from_pkcs8(&bytes).map_err(|_| failed("it is no Ed25519 key".to_owned()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let signer = Self::generate()?;
                let text = zeroize::Zeroizing::new(BASE64.encode(&*signer.to_pkcs8()?));
                write_private(path, &text).map_err(|e| failed(e.to_string()))?;
                Ok(signer)
            }
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// The public key.
    pub fn public(&self) -> [u8; KEY_BYTES] {
        self.public
    }

    /// The public key under a name; none when the name cannot stand in a note.
    pub fn verifier(&self, name: &str) -> Option<Verifier> {
        Verifier::new(name, Algorithm::Ed25519, self.public)
    }

    /// Signs a text under a name.
    ///
    /// # Errors
    /// When text or name cannot stand in a note.
    pub fn sign(&self, name: &str, text: String) -> Result<Note, NoteError> {
        let mut note = Note { text, signatures: Vec::new() };
        check_text(&note.text)?;
        let verifier = self.verifier(name).ok_or(NoteError::Malformed("the signer's name"))?;
        let signature = self.pair.sign(note.text.as_bytes());
        note.add(&verifier, &[signature.as_ref()]);
        Ok(note)
    }

    /// Adds a witness's signature: that it has seen the note at this time (seconds since the
    /// epoch), and nothing that contradicts it.
    ///
    /// # Errors
    /// When the name cannot stand in a note.
    pub fn cosign(&self, name: &str, note: &mut Note, time: u64) -> Result<(), NoteError> {
        let verifier = self.verifier(name).ok_or(NoteError::Malformed("the signer's name"))?;
        let signature = self.pair.sign(&cosigned(&note.text, time));
        note.add(&verifier.cosigner(), &[&time.to_be_bytes(), signature.as_ref()]);
        Ok(())
    }
}

/// Through a file beside it, so that a crash leaves no half a key.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)?;
    }
    let beside = path.with_extension("new");
    let _ = std::fs::remove_file(&beside);
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}

/// A text with its signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<Signature>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Signature {
    name: String,
    /// Key id and signature.
    bytes: Vec<u8>,
}

fn check_text(text: &str) -> Result<(), NoteError> {
    let control = |c: char| c.is_control() && c != '\n';
    if !text.ends_with('\n') || text.contains(control) || text.contains("\n\n") {
        return Err(NoteError::Malformed("the text"));
    }
    Ok(())
}

impl Note {
    /// What is signed; ends in a line break.
    pub fn text(&self) -> &str {
        &self.text
    }

    fn add(&mut self, verifier: &Verifier, parts: &[&[u8]]) {
        let bytes = [&[&verifier.id()[..]], parts].concat().concat();
        self.signatures.push(Signature { name: verifier.name.clone(), bytes });
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        for Signature { name, bytes } in &self.signatures {
            writeln!(f, "{SIGNATURE_BEGIN}{name} {}", BASE64.encode(bytes))?;
        }
        Ok(())
    }
}

impl FromStr for Note {
    type Err = NoteError;
    fn from_str(note: &str) -> Result<Self, NoteError> {
        if note.len() > NOTE_BYTES_MAX {
            return Err(NoteError::Malformed("it is too long"));
        }
        let (text, lines) =
            note.rsplit_once("\n\n").ok_or(NoteError::Malformed("no signatures"))?;
        let text = format!("{text}\n");
        check_text(&text)?;
        let lines = lines.strip_suffix('\n').ok_or(NoteError::Malformed("the last line"))?;
        let mut signatures = Vec::new();
        for line in lines.split('\n') {
            let parse = || {
                let (name, bytes) = line.strip_prefix(SIGNATURE_BEGIN)?.split_once(' ')?;
                let bytes = BASE64.decode(bytes).ok().filter(|b| b.len() > 4 + SIGNATURE_BYTES / 2);
                Some(Signature { name: name.to_owned(), bytes: bytes? })
            };
            signatures.push(parse().ok_or(NoteError::Malformed("a signature's line"))?);
            if signatures.len() > SIGNATURES_MAX {
                return Err(NoteError::Malformed("too many signatures"));
            }
        }
        Ok(Self { text, signatures })
    }
}

#[cfg(test)]
mod tests;
