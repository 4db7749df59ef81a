//! The API's description against the code: its routes, its examples, and real answers.

use std::collections::BTreeSet;

use control_plane::api::openapi::DOCUMENT;
use control_plane::api::problem::Kind;
use control_plane::api::route::{Access, ROUTES};
use serde_json::{Value, json};

use crate::plane::{Answer, Plane};
use crate::rest::ACME;

fn document() -> Value {
    serde_json::from_str(DOCUMENT).unwrap()
}

/// A validator of a schema that may refer to the components.
fn validator(schema: &Value) -> jsonschema::Validator {
    let mut whole = schema.clone();
    whole["components"] = document()["components"].clone();
    jsonschema::draft202012::new(&whole).unwrap()
}

#[track_caller]
fn validate(schema: &Value, value: &Value, what: &str) {
    let errors: Vec<_> = validator(schema)
        .iter_errors(value)
        .map(|e| format!("{}: {e}", e.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{what}: {errors:#?}\n{value:#}");
}

#[test]
fn every_route_is_described_and_nothing_else() {
    let document = document();
    let mut described = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            described.insert(format!("{} {path}", method.to_uppercase()));
            let open = operation["security"].as_array().is_some_and(Vec::is_empty);
            let route =
                ROUTES.iter().find(|r| r.path == path && r.method.eq_ignore_ascii_case(method));
            let route = route.unwrap_or_else(|| panic!("no route {method} {path}"));
            assert_eq!(open, route.access == Access::Open, "{method} {path}");
            let named: BTreeSet<&str> = operation["parameters"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|p| p["in"] == "path")
                .map(|p| p["name"].as_str().unwrap())
                .collect();
            let in_path: BTreeSet<&str> = path.split(['{', '}']).skip(1).step_by(2).collect();
            assert_eq!(named, in_path, "{method} {path}");
        }
    }
    let served: BTreeSet<_> = ROUTES.iter().map(|r| format!("{} {}", r.method, r.path)).collect();
    assert_eq!(served, described);
}

#[test]
fn examples_fit_their_schemas() {
    let document = document();
    let mut count = 0;
    for methods in document["paths"].as_object().unwrap().values() {
        for operation in methods.as_object().unwrap().values() {
            let content = operation["requestBody"]["content"].as_object();
            for (kind, content) in content.into_iter().flatten() {
                let Some(example) = content.get("example") else { continue };
                validate(
                    &content["schema"],
                    example,
                    &format!("{} {kind}", operation["operationId"]),
                );
                count += 1;
            }
        }
    }
    assert!(count >= 4);
}

/// Checks an answer against what the description says of its route and status.
#[track_caller]
fn fits(method: &str, path: &str, answer: &Answer) {
    let operation = &document()["paths"][path][method];
    let status = answer.status.as_u16().to_string();
    let described = &operation["responses"][&status];
    assert!(described.is_object(), "{method} {path} does not tell of {status}: {}", answer.text);
    let Some(content) = described["content"].as_object() else {
        assert!(answer.text.is_empty());
        return;
    };
    let kind = answer.headers["content-type"].to_str().unwrap();
    let kind = kind.split(';').next().unwrap();
    let schema = &content.get(kind).unwrap_or_else(|| panic!("{method} {path}: {kind}"))["schema"];
    if kind != "text/plain" {
        validate(schema, &answer.json(), &format!("{method} {path} {status}"));
    }
}

#[tokio::test]
async fn real_answers_fit_their_schemas() {
    let plane = Plane::alone().await;
    let post = "post";
    for path in ["/livez", "/readyz", "/v1/openapi.json"] {
        fits("get", path, &plane.get(path).await);
    }
    fits(post, "/v1/apply", &plane.apply(ACME).await);
    fits(post, "/v1/apply", &plane.apply("kind: [").await);
    let moved = plane.ask("POST", "/v1/apply?expectedRevision=1").yaml(ACME).send().await;
    fits(post, "/v1/apply", &moved);
    let changed = ACME.replace("get_*", "list_*");
    fits(post, "/v1/diff", &plane.ask("POST", "/v1/diff").yaml(&changed).send().await);
    fits("get", "/v1/resources", &plane.get("/v1/resources?limit=2").await);
    fits("get", "/v1/resources", &plane.get("/v1/resources?limit=x").await);
    fits("get", "/v1/resources/{kind}", &plane.get("/v1/resources/Role").await);
    let (global, grouped) = ("/v1/resources/{kind}/{name}", "/v1/resources/{kind}/{group}/{name}");
    fits("get", global, &plane.get("/v1/resources/Group/acme").await);
    fits("get", global, &plane.get("/v1/resources/Group/nobody").await);
    fits("get", grouped, &plane.get("/v1/resources/Server/acme/billing").await);
    let revision = plane.get("/v1/resources").await.ok()["revision"].as_u64().unwrap();
    for (what, body) in crate::policy::bodies(revision) {
        let path = format!("/v1/groups/acme/policy/{what}");
        let answer = plane.ask("POST", &path).json(&body).send().await;
        assert_eq!(answer.status, 200, "{what}: {}", answer.text);
        fits(post, &format!("/v1/groups/{{group}}/policy/{what}"), &answer);
    }
    let delete = |path: &str| plane.ask("DELETE", path).send();
    fits("delete", grouped, &delete("/v1/resources/Server/acme/billing").await);
    fits("delete", grouped, &delete("/v1/resources/Role/acme/reader").await);
    fits("delete", global, &delete("/v1/resources/Group/acme?dryRun=true&cascade=true").await);

    let tokens = "/v1/groups/{group}/service-accounts/{account}/tokens";
    let real = "/v1/groups/acme/service-accounts/ci/tokens";
    let minted = plane.ask("POST", real).json(&json!({"days": 1})).send().await;
    fits(post, tokens, &minted);
    let id = minted.json()["id"].as_str().unwrap().to_owned();
    fits("delete", &format!("{tokens}/{{id}}"), &delete(&format!("{real}/{id}")).await);
    fits("delete", &format!("{tokens}/{{id}}"), &delete(&format!("{real}/{id}")).await);

    fits("get", "/v1/keyring", &plane.get("/v1/keyring").await);
    let rotation = "/v1/keyring/rotation";
    for (body, status) in [
        (json!({}), 200),
        (json!({}), 409),
        (json!({"atOnce": true}), 200),
        (json!({"now": true}), 400),
    ] {
        let answer = plane.ask("POST", rotation).json(&body).send().await;
        assert_eq!(answer.status, status, "{}", answer.text);
        fits(post, rotation, &answer);
    }

    let enrolments = "/v1/enrolment-tokens";
    let wanted = json!({"region": "eu", "node": "n1", "minutes": 5});
    let minted = plane.ask("POST", enrolments).json(&wanted).send().await;
    fits(post, enrolments, &minted);
    let plain = json!({"region": "eu"});
    fits(post, enrolments, &plane.ask("POST", enrolments).json(&plain).send().await);
    let too_long = json!({"region": "eu", "minutes": 100_000_000});
    fits(post, enrolments, &plane.ask("POST", enrolments).json(&too_long).send().await);
    fits("get", enrolments, &plane.get(enrolments).await);
    assert!(!plane.get(enrolments).await.text.contains(minted.json()["token"].as_str().unwrap()));
    let id = minted.json()["id"].as_str().unwrap().to_owned();
    let one = "/v1/enrolment-tokens/{id}";
    fits("delete", one, &delete(&format!("{enrolments}/{id}")).await);
    fits("delete", one, &delete(&format!("{enrolments}/{id}")).await);
    fits("get", "/v1/nodes", &plane.get("/v1/nodes").await);
    fits("get", "/v1/audit/witness", &plane.get("/v1/audit/witness").await);
    let pin = "/v1/groups/{group}/servers/{server}/versions/{version}/pin";
    let real = "/v1/groups/acme/servers/billing/versions/v1/pin";
    fits(post, pin, &plane.ask("POST", real).send().await);

    let wanted = json!({"name": "ci", "role": "editor", "groups": ["acme"], "days": 1});
    let made = plane.ask("POST", "/v1/operators").json(&wanted).send().await;
    fits(post, "/v1/operators", &made);
    fits("get", "/v1/operators", &plane.get("/v1/operators").await);
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let one = "/v1/operators/{id}";
    fits("delete", one, &delete(&format!("/v1/operators/{id}")).await);
    fits("delete", one, &delete(&format!("/v1/operators/{id}")).await);
    let nobody = plane.ask("GET", "/v1/operators").nobody().send().await;
    fits("get", "/v1/operators", &nobody);
}

/// `docs/reference/problems.md` is made from the code; `WEIR_BLESS=1` writes it anew.
#[test]
fn the_page_of_problems_is_the_table_of_problems() {
    let mut page = String::from(
        "# Problems\n\nWhy the control plane's API refused a request: problem documents (RFC 9457), made from\n\
         `control-plane/src/api/problem.rs`. `type` is `urn:weir:problem:` and the label. `errors` names documents,\n\
         paths and what to mend, all at once.\n\n| label | status | title | what to do |\n|---|---|---|---|\n",
    );
    for kind in Kind::ALL {
        let status = kind.status().as_u16();
        page +=
            &format!("| `{}` | {status} | {} | {} |\n", kind.label(), kind.title(), kind.remedy());
    }
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/problems.md");
    if std::env::var_os("WEIR_BLESS").is_some() {
        std::fs::write(file, &page).unwrap();
    }
    let kept = std::fs::read_to_string(file).unwrap_or_default();
    assert!(kept == page, "run `WEIR_BLESS=1 cargo test -p control-plane` and commit the page");
}
