//! Clients of one era, servers of the other, and how the era is found.

use super::super::{Wire, testing};
use super::fake::{Fake, Reply, event, rpc_result};
use super::*;
use weir_model::resource::ObservedEra;

#[tokio::test]
async fn a_legacy_client_reaches_a_modern_server() {
    let fake = super::modern::server(|asked| {
        Reply::result(asked, r#"{"resultType":"complete","content":[]}"#)
    })
    .await;
    let upstreams = upstreams();
    let mut outbound = testing::outbound(&fake.url, "tools/call");
    outbound.front = testing::legacy_front("alice");
    outbound.front.capabilities = Bytes::from_static(b"{\"sampling\":{},\"extensions\":{}}");
    outbound.params = json(r#"{"name":"t"}"#);
    assert!(result(&upstreams, outbound.clone()).await.contains("content"));
    let asked = fake.seen("tools/call").remove(0);
    let meta = &asked.body["params"]["_meta"];
    assert_eq!(
        meta["io.modelcontextprotocol/clientCapabilities"],
        serde_json::json!({"sampling": {}, "extensions": {}})
    );
    assert_eq!(fake.seen("initialize").len(), 1, "whether it speaks legacy is asked once");
    outbound.method = "resources/subscribe".to_owned();
    assert_eq!(reason(&upstreams, outbound).await, Reason::CannotBridge);
}

#[tokio::test]
async fn what_a_legacy_client_cannot_carry_is_refused() {
    // What the server wants to know is for the front to ask.
    let answer = r#"{"resultType":"input_required","requestState":"s"}"#;
    let fake =
        super::modern::server(move |asked| Reply::sse(event(&rpc_result(asked, answer))).closed())
            .await;
    let mut outbound = testing::outbound(&fake.url, "tools/call");
    assert_eq!(result(&upstreams(), outbound.clone()).await, answer);
    outbound.front = testing::legacy_front("alice");
    assert_eq!(result(&upstreams(), outbound).await, answer);
    let fake = super::modern::server(|asked| {
        Reply::error(400, &asked.body["id"], -32021, "needs sampling")
    })
    .await;
    let mut outbound = testing::outbound(&fake.url, "tools/call");
    outbound.front = testing::legacy_front("alice");
    assert_eq!(reason(&upstreams(), outbound).await, Reason::MissingCapability);
}

#[tokio::test]
async fn a_modern_client_reaches_a_legacy_server() {
    let fake = super::legacy::server(|asked| Reply::result(asked, "{\"content\":[]}")).await;
    let upstreams = upstreams();
    let mut outbound = testing::outbound(&fake.url, "tools/call");
    outbound.params = json(
        r#"{"name":"t","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},"v/k":1}}"#,
    );
    let exchange = upstreams.call(outbound.clone()).await.unwrap();
    assert_eq!(exchange.back_revision, "2025-11-25");
    let asked = fake.seen("tools/call").remove(0);
    assert_eq!(asked.body["params"]["_meta"], serde_json::json!({"v/k": 1}));
    assert_eq!(asked.header("mcp-method"), None);
    outbound.method = "subscriptions/listen".to_owned();
    assert_eq!(reason(&upstreams, outbound).await, Reason::CannotBridge);
}

#[tokio::test]
async fn a_server_of_both_eras_is_met_in_the_clients_own() {
    let fake = super::legacy::server(|asked| match asked.rpc() {
        "server/discover" => unreachable!("has no session"),
        _ => Reply::result(asked, "{}"),
    })
    .await;
    let upstreams = upstreams();
    let version = testing::pinned(&fake.url, ObservedEra::Dual);
    for (modern, want) in [(true, Wire::Modern), (false, Wire::Legacy)] {
        assert_eq!(upstreams.wire(&version, modern, &[]).await.unwrap(), want);
    }
    assert!(fake.asked.lock().is_empty(), "the pin is believed");
}

#[tokio::test]
async fn the_era_is_probed_once_and_only_clear_answers_count() {
    let legacy = super::legacy::server(|asked| Reply::result(asked, "{}")).await;
    let upstreams = upstreams();
    for _ in 0..3 {
        let outbound = testing::outbound(&legacy.url, "tools/list");
        result(&upstreams, outbound).await;
    }
    assert_eq!(legacy.seen("server/discover").len(), 1);

    // A refused credential or an outage says nothing about the era.
    let up = std::sync::Arc::new(std::sync::atomic::AtomicU16::new(401));
    let status = std::sync::Arc::clone(&up);
    let fake = Fake::start(move |asked| {
        match (status.load(std::sync::atomic::Ordering::SeqCst), asked.rpc()) {
            (200, "server/discover") => {
                Reply::result(asked, r#"{"supportedVersions":["2026-07-28"],"capabilities":{}}"#)
            }
            (200, _) => Reply::result(asked, "{}"),
            (status, _) => Reply::status(status),
        }
    })
    .await;
    let upstreams = super::upstreams();
    let list = || testing::outbound(&fake.url, "tools/list");
    assert_eq!(reason(&upstreams, list()).await, Reason::UpstreamRefused);
    up.store(503, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(reason(&upstreams, list()).await, Reason::UpstreamUnreachable);
    up.store(200, std::sync::atomic::Ordering::SeqCst);
    let exchange = upstreams.call(list()).await.unwrap();
    assert_eq!(exchange.back_revision, "2026-07-28");
    assert!(fake.seen("initialize").is_empty());
}

#[tokio::test]
async fn a_contradicted_era_is_corrected() {
    // Pinned as modern, but only the old revisions are spoken now.
    let legacy = super::legacy::server(|asked| Reply::result(asked, "{}")).await;
    let version = testing::pinned(&legacy.url, ObservedEra::Modern);
    let upstreams = upstreams();
    let mut outbound = testing::request(version, "tools/call");
    outbound.params = json(r#"{"name":"t"}"#);
    assert_eq!(result(&upstreams, outbound.clone()).await, "{}");
    assert_eq!(result(&upstreams, outbound).await, "{}");
    assert_eq!(legacy.seen("initialize").len(), 1);

    // Pinned as legacy, but it was upgraded.
    let modern = super::modern::server(|asked| Reply::result(asked, "{\"new\":1}")).await;
    let version = testing::pinned(&modern.url, ObservedEra::Legacy);
    let outbound = testing::request(version, "tools/call");
    assert_eq!(result(&super::upstreams(), outbound).await, "{\"new\":1}");
}

#[tokio::test]
async fn nobody_there_is_told_at_once() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    drop(listener);
    let refusal = upstreams().call(testing::outbound(&url, "tools/list")).await.unwrap_err();
    assert_eq!(refusal.reason, Reason::UpstreamUnreachable);
    assert_eq!(refusal.message(), Reason::UpstreamUnreachable.remedy());
}
