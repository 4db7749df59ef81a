//! Clients of one era with servers of the other, and servers that nothing is pinned of.

use serde_json::{Value, json};
use weir_model::resource::{DefinitionKind, ObservedEra, PinRule};
use weir_model::testing::World;

use crate::peer::{Peer, SESSION, Speaks};
use crate::proxy::{Ask, Proxy};
use crate::{granted, token, world};

const PATH: &str = "/acme/files/mcp";

fn modern(method: &str, params: Value) -> Ask {
    Ask::modern(PATH, method, params).token(&token())
}

#[tokio::test]
async fn a_stateless_client_uses_a_server_with_sessions() {
    let peer = Peer::only(Speaks::Legacy).await;
    let world = world(&peer.url).era("acme", "files", ObservedEra::Legacy);
    let proxy = Proxy::start(&world).await;
    let found = proxy.send(modern("server/discover", json!({}))).await.json();
    assert_eq!(found["result"]["resultType"], "complete", "{found}");
    assert!(found["result"]["capabilities"]["tools"].is_object(), "{found}");
    let echo = json!({"name": "echo", "arguments": {"a": 1}});
    let answer = proxy.send(modern("tools/call", echo)).await;
    let result = answer.json()["result"].clone();
    assert_eq!(result["structuredContent"], json!({"a": 1}), "{}", answer.text());
    assert_eq!(result["resultType"], "complete");
    let seen = peer.seen("tools/call").remove(0);
    assert_eq!(seen.header("mcp-session-id"), Some(SESSION));
    let meta = seen.body["params"]["_meta"].clone();
    assert!(meta["io.modelcontextprotocol/protocolVersion"].is_null(), "{meta}");
    let read = proxy.send(modern("resources/read", json!({"uri": "test://a"}))).await;
    let result = read.json()["result"].clone();
    assert_eq!((&result["ttlMs"], &result["cacheScope"]), (&json!(0), &json!("private")));
    let gone = proxy.send(modern("resources/read", json!({"uri": "test://t/gone"}))).await;
    assert_eq!(gone.code(), -32602, "the older code for it is retired");
    let progress = json!({"name": "progress", "arguments": {}, "_meta": {"progressToken": 7}});
    let events = proxy.send(modern("tools/call", progress)).await.events();
    assert_eq!(events[0]["params"]["progressToken"], 7);
    assert_eq!(events[2]["result"]["resultType"], "complete");
    let ask = json!({"name": "ask", "arguments": {}});
    assert_eq!(proxy.send(modern("tools/call", ask)).await.status, 200);
    // A client that offers nothing is asked nothing: the server is told so and does not hang.
    assert!(peer.all().iter().any(|s| s.body["id"] == "q-1" && s.body["error"].is_object()));
}

#[tokio::test]
async fn a_client_with_a_session_uses_a_stateless_server() {
    let peer = Peer::only(Speaks::Modern).await;
    let world = world(&peer.url).era("acme", "files", ObservedEra::Modern);
    let proxy = Proxy::start(&world).await;
    let hello = proxy.send(Ask::initialize(PATH, "2025-06-18").token(&token())).await;
    assert_eq!(hello.status, 200, "{}", hello.text());
    let session = hello.header("mcp-session-id").unwrap().to_owned();
    assert_eq!(hello.json()["result"]["protocolVersion"], "2025-06-18");
    assert_eq!(hello.json()["result"]["serverInfo"]["name"], "fixture");
    let ask =
        |method: &str, params: Value| Ask::legacy(PATH, &session, method, &params).token(&token());
    let echo = json!({"name": "echo", "arguments": {"a": 1}});
    let result = proxy.send(ask("tools/call", echo)).await.json()["result"].clone();
    assert_eq!(result["structuredContent"], json!({"a": 1}));
    assert!(result.get("resultType").is_none(), "{result}");
    let seen = peer.seen("tools/call").remove(0);
    let meta = seen.body["params"]["_meta"].clone();
    let offered = json!({"elicitation": {}});
    assert_eq!(meta["io.modelcontextprotocol/clientCapabilities"], offered);
    let read = proxy.send(ask("resources/read", json!({"uri": "test://a"}))).await;
    let result = read.json()["result"].clone();
    assert!(result.get("ttlMs").is_none() && result.get("cacheScope").is_none(), "{result}");
    let delete = Ask::bodiless(http::Method::DELETE, PATH, &session).token(&token());
    assert_eq!(proxy.send(delete).await.status, 204);
    assert_eq!(proxy.send(ask("ping", json!({}))).await.status, 404);
}

#[tokio::test]
async fn without_a_pin_the_servers_own_list_is_filtered() {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&granted(&peer.url)).await;
    let names = async |proxy: &Proxy| {
        let list = proxy.send(modern("tools/list", json!({}))).await.json();
        let tools = list["result"]["tools"].as_array().unwrap().clone();
        assert_eq!(list["result"]["cacheScope"], "private", "{list}");
        tools.iter().map(|t| t["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&proxy).await, ["echo"]);
    let echo = json!({"name": "echo", "arguments": {}});
    assert_eq!(proxy.send(modern("tools/call", echo.clone())).await.status, 200);
    let hidden = json!({"name": "hidden", "arguments": {}});
    assert_eq!(proxy.send(modern("tools/call", hidden)).await.code(), -32602);
    let joined = Ask::modern("/acme/mcp", "tools/list", json!({})).token(&token());
    assert_eq!(proxy.send(joined).await.json()["result"]["tools"], json!([]));
    // A group that wants to be asked first serves nothing that it has not pinned.
    let asking = granted(&peer.url).group_with("acme", |group| group.pin = PinRule::Ask);
    let proxy = Proxy::start(&asking).await;
    assert_eq!(names(&proxy).await, [""; 0]);
    assert_eq!(proxy.send(modern("tools/call", echo)).await.code(), -32602);
}

#[tokio::test]
async fn long_lists_come_in_pages() {
    let peer = Peer::start().await;
    let mut world: World = granted(&peer.url);
    for at in 0..1_001 {
        let resource = json!({"uri": format!("test://{at}"), "name": "r"});
        world = world.define("acme", "files", DefinitionKind::Resource, &resource);
    }
    let proxy = Proxy::start(&world).await;
    let first = proxy.send(modern("resources/list", json!({}))).await.json()["result"].clone();
    assert_eq!(first["resources"].as_array().unwrap().len(), 1_000);
    let cursor = first["nextCursor"].as_str().unwrap();
    let next = modern("resources/list", json!({"cursor": cursor}));
    let second = proxy.send(next).await.json()["result"].clone();
    assert_eq!(second["resources"].as_array().unwrap().len(), 1);
    assert!(second.get("nextCursor").is_none());
    let guest = World::token("acme", "guest");
    let foreign = Ask::modern("/acme/mcp", "resources/list", json!({"cursor": cursor}));
    assert_eq!(proxy.send(foreign.token(&guest)).await.code(), -32602);
}
