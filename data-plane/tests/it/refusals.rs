//! Every row of the tables of required answers (2026-07-28, Streamable HTTP), and the gateway's
//! own refusals.

use http::Method;
use serde_json::{Value, json};
use weir_model::resource::{Kind, Limit, LimitScope, LimitUnit, Rate, RateUnit, ResourceKey, Spec};
use weir_model::testing::World;

use crate::peer::Peer;
use crate::proxy::{Ask, Proxy};
use crate::{token, world};

const PATH: &str = "/acme/files/mcp";

async fn start() -> (Peer, Proxy) {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&world(&peer.url)).await;
    (peer, proxy)
}

fn list() -> Ask {
    Ask::modern(PATH, "tools/list", json!({})).token(&token())
}

fn echo() -> Ask {
    let params = json!({"name": "echo", "arguments": {}});
    Ask::modern(PATH, "tools/call", params).token(&token())
}

fn modern(method: &str) -> Ask {
    Ask::modern(PATH, method, json!({})).token(&token())
}

/// The same with a changed body.
fn edited(mut ask: Ask, from: &str, to: &str) -> Ask {
    let text = String::from_utf8(ask.body.to_vec()).unwrap();
    assert!(text.contains(from), "{text} has no {from}");
    ask.body = text.replace(from, to).into();
    ask
}

/// What is sent, and the status and code that have to come back.
type Row<'a> = (&'a str, Ask, u16, i64);

/// Sends every row; nothing of it may reach the server.
async fn expect(table: Vec<Row<'_>>) {
    let (peer, proxy) = start().await;
    for (what, ask, status, code) in table {
        let answer = proxy.send(ask).await;
        let got = (answer.status.as_u16(), answer.code());
        assert_eq!(got, (status, code), "{what}: {}", answer.text());
        assert!(answer.header("x-request-id").is_some(), "{what}");
    }
    assert!(peer.seen("tools/call").is_empty());
}

fn raw(body: &str) -> Ask {
    let mut ask = list();
    ask.body = body.to_owned().into();
    ask
}

fn at(path: &str) -> Ask {
    let mut ask = list();
    ask.path = path.to_owned();
    ask
}

#[tokio::test]
async fn headers_must_mirror_the_body() {
    let old = edited(list(), "2026-07-28", "1900-01-01").with("mcp-protocol-version", "1900-01-01");
    let caps = r#""io.modelcontextprotocol/clientCapabilities":{},"#;
    let version = "io.modelcontextprotocol/protocolVersion";
    expect(vec![
        ("no version header", list().without("mcp-protocol-version"), 400, -32020),
        ("older version header", list().with("mcp-protocol-version", "2025-11-25"), 400, -32020),
        ("two version headers", list().header("mcp-protocol-version", "2026-07-28"), 400, -32020),
        ("no Mcp-Method", list().without("mcp-method"), 400, -32020),
        ("wrong Mcp-Method", list().with("mcp-method", "tools/call"), 400, -32020),
        ("two Mcp-Method", list().header("mcp-method", "tools/list"), 400, -32020),
        ("no Mcp-Name", echo().without("mcp-name"), 400, -32020),
        ("wrong Mcp-Name", echo().with("mcp-name", "other"), 400, -32020),
        ("bad Mcp-Name", echo().with("mcp-name", "=?base64?!?="), 400, -32020),
        ("unknown version", old, 400, -32022),
        ("no capabilities", edited(list(), caps, ""), 400, -32602),
        ("no _meta", edited(list(), version, "x/y"), 400, -32602),
    ])
    .await;
}

#[tokio::test]
async fn methods_and_targets_that_are_not_there() {
    expect(vec![
        ("unknown method", modern("tools/destroy"), 404, -32601),
        ("initialize, stateless", modern("initialize"), 404, -32601),
        ("ping, stateless", modern("ping"), 404, -32601),
        ("setLevel, stateless", modern("logging/setLevel"), 404, -32601),
        ("subscribe, stateless", modern("resources/subscribe"), 404, -32601),
        ("unknown tool", edited(echo(), "\"echo\"", "\"no\"").with("mcp-name", "no"), 200, -32602),
        ("no tool name", edited(echo(), "\"name\":\"echo\",", ""), 400, -32602),
        ("unknown group", at("/nobody/mcp"), 404, 40400),
        ("unknown server", at("/acme/none/mcp"), 404, 40400),
        ("no endpoint", at("/acme"), 404, 40400),
    ])
    .await;
}

#[tokio::test]
async fn bodies_that_are_no_message() {
    let deep = format!(r#""arguments":{{"a":{}{}}}"#, "[".repeat(5_000), "]".repeat(5_000));
    let response = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
    let none = r#""arguments":{}"#;
    let twice = r#""arguments":{"a":{"b":1,"b":2}}"#;
    let (name, names) = (r#""name":"echo""#, r#""name":"a","name":"echo""#);
    let (id, methods) = (r#""id":1"#, r#""id":1,"method":"x""#);
    expect(vec![
        ("a response", raw(response), 400, -32600),
        ("a batch", raw(&format!("[{response}]")), 400, -32600),
        ("no JSON", raw("{"), 400, -32700),
        ("a byte order mark", raw("\u{feff}{}"), 400, -32700),
        ("null id", edited(list(), id, r#""id":null"#), 400, -32600),
        ("two methods", edited(list(), id, methods), 400, -32600),
        ("two names", edited(echo(), name, names), 400, -32600),
        ("two keys in the arguments", edited(echo(), none, twice), 400, -32600),
        ("deep nesting", edited(echo(), none, &deep), 400, -32600),
    ])
    .await;
}

#[tokio::test]
async fn requests_that_no_agent_sends() {
    expect(vec![
        ("JSON only", list().with("accept", "application/json"), 406, -32600),
        ("plain text", list().with("content-type", "text/plain"), 415, -32600),
        ("foreign origin", list().header("origin", "https://evil.example"), 403, -32600),
        ("origin null", list().header("origin", "null"), 403, -32600),
        ("foreign host", list().with("host", "evil.example"), 403, -32600),
        ("token in the URL", at("/acme/files/mcp?access_token=x"), 400, -32600),
    ])
    .await;
    let (_peer, proxy) = start().await;
    assert_eq!(proxy.send(list().header("origin", "http://localhost:3000")).await.status, 200);
    let star = list().with("accept", "*/*").with("content-type", "Application/JSON; charset=utf-8");
    assert_eq!(proxy.send(star).await.status, 200);
}

#[tokio::test]
async fn an_unsupported_version_names_the_supported_ones() {
    let (_peer, proxy) = start().await;
    let ask = edited(list(), "2026-07-28", "1900-01-01").with("mcp-protocol-version", "1900-01-01");
    let data = proxy.send(ask).await.json()["error"]["data"].clone();
    assert_eq!(data, json!({"supported": ["2026-07-28"], "requested": "1900-01-01"}));
}

#[tokio::test]
async fn what_stateless_clients_must_not_need() {
    let (_peer, proxy) = start().await;
    let ignored = list().header("mcp-session-id", "made-up").header("last-event-id", "9");
    let answer = proxy.send(ignored).await;
    assert_eq!(answer.status, 200);
    assert!(answer.header("mcp-session-id").is_none());
    for method in [Method::GET, Method::DELETE] {
        let mut ask = list();
        ask.http = method.clone();
        ask.body = "".into();
        let answer = proxy.send(ask).await;
        assert_eq!(answer.status, 405, "{method}");
        assert_eq!(answer.header("allow"), Some("POST"));
    }
    let mut put = list();
    put.http = Method::PUT;
    assert_eq!(proxy.send(put).await.status, 405);
}

#[tokio::test]
async fn notifications_are_taken_leniently() {
    let (_peer, proxy) = start().await;
    let note = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
    let ask = Ask::post(PATH, note).token(&token()).header("mcp-protocol-version", "2026-07-28");
    let answer = proxy.send(ask).await;
    assert_eq!(answer.status, 202);
    assert!(answer.body.is_empty());
}

#[tokio::test]
async fn older_clients_get_errors_in_band() {
    let (_peer, proxy) = start().await;
    let hello = proxy.send(Ask::initialize(PATH, "2025-11-25").token(&token())).await;
    let session = hello.header("mcp-session-id").unwrap().to_owned();
    let ask =
        |method: &str, params: Value| Ask::legacy(PATH, &session, method, &params).token(&token());
    for (method, params, code) in [
        ("tools/call", json!({"name": "no"}), -32602),
        ("tools/call", json!({}), -32602),
        ("server/discover", json!({}), -32601),
        ("nope", json!({}), -32601),
        ("prompts/get", json!({"name": "secret"}), -32602),
        ("tools/list", json!({"cursor": "made-up"}), -32602),
    ] {
        let answer = proxy.send(ask(method, params)).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (200, code), "{method}");
    }
    let version = ask("ping", json!({})).with("mcp-protocol-version", "1999-01-01");
    assert_eq!(proxy.send(version).await.status, 400);
}

#[tokio::test]
async fn callers_without_a_good_token_are_shown_the_way() {
    let (_peer, proxy) = start().await;
    let bare = Ask::modern(PATH, "tools/list", json!({}));
    let answer = proxy.send(bare.clone()).await;
    assert_eq!(answer.status, 401);
    let challenge = answer.header("www-authenticate").unwrap();
    let document = "http://localhost/.well-known/oauth-protected-resource/acme/files/mcp";
    assert!(challenge.contains(&format!("resource_metadata=\"{document}\"")), "{challenge}");
    let answer = proxy.send(bare.clone().token("weir_at_x_y")).await;
    assert_eq!(answer.status, 401);
    assert!(answer.header("www-authenticate").unwrap().contains("invalid_token"));
    let mut get = bare.without("content-type");
    get.http = Method::GET;
    get.path = document.strip_prefix("http://localhost").unwrap().to_owned();
    let answer = proxy.send(get).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["resource"], "http://localhost/acme/files/mcp");
    // A server that the caller may not use is no server.
    let guest = Ask::modern(PATH, "tools/list", json!({})).token(&World::token("acme", "guest"));
    let answer = proxy.send(guest).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (404, 40400));
}

#[tokio::test]
async fn limits_say_when_to_come_back() {
    let peer = Peer::start().await;
    let limit = Limit {
        per: LimitScope::Principal,
        servers: vec![],
        tools: vec!["echo".into()],
        rate: Some(Rate { calls: 1, per: RateUnit::Minute, burst: None }),
        concurrency: None,
        quota: None,
        count: LimitUnit::Calls,
    };
    let key = ResourceKey::grouped(Kind::Limit, &"acme".parse().unwrap(), "slow");
    let proxy = Proxy::start(&world(&peer.url).put(key, Spec::Limit(limit))).await;
    assert_eq!(proxy.send(echo()).await.status, 200);
    let answer = proxy.send(echo()).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (429, 42900));
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait));
    assert_eq!(answer.json()["error"]["data"]["retryAfterSecs"], wait);
    assert_eq!(proxy.send(list()).await.status, 200, "lists are not concerned");
}

#[tokio::test]
async fn servers_that_do_not_answer_are_told_apart_without_internals() {
    let peer = Peer::start().await;
    let slow =
        world(&peer.url).server_with("acme", "files", |s| s.versions[0].timeout_ms = Some(300));
    let proxy = Proxy::start(&slow).await;
    let hang = Ask::modern(PATH, "tools/call", json!({"name": "hang", "arguments": {}}));
    let answer = proxy.send(hang.token(&token())).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (504, 50400), "{}", answer.text());
    let dead = Proxy::start(&world("http://127.0.0.1:1/mcp")).await;
    let answer = dead.send(echo()).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (502, 50200));
    assert!(!answer.text().contains("127.0.0.1") && !answer.text().contains("os error"));
}

#[tokio::test]
async fn broken_configuration_closes_what_it_concerns() {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&World::default()).await;
    let answer = proxy.send(list()).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (404, 40400));
    let stale = world(&peer.url).group_with("acme", |g| g.stale_after_secs = Some(1));
    let proxy = Proxy::start(&stale).await;
    assert_eq!(proxy.send(list()).await.status, 200);
    let refused = async || proxy.send(list()).await.status == 503;
    assert!(weir_runtime::testing::eventually(crate::proxy::PATIENCE, refused).await);
    let answer = proxy.send(list()).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (503, 50304));
}
