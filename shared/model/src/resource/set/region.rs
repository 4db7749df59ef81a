//! What a region sees of a set.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::ResourceSet;
use crate::id::{Digest, Name};
use crate::resource::{Catalog, CatalogEntry, Definition, Kind, ResourceKey, Spec};

impl ResourceSet {
    /// What a proxy of `region` may see: groups that name no region or this one, what belongs to
    /// them, and everything outside groups that they need: all regions and keyrings, and the
    /// definitions that their catalogs pin. A region that sees every group sees the whole set.
    pub fn for_region(&self, region: &Name) -> Self {
        if self.is_all_of(region) {
            return self.clone();
        }
        let mut view = Self::default();
        for (at, table) in &self.tables {
            let visible = match (at.kind, &at.group) {
                (_, Some(group)) => self.sees(region, group),
                (Kind::Group | Kind::Definition, None) => false,
                _ => true,
            };
            if visible {
                view.len += table.len();
                view.bytes += table.bytes();
                view.tables.insert(at.clone(), Arc::clone(table));
            }
        }
        let groups = self.of_kind(Kind::Group, None);
        for group in groups.filter(|group| shows(&group.spec, region)) {
            view.insert(Arc::clone(group));
        }
        let pinned: BTreeSet<String> =
            view.entries().map(|entry| Definition::name_of(&entry.digest)).collect();
        for name in pinned {
            if let Some(definition) = self.get(&ResourceKey::global(Kind::Definition, name)) {
                view.insert(Arc::clone(definition));
            }
        }
        view
    }

    /// The same, from what the region saw of an earlier set: costs what has changed, where groups
    /// stay where they are.
    pub fn for_region_after(&self, region: &Name, (before, seen): (&Self, &Self)) -> Self {
        if self.is_all_of(region) {
            return self.clone();
        }
        let (upserts, removals) = before.diff(self);
        let mut changed = upserts.iter().map(|r| &r.key).chain(&removals);
        // A group that comes, goes or moves takes everything in it along; and who saw all of a set
        // saw definitions that nobody pins, too.
        if *seen == *before || changed.any(|key| key.kind == Kind::Group) {
            return self.for_region(region);
        }
        let mut view = seen.clone();
        let mut candidates: HashSet<String> = HashSet::new();
        for key in upserts.iter().map(|r| &r.key).chain(&removals) {
            match (key.kind, &key.group) {
                (Kind::Definition, _) => drop(candidates.insert(key.name.clone())),
                (_, Some(group)) if !self.sees(region, group) => {}
                (kind, _) => {
                    if kind == Kind::Catalog {
                        for set in [before, self] {
                            let spec = set.get(key).map(|resource| &resource.spec);
                            candidates.extend(spec.into_iter().flat_map(entries).map(name_of));
                        }
                    }
                    match self.get(key) {
                        Some(resource) => drop(view.insert(Arc::clone(resource))),
                        None => drop(view.remove(key)),
                    }
                }
            }
        }
        let pinned = view.pinned_of(&candidates);
        for name in candidates {
            let key = ResourceKey::global(Kind::Definition, name.clone());
            match self.get(&key).filter(|_| pinned.contains(&name)) {
                Some(definition) => drop(view.insert(Arc::clone(definition))),
                None => drop(view.remove(&key)),
            }
        }
        view
    }

    /// True when the region sees everything: no group is hidden, nothing is of a group that there
    /// is not.
    fn is_all_of(&self, region: &Name) -> bool {
        self.of_kind(Kind::Group, None).all(|group| shows(&group.spec, region))
            && self.tables.keys().filter_map(|at| at.group.as_ref()).all(|g| self.sees(region, g))
    }

    /// True for a group that there is, and that the region serves.
    fn sees(&self, region: &Name, group: &Name) -> bool {
        let group = self.get(&ResourceKey::global(Kind::Group, group.as_str()));
        group.is_some_and(|group| shows(&group.spec, region))
    }

    /// What the catalogs of this set pin.
    fn entries(&self) -> impl Iterator<Item = &CatalogEntry> {
        let catalogs = self.tables.iter().filter(|(at, _)| at.kind == Kind::Catalog);
        catalogs.flat_map(|(_, table)| table.iter()).flat_map(|catalog| entries(&catalog.spec))
    }

    /// Which of these definitions the catalogs of this set pin.
    fn pinned_of(&self, names: &HashSet<String>) -> HashSet<String> {
        if names.is_empty() {
            return HashSet::new();
        }
        // Most are told apart by four bytes, without writing a name.
        let begins: HashSet<[u8; 4]> =
            names.iter().filter_map(|name| Definition::begins(name)).collect();
        let may_be = |entry: &&CatalogEntry| {
            let Digest([a, b, c, d, ..]) = entry.digest;
            begins.contains(&[a, b, c, d])
        };
        let found = self.entries().filter(may_be).map(name_of);
        found.filter(|name| names.contains(name)).collect()
    }
}

fn name_of(entry: &CatalogEntry) -> String {
    Definition::name_of(&entry.digest)
}

fn entries(spec: &Spec) -> &[CatalogEntry] {
    match spec {
        Spec::Catalog(Catalog { entries, .. }) => entries,
        _ => &[],
    }
}

/// True when proxies of the region serve the group.
fn shows(group: &Spec, region: &Name) -> bool {
    match group {
        Spec::Group(group) => group.regions.is_empty() || group.regions.contains(region),
        _ => true,
    }
}
