//! Both stores under the one contract, and what is special about each.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use control_plane::store::contract::{self, Bench};
use control_plane::store::embedded::{Embedded, History};
use control_plane::store::etcd::{Etcd, Options};
use control_plane::store::{Guard, Op, Store, StoreError};
use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weir_model::id::Revision;

use crate::real;

fn put(key: &str, value: &str) -> Vec<Op> {
    vec![Op::Put(key.to_owned(), Bytes::copy_from_slice(value.as_bytes()))]
}

struct EmbeddedBench(Embedded);

#[async_trait]
impl Bench for EmbeddedBench {
    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(self.0.clone())
    }
    async fn compact(&self, upto: Revision) {
        self.0.compact(upto).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_keeps_the_contract_in_memory() {
    let store = Embedded::in_memory(History::default()).unwrap();
    contract::run(&EmbeddedBench(store)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_keeps_the_contract_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(&dir.path().join("store")).unwrap();
    contract::run(&EmbeddedBench(store)).await;
}

#[tokio::test]
async fn an_embedded_file_lasts_and_has_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = Embedded::open(&path).unwrap();
    let revision = store.commit(vec![], put("a", "1")).await.unwrap();
    let second = Embedded::open(&path).expect_err("it is open").to_string();
    assert!(second.contains("is in use"), "{second}");
    drop(store);

    let store = Embedded::open(&path).unwrap();
    assert_eq!(store.get("a").await.unwrap().unwrap().revision, revision);
    let mut changes = store.watch("a", Revision(0)).await.unwrap();
    assert_eq!(changes.next().await.unwrap().unwrap().revision, revision, "history lasts too");
    assert!(store.commit(vec![], put("a", "2")).await.unwrap() > revision);
}

#[test]
fn a_foreign_file_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let text = "something else altogether ".repeat(1_000);
    std::fs::write(&path, &text).unwrap();
    Embedded::open(&path).expect_err("no store");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test]
async fn embedded_history_is_bounded() {
    // A revision weighs what it wrote and what was there before.
    for history in [
        History { revisions_max: 5, bytes_max: u64::MAX },
        History { revisions_max: u64::MAX, bytes_max: 5 * 2 * 101 },
    ] {
        let store = Embedded::in_memory(history).unwrap();
        let mut revisions = Vec::new();
        for _ in 0..20 {
            revisions.push(store.commit(vec![], put("a", &"x".repeat(100))).await.unwrap());
        }
        let gone = store.watch("a", revisions[13]).await.err();
        assert!(matches!(gone, Some(StoreError::Compacted(_))), "{gone:?}");
        let mut kept = store.watch("a", revisions[14]).await.unwrap();
        assert_eq!(kept.next().await.unwrap().unwrap().revision, revisions[15]);
    }
}

struct EtcdBench {
    options: Options,
}

impl EtcdBench {
    /// A bench with a prefix of its own.
    fn new(endpoints: Vec<String>) -> Self {
        let prefix = format!("/weir-test/{}/", uuid::Uuid::new_v4().simple());
        Self { options: Options { endpoints, prefix, ..Options::default() } }
    }
    fn etcd(&self) -> Etcd {
        Etcd::new(self.options.clone()).unwrap()
    }
}

#[async_trait]
impl Bench for EtcdBench {
    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(self.etcd())
    }
    async fn compact(&self, upto: Revision) {
        self.etcd().compact(upto).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_keeps_the_contract() {
    let Some(etcd) = real::etcd("the store contract on etcd").await else { return };
    contract::run(&EtcdBench::new(etcd.endpoints.clone())).await;
}

/// A port that nobody listens on, a port that accepts and never answers, and the real one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_members_that_are_dead_or_silent_are_passed_over() {
    let Some(etcd) = real::etcd("failover between members of etcd").await else { return };
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_at = silent.local_addr().unwrap();
    let mut list = vec![format!("http://{dead}"), format!("http://{silent_at}")];
    list.extend(etcd.endpoints.iter().cloned());
    let bench = EtcdBench::new(list);
    let store = bench.etcd();
    let absent = vec![Guard { key: "a".to_owned(), revision: Revision(0) }];
    let revision = store.commit(absent, put("a", "1")).await.unwrap();
    assert_eq!(store.get("a").await.unwrap().unwrap().revision, revision);
    let mut changes = store.watch("a", Revision(revision.0 - 1)).await.unwrap();
    assert_eq!(changes.next().await.unwrap().unwrap().revision, revision);
    let begun = std::time::Instant::now();
    store.list("a").await.unwrap();
    assert!(begun.elapsed().as_millis() < 1_000, "the member that answered is asked first");

    let nobody = EtcdBench::new(vec![format!("http://{dead}"), format!("http://{silent_at}")]);
    let error = nobody.etcd().get("a").await.unwrap_err().to_string();
    assert!(error.contains(&dead.to_string()) && error.contains("no answer in time"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_prefixes_are_apart() {
    let Some(etcd) = real::etcd("two installations on one etcd").await else { return };
    let (one, two) = (
        EtcdBench::new(etcd.endpoints.clone()).etcd(),
        EtcdBench::new(etcd.endpoints.clone()).etcd(),
    );
    let revision = one.commit(vec![], put("a", "1")).await.unwrap();
    assert_eq!(one.list("").await.unwrap().entries.len(), 1, "marks are not entries");
    assert!(two.list("").await.unwrap().entries.is_empty());
    assert!(two.get("a").await.unwrap().is_none());
    let mut changes = two.watch("", Revision(revision.0 - 1)).await.unwrap();
    let own = two.commit(vec![], put("b", "1")).await.unwrap();
    assert_eq!(changes.next().await.unwrap().unwrap().revision, own);
}

/// Sits between a client and etcd. While `swallow` is set, requests go through and answers do not:
/// the connection is cut instead.
async fn lossy_proxy(to: String, swallow: Arc<AtomicBool>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (to, swallow) = (to.clone(), swallow.clone());
            tokio::spawn(async move {
                let server = tokio::net::TcpStream::connect(to).await.unwrap();
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                let up = tokio::spawn(async move {
                    tokio::io::copy(&mut from_client, &mut to_server).await.ok();
                });
                let mut bytes = vec![0; 64 * 1024];
                while let Ok(length @ 1..) = from_server.read(&mut bytes).await {
                    if swallow.swap(false, Ordering::SeqCst) {
                        break;
                    }
                    if to_client.write_all(&bytes[..length]).await.is_err() {
                        break;
                    }
                }
                up.abort();
            });
        }
    });
    format!("http://{address}")
}

/// A commit whose answer is lost is sent again, and applies once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_of_etcd_is_not_a_second_commit() {
    let Some(etcd) = real::etcd("lost answers of etcd").await else { return };
    let swallow = Arc::new(AtomicBool::new(false));
    let to = etcd.endpoints[0].strip_prefix("http://").unwrap().to_owned();
    let bench = EtcdBench::new(vec![lossy_proxy(to, swallow.clone()).await]);
    let store = bench.etcd();
    let mut revision = store.commit(vec![], put("n", "0")).await.unwrap();
    let mut lost = 0;
    for n in 1..=10 {
        let guards = vec![Guard { key: "n".to_owned(), revision }];
        // Guarded and unguarded commits alike.
        let guards = if n % 2 == 0 { guards } else { vec![] };
        swallow.store(true, Ordering::SeqCst);
        let made = store.commit(guards, put("n", &n.to_string())).await.unwrap();
        lost += usize::from(!swallow.load(Ordering::SeqCst));
        let entry = store.get("n").await.unwrap().unwrap();
        assert_eq!((entry.revision, &entry.value[..]), (made, n.to_string().as_bytes()));
        let mut changes = store.watch("n", revision).await.unwrap();
        assert_eq!(changes.next().await.unwrap().unwrap().revision, made, "applied once");
        revision = made;
    }
    assert_eq!(lost, 10);
}
