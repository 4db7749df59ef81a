//! What a proxy saw of a server version, on its way up to the control plane.

use crate::id::Name;
use crate::resource::{DefinitionKind, ObservedEra};

/// One report about one server version.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// Group.
    pub group: Name,
    /// Server.
    pub server: Name,
    /// Version.
    pub version: Name,
    /// What was seen.
    pub seen: Seen,
}

/// What was seen.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    /// It answered, and this is everything that it offers.
    Offer(Offer),
    /// It answers again.
    Up,
    /// It does not answer; a sentence without internals of the network.
    Down(String),
}

/// Everything that a server version offers.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// The era that it speaks.
    pub era: ObservedEra,
    /// The newest revision that it speaks.
    pub revision: String,
    /// `serverInfo`.
    pub server_info: serde_json::Value,
    /// `capabilities`.
    pub capabilities: serde_json::Value,
    /// `instructions`.
    pub instructions: Option<String>,
    /// In the upstream's order, kind by kind.
    pub definitions: Vec<Offered>,
}

/// One definition as published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    /// What it defines.
    pub kind: DefinitionKind,
    /// Tool or prompt name, URI, URI template.
    pub name: String,
    /// The exact bytes, which are JSON.
    pub json: String,
}
