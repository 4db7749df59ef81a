//! What decisions cost, by kind, beside the same by Cedar alone:
//! `cargo bench -p weir-model --bench decide`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench")]

use std::hint::black_box;
use std::time::Instant;

use serde_json::{Value, json};
use weir_model::policy::{Action, Context, Question};
use weir_model::principal::{Principal, Proof};
use weir_model::resource::{Rule, Subject};
use weir_model::snapshot::{Hints, Snapshot};
use weir_model::testing::World;

/// Decisions per figure.
const ROUNDS: u32 = 20_000;

fn principal(memberships: &[&str]) -> Principal {
    let memberships = memberships.iter().map(|m| (*m).into()).collect();
    let provider = "okta".parse().ok();
    Principal {
        proof: Proof::Jwt,
        provider,
        subject: "ada".into(),
        memberships,
        ..Principal::anonymous()
    }
}

fn measure(what: &str, snapshot: &Snapshot, server: &str, tool: &str, arguments: Option<&Value>) {
    let rules = &snapshot.group("acme").unwrap().rules;
    let (principal, server) = (principal(&["a", "m7", "z"]), server.parse().unwrap());
    let question = Question {
        principal: &principal,
        action: Action::CallTool,
        server: &server,
        target: tool,
        hints: Hints::default(),
        arguments,
        context: &Context::default(),
    };
    let per_round = |round: &dyn Fn()| {
        (0..1_000).for_each(|_| round());
        let start = Instant::now();
        (0..ROUNDS).for_each(|_| round());
        start.elapsed() / ROUNDS
    };
    let whole = per_round(&|| drop(black_box(rules.decide(&question))));
    let by_cedar = per_round(&|| drop(black_box(rules.decide_by_cedar(&question))));
    let finished = rules
        .residual(&question)
        .map(|residual| per_round(&|| drop(black_box(rules.finish(&residual, &question)))));
    println!("{what}: {whole:?}; finishing a residual {finished:?}; by Cedar {by_cedar:?}");
}

fn main() {
    let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let mut world = World::new().group("acme");
    for at in 0..50 {
        let servers = vec![format!("s{at}-*"), "crm".to_owned()];
        let rule = Rule { servers, tools: words(&["get_*", "list_*", "x"]), ..Rule::default() };
        let subject = Subject::Membership(format!("m{at}"));
        world = world.grant("acme", vec![rule], vec![subject]);
    }
    let roles = world.snapshot();
    measure("50 roles, one of three memberships grants", &roles, "s7-a", "get_x", None);
    measure("50 roles, nothing grants", &roles, "s7-a", "set", None);
    for at in 0..200 {
        let cedar = format!(
            r#"forbid(principal, action == Action::"CallTool", resource in Server::"s{at}-x")
               unless {{ context.arguments.number.hasTag("n")
                         && context.arguments.number.getTag("n") < 9 }};"#
        );
        world = world.policy("acme", &format!("p{at}"), &cedar);
    }
    let both = world.snapshot();
    let arguments = json!({"n": 3});
    measure("200 policies, none concerns the server", &both, "s7-a", "get_x", Some(&arguments));
    measure("200 policies, one reads an argument", &both, "s7-x", "get_x", Some(&arguments));
    measure("200 policies, one, arguments open", &both, "s7-x", "get_x", None);
    for at in 0..20 {
        let cedar = format!(
            r#"forbid(principal, action == Action::"CallTool", resource)
               when {{ principal.memberships.contains("team-{at}")
                       && resource.server like "red-*" && context.hour > 18 }};"#
        );
        world = world.policy("acme", &format!("w{at}"), &cedar);
    }
    let wide = world.snapshot();
    measure(
        "20 of the whole group, one reads an argument",
        &wide,
        "s7-x",
        "get_x",
        Some(&arguments),
    );
}
