//! Tasks of both forms: clients never see a server's own ids, and get by with the gateway's.

use http::Method;
use serde_json::{Value, json};
use weir_model::testing::World;

use crate::peer::{Peer, TASK};
use crate::proxy::{Ask, Proxy, read_until};
use crate::{token, world};

const PATH: &str = "/acme/files/mcp";

fn granted(url: &str) -> World {
    world(url).tool("acme", "files", "task").allow("acme", "ci", "files", "*").catalog(
        "acme",
        "files",
        |catalog| {
            catalog.capabilities["tasks"] = json!({});
            catalog.capabilities["extensions"] = json!({"io.modelcontextprotocol/tasks": {}});
        },
    )
}

/// A request of a stateless client that knows tasks.
fn modern(method: &str, mut params: Value) -> Ask {
    params["_meta"]["io.modelcontextprotocol/clientCapabilities"] =
        json!({"extensions": {"io.modelcontextprotocol/tasks": {}}});
    let task = params["taskId"].as_str().map(str::to_owned);
    let ask = Ask::modern(PATH, method, params).token(&token());
    match task {
        Some(task) => ask.header("mcp-name", task),
        None => ask,
    }
}

#[tokio::test]
async fn a_stateless_client_follows_its_task_by_the_gateway_s_id() {
    let peer = Peer::start().await;
    let [one, two] = Proxy::two(&granted(&peer.url)).await;
    let made = one.send(modern("tools/call", json!({"name": "task", "arguments": {}}))).await;
    let made = made.json()["result"].clone();
    let id = made["taskId"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned();
    assert_eq!((&made["resultType"], id.contains(TASK)), (&json!("task"), false));
    for proxy in [&one, &two] {
        peer.forget();
        let got = proxy.send(modern("tasks/get", json!({"taskId": id}))).await.json();
        assert_eq!(got["result"]["taskId"], id.as_str(), "{got}");
        let seen = peer.seen("tasks/get").remove(0);
        assert_eq!(seen.body["params"]["taskId"], TASK);
        assert_eq!(seen.header("mcp-name"), Some(TASK));
    }
    let cancelled = two.send(modern("tasks/cancel", json!({"taskId": id}))).await;
    assert_eq!(cancelled.status, 200, "{}", cancelled.text());

    let filter = json!({"notifications": {"taskIds": [id, "made-up"]}});
    let mut stream = two.open(modern("subscriptions/listen", filter)).await.into_body();
    let text = read_until(&mut stream, "notifications/tasks").await;
    assert!(text.contains(&format!(r#""taskIds":["{id}"]"#)), "{text}");
    assert!(text.contains(&format!(r#""taskId":"{id}""#)) && !text.contains(TASK), "{text}");
    let seen = peer.seen("subscriptions/listen").remove(0);
    assert_eq!(seen.body["params"]["notifications"]["taskIds"], json!([TASK]));
    // The server's own id is nobody's here.
    let own = one.send(modern("tasks/get", json!({"taskId": TASK}))).await;
    assert_eq!((own.status.as_u16(), own.code()), (400, -32602));
}

#[tokio::test]
async fn a_client_with_a_session_follows_its_task_too() {
    let peer = Peer::start().await;
    let [one, two] = Proxy::two(&granted(&peer.url)).await;
    let hello = one.send(Ask::initialize(PATH, "2025-11-25").token(&token())).await;
    let session = hello.header("mcp-session-id").unwrap().to_owned();
    let ask =
        |method: &str, params: Value| Ask::legacy(PATH, &session, method, &params).token(&token());
    let call = json!({"name": "task", "arguments": {}, "task": {"ttl": 1000}});
    let made = one.send(ask("tools/call", call)).await.json();
    let id = made["result"]["task"]["taskId"].as_str().unwrap_or_else(|| panic!("{made}"));
    assert!(!id.contains(TASK));
    for method in ["tasks/get", "tasks/result", "tasks/cancel"] {
        let got = two.send(ask(method, json!({"taskId": id}))).await;
        assert!(got.text().contains(id) && !got.text().contains(TASK), "{}", got.text());
        assert_eq!(peer.seen(method)[0].body["params"]["taskId"], TASK);
    }
    let list = one.send(ask("tasks/list", json!({}))).await.json();
    assert_eq!(list["result"]["tasks"][0]["taskId"], id);
    let stream = Ask::bodiless(Method::GET, PATH, &session).token(&token());
    let mut stream = two.open(stream).await.into_body();
    let text = read_until(&mut stream, "notifications/tasks/status").await;
    assert!(text.contains(&format!(r#""taskId":"{id}""#)) && !text.contains(TASK), "{text}");
    let foreign = two.send(ask("tasks/get", json!({"taskId": TASK}))).await;
    assert_eq!(foreign.code(), -32602);
}
