//! Servers over TLS: trusted by the settings' roots, spoken to over HTTP/2.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use weir_model::resource::ObservedEra;

use super::super::testing;
use super::*;

/// Serves `{}` as the result of request 1, 2, ... over HTTP/2 only; counts connections.
async fn secure() -> (String, CertificateDer<'static>, Arc<AtomicUsize>) {
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("certificate");
    let root = key.cert.der().clone();
    let private = PrivateKeyDer::try_from(key.signing_key.serialize_der()).expect("key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![root.clone()], private)
        .expect("certificate");
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let url = format!("https://localhost:{}/mcp", listener.local_addr().expect("address").port());
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, count) = (acceptor.clone(), Arc::clone(&count));
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                count.fetch_add(1, Ordering::SeqCst);
                let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service_fn(answer))
                    .await;
            });
        }
    });
    (url, root, connections)
}

async fn answer(
    request: ::http::Request<Incoming>,
) -> Result<::http::Response<Full<Bytes>>, hyper::Error> {
    use http_body_util::BodyExt;
    let body = request.into_body().collect().await?.to_bytes();
    let asked: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let text = format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{}}}}"#, asked["id"]);
    let mut response = ::http::Response::new(Full::new(text.into()));
    let json = ::http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(::http::header::CONTENT_TYPE, json);
    Ok(response)
}

#[tokio::test]
async fn a_trusted_server_is_called_over_one_http2_connection() {
    let (url, root, connections) = secure().await;
    let settings = Settings { extra_roots: vec![root], ..Settings::default() };
    let trusting = Upstreams::new(settings).expect("roots");
    let version = testing::pinned(&url, ObservedEra::Modern);
    let list = || testing::request(Arc::clone(&version), "tools/list");
    assert_eq!(result(&trusting, list()).await, "{}");
    let many = (0..20).map(|_| result(&trusting, list()));
    futures_util::future::join_all(many).await;
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_server_that_nobody_vouches_for_is_not_called() {
    let (url, _root, _) = secure().await;
    let version = testing::pinned(&url, ObservedEra::Modern);
    let list = testing::request(version, "tools/list");
    let refusal = upstreams().call(list).await.expect_err("no trust");
    assert_eq!(refusal.reason, Reason::UpstreamUnreachable, "{refusal}");
    assert!(refusal.detail.contains("certificate"), "{refusal}");
}
