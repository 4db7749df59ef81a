//! What may no longer be used, from now on and until it would have ended by itself.

use serde::{Deserialize, Serialize};

use crate::id::{Digest, Name};

/// Takes something of a group back: one document, one thing. It is in force wherever the
/// document has arrived; deleting the document gives the thing back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Revocation {
    /// What is taken back.
    pub what: Revoked,
    /// Seconds since the epoch after which it counts no more, and the document is cleared away;
    /// none: until somebody deletes it. Tokens and sessions need one, policies and role bindings
    /// cannot have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<i64>,
    /// For people: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
}

/// Something that can be taken back.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Revoked {
    /// A token of an identity provider, by the SHA-256 of its text; or a client certificate, by
    /// that of its DER.
    Token(Digest),
    /// The same, by `jti` (Entra: `uti`).
    TokenId(String),
    /// A session: of the identity provider (`sid` of its tokens), of the gateway's own sign-in, or
    /// of an MCP client of an older revision (`session` in the audit record).
    Session(String),
    /// Everything that a caller presents, by its id in the audit record: `jwt:okta:alice`,
    /// `account:ci`, `certificate:robot-7`.
    Principal(RevokedPrincipal),
    /// A server.
    Server(Name),
    /// A tool.
    Tool(RevokedTool),
    /// A policy: what it permits it permits no more; what it forbids stays forbidden.
    Policy(Name),
    /// A role binding.
    RoleBinding(Name),
}

/// See [`Revoked::Principal`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RevokedPrincipal {
    /// As in the audit record.
    pub id: String,
    /// Only tokens that were issued before this second (`iat`): whoever can log in again may come
    /// back. A token that does not say when it was issued counts as issued before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_before: Option<i64>,
}

/// See [`Revoked::Tool`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RevokedTool {
    /// The server.
    pub server: Name,
    /// The tool's own name there.
    pub name: String,
}

/// Cuts a proxy off: its stream ends, its certificate is not renewed, other proxies take no calls
/// from it. Named like the node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeRevocation {
    /// For people: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
}
