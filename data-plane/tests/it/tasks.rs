//! Tasks of both forms: clients never see a server's own ids, and get by with the gateway's.

use http::Method;
use serde_json::{Value, json};
use weir_model::resource::{
    Kind, ObservedEra, ResourceKey, Revocation, Revoked, RevokedTool, Spec,
};
use weir_model::testing::World;
use weir_runtime::testing::eventually;

use crate::peer::{ENDLESS, LIAR, ONLY, Peer, SLOW, Speaks, TASK, WAITS};
use crate::proxy::{Ask, PATIENCE, Proxy, read_until};
use crate::{token, world};

const PATH: &str = "/acme/files/mcp";

fn granted(url: &str) -> World {
    let liar = json!({"name": "task-liar", "inputSchema": {"type": "object"}, "outputSchema": {
        "type": "object", "properties": {"n": {"type": "number"}}, "required": ["n"]}});
    let world = world(url).tool("acme", "files", "task").tool("acme", "files", "task-slow");
    world.tool_of("acme", "files", &liar).allow("acme", "ci", "files", "*").catalog(
        "acme",
        "files",
        |catalog| {
            catalog.capabilities["tasks"] = json!({});
            catalog.capabilities["extensions"] = json!({"io.modelcontextprotocol/tasks": {}});
        },
    )
}

/// A request of a stateless client that knows tasks.
fn modern(method: &str, params: Value) -> Ask {
    modern_at(PATH, method, params)
}

fn modern_at(path: &str, method: &str, mut params: Value) -> Ask {
    params["_meta"]["io.modelcontextprotocol/clientCapabilities"] =
        json!({"extensions": {"io.modelcontextprotocol/tasks": {}}});
    let task = params["taskId"].as_str().map(str::to_owned);
    let ask = Ask::modern(path, method, params).token(&token());
    match task {
        Some(task) => ask.header("mcp-name", task),
        None => ask,
    }
}

#[tokio::test]
async fn a_stateless_client_follows_its_task_by_the_gateway_s_id() {
    let peer = Peer::start().await;
    let [one, two] = Proxy::two(&granted(&peer.url)).await;
    let made = one.send(modern("tools/call", json!({"name": "task", "arguments": {}}))).await;
    let made = made.json()["result"].clone();
    let id = made["taskId"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned();
    assert_eq!((&made["resultType"], id.contains(TASK)), (&json!("task"), false));
    for proxy in [&one, &two] {
        peer.forget();
        let got = proxy.send(modern("tasks/get", json!({"taskId": id}))).await.json();
        assert_eq!(got["result"]["taskId"], id.as_str(), "{got}");
        let seen = peer.seen("tasks/get").remove(0);
        assert_eq!(seen.body["params"]["taskId"], TASK);
        assert_eq!(seen.header("mcp-name"), Some(TASK));
    }
    let cancelled = two.send(modern("tasks/cancel", json!({"taskId": id}))).await;
    assert_eq!(cancelled.status, 200, "{}", cancelled.text());

    let filter = json!({"notifications": {"taskIds": [id, "made-up"]}});
    let mut stream = two.open(modern("subscriptions/listen", filter)).await.into_body();
    let text = read_until(&mut stream, "notifications/tasks").await;
    assert!(text.contains(&format!(r#""taskIds":["{id}"]"#)), "{text}");
    assert!(text.contains(&format!(r#""taskId":"{id}""#)) && !text.contains(TASK), "{text}");
    let seen = peer.seen("subscriptions/listen").remove(0);
    assert_eq!(seen.body["params"]["notifications"]["taskIds"], json!([TASK]));
    // The server's own id is nobody's here.
    let own = one.send(modern("tasks/get", json!({"taskId": TASK}))).await;
    assert_eq!((own.status.as_u16(), own.code()), (400, -32602));
}

#[tokio::test]
async fn a_client_with_a_session_follows_its_task_too() {
    let peer = Peer::start().await;
    let [one, two] = Proxy::two(&granted(&peer.url)).await;
    let session = session_at(&one).await;
    let ask = |method: &str, params: Value| within(&session, method, &params);
    let call = json!({"name": "task", "arguments": {}, "task": {"ttl": 1000}});
    let made = one.send(ask("tools/call", call)).await.json();
    let id = made["result"]["task"]["taskId"].as_str().unwrap_or_else(|| panic!("{made}"));
    assert!(!id.contains(TASK));
    for method in ["tasks/get", "tasks/result", "tasks/cancel"] {
        let got = two.send(ask(method, json!({"taskId": id}))).await;
        assert!(got.text().contains(id) && !got.text().contains(TASK), "{}", got.text());
        assert_eq!(peer.seen(method)[0].body["params"]["taskId"], TASK);
    }
    let list = one.send(ask("tasks/list", json!({}))).await.json();
    assert_eq!(list["result"]["tasks"][0]["taskId"], id);
    let stream = Ask::bodiless(Method::GET, PATH, &session).token(&token());
    let mut stream = two.open(stream).await.into_body();
    let text = read_until(&mut stream, "notifications/tasks/status").await;
    assert!(text.contains(&format!(r#""taskId":"{id}""#)) && !text.contains(TASK), "{text}");
    let foreign = two.send(ask("tasks/get", json!({"taskId": TASK}))).await;
    assert_eq!(foreign.code(), -32602);
}

/// The same world without the right to a tool.
fn without(world: &World, tool: &str) -> World {
    let tool = RevokedTool { server: "files".parse().unwrap(), name: tool.to_owned() };
    let key = ResourceKey::grouped(Kind::Revocation, &"acme".parse().unwrap(), "r-1");
    let what = Revoked::Tool(tool);
    world
        .clone()
        .put(key, Spec::Revocation(Revocation { what, expires: Some(i64::MAX), because: None }))
}

/// The same world, whose rules forbid a tool.
fn forbidding(world: &World, tool: &str) -> World {
    let rule = format!(
        r#"forbid (principal, action == Action::"CallTool", resource == Tool::"files/{tool}");"#
    );
    world.clone().policy("acme", "not-any-more", &rule)
}

/// A session of the revision that has tasks; its id.
async fn session_at(proxy: &Proxy) -> String {
    let hello = proxy.send(Ask::initialize(PATH, "2025-11-25").token(&token())).await;
    hello.header("mcp-session-id").unwrap().to_owned()
}

fn within(session: &str, method: &str, params: &Value) -> Ask {
    Ask::legacy(PATH, session, method, params).token(&token())
}

/// Makes a task of a tool; its id.
async fn made(proxy: &Proxy, ask: Ask) -> String {
    let made = proxy.send(ask).await.json()["result"].clone();
    let id = made["taskId"].as_str().or(made["task"]["taskId"].as_str());
    id.unwrap_or_else(|| panic!("{made}")).to_owned()
}

#[tokio::test]
async fn who_loses_a_tool_loses_what_it_made() {
    let peer = Peer::start().await;
    let world = granted(&peer.url);
    let proxies = Proxy::two(&world).await;
    let [one, two] = &proxies;
    let call = |tool: &str| json!({"name": tool, "arguments": {}, "task": {}});
    let modern_id = made(one, modern("tools/call", call("task"))).await;
    let other_id = made(one, modern("tools/call", call("task-slow"))).await;
    let session = session_at(one).await;
    let ask = |method: &str, params: Value| within(&session, method, &params);
    let legacy_id = made(one, ask("tools/call", call("task"))).await;

    for (changed, there) in [
        (without(&world, "task"), false),
        (world.clone(), true),
        (forbidding(&world, "task"), false),
        (forbidding(&world, "echo"), true),
    ] {
        proxies.iter().for_each(|proxy| proxy.apply(&changed));
        peer.forget();
        for proxy in [one, two] {
            for (method, id) in [("tasks/get", &modern_id), ("tasks/cancel", &modern_id)] {
                let got = proxy.send(modern(method, json!({"taskId": id}))).await;
                let got = got.json();
                assert_eq!(got["error"].is_null(), there, "{method}: {got}");
                if !there {
                    assert_eq!(got["error"]["message"], "Unknown task.", "{method}");
                }
            }
            for method in ["tasks/get", "tasks/result", "tasks/cancel"] {
                let got = proxy.send(ask(method, json!({"taskId": legacy_id}))).await;
                assert_eq!(got.json()["error"].is_null(), there, "{method}: {}", got.text());
                assert_eq!(got.json()["error"]["code"] == -32602, !there, "{method}");
                assert_eq!(!peer.seen(method).is_empty(), there, "{method} reaches the server");
            }
        }
        // The proxy that saw the task made knows whose it is.
        let list = one.send(ask("tasks/list", json!({}))).await.json();
        let listed = list["result"]["tasks"].as_array().unwrap_or_else(|| panic!("{list}"));
        assert_eq!(listed.len(), usize::from(there), "{list}");
        // What is left is told.
        let filter = json!({"notifications": {"taskIds": [modern_id, other_id]}});
        let mut stream = two.open(modern("subscriptions/listen", filter)).await.into_body();
        let text = read_until(&mut stream, &format!(r#""taskId":"{other_id}""#)).await;
        assert_eq!(text.contains(&modern_id), there, "{text}");
    }
}

/// Somebody who may not call every tool that could have made a task is not shown tasks that this
/// proxy knows nothing of.
#[tokio::test]
async fn a_task_of_no_known_tool_takes_the_right_to_all() {
    let peer = Peer::start().await;
    let world = granted(&peer.url);
    let proxy = Proxy::start(&world).await;
    let session = session_at(&proxy).await;
    let ask = |method: &str, params: Value| within(&session, method, &params);
    let list = proxy.send(ask("tasks/list", json!({}))).await.json();
    let id = list["result"]["tasks"][0]["taskId"].as_str().unwrap_or_else(|| panic!("{list}"));
    let got = proxy.send(ask("tasks/get", json!({"taskId": id}))).await;
    assert_eq!(got.json()["result"]["taskId"], id);
    proxy.apply(&without(&world, "echo"));
    let list = proxy.send(ask("tasks/list", json!({}))).await.json();
    assert_eq!(list["result"]["tasks"], json!([]));
    let got = proxy.send(ask("tasks/get", json!({"taskId": id}))).await;
    assert_eq!(got.code(), -32602);
}

#[tokio::test]
async fn a_result_that_comes_later_is_held_against_its_schema_too() {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&granted(&peer.url)).await;
    let call = json!({"name": "task-liar", "arguments": {}, "task": {}});
    let id = made(&proxy, modern("tools/call", call.clone())).await;
    assert!(!id.contains(LIAR));
    let direct = proxy.send(modern("tools/call", json!({"name": "liar", "arguments": {}}))).await;
    let got = proxy.send(modern("tasks/get", json!({"taskId": id}))).await;
    assert_eq!(
        (got.status, got.json()["error"].clone()),
        (direct.status, direct.json()["error"].clone())
    );
    assert_ne!(got.json()["error"], Value::Null);

    let session = session_at(&proxy).await;
    let ask = |method: &str, params: Value| within(&session, method, &params);
    let id = made(&proxy, ask("tools/call", call)).await;
    let got = proxy.send(ask("tasks/get", json!({"taskId": id}))).await;
    assert_eq!(got.json()["result"]["taskId"], id, "{}", got.text());
    let got = proxy.send(ask("tasks/result", json!({"taskId": id}))).await;
    assert_eq!(got.json()["error"], direct.json()["error"]);
}

#[tokio::test]
async fn a_result_that_is_waited_for_ends_with_the_right_to_its_tool() {
    let peer = Peer::start().await;
    let world = granted(&peer.url);
    let proxy = Proxy::start(&world).await;
    let session = session_at(&proxy).await;
    let ask = |method: &str, params: Value| within(&session, method, &params);
    let call = json!({"name": "task-slow", "arguments": {}, "task": {}});
    let id = made(&proxy, ask("tools/call", call)).await;
    assert!(!id.contains(SLOW));
    let mut stream = proxy.open(ask("tasks/result", json!({"taskId": id}))).await.into_body();
    read_until(&mut stream, "working").await;
    proxy.apply(&without(&world, "task-slow"));
    let text = read_until(&mut stream, "error").await;
    assert!(text.contains("error"), "{text}");
    peer.dropped().await;
}

/// A server of one era, with tools that run as tasks and in no other way.
fn insisting(url: &str, era: ObservedEra) -> World {
    let mut world = world(url).era("acme", "files", era).allow("acme", "ci", "files", "*");
    for name in ["task-only", "task-waits", "task-endless"] {
        let mut tool = json!({"name": name, "inputSchema": {"type": "object"}});
        if era == ObservedEra::Legacy {
            tool["execution"] = json!({"taskSupport": "required"});
        }
        world = world.tool_of("acme", "files", &tool);
    }
    world.catalog("acme", "files", |catalog| match era {
        ObservedEra::Legacy => {
            catalog.capabilities["tasks"] = json!({"requests": {"tools": {"call": {}}}});
        }
        _ => {
            let tasks = json!({"io.modelcontextprotocol/tasks": {}});
            catalog.capabilities["extensions"] = tasks;
        }
    })
}

fn named(tool: &str) -> Value {
    json!({"name": tool, "arguments": {}})
}

#[tokio::test]
async fn a_stateless_client_uses_tools_of_older_servers_that_run_as_tasks() {
    let peer = Peer::only(Speaks::Legacy).await;
    let proxy = Proxy::start(&insisting(&peer.url, ObservedEra::Legacy)).await;
    let found = proxy.send(modern("server/discover", json!({}))).await.json();
    let offered = &found["result"]["capabilities"]["extensions"];
    assert!(offered["io.modelcontextprotocol/tasks"].is_object(), "{found}");

    // Who knows tasks gets one, in the form of its era.
    let made = proxy.send(modern("tools/call", named("task-only"))).await;
    let made = made.json()["result"].clone();
    assert_eq!(made["resultType"], "task", "{made}");
    assert_eq!((&made["ttlMs"], &made["pollIntervalMs"]), (&json!(60_000), &json!(20)), "{made}");
    let id = made["taskId"].as_str().unwrap().to_owned();
    assert!(!id.contains(ONLY) && !made.to_string().contains("pollInterval\""), "{made}");
    let got = proxy.send(modern("tasks/get", json!({"taskId": id}))).await;
    let task = got.json()["result"].clone();
    assert_eq!((&task["status"], &task["taskId"]), (&json!("completed"), &json!(id)), "{task}");
    assert_eq!(task["result"]["content"][0]["text"], "made", "{task}");
    assert_eq!(task["resultType"], "complete");
    assert!(!got.text().contains(ONLY), "{}", got.text());
    let cancelled = proxy.send(modern("tasks/cancel", json!({"taskId": id}))).await.json();
    assert_eq!(cancelled["result"], json!({"resultType": "complete"}));

    // Who does not waits for the result, as on a plain call.
    let plain = Ask::modern(PATH, "tools/call", named("task-only")).token(&token());
    let plain = proxy.send(plain).await;
    assert_eq!(plain.json()["result"]["content"][0]["text"], "made", "{}", plain.text());
    assert!(!plain.text().contains("upstream-task"), "{}", plain.text());

    // Where all servers are joined nobody can follow a task: the gateway waits, whoever calls.
    let path = "/acme/mcp";
    let joined = json!({"name": "files__task-only", "arguments": {}, "task": {}});
    let hello = proxy.send(Ask::initialize(path, "2025-11-25").token(&token())).await;
    let session = hello.header("mcp-session-id").unwrap().to_owned();
    for ask in [
        modern_at(path, "tools/call", joined.clone()),
        Ask::legacy(path, &session, "tools/call", &joined).token(&token()),
    ] {
        let answer = proxy.send(ask).await;
        assert_eq!(answer.json()["result"]["content"][0]["text"], "made", "{}", answer.text());
        assert!(!answer.text().contains("upstream-task"), "{}", answer.text());
    }
    let echo = json!({"name": "files__echo", "arguments": {}, "task": {}});
    peer.forget();
    let plain = proxy.send(Ask::legacy(path, &session, "tools/call", &echo).token(&token())).await;
    assert_eq!(plain.status, 200, "{}", plain.text());
    assert!(peer.seen("tools/call")[0].body["params"].get("task").is_none());

    // What has no form in the other era.
    let waits = made_by(&proxy, "task-waits").await;
    for (method, params) in [
        ("tasks/get", json!({"taskId": waits})),
        ("tasks/update", json!({"taskId": waits, "inputResponses": {}})),
    ] {
        let told = proxy.send(modern(method, params)).await;
        assert_eq!(told.code(), 50100, "{method}: {}", told.text());
        assert!(!told.text().contains(WAITS), "{}", told.text());
    }
}

/// Older servers may know a task only in the session that made it, which is one proxy's.
#[tokio::test]
async fn a_task_of_an_older_server_is_asked_after_where_it_was_made() {
    let peer = Peer::only(Speaks::Legacy).await;
    let [one, two] = Proxy::two(&insisting(&peer.url, ObservedEra::Legacy)).await;
    let id = made_by(&one, "task-only").await;
    let asked = |records: &[Value], method: &str| {
        records.iter().filter(|record| record["api"]["operation"] == method).count()
    };
    for proxy in [&one, &two] {
        let got = proxy.send(modern("tasks/get", json!({"taskId": id}))).await;
        assert_eq!(got.json()["result"]["taskId"], id, "{}", got.text());
    }
    assert_eq!(asked(&one.records(3).await, "tasks/get"), 2);
    assert_eq!(asked(&two.records(0).await, "tasks/get"), 0);
    // Once that proxy is gone, whoever is left asks.
    one.drain.now();
    drop(one.served.await);
    let got = two.send(modern("tasks/get", json!({"taskId": id}))).await;
    assert_eq!(got.json()["result"]["taskId"], id, "{}", got.text());
    assert_eq!(asked(&two.records(1).await, "tasks/get"), 1);
}

async fn made_by(proxy: &Proxy, tool: &str) -> String {
    made(proxy, modern("tools/call", named(tool))).await
}

#[tokio::test]
async fn an_older_client_uses_tools_of_stateless_servers_that_run_as_tasks() {
    let peer = Peer::only(Speaks::Modern).await;
    let proxy = Proxy::start(&insisting(&peer.url, ObservedEra::Modern)).await;
    let hello = proxy.send(Ask::initialize(PATH, "2025-11-25").token(&token())).await;
    let session = hello.header("mcp-session-id").unwrap().to_owned();
    // It is told of no tasks, so it asks for none.
    let offered = hello.json()["result"]["capabilities"].clone();
    assert!(offered.get("tasks").or(offered.get("extensions")).is_none(), "{offered}");
    let ask = |method: &str, params: Value| within(&session, method, &params);
    let answer = proxy.send(ask("tools/call", named("task-only"))).await;
    let result = answer.json()["result"].clone();
    assert_eq!(result, json!({"content": [{"type": "text", "text": "made"}]}), "{}", answer.text());
    assert_eq!(peer.seen("tasks/get").len(), 2);
    assert_eq!(peer.seen("tasks/get")[0].header("mcp-name"), Some(ONLY));

    let waits = proxy.send(ask("tools/call", named("task-waits"))).await;
    assert_eq!(waits.code(), 50100, "{}", waits.text());
    let cancelled = async |id: &str| {
        let seen = peer.seen("tasks/cancel");
        seen.iter().any(|s| s.body["params"]["taskId"] == id)
    };
    assert!(eventually(PATIENCE, async || cancelled(WAITS).await).await);
    for method in ["tasks/list", "tasks/result"] {
        let told = proxy.send(ask(method, json!({"taskId": "t"}))).await;
        assert!([50100, -32602].contains(&told.code()), "{method}: {}", told.text());
    }

    // Who cancels the call cancels its task.
    let endless = proxy.send(ask("tools/call", named("task-endless")));
    let cancel = async {
        let asked =
            async || !peer.seen("tasks/get").iter().all(|s| s.body["params"]["taskId"] != ENDLESS);
        assert!(eventually(PATIENCE, asked).await);
        let note = json!({"jsonrpc": "2.0", "method": "notifications/cancelled",
            "params": {"requestId": 1}});
        let note = Ask::post(PATH, note.to_string()).header("mcp-session-id", &session);
        assert_eq!(proxy.send(note.token(&token())).await.status, 202);
    };
    let (_, ()) = tokio::join!(endless, cancel);
    assert!(eventually(PATIENCE, async || cancelled(ENDLESS).await).await);
}
