//! The demo's story through the product in this process: real MCP servers behind it, agents of
//! both eras in front, all on another implementation of the protocol.

use tokio_util::sync::CancellationToken;
use weir_peers::agent::{Agent, Era};
use weir_peers::orders::OrderDesk;
use weir_peers::serve::{self, HttpServer};
use weir_peers::story::{self, Cast};
use weir_peers::tickets::HelpDesk;

use crate::product::{Product, examples};

/// What the example's credential holds.
const TOKEN: &str = "only-the-gateway-knows-this";

async fn desks() -> (HttpServer, HttpServer) {
    let (orders, tickets) = (OrderDesk::default(), HelpDesk::default());
    let stop = CancellationToken::new();
    let orders = serve::http(move || orders.clone(), "127.0.0.1:0", None, stop.clone());
    let token = Some(TOKEN.to_owned());
    let tickets = serve::http(move || tickets.clone(), "127.0.0.1:0", token, stop);
    (orders.await.unwrap(), tickets.await.unwrap())
}

/// The example's documents with both desks over HTTP, at their addresses.
fn config(folder: &std::path::Path, orders: &HttpServer, tickets: &HttpServer) -> String {
    let config = folder.join("config");
    std::fs::create_dir_all(&config).unwrap();
    for entry in std::fs::read_dir(examples("demo")).unwrap() {
        let path = entry.unwrap().path();
        let http = format!("http: {{ url: \"{}\", allowPrivate: true }}", orders.url);
        let text = std::fs::read_to_string(&path)
            .unwrap()
            .replace("http://127.0.0.1:7900/mcp", &tickets.url)
            .replace("stdio: { command: demo-server, args: [--flavour, orders, stdio] }", &http);
        assert!(!text.contains("command:"), "{text}");
        std::fs::write(config.join(path.file_name().unwrap()), text).unwrap();
    }
    config.to_str().unwrap().to_owned()
}

async fn token(product: &Product, account: &str) -> String {
    let line = ["token", "create", account, "-g", "demo", "--quiet", "--wait"];
    product.weir(&line).await.unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_story_goes_as_promised_and_again_after_a_restart() {
    let (orders, tickets) = desks().await;
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), &orders, &tickets);
    let product = Product::start_in(folder, &["--apply", &config]).await;
    let (support, auditor) = (token(&product, "support").await, token(&product, "auditor").await);
    let cast = |product: &Product| Cast {
        url: format!("{}/demo/mcp", product.whereabouts.url),
        support: support.clone(),
        auditor: auditor.clone(),
    };
    for era in [Era::Modern, Era::Legacy] {
        let tale = story::tell(&cast(&product), era).await.unwrap();
        assert_eq!(tale.deviations, 0, "{}", tale.text);
        assert!(tale.steps >= 15, "{}", tale.text);
    }

    // Tokens, pins and credentials are still there; the pins need no server to be asked again.
    let product = Product::start_in(product.stop().await, &[]).await;
    let tale = story::tell(&cast(&product), Era::Modern).await.unwrap();
    assert_eq!(tale.deviations, 0, "{}", tale.text);
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_applied_is_in_force_for_agents_that_are_connected() {
    let (orders, tickets) = desks().await;
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), &orders, &tickets);
    let product = Product::start_in(folder, &["--apply", &config]).await;
    let url = format!("{}/demo/mcp", product.whereabouts.url);
    let auditor = token(&product, "auditor").await;
    let agent = Agent::connect(&url, Some(&auditor), Era::Legacy).await.unwrap();
    assert_eq!(agent.tools().await.unwrap().len(), 3);

    let role = "apiVersion: weir/v1\nkind: Role\nmetadata: {group: demo, name: reader}\n\
                spec: {rules: [{servers: [tickets], tools: ['*']}]}\n";
    product.weir(&["apply", "--wait", "-f", &product.file("role.yaml", role)]).await.unwrap();
    let after = agent.tools().await.unwrap();
    assert_eq!(after, ["tickets__close_ticket", "tickets__search_tickets"]);

    let id = auditor.split('_').nth(2).unwrap();
    product.weir(&["token", "revoke", "auditor", id, "-g", "demo"]).await.unwrap();
    product.weir(&["apply", "--wait", "-f", &product.file("role.yaml", role)]).await.unwrap();
    let refused = agent.call("tickets__search_tickets", serde_json::json!({})).await;
    assert!(refused.is_err(), "a revoked token still works: {refused:?}");
    product.stop().await;
}
