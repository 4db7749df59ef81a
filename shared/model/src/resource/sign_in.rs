//! Signing in through the gateway: for identity providers that lack what MCP clients need.

use serde::{Deserialize, Serialize};

use super::{Preset, SecretRef};

/// Makes the gateway the authorization server of a group: MCP clients register and log in here,
/// people at the group's identity providers, and the gateway issues short tokens of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SignIn {
    /// Lets clients register themselves (RFC 7591).
    #[serde(default = "yes")]
    pub registration: bool,
    /// Lets clients be named by the URL of their metadata document.
    #[serde(default = "yes")]
    pub metadata_documents: bool,
    /// Hosts whose metadata documents count; empty for any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metadata_hosts: Vec<String>,
    /// Clients that are known beforehand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<SignInClient>,
    /// Seconds that an access token is good for.
    #[serde(default = "ten_minutes")]
    pub token_secs: u32,
    /// Seconds after which people have to log in again, however often tokens are refreshed.
    #[serde(default = "a_week")]
    pub session_secs: u32,
    /// Seconds for which a person's consent to one client is remembered in the browser, where the
    /// person wishes so and the client is sent back over `https`; 0 to ask each time.
    #[serde(default = "thirty_days", skip_serializing_if = "is_thirty_days")]
    pub consent_secs: u32,
    /// Lets a proxy that reaches no control plane refresh tokens by what it remembers itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refresh_alone: bool,
    /// Lets metadata documents come over `http` and from loopback or private addresses (tests).
    #[serde(default)]
    pub allow_private: bool,
}

fn yes() -> bool {
    true
}
fn ten_minutes() -> u32 {
    600
}
fn a_week() -> u32 {
    7 * 86_400
}
fn thirty_days() -> u32 {
    30 * 86_400
}
// By reference because serde calls it so.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_thirty_days(secs: &u32) -> bool {
    *secs == thirty_days()
}

/// A client that need not register.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SignInClient {
    /// `client_id`.
    pub id: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Where it may be sent back to, compared exactly; the port of a loopback address is free.
    pub redirect_uris: Vec<String>,
}

/// The gateway as a client of an identity provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProviderClient {
    /// `client_id` there. Its redirect URI is `{gateway}/authorize/callback`.
    pub client_id: String,
    /// Its secret; none for public clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<SecretRef>,
    /// What is asked for; empty for `openid profile email`, with `offline_access` where the
    /// product needs that for refresh tokens (Okta, Entra, Auth0).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
}

impl ProviderClient {
    /// What is asked for, as words.
    pub fn wanted_scopes(&self, preset: Preset) -> String {
        if !self.scopes.is_empty() {
            return self.scopes.join(" ");
        }
        match preset {
            Preset::Okta | Preset::Entra | Preset::Auth0 => "openid profile email offline_access",
            Preset::Generic | Preset::Keycloak => "openid profile email",
        }
        .to_owned()
    }
}
