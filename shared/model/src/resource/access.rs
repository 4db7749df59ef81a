//! Who may do what, how often, and with which credential upstream.

use serde::{Deserialize, Serialize};

use crate::id::Name;

/// A set of permissions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Role {
    /// Any rule that matches grants.
    pub rules: Vec<Rule>,
}

/// What a role grants on which servers. A pattern is a name with `*` for any run of characters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// Server name patterns.
    pub servers: Vec<String>,
    /// Tool name patterns, of the upstream's own names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<String>,
    /// Resource URI (and template) patterns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// Prompt name patterns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prompts: Vec<String>,
}

/// Who has a role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RoleBinding {
    /// A `Role` of the same group.
    pub role: Name,
    /// Any of them.
    pub subjects: Vec<Subject>,
}

/// A caller, or a set of callers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Subject {
    /// A service account of the group.
    ServiceAccount(Name),
    /// The subject of tokens, from any identity provider of the group.
    User(String),
    /// One of the identity provider's groups.
    Membership(String),
    /// Everybody who proved who they are.
    Authenticated(bool),
    /// Callers that presented nothing, where the group lets them in.
    Anonymous(bool),
}

/// Cedar text: `permit` and `forbid` over this group. A `forbid` beats every role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    /// One or more Cedar policies, type-checked against the published schema.
    pub cedar: String,
}

/// A bound on calls, counted separately for each value of `per`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limit {
    /// What a bucket belongs to.
    pub per: LimitScope,
    /// Server name patterns; empty means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<String>,
    /// Tool name patterns; empty means every call, lists included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<String>,
    /// Calls per time, over all proxies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Calls in flight, over all proxies: shared by demand, at least one on each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Units in an hour, day or month, over all proxies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Quota>,
    /// What rate and quota count.
    #[serde(default, skip_serializing_if = "LimitUnit::is_calls")]
    pub count: LimitUnit,
}

/// What a call counts for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitUnit {
    /// Each call is one.
    #[default]
    Calls,
    /// What the server says that a call of the tool costs ([`crate::resource::ToolCost`]).
    Cost,
}

impl LimitUnit {
    fn is_calls(&self) -> bool {
        *self == Self::Calls
    }
}

/// So much in a window of the calendar (UTC), counted over all proxies in a ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Quota {
    /// Calls, or units of cost.
    pub calls: u64,
    /// In which window.
    pub per: QuotaWindow,
}

/// A window of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum QuotaWindow {
    Hour,
    Day,
    Month,
}

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitScope {
    /// The whole group together.
    Group,
    /// Each caller.
    Principal,
    /// Each server.
    Server,
    /// Each tool of each server.
    Tool,
}

/// Calls per time, with a burst.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rate {
    /// Calls.
    pub calls: u32,
    /// In which time.
    pub per: RateUnit,
    /// Calls that may come at once; the default is `calls`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
}

/// A span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum RateUnit {
    Second,
    Minute,
    Hour,
}

/// What the gateway presents to an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Credential {
    /// A fixed header.
    Header(HeaderCredential),
}

impl Credential {
    /// The id of the secret that it presents.
    pub fn secret_id(&self) -> &str {
        match self {
            Self::Header(header) => &header.value.secret,
        }
    }
}

/// A fixed header: `Authorization: Bearer …`, `X-Api-Key: …`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeaderCredential {
    /// Header name.
    pub name: String,
    /// In front of the secret, for example `"Bearer "`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// The secret. An operator writes the text (`value: s3cr3t`); what is admitted, stored and
    /// shown is a reference.
    pub value: SecretRef,
}

/// A reference to a sealed secret: `{"secret": "<id>"}`. The id changes whenever the secret
/// does, so that digests see the change without seeing the secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretRef {
    /// Random, at most 64 characters.
    pub secret: String,
}
