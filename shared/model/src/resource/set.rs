//! A set of resources: the state of the store, or a region's view of it.
//!
//! Cheap to clone, to compare and to change, whatever its size: resources are kept in tables (one
//! per kind and group) of parts of some dozens, which sets share until one of them changes. A set
//! of 100,000 definitions and its successor differ in one part. Where parts begin is decided by
//! the names in them ([`part`]), so that equal sets have equal parts, whatever their past.

mod part;
mod region;

use std::collections::BTreeMap;
use std::sync::Arc;

use self::part::Table;
use super::{Kind, Resource, ResourceKey};
use crate::id::{Digest, Name};

/// Resources by key. Cloning shares the resources.
#[derive(Debug, Clone, Default)]
pub struct ResourceSet {
    tables: BTreeMap<TableKey, Arc<Table>>,
    len: usize,
    bytes: usize,
}

/// Orders tables as their resources are ordered.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct TableKey {
    kind: Kind,
    group: Option<Name>,
}

impl TableKey {
    fn of(key: &ResourceKey) -> Self {
        Self { kind: key.kind, group: key.group.clone() }
    }
}

impl PartialEq for ResourceSet {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len
            && self.tables.len() == other.tables.len()
            && self
                .tables
                .iter()
                .zip(&other.tables)
                .all(|((ka, a), (kb, b))| ka == kb && Table::same(a, b))
    }
}

impl ResourceSet {
    /// Puts a resource in, and gives back the one it replaced.
    pub fn insert(&mut self, resource: Arc<Resource>) -> Option<Arc<Resource>> {
        let bytes = resource.canonical.len();
        let table = self.tables.entry(TableKey::of(&resource.key)).or_default();
        let old = Arc::make_mut(table).insert(resource);
        self.bytes = self.bytes + bytes - old.as_ref().map_or(0, |old| old.canonical.len());
        self.len += usize::from(old.is_none());
        old
    }

    /// Takes a resource out.
    pub fn remove(&mut self, key: &ResourceKey) -> Option<Arc<Resource>> {
        self.get(key)?;
        let at = TableKey::of(key);
        let table = Arc::make_mut(self.tables.get_mut(&at)?);
        let old = table.remove(&key.name)?;
        if table.len() == 0 {
            self.tables.remove(&at);
        }
        self.len -= 1;
        self.bytes -= old.canonical.len();
        Some(old)
    }

    /// The resource of that key.
    pub fn get(&self, key: &ResourceKey) -> Option<&Arc<Resource>> {
        self.tables.get(&TableKey::of(key))?.get(&key.name)
    }

    /// In key order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.tables.values().flat_map(|table| table.iter())
    }

    /// Resources of one kind and group (none for kinds outside groups), by name.
    pub fn of_kind(
        &self,
        kind: Kind,
        group: Option<&Name>,
    ) -> impl Iterator<Item = &Arc<Resource>> {
        let at = TableKey { kind, group: group.cloned() };
        self.tables.get(&at).into_iter().flat_map(|table| table.iter())
    }

    /// Kinds of which groups have resources, with the groups, in order.
    pub fn kinds_by_group(&self) -> impl Iterator<Item = (Kind, &Name)> {
        self.tables.keys().filter_map(|at| Some((at.kind, at.group.as_ref()?)))
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Canonical bytes of all of them.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The digest of the whole set: over the digests of its tables in key order, each of which is
    /// over the digests of its parts, where the digest of a part is over `key NUL digest NL` of
    /// its resources. Two sets are equal when their digests are. Computed once per part.
    pub fn digest(&self) -> Digest {
        let digests: Vec<Digest> = self.tables.values().map(|table| table.digest()).collect();
        let parts: Vec<&[u8]> = digests.iter().map(|d| d.0.as_slice()).collect();
        Digest::of_parts(&parts)
    }

    /// What leads from `self` to `newer`: changed or new resources, and keys that are gone, both
    /// in key order. Costs what changed, not what there is.
    pub fn diff(&self, newer: &Self) -> (Vec<Arc<Resource>>, Vec<ResourceKey>) {
        let (mut upserts, mut removals) = (Vec::new(), Vec::new());
        let nothing = Arc::new(Table::default());
        for (at, new) in &newer.tables {
            let old = self.tables.get(at).unwrap_or(&nothing);
            upserts.extend(old.changed_in(new).cloned());
        }
        for (at, old) in &self.tables {
            let new = newer.tables.get(at).unwrap_or(&nothing);
            removals.extend(old.gone_in(new).map(|resource| resource.key.clone()));
        }
        (upserts, removals)
    }
}

impl FromIterator<Arc<Resource>> for ResourceSet {
    fn from_iter<I: IntoIterator<Item = Arc<Resource>>>(resources: I) -> Self {
        let mut set = Self::default();
        for resource in resources {
            set.insert(resource);
        }
        set
    }
}
