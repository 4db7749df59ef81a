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

fn authority() -> (Signer, Anchor) {
    let authority = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let anchor = Anchor(authority.public_key().as_ref().to_vec().into());
    let endorse =
        |bytes: &[u8]| authority.sign(&SystemRandom::new(), bytes).map(|s| s.as_ref().to_vec());
    (Signer::new(1, endorse).unwrap(), anchor)
}

fn state(world: &World, revision: u64, (signer, key): (&Signer, &NodeKey)) -> Held {
    let set = world.set();
    let applied = Applied { revision: Revision(revision), digest: set.digest() };
    let seal = |(id, secret): (&String, &Arc<Secret<Vec<u8>>>)| {
        (id.clone(), seal_to(key.public(), id, secret.expose()).unwrap().into())
    };
    let sealed: BTreeMap<_, _> = world.secrets().iter().map(seal).collect();
    let statement = Some(signer.sign(&region(), applied));
    Held { applied, set, sealed, statement }
}

/// A state as the control plane signs it.
fn held(key: &NodeKey) -> (Held, Anchor) {
    let (signer, anchor) = authority();
    (state(&World::new().group("acme"), 7, (&signer, key)), anchor)
}

#[test]
fn what_changes_is_added_to_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint");
    let (key, (signer, anchor)) = (NodeKey::generate(), authority());
    let size = || std::fs::metadata(&path).unwrap().len();
    let mut world = World::new().group("acme").account("acme", "ci");
    for at in 0..200 {
        world = world.server("acme", &format!("s{at}"), "http://127.0.0.1:9/mcp");
    }
    let mut written = checkpoint::Written::default();
    let mut last = Arc::new(state(&world, 10, (&signer, &key)));
    written.bring(folder.path(), &last).unwrap();
    let whole = size();
    let mut ends = Vec::new();
    for at in 0..4 {
        let url = format!("http://127.0.0.1:{}/mcp", 10 + at);
        world = world.server("acme", "s7", &url);
        if at == 2 {
            world =
                world.credential("acme", "s7", "x-key", "of the server").without("Server/acme/s9");
        }
        last = Arc::new(state(&world, 11 + at, (&signer, &key)));
        // What is sealed already stays as it is.
        written.bring(folder.path(), &last).unwrap();
        ends.push((size(), Held::clone(&last)));
    }
    assert!(ends[0].0 - whole < 2_048, "{} bytes are added", ends[0].0 - whole);
    let read = || checkpoint::read(folder.path(), &anchor, &region()).map(|(held, _)| held);
    assert_eq!(read().as_ref(), Some(&*last));
    // Torn or damaged: what was before it is good.
    let bytes = std::fs::read(&path).unwrap();
    for cut in [1, 3, 5, 100] {
        std::fs::write(&path, &bytes[..bytes.len() - cut]).unwrap();
        assert_eq!(read().as_ref(), Some(&ends[2].1), "{cut} bytes are missing");
    }
    let mut damaged = bytes.clone();
    let at = usize::try_from(ends[1].0).unwrap() + 60;
    damaged[at] ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    assert_eq!(read().as_ref(), Some(&ends[1].1));
    // Too many additions, and a writer that does not know the file: the whole anew.
    std::fs::write(&path, &bytes).unwrap();
    for revision in 20..300 {
        world = world.server("acme", "s7", &format!("http://127.0.0.1:{}/mcp", 20 + revision));
        last = Arc::new(state(&world, revision, (&signer, &key)));
        written.bring(folder.path(), &last).unwrap();
    }
    assert!(size() < whole + 200 * 1_024, "{} bytes", size());
    assert_eq!(read().as_ref(), Some(&*last));
    checkpoint::Written::default().bring(folder.path(), &last).unwrap();
    assert!(size() < whole + 4_096);
    assert_eq!(read().as_ref(), Some(&*last));
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
