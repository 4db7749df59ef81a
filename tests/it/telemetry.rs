//! What the product measures, against the page, the dashboards and the alerts that speak of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;
use weir_runtime::testing::eventually;

use crate::product::{Product, examples};

const PAGE: &str = "docs/reference/metrics.md";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

async fn get(address: std::net::SocketAddr, path: &str) -> String {
    use http_body_util::BodyExt as _;
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut send, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get(path)
        .header("host", "localhost")
        .body(http_body_util::Empty::<bytes::Bytes>::new())
        .unwrap();
    let answer = send.send_request(request).await.unwrap();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// Every metric: name, then type, planes and help.
async fn measured() -> BTreeMap<String, (String, String, String)> {
    let listens = ["--metrics-listen", "127.0.0.1:0", "--control-metrics-listen", "127.0.0.1:0"];
    let otlp = ["--otlp", "http://127.0.0.1:9"];
    let demo = examples("demo");
    let apply = ["--apply", demo.as_str()];
    let more: Vec<&str> = listens.into_iter().chain(otlp).chain(apply).collect();
    let product = Product::start(&more).await;
    let [data, control] = product.whereabouts.metrics;
    let mut all: BTreeMap<String, (String, String, String)> = BTreeMap::new();
    for (plane, address) in [("data", data.unwrap()), ("control", control.unwrap())] {
        // Counting the first configuration takes a moment.
        let there = async || get(address, "/metrics/names").await.contains("weir_process");
        assert!(eventually(std::time::Duration::from_secs(20), there).await);
        let names: BTreeMap<String, Value> =
            serde_json::from_str(&get(address, "/metrics/names").await).unwrap();
        for (name, described) in names {
            let text = |key: &str| described[key].as_str().unwrap_or_default().to_owned();
            let entry = (text("kind"), plane.to_owned(), text("help"));
            all.entry(name).and_modify(|known| known.1 = "both".to_owned()).or_insert(entry);
        }
    }
    product.stop().await;
    all
}

/// The name as Prometheus has it: counters end in `_total`.
fn exposed(name: &str, kind: &str) -> String {
    match kind {
        "counter" => format!("{name}_total"),
        "info" => format!("{name}_info"),
        _ => name.to_owned(),
    }
}

/// Dashboards and rules.
fn watchers() -> Vec<PathBuf> {
    let mut all = Vec::new();
    for folder in ["deploy/observability/grafana", "deploy/observability/prometheus"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            all.push(entry.unwrap().path());
        }
    }
    assert!(all.len() >= 4, "{all:?}");
    all
}

/// `weir_...` and `mcp_...` words of a text, as far as they can be metrics.
fn named(text: &str) -> BTreeSet<String> {
    let word = |c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == ':');
    text.split(word)
        .filter(|word| word.starts_with("weir_") || word.starts_with("mcp_"))
        .filter(|word| !word.starts_with("mcp_method") && *word != "weir_")
        .map(|word| {
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|s| word.strip_suffix(s));
            base.unwrap_or(word).to_owned()
        })
        .collect()
}

#[tokio::test]
async fn the_page_has_every_metric_and_dashboards_and_alerts_name_no_other() {
    let all = measured().await;
    let rows: String = all
        .iter()
        .map(|(name, (kind, plane, help))| {
            format!("| `{}` | {kind} | {plane} | {help} |\n", exposed(name, kind))
        })
        .collect();
    let page = std::fs::read_to_string(root().join(PAGE)).unwrap();
    let start = page.find("| metric |").unwrap();
    let table = page[start..].split("\n\n").next().unwrap();
    let head: String = table.lines().take(2).map(|line| format!("{line}\n")).collect();
    if std::env::var_os("WEIR_BLESS").is_some() {
        let new = page.replace(table, format!("{head}{rows}").trim_end());
        std::fs::write(root().join(PAGE), new).unwrap();
    } else {
        let told: Vec<&str> = table.lines().skip(2).collect();
        let known: Vec<&str> = rows.lines().collect();
        assert_eq!(told, known, "WEIR_BLESS=1 writes {PAGE} anew");
    }

    let exist: BTreeSet<String> =
        all.iter().map(|(name, (kind, _, _))| exposed(name, kind)).collect();
    for path in watchers() {
        let text = std::fs::read_to_string(&path).unwrap();
        if path.extension().is_some_and(|extension| extension == "json") {
            serde_json::from_str::<Value>(&text).unwrap();
        }
        let missing: Vec<String> = named(&text).difference(&exist).cloned().collect();
        assert!(missing.is_empty(), "{}: no such metrics: {missing:?}", path.display());
    }
}
