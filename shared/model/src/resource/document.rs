//! From text to typed documents, with every error and its path.

use super::Resource;

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
        document: impl ToString,
        path: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self { document: document.to_string(), path: path.into(), message: message.into() }
    }
}

/// A document as an operator wrote it: typed, but secrets still in the clear.
#[derive(Debug)]
pub struct Document {
    /// The document with each secret replaced by a [`super::SecretRef`] to a fresh id.
    pub resource: Resource,
    /// The secrets that were replaced: id and text.
    pub secrets: Vec<(String, crate::secret::Secret<String>)>,
}

/// Reads YAML (several documents separated by `---`) or JSON (one document, an array, or
/// `{"items": [...]}`). All documents are read; all errors come back at once.
///
/// `new_secret_id` makes an id for each secret met in the clear.
///
/// # Errors
/// Every field error of every document, at most [`crate::bounds::FIELD_ERRORS_MAX`].
pub fn parse_documents(
    text: &str,
    new_secret_id: &mut dyn FnMut() -> String,
) -> Result<Vec<Document>, Vec<FieldError>> {
    let _ = (text, new_secret_id);
    todo!()
}

impl Resource {
    /// Reads one canonical document, as the store and the wire carry it.
    ///
    /// # Errors
    /// The field errors, when the bytes are no document of this build's schema.
    pub fn from_canonical(bytes: bytes::Bytes) -> Result<Self, Vec<FieldError>> {
        let _ = bytes;
        todo!()
    }

    /// Makes a resource from a typed spec: checks it, and derives its canonical form and digest.
    ///
    /// # Errors
    /// The field errors that the kind's own checks find (names, bounds, URLs, patterns, shares).
    pub fn new(key: super::ResourceKey, spec: super::Spec) -> Result<Self, Vec<FieldError>> {
        let _ = (key, spec);
        todo!()
    }
}
