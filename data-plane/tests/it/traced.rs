//! One trace from the caller's span to the server's.

use serde_json::json;

use crate::peer::Peer;
use crate::proxy::{Ask, PATIENCE, Proxy};
use crate::{token, world};

const PATH: &str = "/acme/files/mcp";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn the_callers_trace_goes_on_to_the_server_in_header_and_meta() {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&world(&peer.url)).await;
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let arguments = json!({"name": "echo", "arguments": {}});
    let by_header = Ask::modern(PATH, "tools/call", arguments.clone()).token(&token());
    let answer = proxy.send(by_header.header("traceparent", parent.clone())).await;
    assert_eq!(answer.status, 200);

    let mut traced = proxy.traced.lock().await;
    let spans = tokio::time::timeout(PATIENCE, traced.recv()).await.unwrap().unwrap();
    assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE));
    assert_eq!(hex(&spans[0].parent_span_id), SPAN);
    let upstream = spans.last().unwrap();
    assert_eq!(upstream.parent_span_id, spans[0].span_id);

    let expected = format!("00-{TRACE}-{}-01", hex(&upstream.span_id));
    let seen = peer.seen("tools/call");
    assert_eq!(seen[0].header("traceparent"), Some(expected.as_str()));
    assert_eq!(seen[0].body["params"]["_meta"]["traceparent"], json!(expected));
    let record = proxy.records(1).await.remove(0);
    assert!(record.to_string().contains(TRACE), "{record}");
}

#[tokio::test]
async fn a_trace_in_meta_wins_over_the_header_and_a_refusal_is_traced() {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&world(&peer.url)).await;
    let params = json!({
        "name": "hidden",
        "arguments": {},
        "_meta": {"traceparent": format!("00-{TRACE}-{SPAN}-01")},
    });
    let ask = Ask::modern(PATH, "tools/call", params).token(&token());
    let other = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    proxy.send(ask.header("traceparent", other)).await;
    let mut traced = proxy.traced.lock().await;
    let spans = tokio::time::timeout(PATIENCE, traced.recv()).await.unwrap().unwrap();
    assert_eq!(hex(&spans[0].trace_id), TRACE);
    assert!(spans[0].status.is_some());
    assert!(peer.seen("tools/call").is_empty());
}
