//! The contract suite against memory and file. The real stream runs it in `kafka`.

use std::path::PathBuf;

use async_trait::async_trait;
use weir_audit::Sink;
use weir_audit::contract::{Bench, delivers_in_order, drains_and_reopens, retries_after_failure};
use weir_audit::memory::{Faults, MemoryLog, MemorySink};
use weir_audit::read;
use weir_audit::spool::{Spool, SpoolSettings};

#[derive(Default)]
struct Memory {
    log: MemoryLog,
}

/// Tells the newest epoch from what is in the log, as a sink with a memory would.
struct Remembering {
    sink: MemorySink,
    newest: Option<u64>,
}

#[async_trait]
impl Sink for Remembering {
    fn name(&self) -> &'static str {
        self.sink.name()
    }
    fn newest_epoch(&self) -> Option<u64> {
        self.newest
    }
    async fn write(&mut self, batch: &[weir_audit::Record]) -> Result<(), weir_audit::SinkError> {
        self.sink.write(batch).await
    }
    fn flush(
        &mut self,
    ) -> futures_util::future::BoxFuture<'static, Result<(), weir_audit::SinkError>> {
        self.sink.flush()
    }
}

#[async_trait]
impl Bench for Memory {
    async fn open(&self) -> Box<dyn Sink> {
        let newest = self.log.records().last().map(|record| record.id().epoch);
        Box::new(Remembering { sink: self.log.sink(), newest })
    }
    async fn seen(&self) -> Vec<Vec<u8>> {
        self.log.records().iter().map(|record| record.bytes().to_vec()).collect()
    }
    async fn break_down(&self) {
        self.log.set(Faults { write: true, ..Faults::default() });
    }
    async fn mend(&self) {
        self.log.set(Faults::default());
    }
}

/// Every write of this bench starts a new segment, so that taking its folder away breaks it.
struct Folder {
    root: tempfile::TempDir,
    segment_bytes: u64,
}

impl Folder {
    fn new(segment_bytes: u64) -> Self {
        Self { root: tempfile::tempdir().unwrap(), segment_bytes }
    }
    fn dir(&self) -> PathBuf {
        self.root.path().join("audit")
    }
    fn away(&self) -> PathBuf {
        self.root.path().join("away")
    }
}

#[async_trait]
impl Bench for Folder {
    async fn open(&self) -> Box<dyn Sink> {
        let segment_bytes = self.segment_bytes;
        let settings = SpoolSettings { segment_bytes, ..SpoolSettings::new(self.dir()) };
        Box::new(Spool::open(settings).unwrap())
    }
    async fn seen(&self) -> Vec<Vec<u8>> {
        read::entries(&self.dir()).unwrap().map(|entry| entry.unwrap().line).collect()
    }
    async fn break_down(&self) {
        std::fs::rename(self.dir(), self.away()).unwrap();
    }
    async fn mend(&self) {
        std::fs::rename(self.away(), self.dir()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_delivers_in_order() {
    delivers_in_order(&Memory::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_retries_after_failure() {
    retries_after_failure(&Memory::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_drains_and_reopens() {
    drains_and_reopens(&Memory::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_delivers_in_order() {
    delivers_in_order(&Folder::new(1 << 30)).await;
    delivers_in_order(&Folder::new(4_000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_retries_after_failure() {
    retries_after_failure(&Folder::new(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_drains_and_reopens() {
    drains_and_reopens(&Folder::new(1 << 30)).await;
    drains_and_reopens(&Folder::new(4_000)).await;
}
