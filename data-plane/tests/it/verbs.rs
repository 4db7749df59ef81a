//! The gateway's own verbs, as their page tells them: every example on it is run as it stands.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::peer::Peer;
use crate::proxy::{Ask, Proxy};
use crate::{token, world};

const PAGE: &str = include_str!("../../../docs/reference/verbs.md");

fn on(url: &str) -> weir_model::testing::World {
    world(url).group_with("acme", |group| group.verbs = true)
}

/// The examples of the page: a command, and parts that its answer has to have.
fn examples() -> Vec<(String, Vec<String>)> {
    let mut blocks = PAGE.split("```sh\n").skip(1);
    let mut found = Vec::new();
    for block in &mut blocks {
        let (command, rest) = block.split_once("```").unwrap();
        let answer = rest.split_once("```json\n").and_then(|(_, b)| b.split_once("```"));
        let answer = answer.map(|(a, _)| a.split("...").map(|p| p.trim().to_owned()).collect());
        found.push((command.replace("\\\n", " "), answer.unwrap_or_default()));
    }
    found
}

/// The words of a shell command with single and double quotes.
fn words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for c in command.trim().chars() {
        match (quote, c) {
            (Some(q), c) if q == c => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, c) if c.is_whitespace() => words.push(String::new()),
            (_, c) => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// What `curl` would send.
fn request(command: &str) -> Ask {
    let command = command.replace("$WEIR", "").replace("$TOKEN", &token());
    let words = words(&command);
    assert_eq!(words[0], "curl");
    let path = words.iter().find(|word| word.starts_with('/')).unwrap();
    let mut ask = Ask::post(path, "").without("accept").without("content-type");
    for pair in words.windows(2) {
        match pair[0].as_str() {
            "--json" => {
                ask.body = Bytes::from(pair[1].clone());
                ask = ask
                    .header("content-type", "application/json")
                    .header("accept", "application/json");
            }
            "-H" => {
                let (name, value) = pair[1].split_once(": ").unwrap();
                assert_eq!(name, "Authorization");
                ask = ask.header("authorization", value);
            }
            _ => {}
        }
    }
    ask
}

#[tokio::test]
async fn every_example_of_the_page_answers_as_it_says() {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&on(&peer.url)).await;
    let examples = examples();
    assert!(examples.len() >= 5, "{}", examples.len());
    for (command, parts) in examples {
        let answer = proxy.send(request(&command)).await;
        let told: String = answer.text().split_whitespace().collect();
        assert!(!parts.is_empty(), "{command}");
        for part in parts {
            let part: String = part.split_whitespace().collect();
            assert!(told.contains(&part), "{command}\nhas no {part}\n{told}");
        }
    }
}

fn verb(path: &str, method: &str, params: Value) -> Ask {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    Ask::post(path, body.to_string()).with("accept", "*/*").token(&token())
}

#[tokio::test]
async fn verbs_have_the_checks_and_records_of_their_methods() {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&on(&peer.url)).await;
    let call = |tool: &str, arguments: Value| {
        verb("/acme/files/mcp", "tool.invoke", json!({"name": tool, "arguments": arguments}))
    };
    let broken = proxy.send(call("strict", json!({"n": 0}))).await.json();
    assert_eq!(broken["result"]["isError"], true);
    assert_eq!(proxy.send(call("hidden", json!({}))).await.code(), -32602);
    let mut nobody = call("echo", json!({}));
    nobody.headers.retain(|(name, _)| *name != "authorization");
    assert_eq!(proxy.send(nobody).await.status, 401);
    let mismatch = call("echo", json!({})).header("mcp-name", "other");
    assert_eq!(proxy.send(mismatch).await.code(), -32020);
    assert!(peer.seen("tools/call").is_empty());
    let region = proxy.send(call("region", json!({"region": "eu"}))).await;
    assert_eq!(region.code(), -32602, "the peer has no such tool: {}", region.text());
    let sent = peer.seen("tools/call").remove(0);
    assert_eq!(sent.header("mcp-param-region"), Some("eu"), "made by the gateway");
    let records = proxy.records(5).await;
    assert!(records[0].to_string().contains("tools/call"), "{}", records[0]);
    assert!(records[0].to_string().contains("invalid_arguments"));
    assert!(records[1].to_string().contains("denied"));
    // A stream of the server is told as its last message where the client takes no other.
    let params = json!({"name": "progress", "arguments": {}, "_meta": {"progressToken": "t"}});
    let whole = verb("/acme/files/mcp", "tool.invoke", params).with("accept", "application/json");
    let answer = proxy.send(whole).await;
    assert_eq!(answer.json()["result"]["resultType"], "complete", "{}", answer.text());
}

#[tokio::test]
async fn without_the_setting_there_are_no_verbs() {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&world(&peer.url)).await;
    for method in ["mcp.handshake", "tool.invoke", "resource.get", "prompt.render"] {
        let answer = proxy.send(verb("/acme/mcp", method, json!({"name": "files__echo"}))).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (404, -32601), "{method}");
    }
    let json = verb("/acme/mcp", "tools/list", json!({})).with("accept", "application/json");
    assert_eq!(proxy.send(json).await.status, 406);
}
