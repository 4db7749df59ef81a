//! What decisions are found by: everything that one can depend on, arguments and context apart.
//! Compared as a whole, so that no two questions are ever taken for each other.

use std::hash::{Hash, Hasher};

use moka::Equivalent;
use weir_model::id::Digest;
use weir_model::policy::{Question, Rules};

/// As it is kept.
#[derive(Debug)]
pub(super) struct Key {
    rules: Digest,
    who: Digest,
    flags: [u8; 6],
    server: Box<str>,
    target: Box<str>,
}

/// As it is asked for, without copying anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Asked<'a> {
    rules: &'a Digest,
    who: &'a Digest,
    flags: [u8; 6],
    server: &'a str,
    target: &'a str,
}

impl<'a> Asked<'a> {
    pub(super) fn new(rules: &'a Rules, question: &Question<'a>, who: &'a Digest) -> Self {
        let hints = question.hints;
        let flags = [
            question.action as u8,
            u8::from(question.arguments.is_none()),
            u8::from(hints.read_only),
            u8::from(hints.destructive),
            u8::from(hints.idempotent),
            u8::from(hints.open_world),
        ];
        let (server, target) = (question.server.as_str(), question.target);
        Self { rules: &rules.digest, who, flags, server, target }
    }

    pub(super) fn keep(&self) -> Key {
        let Self { rules, who, flags, server, target } = *self;
        Key { rules: *rules, who: *who, flags, server: server.into(), target: target.into() }
    }
}

impl Key {
    fn asked(&self) -> Asked<'_> {
        let Self { rules, who, flags, server, target } = self;
        Asked { rules, who, flags: *flags, server, target }
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.asked().hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.asked() == other.asked()
    }
}

impl Eq for Key {}

impl Equivalent<Key> for Asked<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        *self == key.asked()
    }
}
