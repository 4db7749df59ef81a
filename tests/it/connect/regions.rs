//! Regions that are slow, fail, come back empty.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::host::Host;
use super::{names, product};

/// The way to a region: passes bytes on, late if told to, until it is cut.
struct Way {
    address: SocketAddr,
    taken: Arc<AtomicUsize>,
    cut: CancellationToken,
}

impl Way {
    /// To a product's address; every connection is made `late`.
    async fn to(target: &str, late: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let target = target.trim_start_matches("http://").to_owned();
        let (cut, taken) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
        let (stop, count) = (cut.clone(), Arc::clone(&taken));
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = stop.cancelled() => return,
                };
                let (client, _) = accepted.unwrap();
                let way = (target.clone(), late, Arc::clone(&count));
                tokio::spawn(carry(client, way, stop.clone()));
            }
        });
        Self { address, taken, cut }
    }

    fn url(&self) -> String {
        format!("http://{}/shop/mcp", self.address)
    }

    fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

/// Every piece of an answer comes late; every piece of a request is counted.
async fn carry(
    client: TcpStream,
    (target, late, count): (String, Duration, Arc<AtomicUsize>),
    stop: CancellationToken,
) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let there = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
            count.fetch_add(1, Ordering::Relaxed);
            if to_server.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    };
    let back = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
            tokio::time::sleep(late).await;
            if to_client.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = there => {}
        () = back => {}
        () = stop.cancelled() => {}
    }
}

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
        // The answer is on its way back for 60 ms or more when the way is cut.
        let id = host.begin("tools/call", json!({ "name": tool, "arguments": arguments })).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
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
