//! One client between two proxies: what each does counts at the other.

use http::Method;
use serde_json::{Value, json};
use weir_model::bounds;
use weir_model::resource::{ObservedEra, StdioUpstream, Upstream};
use weir_model::testing::World;
use weir_runtime::testing::{Ca, eventually};

use crate::peer::Peer;
use crate::proxy::{Answer, Ask, PATIENCE, Proxy, messages, read_until};
use crate::{token, world};

const JOINED: &str = "/acme/mcp";
const SINGLE: &str = "/acme/files/mcp";

async fn open(proxy: &Proxy, path: &str) -> String {
    let hello = proxy.send(Ask::initialize(path, "2025-11-25").token(&token())).await;
    let session = hello.header("mcp-session-id");
    session.unwrap_or_else(|| panic!("{}", hello.text())).to_owned()
}

fn ask(path: &str, session: &str, method: &str, params: &Value) -> Ask {
    Ask::legacy(path, session, method, params).token(&token())
}

async fn ping(proxy: &Proxy, path: &str, session: &str) -> u16 {
    proxy.send(ask(path, session, "ping", &json!({}))).await.status.as_u16()
}

async fn end(proxy: &Proxy, path: &str, session: &str) -> u16 {
    let delete = Ask::bodiless(Method::DELETE, path, session).token(&token());
    proxy.send(delete).await.status.as_u16()
}

/// Once the answer is there, the session is over everywhere.
#[tokio::test]
async fn a_session_that_was_ended_is_unknown_at_the_other_proxy() {
    let peer = Peer::start().await;
    let [one, two] = Proxy::two(&world(&peer.url)).await;
    for path in [JOINED, SINGLE] {
        for _ in 0..20 {
            let session = open(&one, path).await;
            assert_eq!(ping(&two, path, &session).await, 200);
            assert_eq!(end(&one, path, &session).await, 204);
            assert_eq!(ping(&two, path, &session).await, 404);
            assert_eq!(end(&two, path, &session).await, 404);
        }
    }
}

#[tokio::test]
async fn who_starts_later_or_is_away_hears_of_it_when_it_comes() {
    let peer = Peer::start().await;
    let world = world(&peer.url);
    let ca = Ca::new("weir");
    let one = Proxy::node(&world, &ca, "one", |_| ()).await;
    let (first, second) = (open(&one, JOINED).await, open(&one, JOINED).await);
    assert_eq!(end(&one, JOINED, &first).await, 204);
    let two = Proxy::node(&world, &ca, "two", |_| ()).await;
    assert_eq!(ping(&two, JOINED, &first).await, 200, "it has not heard of it");
    let both = [one, two];
    Proxy::acquaint(&both).await;
    let [one, two] = both;
    assert_eq!(ping(&two, JOINED, &first).await, 404);
    assert_eq!(ping(&two, JOINED, &second).await, 200);

    // A proxy that is gone costs the end of a session nothing but an attempt.
    two.drain.now();
    drop(two.served.await);
    assert_eq!(end(&one, JOINED, &second).await, 204);
    let back = Proxy::node(&world, &ca, "two", |_| ()).await;
    assert_eq!(ping(&back, JOINED, &second).await, 200, "it has not heard of it");
    let both = [one, back];
    Proxy::acquaint(&both).await;
    assert_eq!(ping(&both[1], JOINED, &second).await, 404);
}

#[tokio::test]
async fn a_call_is_cancelled_from_the_other_proxy() {
    let peer = Peer::start().await;
    let [one, two] = Proxy::two(&world(&peer.url)).await;
    for (path, tool) in [(JOINED, "files__hang"), (SINGLE, "hang")] {
        peer.forget();
        let session = open(&one, path).await;
        let call = ask(path, &session, "tools/call", &json!({"name": tool, "arguments": {}}));
        let running = async { one.send(call).await };
        let cancel = async {
            let seen = async || !peer.seen("tools/call").is_empty();
            assert!(eventually(PATIENCE, seen).await);
            let note = json!({"jsonrpc": "2.0", "method": "notifications/cancelled",
                "params": {"requestId": 1}});
            let note = Ask::post(path, note.to_string()).header("mcp-session-id", &session);
            assert_eq!(two.send(note.token(&token())).await.status, 202);
        };
        let (answer, ()): (Answer, ()) = tokio::join!(running, cancel);
        assert_eq!((answer.status.as_u16(), answer.code()), (200, 49900), "{path}");
        let told = async || !peer.seen("notifications/cancelled").is_empty();
        assert!(eventually(PATIENCE, told).await, "{path}");
    }
}

#[tokio::test]
async fn a_stream_hears_of_what_was_subscribed_to_at_the_other_proxy() {
    let peer = Peer::start().await;
    let [one, two] = Proxy::two(&world(&peer.url)).await;
    let session = open(&one, JOINED).await;
    let stream = Ask::bodiless(Method::GET, JOINED, &session).token(&token());
    let mut stream = one.open(stream).await.into_body();
    let subscribe = |method: &str| ask(JOINED, &session, method, &json!({"uri": "test://a"}));
    let answer = two.send(subscribe("resources/subscribe")).await;
    assert_eq!(answer.json()["result"], json!({}), "{}", answer.text());
    let text = read_until(&mut stream, "resources/updated").await;
    assert!(text.contains(r#""params":{"uri":"test://a"}"#), "{text}");
    let answer = two.send(subscribe("resources/unsubscribe")).await;
    assert_eq!(answer.json()["result"], json!({}));
    peer.dropped().await;
}

/// A legacy server on stdio that counts what it is asked, and asks the client something.
const COUNTER: &str = r#"
n=0
while IFS= read -r line; do
  id=${line#*\"id\":}; id=${id%%,*}
  case "$line" in
  *'"server/discover"'*) printf '{"jsonrpc":"2.0","id":%s,"error":{"code":-32601,"message":"no"}}\n' "$id";;
  *'"initialize"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{}}}\n' "$id";;
  *'"result"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"content":[],"structuredContent":{"said":1}}}\n' "$call";;
  *'"ask"'*) call=$id; printf '{"jsonrpc":"2.0","id":"q","method":"elicitation/create","params":{}}\n';;
  *'"count"'*) n=$((n+1)); printf '{"jsonrpc":"2.0","id":%s,"result":{"content":[],"structuredContent":{"n":%s}}}\n' "$id" "$n";;
  *'"hang"'*) ;;
  *) case "$line" in *'"id"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{}}\n' "$id";; esac;;
  esac
done
"#;

fn counter() -> World {
    let child = StdioUpstream {
        command: "sh".to_owned(),
        args: vec!["-c".to_owned(), COUNTER.to_owned()],
        env: Default::default(),
        cwd: None,
        memory_mib: bounds::CHILD_MEMORY_MIB,
        processes: bounds::CHILD_PROCESSES,
    };
    let mut world = World::new()
        .group("acme")
        .server_at("acme", "files", Upstream::Stdio(child))
        .account("acme", "ci");
    for tool in ["count", "ask", "hang"] {
        world = world.tool("acme", "files", tool).allow("acme", "ci", "files", tool);
    }
    world.era("acme", "files", ObservedEra::Legacy)
}

/// The child of a session is at one proxy; its client may be at the other.
#[tokio::test]
async fn a_child_s_session_goes_on_at_the_other_proxy() {
    let ca = Ca::new("weir");
    let world = counter();
    let start = async |name: &str| {
        Proxy::node(&world, &ca, name, |s| s.upstream.commands = vec!["*".to_owned()]).await
    };
    let both = [start("one").await, start("two").await];
    Proxy::acquaint(&both).await;
    let [one, two] = both;
    let session = open(&one, SINGLE).await;
    let call = |tool: &str| ask(SINGLE, &session, "tools/call", &json!({"name": tool}));
    for (number, proxy) in [&one, &two, &two, &one, &two].into_iter().enumerate() {
        let answer = proxy.send(call("count")).await;
        let count = &answer.json()["result"]["structuredContent"]["n"];
        assert_eq!(*count, json!(number + 1), "{}", answer.text());
    }
    // The record is written once, by the proxy that has the child.
    assert_eq!((one.records(6).await.len(), two.log.records().len()), (6, 0));

    // Questions and answers, each at another proxy.
    let mut body = two.open(call("ask")).await.into_body();
    let mut text = read_until(&mut body, "elicitation/create").await;
    let said = json!({"jsonrpc": "2.0", "id": "q", "result": {"action": "accept"}});
    let said = Ask::post(SINGLE, said.to_string()).header("mcp-session-id", &session);
    assert_eq!(one.send(said.token(&token())).await.status, 202);
    text.push_str(&read_until(&mut body, "structuredContent").await);
    assert_eq!(messages(&text).last().unwrap()["result"]["structuredContent"]["said"], 1);

    // Who may not use it is told so by the proxy that was asked, and foreign sessions are unknown.
    let foreign = ask(SINGLE, &session, "ping", &json!({})).without("authorization");
    assert_eq!(two.send(foreign).await.status, 401);

    assert_eq!(end(&two, SINGLE, &session).await, 204);
    assert_eq!(ping(&one, SINGLE, &session).await, 404);
    assert_eq!(ping(&two, SINGLE, &session).await, 404);

    // With its home the session is gone, and its client is told to begin anew.
    let session = open(&one, SINGLE).await;
    assert_eq!(ping(&two, SINGLE, &session).await, 200);
    one.drain.now();
    drop(one.served.await);
    assert_eq!(ping(&two, SINGLE, &session).await, 404);
}
