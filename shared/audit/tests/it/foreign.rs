//! The log and a proof, checked by software that is not ours: the packages of Go's checksum
//! database (`golang.org/x/mod/sumdb`), in `tests/foreign`.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use weir_audit::verify::{Order, Trust, Verification};
use weir_model::audit::EventId;
use weir_model::resource::AuditClass;

use crate::disk::{close, finish, finish_many, segments, settings, start};

/// The checker, built once; none without Go.
fn checker(test: &str) -> Option<&'static Path> {
    static BUILT: OnceLock<Option<tempfile::TempDir>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let built = Command::new("go")
            .args(["build", "-o"])
            .arg(folder.path().join("foreign"))
            .arg(".")
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign"))
            .output();
        match built {
            Ok(built) if built.status.success() => Some(folder),
            Ok(built) => {
                eprintln!("{}", String::from_utf8_lossy(&built.stderr));
                None
            }
            Err(_) => None,
        }
    });
    if built.is_none() {
        let demanded =
            std::env::var("WEIR_REQUIRE_REAL").is_ok_and(|value| !matches!(&*value, "" | "0"));
        assert!(!demanded, "WEIR_REQUIRE_REAL is set but Go cannot build the checker");
        eprintln!("LEFT OUT: {test} needs Go and golang.org/x/mod");
    }
    built.as_ref().map(tempfile::TempDir::path)
}

fn check(checker: &Path, what: &str, path: &Path) -> Result<String, String> {
    let run = Command::new(checker.join("foreign")).arg(what).arg(path).output().unwrap();
    match run.status.success() {
        true => Ok(String::from_utf8(run.stdout).unwrap()),
        false => Err(String::from_utf8(run.stderr).unwrap()),
    }
}

#[tokio::test]
async fn software_of_others_agrees() {
    let Some(checker) = checker("software_of_others_agrees") else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut epoch = 0;
    for _ in 0..2 {
        let pipeline = start(settings(dir.path())).await;
        finish_many(&pipeline, 13).await;
        finish(&pipeline, AuditClass::Counted).await.unwrap();
        close(&pipeline).await;
        epoch = pipeline.epoch();
    }
    let said = check(checker, "log", &dir.path().join("audit")).unwrap();
    assert!(said.starts_with("2 epochs, "), "{said}");

    let mut verification = Verification::new(Order::Written, Trust::default());
    verification.want(EventId { node: "node-1".into(), epoch, sequence: 11 });
    for path in segments(dir.path()) {
        for line in std::fs::read_to_string(path).unwrap().lines() {
            verification.line(line.as_bytes(), &"file");
        }
    }
    let proof = dir.path().join("record.tlog-proof");
    let text = verification.prove().unwrap().to_string();
    std::fs::write(&proof, &text).unwrap();
    let said = check(checker, "proof", &proof).unwrap();
    assert!(said.starts_with("record 11 of "), "{said}");

    // It can say no.
    std::fs::write(&proof, text.replace("index 10", "index 9")).unwrap();
    assert!(check(checker, "proof", &proof).is_err());
    let path = segments(dir.path()).pop().unwrap();
    let changed = std::fs::read_to_string(&path).unwrap().replacen("success", "failure", 1);
    std::fs::write(&path, changed).unwrap();
    let said = check(checker, "log", &dir.path().join("audit")).unwrap_err();
    assert!(said.contains("another root"), "{said}");
}
