use tokio_util::sync::CancellationToken;
use weir_model::resource::Spec;
use weir_model::testing::World;
use weir_runtime::clock::ManualClock;

use super::*;
use crate::index::{self, Index};
use crate::store::HEAD;
use crate::store::embedded::{Embedded, History};
use crate::vault::{LocalKeys, Vault};

const NOW: i64 = 1_800_000_000;

struct Replica {
    sign_ins: SignIns,
    index: Index,
}

struct Scene {
    store: Arc<dyn Store>,
    clock: ManualClock,
    replicas: [Replica; 2],
}

/// Two replicas over one store.
async fn scene() -> Scene {
    let world = World::new().group("acme").documents(
        "apiVersion: weir/v1\nkind: IdentityProvider\nmetadata: {name: corp, group: acme}\n\
         spec: {issuer: 'https://id.example', audiences: [x]}\n",
    );
    let store: Arc<dyn Store> = Arc::new(Embedded::in_memory(History::default()).unwrap());
    let mut ops = vec![Op::Put(HEAD.to_owned(), bytes::Bytes::new())];
    ops.extend(world.set().iter().map(|r| Op::Put(index::path(&r.key), r.canonical.clone())));
    store.commit(Vec::new(), ops).await.unwrap();
    let clock = ManualClock::at_ms(u64::try_from(NOW).unwrap() * 1_000);
    let keys = LocalKeys::generate().unwrap();
    let replica = async || {
        let vault = Vault::new(Arc::new(LocalKeys::parse(keys.expose()).unwrap()));
        let index = Index::start(store.clone(), CancellationToken::new()).await.unwrap();
        let author = Author::new(store.clone(), vault, index.newest());
        let sign_ins = SignIns::new(store.clone(), author, Arc::new(clock.clone()));
        Replica { sign_ins, index }
    };
    let replicas = [replica().await, replica().await];
    Scene { store, clock, replicas }
}

fn turn(session: &str, number: u64, attempt: &str) -> Turn {
    let (session, attempt) = (session.to_owned(), attempt.to_owned());
    Turn { session, number, attempt, until: NOW + 1_000 }
}

impl Scene {
    async fn at(&self, replica: usize, step: Step) -> Result<Done, SignInError> {
        self.replicas[replica].sign_ins.step(&"acme".parse().unwrap(), step).await
    }

    async fn take(&self, replica: usize, turn: Turn) -> Verdict {
        self.at(replica, Step::Take(turn)).await.unwrap().verdict
    }

    /// What is revoked, as a replica knows it.
    fn revoked(&self, replica: usize) -> Vec<(Revoked, Option<i64>)> {
        let newest = self.replicas[replica].index.newest();
        let set = &newest.borrow().set;
        let group = "acme".parse().unwrap();
        let all = set.of_kind(Kind::Revocation, Some(&group)).map(|r| match &r.spec {
            Spec::Revocation(r) => (r.what.clone(), r.expires),
            other => panic!("{other:?}"),
        });
        all.collect()
    }
}

#[tokio::test]
async fn a_turn_is_taken_once_whichever_replica_is_asked() {
    let scene = scene().await;
    assert_eq!(scene.take(0, turn("s1", 0, "a")).await, Verdict::Granted);
    assert_eq!(scene.take(1, turn("s1", 0, "a")).await, Verdict::Granted, "did not hear it");
    assert_eq!(scene.take(1, turn("s1", 1, "b")).await, Verdict::Granted);
    assert_eq!(scene.take(0, turn("s1", 1, "c")).await, Verdict::Again(None), "not known yet");
    scene.at(1, Step::Keep(turn("s1", 1, "b"), "sealed".to_owned())).await.unwrap();
    scene.at(1, Step::Keep(turn("s1", 1, "x"), "forged".to_owned())).await.unwrap();
    let again = Verdict::Again(Some("sealed".to_owned()));
    assert_eq!(scene.take(0, turn("s1", 1, "c")).await, again);
    scene.at(0, Step::GiveBack(turn("s1", 1, "b"))).await.unwrap();
    assert_eq!(scene.take(0, turn("s1", 1, "d")).await, Verdict::Granted, "nothing came of it");

    // Many at once, at both.
    let mut attempts = Vec::new();
    for n in 0..16 {
        let sign_ins = scene.replicas[n % 2].sign_ins.clone();
        let step = Step::Take(turn("s2", 0, &format!("a{n}")));
        let group: Name = "acme".parse().unwrap();
        attempts.push(tokio::spawn(async move { sign_ins.step(&group, step).await }));
    }
    let mut granted = 0;
    for attempt in attempts {
        match attempt.await.unwrap().unwrap().verdict {
            Verdict::Granted => granted += 1,
            Verdict::Over => {}
            again @ Verdict::Again(_) => panic!("of a code: {again:?}"),
        }
    }
    assert_eq!(granted, 1);
}

#[tokio::test]
async fn a_copy_ends_the_sign_in_everywhere() {
    let scene = scene().await;
    scene.take(0, turn("s1", 0, "a")).await;
    scene.take(0, turn("s1", 1, "b")).await;
    scene.clock.advance(Duration::from_secs(31));
    let found = scene.at(1, Step::Take(turn("s1", 1, "thief"))).await.unwrap();
    assert_eq!(found.verdict, Verdict::Over);
    let (withdrawn, words) = found.withdrawn.expect("it is told what was revoked");
    assert!(words.contains("s1") && withdrawn.revision.0 > 0, "{words}");
    assert_eq!(scene.revoked(1), [(Revoked::Session("s1".to_owned()), Some(NOW + 1_000))]);
    assert_eq!(scene.take(0, turn("s1", 2, "c")).await, Verdict::Over, "the rightful one as well");
    let again = scene.at(1, Step::Take(turn("s1", 1, "thief"))).await.unwrap();
    assert!(again.withdrawn.is_none(), "once");
}

#[tokio::test]
async fn a_sign_in_that_an_operator_ended_stays_ended() {
    let scene = scene().await;
    scene.take(0, turn("s1", 0, "a")).await;
    let group = "acme".parse().unwrap();
    scene.replicas[1].sign_ins.end(&group, "s1").await.unwrap();
    scene.replicas[1].sign_ins.end(&group, "of-an-mcp-client").await.unwrap();
    assert_eq!(scene.take(0, turn("s1", 1, "b")).await, Verdict::Over);
    assert_eq!(scene.take(0, turn("of-an-mcp-client", 0, "b")).await, Verdict::Granted);
}

#[tokio::test]
async fn signing_out_at_the_provider_ends_what_was_had() {
    let scene = scene().await;
    let out = |provider: &str, what| {
        let provider = provider.parse().unwrap();
        Step::SignedOut(SignedOut { provider, what })
    };
    let session = Ended::Session("their-sid".to_owned());
    let subject = Ended::Subject { id: "alice".to_owned(), before: NOW + 9_999 };
    scene.at(0, out("corp", session.clone())).await.unwrap();
    scene.at(0, out("corp", session)).await.unwrap();
    scene.at(0, out("corp", subject)).await.unwrap();
    let mut revoked = scene.revoked(0);
    revoked.sort_by_key(|(what, _)| format!("{what:?}"));
    let until = Some(NOW + bounds::SIGNED_OUT_SECS);
    let alice =
        RevokedPrincipal { id: "jwt:corp:alice".to_owned(), issued_before: Some(NOW + 300) };
    let expect =
        [(Revoked::Principal(alice), until), (Revoked::Session("their-sid".to_owned()), until)];
    assert_eq!(revoked, expect);
    let stranger = out("other", Ended::Session("x".to_owned()));
    assert!(matches!(scene.at(0, stranger).await, Err(SignInError::Bad(_))));
}

#[tokio::test]
async fn what_no_proxy_means_is_refused() {
    let scene = scene().await;
    let long = "x".repeat(65);
    let kept = "x".repeat(bounds::SIGN_IN_ANSWER_BYTES_MAX + 1);
    for step in [
        Step::Take(turn("", 0, "a")),
        Step::Take(turn("a/b", 0, "a")),
        Step::Take(turn(&long, 0, "a")),
        Step::GiveBack(turn("s", 0, "..\0")),
        Step::Keep(turn("s", 0, "a"), kept),
    ] {
        let got = scene.at(0, step.clone()).await;
        assert!(matches!(got, Err(SignInError::Bad(_))), "{step:?}");
    }
    let nowhere: Name = "nowhere".parse().unwrap();
    let elsewhere = scene.replicas[0].sign_ins.step(&nowhere, Step::Take(turn("s", 0, "a")));
    assert!(matches!(elsewhere.await, Err(SignInError::Bad(_))));
}

#[tokio::test]
async fn what_is_over_is_cleared_away_and_there_is_an_end_to_it() {
    let scene = scene().await;
    scene.take(0, turn("s1", 0, "a")).await;
    scene.take(0, turn("s1", 1, "b")).await;
    scene.at(0, Step::Keep(turn("s1", 1, "b"), "sealed".to_owned())).await.unwrap();
    let count = async |prefix: &str| scene.store.list(prefix).await.unwrap().entries.len();
    scene.replicas[0].sign_ins.sweep(true).await.unwrap();
    assert_eq!((count(TURNS).await, count(ANSWERS).await), (1, 1), "still asked for");
    scene.clock.advance(Duration::from_secs(31));
    scene.replicas[1].sign_ins.sweep(true).await.unwrap();
    assert_eq!((count(TURNS).await, count(ANSWERS).await), (1, 0));
    scene.clock.advance(Duration::from_secs(1_000));
    scene.replicas[1].sign_ins.sweep(true).await.unwrap();
    assert_eq!(count(TURNS).await, 0);

    let full = &scene.replicas[0].sign_ins;
    full.have.store(bounds::SIGN_IN_RECORDS_MAX, Ordering::Relaxed);
    let late = |turn: Turn| Turn { until: NOW + 9_000, ..turn };
    let refused = scene.at(0, Step::Take(late(turn("s2", 0, "a")))).await;
    assert!(matches!(refused, Err(SignInError::Full)));
    full.sweep(true).await.unwrap();
    assert_eq!(scene.take(0, late(turn("s2", 0, "a"))).await, Verdict::Granted);
}

#[tokio::test]
async fn a_trip_to_the_provider_is_finished_once_and_ends_nothing() {
    let scene = scene().await;
    let once = async |at: usize, attempt: &str| {
        let trip = Turn { until: NOW + 600, ..turn("trip-1", 0, attempt) };
        scene.at(at, Step::Once(trip)).await.unwrap()
    };
    assert_eq!(once(0, "a").await.verdict, Verdict::Granted);
    assert_eq!(once(1, "a").await.verdict, Verdict::Granted, "did not hear it");
    for at in [0, 1] {
        let again = once(at, "b").await;
        assert_eq!(again.verdict, Verdict::Over);
        assert!(again.withdrawn.is_none());
    }
    assert_eq!(scene.revoked(0), []);
    scene.clock.advance(Duration::from_secs(601));
    scene.replicas[0].sign_ins.sweep(true).await.unwrap();
    assert_eq!(scene.store.list("state/sign-ins/").await.unwrap().entries.len(), 0, "it is over");
}
