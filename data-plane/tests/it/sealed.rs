//! Attacks on everything sealed that the gateway gives out, kind by kind: whatever is not the very
//! token, brought by the very caller to the very endpoint, gets the answer that the specification
//! has for it, and does nothing.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use serde_json::{Value, json};
use weir_model::bounds;
use weir_model::resource::DefinitionKind;
use weir_model::seal::Sealer;
use weir_model::secret::Secret;
use weir_model::testing::World;

use crate::peer::Peer;
use crate::proxy::{Ask, Proxy, read_until};
use crate::{token, world};

const PATH: &str = "/acme/files/mcp";

type Bring = Box<dyn Fn(&str, &str, &str) -> Ask>;

/// One kind of token.
struct Kind {
    name: &'static str,
    /// Purpose and associated data with which it is sealed.
    seal: (&'static str, Vec<u8>),
    /// One that is good, of `ci` on [`PATH`].
    good: String,
    /// Bringing it: the caller's API token, the path, the token.
    bring: Bring,
    /// Status and JSON-RPC code (0 for none) of one that is good, and of every other.
    answers: [(u16, i64); 2],
    /// Changes what is inside to one that has expired, for kinds that expire by themselves.
    expire: Option<fn(&mut Value)>,
}

fn bond(path: &str, principal: &str) -> Vec<u8> {
    let mut parts = path.trim_matches('/').split('/');
    let (group, server) = (parts.next().unwrap(), parts.next().filter(|part| *part != "mcp"));
    [group, server.unwrap_or(""), principal].join("\0").into_bytes()
}

/// Everything that `ci` may do, `other` may too, and so may both at the server's twin.
fn twins(url: &str) -> World {
    let mut world = world(url)
        .server("acme", "twin", url)
        .tool("acme", "twin", "echo")
        .account("acme", "other")
        .allow("acme", "other", "*", "*")
        .allow("acme", "ci", "*", "*");
    for at in 0..=bounds::LIST_PAGE_ENTRIES {
        let resource = json!({"uri": format!("test://{at:05}"), "name": "r"});
        world = world.define("acme", "files", DefinitionKind::Resource, &resource);
    }
    for server in ["files", "twin"] {
        world = world.tool("acme", server, "task").catalog("acme", server, |catalog| {
            catalog.capabilities["extensions"] = json!({"io.modelcontextprotocol/tasks": {}});
        });
    }
    world.tool("acme", "twin", "ask-modern")
}

fn tasks(method: &str, params: Value) -> Ask {
    let mut params = params;
    params["_meta"]["io.modelcontextprotocol/clientCapabilities"] =
        json!({"extensions": {"io.modelcontextprotocol/tasks": {}}, "elicitation": {"form": {}}});
    let task = params["taskId"].as_str().map(str::to_owned);
    let ask = Ask::modern(PATH, method, params);
    match task {
        Some(task) => ask.header("mcp-name", task),
        None => ask,
    }
}

async fn session(proxy: &Proxy) -> String {
    let hello = proxy.send(Ask::initialize(PATH, "2025-11-25").token(&token())).await;
    hello.header("mcp-session-id").unwrap().to_owned()
}

fn name(text: &str) -> weir_model::id::Name {
    text.parse().unwrap()
}

/// One good token of each kind.
async fn kinds(proxy: &Proxy) -> Vec<Kind> {
    let own = bond(PATH, "account:ci");
    let at = |mut ask: Ask, path: &str, caller: &str| {
        ask.path = ask.path.replacen(PATH, path, 1);
        ask.token(caller)
    };
    let id = session(proxy).await;
    let session_kind = Kind {
        name: "session",
        seal: ("session", own.clone()),
        good: id.clone(),
        bring: Box::new(move |caller, path, id| {
            at(Ask::legacy(PATH, id, "ping", &json!({})), path, caller)
        }),
        answers: [(200, 0), (404, -32600)],
        expire: Some(|plain| plain["t"] = 0.into()),
    };

    let rules = proxy.config.current().groups[&name("acme")].rules.digest;
    let list = proxy.send(tasks("resources/list", json!({})).token(&token())).await.json();
    let cursor = Kind {
        name: "cursor",
        seal: ("cursor", [&own[..], b"\0resources\0", &rules.0].concat()),
        good: list["result"]["nextCursor"].as_str().unwrap().to_owned(),
        bring: Box::new(move |caller, path, cursor| {
            at(tasks("resources/list", json!({"cursor": cursor})), path, caller)
        }),
        answers: [(200, 0), (400, -32602)],
        expire: None,
    };

    let call = Ask::legacy(
        PATH,
        &id,
        "tools/call",
        &json!({"name": "progress",
        "_meta": {"progressToken": "t"}}),
    );
    let text = proxy.send(call.token(&token())).await;
    let event = text.text().lines().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
    let resumed = id.clone();
    let inside = sealers(proxy).0.open("session", &own, &id).unwrap();
    let inside: Value = serde_json::from_slice(&inside).unwrap();
    let nonce = inside["n"].as_str().unwrap().as_bytes();
    let event = Kind {
        name: "event",
        seal: ("event", [&own[..], b"\0", nonce].concat()),
        good: event,
        bring: Box::new(move |caller, path, event| {
            let ask = Ask::bodiless(Method::GET, PATH, &resumed).header("last-event-id", event);
            at(ask, path, caller)
        }),
        answers: [(200, 0), (400, -32600)],
        expire: None,
    };

    let ask = json!({"name": "ask-modern", "arguments": {}});
    let asked = proxy.send(tasks("tools/call", ask).token(&token())).await.json();
    let state = Kind {
        name: "state",
        seal: ("state", own.clone()),
        good: asked["result"]["requestState"]
            .as_str()
            .unwrap_or_else(|| panic!("{asked}"))
            .to_owned(),
        bring: Box::new(move |caller, path, state| {
            let responses = json!({"name": {"action": "accept"}});
            let params = json!({"name": "ask-modern", "arguments": {},
                "inputResponses": responses, "requestState": state});
            at(tasks("tools/call", params), path, caller)
        }),
        answers: [(200, 0), (400, -32602)],
        expire: Some(|plain| plain["x"] = 0.into()),
    };

    let made = json!({"name": "task", "arguments": {}});
    let made = proxy.send(tasks("tools/call", made).token(&token())).await.json();
    let task = Kind {
        name: "task",
        seal: ("task", own.clone()),
        good: made["result"]["taskId"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned(),
        bring: Box::new(move |caller, path, task| {
            at(tasks("tasks/get", json!({"taskId": task})), path, caller)
        }),
        answers: [(200, 0), (400, -32602)],
        expire: None,
    };
    vec![session_kind, cursor, event, state, task]
}

/// What was answered: status, and the code of the error if it was one.
async fn answered(proxy: &Proxy, ask: Ask) -> (u16, i64) {
    let stream = ask.http == Method::GET;
    let response = proxy.open(ask).await;
    let status = response.status().as_u16();
    if stream && status == 200 {
        return (status, 0);
    }
    let answer = crate::proxy::Answer::of(response).await;
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
    (status, body["error"]["code"].as_i64().unwrap_or_default())
}

/// The real keys, and others under the same name.
fn sealers(proxy: &Proxy) -> (Arc<Sealer>, Sealer) {
    let real = proxy.gateway.sealer(&proxy.config.current()).unwrap();
    let stolen = ("k1".to_owned(), Arc::new(Secret::new(vec![0x5a; 32])));
    (real, Sealer::new(&[stolen]).unwrap())
}

fn altered(token: &str, at: usize) -> String {
    let mut bytes = token.to_owned().into_bytes();
    bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn only_the_very_token_is_good() {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&twins(&peer.url)).await;
    let (real, others) = sealers(&proxy);
    let all = kinds(&proxy).await;
    let other = World::token("acme", "other");
    for kind in &all {
        let Kind { name, seal: (purpose, aad), good, bring, answers: [fine, refused], expire } =
            kind;
        let plain = real.open(purpose, aad, good).unwrap_or_else(|e| panic!("{name}: {e}"));
        let body = &good[good.find('.').unwrap() + 1..];
        let cut = URL_SAFE_NO_PAD.decode(body).unwrap();
        let mut attacks = vec![
            ("made up", token(), PATH, "made-up".to_owned()),
            ("made up like one", token(), PATH, format!("k1.{}", "A".repeat(200))),
            ("cut at its end", token(), PATH, good[..good.len() - 4].to_owned()),
            ("cut to nothing", token(), PATH, "k1.".to_owned()),
            (
                "cut in the middle",
                token(),
                PATH,
                format!("k1.{}", URL_SAFE_NO_PAD.encode(&cut[..30])),
            ),
            ("altered in its name", token(), PATH, altered(good, 0)),
            ("altered at its beginning", token(), PATH, altered(good, 5)),
            ("altered at its end", token(), PATH, altered(good, good.len() - 8)),
            ("of another key", token(), PATH, others.seal(purpose, aad, &plain).unwrap()),
            ("of a key that is gone", token(), PATH, format!("k0.{body}")),
            ("another caller's", other.clone(), PATH, good.clone()),
            ("at another server", token(), "/acme/twin/mcp", good.clone()),
            ("too long", token(), PATH, format!("k1.{}", "A".repeat(bounds::SEALED_BYTES_MAX))),
        ];
        if let Some(expire) = expire {
            let mut inside: Value = serde_json::from_slice(&plain).unwrap();
            expire(&mut inside);
            let old = real.seal(purpose, aad, inside.to_string().as_bytes()).unwrap();
            attacks.push(("expired", token(), PATH, old));
        }
        for foreign in all.iter().filter(|other| other.name != *name) {
            attacks.push((foreign.name, token(), PATH, foreign.good.clone()));
        }
        for (what, caller, path, attack) in attacks {
            let got = answered(&proxy, bring(&caller, path, &attack)).await;
            // Events are asked for in a session, and that is the first that is not theirs.
            let foreign = *name == "event" && (caller == other || path != PATH);
            let refused = if foreign { (404, -32600) } else { *refused };
            assert_eq!(got, refused, "{name}: {what}");
        }
        let got = answered(&proxy, bring(&token(), PATH, good)).await;
        assert_eq!(got, *fine, "{name}: the good one");
    }
}

/// An operator who raises the group's epoch voids everything that was given out before.
#[tokio::test]
async fn an_epoch_ends_what_was_given_out_before() {
    let peer = Peer::start().await;
    let world = twins(&peer.url);
    let proxy = Proxy::start(&world).await;
    let before = kinds(&proxy).await;
    proxy.apply(&world.group_with("acme", |group| group.policy_epoch = 1));
    for Kind { name, good, bring, answers: [_, refused], .. } in &before {
        // What the events are asked for with is a session, which is unknown now.
        let refused = if *name == "event" { (404, -32600) } else { *refused };
        assert_eq!(answered(&proxy, bring(&token(), PATH, good)).await, refused, "{name}");
    }
    let id = session(&proxy).await;
    let ping = Ask::legacy(PATH, &id, "ping", &json!({})).token(&token());
    assert_eq!(answered(&proxy, ping).await, (200, 0));
}

/// Questions to older clients and their one stream have ids of their own.
#[tokio::test]
async fn answers_and_streams_are_their_owner_s() {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&twins(&peer.url)).await;
    let other = World::token("acme", "other");
    let open = async |caller: &str| {
        let hello = proxy.send(Ask::initialize("/acme/mcp", "2025-11-25").token(caller)).await;
        hello.header("mcp-session-id").unwrap().to_owned()
    };
    let (own, foreign) = (open(&token()).await, open(&other).await);
    let second = open(&token()).await;
    let params = json!({"name": "files__ask", "arguments": {}});
    let call = Ask::legacy("/acme/mcp", &own, "tools/call", &params).token(&token());
    let mut body = proxy.open(call).await.into_body();
    let text = read_until(&mut body, "elicitation/create").await;
    let asked = crate::proxy::messages(&text).pop().unwrap();
    let id = asked["id"].as_str().unwrap().to_owned();
    let say = |id: &str, action: &str, session: &str, caller: &str| {
        let said = json!({"jsonrpc": "2.0", "id": id, "result": {"action": action}});
        Ask::post("/acme/mcp", said.to_string()).header("mcp-session-id", session).token(caller)
    };
    // All are accepted, which tells nothing, and none of them is heard.
    for attack in [
        say(&id, "decline", &foreign, &other),
        say(&id, "decline", &second, &token()),
        say(&altered(&id, id.len() - 8), "decline", &own, &token()),
        say("made-up", "decline", &own, &token()),
        say(&own, "decline", &own, &token()),
    ] {
        assert_eq!(proxy.send(attack).await.status, 202);
    }
    assert_eq!(proxy.send(say(&id, "accept", &own, &token())).await.status, 202);
    assert_eq!(proxy.send(say(&id, "decline", &own, &token())).await.status, 202, "once more");
    let text = read_until(&mut body, "structuredContent").await;
    assert!(text.contains(r#"{"action":"accept"}"#), "{text}");

    let mut get = Ask::post("/acme/files/sse", "").without("content-type");
    get.http = Method::GET;
    let mut stream = proxy.open(get.token(&token())).await.into_body();
    let greeting = read_until(&mut stream, "\n\n").await;
    let url = greeting.lines().find_map(|line| line.strip_prefix("data: ")).unwrap().to_owned();
    let post = |url: &str, caller: &str| {
        let ping = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        Ask::post(url, ping.to_string()).token(caller)
    };
    let elsewhere = url.replacen("/acme/files/", "/acme/twin/", 1);
    for (url, caller) in [
        (url.as_str(), other.as_str()),
        (&elsewhere, &token()),
        (&altered(&url, url.len() - 8), &token()),
        (&url[..url.len() - 4], &token()),
        (&format!("/acme/files/sse?sessionId={own}"), &token()),
    ] {
        assert_eq!(proxy.send(post(url, caller)).await.status, 404, "{url}");
    }
}
