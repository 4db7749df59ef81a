//! Laws of documents, sets and names, over arbitrary ones.

use std::sync::Arc;

use proptest::prelude::*;
use weir_model::id::Name;
use weir_model::naming;
use weir_model::resource::{Kind, Resource, ResourceKey, ResourceSet, Spec, parse_documents};
use weir_model::testing::strategies::{name, resource, resource_set, tool_name};

fn apply(
    mut set: ResourceSet,
    (upserts, removals): (Vec<Arc<Resource>>, Vec<ResourceKey>),
) -> ResourceSet {
    for key in &removals {
        assert!(set.remove(key).is_some(), "{key} is removed but was not there");
    }
    for resource in upserts {
        set.insert(resource);
    }
    set
}

proptest! {
    #[test]
    fn canonical_documents_read_back_as_themselves(resource in resource()) {
        let again = Resource::from_canonical(resource.canonical.clone()).unwrap();
        prop_assert_eq!(&again, &resource);
        prop_assert_eq!(&again.spec, &resource.spec);
        let anew = Resource::new(again.key, again.spec).unwrap();
        prop_assert_eq!(anew.canonical, resource.canonical);
    }

    #[test]
    fn what_get_shows_can_be_applied_as_json_and_as_yaml(resource in resource()) {
        let json = std::str::from_utf8(&resource.canonical).unwrap();
        let yaml = serde_saphyr::to_string(&serde_json::from_str::<serde_json::Value>(json).unwrap()).unwrap();
        let mut no_secret = || unreachable!("the secret is a reference already");
        for text in [json, yaml.as_str()] {
            match parse_documents(text, &mut no_secret) {
                Ok(documents) => prop_assert_eq!(&documents[0].resource.canonical, &resource.canonical),
                Err(errors) => {
                    prop_assert!(resource.key.kind.is_system(), "{:?}\n{}", errors, text);
                    prop_assert_eq!(errors[0].path.as_str(), "kind");
                }
            }
        }
    }

    #[test]
    fn a_difference_leads_from_one_set_to_the_other(a in resource_set(), b in resource_set()) {
        let there = apply(a.clone(), a.diff(&b));
        prop_assert_eq!(there.digest(), b.digest());
        prop_assert_eq!(there.len(), b.len());
        prop_assert!(there == b);
        let (upserts, removals) = b.diff(&there);
        prop_assert!(upserts.is_empty() && removals.is_empty());
    }

    #[test]
    fn sets_are_equal_when_their_digests_are(a in resource_set(), b in resource_set()) {
        prop_assert_eq!(a == b, a.digest() == b.digest());
        let list: Vec<_> = a.iter().cloned().collect();
        let backwards: ResourceSet = list.iter().rev().cloned().collect();
        prop_assert_eq!(backwards.digest(), a.digest());
        prop_assert!(list.windows(2).all(|w| w[0].key < w[1].key), "in key order");
        prop_assert_eq!(list.len(), a.len());
    }

    #[test]
    fn a_changed_document_changes_the_digest(set in resource_set(), more in resource()) {
        let mut changed = set.clone();
        let old = changed.insert(Arc::new(more.clone()));
        prop_assert_eq!(changed.digest() == set.digest(), old.is_some_and(|old| *old == more));
    }

    #[test]
    fn a_region_sees_its_groups_and_nothing_else(set in resource_set(), region in name()) {
        let view = set.for_region(&region);
        let visible = |group: &Name| {
            let key = ResourceKey::global(Kind::Group, group.as_str());
            set.get(&key).is_some_and(|r| match &r.spec {
                Spec::Group(g) => g.regions.is_empty() || g.regions.contains(&region),
                _ => false,
            })
        };
        for resource in set.iter() {
            let shown = view.get(&resource.key).is_some();
            match (&resource.key.kind, &resource.key.group) {
                (_, Some(group)) => prop_assert_eq!(shown, visible(group), "{}", resource.key),
                (Kind::Group, None) => {
                    let group: Name = resource.key.name.parse().unwrap();
                    prop_assert_eq!(shown, visible(&group));
                }
                (Kind::Definition, None) => {}
                _ => prop_assert!(shown),
            }
        }
        for resource in view.iter() {
            prop_assert!(set.get(&resource.key).is_some());
            if let Spec::Catalog(catalog) = &resource.spec {
                for entry in &catalog.entries {
                    let name = weir_model::resource::Definition::name_of(&entry.digest);
                    let key = ResourceKey::global(Kind::Definition, name);
                    prop_assert_eq!(view.get(&key).is_some(), set.get(&key).is_some());
                }
            }
        }
        prop_assert_eq!(view.for_region(&region).digest(), view.digest());
    }

    #[test]
    fn a_view_can_be_had_from_the_one_before(
        a in resource_set(), b in resource_set(), more in resource(), region in name(), kept in any::<bool>(),
    ) {
        // Neighbours, and sets that have little in common; groups that move and groups that stay.
        let mut near = a.clone();
        near.insert(Arc::new(more));
        let mut far = b;
        if kept {
            let gone: Vec<_> = far.of_kind(Kind::Group, None).map(|r| r.key.clone()).collect();
            gone.iter().for_each(|key| drop(far.remove(key)));
            a.of_kind(Kind::Group, None).for_each(|group| drop(far.insert(Arc::clone(group))));
        }
        for (from, to) in [(&a, &near), (&near, &a), (&a, &far), (&far, &near)] {
            let view = to.for_region_after(&region, (from, &from.for_region(&region)));
            prop_assert_eq!(view.digest(), to.for_region(&region).digest());
            prop_assert_eq!((view.len(), view.bytes()), (to.for_region(&region).len(), to.for_region(&region).bytes()));
        }
    }

    #[test]
    fn exposed_names_fit_and_lead_back_to_their_server(server in name(), tool in tool_name()) {
        let exposed = naming::exposed(&server, &tool);
        prop_assert!(exposed.len() <= 64);
        prop_assert!(exposed.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-'));
        let (owner, part) = naming::split(&exposed).unwrap();
        prop_assert_eq!(owner, server.as_str());
        // Read back without a table, a name is either the tool's own or marked as shortened.
        prop_assert!(part == tool || part.len() >= 14);
    }

    #[test]
    fn different_tools_have_different_exposed_names(server in "[a-z]{1,40}", a in tool_name(), b in tool_name()) {
        let server: Name = server.parse().unwrap();
        let (one, two) = (naming::exposed(&server, &a), naming::exposed(&server, &b));
        prop_assert_eq!(one == two, a == b);
        // What a name is shortened to is never the plain name of another tool.
        let (_, part) = naming::split(&one).unwrap();
        if part != a {
            prop_assert_ne!(naming::exposed(&server, part), one.clone());
        }
    }
}
