//! Records as published: golden files, the JSON Schema, and secrets that must not get in.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use weir_audit::memory::MemoryLog;
use weir_audit::{Builder, Origin};
use weir_model::audit::{Facts, Outcome};
use weir_model::bounds;
use weir_model::id::{Digest, Revision};
use weir_model::principal::Proof;
use weir_model::reason::Reason;
use weir_model::resource::AuditClass;
use weir_runtime::clock::ManualClock;
use weir_runtime::metrics::Metrics;

/// What the pipeline makes of these facts, in a run whose epoch is known.
async fn rendered(all: Vec<Facts>) -> Vec<Vec<u8>> {
    let log = MemoryLog::default();
    let origin = Origin { node: "eu-1".into(), region: "eu".into() };
    let pipeline = Builder::new(origin, Box::new(log.sink()), Metrics::new())
        .clock(Arc::new(ManualClock::at_ms(1_790_000_000_000)))
        .start();
    for facts in all {
        pipeline.reserve(AuditClass::Durable).unwrap().finish(facts).await.unwrap();
    }
    assert_eq!(pipeline.close(Duration::from_secs(10)).await, []);
    log.records().iter().map(|record| record.bytes().to_vec()).collect()
}

fn allowed() -> Facts {
    Facts {
        request_id: "4bf92f3577b34da6a3ce929d0e0e4736".into(),
        trace_id: Some("0af7651916cd43dd8448eb211c80319c".into()),
        time_ms: 1_790_000_123_456,
        duration_us: 12_345,
        upstream_us: 11_000,
        peer: Some("192.0.2.7".into()),
        group: Some("payments".parse().unwrap()),
        revision: Revision(42),
        principal: Some("jwt:okta:alice".into()),
        proof: Some(Proof::Jwt),
        credential: Some("claude-desktop".into()),
        client: Some("claude-code 2.1.0".into()),
        front_revision: Some("2026-07-28".into()),
        back_revision: Some("2025-11-25".into()),
        method: Some("tools/call".into()),
        server: Some("billing".parse().unwrap()),
        version: Some("v2".parse().unwrap()),
        target: Some("refund".into()),
        definition: Some(Digest::of(b"definition")),
        input_schema: Some(Digest::of(b"input schema")),
        output_schema: Some(Digest::of(b"output schema")),
        result: Some(Digest::of(b"result")),
        retries: 1,
        allowed: Some(true),
        presented: Some("billing-key".parse().unwrap()),
        rules: vec!["role/ops#0".into(), "policy/small-refunds#1".into()],
        arguments: Some(Digest::of(b"arguments")),
        request_bytes: 321,
        response_bytes: 654,
        outcome: Outcome::Success,
        ..Facts::default()
    }
}

fn denied() -> Facts {
    Facts {
        allowed: Some(false),
        rules: vec!["policy/refunds#0".into()],
        approvers: vec!["payments-approvers".into()],
        outcome: Outcome::Refused(Reason::ApprovalRequired),
        back_revision: None,
        result: None,
        retries: 0,
        upstream_us: 0,
        proof: Some(Proof::ApiToken),
        principal: Some("account:ci".into()),
        ..allowed()
    }
}

/// A request that did not even parse.
fn nothing_known() -> Facts {
    Facts {
        request_id: "r".into(),
        time_ms: 1_790_000_123_456,
        outcome: Outcome::Refused(Reason::MalformedJson),
        ..Facts::default()
    }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn schema() -> Value {
    let path = repository().join("docs/reference/audit-event.schema.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[tokio::test]
async fn records_look_as_published() {
    let records = rendered(vec![allowed(), denied(), nothing_known()]).await;
    for (name, record) in ["allowed", "denied", "unparsed"].iter().zip(&records) {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/it/golden/{name}.json"));
        let mut json: Value = serde_json::from_slice(record).unwrap();
        // A release changes nothing else.
        json["metadata"]["product"]["version"] = "RELEASE".into();
        let pretty = serde_json::to_string_pretty(&json).unwrap() + "\n";
        if std::env::var("WEIR_BLESS").is_ok() {
            std::fs::write(&path, &pretty).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(pretty, golden, "{name}: bless with WEIR_BLESS=1 after raising LOG_VERSION");
    }
}

#[tokio::test]
async fn every_record_fits_the_published_schema() {
    let schema = jsonschema::validator_for(&schema()).unwrap();
    let mut all = vec![allowed(), denied(), nothing_known(), Facts::default(), hostile()];
    all.extend(Reason::ALL.iter().map(|r| Facts { outcome: Outcome::Refused(*r), ..allowed() }));
    for outcome in
        [Outcome::ToolError, Outcome::ProtocolError(-32602), Outcome::Aborted, Outcome::Unknown]
    {
        all.push(Facts { outcome, ..allowed() });
    }
    for method in ["tools/list", "resources/read", "prompts/get", "initialize", "stream"] {
        all.push(Facts { method: Some(method.into()), ..allowed() });
    }
    for proof in [Proof::Anonymous, Proof::Certificate] {
        all.push(Facts { proof: Some(proof), peer: Some("[2001:db8::1]:443".into()), ..allowed() });
    }
    for record in rendered(all).await {
        let json: Value = serde_json::from_slice(&record).unwrap();
        let errors: Vec<String> = schema
            .iter_errors(&json)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{errors:#?} in {json:#}");
        assert!(!record.contains(&b'\n'));
    }
    // The schema must be able to say no.
    let mut unknown: Value = serde_json::from_slice(&rendered(vec![allowed()]).await[0]).unwrap();
    unknown["payload"] = "secret".into();
    assert!(!schema.is_valid(&unknown));
}

/// What OCSF 1.8.0 has in an API Activity with the profiles `security_control` and `trace`, as far
/// as records use it: per object the members that it knows, those that it demands marked by `!`,
/// and the closed lists of numbers.
const OCSF: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "metadata!",
            "unmapped",
            "time!",
            "category_uid!",
            "category_name",
            "class_uid!",
            "class_name",
            "activity_id!",
            "activity_name",
            "type_uid!",
            "severity_id!",
            "status_id",
            "status",
            "status_code",
            "status_detail",
            "action_id",
            "disposition_id",
            "authorizations",
            "actor!",
            "api!",
            "resources",
            "src_endpoint!",
            "trace",
        ],
    ),
    (
        "/metadata",
        &[
            "uid",
            "sequence",
            "version!",
            "product!",
            "log_name",
            "log_version",
            "profiles",
            "tenant_uid",
            "is_truncated",
        ],
    ),
    ("/metadata/product", &["name", "vendor_name", "version"]),
    // One of these at least, says OCSF; `app_name` is always there.
    ("/actor", &["user", "session", "app_name!"]),
    ("/actor/user", &["uid!", "type_id", "credential_uid"]),
    ("/actor/session", &["uid", "credential_uid"]),
    ("/api", &["operation!", "request", "service", "version"]),
    ("/api/request", &["uid!"]),
    ("/api/service", &["name", "version"]),
    ("/authorizations/0", &["decision", "policy"]),
    ("/authorizations/0/policy", &["uid!"]),
    ("/resources/0", &["name", "type"]),
    // Of these too.
    ("/src_endpoint", &["ip", "port", "name"]),
    ("/trace", &["uid!"]),
];

#[tokio::test]
async fn records_are_api_activities_of_ocsf() {
    let all = vec![allowed(), denied(), nothing_known(), Facts::default(), hostile()];
    for record in rendered(all).await {
        let json: Value = serde_json::from_slice(&record).unwrap();
        for (at, members) in OCSF {
            let Some(object) = json.pointer(at).and_then(Value::as_object) else { continue };
            for name in object.keys() {
                let known = members.iter().any(|member| member.trim_end_matches('!') == name);
                assert!(known, "OCSF knows no {name} in {at:?}");
            }
            for member in members.iter().filter_map(|member| member.strip_suffix('!')) {
                assert!(object.contains_key(member), "OCSF demands {member} in {at:?}: {json:#}");
            }
        }
        let number = |name: &str| json[name].as_u64().unwrap();
        assert_eq!(number("class_uid"), number("category_uid") * 1_000 + 3);
        assert_eq!(number("type_uid"), number("class_uid") * 100 + number("activity_id"));
        // 99 is "other", whose name the text beside it gives.
        assert!(number("activity_id") < 5 || number("activity_id") == 99);
        assert!(number("status_id") <= 2 || number("status_id") == 99);
        assert!(number("severity_id") <= 6 && number("action_id") <= 2);
        let endpoint = json["src_endpoint"].as_object().unwrap();
        assert!(endpoint.contains_key("ip") || endpoint.contains_key("name"), "{json:#}");
    }
}

/// As long and as odd as a peer can make it.
fn hostile() -> Facts {
    let long = "\u{1}\"\\ä".repeat(2_000);
    Facts {
        request_id: long.clone(),
        trace_id: Some(long.clone()),
        peer: Some("not an address".into()),
        principal: Some(long.clone()),
        credential: Some(long.clone()),
        client: Some(long.clone()),
        front_revision: Some(long.clone()),
        back_revision: Some(long.clone()),
        method: Some(long.clone()),
        target: Some(long.clone()),
        approvers: vec![long.clone(); 300],
        rules: vec![long; 300],
        ..allowed()
    }
}

#[tokio::test]
async fn a_record_is_bounded_whatever_a_peer_sends() {
    let record = &rendered(vec![hostile()]).await[0];
    assert!(record.len() < bounds::AUDIT_RECORD_BYTES_MAX, "{} bytes", record.len());
    let json: Value = serde_json::from_slice(record).unwrap();
    assert_eq!(json["metadata"]["is_truncated"], true);
    assert_eq!(json["unmapped"]["rules_omitted"], 268);
}

/// Every text of the facts that somebody outside can choose, seeded with every sort of secret.
#[tokio::test]
async fn secrets_cannot_get_in() {
    let jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzZWNyZXQifQ.c2VjcmV0LXNpZ25hdHVyZQ";
    let arguments = br#"{"card":"4111-SECRET-ARGUMENT"}"#;
    let seeds = [
        jwt.to_owned(),
        format!("agent Bearer {jwt}"),
        "agent basic U0VDUkVUOlNFQ1JFVA==".to_owned(),
        "https://user:SECRET-PASSWORD@files.test/a?sig=SECRET-QUERY#SECRET-FRAG".to_owned(),
    ];
    let words = |seed: &str| -> Arc<[Arc<str>]> { Arc::from([Arc::from(seed)]) };
    let all = seeds.iter().map(|seed| {
        let text = || Some(seed.clone());
        Facts {
            trace_id: text(),
            principal: text(),
            credential: text(),
            session: text(),
            token: text(),
            client: text(),
            front_revision: text(),
            back_revision: text(),
            method: text(),
            target: text(),
            kept: Some(serde_json::json!({
                "a": seed, "deep": [{ "b": [seed] }], "token": { "c": seed },
            })),
            kept_result: Some(serde_json::json!({
                "structuredContent": { "a": seed, "password": { "c": seed } },
                "content": [{ "text": serde_json::json!({ "secret": seed, "b": seed }).to_string() }],
            })),
            judged: Some(weir_model::audit::Judged {
                memberships: words(seed),
                scopes: words(seed),
                client: text(),
                ..Default::default()
            }),
            arguments: Some(Digest::of(arguments)),
            ..allowed()
        }
    });
    for (record, seed) in rendered(all.collect()).await.into_iter().zip(&seeds) {
        let record = String::from_utf8(record).unwrap();
        for secret in ["SECRET", "eyJ", "c2VjcmV0", "U0VDUkVU", "4111"] {
            assert!(!record.contains(secret), "{secret} of {seed} in {record}");
        }
        assert!(record.contains(&Digest::of(arguments).hex()), "the digest is there");
    }
}

/// A checkpoint as it stands between records.
#[tokio::test]
async fn checkpoints_fit_their_published_schema() {
    let path = repository().join("docs/reference/audit-checkpoint.schema.json");
    let schema: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let pipeline = crate::disk::start(crate::disk::settings(dir.path())).await;
    crate::disk::finish_many(&pipeline, 3).await;
    pipeline.spool().unwrap().certify("a\n\nb\n");
    crate::disk::close(&pipeline).await;
    let mut seen = 0;
    for path in crate::disk::segments(dir.path()) {
        for line in std::fs::read_to_string(path).unwrap().lines() {
            let json: Value = serde_json::from_str(line).unwrap();
            if json["class_uid"] == 0 {
                seen += 1;
                let errors: Vec<String> =
                    schema.iter_errors(&json).map(|error| error.to_string()).collect();
                assert!(errors.is_empty(), "{errors:#?} in {json:#}");
            } else {
                assert!(!schema.is_valid(&json));
            }
        }
    }
    assert!(seen > 0);
}
