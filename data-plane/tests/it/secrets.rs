//! A secret in every place in which a peer can send one, through a whole proxy: none of them is
//! in a record, the log at its most talkative, a span, a metric, or a refusal.

use serde_json::{Value, json};
use tracing::subscriber::DefaultGuard;
use weir_model::resource::DefinitionKind;
use weir_runtime::telemetry::{self, Format, LogSettings};
use weir_runtime::testing::{self, LogCapture};

use crate::peer::{Peer, Speaks};
use crate::proxy::{Ask, Proxy};
use crate::{token, world};

const PATH: &str = "/acme/files/mcp";
/// In every secret, so that none is overlooked.
const SEED: &str = "hunter2";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Everything that this thread logs, at every level.
pub fn captured(format: Format) -> (LogCapture, DefaultGuard) {
    testing::listen_to_everything();
    let log = LogCapture::default();
    let settings = LogSettings { filter: "trace".into(), format };
    let (subscriber, _) = telemetry::subscriber(&settings, Vec::new(), log.clone()).unwrap();
    (log, tracing::subscriber::set_default(subscriber))
}

/// A token of the three parts that tokens of identity providers have.
fn jwt() -> String {
    format!("eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ{SEED}.c2lnbmF0dXJl{SEED}")
}

fn call(tool: &str, path: &str, arguments: &Value) -> Ask {
    let params = json!({
        "name": tool,
        "arguments": arguments,
        "_meta": {
            "com.example/secret": format!("{SEED}-meta"),
            "progressToken": format!("{SEED}-progress"),
            "tracestate": format!("a={SEED}"),
            "baggage": format!("b={SEED}"),
            "io.modelcontextprotocol/clientInfo": {
                "name": format!("agent Bearer {SEED}"), "version": jwt(),
            },
        },
    });
    // Two places need what is there by default: the method, and the client that it replaces.
    let mut ask = Ask::modern(path, "tools/call", params.clone());
    let mut body: Value = serde_json::from_slice(&ask.body).unwrap();
    let info = "io.modelcontextprotocol/clientInfo";
    body["params"]["_meta"][info] = params["_meta"][info].clone();
    ask.body = body.to_string().into();
    ask.header("cookie", format!("session={SEED}-cookie"))
        .header("x-api-key", format!("{SEED}-header"))
        .header("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01"))
        .header("tracestate", format!("vendor={SEED}"))
        .header("baggage", format!("user={SEED}"))
        .header("last-event-id", format!("{SEED}-event"))
        .header("mcp-param-region", format!("{SEED}-region"))
}

fn arguments() -> Value {
    json!({
        "password": format!("{SEED}-argument"),
        "deep": [{"client_secret": format!("{SEED}-deep"), "card": format!("{SEED}-card")}],
        "note": token(),
        "jwt": jwt(),
        "url": format!("https://user:{SEED}@files.test/a?sig={SEED}"),
    })
}

/// Requests with the token that is let in, and what comes of each.
fn let_in() -> Vec<(Ask, &'static str)> {
    let resource = |uri: &str| Ask::modern(PATH, "resources/read", json!({ "uri": uri }));
    let uri = format!("test://user:{SEED}@h/a?token={SEED}#{SEED}");
    vec![
        (call("echo", PATH, &arguments()), "success"),
        (call("mirror", PATH, &arguments()), "success"),
        (call("mirror-error", PATH, &arguments()), "-32000"),
        (call("strict", PATH, &arguments()), "invalid_arguments"),
        (call("hidden", PATH, &arguments()), "denied"),
        (call(&jwt(), PATH, &json!({})), "unknown_target"),
        (resource(&uri), "success"),
        (call("echo", &format!("{PATH}?access_token={SEED}"), &arguments()), "invalid_request"),
    ]
}

/// Requests that are not let in.
fn turned_away() -> Vec<Ask> {
    let broken = |body: String| Ask::post(PATH, body).token(&token());
    vec![
        call("echo", PATH, &arguments()).token(&jwt()),
        call("echo", PATH, &arguments()).token(&format!("weir_at_ab12_{SEED}{SEED}{SEED}")),
        call("echo", PATH, &arguments()).header("authorization", format!("Basic {SEED}")),
        call("echo", &format!("/nowhere/{SEED}"), &arguments()).token(&token()),
        broken(format!("{{\"jsonrpc\":\"2.0\",\"method\":\"{SEED}")),
        broken(format!("{{\"a\":\"{SEED}\",\"a\":\"{SEED}\"}}")),
        Ask::legacy(PATH, &format!("{SEED}-session"), "tools/list", &json!({})).token(&token()),
    ]
}

#[tokio::test]
async fn no_secret_gets_out_by_records_logs_spans_metrics_or_refusals() {
    let (log, _guard) = captured(Format::Json);
    let peer = Peer::only(Speaks::Both).await;
    let full = "@audit(\"full\") @redact(\"$..card\") @note(\"hunter2-annotation\") \
                permit (principal, action == Action::\"CallTool\", resource);";
    let template = json!({"uriTemplate": "test://{+rest}", "name": "t"});
    let world = world(&peer.url)
        .define("acme", "files", DefinitionKind::Template, &template)
        .credential("acme", "files", "x-upstream-key", "hunter2-upstream")
        .policy("acme", "full", full)
        .policy(
            "acme",
            "hidden",
            "@audit(\"full\") forbid (principal, action == Action::\"CallTool\", resource) \
             when { resource.name == \"hidden\" };",
        );
    let proxy = Proxy::start(&world).await;
    assert_eq!(proxy.config.current().problems, []);
    let mut refusals = Vec::new();
    let expected: Vec<&str> = let_in().iter().map(|(_, outcome)| *outcome).collect();
    for (ask, outcome) in let_in() {
        let answer = proxy.send(ask.token(&token())).await;
        // The answer about what does not exist repeats the caller's own words to the caller.
        if outcome == "denied" {
            refusals.push(answer.text().to_owned());
        }
    }
    // The credential did reach the server, and the server did tell it.
    let seen = peer.seen("tools/call");
    assert!(seen.iter().all(|s| s.header("x-upstream-key") == Some("hunter2-upstream")));
    for ask in turned_away() {
        let answer = proxy.send(ask).await;
        assert!(answer.status.as_u16() >= 400, "{}", answer.text());
        refusals.push(answer.text().to_owned());
    }
    let records = proxy.records(expected.len() + turned_away().len()).await;
    for (record, outcome) in records.iter().zip(expected) {
        assert!(record.to_string().contains(outcome), "{outcome}: {record:#}");
    }
    let kept = &records[0]["unmapped"]["arguments"];
    assert_eq!(kept["deep"][0]["card"], "[redacted]", "{kept}");
    for masked in ["password", "note", "jwt"] {
        assert_eq!(kept[masked], "***", "{masked}: {kept}");
    }
    assert_eq!(records[0]["unmapped"]["upstream_credential"], "files");

    let page = proxy.page("/metrics").await;
    assert!(page.contains("weir_"), "{page}");
    let mut spans = String::new();
    while let Ok(batch) = proxy.traced.lock().await.try_recv() {
        spans.push_str(&format!("{batch:?}"));
    }
    assert!(spans.contains("tools/call"), "calls are traced");
    let log = log.text();
    assert!(log.contains("\"refused\""), "the log was captured");
    let records: Vec<String> = records.iter().map(Value::to_string).collect();
    let shown = [
        ("a record", records.join("\n")),
        ("the log", log),
        ("a span", spans),
        ("the metrics", page),
        ("a refusal", refusals.join("\n")),
    ];
    for (place, text) in shown {
        let token = token();
        for secret in [SEED, token.rsplit('_').next().unwrap(), "eyJhbGci"] {
            let found = text.find(secret).map(|at| {
                let begin = text[..at].char_indices().rev().nth(200).map_or(0, |(at, _)| at);
                text[begin..].chars().take(400).collect::<String>()
            });
            assert_eq!(found, None, "{secret} is in {place}");
        }
    }
}

/// Every line that is logged while a call is served names its request and its trace.
#[tokio::test]
async fn lines_that_are_logged_during_a_call_name_it() {
    let (log, _guard) = captured(Format::Json);
    let peer = Peer::start().await;
    let proxy = Proxy::start(&world(&peer.url)).await;
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let mut named = Vec::new();
    for tool in ["hidden", "strict", "broken", "liar", "progress"] {
        let params = json!({"name": tool, "arguments": {}, "_meta": {"progressToken": 1}});
        let ask = Ask::modern(PATH, "tools/call", params).token(&token());
        let answer = proxy.send(ask.header("traceparent", parent.clone())).await;
        named.push(answer.header("x-request-id").unwrap().to_owned());
    }
    proxy.records(named.len()).await;
    let lines: Vec<Value> =
        log.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |id: &str| {
        let of_call = |line: &&Value| line["span"]["request_id"] == id;
        lines.iter().filter(of_call).collect::<Vec<_>>()
    };
    for id in &named[..2] {
        let lines = of(id);
        let refused = lines.iter().find(|line| line["message"] == "refused");
        let refused = refused.unwrap_or_else(|| panic!("{id} in {lines:#?}"));
        assert_eq!(refused["span"]["trace_id"], TRACE, "{refused}");
    }
    // Nothing about a call is logged outside of it.
    for line in lines.iter().filter(|line| {
        let target = line["target"].as_str().unwrap_or_default();
        target.starts_with("data_plane::call") || target.starts_with("data_plane::upstream")
    }) {
        assert!(named.iter().any(|id| line["span"]["request_id"] == **id), "{line}");
    }
}
