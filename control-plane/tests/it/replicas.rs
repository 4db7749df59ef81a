//! Two replicas on one store: no truth outside of it.

use std::sync::Arc;

use control_plane::store::Store;
use control_plane::store::embedded::{Embedded, History};
use control_plane::store::etcd::{Etcd, Options};
use weir_runtime::testing::eventually;

use crate::plane::{BOUND, Plane};
use crate::real;
use crate::rest::ACME;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_on_one_etcd() {
    let Some(etcd) = real::etcd("two control planes on one etcd").await else { return };
    let prefix = format!("/weir-test/{}/", uuid::Uuid::new_v4().simple());
    let endpoints = etcd.endpoints.clone();
    let options = Options { endpoints, prefix, ..Options::default() };
    let open = || Arc::new(Etcd::new(options.clone()).unwrap()) as Arc<dyn Store>;
    two_replicas(open(), open()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_on_one_embedded_store() {
    let store = Embedded::in_memory(History::default()).unwrap();
    two_replicas(Arc::new(store.clone()), Arc::new(store)).await;
}

async fn two_replicas(one: Arc<dyn Store>, two: Arc<dyn Store>) {
    let (one, two) = (Plane::over(one).await, Plane::over(two).await);
    let applied = one.apply(ACME).await.ok();
    let revision = applied["revision"].as_u64().unwrap();
    // What one replica made, the other takes into account at once, whatever its index has seen.
    let role = |n: usize| {
        format!(
            "apiVersion: weir/v1\nkind: Role\nmetadata: {{name: r{n}, group: acme}}\nspec: {{rules: [{{servers: ['*'], tools: ['*']}}]}}\n"
        )
    };
    let changes = (0..10).map(|n| {
        let plane = if n % 2 == 0 { &one } else { &two };
        let text = role(n);
        async move { plane.apply(&text).await.ok()["revision"].as_u64().unwrap() }
    });
    let revisions = futures_util::future::join_all(changes).await;
    assert!(revisions.iter().all(|r| *r > revision));
    let newest = *revisions.iter().max().unwrap();
    for plane in [&one, &two] {
        let seen = eventually(BOUND, async || {
            plane.get("/v1/resources/Role").await.ok()["revision"].as_u64() == Some(newest)
        });
        assert!(seen.await);
        let listed = plane.get("/v1/resources/Role").await.ok();
        assert_eq!(listed["items"].as_array().unwrap().len(), 11);
    }
    // An operator of one is one of the other, until it is revoked at either.
    two.ask("GET", "/v1/resources").token(&one.admin).send().await.ok();
    let id = one.admin.split('_').nth(2).unwrap();
    one.ask("DELETE", &format!("/v1/operators/{id}")).token(&two.admin).send().await.ok();
    let out = two.ask("GET", "/v1/resources").token(&one.admin).send().await;
    assert_eq!(out.problem(), "token_unknown");
    // A revision that only the other replica has seen so far is waited for.
    let made = two.apply(&role(20)).await.ok()["revision"].as_u64().unwrap();
    let path = format!("/v1/apply?expectedRevision={made}");
    one.ask("POST", &path).token(&two.admin).yaml(&role(21)).send().await.ok();
}
