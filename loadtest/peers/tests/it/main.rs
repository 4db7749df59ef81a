//! The peers by themselves, without a gateway: what they offer has to hold before it proves
//! anything about the thing in between.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use rmcp::ServerHandler;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use weir_peers::agent::{Agent, Era};
use weir_peers::orders::OrderDesk;
use weir_peers::serve::{self, HttpServer};
use weir_peers::tickets::HelpDesk;

async fn started<S: ServerHandler + Clone>(server: S, token: Option<&str>) -> HttpServer {
    let token = token.map(str::to_owned);
    let make = move || server.clone();
    serve::http(make, "127.0.0.1:0", token, CancellationToken::new()).await.unwrap()
}

#[tokio::test]
async fn both_servers_serve_both_eras() {
    for era in [Era::Modern, Era::Legacy] {
        let orders = started(OrderDesk::default(), None).await;
        let agent = Agent::connect(&orders.url, None, era).await.unwrap();
        let names = ["export_orders", "get_order", "list_orders", "refund_order"];
        assert_eq!(agent.tools().await.unwrap(), names, "{era:?}");
        let one = agent.call("get_order", json!({ "id": "A-1001" })).await.unwrap();
        assert_eq!(one.structured_content.unwrap()["customer"], "Ada Moreau", "{era:?}");
        let none = agent.call("get_order", json!({ "id": "A-9999" })).await.unwrap();
        assert_eq!(none.is_error, Some(true), "{era:?}");
        let export = agent.call("export_orders", json!({})).await.unwrap();
        assert!(export.structured_content.unwrap()["csv"].as_str().unwrap().contains("A-1003"));
        assert_eq!(agent.progress(), [1.0, 2.0, 3.0], "{era:?}");
        agent.close().await.unwrap();

        let tickets = started(HelpDesk::default(), None).await;
        let agent = Agent::connect(&tickets.url, None, era).await.unwrap();
        assert_eq!(agent.tools().await.unwrap(), ["close_ticket", "search_tickets"], "{era:?}");
        agent.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_server_that_demands_a_token_gives_nothing_without_it() {
    let tickets = started(HelpDesk::default(), Some("right")).await;
    for wrong in [None, Some("wrong")] {
        let refused = Agent::connect(&tickets.url, wrong, Era::Modern).await.unwrap_err();
        assert!(format!("{refused:#}").to_lowercase().contains("auth"), "{refused:#}");
    }
    let agent = Agent::connect(&tickets.url, Some("right"), Era::Modern).await.unwrap();
    assert!(!agent.tools().await.unwrap().is_empty());
    agent.close().await.unwrap();
}

/// The schemas are what the gateway checks arguments against: they have to say what the story
/// of the demo relies on.
#[tokio::test]
async fn schemas_say_what_is_allowed() {
    let orders = started(OrderDesk::default(), None).await;
    let agent = Agent::connect(&orders.url, None, Era::Legacy).await.unwrap();
    let tools = agent.peer().list_all_tools().await.unwrap();
    let refund = tools.iter().find(|tool| tool.name == "refund_order").unwrap();
    let schema = Value::Object((*refund.input_schema).clone());
    assert_eq!(schema["properties"]["amount"]["minimum"], 1, "{schema:#}");
    assert_eq!(schema["additionalProperties"], false, "{schema:#}");
    assert_eq!(schema["required"], json!(["id", "amount", "reason"]), "{schema:#}");
    assert!(refund.output_schema.is_some());
    let hints = refund.annotations.clone().unwrap();
    assert_eq!((hints.read_only_hint, hints.destructive_hint), (Some(false), Some(true)));
    agent.close().await.unwrap();
}
