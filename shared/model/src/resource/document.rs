//! From text to typed documents, with every error and its path.
//!
//! A text goes through four readers, none of which stops at the first error: [`tree`] makes
//! untyped documents of it, [`envelope`] reads who each one is, secrets are taken out, [`lenient`]
//! makes the typed spec, and the kind's own checks (`resource/check.rs`) say what types cannot.
//!
//! What the store and the wire carry ([`Resource::from_canonical`]) takes a shorter way, and the
//! long one only to say what is wrong.

mod canonical;
mod envelope;
mod lenient;
mod path;
mod tree;

use std::collections::BTreeSet;
use std::fmt;

use bytes::Bytes;

use super::{Resource, ResourceKey, Spec, check};
use crate::bounds;
use crate::id::Digest;
use crate::secret::Secret;
use envelope::Envelope;
pub(super) use path::join_key;

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FieldError {
    /// Which document: its key as far as it could be read, else `document 3`.
    pub document: String,
    /// Path in the document: `spec.versions[0].upstream.http.url`.
    pub path: String,
    /// What is wrong and how to mend it, one sentence.
    pub message: String,
}

impl FieldError {
    /// An error at a path of a document.
    pub fn new(
        document: impl fmt::Display,
        path: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self { document: document.to_string(), path: path.into(), message: message.into() }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            write!(f, "{}: {}", self.document, self.message)
        } else {
            write!(f, "{}: {}: {}", self.document, self.path, self.message)
        }
    }
}

/// A document as an operator wrote it: typed, but secrets still in the clear.
#[derive(Debug)]
pub struct Document {
    /// The document with each secret replaced by a [`super::SecretRef`] to a fresh id.
    pub resource: Resource,
    /// The secrets that were replaced: id and text.
    pub secrets: Vec<(String, Secret<String>)>,
}

/// Reads YAML (several documents separated by `---`) or JSON (one document, an array, or
/// `{"items": [...]}`). All documents are read; all errors come back at once.
///
/// `new_secret_id` makes an id for each secret met in the clear. A document that already refers
/// to a secret (`{secret: id}`, what `get` shows) is kept as it is: whoever admits it must only
/// accept ids that the stored document of the same key refers to ([`Resource::secret_refs`]),
/// else one document could borrow the secret of another.
///
/// # Errors
/// Every field error of every document, at most [`crate::bounds::FIELD_ERRORS_MAX`].
pub fn parse_documents(
    text: &str,
    new_secret_id: &mut dyn FnMut() -> String,
) -> Result<Vec<Document>, Vec<FieldError>> {
    let forest = tree::read(text);
    let mut errors = Vec::new();
    let mut documents = Vec::new();
    let mut keys = BTreeSet::new();
    if forest.trees.is_empty() && forest.errors.is_empty() {
        errors.push(FieldError::new("document 1", "", "there is no document"));
    }
    for (index, tree) in forest.trees.into_iter().enumerate() {
        if errors.len() >= bounds::FIELD_ERRORS_MAX {
            break;
        }
        match read_document(index + 1, tree, new_secret_id) {
            Ok(document) if !keys.insert(document.resource.key.clone()) => {
                errors.push(FieldError::new(
                    &document.resource.key,
                    "metadata.name",
                    "the same document is given twice",
                ));
            }
            Ok(document) => documents.push(document),
            Err(more) => errors.extend(more),
        }
    }
    let unread = forest.errors.into_iter();
    errors
        .extend(unread.map(|(at, message)| FieldError::new(format!("document {at}"), "", message)));
    errors.truncate(bounds::FIELD_ERRORS_MAX);
    if errors.is_empty() { Ok(documents) } else { Err(errors) }
}

fn read_document(
    number: usize,
    tree: tree::Tree,
    new_secret_id: &mut dyn FnMut() -> String,
) -> Result<Document, Vec<FieldError>> {
    let mut complaints: Vec<lenient::Complaint> = Vec::new();
    let repeated = |path| (path, "is given twice; keep one".to_owned());
    complaints.extend(tree.duplicates.into_iter().map(repeated));
    let Envelope { key, label, mut spec } = envelope::read(number, tree.value, &mut complaints);
    let named = |complaints: Vec<lenient::Complaint>| -> Vec<FieldError> {
        complaints.into_iter().map(|(path, text)| FieldError::new(&label, path, text)).collect()
    };
    let Some(kind) = key.kind else { return Err(named(complaints)) };
    if kind.is_system() {
        let text = "documents of this kind are written by the control plane alone";
        return Err(named(vec![("kind".to_owned(), text.to_owned())]));
    }
    let mut secrets = Vec::new();
    if let Some(spec) = &mut spec {
        envelope::take_secrets(kind, spec, new_secret_id, &mut secrets, &mut complaints);
    }
    let Some(spec) = spec else { return Err(named(complaints)) };
    let lenient::Reading { typed, complaints: found, blanks } =
        canonical::spec_from_value(kind, &spec);
    add_unrelated(&mut complaints, found, &BTreeSet::new());
    match (key.complete(), typed) {
        (Some(key), Some(spec)) if complaints.is_empty() => {
            Ok(Document { resource: Resource::new(key, spec)?, secrets })
        }
        (_, typed) => {
            // What the kind's own checks say is still worth telling, unless it follows from
            // something that was said already.
            let found = typed.map(|spec| check::spec(&spec)).unwrap_or_default();
            add_unrelated(&mut complaints, found, &blanks);
            Err(named(complaints))
        }
    }
}

/// Adds what was found later, unless it follows from what is known.
fn add_unrelated(
    complaints: &mut Vec<lenient::Complaint>,
    found: Vec<lenient::Complaint>,
    blanks: &BTreeSet<String>,
) {
    let before = complaints.len();
    for (at, message) in found {
        let known = complaints[..before].iter().map(|(known, _)| known);
        if !known.chain(blanks).any(|known| path::related(known, &at)) {
            complaints.push((at, message));
        }
    }
}

impl Resource {
    /// Reads one canonical document, as the store and the wire carry it.
    ///
    /// # Errors
    /// The field errors, when the bytes are no document of this build's schema.
    pub fn from_canonical(bytes: Bytes) -> Result<Self, Vec<FieldError>> {
        let (key, spec) = canonical::read(&bytes)?;
        let resource = Self { digest: Digest::of(&bytes), key, spec, canonical: bytes };
        resource.checked()
    }

    /// Makes a resource from a typed spec: checks it, and derives its canonical form and digest.
    ///
    /// # Errors
    /// The field errors that the kind's own checks find (names, bounds, URLs, patterns, shares).
    pub fn new(key: ResourceKey, spec: Spec) -> Result<Self, Vec<FieldError>> {
        let canonical = Bytes::from(canonical::write(&key, &spec));
        Self { digest: Digest::of(&canonical), key, spec, canonical }.checked()
    }

    fn checked(self) -> Result<Self, Vec<FieldError>> {
        let mut found = check::identity(&self.key, &self.spec);
        found.extend(check::spec(&self.spec));
        if self.canonical.len() > bounds::RESOURCE_BYTES_MAX {
            let max = bounds::RESOURCE_BYTES_MAX;
            found.push((String::new(), format!("is longer than {max} bytes")));
        }
        if found.is_empty() {
            return Ok(self);
        }
        let named = |(path, text)| FieldError::new(&self.key, path, text);
        Err(found.into_iter().map(named).collect())
    }
}
