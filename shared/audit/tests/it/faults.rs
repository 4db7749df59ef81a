//! Disks that are full, that fail, that forget: what the classes promise holds, and everything that
//! was numbered is written when the disk is well again, once and in order.

use std::fs::File;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use weir_audit::memory::{Faults, MemoryLog};
use weir_audit::spool::disk::Disk;
use weir_audit::spool::{Spool, SpoolSettings};
use weir_audit::verify::{Order, Trust, Verification};
use weir_audit::{Builder, Origin, Pipeline};
use weir_model::reason::Reason;
use weir_model::resource::AuditClass;
use weir_runtime::clock::SystemClock;
use weir_runtime::metrics::Metrics;
use weir_runtime::testing::eventually;

use crate::disk::{BOUND, close, content, finish, segments};

/// What is wrong with a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// It takes half of a write and is full then.
    Full,
    /// The same, and what it took cannot be cut off.
    Torn,
    /// Nothing can be written.
    Write,
    /// Nothing can be synced.
    Sync,
    /// No new file can be made.
    Create,
}

#[derive(Debug, Default)]
struct Ill {
    fault: Mutex<Option<Fault>>,
    met: Mutex<u64>,
}

impl Ill {
    fn set(&self, fault: Option<Fault>) {
        *self.fault.lock() = fault;
        *self.met.lock() = 0;
    }
    fn is(&self, faults: &[Fault]) -> bool {
        let is = self.fault.lock().is_some_and(|fault| faults.contains(&fault));
        *self.met.lock() += u64::from(is);
        is
    }
}

impl Disk for Ill {
    fn create(&self, path: &std::path::Path) -> io::Result<File> {
        if self.is(&[Fault::Create]) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        File::options().append(true).read(true).create_new(true).open(path)
    }
    fn append(&self, mut file: &File, bytes: &[u8]) -> io::Result<()> {
        if self.is(&[Fault::Full, Fault::Torn]) {
            file.write_all(&bytes[..bytes.len() / 2])?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        if self.is(&[Fault::Write]) {
            return Err(io::Error::from_raw_os_error(5));
        }
        file.write_all(bytes)
    }
    fn cut(&self, file: &File, length: u64) -> io::Result<()> {
        if self.is(&[Fault::Torn]) {
            return Err(io::Error::from_raw_os_error(5));
        }
        file.set_len(length)
    }
    fn sync(&self, file: &File) -> io::Result<()> {
        if self.is(&[Fault::Sync]) {
            return Err(io::Error::from_raw_os_error(5));
        }
        file.sync_data()
    }
}

fn start(disk: &Arc<Ill>, dir: &std::path::Path, segment_bytes: u64) -> Pipeline {
    let settings = SpoolSettings { segment_bytes, ..SpoolSettings::new(dir.join("audit")) };
    let disk = Arc::clone(disk) as Arc<dyn Disk>;
    let spool = Spool::open_on(disk, settings, SystemClock::shared()).unwrap();
    let origin = Origin { node: "node-1".into(), region: "eu".into() };
    Builder::spooled(origin, spool, Metrics::new())
        .checkpoint_every(Duration::from_millis(20))
        .start()
}

fn verify(dir: &std::path::Path) {
    let mut verification = Verification::new(Order::Written, Trust::default());
    for path in segments(dir) {
        for line in std::fs::read_to_string(path).unwrap().lines() {
            verification.line(line.as_bytes(), &"file");
        }
    }
    let report = verification.finish();
    assert!(report.is_good(), "{report:#?}");
}

#[tokio::test]
async fn a_disk_that_fails_breaks_promises_in_time_and_loses_nothing() {
    for fault in [Fault::Full, Fault::Write, Fault::Sync, Fault::Create] {
        let (dir, disk) = (tempfile::tempdir().unwrap(), Arc::new(Ill::default()));
        // Of a size at which nearly every record begins a segment.
        let pipeline = start(&disk, dir.path(), 2_000);
        for class in [AuditClass::Durable, AuditClass::Strict, AuditClass::Counted] {
            finish(&pipeline, class).await.unwrap();
        }
        disk.set(Some(fault));
        // The first to meet it finds out; whoever comes then is refused before any work.
        let strict = pipeline.reserve(AuditClass::Strict).unwrap();
        let durable = pipeline.reserve(AuditClass::Durable).unwrap();
        let facts = |class| weir_model::audit::Facts { class, ..Default::default() };
        assert_eq!(strict.finish(facts(AuditClass::Strict)).await, Err(Reason::AuditFull));
        assert!(*disk.met.lock() > 0, "{fault:?} was met");
        assert!(pipeline.is_failing(), "{fault:?}");
        assert_eq!(durable.finish(facts(AuditClass::Durable)).await, Err(Reason::AuditFull));
        assert_eq!(pipeline.reserve(AuditClass::Durable).unwrap_err(), Reason::AuditFull);
        // Those that are only counted are served, and wait.
        finish(&pipeline, AuditClass::Counted).await.unwrap();
        assert_eq!((pipeline.sequence(), pipeline.lost()), (6, 0), "{fault:?}");
        disk.set(None);
        assert!(eventually(BOUND, async || !pipeline.is_failing()).await, "{fault:?}");
        finish(&pipeline, AuditClass::Strict).await.unwrap();
        close(&pipeline).await;
        let content = content(dir.path());
        assert_eq!(content.records.len(), 7, "{fault:?}");
        crate::disk::check(&content);
        verify(dir.path());
    }
}

/// Half a record that cannot be taken back stays at the end of its segment, and is told.
#[tokio::test]
async fn half_a_record_that_cannot_be_cut_off_harms_nothing_else() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Arc::new(Ill::default()));
    let pipeline = start(&disk, dir.path(), 1 << 20);
    for _ in 0..3 {
        finish(&pipeline, AuditClass::Strict).await.unwrap();
    }
    disk.set(Some(Fault::Torn));
    assert_eq!(finish(&pipeline, AuditClass::Durable).await, Err(Reason::AuditFull));
    disk.set(None);
    assert!(eventually(BOUND, async || !pipeline.is_failing()).await);
    finish(&pipeline, AuditClass::Strict).await.unwrap();
    close(&pipeline).await;
    let mut verification = Verification::new(Order::Any, Trust::default());
    let mut torn = 0;
    for path in segments(dir.path()) {
        for line in std::fs::read(path).unwrap().split(|byte| *byte == b'\n') {
            match weir_audit::line::parse(line) {
                Ok(_) => verification.line(line, &"file"),
                Err(_) => torn += usize::from(!line.is_empty()),
            }
        }
    }
    let report = verification.finish();
    assert!(report.is_good(), "{report:#?}");
    assert_eq!((report.epochs[0].records, report.epochs[0].signed), ((1, 5), 5), "{report:#?}");
    assert!(torn <= 1, "{torn} lines that are none");
}

/// A backlog that nobody takes holds up nobody, and goes out in order beside what comes.
#[tokio::test]
async fn a_backlog_does_not_starve_who_comes_later() {
    let (dir, stream) = (tempfile::tempdir().unwrap(), MemoryLog::default());
    let settings = SpoolSettings::new(dir.path().join("audit"));
    let spool = Spool::open(settings).unwrap();
    let drain = spool.handle().drain(Box::new(stream.sink()), SystemClock::shared()).unwrap();
    let origin = Origin { node: "node-1".into(), region: "eu".into() };
    let pipeline = Builder::spooled(origin, spool, Metrics::new()).drain(drain).start();
    stream.set(Faults { hold: true, ..Faults::default() });
    for _ in 0..2_000 {
        finish(&pipeline, AuditClass::Counted).await.unwrap();
    }
    // The stream stands still; promises are kept all the same.
    for _ in 0..20 {
        finish(&pipeline, AuditClass::Durable).await.unwrap();
        finish(&pipeline, AuditClass::Strict).await.unwrap();
    }
    assert!(stream.records().is_empty());
    stream.set(Faults::default());
    for _ in 0..20 {
        finish(&pipeline, AuditClass::Strict).await.unwrap();
    }
    close(&pipeline).await;
    let numbers: Vec<u64> = stream
        .records()
        .iter()
        .filter(|record| record.uid().rsplit('/').next().unwrap().parse::<u64>().is_ok())
        .map(weir_audit::Record::sequence)
        .collect();
    assert_eq!(numbers, (1..=2_060).collect::<Vec<_>>(), "in order, and once");
}
