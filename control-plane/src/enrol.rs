//! How a proxy joins: a one-time token, traded for a certificate.
//!
//! The token's text carries the authority's fingerprint, so that the node knows its control plane
//! when they first meet. What is kept of a token is its digest. Using it removes it, in one
//! guarded transaction: of two nodes that come with the same token, one gets in.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weir_model::bounds;
use weir_model::id::{Digest, Name, Revision};
use weir_model::secret::Secret;
use weir_model::sync::identity::{NodeId, join_token};
use weir_runtime::clock::SharedClock;

use crate::ca::{Ca, CaError};
use crate::store::{Entry, Guard, Op, Store, StoreError};
use crate::token;

/// Prefix of enrolment tokens.
pub const PREFIX: &str = "weir_en_";
const PATH: &str = "state/enrol/";
/// Names of nodes and replicas, with whose they are: a region's, or [`PLANE`].
const NAMES: &str = "state/names/";
/// No region has such a name.
const PLANE: &str = "(control plane)";

/// Why a node does not get in.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// Whichever of the three it is, is nobody's business.
    #[error("the enrolment token is unknown, used or expired: ask for a new one")]
    Token,
    /// The token is for another node, or names none and the request neither.
    #[error("{0}")]
    Node(String),
    /// A lifetime that no token may have.
    #[error("a token lives for 1 second to {} days", bounds::ENROL_TOKEN_SECS_MAX / 86_400)]
    Lifetime,
    /// The certificate.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] token::NoRandomness),
}

/// What is kept of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pending {
    /// Public part.
    #[serde(default)]
    pub id: String,
    /// The region of the node that may use it.
    pub region: Name,
    /// The node that may use it; none means that it names itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Name>,
    /// Seconds since the epoch.
    pub expires: i64,
    sha256: Digest,
}

/// A node that got in.
#[derive(Debug)]
pub struct Enrolled {
    /// Who it is from now on.
    pub id: NodeId,
    /// Its certificate, DER.
    pub certificate: rustls_pki_types::CertificateDer<'static>,
}

/// Mints and takes enrolment tokens.
#[derive(Clone)]
pub struct Enrolment {
    store: Arc<dyn Store>,
    ca: Arc<Ca>,
    clock: SharedClock,
}

impl std::fmt::Debug for Enrolment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Enrolment").finish_non_exhaustive()
    }
}

impl Enrolment {
    /// Over a store and its authority.
    pub fn new(store: Arc<dyn Store>, ca: Arc<Ca>, clock: SharedClock) -> Self {
        Self { store, ca, clock }
    }

    fn now(&self) -> i64 {
        i64::try_from(self.clock.now_secs()).unwrap_or(i64::MAX)
    }

    /// Mints a token for one node of a region, good for `secs`. Its text is shown once.
    ///
    /// # Errors
    /// [`EnrolError::Lifetime`] and those of the store.
    pub async fn mint(
        &self,
        region: Name,
        node: Option<Name>,
        secs: i64,
    ) -> Result<(Pending, Secret<String>), EnrolError> {
        if !(1..=bounds::ENROL_TOKEN_SECS_MAX).contains(&secs) {
            return Err(EnrolError::Lifetime);
        }
        let minted = token::mint(PREFIX)?;
        let expires = self.now() + secs;
        let pending = Pending { id: minted.id, region, node, expires, sha256: minted.sha256 };
        let key = format!("{PATH}{}", pending.id);
        let value = serde_json::to_vec(&pending)
            .map_err(|e| StoreError::Corrupt(format!("an enrolment token: {e}")))?;
        let guard = Guard { key: key.clone(), revision: Revision(0) };
        self.store.commit(vec![guard], vec![Op::Put(key, value.into())]).await?;
        let text = join_token(minted.token.expose(), &self.ca.fingerprint());
        Ok((pending, Secret::new(text)))
    }

    /// Tokens that nobody has used yet. Removes those that have expired.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn list(&self) -> Result<Vec<Pending>, EnrolError> {
        let now = self.now();
        let (mut live, mut gone) = (Vec::new(), Vec::new());
        for entry in self.store.list(PATH).await?.entries {
            match read(&entry) {
                Some(pending) if pending.expires > now => live.push(pending),
                _ => gone.push(Op::Delete(entry.key)),
            }
        }
        gone.truncate(bounds::COMMIT_OPS_MAX);
        if !gone.is_empty() {
            self.store.commit(Vec::new(), gone).await?;
        }
        Ok(live)
    }

    /// Makes a token useless before anybody uses it; false when there is none of that id.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn revoke(&self, id: &str) -> Result<bool, EnrolError> {
        let key = format!("{PATH}{id}");
        let Some(entry) = self.store.get(&key).await? else { return Ok(false) };
        let guard = Guard { key: key.clone(), revision: entry.revision };
        match self.store.commit(vec![guard], vec![Op::Delete(key)]).await {
            Ok(_) => Ok(true),
            Err(StoreError::Conflict) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Trades a token for a certificate. `wanted` is the name that the node asks for; empty when
    /// the token names it. A request that cannot be served leaves the token as it is.
    ///
    /// # Errors
    /// See [`EnrolError`].
    pub async fn enrol(
        &self,
        text: &str,
        wanted: &str,
        request: &[u8],
    ) -> Result<Enrolled, EnrolError> {
        let text = text.trim();
        let token = text.rsplit_once('.').map_or(text, |(token, _)| token);
        let id = token::id(PREFIX, token).ok_or(EnrolError::Token)?;
        let entry = self.store.get(&format!("{PATH}{id}")).await?.ok_or(EnrolError::Token)?;
        let pending = read(&entry).ok_or(EnrolError::Token)?;
        if !token::matches(token, &pending.sha256) || pending.expires <= self.now() {
            return Err(EnrolError::Token);
        }
        let node = name_of(pending.node, wanted)?;
        let claim = self.claim(&node, &pending.region).await?;
        let id = NodeId { region: pending.region, node };
        let certificate =
            self.ca.issue_node(request, &id, self.now(), bounds::NODE_CERTIFICATE_SECS)?;
        let mut guards = vec![Guard { key: entry.key.clone(), revision: entry.revision }];
        let mut ops = vec![Op::Delete(entry.key)];
        if let Some(key) = claim {
            guards.push(Guard { key: key.clone(), revision: Revision(0) });
            ops.push(Op::Put(key, id.region.as_str().to_owned().into()));
        }
        match self.store.commit(guards, ops).await {
            Ok(_) => Ok(Enrolled { id, certificate }),
            Err(StoreError::Conflict) => Err(EnrolError::Token),
            Err(error) => Err(error.into()),
        }
    }

    /// Says that the name belongs to a replica of the control plane: no proxy may have it.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn reserve(&self, replica: &str) -> Result<(), StoreError> {
        let key = format!("{NAMES}{replica}");
        match self.store.get(&key).await? {
            Some(entry) if entry.value.as_ref() == PLANE.as_bytes() => {}
            Some(_) => tracing::error!(
                name = replica,
                "a proxy has the name of this replica: their audit logs cannot be told apart; rename one"
            ),
            None => {
                let op = Op::Put(key, PLANE.into());
                self.store.commit(Vec::new(), vec![op]).await?;
            }
        }
        Ok(())
    }

    /// A name stands for one log and so for one node, whatever its region. Where it is to be written
    /// down that it does; nowhere when it is.
    async fn claim(&self, node: &Name, region: &Name) -> Result<Option<String>, EnrolError> {
        let key = format!("{NAMES}{node}");
        match self.store.get(&key).await? {
            None => Ok(Some(key)),
            Some(entry) if entry.value.as_ref() == region.as_str().as_bytes() => Ok(None),
            Some(entry) => {
                let whose = match entry.value.as_ref() {
                    owner if owner == PLANE.as_bytes() => {
                        "a replica of the control plane".to_owned()
                    }
                    owner => format!("a node of region {}", String::from_utf8_lossy(owner)),
                };
                Err(EnrolError::Node(format!(
                    "{node} is the name of {whose}: audit records tell nodes apart by name; take another"
                )))
            }
        }
    }

    /// A new certificate for a node that has one.
    ///
    /// # Errors
    /// [`EnrolError::Ca`] when the request cannot be served.
    pub fn renew(&self, id: &NodeId, request: &[u8]) -> Result<Enrolled, EnrolError> {
        let certificate =
            self.ca.issue_node(request, id, self.now(), bounds::NODE_CERTIFICATE_SECS)?;
        Ok(Enrolled { id: id.clone(), certificate })
    }
}

fn read(entry: &Entry) -> Option<Pending> {
    serde_json::from_slice(&entry.value)
        .inspect_err(|e| tracing::warn!(path = entry.key, line = e.line(), "no enrolment token"))
        .ok()
}

fn name_of(bound: Option<Name>, wanted: &str) -> Result<Name, EnrolError> {
    match (bound, wanted) {
        (Some(bound), "") => Ok(bound),
        (Some(bound), wanted) if bound.as_str() == wanted => Ok(bound),
        (Some(bound), _) => Err(EnrolError::Node(format!("the token is for the node {bound}"))),
        (None, "") => Err(EnrolError::Node("the node has to name itself".to_owned())),
        (None, wanted) => {
            wanted.parse().map_err(|e| EnrolError::Node(format!("the node's name {e}")))
        }
    }
}

#[cfg(test)]
mod tests;
