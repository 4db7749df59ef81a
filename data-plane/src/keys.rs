//! Who a bearer token is from: API tokens by their hash, JWTs by their issuer's keys.
//!
//! Nothing in a token is believed before its signature: the unverified `iss` only says which of
//! the group's identity providers to ask, and algorithms come from that provider's document alone.
//! Times are compared with the time that the caller passes in, not with a clock of a library.
//!
//! A verified token is kept until it expires, under its hash, the group and the documents of the
//! group's providers, and only while the key that verified it is still published. A token whose
//! signature does not fit, that has expired or is for somebody else is remembered as refused for
//! [`bounds::REFUSED_TOKEN_SECS`], so that a client that repeats it costs no signature check.

mod claims;
mod jwks;
mod metrics;
mod sign_in;
mod sign_out;
mod source;

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use weir_model::bounds;
use weir_model::id::Digest;
use weir_model::principal::Principal;
use weir_model::reason::{Reason, Refusal};
use weir_model::resource::IdentityProvider;
use weir_model::secret::equal_in_constant_time;
use weir_model::snapshot::{GroupView, ProviderView};

pub use metrics::KeyMetrics;
pub use sign_in::SignedIn;
pub use sign_out::SignedOut;
pub use source::{Fetch, SourceStatus};

use claims::Claims;
use metrics::TokenResult;
use source::{KeySet, Sources};

/// In front of every API token, so that secret scanners know one.
const API_TOKEN_PREFIX: &str = "weir_at_";

/// Verifies tokens. One per proxy; shared by every call.
#[derive(Debug)]
pub struct Keys {
    sources: Sources,
    verified: Cache<Digest, Verified>,
    refused: Cache<Digest, Refused>,
    metrics: KeyMetrics,
}

/// A refusal that the same token would meet again.
#[derive(Debug, Clone)]
struct Refused {
    refusal: Refusal,
    from: i64,
    until: i64,
}

#[derive(Debug, Clone)]
struct Verified {
    principal: Arc<Principal>,
    source: Arc<source::Source>,
    keys: Arc<KeySet>,
    from: i64,
    until: i64,
}

impl Keys {
    /// Verifies with keys that `fetch` gets.
    pub fn new(fetch: Arc<dyn Fetch>, metrics: KeyMetrics) -> Self {
        let verified = Cache::builder().max_capacity(bounds::VERIFIED_TOKENS_MAX).build();
        let short = Duration::from_secs(bounds::REFUSED_TOKEN_SECS);
        let refused =
            Cache::builder().max_capacity(bounds::REFUSED_TOKENS_MAX).time_to_live(short).build();
        Self { sources: Sources::new(fetch, metrics.clone()), verified, refused, metrics }
    }

    /// Says who a token is from. `resource` is the URL of the endpoint that is called, where the
    /// gateway knows its own name: a token for it needs no audience of a document (RFC 8707).
    ///
    /// # Errors
    /// `TokenInvalid`, `TokenExpired`, `TokenAudience`, or `IdentityUnavailable` when no keys of
    /// the issuer could be fetched yet. Details never quote the token.
    pub async fn verify(
        &self,
        token: &str,
        (group, resource): (&GroupView, Option<&str>),
        now: i64,
    ) -> Result<Arc<Principal>, Refusal> {
        if token.len() > bounds::TOKEN_BYTES_MAX {
            let detail = format!("a token of {} bytes", token.len());
            return Err(Refusal::new(Reason::TokenInvalid, detail));
        }
        if let Some(rest) = token.strip_prefix(API_TOKEN_PREFIX) {
            return api_token(token, rest, group, now);
        }
        let key = cache_key(token, group, resource);
        if let Some(hit) = self.verified.get(&key) {
            let current = (hit.from..hit.until).contains(&now) && hit.source.holds(&hit.keys);
            if current {
                self.metrics.token(TokenResult::Cached);
                return Ok(hit.principal);
            }
            self.verified.invalidate(&key);
        }
        if let Some(hit) = self.refused.get(&key).filter(|r| (r.from..r.until).contains(&now)) {
            self.metrics.token(TokenResult::CachedRefusal);
            return Err(hit.refusal);
        }
        match self.jwt(token, (group, resource), now).await {
            Ok(verified) => {
                self.metrics.token(TokenResult::Verified);
                self.verified.insert(key, verified.clone());
                Ok(verified.principal)
            }
            Err(refusal) => {
                self.metrics.token(TokenResult::Refused);
                if lasts(&refusal) {
                    let secs = i64::try_from(bounds::REFUSED_TOKEN_SECS).unwrap_or(0);
                    let until = now.saturating_add(secs);
                    let refused = Refused { refusal: refusal.clone(), from: now, until };
                    self.refused.insert(key, refused);
                }
                Err(refusal)
            }
        }
    }

    /// What an issuer says about itself (OIDC discovery or RFC 8414), kept fresh like its keys.
    ///
    /// # Errors
    /// A sentence for logs.
    pub async fn describe(
        &self,
        provider: &IdentityProvider,
    ) -> Result<Arc<serde_json::Value>, String> {
        self.sources.get(provider).describe().await
    }

    /// Fetches the keys of a group's providers, so that the first call need not wait.
    pub async fn warm(&self, group: &GroupView) {
        for provider in &group.providers {
            // A failure shows in the status, and again when a token asks for the keys.
            let _ = self.sources.get(&provider.spec).keys().await;
        }
    }

    /// Where keys come from and how fresh they are, for the status page.
    pub fn status(&self) -> Vec<SourceStatus> {
        self.sources.status()
    }

    async fn jwt(
        &self,
        token: &str,
        (group, resource): (&GroupView, Option<&str>),
        now: i64,
    ) -> Result<Verified, Refusal> {
        let unverified = Claims::unverified(token)?;
        let issuer = unverified.issuer()?;
        let mut refusal = None;
        for provider in group.providers.iter().filter(|p| p.spec.issuer == issuer) {
            match self.jwt_of((token, now), provider, (group, resource)).await {
                Ok(verified) => return Ok(verified),
                // Of several providers with one issuer, the one that got furthest says why.
                Err(next) => {
                    let further = |old: &Refusal| progress(next.reason) > progress(old.reason);
                    if refusal.as_ref().is_none_or(further) {
                        refusal = Some(next);
                    }
                }
            }
        }
        Err(refusal.unwrap_or_else(|| {
            Refusal::new(Reason::TokenInvalid, "no identity provider of the group has this issuer")
        }))
    }

    async fn jwt_of(
        &self,
        (token, now): (&str, i64),
        provider: &ProviderView,
        (group, resource): (&GroupView, Option<&str>),
    ) -> Result<Verified, Refusal> {
        let source = self.sources.get(&provider.spec);
        let (claims, keys) = verify_signature(token, &source, &provider.spec).await?;
        let audiences: Vec<&str> =
            group.spec.audience.as_deref().into_iter().chain(resource).collect();
        let (principal, from) = claims.principal(provider, &audiences, (token, now))?;
        let until = principal.expires.unwrap_or(i64::MAX);
        Ok(Verified { principal: Arc::new(principal), source, keys, from, until })
    }
}

/// True for refusals that the same token meets again, whatever the issuer does meanwhile (but for
/// a token whose key is not known yet, or that is not valid yet).
fn lasts(refusal: &Refusal) -> bool {
    match refusal.reason {
        Reason::TokenExpired | Reason::TokenAudience => true,
        Reason::TokenInvalid => refusal.detail == NO_FIT,
        _ => false,
    }
}

/// The detail of a refusal because of the signature.
const NO_FIT: &str = "the signature does not fit";

/// How far a token came before it was refused.
fn progress(reason: Reason) -> u8 {
    match reason {
        Reason::TokenExpired => 3,
        Reason::TokenAudience => 2,
        Reason::IdentityUnavailable => 1,
        _ => 0,
    }
}

async fn verify_signature(
    token: &str,
    source: &Arc<source::Source>,
    provider: &IdentityProvider,
) -> Result<(Claims, Arc<KeySet>), Refusal> {
    let header = jwks::Header::read(token, provider)?;
    let keys = source.keys_for(header.key_id.as_deref()).await?;
    let mut candidates = 0;
    for key in keys.candidates(&header) {
        candidates += 1;
        if let Some(claims) = key.verify(token, &header) {
            return Ok((Claims::verified(claims), Arc::clone(&keys)));
        }
    }
    let detail = match candidates {
        0 => "the issuer publishes no key for this token",
        _ => NO_FIT,
    };
    Err(Refusal::new(Reason::TokenInvalid, detail))
}

/// Over the group and its providers' documents too: a token verified under other rules is new.
fn cache_key(token: &str, group: &GroupView, resource: Option<&str>) -> Digest {
    let name = group.name.as_str().as_bytes();
    let sizes = [name.len() as u64, group.providers.len() as u64].map(u64::to_be_bytes).concat();
    let audience = group.spec.audience.as_deref().unwrap_or("");
    let resource = resource.unwrap_or("");
    let more = [audience.len() as u64, resource.len() as u64].map(u64::to_be_bytes).concat();
    let mut parts: Vec<&[u8]> = vec![&sizes, name, &more, audience.as_bytes(), resource.as_bytes()];
    parts.extend(group.providers.iter().map(|provider| provider.digest.0.as_slice()));
    parts.push(token.as_bytes());
    Digest::of_parts(&parts)
}

fn api_token(
    token: &str,
    rest: &str,
    group: &GroupView,
    now: i64,
) -> Result<Arc<Principal>, Refusal> {
    let invalid = |detail: &str| Refusal::new(Reason::TokenInvalid, detail);
    // An id has no `_`; the random part, base64url, may have some.
    let (id, _random) = rest.split_once('_').ok_or_else(|| invalid("a malformed API token"))?;
    // The look-up compares hashes: what its time tells about them tells nothing about the token.
    let known = group.tokens.get(&Digest::of(token.as_bytes()));
    let known = known.ok_or_else(|| invalid("an API token that the group does not know"))?;
    if !equal_in_constant_time(known.id.as_bytes(), id.as_bytes()) {
        return Err(invalid("an API token under another id"));
    }
    if known.expires.is_some_and(|expires| expires <= now) {
        return Err(Refusal::new(Reason::TokenExpired, format!("API token {}", known.id)));
    }
    known.used.fetch_max(now, std::sync::atomic::Ordering::Relaxed);
    Ok(Arc::clone(&known.principal))
}

#[cfg(test)]
mod tests;
