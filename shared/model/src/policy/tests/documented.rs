//! The reference page: its schema is the schema, and its rules do what its tables say.

use crate::policy::{SCHEMA, review};
use crate::testing::questions::{Docs, ask};

const PAGE: &str = include_str!("../../../../../docs/reference/policy.md");

/// Texts of the fenced blocks of a language, each with the page up to it and after it.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<(&'a str, &'a str, &'a str)> {
    let open = format!("```{language}\n");
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(at) = page[from..].find(&open) {
        let start = from + at + open.len();
        let end = start + page[start..].find("```").unwrap();
        found.push((&page[..start], &page[start..end], &page[end + 3..]));
        from = end + 3;
    }
    found
}

#[test]
fn the_schema_of_the_page_is_the_schema() {
    let [(_, schema, _)] = blocks(PAGE, "cedarschema")[..] else { panic!("one schema block") };
    assert_eq!(schema, SCHEMA, "copy shared/model/src/policy/weir.cedarschema into the page");
}

/// Rows of the first table after a block and before the next block.
fn cases(after: &str) -> Vec<[String; 4]> {
    let mut rows = Vec::new();
    let table =
        after.lines().skip_while(|l| !l.starts_with('|')).take_while(|l| l.starts_with('|'));
    // After the head and the line under it.
    for line in table.skip(2) {
        let cells: Vec<String> = line
            .trim_matches('|')
            .split(" | ")
            .map(|c| c.trim().trim_matches('`').to_owned())
            .collect();
        rows.push(<[String; 4]>::try_from(cells).unwrap_or_else(|c| panic!("{line}: {c:?}")));
    }
    rows
}

#[test]
fn every_rule_of_the_page_does_what_its_table_says() {
    let rules = blocks(PAGE, "cedar");
    assert!(rules.len() >= 20, "{}", rules.len());
    for (before, cedar, after) in rules {
        let title = before.rsplit("\n### ").next().unwrap().lines().next().unwrap();
        let chapter = before.rsplit("\n## ").next().unwrap();
        let docs = Docs::default().policy("rule", cedar);
        let docs = if chapter.starts_with("Rules that forbid") { docs.open() } else { docs };
        let rules = docs.compile();
        let cases = cases(after);
        assert!(cases.len() >= 2, "{title}: too few cases");
        let mut answers = std::collections::BTreeSet::new();
        for [who, what, place, answer] in cases {
            let ask = ask(&who, &what, &place);
            let decision = ask.decide(&rules);
            let told = review::told(&decision, || ask.put(|question| rules.grants(question)));
            let kept = decision.obligations.iter().any(|(name, _)| name == "audit");
            let got = format!("{told}{}", if kept { ", kept" } else { "" });
            assert_eq!(got, answer, "{title}: {who} | {what} | {place}: {decision:?}");
            assert!(decision.errors.is_empty(), "{title}: {:?}", decision.errors);
            answers.insert(answer);
        }
        let served = answers.iter().filter(|answer| answer.starts_with("allowed")).count();
        assert!(served > 0 && served < answers.len(), "{title}: show both answers");
    }
}
