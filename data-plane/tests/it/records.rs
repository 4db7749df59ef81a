//! One audit record per request, whatever happens to it.

use serde_json::{Value, json};

use crate::peer::Peer;
use crate::proxy::{Ask, Proxy};
use crate::{token, world};
use weir_audit::memory::Faults;

const PATH: &str = "/acme/files/mcp";

fn call(tool: &str, arguments: Value) -> Ask {
    Ask::modern(PATH, "tools/call", json!({"name": tool, "arguments": arguments})).token(&token())
}

#[tokio::test]
async fn every_request_leaves_one_record() {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&world(&peer.url)).await;
    let asks = [
        call("echo", json!({})),
        call("fail", json!({})),
        call("broken", json!({})),
        call("strict", json!({})),
        call("hidden", json!({})),
        call("progress", json!({})),
        Ask::modern(PATH, "tools/list", json!({})),
        Ask::post("/nowhere", "{}"),
        Ask::post(PATH, "{").token(&token()),
    ];
    let outcomes = [
        "success",
        "tool_error",
        "-32000",
        "invalid_arguments",
        "denied",
        "success",
        "unauthenticated",
        "unknown_endpoint",
        "malformed_json",
    ];
    let mut ids = Vec::new();
    for ask in asks {
        let answer = proxy.send(ask).await;
        ids.push(answer.header("x-request-id").unwrap().to_owned());
    }
    let records = proxy.records(outcomes.len()).await;
    assert_eq!(records.len(), outcomes.len());
    for ((record, outcome), id) in records.iter().zip(outcomes).zip(&ids) {
        let text = record.to_string();
        assert!(text.contains(outcome), "{outcome}: {text}");
        assert!(text.contains(id.as_str()), "{id}: {text}");
    }
    let first = records[0].to_string();
    for part in ["account:ci", "files", "echo", "2026-07-28", "tester 1", "grant-1"] {
        assert!(first.contains(part), "{part}: {first}");
    }
    let hidden = records[4].to_string();
    assert!(hidden.contains("\"hidden\""), "what was asked for is told: {hidden}");
    let token = token();
    assert!(records.iter().all(|r| !r.to_string().contains(&token)));
}

#[tokio::test]
async fn without_a_working_trail_no_call_is_served() {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&world(&peer.url)).await;
    proxy.log.set(Faults { write: true, ..Faults::default() });
    let answer = proxy.send(call("echo", json!({}))).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (503, 50305), "{}", answer.text());
    let before = peer.seen("tools/call").len();
    let answer = proxy.send(call("echo", json!({}))).await;
    assert_eq!(answer.status, 503);
    assert_eq!(peer.seen("tools/call").len(), before, "refused before any work is done");
}
