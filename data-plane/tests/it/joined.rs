//! The endpoint that joins all servers of a group.

use serde_json::{Value, json};
use weir_model::resource::{DefinitionKind, ObservedEra, Rule, Subject};
use weir_model::testing::World;

use crate::peer::{Peer, Speaks};
use crate::proxy::{Ask, Proxy, read_until};
use crate::{token, world};

const PATH: &str = "/acme/mcp";

fn two(url: &str) -> World {
    world(url)
        .server("acme", "mail", url)
        .tool("acme", "mail", "echo")
        .define("acme", "mail", DefinitionKind::Resource, &json!({"uri": "test://a", "name": "2"}))
        .define("acme", "mail", DefinitionKind::Resource, &json!({"uri": "mail://b", "name": "b"}))
        .server("acme", "closed", url)
        .tool("acme", "closed", "echo")
        .grant(
            "acme",
            vec![Rule {
                servers: vec!["mail".into()],
                tools: vec!["*".into()],
                resources: vec!["*".into()],
                ..Rule::default()
            }],
            vec![Subject::ServiceAccount("ci".parse().unwrap())],
        )
}

async fn start() -> (Peer, Proxy) {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&two(&peer.url)).await;
    (peer, proxy)
}

fn modern(method: &str, params: Value) -> Ask {
    Ask::modern(PATH, method, params).token(&token())
}

#[tokio::test]
async fn names_carry_their_server_and_calls_find_it() {
    let (peer, proxy) = start().await;
    let list = proxy.send(modern("tools/list", json!({}))).await.json();
    let names: Vec<&str> = list["result"]["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["name"].as_str().unwrap())
        .collect();
    assert!(names.contains(&"files__echo") && names.contains(&"mail__echo"), "{names:?}");
    assert!(!names.iter().any(|n| n.starts_with("closed__") || n.ends_with("hidden")), "{names:?}");
    let params = json!({"name": "mail__echo", "arguments": {"a": 1}});
    let answer = proxy.send(modern("tools/call", params)).await;
    assert_eq!(answer.json()["result"]["structuredContent"], json!({"a": 1}));
    let seen = peer.seen("tools/call").remove(0);
    assert_eq!(seen.body["params"]["name"], "echo");
    assert_eq!(seen.header("mcp-name"), Some("echo"));
    let get = modern("prompts/get", json!({"name": "files__greet"}));
    assert_eq!(proxy.send(get).await.json()["result"]["description"], "greet");
    let reference = json!({"ref": {"type": "ref/prompt", "name": "files__greet"},
        "argument": {"name": "a", "value": ""}});
    let complete = proxy.send(modern("completion/complete", reference)).await;
    assert_eq!(complete.json()["result"]["completion"]["values"][0], "greet");
}

#[tokio::test]
async fn resources_are_routed_by_the_pins() {
    let (peer, proxy) = start().await;
    for (uri, good) in
        [("test://a", true), ("test://t/7", true), ("mail://b", true), ("test://none", false)]
    {
        let answer = proxy.send(modern("resources/read", json!({"uri": uri}))).await;
        if good {
            assert_eq!(answer.json()["result"]["contents"][0]["uri"], uri, "{}", answer.text());
        } else {
            assert_eq!((answer.status.as_u16(), answer.code()), (200, -32602));
            assert_eq!(answer.json()["error"]["data"]["uri"], uri);
        }
    }
    assert_eq!(peer.seen("resources/read").len(), 3);
}

#[tokio::test]
async fn what_may_not_be_used_looks_like_what_is_not_there() {
    let (peer, proxy) = start().await;
    let mut told = Vec::new();
    for name in ["files__hidden", "files__absent", "closed__echo", "nobody__echo", "plain"] {
        let call = modern("tools/call", json!({"name": name, "arguments": {}}));
        let answer = proxy.send(call).await;
        let mut text = answer.json();
        assert_eq!(text["error"]["message"], format!("Unknown tool: {name}"));
        text["error"]["message"] = Value::Null;
        told.push((answer.status, text));
    }
    assert!(told.iter().all(|t| *t == told[0]), "{told:?}");
    assert!(peer.seen("tools/call").is_empty());
    let records = proxy.records(5).await;
    assert!(records[0].to_string().contains("denied"), "{}", records[0]);
    assert!(records[1].to_string().contains("unknown_target"), "{}", records[1]);
}

#[tokio::test]
async fn a_session_of_the_older_era_is_the_gateways_own() {
    let (_peer, proxy) = start().await;
    let hello = proxy.send(Ask::initialize(PATH, "2025-06-18").token(&token())).await;
    let session = hello.header("mcp-session-id").unwrap().to_owned();
    let result = hello.json()["result"].clone();
    assert_eq!(result["serverInfo"]["name"], "weir");
    assert!(result["capabilities"]["tools"].is_object());
    assert!(result["capabilities"].get("logging").is_none());
    let call = json!({"name": "files__echo", "arguments": {"b": 2}});
    let answer = proxy.send(Ask::legacy(PATH, &session, "tools/call", &call).token(&token())).await;
    assert_eq!(answer.json()["result"]["structuredContent"], json!({"b": 2}), "{}", answer.text());
}

#[tokio::test]
async fn a_session_hears_log_messages_from_the_level_that_it_set() {
    for (speaks, era) in
        [(Speaks::Legacy, ObservedEra::Legacy), (Speaks::Modern, ObservedEra::Modern)]
    {
        let peer = Peer::only(speaks).await;
        let proxy = Proxy::start(&world(&peer.url).era("acme", "files", era)).await;
        let hello = proxy.send(Ask::initialize(PATH, "2025-11-25").token(&token())).await;
        let session = hello.header("mcp-session-id").unwrap().to_owned();
        let ask = |method: &str, params: Value| {
            Ask::legacy(PATH, &session, method, &params).token(&token())
        };
        let call = |tool: &str| {
            let params = json!({"name": format!("files__{tool}"), "arguments": {}});
            ask("tools/call", params)
        };
        let heard = async |proxy: &Proxy| {
            let events = proxy.send(call("talk")).await.events();
            let levels = events.iter().filter_map(|event| event["params"]["level"].as_str());
            levels.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(heard(&proxy).await, ["info", "error"], "{speaks:?}");
        for level in [json!({"level": "loud"}), json!({"level": 3}), json!({})] {
            assert_eq!(proxy.send(ask("logging/setLevel", level)).await.code(), -32602);
        }
        for level in ["error", "error", "debug"] {
            let answer = proxy.send(ask("logging/setLevel", json!({"level": level}))).await;
            assert_eq!(answer.json()["result"], json!({}), "{}", answer.text());
            let expected = if level == "error" { &["error"][..] } else { &["info", "error"] };
            assert_eq!(heard(&proxy).await, expected, "{speaks:?} {level}");
            if speaks == Speaks::Modern {
                let meta = peer.seen("tools/call").pop().unwrap().body["params"]["_meta"].clone();
                assert_eq!(meta["io.modelcontextprotocol/logLevel"], level);
            }
        }
        // A server with sessions is told when the level is another one, not with every call.
        let told = peer.seen("logging/setLevel");
        let told: Vec<_> = told.iter().map(|seen| seen.body["params"]["level"].clone()).collect();
        let expected: &[&str] = if speaks == Speaks::Legacy { &["error", "debug"] } else { &[] };
        assert_eq!(told, expected, "{speaks:?}");
    }
}

/// Neither for its own part nor for theirs: lists and handshakes wait for nobody.
#[tokio::test]
async fn a_server_that_hangs_costs_the_others_nothing() {
    let peer = Peer::start().await;
    // It takes connections and never says a word.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", silent.local_addr().unwrap());
    let world = two(&peer.url)
        .server("acme", "stuck", &url)
        .tool("acme", "stuck", "echo")
        .server("acme", "gone", "http://127.0.0.1:1/mcp")
        .tool("acme", "gone", "echo")
        .grant(
            "acme",
            vec![Rule { servers: vec!["*".into()], tools: vec!["echo".into()], ..Rule::default() }],
            vec![Subject::ServiceAccount("ci".parse().unwrap())],
        );
    let proxy = Proxy::start(&world).await;
    let call = |name: &str| modern("tools/call", json!({"name": name, "arguments": {}}));
    let stuck = proxy.send(call("stuck__echo"));
    let others = async {
        let hello = proxy.send(Ask::initialize(PATH, "2025-11-25").token(&token())).await;
        assert_eq!(hello.status, 200);
        assert_eq!(proxy.send(modern("server/discover", json!({}))).await.status, 200);
        let list = proxy.send(modern("tools/list", json!({}))).await.json();
        let names = list["result"]["tools"].to_string();
        for name in ["files__echo", "mail__echo", "stuck__echo", "gone__echo"] {
            assert!(names.contains(name), "{names}");
        }
        assert_eq!(proxy.send(call("gone__echo")).await.code(), 50200);
        assert_eq!(proxy.send(call("files__echo")).await.status, 200);
    };
    // All of that while a call to the server that hangs is under way.
    let first = futures_util::future::select(Box::pin(others), Box::pin(stuck)).await;
    assert!(matches!(first, futures_util::future::Either::Left(_)));
}

#[tokio::test]
async fn lists_say_who_lists() {
    let (_peer, proxy) = start().await;
    let list = proxy.send(modern("tools/list", json!({}))).await.json();
    let meta = |list: &Value| list["result"]["_meta"]["io.modelcontextprotocol/serverInfo"].clone();
    assert_eq!(meta(&list)["name"], "weir");
    let one = Ask::modern("/acme/files/mcp", "tools/list", json!({})).token(&token());
    assert_eq!(meta(&proxy.send(one).await.json())["name"], "fixture");
}

#[tokio::test]
async fn discovery_joins_what_the_caller_may_use() {
    let (_peer, proxy) = start().await;
    let found = proxy.send(modern("server/discover", json!({}))).await.json();
    assert!(found["result"]["capabilities"]["tools"].is_object(), "{found}");
    let guest = World::token("acme", "guest");
    let found =
        proxy.send(Ask::modern(PATH, "server/discover", json!({})).token(&guest)).await.json();
    assert_eq!(found["result"]["capabilities"], json!({}));
    let list = proxy.send(Ask::modern(PATH, "tools/list", json!({})).token(&guest)).await.json();
    assert_eq!(list["result"]["tools"], json!([]));
}

#[tokio::test]
async fn open_streams_hear_of_changes() {
    let (peer, proxy) = start().await;
    let params = json!({"notifications": {"toolsListChanged": true, "promptsListChanged": true}});
    let mut modern = proxy.open(modern("subscriptions/listen", params)).await.into_body();
    let text = read_until(&mut modern, "acknowledged").await;
    assert!(text.contains(r#""promptsListChanged":true"#), "{text}");
    let hello = proxy.send(Ask::initialize(PATH, "2025-11-25").token(&token())).await;
    let session = hello.header("mcp-session-id").unwrap().to_owned();
    let stream = Ask::bodiless(http::Method::GET, PATH, &session).token(&token());
    let mut legacy = proxy.open(stream).await.into_body();
    proxy.apply(&two(&peer.url).tool("acme", "mail", "another"));
    let text = read_until(&mut modern, "notifications/tools/list_changed").await;
    assert!(!text.contains("notifications/prompts/list_changed"), "{text}");
    assert!(text.contains("subscriptionId"), "{text}");
    read_until(&mut legacy, "notifications/tools/list_changed").await;
    // In good order: with the result that ends the stream.
    proxy.drain.signal();
    let text = read_until(&mut modern, "complete").await;
    assert!(text.contains(r#""id":1,"result""#), "{text}");
}

#[tokio::test]
async fn open_streams_end_with_the_right_to_have_them() {
    let (peer, proxy) = start().await;
    let listen = |path: &str| {
        let params = json!({"notifications": {"toolsListChanged": true}});
        Ask::modern(path, "subscriptions/listen", params).token(&token())
    };
    let mut joined = proxy.open(listen(PATH)).await.into_body();
    let mut single = proxy.open(listen("/acme/files/mcp")).await.into_body();
    read_until(&mut joined, "acknowledged").await;
    read_until(&mut single, "acknowledged").await;
    // The grant for the server goes first, then the token.
    let without_grant = two(&peer.url).without("RoleBinding/acme/grant-1");
    proxy.apply(&without_grant);
    read_until(&mut single, "complete").await;
    proxy.apply(&without_grant.without("ServiceAccount/acme/ci"));
    read_until(&mut joined, "complete").await;
}
