//! Why a call was not served: one closed list, with blame, statuses, retry advice and remedy.
//!
//! What a client is told derives from the [`Reason`] alone; [`Refusal::detail`] is for our own
//! logs and for audit. JSON-RPC codes follow MCP 2026-07-28 (base protocol, error codes): the
//! gateway's own codes lie outside of -32768..-32000, which the specification keeps for itself.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Who has to act on a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Blame {
    /// The caller: the request, its token or its pace.
    Client,
    /// A rule did what it is for.
    Policy,
    /// The configuration: an operator has to mend a resource.
    Config,
    /// The MCP server behind the gateway.
    Upstream,
    /// The gateway.
    Weir,
}

impl Blame {
    /// As metrics and records spell it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Policy => "policy",
            Self::Config => "config",
            Self::Upstream => "upstream",
            Self::Weir => "weir",
        }
    }
}

macro_rules! reasons {
    ($($variant:ident $label:literal $blame:ident $status:literal $code:literal $retry:literal $remedy:literal;)*) => {
        /// Why a call was not served.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Reason { $(#[doc = $remedy] $variant,)* }

        impl Reason {
            /// Every reason, in the order of the reference page.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable label in metrics, logs, audit records and documentation.
            pub fn label(self) -> &'static str { match self { $(Self::$variant => $label,)* } }
            /// Who has to act.
            pub fn blame(self) -> Blame { match self { $(Self::$variant => Blame::$blame,)* } }
            /// The HTTP status towards a 2026-07-28 client and for what fails below JSON-RPC.
            pub fn status(self) -> u16 { match self { $(Self::$variant => $status,)* } }
            /// The JSON-RPC error code.
            pub fn code(self) -> i32 { match self { $(Self::$variant => $code,)* } }
            /// True when the same call may succeed later without anybody changing anything.
            pub fn retryable(self) -> bool { match self { $(Self::$variant => $retry,)* } }
            /// What to do about it: one sentence that is safe to show to any caller.
            pub fn remedy(self) -> &'static str { match self { $(Self::$variant => $remedy,)* } }
        }
    };
}

reasons! {
    MalformedJson "malformed_json" Client 400 -32700 false "Send one JSON-RPC message in UTF-8 without a byte order mark.";
    InvalidRequest "invalid_request" Client 400 -32600 false "Send a JSON-RPC 2.0 message as this MCP revision defines it.";
    DuplicateKey "duplicate_key" Client 400 -32600 false "Send each JSON member once.";
    TooDeep "too_deep" Client 400 -32600 false "Nest JSON at most 64 levels deep.";
    BodyTooLarge "body_too_large" Client 413 -32600 false "Send a smaller request body.";
    HeadersTooLarge "headers_too_large" Client 431 -32600 false "Send fewer or smaller headers.";
    RequestTimeout "request_timeout" Client 408 -32600 true "Send the whole request within the time limit.";
    HeaderMismatch "header_mismatch" Client 400 -32020 false "Make the MCP headers agree with the body.";
    MissingCapability "missing_capability" Client 400 -32021 false "Declare the client capability that this call needs.";
    UnsupportedVersion "unsupported_version" Client 400 -32022 false "Use one of the supported MCP revisions.";
    InvalidParams "invalid_params" Client 400 -32602 false "Send the parameters that the method requires.";
    MethodUnknown "method_unknown" Client 404 -32601 false "Call a method that this endpoint advertises.";
    MethodNotAllowed "method_not_allowed" Client 405 -32600 false "Use POST (or GET and DELETE with a session of an older revision).";
    NotAcceptable "not_acceptable" Client 406 -32600 false "Accept both application/json and text/event-stream.";
    UnsupportedMediaType "unsupported_media_type" Client 415 -32600 false "Send Content-Type: application/json.";
    OriginRefused "origin_refused" Client 403 -32600 false "Call from an origin that the group allows.";
    HostRefused "host_refused" Client 403 -32600 false "Call the gateway by one of its own host names.";
    SessionMissing "session_missing" Client 400 -32600 false "Send the Mcp-Session-Id that initialize answered.";
    SessionUnknown "session_unknown" Client 404 -32600 false "Start a new session with initialize.";
    Unauthenticated "unauthenticated" Client 401 40100 false "Send a bearer token.";
    TokenInvalid "token_invalid" Client 401 40101 false "Get a new token from the identity provider.";
    TokenExpired "token_expired" Client 401 40102 false "Refresh the token.";
    TokenAudience "token_audience" Client 401 40103 false "Ask the identity provider for a token with this endpoint as its audience.";
    TokenRevoked "token_revoked" Client 401 40104 false "Log in again; an operator took this token, session or account back.";
    IdentityUnavailable "identity_unavailable" Config 503 50301 true "The identity provider's keys cannot be fetched; try again shortly.";
    InsufficientScope "insufficient_scope" Policy 403 40301 false "Ask for a token with the scope that the challenge names.";
    UnknownEndpoint "unknown_endpoint" Client 404 40400 false "Use an endpoint that the gateway serves: /{group}/mcp or /{group}/{server}/mcp.";
    UnknownTarget "unknown_target" Client 404 -32602 false "Call something that the endpoint lists for you.";
    ApprovalRequired "approval_required" Policy 403 40302 false "Somebody has to approve this call first; ask the owner of the group.";
    Denied "denied" Policy 403 40300 false "Ask the owner of the group for access.";
    InvalidArguments "invalid_arguments" Client 400 -32602 false "Make the arguments fit the tool's input schema.";
    InvalidResult "invalid_result" Upstream 502 50203 false "The server's answer breaks its own output schema; tell its owner.";
    RateLimited "rate_limited" Policy 429 42900 true "Wait as long as Retry-After says.";
    ConcurrencyLimited "concurrency_limited" Policy 429 42901 true "Wait until calls in flight have ended.";
    QuotaExceeded "quota_exceeded" Policy 429 42902 true "Wait until the quota's time is over, as Retry-After says.";
    Quarantined "quarantined" Config 503 50302 false "Part of the configuration that this call needs was refused; an operator has to mend it.";
    SnapshotMissing "snapshot_missing" Weir 503 50303 true "The gateway has no configuration yet; try again shortly.";
    SnapshotStale "snapshot_stale" Weir 503 50304 true "The gateway's configuration is older than the group allows.";
    AuditFull "audit_full" Weir 503 50305 true "The audit trail cannot take more records; try again shortly.";
    Overloaded "overloaded" Weir 503 50306 true "The gateway is at one of its own limits; try again shortly.";
    Draining "draining" Weir 503 50307 true "This proxy is shutting down; connect again.";
    UpstreamUnreachable "upstream_unreachable" Upstream 502 50200 true "The MCP server cannot be reached; try again shortly.";
    UpstreamTimeout "upstream_timeout" Upstream 504 50400 true "The MCP server took too long.";
    UpstreamClosed "upstream_closed" Upstream 502 50201 true "The MCP server ended the exchange before its answer.";
    UpstreamProtocol "upstream_protocol" Upstream 502 50202 false "The MCP server's answer breaks the protocol; tell its owner.";
    UpstreamRefused "upstream_refused" Upstream 502 50204 false "The MCP server refused the gateway's credential; tell its owner.";
    CannotBridge "cannot_bridge" Upstream 501 50100 false "The server needs something that this client's revision cannot carry.";
    Cancelled "cancelled" Client 499 49900 false "The client left before the answer.";
    Internal "internal" Weir 500 -32603 true "A fault of the gateway; its log has the details under the request id.";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// A refused call: the reason, which a client may see, and the detail, which only we see.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// From the closed list.
    pub reason: Reason,
    /// For logs and audit. Never contains a secret or a payload.
    pub detail: String,
    /// What the client may be told beyond the remedy, for reasons where that is safe: the path
    /// of a schema error, the supported versions, the header at fault.
    pub hint: Option<String>,
    /// JSON for the error's `data` member (`{"supported": [...]}`, `requiredCapabilities`).
    pub data: Option<Box<serde_json::Value>>,
    /// Seconds for `Retry-After`.
    pub retry_after_secs: Option<u64>,
}

impl Refusal {
    /// A refusal whose detail is for us alone.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), hint: None, data: None, retry_after_secs: None }
    }
    /// Adds a sentence that the client may see.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
    /// Adds the `data` member of the JSON-RPC error.
    #[must_use]
    pub fn data(mut self, data: serde_json::Value) -> Self {
        self.data = Some(Box::new(data));
        self
    }
    /// Adds a `Retry-After`.
    #[must_use]
    pub fn retry_after(mut self, secs: u64) -> Self {
        self.retry_after_secs = Some(secs);
        self
    }
    /// The sentence for the client: the hint where there is one, else the remedy.
    pub fn message(&self) -> &str {
        self.hint.as_deref().unwrap_or_else(|| self.reason.remedy())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.detail)
    }
}
impl std::error::Error for Refusal {}
impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self::new(reason, "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn labels_are_unique_and_codes_stay_out_of_the_reserved_range() {
        let labels: HashSet<_> = Reason::ALL.iter().map(|r| r.label()).collect();
        assert_eq!(labels.len(), Reason::ALL.len());
        let spec = [-32700, -32600, -32601, -32602, -32603, -32020, -32021, -32022];
        for reason in Reason::ALL {
            let code = reason.code();
            assert!(spec.contains(&code) || !(-32768..=-32000).contains(&code), "{reason}");
            assert!(reason.remedy().ends_with('.'), "{reason}");
        }
    }
}
