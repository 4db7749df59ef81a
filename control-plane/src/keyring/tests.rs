use std::collections::BTreeSet;
use std::time::Duration;

use weir_model::seal::{SealError, Sealer};
use weir_model::secret::Secret;
use weir_runtime::clock::ManualClock;

use super::*;
use crate::store::embedded::{Embedded, History};
use crate::vault::LocalKeys;

const DAY: u64 = 86_400;

struct Bench {
    keys: Keys,
    store: Arc<dyn Store>,
    vault: Vault,
    clock: ManualClock,
}

fn bench() -> Bench {
    let store: Arc<dyn Store> = Arc::new(Embedded::in_memory(History::default()).unwrap());
    let keys = LocalKeys::generate().unwrap();
    let vault = Vault::new(Arc::new(LocalKeys::parse(keys.expose()).unwrap()));
    let clock = ManualClock::at_ms(1_800_000_000_000);
    let timing = Timing {
        rotate: Duration::from_secs(30 * DAY),
        overlap: Duration::from_secs(7 * DAY),
        settle: Duration::from_secs(600),
    };
    let shared = Arc::new(clock.clone());
    let keys = Keys::new(Arc::clone(&store), vault.clone(), shared, timing);
    Bench { keys, store, vault, clock }
}

impl Bench {
    fn pass(&self, secs: u64) {
        self.clock.advance(Duration::from_secs(secs));
    }

    async fn ids(&self) -> Vec<String> {
        self.keys.list().await.unwrap().into_iter().map(|key| key.id).collect()
    }

    async fn turn(&self) -> Option<Step> {
        self.keys.turn().await.unwrap().map(|done| done.step)
    }

    /// What a proxy seals and opens with now.
    async fn sealer(&self) -> Sealer {
        let ring = self.keys.find().await.unwrap().ring.unwrap();
        let mut keys = Vec::new();
        for entry in ring.keys {
            let path = secret_path(&entry.key.secret);
            let sealed = self.store.get(&path).await.unwrap().unwrap().value;
            let key = self.vault.open(&path, &sealed).unwrap();
            keys.push((entry.id, Arc::new(Secret::new(key.expose().clone()))));
        }
        Sealer::new(&keys).unwrap()
    }

    async fn secrets(&self) -> usize {
        self.store.list("secrets/").await.unwrap().entries.len()
    }
}

/// A token is good until its key's overlap is over, whenever in the key's life it was sealed.
#[tokio::test]
async fn keys_rotate_with_overlap() {
    let bench = bench();
    bench.keys.ensure().await.unwrap();
    bench.keys.ensure().await.unwrap();
    let first = bench.ids().await;
    assert_eq!((first.len(), bench.turn().await), (1, None));
    let token = bench.sealer().await.seal("session", b"a", b"x").unwrap();
    let opens = async || bench.sealer().await.open("session", b"a", &token);

    bench.pass(30 * DAY);
    assert_eq!(bench.turn().await, Some(Step::Add));
    let [old, new] = &bench.ids().await[..] else { panic!("two keys") };
    assert_eq!((old, bench.turn().await), (&first[0], None));
    // Proxies have it before it seals: whoever seals with it is understood by all others.
    assert!(bench.sealer().await.seal("session", b"a", b"x").unwrap().starts_with(old.as_str()));
    bench.pass(600);
    assert_eq!(bench.turn().await, Some(Step::Promote(new.clone())));
    assert!(bench.sealer().await.seal("session", b"a", b"x").unwrap().starts_with(new.as_str()));
    assert_eq!(opens().await.unwrap(), b"x");
    bench.pass(7 * DAY - 1);
    assert_eq!((bench.turn().await, opens().await.is_ok()), (None, true));
    bench.pass(1);
    assert_eq!(bench.turn().await, Some(Step::Remove(old.clone())));
    assert_eq!(opens().await, Err(SealError::UnknownKey));
    assert_eq!((bench.ids().await, bench.secrets().await), (vec![new.clone()], 1));
    bench.pass(23 * DAY);
    assert_eq!(bench.turn().await, Some(Step::Add));
}

#[tokio::test]
async fn operators_rotate_at_any_time_and_a_leaked_key_goes_at_once() {
    let bench = bench();
    bench.keys.ensure().await.unwrap();
    let token = bench.sealer().await.seal("session", b"a", b"x").unwrap();
    assert_eq!(bench.keys.rotate().await.unwrap().map(|done| done.step), Some(Step::Add));
    assert_eq!(bench.keys.rotate().await.unwrap(), None, "one is on its way");
    bench.pass(600);
    assert!(matches!(bench.turn().await, Some(Step::Promote(_))));
    let listed = bench.keys.list().await.unwrap();
    assert_eq!([listed[0].seals, listed[1].seals], [true, false]);
    assert!(listed[1].life.sealed_until.is_some());
    assert!(bench.sealer().await.open("session", b"a", &token).is_ok());
    let done = bench.keys.replace().await.unwrap().unwrap();
    assert_eq!(done.step, Step::Replace);
    assert_eq!((bench.ids().await.len(), bench.secrets().await), (1, 1));
    let opened = bench.sealer().await.open("session", b"a", &token);
    assert_eq!(opened, Err(SealError::UnknownKey));
}

/// Of several replicas that look at the same time one makes each step.
#[tokio::test]
async fn replicas_make_each_step_once() {
    let bench = bench();
    bench.keys.ensure().await.unwrap();
    for (pass, expected) in [(30 * DAY, 2), (600, 2), (7 * DAY, 1)] {
        bench.pass(pass);
        let turns = (0..4).map(|_| bench.keys.turn());
        let made = futures_util::future::join_all(turns).await;
        let made: Vec<Done> = made.into_iter().filter_map(Result::unwrap).collect();
        assert_eq!((made.len(), bench.ids().await.len()), (1, expected), "{made:?}");
    }
}

/// A keyring of a build that kept no account of its keys.
#[tokio::test]
async fn a_key_that_nothing_is_known_of_begins_its_life_now() {
    let bench = bench();
    bench.keys.ensure().await.unwrap();
    bench.store.commit(Vec::new(), vec![Op::Delete(PATH.to_owned())]).await.unwrap();
    bench.pass(365 * DAY);
    assert_eq!(bench.turn().await, None);
    bench.pass(30 * DAY);
    assert_eq!(bench.turn().await, Some(Step::Add));
}

/// One that another build wrote is not replaced: that would end every session.
#[tokio::test]
async fn a_keyring_that_cannot_be_read_is_left_alone() {
    let bench = bench();
    bench.keys.ensure().await.unwrap();
    let path = index::path(&ResourceKey::global(Kind::Keyring, SESSIONS));
    let op = Op::Put(path, bytes::Bytes::from_static(b"{}"));
    bench.store.commit(Vec::new(), vec![op]).await.unwrap();
    for refused in [bench.keys.turn().await, bench.keys.replace().await] {
        assert!(matches!(refused, Err(KeyringError::Unreadable)), "{refused:?}");
    }
    assert!(bench.keys.ensure().await.is_err());
    assert_eq!(bench.secrets().await, 1);
}

#[tokio::test]
async fn there_are_never_more_keys_than_a_document_holds() {
    let bench = bench();
    bench.keys.ensure().await.unwrap();
    let mut seen = BTreeSet::new();
    for _ in 0..10 {
        let _ = bench.keys.rotate().await.unwrap();
        bench.pass(600);
        let _ = bench.turn().await;
        seen.insert(bench.ids().await.len());
    }
    assert_eq!(seen.last(), Some(&4));
}
