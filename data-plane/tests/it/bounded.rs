//! What a group allows clients to keep: sessions, streams, waiting calls; and for how long.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use weir_model::resource::{ObservedEra, SessionLimits};
use weir_model::testing::World;
use weir_runtime::clock::{ManualClock, SystemClock};
use weir_runtime::testing::Ca;

use crate::peer::Peer;
use crate::proxy::{Ask, Proxy, read_until};
use crate::{token, world};

const PATH: &str = "/acme/mcp";

fn limited(url: &str, sessions: SessionLimits) -> World {
    world(url).group_with("acme", |group| group.sessions = sessions)
}

async fn open(proxy: &Proxy) -> Result<String, u16> {
    let hello = proxy.send(Ask::initialize(PATH, "2025-11-25").token(&token())).await;
    match hello.header("mcp-session-id") {
        Some(session) => Ok(session.to_owned()),
        None => Err(u16::try_from(hello.code() / 100).unwrap()),
    }
}

async fn ping(proxy: &Proxy, session: &str) -> u16 {
    let ask = Ask::legacy(PATH, session, "ping", &json!({})).token(&token());
    proxy.send(ask).await.status.as_u16()
}

fn stream(session: &str) -> Ask {
    Ask::bodiless(Method::GET, PATH, session).token(&token())
}

/// Two proxies by one clock, which starts now and stands still.
async fn two(world: &World) -> ([Proxy; 2], ManualClock) {
    let clock = ManualClock::at_ms(SystemClock::shared().now_ms());
    let ca = Ca::new("weir");
    let start = async |name: &str| {
        Proxy::node_at(world, (&ca, name), Arc::new(clock.clone()), |_| ()).await
    };
    let both = [start("one").await, start("two").await];
    Proxy::acquaint(&both).await;
    (both, clock)
}

#[tokio::test]
async fn a_session_that_no_proxy_has_seen_for_long_ends() {
    let peer = Peer::start().await;
    let limits = SessionLimits { idle_secs: Some(600), ..SessionLimits::default() };
    let ([one, two], clock) = two(&limited(&peer.url, limits)).await;
    let pass = |secs: u64| clock.advance(Duration::from_secs(secs));
    // Longer than the time that matters: both proxies would know.
    pass(3_600);
    let [used, idle, heard] = [open(&one).await, open(&one).await, open(&one).await];
    let [used, idle, heard] = [used.unwrap(), idle.unwrap(), heard.unwrap()];
    let body = two.open(stream(&heard)).await.into_body();
    for _ in 0..3 {
        pass(400);
        assert_eq!(ping(&two, &used).await, 200);
    }
    // Used at one proxy, it is not idle at the other; an open stream is a use.
    assert_eq!(ping(&one, &used).await, 200);
    assert_eq!(ping(&one, &heard).await, 200);
    assert_eq!(ping(&two, &idle).await, 404);
    assert_eq!(ping(&one, &idle).await, 404);
    drop(body);

    // Who was started a moment ago cannot know.
    pass(400);
    let world = limited(&peer.url, limits);
    let ca = Ca::new("weir");
    let late = Proxy::node_at(&world, (&ca, "late"), Arc::new(clock.clone()), |_| ()).await;
    pass(400);
    assert_eq!(ping(&late, &used).await, 200);
    pass(601);
    assert_eq!(ping(&late, &used).await, 404);
}

#[tokio::test]
async fn sessions_last_as_long_as_their_group_says() {
    let peer = Peer::start().await;
    let limits = SessionLimits { life_secs: Some(600), ..SessionLimits::default() };
    let ([one, two], clock) = two(&limited(&peer.url, limits)).await;
    let session = open(&one).await.unwrap();
    clock.advance(Duration::from_secs(600));
    assert_eq!(ping(&two, &session).await, 200);
    clock.advance(Duration::from_secs(1));
    assert_eq!(ping(&two, &session).await, 404);
}

#[tokio::test]
async fn one_principal_has_so_many_sessions_and_streams() {
    let peer = Peer::start().await;
    let limits = SessionLimits {
        per_principal: Some(2),
        streams_per_principal: Some(1),
        ..SessionLimits::default()
    };
    let proxy = Proxy::start(&limited(&peer.url, limits)).await;
    let (first, second) = (open(&proxy).await.unwrap(), open(&proxy).await.unwrap());
    assert_eq!(open(&proxy).await, Err(429));
    let delete = Ask::bodiless(Method::DELETE, PATH, &first).token(&token());
    assert_eq!(proxy.send(delete).await.status, 204);
    open(&proxy).await.unwrap();
    assert_eq!(open(&proxy).await, Err(429));

    let held = proxy.open(stream(&second)).await;
    assert_eq!(held.status(), 200);
    assert_eq!(proxy.send(stream(&second)).await.status, 429);
}

/// The open stream of a session ends with it, wherever each of them is.
#[tokio::test]
async fn streams_end_with_their_session() {
    let peer = Peer::start().await;
    let [one, two] = Proxy::two(&world(&peer.url)).await;
    for other in [&one, &two] {
        let session = open(&one).await.unwrap();
        let mut body = one.open(stream(&session)).await.into_body();
        let delete = Ask::bodiless(Method::DELETE, PATH, &session).token(&token());
        assert_eq!(other.send(delete).await.status, 204);
        let ended = async {
            while let Some(frame) = http_body_util::BodyExt::frame(&mut body).await {
                frame.unwrap();
            }
        };
        tokio::time::timeout(crate::proxy::PATIENCE, ended).await.expect("the stream ends");
    }
}

#[tokio::test]
async fn one_principal_has_so_many_calls_that_wait_for_it() {
    let peer = Peer::only(crate::peer::Speaks::Legacy).await;
    let limits = SessionLimits { parked_per_principal: Some(1), ..SessionLimits::default() };
    let world = limited(&peer.url, limits).era("acme", "files", ObservedEra::Legacy);
    let proxy = Proxy::start(&world).await;
    let call = || {
        let able = json!({"elicitation": {"form": {}}});
        let params = json!({"name": "files__ask", "arguments": {},
            "_meta": {"io.modelcontextprotocol/clientCapabilities": able}});
        Ask::modern(PATH, "tools/call", params).token(&token())
    };
    let parked: Value = proxy.send(call()).await.json();
    assert_eq!(parked["result"]["resultType"], "input_required", "{parked}");
    let refused = proxy.send(call()).await;
    assert_eq!(refused.status, 429, "{}", refused.text());
}

/// The stream of a session that another one reads stays what it was.
#[tokio::test]
async fn other_sessions_are_not_touched() {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&world(&peer.url)).await;
    let (ended, kept) = (open(&proxy).await.unwrap(), open(&proxy).await.unwrap());
    let mut body = proxy.open(stream(&kept)).await.into_body();
    let delete = Ask::bodiless(Method::DELETE, PATH, &ended).token(&token());
    assert_eq!(proxy.send(delete).await.status, 204);
    proxy.apply(
        &world(&peer.url).tool("acme", "files", "more").allow("acme", "ci", "files", "more"),
    );
    read_until(&mut body, "tools/list_changed").await;
}
