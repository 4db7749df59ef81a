//! What servers ask of their clients in the middle of a call: all four cells of eras, over two
//! proxies of one installation.

use http::Method;
use hyper::body::Incoming;
use serde_json::{Value, json};
use weir_model::resource::ObservedEra;
use weir_model::testing::World;
use weir_runtime::testing::eventually;

use crate::peer::{Peer, Speaks};
use crate::proxy::{Answer, Ask, PATIENCE, Proxy, messages, read_until};
use crate::{token, world};

const JOINED: &str = "/acme/mcp";
const SINGLE: &str = "/acme/files/mcp";

async fn setup(speaks: Speaks) -> (Peer, [Proxy; 2]) {
    let peer = Peer::only(speaks).await;
    let era = match speaks {
        Speaks::Legacy => ObservedEra::Legacy,
        Speaks::Modern => ObservedEra::Modern,
        Speaks::Both => ObservedEra::Dual,
    };
    let world: World = world(&peer.url).era("acme", "files", era);
    let proxies = Proxy::two(&world).await;
    (peer, proxies)
}

fn tool(path: &str, name: &str) -> String {
    if path == JOINED { format!("files__{name}") } else { name.to_owned() }
}

fn able() -> Value {
    json!({"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {"listChanged": true}})
}

/// A client of an older revision.
struct Legacy {
    path: &'static str,
    session: String,
}

impl Legacy {
    async fn connect(proxy: &Proxy, path: &'static str, capabilities: Value) -> Self {
        let mut hello = Ask::initialize(path, "2025-11-25").token(&token());
        let mut body: Value = serde_json::from_slice(&hello.body).unwrap();
        body["params"]["capabilities"] = capabilities;
        hello.body = body.to_string().into();
        let answer = proxy.send(hello).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        Self { path, session: answer.header("mcp-session-id").unwrap().to_owned() }
    }

    fn ask(&self, method: &str, params: &Value) -> Ask {
        Ask::legacy(self.path, &self.session, method, params).token(&token())
    }

    async fn call(&self, proxy: &Proxy, name: &str) -> Incoming {
        let params = json!({"name": tool(self.path, name), "arguments": {}});
        let response = proxy.open(self.ask("tools/call", &params)).await;
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        response.into_body()
    }

    async fn answer(&self, proxy: &Proxy, id: &Value, member: &str, value: Value) -> Answer {
        let mut ask = self.ask("x", &json!({}));
        let mut body = json!({"jsonrpc": "2.0", "id": id});
        body[member] = value;
        ask.body = body.to_string().into();
        proxy.send(ask).await
    }
}

/// Reads until the stream has brought that many requests to the client.
async fn questions(body: &mut Incoming, count: usize) -> (Vec<Value>, String) {
    let mut text = String::new();
    loop {
        text.push_str(&read_until(body, "\n\n").await);
        let asked: Vec<_> = messages(&text)
            .into_iter()
            .filter(|m| m.get("method").is_some() && m.get("id").is_some())
            .collect();
        if asked.len() >= count {
            return (asked, text);
        }
    }
}

async fn last(body: &mut Incoming) -> Value {
    let text = read_until(body, "\"result\"").await;
    messages(&text).pop().unwrap()["result"].clone()
}

fn modern(path: &str, name: &str, extra: &Value) -> Ask {
    let mut params = json!({
        "name": tool(path, name), "arguments": {},
        "_meta": {
            "io.modelcontextprotocol/clientCapabilities": able(),
            "io.modelcontextprotocol/logLevel": "info",
        },
    });
    for (name, value) in extra.as_object().unwrap() {
        params[name.as_str()] = value.clone();
    }
    Ask::modern(path, "tools/call", params).token(&token())
}

/// The result of an answer in either form.
fn result(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let last = match answer.header("content-type") {
        Some("text/event-stream") => answer.events().pop().unwrap(),
        _ => answer.json(),
    };
    assert!(last["result"].is_object(), "{last}");
    last["result"].clone()
}

const SAID: [&str; 3] = ["elicitation/create", "sampling/createMessage", "roots/list"];

fn reply(method: &str) -> Value {
    match method {
        "elicitation/create" => json!({"action": "accept", "content": {"n": 1.0}}),
        "sampling/createMessage" => {
            json!({"role": "assistant", "model": "m", "content": {"type": "text", "text": "t"}})
        }
        _ => json!({"roots": [{"uri": "file:///a"}]}),
    }
}

// === older client, older server ===

#[tokio::test]
async fn an_older_server_asks_an_older_client_over_any_proxy() {
    let (peer, [a, b]) = setup(Speaks::Legacy).await;
    for path in [JOINED, SINGLE] {
        let client = Legacy::connect(&a, path, able()).await;
        peer.forget();
        let mut call = client.call(&b, "ask-many").await;
        let (asked, _) = questions(&mut call, 3).await;
        let methods: Vec<_> = asked.iter().map(|m| m["method"].as_str().unwrap()).collect();
        assert_eq!(methods, SAID, "{path}");
        assert_eq!(asked[0]["params"]["message"], "Sure?");
        // The answers come to the other proxy, in another order.
        for question in asked.iter().rev() {
            let value = reply(question["method"].as_str().unwrap());
            let answer = client.answer(&a, &question["id"], "result", value).await;
            assert_eq!(answer.status, 202, "{}", answer.text());
        }
        let result = last(&mut call).await;
        let expect =
            json!({"form": reply(SAID[0]), "sample": reply(SAID[1]), "roots": reply(SAID[2])});
        assert_eq!(result["structuredContent"], expect, "{path}");
    }
    // What the client can do was told to the server, on the joined endpoint as well.
    let told = peer.seen("initialize");
    let told = &told[0].body["params"]["capabilities"];
    assert!(told["sampling"].is_object() && told["elicitation"].is_object(), "{told}");
}

#[tokio::test]
async fn an_older_client_is_asked_only_what_it_offers() {
    let (peer, [a, b]) = setup(Speaks::Legacy).await;
    let client = Legacy::connect(&a, JOINED, json!({"sampling": {}})).await;
    let mut call = client.call(&a, "ask-many").await;
    let (asked, _) = questions(&mut call, 1).await;
    assert_eq!(asked[0]["method"], SAID[1]);
    let refusal = json!({"code": -1, "message": "no"});
    // Somebody else's session, or nobody's question: accepted, and nothing happens.
    let other = Legacy::connect(&a, JOINED, able()).await;
    for id in [&asked[0]["id"], &json!("k.AAAA"), &json!(7)] {
        assert_eq!(other.answer(&b, id, "result", json!({})).await.status, 202);
    }
    assert_eq!(client.answer(&b, &asked[0]["id"], "error", refusal.clone()).await.status, 202);
    let result = last(&mut call).await["structuredContent"].clone();
    assert_eq!(result["sample"], refusal, "the first answer of the right client counts");
    assert_eq!(result["form"]["code"], -32601, "{result}");
    assert_eq!(result["roots"], json!({"roots": []}), "{result}");
    // Late, or again.
    assert_eq!(client.answer(&b, &asked[0]["id"], "result", json!({})).await.status, 202);
    assert_eq!(peer.said("q-2").len(), 1);
}

#[tokio::test]
async fn a_question_ends_with_its_call() {
    let (peer, [a, _]) = setup(Speaks::Legacy).await;
    let client = Legacy::connect(&a, JOINED, able()).await;
    let mut call = client.call(&a, "ask").await;
    let (asked, _) = questions(&mut call, 1).await;
    let mut cancel = client.ask("notifications/cancelled", &json!({"requestId": 1}));
    let mut body: Value = serde_json::from_slice(&cancel.body).unwrap();
    body.as_object_mut().unwrap().remove("id");
    cancel.body = body.to_string().into();
    assert_eq!(a.send(cancel).await.status, 202);
    let text = read_until(&mut call, "49900").await;
    assert!(text.contains("error"), "{text}");
    // The server is told that nobody answers, and that the call is over.
    let over =
        async || !peer.said("q-1").is_empty() && !peer.seen("notifications/cancelled").is_empty();
    assert!(eventually(PATIENCE, over).await);
    assert_eq!(client.answer(&a, &asked[0]["id"], "result", json!({})).await.status, 202);
}

// === older client, stateless server ===

#[tokio::test]
async fn a_stateless_server_asks_an_older_client() {
    let (peer, [a, b]) = setup(Speaks::Modern).await;
    for path in [JOINED, SINGLE] {
        let client = Legacy::connect(&a, path, able()).await;
        peer.forget();
        let mut call = client.call(&b, "ask-modern").await;
        let (asked, _) = questions(&mut call, 1).await;
        assert_eq!(asked[0]["method"], SAID[0]);
        let answer = client.answer(&a, &asked[0]["id"], "result", reply(SAID[0])).await;
        assert_eq!(answer.status, 202);
        let result = last(&mut call).await;
        assert!(result.get("resultType").is_none());
        let expect = json!({"got": {"name": reply(SAID[0])}, "state": "s-1"});
        assert_eq!(result["structuredContent"], expect, "{path}");
        let calls = peer.seen("tools/call");
        assert_eq!(calls.len(), 2);
        assert_ne!(calls[0].body["id"], calls[1].body["id"], "a retry is a request of its own");
        let meta = &calls[1].body["params"]["_meta"];
        let told = &meta["io.modelcontextprotocol/clientCapabilities"];
        assert_eq!(
            *told,
            json!({"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {}})
        );
    }
}

#[tokio::test]
async fn what_an_older_client_cannot_answer_is_told_clearly() {
    let (_peer, [a, _]) = setup(Speaks::Modern).await;
    let client = Legacy::connect(&a, SINGLE, json!({})).await;
    let params = json!({"name": "ask-modern", "arguments": {}});
    let answer = a.send(client.ask("tools/call", &params)).await;
    let told = match answer.header("content-type") {
        Some("text/event-stream") => answer.events().pop().unwrap(),
        _ => answer.json(),
    };
    assert_eq!(told["error"]["code"], 50100, "{told}");
    assert!(told["error"]["message"].as_str().unwrap().contains("elicitation/create"), "{told}");
}

// === stateless client, stateless server ===

#[tokio::test]
async fn the_state_of_a_stateless_server_is_wrapped() {
    let (peer, [a, b]) = setup(Speaks::Modern).await;
    for path in [JOINED, SINGLE] {
        peer.forget();
        let first = result(&a.send(modern(path, "ask-modern", &json!({}))).await);
        assert_eq!(first["resultType"], "input_required");
        assert_eq!(first["inputRequests"]["name"]["method"], SAID[0]);
        let state = first["requestState"].as_str().unwrap();
        assert!(state.len() > 40, "{state}");
        let back = json!({"inputResponses": {"name": reply(SAID[0])}, "requestState": state});
        let second = result(&b.send(modern(path, "ask-modern", &back)).await);
        assert_eq!(second["structuredContent"]["state"], "s-1", "the server's own comes back");
        assert_eq!(second["structuredContent"]["got"]["name"], reply(SAID[0]));
    }
}

// === stateless client, older server ===

#[tokio::test]
async fn a_call_is_parked_until_its_client_is_back_at_any_proxy() {
    let (peer, [a, b]) = setup(Speaks::Legacy).await;
    for path in [JOINED, SINGLE] {
        peer.forget();
        let first = result(&a.send(modern(path, "ask-many", &json!({}))).await);
        assert_eq!(first["resultType"], "input_required", "{first}");
        let requests = first["inputRequests"].as_object().unwrap();
        let methods: Vec<_> = requests.values().map(|r| r["method"].as_str().unwrap()).collect();
        assert_eq!(methods, SAID, "{path}");
        assert_eq!(a.gateway.parking.count(), 1);
        // Two of three answers, at the other proxy: the rest is asked for again.
        let answers: serde_json::Map<_, _> = requests
            .iter()
            .map(|(key, request)| (key.clone(), reply(request["method"].as_str().unwrap())))
            .collect();
        let two: serde_json::Map<_, _> = answers.clone().into_iter().take(2).collect();
        let state = first["requestState"].clone();
        let back = json!({"inputResponses": two, "requestState": state});
        let second = result(&b.send(modern(path, "ask-many", &back)).await);
        assert_eq!(second["resultType"], "input_required");
        let left: Vec<_> = second["inputRequests"].as_object().unwrap().keys().collect();
        assert_eq!(left, [answers.keys().nth(2).unwrap()]);
        let back = json!({"inputResponses": answers, "requestState": second["requestState"]});
        let answer = b.send(modern(path, "ask-many", &back)).await;
        let done = result(&answer);
        assert_eq!(done["resultType"], "complete");
        let expect =
            json!({"form": reply(SAID[0]), "sample": reply(SAID[1]), "roots": reply(SAID[2])});
        assert_eq!(done["structuredContent"], expect);
        if answer.header("content-type") == Some("text/event-stream") {
            assert_eq!(answer.events()[0]["method"], "notifications/message");
        }
        // A state is good for one retry.
        let again = json!({"inputResponses": answers, "requestState": state});
        let replayed = b.send(modern(path, "ask-many", &again)).await;
        assert_eq!(replayed.code(), -32602, "{}", replayed.text());
        let empty = async || a.gateway.parking.count() == 0;
        assert!(eventually(PATIENCE, empty).await);
    }
}

#[tokio::test]
async fn an_error_that_wants_a_url_visited_becomes_a_question() {
    let (peer, [a, b]) = setup(Speaks::Legacy).await;
    let first = result(&a.send(modern(JOINED, "url-error", &json!({}))).await);
    let request = &first["inputRequests"]["url-0"];
    assert_eq!(request["params"]["url"], "https://a.example", "{first}");
    assert!(request["params"].get("elicitationId").is_none());
    let back = json!({
        "inputResponses": {"url-0": {"action": "accept"}}, "requestState": first["requestState"],
    });
    let done = result(&b.send(modern(JOINED, "url-error", &back)).await);
    assert_eq!(done["structuredContent"]["visited"], true);
    let retried = peer.seen("tools/call").pop().unwrap();
    assert!(retried.body["params"].get("inputResponses").is_none());
    assert!(retried.body["params"].get("requestState").is_none());
}

#[tokio::test]
async fn parked_calls_are_bounded_and_end_with_their_proxy() {
    let (_peer, [a, b]) = setup(Speaks::Legacy).await;
    let mut states = Vec::new();
    for _ in 0..weir_model::bounds::PARKED_PER_PRINCIPAL_MAX {
        let parked = result(&a.send(modern(JOINED, "ask-many", &json!({}))).await);
        states.push(parked["requestState"].clone());
    }
    let over = a.send(modern(JOINED, "ask-many", &json!({}))).await;
    assert_eq!(over.code(), 42901, "{}", over.text());
    a.drain.now();
    let gone = async || {
        let back = json!({"inputResponses": {}, "requestState": states[0]});
        b.send(modern(JOINED, "ask-many", &back)).await.code() == -32602
    };
    assert!(eventually(PATIENCE, gone).await);
}

/// Every way to bring back a state that is not right gets the same answer.
#[tokio::test]
async fn only_the_right_state_is_taken_back() {
    for speaks in [Speaks::Legacy, Speaks::Modern] {
        let (peer, [a, b]) = setup(speaks).await;
        let name = if speaks == Speaks::Legacy { "ask-many" } else { "ask-modern" };
        let first = result(&a.send(modern(JOINED, name, &json!({}))).await);
        let state = first["requestState"].as_str().unwrap().to_owned();
        let before = peer.seen("tools/call").len();
        let mut altered = state.clone().into_bytes();
        let at = altered.len() / 2;
        altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
        let altered = String::from_utf8(altered).unwrap();
        let back = |state: &str| json!({"inputResponses": {}, "requestState": state});
        let of = |path: &str, name: &str, state: &str| modern(path, name, &back(state));
        let mut arguments = back(&state);
        arguments["arguments"] = json!({"a": 1});
        let table = [
            ("forged", of(JOINED, name, "k.AAAA")),
            ("no text", modern(JOINED, name, &json!({"requestState": 7}))),
            ("altered", of(JOINED, name, &altered)),
            ("cut", of(JOINED, name, &state[..state.len() - 2])),
            ("of another tool", of(JOINED, "echo", &state)),
            ("of other arguments", modern(JOINED, name, &arguments)),
            ("of another endpoint", of(SINGLE, name, &state)),
            ("a session", of(JOINED, name, &Legacy::connect(&a, JOINED, able()).await.session)),
        ];
        for (what, ask) in table {
            let answer = b.send(ask).await;
            assert_eq!(answer.code(), -32602, "{what}: {}", answer.text());
        }
        assert_eq!(peer.seen("tools/call").len(), before, "none of them reached the server");
        // It is still good for whom it was made.
        let mut good = back(&state);
        if speaks == Speaks::Modern {
            good["inputResponses"] = json!({"name": reply(SAID[0])});
        }
        assert_eq!(b.send(modern(JOINED, name, &good)).await.status, 200);
    }
}

#[tokio::test]
async fn a_session_goes_on_at_any_proxy() {
    let (_peer, [a, b]) = setup(Speaks::Legacy).await;
    let client = Legacy::connect(&a, JOINED, able()).await;
    for proxy in [&a, &b] {
        assert_eq!(proxy.send(client.ask("ping", &json!({}))).await.status, 200);
    }
    let delete = Ask::bodiless(Method::DELETE, JOINED, &client.session).token(&token());
    assert_eq!(a.send(delete).await.status, 204);
    assert_eq!(a.send(client.ask("ping", &json!({}))).await.status, 404);
}
