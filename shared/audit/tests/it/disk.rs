//! The pipeline on a disk that is full, or that loses what was not synced.

use std::time::Duration;

use weir_audit::file::{FileSettings, FileSink};
use weir_audit::{Builder, Origin, Pipeline, read};
use weir_model::audit::{Facts, Outcome};
use weir_model::reason::Reason;
use weir_model::resource::AuditClass;
use weir_runtime::metrics::Metrics;
use weir_runtime::testing::eventually;

const BOUND: Duration = Duration::from_secs(20);

fn start(dir: &std::path::Path, metrics: &Metrics) -> Pipeline {
    let sink = FileSink::open(FileSettings::new(dir)).unwrap();
    let origin = Origin { node: "node-1".into(), region: "eu".into() };
    Builder::new(origin, Box::new(sink), metrics.clone()).start()
}

async fn finish(pipeline: &Pipeline, class: AuditClass) -> Result<(), Reason> {
    let facts = Facts { class, outcome: Outcome::Success, ..Facts::default() };
    pipeline.reserve(class)?.finish(facts).await
}

#[tokio::test]
async fn a_full_disk_refuses_and_counts_by_class_and_is_survived() {
    let (dir, metrics) = (tempfile::tempdir().unwrap(), Metrics::new());
    let segment = dir.path().join("audit-000000000001.jsonl");
    std::os::unix::fs::symlink("/dev/full", &segment).unwrap();
    let pipeline = start(dir.path(), &metrics);
    assert_eq!(finish(&pipeline, AuditClass::Durable).await, Err(Reason::AuditFull));
    assert_eq!(finish(&pipeline, AuditClass::Strict).await, Err(Reason::AuditFull));
    finish(&pipeline, AuditClass::Counted).await.unwrap();
    let text = metrics.render();
    assert!(text.contains("weir_audit_queued_records{sink=\"file\"} 2\n"), "{text}");
    assert!(!text.contains("weir_audit_failed_writes_total{sink=\"file\"} 0\n"), "{text}");
    assert!(!text.contains("weir_audit_oldest_seconds{sink=\"file\"} 0.0\n"), "{text}");

    std::fs::remove_file(&segment).unwrap();
    assert!(eventually(BOUND, async || !pipeline.is_failing()).await);
    finish(&pipeline, AuditClass::Strict).await.unwrap();
    assert_eq!(pipeline.close(BOUND).await, []);
    let seen: Vec<String> = read::entries(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().uid().unwrap().rsplit('/').next().unwrap().to_owned())
        .collect();
    // The first was promised and not kept, so its caller was refused; it is not lost all the same.
    assert_eq!(seen, ["1", "2", "3"]);
    assert!(metrics.render().contains("weir_audit_lost_records_total 0\n"));
}

#[tokio::test]
async fn what_was_promised_is_in_the_file_when_the_promise_is_kept() {
    let (dir, metrics) = (tempfile::tempdir().unwrap(), Metrics::new());
    let pipeline = start(dir.path(), &metrics);
    for n in 1..=20 {
        let class = if n % 2 == 0 { AuditClass::Strict } else { AuditClass::Durable };
        finish(&pipeline, class).await.unwrap();
        assert_eq!(read::entries(dir.path()).unwrap().count(), n);
    }
    // Not closed, as after a kill: a new run repairs, goes on and has an epoch of its own.
    let first = pipeline.epoch();
    drop(pipeline);
    let reopened =
        eventually(BOUND, async || FileSink::open(FileSettings::new(dir.path())).is_ok());
    assert!(reopened.await, "the folder is let go with its pipeline");
    let pipeline = start(dir.path(), &Metrics::new());
    assert!(pipeline.epoch() > first);
    finish(&pipeline, AuditClass::Strict).await.unwrap();
    assert_eq!(read::tail(dir.path(), 99).unwrap().len(), 21);
}
