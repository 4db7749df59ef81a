use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use weir_model::sync::identity::split_join_token;
use weir_runtime::clock::ManualClock;

use super::*;
use crate::store::embedded::{Embedded, History};
use crate::vault::{LocalKeys, Vault};

struct Bench {
    clock: ManualClock,
    store: Arc<dyn Store>,
    ca: Arc<Ca>,
    enrolment: Enrolment,
}

async fn bench() -> Bench {
    let clock = ManualClock::at_ms(1_800_000_000_000);
    let store: Arc<dyn Store> = Arc::new(Embedded::in_memory(History::default()).unwrap());
    let keys = LocalKeys::generate().unwrap();
    let vault = Vault::new(Arc::new(LocalKeys::parse(keys.expose()).unwrap()));
    let ca = Arc::new(Ca::load_or_make(&*store, &vault, 1_800_000_000).await.unwrap());
    let enrolment = Enrolment::new(store.clone(), ca.clone(), Arc::new(clock.clone()));
    Bench { clock, store, ca, enrolment }
}

fn request() -> Vec<u8> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    CertificateParams::default().serialize_request(&key).unwrap().der().to_vec()
}

fn eu() -> Name {
    "eu".parse().unwrap()
}

#[tokio::test]
async fn a_token_lets_one_node_in_once() {
    let bench = bench().await;
    let (pending, text) = bench.enrolment.mint(eu(), None, 60).await.unwrap();
    let text = text.expose().clone();
    assert_eq!(split_join_token(&text).unwrap().1, bench.ca.fingerprint());
    let entry = bench.store.get(&format!("state/enrol/{}", pending.id)).await.unwrap().unwrap();
    let (token, _) = split_join_token(&text).unwrap();
    // The random part is base64url: it may hold underscores itself.
    let secret = token.strip_prefix(&format!("weir_en_{}_", pending.id)).unwrap();
    assert!(!String::from_utf8_lossy(&entry.value).contains(secret), "stored hashed");

    let (one, two) = (request(), request());
    let (a, b) = tokio::join!(
        bench.enrolment.enrol(&text, "n1", &one),
        bench.enrolment.enrol(&text, "n2", &two)
    );
    let winners = [&a, &b].iter().filter(|r| r.is_ok()).count();
    assert_eq!(winners, 1, "{a:?} {b:?}");
    let loser = if a.is_ok() { b } else { a };
    assert!(matches!(loser.unwrap_err(), EnrolError::Token));
    let again = bench.enrolment.enrol(&text, "n1", &one).await;
    assert!(matches!(again.unwrap_err(), EnrolError::Token));
}

#[tokio::test]
async fn bad_tokens_and_bad_requests_are_told_apart_from_each_other() {
    let bench = bench().await;
    let (_, text) = bench.enrolment.mint(eu(), Some("n1".parse().unwrap()), 60).await.unwrap();
    let text = text.expose().clone();
    let (token, _) = split_join_token(&text).unwrap();
    let (kept, last) = token.split_at(token.len() - 1);
    let forged = format!("{kept}{}", if last == "A" { "B" } else { "A" });
    for bad in ["", "weir_en_", "weir_en_123_abc", "weir_op_123_abc", &forged] {
        let error = bench.enrolment.enrol(bad, "n1", &request()).await.unwrap_err();
        assert!(matches!(error, EnrolError::Token), "{bad}: {error}");
    }
    let error = bench.enrolment.enrol(&text, "n2", &request()).await.unwrap_err();
    assert!(matches!(error, EnrolError::Node(_)), "{error}");
    let error = bench.enrolment.enrol(&text, "n1", b"nonsense").await.unwrap_err();
    assert!(matches!(error, EnrolError::Ca(CaError::BadRequest(_))), "{error}");
    let enrolled = bench.enrolment.enrol(&text, "", &request()).await.unwrap();
    assert_eq!(enrolled.id.to_string(), "eu/n1");
}

#[tokio::test]
async fn tokens_expire_and_are_swept() {
    let bench = bench().await;
    for secs in [0, -1, bounds::ENROL_TOKEN_SECS_MAX + 1] {
        let error = bench.enrolment.mint(eu(), None, secs).await.unwrap_err();
        assert!(matches!(error, EnrolError::Lifetime));
    }
    let (_, text) = bench.enrolment.mint(eu(), None, 60).await.unwrap();
    let (later, _) = bench.enrolment.mint(eu(), None, 600).await.unwrap();
    bench.clock.advance(Duration::from_secs(60));
    let error = bench.enrolment.enrol(text.expose(), "n1", &request()).await.unwrap_err();
    assert!(matches!(error, EnrolError::Token));
    assert_eq!(bench.enrolment.list().await.unwrap(), std::slice::from_ref(&later));
    assert_eq!(bench.store.list("state/enrol/").await.unwrap().entries.len(), 1);
    assert!(bench.enrolment.revoke(&later.id).await.unwrap());
    assert!(!bench.enrolment.revoke(&later.id).await.unwrap());
    assert_eq!(bench.enrolment.list().await.unwrap(), []);
}

#[tokio::test]
async fn a_node_without_a_good_name_is_refused() {
    let bench = bench().await;
    let (_, text) = bench.enrolment.mint(eu(), None, 60).await.unwrap();
    for bad in ["", "N 1", "../x", &"a".repeat(41)] {
        let error = bench.enrolment.enrol(text.expose(), bad, &request()).await.unwrap_err();
        assert!(matches!(error, EnrolError::Node(_)), "{bad}: {error}");
    }
    assert!(bench.enrolment.enrol(text.expose(), "n1", &request()).await.is_ok());
}

#[tokio::test]
async fn a_name_belongs_to_one_region_or_to_the_control_plane() {
    let bench = bench().await;
    bench.enrolment.reserve("control").await.unwrap();
    bench.enrolment.reserve("control").await.unwrap();
    let us: Name = "us".parse().unwrap();
    let join = async |region: &Name, name: &str| {
        let (_, token) = bench.enrolment.mint(region.clone(), None, 60).await.unwrap();
        bench.enrolment.enrol(token.expose(), name, &request()).await
    };
    join(&eu(), "n1").await.unwrap();
    // A machine that is set up anew keeps its name.
    join(&eu(), "n1").await.unwrap();
    for (region, name, whose) in [(&us, "n1", "region eu"), (&eu(), "control", "control plane")] {
        let error = join(region, name).await.unwrap_err().to_string();
        assert!(error.contains(whose), "{error}");
    }
}
