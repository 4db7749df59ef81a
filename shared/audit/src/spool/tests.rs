mod crash;

use std::path::Path;

use tokio::sync::Semaphore;
use weir_model::audit::Facts;

use super::*;
use crate::line::{self, Line};
use crate::record::{Draft, Run};

struct World {
    dir: tempfile::TempDir,
    spool: Spool,
    run: Arc<Run>,
    next: u64,
}

impl World {
    fn new(segment_bytes: u64) -> Self {
        Self::on(Arc::new(RealDisk), segment_bytes)
    }

    fn on(disk: Arc<dyn Disk>, segment_bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings =
            SpoolSettings { segment_bytes, ..SpoolSettings::new(dir.path().join("audit")) };
        let spool = Spool::open_on(disk, settings, SystemClock::shared()).unwrap();
        let run = Arc::new(Run { node: "n".into(), region: "eu".into(), epoch: 7 });
        Self { dir, spool, run, next: 1 }
    }

    fn records(&self, from: u64, to: u64) -> Vec<Record> {
        let room = Arc::new(Semaphore::new(1_000));
        let number = |n| {
            let permit = Arc::clone(&room).try_acquire_owned().unwrap();
            Draft::render(&Facts::default(), &self.run).number(&self.run, n, 0, permit)
        };
        (from..to).map(number).collect()
    }

    async fn write(&mut self, count: u64) -> Result<(), SinkError> {
        let batch = self.records(self.next, self.next + count);
        self.spool.write(&batch).await?;
        self.next += count;
        Ok(())
    }

    /// As after a failed sync: the next write is what was not synced.
    fn again_from(&mut self, next: u64) {
        self.next = next;
    }

    fn break_file(&self) {
        let gone = std::fs::OpenOptions::new().append(true).open("/dev/full").unwrap();
        self.spool.journal.lock().replace_file(gone);
    }

    /// Records of an epoch in the folder: numbered from 1 without gaps.
    fn epoch(&self, epoch: u64) -> u64 {
        let mut last = 0;
        for (_, path) in segment::list(&self.dir.path().join("audit")).unwrap() {
            for line in std::fs::read_to_string(path).unwrap().lines() {
                if let Line::Record(head) = line::parse(line.as_bytes()).unwrap()
                    && head.id.epoch == epoch
                {
                    last += 1;
                    assert_eq!(head.id.sequence, last);
                }
            }
        }
        last
    }

    /// The numbers in the folder, and whether each head says where its segment begins.
    fn numbers(&self) -> Vec<u64> {
        let mut numbers = Vec::new();
        for (_, path) in segment::list(&self.dir.path().join("audit")).unwrap() {
            for line in std::fs::read_to_string(path).unwrap().lines() {
                match line::parse(line.as_bytes()).unwrap() {
                    Line::Segment(head) => assert_eq!(head.tree.size(), numbers.len() as u64),
                    Line::Record(head) => numbers.push(head.id.sequence),
                    Line::Checkpoint(seal) => {
                        assert_eq!(seal.checkpoint.head.size, numbers.len() as u64);
                    }
                }
            }
        }
        numbers
    }
}

fn reopened(dir: &Path) -> Spool {
    Spool::open(SpoolSettings::new(dir.join("audit"))).unwrap()
}

#[tokio::test]
async fn a_write_that_cannot_be_undone_goes_back_to_what_was_synced() {
    let mut world = World::new(1 << 20);
    world.write(3).await.unwrap();
    world.spool.flush().await.unwrap();
    world.write(2).await.unwrap();
    let late = world.spool.flush();
    world.break_file();
    let error = world.write(1).await.unwrap_err();
    assert!(error.rewound && error.message.contains("space"), "{error}");
    assert!(late.await.is_err(), "a sync of what was taken back means nothing");
    world.again_from(4);
    world.write(4).await.unwrap();
    world.spool.flush().await.unwrap();
    assert!(world.spool.seal(true).await.unwrap());
    world.spool.flush().await.unwrap();
    // The broken handle stood for the segment, which could not be cut: its end is told twice.
    drop(world.spool);
    assert_eq!(reopened(world.dir.path()).newest_epoch(), Some(7));
}

#[tokio::test]
async fn a_failed_sync_takes_back_what_it_did_not_cover() {
    let mut world = World::new(1 << 20);
    for (synced, unsynced) in [(3, 2), (0, 4), (1, 0)] {
        world.write(synced).await.unwrap();
        world.spool.flush().await.unwrap();
        let before = world.next;
        world.write(unsynced).await.unwrap();
        world.spool.journal.lock().rewind();
        world.again_from(before);
        assert_eq!(world.numbers(), (1..before).collect::<Vec<_>>());
    }
    world.write(2).await.unwrap();
    world.spool.flush().await.unwrap();
    assert!(world.spool.seal(true).await.unwrap());
    assert_eq!(world.numbers(), (1..world.next).collect::<Vec<_>>());
}

#[tokio::test]
async fn checkpoints_speak_of_what_is_synced_and_say_nothing_twice() {
    let mut world = World::new(2_000);
    assert!(!world.spool.seal(false).await.unwrap(), "nothing is there");
    world.write(1).await.unwrap();
    assert!(!world.spool.seal(false).await.unwrap(), "nothing is synced");
    world.spool.flush().await.unwrap();
    assert!(world.spool.seal(false).await.unwrap());
    assert!(!world.spool.seal(false).await.unwrap(), "nothing is new");
    assert!(world.spool.seal(true).await.unwrap(), "the end is");
    assert!(!world.spool.seal(true).await.unwrap());
    let newest = world.spool.handle().checkpoints().borrow().clone().unwrap();
    assert!(newest.checkpoint.end && newest.checkpoint.head.size == 1);
}

#[tokio::test]
async fn foreign_files_are_left_alone() {
    let mut world = World::new(1);
    let audit = world.dir.path().join("audit");
    for name in ["audit-x.jsonl", "audit-1.json", "notes.txt"] {
        std::fs::write(audit.join(name), "not ours").unwrap();
    }
    world.write(1).await.unwrap();
    world.write(1).await.unwrap();
    let numbers: Vec<u64> = segment::list(&audit).unwrap().into_iter().map(|(n, _)| n).collect();
    assert_eq!(numbers, [1, 2]);
}
