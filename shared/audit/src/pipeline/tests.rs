mod in_place;

use std::collections::BTreeSet;

use weir_model::audit::Outcome;
use weir_runtime::testing::eventually;

use super::*;
use crate::memory::{Faults, MemoryLog};
use crate::record::Record;

const BOUND: Duration = Duration::from_secs(10);

struct World {
    pipeline: Pipeline,
    primary: MemoryLog,
    metrics: Metrics,
}

fn world(room: usize) -> World {
    let (primary, metrics) = (MemoryLog::default(), Metrics::new());
    let origin = Origin { node: "node-1".into(), region: "eu".into() };
    let pipeline =
        Builder::new(origin, Box::new(primary.sink()), metrics.clone()).room(room).start();
    World { pipeline, primary, metrics }
}

fn facts(class: AuditClass) -> Facts {
    Facts { class, time_ms: 1, outcome: Outcome::Success, ..Facts::default() }
}

fn numbers(log: &MemoryLog) -> Vec<u64> {
    log.records().iter().map(Record::sequence).collect()
}

async fn has(log: &MemoryLog, records: usize) -> bool {
    eventually(BOUND, async || log.records().len() >= records).await
}

impl World {
    async fn finish(&self, class: AuditClass) -> Result<(), Reason> {
        let slot = self.pipeline.reserve(class)?;
        tokio::time::timeout(BOUND, slot.finish(facts(class))).await.expect("finish is bounded")
    }
    fn value(&self, line: &str) -> String {
        let text = self.metrics.render();
        let found = text.lines().find(|l| l.starts_with(line)).map(|l| l[line.len()..].trim());
        found.unwrap_or_else(|| panic!("{line} in {text}")).to_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_have_no_gaps_and_the_sink_sees_them_in_order() {
    let world = Arc::new(world(1_000));
    let mut tasks = Vec::new();
    for task in 0..8 {
        let world = Arc::clone(&world);
        tasks.push(tokio::spawn(async move {
            for n in 0..50 {
                let class = [AuditClass::Strict, AuditClass::Durable, AuditClass::Counted];
                world.finish(class[(task + n) % 3]).await.unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(world.pipeline.close(BOUND).await, []);
    let expect: Vec<u64> = (1..=400).collect();
    assert_eq!(numbers(&world.primary), expect);
    assert_eq!(world.primary.synced(), 400);
    assert_eq!(world.value("weir_audit_records_total"), "400");
    assert_eq!(world.value("weir_audit_queued_records{sink=\"memory\"}"), "0");
}

#[tokio::test]
async fn strict_waits_for_the_sync_and_durable_for_the_write() {
    let world = world(100);
    world.primary.set(Faults { hold_flush: true, ..Faults::default() });
    world.finish(AuditClass::Durable).await.unwrap();
    assert_eq!(numbers(&world.primary), [1]);
    let strict = world.pipeline.reserve(AuditClass::Strict).unwrap();
    let strict = tokio::spawn(strict.finish(facts(AuditClass::Strict)));
    assert!(has(&world.primary, 2).await);
    world.finish(AuditClass::Durable).await.unwrap();
    assert!(!strict.is_finished() && world.primary.synced() == 0);
    world.primary.set(Faults::default());
    tokio::time::timeout(BOUND, strict).await.unwrap().unwrap().unwrap();
    assert!(world.primary.synced() >= 2);
}

#[tokio::test]
async fn without_room_promises_are_refused_and_counted_records_are_counted() {
    let world = world(4);
    // Records keep their room until they are synced.
    world.primary.set(Faults { hold_flush: true, ..Faults::default() });
    for _ in 0..4 {
        world.finish(AuditClass::Durable).await.unwrap();
    }
    assert_eq!(world.finish(AuditClass::Durable).await, Err(Reason::AuditFull));
    assert_eq!(world.finish(AuditClass::Strict).await, Err(Reason::AuditFull));
    for _ in 0..3 {
        world.finish(AuditClass::Counted).await.unwrap();
    }
    assert_eq!((world.pipeline.lost(), world.pipeline.sequence()), (3, 4));
    assert_eq!(world.value("weir_audit_lost_records_total"), "3");
    assert_eq!(world.value("weir_audit_refused_total"), "2");
    world.primary.set(Faults::default());
    let room = async || world.pipeline.reserve(AuditClass::Durable).is_ok();
    assert!(eventually(BOUND, room).await);
    world.finish(AuditClass::Strict).await.unwrap();
    world.pipeline.close(BOUND).await;
    // The reservations that were dropped above are records too; numbers have no gap.
    let seen = numbers(&world.primary);
    assert_eq!(seen, (1..=world.pipeline.sequence()).collect::<Vec<_>>());
    let last: serde_json::Value =
        serde_json::from_slice(world.primary.records().last().unwrap().bytes()).unwrap();
    assert_eq!(last["unmapped"]["lost"], 3);
}

#[tokio::test]
async fn a_flood_of_counted_records_leaves_room_for_promised_ones() {
    let world = world(8);
    world.primary.set(Faults { hold_flush: true, ..Faults::default() });
    for _ in 0..10 {
        world.finish(AuditClass::Counted).await.unwrap();
    }
    assert_eq!((world.pipeline.sequence(), world.pipeline.lost()), (6, 4));
    world.finish(AuditClass::Durable).await.unwrap();
    world.finish(AuditClass::Durable).await.unwrap();
    assert_eq!(world.finish(AuditClass::Durable).await, Err(Reason::AuditFull));
}

#[tokio::test]
async fn a_dead_sink_refuses_before_the_work_and_loses_nothing() {
    let world = world(100);
    world.finish(AuditClass::Durable).await.unwrap();
    let before = world.pipeline.reserve(AuditClass::Strict).unwrap();
    world.primary.set(Faults { write: true, ..Faults::default() });
    assert_eq!(world.finish(AuditClass::Durable).await, Err(Reason::AuditFull));
    assert!(world.pipeline.is_failing());
    assert_eq!(world.pipeline.reserve(AuditClass::Strict).unwrap_err(), Reason::AuditFull);
    assert_eq!(before.finish(facts(AuditClass::Strict)).await, Err(Reason::AuditFull));
    world.finish(AuditClass::Counted).await.unwrap();
    assert_eq!(world.pipeline.lost(), 0);
    world.primary.set(Faults::default());
    assert!(has(&world.primary, 4).await);
    assert!(eventually(BOUND, async || !world.pipeline.is_failing()).await);
    world.finish(AuditClass::Strict).await.unwrap();
    assert_eq!(numbers(&world.primary), [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn a_failed_sync_breaks_the_promise_and_writes_again() {
    let world = world(100);
    world.primary.set(Faults { flush: true, ..Faults::default() });
    assert_eq!(world.finish(AuditClass::Strict).await, Err(Reason::AuditFull));
    assert!(world.pipeline.is_failing());
    world.primary.set(Faults::default());
    assert!(eventually(BOUND, async || !world.pipeline.is_failing()).await);
    world.finish(AuditClass::Strict).await.unwrap();
    let seen = numbers(&world.primary);
    assert!(seen.len() > 2, "record 1 was written again: {seen:?}");
    assert_eq!(seen.iter().copied().collect::<BTreeSet<_>>(), BTreeSet::from([1, 2]));
}

#[tokio::test]
async fn a_dropped_slot_writes_what_was_noted() {
    let world = world(100);
    drop(world.pipeline.reserve(AuditClass::Durable).unwrap());
    let mut slot = world.pipeline.reserve(AuditClass::Durable).unwrap();
    slot.note(&Facts { request_id: "early".into(), ..Facts::default() });
    slot.note(&Facts { request_id: "r2".into(), outcome: Outcome::Aborted, ..Facts::default() });
    drop(slot);
    assert_eq!(world.pipeline.close(BOUND).await, []);
    let records = world.primary.records();
    let json = |n: usize| serde_json::from_slice::<serde_json::Value>(records[n].bytes()).unwrap();
    assert_eq!(json(0)["unmapped"]["outcome"], "unknown");
    assert_eq!(json(1)["unmapped"]["outcome"], "aborted");
    assert_eq!(json(1)["api"]["request"]["uid"], "r2");
}

#[tokio::test]
async fn closing_tells_what_is_left_and_takes_no_more() {
    let world = world(100);
    let late = world.pipeline.reserve(AuditClass::Durable).unwrap();
    world.finish(AuditClass::Durable).await.unwrap();
    assert!(eventually(BOUND, async || world.primary.synced() == 1).await);
    world.primary.set(Faults { write: true, ..Faults::default() });
    assert_eq!(world.finish(AuditClass::Durable).await, Err(Reason::AuditFull));
    let left = world.pipeline.close(Duration::from_millis(200)).await;
    assert_eq!(left, [Left { sink: "memory", records: 1 }]);
    assert_eq!(world.primary.synced(), 1);
    assert_eq!(late.finish(facts(AuditClass::Durable)).await, Err(Reason::AuditFull));
    drop(world.pipeline.reserve(AuditClass::Counted));
    assert_eq!(world.pipeline.lost(), 1);
}

#[tokio::test]
async fn an_epoch_is_never_used_twice() {
    #[derive(Debug)]
    struct Old(crate::memory::MemorySink);
    #[async_trait::async_trait]
    impl Sink for Old {
        fn name(&self) -> &'static str {
            "old"
        }
        fn newest_epoch(&self) -> Option<u64> {
            Some(5_000)
        }
        async fn write(&mut self, batch: &[Record]) -> Result<(), crate::SinkError> {
            self.0.write(batch).await
        }
        fn flush(
            &mut self,
        ) -> futures_util::future::BoxFuture<'static, Result<(), crate::SinkError>> {
            self.0.flush()
        }
    }
    let epoch = |now_ms| {
        let origin = Origin { node: "n".into(), region: String::new() };
        let clock = weir_runtime::clock::ManualClock::at_ms(now_ms);
        let sink = Old(MemoryLog::default().sink());
        Builder::new(origin, Box::new(sink), Metrics::new()).clock(Arc::new(clock)).start().epoch()
    };
    assert_eq!(epoch(4_000), 5_001);
    assert_eq!(epoch(6_000), 6_000);
}
