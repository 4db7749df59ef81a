//! What an operator takes back: refused from the next request on, and gone from what is open.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use weir_model::id::Digest;
use weir_model::resource::{
    Kind, ResourceKey, Revocation, Revoked, RevokedPrincipal, RevokedTool, Rule, Spec, Subject,
};
use weir_model::testing::World;
use weir_runtime::clock::ManualClock;
use weir_runtime::testing::Ca;

use crate::issuer::Issuer;
use crate::peer::Peer;
use crate::proxy::{Ask, PATIENCE, Proxy, read_until};
use crate::{token, world};

const PATH: &str = "/acme/files/mcp";

fn call(tool: &str) -> Ask {
    Ask::modern(PATH, "tools/call", json!({"name": tool, "arguments": {}})).token(&token())
}

fn revoking(world: &World, what: Revoked) -> World {
    let group = "acme".parse().unwrap();
    let key = ResourceKey::grouped(Kind::Revocation, &group, "r-1");
    let ends = !matches!(what, Revoked::Policy(_) | Revoked::RoleBinding(_));
    let expires = ends.then_some(i64::MAX);
    world.clone().put(key, Spec::Revocation(Revocation { what, expires, because: None }))
}

fn ci(issued_before: Option<i64>) -> Revoked {
    Revoked::Principal(RevokedPrincipal { id: "account:ci".to_owned(), issued_before })
}

#[tokio::test]
async fn what_is_revoked_is_refused_and_comes_back_when_it_is_given_back() {
    let peer = Peer::start().await;
    let world = world(&peer.url);
    let proxy = Proxy::start(&world).await;
    let tool = RevokedTool { server: "files".parse().unwrap(), name: "echo".to_owned() };
    // What is revoked; the status of a call; whether the list still names the tool.
    let cases = [
        (ci(None), 401, None),
        (Revoked::Server("files".parse().unwrap()), 404, None),
        (Revoked::Tool(tool), 200, Some(false)),
        (Revoked::RoleBinding("grant-1".parse().unwrap()), 404, None),
        (Revoked::Session("nobody".to_owned()), 200, Some(true)),
    ];
    let binding = world.set().iter().find(|r| r.key.kind == Kind::RoleBinding).unwrap().key.clone();
    for (what, status, listed) in cases {
        let what = match what {
            Revoked::RoleBinding(_) => Revoked::RoleBinding(binding.name.parse().unwrap()),
            what => what,
        };
        proxy.apply(&world);
        assert_eq!(proxy.send(call("echo")).await.status, 200, "before {what:?}");
        proxy.apply(&revoking(&world, what.clone()));
        let answer = proxy.send(call("echo")).await;
        assert_eq!(answer.status.as_u16(), status, "{what:?}: {}", answer.text());
        if status == 401 {
            let challenge = answer.header("www-authenticate").unwrap();
            assert!(challenge.contains("invalid_token"), "{challenge}");
        }
        let list = Ask::modern(PATH, "tools/list", json!({})).token(&token());
        let list = proxy.send(list).await;
        assert_eq!(listed.is_some(), list.status == 200, "{what:?}: {}", list.text());
        if let Some(listed) = listed {
            let tools = list.json()["result"]["tools"].clone();
            let named = tools.as_array().unwrap().iter().any(|tool| tool["name"] == "echo");
            assert_eq!(named, listed, "{what:?}");
            assert_eq!(answer.json()["error"].is_null(), listed, "{what:?}: {}", answer.text());
        }
    }
}

#[tokio::test]
async fn a_revoked_session_is_unknown_and_its_stream_ends() {
    let peer = Peer::start().await;
    let world = world(&peer.url);
    let proxy = Proxy::start(&world).await;
    let path = "/acme/mcp";
    let opened = proxy.send(Ask::initialize(path, "2025-11-25").token(&token())).await;
    let session = opened.header("mcp-session-id").unwrap().to_owned();
    let list = || Ask::legacy(path, &session, "tools/list", &json!({})).token(&token());
    assert_eq!(proxy.send(list()).await.status, 200);
    let records = proxy.records(1).await;
    let shown = records
        .iter()
        .find_map(|record| find_session_in("", record))
        .expect("the record names the session");
    let stream = proxy.open(Ask::bodiless(http::Method::GET, path, &session).token(&token())).await;
    assert_eq!(stream.status(), 200);

    proxy.apply(&revoking(&world, Revoked::Session(shown)));
    assert_eq!(proxy.send(list()).await.status, 404);
    ended(stream).await;
    let another = proxy.send(Ask::initialize(path, "2025-11-25").token(&token())).await;
    assert_eq!(another.status, 200, "the caller is still welcome");
}

/// The session as the audit record tells it, wherever the record keeps it.
fn find_session_in(at: &str, record: &Value) -> Option<String> {
    match record {
        Value::Object(members) => members.iter().find_map(|(name, value)| match value.as_str() {
            Some(text) if name == "uid" && at == "session" => Some(text.to_owned()),
            _ => find_session_in(name, value),
        }),
        Value::Array(items) => items.iter().find_map(|item| find_session_in(at, item)),
        _ => None,
    }
}

#[tokio::test]
async fn open_streams_and_calls_in_flight_end_with_what_they_need() {
    let peer = Peer::start().await;
    let world = world(&peer.url);
    let tool = |name: &str| {
        Revoked::Tool(RevokedTool { server: "files".parse().unwrap(), name: name.to_owned() })
    };
    for what in [ci(None), Revoked::Server("files".parse().unwrap())] {
        let proxy = Proxy::start(&world).await;
        let params = json!({"notifications": {"toolsListChanged": true}});
        let listen = Ask::modern(PATH, "subscriptions/listen", params).token(&token());
        let mut listening = proxy.open(listen).await;
        read_until(listening.body_mut(), "acknowledged").await;
        proxy.apply(&revoking(&world, what));
        ended(listening).await;
    }
    for what in [ci(None), tool("stream-hang")] {
        let proxy = Proxy::start(&world).await;
        let mut streaming = proxy.open(call("stream-hang")).await;
        read_until(streaming.body_mut(), "working").await;
        let hanging = tokio::spawn(async move { read_until(streaming.body_mut(), "error").await });
        proxy.apply(&revoking(&world, tool("echo")));
        proxy.apply(&revoking(&world, what));
        let text = hanging.await.unwrap();
        assert!(text.contains("40300"), "{text}");
        peer.dropped().await;
    }
}

/// Every kind of revocation ends the streams that lived by what it takes: of a caller with a JWT
/// whose right comes from a role here and from a policy there.
#[tokio::test]
async fn each_kind_of_revocation_ends_open_streams() {
    let (peer, issuer) = (Peer::start().await, Issuer::start().await);
    let provider = format!(
        "apiVersion: weir/v1\nkind: IdentityProvider\nmetadata: {{name: corp, group: acme}}\n\
         spec: {{issuer: {}, audiences: [weir], allowPrivate: true}}\n",
        issuer.url
    );
    let policy = "apiVersion: weir/v1\nkind: Policy\nmetadata: {name: all, group: acme}\n\
                  spec: {cedar: 'permit (principal, action, resource);'}\n";
    let everything = Rule { servers: vec!["*".into()], tools: vec!["*".into()], ..Rule::default() };
    let by_role = world(&peer.url).documents(&provider).grant(
        "acme",
        vec![everything],
        vec![Subject::Membership("staff".into())],
    );
    let by_policy = world(&peer.url).documents(&provider).documents(policy);
    let set = by_role.set();
    let bindings = set.iter().filter(|r| r.key.kind == Kind::RoleBinding);
    let binding = bindings.last().unwrap().key.name.parse().unwrap();
    let now = jiff::Timestamp::now().as_second();
    let jwt = issuer.token(json!({
        "iss": issuer.url, "aud": "weir", "sub": "alice", "groups": ["staff"], "iat": now,
        "exp": now + 300, "jti": "jti-1", "sid": "sid-1",
    }));
    let alice = |issued_before| {
        Revoked::Principal(RevokedPrincipal { id: "jwt:corp:alice".to_owned(), issued_before })
    };
    let tool = RevokedTool { server: "files".parse().unwrap(), name: "stream-hang".to_owned() };
    // What is revoked; whether a stream that is about no tool ends as well.
    let cases = [
        (&by_role, Revoked::Token(Digest::of(jwt.as_bytes())), true),
        (&by_role, Revoked::TokenId("jti-1".to_owned()), true),
        (&by_role, Revoked::Session("sid-1".to_owned()), true),
        (&by_role, alice(None), true),
        (&by_role, alice(Some(now + 1)), true),
        (&by_role, Revoked::Server("files".parse().unwrap()), true),
        (&by_role, Revoked::Tool(tool), false),
        (&by_role, Revoked::RoleBinding(binding), true),
        (&by_policy, Revoked::Policy("all".parse().unwrap()), true),
    ];
    for (world, what, all) in cases {
        let proxy = Proxy::start(world).await;
        assert_eq!(proxy.config.current().problems, [], "{what:?}");
        let params = json!({"notifications": {"toolsListChanged": true}});
        let listen = Ask::modern(PATH, "subscriptions/listen", params).token(&jwt);
        let mut listening = proxy.open(listen).await;
        assert_eq!(listening.status(), 200, "{what:?}");
        read_until(listening.body_mut(), "acknowledged").await;
        let params = json!({"name": "stream-hang", "arguments": {}});
        let mut calling = proxy.open(Ask::modern(PATH, "tools/call", params).token(&jwt)).await;
        read_until(calling.body_mut(), "working").await;
        let revoked = revoking(world, what.clone());
        assert_eq!(revoked.snapshot().problems, [], "{what:?}");
        proxy.apply(&revoked);
        let text = read_until(calling.body_mut(), "error").await;
        assert!(text.contains("40300"), "{what:?}: {text}");
        if all {
            ended(listening).await;
        }
    }
}

/// Nobody changes anything; time passes. Streams that belong to no call live by the time that it is,
/// a running call by the time of its beginning.
#[tokio::test]
async fn streams_end_with_the_hours_that_a_rule_allows_and_with_their_token() {
    let (peer, issuer) = (Peer::start().await, Issuer::start().await);
    // 2026-11-23, 16:59:00 UTC.
    let begin: i64 = 1_795_453_140;
    let documents = format!(
        "apiVersion: weir/v1\nkind: IdentityProvider\nmetadata: {{name: corp, group: acme}}\n\
         spec: {{issuer: {}, audiences: [weir], allowPrivate: true, leewaySecs: 0}}\n\
         ---\napiVersion: weir/v1\nkind: Policy\nmetadata: {{name: hours, group: acme}}\n\
         spec: {{cedar: 'permit (principal, action, resource) when {{ context.hour < 17 }};\n\
         \x20 permit (principal, action, resource) when {{ principal.subject == \"night\" }};'}}\n",
        issuer.url
    );
    let world = world(&peer.url).documents(&documents);
    let token = |who: &str, secs: i64| {
        issuer.token(json!({"iss": issuer.url, "aud": "weir", "sub": who, "iat": begin,
            "exp": begin + secs}))
    };
    let clock = ManualClock::at_ms(u64::try_from(begin).unwrap() * 1_000);
    let ca = Ca::new("weir");
    let proxy = Proxy::node_at(&world, (&ca, "one"), Arc::new(clock.clone()), |_| ()).await;
    assert_eq!(proxy.config.current().problems, []);
    let listen = async |token: &str| {
        let params = json!({"notifications": {"toolsListChanged": true}});
        let ask = Ask::modern(PATH, "subscriptions/listen", params).token(token);
        let mut stream = proxy.open(ask).await;
        assert_eq!(stream.status(), 200);
        read_until(stream.body_mut(), "acknowledged").await;
        stream
    };
    let [day, night, short] =
        [("day", 9_000), ("night", 9_000), ("night", 600)].map(|(who, secs)| token(who, secs));
    let (by_day, by_night, shortly) =
        (listen(&day).await, listen(&night).await, listen(&short).await);
    let params = json!({"name": "stream-hang", "arguments": {}});
    let mut calling = proxy.open(Ask::modern(PATH, "tools/call", params).token(&day)).await;
    read_until(calling.body_mut(), "working").await;

    clock.advance(Duration::from_secs(120));
    ended(by_day).await;
    let refused = proxy.send(Ask::modern(PATH, "tools/list", json!({})).token(&day)).await;
    assert_eq!(refused.status, 404, "{}", refused.text());
    clock.advance(Duration::from_secs(600));
    ended(shortly).await;
    // The others are as they were, whatever changes now.
    proxy.apply(&world);
    let (listening, running) = tokio::join!(goes_on(by_night), goes_on(calling));
    assert!(listening && running, "{listening} {running}");
}

/// True when nothing ends a stream for longer than it takes to look at it twice.
async fn goes_on(mut response: http::Response<hyper::body::Incoming>) -> bool {
    use http_body_util::BodyExt as _;
    let long = Duration::from_millis(2 * weir_model::bounds::STREAM_LOOK_MS + 500);
    let all = async { while response.body_mut().frame().await.is_some() {} };
    tokio::time::timeout(long, all).await.is_err()
}

/// Reads a stream to its end.
async fn ended(response: http::Response<hyper::body::Incoming>) {
    use http_body_util::BodyExt as _;
    let end = tokio::time::timeout(PATIENCE, response.into_body().collect()).await;
    assert!(end.is_ok(), "the stream is still open");
}
