//! Regions that are slow, fail, come back empty.

use std::time::Duration;

use serde_json::json;
use weir_runtime::testing::eventually;

use super::host::Host;
use super::{names, product};
use crate::planes::BOUND;
use crate::way::Way;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_quickest_region_is_used_and_the_next_when_it_fails() {
    let product = product("").await;
    let far = Way::to(&product.whereabouts.url, Duration::from_millis(200)).await;
    let near = Way::to(&product.whereabouts.url, Duration::ZERO).await;
    let mut host = Host::start(&[&far.url(), &near.url()]);
    host.initialize("2025-11-25").await;
    let measured = far.taken();
    let listed = host.ask("tools/list", json!({})).await;
    assert!(names(&listed).contains(&"orders__get_order"));
    assert_eq!(far.taken(), measured, "the far region was only measured");

    // The session goes on in the other region: the host sees nothing of it.
    near.cut.cancel();
    let called = host.call("orders__get_order", json!({ "id": "A-1001" })).await;
    assert_eq!(called["result"]["isError"], false, "{called}");
    assert!(far.taken() > measured);
    assert!(host.heard.is_empty(), "{:?}", host.heard);
    host.end().await;
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_the_next_region_does_not_know_is_opened_again() {
    let (here, there) = (product("").await, product("").await);
    let way = Way::to(&here.whereabouts.url, Duration::ZERO).await;
    let second = Way::to(&there.whereabouts.url, Duration::from_millis(100)).await;
    let mut host = Host::start(&[&way.url(), &second.url()]);
    host.initialize("2025-06-18").await;
    host.ask("tools/list", json!({})).await;
    way.cut.cancel();
    here.stop().await;
    let called = host.call("orders__get_order", json!({ "id": "A-1001" })).await;
    assert_eq!(called["result"]["isError"], false, "{called}");
    host.end().await;
    there.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_may_have_been_carried_out_is_not_repeated() {
    let product = product("").await;
    let url = &product.whereabouts.url;
    let far = Way::to(url, Duration::from_millis(150)).await;
    for (tool, arguments, repeated) in [
        (
            "orders__refund_order",
            json!({ "id": "A-1001", "amount": 5, "reason": "damaged" }),
            false,
        ),
        ("orders__get_order", json!({ "id": "A-1001" }), true),
    ] {
        let near = Way::to(url, Duration::from_millis(60)).await;
        let mut host = Host::start(&[&near.url(), &far.url()]);
        host.initialize("2025-11-25").await;
        host.ask("tools/list", json!({})).await;
        // The answer needs 60 ms for its way back once the call has passed: the way is cut before.
        let passed = near.taken();
        let id = host.begin("tools/call", json!({ "name": tool, "arguments": arguments })).await;
        assert!(eventually(BOUND, async || near.taken() > passed).await, "the call has not passed");
        near.cut.cancel();
        let answer = host.answer(id).await;
        match repeated {
            true => assert_eq!(answer["result"]["isError"], false, "{answer}"),
            false => assert_eq!(answer["error"]["data"]["reason"], "connection_lost", "{answer}"),
        }
        host.end().await;
    }
    product.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_any_region_a_host_gets_an_error() {
    let nowhere = Way::to("127.0.0.1:1", Duration::ZERO).await;
    nowhere.cut.cancel();
    let mut host = Host::start(&[&nowhere.url()]);
    let answer = host.ask("ping", json!({})).await;
    assert_eq!(answer["error"]["data"]["reason"], "gateway_unreachable", "{answer}");
    host.end().await;
}
