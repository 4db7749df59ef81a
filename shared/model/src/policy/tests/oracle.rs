//! The rules against the slow oracle, over generated documents and questions. The cache of the data
//! plane is held against the same oracle there.

use cedar_policy::{Policy, PolicySet};
use proptest::prelude::*;
use serde_json::json;

use crate::policy::Action;
use crate::policy::review::Ask;
use crate::resource::Subject;
use crate::testing::oracle::{self, Oracle, Verdict};
use crate::testing::questions::{Docs, context};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn rules_decide_like_one_big_cedar(docs in oracle::docs(), asked in proptest::collection::vec(oracle::ask(), 1..24)) {
        let rules = docs.compile();
        let oracle = Oracle::new(&docs, &rules);
        let elsewhere = [
            (json!({}), "region=eu hour=3 peer=10.0.0.1"),
            (json!({"n": 2, "o": {"s": "e"}}), "weekday=6"),
            (json!({"n": i64::MAX}), "peer=192.0.2.1 client=x revision=2026-07-28"),
        ];
        for ask in asked {
            let decision = ask.decide(&rules);
            prop_assert_eq!(&Verdict::of(&decision), &oracle.decide(&ask), "{:?}", ask);
            prop_assert_eq!(&ask.put(|q| rules.decide_by_cedar(q)), &decision, "{:?}", ask);
            // What is left of one call finishes every other.
            if let Some(residual) = ask.put(|q| rules.residual(q)) {
                for (arguments, place) in &elsewhere {
                    let other = Ask {
                        arguments: if ask.action.has_arguments() { Some(arguments.clone()) } else { ask.arguments.clone() },
                        context: context(place),
                        ..ask.clone()
                    };
                    let finished = other.put(|q| rules.finish(&residual, q));
                    prop_assert_eq!(&finished, &other.decide(&rules), "{:?}", other);
                    prop_assert_eq!(&finished, &other.put(|q| rules.decide_by_cedar(q)), "{:?}", other);
                    if residual.is_closed() {
                        prop_assert_eq!(&finished, &decision, "{:?}", other);
                    }
                }
            }

            // What is allowed with arguments might be allowed without them.
            let open = Ask { arguments: None, ..ask.clone() };
            prop_assert_eq!(&open.put(|q| rules.decide_by_cedar(q)), &open.decide(&rules), "{:?}", open);
            let open = open.decide(&rules);
            prop_assert!(open.allowed || !decision.allowed, "{:?}", ask);
            if !decision.reads_arguments {
                prop_assert_eq!(&open, &decision, "{:?}", ask);
            }
            if !decision.reads_context {
                let elsewhere = Ask { context: context("region=zz hour=1 client=q"), ..ask.clone() };
                prop_assert_eq!(&elsewhere.decide(&rules), &decision, "{:?}", ask);
            }

            // Who may do something on a server may use the server, unless a rule forbids that.
            let using = Ask { action: Action::UseServer, target: String::new(), ..ask.clone() };
            prop_assert_eq!(&using.put(|q| rules.decide_by_cedar(q)), &using.decide(&rules), "{:?}", using);
            let using = using.decide(&rules);
            if decision.allowed && !using.allowed {
                let forbidden = !using.rules.is_empty() || !using.errors.is_empty();
                prop_assert!(forbidden, "{:?}: {:?}", ask, using);
            }
        }
    }

    #[test]
    fn a_forbid_more_never_allows_more(docs in oracle::docs(), more in oracle::cedar(), asked in proptest::collection::vec(oracle::ask(), 1..12)) {
        let more = more.replace("permit (", "forbid (");
        let wider = docs.clone().policy("more", &more);
        let (with, errors) = wider.try_compile();
        prop_assume!(errors.is_empty());
        let rules = docs.compile();
        for ask in asked {
            for ask in [Ask { action: Action::UseServer, target: String::new(), ..ask.clone() }, Ask { arguments: None, ..ask.clone() }, ask] {
                prop_assert!(ask.decide(&rules).allowed || !ask.decide(&with).allowed, "{:?}", ask);
            }
        }
    }
}

#[test]
fn role_text_is_cedar_that_people_can_read() {
    let docs =
        Docs::default().role("reader", vec![Docs::rule("crm,wiki-*", "get_*", "", "")]).bind(
            "ci",
            "reader",
            vec![
                Subject::ServiceAccount("ci".parse().unwrap()),
                Subject::Membership("a\"b\n".into()),
            ],
        );
    let text = docs.compile().cedar_of_roles().to_owned();
    let first = "@id(\"role:reader/binding:ci\")\n\
        permit (principal, action == Action::\"CallTool\", resource is Tool)\n\
        when { (principal == ServiceAccount::\"ci\" || principal.memberships.contains(\"a\\\"b\\u{a}\")) && \
        (resource.server like \"crm\" || resource.server like \"wiki-*\") && (resource.name like \"get_*\") };\n";
    assert!(text.starts_with(first), "{text}");
    let policies: PolicySet = text.parse().unwrap();
    assert_eq!(policies.policies().count(), 2);
    assert!(
        policies.policies().all(|p: &Policy| p.annotation("id") == Some("role:reader/binding:ci"))
    );
}
