//! The resources of one kind and group, in parts of some dozens.
//!
//! A part begins at every name of which [`begins`] says so, about one in [`PART`], and at the
//! beginning. That depends on the name alone: a set has the same parts, and so the same digests,
//! however it came about. Changing one resource copies and digests its part, and no other.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use crate::id::Digest;
use crate::resource::Resource;

/// Names in a part, on average.
const PART: u64 = 64;

/// True when a part begins at a name. Part of the protocol: both planes must agree on it.
fn begins(name: &str) -> bool {
    // FNV-1a, with a last step that spreads what the lowest bits lack.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let spread = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (spread >> 32).is_multiple_of(PART)
}

/// The resources of one kind and group.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// By the name that they begin at; the first begins at the empty name. None is empty.
    parts: BTreeMap<String, Arc<Part>>,
    len: usize,
    bytes: usize,
    digest: OnceLock<Digest>,
}

impl Clone for Table {
    // A clone is about to change.
    fn clone(&self) -> Self {
        let Self { parts, len, bytes, .. } = self;
        Self { parts: parts.clone(), len: *len, bytes: *bytes, digest: OnceLock::new() }
    }
}

#[derive(Debug, Default)]
struct Part {
    resources: BTreeMap<String, Arc<Resource>>,
    digest: OnceLock<Digest>,
}

impl Clone for Part {
    // A clone is about to change.
    fn clone(&self) -> Self {
        Self { resources: self.resources.clone(), digest: OnceLock::new() }
    }
}

impl Part {
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

impl Table {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// In the order of names.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.parts.values().flat_map(|part| part.resources.values())
    }

    pub(super) fn get(&self, name: &str) -> Option<&Arc<Resource>> {
        self.part(name)?.1.resources.get(name)
    }

    /// The part that a name belongs to.
    fn part(&self, name: &str) -> Option<(&String, &Arc<Part>)> {
        self.parts.range::<str, _>((Bound::Unbounded, Bound::Included(name))).next_back()
    }

    /// The part that a name belongs to, about to change.
    fn part_mut(&mut self, name: &str) -> &mut Part {
        let at = self.part(name).map_or_else(String::new, |(at, _)| at.clone());
        let part = Arc::make_mut(self.parts.entry(at).or_default());
        part.digest = OnceLock::new();
        part
    }

    pub(super) fn insert(&mut self, resource: Arc<Resource>) -> Option<Arc<Resource>> {
        self.digest = OnceLock::new();
        let name = resource.key.name.clone();
        if begins(&name) && !self.parts.contains_key(&name) {
            self.split(&name);
        }
        self.bytes += resource.canonical.len();
        let old = self.part_mut(&name).resources.insert(name, resource);
        self.bytes -= old.as_ref().map_or(0, |old| old.canonical.len());
        self.len += usize::from(old.is_none());
        old
    }

    /// Makes a part begin at a name. It is filled before anybody looks.
    fn split(&mut self, name: &str) {
        let before = self.part(name).map(|(at, _)| at.clone());
        let mut later = BTreeMap::new();
        if let Some(at) = before {
            let part = self.part_mut(name);
            later = part.resources.split_off(name);
            if part.resources.is_empty() {
                self.parts.remove(&at);
            }
        }
        let part = Part { resources: later, digest: OnceLock::new() };
        self.parts.insert(name.to_owned(), Arc::new(part));
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<Arc<Resource>> {
        let (at, _) = self.part(name)?;
        let at = at.clone();
        let old = self.part_mut(name).resources.remove(name)?;
        self.digest = OnceLock::new();
        self.len -= 1;
        self.bytes -= old.canonical.len();
        if at == name {
            // What began here belongs to the part before, as if the name had never been.
            let rest = self.parts.remove(&at).map(Arc::unwrap_or_clone).unwrap_or_default();
            if !rest.resources.is_empty() {
                self.part_mut(name).resources.extend(rest.resources);
            }
        } else if self.parts.get(&at).is_some_and(|part| part.resources.is_empty()) {
            self.parts.remove(&at);
        }
        Some(old)
    }

    pub(super) fn digest(&self) -> Digest {
        *self.digest.get_or_init(|| {
            let digests: Vec<Digest> = self.parts.values().map(|part| part.digest()).collect();
            let parts: Vec<&[u8]> = digests.iter().map(|d| d.0.as_slice()).collect();
            Digest::of_parts(&parts)
        })
    }

    pub(super) fn same(a: &Arc<Self>, b: &Arc<Self>) -> bool {
        Arc::ptr_eq(a, b) || (a.len == b.len && a.digest() == b.digest())
    }

    /// Parts that are not parts of another table, too.
    fn apart<'a>(
        self: &'a Arc<Self>,
        other: &'a Arc<Self>,
    ) -> impl Iterator<Item = &'a Arc<Part>> + 'a {
        let same = Arc::ptr_eq(self, other);
        let parts = (!same).then(|| self.parts.iter()).into_iter().flatten();
        let differs = |(at, part): &(&String, &Arc<Part>)| {
            other.parts.get(*at).is_none_or(|known| !Part::same(known, part))
        };
        parts.filter(differs).map(|(_, part)| part)
    }

    /// Resources of `newer` that are other or not here.
    pub(super) fn changed_in<'a>(
        self: &'a Arc<Self>,
        newer: &'a Arc<Self>,
    ) -> impl Iterator<Item = &'a Arc<Resource>> + 'a {
        newer.apart(self).flat_map(|part| part.resources.values()).filter(|resource| {
            self.get(&resource.key.name).is_none_or(|known| known.digest != resource.digest)
        })
    }

    /// Resources that `newer` does not have.
    pub(super) fn gone_in<'a>(
        self: &'a Arc<Self>,
        newer: &'a Arc<Self>,
    ) -> impl Iterator<Item = &'a Arc<Resource>> + 'a {
        let gone = |resource: &&Arc<Resource>| newer.get(&resource.key.name).is_none();
        self.apart(newer).flat_map(|part| part.resources.values()).filter(gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{Kind, Region, ResourceKey, Spec};

    fn region(name: &str, revised: u32) -> Arc<Resource> {
        let spec = Region { display_name: Some(revised.to_string()), url: None };
        let key = ResourceKey::global(Kind::Region, name);
        Arc::new(Resource::new(key, Spec::Region(spec)).unwrap())
    }

    fn table(names: &[String]) -> Table {
        let mut table = Table::default();
        for name in names {
            table.insert(region(name, 0));
        }
        table
    }

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|at| format!("server-{at}")).collect()
    }

    #[test]
    fn parts_are_of_some_dozens_and_depend_on_the_names_alone() {
        let mut all = names(5_000);
        let one = table(&all);
        let largest = one.parts.values().map(|part| part.resources.len()).max().unwrap();
        assert!((40..=160).contains(&one.parts.len()), "{} parts", one.parts.len());
        assert!(largest < 64 * 12, "{largest} in one part");
        all.reverse();
        let mut other = table(&all);
        assert_eq!(other.digest(), one.digest());
        for more in ["a", "server-17x", "z"].into_iter().chain(all.iter().map(String::as_str)) {
            if other.get(more).is_none() {
                other.insert(region(more, 0));
                assert_ne!(other.digest(), one.digest());
                other.remove(more);
            }
        }
        assert_eq!(other.digest(), one.digest());
        let parts = |table: &Table| table.parts.keys().cloned().collect::<Vec<_>>();
        assert_eq!(parts(&other), parts(&one));
    }

    #[test]
    fn what_goes_step_by_step_leaves_what_was_never_there() {
        let all = names(400);
        let (kept, gone) = all.split_at(150);
        let mut table_of_all = table(&all);
        for name in gone {
            assert!(table_of_all.remove(name).is_some());
            assert!(table_of_all.remove(name).is_none());
        }
        let fresh = table(kept);
        assert_eq!((table_of_all.len(), table_of_all.bytes()), (fresh.len(), fresh.bytes()));
        assert_eq!(table_of_all.digest(), fresh.digest());
        for name in kept {
            table_of_all.remove(name);
        }
        assert!(table_of_all.parts.is_empty() && table_of_all.bytes() == 0);
    }

    #[test]
    fn a_change_copies_one_part_and_shows_in_the_difference() {
        let all = names(2_000);
        let old = Arc::new(table(&all));
        let mut new = Table::clone(&old);
        new.insert(region("server-77", 1));
        new.remove("server-1234");
        let new = Arc::new(new);
        assert!(new.apart(&old).count() <= 3, "of {} parts", old.parts.len());
        let name = |resource: &Arc<Resource>| resource.key.name.clone();
        assert_eq!(old.changed_in(&new).map(name).collect::<Vec<_>>(), ["server-77"]);
        assert_eq!(old.gone_in(&new).map(name).collect::<Vec<_>>(), ["server-1234"]);
        assert_eq!(old.changed_in(&old).count() + old.gone_in(&old).count(), 0);
    }
}
