//! An offer and what is pinned give the next catalog. Pure.

use std::collections::{HashMap, HashSet};

use weir_model::bounds;
use weir_model::id::{Digest, Name};
use weir_model::observation::{Offer, Offered};
use weir_model::resource::{Catalog, CatalogEntry, Definition, DefinitionKind, PinRule};

type Identity = (DefinitionKind, String);

/// Leaves out what no catalog can hold, and says what and why: a bad name or text, a name that
/// comes twice, more entries than the bound.
pub fn within_bounds(mut offer: Offer) -> (Offer, Vec<String>) {
    let mut dropped = Vec::new();
    let mut seen: HashSet<Identity> = HashSet::new();
    let mut counts: HashMap<DefinitionKind, usize> = HashMap::new();
    offer.definitions.retain(|offered| match complaint(offered, &mut seen, &mut counts) {
        None => true,
        Some(why) => {
            // The name is the upstream's text: kept short, and quoted.
            let name: String = offered.name.chars().take(64).collect();
            dropped.push(format!("{:?} {name:?}: {why}", offered.kind));
            false
        }
    });
    if offer.instructions.as_ref().is_some_and(|i| i.len() > bounds::INSTRUCTIONS_BYTES_MAX) {
        offer.instructions = None;
        dropped.push("the instructions are too long".to_owned());
    }
    (offer, dropped)
}

/// Tools that are kept and pinned like others, but that clients over HTTP must not be shown: their
/// schema asks for mirrored headers that cannot be.
pub fn hidden(offer: &Offer) -> Vec<String> {
    let tools = offer.definitions.iter().filter(|one| one.kind == DefinitionKind::Tool);
    let complaints = tools.filter_map(|one| {
        let why = weir_model::snapshot::param_headers(&one.json).err()?;
        let name: String = one.name.chars().take(64).collect();
        Some(format!("Tool {name:?} is hidden: {why}"))
    });
    complaints.collect()
}

fn complaint(
    offered: &Offered,
    seen: &mut HashSet<Identity>,
    counts: &mut HashMap<DefinitionKind, usize>,
) -> Option<String> {
    let why = Catalog::entry_name_complaint(offered.kind, &offered.name)
        .or_else(|| Definition::json_complaint(&offered.json));
    if why.is_some() {
        return why;
    }
    if !seen.insert((offered.kind, offered.name.clone())) {
        return Some("the name comes twice".to_owned());
    }
    let count = counts.entry(offered.kind).or_default();
    *count += 1;
    (*count > bounds::CATALOG_ENTRIES_MAX).then(|| "too many of this kind".to_owned())
}

/// The catalog after an offer.
///
/// What is pinned stays as it was pinned, as long as the server still offers something of that
/// name; what is new or changed is pinned at once or waits, as the rule says; what the server no
/// longer offers is set aside, and is served again without a question when the server offers it
/// again unchanged (a server that restarts may offer nothing for a moment). Instructions are text for models, and are held back like a definition.
pub fn after_offer(
    (server, version): (&Name, &Name),
    existing: Option<&Catalog>,
    offer: &Offer,
    rule: PinRule,
) -> Catalog {
    let at_once = match rule {
        PinRule::Always => true,
        PinRule::First => existing.is_none(),
        PinRule::Ask => false,
    };
    let approved =
        || existing.into_iter().flat_map(|catalog| catalog.entries.iter().chain(&catalog.absent));
    let mut pinned: HashMap<(DefinitionKind, &str), Digest> =
        approved().map(|entry| ((entry.kind, entry.name.as_str()), entry.digest)).collect();
    let (mut entries, mut waiting) = (Vec::new(), Vec::new());
    for offered in &offer.definitions {
        let digest = Digest::of(offered.json.as_bytes());
        let entry = CatalogEntry { kind: offered.kind, name: offered.name.clone(), digest };
        let before = pinned.remove(&(offered.kind, offered.name.as_str()));
        if at_once || before == Some(digest) {
            entries.push(entry);
            continue;
        }
        if let Some(digest) = before {
            entries.push(CatalogEntry { digest, ..entry.clone() });
        }
        waiting.push(entry);
    }
    let gone = |e: &&CatalogEntry| !at_once && pinned.contains_key(&(e.kind, e.name.as_str()));
    let absent = approved().filter(gone).take(bounds::CATALOG_ENTRIES_MAX).cloned().collect();
    let before = existing.and_then(|catalog| catalog.instructions.clone());
    let (instructions, waiting_instructions) = if at_once || before == offer.instructions {
        (offer.instructions.clone(), None)
    } else {
        (before, offer.instructions.clone())
    };
    Catalog {
        server: server.clone(),
        version: version.clone(),
        era: offer.era,
        server_info: offer.server_info.clone(),
        capabilities: offer.capabilities.clone(),
        instructions,
        entries,
        waiting,
        waiting_instructions,
        absent,
    }
}

/// The catalog with everything pinned that waits.
pub fn after_pin(existing: &Catalog) -> Catalog {
    let mut after = Catalog { absent: Vec::new(), ..existing.clone() };
    for entry in std::mem::take(&mut after.waiting) {
        let same = |e: &&mut CatalogEntry| e.kind == entry.kind && e.name == entry.name;
        match after.entries.iter_mut().find(same) {
            Some(pinned) => *pinned = entry,
            None => after.entries.push(entry),
        }
    }
    if let Some(instructions) = after.waiting_instructions.take() {
        after.instructions = Some(instructions);
    }
    after
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use weir_model::resource::ObservedEra;

    use super::*;

    fn offer(tools: &[(&str, &str)]) -> Offer {
        Offer {
            era: ObservedEra::Dual,
            revision: "2026-07-28".to_owned(),
            server_info: Value::Null,
            capabilities: Value::Null,
            instructions: Some("Use with care.".to_owned()),
            definitions: tools
                .iter()
                .map(|(name, text)| Offered {
                    kind: DefinitionKind::Tool,
                    name: (*name).to_owned(),
                    json: format!(r#"{{"name":"{name}","description":"{text}"}}"#),
                })
                .collect(),
        }
    }

    fn after(existing: Option<&Catalog>, tools: &[(&str, &str)], rule: PinRule) -> Catalog {
        let name = |text: &str| text.parse::<Name>().unwrap();
        after_offer((&name("billing"), &name("v1")), existing, &offer(tools), rule)
    }

    fn names(entries: &[CatalogEntry]) -> Vec<&str> {
        entries.iter().map(|entry| entry.name.as_str()).collect()
    }

    #[test]
    fn the_rule_decides_about_the_first_offer() {
        for (rule, entries, waiting) in [
            (PinRule::First, vec!["a", "b"], vec![]),
            (PinRule::Always, vec!["a", "b"], vec![]),
            (PinRule::Ask, vec![], vec!["a", "b"]),
        ] {
            let catalog = after(None, &[("a", "x"), ("b", "x")], rule);
            assert_eq!(names(&catalog.entries), entries, "{rule:?}");
            assert_eq!(names(&catalog.waiting), waiting, "{rule:?}");
            assert_eq!(catalog.instructions.is_some(), waiting.is_empty(), "{rule:?}");
        }
    }

    #[test]
    fn a_change_serves_nobody_until_it_is_pinned() {
        let first = after(None, &[("a", "x"), ("b", "x")], PinRule::First);
        let second = after(Some(&first), &[("a", "evil"), ("c", "x")], PinRule::First);
        assert_eq!(second.entries, first.entries[..1], "a as it was pinned, b is gone");
        assert_eq!(names(&second.waiting), ["a", "c"]);
        assert_eq!(second.absent, first.entries[1..], "b may come back");
        let pinned = after_pin(&second);
        assert_eq!(names(&pinned.entries), ["a", "c"]);
        assert_ne!(pinned.entries[0], first.entries[0]);
        assert!(pinned.waiting.is_empty());
        let again = after(Some(&pinned), &[("a", "evil"), ("c", "x")], PinRule::First);
        assert_eq!(again, pinned, "an offer of what is pinned changes nothing");
    }

    #[test]
    fn what_comes_back_unchanged_needs_no_question() {
        let first = after(None, &[("a", "x"), ("b", "x")], PinRule::First);
        let nothing = after(Some(&first), &[], PinRule::First);
        assert_eq!((names(&nothing.entries), names(&nothing.absent)), (vec![], vec!["a", "b"]));
        let again = after(Some(&nothing), &[("b", "x"), ("a", "x")], PinRule::First);
        assert_eq!(names(&again.entries), ["b", "a"]);
        assert!(again.absent.is_empty() && again.waiting.is_empty());
        let other = after(Some(&nothing), &[("b", "evil")], PinRule::First);
        assert_eq!(other.entries, first.entries[1..], "as it was pinned");
        assert_eq!((names(&other.waiting), names(&other.absent)), (vec!["b"], vec!["a"]));
        let pinned = after_pin(&nothing);
        assert!(pinned.absent.is_empty(), "an operator has seen that they are gone");
    }

    #[test]
    fn what_no_catalog_can_hold_is_left_out_with_a_reason() {
        let long = "n".repeat(bounds::TOOL_NAME_CHARS_MAX + 1);
        let (kept, dropped) = within_bounds(offer(&[("a", "x"), ("a", "y"), (&long, "x")]));
        assert_eq!(kept.definitions.len(), 1);
        assert_eq!(dropped.len(), 2, "{dropped:?}");
    }

    #[test]
    fn tools_that_clients_are_not_shown_are_named() {
        let mut offer = offer(&[("good", "x"), ("bad", "x")]);
        let schema = r#"{"type":"object","items":{"x-mcp-header":"Region"}}"#;
        offer.definitions[1].json = format!(r#"{{"name":"bad","inputSchema":{schema}}}"#);
        let told = hidden(&offer);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with(r#"Tool "bad" is hidden"#), "{told:?}");
    }
}
