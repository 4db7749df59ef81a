use weir_audit::merkle::leaf;
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

fn head(epoch: u64, size: u64) -> Head {
    Head { epoch, size, root: leaf(format!("{epoch}/{size}").as_bytes()) }
}

fn checkpoint(head: Head, previous: Option<Head>) -> Checkpoint {
    Checkpoint { node: "eu-1".into(), head, previous, end: false }
}

impl Bench {
    async fn see(&self, checkpoint: &Checkpoint) -> Result<String, WitnessError> {
        let note = checkpoint.sign(&self.node).unwrap().to_string();
        let (key, certificate) = (self.node.public(), "");
        let shown = Shown { node: "eu-1", region: "eu", key, note: &note, certificate };
        self.witness.see(shown).await
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
    let (key, certificate) = (bench.node.public(), first.as_str());
    let shown = Shown { node: "eu-1", region: "eu", key, note: &note, certificate };
    assert_eq!(bench.witness.see(shown).await.unwrap(), first);
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
        ("forgets the epoch before", checkpoint(head(8, 1), None)),
        ("continues less than was seen", checkpoint(head(8, 1), Some(head(7, 4)))),
        ("continues other records", checkpoint(head(8, 1), Some(other))),
    ] {
        let error = bench.see(&bad).await.unwrap_err();
        assert!(matches!(error, WitnessError::Contradiction { .. }), "{what}: {error}");
    }
    // What came after the last checkpoint that was seen may be more.
    bench.see(&checkpoint(head(8, 1), Some(head(7, 6)))).await.unwrap();
    let end = Checkpoint { end: true, ..checkpoint(head(8, 1), Some(head(7, 6))) };
    bench.see(&end).await.unwrap();
    let error = bench.see(&checkpoint(head(8, 2), Some(head(7, 6)))).await.unwrap_err();
    assert!(error.to_string().contains("after its end"), "{error}");
    assert_eq!(bench.witness.list().await.unwrap().len(), 3);
}

#[tokio::test]
async fn only_the_nodes_own_signed_checkpoints_count() {
    let bench = bench().await;
    let good = checkpoint(head(7, 5), None);
    let note = good.sign(&bench.node).unwrap().to_string();
    let (key, certificate) = (bench.node.public(), "");
    let shown = Shown { node: "eu-1", region: "eu", key, note: &note, certificate };
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
