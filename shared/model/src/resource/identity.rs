//! Who may come in.

use serde::{Deserialize, Serialize};

use super::ProviderClient;
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
    /// Which product it is: says which claims mean what, where `claims` does not.
    #[serde(default)]
    pub preset: Preset,
    /// Which claims say what, where that differs from the preset.
    #[serde(default, skip_serializing_if = "ClaimOverrides::is_empty")]
    pub claims: ClaimOverrides,
    /// What happens to a token whose groups the provider left out because there are too many.
    #[serde(default)]
    pub overage: Overage,
    /// Seconds of clock skew that are forgiven, at most 300.
    #[serde(default = "thirty")]
    pub leeway_secs: u64,
    /// The gateway as a client of the provider: people can sign in there through the gateway,
    /// where their group has `signIn`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sign_in: Option<ProviderClient>,
    /// Other clients of the provider whose sign-outs are heeded here (OIDC back-channel logout),
    /// besides that of `signIn`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logout_clients: Vec<String>,
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

/// A product whose claims are known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// What most issuers agree on: `sub`, `groups` and `roles`, `scope` or `scp`.
    #[default]
    Generic,
    /// Okta: `groups`, `scp`, `cid`.
    Okta,
    /// Microsoft Entra: `oid`, `groups` and app `roles`, `scp`, `azp` or `appid`.
    Entra,
    /// Auth0: claims under a namespace (`https://acme.example/roles`), `permissions` as scopes.
    Auth0,
    /// Keycloak: `groups`, realm roles by name and client roles as `client/role`.
    Keycloak,
}

/// What happens to a token that lacks its groups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overage {
    /// It is refused: a rule that forbids something to a group could be missed.
    #[default]
    Refuse,
    /// It counts with the memberships that it has (roles, mostly).
    Ignore,
}

/// Claims that differ from the preset. A list replaces the preset's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaimOverrides {
    /// The subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Claims whose strings are memberships.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memberships: Option<Vec<String>>,
    /// Claims that hold scopes, as an array or as words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<String>>,
    /// Claims that name the OAuth client; the first present counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<Vec<String>>,
}

impl ClaimOverrides {
    /// True when nothing differs.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Which claims say what. A name is looked for as it is, then as a dotted path into objects
/// (`realm_access.roles`). `*/roles` is every claim whose name ends so (a namespace in front); a
/// `*` between dots is every member, whose name is put in front of what is found: `client/role`.
#[derive(Debug, Clone, PartialEq, Eq)]
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

impl Preset {
    /// The claims of the product.
    pub fn claims(self) -> ClaimNames {
        let (subject, memberships, scopes, client): (_, &[&str], &[&str], &[&str]) = match self {
            Self::Generic => {
                ("sub", &["groups", "roles"], &["scope", "scp"], &["azp", "client_id", "cid"])
            }
            Self::Okta => ("sub", &["groups"], &["scp"], &["cid"]),
            Self::Entra => ("oid", &["groups", "roles", "wids"], &["scp"], &["azp", "appid"]),
            Self::Auth0 => (
                "sub",
                &["groups", "roles", "*/groups", "*/roles"],
                &["scope", "permissions"],
                &["azp", "client_id"],
            ),
            Self::Keycloak => (
                "sub",
                &["groups", "realm_access.roles", "resource_access.*.roles"],
                &["scope"],
                &["azp", "client_id"],
            ),
        };
        let words = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        ClaimNames {
            subject: subject.to_owned(),
            memberships: words(memberships),
            scopes: words(scopes),
            client: words(client),
        }
    }
}

impl IdentityProvider {
    /// Which claims say what: the preset's, and what the document says instead.
    pub fn claim_names(&self) -> ClaimNames {
        let preset = self.preset.claims();
        let own = self.claims.clone();
        ClaimNames {
            subject: own.subject.unwrap_or(preset.subject),
            memberships: own.memberships.unwrap_or(preset.memberships),
            scopes: own.scopes.unwrap_or(preset.scopes),
            client: own.client.unwrap_or(preset.client),
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
