//! How something is taken back: one document, named after what it takes. Operators do it over
//! REST, proxies when somebody signs out at an identity provider or uses a copy of a token.

use weir_model::bounds;
use weir_model::id::{Digest, Name, Revision};
use weir_model::resource::{
    FieldError, Kind, Resource, ResourceKey, ResourceSet, Revocation, Revoked, Spec,
};

use crate::admit::{Proposal, settled};
use crate::author::{Author, AuthorError};
use crate::index::Indexed;

/// Revocations that have ended and are cleared away with one new one.
const CLEARED_MAX: usize = bounds::APPLY_DOCUMENTS_MAX / 2;

/// Something that was taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withdrawn {
    /// The document.
    pub key: ResourceKey,
    /// From which revision on.
    pub revision: Revision,
}

/// Why it was not.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    /// A misspelt name would revoke nothing and look as if it had.
    #[error("there is no {0}")]
    Missing(ResourceKey),
    /// The group has too many of them.
    #[error("{0} revocations, more are not possible; delete some")]
    Full(usize),
    /// The document.
    #[error("{} field errors", .0.len())]
    Fields(Vec<FieldError>),
    /// The change.
    #[error(transparent)]
    Author(#[from] AuthorError),
}

/// Takes something of a group back, and clears away what has ended by itself. The same thing
/// revoked twice is one document.
///
/// # Errors
/// See [`RevokeError`].
pub async fn revoke(
    author: &Author,
    group: &Name,
    wanted: Revocation,
    now: i64,
) -> Result<Withdrawn, RevokeError> {
    let key = ResourceKey::grouped(Kind::Revocation, group, name_of(&wanted.what).as_str());
    let resource = Resource::new(key.clone(), Spec::Revocation(wanted.clone()));
    let resource = resource.map_err(RevokeError::Fields)?;
    let propose = |indexed: &Indexed| {
        target_exists(&indexed.set, group, &wanted.what)?;
        let deletes = ended(&indexed.set, group, now, &key);
        let have = indexed.set.of_kind(Kind::Revocation, Some(group)).count();
        let again = indexed.set.get(&key).is_some();
        if !again && have - deletes.len() >= bounds::REVOCATIONS_MAX {
            return Err(RevokeError::Full(have));
        }
        let documents = vec![settled(resource.clone())];
        Ok(Proposal { documents, deletes, ..Proposal::default() })
    };
    let revision = author.edit(propose).await?.revision;
    Ok(Withdrawn { key, revision })
}

fn name_of(what: &Revoked) -> String {
    let json = serde_json::to_vec(what).unwrap_or_default();
    format!("r-{}", &Digest::of(&json).hex()[..16])
}

/// For the trail: what was revoked. None of the ids is a secret.
pub fn said(what: &Revoked) -> String {
    serde_json::to_string(what).unwrap_or_default().chars().take(200).collect()
}

fn target_exists(set: &ResourceSet, group: &Name, what: &Revoked) -> Result<(), RevokeError> {
    let (kind, name) = match what {
        Revoked::Server(name) => (Kind::Server, name),
        Revoked::Tool(tool) => (Kind::Server, &tool.server),
        Revoked::Policy(name) => (Kind::Policy, name),
        Revoked::RoleBinding(name) => (Kind::RoleBinding, name),
        _ => return Ok(()),
    };
    let key = ResourceKey::grouped(kind, group, name.as_str());
    match set.get(&key) {
        Some(_) => Ok(()),
        None => Err(RevokeError::Missing(key)),
    }
}

/// Revocations of the group that have ended, some of them.
fn ended(set: &ResourceSet, group: &Name, now: i64, but: &ResourceKey) -> Vec<ResourceKey> {
    let over = |resource: &&std::sync::Arc<Resource>| match &resource.spec {
        Spec::Revocation(revocation) => revocation.expires.is_some_and(|expires| expires <= now),
        _ => false,
    };
    let all = set.of_kind(Kind::Revocation, Some(group)).filter(over);
    all.map(|resource| resource.key.clone()).filter(|key| key != but).take(CLEARED_MAX).collect()
}
