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

#[tokio::test]
async fn records_are_shown_as_they_were_written() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path()).await;
    let all = tail(folder.path(), &[]);
    assert_eq!(all.len(), 4, "{all:#?}");
    for (line, words) in all[1..].iter().zip(["get_order", "refund_order", "get_order"]) {
        assert!(line.contains("account:support") && line.contains(words), "{line}");
    }
    let denied = tail(folder.path(), &["--status", "denied"]);
    assert!(denied.len() == 2 && denied[1].contains("refund_order"), "{denied:#?}");
    assert_eq!(tail(folder.path(), &["--lines", "1"]).len(), 2);
    assert_eq!(tail(folder.path(), &["--group", "other"]).len(), 1);
    let json = tail(folder.path(), &["--output", "json", "--lines", "1"]);
    let record: serde_json::Value = serde_json::from_str(&json[0]).unwrap();
    assert_eq!(record["status_code"], "tool_error");
}
