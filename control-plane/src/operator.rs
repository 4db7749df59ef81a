//! Who may administer what. Apart from the policies that agents are under.
//!
//! An operator holds a bearer token; the store holds its digest under `state/operators/`. Every
//! request looks there, so a revoked token is worthless at once, at every replica. A role says
//! what an operator may do, its groups where: an operator with groups sees and changes nothing
//! outside of them.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use weir_model::id::{Digest, Name, Revision};
use weir_model::resource::{Kind, ResourceKey};
use weir_model::secret::Secret;
use weir_runtime::clock::SharedClock;

use crate::store::{Entry, Guard, Op, Store, StoreError};
use crate::token::{self, NoRandomness};

/// Where operators live in the store.
const OPERATORS: &str = "state/operators/";
/// Exists as soon as the first operator was made, for ever: so that there is one first start.
const BOOTSTRAPPED: &str = "state/bootstrapped";
/// Operators that there may be.
const OPERATORS_MAX: usize = 1_000;

/// What an operator may do; each includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Read, diff, dry run.
    Viewer,
    /// Change documents, pin, mint tokens of service accounts.
    Editor,
    /// Make and remove operators; let proxies join.
    Admin,
}

/// An operator, without its token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Operator {
    /// Public part of the token.
    pub id: String,
    /// For people.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Where; empty means everywhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Name>,
    /// Seconds since the epoch.
    pub created: u64,
    /// Seconds since the epoch; none means that it does not expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// Id of the operator that made it.
    pub created_by: String,
}

/// What the store keeps.
#[derive(Serialize, Deserialize)]
struct Kept {
    #[serde(flatten)]
    operator: Operator,
    sha256: Digest,
}

/// A new operator, as asked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// For people.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Where; empty means everywhere.
    pub groups: Vec<Name>,
    /// Seconds from now.
    pub expires_in: Option<u64>,
}

/// Why an operator was not let in, or could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// No token of an operator, or of none that we know.
    #[error("the token is not known")]
    Unknown,
    /// It was known.
    #[error("the token has expired")]
    Expired,
    /// It may not do this, or not there.
    #[error("{0}")]
    Denied(String),
    /// There is no operator of that id.
    #[error("there is no operator {0}")]
    Missing(String),
    /// Removing it would lock everybody out.
    #[error("this is the last operator with the role admin for all groups")]
    LastAdmin,
    /// Too many.
    #[error("there are {OPERATORS_MAX} operators, more are not possible; revoke some")]
    Full,
    /// No randomness for a token.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Operator {
    /// Whether it may read documents of that group (none: outside groups).
    pub fn sees(&self, group: Option<&Name>) -> bool {
        self.groups.is_empty() || group.is_none_or(|group| self.groups.contains(group))
    }

    /// Whether it may read that document. Regions concern everybody; a group is seen by those
    /// who may look into it.
    pub fn sees_document(&self, key: &ResourceKey) -> bool {
        match (key.kind, &key.group) {
            (Kind::Region, _) => true,
            (Kind::Group, _) => {
                self.groups.is_empty() || self.groups.iter().any(|g| g.as_str() == key.name)
            }
            (_, Some(group)) => self.sees(Some(group)),
            (_, None) => self.groups.is_empty(),
        }
    }

    /// Demands a role; with groups, an operator without restriction has it in all of them.
    ///
    /// # Errors
    /// [`OperatorError::Denied`].
    pub fn demand(&self, role: Role) -> Result<(), OperatorError> {
        if self.role >= role {
            return Ok(());
        }
        let (is, needs) = (word(self.role), word(role));
        Err(OperatorError::Denied(format!("this needs the role {needs}; yours is {is}")))
    }

    /// Demands that it may act outside of groups, on what concerns all of them.
    ///
    /// # Errors
    /// [`OperatorError::Denied`].
    pub fn demand_everywhere(&self) -> Result<(), OperatorError> {
        if self.groups.is_empty() {
            return Ok(());
        }
        let text = "this concerns all groups; your token is for some groups alone";
        Err(OperatorError::Denied(text.to_owned()))
    }

    /// Demands that it may act in a group.
    ///
    /// # Errors
    /// [`OperatorError::Denied`].
    pub fn demand_group(&self, group: &Name) -> Result<(), OperatorError> {
        if self.sees(Some(group)) {
            return Ok(());
        }
        Err(OperatorError::Denied(format!("your token is not for group {group}")))
    }

    /// Demands that it may change a document: in its groups, what belongs to them.
    ///
    /// # Errors
    /// [`OperatorError::Denied`].
    pub fn demand_document(&self, key: &ResourceKey) -> Result<(), OperatorError> {
        match &key.group {
            Some(group) => self.demand_group(group),
            None => self.demand_everywhere(),
        }
    }
}

fn word(role: Role) -> &'static str {
    match role {
        Role::Viewer => "viewer",
        Role::Editor => "editor",
        Role::Admin => "admin",
    }
}

/// The operators in the store. Cheap to clone.
#[derive(Clone)]
pub struct Operators {
    store: Arc<dyn Store>,
    clock: SharedClock,
}

impl std::fmt::Debug for Operators {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Operators").finish_non_exhaustive()
    }
}

impl Operators {
    /// The operators of a store.
    pub fn new(store: Arc<dyn Store>, clock: SharedClock) -> Self {
        Self { store, clock }
    }

    /// Makes the first operator, an admin, unless there ever was one. Of several replicas that
    /// start together, one makes it.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn bootstrap(&self) -> Result<Option<(Operator, Secret<String>)>, OperatorError> {
        if self.store.get(BOOTSTRAPPED).await?.is_some() {
            return Ok(None);
        }
        let wanted =
            Wanted { name: "first".into(), role: Role::Admin, groups: vec![], expires_in: None };
        let (kept, token) = self.prepare(wanted, "bootstrap")?;
        let first = Guard { key: BOOTSTRAPPED.to_owned(), revision: Revision(0) };
        let mark = Op::Put(BOOTSTRAPPED.to_owned(), Bytes::new());
        match self.store.commit(vec![first], vec![mark, put(&kept)?]).await {
            Ok(_) => Ok(Some((kept.operator, token))),
            Err(StoreError::Conflict) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes an operator; its token is shown here and never again.
    ///
    /// # Errors
    /// [`OperatorError::Full`], and those of the store.
    pub async fn mint(
        &self,
        wanted: Wanted,
        by: &str,
    ) -> Result<(Operator, Secret<String>), OperatorError> {
        if self.store.list(OPERATORS).await?.entries.len() >= OPERATORS_MAX {
            return Err(OperatorError::Full);
        }
        let (kept, token) = self.prepare(wanted, by)?;
        let absent = Guard { key: path(&kept.operator.id), revision: Revision(0) };
        self.store.commit(vec![absent], vec![put(&kept)?]).await?;
        Ok((kept.operator, token))
    }

    fn prepare(&self, wanted: Wanted, by: &str) -> Result<(Kept, Secret<String>), NoRandomness> {
        let minted = token::mint(token::OPERATOR)?;
        let now = self.clock.now_secs();
        let operator = Operator {
            id: minted.id,
            name: wanted.name,
            role: wanted.role,
            groups: wanted.groups,
            created: now,
            expires: wanted.expires_in.map(|secs| now.saturating_add(secs)),
            created_by: by.to_owned(),
        };
        Ok((Kept { operator, sha256: minted.sha256 }, minted.token))
    }

    /// Whose token this is.
    ///
    /// # Errors
    /// [`OperatorError::Unknown`], [`OperatorError::Expired`], and those of the store.
    pub async fn authenticate(&self, token: &str) -> Result<Operator, OperatorError> {
        let id = token::id(token::OPERATOR, token).ok_or(OperatorError::Unknown)?;
        let entry = self.store.get(&path(id)).await?.ok_or(OperatorError::Unknown)?;
        let kept = read(&entry)?;
        if !token::matches(token, &kept.sha256) {
            return Err(OperatorError::Unknown);
        }
        if self.is_expired(&kept.operator) {
            return Err(OperatorError::Expired);
        }
        Ok(kept.operator)
    }

    fn is_expired(&self, operator: &Operator) -> bool {
        operator.expires.is_some_and(|expires| expires <= self.clock.now_secs())
    }

    /// All of them, by id.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn list(&self) -> Result<Vec<Operator>, OperatorError> {
        let listing = self.store.list(OPERATORS).await?;
        listing.entries.iter().map(|entry| Ok(read(entry)?.operator)).collect()
    }

    /// The operator of that id.
    ///
    /// # Errors
    /// [`OperatorError::Missing`], and those of the store.
    pub async fn get(&self, id: &str) -> Result<Operator, OperatorError> {
        let entry = self.store.get(&path(id)).await?;
        let entry = entry.ok_or_else(|| OperatorError::Missing(id.to_owned()))?;
        Ok(read(&entry)?.operator)
    }

    /// Removes an operator; its token is worthless from here on.
    ///
    /// # Errors
    /// [`OperatorError::Missing`], [`OperatorError::LastAdmin`], and those of the store.
    pub async fn revoke(&self, id: &str) -> Result<(), OperatorError> {
        let listing = self.store.list(OPERATORS).await?;
        let mut found = None;
        let mut other_admin = None;
        for entry in &listing.entries {
            let operator = read(entry)?.operator;
            if operator.id == id {
                found = Some(entry);
            } else if is_root(&operator) && !self.is_expired(&operator) {
                other_admin.get_or_insert(entry);
            }
        }
        let found = found.ok_or_else(|| OperatorError::Missing(id.to_owned()))?;
        let mut guards = vec![Guard { key: found.key.clone(), revision: found.revision }];
        if is_root(&read(found)?.operator) {
            // Guarded, so that two admins do not remove each other at the same time.
            let other = other_admin.ok_or(OperatorError::LastAdmin)?;
            guards.push(Guard { key: other.key.clone(), revision: other.revision });
        }
        self.store.commit(guards, vec![Op::Delete(found.key.clone())]).await?;
        Ok(())
    }
}

fn is_root(operator: &Operator) -> bool {
    operator.role == Role::Admin && operator.groups.is_empty() && operator.expires.is_none()
}

fn path(id: &str) -> String {
    format!("{OPERATORS}{id}")
}

fn put(kept: &Kept) -> Result<Op, StoreError> {
    let bytes = serde_json::to_vec(kept).map_err(|e| StoreError::Corrupt(e.to_string()))?;
    Ok(Op::Put(path(&kept.operator.id), Bytes::from(bytes)))
}

fn read(entry: &Entry) -> Result<Kept, StoreError> {
    serde_json::from_slice(&entry.value)
        .map_err(|error| StoreError::Corrupt(format!("{}: {error}", entry.key)))
}

#[cfg(test)]
mod tests;
