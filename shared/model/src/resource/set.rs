//! A set of resources: the state of the store, or a region's view of it.
//!
//! Cheap to clone, to compare and to change, whatever its size: resources are kept in shards (one
//! per kind and group; definitions by the beginning of their digest) that sets share until one
//! of them changes. A set of 100,000 definitions and its successor differ in one shard.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use super::{Definition, Kind, Resource, ResourceKey, Spec};
use crate::id::{Digest, Name};

/// Resources by key. Cloning shares the resources.
#[derive(Debug, Clone, Default)]
pub struct ResourceSet {
    shards: BTreeMap<ShardKey, Arc<Shard>>,
    len: usize,
}

/// Orders shards as their resources are ordered.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct ShardKey {
    kind: Kind,
    group: Option<Name>,
    /// The first two characters of the name of a definition; zeros for all other kinds.
    part: [u8; 2],
}

impl ShardKey {
    fn of(key: &ResourceKey) -> Self {
        let part = match (key.kind, key.name.as_bytes()) {
            (Kind::Definition, [a, b, ..]) => [*a, *b],
            _ => [0, 0],
        };
        Self { kind: key.kind, group: key.group.clone(), part }
    }
}

#[derive(Debug, Default)]
struct Shard {
    resources: BTreeMap<String, Arc<Resource>>,
    digest: OnceLock<Digest>,
}

impl Clone for Shard {
    // A clone is about to change.
    fn clone(&self) -> Self {
        Self { resources: self.resources.clone(), digest: OnceLock::new() }
    }
}

impl Shard {
    fn digest(&self) -> Digest {
        *self.digest.get_or_init(|| {
            let mut text = Vec::with_capacity(self.resources.len() * 96);
            for resource in self.resources.values() {
                text.extend_from_slice(resource.key.to_string().as_bytes());
                text.push(0);
                text.extend_from_slice(&resource.digest.0);
                text.push(b'\n');
            }
            Digest::of(&text)
        })
    }

    fn same(a: &Arc<Self>, b: &Arc<Self>) -> bool {
        Arc::ptr_eq(a, b) || a.digest() == b.digest()
    }
}

impl PartialEq for ResourceSet {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len
            && self.shards.len() == other.shards.len()
            && self
                .shards
                .iter()
                .zip(&other.shards)
                .all(|((ka, a), (kb, b))| ka == kb && Shard::same(a, b))
    }
}

impl ResourceSet {
    /// Puts a resource in, and gives back the one it replaced.
    pub fn insert(&mut self, resource: Arc<Resource>) -> Option<Arc<Resource>> {
        let shard = self.shards.entry(ShardKey::of(&resource.key)).or_default();
        let shard = Arc::make_mut(shard);
        shard.digest = OnceLock::new();
        let old = shard.resources.insert(resource.key.name.clone(), resource);
        self.len += usize::from(old.is_none());
        old
    }

    /// Takes a resource out.
    pub fn remove(&mut self, key: &ResourceKey) -> Option<Arc<Resource>> {
        self.get(key)?;
        let at = ShardKey::of(key);
        let shard = Arc::make_mut(self.shards.get_mut(&at)?);
        shard.digest = OnceLock::new();
        let old = shard.resources.remove(&key.name);
        if shard.resources.is_empty() {
            self.shards.remove(&at);
        }
        self.len -= usize::from(old.is_some());
        old
    }

    /// The resource of that key.
    pub fn get(&self, key: &ResourceKey) -> Option<&Arc<Resource>> {
        self.shards.get(&ShardKey::of(key))?.resources.get(&key.name)
    }

    /// In key order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.shards.values().flat_map(|shard| shard.resources.values())
    }

    /// Resources of one kind and group (none for kinds outside groups), by name.
    pub fn of_kind(
        &self,
        kind: Kind,
        group: Option<&Name>,
    ) -> impl Iterator<Item = &Arc<Resource>> {
        let from = ShardKey { kind, group: group.cloned(), part: [0; 2] };
        let to = ShardKey { kind, group: group.cloned(), part: [255; 2] };
        self.shards.range(from..=to).flat_map(|(_, shard)| shard.resources.values())
    }

    /// Kinds of which groups have resources, with the groups, in order.
    pub fn kinds_by_group(&self) -> impl Iterator<Item = (Kind, &Name)> {
        self.shards.keys().filter_map(|at| Some((at.kind, at.group.as_ref()?)))
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The digest of the whole set: over the digests of its shards in order, where the digest of
    /// a shard is over `key NUL digest NL`, in key order. Two sets are equal when their digests
    /// are. Computed once per shard.
    pub fn digest(&self) -> Digest {
        let digests: Vec<Digest> = self.shards.values().map(|shard| shard.digest()).collect();
        let parts: Vec<&[u8]> = digests.iter().map(|d| d.0.as_slice()).collect();
        Digest::of_parts(&parts)
    }

    /// What a proxy of `region` may see: groups that name no region or this one, what belongs to
    /// them, and everything outside groups that they need: all regions and keyrings, and the
    /// definitions that their catalogs pin. A region that sees every group sees the whole set.
    pub fn for_region(&self, region: &Name) -> Self {
        let hidden: BTreeSet<&str> = self
            .of_kind(Kind::Group, None)
            .filter(|r| match &r.spec {
                Spec::Group(group) => !group.regions.is_empty() && !group.regions.contains(region),
                _ => false,
            })
            .map(|r| r.key.name.as_str())
            .collect();
        let orphan =
            |group: &Name| self.get(&ResourceKey::global(Kind::Group, group.as_str())).is_none();
        let mut view = Self::default();
        let mut whole = hidden.is_empty();
        for (at, shard) in &self.shards {
            let visible = match (at.kind, &at.group) {
                (_, Some(group)) => !hidden.contains(group.as_str()) && !orphan(group),
                (Kind::Group | Kind::Definition, None) => continue,
                _ => true,
            };
            if visible {
                view.len += shard.resources.len();
                view.shards.insert(at.clone(), Arc::clone(shard));
            } else {
                whole = false;
            }
        }
        if whole {
            return self.clone();
        }
        for group in self.of_kind(Kind::Group, None) {
            if !hidden.contains(group.key.name.as_str()) {
                view.insert(Arc::clone(group));
            }
        }
        for name in view.pinned_definitions() {
            if let Some(definition) = self.get(&ResourceKey::global(Kind::Definition, name)) {
                view.insert(Arc::clone(definition));
            }
        }
        view
    }

    /// Names of the definitions that the catalogs of this set pin.
    fn pinned_definitions(&self) -> BTreeSet<String> {
        let catalogs = self.shards.iter().filter(|(at, _)| at.kind == Kind::Catalog);
        catalogs
            .flat_map(|(_, shard)| shard.resources.values())
            .flat_map(|resource| match &resource.spec {
                Spec::Catalog(catalog) => catalog.entries.as_slice(),
                _ => &[],
            })
            .map(|entry| Definition::name_of(&entry.digest))
            .collect()
    }

    /// What leads from `self` to `newer`: changed or new resources, and keys that are gone, both
    /// in key order. Costs what changed, not what there is.
    pub fn diff(&self, newer: &Self) -> (Vec<Arc<Resource>>, Vec<ResourceKey>) {
        let (mut upserts, mut removals) = (Vec::new(), Vec::new());
        let nothing = Arc::new(Shard::default());
        let keys: BTreeSet<&ShardKey> = self.shards.keys().chain(newer.shards.keys()).collect();
        for at in keys {
            let old = self.shards.get(at).unwrap_or(&nothing);
            let new = newer.shards.get(at).unwrap_or(&nothing);
            if Arc::ptr_eq(old, new) {
                continue;
            }
            for (name, resource) in &new.resources {
                let known = old.resources.get(name);
                if known.is_none_or(|known| known.digest != resource.digest) {
                    upserts.push(Arc::clone(resource));
                }
            }
            let gone = old.resources.iter().filter(|(name, _)| !new.resources.contains_key(*name));
            removals.extend(gone.map(|(_, resource)| resource.key.clone()));
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
