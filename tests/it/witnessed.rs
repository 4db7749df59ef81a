//! A proxy's audit log that was cut and rewritten on its disk and in what was delivered of it: the
//! control plane, which saw it before, tells.

use std::path::{Path, PathBuf};

use serde_json::Value;
use weir_audit::line::{self, Line};
use weir_runtime::testing::eventually;

use crate::planes::{BOUND, Control, Scene, path};

/// The segments of a log, oldest first.
fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "jsonl"))
        .collect();
    paths.sort();
    paths
}

/// Every line of a log.
fn lines(dir: &Path) -> Vec<String> {
    let text = |path: &PathBuf| std::fs::read_to_string(path).unwrap();
    let all: String = segments(dir).iter().map(text).collect();
    all.lines().map(str::to_owned).collect()
}

/// How many records of this node the control plane has seen in its newest epoch, by what it shows.
async fn seen(control: &Control, admin: &str, node: &str) -> u64 {
    let witness = control.weir(admin, &["audit", "witness"]).await;
    let witness: Value = serde_json::from_str(&witness).unwrap();
    let notes = witness["checkpoints"].as_array().unwrap();
    let of_node = notes
        .iter()
        .filter_map(Value::as_str)
        .filter(|note| note.starts_with(&format!("weir.audit/{node}/")));
    let size = |note: &str| note.lines().nth(1).and_then(|size| size.parse::<u64>().ok());
    of_node.filter_map(size).max().unwrap_or(0)
}

/// The beginning of a log: its heads and its first records, as if the rest had never been.
fn cut(all: &[String], records: usize) -> String {
    let mut kept = String::new();
    let mut seen = 0;
    for text in all {
        let record = matches!(line::parse(text.as_bytes()), Ok(Line::Record(_)));
        seen += usize::from(record);
        if seen > records {
            break;
        }
        kept.push_str(text);
        kept.push('\n');
    }
    kept
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_cut_on_disk_and_in_the_stream_is_told_by_the_witness() {
    let (scene, _running) = Scene::start(&[]).await;
    let Scene { folder, control, admin, agent } = &scene;
    let at = folder.path();
    let proxy = scene.proxy("proxy-1").await;
    let serving = proxy.start();
    proxy.answers(agent, true).await;
    let before = seen(control, admin, "proxy-1").await;
    for _ in 0..6 {
        proxy.call(agent).await.unwrap();
    }
    // The newest state is proved to continue the one before, and kept.
    let grown = async || seen(control, admin, "proxy-1").await >= before + 6;
    assert!(eventually(BOUND, grown).await, "{}", control.log());
    serving.kill();

    let whole = lines(&proxy.audit());
    let verify = |what: &Path, node: &str| {
        let args = ["audit", "verify", "--ask", "--node", node, "--dir", path(what)];
        control.once(admin, &args)
    };
    // The first checkpoint comes before the key is certified; a later one brings the certificate.
    let (said, code) = verify(&proxy.audit(), "proxy-1");
    assert!(code == Some(0) && said.contains("all signed for"), "{said}");
    // Of all nodes that were witnessed, this folder has one.
    let (said, code) =
        control.once(admin, &["audit", "verify", "--ask", "--dir", path(&proxy.audit())]);
    assert_eq!(code, Some(8), "{said}");
    assert!(said.contains("control/") && said.contains("missing: the control plane"), "{said}");

    // What operators did is in a log of the same kind, which the same command verifies.
    let own = async || seen(control, admin, "control").await > 0;
    assert!(eventually(BOUND, own).await, "{}", control.log());
    let (said, code) = verify(&control.audit(), "control");
    assert!(code == Some(0) && said.contains("epoch  control/"), "{said}");
    let actions = lines(&control.audit()).join("\n");
    for action in ["admin.apply", "admin.token.mint", "admin.enrolment.mint", "node.enrol"] {
        assert!(actions.contains(&format!("\"operation\":\"{action}\"")), "{action}: {actions}");
    }

    // The end is gone, with every checkpoint that spoke of it: by itself the log looks whole.
    let short = cut(&whole, 2);
    let file = at.join("cut.jsonl");
    std::fs::write(&file, &short).unwrap();
    let (said, code) = control.once(admin, &["audit", "verify", "--dir", path(&file)]);
    assert_eq!(code, Some(0), "{said}");
    let (said, code) = verify(&file, "proxy-1");
    assert_eq!(code, Some(8), "{said}");
    assert!(said.contains("/3: missing; the control plane has signed for"), "{said}");
    // The same of a stream, which has no heads of segments and no order.
    let stream: Vec<&str> =
        short.lines().filter(|line| !line.contains("weir_audit_segment")).rev().collect();
    let delivered = at.join("delivered.jsonl");
    std::fs::write(&delivered, stream.join("\n") + "\n").unwrap();
    let (said, code) = verify(&delivered, "proxy-1");
    assert_eq!(code, Some(8), "{said}");

    // The node itself goes on with the log that was cut: its witness does not take it.
    for segment in segments(&proxy.audit()) {
        std::fs::remove_file(segment).unwrap();
    }
    std::fs::write(proxy.audit().join("audit-000000000001.jsonl"), &short).unwrap();
    let _serving = proxy.start();
    proxy.answers(agent, true).await;
    let refused = async || control.log().contains("an audit log is not what it was");
    assert!(eventually(BOUND, refused).await, "{}\n{}", control.log(), proxy.log());
}
