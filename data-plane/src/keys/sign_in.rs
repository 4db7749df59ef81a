//! Who signed in at an identity provider, from what its token endpoint gave the gateway.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;
use weir_model::bounds;
use weir_model::principal::Principal;
use weir_model::reason::{Reason, Refusal};
use weir_model::snapshot::ProviderView;

use super::claims::Claims;
use super::{Keys, verify_signature};

/// What a provider's token endpoint gave.
#[derive(Debug, Clone, Copy)]
pub struct SignedIn<'a> {
    /// Says who it is.
    pub id_token: &'a str,
    /// Where it is a JWT of the same issuer about the same person, its memberships count too:
    /// Keycloak puts roles nowhere else.
    pub access_token: Option<&'a str>,
    /// The gateway at the provider: the audience of the ID token.
    pub client_id: &'a str,
    /// What the ID token must repeat; none for refreshed ones, which need not.
    pub nonce: Option<&'a str>,
}

impl Keys {
    /// Judges an ID token.
    ///
    /// # Errors
    /// `TokenInvalid`, `TokenExpired`, `TokenAudience`, `IdentityUnavailable`.
    pub async fn signed_in(
        &self,
        tokens: SignedIn<'_>,
        provider: &ProviderView,
        now: i64,
    ) -> Result<Principal, Refusal> {
        let invalid = |detail: &str| Refusal::new(Reason::TokenInvalid, detail);
        let source = self.sources.get(&provider.spec);
        let (claims, _) = verify_signature(tokens.id_token, &source, &provider.spec).await?;
        if tokens.nonce.is_some() && claims.text("nonce") != tokens.nonce {
            return Err(invalid("the ID token is not for this sign-in"));
        }
        if !claims.is_for(tokens.client_id) {
            let detail = "the ID token is for another client";
            return Err(Refusal::new(Reason::TokenAudience, detail));
        }
        match claims.text("azp") {
            Some(client) if client == tokens.client_id => {}
            Some(_) => return Err(invalid("the ID token was given to another client")),
            None if claims.has_one_audience() => {}
            None => {
                return Err(invalid("the ID token is for several, and does not say who got it"));
            }
        }
        let (mut who, _) =
            claims.principal(provider, &[tokens.client_id], (tokens.id_token, now))?;
        if let Some(more) = self.more_memberships(tokens, provider, &claims).await? {
            let all: BTreeSet<&str> =
                who.memberships.iter().chain(more.iter()).map(|word| &**word).collect();
            if all.len() > bounds::PRINCIPAL_ATTRIBUTES_MAX {
                return Err(invalid("too many memberships"));
            }
            who.memberships = all.into_iter().map(Arc::from).collect();
        }
        Ok(who)
    }

    /// Memberships of an access token that tells of the same person; none where it is opaque.
    async fn more_memberships(
        &self,
        tokens: SignedIn<'_>,
        provider: &ProviderView,
        id: &Claims,
    ) -> Result<Option<Arc<[Arc<str>]>>, Refusal> {
        let Some(token) = tokens.access_token else { return Ok(None) };
        if Claims::unverified(token).is_err() {
            return Ok(None);
        }
        let source = self.sources.get(&provider.spec);
        let Ok((claims, _)) = verify_signature(token, &source, &provider.spec).await else {
            return Ok(None);
        };
        let same = claims.text("sub") == id.text("sub") && claims.issuer()? == provider.spec.issuer;
        if same { claims.memberships(&provider.claims).map(Some) } else { Ok(None) }
    }
}

impl Claims {
    /// A claim that is text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(Value::as_str)
    }

    /// True when `aud` names one party.
    fn has_one_audience(&self) -> bool {
        self.get("aud").and_then(Value::as_array).is_none_or(|all| all.len() == 1)
    }

    /// True when `aud` names this client.
    pub(super) fn is_for(&self, client: &str) -> bool {
        match self.get("aud") {
            Some(Value::String(one)) => one == client,
            Some(Value::Array(all)) => all.iter().any(|one| one == client),
            _ => false,
        }
    }
}
