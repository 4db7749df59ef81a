//! Client certificates as a login: only those of the group's authority, only where the group wants
//! them, and a token goes before a certificate.

use std::sync::Arc;

use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;
use weir_model::resource::{CertificateSubject, ClientCertificates, Rule, Subject};
use weir_runtime::settings::Tls;
use weir_runtime::testing::Ca;
use weir_runtime::tls::{ClientIdentity, client_config, roots_from_pem};

use crate::peer::Peer;
use crate::proxy::{Ask, Proxy};
use crate::{token, world};

/// Status of a call over a connection with this certificate.
async fn status(proxy: &Proxy, own: &Ca, shown: Option<(&str, &str)>, ask: Ask) -> u16 {
    let roots = roots_from_pem(own.pem().as_bytes(), "test ca").unwrap();
    let identity = shown
        .map(|(chain, key)| ClientIdentity::from_pem(chain.as_bytes(), key.as_bytes()).unwrap());
    let config = client_config(roots, identity).unwrap();
    let socket = TcpStream::connect(proxy.address).await.unwrap();
    let name = "localhost".try_into().unwrap();
    let tls =
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.unwrap();
    tokio::spawn(connection);
    let mut request = http::Request::builder().method(ask.http).uri(&ask.path);
    for (name, value) in &ask.headers {
        request = request.header(*name, value);
    }
    let answer = sender.send_request(request.body(Full::new(ask.body)).unwrap()).await.unwrap();
    let status = answer.status().as_u16();
    drop(answer.into_body().collect().await);
    status
}

#[tokio::test]
async fn a_workload_with_a_certificate_needs_no_token() {
    let (own, workloads, stranger) = (Ca::new("own"), Ca::new("workloads"), Ca::new("stranger"));
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = own.server(&["localhost"]).write(dir.path(), "server");
    let peer = Peer::start().await;
    let everything = Rule { servers: vec!["*".into()], tools: vec!["*".into()], ..Rule::default() };
    let closed = world(&peer.url).grant(
        "acme",
        vec![everything],
        vec![Subject::Membership("robots".into())],
    );
    let open = closed.clone().group_with("acme", |group| {
        group.certificates = Some(ClientCertificates {
            authorities: workloads.pem(),
            subject: CertificateSubject::Uri,
            memberships: vec!["robots".to_owned()],
            scopes: vec![],
        });
    });
    let proxy = Proxy::with(&open, |settings| {
        settings.listen.tls = Some(Tls { certificate, key });
    })
    .await;
    let good = workloads.client("robot-7", "spiffe://acme/robot/7");
    let foreign = stranger.client("robot-7", "spiffe://acme/robot/7");
    let (good, foreign) =
        ((good.chain.as_str(), good.key.as_str()), (foreign.chain.as_str(), foreign.key.as_str()));
    let call = || {
        let params = json!({"name": "echo", "arguments": {}});
        Ask::modern("/acme/files/mcp", "tools/call", params)
    };
    for (what, shown, ask, expect) in [
        ("a good certificate", Some(good), call(), 200),
        ("no certificate", None, call(), 401),
        ("another authority's", Some(foreign), call(), 401),
        ("a token beside it", Some(good), call().token(&token()), 200),
        ("a bad token beside it", Some(good), call().token("nonsense"), 401),
        ("a token beside another authority's", Some(foreign), call().token(&token()), 200),
    ] {
        assert_eq!(status(&proxy, &own, shown, ask).await, expect, "{what}");
    }
    let records = proxy.records(1).await;
    let text = format!("{records:?}");
    assert!(text.contains("certificate:spiffe://acme/robot/7"), "{text}");
    proxy.apply(&closed);
    assert_eq!(status(&proxy, &own, Some(good), call()).await, 401, "no longer wanted");
}
