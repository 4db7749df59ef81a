//! Calls to servers with a handshake.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::{Channel, testing};
use super::fake::{Asked, Fake, Reply, event, rpc_result};
use super::*;

/// A legacy server with sessions `s1`, `s2`, ...; other methods answer as given.
pub(super) async fn server(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Fake {
    let sessions = AtomicUsize::new(0);
    Fake::start(move |asked| {
        let session = asked.header("mcp-session-id");
        match (asked.rpc(), asked.method.as_str()) {
            ("initialize", _) => {
                let number = sessions.fetch_add(1, Ordering::SeqCst) + 1;
                let revision = &asked.body["params"]["protocolVersion"];
                let offer = format!(
                    r#"{{"protocolVersion":{revision},"capabilities":{{}},"serverInfo":{{"name":"f","version":"1"}}}}"#
                );
                Reply::result(asked, &offer).header("mcp-session-id", &format!("s{number}"))
            }
            ("", "DELETE") => Reply::status(200),
            (_, "POST") if session.is_none() => {
                Reply::error(400, &serde_json::Value::Null, -32000, "Bad Request: no session")
            }
            ("notifications/initialized" | "notifications/cancelled", _) => Reply::status(202),
            _ => answer(asked),
        }
    })
    .await
}

fn legacy_call(fake: &Fake, isolation: &str) -> Outbound {
    let mut outbound = testing::outbound(&fake.url, "tools/call");
    outbound.front = testing::legacy_front(isolation);
    outbound.params = json(r#"{"name":"t","arguments":{}}"#);
    outbound
}

#[tokio::test]
async fn one_session_per_caller_is_opened_and_reused() {
    let fake = server(|asked| Reply::result(asked, "{\"content\":[ ]}")).await;
    let upstreams = upstreams();
    for isolation in ["alice", "bob", "alice"] {
        let got = result(&upstreams, legacy_call(&fake, isolation)).await;
        assert_eq!(got, "{\"content\":[ ]}");
    }
    assert_eq!(fake.seen("initialize").len(), 2);
    assert_eq!(fake.seen("notifications/initialized").len(), 2);
    let sessions: Vec<_> = fake
        .seen("tools/call")
        .iter()
        .map(|asked| asked.header("mcp-session-id").unwrap().to_owned())
        .collect();
    assert_eq!(sessions, ["s1", "s2", "s1"]);
    let call = fake.seen("tools/call").remove(0);
    assert_eq!(call.header("mcp-protocol-version"), Some("2025-11-25"));
    upstreams.close().await;
    assert_eq!(fake.methods().iter().filter(|m| *m == "DELETE").count(), 2);
}

#[tokio::test]
async fn a_lost_session_is_opened_again_once() {
    for words in [true, false] {
        let fake = server(move |asked| match (asked.header("mcp-session-id"), words) {
            (Some("s1"), true) => {
                Reply::error(400, &serde_json::Value::Null, -32000, "No valid session ID")
            }
            (Some("s1"), false) => Reply::status(404),
            _ => Reply::result(asked, "{}"),
        })
        .await;
        assert_eq!(result(&upstreams(), legacy_call(&fake, "alice")).await, "{}");
        assert_eq!(fake.seen("initialize").len(), 2);
        assert_eq!(fake.seen("tools/call").len(), 2);
    }
    let fake = server(|_| Reply::status(404)).await;
    assert_eq!(reason(&upstreams(), legacy_call(&fake, "alice")).await, Reason::SessionUnknown);
    assert_eq!(fake.seen("tools/call").len(), 2);
}

#[tokio::test]
async fn questions_to_a_client_out_of_reach_are_answered() {
    let answers = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let feed = Arc::new(parking_lot::Mutex::new(None));
    let (seen, held) = (Arc::clone(&answers), Arc::clone(&feed));
    let fake = server(move |asked| {
        if asked.rpc() == "tools/call" {
            let asks = ["ping", "roots/list", "elicitation/create"].map(|method| {
                event(&format!(
                    r#"{{"jsonrpc":"2.0","id":"{method}","method":"{method}","params":{{}}}}"#
                ))
            });
            let reply = Reply::sse(asks.concat());
            *held.lock() = reply.feed.clone().map(|feed| (feed, rpc_result(asked, "{}")));
            return reply;
        }
        let mut seen = seen.lock();
        seen.push(asked.body.clone());
        if seen.len() == 3
            && let Some((feed, result)) = held.lock().take()
        {
            feed.try_send(event(&result).into()).unwrap();
        }
        Reply::status(202)
    })
    .await;
    assert_eq!(result(&upstreams(), legacy_call(&fake, "alice")).await, "{}");
    let answers = answers.lock();
    let to = |id: &str| answers.iter().find(|a| a["id"] == id).cloned().unwrap_or_default();
    assert_eq!(to("ping")["result"], serde_json::json!({}));
    assert_eq!(to("roots/list")["result"], serde_json::json!({"roots": []}));
    assert_eq!(to("elicitation/create")["error"]["code"], -32601);
    let hello = fake.seen("initialize").remove(0);
    assert_eq!(hello.body["params"]["capabilities"], serde_json::json!({}));
}

#[tokio::test]
async fn leaving_cancels_by_our_own_id() {
    let fake = server(|asked| match asked.rpc() {
        "tools/call" => {
            Reply::sse(event(r#"{"jsonrpc":"2.0","method":"notifications/message","params":{}}"#))
        }
        _ => Reply::new(200, "application/json", ""),
    })
    .await;
    let upstreams = upstreams();
    let exchange = upstreams.call(legacy_call(&fake, "alice")).await.unwrap();
    drop(exchange);
    until("the cancellation", || !fake.seen("notifications/cancelled").is_empty()).await;
    let (cancelled, call) =
        (fake.seen("notifications/cancelled").remove(0), fake.seen("tools/call").remove(0));
    assert_eq!(cancelled.body["params"]["requestId"], call.body["id"]);

    // The same before any answer, and at the deadline.
    let mut outbound = legacy_call(&fake, "alice");
    outbound.method = "tools/list".to_owned();
    outbound.deadline = Instant::now() + Duration::from_millis(200);
    assert_eq!(reason(&upstreams, outbound).await, Reason::UpstreamTimeout);
    until("the cancellation", || fake.seen("notifications/cancelled").len() == 2).await;
}

#[tokio::test]
async fn an_answered_call_is_not_cancelled() {
    let fake = server(|asked| Reply::sse(event(&rpc_result(asked, "{}")))).await;
    let upstreams = upstreams();
    result(&upstreams, legacy_call(&fake, "alice")).await;
    result(&upstreams, legacy_call(&fake, "alice")).await;
    assert!(fake.seen("notifications/cancelled").is_empty());
}

#[tokio::test]
async fn a_stream_that_closes_early_is_resumed_by_get() {
    let id = Arc::new(parking_lot::Mutex::new(String::new()));
    let held = Arc::clone(&id);
    let fake = server(move |asked| match asked.method.as_str() {
        "GET" => {
            assert_eq!(asked.header("last-event-id"), Some("e1"));
            assert_eq!(asked.header("accept"), Some("text/event-stream"));
            Reply::sse(event(&held.lock())).closed()
        }
        _ => {
            *held.lock() = rpc_result(asked, "{\"late\":true}");
            Reply::sse("id: e1\nretry: 10\ndata:\n\n").closed()
        }
    })
    .await;
    assert_eq!(result(&upstreams(), legacy_call(&fake, "alice")).await, "{\"late\":true}");
}

#[tokio::test]
#[allow(clippy::too_many_lines, reason = "one session told from its beginning to its end")]
async fn a_transparent_client_has_the_session_for_itself() {
    let fake = server(|asked| match asked.method.as_str() {
        "GET" => {
            let id = asked.header("last-event-id").unwrap_or("none").to_owned();
            Reply::sse(format!(
                "id: e2\ndata: {{\"jsonrpc\":\"2.0\",\"id\":\"c7\",\"result\":{{\"after\":\"{id}\"}}}}\n\n"
            ))
            .closed()
        }
        _ if asked.rpc().is_empty() => Reply::status(202),
        _ if asked.header("mcp-session-id") == Some("gone") => Reply::status(404),
        _ => {
            let ask = r#"{"jsonrpc":"2.0","id":0,"method":"sampling/createMessage","params":{}}"#;
            let prime = "id: e1\nretry: 50\ndata:\n\n".to_owned();
            Reply::sse(prime + &event(ask) + &event(&rpc_result(asked, "{}"))).closed()
        }
    })
    .await;
    let upstreams = upstreams();
    let mut open = legacy_call(&fake, "alice");
    open.method = "initialize".to_owned();
    open.id = json("\"c1\"");
    open.params = json(
        r#"{"protocolVersion":"2025-06-18","capabilities":{"sampling":{}},"clientInfo":{"name":"c","version":"2"}}"#,
    );
    let opened = upstreams.call(open).await.unwrap();
    let session = opened.session.expect("a session");
    assert_eq!((&*session.id, session.local, &*opened.back_revision), ("s1", false, "2025-06-18"));
    let hello = fake.seen("initialize").remove(0);
    assert_eq!(hello.body["id"], "c1");
    assert_eq!(hello.body["params"]["capabilities"]["sampling"], serde_json::json!({}));
    assert!(fake.seen("notifications/initialized").is_empty());

    let mut call = legacy_call(&fake, "alice");
    call.front.revision = "2025-06-18".to_owned();
    call.session = Some(session.id);
    call.id = json("\"c2\"");
    call.params = json(r#"{"name":"t","_meta":{"progressToken":"mine"}}"#);
    let (messages, refusal) = all(upstreams.call(call.clone()).await.unwrap()).await;
    assert!(refusal.is_none());
    let kinds: Vec<_> = messages
        .iter()
        .map(|message| match message {
            Message::Prime { id, retry_ms } => format!("prime {id:?} {retry_ms:?}"),
            Message::Request(_) => "request".to_owned(),
            Message::Result(_) => "result".to_owned(),
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(kinds, ["prime Some(\"e1\") Some(50)", "request", "result"]);
    let sent = fake.seen("tools/call").remove(0);
    assert_eq!(sent.body["id"], "c2");
    assert_eq!(sent.body["params"]["_meta"]["progressToken"], "mine");
    assert_eq!(sent.header("mcp-protocol-version"), Some("2025-06-18"));

    let channel = Channel {
        version: Arc::clone(&call.version),
        session: "s1".to_owned(),
        revision: "2025-06-18".to_owned(),
        credentials: Vec::new(),
        deadline: Instant::now() + Duration::from_secs(5),
    };
    let answer = Bytes::from_static(br#"{"jsonrpc":"2.0","id":0,"result":{}}"#);
    upstreams.deliver(&channel, answer).await.unwrap();
    assert_eq!(fake.asked.lock().last().unwrap().body["id"], 0);
    let (messages, _) = all(upstreams.open_stream(&channel, Some("e1")).await.unwrap()).await;
    let [Message::Response(raw), Message::Prime { .. }] = &messages[..] else {
        panic!("{messages:?}")
    };
    assert!(String::from_utf8(raw.to_vec()).unwrap().contains(r#"{"after":"e1"}"#));
    upstreams.delete_session(&channel).await.unwrap();
    assert_eq!(fake.methods().last().map(String::as_str), Some("DELETE"));
    call.session = Some("gone".to_owned());
    assert_eq!(reason(&upstreams, call).await, Reason::SessionUnknown);
}

#[tokio::test]
async fn a_handshake_that_fails_is_told_apart() {
    let table = [
        (Reason::UpstreamRefused, 401),
        (Reason::UpstreamUnreachable, 503),
        (Reason::UpstreamProtocol, 400),
    ];
    for (want, status) in table {
        let fake = Fake::start(move |_| Reply::status(status)).await;
        assert_eq!(reason(&upstreams(), legacy_call(&fake, "alice")).await, want, "{status}");
    }
    let fake = Fake::start(|asked| match asked.rpc() {
        "initialize" => Reply::result(asked, r#"{"protocolVersion":"1999-01-01"}"#),
        _ => Reply::status(404),
    })
    .await;
    let got = reason(&upstreams(), legacy_call(&fake, "alice")).await;
    assert_eq!(got, Reason::UpstreamProtocol);
}
