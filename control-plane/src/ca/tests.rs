use std::sync::Arc;

use super::*;
use crate::store::embedded::{Embedded, History};
use crate::vault::LocalKeys;
use weir_model::sync::Applied;

const NOW: i64 = 1_800_000_000;

fn vault() -> Vault {
    let keys = LocalKeys::generate().unwrap();
    Vault::new(Arc::new(LocalKeys::parse(keys.expose()).unwrap()))
}

fn request() -> Vec<u8> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    CertificateParams::default().serialize_request(&key).unwrap().der().to_vec()
}

fn node() -> NodeId {
    NodeId { region: "eu".parse().unwrap(), node: "n1".parse().unwrap() }
}

#[tokio::test]
async fn replicas_share_one_authority() {
    let store = Embedded::in_memory(History::default()).unwrap();
    let vault = vault();
    let (one, two) =
        tokio::join!(Ca::load_or_make(&store, &vault, NOW), Ca::load_or_make(&store, &vault, NOW));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one.fingerprint(), two.fingerprint());
    assert_eq!(one.anchor(), two.anchor());
    let kept = store.get(PATH).await.unwrap().unwrap().value;
    assert!(!kept.windows(11).any(|w| w == b"certificate"), "sealed at rest");
    let other = super::tests::vault();
    assert!(matches!(Ca::load_or_make(&store, &other, NOW).await.unwrap_err(), CaError::Vault(_)));
}

#[tokio::test]
async fn a_certificate_names_its_node_and_nothing_that_the_request_says() {
    let store = Embedded::in_memory(History::default()).unwrap();
    let ca = Ca::load_or_make(&store, &vault(), NOW).await.unwrap();
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let mut wants = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
    wants.distinguished_name.push(DnType::CommonName, "admin");
    let wants = wants.serialize_request(&key).unwrap();
    let issued = ca.issue_node(wants.der(), &node(), NOW, 3600).unwrap();
    let peer = weir_runtime::tls::peer_identity(&issued).unwrap();
    assert_eq!(peer.sole_uri(), Some("spiffe://weir/region/eu/node/n1"));
    assert_eq!(peer.dns_names, Vec::<String>::new());
    assert_eq!(peer.common_name.as_deref(), Some("n1"));
    assert_eq!(peer.not_after_ms, (NOW as u64 + 3600) * 1000);
}

#[tokio::test]
async fn what_is_no_request_is_refused() {
    let store = Embedded::in_memory(History::default()).unwrap();
    let ca = Ca::load_or_make(&store, &vault(), NOW).await.unwrap();
    let good = request();
    assert!(ca.issue_node(&good, &node(), NOW, 60).is_ok());
    let mut altered = good.clone();
    *altered.last_mut().unwrap() ^= 1;
    for bad in [&[][..], b"x", &good[..good.len() - 1], &altered, &vec![0; 5000]] {
        let error = ca.issue_node(bad, &node(), NOW, 60).unwrap_err();
        assert!(matches!(error, CaError::BadRequest(_)), "{error}");
    }
}

#[tokio::test]
async fn signers_are_believed_by_those_who_know_the_authority() {
    let store = Embedded::in_memory(History::default()).unwrap();
    let ca = Ca::load_or_make(&store, &vault(), NOW).await.unwrap();
    let other = Embedded::in_memory(History::default()).unwrap();
    let other = Ca::load_or_make(&other, &vault(), NOW).await.unwrap();
    let region = node().region;
    let signed = ca.signer(NOW, 60).unwrap().sign(&region, Applied::default());
    assert!(signed.verify(&ca.anchor(), &region, Applied::default(), Some(NOW)).is_ok());
    assert!(signed.verify(&ca.anchor(), &region, Applied::default(), Some(NOW + 61)).is_err());
    assert!(signed.verify(&other.anchor(), &region, Applied::default(), Some(NOW)).is_err());
}
