//! Registered MCP servers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::bounds;
use crate::id::Name;

/// A registered MCP server: versions, and which of them get which share of the calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Server {
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// At least one; names are unique.
    pub versions: Vec<ServerVersion>,
    /// Shares by version. Empty: everything goes to the first version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub traffic: Vec<TrafficShare>,
    /// What calls of tools cost, for limits that count cost; the first that fits counts. A tool
    /// that fits none costs what its `_meta` says under `dev.weir/cost`, or 1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub costs: Vec<ToolCost>,
}

/// What a call of some tools costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ToolCost {
    /// Tool name patterns.
    pub tools: Vec<String>,
    /// Units, 1 to 10,000.
    pub units: u32,
}

/// One version of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServerVersion {
    /// Unique within the server.
    pub name: Name,
    /// How it is reached.
    pub upstream: Upstream,
    /// A `Credential` of the same group, attached to every call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Name>,
    /// Milliseconds for one call, end to end; the default is 60,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// How a server version is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Upstream {
    /// Streamable HTTP.
    Http(HttpUpstream),
    /// A child process of the proxy.
    Stdio(StdioUpstream),
}

/// A server over HTTP: Streamable HTTP of any revision, or HTTP+SSE of 2024-11-05.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpUpstream {
    /// The MCP endpoint, `http` or `https`; for HTTP+SSE the address of the stream.
    pub url: String,
    /// Lets the address be loopback, private or link-local (the guard against request forgery
    /// refuses those otherwise). Cloud metadata addresses are refused regardless.
    #[serde(default)]
    pub allow_private: bool,
}

/// A server that the proxy starts as a child process.
///
/// The command line and environment come from here alone, never from a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StdioUpstream {
    /// Program; must be on the proxy's allow list (a setting of the proxy).
    pub command: String,
    /// Arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// The whole environment; the proxy's own is not inherited, except `PATH`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Working directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Memory in MiB that a child and the processes that it starts may use together, 16 to 65,536;
    /// beyond, they are killed.
    #[serde(default = "memory", skip_serializing_if = "is_memory")]
    pub memory_mib: u64,
    /// Processes that a child may consist of, 1 to 4,096; beyond, they are killed.
    #[serde(default = "processes", skip_serializing_if = "is_processes")]
    pub processes: u32,
}

fn memory() -> u64 {
    bounds::CHILD_MEMORY_MIB
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde asks for a reference
fn is_memory(value: &u64) -> bool {
    *value == memory()
}

fn processes() -> u32 {
    bounds::CHILD_PROCESSES
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde asks for a reference
fn is_processes(value: &u32) -> bool {
    *value == processes()
}

/// One version's share of the calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrafficShare {
    /// A version of the server.
    pub version: Name,
    /// Percent; the shares of a server add up to 100.
    pub percent: u8,
}
