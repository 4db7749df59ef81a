//! Documents that only the control plane writes.

use serde::{Deserialize, Serialize};

use super::SecretRef;
use crate::id::{Digest, Name};

/// What one server version offers. Named `{server}.{version}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Catalog {
    /// The server.
    pub server: Name,
    /// Its version.
    pub version: Name,
    /// The era that the server was seen to speak.
    pub era: ObservedEra,
    /// `serverInfo` as published.
    #[serde(default)]
    pub server_info: serde_json::Value,
    /// `capabilities` as published.
    #[serde(default)]
    pub capabilities: serde_json::Value,
    /// `instructions` as published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    /// In the upstream's order. What proxies serve: the pinned definitions.
    pub entries: Vec<CatalogEntry>,
    /// Observed but not pinned: new or changed definitions that wait for an operator.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<CatalogEntry>,
    /// Observed `instructions` that wait likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_instructions: Option<String>,
    /// Pinned, but not offered at the moment: served to nobody, and served again without another
    /// approval when it comes back unchanged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<CatalogEntry>,
}

impl Catalog {
    /// The name of the catalog of a server version.
    pub fn name_of(server: &Name, version: &Name) -> String {
        format!("{server}.{version}")
    }

    /// Why a catalog cannot have an entry of that name, when it cannot.
    pub fn entry_name_complaint(kind: DefinitionKind, name: &str) -> Option<String> {
        super::check::entry_name(kind, name)
    }
}

/// One definition of a catalog.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CatalogEntry {
    /// What it defines.
    pub kind: DefinitionKind,
    /// Tool or prompt name, resource URI, or URI template.
    pub name: String,
    /// Of the definition's exact bytes; names the `Definition`.
    pub digest: Digest,
}

/// What a definition defines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DefinitionKind {
    /// From `tools/list`.
    Tool,
    /// From `resources/list`.
    Resource,
    /// From `resources/templates/list`.
    Template,
    /// From `prompts/list`.
    Prompt,
}

/// One definition, byte for byte as the upstream published it. Named by its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Definition {
    /// The upstream's JSON text.
    pub json: String,
}

impl Definition {
    /// The name of the definition whose exact bytes have this digest.
    pub fn name_of(digest: &Digest) -> String {
        digest.hex()[..40].to_owned()
    }

    /// The first four bytes of the digest of a definition of that name.
    pub(crate) fn begins(name: &str) -> Option<[u8; 4]> {
        u32::from_str_radix(name.get(..8)?, 16).ok().map(u32::to_be_bytes)
    }

    /// Why a text cannot be kept as a definition, when it cannot: too long, too deep, no JSON
    /// object.
    pub fn json_complaint(json: &str) -> Option<String> {
        super::check::definition_json(json)
    }
}

/// The era of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObservedEra {
    /// Speaks a revision up to 2025-11-25 (handshake, sessions).
    Legacy,
    /// Speaks 2026-07-28 only.
    Modern,
    /// Speaks both.
    Dual,
}

/// Keys that seal session ids, cursors and state. The first entry seals; all of them open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Keyring {
    /// Newest first, at most four.
    pub keys: Vec<KeyringEntry>,
}

/// One key of a keyring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyringEntry {
    /// Short; travels in front of each sealed token.
    pub id: String,
    /// 32 bytes.
    pub key: SecretRef,
}
