//! One tool as the hot path sees it.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::id::Digest;
use crate::schema::Schema;

/// A tool definition, compiled once.
#[derive(Debug)]
pub struct ToolView {
    /// As the upstream has it.
    pub name: String,
    /// On the aggregated endpoint: `server__tool`, at most 64 characters.
    pub exposed: String,
    /// The definition byte for byte.
    pub raw: Bytes,
    /// The same with the exposed name in place of the upstream's; all else byte for byte.
    pub raw_exposed: Bytes,
    /// Of `raw`.
    pub digest: Digest,
    /// `annotations`, with the defaults of the specification.
    pub hints: Hints,
    /// What a call costs: `_meta` under `dev.weir/cost`, or 1.
    pub cost: u32,
    /// `inputSchema`, or why it cannot be used (then calls are refused).
    pub input: Result<Arc<Schema>, String>,
    /// `outputSchema`.
    pub output: Option<Result<Arc<Schema>, String>>,
    /// Of the text of `inputSchema`; none when there is none.
    pub input_digest: Option<Digest>,
    /// Of the text of `outputSchema`.
    pub output_digest: Option<Digest>,
    /// `x-mcp-header` annotations, or why they are invalid (then the tool is not listed).
    pub param_headers: Result<Vec<ParamHeader>, String>,
}

/// Untrusted hints of a tool (MCP `annotations`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hints {
    /// Changes nothing.
    pub read_only: bool,
    /// May destroy.
    pub destructive: bool,
    /// Calling twice is calling once.
    pub idempotent: bool,
    /// Reaches outside.
    pub open_world: bool,
}

impl Default for Hints {
    fn default() -> Self {
        Self { read_only: false, destructive: true, idempotent: false, open_world: true }
    }
}

/// An argument that is mirrored into a header (MCP 2026-07-28, mirrored headers).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamHeader {
    /// Member names from the root of the arguments.
    pub path: Vec<String>,
    /// Whole header name, lower case: `mcp-param-region`.
    pub header: String,
    /// Declared type.
    pub kind: ParamType,
}

impl ParamHeader {
    /// What an input schema declares.
    ///
    /// # Errors
    /// Why a tool with this schema must not be listed.
    pub fn declared(schema: &serde_json::Value) -> Result<Vec<Self>, String> {
        super::headers::read(schema)
    }
}

/// Types that a header can mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ParamType {
    String,
    Integer,
    Boolean,
}
