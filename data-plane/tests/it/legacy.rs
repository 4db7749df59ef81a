//! Clients with a handshake, on the endpoint of one server.

use http::Method;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::peer::{Peer, SESSION};
use crate::proxy::{Answer, Ask, Proxy, read_until};
use crate::{token, world};
use weir_model::testing::World;

const PATH: &str = "/acme/files/mcp";

async fn start() -> (Peer, Proxy, String) {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&world(&peer.url)).await;
    let answer = proxy.send(Ask::initialize(PATH, "2025-11-25").token(&token())).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let session = answer.header("mcp-session-id").unwrap().to_owned();
    (peer, proxy, session)
}

fn ask(session: &str, method: &str, params: &Value) -> Ask {
    Ask::legacy(PATH, session, method, params).token(&token())
}

#[tokio::test]
async fn the_servers_own_handshake_passes_through() {
    let (peer, proxy, session) = start().await;
    let answer = proxy.send(Ask::initialize(PATH, "2025-06-18").token(&token())).await;
    assert!(answer.text().contains(r#""x-own":1.0"#), "{}", answer.text());
    assert_eq!(answer.json()["result"]["protocolVersion"], "2025-06-18");
    assert!(!session.contains(SESSION), "the server's session is sealed");
    let note = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    let note = Ask::post(PATH, note.to_string()).header("mcp-session-id", &session).token(&token());
    assert_eq!(proxy.send(note).await.status, 202);
    let seen = peer.seen("notifications/initialized").remove(0);
    assert_eq!(seen.header("mcp-session-id"), Some(SESSION));
}

#[tokio::test]
async fn calls_run_in_the_servers_session() {
    let (peer, proxy, session) = start().await;
    let call = ask(&session, "tools/call", &json!({"name": "echo", "arguments": {"a": 1}}));
    let answer = proxy.send(call).await;
    assert_eq!(answer.json()["result"]["structuredContent"], json!({"a": 1}));
    assert_eq!(peer.seen("tools/call")[0].header("mcp-session-id"), Some(SESSION));
    let ping = proxy.send(ask(&session, "ping", &json!({}))).await;
    assert_eq!(ping.json()["result"], json!({}));
    let level = proxy.send(ask(&session, "logging/setLevel", &json!({"level": "info"}))).await;
    assert_eq!(level.json()["result"], json!({}));
    let list = proxy.send(ask(&session, "tools/list", &json!({}))).await;
    assert!(list.json()["result"].get("ttlMs").is_none());
    let read = proxy.send(ask(&session, "resources/read", &json!({"uri": "test://t/gone"}))).await;
    assert_eq!((read.status.as_u16(), read.code()), (200, -32002));
}

#[tokio::test]
async fn a_session_goes_on_on_whichever_thread() {
    let peer = Peer::start().await;
    let proxy = Proxy::with(&world(&peer.url), |settings| settings.lanes = 2).await;
    let answer = proxy.send(Ask::initialize(PATH, "2025-11-25").token(&token())).await;
    let session = answer.header("mcp-session-id").unwrap().to_owned();
    // They stay open, so that calls come to one thread and the other.
    let mut held = Vec::new();
    for turn in 0..6 {
        held.push(TcpStream::connect(proxy.address).await.unwrap());
        let call = ask(&session, "tools/call", &json!({"name": "echo", "arguments": {"a": turn}}));
        let answer = proxy.send(call).await;
        assert_eq!(answer.json()["result"]["structuredContent"], json!({"a": turn}));
    }
    let calls = peer.seen("tools/call");
    assert_eq!(calls.len(), 6);
    assert!(calls.iter().all(|call| call.header("mcp-session-id") == Some(SESSION)));
    drop(held);
    proxy.drain.signal();
    proxy.served.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_server_asks_the_client_and_gets_its_answer() {
    let (peer, proxy, session) = start().await;
    let call = ask(&session, "tools/call", &json!({"name": "ask", "arguments": {}}));
    let mut body = proxy.open(call).await.into_body();
    let text = read_until(&mut body, "elicitation/create").await;
    assert!(text.contains(r#""id":"q-1""#), "{text}");
    let said = json!({"jsonrpc": "2.0", "id": "q-1", "result": {"action": "accept"}});
    let said = Ask::post(PATH, said.to_string()).header("mcp-session-id", &session).token(&token());
    assert_eq!(proxy.send(said).await.status, 202);
    let text = read_until(&mut body, "structuredContent").await;
    assert!(text.contains(r#"{"action":"accept"}"#), "{text}");
    assert!(peer.all().iter().any(|s| s.body["result"]["action"] == "accept"));
}

#[tokio::test]
async fn priming_events_and_the_push_stream_pass() {
    let (_peer, proxy, session) = start().await;
    let call = ask(&session, "tools/call", &json!({"name": "prime", "arguments": {}}));
    let answer = proxy.send(call).await;
    assert!(answer.text().contains("retry: 250\n"), "{}", answer.text());
    let stream = Ask::bodiless(Method::GET, PATH, &session).token(&token());
    let mut body = proxy.open(stream).await.into_body();
    read_until(&mut body, "list_changed").await;
}

#[tokio::test]
async fn a_deleted_session_is_unknown() {
    let (peer, proxy, session) = start().await;
    let delete = Ask::bodiless(Method::DELETE, PATH, &session).token(&token());
    assert_eq!(proxy.send(delete.clone()).await.status, 204);
    assert!(peer.all().iter().any(|s| s.http == Method::DELETE));
    assert_eq!(proxy.send(delete).await.status, 404);
    assert_eq!(proxy.send(ask(&session, "ping", &json!({}))).await.status, 404);
}

#[tokio::test]
async fn sessions_are_bound_to_their_callers() {
    let peer = Peer::start().await;
    let other = World::token("acme", "other");
    let world = world(&peer.url).account("acme", "other").allow("acme", "other", "files", "echo");
    let proxy = Proxy::start(&world).await;
    let answer = proxy.send(Ask::initialize(PATH, "2025-11-25").token(&token())).await;
    let session = answer.header("mcp-session-id").unwrap().to_owned();
    let ping = |session: &str, path: &str| Ask::legacy(path, session, "ping", &json!({}));
    let status = async |ask: Ask| proxy.send(ask).await.status.as_u16();
    assert_eq!(status(ping(&session, PATH).token(&token())).await, 200);
    assert_eq!(status(ping(&session, PATH).token(&other)).await, 404);
    assert_eq!(status(ping(&session, "/acme/mcp").token(&token())).await, 404);
    assert_eq!(status(ping(&session[1..], PATH).token(&token())).await, 404);
    assert_eq!(status(ping("made-up", PATH).token(&token())).await, 404);
    assert_eq!(status(ping(&session, PATH)).await, 401);
    let without = ping(&session, PATH).token(&token()).without("mcp-session-id");
    assert_eq!(status(without).await, 400);
}

#[tokio::test]
async fn cancelling_by_notification_cancels_upstream() {
    let (peer, proxy, session) = start().await;
    let call = ask(&session, "tools/call", &json!({"name": "hang", "arguments": {}}));
    let running = async { proxy.send(call).await };
    let cancel = async {
        let seen = async || !peer.seen("tools/call").is_empty();
        assert!(weir_runtime::testing::eventually(crate::proxy::PATIENCE, seen).await);
        let note = json!({"jsonrpc": "2.0", "method": "notifications/cancelled",
            "params": {"requestId": 1}});
        let note =
            Ask::post(PATH, note.to_string()).header("mcp-session-id", &session).token(&token());
        assert_eq!(proxy.send(note).await.status, 202);
    };
    let (answer, ()): (Answer, ()) = tokio::join!(running, cancel);
    assert_eq!((answer.status.as_u16(), answer.code()), (200, 49900));
    assert!(!peer.seen("notifications/cancelled").is_empty());
}
