//! Questions about rules over REST: why, what if, and was it so.

use control_plane::operator::Role;
use http::StatusCode;
use serde_json::{Value, json};
use weir_model::id::Digest;
use weir_model::principal::{Principal, Proof};

use crate::plane::Plane;
use crate::rest::ACME;

const CAP: &str = "
apiVersion: weir/v1
kind: Policy
metadata: {name: cap, group: acme}
spec:
  cedar: |
    @id(\"cap\") forbid (principal, action == Action::\"CallTool\", resource == Tool::\"billing/get_money\")
    unless { context.arguments.number.hasTag(\"n\") && context.arguments.number.getTag(\"n\") < 10 };
";

fn who() -> Value {
    json!({"user": "ann", "memberships": ["staff"]})
}

fn call(n: i64) -> Value {
    json!({"tool": "billing/get_money", "arguments": {"n": n}})
}

/// A record of `ann`'s call, as a proxy writes it.
fn record(revision: u64, rules: &str, (n, allowed, rule): (i64, bool, &str)) -> Value {
    let ann = Principal {
        proof: Proof::Jwt,
        subject: "ann".into(),
        memberships: ["staff".into()].into(),
        ..Principal::anonymous()
    };
    let decision = if allowed { "allowed" } else { "denied" };
    json!({
        "metadata": {"uid": "eu-1/1/1", "tenant_uid": "acme"}, "time": 1_795_426_200_123_u64,
        "action_id": if allowed { 1 } else { 2 },
        "authorizations": [{"decision": decision, "policy": {"uid": rule}}],
        "actor": {"user": {"uid": ann.id()}},
        "api": {"operation": "tools/call", "service": {"name": "billing"}},
        "resources": [{"name": "get_money"}], "src_endpoint": {"ip": "192.0.2.1"},
        "unmapped": {
            "region": "eu", "revision": revision, "front_revision": "2026-07-28",
            "arguments_sha256": Digest::of(format!("{{\"n\":{n}}}").as_bytes()),
            "judged": {"rules_sha256": rules, "principal_sha256": ann.digest(),
                "at": 1_795_426_200, "memberships": ["staff"]},
        },
    })
}

/// A request for each route that a plane with [`ACME`] can answer.
pub(crate) fn bodies(revision: u64) -> [(&'static str, Value); 4] {
    let none = Digest::of(b"none").to_string();
    [
        ("explain", json!({"caller": who(), "call": call(3)})),
        ("test", json!({"cases": [{"caller": who(), "call": call(3), "expect": "denied"}]})),
        ("replay", json!({"records": [{}], "documents": {"apply": CAP}})),
        (
            "recompute",
            json!({"record": record(revision, &none, (3, true, "role:reader/binding:readers"))}),
        ),
    ]
}

#[tokio::test]
async fn decisions_are_explained_tested_and_replayed() {
    let plane = Plane::alone().await;
    plane.apply(ACME).await.ok();
    let ask = async |what: &str, body: Value| {
        plane.ask("POST", &format!("/v1/groups/acme/policy/{what}")).json(&body).send().await
    };
    let before = ask("explain", json!({"caller": who(), "call": call(50)})).await.ok();
    assert_eq!(
        (&before["answer"], &before["listed"]),
        (&json!("allowed"), &json!(true)),
        "{before}"
    );

    // What a policy would do, before it is there.
    let cases = json!([
        {"name": "small", "caller": who(), "call": call(5), "expect": "allowed"},
        {"name": "large", "caller": who(), "call": call(50), "expect": "denied", "rules": ["policy:cap#cap"]},
    ]);
    let tried = ask("test", json!({"cases": cases, "documents": {"apply": CAP}})).await.ok();
    assert_eq!((&tried["passed"], &tried["failed"]), (&json!(2), &json!(0)), "{tried}");
    let today = ask("test", json!({"cases": cases})).await.ok();
    assert_eq!(today["failed"], 1, "{today}");
    assert_eq!(today["cases"][1]["message"], "expected denied, got allowed");
    let broken = CAP.replace("getTag", "getTga");
    let refused = ask("test", json!({"cases": cases, "documents": {"apply": broken}})).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", refused.text);

    let applied = plane.apply(CAP).await.ok();
    let after = ask("explain", json!({"caller": who(), "call": call(50)})).await.ok();
    assert_eq!(after["rules"], json!(["policy:cap#cap"]), "{after}");
    assert!(after["needed"][0].as_str().unwrap().contains("unless"), "{after}");
    // As it was at the revision before.
    let then = json!({"caller": who(), "call": call(50), "revision": before["revision"]});
    let then = ask("explain", then).await.ok();
    assert_eq!((&then["answer"], &then["revision"]), (&json!("allowed"), &before["revision"]));
    let never = json!({"caller": who(), "call": call(50), "revision": 1_000_000});
    assert_eq!(ask("explain", never).await.status, StatusCode::NOT_FOUND);
    assert!(applied["revision"].as_u64() > before["revision"].as_u64());

    // Records of calls: without the policy, who would gain what.
    let none = Digest::of(b"other").to_string();
    let mut kept = record(3, &none, (50, false, "policy:cap#cap"));
    kept["unmapped"]["arguments"] = json!({"n": 50});
    let open = record(3, &none, (50, false, "policy:cap#cap"));
    let body =
        json!({"records": [kept, kept, open, {}], "documents": {"delete": ["Policy/acme/cap"]}});
    let report = ask("replay", body).await.ok();
    assert_eq!(
        (&report["gained"][0]["count"], &report["gained"][0]["target"]),
        (&json!(2), &json!("billing/get_money")),
        "{report}"
    );
    assert_eq!((&report["undecided"], &report["skipped"]), (&json!(1), &json!(1)), "{report}");
    let gone = json!({"records": [], "documents": {"delete": ["Policy/acme/none"]}});
    assert_eq!(ask("replay", gone).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_recorded_decision_is_made_again_at_its_revision() {
    let plane = Plane::alone().await;
    let first = plane.apply(ACME).await.ok()["revision"].as_u64().unwrap();
    let second = plane.apply(CAP).await.ok()["revision"].as_u64().unwrap();
    plane.apply(&CAP.replace("< 10", "< 5")).await.ok();
    let ask = async |body: Value| {
        plane.ask("POST", "/v1/groups/acme/policy/recompute").json(&body).send().await
    };
    // The digest of the rules is what a proxy compiles from the same documents.
    let digest = |texts: &[&str]| {
        let mut ids = || "x".to_owned();
        let text = texts.join("\n---\n");
        let parsed = weir_model::resource::parse_documents(&text, &mut ids).unwrap();
        let mut set = weir_model::resource::ResourceSet::default();
        parsed.into_iter().for_each(|d| drop(set.insert(d.resource.into())));
        let snapshot = weir_model::snapshot::Snapshot::compile(
            weir_model::id::Revision(1),
            &set,
            Default::default(),
            None,
        );
        snapshot.group("acme").unwrap().rules.digest.to_string()
    };
    let (one, two) = (digest(&[ACME]), digest(&[ACME, CAP]));
    let by_role = (7, true, "role:reader/binding:readers");
    // revision, digest, record, arguments, the same again
    let table = [
        (first, &one, by_role, None, json!(true)),
        (second, &two, by_role, Some("{\"n\":7}"), json!(true)),
        (second, &two, by_role, None, json!(null)),
        (second, &two, by_role, Some("{\"n\":8}"), json!(null)),
        (second, &two, (7, false, "policy:cap#cap"), Some("{\"n\":7}"), json!(false)),
        (second, &one, by_role, Some("{\"n\":7}"), json!(null)),
    ];
    for (revision, rules, recorded, arguments, same) in table {
        let mut body = json!({"record": record(revision, rules, recorded)});
        if let Some(text) = arguments {
            body["arguments"] = text.into();
        }
        let made = ask(body).await.ok();
        assert_eq!(made["same"], same, "{revision} {recorded:?} {arguments:?}: {made:#}");
        assert_eq!(made["revision"], revision);
    }
    assert_eq!(ask(json!({"record": {}})).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn questions_that_make_no_sense_are_told_why() {
    let plane = Plane::alone().await;
    plane.apply(ACME).await.ok();
    let alice = json!({"user": "alice"});
    let explain = |caller: &Value, call: Value| json!({"caller": caller, "call": call});
    let many = vec![json!({"caller": alice, "call": call(1), "expect": "allowed"}); 2_001];
    let junk = json!([null, 7, "x", [], {}, {"action_id": 1}, {"metadata": {"uid": 3}}]);
    let foreign = json!({"record": {"metadata": {"uid": "n/1/1", "tenant_uid": "beta"}}});
    // what is asked, with what, the status, and a part of the answer
    let table = [
        ("explain", explain(&json!({}), call(1)), 400, "say one of user, serviceAccount"),
        (
            "explain",
            explain(&json!({"user": "a", "anonymous": true}), call(1)),
            400,
            "say one of user, serviceAccount",
        ),
        ("explain", explain(&alice, json!({})), 400, "say one of tool, resource"),
        ("explain", explain(&alice, json!({"tool": "money"})), 400, "write server/name"),
        ("explain", explain(&alice, json!({"tool": "Bad Server/x"})), 400, "call.tool: the server"),
        ("explain", explain(&alice, json!({"server": "a/b"})), 400, "more than the name"),
        ("explain", explain(&alice, json!({"tol": "a/b"})), 400, "tol"),
        (
            "explain",
            json!({"caller": alice, "call": call(1), "at": {"time": "yesterday"}}),
            400,
            "write 2026-11-23T09:30:00Z",
        ),
        ("explain", json!({"caller": alice, "call": call(1), "at": {"peer": "here"}}), 400, "peer"),
        // What is not there is explained all the same, and noted.
        (
            "explain",
            explain(&alice, json!({"tool": "nobody/x"})),
            200,
            "the group has no server nobody",
        ),
        ("explain", explain(&alice, call(1)), 200, "nothing is pinned of the server billing"),
        ("explain", explain(&alice, call(1)), 200, "the group has no such identity provider"),
        (
            "explain",
            explain(&json!({"serviceAccount": "nobody"}), call(1)),
            200,
            "no token of a service account nobody",
        ),
        (
            "explain",
            explain(&json!({"anonymous": true}), call(1)),
            200,
            "lets nobody in without a token",
        ),
        ("test", json!({"cases": many}), 413, "at most 2000"),
        ("test", json!({"cases": []}), 200, "\"passed\":0"),
        (
            "test",
            json!({"cases": [{"caller": alice, "call": {}, "expect": "denied"}]}),
            200,
            "say one of tool",
        ),
        ("replay", json!({"records": [], "documents": {}}), 200, "\"records\":0"),
        ("replay", json!({"records": junk, "documents": {"apply": CAP}}), 200, "\"skipped\":7"),
        (
            "replay",
            json!({"records": [], "documents": {"delete": ["nonsense"]}}),
            404,
            "there is no nonsense",
        ),
        ("recompute", foreign, 400, "tells of no decision"),
        ("recompute", json!({"record": null}), 400, "tells of no decision"),
    ];
    for (what, body, status, part) in table {
        let path = format!("/v1/groups/acme/policy/{what}");
        let answer = plane.ask("POST", &path).json(&body).send().await;
        assert_eq!(answer.status, status, "{what} {body}: {}", answer.text);
        assert!(answer.text.contains(part), "{what} {body}: {}", answer.text);
    }
    let body = json!({"caller": alice, "call": call(1)});
    let nowhere = plane.ask("POST", "/v1/groups/nobody/policy/explain").json(&body).send().await;
    assert_eq!(nowhere.status, 404, "{}", nowhere.text);
    assert!(nowhere.text.contains("Group/nobody"), "{}", nowhere.text);
}

#[tokio::test]
async fn an_account_is_asked_about_as_it_is_registered() {
    let plane = Plane::alone().await;
    let member = ACME.replace(
        "name: ci, group: acme}\nspec: {}",
        "name: ci, group: acme}\nspec: {memberships: [staff]}",
    );
    assert_ne!(member, ACME);
    plane.apply(&member).await.ok();
    let tokens = "/v1/groups/acme/service-accounts/ci/tokens";
    plane.ask("POST", tokens).json(&json!({"days": 1})).send().await.ok();
    let explain = async |caller: Value| {
        let body = json!({"caller": caller, "call": call(1)});
        plane.ask("POST", "/v1/groups/acme/policy/explain").json(&body).send().await.ok()
    };
    let known = explain(json!({"serviceAccount": "ci"})).await;
    assert_eq!(known["answer"], "allowed", "{known}");
    let other = explain(json!({"serviceAccount": "ci", "memberships": ["none"]})).await;
    assert_eq!(other["answer"], "denied", "{other}");
}

#[tokio::test]
async fn operators_of_a_group_try_out_its_own_documents_only() {
    let plane = Plane::alone().await;
    let beta = ACME.replace("acme", "beta");
    plane.apply(ACME).await.ok();
    plane.apply(&beta).await.ok();
    let token = plane.token(Role::Viewer, &["acme"]).await;
    let replay = async |delete: &str| {
        let body = json!({"records": [], "documents": {"delete": [delete]}});
        let ask = plane.ask("POST", "/v1/groups/acme/policy/replay").token(&token);
        ask.json(&body).send().await.status
    };
    assert_eq!(replay("RoleBinding/acme/readers").await, 200);
    // Whether it is there or not.
    assert_eq!(replay("RoleBinding/beta/readers").await, 403);
    assert_eq!(replay("RoleBinding/beta/nobody").await, 403);
}
