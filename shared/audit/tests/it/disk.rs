//! The pipeline on a spool: promises, torn ends, full disks, epochs that follow each other.

use std::path::{Path, PathBuf};
use std::time::Duration;

use weir_audit::line::{self, Line, Sealed, SegmentHead};
use weir_audit::memory::{Faults, MemoryLog};
use weir_audit::merkle::{Tree, leaf};
use weir_audit::spool::{Spool, SpoolError, SpoolSettings};
use weir_audit::{Builder, Origin, Pipeline, read};
use weir_model::audit::{Facts, Outcome};
use weir_model::reason::Reason;
use weir_model::resource::AuditClass;
use weir_runtime::clock::SystemClock;
use weir_runtime::metrics::Metrics;
use weir_runtime::testing::eventually;

pub(crate) const BOUND: Duration = Duration::from_secs(20);

/// Segments so small that there are several.
pub(crate) fn settings(dir: &Path) -> SpoolSettings {
    SpoolSettings { segment_bytes: 6_000, ..SpoolSettings::new(dir.join("audit")) }
}

fn origin() -> Origin {
    Origin { node: "node-1".into(), region: "eu".into() }
}

pub(crate) async fn start(settings: SpoolSettings) -> Pipeline {
    // The pipeline before lets go of its folder when its thread has ended.
    let free = eventually(BOUND, async || {
        !matches!(Spool::open(settings.clone()), Err(SpoolError::InUse(_)))
    });
    assert!(free.await, "the folder is let go with its pipeline");
    let spool = Spool::open(settings).unwrap();
    Builder::spooled(origin(), spool, Metrics::new())
        .checkpoint_every(Duration::from_millis(20))
        .start()
}

pub(crate) async fn finish(pipeline: &Pipeline, class: AuditClass) -> Result<(), Reason> {
    let facts = Facts { class, outcome: Outcome::Success, ..Facts::default() };
    pipeline.reserve(class)?.finish(facts).await
}

pub(crate) async fn finish_many(pipeline: &Pipeline, count: usize) {
    for n in 0..count {
        let class = [AuditClass::Durable, AuditClass::Strict][n % 2];
        finish(pipeline, class).await.unwrap();
    }
}

pub(crate) async fn close(pipeline: &Pipeline) {
    assert_eq!(pipeline.close(BOUND).await, []);
}

pub(crate) fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir.join("audit"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "jsonl"))
        .collect();
    paths.sort();
    paths
}

/// Everything in a folder, by sort.
pub(crate) struct Content {
    pub(crate) heads: Vec<SegmentHead>,
    pub(crate) records: Vec<Vec<u8>>,
    pub(crate) sealed: Vec<Sealed>,
}

pub(crate) fn content(dir: &Path) -> Content {
    let mut content = Content { heads: Vec::new(), records: Vec::new(), sealed: Vec::new() };
    for path in segments(dir) {
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.ends_with('\n'));
        for line in text.lines() {
            match line::parse(line.as_bytes()).unwrap() {
                Line::Segment(head) => content.heads.push(head),
                Line::Record(_) => content.records.push(line.into()),
                Line::Checkpoint(sealed) => content.sealed.push(*sealed),
            }
        }
    }
    content
}

/// Every checkpoint is the root over the records of its epoch; each epoch ends and follows the
/// one before.
pub(crate) fn check(content: &Content) {
    let mut previous = None;
    let mut trees: Vec<(u64, Tree)> = Vec::new();
    let mut sealed = content.sealed.iter().peekable();
    let mut seen: Vec<(u64, u64, weir_audit::merkle::Hash)> = Vec::new();
    for record in &content.records {
        let Line::Record(head) = line::parse(record).unwrap() else { panic!("a record") };
        if trees.last().is_none_or(|(epoch, _)| *epoch != head.id.epoch) {
            trees.push((head.id.epoch, Tree::default()));
        }
        let (epoch, tree) = trees.last_mut().unwrap();
        tree.push(leaf(record));
        assert_eq!(head.id.sequence, tree.size(), "numbers have no gap");
        seen.push((*epoch, tree.size(), tree.root()));
    }
    for (epoch, tree) in &trees {
        let mut last = None;
        while let Some(seal) = sealed.next_if(|seal| seal.checkpoint.head.epoch == *epoch) {
            let head = seal.checkpoint.head;
            assert!(seen.contains(&(head.epoch, head.size, head.root)), "{head:?}");
            assert_eq!(seal.checkpoint.previous, previous, "epochs follow each other");
            let verifier = weir_audit::note::Verifier::new(
                &seal.checkpoint.origin(),
                weir_audit::note::Algorithm::Ed25519,
                seal.key,
            );
            verifier.unwrap().verify(&seal.note).unwrap();
            last = Some(seal);
        }
        let last = last.expect("an epoch has a checkpoint");
        assert_eq!((last.checkpoint.end, last.checkpoint.head.size), (true, tree.size()));
        previous = Some(last.checkpoint.head);
    }
    assert!(sealed.next().is_none());
}

#[tokio::test]
async fn epochs_are_logs_that_follow_each_other_over_segments() {
    let dir = tempfile::tempdir().unwrap();
    for run in 1..=3 {
        let pipeline = start(settings(dir.path())).await;
        finish_many(&pipeline, 20).await;
        close(&pipeline).await;
        let content = content(dir.path());
        assert_eq!(content.records.len(), 20 * run);
        assert!(content.heads.len() >= 3 * run, "several segments: {}", content.heads.len());
        check(&content);
    }
}

#[tokio::test]
async fn checkpoints_come_while_records_do() {
    let dir = tempfile::tempdir().unwrap();
    let pipeline = start(settings(dir.path())).await;
    let mut checkpoints = pipeline.spool().unwrap().checkpoints();
    for size in 1..=3 {
        finish(&pipeline, AuditClass::Strict).await.unwrap();
        let covers = |seal: &Option<std::sync::Arc<Sealed>>| {
            seal.as_ref().is_some_and(|seal| seal.checkpoint.head.size == size)
        };
        tokio::time::timeout(BOUND, checkpoints.wait_for(covers)).await.unwrap().unwrap();
    }
    pipeline.spool().unwrap().certify("word\n");
    close(&pipeline).await;
    let sealed = content(dir.path()).sealed;
    assert!(sealed.len() >= 4 && sealed.last().unwrap().checkpoint.end);
    assert_eq!(sealed.last().unwrap().certificate.as_deref(), Some("word\n"));
    check(&content(dir.path()));
}

#[tokio::test]
async fn what_was_promised_is_in_the_file_when_the_promise_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let pipeline = start(settings(dir.path())).await;
    for n in 1..=20 {
        let class = if n % 2 == 0 { AuditClass::Strict } else { AuditClass::Durable };
        finish(&pipeline, class).await.unwrap();
        assert_eq!(read::entries(&dir.path().join("audit")).unwrap().count(), n);
    }
}

/// The end of a log after a crash: what follows the records, and whether it is one more record.
#[tokio::test]
async fn a_torn_end_is_set_aside_and_the_crashed_epoch_is_ended() {
    for torn in [&b"{\"metadata\":{\"uid\":\"node-1/"[..], &[0; 70_000], b"\0\0\0\n{}\n", b"junk\n"]
    {
        let dir = tempfile::tempdir().unwrap();
        let pipeline = start(settings(dir.path())).await;
        finish_many(&pipeline, 5).await;
        close(&pipeline).await;
        // A crash: no end, and a torn line.
        let path = segments(dir.path()).pop().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let whole: String = text
            .lines()
            .filter(|line| !line.contains("weir.audit.checkpoint"))
            .map(|line| format!("{line}\n"))
            .collect();
        std::fs::write(&path, [whole.as_bytes(), torn].concat()).unwrap();
        let pipeline = start(settings(dir.path())).await;
        finish_many(&pipeline, 2).await;
        close(&pipeline).await;
        let content = content(dir.path());
        assert_eq!(content.records.len(), 7, "{torn:?}");
        check(&content);
        let kept = std::fs::read(path.with_extension("torn")).unwrap();
        assert_eq!(kept, torn);
    }
}

#[tokio::test]
async fn a_log_that_contradicts_its_checkpoint_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let pipeline = start(settings(dir.path())).await;
    finish_many(&pipeline, 3).await;
    close(&pipeline).await;
    let path = segments(dir.path()).pop().unwrap();
    let changed = std::fs::read_to_string(&path).unwrap().replacen("success", "SUCCESS", 1);
    std::fs::write(&path, &changed).unwrap();
    let signed = content(dir.path()).sealed.pop().unwrap().checkpoint.head;
    let pipeline = start(settings(dir.path())).await;
    finish_many(&pipeline, 1).await;
    close(&pipeline).await;
    assert_eq!(std::fs::read_to_string(&path).unwrap(), changed);
    let next = content(dir.path()).sealed.pop().unwrap().checkpoint;
    assert_eq!(next.previous, Some(signed), "what was signed is what is continued");
}

#[test]
fn a_folder_of_another_format_or_owner_is_not_opened() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let first = Spool::open(settings.clone()).unwrap();
    assert!(matches!(Spool::open(settings.clone()), Err(SpoolError::InUse(_))));
    drop(first);
    let path = settings.dir.join("audit-000000000001.jsonl");
    let newer = "{\"weir_audit_segment\":{\"format\":2,\"node\":\"n\",\"region\":\"\",\"epoch\":1,\
                 \"size\":0,\"peaks\":[],\"previous\":null}}\n";
    for (text, why) in [(newer, "format 2"), ("{\"a\":1}\n", "no `metadata`"), ("x\n", "expected")]
    {
        std::fs::write(&path, text).unwrap();
        let error = Spool::open(settings.clone()).unwrap_err().to_string();
        assert!(error.contains("000001.jsonl") && error.contains(why), "{error}");
    }
    // A crash between a segment's name and its head.
    for text in ["", "{\"weir_audit_seg"] {
        std::fs::write(&path, text).unwrap();
        drop(Spool::open(settings.clone()).unwrap());
        assert!(!path.exists());
    }
}

#[tokio::test]
async fn without_a_drain_the_oldest_segments_go() {
    let dir = tempfile::tempdir().unwrap();
    let pipeline = start(SpoolSettings { spool_bytes: 20_000, ..settings(dir.path()) }).await;
    finish_many(&pipeline, 60).await;
    close(&pipeline).await;
    let bytes: u64 = segments(dir.path()).iter().map(|p| p.metadata().unwrap().len()).sum();
    assert!(bytes < 27_000, "{bytes}");
    let content = content(dir.path());
    let first = &content.heads[0];
    assert!(first.tree.size() > 0 && content.records.len() < 60);
    // What is left is still provable: the head of the first segment stands for what is gone.
    let mut tree = first.tree.clone();
    content.records.iter().for_each(|record| tree.push(leaf(record)));
    assert_eq!(content.sealed.last().unwrap().checkpoint.head.root, tree.root());
}

struct Drained {
    dir: tempfile::TempDir,
    stream: MemoryLog,
    metrics: Metrics,
    spool_bytes: u64,
}

impl Drained {
    fn new(spool_bytes: u64) -> Self {
        let (dir, stream) = (tempfile::tempdir().unwrap(), MemoryLog::default());
        Self { dir, stream, metrics: Metrics::new(), spool_bytes }
    }
    fn start(&mut self) -> Pipeline {
        self.metrics = Metrics::new();
        let settings = SpoolSettings { spool_bytes: self.spool_bytes, ..settings(self.dir.path()) };
        let spool = Spool::open(settings).unwrap();
        let stream = Box::new(self.stream.sink());
        let drain = spool.handle().drain(stream, SystemClock::shared()).unwrap();
        Builder::spooled(origin(), spool, self.metrics.clone()).drain(drain).start()
    }
    fn value(&self, name: &str) -> u64 {
        let text = self.metrics.render();
        let line = text.lines().find(|line| line.split(' ').next() == Some(name));
        let value = line.unwrap_or_else(|| panic!("{name} in {text}")).rsplit(' ').next().unwrap();
        value.parse().unwrap()
    }
    /// What the stream has: names in order, and the bytes.
    fn streamed(&self) -> (Vec<String>, Vec<Vec<u8>>) {
        let records = self.stream.records();
        (
            records.iter().map(|r| r.uid()).collect(),
            records.iter().map(|r| r.bytes().to_vec()).collect(),
        )
    }
}

#[tokio::test]
async fn the_stream_gets_everything_in_order_and_goes_on_where_it_stood() {
    let mut all = Drained::new(1 << 30);
    for run in 1..=3 {
        let pipeline = all.start();
        finish_many(&pipeline, 20).await;
        if run == 2 {
            all.stream.set(Faults { write: true, ..Faults::default() });
        }
        finish_many(&pipeline, 10).await;
        let left = pipeline.close(Duration::from_millis(500)).await;
        assert_eq!(left.is_empty(), run != 2, "{left:?}");
        all.stream.set(Faults::default());
    }
    let (uids, lines) = all.streamed();
    let content = content(all.dir.path());
    let expect = content.records.len() + content.sealed.len();
    assert_eq!(content.records.len(), 90);
    assert_eq!(uids.len(), expect, "nothing came twice after runs that ended well");
    let records: Vec<Vec<u8>> = lines
        .into_iter()
        .filter(|line| matches!(line::parse(line).unwrap(), Line::Record(_)))
        .collect();
    assert_eq!(records, content.records, "the same bytes in the same order");
    check(&content);
    assert_eq!(all.value("weir_audit_queued_records{sink=\"memory\"}"), 0);
    assert_eq!(all.value("weir_audit_spool_waiting_bytes"), 0);
}

#[tokio::test]
async fn a_lost_place_costs_duplicates_and_nothing_else() {
    let mut all = Drained::new(1 << 30);
    let pipeline = all.start();
    finish_many(&pipeline, 10).await;
    close(&pipeline).await;
    let first = all.streamed().0;
    let place = all.dir.path().join("audit/drain-memory.json");
    for broken in ["", "{}", "{\"format\":9,\"segment\":1,\"offset\":0,\"size\":0}"] {
        std::fs::write(&place, broken).unwrap();
        let before = all.streamed().0.len();
        let pipeline = all.start();
        close(&pipeline).await;
        assert_eq!(all.streamed().0[before..], first[..], "{broken}");
    }
}

#[tokio::test]
async fn a_full_spool_refuses_and_counts_by_class_until_it_is_drained() {
    let mut all = Drained::new(20_000);
    all.stream.set(Faults { write: true, ..Faults::default() });
    let pipeline = all.start();
    let mut kept = 0;
    while finish(&pipeline, AuditClass::Durable).await.is_ok() {
        kept += 1;
    }
    assert!(kept >= 10 && !pipeline.is_failing(), "{kept} fit into 20 kB");
    assert_eq!(finish(&pipeline, AuditClass::Strict).await, Err(Reason::AuditFull));
    for _ in 0..7 {
        finish(&pipeline, AuditClass::Counted).await.unwrap();
    }
    assert_eq!((pipeline.lost(), pipeline.sequence()), (7, kept));
    assert!(all.value("weir_audit_spool_waiting_bytes") >= 20_000);
    assert_eq!(all.value("weir_audit_queued_records{sink=\"memory\"}"), kept);
    assert_eq!(all.value("weir_audit_lost_records_total"), 7);
    // A restart does not forget the backlog.
    pipeline.close(Duration::from_millis(300)).await;
    drop(pipeline);
    let pipeline = all.start();
    assert_eq!(finish(&pipeline, AuditClass::Strict).await, Err(Reason::AuditFull));
    assert_eq!(all.value("weir_audit_queued_records{sink=\"memory\"}"), kept);
    all.stream.set(Faults::default());
    let drained = async || pipeline.reserve(AuditClass::Strict).is_ok();
    assert!(eventually(BOUND, drained).await, "a drained spool takes records again");
    finish(&pipeline, AuditClass::Strict).await.unwrap();
    let empty = async || all.value("weir_audit_queued_records{sink=\"memory\"}") == 0;
    assert!(eventually(BOUND, empty).await);
    close(&pipeline).await;
    // Delivered segments go when their room is wanted; what is left is within the bound.
    let (uids, _) = all.streamed();
    let records = uids.iter().filter(|uid| uid.rsplit('/').next().unwrap().parse::<u64>().is_ok());
    assert!(records.count() as u64 > kept, "all that was kept has come, and the new ones");
}

#[tokio::test]
async fn what_a_full_spool_lost_outlives_the_run_that_lost_it() {
    let mut all = Drained::new(20_000);
    all.stream.set(Faults { write: true, ..Faults::default() });
    let pipeline = all.start();
    while finish(&pipeline, AuditClass::Durable).await.is_ok() {}
    for lost in [7, 2] {
        // The first of these runs has records, the second leaves none: the next takes its count over.
        let pipeline = if lost == 7 { pipeline.clone() } else { all.start() };
        for _ in 0..lost {
            finish(&pipeline, AuditClass::Counted).await.unwrap();
        }
        let file = all.dir.path().join("audit/lost");
        let remembered = async || {
            let text = std::fs::read_to_string(&file).unwrap();
            text.contains(&format!("epoch {:020} lost {lost:020}", pipeline.epoch()))
        };
        assert!(eventually(BOUND, remembered).await);
        pipeline.close(Duration::from_millis(300)).await;
    }
    drop(pipeline);
    let pipeline = all.start();
    assert_eq!((pipeline.lost(), all.value("weir_audit_lost_records_total")), (2, 2));
    all.stream.set(Faults::default());
    let drained = async || pipeline.reserve(AuditClass::Strict).is_ok();
    assert!(eventually(BOUND, drained).await, "a drained spool takes records again");
    finish(&pipeline, AuditClass::Strict).await.unwrap();
    close(&pipeline).await;
    let ends = all.stream.records().into_iter().filter_map(|r| match line::parse(r.bytes()) {
        Ok(Line::Checkpoint(sealed)) if sealed.checkpoint.end => Some(sealed.checkpoint.lost),
        _ => None,
    });
    assert_eq!(ends.collect::<Vec<_>>(), [7, 2]);
}
