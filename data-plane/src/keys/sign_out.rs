//! Who signed out at an identity provider, from its logout token.

use weir_model::bounds;
use weir_model::reason::{Reason, Refusal};
use weir_model::snapshot::ProviderView;

use super::{Keys, verify_signature};

/// The event that makes a token a logout token.
pub(super) const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
/// Seconds for which one is good after its issue, where it does not say so itself.
const LIFE_SECS: i64 = 600;

/// What a logout token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedOut {
    /// `sid`.
    pub session: Option<String>,
    /// `sub`.
    pub subject: Option<String>,
    /// `iat`.
    pub issued: i64,
}

impl Keys {
    /// Judges a logout token (OIDC Back-Channel Logout 1.0, section 2.6).
    ///
    /// # Errors
    /// `TokenInvalid`, `TokenExpired`, `TokenAudience`, `IdentityUnavailable`.
    pub async fn signed_out(
        &self,
        token: &str,
        provider: &ProviderView,
        now: i64,
    ) -> Result<SignedOut, Refusal> {
        let invalid = |detail: &str| Refusal::new(Reason::TokenInvalid, detail);
        if token.len() > bounds::TOKEN_BYTES_MAX {
            return Err(invalid("a token that is too long"));
        }
        let spec = &provider.spec;
        let source = self.sources.get(spec);
        let (claims, _) = verify_signature(token, &source, spec).await?;
        if claims.issuer()? != spec.issuer {
            return Err(invalid("another issuer"));
        }
        let own = spec.sign_in.iter().map(|client| &client.client_id);
        if !own.chain(&spec.logout_clients).any(|client| claims.is_for(client)) {
            let detail = "the token is for a client whose sign-outs are not heeded here";
            return Err(Refusal::new(Reason::TokenAudience, detail));
        }
        let event = claims.get("events").and_then(|events| events.get(EVENT));
        if !event.is_some_and(serde_json::Value::is_object) {
            return Err(invalid("it is no logout token: the event is missing"));
        }
        if claims.get("nonce").is_some() {
            return Err(invalid("it is no logout token: it has a nonce"));
        }
        let leeway = i64::try_from(spec.leeway_secs.min(300)).unwrap_or(0);
        let issued = claims.time("iat")?.ok_or_else(|| invalid("no `iat` claim"))?;
        let expires = claims.time("exp")?.unwrap_or(issued.saturating_add(LIFE_SECS));
        if expires.saturating_add(leeway) <= now {
            return Err(Refusal::new(Reason::TokenExpired, "the logout token has expired"));
        }
        if issued.saturating_sub(leeway) > now {
            return Err(invalid("the logout token comes from the future"));
        }
        let id = |name: &str| {
            let text = claims.text(name).filter(|text| !text.is_empty());
            text.filter(|text| text.len() <= bounds::SIGN_IN_ID_BYTES_MAX).map(str::to_owned)
        };
        // As tokens are: the subject is what the provider's document says.
        let subject = id(&provider.claims.subject).or_else(|| id("sub"));
        Ok(SignedOut { session: id("sid"), subject, issued })
    }
}
