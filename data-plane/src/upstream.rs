//! The back edge: calls to MCP servers over Streamable HTTP and stdio, whatever era they speak.
//!
//! The front hands in one request in the client's own terms; this side finds out which era the
//! server speaks, adapts the envelope, sends it, and gives back the server's messages as raw
//! JSON. Results and errors are never re-serialised.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use weir_model::reason::Refusal;
use weir_model::snapshot::{ToolView, VersionView};

/// The side of the client, as far as a server has to know.
#[derive(Debug, Clone)]
pub struct Front {
    /// True for 2026-07-28 and later.
    pub modern: bool,
    /// The revision that the client speaks: `2025-11-25`.
    pub revision: String,
    /// `clientInfo`, raw JSON object.
    pub client_info: Option<Bytes>,
    /// `capabilities` (legacy) or `_meta[io.modelcontextprotocol/clientCapabilities]`, raw JSON.
    pub capabilities: Bytes,
    /// Identifies caller and session: upstream sessions and children of legacy servers are kept
    /// per value of this (principal id plus sealed session, or principal id alone).
    pub isolation: String,
}

/// One request for a server.
#[derive(Debug, Clone)]
pub struct Outbound {
    /// Where to.
    pub version: Arc<VersionView>,
    /// From whom.
    pub front: Front,
    /// JSON-RPC method.
    pub method: String,
    /// `params` as raw JSON with the upstream's own names in it; `_meta` as the client sent it.
    pub params: Option<Bytes>,
    /// What `Mcp-Name` mirrors (tool or prompt name, URI), for methods that have it.
    pub name: Option<String>,
    /// The tool of a `tools/call`, for its mirrored argument headers.
    pub tool: Option<Arc<ToolView>>,
    /// The client's own `Mcp-Param-*` headers, forwarded untouched to a modern server.
    pub param_headers: Vec<(HeaderName, HeaderValue)>,
    /// Credential headers, already opened.
    pub credentials: Vec<(HeaderName, HeaderValue)>,
    /// For transparent endpoints with a legacy client and a legacy server over HTTP: the server's
    /// own session, which the client's sealed session id carries.
    pub session: Option<String>,
    /// When to give up.
    pub deadline: Instant,
    /// W3C `traceparent` to send on.
    pub traceparent: Option<String>,
}

/// A message from a server that belongs to one request.
#[derive(Debug)]
pub enum Message {
    /// A notification: the whole JSON-RPC object, raw.
    Notification(Bytes),
    /// A request to the client (legacy servers): the whole JSON-RPC object, raw.
    Request(Bytes),
    /// The final result: the `result` member, raw.
    Result(Bytes),
    /// The final JSON-RPC error: the `error` member, raw.
    Error(Bytes),
    /// SSE bookkeeping of a legacy server: event id and `retry`, without a message.
    Prime {
        /// `id:` field.
        id: Option<String>,
        /// `retry:` field, milliseconds.
        retry_ms: Option<u64>,
    },
}

/// What a server answers to one request. Dropping it cancels the request at the server.
#[derive(Debug)]
pub struct Exchange {
    /// The revision that the server speaks in this exchange.
    pub back_revision: String,
    /// The server's session, when this request opened one (`initialize` on a transparent endpoint).
    pub session: Option<String>,
    /// In order; ends after `Result` or `Error`, or with a refusal.
    pub messages: Messages,
}

/// The messages of an exchange.
#[derive(Debug)]
pub enum Messages {
    /// The server answered with one JSON body: the front may answer in the same way.
    One(Message),
    /// The server answered with a stream.
    Stream(tokio::sync::mpsc::Receiver<Result<Message, Refusal>>),
}
