//! Regions and groups.

use serde::{Deserialize, Serialize};

use super::{ClientCertificates, SignIn};
use crate::id::Name;

/// A place where proxies run. Its name is what a node's certificate says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Region {
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Base URL at which agents reach the region's proxies, `https://host[:port]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// The isolation unit: its own endpoint, issuers, policies, limits, regions and audit class.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Group {
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Regions whose proxies serve this group; empty means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<Name>,
    /// What "recorded before the answer" means.
    #[serde(default)]
    pub audit: AuditClass,
    /// What happens when a server offers a new or changed definition.
    #[serde(default)]
    pub pin: PinRule,
    /// Browser origins that may call, as `scheme://host[:port]`. Loopback origins may always
    /// call a proxy on loopback; callers without `Origin` (agents) are not browsers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub origins: Vec<String>,
    /// Lets callers without a token in as the principal `anonymous`. They still need a binding.
    #[serde(default)]
    pub anonymous: bool,
    /// An audience that tokens of every provider of the group may have, besides those of the
    /// providers' documents and the URL of the endpoint itself (RFC 8707).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// Scopes that clients are told to ask for when they log in. What a rule names with `@scope`
    /// they are told when they need it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// Lets callers in by client certificates of these authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates: Option<ClientCertificates>,
    /// Makes the gateway the authorization server of the group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sign_in: Option<SignIn>,
    /// Seconds for which proxies may serve this group without hearing from the control plane;
    /// none means for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_after_secs: Option<u64>,
    /// Serves the verbs `mcp.handshake`, `tool.invoke`, `resource.get` and `prompt.render` beside
    /// the standard methods that they stand for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub verbs: bool,
    /// Raised to void everything that was given out to clients before: session ids, cursors, task
    /// ids, request states. Rules need no such thing: they are asked anew with every request.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub policy_epoch: u32,
    /// What clients with sessions, streams and waiting calls may take.
    #[serde(default, skip_serializing_if = "SessionLimits::is_default")]
    pub sessions: SessionLimits,
    /// Extensions of MCP that are carried between clients and servers, besides those that the
    /// gateway knows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<Extension>,
}

/// Bounds of what clients keep at a proxy. Without one, the gateway's own bound counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionLimits {
    /// Seconds without a request after which a session ends, 60 to 86,400.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_secs: Option<u32>,
    /// Seconds after which a session ends in any case, 60 to 86,400.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub life_secs: Option<u32>,
    /// Sessions of one principal that one proxy opens and that have not ended, 1 to 10,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_principal: Option<u32>,
    /// Streams that belong to no call of one principal at one proxy, 1 to 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streams_per_principal: Option<u32>,
    /// Calls of one principal that wait for its input at one proxy, 1 to 16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked_per_principal: Option<u32>,
}

impl SessionLimits {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// An extension of MCP.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Extension {
    /// As in `capabilities.extensions`: a prefix that is a reversed domain, `/`, a name.
    pub id: String,
    /// Methods that it adds. They are passed on to the server on endpoints of one server, for
    /// callers that may use it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
}

/// What a group demands of its audit trail (design, section 9).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditClass {
    /// Synced before the answer; refuse when it cannot be.
    Strict,
    /// Written before the answer, synced in groups; refuse when it cannot be.
    #[default]
    Durable,
    /// Never refuse; count what was lost.
    Counted,
}

/// Who approves definitions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PinRule {
    /// The first observation is pinned; a later change waits for an operator.
    #[default]
    First,
    /// Every observation is pinned at once (development).
    Always,
    /// Nothing is served until an operator pins it.
    Ask,
}
