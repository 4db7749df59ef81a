//! What a caller may not use looks like what is not there: the same status, the same headers and,
//! but for the name that the caller itself sent, the same bytes, on every path. Operators see in
//! the audit trail what was asked for.

use http::Method;
use serde_json::{Value, json};
use weir_model::resource::{DefinitionKind, Revocation, Revoked, RevokedTool, Rule, Subject};
use weir_model::resource::{Kind, ResourceKey, Spec};
use weir_model::testing::World;

use crate::peer::Peer;
use crate::proxy::{Answer, Ask, Proxy, read_until};
use crate::{token, world};

/// What is there and denied, and a name of the same length that is nobody's.
const TOOL: [&str; 2] = ["hidden", "absent"];
const REVOKED: [&str; 2] = ["flawed", "absent"];
const PROMPT: [&str; 2] = ["secret", "absent"];
const URI: [&str; 2] = ["deny://a", "none://a"];
const OF_TEMPLATE: [&str; 2] = ["deny://t/7", "none://t/7"];
const TEMPLATE: [&str; 2] = ["deny://t/{id}", "none://t/{id}"];
const SERVER: [&str; 2] = ["closed", "absent"];

fn company(url: &str) -> World {
    let revoked = Revocation {
        what: Revoked::Tool(RevokedTool {
            server: "files".parse().unwrap(),
            name: REVOKED[0].to_owned(),
        }),
        expires: Some(i64::MAX),
        because: None,
    };
    let all =
        Rule { servers: vec!["files".into()], tools: vec!["flawed".into()], ..Rule::default() };
    let key = ResourceKey::grouped(Kind::Revocation, &"acme".parse().unwrap(), "r-1");
    let define = |world: World, kind, json: Value| world.define("acme", "files", kind, &json);
    let mut world = world(url)
        .tool("acme", "files", REVOKED[0])
        .grant("acme", vec![all], vec![Subject::ServiceAccount("ci".parse().unwrap())])
        .put(key, Spec::Revocation(revoked))
        .server("acme", SERVER[0], url)
        .tool("acme", SERVER[0], "echo");
    world = define(world, DefinitionKind::Resource, json!({"uri": URI[0], "name": "d"}));
    define(world, DefinitionKind::Template, json!({"uriTemplate": TEMPLATE[0], "name": "t"}))
}

/// All that a caller can compare; names that it sent itself are made alike.
fn told(answer: &Answer, name: &str) -> String {
    let mut headers: Vec<String> = answer
        .headers
        .iter()
        .filter(|(header, _)| !["x-request-id", "date"].contains(&header.as_str()))
        .map(|(header, value)| format!("{header}: {}", value.to_str().unwrap()))
        .collect();
    headers.sort();
    let text = format!("{} {headers:?} {}", answer.status, answer.text());
    text.replace(name, "NAME")
}

/// What is tried, by a name.
type Attempt = fn(&str) -> (&'static str, Value);

const ATTEMPTS: &[(&str, [&str; 2], Attempt)] = &[
    ("a tool", TOOL, |name| ("tools/call", json!({"name": name, "arguments": {"a": 1}}))),
    ("without arguments", TOOL, |name| ("tools/call", json!({"name": name}))),
    ("a revoked tool", REVOKED, |name| ("tools/call", json!({"name": name, "arguments": {}}))),
    ("a prompt", PROMPT, |name| ("prompts/get", json!({"name": name, "arguments": {"a": "b"}}))),
    ("a prompt with bad arguments", PROMPT, |name| {
        ("prompts/get", json!({"name": name, "arguments": {"a": 1}}))
    }),
    ("a resource", URI, |uri| ("resources/read", json!({"uri": uri}))),
    ("a resource of a template", OF_TEMPLATE, |uri| ("resources/read", json!({"uri": uri}))),
    ("completion of a prompt", PROMPT, |name| {
        let reference = json!({"type": "ref/prompt", "name": name});
        ("completion/complete", json!({"ref": reference, "argument": {"name": "a", "value": ""}}))
    }),
    ("completion of a template", TEMPLATE, |uri| {
        let reference = json!({"type": "ref/resource", "uri": uri});
        ("completion/complete", json!({"ref": reference, "argument": {"name": "a", "value": ""}}))
    }),
    ("a subscription", URI, |uri| ("resources/subscribe", json!({"uri": uri}))),
];

#[tokio::test]
async fn denied_and_unknown_targets_are_told_in_the_same_bytes() {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&company(&peer.url)).await;
    let mut tried = 0;
    for path in ["/acme/mcp", "/acme/files/mcp"] {
        for modern in [true, false] {
            let hello = proxy.send(Ask::initialize(path, "2025-11-25").token(&token())).await;
            let session = hello.header("mcp-session-id").unwrap().to_owned();
            for (what, names, attempt) in ATTEMPTS {
                let mut answers = Vec::new();
                for name in *names {
                    let own = name.contains("://") || path != "/acme/mcp";
                    let name = if own { name.to_owned() } else { format!("files__{name}") };
                    let (method, params) = attempt(&name);
                    if modern && method == "resources/subscribe" {
                        continue;
                    }
                    let before = proxy.records(1).await.len();
                    let ask = match modern {
                        true => Ask::modern(path, method, params),
                        false => Ask::legacy(path, &session, method, &params),
                    };
                    let answer = proxy.send(ask.token(&token())).await;
                    assert!(answer.json()["error"].is_object(), "{what}: {}", answer.text());
                    answers.push(told(&answer, &name));
                    // The trail names it, as the server has it or as it was asked for.
                    let record = proxy.records(before + 1).await.pop().unwrap();
                    let named = record["resources"][0]["name"].as_str().unwrap_or_default();
                    assert!(name.ends_with(named) && !named.is_empty(), "{what}: {record}");
                    tried += 1;
                }
                assert!(answers.windows(2).all(|two| two[0] == two[1]), "{what}: {answers:#?}");
            }
        }
    }
    assert_eq!(tried, 2 * 2 * 2 * ATTEMPTS.len() - 4);
    for method in ["tools/call", "prompts/get", "resources/read", "completion/complete"] {
        assert!(peer.seen(method).is_empty(), "{method} reached the server");
    }
}

#[tokio::test]
async fn lists_and_streams_say_nothing_of_what_is_denied() {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&company(&peer.url)).await;
    let secrets = [TOOL[0], REVOKED[0], PROMPT[0], URI[0], TEMPLATE[0], SERVER[0]];
    for path in ["/acme/mcp", "/acme/files/mcp"] {
        for method in [
            "tools/list",
            "prompts/list",
            "resources/list",
            "resources/templates/list",
            "server/discover",
        ] {
            let answer = proxy.send(Ask::modern(path, method, json!({})).token(&token())).await;
            assert_eq!(answer.status, 200, "{path} {method}: {}", answer.text());
            let text = answer.text();
            assert!(!secrets.iter().any(|secret| text.contains(secret)), "{path} {method}: {text}");
        }
        let mut heard = Vec::new();
        for uri in URI {
            let params = json!({"notifications": {"resourceSubscriptions": [uri, "test://a"]}});
            let listen = Ask::modern(path, "subscriptions/listen", params).token(&token());
            let mut stream = proxy.open(listen).await.into_body();
            let update = r#""uri":"test://a""#;
            let text = read_until(&mut stream, update).await;
            assert!(!text.contains(uri), "{path}: {text}");
            heard.push(text.split(update).next().unwrap().to_owned());
        }
        assert_eq!(heard[0], heard[1], "{path}");
    }
    // The server is asked for nothing but what may be read.
    for listen in peer.seen("subscriptions/listen") {
        let asked = &listen.body["params"]["notifications"]["resourceSubscriptions"];
        assert_eq!(*asked, json!(["test://a"]));
    }
}

#[tokio::test]
async fn a_server_that_may_not_be_used_is_no_server() {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&company(&peer.url)).await;
    let good = token();
    for token in [Some(&*good), Some("weir_at_x_y"), None] {
        type Attempt = (&'static str, fn(&str) -> Ask);
        let attempts: [Attempt; 8] = [
            ("a list", |path| Ask::modern(path, "tools/list", json!({}))),
            ("a call", |path| Ask::modern(path, "tools/call", json!({"name": "echo"}))),
            ("discovery", |path| Ask::modern(path, "server/discover", json!({}))),
            ("a task", |path| Ask::modern(path, "tasks/get", json!({"taskId": "t-1"}))),
            ("a session", |path| Ask::initialize(path, "2025-11-25")),
            ("the stream of a session", |path| Ask::bodiless(Method::GET, path, "s-1")),
            ("the end of a session", |path| Ask::bodiless(Method::DELETE, path, "s-1")),
            ("no message", |path| Ask::post(path, "{")),
        ];
        for (what, attempt) in attempts {
            let mut answers = Vec::new();
            for server in SERVER {
                let mut ask = attempt(&format!("/acme/{server}/mcp"));
                if let Some(token) = token {
                    ask = ask.token(token);
                }
                let before = proxy.log.records().len();
                let answer = proxy.send(ask).await;
                answers.push(told(&answer, server));
                if answer.status == 404 && answer.text().contains("40400") {
                    let record = proxy.records(before + 1).await.pop().unwrap();
                    assert!(record.to_string().contains(server), "{what}: {record}");
                }
            }
            assert_eq!(answers[0], answers[1], "{what} {token:?}");
        }
    }
    for (what, path) in [
        ("metadata", "/.well-known/oauth-protected-resource/acme/NAME/mcp"),
        ("the older transport", "/acme/NAME/sse"),
    ] {
        let mut answers = Vec::new();
        for server in SERVER {
            let mut ask = Ask::post(&path.replace("NAME", server), "").without("content-type");
            ask.http = Method::GET;
            answers.push(told(&proxy.send(ask.token(&good)).await, server));
        }
        assert_eq!(answers[0], answers[1], "{what}");
    }
    assert!(peer.all().is_empty(), "{:?}", peer.all());
}
