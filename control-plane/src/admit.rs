//! Admission: what somebody wants to change, and the current configuration, give a plan or every
//! reason why not. Pure: no store, no clock, no keys.
//!
//! The proposed configuration is compiled by the very function that proxies run, so that what is
//! admitted can be run. A change is refused for what is wrong with its own documents and for what
//! it breaks elsewhere, not for what was broken before: one broken part never blocks mending
//! another.

mod plan;
mod settle;

pub use plan::{Action, Plan, Step, secret_path};

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use weir_model::bounds;
use weir_model::resource::{
    Document, FieldError, Kind, Resource, ResourceKey, ResourceSet, Server, Spec,
};
use weir_model::secret::Secret;
use weir_model::snapshot::{Secrets, Snapshot};

use crate::index::Indexed;

/// What somebody wants to change.
#[derive(Debug, Default)]
pub struct Proposal {
    /// To create or replace.
    pub documents: Vec<Document>,
    /// To take out.
    pub deletes: Vec<ResourceKey>,
    /// What happens to the children of a deleted group.
    pub children: Children,
    /// Who decides about the tokens of service accounts.
    pub tokens: Tokens,
}

/// What happens to the children of a deleted group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Children {
    /// A group with children is not deleted.
    #[default]
    Keep,
    /// They go with it.
    Delete,
}

/// Who decides about the tokens of service accounts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tokens {
    /// The stored document: operators do not write hashes.
    #[default]
    AsStored,
    /// The proposed document: tokens are being minted or revoked.
    AsProposed,
}

/// What a proposal meets.
#[derive(Debug, Clone)]
pub struct Current {
    /// All documents.
    pub indexed: Arc<Indexed>,
    /// The same, compiled with [`stand_ins`] for secrets.
    pub compiled: Arc<Snapshot>,
    /// Opened secrets of documents that the proposal replaces, so that an equal secret is no
    /// change.
    pub opened: Secrets,
}

/// Why a proposal is not admitted.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// What is to be deleted does not exist.
    #[error("there is no {0}")]
    Missing(ResourceKey),
    /// Everything that is wrong.
    #[error("{} field errors", .0.len())]
    Fields(Vec<FieldError>),
    /// More than one change, or one snapshot, may hold.
    #[error("{0}")]
    TooLarge(String),
}

/// Admits or refuses. Compiles the whole configuration: call it on a blocking thread.
///
/// # Errors
/// See [`Refused`].
pub fn admit(current: &Current, proposal: &Proposal) -> Result<Plan, Refused> {
    let asked = proposal.documents.len() + proposal.deletes.len();
    if asked > bounds::APPLY_DOCUMENTS_MAX {
        return Err(Refused::TooLarge(format!(
            "{asked} documents, at most {} in one change; apply them in parts",
            bounds::APPLY_DOCUMENTS_MAX
        )));
    }
    let set = &current.indexed.set;
    let mut plan = Plan::default();
    let mut errors = Vec::new();
    for document in &proposal.documents {
        let stored = set.get(&document.resource.key);
        match settle::document(document, stored.map(|s| &**s), proposal.tokens, &current.opened) {
            Ok(settled) => plan.put(stored, settled),
            Err(more) => errors.extend(more),
        }
    }
    for key in deleted(set, proposal)? {
        if plan.touches(&key) {
            errors.push(FieldError::new(&key, "", "is both applied and deleted; decide on one"));
        } else if let Some(stored) = set.get(&key) {
            plan.delete(stored);
        }
    }
    children_without_parents(set, &plan, proposal, &mut errors);
    sweep_catalogs(set, &mut plan);
    let proposed = plan.applied_to(set);
    within_limits(&proposed)?;
    errors.extend(broken_by(current, &proposed, &plan));
    if errors.is_empty() {
        return Ok(plan);
    }
    errors.truncate(bounds::FIELD_ERRORS_MAX);
    Err(Refused::Fields(errors))
}

/// A stand-in for every secret that a set refers to: admission needs to know that they exist,
/// never what they are.
pub fn stand_ins(set: &ResourceSet) -> Secrets {
    // As long as a sealing key, and good for a header.
    let stand_in = Arc::new(Secret::new(vec![b'x'; 32]));
    let held = |kind: Kind| matches!(kind, Kind::Credential | Kind::IdentityProvider);
    let holders = set.kinds_by_group().filter(|(kind, _)| held(*kind));
    let grouped = holders.flat_map(|(kind, group)| set.of_kind(kind, Some(group)));
    grouped
        .chain(set.of_kind(Kind::Keyring, None))
        .flat_map(|resource| resource.secret_refs())
        .map(|(_, reference)| (reference.secret.clone(), Arc::clone(&stand_in)))
        .collect()
}

/// Everything that is to be deleted, a group's children with it where that was asked for.
fn deleted(set: &ResourceSet, proposal: &Proposal) -> Result<BTreeSet<ResourceKey>, Refused> {
    let mut keys = BTreeSet::new();
    for key in &proposal.deletes {
        if set.get(key).is_none() {
            return Err(Refused::Missing(key.clone()));
        }
        if key.kind.is_system() {
            let message = "documents of this kind are written by the control plane alone";
            return Err(Refused::Fields(vec![FieldError::new(key, "kind", message)]));
        }
        keys.insert(key.clone());
        if key.kind == Kind::Group && proposal.children == Children::Delete {
            let children = set.kinds_by_group().filter(|(_, group)| group.as_str() == key.name);
            let children = children.flat_map(|(kind, group)| set.of_kind(kind, Some(group)));
            keys.extend(children.map(|child| child.key.clone()));
        }
    }
    Ok(keys)
}

/// A deleted group must not leave children behind.
fn children_without_parents(
    set: &ResourceSet,
    plan: &Plan,
    proposal: &Proposal,
    errors: &mut Vec<FieldError>,
) {
    for key in proposal.deletes.iter().filter(|key| key.kind == Kind::Group) {
        let kinds = set.kinds_by_group().filter(|(_, group)| group.as_str() == key.name);
        let left = kinds
            .flat_map(|(kind, group)| set.of_kind(kind, Some(group)))
            .filter(|child| !child.key.kind.is_system() && !plan.deletes(&child.key));
        let (mut count, mut first) = (0, None);
        for child in left {
            count += 1;
            first.get_or_insert_with(|| child.key.to_string());
        }
        if let Some(first) = first {
            let more = if count > 1 { format!(" and {} more", count - 1) } else { String::new() };
            errors.push(FieldError::new(
                key,
                "",
                format!("still has {first}{more}; delete them first, or delete with cascade"),
            ));
        }
    }
}

/// Catalogs follow their servers' versions.
fn sweep_catalogs(set: &ResourceSet, plan: &mut Plan) {
    let mut gone = Vec::new();
    for step in &plan.steps {
        let Some(before) = &step.before else { continue };
        let (Kind::Server, Some(group)) = (before.key.kind, &before.key.group) else { continue };
        let kept: HashSet<&str> = match step.after.as_ref().map(|after| &after.spec) {
            Some(Spec::Server(Server { versions, .. })) => {
                versions.iter().map(|version| version.name.as_str()).collect()
            }
            _ => HashSet::new(),
        };
        for catalog in set.of_kind(Kind::Catalog, Some(group)) {
            let Some((server, version)) = catalog.key.name.split_once('.') else { continue };
            if server == before.key.name && !kept.contains(version) {
                gone.push(Arc::clone(catalog));
            }
        }
    }
    for catalog in gone.iter().filter(|catalog| !plan.deletes(&catalog.key)).collect::<Vec<_>>() {
        plan.sweep(catalog);
    }
}

fn within_limits(set: &ResourceSet) -> Result<(), Refused> {
    let refuse = |is: usize, what: &str, max: usize| {
        Err(Refused::TooLarge(format!(
            "the configuration would have {is} {what}, at most {max} are possible; delete what is \
             no longer needed"
        )))
    };
    if set.len() > bounds::SNAPSHOT_RESOURCES_MAX {
        return refuse(set.len(), "documents", bounds::SNAPSHOT_RESOURCES_MAX);
    }
    let bytes = set.bytes();
    if bytes > bounds::SNAPSHOT_BYTES_MAX {
        return refuse(bytes, "bytes", bounds::SNAPSHOT_BYTES_MAX);
    }
    Ok(())
}

/// What is wrong with the plan's own documents, and what it breaks elsewhere.
fn broken_by(current: &Current, proposed: &ResourceSet, plan: &Plan) -> Vec<FieldError> {
    let secrets = stand_ins(proposed);
    let revision = current.indexed.revision;
    let compiled = Snapshot::compile(revision, proposed, secrets, Some(&*current.compiled));
    let own: HashSet<String> = plan.written().map(|resource| resource.key.to_string()).collect();
    let before: HashSet<(&str, &str)> = current
        .compiled
        .problems
        .iter()
        .map(|problem| (problem.document.as_str(), problem.path.as_str()))
        .collect();
    let is_new = |problem: &FieldError| {
        own.contains(&problem.document)
            || !before.contains(&(problem.document.as_str(), problem.path.as_str()))
    };
    let mut errors: Vec<_> = compiled.problems.iter().filter(|p| is_new(p)).cloned().collect();
    // The list of problems is bounded; what is quarantined is not.
    let told: HashSet<&str> = compiled.problems.iter().map(|p| p.document.as_str()).collect();
    let untold: BTreeMap<_, _> = compiled
        .quarantined
        .iter()
        .filter(|(key, _)| !told.contains(key.to_string().as_str()))
        .filter(|(key, _)| !current.compiled.quarantined.contains_key(key))
        .collect();
    errors.extend(untold.into_iter().map(|(key, why)| FieldError::new(key, "", why.as_str())));
    errors
}

/// A document that is already settled, as internal changes make them.
pub fn settled(resource: Resource) -> Document {
    Document { resource, secrets: Vec::new() }
}

#[cfg(test)]
mod tests;
