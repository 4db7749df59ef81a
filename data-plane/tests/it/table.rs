//! The table of required answers of 2026-07-28 (Streamable HTTP, server side), row by row, and
//! what peers and networks do that is no row of it.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use weir_model::testing::World;
use weir_runtime::testing::eventually;

use crate::peer::Peer;
use crate::proxy::{Answer, Ask, PATIENCE, Proxy, read_until};
use crate::{token, world};

const PATH: &str = "/acme/files/mcp";

fn request(method: &str, params: Value) -> Ask {
    Ask::modern(PATH, method, params).token(&token())
}

fn list() -> Ask {
    request("tools/list", json!({}))
}

fn call(tool: &str) -> Ask {
    request("tools/call", json!({"name": tool, "arguments": {}, "_meta": {"progressToken": "t"}}))
}

fn raw(body: &str) -> Ask {
    let mut ask = list();
    ask.body = body.to_owned().into();
    ask
}

fn edited(mut ask: Ask, from: &str, to: &str) -> Ask {
    let text = String::from_utf8(ask.body.to_vec()).unwrap();
    assert!(text.contains(from), "{text} has no {from}");
    ask.body = text.replacen(from, to, 1).into();
    ask
}

fn bodiless(method: Method) -> Ask {
    let mut ask = raw("").without("content-type");
    ask.http = method;
    ask
}

/// What has to come back.
#[derive(Clone, Copy)]
enum Told {
    /// A result as one JSON body.
    Json,
    /// A result as the last event of a stream.
    Stream,
    /// 202 without a body.
    Accepted,
    /// That status, with a JSON-RPC error of that code.
    Error(u16, i64),
}

fn check(what: &str, told: Told, answer: &Answer) {
    let status = answer.status.as_u16();
    let kind = answer.header("content-type").unwrap_or_default();
    assert!(answer.header("x-request-id").is_some(), "{what}");
    assert!(answer.header("mcp-session-id").is_none(), "{what}: never minted, never echoed");
    match told {
        Told::Json => {
            assert_eq!((status, kind), (200, "application/json"), "{what}: {}", answer.text());
            assert!(answer.json()["result"]["resultType"].is_string(), "{what}");
        }
        Told::Stream => {
            assert_eq!((status, answer.header("x-accel-buffering")), (200, Some("no")), "{what}");
            let last = answer.events().pop().unwrap();
            assert_eq!(last["result"]["resultType"], "complete", "{what}");
        }
        Told::Accepted => assert_eq!((status, answer.text()), (202, ""), "{what}"),
        Told::Error(expected, code) => {
            assert_eq!((status, answer.code()), (expected, code), "{what}: {}", answer.text());
            assert_eq!(kind, "application/json", "{what}");
        }
    }
}

#[tokio::test]
async fn every_row_of_the_table_of_required_answers() {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&world(&peer.url)).await;
    let note = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":9}}"#;
    let bare = Ask::post(PATH, note).token(&token());
    let version = "io.modelcontextprotocol/protocolVersion";
    let caps = r#""io.modelcontextprotocol/clientCapabilities":{},"#;
    let old = edited(list(), "2026-07-28", "1900-01-01").with("mcp-protocol-version", "1900-01-01");
    let task = |caps: Value| {
        request(
            "tasks/get",
            json!({"taskId": "t-1",
            "_meta": {"io.modelcontextprotocol/clientCapabilities": caps}}),
        )
        .header("mcp-name", "t-1")
    };
    let mut table: Vec<(&str, Ask, Told)> = vec![
        ("POST request, one object", list(), Told::Json),
        ("POST request, a stream", call("progress"), Told::Stream),
        (
            "POST notification",
            bare.clone().header("mcp-protocol-version", "2026-07-28"),
            Told::Accepted,
        ),
        (
            "POST notification that says no version",
            bare.clone().header("mcp-session-id", "x").with("mcp-protocol-version", "2026-07-28"),
            Told::Accepted,
        ),
        ("POST response", raw(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#), Told::Error(400, -32600)),
        ("POST batch", raw(&format!("[{note}]")), Told::Error(400, -32600)),
        (
            "POST batch of a request",
            raw(r#"[{"jsonrpc":"2.0","id":1,"method":"tools/list"}]"#),
            Told::Error(400, -32600),
        ),
        ("POST malformed", raw("{"), Told::Error(400, -32700)),
        ("GET", bodiless(Method::GET), Told::Error(405, -32600)),
        ("DELETE", bodiless(Method::DELETE), Told::Error(405, -32600)),
        ("Mcp-Session-Id present", list().header("mcp-session-id", "made-up"), Told::Json),
        ("Last-Event-ID present", list().header("last-event-id", "7"), Told::Json),
        (
            "Origin not allowed",
            list().header("origin", "https://evil.example"),
            Told::Error(403, -32600),
        ),
        ("Origin null", list().header("origin", "null"), Told::Error(403, -32600)),
        (
            "two Origins",
            list().header("origin", "http://localhost").header("origin", "http://localhost"),
            Told::Error(403, -32600),
        ),
        ("Origin allowed", list().header("origin", "http://localhost:3000"), Told::Json),
        (
            "no MCP-Protocol-Version",
            list().without("mcp-protocol-version"),
            Told::Error(400, -32020),
        ),
        (
            "two MCP-Protocol-Version",
            list().header("mcp-protocol-version", "2026-07-28"),
            Told::Error(400, -32020),
        ),
        (
            "MCP-Protocol-Version differs",
            list().with("mcp-protocol-version", "2025-11-25"),
            Told::Error(400, -32020),
        ),
        ("no Mcp-Method", list().without("mcp-method"), Told::Error(400, -32020)),
        ("Mcp-Method differs", list().with("mcp-method", "tools/call"), Told::Error(400, -32020)),
        (
            "Mcp-Method in another case",
            list().with("mcp-method", "Tools/List"),
            Told::Error(400, -32020),
        ),
        ("no Mcp-Name", call("echo").without("mcp-name"), Told::Error(400, -32020)),
        ("Mcp-Name differs", call("echo").with("mcp-name", "fail"), Told::Error(400, -32020)),
        (
            "malformed Mcp-Name",
            call("echo").with("mcp-name", "=?base64?!!?="),
            Told::Error(400, -32020),
        ),
        ("encoded Mcp-Name", call("echo").with("mcp-name", "=?base64?ZWNobw==?="), Told::Json),
        ("padded Mcp-Name", call("echo").with("mcp-name", " echo\t"), Told::Json),
        ("a version that nobody has", old, Told::Error(400, -32022)),
        (
            "an older version in stateless form",
            edited(list(), "2026-07-28", "2025-11-25").with("mcp-protocol-version", "2025-11-25"),
            Told::Error(400, -32022),
        ),
        ("method unknown", request("tools/destroy", json!({})), Told::Error(404, -32601)),
        ("no protocolVersion in _meta", edited(list(), version, "x/y"), Told::Error(400, -32602)),
        ("no clientCapabilities in _meta", edited(list(), caps, ""), Told::Error(400, -32602)),
        (
            "clientCapabilities no object",
            edited(
                list(),
                &caps[..caps.len() - 1],
                r#""io.modelcontextprotocol/clientCapabilities":7"#,
            ),
            Told::Error(400, -32602),
        ),
        (
            "bad logLevel",
            request("tools/list", json!({"_meta": {"io.modelcontextprotocol/logLevel": "loud"}})),
            Told::Error(400, -32602),
        ),
        ("client capability missing", task(json!({})), Told::Error(400, -32021)),
        ("unknown tool", call("no"), Told::Error(200, -32602)),
        (
            "resource not found",
            request("resources/read", json!({"uri": "test://t/gone"})),
            Told::Error(200, -32602),
        ),
        (
            "bad cursor",
            request("tools/list", json!({"cursor": "made-up"})),
            Told::Error(400, -32602),
        ),
    ];
    for removed in [
        "initialize",
        "ping",
        "logging/setLevel",
        "resources/subscribe",
        "resources/unsubscribe",
        "tasks/list",
        "tasks/result",
    ] {
        let params = json!({"level": "info", "uri": "test://a", "taskId": "t"});
        table.push((removed, request(removed, params), Told::Error(404, -32601)));
    }
    for (what, ask, told) in table {
        check(what, told, &proxy.send(ask).await);
    }
    let version = raw(r#"{"jsonrpc":"2.0","id":1,"method":"x"}"#).with("mcp-protocol-version", "1");
    let supported = proxy.send(version).await.json()["error"]["data"]["supported"].clone();
    assert_eq!(supported.as_array().unwrap().len(), 5, "{supported}");
    let missing = proxy.send(task(json!({}))).await.json()["error"]["data"].clone();
    let extension = "io.modelcontextprotocol/tasks";
    assert_eq!(missing, json!({"requiredCapabilities": {"extensions": {extension: {}}}}));
    let declared = proxy.send(task(json!({"extensions": {extension: {}}}))).await;
    assert_eq!(declared.code(), -32601, "asked of the server, which has none: {}", declared.text());
}

#[tokio::test]
async fn what_nobody_here_knows_survives_the_trip() {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&world(&peer.url)).await;
    let caps = json!({"elicitation": {"form": {}, "x-new": [1.0]}, "telepathy": {"range": 7},
        "extensions": {"io.modelcontextprotocol/ui": {"mimeTypes": ["a/b"]}, "com.evil/x": {}}});
    let meta = json!({"com.acme/trace": {"deep": [1.10, null]}, "baggage": "a=b",
        "io.modelcontextprotocol/clientCapabilities": caps});
    let params =
        json!({"name": "echo", "arguments": {}, "x-unknown": [ {"y": null} ], "_meta": meta});
    let answer = proxy.send(request("tools/call", params)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let sent = peer.seen("tools/call").remove(0).body["params"].clone();
    assert_eq!(sent["x-unknown"], json!([{"y": null}]));
    assert_eq!(sent["_meta"]["com.acme/trace"], json!({"deep": [1.10, null]}));
    assert_eq!(sent["_meta"]["baggage"], "a=b");
    let told = &sent["_meta"]["io.modelcontextprotocol/clientCapabilities"];
    assert_eq!(told["telepathy"], json!({"range": 7}));
    assert_eq!(told["elicitation"]["x-new"], json!([1.0]));
    let extensions = told["extensions"].as_object().unwrap();
    assert_eq!(extensions.keys().collect::<Vec<_>>(), ["io.modelcontextprotocol/ui"]);
    // The operator's own list.
    let mut world = world(&peer.url);
    world = world.group_with("acme", |group| {
        group.extensions = serde_json::from_value(json!([
            {"id": "com.evil/x", "methods": ["evil/do"]}
        ]))
        .unwrap();
    });
    proxy.apply(&world);
    let params = json!({"name": "echo", "arguments": {}, "_meta": {
        "io.modelcontextprotocol/clientCapabilities": {"extensions": {"com.evil/x": {"a": 1}}}}});
    assert_eq!(proxy.send(request("tools/call", params)).await.status, 200);
    let sent = peer.seen("tools/call").pop().unwrap().body["params"].clone();
    let told = &sent["_meta"]["io.modelcontextprotocol/clientCapabilities"];
    assert_eq!(told["extensions"], json!({"com.evil/x": {"a": 1}}));
    assert_eq!(proxy.send(request("evil/do", json!({"q": 1}))).await.code(), -32601);
    assert_eq!(peer.seen("evil/do")[0].body["params"]["q"], 1, "relayed");
    assert_eq!(proxy.send(request("evil/other", json!({}))).await.status, 404);
    assert!(peer.seen("evil/other").is_empty());
    let joined = Ask::modern("/acme/mcp", "evil/do", json!({})).token(&token());
    assert_eq!(proxy.send(joined).await.status, 404, "no server to ask");
    assert_eq!(peer.seen("evil/do").len(), 1);
}

// === peers and networks that misbehave ===

#[tokio::test]
async fn an_unknown_revision_is_negotiated_down() {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&world(&peer.url)).await;
    for (asked, path) in
        [("2099-01-01", "/acme/mcp"), ("2026-07-28", "/acme/mcp"), ("x", "/acme/mcp")]
    {
        let answer = proxy.send(Ask::initialize(path, asked).token(&token())).await;
        assert_eq!(answer.json()["result"]["protocolVersion"], "2025-11-25", "{asked}");
    }
}

#[tokio::test]
async fn tokens_that_are_no_good_are_told_how_to_get_one() {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&world(&peer.url)).await;
    let bare = Ask::modern(PATH, "tools/list", json!({}));
    // Without a signature, made by nobody, cut off, of another group.
    let none = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.";
    let foreign =
        "eyJhbGciOiJSUzI1NiIsImtpZCI6ImEifQ.eyJpc3MiOiJodHRwczovL2V2aWwuZXhhbXBsZSJ9.AAAA";
    let other = World::token("other", "ci");
    for bad in [none, foreign, "a.b", "weir_at_x_y", &other] {
        let answer = proxy.send(bare.clone().token(bad)).await;
        assert_eq!(answer.status, 401, "{bad}");
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(challenge.contains("invalid_token") && challenge.contains("resource_metadata="));
        assert!(!answer.text().contains(bad), "not told back");
    }
}

#[tokio::test]
async fn half_open_connections_do_not_stand_in_the_way() {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&world(&peer.url)).await;
    let mut half = Vec::new();
    for at in 0..300 {
        let mut socket = TcpStream::connect(proxy.address).await.unwrap();
        if at % 2 == 0 {
            socket
                .write_all(b"POST /acme/files/mcp HTTP/1.1\r\nHost: localhost\r\n")
                .await
                .unwrap();
        }
        half.push(socket);
    }
    assert_eq!(proxy.send(call("echo")).await.status, 200);
    // All of them are cut, none is answered.
    let cut = async {
        let mut rest = Vec::new();
        for socket in &mut half {
            socket.read_to_end(&mut rest).await.unwrap();
        }
        rest
    };
    let rest = tokio::time::timeout(Duration::from_secs(60), cut).await.expect("they are cut");
    assert_eq!(rest, b"");
}

/// Looks in a row at which nothing more was written, for a server that is held back.
const STILL_LOOKS: usize = 20;

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_nobody_and_is_let_go() {
    let peer = Peer::start().await;
    let proxy = Proxy::with(&world(&peer.url), |s| s.listen.resume_ms = 100).await;
    let hello = proxy.send(Ask::initialize(PATH, "2025-11-25").token(&token())).await;
    let session = hello.header("mcp-session-id").unwrap().to_owned();
    let params = json!({"name": "flood", "arguments": {}});
    let ask = Ask::legacy(PATH, &session, "tools/call", &params).token(&token());
    let mut stuck = proxy.open(ask).await.into_body();
    read_until(&mut stuck, "flood").await;
    // The server is held back: it cannot write what nobody takes.
    let (mut before, mut looks) = (0, 0);
    let still = async || {
        let now = peer.flooded();
        looks = if now == before && now > 0 { looks + 1 } else { 0 };
        before = now;
        looks >= STILL_LOOKS
    };
    assert!(eventually(PATIENCE, still).await, "{} events", peer.flooded());
    assert!(peer.flooded() < 100_000, "{}", peer.flooded());
    assert_eq!(proxy.send(call("echo")).await.status, 200);
    drop(stuck);
    peer.dropped().await;
}

/// A way to a server on which calls of the tool `die` end in the middle of their answer.
async fn breaking(url: &str) -> String {
    let server = url.strip_prefix("http://").and_then(|u| u.strip_suffix("/mcp")).unwrap();
    let server = server.to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = format!("http://{}/mcp", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = TcpStream::connect(&server).await.unwrap();
            tokio::spawn(async move {
                let (mut up, mut down) = ([0; 65536], [0; 65536]);
                loop {
                    tokio::select! {
                        n = client.read(&mut up) => match n {
                            Ok(n) if n > 0 && String::from_utf8_lossy(&up[..n]).contains("die") => {
                                let part = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
                                    content-length: 1000\r\n\r\n{\"jsonrpc\":";
                                let _ = client.write_all(part).await;
                                return;
                            }
                            Ok(n) if n > 0 => server.write_all(&up[..n]).await.unwrap(),
                            _ => return,
                        },
                        n = server.read(&mut down) => match n {
                            Ok(n) if n > 0 => client.write_all(&down[..n]).await.unwrap(),
                            _ => return,
                        },
                    }
                }
            });
        }
    });
    own
}

#[tokio::test]
async fn a_server_that_dies_half_way_is_told_without_internals() {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&world(&breaking(&peer.url).await)).await;
    assert_eq!(proxy.send(call("echo")).await.status, 200);
    let answer = proxy.send(call("die")).await;
    let text = answer.text();
    assert_eq!((answer.status.as_u16(), answer.code()), (502, 50201), "{text}");
    for internal in ["127.0.0.1", "hyper", "os error", "body", "panicked", "jsonrpc\\"] {
        assert!(!text.contains(internal), "{internal}: {text}");
    }
    assert_eq!(proxy.send(call("echo")).await.status, 200, "the next call is served");
}
