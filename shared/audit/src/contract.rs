//! What every sink must do, as one suite: the memory, the file and the real stream run it alike.
//!
//! Order per node and group, no loss, duplicates only by id, retry after failure, and everything
//! delivered by a drain. A bench says how to open a sink, read back what a consumer sees, break it
//! and mend it.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use weir_model::audit::{Facts, Outcome};
use weir_model::resource::AuditClass;
use weir_runtime::metrics::Metrics;
use weir_runtime::testing::eventually;

use crate::pipeline::{Builder, Origin, Pipeline, Slot};
use crate::sink::Sink;

/// How long the slowest step of a sink may take.
const BOUND: Duration = Duration::from_secs(60);
/// Groups that the suite writes for; `None` for requests to nowhere.
const GROUPS: [Option<&str>; 4] = [Some("dev"), Some("prod"), Some("payments"), None];

/// One destination of records. Each check gets a new one.
#[async_trait]
pub trait Bench: Send + Sync {
    /// Opens a sink on it; called again after the one before was closed.
    async fn open(&self) -> Box<dyn Sink>;
    /// Everything in it, in the order in which a consumer of each group sees it.
    async fn seen(&self) -> Vec<Vec<u8>>;
    /// From now on it takes nothing.
    async fn break_down(&self);
    /// It is well again.
    async fn mend(&self);
}

/// Everything in order, whoever writes and in whatever class.
pub async fn delivers_in_order(bench: &dyn Bench) {
    let pipeline = start(bench).await;
    write(&pipeline, 0, 300).await;
    close(&pipeline).await;
    check(bench, &[(pipeline.epoch(), 300)], Duplicates::None).await;
}

/// What a failing sink did not take comes when it is well, in order, and nothing is lost.
pub async fn retries_after_failure(bench: &dyn Bench) {
    let pipeline = start(bench).await;
    write(&pipeline, 0, 20).await;
    bench.break_down().await;
    // Requests that were let in before the failure was noticed.
    let reserve = |n| (n, pipeline.reserve(AuditClass::Durable).expect("the sink seems well"));
    let reserved: Vec<_> = (20..40).map(reserve).collect();
    let finish = |(n, slot): (u64, Slot)| tokio::spawn(slot.finish(facts(n, AuditClass::Durable)));
    let slots: Vec<_> = reserved.into_iter().map(finish).collect();
    for slot in slots {
        let refused = tokio::time::timeout(BOUND, slot).await.expect("a promise is bounded");
        assert!(refused.expect("finish does not panic").is_err(), "a broken sink kept a promise");
    }
    let failing = eventually(BOUND, async || pipeline.is_failing()).await;
    assert!(failing, "the failure shows");
    assert!(pipeline.reserve(AuditClass::Strict).is_err(), "refused before the work");
    write_class(&pipeline, 40, 60, AuditClass::Counted).await;
    bench.mend().await;
    let well = eventually(BOUND, async || !pipeline.is_failing()).await;
    assert!(well, "the sink is used again once it is well");
    write(&pipeline, 60, 80).await;
    close(&pipeline).await;
    check(bench, &[(pipeline.epoch(), 80)], Duplicates::ById).await;
}

/// A drain brings everything out, and a second run goes on behind the first.
pub async fn drains_and_reopens(bench: &dyn Bench) {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for _ in 0..2 {
        let pipeline = start(bench).await;
        write_class(&pipeline, 0, 100, AuditClass::Counted).await;
        close(&pipeline).await;
        let newer = runs.last().is_none_or(|(epoch, _)| *epoch < pipeline.epoch());
        assert!(newer, "each run has an epoch of its own");
        runs.push((pipeline.epoch(), 100));
    }
    check(bench, &runs, Duplicates::None).await;
}

#[derive(PartialEq)]
enum Duplicates {
    None,
    ById,
}

async fn start(bench: &dyn Bench) -> Pipeline {
    let origin = Origin { node: "node-1".to_owned(), region: "eu".to_owned() };
    Builder::new(origin, bench.open().await, Metrics::new()).start()
}

async fn close(pipeline: &Pipeline) {
    let left = pipeline.close(BOUND).await;
    assert!(left.is_empty(), "a drain leaves nothing: {left:?}");
    assert_eq!(pipeline.lost(), 0);
}

fn facts(n: u64, class: AuditClass) -> Facts {
    let group = GROUPS[usize::try_from(n).unwrap_or(0) % GROUPS.len()];
    Facts {
        request_id: format!("r{n}"),
        time_ms: 1_800_000_000_000 + n,
        group: group.map(|group| group.parse().expect("a name")),
        class,
        outcome: Outcome::Success,
        ..Facts::default()
    }
}

/// Records `from..to` by turns in all classes, several at a time.
async fn write(pipeline: &Pipeline, from: u64, to: u64) {
    let mut tasks = Vec::new();
    for n in from..to {
        let class = [AuditClass::Durable, AuditClass::Strict, AuditClass::Counted][n as usize % 3];
        let slot = pipeline.reserve(class).expect("there is room");
        tasks.push(tokio::spawn(slot.finish(facts(n, class))));
    }
    for task in tasks {
        let kept = tokio::time::timeout(BOUND, task).await.expect("a promise is bounded");
        kept.expect("finish does not panic").expect("the promise is kept");
    }
}

async fn write_class(pipeline: &Pipeline, from: u64, to: u64, class: AuditClass) {
    for n in from..to {
        let slot = pipeline.reserve(class).expect("there is room");
        slot.finish(facts(n, class)).await.expect("nothing is promised");
    }
}

/// Each run's numbers are all there, first seen in order per group; repeats are identical.
async fn check(bench: &dyn Bench, runs: &[(u64, u64)], duplicates: Duplicates) {
    let mut records: BTreeMap<(u64, u64), Vec<u8>> = BTreeMap::new();
    let mut newest: BTreeMap<Option<String>, (u64, u64)> = BTreeMap::new();
    for bytes in bench.seen().await {
        let json: serde_json::Value = serde_json::from_slice(&bytes).expect("a record is JSON");
        let uid = json["metadata"]["uid"].as_str().expect("a record has an id").to_owned();
        let parts: Vec<&str> = uid.split('/').collect();
        assert_eq!((parts.len(), parts[0]), (3, "node-1"), "{uid}");
        let number = |text: &str| text.parse::<u64>().expect("numbers in an id");
        let id = (number(parts[1]), number(parts[2]));
        if let Some(before) = records.get(&id) {
            assert!(duplicates == Duplicates::ById, "{uid} came twice without a failure");
            assert_eq!(*before, bytes, "{uid} came twice and differs");
            continue;
        }
        let group = json["metadata"]["tenant_uid"].as_str().map(str::to_owned);
        if let Some(last) = newest.insert(group.clone(), id) {
            assert!(last < id, "{group:?}: {id:?} came after {last:?}");
        }
        records.insert(id, bytes);
    }
    let expect: Vec<(u64, u64)> =
        runs.iter().flat_map(|(epoch, count)| (1..=*count).map(|n| (*epoch, n))).collect();
    let seen: Vec<(u64, u64)> = records.into_keys().collect();
    assert_eq!(seen, expect, "every number once, none missing");
}
