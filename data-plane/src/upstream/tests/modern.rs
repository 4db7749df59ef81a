//! Calls to servers of 2026-07-28.

use super::super::testing;
use super::fake::{Asked, Fake, Reply, event, rpc_result};
use super::*;

const DISCOVERED: &str = r#"{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{}},"ttlMs":0,"cacheScope":"private"}"#;

/// A modern server whose other methods answer as given.
pub(super) async fn server(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Fake {
    Fake::start(move |asked| match asked.rpc() {
        "server/discover" => Reply::result(asked, DISCOVERED),
        "initialize" => Reply::error(404, &asked.body["id"], -32601, "no such method"),
        _ => answer(asked),
    })
    .await
}

fn call(fake: &Fake) -> Outbound {
    let mut outbound = testing::outbound(&fake.url, "tools/call");
    outbound.name = Some("say ä".to_owned());
    outbound.params =
        json(r#"{"name":"say ä","arguments":{"n":12345678901234567890123,"x":1.10}}"#);
    outbound
}

#[tokio::test]
async fn a_call_carries_the_envelope_and_its_bytes_come_back() {
    let raw = r#"{"resultType":"complete","content":[],"structuredContent":{"big":12345678901234567890123,"f":1.10,"n":null}}"#;
    let fake = server(move |asked| Reply::result(asked, raw)).await;
    let upstreams = upstreams();
    let mut outbound = call(&fake);
    outbound.credentials = vec![(http::header::AUTHORIZATION, "Bearer s".parse().unwrap())];
    outbound.traceparent = Some("00-11-22-01".to_owned());
    assert_eq!(result(&upstreams, outbound).await, raw);
    let asked = fake.seen("tools/call").remove(0);
    assert_eq!(asked.header("mcp-protocol-version"), Some("2026-07-28"));
    assert_eq!(asked.header("mcp-method"), Some("tools/call"));
    assert_eq!(asked.header("mcp-name"), Some("=?base64?c2F5IMOk?="));
    assert_eq!(asked.header("accept"), Some("application/json, text/event-stream"));
    assert_eq!(asked.header("authorization"), Some("Bearer s"));
    assert_eq!(asked.header("traceparent"), Some("00-11-22-01"));
    let meta = &asked.body["params"]["_meta"];
    assert_eq!(meta["io.modelcontextprotocol/protocolVersion"], "2026-07-28");
    assert_eq!(meta["io.modelcontextprotocol/clientInfo"]["name"], "test");
    assert_eq!(meta["traceparent"], "00-11-22-01");
    let text = String::from_utf8(asked.raw.to_vec()).unwrap();
    assert!(text.contains(r#""arguments":{"n":12345678901234567890123,"x":1.10}"#), "{text}");
}

#[tokio::test]
async fn a_stream_brings_notifications_and_then_the_answer() {
    let fake = server(|asked| {
        let token = &asked.body["params"]["_meta"]["progressToken"];
        let progress = format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":0.50}}}}"#
        );
        let foreign = progress.replace("\"progressToken\":", "\"progressToken\":9");
        let body = [":hi\n\n", "id: 1\ndata:\n\n", &event(&progress), &event(&foreign)].concat();
        Reply::sse(body + &event(&rpc_result(asked, "{\"content\":[]}"))).closed()
    })
    .await;
    let mut outbound = call(&fake);
    outbound.params = json(r#"{"name":"t","_meta":{"progressToken":"mine"}}"#);
    let exchange = upstreams().call(outbound).await.unwrap();
    assert_eq!(exchange.back_revision, "2026-07-28");
    let (messages, refusal) = all(exchange).await;
    assert!(refusal.is_none());
    assert_eq!(messages.len(), 2, "{messages:?}");
    let Message::Notification(progress) = &messages[0] else { panic!("{messages:?}") };
    let progress = String::from_utf8(progress.to_vec()).unwrap();
    assert!(progress.contains(r#""progressToken":"mine","progress":0.50"#), "{progress}");
    assert!(matches!(messages[1], Message::Result(_)));
}

#[tokio::test]
async fn connections_are_reused() {
    let fake = server(|asked| Reply::result(asked, "{}")).await;
    let upstreams = upstreams();
    for _ in 0..10 {
        result(&upstreams, call(&fake)).await;
    }
    let connections = fake.connections.load(std::sync::atomic::Ordering::SeqCst);
    assert!(connections <= 2, "{connections} connections for ten calls");
    assert_eq!(fake.seen("server/discover").len(), 1);
}

#[tokio::test]
async fn the_servers_errors_come_through_as_they_are() {
    for status in [200, 400, 404] {
        let fake =
            server(move |asked| Reply::error(status, &asked.body["id"], -32602, "no such thing"))
                .await;
        let exchange = upstreams().call(call(&fake)).await.unwrap();
        let (messages, _) = all(exchange).await;
        let [Message::Error(error)] = &messages[..] else { panic!("{messages:?}") };
        assert_eq!(error, &br#"{"code":-32602,"message":"no such thing"}"#[..]);
    }
}

type Answer = Box<dyn Fn(&Asked) -> Reply + Send + Sync>;

#[tokio::test]
async fn each_fault_of_a_server_has_its_reason() {
    let oversize = "x".repeat(weir_model::bounds::UPSTREAM_MESSAGE_BYTES_MAX + 10);
    let table: Vec<(&str, Reason, Answer)> = vec![
        ("garbage", Reason::UpstreamProtocol, Box::new(|_| Reply::json("{{{"))),
        ("empty", Reason::UpstreamProtocol, Box::new(|_| Reply::json(""))),
        (
            "html",
            Reason::UpstreamProtocol,
            Box::new(|_| Reply::new(200, "text/html", "<p>").closed()),
        ),
        ("accepted", Reason::UpstreamProtocol, Box::new(|_| Reply::status(202))),
        (
            "moved",
            Reason::UpstreamProtocol,
            Box::new(|_| Reply::status(307).header("location", "http://169.254.169.254/")),
        ),
        ("oversize", Reason::UpstreamProtocol, Box::new(move |_| Reply::json(oversize.clone()))),
        (
            "foreign id",
            Reason::UpstreamProtocol,
            Box::new(|_| Reply::json(r#"{"jsonrpc":"2.0","id":"other","result":{}}"#)),
        ),
        (
            "mismatch",
            Reason::UpstreamProtocol,
            Box::new(|a| Reply::error(400, &a.body["id"], -32020, "mismatch")),
        ),
        ("no credential", Reason::UpstreamRefused, Box::new(|_| Reply::status(401))),
        (
            "forbidden",
            Reason::UpstreamRefused,
            Box::new(|a| Reply::error(403, &a.body["id"], -32000, "no")),
        ),
        ("broken", Reason::UpstreamProtocol, Box::new(|_| Reply::status(500))),
        ("away", Reason::UpstreamUnreachable, Box::new(|_| Reply::status(503))),
        ("cut stream", Reason::UpstreamClosed, Box::new(|_| Reply::sse("data: {}").closed())),
        (
            "garbage stream",
            Reason::UpstreamProtocol,
            Box::new(|_| Reply::sse("data: nope\n\n").closed()),
        ),
    ];
    for (what, want, answer) in table {
        let fake = server(answer).await;
        assert_eq!(reason(&upstreams(), call(&fake)).await, want, "{what}");
        let sent = fake.seen("tools/call").len();
        let rejected = matches!(what, "html" | "accepted" | "mismatch");
        assert!(sent == 1 || rejected, "{what}: sent {sent} times");
    }
}

#[tokio::test]
async fn a_server_that_hangs_is_left_at_the_deadline() {
    for hang in [Reply::sse, |_| Reply::new(200, "application/json", "{")] {
        let fake = server(move |_| hang(String::new())).await;
        let mut outbound = call(&fake);
        outbound.deadline = Instant::now() + Duration::from_millis(300);
        let started = Instant::now();
        assert_eq!(reason(&upstreams(), outbound).await, Reason::UpstreamTimeout);
        assert!(started.elapsed() < Duration::from_secs(3));
        let left = || fake.left.load(std::sync::atomic::Ordering::SeqCst) == 1;
        until("the stream's end at the server", left).await;
    }
}

#[tokio::test]
async fn leaving_ends_the_stream_at_the_server() {
    let fake = server(|_| {
        Reply::sse(event(r#"{"jsonrpc":"2.0","method":"notifications/message","params":{}}"#))
    })
    .await;
    let exchange = upstreams().call(call(&fake)).await.unwrap();
    let Messages::Stream(mut stream) = exchange.messages else { panic!("no stream") };
    assert!(matches!(stream.recv().await, Some(Ok(Message::Notification(_)))));
    drop(stream);
    let left = || fake.left.load(std::sync::atomic::Ordering::SeqCst) == 1;
    until("the stream's end at the server", left).await;
}

#[tokio::test]
async fn a_subscription_names_the_clients_own_id() {
    let fake = server(|asked| {
        let id = &asked.body["id"];
        let meta = format!(r#"{{"_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}}}}"#);
        let ack = format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{meta}}}"#
        );
        Reply::sse(event(&ack) + &event(&rpc_result(asked, &meta))).closed()
    })
    .await;
    let mut outbound = testing::outbound(&fake.url, "subscriptions/listen");
    outbound.id = json("\"mine\"");
    outbound.params = json(r#"{"notifications":{}}"#);
    let (messages, _) = all(upstreams().call(outbound).await.unwrap()).await;
    assert_eq!(messages.len(), 2);
    for message in messages {
        let (Message::Notification(raw) | Message::Result(raw)) = message else { panic!() };
        let text = String::from_utf8(raw.to_vec()).unwrap();
        assert!(text.contains(r#"subscriptionId":"mine""#), "{text}");
    }
}

#[tokio::test]
async fn a_private_address_is_refused_before_it_is_asked() {
    let fake = server(|asked| Reply::result(asked, "{}")).await;
    let mut outbound = call(&fake);
    let spec = weir_model::resource::HttpUpstream { url: fake.url.clone(), allow_private: false };
    outbound.version = testing::version(weir_model::resource::Upstream::Http(spec));
    let refusal = upstreams().call(outbound).await.unwrap_err();
    assert_eq!(refusal.reason, Reason::UpstreamUnreachable);
    assert!(refusal.detail.contains("allowPrivate"), "{}", refusal.detail);
    assert!(!refusal.message().contains("127.0.0.1"));
    assert!(fake.asked.lock().is_empty());
}

#[tokio::test]
async fn reads_are_repeated_once_and_calls_are_not() {
    // A server that closes every connection on which a call arrives.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let count = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let seen = std::sync::Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            use tokio::io::AsyncReadExt;
            let mut bytes = [0; 4096];
            if stream.read(&mut bytes).await.is_ok_and(|n| n > 0) {
                seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
        }
    });
    let version = testing::pinned(&url, weir_model::resource::ObservedEra::Modern);
    for (method, want) in [("tools/list", 2), ("tools/call", 1)] {
        count.store(0, std::sync::atomic::Ordering::SeqCst);
        let outbound = testing::request(std::sync::Arc::clone(&version), method);
        assert_eq!(reason(&upstreams(), outbound).await, Reason::UpstreamClosed);
        assert_eq!(count.load(std::sync::atomic::Ordering::SeqCst), want, "{method}");
    }
}

/// A server whose tool wants `region` mirrored as the header of that name since it was pinned.
async fn moved(header: &'static str) -> Fake {
    let name = format!("mcp-param-{header}").to_ascii_lowercase();
    server(move |asked| match asked.rpc() {
        "tools/list" if asked.body["params"]["cursor"] == "2" => {
            let schema = format!(
                r#"{{"type":"object","properties":{{"region":{{"type":"string","x-mcp-header":"{header}"}}}}}}"#
            );
            let tool = format!(r#"{{"name":"t","inputSchema":{schema}}}"#);
            Reply::result(asked, &format!(r#"{{"resultType":"complete","tools":[{tool}]}}"#))
        }
        "tools/list" => {
            Reply::result(asked, r#"{"resultType":"complete","tools":[],"nextCursor":"2"}"#)
        }
        _ if asked.header(&name) != Some("eu") => {
            Reply::error(400, &asked.body["id"], -32020, "Header mismatch")
        }
        _ => Reply::result(asked, "{}"),
    })
    .await
}

#[tokio::test]
async fn a_tool_that_wants_other_headers_is_read_anew_once() {
    let fake = moved("Zone").await;
    let mut outbound = testing::outbound(&fake.url, "tools/call");
    outbound.name = Some("t".to_owned());
    outbound.params = json(r#"{"name":"t","arguments":{"region":"eu"}}"#);
    let upstreams = upstreams();
    let mut changes = upstreams.changes();
    assert_eq!(result(&upstreams, outbound.clone()).await, "{}");
    assert_eq!(changes.try_recv().expect("told"), outbound.version.key, "so that it is looked at");
    // What was read is remembered.
    assert_eq!(result(&upstreams, outbound.clone()).await, "{}");
    assert_eq!((fake.seen("tools/call").len(), fake.seen("tools/list").len()), (3, 2));

    // A server that is not content with what it said itself is not asked for ever.
    let fake = server(|asked| match asked.rpc() {
        "tools/list" => {
            Reply::result(asked, r#"{"tools":[{"name":"t","inputSchema":{"type":"object"}}]}"#)
        }
        _ => Reply::error(400, &asked.body["id"], -32020, "Header mismatch"),
    })
    .await;
    let version = testing::http(&fake.url);
    let other = Outbound { version, ..outbound.clone() };
    assert_eq!(reason(&upstreams, other).await, Reason::UpstreamProtocol);
    assert_eq!(fake.seen("tools/call").len(), 2);

    // A header that no client may send makes the tool unusable.
    let fake = moved("bad header").await;
    let other = Outbound { version: testing::http(&fake.url), ..outbound };
    assert_eq!(reason(&upstreams, other).await, Reason::UpstreamProtocol);
    assert_eq!(fake.seen("tools/call").len(), 1);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_left_alone_for_a_while() {
    let fake = server(|_| Reply::status(503)).await;
    let upstreams = upstreams();
    for _ in 0..8 {
        let refusal = upstreams.call(call(&fake)).await.expect_err("refused");
        assert_eq!(refusal.reason, Reason::UpstreamUnreachable);
    }
    assert_eq!(fake.seen("tools/call").len(), 5, "the rest was refused here");
    let refusal = upstreams.call(call(&fake)).await.expect_err("refused");
    assert!(refusal.retry_after_secs.is_some());
}

#[tokio::test]
async fn redirects_are_followed_within_the_origin_only() {
    let fake = Fake::start(|asked| match asked.path.as_str() {
        "/mcp" => Reply::status(307).header("location", "/mcp/"),
        "/mcp/" if asked.rpc() == "server/discover" => Reply::result(asked, DISCOVERED),
        "/mcp/" => Reply::result(asked, "{\"content\":[]}"),
        _ => Reply::status(404),
    })
    .await;
    assert_eq!(result(&upstreams(), call(&fake)).await, "{\"content\":[]}");
    assert_eq!(
        fake.asked.lock().last().expect("one").header("mcp-name"),
        Some("=?base64?c2F5IMOk?=")
    );

    let other = Fake::start(|asked| Reply::result(asked, DISCOVERED)).await;
    let (away, own) = (other.url.clone(), "/mcp".to_owned());
    for (target, asked) in [(away, 1), (own, 4)] {
        let fake = Fake::start(move |_| Reply::status(308).header("location", &target)).await;
        assert_eq!(reason(&upstreams(), call(&fake)).await, Reason::UpstreamProtocol);
        assert_eq!(fake.asked.lock().len(), asked, "the last one goes in a circle");
    }
    assert!(other.asked.lock().is_empty());
}
