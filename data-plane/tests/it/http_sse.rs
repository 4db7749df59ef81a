//! Clients of 2024-11-05: one stream, and POSTs to the URL that it names.

use http::Method;
use hyper::body::Incoming;
use serde_json::{Value, json};
use weir_model::testing::World;
use weir_runtime::testing::{Ca, eventually};

use crate::peer::{Peer, SESSION};
use crate::proxy::{Ask, PATIENCE, Proxy, messages, read_until};
use crate::{token, world};

const PATH: &str = "/acme/files/sse";

/// A client: its stream, and where it says things.
struct Client {
    stream: Incoming,
    url: String,
    heard: String,
}

fn get(path: &str) -> Ask {
    let mut ask = Ask::post(path, "").without("content-type").with("accept", "text/event-stream");
    ask.http = Method::GET;
    ask.token(&token())
}

impl Client {
    async fn connect(proxy: &Proxy, path: &str) -> Self {
        let response = proxy.open(get(path)).await;
        assert_eq!(response.status(), 200);
        let mut stream = response.into_body();
        let heard = read_until(&mut stream, "\n\n").await;
        let data =
            heard.strip_prefix("event: endpoint\ndata: ").unwrap_or_else(|| panic!("{heard}"));
        Self { stream, url: data.trim().to_owned(), heard: String::new() }
    }

    /// A client that has shaken hands.
    async fn open(proxy: &Proxy, path: &str) -> Self {
        let mut client = Self::connect(proxy, path).await;
        let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": "2024-11-05", "capabilities": {"sampling": {}},
            "clientInfo": {"name": "old", "version": "1"}}});
        assert_eq!(client.say(proxy, &hello).await, 202);
        let answer = client.hear("serverInfo").await;
        assert_eq!(answer["result"]["protocolVersion"], "2024-11-05");
        let note = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        assert_eq!(client.say(proxy, &note).await, 202);
        client
    }

    fn post(&self, message: &Value) -> Ask {
        Ask::post(&self.url, message.to_string()).without("accept").token(&token())
    }

    async fn say(&self, proxy: &Proxy, message: &Value) -> u16 {
        let answer = proxy.send(self.post(message)).await;
        if answer.status == 202 {
            assert!(answer.header("mcp-session-id").is_none());
        }
        answer.status.as_u16()
    }

    /// The first message, of those not heard before, that contains something.
    async fn hear(&mut self, needle: &str) -> Value {
        loop {
            let all = messages(self.heard.rsplit_once("\n\n").map_or("", |(whole, _)| whole));
            if let Some(found) = all.into_iter().find(|m| m.to_string().contains(needle)) {
                return found;
            }
            self.heard += &read_until(&mut self.stream, "\n\n").await;
        }
    }

    async fn call(&mut self, proxy: &Proxy, id: u32, tool: &str, arguments: Value) -> Value {
        let params = json!({"name": tool, "arguments": arguments,
            "_meta": {"progressToken": "t"}});
        let call = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params});
        assert_eq!(self.say(proxy, &call).await, 202);
        self.hear(&format!(r#""id":{id},"#)).await
    }
}

#[tokio::test]
async fn everything_is_answered_on_the_one_stream() {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&world(&peer.url)).await;
    let mut client = Client::open(&proxy, PATH).await;
    let answer = client.call(&proxy, 1, "echo", json!({"a": 1})).await;
    assert_eq!(answer["result"]["structuredContent"], json!({"a": 1}));
    assert_eq!(peer.seen("tools/call")[0].header("mcp-session-id"), Some(SESSION));
    let done = client.call(&proxy, 2, "progress", json!({})).await;
    assert!(done["result"]["content"].is_array());
    client.hear("notifications/progress").await;
    // What the server pushes comes too.
    client.hear("notifications/tools/list_changed").await;
    // A question of the server, and the answer.
    let ask = json!({"jsonrpc": "2.0", "id": 3, "method": "tools/call",
        "params": {"name": "ask", "arguments": {}}});
    assert_eq!(client.say(&proxy, &ask).await, 202);
    client.hear("elicitation/create").await;
    let said = json!({"jsonrpc": "2.0", "id": "q-1", "result": {"action": "accept"}});
    assert_eq!(client.say(&proxy, &said).await, 202);
    let answer = client.hear(r#""id":3,"#).await;
    assert_eq!(answer["result"]["structuredContent"]["action"], "accept");
    let unknown = json!({"jsonrpc": "2.0", "id": 4, "method": "nope"});
    assert_eq!(client.say(&proxy, &unknown).await, 202);
    assert_eq!(client.hear(r#""id":4,"#).await["error"]["code"], -32601);
    assert!(!client.heard.contains("id: "), "such clients know no event ids: {}", client.heard);
    let told = async || {
        let records: Vec<Value> = proxy
            .log
            .records()
            .iter()
            .map(|r| serde_json::from_slice(r.bytes()).unwrap())
            .collect();
        records.iter().filter(|r| r.to_string().contains("tools/call")).count() == 3
    };
    assert!(eventually(PATIENCE, told).await, "one record of each call");
}

#[tokio::test]
async fn the_joined_endpoint_and_the_mcp_url_speak_it_too() {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&world(&peer.url)).await;
    for path in ["/acme/sse", "/acme/mcp"] {
        let mut client = Client::open(&proxy, path).await;
        let answer = client.call(&proxy, 1, "files__echo", json!({"b": 2})).await;
        assert_eq!(answer["result"]["structuredContent"], json!({"b": 2}), "{path}");
        let list = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"});
        client.say(&proxy, &list).await;
        assert!(client.hear(r#""id":2,"#).await["result"]["tools"].is_array());
    }
    // Newer clients that were given the older URL.
    let hello = proxy.send(Ask::initialize("/acme/sse", "2025-11-25").token(&token())).await;
    assert_eq!(hello.status, 200);
    let list = Ask::modern("/acme/sse", "tools/list", json!({})).token(&token());
    assert_eq!(proxy.send(list).await.status, 200);
}

#[tokio::test]
async fn posts_reach_the_stream_from_another_proxy() {
    let peer = Peer::start().await;
    let (world, ca) = (world(&peer.url), Ca::new("weir"));
    let a = Proxy::node(&world, &ca, "a", |_| ()).await;
    let b = Proxy::node(&world, &ca, "b", |_| ()).await;
    let mut client = Client::connect(&a, PATH).await;
    let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": "2024-11-05", "capabilities": {},
        "clientInfo": {"name": "old", "version": "1"}}});
    assert_eq!(client.say(&b, &hello).await, 202);
    client.hear("serverInfo").await;
    let note = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    assert_eq!(client.say(&b, &note).await, 202);
    for (id, proxy) in [(1, &a), (2, &b), (3, &a)] {
        let answer = client.call(proxy, id, "echo", json!({"n": id})).await;
        assert_eq!(answer["result"]["structuredContent"]["n"], id);
    }
    // A cancellation that arrives elsewhere finds its call.
    let hang = json!({"jsonrpc": "2.0", "id": 9, "method": "tools/call",
        "params": {"name": "hang", "arguments": {}}});
    assert_eq!(client.say(&a, &hang).await, 202);
    let seen = async || peer.seen("tools/call").len() == 4;
    assert!(eventually(PATIENCE, seen).await);
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled",
        "params": {"requestId": 9}});
    assert_eq!(client.say(&b, &cancel).await, 202);
    peer.dropped().await;
    assert!(b.log.records().is_empty(), "each message has its record at the proxy that ran it");
}

#[tokio::test]
async fn leaving_ends_calls_and_the_session() {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&world(&peer.url)).await;
    let client = Client::open(&proxy, PATH).await;
    let hang = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "hang", "arguments": {}}});
    assert_eq!(client.say(&proxy, &hang).await, 202);
    let seen = async || !peer.seen("tools/call").is_empty();
    assert!(eventually(PATIENCE, seen).await);
    let late = client.post(&hang);
    drop(client);
    peer.dropped().await;
    let ended = async || peer.all().iter().any(|s| s.http == Method::DELETE);
    assert!(eventually(PATIENCE, ended).await);
    let gone = async || proxy.send(late.clone()).await.status == 404;
    assert!(eventually(PATIENCE, gone).await);
}

#[tokio::test]
async fn posts_that_are_refused() {
    let peer = Peer::start().await;
    let other = World::token("acme", "other");
    let world = world(&peer.url).account("acme", "other").allow("acme", "other", "files", "echo");
    let proxy = Proxy::start(&world).await;
    let client = Client::open(&proxy, PATH).await;
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    let good = client.post(&ping);
    let at = |path: String| Ask { path, ..good.clone() };
    let raw = |body: &'static str| Ask { body: body.into(), ..good.clone() };
    let anonymous = good.clone().without("authorization");
    let table = [
        ("another caller", anonymous.clone().token(&other), 404, -32600),
        ("nobody", anonymous, 401, 40100),
        ("forged", at(format!("{}x", client.url)), 404, -32600),
        ("another endpoint", at(client.url.replace("/files/", "/")), 404, -32600),
        ("no JSON", raw("{"), 400, -32700),
        ("null id", raw(r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#), 400, -32600),
        ("a batch", raw("[]"), 400, -32600),
        ("plain text", good.clone().with("content-type", "text/plain"), 415, -32600),
        ("foreign origin", good.clone().header("origin", "https://evil.example"), 403, -32600),
    ];
    for (what, ask, status, code) in table {
        let answer = proxy.send(ask).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (status, code), "{what}");
    }
    let table = [
        ("no token", get(PATH).without("authorization"), 401),
        ("not a stream", get(PATH).with("accept", "text/html"), 406),
        ("unknown server", get("/acme/none/sse"), 404),
        ("no such group", get("/none/sse"), 404),
    ];
    for (what, ask, status) in table {
        assert_eq!(proxy.send(ask).await.status.as_u16(), status, "{what}");
    }
}

#[tokio::test]
async fn the_stream_ends_with_the_right_to_it() {
    let peer = Peer::start().await;
    let world = world(&peer.url);
    let proxy = Proxy::start(&world).await;
    let client = Client::open(&proxy, PATH).await;
    proxy.apply(&world.without("RoleBinding/acme/grant-1"));
    let rest = http_body_util::BodyExt::collect(client.stream);
    tokio::time::timeout(PATIENCE, rest).await.expect("it ends").unwrap();
}
