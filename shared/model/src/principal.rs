//! Who a call is from, verified.

use std::fmt::Write as _;
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
        let mut push = |tag: char, part: &str| {
            write!(text, "{tag}{}:{part}", part.len()).expect("a String takes everything");
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
            (Proof::ApiToken, _) => format!("account:{}", self.subject),
            (Proof::Certificate, _) => format!("certificate:{}", self.subject),
            (Proof::Jwt, Some(provider)) => format!("jwt:{provider}:{}", self.subject),
            (Proof::Jwt, None) => format!("jwt::{}", self.subject),
        }
    }
}
