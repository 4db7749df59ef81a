//! A crash at every single step that the spool does to its disk, by kill and by loss of power.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;

use weir_runtime::clock::SystemClock;

use super::*;
use crate::spool::disk::Disk;
use crate::verify::{Order, Trust, Verification};

/// Works for so many steps and then never again; the last one is half done.
#[derive(Debug)]
struct Mortal {
    left: Mutex<u64>,
    /// Bytes of each file, by inode, that were synced.
    synced: Mutex<HashMap<u64, u64>>,
}

/// How far a step gets.
enum Step {
    Done,
    Half,
    None,
}

impl Mortal {
    fn new(steps: u64) -> Arc<Self> {
        Arc::new(Self { left: Mutex::new(steps), synced: Mutex::default() })
    }
    fn step(&self) -> Step {
        let mut left = self.left.lock();
        let step = match *left {
            0 => Step::None,
            1 => Step::Half,
            _ => Step::Done,
        };
        *left = left.saturating_sub(1);
        step
    }
    fn is_dead(&self) -> bool {
        *self.left.lock() == 0
    }
}

fn crash() -> io::Error {
    io::Error::other("crashed")
}

impl Disk for Mortal {
    fn create(&self, path: &Path) -> io::Result<File> {
        match self.step() {
            Step::Done => segment::writable(path, true),
            // The name is there.
            Step::Half => segment::writable(path, true).and_then(|_| Err(crash())),
            Step::None => Err(crash()),
        }
    }
    fn append(&self, mut file: &File, bytes: &[u8]) -> io::Result<()> {
        use std::io::Write as _;
        match self.step() {
            Step::Done => file.write_all(bytes),
            Step::Half => file.write_all(&bytes[..bytes.len() / 2]).and_then(|()| Err(crash())),
            Step::None => Err(crash()),
        }
    }
    fn cut(&self, file: &File, length: u64) -> io::Result<()> {
        match self.step() {
            Step::Done => file.set_len(length),
            _ => Err(crash()),
        }
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        match self.step() {
            Step::Done => std::fs::remove_file(path),
            _ => Err(crash()),
        }
    }
    fn sync(&self, file: &File) -> io::Result<()> {
        match self.step() {
            Step::Done => {
                let about = file.metadata()?;
                self.synced.lock().insert(about.ino(), about.len());
                Ok(())
            }
            _ => Err(crash()),
        }
    }
}

/// What was promised before the crash.
#[derive(Debug, Default)]
struct Promised {
    written: u64,
    synced: u64,
}

/// Writes, syncs, signs and rotates until the disk is dead.
async fn run(world: &mut World, disk: &Mortal) -> Promised {
    let mut promised = Promised::default();
    for n in 1..=12 {
        if world.write(1).await.is_err() || disk.is_dead() {
            break;
        }
        promised.written = n;
        if n % 2 == 0 {
            let Ok(()) = world.spool.flush().await else { break };
            promised.synced = n;
        }
        if n % 4 == 0 {
            let Ok(_) = world.spool.seal(n == 12).await else { break };
            let Ok(()) = world.spool.flush().await else { break };
        }
    }
    promised
}

/// Loses half of what was not synced, as a machine without power does.
fn lose_power(dir: &Path, disk: &Mortal) {
    for (_, path) in segment::list(dir).unwrap() {
        let file = segment::writable(&path, false).unwrap();
        let about = file.metadata().unwrap();
        let synced = disk.synced.lock().get(&about.ino()).copied().unwrap_or(0);
        file.set_len(synced + (about.len() - synced) / 2).unwrap();
    }
}

fn verified(dir: &Path) {
    let mut verification = Verification::new(Order::Written, Trust::default());
    for (_, path) in segment::list(dir).unwrap() {
        for line in std::fs::read_to_string(path).unwrap().lines() {
            verification.line(line.as_bytes(), &"file");
        }
    }
    let report = verification.finish();
    assert!(report.is_good(), "{report:#?}");
    assert!(report.epochs.iter().all(|epoch| epoch.signed == epoch.records.1), "{report:#?}");
}

#[tokio::test]
async fn whatever_the_step_at_which_it_crashes_what_was_promised_is_there_and_whole() {
    let (mut steps, mut survived) = (1, false);
    while !survived {
        for power in [false, true] {
            let disk = Mortal::new(steps);
            let mut world = World::on(Arc::clone(&disk) as Arc<dyn Disk>, 4_000);
            let promised = run(&mut world, &disk).await;
            survived = !disk.is_dead();
            let audit = world.dir.path().join("audit");
            let World { dir, spool, .. } = world;
            drop(spool);
            if power {
                lose_power(&audit, &disk);
            }
            // The next run repairs, ends the epoch and goes on.
            let settings = SpoolSettings { segment_bytes: 4_000, ..SpoolSettings::new(&audit) };
            let spool = Spool::open(settings).unwrap();
            let begun = spool.newest_epoch().is_some();
            let run = Arc::new(Run { node: "n".into(), region: "eu".into(), epoch: 8 });
            let mut world = World { dir, spool, run, next: 1 };
            let kept = world.epoch(7);
            let least = if power { promised.synced } else { promised.written };
            assert!(kept >= least, "step {steps}, power {power}: {kept} of {promised:?}");
            if begun {
                verified(&audit);
            }
            world.write(3).await.unwrap();
            world.spool.flush().await.unwrap();
            world.spool.seal(true).await.unwrap();
            world.spool.flush().await.unwrap();
            verified(&audit);
            assert_eq!((world.epoch(7), world.epoch(8)), (kept, 3), "step {steps}");
        }
        steps += 1;
    }
    assert!(steps > 40, "{steps} steps are too few to mean anything");
}

/// The machine's clock may go back while nothing runs.
#[test]
fn a_clock_that_went_back_uses_no_epoch_twice() {
    let dir = tempfile::tempdir().unwrap();
    let open =
        || Spool::open_at(SpoolSettings::new(dir.path().join("audit")), SystemClock::shared());
    let path = dir.path().join("audit/audit-000000000001.jsonl");
    drop(open().unwrap());
    let future = "{\"weir_audit_segment\":{\"format\":1,\"node\":\"n\",\"region\":\"\",\
                  \"epoch\":99999999999999,\"size\":0,\"peaks\":[],\"previous\":null}}\n";
    std::fs::write(path, future).unwrap();
    assert_eq!(open().unwrap().newest_epoch(), Some(99_999_999_999_999));
}
