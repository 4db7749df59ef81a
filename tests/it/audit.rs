//! `weir audit tail` over what the pipeline really writes.

use std::path::Path;

use clap::Parser as _;
use weir::cli::{Audit, Cli, Command};
use weir_audit::spool::{Spool, SpoolSettings};
use weir_audit::{Builder, Origin};
use weir_model::audit::{Facts, Outcome};
use weir_model::reason::Reason;
use weir_model::resource::AuditClass;
use weir_runtime::metrics::Metrics;

async fn written(folder: &Path) {
    let spool = Spool::open(SpoolSettings::new(folder)).unwrap();
    let origin = Origin { node: "node".to_owned(), region: "eu".to_owned() };
    let pipeline = Builder::spooled(origin, spool, Metrics::new()).start();
    let outcomes = [Outcome::Success, Outcome::Refused(Reason::Denied), Outcome::ToolError];
    for (outcome, target) in outcomes.into_iter().zip(["get_order", "refund_order", "get_order"]) {
        let facts = Facts {
            group: Some("demo".parse().unwrap()),
            principal: Some("account:support".to_owned()),
            method: Some("tools/call".to_owned()),
            target: Some(target.to_owned()),
            outcome,
            ..Facts::default()
        };
        pipeline.reserve(AuditClass::Durable).unwrap().finish(facts).await.unwrap();
    }
    assert!(pipeline.close(std::time::Duration::from_secs(5)).await.iter().all(|l| l.records == 0));
}

fn tail(folder: &Path, more: &[&str]) -> Vec<String> {
    let folder = folder.to_str().unwrap();
    let base = ["weir", "audit", "tail", "--no-follow", "--dir", folder];
    let cli = Cli::parse_from(base.iter().chain(more));
    let Command::Audit(Audit::Tail(args)) = cli.command else { panic!("another command") };
    let mut out = Vec::new();
    weir::audit::tail(&args, &mut out).unwrap();
    String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
}

/// Runs `weir audit` with these words; what it prints, and the code that it ends with.
fn audit(words: &[&str]) -> (String, u8) {
    let cli = Cli::parse_from(["weir", "audit"].iter().chain(words));
    let Command::Audit(command) = cli.command else { panic!("another command") };
    let mut out = Vec::new();
    let ask = || anyhow::bail!("nobody to ask");
    let ended = weir::audit::run(&command, &ask, &mut out);
    let code = ended.as_ref().err().map_or(0, weir::exit::code);
    (String::from_utf8(out).unwrap(), code)
}

#[tokio::test]
async fn a_folder_is_verified_and_a_record_proved() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("audit");
    for _ in 0..2 {
        written(&folder).await;
    }
    let dir = folder.to_str().unwrap();
    let (said, code) = audit(&["verify", "--dir", dir]);
    assert_eq!(code, 0, "{said}");
    assert!(said.ends_with("complete and unaltered\n"), "{said}");
    assert_eq!(said.matches("records 1 to 3, all signed for, ended").count(), 2, "{said}");

    // An export is verified by itself, and holds the very bytes.
    let (export, code) = audit(&["export", "--dir", dir]);
    assert_eq!(code, 0);
    let file = root.path().join("export.jsonl");
    std::fs::write(&file, &export).unwrap();
    assert_eq!(audit(&["verify", "--dir", file.to_str().unwrap()]).1, 0);
    let found = audit(&["search", "--dir", dir, "--target", "refund_order", "-o", "json"]).0;
    assert_eq!(found.lines().count(), 2, "{found}");
    assert!(found.lines().all(|line| export.lines().any(|exported| exported == line)));
    assert_eq!(
        audit(&["search", "--dir", dir, "--until", "2001-01-01T00:00:00Z"]).0.lines().count(),
        7
    );

    let record: serde_json::Value = serde_json::from_str(found.lines().next().unwrap()).unwrap();
    let uid = record["metadata"]["uid"].as_str().unwrap();
    let (proof, code) = audit(&["prove", uid, "--dir", dir]);
    assert_eq!(code, 0, "{proof}");
    let path = root.path().join("record.tlog-proof");
    std::fs::write(&path, &proof).unwrap();
    let (said, code) = audit(&["check", path.to_str().unwrap()]);
    assert!(
        code == 0 && said.contains("refund_order") && said.contains("the proof holds"),
        "{said}"
    );
    std::fs::write(&path, proof.replace("index 1", "index 2")).unwrap();
    assert_eq!(audit(&["check", path.to_str().unwrap()]).1, 8);
    assert_eq!(audit(&["prove", "node/1/1", "--dir", dir]).1, 6);

    let changed = export.replacen("refund_order", "delete_order", 1);
    std::fs::write(&file, changed).unwrap();
    let (said, code) = audit(&["verify", "--dir", file.to_str().unwrap()]);
    assert!(code == 8 && said.contains("WRONG") && said.contains("NOT AS SIGNED"), "{said}");
}

#[tokio::test]
async fn records_are_shown_as_they_were_written() {
    let root = tempfile::tempdir().unwrap();
    let folder = &root.path().join("audit");
    written(folder).await;
    let all = tail(folder, &[]);
    assert_eq!(all.len(), 4, "{all:#?}");
    for (line, words) in all[1..].iter().zip(["get_order", "refund_order", "get_order"]) {
        assert!(line.contains("account:support") && line.contains(words), "{line}");
    }
    let denied = tail(folder, &["--status", "denied"]);
    assert!(denied.len() == 2 && denied[1].contains("refund_order"), "{denied:#?}");
    assert_eq!(tail(folder, &["--lines", "1"]).len(), 2);
    assert_eq!(tail(folder, &["--group", "other"]).len(), 1);
    let json = tail(folder, &["--output", "json", "--lines", "1"]);
    let record: serde_json::Value = serde_json::from_str(&json[0]).unwrap();
    assert_eq!(record["status_code"], "tool_error");
}
