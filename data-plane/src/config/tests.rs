use std::collections::BTreeMap;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use weir_model::id::Revision;
use weir_model::seal::{NodeKey, seal_to};
use weir_model::sync::Applied;
use weir_model::sync::statement::{Anchor, Signer};
use weir_model::testing::World;

use super::*;

fn region() -> Name {
    "eu".parse().unwrap()
}

/// A state as the control plane signs it.
fn held(key: &NodeKey) -> (Held, Anchor) {
    let authority = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let anchor = Anchor(authority.public_key().as_ref().to_vec().into());
    let endorse =
        |bytes: &[u8]| authority.sign(&SystemRandom::new(), bytes).map(|s| s.as_ref().to_vec());
    let signer = Signer::new(1, endorse).unwrap();
    let world = World::new().group("acme");
    let set = world.set();
    let applied = Applied { revision: Revision(7), digest: set.digest() };
    let seal = |(id, secret): (&String, &Arc<Secret<Vec<u8>>>)| {
        (id.clone(), seal_to(key.public(), id, secret.expose()).unwrap().into())
    };
    let sealed: BTreeMap<_, _> = world.secrets().iter().map(seal).collect();
    let statement = Some(signer.sign(&region(), applied));
    (Held { applied, set, sealed, statement }, anchor)
}

#[test]
fn a_checkpoint_is_read_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let key = NodeKey::generate();
    let (held, anchor) = held(&key);
    assert!(checkpoint::read(folder.path(), &anchor, &region()).is_none(), "nothing yet");
    checkpoint::write(folder.path(), &held).unwrap();
    let (read, age) = checkpoint::read(folder.path(), &anchor, &region()).unwrap();
    assert_eq!(read, held);
    assert!(age < Duration::from_secs(60));
    let applied = apply::compile(&read, &key, &Default::default());
    assert_eq!((applied.unopened, applied.refused.len()), (0, 0));
    let other = apply::compile(&read, &NodeKey::generate(), &Default::default());
    assert_eq!(other.unopened, 1, "secrets are for one node");

    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(folder.path().join("checkpoint")).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
    }
}

#[test]
fn the_age_of_a_checkpoint_outlives_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let (held, anchor) = held(&NodeKey::generate());
    checkpoint::write(folder.path(), &held).unwrap();
    let file = std::fs::File::options().append(true).open(folder.path().join("checkpoint"));
    let hour = Duration::from_secs(3600);
    file.unwrap().set_modified(std::time::SystemTime::now() - hour).unwrap();
    let (_, age) = checkpoint::read(folder.path(), &anchor, &region()).unwrap();
    assert!(age >= hour);
    let state = State::restored(Default::default(), age);
    assert!(state.age() >= hour);
    state.heard();
    assert!(state.age() < hour);
}

#[test]
fn what_is_damaged_foreign_or_of_another_region_is_set_aside() {
    let (held, anchor) = held(&NodeKey::generate());
    let check = |change: &dyn Fn(&mut Vec<u8>), region: &str, anchor: &Anchor| {
        let folder = tempfile::tempdir().unwrap();
        checkpoint::write(folder.path(), &held).unwrap();
        let path = folder.path().join("checkpoint");
        let mut bytes = std::fs::read(&path).unwrap();
        change(&mut bytes);
        std::fs::write(&path, &bytes).unwrap();
        assert!(checkpoint::read(folder.path(), anchor, &region.parse().unwrap()).is_none());
        assert!(!path.exists() && path.with_extension("broken").exists());
    };
    check(&|bytes| bytes[0] ^= 1, "eu", &anchor);
    check(&|bytes| bytes.truncate(10), "eu", &anchor);
    check(&|bytes| bytes.truncate(bytes.len() - 1), "eu", &anchor);
    check(&|bytes| bytes[18] = 255, "eu", &anchor);
    let altered = |bytes: &mut Vec<u8>| {
        let at = bytes.windows(4).position(|w| w == b"acme").unwrap();
        bytes[at] = b'b';
    };
    check(&altered, "eu", &anchor);
    check(&|_| {}, "us", &anchor);
    let (_, other) = super::tests::held(&NodeKey::generate());
    check(&|_| {}, "eu", &other);
}

#[tokio::test]
async fn a_broken_identity_is_told_and_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("identity.json");
    let options = || Options {
        folder: folder.path().to_owned(),
        endpoints: vec![Endpoint::Tcp("127.0.0.1:9".to_owned())],
        token: None,
        node: None,
        timing: Timing::default(),
        clock: weir_runtime::clock::SystemClock::shared(),
    };
    let watch = Watch::never();
    let error = Config::open(options(), &watch).await.unwrap_err();
    assert!(matches!(error, ConfigError::NoToken), "{error}");
    let secret = "c2VjcmV0LXNlY3JldA==";
    for text in [
        "nonsense".to_owned(),
        format!("{{\"version\": 1, \"key\": \"{secret}\"}}"),
        format!(
            "{{\"version\": 2, \"certificate\": \"\", \"key\": \"{secret}\", \
             \"authority\": \"\", \"sealingKey\": \"\"}}"
        ),
        format!(
            "{{\"version\": 1, \"certificate\": \"\", \"key\": \"{secret}\", \
             \"authority\": \"\", \"sealingKey\": \"{secret}\"}}"
        ),
    ] {
        std::fs::write(&path, &text).unwrap();
        let error = Config::open(options(), &watch).await.unwrap_err().to_string();
        assert!(error.contains("identity.json") && !error.contains(secret), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
    let nobody = Options { endpoints: Vec::new(), ..options() };
    let error = Config::open(nobody, &watch).await.unwrap_err();
    assert!(matches!(error, ConfigError::NoEndpoint), "{error}");
}

#[test]
fn what_is_refused_is_told_within_bounds() {
    let mut world = World::new().group("acme");
    for at in 0..bounds_refused() + 5 {
        world = world.policy("acme", &format!("p{at}"), "permit (nonsense");
    }
    let set = world.set();
    let held = Held {
        applied: Applied { revision: Revision(1), digest: set.digest() },
        set,
        ..Held::default()
    };
    let applied = apply::compile(&held, &NodeKey::generate(), &Default::default());
    assert_eq!(applied.refused.len(), bounds_refused());
    assert!(applied.refused.last().unwrap().message.contains("more documents"));
}

fn bounds_refused() -> usize {
    weir_model::bounds::REFUSED_MAX
}
