//! Batches of revision 2025-03-26: every item is a call of its own.

use serde_json::{Value, json};
use weir_model::resource::{Kind, Limit, LimitScope, LimitUnit, Rate, RateUnit, ResourceKey, Spec};

use crate::peer::Peer;
use crate::proxy::{Answer, Ask, Proxy, messages, read_until};
use crate::{token, world};

const PATH: &str = "/acme/mcp";

async fn session(proxy: &Proxy, revision: &str) -> String {
    let hello = proxy.send(Ask::initialize(PATH, revision).token(&token())).await;
    hello.header("mcp-session-id").unwrap().to_owned()
}

fn batch(session: &str, items: &Value) -> Ask {
    Ask::post(PATH, items.to_string()).header("mcp-session-id", session).token(&token())
}

fn call(id: impl Into<Value>, tool: &str, arguments: Value) -> Value {
    let params = json!({"name": format!("files__{tool}"), "arguments": arguments});
    json!({"jsonrpc": "2.0", "id": id.into(), "method": "tools/call", "params": params})
}

fn array(answer: &Answer) -> Vec<Value> {
    answer.json().as_array().unwrap_or_else(|| panic!("{}", answer.text())).clone()
}

#[tokio::test]
async fn every_item_is_answered_and_recorded_by_itself() {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&world(&peer.url)).await;
    let session = session(&proxy, "2025-03-26").await;
    let items = json!([
        call("a", "echo", json!({"x": 1})),
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "nope"},
        {"jsonrpc": "2.0", "id": null, "method": "ping"},
        7,
        call(3, "strict", json!({"n": 0})),
        {"jsonrpc": "2.0", "id": 4, "method": "tools/list", "params": {}},
        {"jsonrpc": "2.0", "id": "q", "result": {}},
        call(5, "hidden", json!({})),
    ]);
    let answer = proxy.send(batch(&session, &items)).await;
    assert_eq!(answer.status, 200);
    let got = array(&answer);
    assert_eq!(got.len(), 7, "{}", answer.text());
    assert_eq!(got[0]["id"], "a");
    assert_eq!(got[0]["result"]["structuredContent"], json!({"x": 1}));
    assert_eq!((&got[1]["id"], &got[1]["error"]["code"]), (&json!(2), &json!(-32601)));
    assert_eq!((got[2].get("id"), &got[2]["error"]["code"]), (None, &json!(-32600)));
    assert_eq!(got[3]["error"]["code"], -32700);
    assert_eq!((&got[4]["id"], &got[4]["result"]["isError"]), (&json!(3), &json!(true)));
    assert!(got[5]["result"]["tools"].is_array());
    assert_eq!((&got[6]["id"], &got[6]["error"]["code"]), (&json!(5), &json!(-32602)));
    let records = proxy.records(1 + 9).await;
    assert_eq!(records.len(), 1 + 9, "one of the handshake, one of each item");
    let all: Vec<String> = records[1..].iter().map(Value::to_string).collect();
    for part in ["files", "method_unknown", "malformed_json", "invalid_arguments", "denied"] {
        assert!(all.iter().any(|record| record.contains(part)), "{part}: {all:?}");
    }
}

#[tokio::test]
async fn limits_count_items() {
    let peer = Peer::start().await;
    let limit = Limit {
        per: LimitScope::Principal,
        servers: vec![],
        tools: vec!["echo".into()],
        rate: Some(Rate { calls: 2, per: RateUnit::Hour, burst: None }),
        concurrency: None,
        quota: None,
        count: LimitUnit::Calls,
    };
    let key = ResourceKey::grouped(Kind::Limit, &"acme".parse().unwrap(), "few");
    let proxy = Proxy::start(&world(&peer.url).put(key, Spec::Limit(limit))).await;
    let session = session(&proxy, "2025-03-26").await;
    let items: Vec<Value> = (0..5).map(|id| call(id, "echo", json!({}))).collect();
    let answer = proxy.send(batch(&session, &items.into())).await;
    let got = array(&answer);
    let limited = got.iter().filter(|item| item["error"]["code"] == 42900).count();
    assert_eq!((got.len(), limited), (5, 3), "{}", answer.text());
    assert_eq!(peer.seen("tools/call").len(), 2);
}

#[tokio::test]
async fn batches_without_requests_are_taken() {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&world(&peer.url)).await;
    let session = session(&proxy, "2025-03-26").await;
    let note = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    for items in [json!([note, note]), json!([{"jsonrpc": "2.0", "id": 1, "result": {}}])] {
        let answer = proxy.send(batch(&session, &items)).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (202, ""));
    }
}

#[tokio::test]
async fn one_stream_carries_what_all_items_say() {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&world(&peer.url)).await;
    let session = session(&proxy, "2025-03-26").await;
    let mut progress = call(1, "progress", json!({}));
    progress["params"]["_meta"] = json!({"progressToken": "t"});
    let items = json!([progress, call(2, "echo", json!({})), {"jsonrpc": "2.0", "id": 3, "method": "ping"}]);
    let answer = proxy.send(batch(&session, &items)).await;
    let events = answer.events();
    let ids: Vec<i64> = events.iter().filter_map(|event| event["id"].as_i64()).collect();
    assert_eq!(events.len(), 5, "{}", answer.text());
    assert!([1, 2, 3].iter().all(|id| ids.contains(id)), "{ids:?}");
    // What hangs holds up nothing else, and is cancelled when the client leaves.
    let items = json!([call(1, "stream-hang", json!({})), call(2, "echo", json!({}))]);
    let mut body = proxy.open(batch(&session, &items)).await.into_body();
    let mut text = read_until(&mut body, "working").await;
    if !text.contains(r#""id":2"#) {
        text += &read_until(&mut body, r#""id":2"#).await;
    }
    assert_eq!(messages(&text).len(), 2, "{text}");
    drop(body);
    peer.dropped().await;
}

#[tokio::test]
async fn other_revisions_and_broken_batches_are_refused_whole() {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&world(&peer.url)).await;
    let good = session(&proxy, "2025-03-26").await;
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize"});
    let many = Value::from(vec![ping.clone(); 51]);
    let one = json!([ping]);
    let without = Ask::post(PATH, one.to_string()).token(&token());
    let stateless = batch(&good, &one).header("mcp-protocol-version", "2026-07-28");
    let anonymous = Ask::post(PATH, one.to_string()).header("mcp-session-id", &good);
    let mut table = vec![
        ("empty", batch(&good, &json!([])), 400, -32600),
        ("too many", batch(&good, &many), 400, -32600),
        ("a handshake", batch(&good, &json!([hello])), 400, -32600),
        ("nested", batch(&good, &json!([[ping]])), 400, -32600),
        ("no session", without, 400, -32600),
        ("another revision in the header", stateless, 400, -32600),
        ("nobody", anonymous, 401, 40100),
        ("unknown session", batch("made-up", &one), 404, -32600),
    ];
    for revision in ["2024-11-05", "2025-06-18", "2025-11-25"] {
        table.push((revision, batch(&session(&proxy, revision).await, &one), 400, -32600));
    }
    for (what, ask, status, code) in table {
        let answer = proxy.send(ask).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (status, code), "{what}");
    }
    let answer = proxy.send(batch(&good, &one)).await;
    assert_eq!(array(&answer)[0]["result"], json!({}));
}
