//! What has changed between two sets, as far as compilation cares.

use std::collections::{BTreeSet, HashSet};

use crate::id::{Digest, Name};
use crate::resource::{Definition, Kind, ResourceKey, ResourceSet, Spec};

/// Which parts of an earlier snapshot may not be taken over.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// There is nothing to take over.
    all: bool,
    groups: HashSet<Name>,
    kinds: HashSet<(Kind, Name)>,
    keys: BTreeSet<ResourceKey>,
}

impl Changes {
    pub(super) fn between(old: Option<&ResourceSet>, new: &ResourceSet) -> Self {
        let Some(old) = old else { return Self { all: true, ..Self::default() } };
        let (upserts, removals) = old.diff(new);
        let mut changes = Self::default();
        for key in upserts.iter().map(|r| &r.key).chain(&removals) {
            changes.note(key);
        }
        let gone = removals.iter().filter(|key| key.kind == Kind::Definition);
        changes.note_catalogs(new, &gone.map(|key| key.name.as_str()).collect());
        changes
    }

    /// Notes the catalogs that pin a definition that is gone.
    fn note_catalogs(&mut self, set: &ResourceSet, gone: &HashSet<&str>) {
        if gone.is_empty() {
            return;
        }
        let prefixes: HashSet<[u8; 4]> =
            gone.iter().filter_map(|name| Definition::begins(name)).collect();
        let pins = |digest: &Digest| {
            let Digest([a, b, c, d, ..]) = digest;
            prefixes.contains(&[*a, *b, *c, *d])
                && gone.contains(Definition::name_of(digest).as_str())
        };
        let catalogs = set.kinds_by_group().filter(|(kind, _)| *kind == Kind::Catalog);
        for resource in catalogs.flat_map(|(kind, group)| set.of_kind(kind, Some(group))) {
            if let Spec::Catalog(catalog) = &resource.spec
                && catalog.entries.iter().any(|entry| pins(&entry.digest))
            {
                self.note(&resource.key);
            }
        }
    }

    fn note(&mut self, key: &ResourceKey) {
        let group = match (key.kind, &key.group) {
            (Kind::Group, _) => key.name.parse().ok(),
            (_, group) => group.clone(),
        };
        if let Some(group) = group {
            self.kinds.insert((key.kind, group.clone()));
            self.groups.insert(group);
            self.keys.insert(key.clone());
        }
    }

    /// True when anything of the group has changed.
    pub(super) fn touch_group(&self, group: &Name) -> bool {
        self.all || self.groups.contains(group)
    }

    /// True when anything of these kinds has changed in the group.
    pub(super) fn touch_kinds(&self, group: &Name, kinds: &[Kind]) -> bool {
        self.all || kinds.iter().any(|kind| self.kinds.contains(&(*kind, group.clone())))
    }

    /// The resources of a group that have changed; none when that is not known.
    pub(super) fn in_group<'a>(
        &'a self,
        group: &'a Name,
    ) -> Option<impl Iterator<Item = &'a ResourceKey>> {
        let own = |key: &&ResourceKey| key.group.as_ref() == Some(group);
        (!self.all).then(|| self.keys.iter().filter(own))
    }

    /// True when one of these resources has changed.
    pub(super) fn touch_keys<'a>(&self, keys: impl IntoIterator<Item = &'a ResourceKey>) -> bool {
        self.all || keys.into_iter().any(|key| self.keys.contains(key))
    }
}
