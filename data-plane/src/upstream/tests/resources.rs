//! Following single resources at servers of both eras.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::json;

use super::super::testing;
use super::fake::{Reply, event};
use super::*;

fn updated(uri: &str) -> String {
    let note = json!({"jsonrpc": "2.0", "method": "notifications/resources/updated",
        "params": {"uri": uri}});
    event(&note.to_string())
}

fn wanted() -> Vec<String> {
    ["x://a", "x://b"].map(str::to_owned).into()
}

type Feed = Arc<Mutex<Option<tokio::sync::mpsc::Sender<Bytes>>>>;

#[tokio::test]
async fn an_older_server_is_subscribed_to_on_a_session_of_its_own() {
    let feed = Feed::default();
    let held = Arc::clone(&feed);
    let fake = super::legacy::server(move |asked| match asked.rpc() {
        "resources/subscribe" if asked.body["params"]["uri"] == "x://a" => {
            Reply::result(asked, "{}")
        }
        "resources/subscribe" => Reply::error(200, &asked.body["id"], -32002, "no such resource"),
        "" if asked.method == http::Method::GET => {
            let reply = Reply::sse(": hi\n\n");
            (*held.lock()).clone_from(&reply.feed);
            reply
        }
        _ => Reply::status(404),
    })
    .await;
    let upstreams = upstreams();
    let request = testing::outbound(&fake.url, "");
    let mut followed = upstreams.follow_resources(request, &wanted()).await.expect("followed");
    assert_eq!(followed.accepted(), ["x://a"]);
    let sender = feed.lock().clone().expect("a feed");
    let changed = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
    sender.send((event(changed) + &updated("x://a")).into()).await.expect("a reader");
    assert_eq!(followed.next().await.as_deref(), Some("x://a"));
    drop(followed);
    until("the session is ended", || fake.methods().last().is_some_and(|m| m == "DELETE")).await;
}

#[tokio::test]
async fn a_modern_server_is_asked_for_one_stream() {
    let fake = super::modern::server(|asked| match asked.rpc() {
        "subscriptions/listen" => {
            assert_eq!(
                asked.body["params"]["notifications"]["resourceSubscriptions"],
                json!(["x://a", "x://b"])
            );
            let ack = json!({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged",
                "params": {"notifications": {"resourceSubscriptions": ["x://b"]}}});
            Reply::sse(event(&ack.to_string()) + &updated("x://b") + &updated("x://b/part"))
        }
        _ => Reply::status(404),
    })
    .await;
    let request = testing::outbound(&fake.url, "");
    let mut followed = upstreams().follow_resources(request, &wanted()).await.expect("followed");
    assert_eq!(followed.accepted(), ["x://b"]);
    assert_eq!(followed.next().await.as_deref(), Some("x://b"));
    assert_eq!(followed.next().await.as_deref(), Some("x://b/part"));
    drop(followed);
    until("the stream is left", || fake.left.load(std::sync::atomic::Ordering::SeqCst) == 1).await;
}

#[tokio::test]
async fn a_server_without_a_push_stream_is_told_apart() {
    let fake = super::legacy::server(|asked| match asked.method.as_str() {
        "GET" => Reply::status(405),
        _ => Reply::result(asked, "{}"),
    })
    .await;
    let request = testing::outbound(&fake.url, "");
    let refused = upstreams().follow_resources(request, &wanted()).await.expect_err("refused");
    assert_eq!(refused.reason, Reason::MethodNotAllowed);
}
