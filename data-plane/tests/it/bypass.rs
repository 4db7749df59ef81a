//! Ways around a rule that somebody might try: other spellings, other dialects, other connections,
//! other times. Each was, or could have been, a hole.

use http::Method;
use serde_json::{Value, json};
use tokio::net::TcpSocket;
use weir_model::resource::{DefinitionKind, PinRule, Rule, Subject};
use weir_model::testing::World;

use crate::peer::Peer;
use crate::proxy::{Ask, Proxy, read_until};
use crate::{granted, token, world};

const PATH: &str = "/acme/files/mcp";

fn ask(method: &str, params: Value) -> Ask {
    Ask::modern(PATH, method, params).token(&token())
}

fn call(tool: &str, arguments: Value) -> Ask {
    ask("tools/call", json!({"name": tool, "arguments": arguments}))
}

fn code(answer: &Value) -> i64 {
    answer["error"]["code"].as_i64().unwrap_or(0)
}

/// Everything of the server, for `ci`.
fn open(world: World) -> World {
    let all = || vec!["*".to_owned()];
    let rule =
        Rule { servers: vec!["files".into()], tools: all(), resources: all(), prompts: all() };
    world.grant("acme", vec![rule], vec![Subject::ServiceAccount("ci".parse().unwrap())])
}

#[tokio::test]
async fn a_forbidden_tool_has_no_other_name() {
    let peer = Peer::start().await;
    let forbid = "forbid (principal, action, resource == Tool::\"files/hidden\");";
    // Pinned, and of a server that nothing is pinned of: there the very name is forbidden, and
    // what only looks like it is the server's to refuse.
    let pinned = open(world(&peer.url)).policy("acme", "no", forbid);
    let proxy = Proxy::start(&pinned).await;
    let spellings = [
        "hidden",
        "Hidden",
        "HIDDEN",
        "hidden ",
        " hidden",
        "hidden\u{200b}",
        "hidden\u{0}",
        "h\u{131}dden",
        "ｈｉｄｄｅｎ",
        "hi\u{301}dden",
        "hidden%20",
        "files/hidden",
        "files__hidden",
        "./hidden",
        "hidden\n",
        "",
    ];
    for name in spellings {
        for path in [PATH, "/acme/mcp"] {
            let name = if path == PATH { name.to_owned() } else { format!("files__{name}") };
            let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
                "params": {"name": name, "arguments": {}}});
            let hello = proxy.send(Ask::initialize(path, "2025-06-18").token(&token())).await;
            let session = hello.header("mcp-session-id").unwrap();
            // As text, and with every letter escaped.
            let escaped: String =
                name.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
            let quoted = Value::from(name.as_str()).to_string();
            let twin = body.to_string().replacen(&quoted, &format!("\"{escaped}\""), 1);
            for text in [body.to_string(), twin] {
                let mut ask = Ask::legacy(path, session, "tools/call", &json!({}));
                ask.body = text.into();
                let answer = proxy.send(ask.token(&token())).await;
                assert_eq!(answer.code(), -32602, "{path} {name:?}: {}", answer.text());
            }
        }
    }
    assert!(peer.seen("tools/call").is_empty(), "{:?}", peer.seen("tools/call"));
}

#[tokio::test]
async fn a_rule_about_uris_is_not_led_astray() {
    let peer = Peer::start().await;
    let rule = Rule {
        servers: vec!["files".into()],
        resources: vec!["wiki://public/*".into()],
        ..Rule::default()
    };
    let template = json!({"uriTemplate": "wiki://public/{+path}", "name": "w"});
    let world = world(&peer.url)
        .define("acme", "files", DefinitionKind::Template, &template)
        .grant("acme", vec![rule], vec![Subject::ServiceAccount("ci".parse().unwrap())]);
    let proxy = Proxy::start(&world).await;
    for uri in [
        "wiki://public/../private/a",
        "wiki://public/./a",
        "wiki://public/x/%2e%2e/%2E./private",
        "wiki://public/..%2fprivate",
        "wiki://public/..\\private",
        "wiki://public/x/..",
        "wiki://public/%61",
        "wiki://%70ublic/a",
    ] {
        for path in [PATH, "/acme/mcp"] {
            let read = Ask::modern(path, "resources/read", json!({"uri": uri})).token(&token());
            let answer = proxy.send(read).await;
            assert_eq!((answer.status.as_u16(), answer.code()), (400, -32602), "{uri}");
            assert!(
                answer.text().contains("write the URI that it stands for"),
                "{}",
                answer.text()
            );
            let params = json!({"notifications": {"resourceSubscriptions": [uri]}});
            let listen = Ask::modern(path, "subscriptions/listen", params).token(&token());
            let mut stream = proxy.open(listen).await.into_body();
            let text = read_until(&mut stream, "acknowledged").await;
            assert!(text.contains(r#""resourceSubscriptions":[]"#), "{uri}: {text}");
        }
    }
    assert!(peer.seen("resources/read").is_empty());
    let good = proxy.send(ask("resources/read", json!({"uri": "wiki://public/a/b.c"}))).await;
    assert_eq!(good.json()["result"]["contents"][0]["uri"], "wiki://public/a/b.c");
    // What fits no template says why, of templates that the caller sees.
    let near = proxy.send(ask("resources/read", json!({"uri": "test://t/a/b"}))).await;
    assert!(near.text().contains("test://t/{id}: {id} takes one part"), "{}", near.text());
    let guest = Ask::modern("/acme/mcp", "resources/read", json!({"uri": "test://t/a/b"}));
    let guest = proxy.send(guest.token(&World::token("acme", "guest"))).await;
    assert!(!guest.text().contains("{id}"), "{}", guest.text());
}

#[tokio::test]
async fn what_is_not_pinned_is_not_completed_either() {
    let peer = Peer::start().await;
    let world = open(granted(&peer.url)).group_with("acme", |group| group.pin = PinRule::Ask);
    let proxy = Proxy::start(&world).await;
    for reference in [
        json!({"type": "ref/prompt", "name": "greet"}),
        json!({"type": "ref/resource", "uri": "test://{a}"}),
    ] {
        let params = json!({"ref": reference, "argument": {"name": "a", "value": ""}});
        let answer = proxy.send(ask("completion/complete", params)).await;
        assert_eq!(answer.code(), -32602, "{}", answer.text());
    }
    assert!(peer.seen("completion/complete").is_empty());
}

#[tokio::test]
async fn prompts_get_the_arguments_that_they_declare() {
    let peer = Peer::start().await;
    let arguments = json!([{"name": "topic", "required": true}, {"name": "tone"}]);
    let prompt = json!({"name": "essay", "arguments": arguments});
    let cap =
        "forbid (principal, action == Action::\"GetPrompt\", resource == Prompt::\"files/greet\")
        unless { context.arguments.text.hasTag(\"to\") };";
    let world = open(world(&peer.url))
        .define("acme", "files", DefinitionKind::Prompt, &prompt)
        .policy("acme", "cap", cap);
    let proxy = Proxy::start(&world).await;
    let hello = proxy.send(Ask::initialize(PATH, "2025-11-25").token(&token())).await;
    let session = hello.header("mcp-session-id").unwrap();
    // prompt, arguments, the code, and what is said
    let table = [
        ("essay", json!({"topic": "x"}), 0, vec![]),
        ("essay", json!({"topic": "x", "tone": "y"}), 0, vec![]),
        ("essay", json!({}), -32602, vec!["- /topic: is required"]),
        ("essay", Value::Null, -32602, vec!["- /topic: is required"]),
        ("essay", json!({"topic": 7}), -32602, vec!["- /topic: must be a string"]),
        (
            "essay",
            json!({"topics": "x"}),
            -32602,
            vec!["- /topic: is required", "- /topics: is not taken; the prompt has: tone, topic"],
        ),
        ("greet", json!({"to": "x"}), 0, vec![]),
        // What is left out is none, and not open to everything.
        ("greet", json!({}), 40300, vec![]),
        ("greet", Value::Null, 40300, vec![]),
    ];
    for (name, arguments, expected, said) in table {
        let mut params = json!({"name": name});
        if !arguments.is_null() {
            params["arguments"] = arguments.clone();
        }
        for ask in [
            ask("prompts/get", params.clone()),
            Ask::legacy(PATH, session, "prompts/get", &params).token(&token()),
        ] {
            let answer = proxy.send(ask).await.json();
            assert_eq!(code(&answer), expected, "{name} {arguments}: {answer}");
            let message = answer["error"]["message"].as_str().unwrap_or_default();
            assert!(said.iter().all(|part| message.contains(part)), "{message}");
            let told = answer["error"]["data"]["violations"].as_array().map_or(0, Vec::len);
            assert_eq!(told, said.len(), "{answer}");
        }
    }
    assert_eq!(peer.seen("prompts/get").len(), 2 * 3);
}

#[tokio::test]
async fn skills_are_read_by_who_may_read_resources() {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&world(&peer.url)).await;
    let listed = proxy.send(ask("skills/list", json!({}))).await.json();
    let uris: Vec<&str> = listed["result"]["skills"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["uri"].as_str().unwrap())
        .collect();
    assert_eq!(uris, ["test://s/SKILL.md"], "{listed}");
    for method in ["skills/get", "resources/directory/read"] {
        let good = proxy.send(ask(method, json!({"uri": "test://s/SKILL.md"}))).await;
        assert_eq!(code(&good.json()), 0, "{}", good.text());
        let denied = proxy.send(ask(method, json!({"uri": "hidden://s/SKILL.md"}))).await;
        assert_eq!(denied.code(), -32602, "{}", denied.text());
        assert_eq!(peer.seen(method).len(), 1);
    }
}

#[tokio::test]
async fn updates_are_told_of_what_may_be_read() {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&world(&peer.url)).await;
    // The server tells of a resource that nobody asked for before it tells of this one.
    let params = json!({"notifications": {"resourceSubscriptions": ["test://a"]}});
    for path in [PATH, "/acme/mcp"] {
        let listen = Ask::modern(path, "subscriptions/listen", params.clone()).token(&token());
        let mut stream = proxy.open(listen).await.into_body();
        let text = read_until(&mut stream, r#""uri":"test://a""#).await;
        assert!(!text.contains("hidden://x"), "{path}: {text}");
    }
}

#[tokio::test]
async fn a_running_call_is_judged_again_with_its_arguments() {
    let peer = Peer::start().await;
    let world = world(&peer.url);
    let proxy = Proxy::start(&world).await;
    let cap = "forbid (principal, action == Action::\"CallTool\", resource == Tool::\"files/stream-hang\")
        unless { context.arguments.number.hasTag(\"n\") && context.arguments.number.getTag(\"n\") <= 10 };";
    let approval = "@approval(\"boss\")
        permit (principal, action == Action::\"CallTool\", resource == Tool::\"files/stream-hang\");";
    let open = async |arguments: Value| {
        let mut stream = proxy.open(call("stream-hang", arguments)).await.into_body();
        read_until(&mut stream, "working").await;
        stream
    };
    let (mut small, mut large) = (open(json!({"n": 7})).await, open(json!({"n": 70})).await);
    let mut none = open(json!({})).await;
    let capped = world.clone().policy("acme", "cap", cap);
    proxy.apply(&capped);
    for stream in [&mut large, &mut none] {
        let text = read_until(stream, "error").await;
        assert!(text.contains("40300"), "{text}");
    }
    // The small one goes on, until somebody has to approve it.
    proxy.apply(&capped.clone().policy("acme", "approval", approval));
    let text = read_until(&mut small, "error").await;
    assert!(text.contains("40300"), "{text}");
}

#[tokio::test]
async fn a_post_of_the_older_transport_comes_from_where_it_was_sent() {
    let peer = Peer::start().await;
    let near = "forbid (principal, action == Action::\"CallTool\", resource)
        unless { context has peer && context.peer == ip(\"127.0.0.2\") };";
    let proxy = Proxy::start(&world(&peer.url).policy("acme", "near", near)).await;
    let mut get = Ask::post("/acme/files/sse", "").without("content-type").token(&token());
    get.http = Method::GET;
    let mut stream = from(&proxy, 2, get).await.into_body();
    let greeting = read_until(&mut stream, "\n\n").await;
    let url = greeting.strip_prefix("event: endpoint\ndata: ").unwrap().trim().to_owned();
    let say = async |host: u8, message: Value| {
        let post = Ask::post(&url, message.to_string()).token(&token());
        assert_eq!(from(&proxy, host, post).await.status(), 202);
    };
    say(
        2,
        json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": "2024-11-05", "capabilities": {},
        "clientInfo": {"name": "old", "version": "1"}}}),
    )
    .await;
    read_until(&mut stream, "serverInfo").await;
    let echo = |id: u32| {
        json!({"jsonrpc": "2.0", "id": id, "method": "tools/call",
            "params": {"name": "echo", "arguments": {}}})
    };
    say(2, echo(1)).await;
    let text = read_until(&mut stream, r#""id":1,"#).await;
    assert!(text.contains("structuredContent"), "{text}");
    say(1, echo(2)).await;
    let text = read_until(&mut stream, r#""id":2,"#).await;
    assert!(text.contains("-32602"), "{text}");
    assert_eq!(peer.seen("tools/call").len(), 1);
}

/// Sends from 127.0.0.`host`.
async fn from(proxy: &Proxy, host: u8, ask: Ask) -> http::Response<hyper::body::Incoming> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, host], 0).into()).unwrap();
    let socket = socket.connect(proxy.address).await.unwrap();
    proxy.open_on(socket, ask).await
}

#[tokio::test]
async fn a_verb_is_its_method_to_every_rule() {
    let peer = Peer::start().await;
    let cap = "forbid (principal, action == Action::\"CallTool\", resource == Tool::\"files/echo\")
        unless { context.arguments.number.hasTag(\"n\") && context.arguments.number.getTag(\"n\") <= 10 };";
    let world =
        world(&peer.url).group_with("acme", |group| group.verbs = true).policy("acme", "cap", cap);
    let proxy = Proxy::start(&world).await;
    for (method, params, expected) in [
        ("tool.invoke", json!({"name": "echo", "arguments": {"n": 1}}), 0),
        ("tool.invoke", json!({"name": "echo", "arguments": {"n": 11}}), 40300),
        ("tool.invoke", json!({"name": "echo"}), 40300),
        ("tool.invoke", json!({"name": "hidden", "arguments": {}}), -32602),
        ("resource.get", json!({"uri": "deny://a"}), -32602),
        ("prompt.render", json!({"name": "secret"}), -32602),
    ] {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let answer = proxy.send(Ask::post(PATH, body.to_string()).token(&token())).await;
        assert_eq!(code(&answer.json()), expected, "{method} {params}: {}", answer.text());
    }
    assert_eq!(peer.seen("tools/call").len(), 1);
}
