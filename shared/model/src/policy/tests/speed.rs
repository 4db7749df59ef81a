//! What decisions cost. Run by hand, optimised: `cargo test --release -p weir-model --lib speed -- --ignored --nocapture`.

use std::time::Instant;

use super::world::{Ask, Docs};
use crate::policy::Rules;
use crate::resource::Subject;

fn measure(what: &str, rules: &Rules, ask: &Ask) {
    let rounds = 20_000_u32;
    (0..1_000).for_each(|_| drop(std::hint::black_box(ask.of(rules))));
    let start = Instant::now();
    (0..rounds).for_each(|_| drop(std::hint::black_box(ask.of(rules))));
    println!("{what}: {:?}", start.elapsed() / rounds);
}

#[test]
#[ignore = "a measurement"]
fn decisions_per_kind() {
    let mut docs = Docs::default();
    for at in 0..50 {
        let role = format!("role-{at}");
        let rules = vec![Docs::rule(&format!("s{at}-*,crm"), "get_*,list_*,x", "", "")];
        docs =
            docs.role(&role, rules).bind(&role, &role, vec![Subject::Membership(format!("m{at}"))]);
    }
    let roles = docs.compile();
    let who =
        format!("user:a groups={}", (0..20).map(|i| format!("m{i}")).collect::<Vec<_>>().join(","));
    measure("roles, 20 memberships, all grant", &roles, &Ask::new(&who, "call crm/get_x", ""));
    measure(
        "roles, 3 memberships, one grants",
        &roles,
        &Ask::new("user:a groups=a,m7,z", "call s7-a/get_x", ""),
    );
    measure("roles, nothing grants", &roles, &Ask::new("user:a groups=m7", "call crm/set", ""));
    for at in 0..500 {
        docs = docs.policy(&format!("p{at}"), &format!("forbid(principal, action == Action::\"CallTool\", resource in Server::\"s{at}-x\") unless {{ context.arguments.number.hasTag(\"n\") && context.arguments.number.getTag(\"n\") < 9 }};"));
    }
    let both = docs.compile();
    let ask = |what: &str| Ask::new("user:a groups=a,m7,z", what, "");
    measure("500 policies, none concerns the server", &both, &ask("call s7-a/get_x"));
    measure("500 policies, one reads an argument", &both, &ask("call s7-x/get_x {\"n\": 3}"));
    measure("500 policies, one, arguments open", &both, &ask("call s7-x/get_x ?"));
}
