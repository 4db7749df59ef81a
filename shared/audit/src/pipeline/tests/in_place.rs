//! Records that the caller's own thread writes, when nobody else is at it.

use std::sync::Barrier;
use std::thread::ThreadId;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::*;
use crate::sink::SinkError;

/// Who wrote what: the number of a record and the thread.
#[derive(Debug, Clone, Default)]
struct Told {
    written: Arc<Mutex<Vec<(u64, ThreadId)>>>,
    synced: Arc<Mutex<usize>>,
    how: Arc<Mutex<How>>,
}

/// What the sink does when a caller wants to write at once.
#[derive(Debug, Clone, Default)]
enum How {
    #[default]
    Writes,
    /// It would take too long.
    Leaves,
    /// It fails, and so does the thread.
    Fails,
    /// Tells that it has begun, and waits to be let on; once.
    Holds(Arc<Barrier>, Arc<Barrier>),
}

impl Told {
    fn write(&self, batch: &[Record]) {
        let here = std::thread::current().id();
        self.written.lock().extend(batch.iter().map(|record| (record.sequence(), here)));
    }
    fn numbers(&self) -> Vec<u64> {
        self.written.lock().iter().map(|(number, _)| *number).collect()
    }
    fn writer_of(&self, number: u64) -> ThreadId {
        self.written.lock().iter().find(|(n, _)| *n == number).unwrap().1
    }
}

#[async_trait::async_trait]
impl Sink for Told {
    fn name(&self) -> &'static str {
        "told"
    }
    async fn write(&mut self, batch: &[Record]) -> Result<(), SinkError> {
        if matches!(*self.how.lock(), How::Fails) {
            return Err(SinkError::all(batch.len(), "made to fail"));
        }
        Told::write(self, batch);
        Ok(())
    }
    fn write_at_once(&mut self, batch: &[Record]) -> Option<Result<(), SinkError>> {
        let how = self.how.lock().clone();
        match how {
            How::Leaves => return None,
            How::Fails => return Some(Err(SinkError::all(batch.len(), "made to fail"))),
            How::Holds(begun, go) => {
                *self.how.lock() = How::Writes;
                begun.wait();
                go.wait();
            }
            How::Writes => {}
        }
        Told::write(self, batch);
        Some(Ok(()))
    }
    fn flush(&mut self) -> BoxFuture<'static, Result<(), SinkError>> {
        let (synced, written) = (Arc::clone(&self.synced), self.written.lock().len());
        async move {
            *synced.lock() = written;
            Ok(())
        }
        .boxed()
    }
}

fn start() -> (Pipeline, Told) {
    let told = Told::default();
    let origin = Origin { node: "n".into(), region: String::new() };
    (Builder::new(origin, Box::new(told.clone()), Metrics::new()).start(), told)
}

async fn finish(pipeline: &Pipeline, class: AuditClass) -> Result<(), Reason> {
    let slot = pipeline.reserve(class)?;
    tokio::time::timeout(BOUND, slot.finish(facts(class))).await.expect("finish is bounded")
}

#[tokio::test]
async fn who_is_promised_a_record_writes_it_and_what_nobody_waits_for_is_left_to_the_thread() {
    let (pipeline, told) = start();
    let here = std::thread::current().id();
    for number in 1..=5 {
        // The thread may have the writer for a moment, to see what there is to sync.
        let free = async || {
            let writer = pipeline.shared.writer.upgrade().unwrap();
            writer.try_lock().is_ok()
        };
        assert!(eventually(BOUND, free).await);
        finish(&pipeline, AuditClass::Durable).await.unwrap();
        assert_eq!(told.numbers().last(), Some(&number), "it is written when the promise is kept");
    }
    assert!((1..=5).any(|number| told.writer_of(number) == here), "{:?}", told.written);
    finish(&pipeline, AuditClass::Counted).await.unwrap();
    assert!(eventually(BOUND, async || told.numbers().len() == 6).await);
    assert_ne!(told.writer_of(6), here);
    finish(&pipeline, AuditClass::Strict).await.unwrap();
    assert_eq!(*told.synced.lock(), 7, "the thread synced what the caller wrote");
    assert_eq!(pipeline.close(BOUND).await, []);
    assert_eq!(told.numbers(), (1..=7).collect::<Vec<_>>());
}

/// While one caller writes, the records of others wait behind it and go out in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_record_that_comes_while_another_is_written_is_written_by_that_one() {
    let (pipeline, told) = start();
    let (begun, go) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    *told.how.lock() = How::Holds(Arc::clone(&begun), Arc::clone(&go));
    let first = {
        let pipeline = pipeline.clone();
        tokio::spawn(async move { finish(&pipeline, AuditClass::Durable).await })
    };
    tokio::task::spawn_blocking(move || begun.wait()).await.unwrap();
    let others: Vec<_> = (0..3)
        .map(|_| {
            let pipeline = pipeline.clone();
            tokio::spawn(async move { finish(&pipeline, AuditClass::Durable).await })
        })
        .collect();
    assert!(eventually(BOUND, async || pipeline.sequence() == 4).await);
    assert_eq!(told.numbers(), [] as [u64; 0], "nobody passes the one who writes");
    tokio::task::spawn_blocking(move || go.wait()).await.unwrap();
    for task in std::iter::once(first).chain(others) {
        tokio::time::timeout(BOUND, task).await.unwrap().unwrap().unwrap();
    }
    assert_eq!(told.numbers(), [1, 2, 3, 4]);
    assert_eq!(pipeline.close(BOUND).await, []);
}

#[tokio::test]
async fn what_cannot_be_written_at_once_is_left_to_the_thread() {
    let (pipeline, told) = start();
    *told.how.lock() = How::Leaves;
    for number in 1..=3 {
        finish(&pipeline, AuditClass::Durable).await.unwrap();
        assert_ne!(told.writer_of(number), std::thread::current().id());
    }
    assert_eq!(pipeline.close(BOUND).await, []);
    assert_eq!(told.numbers(), [1, 2, 3]);
}

#[tokio::test]
async fn a_write_at_once_that_fails_breaks_the_promise_and_the_record_comes_later() {
    let (pipeline, told) = start();
    finish(&pipeline, AuditClass::Durable).await.unwrap();
    *told.how.lock() = How::Fails;
    assert_eq!(finish(&pipeline, AuditClass::Durable).await, Err(Reason::AuditFull));
    assert!(pipeline.is_failing());
    assert_eq!(finish(&pipeline, AuditClass::Strict).await, Err(Reason::AuditFull));
    *told.how.lock() = How::Writes;
    assert!(eventually(BOUND, async || !pipeline.is_failing()).await);
    finish(&pipeline, AuditClass::Strict).await.unwrap();
    assert_eq!(pipeline.close(BOUND).await, []);
    // The second attempt was refused before it had a number.
    assert_eq!(told.numbers(), [1, 2, 3]);
}
