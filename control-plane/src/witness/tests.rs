use weir_audit::merkle::span::Span;
use weir_audit::merkle::{Tree, leaf};
use weir_runtime::clock::ManualClock;

use super::*;
use crate::store::embedded::{Embedded, History};
use crate::vault::LocalKeys;

struct Bench {
    store: Arc<dyn Store>,
    vault: Vault,
    clock: ManualClock,
    witness: Witness,
    node: Signer,
}

async fn bench() -> Bench {
    let clock = ManualClock::at_ms(1_800_000_000_000);
    let store: Arc<dyn Store> = Arc::new(Embedded::in_memory(History::default()).unwrap());
    let keys = LocalKeys::generate().unwrap();
    let vault = Vault::new(Arc::new(LocalKeys::parse(keys.expose()).unwrap()));
    let witness = Witness::load_or_make(&store, &vault, Arc::new(clock.clone())).await.unwrap();
    Bench { store, vault, clock, witness, node: Signer::generate().unwrap() }
}

/// A log's records.
fn tree(epoch: u64, size: u64) -> Tree {
    let mut tree = Tree::default();
    (1..=size).for_each(|n| tree.push(leaf(format!("{epoch}/{n}").as_bytes())));
    tree
}

fn head(epoch: u64, size: u64) -> Head {
    Head { epoch, size, root: tree(epoch, size).root() }
}

fn checkpoint(head: Head, previous: Option<Head>) -> Checkpoint {
    Checkpoint { node: "eu-1".into(), head, previous, leaves: None, lost: 0, end: false }
}

/// What was proved from `from` on.
fn proof(epoch: u64, from: u64, size: u64) -> Vec<Hash> {
    let mut grown = Span::behind(from);
    (from + 1..=size).for_each(|n| grown.push(leaf(format!("{epoch}/{n}").as_bytes())));
    grown.proof(&tree(epoch, from)).unwrap_or_default()
}

fn kept(answer: Answer) -> String {
    match answer {
        Answer::Kept(certificate) => certificate,
        Answer::Wants { epoch, from } => panic!("wants {epoch} from {from}"),
    }
}

impl Bench {
    /// Shows it as a node does that tells the truth about its own past.
    async fn see(&self, checkpoint: &Checkpoint) -> Result<String, WitnessError> {
        let Head { epoch, size, .. } = checkpoint.head;
        match self.see_from(checkpoint, 0, &[]).await? {
            Answer::Wants { epoch: wanted, from } if wanted == epoch => {
                self.see_from(checkpoint, from, &proof(epoch, from, size)).await.map(kept)
            }
            answer => Ok(kept(answer)),
        }
    }

    async fn see_from(
        &self,
        checkpoint: &Checkpoint,
        from: u64,
        proof: &[Hash],
    ) -> Result<Answer, WitnessError> {
        let note = checkpoint.sign(&self.node).unwrap().to_string();
        self.witness.see(Shown { from, proof, ..self.shown(&note, "") }).await
    }

    fn shown<'a>(&self, note: &'a str, certificate: &'a str) -> Shown<'a> {
        let (key, from, past_gone) = (self.node.public(), 0, false);
        let (node, region) = ("eu-1", "eu");
        Shown { node, region, key, note, certificate, from, proof: &[], past_gone }
    }
}

#[tokio::test]
async fn a_key_is_certified_and_the_newest_checkpoint_kept_and_cosigned() {
    let bench = bench().await;
    let authority = bench.witness.authority().unwrap();
    for size in [3, 3, 5] {
        let text = bench.see(&checkpoint(head(7, size), None)).await.unwrap();
        let certificate = Certificate::read(&text, &authority).unwrap();
        assert_eq!((certificate.node.as_str(), certificate.key), ("eu-1", bench.node.public()));
    }
    // Every replica uses the same key, and sees the same.
    let again = Witness::load_or_make(&bench.store, &bench.vault, Arc::new(bench.clock.clone()));
    let again = again.await.unwrap();
    assert_eq!(again.authority(), Some(authority.clone()));
    let notes: Vec<Note> =
        again.list().await.unwrap().iter().map(|note| note.parse().unwrap()).collect();
    let newest = notes.last().unwrap();
    assert_eq!(parse(&newest.to_string()).unwrap().head, head(7, 5));
    assert_eq!(authority.cosigner().verify(newest), Ok(Some(1_800_000_000)));
    // A certificate that holds is not made anew.
    let note = checkpoint(head(7, 6), None).sign(&bench.node).unwrap().to_string();
    let first = bench.see(&checkpoint(head(7, 5), None)).await.unwrap();
    bench.clock.advance(std::time::Duration::from_secs(60));
    let proof = proof(7, 5, 6);
    let shown = Shown { from: 5, proof: &proof, ..bench.shown(&note, &first) };
    assert_eq!(kept(bench.witness.see(shown).await.unwrap()), first);
    // The private key is in the store under the vault's seal alone.
    let entry = bench.store.get(KEY).await.unwrap().unwrap();
    let plain = bench.witness.signer.to_pkcs8().unwrap();
    assert!(!entry.value.windows(16).any(|window| window == &plain[16..32]));
}

#[tokio::test]
async fn what_contradicts_is_refused_and_what_was_seen_stays() {
    let bench = bench().await;
    let first = head(7, 5);
    bench.see(&checkpoint(first, None)).await.unwrap();
    let other = Head { root: leaf(b"other"), ..first };
    for (what, bad) in [
        ("shorter", checkpoint(head(7, 4), None)),
        ("other records", checkpoint(other, None)),
        ("another past", checkpoint(head(7, 9), Some(head(6, 1)))),
        ("continues less than was seen", checkpoint(head(8, 1), Some(head(7, 4)))),
        ("continues other records", checkpoint(head(8, 1), Some(other))),
    ] {
        let error = bench.see(&bad).await.unwrap_err();
        assert!(matches!(error, WitnessError::Contradiction { .. }), "{what}: {error}");
    }
    assert_eq!(bench.witness.contradictions.get(), 5);
    // What came after the last checkpoint that was seen may be more, once it is proved.
    let next = checkpoint(head(8, 1), Some(head(7, 6)));
    let unproved = bench.see_from(&next, 0, &[]).await.unwrap();
    assert_eq!(unproved, Answer::Wants { epoch: 7, from: 5 });
    bench.see(&Checkpoint { end: true, ..checkpoint(head(7, 6), None) }).await.unwrap();
    bench.see(&next).await.unwrap();
    let end = Checkpoint { end: true, ..next };
    bench.see(&end).await.unwrap();
    let error = bench.see(&checkpoint(head(8, 2), Some(head(7, 6)))).await.unwrap_err();
    assert!(error.to_string().contains("after its end"), "{error}");
    assert_eq!(bench.witness.list().await.unwrap().len(), 4);
}

/// Whoever has the node's key can sign another history, and cannot prove that it continues this.
#[tokio::test]
async fn a_longer_log_must_be_proved_to_continue_what_was_seen() {
    let bench = bench().await;
    bench.see(&checkpoint(head(7, 5), None)).await.unwrap();
    let longer = checkpoint(head(7, 9), None);
    let wants = Answer::Wants { epoch: 7, from: 5 };
    for from in [0, 4, 6, 9] {
        assert_eq!(bench.see_from(&longer, from, &proof(7, from, 9)).await.unwrap(), wants);
    }
    let rewritten = Head { root: leaf(b"rewritten"), ..longer.head };
    let short = &proof(7, 5, 9)[1..];
    for (what, shown, proof) in [
        ("rewritten", checkpoint(rewritten, None), proof(7, 5, 9)),
        ("no proof", longer.clone(), Vec::new()),
        ("half a proof", longer.clone(), short.to_vec()),
        ("a proof of other records", longer.clone(), proof(6, 5, 9)),
        ("a proof without end", longer.clone(), vec![leaf(b"x"); PROOF_HASHES_MAX + 1]),
    ] {
        let error = bench.see_from(&shown, 5, &proof).await.unwrap_err();
        assert!(error.to_string().contains("not proved to continue the 5"), "{what}: {error}");
    }
    let newest = bench.witness.list().await.unwrap().pop().unwrap();
    assert_eq!(parse(&newest).unwrap().head, head(7, 5), "what was seen stays");
    bench.see(&longer).await.unwrap();
}

/// Records of the epoch before that nobody has any more are told, and hold nobody up for ever.
#[tokio::test]
async fn an_end_that_cannot_be_proved_any_more_is_taken_with_an_error() {
    let bench = bench().await;
    bench.see(&checkpoint(head(7, 5), None)).await.unwrap();
    let next = checkpoint(head(8, 1), Some(head(7, 9)));
    let note = next.sign(&bench.node).unwrap().to_string();
    let shown = Shown { past_gone: true, ..bench.shown(&note, "") };
    kept(bench.witness.see(shown).await.unwrap());
    // Both states stay: whoever has the records finds out whether one continues the other.
    assert_eq!(bench.witness.list().await.unwrap().len(), 2);
    // So it is with a node whose whole log is gone, which begins anew.
    let anew = checkpoint(head(9, 1), None);
    let wants = Answer::Wants { epoch: 8, from: 1 };
    assert_eq!(bench.see_from(&anew, 0, &[]).await.unwrap(), wants);
    let note = anew.sign(&bench.node).unwrap().to_string();
    kept(bench.witness.see(Shown { past_gone: true, ..bench.shown(&note, "") }).await.unwrap());
    assert_eq!(bench.witness.list().await.unwrap().len(), 3);
    assert_eq!(bench.witness.contradictions.get(), 2);
}

#[tokio::test]
async fn only_the_nodes_own_signed_checkpoints_count() {
    let bench = bench().await;
    let good = checkpoint(head(7, 5), None);
    let note = good.sign(&bench.node).unwrap().to_string();
    let shown = bench.shown(&note, "");
    let other = Signer::generate().unwrap().public();
    let foreign = bench.node.sign("x", "something else\n".to_owned()).unwrap().to_string();
    for bad in [
        Shown { node: "eu-2", ..shown },
        Shown { key: other, ..shown },
        Shown { note: &foreign, ..shown },
        Shown { note: "", ..shown },
    ] {
        assert!(matches!(bench.witness.see(bad).await, Err(WitnessError::Bad(_))), "{bad:?}");
    }
    assert!(bench.witness.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_long_epoch_leaves_milestones_and_many_epochs_do_not_pile_up() {
    let bench = bench().await;
    for size in 1..=100 {
        bench.see(&checkpoint(head(7, size), None)).await.unwrap();
        bench.clock.advance(std::time::Duration::from_secs(MILESTONE_SECS));
    }
    let kept = bench.witness.list().await.unwrap().len();
    assert!((3..=MILESTONES_MAX + 1).contains(&kept), "{kept}");
    let mut previous = head(7, 100);
    for epoch in 8..8 + EPOCHS_MAX as u64 {
        bench.see(&checkpoint(head(epoch, 1), Some(previous))).await.unwrap();
        previous = head(epoch, 1);
    }
    assert_eq!(bench.witness.list().await.unwrap().len(), EPOCHS_MAX);
}
