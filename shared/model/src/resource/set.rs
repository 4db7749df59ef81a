//! A set of resources: the state of the store, or a region's view of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Resource, ResourceKey};
use crate::id::{Digest, Name};

/// Resources by key. Cloning shares the resources.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ResourceSet {
    resources: BTreeMap<ResourceKey, Arc<Resource>>,
}

impl ResourceSet {
    /// Puts a resource in, and gives back the one it replaced.
    pub fn insert(&mut self, resource: Arc<Resource>) -> Option<Arc<Resource>> {
        self.resources.insert(resource.key.clone(), resource)
    }
    /// Takes a resource out.
    pub fn remove(&mut self, key: &ResourceKey) -> Option<Arc<Resource>> {
        self.resources.remove(key)
    }
    /// The resource of that key.
    pub fn get(&self, key: &ResourceKey) -> Option<&Arc<Resource>> {
        self.resources.get(key)
    }
    /// In key order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.values()
    }
    /// How many.
    pub fn len(&self) -> usize {
        self.resources.len()
    }
    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }

    /// The digest of the whole set: over `key NUL digest NL`, in key order. Two sets are equal
    /// when their digests are.
    pub fn digest(&self) -> Digest {
        let mut text = Vec::with_capacity(self.resources.len() * 96);
        for (key, resource) in &self.resources {
            text.extend_from_slice(key.to_string().as_bytes());
            text.push(0);
            text.extend_from_slice(&resource.digest.0);
            text.push(b'\n');
        }
        Digest::of(&text)
    }

    /// What a proxy of `region` may see: groups that name no region or this one, what belongs to
    /// them, and everything outside groups that they need.
    pub fn for_region(&self, region: &Name) -> Self {
        let _ = region;
        todo!()
    }

    /// What leads from `self` to `newer`: changed or new resources, and keys that are gone.
    pub fn diff(&self, newer: &Self) -> (Vec<Arc<Resource>>, Vec<ResourceKey>) {
        let _ = newer;
        todo!()
    }
}
