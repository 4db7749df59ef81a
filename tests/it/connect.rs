//! `weir connect` between a host on stdio and the product: every revision, signing in, regions
//! that fail.

mod host;
mod regions;
mod sign_in;

use serde_json::{Value, json};
use weir_peers::agent::Era;

use crate::product::Product;
use host::Host;

const REVISIONS: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];

/// A group with the order desk, open to everybody, or to whoever `extra` lets in.
fn documents(extra: &str) -> String {
    let desk = host::binary("demo-server");
    format!(
        "apiVersion: weir/v1\nkind: Group\nmetadata: {{name: shop}}\nspec: {{anonymous: {}}}\n---\n\
         apiVersion: weir/v1\nkind: Server\nmetadata: {{group: shop, name: orders}}\nspec:\n  \
         versions: [{{name: v1, upstream: {{stdio: {{command: '{}', args: [--flavour, orders, stdio]}}}}}}]\n---\n\
         apiVersion: weir/v1\nkind: Role\nmetadata: {{group: shop, name: all}}\nspec: \
         {{rules: [{{servers: ['*'], tools: ['*'], resources: ['*'], prompts: ['*']}}]}}\n---\n\
         apiVersion: weir/v1\nkind: RoleBinding\nmetadata: {{group: shop, name: all}}\nspec: \
         {{role: all, subjects: [{{authenticated: true}}, {{anonymous: true}}]}}\n{extra}",
        extra.is_empty(),
        desk.display(),
    )
}

pub(crate) async fn product(extra: &str) -> Product {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.yaml");
    std::fs::write(&config, documents(extra)).unwrap();
    let config = config.to_str().unwrap().to_owned();
    Product::start_in(folder, &["--apply", &config]).await
}

fn endpoint(product: &Product) -> String {
    format!("{}/shop/mcp", product.whereabouts.url)
}

fn names(answer: &Value) -> Vec<&str> {
    let tools = answer["result"]["tools"].as_array().unwrap_or_else(|| panic!("{answer}"));
    tools.iter().map(|tool| tool["name"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_of_every_revision_get_through() {
    let product = product("").await;
    for revision in REVISIONS {
        let mut host = Host::start(&[&endpoint(&product)]);
        let answer = host.initialize(revision).await;
        assert_eq!(answer["result"]["protocolVersion"], revision, "{answer}");
        let listed = host.ask("tools/list", json!({})).await;
        assert!(names(&listed).contains(&"orders__get_order"), "{revision}: {listed}");
        let called = host.call("orders__get_order", json!({ "id": "A-1001" })).await;
        assert_eq!(called["result"]["isError"], false, "{revision}: {called}");
        host.end().await;
    }
    let mut host = Host::start(&[&endpoint(&product)]);
    let found = host.ask_modern("server/discover", json!({})).await;
    assert_eq!(found["result"]["resultType"], "complete", "{found}");
    let params = json!({ "name": "orders__get_order", "arguments": { "id": "A-1001" } });
    let called = host.ask_modern("tools/call", params).await;
    assert!(called["result"]["content"].is_array(), "{called}");
    host.end().await;
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_library_of_others_speaks_through_it() {
    let product = product("").await;
    for era in [Era::Legacy, Era::Modern] {
        let agent = host::agent(&[&endpoint(&product)], era).await;
        assert!(agent.tools().await.unwrap().contains(&"orders__list_orders".to_owned()));
        let called = agent.call("orders__get_order", json!({ "id": "A-1001" })).await.unwrap();
        assert_ne!(called.is_error, Some(true), "{era:?}: {called:?}");
        let refused = agent.call("orders__nothing", json!({})).await.unwrap_err();
        assert_eq!(refused.code, Some(-32602), "{era:?}: {refused}");
        agent.close().await.unwrap();
    }
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_message_is_answered_and_batches_stay_batches() {
    let product = product("").await;
    let mut host = Host::start(&[&endpoint(&product)]);
    host.send_text("{\"jsonrpc\":").await;
    let answer = host.next().await;
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&Value::Null, &json!(-32700)));
    host.initialize("2025-03-26").await;
    let ping = |id: u32| json!({ "jsonrpc": "2.0", "id": id, "method": "ping" });
    host.send(json!([ping(901), { "jsonrpc": "2.0", "method": "notifications/x" }, ping(902)]))
        .await;
    let answer = host.next().await;
    let ids: Vec<_> = answer.as_array().unwrap().iter().map(|one| one["id"].clone()).collect();
    assert_eq!(ids, [901, 902], "{answer}");
    let unknown = host.ask("no/such", json!({})).await;
    assert_eq!(unknown["error"]["code"], -32601, "{unknown}");
    host.end().await;
    product.stop().await;
}
