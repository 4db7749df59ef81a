//! One record per request: the facts, apart from how a sink writes them.

use serde::{Deserialize, Serialize};

use crate::id::{Digest, Name, Revision};
use crate::reason::Reason;
use crate::resource::AuditClass;

/// Names one record for ever: consumers drop duplicates by it and see gaps in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EventId {
    /// The node that wrote it.
    pub node: String,
    /// One run of the node's process: its start in milliseconds since the epoch.
    pub epoch: u64,
    /// From 1, without gaps within an epoch.
    pub sequence: u64,
}

/// The facts of one request. The pipeline adds the [`EventId`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// Random, also in logs and in the `x-request-id` of the answer.
    pub request_id: String,
    /// W3C trace id, when the caller sent one.
    pub trace_id: Option<String>,
    /// Milliseconds since the epoch at which the request arrived.
    pub time_ms: u64,
    /// Microseconds from the request's arrival to the end of the answer.
    pub duration_us: u64,
    /// Microseconds of that spent waiting for the upstream.
    pub upstream_us: u64,
    /// Where it was served.
    pub region: String,
    /// Address of the peer.
    pub peer: Option<String>,
    /// Group of the endpoint, when it exists.
    pub group: Option<Name>,
    /// How surely it must be recorded.
    #[serde(skip)]
    pub class: AuditClass,
    /// Revision of the configuration that served it.
    pub revision: Revision,
    /// [`crate::principal::Principal::id`].
    pub principal: Option<String>,
    /// How the principal was proved.
    pub proof: Option<crate::principal::Proof>,
    /// OAuth client or API token id.
    pub credential: Option<String>,
    /// The session: of an MCP client of an older revision, else `sid` of the token. What a
    /// revocation can name.
    pub session: Option<String>,
    /// `jti` of the token: another thing that a revocation can name.
    pub token: Option<String>,
    /// Self-reported client name and version.
    pub client: Option<String>,
    /// MCP revision of the client.
    pub front_revision: Option<String>,
    /// MCP revision towards the upstream.
    pub back_revision: Option<String>,
    /// JSON-RPC method.
    pub method: Option<String>,
    /// Server.
    pub server: Option<Name>,
    /// Its version.
    pub version: Option<Name>,
    /// Tool or prompt name, or URI, as the upstream has it.
    pub target: Option<String>,
    /// The credential that the gateway presented to it: its name.
    pub presented: Option<Name>,
    /// Digest of the definition that the call was checked against.
    pub definition: Option<Digest>,
    /// Of its input schema, as the definition has it.
    pub input_schema: Option<Digest>,
    /// Of its output schema.
    pub output_schema: Option<Digest>,
    /// Allowed or not, when it came to a decision.
    pub allowed: Option<bool>,
    /// Ids of the deciding rules.
    pub rules: Vec<String>,
    /// What the decision was made of, beside what is told elsewhere; with the documents of the
    /// revision it can be made again.
    pub judged: Option<Judged>,
    /// The arguments, where a deciding rule says `@audit("full")`, without what one redacts.
    pub kept: Option<serde_json::Value>,
    /// What the server answered, where a deciding rule says `@audit("result")`, without what one
    /// redacts.
    pub kept_result: Option<serde_json::Value>,
    /// Something that rules want kept was too long to be.
    pub left_out: bool,
    /// Digest of the `arguments` (or `params`) as received.
    pub arguments: Option<Digest>,
    /// Digest of the `result` or `error` that a server's answer came to, as the client got it.
    pub result: Option<Digest>,
    /// Who has to approve such a call, where a deciding rule wants that.
    pub approvers: Vec<String>,
    /// Times that the call was sent to the server again.
    pub retries: u32,
    /// Bytes received.
    pub request_bytes: u64,
    /// Bytes answered.
    pub response_bytes: u64,
    /// How it ended.
    pub outcome: Outcome,
}

/// What a decision was made of.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// [`crate::policy::Rules::digest`].
    pub rules: Digest,
    /// [`crate::principal::Principal::digest`].
    pub principal: Digest,
    /// Seconds since the epoch, as rules saw them.
    pub at: i64,
    /// The caller's memberships, sorted.
    pub memberships: std::sync::Arc<[std::sync::Arc<str>]>,
    /// The caller's scopes, sorted.
    pub scopes: std::sync::Arc<[std::sync::Arc<str>]>,
    /// The client's name, as rules saw it.
    pub client: Option<String>,
    /// What the tool says of itself.
    pub hints: crate::snapshot::Hints,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "value")]
pub enum Outcome {
    /// Answered with a result.
    Success,
    /// The tool ran and said `isError: true`.
    ToolError,
    /// The upstream answered with a JSON-RPC error of this code.
    ProtocolError(i64),
    /// Weir refused it.
    Refused(Reason),
    /// The client left before the end of the answer.
    Aborted,
    /// The record was dropped by a fault before anybody said how it ended.
    #[default]
    Unknown,
}
