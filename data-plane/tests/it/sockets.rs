//! Connections: TLS, both HTTP versions, slow peers, large bodies, the drain.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir_model::bounds;
use weir_runtime::settings::Tls;
use weir_runtime::testing::{Ca, eventually};

use crate::peer::Peer;
use crate::proxy::{Ask, PATIENCE, Proxy, read_until};
use crate::{token, world};

const PATH: &str = "/acme/files/mcp";

fn call(tool: &str) -> Ask {
    Ask::modern(PATH, "tools/call", json!({"name": tool, "arguments": {}})).token(&token())
}

/// Sends raw bytes and gives everything that comes back until the end.
async fn raw(proxy: &Proxy, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(proxy.address).await.unwrap();
    socket.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(60), socket.read_to_end(&mut answer))
        .await
        .expect("the proxy closes the connection")
        .unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn bodies_and_headers_are_bounded() {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&world(&peer.url)).await;
    let mut large = call("echo");
    large.body = vec![b' '; 4 * 1024 * 1024 + 1].into();
    let answer = proxy.send(large).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (413, -32600));
    for (length, refused) in [(28_000, false), (33_000, true), (100_000, true)] {
        let long = call("echo").header("x-filler", "y".repeat(length));
        assert_eq!(proxy.send(long).await.status == 431, refused, "{length} bytes");
    }
    for (count, refused) in [(bounds::HEADERS_MAX - 10, false), (bounds::HEADERS_MAX + 1, true)] {
        let mut many = call("echo");
        for _ in 0..count {
            many = many.header("x-filler", "y");
        }
        assert_eq!(proxy.send(many).await.status == 431, refused, "{count} headers");
    }
}

#[tokio::test]
async fn slow_peers_are_cut() {
    let peer = Peer::start().await;
    let proxy = Arc::new(Proxy::start(&world(&peer.url)).await);
    let started = Instant::now();
    let silent = raw(&proxy, b"");
    let headers = raw(&proxy, b"POST /acme/files/mcp HTTP/1.1\r\nHost: localhost\r\nX-Slow: ");
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Accept: */*\r\nContent-Length: 100\r\n\r\n{{"
    );
    let body = raw(&proxy, head.as_bytes());
    let (silent, headers, body) = tokio::join!(silent, headers, body);
    assert_eq!((silent.as_str(), headers.as_str()), ("", ""));
    assert!(body.starts_with("HTTP/1.1 408"), "{body}");
    assert!(started.elapsed() < Duration::from_secs(40), "{:?}", started.elapsed());
}

#[tokio::test]
async fn tls_serves_both_versions_of_http() {
    let ca = Ca::new("test ca");
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = ca.server(&["localhost"]).write(dir.path(), "server");
    let peer = Peer::start().await;
    let proxy = Proxy::with(&world(&peer.url), |settings| {
        settings.listen.tls = Some(Tls { certificate, key });
    })
    .await;
    let roots = weir_runtime::tls::roots_from_pem(ca.pem().as_bytes(), "test ca").unwrap();
    for alpn in [b"h2".to_vec(), b"http/1.1".to_vec()] {
        let mut config = weir_runtime::tls::client_config(roots.clone(), None).unwrap();
        config.alpn_protocols = vec![alpn.clone()];
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let socket = TcpStream::connect(proxy.address).await.unwrap();
        let name = "localhost".try_into().unwrap();
        let stream = connector.connect(name, socket).await.unwrap();
        let ask = call("echo");
        let mut request = http::Request::post(format!("https://localhost{PATH}"));
        for (name, value) in ask.headers.iter().filter(|(name, _)| *name != "host") {
            request = request.header(*name, value);
        }
        if alpn == b"http/1.1" {
            request = request.header("host", "localhost").uri(PATH);
        }
        let request = request.body(Full::new(ask.body)).unwrap();
        let status = if alpn == b"h2" {
            let io = TokioIo::new(stream);
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap().status()
        } else {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap().status()
        };
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&alpn));
    }
}

#[tokio::test]
async fn a_drain_finishes_calls_and_ends_streams() {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&world(&peer.url)).await;
    let hello = proxy.send(Ask::initialize(PATH, "2025-11-25").token(&token())).await;
    let session = hello.header("mcp-session-id").unwrap().to_owned();
    let stream = Ask::bodiless(http::Method::GET, PATH, &session).token(&token());
    let mut stream = proxy.open(stream).await.into_body();
    read_until(&mut stream, "list_changed").await;
    let ask = json!({"name": "ask", "arguments": {}});
    let call = Ask::legacy(PATH, &session, "tools/call", &ask).token(&token());
    let mut running = proxy.open(call).await.into_body();
    read_until(&mut running, "elicitation/create").await;
    // The answer's connection is there before the drain closes the door.
    let mut socket = TcpStream::connect(proxy.address).await.unwrap();
    let said = json!({"jsonrpc": "2.0", "id": "q-1", "result": {"late": true}}).to_string();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Accept: */*\r\nAuthorization: Bearer {}\r\nMcp-Session-Id: {session}\r\n\
         Content-Length: {}\r\n\r\n",
        token(),
        said.len()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let taken = async || proxy.page("/metrics").await.contains("weir_calls_in_flight 3");
    assert!(eventually(PATIENCE, taken).await, "the answer's head is not read");
    proxy.drain.signal();
    let rest = tokio::time::timeout(PATIENCE, stream.collect()).await.unwrap().unwrap();
    let _: Bytes = rest.to_bytes();
    socket.write_all(said.as_bytes()).await.unwrap();
    let text = read_until(&mut running, "structuredContent").await;
    assert!(text.contains("late"), "{text}");
    let ended = tokio::time::timeout(PATIENCE, proxy.served).await.unwrap().unwrap();
    assert!(ended.is_ok(), "{ended:?}");
    assert!(TcpStream::connect(proxy.address).await.is_err());
}

/// Memory per request is a property that is kept: every phase that grows shows here. So is where it
/// is allocated: not among the buffers of connections, which have 8 KiB.
#[tokio::test]
async fn a_request_in_flight_is_small() {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&world(&peer.url)).await;
    let conn = data_plane::call::inbound::Conn {
        peer: ([127, 0, 0, 1], 1).into(),
        loopback: true,
        tls: false,
        certificates: None,
    };
    let request = http::Request::new(Full::new(Bytes::new()));
    let future = data_plane::call::serve(&proxy.gateway, &conn, request);
    let bytes = std::mem::size_of_val(&future);
    assert!((8 * 1024 + 1..=10 * 1024).contains(&bytes), "{bytes}");
    drop(future);
}

#[tokio::test]
async fn operators_see_what_is_in_force() {
    let peer = Peer::start().await;
    let proxy = Proxy::start(&world(&peer.url)).await;
    proxy.send(call("echo")).await;
    let config = proxy.page("/config").await;
    assert!(config.contains("\"revision\":1"), "{config}");
    let metrics = proxy.page("/metrics").await;
    let line =
        "weir_calls_total{group=\"acme\",method=\"tools/call\",outcome=\"success\",blame=\"\"} 1";
    assert!(metrics.contains(line), "{metrics}");
}
