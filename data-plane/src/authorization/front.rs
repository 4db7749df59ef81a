//! What a proxy keeps about sign-ins, all of it expendable: documents of clients, what was used
//! already, tokens that were verified.

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache as Fetched;
use moka::sync::Cache;
use weir_model::bounds;
use weir_model::id::Digest;
use weir_model::principal::Principal;
use weir_model::reason::{Reason, Refusal};
use weir_model::snapshot::GroupView;

use super::client::Client;
use super::own::{self, Keyring, Verified};
use super::visits::Visits;
use crate::keys::Fetch;

/// See the module.
#[derive(Debug)]
pub struct Front {
    pub(super) fetch: Arc<dyn Fetch>,
    pub(super) documents: Fetched<String, Arc<Client>>,
    pub(super) visits: Visits,
    /// What is wrong with documents that are of no use.
    pub(super) unusable: Cache<String, String>,
    used: Cache<Digest, ()>,
    ended: Cache<String, ()>,
    verified: Cache<Digest, Verified>,
}

impl Front {
    /// Fetches through `fetch`.
    pub fn new(fetch: Arc<dyn Fetch>) -> Self {
        let secs = Duration::from_secs;
        Self {
            fetch,
            visits: Visits::new(),
            documents: Fetched::builder()
                .max_capacity(bounds::CLIENT_DOCUMENTS_MAX)
                .time_to_live(secs(bounds::CLIENT_DOCUMENT_SECS))
                .build(),
            unusable: Cache::builder()
                .max_capacity(bounds::CLIENT_DOCUMENTS_MAX)
                .time_to_live(secs(bounds::CLIENT_DOCUMENT_RETRY_SECS))
                .build(),
            used: Cache::builder()
                .max_capacity(bounds::SIGN_INS_MAX)
                .time_to_live(secs(bounds::SIGN_IN_MEMORY_SECS))
                .build(),
            ended: Cache::builder()
                .max_capacity(bounds::SIGN_INS_MAX)
                .time_to_live(secs(bounds::SIGN_IN_MEMORY_SECS))
                .build(),
            verified: Cache::builder().max_capacity(bounds::VERIFIED_TOKENS_MAX).build(),
        }
    }

    /// True for the first who uses something here that is good once.
    pub(super) fn first_use(&self, what: &[u8]) -> bool {
        self.used.entry(Digest::of(what)).or_insert(()).is_fresh()
    }

    /// Ends a sign-in at this proxy, because somebody used twice what is good once.
    pub(super) fn end(&self, session: &str) {
        tracing::warn!(session, "a code or refresh token was used twice: the sign-in is ended");
        self.ended.insert(session.to_owned(), ());
    }

    /// True when it was ended here.
    pub(super) fn has_ended(&self, session: &str) -> bool {
        self.ended.contains_key(session)
    }

    /// Says who an access token of ours is from. `resource` is the URL of the endpoint that is
    /// called; a token for the endpoint of the whole group is good for each of its servers.
    ///
    /// # Errors
    /// `TokenInvalid`, `TokenExpired`, `TokenAudience`.
    pub fn verify(
        &self,
        token: &str,
        (group, resource): (&GroupView, Option<&str>),
        keyring: &Keyring,
        now: i64,
    ) -> Result<Arc<Principal>, Refusal> {
        let unknown = || Refusal::new(Reason::TokenAudience, "the gateway's own URL is not known");
        let resource = resource.ok_or_else(unknown)?;
        let mut parts = vec![group.name.as_str().as_bytes(), b"\0", resource.as_bytes(), b"\0"];
        parts.extend(group.providers.iter().map(|provider| provider.digest.0.as_slice()));
        let front = [u8::from(group.spec.sign_in.is_some())];
        parts.extend([&front[..], token.as_bytes()]);
        // Rotated keys verify nothing any more.
        parts.extend(keyring.iter().map(|(id, _)| id.as_bytes()));
        let key = Digest::of_parts(&parts);
        let verified = match self.verified.get(&key) {
            Some(hit) if (hit.from..hit.until).contains(&now) => hit,
            _ => {
                let base = resource.find("://").map_or(0, |at| at + 3);
                let end = resource[base..].find('/').map_or(resource.len(), |at| base + at);
                let whole = format!("{}/{}/mcp", &resource[..end], group.name);
                let verified = own::verify(keyring, token, (group, &[resource, &whole]), now)?;
                self.verified.insert(key, verified.clone());
                verified
            }
        };
        if self.has_ended(&verified.session) {
            return Err(Refusal::new(Reason::TokenInvalid, "the sign-in was ended"));
        }
        Ok(verified.principal)
    }
}
