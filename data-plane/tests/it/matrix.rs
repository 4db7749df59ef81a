//! Who sees and calls what, through a whole proxy: callers by their groups, roles, policies about
//! arguments, over the joined endpoint and the servers' own. Lists and calls must agree.

use serde_json::{Value, json};
use weir_model::id::Digest;
use weir_model::policy::review::{self, Recorded};
use weir_model::resource::{ApiTokenEntry, Kind, ResourceKey, Rule, ServiceAccount, Spec, Subject};
use weir_model::testing::World;

use crate::peer::Peer;
use crate::proxy::{Ask, Proxy};

const CAP: &str = "@id(\"cap\") forbid (principal, action == Action::\"CallTool\", resource == Tool::\"pay/echo\")
    unless { principal.memberships.contains(\"leads\") ||
      (context.arguments.number.hasTag(\"n\") && context.arguments.number.getTag(\"n\") <= 10) };";
const KEPT: &str = "@id(\"kept\") @audit(\"full\") @redact(\"$.card.number\")
    permit (principal, action == Action::\"CallTool\", resource == Tool::\"files/echo\")
    when { principal.memberships.contains(\"finance\") };";
const APPROVED: &str = "@id(\"approved\") @approval(\"boss\")
    permit (principal, action == Action::\"CallTool\", resource == Tool::\"files/fail\")
    when { principal.memberships.contains(\"finance\") };";
const STEP_UP: &str = "@id(\"step-up\") @scope(\"pay.write\")
    forbid (principal, action == Action::\"CallTool\", resource == Tool::\"pay/fail\")
    unless { principal.scopes.contains(\"pay.write\") };";

fn account(world: World, name: &str, memberships: &[&str], scopes: &[&str]) -> World {
    let token = World::token("acme", name);
    let id = token.strip_prefix("weir_at_").unwrap().rsplit_once('_').unwrap().0.to_owned();
    let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect();
    let spec = ServiceAccount {
        memberships: words(memberships),
        scopes: words(scopes),
        tokens: vec![ApiTokenEntry { id, sha256: Digest::of(token.as_bytes()), expires: None }],
        ..ServiceAccount::default()
    };
    let group = "acme".parse().unwrap();
    world.put(ResourceKey::grouped(Kind::ServiceAccount, &group, name), Spec::ServiceAccount(spec))
}

fn company(url: &str) -> World {
    let rule = |server: &str, tool: &str| Rule {
        servers: vec![server.to_owned()],
        tools: vec![tool.to_owned()],
        ..Rule::default()
    };
    let member = |name: &str| vec![Subject::Membership(name.to_owned())];
    let mut world = World::new().group("acme");
    for server in ["files", "pay"] {
        world = world
            .server("acme", server, url)
            .tool("acme", server, "echo")
            .tool("acme", server, "fail");
    }
    world = account(world, "support", &["support"], &[]);
    world = account(world, "finance", &["finance"], &["pay.write"]);
    world = account(world, "lead", &["finance", "leads"], &[]);
    world = account(world, "guest", &[], &[]);
    world
        .grant("acme", vec![rule("files", "*")], member("support"))
        .grant("acme", vec![rule("pay", "*")], member("finance"))
        .policy("acme", "cap", CAP)
        .policy("acme", "kept", KEPT)
        .policy("acme", "approved", APPROVED)
        .policy("acme", "step-up", STEP_UP)
}

fn ask(who: &str, path: &str, method: &str, params: Value) -> Ask {
    Ask::modern(path, method, params).token(&World::token("acme", who))
}

/// Names that a list shows; none when the endpoint is not there for the caller.
async fn listed(proxy: &Proxy, who: &str, path: &str) -> Option<Vec<String>> {
    let answer = proxy.send(ask(who, path, "tools/list", json!({}))).await.json();
    let tools = answer["result"]["tools"].as_array()?;
    Some(tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect())
}

/// 0 for a result, else the code of the error.
async fn called(proxy: &Proxy, who: &str, path: &str, (tool, arguments): (&str, &Value)) -> i64 {
    let params = json!({"name": tool, "arguments": arguments});
    let answer = proxy.send(ask(who, path, "tools/call", params)).await.json();
    answer["error"]["code"].as_i64().unwrap_or(0)
}

const UNKNOWN: i64 = -32602;
const DENIED: i64 = 40300;
const SCOPE: i64 = 40301;
const APPROVAL: i64 = 40302;
const NO_SERVER: i64 = 40400;

#[tokio::test]
async fn callers_see_and_call_what_roles_and_policies_say() {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&company(&peer.url)).await;
    let (none, small, large) = (json!({}), json!({"n": 7}), json!({"n": 70}));
    // caller, server, tool, arguments, listed, answer of the call; whether the server is there
    let table = [
        ("support", "files", "echo", &none, true, 0, true),
        ("support", "files", "fail", &none, true, 0, true),
        ("support", "pay", "echo", &small, false, UNKNOWN, false),
        ("finance", "files", "echo", &small, true, 0, true),
        ("finance", "files", "fail", &none, true, APPROVAL, true),
        ("finance", "pay", "echo", &small, true, 0, true),
        ("finance", "pay", "echo", &large, true, DENIED, true),
        ("finance", "pay", "echo", &none, true, DENIED, true),
        ("finance", "pay", "fail", &none, true, 0, true),
        ("lead", "pay", "echo", &large, true, 0, true),
        ("lead", "pay", "fail", &none, false, SCOPE, true),
        ("guest", "files", "echo", &none, false, UNKNOWN, false),
        ("guest", "pay", "echo", &small, false, UNKNOWN, false),
    ];
    // Twice: decided, and remembered.
    for _ in 0..2 {
        for (who, server, tool, arguments, shown, answer, there) in table {
            let what = format!("{who} {server}/{tool} {arguments}");
            let joined = listed(&proxy, who, "/acme/mcp").await.unwrap();
            let exposed = format!("{server}__{tool}");
            assert_eq!(joined.contains(&exposed), shown, "{what}: {joined:?}");
            let got = called(&proxy, who, "/acme/mcp", (&exposed, arguments)).await;
            assert_eq!(got, answer, "{what}, joined");
            let path = format!("/acme/{server}/mcp");
            let own = listed(&proxy, who, &path).await;
            assert_eq!(own.is_some(), there, "{what}: {own:?}");
            assert_eq!(own.is_some_and(|own| own.contains(&tool.to_owned())), shown, "{what}");
            let got = called(&proxy, who, &path, (tool, arguments)).await;
            assert_eq!(got, if there { answer } else { NO_SERVER }, "{what}, its own endpoint");
        }
    }
    let counts = proxy.gateway.decisions.counts();
    assert!(counts.finished > 0 && counts.hits > 0 && counts.per_call == 0, "{counts:?}");
    // What was refused never left.
    let calls = peer.seen("tools/call");
    assert!(
        calls.iter().all(|call| call.body["params"]["arguments"] != json!({"n": 70})
            || call.body["params"]["name"] == "echo"),
        "{calls:?}"
    );
}

#[tokio::test]
async fn records_keep_what_rules_demand_and_can_be_recomputed() {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&company(&peer.url)).await;
    let card = json!({"card": {"number": "4111111111111111", "name": "Ada"}, "n": 1});
    for (who, tool, arguments) in [
        ("finance", "files__echo", &card),
        ("support", "files__echo", &card),
        ("finance", "pay__echo", &json!({"n": 70})),
        ("finance", "files__fail", &json!({})),
        ("guest", "pay__echo", &json!({"n": 1})),
    ] {
        called(&proxy, who, "/acme/mcp", (tool, arguments)).await;
    }
    let records = proxy.records(5).await;
    let kept = &records[0]["unmapped"]["arguments"];
    assert_eq!(*kept, json!({"card": {"number": "[redacted]", "name": "Ada"}, "n": 1}));
    assert!(records[1]["unmapped"].get("arguments").is_none(), "{}", records[1]);
    assert!(!records.iter().any(|record| record.to_string().contains("4111111111111111")));
    assert_eq!(records[3]["status_code"], "approval_required", "{}", records[3]);

    let snapshot = proxy.config.current();
    let group = snapshot.group("acme").unwrap();
    // Which rules read arguments that the record holds only as a digest, and what they were.
    let known = [None, None, Some("{\"n\":70}"), None, None];
    for (record, arguments) in records.iter().zip(known) {
        let read = Recorded::read(record).unwrap_or_else(|| panic!("{record}"));
        assert!(read.faithful, "{record}");
        let made = review::recompute(group, &read, arguments);
        assert_eq!(made.same, Some(true), "{record}\n{made:?}");
    }
}
