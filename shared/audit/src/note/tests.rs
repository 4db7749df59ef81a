use super::*;

const TEXT: &str = "example.test/log\n7\nnothing\n";

#[test]
fn a_note_of_others_is_read_and_checked() {
    // From the documentation of Go's golang.org/x/mod/sumdb/note.
    let key = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    let note = "If you think cryptography is the answer to your problem,\n\
                then you don't know what your problem is.\n\n\
                — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
    let verifier: Verifier = key.parse().unwrap();
    assert_eq!(verifier.to_string(), key);
    let read: Note = note.parse().unwrap();
    verifier.verify(&read).unwrap();
    assert_eq!(read.to_string(), note);
}

#[test]
fn what_is_signed_is_checked_and_what_is_changed_is_found() {
    let signer = Signer::generate().unwrap();
    let verifier = signer.verifier("eu-1").unwrap();
    let mut note = signer.sign("eu-1", TEXT.to_owned()).unwrap();
    let witness = Signer::generate().unwrap();
    witness.cosign("witness", &mut note, 1_800_000_000).unwrap();
    let cosigner = witness.verifier("witness").unwrap().cosigner();
    let note: Note = note.to_string().parse().unwrap();
    assert_eq!(verifier.verify(&note), Ok(None));
    assert_eq!(cosigner.verify(&note), Ok(Some(1_800_000_000)));
    for key in [&verifier, &cosigner] {
        assert_eq!(&key.to_string().parse::<Verifier>().unwrap(), key);
    }
    let other = Note { text: TEXT.replace('7', "8"), ..note.clone() };
    assert_eq!(verifier.verify(&other), Err(NoteError::WrongSignature("eu-1".into())));
    assert_eq!(cosigner.verify(&other), Err(NoteError::WrongSignature("witness".into())));
    let stranger = Signer::generate().unwrap();
    for (name, signer) in [("eu-1", &stranger), ("eu-2", &signer), ("witness", &witness)] {
        let verifier = signer.verifier(name).unwrap();
        assert_eq!(verifier.verify(&note), Err(NoteError::Unsigned(name.into())), "{name}");
    }
}

#[test]
fn what_is_no_note_is_refused() {
    let signer = Signer::generate().unwrap();
    let good = signer.sign("a", TEXT.to_owned()).unwrap().to_string();
    let line = good.lines().last().unwrap();
    for bad in [
        String::new(),
        TEXT.to_owned(),
        good.trim_end().to_owned(),
        good.replace("— ", "- "),
        format!("{TEXT}\n— a !!!\n"),
        format!("{TEXT}\n— a AAAA\n"),
        format!("a\rb\n\n{line}\n"),
        format!("{TEXT}\n{}", format!("{line}\n").repeat(17)),
        "x".repeat(NOTE_BYTES_MAX + 1),
    ] {
        assert!(bad.parse::<Note>().is_err(), "{bad:?}");
    }
    for (name, text) in [("a b", TEXT), ("", TEXT), ("a+b", TEXT), ("a", "no end"), ("a", "\n\n")] {
        assert!(signer.sign(name, text.to_owned()).is_err(), "{name:?} {text:?}");
    }
    let key = signer.verifier("a").unwrap().to_string();
    for bad in ["", "a", "a+b+c", &key.replace("a+", "b+"), &key[..key.len() - 4]] {
        assert_eq!(bad.parse::<Verifier>(), Err(NoteError::BadKey), "{bad}");
    }
}

#[test]
fn a_key_is_made_once_and_only_its_owner_reads_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/key");
    let first = Signer::load_or_make(&path).unwrap();
    let again = Signer::load_or_make(&path).unwrap();
    assert_eq!(first.public(), again.public());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let secret = std::fs::read_to_string(&path).unwrap();
    assert!(!format!("{first:?}").contains(secret.trim()));
    for broken in ["", "!", "AAAA"] {
        std::fs::write(&path, broken).unwrap();
        let error = Signer::load_or_make(&path).unwrap_err().to_string();
        assert!(error.contains("new/key"), "{error}");
    }
}
