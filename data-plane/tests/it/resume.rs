//! Streams that clients with a session ask for again, here and at another proxy.

use http::Method;
use hyper::body::Incoming;
use serde_json::{Value, json};
use weir_model::testing::World;
use weir_runtime::testing::{Ca, eventually};

use crate::peer::Peer;
use crate::proxy::{Answer, Ask, PATIENCE, Proxy, messages, read_until};
use crate::{token, world};

const PATH: &str = "/acme/files/mcp";

async fn session(proxy: &Proxy, path: &str, revision: &str) -> String {
    let hello = proxy.send(Ask::initialize(path, revision).token(&token())).await;
    hello.header("mcp-session-id").unwrap().to_owned()
}

fn call(session: &str, tool: &str) -> Ask {
    let params = json!({"name": tool, "arguments": {}, "_meta": {"progressToken": "t"}});
    Ask::legacy(PATH, session, "tools/call", &params)
        .without("mcp-protocol-version")
        .token(&token())
}

fn again(session: &str, id: &str) -> Ask {
    Ask::bodiless(Method::GET, PATH, session).header("last-event-id", id).token(&token())
}

/// The ids of a stream's events.
fn ids(stream: &str) -> Vec<String> {
    stream.lines().filter_map(|line| line.strip_prefix("id: ")).map(str::to_owned).collect()
}

/// Two proxies that know each other.
async fn two(world: &World) -> (Proxy, Proxy) {
    let ca = Ca::new("weir");
    (Proxy::node(world, &ca, "a", |_| ()).await, Proxy::node(world, &ca, "b", |_| ()).await)
}

/// Calls `ask`, leaves once the question has come, and gives the id of its event.
async fn leave(proxy: &Proxy, session: &str) -> String {
    let mut body = proxy.open(call(session, "ask")).await.into_body();
    let text = read_until(&mut body, "elicitation/create").await;
    ids(&text).pop().unwrap()
}

async fn say(proxy: &Proxy, session: &str) {
    let said = json!({"jsonrpc": "2.0", "id": "q-1", "result": {"action": "accept"}});
    let said = Ask::post(PATH, said.to_string()).header("mcp-session-id", session).token(&token());
    assert_eq!(proxy.send(said).await.status, 202);
}

async fn result(mut body: Incoming) -> String {
    read_until(&mut body, "structuredContent").await
}

#[tokio::test]
async fn events_have_ids_and_streams_are_primed_where_clients_know_that() {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&world(&peer.url)).await;
    for (revision, primes) in [("2025-03-26", false), ("2025-06-18", false), ("2025-11-25", true)] {
        let session = session(&proxy, PATH, revision).await;
        let answer = proxy.send(call(&session, "progress")).await;
        let text = answer.text();
        assert_eq!(messages(text).len(), 3, "{text}");
        assert_eq!(ids(text).len(), 3 + usize::from(primes), "{revision}: {text}");
        assert_eq!(text.contains("retry: 1000\ndata: \n\n"), primes, "{revision}: {text}");
        assert!(!text.contains("files") && !text.contains("ci\""), "sealed: {text}");
    }
    let params = json!({"name": "progress", "arguments": {}, "_meta": {"progressToken": "t"}});
    let stateless = proxy.send(Ask::modern(PATH, "tools/call", params).token(&token())).await;
    assert!(!stateless.text().contains("id: "), "{}", stateless.text());
}

#[tokio::test]
async fn a_client_that_left_gets_the_rest() {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&world(&peer.url)).await;
    let session = session(&proxy, PATH, "2025-11-25").await;
    let last = leave(&proxy, &session).await;
    say(&proxy, &session).await;
    let rest = proxy.open(again(&session, &last)).await;
    assert_eq!(rest.status(), 200);
    let text = result(rest.into_body()).await;
    assert_eq!(messages(&text).len(), 1, "only what came after: {text}");
    // Once more, in case the last part got lost too; from further back as well.
    let more = result(proxy.open(again(&session, &last)).await.into_body()).await;
    assert_eq!(messages(&more), messages(&text));
    let records = proxy.records(5).await;
    let calls = records.iter().filter(|r| r.to_string().contains("tools/call")).count();
    assert_eq!(calls, 1, "{records:?}");
}

#[tokio::test]
async fn a_client_comes_back_at_another_proxy() {
    let peer = Peer::start().await;
    let (a, b) = two(&world(&peer.url)).await;
    let session = session(&a, PATH, "2025-11-25").await;
    let last = leave(&a, &session).await;
    let running = b.open(again(&session, &last)).await;
    assert_eq!(running.status(), 200);
    say(&b, &session).await;
    let text = result(running.into_body()).await;
    assert!(text.contains(r#"{"action":"accept"}"#), "{text}");
    // From the beginning, through the other one, byte for byte.
    let whole = a.send(call(&session, "progress")).await;
    let first = ids(whole.text()).remove(0);
    let rest = b.send(again(&session, &first)).await;
    let told: Vec<Value> = messages(rest.text());
    assert_eq!(told, messages(whole.text()));
    assert_eq!(ids(rest.text()), ids(whole.text())[1..]);
}

#[tokio::test]
async fn ids_are_good_for_their_owner_alone() {
    let peer = Peer::start().await;
    let other = World::token("acme", "other");
    let world = world(&peer.url).account("acme", "other").allow("acme", "other", "files", "echo");
    let proxy = Proxy::start(&world).await;
    let mine = session(&proxy, PATH, "2025-11-25").await;
    let id = ids(proxy.send(call(&mine, "progress")).await.text()).remove(0);
    let hello = proxy.send(Ask::initialize(PATH, "2025-11-25").token(&other)).await;
    let theirs = hello.header("mcp-session-id").unwrap().to_owned();
    let joined = session(&proxy, "/acme/mcp", "2025-11-25").await;
    let second = session(&proxy, PATH, "2025-11-25").await;
    let mut elsewhere = again(&joined, &id);
    elsewhere.path = "/acme/mcp".to_owned();
    let by_other =
        Ask::bodiless(Method::GET, PATH, &theirs).header("last-event-id", &id).token(&other);
    let cases = [
        ("forged", again(&mine, &format!("{id}x")), 400),
        ("made up", again(&mine, "17"), 400),
        ("a session id", again(&mine, &mine), 400),
        ("another caller", by_other, 400),
        ("another endpoint", elsewhere, 400),
        ("another session of the same caller", again(&second, &id), 400),
        ("another caller's session", again(&theirs, &id), 404),
        ("no session", again(&mine, &id).without("mcp-session-id"), 400),
    ];
    for (what, ask, status) in cases {
        let answer = proxy.send(ask).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (status, -32600), "{what}");
    }
    assert_eq!(proxy.send(again(&mine, &id)).await.status, 200);
}

#[tokio::test]
async fn a_client_that_stays_away_cancels_its_call() {
    let peer = Peer::start().await;
    let proxy = Proxy::with(&world(&peer.url), |s| s.listen.resume_ms = 200).await;
    let session = session(&proxy, PATH, "2025-11-25").await;
    let mut body = proxy.open(call(&session, "stream-hang")).await.into_body();
    let id = ids(&read_until(&mut body, "working").await).pop().unwrap();
    drop(body);
    peer.dropped().await;
    let told = async || !peer.seen("notifications/cancelled").is_empty();
    assert!(eventually(PATIENCE, told).await);
    let records = proxy.records(2).await;
    assert!(records[1].to_string().contains("aborted"), "{}", records[1]);
    // Too late: the call is answered with an error, so that nobody waits for it.
    let gone = proxy.send(again(&session, &id)).await;
    let told = gone.events();
    assert_eq!((&told[0]["id"], &told[0]["error"]["code"]), (&json!(1), &json!(50201)));
}

#[tokio::test]
async fn long_streams_are_closed_for_their_clients_to_come_back() {
    let peer = Peer::start().await;
    let proxy = Proxy::with(&world(&peer.url), |s| s.listen.poll_ms = Some(200)).await;
    let session = session(&proxy, PATH, "2025-11-25").await;
    let mut ask = call(&session, "ask").header("mcp-protocol-version", "2025-11-25");
    let (mut whole, mut turns) = (String::new(), 0);
    // The connection ends by itself, the call goes on behind it.
    while !whole.contains("structuredContent") {
        let answer = proxy.send(ask).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let id = ids(answer.text()).pop();
        whole.push_str(answer.text());
        turns += 1;
        if turns == 2 {
            assert!(whole.contains("elicitation/create") && whole.contains("retry: "), "{whole}");
            say(&proxy, &session).await;
        }
        let last = id.or_else(|| ids(&whole).pop()).unwrap();
        ask = again(&session, &last);
    }
    assert!(turns > 2, "{whole}");
    assert_eq!(whole.matches("elicitation/create").count(), 1, "nothing comes twice: {whole}");
    // Older clients know nothing of that.
    let older = self::session(&proxy, PATH, "2025-06-18").await;
    let mut body = proxy.open(call(&older, "ask")).await.into_body();
    read_until(&mut body, "elicitation/create").await;
    say(&proxy, &older).await;
    read_until(&mut body, "structuredContent").await;
}

#[tokio::test]
async fn calls_of_a_proxy_that_is_gone_are_answered_with_an_error() {
    let peer = Peer::start().await;
    let world = world(&peer.url);
    let (alone, other) = (Proxy::start(&world).await, Proxy::start(&world).await);
    let session = session(&alone, PATH, "2025-11-25").await;
    let last = leave(&alone, &session).await;
    let answer = other.send(again(&session, &last)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.events()[0]["error"]["code"], 50201);
}

#[tokio::test]
async fn the_servers_own_ids_lead_back_to_it() {
    let peer = Peer::start().await;
    let (a, b) = two(&world(&peer.url)).await;
    let session = session(&a, PATH, "2025-11-25").await;
    let answer = a.send(call(&session, "prime")).await;
    let text = answer.text();
    assert!(text.contains("retry: 250\n") && !text.contains("p-1"), "{text}");
    let last = ids(text).pop().unwrap();
    // The stream has ended without an answer: the server goes on where the client says.
    let asked = async |at: &Proxy| {
        let mut body = at.open(again(&session, &last)).await.into_body();
        read_until(&mut body, "list_changed").await;
        let all = peer.all();
        let gets = all.iter().filter(|s| s.http == Method::GET);
        gets.filter(|s| s.header("last-event-id") == Some("p-1")).count()
    };
    assert_eq!(asked(&b).await, 1);
    assert_eq!(asked(&a).await, 2);
}

#[tokio::test]
async fn announcements_are_not_lost_while_the_client_is_away() {
    let peer = Peer::start().await;
    let world = world(&peer.url);
    let (a, b) = two(&world).await;
    let session = session(&a, "/acme/mcp", "2025-11-25").await;
    let stream = |after: Option<&str>| {
        let mut ask = Ask::bodiless(Method::GET, "/acme/mcp", &session).token(&token());
        if let Some(after) = after {
            ask = ask.header("last-event-id", after);
        }
        ask
    };
    let mut body = a.open(stream(None)).await.into_body();
    let first = ids(&read_until(&mut body, "retry").await).remove(0);
    drop(body);
    a.apply(&world.clone().without("RoleBinding/acme/grant-1"));
    for proxy in [&b, &a] {
        let mut body = proxy.open(stream(Some(&first))).await.into_body();
        read_until(&mut body, "notifications/tools/list_changed").await;
    }
    // A stream whose holder is gone begins anew.
    let alone = Proxy::start(&world).await;
    let mut body = alone.open(stream(Some(&first))).await.into_body();
    let fresh = read_until(&mut body, "retry").await;
    assert_ne!(ids(&fresh)[0], first);
}

#[tokio::test]
async fn running_calls_end_when_their_right_is_withdrawn() {
    let peer = Peer::start().await;
    let world = world(&peer.url).tool("acme", "files", "another");
    let proxy = Proxy::start(&world).await;
    let session = session(&proxy, PATH, "2025-11-25").await;
    let params = json!({"name": "stream-hang", "arguments": {}});
    let modern = Ask::modern(PATH, "tools/call", params).token(&token());
    let mut streams = Vec::new();
    for ask in [call(&session, "stream-hang"), modern] {
        let mut body = proxy.open(ask).await.into_body();
        read_until(&mut body, "working").await;
        streams.push(body);
    }
    // A change of something else leaves them alone.
    proxy.apply(&world.clone().tool("acme", "files", "one-more"));
    proxy.apply(&world.without("RoleBinding/acme/grant-1"));
    for mut body in streams {
        let text = read_until(&mut body, "error").await;
        assert_eq!(messages(&text)[0]["error"]["code"], 40300, "{text}");
    }
    peer.dropped().await;
    let _: Answer = proxy.send(Ask::post("/nowhere", "{}")).await;
}
