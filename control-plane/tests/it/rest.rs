//! REST end to end: what operators do, and what they do wrong.

use control_plane::operator::Role;
use http::StatusCode;
use serde_json::{Value, json};
use weir_audit::memory::Faults;
use weir_model::bounds;

use crate::plane::{Answer, BOUND, Plane};

pub(crate) const ACME: &str = "
apiVersion: weir/v1
kind: Group
metadata: {name: acme}
spec: {}
---
apiVersion: weir/v1
kind: Role
metadata: {name: reader, group: acme}
spec: {rules: [{servers: ['*'], tools: ['get_*']}]}
---
apiVersion: weir/v1
kind: RoleBinding
metadata: {name: readers, group: acme}
spec: {role: reader, subjects: [{membership: staff}]}
---
apiVersion: weir/v1
kind: Server
metadata: {name: billing, group: acme}
spec: {versions: [{name: v1, upstream: {http: {url: 'https://billing.example/mcp'}}}]}
---
apiVersion: weir/v1
kind: ServiceAccount
metadata: {name: ci, group: acme}
spec: {}
";

const CREDENTIAL: &str = "
apiVersion: weir/v1
kind: Credential
metadata: {name: key, group: acme}
spec: {header: {name: X-Api-Key, value: hunter2-hunter2}}
";

fn revision(answer: &serde_json::Value) -> u64 {
    answer["revision"].as_u64().unwrap()
}

fn actions(answer: &serde_json::Value) -> Vec<String> {
    let changes = answer["changes"].as_array().unwrap();
    let word = |c: &serde_json::Value| {
        format!("{} {}", c["action"].as_str().unwrap(), c["key"].as_str().unwrap())
    };
    changes.iter().map(word).collect()
}

#[tokio::test]
async fn documents_are_applied_read_compared_and_deleted() {
    let plane = Plane::alone().await;
    let tried = plane.ask("POST", "/v1/apply?dryRun=true").yaml(ACME).send().await.ok();
    let before = plane.get("/v1/resources").await.ok();
    assert_eq!(tried["dryRun"].as_bool(), Some(true));
    assert_eq!(revision(&tried), revision(&before), "a dry run moves nothing");
    assert!(before["items"].as_array().unwrap().is_empty());

    let answer = plane.apply(ACME).await;
    let etag = answer.headers["etag"].to_str().unwrap().to_owned();
    let applied = answer.ok();
    assert_eq!(etag, format!("\"{}\"", revision(&applied)));
    assert_eq!(actions(&applied).len(), 5);
    assert!(actions(&applied).contains(&"create Group/acme".to_owned()));
    let again = plane.apply(ACME).await.ok();
    assert_eq!(revision(&again), revision(&applied), "the same is no change");
    assert!(actions(&again).iter().all(|a| a.starts_with("unchanged ")));

    let changed = ACME.replace("get_*", "list_*");
    let diff = plane.ask("POST", "/v1/diff").yaml(&changed).send().await.ok();
    let role = &diff["changes"].as_array().unwrap()[1];
    assert_eq!(role["action"], "update");
    assert_eq!(role["before"]["spec"]["rules"][0]["tools"][0], "get_*");
    assert_eq!(
        role["fields"],
        json!([{"path": "spec.rules[0].tools[0]", "before": "get_*", "after": "list_*"}])
    );
    let stored = plane.get("/v1/resources/Role/acme/reader").await;
    assert_eq!(stored.headers["etag"], etag.as_str());
    assert_eq!(stored.ok()["spec"]["rules"][0]["tools"][0], "get_*", "a diff changes nothing");
    assert_eq!(plane.get("/v1/resources/Group/acme").await.ok()["metadata"]["name"], "acme");

    let gone = plane.ask("DELETE", "/v1/resources/Server/acme/billing").send().await.ok();
    assert_eq!(actions(&gone), ["delete Server/acme/billing"]);
    assert_eq!(plane.get("/v1/resources/Server/acme/billing").await.problem(), "not_found");
    let kept = plane.ask("DELETE", "/v1/resources/Group/acme").send().await;
    assert_eq!(kept.problem(), "invalid_documents");
    let path = "/v1/resources/Group/acme?cascade=true";
    assert_eq!(actions(&plane.ask("DELETE", path).send().await.ok()).len(), 4);
    assert!(plane.get("/v1/resources").await.ok()["items"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn listings_come_in_pages() {
    let plane = Plane::alone().await;
    plane.apply(ACME).await.ok();
    let regions: String = (0..25)
        .map(|n| {
            format!(
                "---\napiVersion: weir/v1\nkind: Region\nmetadata: {{name: r{n:02}}}\nspec: {{}}\n"
            )
        })
        .collect();
    plane.apply(&regions).await.ok();
    let mut names = Vec::new();
    let mut path = "/v1/resources/Region?limit=10".to_owned();
    let mut pages = 0;
    loop {
        let page = plane.get(&path).await.ok();
        pages += 1;
        let items = page["items"].as_array().unwrap();
        names.extend(items.iter().map(|i| i["metadata"]["name"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/v1/resources/Region?limit=10&cursor={next}");
    }
    assert_eq!((pages, names.len()), (3, 25));
    assert!(names.is_sorted());
    let count = async |path: &str| plane.get(path).await.ok()["items"].as_array().unwrap().len();
    assert_eq!(count("/v1/resources").await, 30);
    assert_eq!(count("/v1/resources?group=acme").await, 4);
    assert_eq!(count("/v1/resources?kind=Role&group=acme").await, 1);
    assert_eq!(count("/v1/resources/Role?group=other").await, 0);
}

#[tokio::test]
async fn revisions_that_were_expected_must_hold() {
    let plane = Plane::alone().await;
    let first = revision(&plane.apply(ACME).await.ok());
    let changed = ACME.replace("get_*", "list_*");
    let second = revision(&plane.apply(&changed).await.ok());
    let path = format!("/v1/apply?expectedRevision={first}");
    let refused = plane.ask("POST", &path).yaml(ACME).send().await;
    assert_eq!((refused.status, refused.problem().as_str()), (StatusCode::CONFLICT, "conflict"));
    assert_eq!(refused.json()["revision"], second);
    let matched = |revision: u64| {
        let path = "/v1/resources/Server/acme/billing";
        plane.ask("DELETE", path).header("if-match", &format!("\"{revision}\"")).send()
    };
    let refused = matched(first).await;
    assert_eq!(refused.problem(), "precondition_failed");
    assert_eq!(refused.status, StatusCode::PRECONDITION_FAILED);
    matched(second).await.ok();
    let bad = plane.ask("POST", "/v1/apply").header("if-match", "abc").yaml(ACME).send().await;
    assert_eq!(bad.problem(), "invalid_request");
}

/// What a request gets: its label, and words of its text.
async fn check(answer: impl Future<Output = Answer>, label: &str, words: &[&str]) {
    let answer = answer.await;
    assert_eq!(answer.problem(), label, "{}", answer.text);
    for word in words {
        assert!(answer.text.contains(word), "{word:?} is not in {}", answer.text);
    }
    assert!(answer.json()["remedy"].as_str().unwrap().ends_with('.'));
}

#[tokio::test]
async fn bad_documents_are_refused_with_every_error_and_change_nothing() {
    let plane = Plane::alone().await;
    plane.apply(ACME).await.ok();
    let before = plane.get("/v1/resources").await.text;
    let head = "apiVersion: weir/v1\nkind: ";
    let doc = |rest: &str| format!("{head}{rest}");
    let policy = "Policy\nmetadata: {name: p, group: acme}\nspec: {cedar: 'CEDAR'}\n";
    let long = "x".repeat(41);
    let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    let invalid = "invalid_documents";
    let cases: Vec<(String, &str, Vec<&str>)> = vec![
        (doc("Pod\nmetadata: {name: a}\nspec: {}"), invalid, vec!["kind"]),
        (doc("Group\nmetadata: {name: a}\nspec: {colour: red}"), invalid, vec!["spec.colour"]),
        ("kind: [".to_owned(), invalid, vec!["document 1"]),
        (String::new(), invalid, vec!["no document"]),
        (doc(&format!("Group\nmetadata: {{name: {long}}}\nspec: {{}}")), invalid, vec!["40"]),
        (doc(&policy.replace("CEDAR", "permit(principal, action")), invalid, vec!["spec.cedar"]),
        (
            doc(&policy.replace("CEDAR", "permit(principal, action, resource) when {principal.x};")),
            invalid,
            vec!["spec.cedar"],
        ),
        (
            doc(&policy.replace("CEDAR", &format!("{}true", "(".repeat(60)))),
            invalid,
            vec!["spec.cedar"],
        ),
        (doc("Catalog\nmetadata: {name: a.b, group: acme}\nspec: {}"), invalid, vec!["alone"]),
        (ACME.replace("role: reader", "role: writer"), invalid, vec!["RoleBinding/acme/readers"]),
        (
            "{\"apiVersion\": \"weir/v1\", \"kind\": \"Group\", \"kind\": \"Role\"}".to_owned(),
            invalid,
            vec!["kind", "twice"],
        ),
        (format!("{head}Group\nmetadata: {{name: a}}\nspec: {deep}"), invalid, vec!["limit"]),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n".to_owned(), invalid, vec![]),
        (
            doc(
                "Role\nmetadata: {name: a, group: nobody}\nspec: {rules: [{servers: ['*'], tools: ['*']}]}",
            ),
            invalid,
            vec!["there is no Group nobody"],
        ),
    ];
    for (text, label, words) in &cases {
        check(plane.apply(text), label, words).await;
    }
    let two = format!("{}\n---\n{}", cases[0].0, cases[1].0);
    let both = plane.apply(&two).await;
    assert_eq!(both.json()["errors"].as_array().unwrap().len(), 2, "{}", both.text);
    assert_eq!(plane.get("/v1/resources").await.text, before);
}

#[tokio::test]
async fn bad_requests_are_refused_with_a_remedy() {
    let plane = Plane::alone().await;
    plane.apply(ACME).await.ok();
    let invalid = "invalid_request";
    for (path, label, words) in [
        ("/v1/resources/Pod", invalid, ["Pod", "Server"]),
        ("/v1/resources/Server/billing", invalid, ["belongs to a group", ""]),
        ("/v1/resources/Region/acme/eu", invalid, ["belongs to no group", ""]),
        ("/v1/resources?colour=red", invalid, ["colour", ""]),
        ("/v1/resources?limit=0", invalid, ["1 to 1000", ""]),
        ("/v1/resources?cursor=!", invalid, ["cursor", ""]),
        ("/v1/resources?group=Bad_Name", invalid, ["a-z", ""]),
        ("/v1/resources/Role/acme/nobody", "not_found", ["Role/acme/nobody", ""]),
        ("/v1/nowhere", "unknown_path", ["openapi", ""]),
        ("/v1/apply", "method_not_allowed", ["method", ""]),
    ] {
        check(plane.get(path), label, &words).await;
    }
    let apply = |kind: &'static str, body: Vec<u8>| {
        let plane = &plane;
        async move { plane.ask("POST", "/v1/apply").body(kind, &body).send().await }
    };
    let form = "application/x-www-form-urlencoded";
    check(apply(form, ACME.into()), "unsupported_media_type", &["application/yaml"]).await;
    check(apply("application/yaml", vec![0xff, 0xfe]), invalid, &["UTF-8"]).await;
    let large = vec![b'#'; bounds::APPLY_BODY_BYTES_MAX + 1];
    check(apply("application/yaml", large), "too_large", &["bytes"]).await;
    let tokens = "/v1/groups/acme/service-accounts/ci/tokens";
    for (body, words) in [
        (r#"{"days": 0}"#, ["days", ""]),
        (r#"{"day": 1}"#, ["day", "unknown"]),
        (r#"{"days": 1, "days": 2}"#, ["days", "duplicate"]),
        (r#"{"days": 1} x"#, ["body", ""]),
        (r#"[1]"#, ["body", ""]),
        (r#"{"overlapHours": 1}"#, ["overlapHours", "replaces"]),
        (r#"{"replaces": "x", "overlapHours": 2161}"#, ["overlapHours", "2160"]),
    ] {
        let ask = plane.ask("POST", tokens).body("application/json", body.as_bytes());
        check(ask.send(), invalid, &words).await;
    }
    let missing = plane.ask("POST", &tokens.replace("ci", "nobody")).json(&json!({}));
    check(missing.send(), "not_found", &["ServiceAccount/acme/nobody"]).await;
}

#[tokio::test]
async fn more_than_one_transaction_takes_is_refused_before_it_is_tried() {
    let plane = Plane::alone().await;
    let name = "x".repeat(100);
    let pattern = |n: usize| format!("'{n:06}{name}'");
    let tools: Vec<_> = (0..100).map(pattern).collect();
    let role = |n: usize| {
        let rules: Vec<_> =
            (0..5).map(|_| format!("{{servers: ['*'], tools: [{}]}}", tools.join(","))).collect();
        format!(
            "---\napiVersion: weir/v1\nkind: Role\nmetadata: {{name: r{n}, group: acme}}\nspec: {{rules: [{}]}}\n",
            rules.join(",")
        )
    };
    plane.apply(ACME).await.ok();
    let all: String = (0..30).map(role).collect();
    assert!(all.len() > bounds::COMMIT_BYTES_MAX && all.len() < bounds::APPLY_BODY_BYTES_MAX);
    check(plane.ask("POST", "/v1/apply?dryRun=true").yaml(&all).send(), "too_large", &["split"])
        .await;
    check(plane.apply(&all), "too_large", &["split"]).await;
}

#[tokio::test]
async fn operators_are_let_in_by_their_tokens_alone() {
    let plane = Plane::alone().await;
    let get = || plane.ask("GET", "/v1/resources");
    let refused = get().nobody().send().await;
    assert_eq!(refused.problem(), "unauthenticated");
    assert!(refused.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
    let foreign = "weir_at_abcdef012345_c2VjcmV0";
    let unknown = "weir_op_abcdef012345_c2VjcmV0";
    let mut changed = plane.admin.clone();
    changed.replace_range(changed.len() - 4.., "AAAA");
    for token in [foreign, unknown, &changed, "eyJhbGciOiJub25lIn0.e30."] {
        let refused = get().token(token).send().await;
        assert_eq!(refused.problem(), "token_unknown");
        assert!(!refused.text.contains(token));
    }
    let basic = get().nobody().header("authorization", "Basic d2VpcjpzM2NyM3Q=").send().await;
    assert_eq!(basic.problem(), "unauthenticated");
    let twice = get().header("authorization", "Bearer x").send().await;
    assert_eq!(twice.problem(), "invalid_request");
    for open in ["/livez", "/readyz", "/v1/openapi.json"] {
        plane.ask("GET", open).nobody().send().await.status.is_success().then_some(()).unwrap();
    }
}

#[tokio::test]
async fn roles_bound_what_and_groups_bound_where() {
    let plane = Plane::alone().await;
    plane.apply(ACME).await.ok();
    let other = ACME.replace("acme", "other");
    plane.apply(&other).await.ok();
    let viewer = plane.token(Role::Viewer, &[]).await;
    let editor = plane.token(Role::Editor, &[]).await;
    let acme = plane.token(Role::Admin, &["acme"]).await;

    let apply =
        |token: &str, text: &str| plane.ask("POST", "/v1/apply").token(token).yaml(text).send();
    assert_eq!(apply(&viewer, ACME).await.problem(), "denied");
    let dry = plane.ask("POST", "/v1/apply?dryRun=true").token(&viewer).yaml(ACME).send().await;
    dry.ok();
    plane.ask("POST", "/v1/diff").token(&viewer).yaml(ACME).send().await.ok();
    apply(&editor, ACME).await.ok();
    let role = |group: &str| {
        format!(
            "apiVersion: weir/v1\nkind: Role\nmetadata: {{name: r, group: {group}}}\nspec: {{rules: [{{servers: ['*'], tools: ['*']}}]}}\n"
        )
    };
    apply(&acme, &role("acme")).await.ok();
    for text in [role("other"), ACME.to_owned()] {
        assert_eq!(apply(&acme, &text).await.problem(), "denied", "{text}");
        let diff = plane.ask("POST", "/v1/diff").token(&acme).yaml(&text).send().await;
        assert_eq!(diff.problem(), "denied", "a diff would show what is there");
    }
    let seen = plane.ask("GET", "/v1/resources").token(&acme).send().await.ok();
    assert!(!seen.to_string().contains("other"), "{seen}");
    let hidden = plane.ask("GET", "/v1/resources/Role/other/reader").token(&acme).send().await;
    assert_eq!(hidden.problem(), "not_found");
    let listing = plane.ask("GET", "/v1/resources?group=other").token(&acme).send().await;
    assert_eq!(listing.problem(), "denied");

    let make = |token: &str, body: serde_json::Value| {
        plane.ask("POST", "/v1/operators").token(token).json(&body).send()
    };
    let everywhere = json!({"name": "x", "role": "viewer"});
    assert_eq!(make(&editor, everywhere.clone()).await.problem(), "denied");
    assert_eq!(make(&acme, everywhere).await.problem(), "denied");
    let inside = json!({"name": "x", "role": "editor", "groups": ["acme"], "days": 1});
    let made = make(&acme, inside).await.ok();
    let listed = plane.ask("GET", "/v1/operators").token(&acme).send().await.ok();
    assert_eq!(listed["operators"].as_array().unwrap().len(), 2);
    let all = plane.get("/v1/operators").await.ok();
    assert!(!all.to_string().contains(made["token"].as_str().unwrap()));
    let root = all["operators"].as_array().unwrap().iter().find(|o| o["groups"].is_null()).unwrap();
    let path = format!("/v1/operators/{}", root["id"].as_str().unwrap());
    let refused = plane.ask("DELETE", &path).token(&acme).send().await;
    assert_eq!(refused.problem(), "not_found");
    let path = format!("/v1/operators/{}", made["id"].as_str().unwrap());
    plane.ask("DELETE", &path).token(&acme).send().await.ok();
    let token = made["token"].as_str().unwrap();
    let out = plane.ask("GET", "/v1/resources").token(token).send().await;
    assert_eq!(out.problem(), "token_unknown");
}

#[tokio::test]
async fn the_last_admin_stays() {
    let plane = Plane::alone().await;
    let all = plane.get("/v1/operators").await.ok();
    let id = all["operators"][0]["id"].as_str().unwrap();
    let refused = plane.ask("DELETE", &format!("/v1/operators/{id}")).send().await;
    assert_eq!((refused.status, refused.problem().as_str()), (StatusCode::CONFLICT, "last_admin"));
}

#[tokio::test]
async fn tokens_of_accounts_are_rotated_with_an_overlap() {
    let plane = Plane::alone().await;
    plane.apply(ACME).await.ok();
    let path = "/v1/groups/acme/service-accounts/ci/tokens";
    let mint = async |body: Value| plane.ask("POST", path).json(&body).send().await;
    let expires = async || {
        let stored = plane.get("/v1/resources/ServiceAccount/acme/ci").await.ok();
        let tokens = stored["spec"]["tokens"].as_array().unwrap().clone();
        let one = |token: &Value| (token["id"].clone(), token["expires"].as_i64());
        tokens.iter().map(one).collect::<Vec<_>>()
    };
    let now = jiff::Timestamp::now().as_second();
    let old = mint(json!({})).await.ok()["id"].clone();
    assert_eq!(expires().await, [(old.clone(), None)]);
    let new = mint(json!({"days": 90, "replaces": old, "overlapHours": 2})).await.ok();
    let [(first, Some(ends)), (second, Some(_))] = &expires().await[..] else { panic!("two") };
    assert_eq!((first, second), (&old, &new["id"]));
    assert!((now + 7_200..now + 7_260).contains(ends), "{ends}");
    // No later than it would have ended anyway, and at once where that is wished for.
    mint(json!({"replaces": old, "overlapHours": 100})).await.ok();
    assert_eq!(expires().await[0], (old, Some(*ends)));
    mint(json!({"replaces": new["id"], "overlapHours": 0})).await.ok();
    let ends = expires().await[1].1.unwrap();
    assert!((now..now + 60).contains(&ends), "{ends}");
    let unknown = mint(json!({"replaces": "nobody"})).await;
    assert_eq!(unknown.problem(), "not_found");
    assert_eq!(expires().await.len(), 4, "nothing was made of it");
}

#[tokio::test]
async fn tokens_of_accounts_are_minted_kept_and_revoked() {
    let plane = Plane::alone().await;
    plane.apply(ACME).await.ok();
    let path = "/v1/groups/acme/service-accounts/ci/tokens";
    let minted = plane.ask("POST", path).json(&json!({"days": 1})).send().await;
    assert_eq!(minted.status, StatusCode::CREATED);
    let minted = minted.ok();
    let token = minted["token"].as_str().unwrap();
    assert!(token.starts_with("weir_at_"));
    let stored = plane.get("/v1/resources/ServiceAccount/acme/ci").await;
    assert!(!stored.text.contains(token));
    let stored = stored.ok();
    let digest = weir_model::id::Digest::of(token.as_bytes()).hex();
    assert_eq!(stored["spec"]["tokens"][0]["sha256"], digest.as_str());
    assert_eq!(stored["spec"]["tokens"][0]["id"], minted["id"]);
    // Neither the operator's own file nor what `get` shows takes the token away.
    assert_eq!(actions(&plane.apply(ACME).await.ok())[4], "unchanged ServiceAccount/acme/ci");
    plane.ask("POST", "/v1/apply").json(&stored).send().await.ok();
    let one = format!("{path}/{}", minted["id"].as_str().unwrap());
    plane.ask("DELETE", &one).send().await.ok();
    let stored = plane.get("/v1/resources/ServiceAccount/acme/ci").await.ok();
    assert!(stored["spec"]["tokens"].is_null());
    assert_eq!(plane.ask("DELETE", &one).send().await.problem(), "not_found");
}

#[tokio::test]
async fn concurrent_changes_all_arrive() {
    let plane = Plane::alone().await;
    plane.apply(ACME).await.ok();
    let role = |n: usize| {
        format!(
            "apiVersion: weir/v1\nkind: Role\nmetadata: {{name: r{n}, group: acme}}\nspec: {{rules: [{{servers: ['*'], tools: ['*']}}]}}\n"
        )
    };
    let changes = (0..12).map(|n| {
        let text = role(n);
        let plane = &plane;
        async move { plane.apply(&text).await.ok() }
    });
    let tokens = (0..4).map(|_| {
        let path = "/v1/groups/acme/service-accounts/ci/tokens";
        let ask = plane.ask("POST", path).json(&json!({}));
        async move { ask.send().await.ok() }
    });
    let (changes, tokens) = tokio::join!(
        futures_util::future::join_all(changes),
        futures_util::future::join_all(tokens)
    );
    let mut revisions: Vec<_> = changes.iter().chain(&tokens).map(revision).collect();
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), 16, "each change has a revision of its own");
    let listed = plane.get("/v1/resources/Role?group=acme").await.ok();
    assert_eq!(listed["items"].as_array().unwrap().len(), 13);
    let account = plane.get("/v1/resources/ServiceAccount/acme/ci").await.ok();
    assert_eq!(account["spec"]["tokens"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn secrets_are_never_shown() {
    let log = weir_runtime::testing::LogCapture::default();
    let settings = weir_runtime::telemetry::LogSettings {
        filter: "trace,hyper=info,h2=info".into(),
        ..Default::default()
    };
    let (subscriber, _) =
        weir_runtime::telemetry::subscriber(&settings, Vec::new(), log.clone()).unwrap();
    let _logs = tracing::subscriber::set_default(subscriber);
    let plane = Plane::alone().await;
    let secret = "hunter2-hunter2";
    plane.apply(ACME).await.ok();
    let mut shown = vec![plane.apply(CREDENTIAL).await.text];
    assert_eq!(actions(&plane.apply(CREDENTIAL).await.ok()), ["unchanged Credential/acme/key"]);
    shown.push(plane.get("/v1/resources/Credential/acme/key").await.text);
    shown.push(plane.get("/v1/resources").await.text);
    let changed = CREDENTIAL.replace(secret, "correct-horse");
    shown.push(plane.ask("POST", "/v1/diff").yaml(&changed).send().await.text);
    // Errors in a document with a secret.
    for broken in [
        CREDENTIAL.replace("name: X-Api-Key", "name: 'X Api Key'"),
        CREDENTIAL.replace("value: ", "value: [").replace("hunter2}}", "hunter2]}}"),
        CREDENTIAL.replace("header:", "headers:"),
        CREDENTIAL.replace("}}", "}"),
        CREDENTIAL.replace("hunter2}}", "hunter2\u{7}\"}}").replace("value: ", "value: \""),
    ] {
        let refused = plane.apply(&broken).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{broken}");
        shown.push(refused.text);
    }
    let stored = plane.store.list("").await.unwrap();
    shown.push(stored.entries.iter().map(|e| String::from_utf8_lossy(&e.value)).collect());
    shown.push(format!("{:?}", plane.records()));
    shown.push(log.text());
    assert!(log.text().contains("admin.apply"), "the log was captured");
    for text in shown {
        for word in [secret, "hunter2", "correct-horse", &plane.admin] {
            assert!(!text.contains(word), "{word} in {text}");
        }
    }
    let sealed = plane.store.list("secrets/").await.unwrap();
    assert_eq!(sealed.entries.len(), 2, "the credential's and the sessions' key");
}

#[tokio::test]
async fn what_operators_change_is_recorded_and_so_is_who_was_not_let_in() {
    let plane = Plane::alone().await;
    plane.apply(ACME).await.ok();
    plane.get("/v1/resources").await.ok();
    plane.apply("kind: [").await;
    plane.ask("GET", "/v1/resources").nobody().send().await;
    let records = plane.records();
    let texts: Vec<_> = records.iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), 3, "a read that was let in leaves none: {texts:#?}");
    assert!(texts[0].contains("admin.apply") && texts[0].contains("operator:"), "{}", texts[0]);
    assert!(texts[0].contains("RoleBinding/acme/readers"), "{}", texts[0]);
    assert!(texts[1].contains("invalid_arguments"), "{}", texts[1]);
    assert!(texts[2].contains("unauthenticated") && texts[2].contains("admin.list"));
}

/// Keys are rotated by admins of all groups, and it is recorded who did.
#[tokio::test]
async fn rotations_of_the_keyring_are_recorded() {
    let plane = Plane::alone().await;
    plane.apply(ACME).await.ok();
    let keys = async || plane.get("/v1/keyring").await.ok()["keys"].clone();
    let before = keys().await;
    assert_eq!((before.as_array().unwrap().len(), &before[0]["seals"]), (1, &true.into()));
    let rotate = |token: &str, body: &str| {
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        plane.ask("POST", "/v1/keyring/rotation").token(token).json(&body).send()
    };
    for (role, groups) in [(Role::Editor, &[][..]), (Role::Admin, &["acme"])] {
        let token = plane.token(role, groups).await;
        assert_eq!(rotate(&token, "{}").await.status, StatusCode::FORBIDDEN);
    }
    rotate(&plane.admin, "{}").await.ok();
    assert_eq!(rotate(&plane.admin, "{}").await.problem(), "conflict");
    let after = keys().await;
    assert_eq!((&after[0], after[1]["seals"] == false), (&before[0], true));
    assert!(after[1].get("sealedFrom").is_none());
    rotate(&plane.admin, r#"{"atOnce": true}"#).await.ok();
    let replaced = keys().await;
    assert!(replaced.as_array().unwrap().len() == 1 && replaced[0]["id"] != before[0]["id"]);
    let texts: Vec<_> = plane.records().iter().map(ToString::to_string).collect();
    let told = |what: &str| {
        texts.iter().filter(|t| t.contains("admin.keyring.rotate") && t.contains(what)).count()
    };
    assert_eq!((told("a key was added"), told("all keys were replaced")), (1, 1), "{texts:#?}");
    assert_eq!(told("operator:"), 5, "{texts:#?}");
}

#[tokio::test]
async fn where_a_token_begins_to_be_used_a_read_is_recorded_too() {
    let plane = Plane::alone().await;
    for _ in 0..3 {
        plane.get("/v1/resources").await.ok();
    }
    let [record] = &plane.records()[..] else { panic!("{:#?}", plane.records()) };
    assert_eq!(record["api"]["operation"], "admin.list");
    assert!(record["actor"]["user"]["credential_uid"].is_string(), "{record:#}");
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    plane.ask("POST", "/v1/apply").header("traceparent", parent).yaml(ACME).send().await.ok();
    let record = plane.records().pop().unwrap();
    assert_eq!(record["trace"]["uid"], "4bf92f3577b34da6a3ce929d0e0e4736", "{record:#}");
}

#[tokio::test]
async fn without_room_for_a_record_nothing_is_changed() {
    let plane = Plane::alone().await;
    plane.audit.set(Faults { write: true, ..Faults::default() });
    let mut refused = plane.apply(ACME).await;
    // The first write finds out; from then on nothing is begun.
    let full = weir_runtime::testing::eventually(BOUND, async || {
        refused = plane.apply(&ACME.replace("acme", "other")).await;
        refused.status == StatusCode::SERVICE_UNAVAILABLE
    });
    assert!(full.await);
    assert_eq!(refused.problem(), "audit_full");
    plane.get("/v1/resources").await.ok();
}

#[tokio::test]
async fn a_drain_ends_the_listener_and_readiness_says_so() {
    let plane = Plane::alone().await;
    assert_eq!(plane.get("/readyz").await.ok()["ready"], true);
    plane.drain.start();
    let address = plane.base.strip_prefix("http://").unwrap().to_owned();
    let closed = weir_runtime::testing::eventually(BOUND, async || {
        tokio::net::TcpStream::connect(&address).await.is_err()
    });
    assert!(closed.await);
}
