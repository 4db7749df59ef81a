//! Stateless clients on the endpoint of one server.

use serde_json::json;

use crate::peer::Peer;
use crate::proxy::{Ask, Proxy, read_until};
use crate::{token, world};

const PATH: &str = "/acme/files/mcp";

async fn start() -> (Peer, Proxy) {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&world(&peer.url)).await;
    (peer, proxy)
}

fn call(tool: &str, arguments: serde_json::Value) -> Ask {
    Ask::modern(PATH, "tools/call", json!({"name": tool, "arguments": arguments})).token(&token())
}

#[tokio::test]
async fn a_call_goes_through_and_keeps_its_bytes() {
    let (peer, proxy) = start().await;
    let mut ask = call("echo", json!({}));
    let body = String::from_utf8(ask.body.to_vec()).unwrap();
    let body = body.replace(
        r#""arguments":{}"#,
        r#""arguments":{"n":12345678901234567890123,"x":1.10},"x-own":[ 1 ]"#,
    );
    ask.body = body.replace(r#""id":1"#, r#""id":1.0"#).into();
    let answer = proxy.send(ask).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(
        answer.text().starts_with(r#"{"jsonrpc":"2.0","id":1.0,"result":"#),
        "{}",
        answer.text()
    );
    assert!(answer.header("x-request-id").is_some());
    assert!(answer.header("mcp-session-id").is_none());
    let seen = peer.seen("tools/call").remove(0);
    let raw = String::from_utf8(seen.raw.to_vec()).unwrap();
    assert!(raw.contains(r#"{"n":12345678901234567890123,"x":1.10}"#), "{raw}");
    assert!(raw.contains(r#""x-own":[ 1 ]"#), "{raw}");
    assert_eq!(seen.header("mcp-name"), Some("echo"));
    assert!(seen.header("authorization").is_none(), "the caller's token stays here");
}

#[tokio::test]
async fn lists_come_from_the_pin_filtered_and_private() {
    let (peer, proxy) = start().await;
    let answer = proxy.send(Ask::modern(PATH, "tools/list", json!({})).token(&token())).await;
    let result = &answer.json()["result"];
    let names: Vec<&str> =
        result["tools"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"strict") && !names.contains(&"hidden"), "{names:?}");
    assert_eq!(result["cacheScope"], "private");
    assert_eq!(result["resultType"], "complete");
    assert!(answer.text().contains(r#""x-n":1.1"#));
    assert!(peer.seen("tools/list").is_empty(), "no hop upstream");
    for (method, member, count) in [
        ("resources/list", "resources", 1),
        ("resources/templates/list", "resourceTemplates", 1),
        ("prompts/list", "prompts", 1),
    ] {
        let answer = proxy.send(Ask::modern(PATH, method, json!({})).token(&token())).await;
        assert_eq!(answer.json()["result"][member].as_array().unwrap().len(), count, "{method}");
    }
}

#[tokio::test]
async fn reads_prompts_and_completions_go_through() {
    let (_peer, proxy) = start().await;
    let read = Ask::modern(PATH, "resources/read", json!({"uri": "test://a"})).token(&token());
    let result = proxy.send(read).await.json()["result"].clone();
    assert_eq!(result["contents"][0]["text"], "text");
    assert_eq!(result["cacheScope"], "private", "what depends on the caller is never shared");
    let get = Ask::modern(PATH, "prompts/get", json!({"name": "greet"})).token(&token());
    assert_eq!(proxy.send(get).await.json()["result"]["description"], "greet");
    let reference = json!({"ref": {"type": "ref/prompt", "name": "greet"},
        "argument": {"name": "a", "value": ""}});
    let mut complete = Ask::modern(PATH, "completion/complete", reference).token(&token());
    complete.headers.retain(|(name, _)| *name != "mcp-name");
    assert_eq!(proxy.send(complete).await.json()["result"]["completion"]["values"][0], "greet");
    let gone = Ask::modern(PATH, "resources/read", json!({"uri": "test://t/gone"})).token(&token());
    let answer = proxy.send(gone).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (200, -32602));
}

#[tokio::test]
async fn broken_arguments_are_a_tool_error_that_names_path_and_rule() {
    let (peer, proxy) = start().await;
    let answer = proxy.send(call("strict", json!({"n": 0}))).await;
    assert_eq!(answer.status, 200);
    let result = answer.json()["result"].clone();
    assert_eq!(result["isError"], true);
    assert_eq!(result["resultType"], "complete");
    let text = result["content"][0]["text"].as_str().unwrap();
    assert!(text.contains("/n") && text.contains("minimum"), "{text}");
    assert!(peer.seen("tools/call").is_empty(), "the call never leaves");
}

#[tokio::test]
async fn results_that_break_their_schema_are_not_passed_on() {
    let (_peer, proxy) = start().await;
    let answer = proxy.send(call("liar", json!({}))).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (502, 50203));
    assert!(!answer.text().contains("not a number"));
}

#[tokio::test]
async fn errors_and_tool_errors_of_the_server_pass() {
    let (_peer, proxy) = start().await;
    let answer = proxy.send(call("broken", json!({}))).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (200, -32000));
    assert!(answer.text().contains(r#""data":{"x":1.0}"#), "{}", answer.text());
    let answer = proxy.send(call("fail", json!({}))).await;
    assert_eq!(answer.json()["result"]["isError"], true);
}

#[tokio::test]
async fn progress_comes_on_the_stream_of_its_call() {
    let (_peer, proxy) = start().await;
    let params = json!({"name": "progress", "arguments": {}, "_meta": {"progressToken": "t"}});
    let answer = proxy.send(Ask::modern(PATH, "tools/call", params).token(&token())).await;
    let events = answer.events();
    assert_eq!(events.len(), 3, "{}", answer.text());
    assert_eq!(events[0]["params"]["progressToken"], "t");
    assert_eq!(events[2]["id"], 1);
    assert_eq!(events[2]["result"]["resultType"], "complete");
    assert_eq!(answer.header("x-accel-buffering"), Some("no"));
}

#[tokio::test]
async fn input_required_passes_through_with_its_state_sealed() {
    let (_peer, proxy) = start().await;
    let params = json!({"name": "ask-modern", "arguments": {},
        "_meta": {"io.modelcontextprotocol/clientCapabilities": {"elicitation": {}}}});
    let answer = proxy.send(Ask::modern(PATH, "tools/call", params).token(&token())).await;
    let result = answer.json()["result"].clone();
    assert!(result["inputRequests"]["name"].is_object(), "{result}");
    assert!(result["requestState"].as_str().unwrap().len() > 40, "{result}");
}

#[tokio::test]
async fn discovery_passes_through() {
    let (_peer, proxy) = start().await;
    let answer = proxy.send(Ask::modern(PATH, "server/discover", json!({})).token(&token())).await;
    let result = answer.json()["result"].clone();
    assert!(result["capabilities"]["completions"].is_object(), "{result}");
    assert_eq!(result["cacheScope"], "private");
}

#[tokio::test]
async fn listening_streams_carry_the_clients_own_id() {
    let (peer, proxy) = start().await;
    let params = json!({"notifications": {"toolsListChanged": true}});
    let mut ask = Ask::modern(PATH, "subscriptions/listen", params).token(&token());
    ask.body =
        String::from_utf8(ask.body.to_vec()).unwrap().replace(r#""id":1"#, r#""id":"mine""#).into();
    let response = proxy.open(ask).await;
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    let text = read_until(&mut body, "acknowledged").await;
    assert!(text.contains(r#""io.modelcontextprotocol/subscriptionId":"mine""#), "{text}");
    drop(body);
    peer.dropped().await;
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_call() {
    let (peer, proxy) = start().await;
    for tool in ["hang", "stream-hang"] {
        let ask = call(tool, json!({}));
        let task = {
            let open = proxy.open(ask);
            tokio::time::timeout(std::time::Duration::from_millis(300), async {
                let response = open.await;
                let mut body = response.into_body();
                read_until(&mut body, "never").await;
            })
        };
        assert!(task.await.is_err());
        peer.dropped().await;
    }
    let records = proxy.records(2).await;
    assert!(records.iter().all(|r| r.to_string().contains("aborted")), "{records:?}");
}

#[tokio::test]
async fn mirrored_arguments_are_checked_and_forwarded() {
    let (peer, proxy) = start().await;
    let good = call("region", json!({"region": "eu"}));
    let missing = proxy.send(good.clone()).await;
    assert_eq!((missing.status.as_u16(), missing.code()), (400, -32020));
    let wrong = proxy.send(good.clone().header("mcp-param-region", "us")).await;
    assert_eq!(wrong.code(), -32020);
    let answer =
        proxy.send(good.header("mcp-param-region", "eu").header("mcp-param-own", "x")).await;
    assert_eq!(answer.code(), -32602, "the peer has no such tool");
    let seen = peer.seen("tools/call").remove(0);
    assert_eq!(seen.header("mcp-param-region"), Some("eu"));
    assert_eq!(seen.header("mcp-param-own"), Some("x"));
}
