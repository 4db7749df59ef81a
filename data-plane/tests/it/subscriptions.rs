//! Subscriptions to single resources, and lists of which a part is missing.

use serde_json::{Value, json};
use weir_model::resource::{DefinitionKind, HttpUpstream, Rule, Subject, Upstream};
use weir_model::testing::World;

use crate::peer::Peer;
use crate::proxy::{Ask, Proxy, read_until};
use crate::{token, world};

const PATH: &str = "/acme/mcp";

/// The usual server, one that nobody listens at with a resource of its own, and one that was never
/// seen.
fn three(url: &str) -> World {
    let dead = Upstream::Http(HttpUpstream {
        // Port 1 is nobody's.
        url: "http://127.0.0.1:1/mcp".to_owned(),
        allow_private: true,
    });
    let rule = Rule {
        servers: vec!["dead".into(), "unseen".into()],
        tools: vec!["*".into()],
        resources: vec!["*".into()],
        ..Rule::default()
    };
    world(url)
        .server_at("acme", "dead", dead.clone())
        .tool("acme", "dead", "echo")
        .define("acme", "dead", DefinitionKind::Resource, &json!({"uri": "dead://a", "name": "a"}))
        .server_at("acme", "unseen", dead)
        .grant("acme", vec![rule], vec![Subject::ServiceAccount("ci".parse().unwrap())])
}

fn listen(path: &str, uris: &[&str]) -> Ask {
    let params = json!({"notifications": {"resourceSubscriptions": uris}});
    Ask::modern(path, "subscriptions/listen", params).token(&token())
}

#[tokio::test]
async fn subscriptions_of_the_joined_endpoint_go_to_the_servers_that_have_them() {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&three(&peer.url)).await;
    let uris = ["test://a", "dead://a", "test://nowhere"];
    let mut stream = proxy.open(listen(PATH, &uris)).await.into_body();
    let text = read_until(&mut stream, "resources/updated").await;
    // The dead server costs its own part only, and what is nobody's is not promised.
    assert!(text.contains(r#""resourceSubscriptions":["test://a"]"#), "{text}");
    assert!(text.contains(r#""io.modelcontextprotocol/subscriptionId":1"#), "{text}");
    assert!(text.contains(r#""uri":"test://a""#), "{text}");
    let asked = peer.seen("subscriptions/listen").remove(0);
    assert_eq!(
        asked.body["params"]["notifications"],
        json!({"resourceSubscriptions": ["test://a"]})
    );
    let bad = json!({"notifications": {"resourceSubscriptions": [1]}});
    let bad = Ask::modern(PATH, "subscriptions/listen", bad).token(&token());
    assert_eq!(proxy.send(bad).await.code(), -32602);
    // Who may not read it is not told of it.
    let params = json!({"notifications": {"resourceSubscriptions": ["test://a"]}});
    let guest = World::token("acme", "guest");
    let ask = Ask::modern(PATH, "subscriptions/listen", params).token(&guest);
    let mut other = proxy.open(ask).await.into_body();
    let text = read_until(&mut other, "acknowledged").await;
    assert!(text.contains(r#""resourceSubscriptions":[]"#), "{text}");
    drop(stream);
    peer.dropped().await;
}

#[tokio::test]
async fn clients_of_older_revisions_hear_of_resources_on_their_stream() {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&three(&peer.url)).await;
    let hello = proxy.send(Ask::initialize(PATH, "2025-06-18").token(&token())).await;
    let session = hello.header("mcp-session-id").unwrap().to_owned();
    let ask = |method: &str, uri: &str| {
        Ask::legacy(PATH, &session, method, &json!({"uri": uri})).token(&token())
    };
    let stream = Ask::bodiless(http::Method::GET, PATH, &session).token(&token());
    let mut stream = proxy.open(stream).await.into_body();
    let answer = proxy.send(ask("resources/subscribe", "test://a")).await;
    assert_eq!(answer.json()["result"], json!({}), "{}", answer.text());
    let text = read_until(&mut stream, "resources/updated").await;
    assert!(text.contains(r#""params":{"uri":"test://a"}"#), "{text}");
    let answer = proxy.send(ask("resources/subscribe", "test://nowhere")).await;
    assert_eq!(answer.code(), -32002, "{}", answer.text());
    let answer = proxy.send(ask("resources/unsubscribe", "test://a")).await;
    assert_eq!(answer.json()["result"], json!({}));
    peer.dropped().await;
}

#[tokio::test]
async fn a_list_says_whose_part_is_missing() {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&three(&peer.url)).await;
    let list = || Ask::modern(PATH, "tools/list", json!({})).token(&token());
    let unavailable = |answer: &Value| answer["result"]["_meta"]["weir/unavailable"].clone();
    let unseen = json!({"server": "unseen", "reason": "unobserved"});
    let answer = proxy.send(list()).await.json();
    assert_eq!(unavailable(&answer), json!([unseen]));
    for _ in 0..5 {
        let call = json!({"name": "dead__echo", "arguments": {}});
        let call = Ask::modern(PATH, "tools/call", call).token(&token());
        assert_eq!(proxy.send(call).await.code(), 50200);
    }
    let answer = proxy.send(list()).await.json();
    let dead = json!({"server": "dead", "reason": "unreachable"});
    assert_eq!(unavailable(&answer), json!([dead, unseen]));
    let names = answer["result"]["tools"].to_string();
    assert!(names.contains("files__echo") && names.contains("dead__echo"), "{names}");
    // Nobody hears of servers that they may not use.
    let guest = Ask::modern(PATH, "tools/list", json!({})).token(&World::token("acme", "guest"));
    assert_eq!(unavailable(&proxy.send(guest).await.json()), Value::Null);
}
