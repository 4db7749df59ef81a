//! Sessions of clients over two proxies and a control plane as processes: their end, and the keys
//! that seal them.

use serde_json::json;
use weir_runtime::testing::eventually;

use crate::planes::{BOUND, Proxy, Scene};

async fn open(proxy: &Proxy, agent: &str) -> String {
    let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {},
        "clientInfo": {"name": "tester", "version": "1"}}});
    let answer = proxy.http("POST", &[("authorization", agent)], &hello.to_string()).await;
    let session = answer.lines().find_map(|line| line.strip_prefix("mcp-session-id: "));
    session.unwrap_or_else(|| panic!("{answer}")).trim().to_owned()
}

/// Status of a ping in the session, or of its end.
async fn status(proxy: &Proxy, method: &str, (agent, session): (&str, &str)) -> u16 {
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {}}).to_string();
    let body = if method == "POST" { &*ping } else { "" };
    let headers = [("authorization", agent), ("mcp-session-id", session)];
    let answer = proxy.http(method, &headers, body).await;
    answer
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .unwrap_or_else(|| panic!("{answer}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_end_at_every_proxy_and_outlive_restarts_and_rotations() {
    let (scene, _running) = Scene::start(&[("WEIR_CP_KEYRING__SETTLE_SECS", "1")]).await;
    let Scene { control, admin, agent: token, .. } = &scene;
    let agent = format!("Bearer {token}");
    let one = scene.proxy("proxy-1").await;
    let two = scene.proxy("proxy-2").await;
    let first = one.start();
    let _second = two.start();
    one.answers(token, true).await;
    two.answers(token, true).await;

    // Each has heard of the other from the control plane.
    let everywhere = eventually(BOUND, async || {
        let session = open(&one, &agent).await;
        assert_eq!(status(&two, "POST", (&agent, &session)).await, 200);
        assert_eq!(status(&one, "DELETE", (&agent, &session)).await, 204);
        status(&two, "POST", (&agent, &session)).await == 404
    });
    assert!(everywhere.await);
    for _ in 0..10 {
        let session = open(&two, &agent).await;
        assert_eq!(status(&two, "DELETE", (&agent, &session)).await, 204);
        assert_eq!(status(&one, "POST", (&agent, &session)).await, 404);
    }

    // A proxy that is started anew knows both: the live one and the one that was ended.
    let (live, ended) = (open(&one, &agent).await, open(&one, &agent).await);
    assert_eq!(status(&one, "DELETE", (&agent, &ended)).await, 204);
    first.kill();
    let _first = one.start();
    one.answers(token, true).await;
    assert_eq!(status(&one, "POST", (&agent, &live)).await, 200);
    let heard = async || status(&one, "POST", (&agent, &ended)).await == 404;
    assert!(eventually(BOUND, heard).await);

    // A rotation: the old session is good, new ones are sealed with the new key.
    let key = |session: &str| session.split('.').next().unwrap().to_owned();
    control.weir(admin, &["keyring", "rotate"]).await;
    let rotated = async || key(&open(&two, &agent).await) != key(&live);
    assert!(eventually(BOUND, rotated).await);
    for proxy in [&one, &two] {
        assert_eq!(status(proxy, "POST", (&agent, &live)).await, 200);
    }
    let shown = control.weir(admin, &["keyring", "list"]).await;
    assert!(shown.contains("seals") && shown.contains("opens"), "{shown}");

    // One that leaked is gone with all that it sealed.
    control.weir(admin, &["keyring", "rotate", "--at-once"]).await;
    for proxy in [&one, &two] {
        let void = async || status(proxy, "POST", (&agent, &live)).await == 404;
        assert!(eventually(BOUND, void).await);
        assert_eq!(status(proxy, "POST", (&agent, &open(proxy, &agent).await)).await, 200);
    }
}
