//! The index: following a store that fails, compacts, and holds what cannot be read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use control_plane::index::{self, Index, Newest};
use control_plane::store::embedded::{Embedded, History};
use control_plane::store::{Changes, Entry, Guard, Listing, Op, Store, StoreError};
use futures_util::StreamExt;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use weir_model::id::Revision;
use weir_model::resource::{Kind, Region, Resource, ResourceKey, Spec};

use weir_runtime::testing::eventually;

use crate::plane::{BOUND, Plane};

fn region(name: &str) -> Op {
    let key = ResourceKey::global(Kind::Region, name);
    let resource = Resource::new(key.clone(), Spec::Region(Region::default())).unwrap();
    Op::Put(index::path(&key), resource.canonical)
}

async fn write(store: &dyn Store, ops: Vec<Op>) -> Revision {
    let base = store.get(control_plane::store::HEAD).await.unwrap();
    let (guard, head) = index::head(base.map_or(Revision(0), |entry| entry.revision));
    store.commit(vec![guard], std::iter::once(head).chain(ops).collect()).await.unwrap()
}

async fn reach(newest: &mut Newest, revision: Revision) {
    let reached = newest.wait_for(|indexed| indexed.revision >= revision);
    timeout(BOUND, reached).await.expect("in time").unwrap();
}

#[tokio::test]
async fn changes_arrive_in_order_and_deletes_too() {
    let store: Arc<dyn Store> = Arc::new(Embedded::in_memory(History::default()).unwrap());
    write(&*store, vec![region("eu")]).await;
    let index = Index::start(store.clone(), CancellationToken::new()).await.unwrap();
    let mut newest = index.newest();
    assert_eq!(newest.borrow().set.len(), 1);
    let revision = write(&*store, vec![region("us"), region("ap")]).await;
    reach(&mut newest, revision).await;
    assert_eq!((newest.borrow().set.len(), newest.borrow().revision), (3, revision));
    let key = ResourceKey::global(Kind::Region, "eu");
    let revision = write(&*store, vec![Op::Delete(index::path(&key))]).await;
    reach(&mut newest, revision).await;
    assert!(newest.borrow().set.get(&key).is_none());
    // State outside of the configuration does not move it.
    store.commit(vec![], vec![Op::Put("state/x".into(), Bytes::new())]).await.unwrap();
    let revision = write(&*store, vec![region("eu")]).await;
    reach(&mut newest, revision).await;
    assert_eq!(newest.borrow().revision, revision);
}

#[tokio::test]
async fn what_cannot_be_read_is_told_and_stays_as_unreadable() {
    let store: Arc<dyn Store> = Arc::new(Embedded::in_memory(History::default()).unwrap());
    let put =
        |path: &str, text: &str| Op::Put(path.into(), Bytes::copy_from_slice(text.as_bytes()));
    let newer = r#"{"apiVersion":"weir/v1","kind":"Region","metadata":{"name":"eu"},"spec":{"planet":"mars"}}"#;
    let moved = r#"{"apiVersion":"weir/v1","kind":"Region","metadata":{"name":"us"},"spec":{}}"#;
    write(&*store, vec![put("config/Region/eu", newer), put("config/nonsense", "x")]).await;
    let index = Index::start(store.clone(), CancellationToken::new()).await.unwrap();
    let mut newest = index.newest();
    let revision = write(&*store, vec![put("config/Region/ap", moved), region("us")]).await;
    reach(&mut newest, revision).await;
    let indexed = newest.borrow().clone();
    let broken: Vec<_> = indexed.broken.keys().map(String::as_str).collect();
    assert_eq!(broken, ["config/Region/ap", "config/Region/eu", "config/nonsense"]);
    let eu = indexed.set.get(&ResourceKey::global(Kind::Region, "eu")).unwrap();
    assert!(matches!(eu.spec, Spec::Unreadable(_)), "it is not missing, it is unreadable");
    assert_eq!(eu.canonical, newer.as_bytes());
    let revision = write(&*store, vec![region("eu")]).await;
    reach(&mut newest, revision).await;
    assert_eq!(newest.borrow().broken.len(), 2, "mended");
}

/// A store whose watches and listings fail on demand.
struct Flaky {
    store: Embedded,
    down: Arc<AtomicBool>,
    watches: AtomicUsize,
}

#[async_trait]
impl Store for Flaky {
    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        self.up()?;
        self.store.list(prefix).await
    }
    async fn list_at(&self, prefix: &str, revision: Revision) -> Result<Listing, StoreError> {
        self.store.list_at(prefix, revision).await
    }
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.up()?;
        self.store.get(key).await
    }
    async fn commit(&self, guards: Vec<Guard>, ops: Vec<Op>) -> Result<Revision, StoreError> {
        self.store.commit(guards, ops).await
    }
    async fn watch(&self, prefix: &str, after: Revision) -> Result<Changes, StoreError> {
        self.up()?;
        self.watches.fetch_add(1, Ordering::SeqCst);
        let down = self.down.clone();
        let changes = self.store.watch(prefix, after).await?;
        Ok(Box::pin(changes.map(move |change| match down.load(Ordering::SeqCst) {
            true => Err(StoreError::Unavailable("cut".to_owned())),
            false => change,
        })))
    }
}

impl Flaky {
    fn up(&self) -> Result<(), StoreError> {
        match self.down.load(Ordering::SeqCst) {
            true => Err(StoreError::Unavailable("down".to_owned())),
            false => Ok(()),
        }
    }
}

#[tokio::test]
async fn outages_and_compaction_are_caught_up_with() {
    let inner = Embedded::in_memory(History::default()).unwrap();
    let store = Arc::new(Flaky {
        store: inner.clone(),
        down: Arc::default(),
        watches: AtomicUsize::new(0),
    });
    write(&inner, vec![region("a")]).await;
    let index = Index::start(store.clone(), CancellationToken::new()).await.unwrap();
    let (mut newest, mut live) = (index.newest(), index.live());
    timeout(BOUND, live.wait_for(|live| *live)).await.unwrap().unwrap();

    store.down.store(true, Ordering::SeqCst);
    let missed = write(&inner, vec![region("b")]).await;
    timeout(BOUND, live.wait_for(|live| !*live)).await.unwrap().unwrap();
    assert_eq!(newest.borrow().set.len(), 1, "the last state stays");
    let later = write(&inner, vec![region("c")]).await;
    // What happened meanwhile is gone from the history.
    inner.compact(missed).await.unwrap();
    store.down.store(false, Ordering::SeqCst);
    reach(&mut newest, later).await;
    assert_eq!(newest.borrow().set.len(), 3);
    timeout(BOUND, live.wait_for(|live| *live)).await.unwrap().unwrap();
    assert!(store.watches.load(Ordering::SeqCst) >= 2);
    let revision = write(&inner, vec![region("d")]).await;
    reach(&mut newest, revision).await;
}

#[tokio::test]
async fn a_store_that_cannot_be_read_stops_the_start() {
    let inner = Embedded::in_memory(History::default()).unwrap();
    let down = Arc::new(AtomicBool::new(true));
    let store = Arc::new(Flaky { store: inner, down, watches: AtomicUsize::new(0) });
    let error = Index::start(store, CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)));
}

#[tokio::test]
async fn a_replica_that_cannot_follow_says_so_and_still_answers_what_it_knows() {
    let inner = Embedded::in_memory(History::default()).unwrap();
    let down = Arc::new(AtomicBool::new(false));
    let store = Flaky { store: inner.clone(), down: down.clone(), watches: AtomicUsize::new(0) };
    let plane = Plane::over(Arc::new(store)).await;
    plane.apply(crate::rest::ACME).await.ok();
    down.store(true, Ordering::SeqCst);
    // The watch finds out with the next change.
    write(&inner, vec![region("eu")]).await;
    let ready = async || plane.get("/readyz").await.status.is_success();
    assert!(eventually(BOUND, async || !ready().await).await);
    assert_eq!(plane.get("/readyz").await.json()["pending"], serde_json::json!(["store"]));
    let refused = plane.apply(crate::rest::ACME).await;
    assert_eq!(refused.problem(), "unavailable", "who asks cannot be checked without the store");
    down.store(false, Ordering::SeqCst);
    assert!(eventually(BOUND, ready).await);
    plane.apply(crate::rest::ACME).await.ok();
    plane.get("/v1/resources/Region/eu").await.ok();
}
