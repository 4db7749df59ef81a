//! A node shows its log to somebody who remembers: through outages, lost answers, crashes and
//! restarts, the witness agrees to nothing that is not proved to continue what it has seen.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use weir_audit::Pipeline;
use weir_audit::checkpoint::Head;
use weir_audit::line::Sealed;
use weir_audit::merkle;
use weir_audit::witness::{Answer, Showing, Witness, show};
use weir_model::resource::AuditClass;

use crate::disk::{BOUND, close, content, finish, finish_many, segments, settings, start};

/// Remembers the newest state of each epoch, and is as strict as can be.
#[derive(Debug, Default)]
struct Memory {
    seen: BTreeMap<u64, Head>,
    /// Remembers, and loses its answer on the way.
    mute: bool,
    asked: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum No {
    Contradiction,
    Lost,
}

#[async_trait]
impl Witness for Memory {
    type Error = No;

    async fn see(&mut self, showing: Showing<'_>) -> Result<Answer, No> {
        self.asked += 1;
        let checkpoint = &showing.sealed.checkpoint;
        let head = checkpoint.head;
        match (self.seen.get(&head.epoch), checkpoint.previous) {
            (Some(known), _) if known.size > head.size => return Err(No::Contradiction),
            (Some(known), _) if known.size != showing.from => {
                return Ok(Answer::Wants { epoch: head.epoch, from: known.size });
            }
            (Some(known), _) => {
                let (old, new) = ((known.size, known.root), (head.size, head.root));
                if !merkle::continues(old, new, showing.proof) {
                    return Err(No::Contradiction);
                }
            }
            (None, Some(previous)) => {
                let known = self.seen.get(&previous.epoch).filter(|known| **known != previous);
                if known.is_some_and(|known| known.size >= previous.size) {
                    return Err(No::Contradiction);
                }
                if let Some(known) = known.filter(|_| !showing.past_gone) {
                    return Ok(Answer::Wants { epoch: previous.epoch, from: known.size });
                }
            }
            (None, None) => {}
        }
        self.seen.insert(head.epoch, head);
        match self.mute {
            true => Err(No::Lost),
            false => Ok(Answer::Kept(format!("seen {}\n", head.size))),
        }
    }
}

/// The checkpoint over so many records of this run, once it is signed.
async fn sealed(pipeline: &Pipeline, size: u64) -> Arc<Sealed> {
    let mut checkpoints = pipeline.spool().unwrap().checkpoints();
    let epoch = pipeline.epoch();
    let covers = |sealed: &Option<Arc<Sealed>>| {
        sealed
            .as_ref()
            .is_some_and(|s| (s.checkpoint.head.epoch, s.checkpoint.head.size) == (epoch, size))
    };
    let found = tokio::time::timeout(BOUND, checkpoints.wait_for(covers)).await.unwrap();
    found.unwrap().clone().unwrap()
}

/// One more record, and the checkpoint that covers it.
async fn one_more(pipeline: &Pipeline) -> Arc<Sealed> {
    finish(pipeline, AuditClass::Strict).await.unwrap();
    sealed(pipeline, pipeline.sequence()).await
}

#[tokio::test]
async fn a_log_that_only_grows_is_proved_whatever_came_between() {
    let dir = tempfile::tempdir().unwrap();
    let mut witness = Memory::default();
    let pipeline = start(settings(dir.path())).await;
    let spool = pipeline.spool().unwrap().clone();
    for _ in 0..3 {
        let sealed = one_more(&pipeline).await;
        assert_eq!(show(&mut witness, &spool, &sealed).await, Ok(true));
    }
    assert_eq!(spool.certificate().as_deref(), Some("seen 3\n"));
    assert_eq!(witness.asked, 3, "who knows what was seen is asked for nothing");
    // An answer is lost: the witness knows more than the node thinks.
    witness.mute = true;
    let sealed = one_more(&pipeline).await;
    assert_eq!(show(&mut witness, &spool, &sealed).await, Err(No::Lost));
    witness.mute = false;
    let sealed = one_more(&pipeline).await;
    assert_eq!(show(&mut witness, &spool, &sealed).await, Ok(true));
    // Nobody can be reached for longer than single checkpoints are remembered, and another
    // witness, or one that was set back, has seen less.
    let early = Memory { seen: witness.seen.clone(), ..Memory::default() };
    for _ in 0..80 {
        one_more(&pipeline).await;
    }
    let sealed = one_more(&pipeline).await;
    for mut witness in [witness, early] {
        assert_eq!(show(&mut witness, &spool, &sealed).await, Ok(true));
        let known = Head { size: 4, ..witness.seen[&pipeline.epoch()] };
        let root = merkle_root(dir.path(), 4);
        witness.seen.insert(pipeline.epoch(), Head { root, ..known });
        assert_eq!(show(&mut witness, &spool, &sealed).await, Ok(true), "from the files");
    }
    close(&pipeline).await;
}

fn merkle_root(dir: &std::path::Path, size: usize) -> merkle::Hash {
    let mut tree = merkle::Tree::default();
    content(dir).records.iter().take(size).for_each(|record| tree.push(merkle::leaf(record)));
    tree.root()
}

#[tokio::test]
async fn the_end_of_the_run_before_is_proved_before_the_next_begins() {
    let dir = tempfile::tempdir().unwrap();
    let mut witness = Memory::default();
    let pipeline = start(settings(dir.path())).await;
    let first = one_more(&pipeline).await;
    let spool = pipeline.spool().unwrap().clone();
    assert_eq!(show(&mut witness, &spool, &first).await, Ok(true));
    // The witness is away while the run ends and the next one begins.
    finish_many(&pipeline, 9).await;
    let before = pipeline.epoch();
    close(&pipeline).await;
    drop((pipeline, spool));
    let pipeline = start(settings(dir.path())).await;
    let spool = pipeline.spool().unwrap().clone();
    let sealed = one_more(&pipeline).await;
    assert_eq!(show(&mut witness, &spool, &sealed).await, Ok(true));
    assert_eq!(witness.seen[&before].size, 10, "the end of the epoch before was shown too");
    assert_eq!(witness.seen[&pipeline.epoch()].size, 1);

    // Its records are gone: that is said, and does not hold up for ever.
    let mut forgetful = Memory::default();
    forgetful.seen.insert(before, first.checkpoint.head);
    let of_before = |path: &std::path::PathBuf| {
        std::fs::read_to_string(path).unwrap().contains(&format!("\"epoch\":{before}"))
    };
    for path in segments(dir.path()).iter().filter(|path| of_before(path)) {
        std::fs::remove_file(path).unwrap();
    }
    assert_eq!(show(&mut forgetful, &spool, &sealed).await, Ok(true));
    assert_eq!(forgetful.seen[&before].size, 1, "what was seen stays");
    close(&pipeline).await;
}

/// Somebody with the node's key cuts the log on the disk and lets the node go on.
#[tokio::test]
async fn a_log_that_was_cut_and_continued_cannot_be_proved() {
    let dir = tempfile::tempdir().unwrap();
    let mut witness = Memory::default();
    let pipeline = start(settings(dir.path())).await;
    finish_many(&pipeline, 3).await;
    let whole = sealed(&pipeline, 3).await;
    let spool = pipeline.spool().unwrap().clone();
    assert_eq!(show(&mut witness, &spool, &whole).await, Ok(true));
    close(&pipeline).await;
    drop((pipeline, spool));
    // Two records are left, and one of them says something else.
    let path = segments(dir.path()).remove(0);
    let text = std::fs::read_to_string(&path).unwrap();
    let left: String = text.lines().take(3).map(|line| format!("{line}\n")).collect();
    for path in segments(dir.path()) {
        std::fs::remove_file(path).unwrap();
    }
    std::fs::write(&path, left.replacen("success", "SUCCESS", 1)).unwrap();
    let pipeline = start(settings(dir.path())).await;
    let spool = pipeline.spool().unwrap().clone();
    let ended = spool.checkpoints().borrow().clone().unwrap();
    assert_eq!(ended.checkpoint.head.size, 2, "the run before is ended where it seems to end");
    assert_eq!(show(&mut witness, &spool, &ended).await, Err(No::Contradiction));
    // Nor does another epoch help, which continues that past.
    let next = one_more(&pipeline).await;
    assert_eq!(show(&mut witness, &spool, &next).await, Err(No::Contradiction));
    assert_eq!(witness.seen[&whole.checkpoint.head.epoch], whole.checkpoint.head);
    close(&pipeline).await;
}
