//! Who sees and calls what, and that a remembered decision is the decision.

use proptest::prelude::*;
use weir_model::policy::Context;
use weir_model::policy::review::Ask as Asked;
use weir_model::principal::{Principal, Proof};
use weir_model::resource::{Rule, Subject};
use weir_model::snapshot::{Hints, Snapshot};
use weir_model::testing::World;
use weir_model::testing::oracle::{self, Oracle, Verdict};

use super::*;

fn caller(subject: &str, memberships: &[&str]) -> Principal {
    Principal {
        proof: Proof::Jwt,
        provider: Some("okta".parse().unwrap()),
        subject: subject.into(),
        memberships: memberships.iter().map(|m| Arc::from(*m)).collect(),
        ..Principal::anonymous()
    }
}

fn world(policies: &[&str]) -> Snapshot {
    let rule = |servers: &str, tools: &str| Rule {
        servers: vec![servers.to_owned()],
        tools: vec![tools.to_owned()],
        ..Rule::default()
    };
    let mut world = World::new()
        .group("acme")
        .grant("acme", vec![rule("crm", "*")], vec![Subject::Membership("sales".to_owned())])
        .grant("acme", vec![rule("*", "get_*")], vec![Subject::Authenticated(true)]);
    for (at, cedar) in policies.iter().enumerate() {
        world = world.policy("acme", &format!("p{at}"), cedar);
    }
    let snapshot = world.snapshot();
    assert!(snapshot.problems.is_empty(), "{:?}", snapshot.problems);
    snapshot
}

struct Ask<'a> {
    who: &'a Principal,
    action: Action,
    server: &'a str,
    target: &'a str,
    arguments: Option<serde_json::Value>,
    hour: i64,
}

impl Ask<'_> {
    fn put<T>(&self, to: impl FnOnce(&Question<'_>) -> T) -> T {
        let context = Context {
            region: "eu".to_owned(),
            now: self.hour * 3_600,
            revision: "2025-11-25".to_owned(),
            ..Context::default()
        };
        to(&Question {
            principal: self.who,
            action: self.action,
            server: &self.server.parse().unwrap(),
            target: self.target,
            hints: Hints::default(),
            arguments: self.arguments.as_ref(),
            context: &context,
        })
    }
}

fn call<'a>(who: &'a Principal, server: &'a str, target: &'a str) -> Ask<'a> {
    let arguments = Some(serde_json::json!({}));
    Ask { who, action: Action::CallTool, server, target, arguments, hour: 12 }
}

const CAP: &str = "forbid(principal, action == Action::\"CallTool\", resource == Tool::\"crm/pay\")
    unless { context.arguments.number.hasTag(\"n\") && context.arguments.number.getTag(\"n\") < 10 };";

#[test]
fn a_matrix_of_who_sees_and_calls_what() {
    let snapshot = world(&[
        CAP,
        "@scope(\"hr.read\") forbid(principal, action, resource in Server::\"hr\") unless { principal.scopes.contains(\"hr.read\") };",
    ]);
    let rules = &snapshot.groups["acme"].rules;
    let decisions = Decisions::default();
    let (seller, staff, nobody) =
        (caller("s", &["sales"]), caller("u", &[]), Principal::anonymous());
    let unknown = Some(Reason::UnknownTarget);
    let scope = Some(Reason::InsufficientScope);
    // caller, target, seen in lists, called with {}
    let table = [
        (&seller, "crm/get_x", true, None),
        (&seller, "crm/set_x", true, None),
        (&seller, "crm/pay", true, unknown),
        (&seller, "erp/set_x", false, unknown),
        (&staff, "crm/get_x", true, None),
        (&staff, "crm/set_x", false, unknown),
        (&staff, "crm/pay", false, unknown),
        (&staff, "hr/get_x", false, scope),
        (&nobody, "crm/get_x", false, unknown),
    ];
    for _ in 0..2 {
        for (who, target, sees, refused) in table {
            let (server, tool) = target.split_once('/').unwrap();
            let ask = call(who, server, tool);
            assert_eq!(
                ask.put(|q| may_see(&decisions, rules, q, &q.principal.digest())),
                sees,
                "{} {target}",
                who.subject
            );
            let got = ask
                .put(|q| decide(&decisions, rules, q, &q.principal.digest()))
                .err()
                .map(|d| d.refusal.reason);
            assert_eq!(got, refused, "{} {target}", who.subject);
        }
    }
    let counts = decisions.counts();
    assert!(counts.hits > 0 && counts.roles > 0 && counts.finished > 0, "{counts:?}");
}

#[test]
fn a_permit_and_a_denial_carry_their_reasons() {
    let snapshot = world(&[
        "@audit(\"full\") @id(\"watch\") permit(principal == User::\"s\", action, resource is Tool);",
        CAP,
    ]);
    let rules = &snapshot.groups["acme"].rules;
    let decisions = Decisions::default();
    let seller = caller("s", &["sales"]);
    let permit = call(&seller, "crm", "set_x")
        .put(|q| decide(&decisions, rules, q, &q.principal.digest()))
        .unwrap();
    assert_eq!((permit.server().as_str(), permit.target()), ("crm", "set_x"));
    assert!(permit.rules().iter().any(|rule| &**rule == "policy:p0#watch"));
    assert!(permit.rules().iter().any(|rule| rule.starts_with("role:")));
    assert_eq!(permit.obligations(), [("audit".to_owned(), "full".to_owned())]);

    let denial = call(&seller, "crm", "pay")
        .put(|q| decide(&decisions, rules, q, &q.principal.digest()))
        .unwrap_err();
    assert_eq!(denial.rules.iter().map(|r| &**r).collect::<Vec<_>>(), ["policy:p1#0"]);
    assert_eq!(denial.refusal.detail, "denied by policy");
    assert_eq!(denial.refusal.message(), Reason::UnknownTarget.remedy(), "nothing is told");
    let server = Ask { action: Action::UseServer, ..call(&Principal::anonymous(), "crm", "") }
        .put(|q| decide(&decisions, rules, q, &q.principal.digest()))
        .unwrap_err();
    assert_eq!(server.refusal.reason, Reason::UnknownEndpoint);
    assert!(server.rules.is_empty());
}

#[test]
fn new_rules_are_not_answered_with_old_decisions() {
    let decisions = Decisions::default();
    let seller = caller("s", &["sales"]);
    let allowed = |snapshot: &Snapshot| {
        let rules = &snapshot.groups["acme"].rules;
        call(&seller, "crm", "set_x")
            .put(|q| decide(&decisions, rules, q, &q.principal.digest()))
            .is_ok()
    };
    let closed = "forbid(principal, action, resource in Server::\"crm\");";
    let open = "forbid(principal, action, resource in Server::\"crm\") unless { principal.subject == \"s\" };";
    assert!(!allowed(&world(&[closed])));
    assert!(allowed(&world(&[open])));
    assert!(!allowed(&world(&[closed])));
    assert_eq!(decisions.counts().hits, 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn cached_is_uncached_is_what_the_slow_oracle_says(
        docs in oracle::docs(),
        asked in proptest::collection::vec(oracle::ask(), 1..32),
    ) {
        // One cache for all: rules that are revoked share it with those that were not.
        let decisions = Decisions::default();
        let mut revoked = docs.clone();
        revoked.powerless = revoked.policies.iter().map(|(name, _)| name.clone()).collect();
        for docs in [&docs, &revoked, &docs] {
            let rules = docs.compile();
            let oracle = Oracle::new(docs, &rules);
            for ask in asked.iter().chain(&asked) {
                let put = |ask: &Question<'_>| decisions.decide(&rules, ask, &ask.principal.digest());
                let cached = ask.put(put);
                prop_assert_eq!(&*cached, &ask.decide(&rules), "{:?}", ask);
                prop_assert_eq!(&Verdict::of(&cached), &oracle.decide(ask), "{:?}", ask);
                // What is asked for lists is kept apart from what is asked for calls.
                let open = Asked { arguments: None, ..ask.clone() };
                prop_assert_eq!(&*open.put(put), &open.decide(&rules), "{:?}", open);
            }
        }
        let counts = decisions.counts();
        let all = counts.roles + counts.hits + counts.finished + counts.misses + counts.per_call;
        prop_assert_eq!(all, 12 * asked.len() as u64, "each question is counted once: {:?}", counts);
    }
}
