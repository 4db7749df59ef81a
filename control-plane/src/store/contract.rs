//! What every store must do: one suite, run against each implementation.
//!
//! A check that fails panics, as in any test.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::timeout;
use weir_model::bounds;
use weir_model::id::Revision;

use super::{Change, Changes, Guard, Op, Store, StoreError};

/// Something to run the suite against.
#[async_trait]
pub trait Bench: Send + Sync {
    /// A handle on the one state behind this bench; each has connections of its own, where the
    /// store has connections.
    async fn open(&self) -> Arc<dyn Store>;
    /// Forgets the history up to and including a revision.
    async fn compact(&self, upto: Revision);
}

/// Runs all checks, each under a prefix of its own.
pub async fn run(bench: &dyn Bench) {
    reads_what_was_written(bench).await;
    guards_hold_or_nothing_changes(bench).await;
    prefixes_are_apart(bench).await;
    deletes_leave_nothing(bench).await;
    past_states_can_be_had_back(bench).await;
    watches_tell_whole_transactions_in_order(bench).await;
    watches_start_from_old_revisions(bench).await;
    handles_see_each_other(bench).await;
    concurrent_writers_lose_nothing(bench).await;
    malformed_and_large_is_refused(bench).await;
    long_listings_are_whole(bench).await;
    compacted_history_is_said_to_be_gone(bench).await;
}

fn put(key: &str, value: &str) -> Op {
    Op::Put(key.to_owned(), Bytes::copy_from_slice(value.as_bytes()))
}
fn delete(key: &str) -> Op {
    Op::Delete(key.to_owned())
}
fn guard(key: &str, revision: Revision) -> Guard {
    Guard { key: key.to_owned(), revision }
}
async fn write(store: &dyn Store, key: &str, value: &str) -> Revision {
    store.commit(vec![], vec![put(key, value)]).await.unwrap()
}
async fn read(store: &dyn Store, key: &str) -> Option<(String, Revision)> {
    let entry = store.get(key).await.unwrap()?;
    assert_eq!(entry.key, key);
    Some((String::from_utf8(entry.value.to_vec()).unwrap(), entry.revision))
}
async fn keys(store: &dyn Store, prefix: &str) -> Vec<String> {
    store.list(prefix).await.unwrap().entries.into_iter().map(|e| e.key).collect()
}
async fn next(changes: &mut Changes) -> Change {
    let next = timeout(Duration::from_secs(10), changes.next()).await;
    next.expect("a change in time").expect("the watch goes on").unwrap()
}

async fn reads_what_was_written(bench: &dyn Bench) {
    let store = bench.open().await;
    assert_eq!(read(&*store, "r/a").await, None);
    let empty = store.list("r/").await.unwrap();
    assert!(empty.entries.is_empty() && empty.revision > Revision(0));
    let first = write(&*store, "r/a", "1").await;
    assert!(first > empty.revision);
    let second = write(&*store, "r/a", "2").await;
    assert!(second > first);
    assert_eq!(read(&*store, "r/a").await, Some(("2".to_owned(), second)));
    write(&*store, "r/b", "").await;
    let listing = store.list("r/").await.unwrap();
    assert!(listing.revision > second);
    let got: Vec<_> = listing.entries.iter().map(|e| (e.key.as_str(), &e.value[..])).collect();
    assert_eq!(got, [("r/a", &b"2"[..]), ("r/b", b"")]);
    assert_eq!(listing.entries[0].revision, second);
    let same = write(&*store, "r/a", "2").await;
    assert_eq!(read(&*store, "r/a").await.unwrap().1, same, "an equal value is a change too");
}

async fn guards_hold_or_nothing_changes(bench: &dyn Bench) {
    let store = bench.open().await;
    let conflict = async |guards: Vec<Guard>| {
        let ops = vec![put("g/a", "no"), put("g/b", "no"), delete("g/c")];
        let refused = store.commit(guards, ops).await;
        assert!(matches!(refused, Err(StoreError::Conflict)), "{refused:?}");
    };
    let absent = Revision(0);
    let c = write(&*store, "g/c", "stays").await;
    conflict(vec![guard("g/c", absent)]).await;
    conflict(vec![guard("g/a", c)]).await;
    let ops = vec![put("g/a", "1"), put("g/b", "1")];
    let made = store.commit(vec![guard("g/a", absent), guard("g/c", c)], ops).await.unwrap();
    for key in ["g/a", "g/b"] {
        assert_eq!(read(&*store, key).await, Some(("1".to_owned(), made)), "one revision for all");
    }
    conflict(vec![guard("g/a", absent)]).await;
    conflict(vec![guard("g/a", made), guard("g/c", made)]).await;
    assert_eq!(read(&*store, "g/a").await, Some(("1".to_owned(), made)));
    assert_eq!(read(&*store, "g/c").await, Some(("stays".to_owned(), c)));
    let other = write(&*store, "g/b", "2").await;
    conflict(vec![guard("g/b", made)]).await;
    let guards = vec![guard("g/a", made), guard("g/b", other)];
    store.commit(guards, vec![put("g/a", "3")]).await.unwrap();
}

async fn past_states_can_be_had_back(bench: &dyn Bench) {
    let store = bench.open().await;
    let mut past = vec![(store.list("h/").await.unwrap().revision, Vec::new())];
    for ops in [
        vec![put("h/a", "1"), put("h/b", "1")],
        vec![put("h/a", "2"), put("elsewhere", "x")],
        vec![delete("h/a"), put("h/c", "1")],
        vec![put("h/a", "3"), delete("h/b")],
    ] {
        let revision = store.commit(vec![], ops).await.unwrap();
        past.push((revision, store.list("h/").await.unwrap().entries));
    }
    for (revision, entries) in &past {
        let listing = store.list_at("h/", *revision).await.unwrap();
        assert_eq!((&listing.entries, listing.revision), (entries, *revision));
    }
    bench.compact(past[2].0).await;
    for (at, (revision, entries)) in past.iter().enumerate() {
        let listing = store.list_at("h/", *revision).await;
        match at {
            0 | 1 => assert!(matches!(listing, Err(StoreError::Compacted(_))), "{listing:?}"),
            // A store may keep the state at the last forgotten revision, and has all after it.
            2 => {}
            _ => assert_eq!(listing.unwrap().entries, *entries),
        }
    }
    let tomorrow = Revision(past[4].0.0 + 1_000_000);
    assert!(store.list_at("h/", tomorrow).await.is_err());
}

async fn prefixes_are_apart(bench: &dyn Bench) {
    let store = bench.open().await;
    let start = store.list("p").await.unwrap().revision;
    for key in ["p/a", "p/a/b", "p/ab", "p-a", "p/aé", "p0", "p/b"] {
        write(&*store, key, key).await;
    }
    assert_eq!(keys(&*store, "p/a").await, ["p/a", "p/a/b", "p/ab", "p/aé"]);
    assert_eq!(keys(&*store, "p/a/").await, ["p/a/b"]);
    assert_eq!(keys(&*store, "p").await, ["p-a", "p/a", "p/a/b", "p/ab", "p/aé", "p/b", "p0"]);
    assert!(keys(&*store, "p/c").await.is_empty());
    let mut changes = store.watch("p/a/", start).await.unwrap();
    assert_eq!(next(&mut changes).await.ops, [put("p/a/b", "p/a/b")]);
    store.commit(vec![], vec![put("p/x", "1"), put("p/a/c", "1")]).await.unwrap();
    assert_eq!(next(&mut changes).await.ops, [put("p/a/c", "1")], "only what is under the prefix");
}

async fn deletes_leave_nothing(bench: &dyn Bench) {
    let store = bench.open().await;
    let made = write(&*store, "d/a", "1").await;
    store.commit(vec![], vec![delete("d/never")]).await.unwrap();
    let gone = store.commit(vec![guard("d/a", made)], vec![delete("d/a")]).await.unwrap();
    assert!(gone > made);
    assert_eq!(read(&*store, "d/a").await, None);
    let mut changes = store.watch("d/", made).await.unwrap();
    let change = Change { revision: gone, ops: vec![delete("d/a")] };
    assert_eq!(next(&mut changes).await, change, "what was not there is not told");
    let again = store.commit(vec![guard("d/a", Revision(0))], vec![put("d/a", "2")]).await;
    assert_eq!(read(&*store, "d/a").await, Some(("2".to_owned(), again.unwrap())));
}

async fn watches_tell_whole_transactions_in_order(bench: &dyn Bench) {
    let store = bench.open().await;
    let start = store.list("w/").await.unwrap().revision;
    let mut changes = store.watch("w/", start).await.unwrap();
    let mut late = store.watch("w/", start).await.unwrap();
    let mut expect = Vec::new();
    for n in 0..20 {
        let ops = vec![put(&format!("w/{n}"), "x"), put("w/last", &n.to_string())];
        let revision = store.commit(vec![], ops.clone()).await.unwrap();
        expect.push(Change { revision, ops });
    }
    for expected in &expect {
        let mut got = next(&mut changes).await;
        // Stores may order the changes of one transaction by key.
        got.ops.sort_by_key(|op| matches!(op, Op::Put(key, _) if key == "w/last"));
        assert_eq!(&got, expected);
    }
    drop(changes);
    for expected in &expect {
        assert_eq!(next(&mut late).await.revision, expected.revision, "watchers do not share");
    }
    let quiet = timeout(Duration::from_millis(200), late.next()).await;
    assert!(quiet.is_err(), "nothing happened since");
}

async fn watches_start_from_old_revisions(bench: &dyn Bench) {
    let store = bench.open().await;
    let one = write(&*store, "o/a", "1").await;
    let two = write(&*store, "o/a", "2").await;
    write(&*store, "elsewhere", "1").await;
    let three = store.commit(vec![], vec![delete("o/a")]).await.unwrap();
    let mut changes = store.watch("o/", one).await.unwrap();
    assert_eq!(next(&mut changes).await, Change { revision: two, ops: vec![put("o/a", "2")] });
    assert_eq!(next(&mut changes).await, Change { revision: three, ops: vec![delete("o/a")] });
    let mut changes = store.watch("o/", three).await.unwrap();
    let four = write(&*store, "o/a", "4").await;
    assert_eq!(next(&mut changes).await.revision, four);
}

async fn handles_see_each_other(bench: &dyn Bench) {
    let (here, there) = (bench.open().await, bench.open().await);
    let start = there.list("h/").await.unwrap().revision;
    let mut changes = there.watch("h/", start).await.unwrap();
    let made = write(&*here, "h/a", "1").await;
    assert_eq!(read(&*there, "h/a").await, Some(("1".to_owned(), made)));
    assert_eq!(next(&mut changes).await.revision, made);
    let moved = write(&*there, "h/a", "2").await;
    let stale = here.commit(vec![guard("h/a", made)], vec![put("h/a", "3")]).await;
    assert!(matches!(stale, Err(StoreError::Conflict)), "{stale:?}");
    assert_eq!(read(&*here, "h/a").await, Some(("2".to_owned(), moved)));
}

async fn concurrent_writers_lose_nothing(bench: &dyn Bench) {
    const WRITERS: usize = 8;
    const EACH: usize = 10;
    let start = bench.open().await.list("c/").await.unwrap().revision;
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..WRITERS {
        let store = bench.open().await;
        writers.spawn(async move {
            let mut done = 0;
            while done < EACH {
                let now = read(&*store, "c/n").await;
                let (count, revision) =
                    now.map_or((0, Revision(0)), |(n, r)| (n.parse::<usize>().unwrap(), r));
                let ops = vec![put("c/n", &(count + 1).to_string())];
                match store.commit(vec![guard("c/n", revision)], ops).await {
                    Ok(_) => done += 1,
                    Err(StoreError::Conflict) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
    }
    writers.join_all().await;
    let store = bench.open().await;
    assert_eq!(read(&*store, "c/n").await.unwrap().0, (WRITERS * EACH).to_string());
    let mut changes = store.watch("c/", start).await.unwrap();
    let mut last = start;
    for n in 1..=WRITERS * EACH {
        let change = next(&mut changes).await;
        assert!(change.revision > last);
        last = change.revision;
        assert_eq!(change.ops, [put("c/n", &n.to_string())]);
    }
}

async fn malformed_and_large_is_refused(bench: &dyn Bench) {
    let store = bench.open().await;
    let twice = store.commit(vec![], vec![put("m/a", "1"), delete("m/a")]).await;
    assert!(matches!(twice, Err(StoreError::Malformed(_))), "{twice:?}");
    let empty = store.commit(vec![], vec![put("", "1")]).await;
    assert!(matches!(empty, Err(StoreError::Malformed(_))), "{empty:?}");
    let many = (0..=bounds::COMMIT_OPS_MAX).map(|n| put(&format!("m/{n}"), "1")).collect();
    let many = store.commit(vec![], many).await;
    assert!(matches!(many, Err(StoreError::TooLarge(_))), "{many:?}");
    let large = "x".repeat(bounds::COMMIT_BYTES_MAX);
    let large = store.commit(vec![], vec![put("m/a", &large)]).await;
    assert!(matches!(large, Err(StoreError::TooLarge(_))), "{large:?}");
    assert!(keys(&*store, "m/").await.is_empty());

    let fits = "x".repeat(bounds::COMMIT_BYTES_MAX - 16 * bounds::COMMIT_OPS_MAX);
    let mut ops: Vec<_> = (1..bounds::COMMIT_OPS_MAX).map(|n| put(&format!("m/{n}"), "")).collect();
    ops.push(put("m/large", &fits));
    store.commit(vec![], ops).await.expect("the largest transaction");
    assert_eq!(read(&*store, "m/large").await.unwrap().0.len(), fits.len());
}

async fn long_listings_are_whole(bench: &dyn Bench) {
    let store = bench.open().await;
    // More bytes and more entries than one message of etcd holds.
    let value = Bytes::from(vec![b'x'; 400_000]);
    for n in 0..15 {
        let ops = (0..3).map(|m| Op::Put(format!("l/large/{n:02}-{m}"), value.clone())).collect();
        store.commit(vec![], ops).await.unwrap();
    }
    for n in 0..11 {
        let ops = (0..100).map(|m| put(&format!("l/small/{n:02}-{m:02}"), "x")).collect();
        store.commit(vec![], ops).await.unwrap();
    }
    let listing = store.list("l/").await.unwrap();
    assert_eq!(listing.entries.len(), 45 + 1_100);
    assert!(listing.entries.is_sorted_by(|a, b| a.key < b.key));
    for prefix in ["l/large/", "l/small/"] {
        let gone: Vec<_> = keys(&*store, prefix).await.into_iter().map(Op::Delete).collect();
        for some in gone.chunks(100) {
            store.commit(vec![], some.to_vec()).await.unwrap();
        }
    }
}

async fn compacted_history_is_said_to_be_gone(bench: &dyn Bench) {
    let store = bench.open().await;
    let one = write(&*store, "k/a", "1").await;
    let two = write(&*store, "k/a", "2").await;
    let three = write(&*store, "k/a", "3").await;
    bench.compact(two).await;
    let gone = match store.watch("k/", one).await {
        Err(error) => error,
        Ok(mut changes) => {
            let first = timeout(Duration::from_secs(10), changes.next()).await;
            first.expect("an answer").expect("an item").expect_err("the history is gone")
        }
    };
    assert!(matches!(gone, StoreError::Compacted(at) if at == one), "{gone:?}");
    let mut changes = store.watch("k/", two).await.unwrap();
    assert_eq!(next(&mut changes).await.revision, three, "what is left is told");
    let entry = read(&*store, "k/a").await;
    assert_eq!(entry, Some(("3".to_owned(), three)), "entries stay");
}
