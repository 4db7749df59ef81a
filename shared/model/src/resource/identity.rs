//! Who may come in.

use serde::{Deserialize, Serialize};

use crate::id::Digest;

/// An OIDC issuer that a group trusts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IdentityProvider {
    /// `iss` of its tokens, compared exactly.
    pub issuer: String,
    /// Accepted `aud` values. A token must have at least one of them.
    pub audiences: Vec<String>,
    /// Where its keys come from.
    #[serde(default)]
    pub keys: KeySource,
    /// Accepted signature algorithms; never symmetric, never `none`.
    #[serde(default = "Algorithm::usual")]
    pub algorithms: Vec<Algorithm>,
    /// Which claims say what.
    #[serde(default)]
    pub claims: ClaimNames,
    /// Seconds of clock skew that are forgiven, at most 300.
    #[serde(default = "thirty")]
    pub leeway_secs: u64,
    /// Lets the issuer's URLs be `http` and loopback or private addresses (tests, in-house).
    #[serde(default)]
    pub allow_private: bool,
}

fn thirty() -> u64 {
    30
}

/// Where an issuer's keys come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum KeySource {
    /// `jwks_uri` of the issuer's discovery document (OIDC, else RFC 8414).
    #[default]
    Discovery,
    /// A JWKS at this URL.
    JwksUrl(String),
    /// A JWKS given here, as JSON text.
    Jwks(String),
}

/// A signature algorithm of RFC 7518 or RFC 8037.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

impl Algorithm {
    /// What most identity providers sign with.
    pub fn usual() -> Vec<Self> {
        vec![Self::RS256, Self::PS256, Self::ES256, Self::EdDSA]
    }
}

/// Which claims say what. A dotted path reaches into objects: `realm_access.roles`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClaimNames {
    /// The subject.
    pub subject: String,
    /// Claims whose strings are memberships.
    pub memberships: Vec<String>,
    /// Claims that hold scopes, as an array or as words.
    pub scopes: Vec<String>,
    /// Claims that name the OAuth client; the first present counts.
    pub client: Vec<String>,
}

impl Default for ClaimNames {
    fn default() -> Self {
        let words = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        Self {
            subject: "sub".to_owned(),
            memberships: words(&["groups", "roles"]),
            scopes: words(&["scope", "scp"]),
            client: words(&["azp", "client_id", "cid"]),
        }
    }
}

/// A machine caller. Its tokens are minted by the control plane and shown once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceAccount {
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Like the groups of a token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub memberships: Vec<String>,
    /// Scopes that its tokens carry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// Its tokens, by hash.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<ApiTokenEntry>,
}

/// What is kept of an API token `weir_at_{id}_{random}`: never the token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApiTokenEntry {
    /// Public part of the token; unique in the group.
    pub id: String,
    /// SHA-256 of the whole token. The random part has 256 bits, so no slow hash is needed.
    pub sha256: Digest,
    /// Seconds since the epoch; none means that it does not expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<i64>,
}
