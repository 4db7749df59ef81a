//! Paths of fields, as operators read them: `spec.versions[0].upstream.http.url`.

use std::borrow::Cow;
use std::fmt;

/// Where a value is, as a chain on the stack: a text is made only for an error.
#[derive(Debug, Clone, Copy)]
pub(super) enum Path<'a> {
    /// The value that reading began with.
    Root(&'a str),
    /// A member of a mapping.
    Key(&'a Path<'a>, &'a str),
    /// An element of a list.
    Index(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root(name) => f.write_str(name),
            Self::Key(parent, key) => {
                let parent = parent.to_string();
                f.write_str(&join_key(&parent, key))
            }
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// The path of a member. A key that is no plain word is quoted and, when long, cut.
pub(in crate::resource) fn join_key(parent: &str, key: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !key.is_empty() && key.len() <= 64 && key.chars().all(plain) {
        let dot = if parent.is_empty() { "" } else { "." };
        return format!("{parent}{dot}{key}");
    }
    format!("{parent}[{}]", serde_json::Value::from(shown(key)))
}

/// A text of somebody else's, short enough for a message.
pub(super) fn shown(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(64) {
        None => Cow::Borrowed(text),
        Some((at, _)) => Cow::Owned(format!("{}…", &text[..at])),
    }
}

/// True when one path is the other or leads to it.
pub(super) fn related(a: &str, b: &str) -> bool {
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    long.strip_prefix(short)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']) || short.is_empty())
}
