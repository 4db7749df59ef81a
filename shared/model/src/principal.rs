//! Who a call is from, verified.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::{Digest, Name};

/// How the caller proved who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// Nothing was presented and the group lets anonymous callers in.
    Anonymous,
    /// A JWT of an identity provider.
    Jwt,
    /// An API token of a service account.
    ApiToken,
    /// A TLS client certificate.
    Certificate,
}

/// Who a call is from. Cheap to clone: the data plane keeps verified ones behind an `Arc`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Principal {
    /// How it was proved.
    pub proof: Proof,
    /// The identity provider's resource name; none for service accounts and anonymous callers.
    pub provider: Option<Name>,
    /// `sub` of the token, or the service account's name, or `anonymous`.
    pub subject: Arc<str>,
    /// The identity provider's groups (or the account's `memberships`), sorted.
    pub memberships: Arc<[Arc<str>]>,
    /// OAuth scopes of the token, sorted.
    pub scopes: Arc<[Arc<str>]>,
    /// OAuth client (`azp`, `client_id`) or API token id: which credential of the subject it was.
    pub credential: Option<Arc<str>>,
    /// Seconds since the epoch after which the proof is no longer valid.
    pub expires: Option<i64>,
    /// The very token or certificate that proved it; none for API tokens (whose id is in
    /// `credential`) and anonymous callers. No rule can read it.
    #[serde(skip)]
    pub token: Option<Arc<Presented>>,
}

/// By what one token or certificate can be told from all others: what a revocation names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presented {
    /// Of the whole token as it came, or of the certificate's DER.
    pub sha256: Digest,
    /// `jti` (Entra: `uti`).
    pub id: Option<String>,
    /// `sid`: the session at the issuer.
    pub session: Option<String>,
    /// Of a token of the gateway's own: the session at the identity provider that it goes back to.
    pub login: Option<String>,
    /// `iat`, seconds since the epoch.
    pub issued: Option<i64>,
}

impl Principal {
    /// The caller that presented nothing.
    pub fn anonymous() -> Self {
        Self {
            proof: Proof::Anonymous,
            provider: None,
            subject: "anonymous".into(),
            memberships: Arc::default(),
            scopes: Arc::default(),
            credential: None,
            expires: None,
            token: None,
        }
    }

    /// The key under which decisions about this principal are cached: everything that a rule
    /// can read about it, and nothing else.
    pub fn digest(&self) -> Digest {
        let mut text = String::with_capacity(256);
        // Every call asks for it: without the detour through `fmt`.
        let mut push = |tag: char, part: &str| {
            text.push(tag);
            text.push_str(itoa::Buffer::new().format(part.len()));
            text.push(':');
            text.push_str(part);
        };
        push(
            'k',
            match self.proof {
                Proof::Anonymous => "anonymous",
                Proof::Jwt => "jwt",
                Proof::ApiToken => "api_token",
                Proof::Certificate => "certificate",
            },
        );
        push('p', self.provider.as_ref().map_or("", Name::as_str));
        push('s', &self.subject);
        self.memberships.iter().for_each(|m| push('m', m));
        self.scopes.iter().for_each(|s| push('o', s));
        push('c', self.credential.as_deref().unwrap_or(""));
        Digest::of(text.as_bytes())
    }

    /// One stable line for audit, limits and sealed tokens: `jwt:okta:alice`, `account:ci`,
    /// `anonymous`.
    pub fn id(&self) -> String {
        match (self.proof, &self.provider) {
            (Proof::Anonymous, _) => "anonymous".to_owned(),
            (Proof::ApiToken, _) => ["account:", &self.subject].concat(),
            (Proof::Certificate, _) => ["certificate:", &self.subject].concat(),
            (Proof::Jwt, provider) => {
                let provider = provider.as_ref().map_or("", Name::as_str);
                ["jwt:", provider, ":", &self.subject].concat()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal() -> Principal {
        Principal {
            proof: Proof::Jwt,
            provider: Some("okta".parse().unwrap()),
            subject: "alice".into(),
            memberships: ["finance".into(), "operations-of-emea".into()].into(),
            scopes: ["mcp:tools".into()].into(),
            credential: Some("claude".into()),
            ..Principal::anonymous()
        }
    }

    /// Records hold it and are compared with it later: it may not change.
    #[test]
    fn the_digest_is_over_everything_that_rules_read() {
        let text = "k3:jwtp4:oktas5:alicem7:financem18:operations-of-emeao9:mcp:toolsc6:claude";
        assert_eq!(principal().digest(), Digest::of(text.as_bytes()));
        let text = "k9:anonymousp0:s9:anonymousc0:";
        assert_eq!(Principal::anonymous().digest(), Digest::of(text.as_bytes()));
    }

    #[test]
    fn ids_tell_how_and_who() {
        for (proof, provider, id) in [
            (Proof::Jwt, Some("okta"), "jwt:okta:alice"),
            (Proof::Jwt, None, "jwt::alice"),
            (Proof::ApiToken, None, "account:alice"),
            (Proof::Certificate, Some("okta"), "certificate:alice"),
            (Proof::Anonymous, None, "anonymous"),
        ] {
            let provider = provider.map(|name| name.parse().unwrap());
            assert_eq!(Principal { proof, provider, ..principal() }.id(), id);
        }
    }
}
