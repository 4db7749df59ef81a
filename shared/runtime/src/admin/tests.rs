use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::drain;
use crate::telemetry::{self, LogSettings};

struct Served {
    address: SocketAddr,
    ready: Ready,
    drain: drain::Drain,
}

async fn served() -> Served {
    let (ready, metrics) = (Ready::new(), Metrics::new());
    let (drain, watch) = drain::new(Duration::from_secs(60));
    let (_subscriber, level) =
        telemetry::subscriber(&LogSettings::default(), vec![], std::io::sink).unwrap();
    // The subscriber must outlive the level that changes it.
    Box::leak(Box::new(_subscriber));
    let admin = Admin::new(ready.clone(), metrics, Some(level), watch)
        .page("/config", || serde_json::json!({ "revision": 7 }));
    let bound = admin.bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = bound.address().unwrap();
    tokio::spawn(bound.serve());
    Served { address, ready, drain }
}

impl Served {
    async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = tokio::net::TcpStream::connect(self.address).await.unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + body).as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), body.to_owned())
    }
}

#[tokio::test]
async fn readiness_names_what_is_pending() {
    let served = served().await;
    let pending = served.ready.register("snapshot");
    let answer = served.ask("GET", "/readyz", "").await;
    assert_eq!(answer, (503, "{\"ready\":false,\"pending\":[\"snapshot\"]}\n".into()));
    drop(pending);
    assert_eq!(served.ask("GET", "/readyz", "").await.0, 200);
    served.drain.signal();
    let (status, body) = served.ask("GET", "/readyz", "").await;
    assert!(status == 503 && body.contains("draining"), "{body}");
    assert_eq!(served.ask("GET", "/livez", "").await, (200, "ok\n".into()));
}

#[tokio::test]
async fn pages_metrics_and_unknown_paths() {
    let served = served().await;
    assert_eq!(served.ask("GET", "/config", "").await, (200, "{\"revision\":7}\n".into()));
    let (status, body) = served.ask("GET", "/metrics", "").await;
    assert!(status == 200 && body.contains("weir_build_info") && body.ends_with("# EOF\n"));
    let (status, body) = served.ask("GET", "/nothing", "").await;
    assert!(status == 404 && body.contains("/config"), "{body}");
    assert_eq!(served.ask("DELETE", "/config", "").await.0, 405);
}

#[tokio::test]
async fn the_log_level_is_changed_or_refused() {
    let served = served().await;
    assert_eq!(served.ask("PUT", "/loglevel", "warn").await, (200, "warn\n".into()));
    assert_eq!(served.ask("GET", "/loglevel", "").await, (200, "warn\n".into()));
    let (status, body) = served.ask("PUT", "/loglevel", "a=b=c").await;
    assert!(status == 400 && body.contains("not valid"), "{body}");
    let long = "x".repeat(BODY_BYTES_MAX + 1);
    assert_eq!(served.ask("PUT", "/loglevel", &long).await.0, 400);
    assert_eq!(served.ask("GET", "/loglevel", "").await.1, "warn\n");
}
