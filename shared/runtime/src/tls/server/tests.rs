use std::io;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::testing::{Ca, eventually};
use crate::tls::{ClientIdentity, client_config, peer_identity, roots_from_pem};

const BOUND: Duration = Duration::from_secs(10);

/// What the two sides of one handshake and one byte saw.
struct Met {
    server_serial: String,
    client_uris: Vec<String>,
    alpn: Option<Vec<u8>>,
}

async fn meet(server: &ServerConfig, client: &ClientConfig) -> io::Result<Met> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let acceptor = TlsAcceptor::from(Arc::new(server.clone()));
    let accepting = tokio::spawn(async move {
        let mut stream = acceptor.accept(listener.accept().await?.0).await?;
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
        stream.write_all(b"x").await?;
        stream.shutdown().await?;
        Ok::<_, io::Error>(certificates)
    });
    let connector = TlsConnector::from(Arc::new(client.clone()));
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = connector.connect(name, TcpStream::connect(address).await?).await?;
    // In TLS 1.3 a refused client certificate shows with the first read only.
    stream.read_exact(&mut [0]).await?;
    let connection = stream.get_ref().1;
    let server_serial = peer_identity(&connection.peer_certificates().unwrap()[0]).unwrap().serial;
    let alpn = connection.alpn_protocol().map(<[u8]>::to_vec);
    let client = accepting.await.unwrap()?;
    let client_uris = client.first().map(|c| peer_identity(c).unwrap().uris).unwrap_or_default();
    Ok(Met { server_serial, client_uris, alpn })
}

fn trusting(ca: &Ca, identity: Option<ClientIdentity>) -> ClientConfig {
    client_config(roots_from_pem(ca.pem().as_bytes(), "ca").unwrap(), identity).unwrap()
}

#[tokio::test]
async fn a_replaced_file_serves_new_connections_and_a_broken_one_changes_nothing() {
    let (ca, dir) = (Ca::new("test"), tempfile::tempdir().unwrap());
    let first = ca.server(&["localhost"]);
    let (cert, key) = first.write(dir.path(), "server");
    let certificate = ServerCertificate::from_files(&cert, &key).unwrap();
    let server = server_config(Arc::clone(&certificate), ClientAuth::None).unwrap();
    let mut client = trusting(&ca, None);
    client.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
    // A resumed session shows the certificate of the one before.
    client.resumption = rustls::client::Resumption::disabled();
    let before = meet(&server, &client).await.unwrap();
    assert_eq!(before.alpn.as_deref(), Some(&b"h2"[..]));

    let (drain, watch) = crate::drain::new(BOUND);
    let reload = crate::signals::Reload::default();
    let keeping = tokio::spawn(Arc::clone(&certificate).keep_fresh(
        Duration::from_millis(20),
        reload.subscribe(),
        watch,
    ));
    std::fs::write(&cert, "-----BEGIN CERTIFICATE-----\nnonsense\n").unwrap();
    reload.ask();
    assert!(certificate.reload().is_err());
    assert_eq!(meet(&server, &client).await.unwrap().server_serial, before.server_serial);

    ca.server(&["localhost"]).write(dir.path(), "server");
    let replaced = eventually(BOUND, async || {
        meet(&server, &client).await.unwrap().server_serial != before.server_serial
    });
    assert!(replaced.await, "the new certificate was never served");
    drain.signal();
    tokio::time::timeout(BOUND, keeping).await.unwrap().unwrap();
}

#[tokio::test]
async fn client_certificates_are_demanded_verified_and_read() {
    let (ca, foreign) = (Ca::new("ours"), Ca::new("foreign"));
    let issued = ca.server(&["localhost"]);
    let certificate =
        ServerCertificate::from_pem(issued.chain.as_bytes(), issued.key.as_bytes()).unwrap();
    let roots = Arc::new(roots_from_pem(ca.pem().as_bytes(), "ca").unwrap());
    let identity = |ca: &Ca| {
        let issued = ca.client("node-1", "spiffe://weir/node/node-1");
        ClientIdentity::from_pem(issued.chain.as_bytes(), issued.key.as_bytes()).unwrap()
    };
    let config = |clients| server_config(Arc::clone(&certificate), clients).unwrap();
    let (required, optional) =
        (config(ClientAuth::Required(Arc::clone(&roots))), config(ClientAuth::Optional(roots)));

    let met = meet(&required, &trusting(&ca, Some(identity(&ca)))).await.unwrap();
    assert_eq!(met.client_uris, ["spiffe://weir/node/node-1"]);
    assert!(meet(&required, &trusting(&ca, None)).await.is_err());
    assert!(meet(&required, &trusting(&ca, Some(identity(&foreign)))).await.is_err());
    assert!(meet(&optional, &trusting(&ca, None)).await.unwrap().client_uris.is_empty());
    assert!(meet(&optional, &trusting(&ca, Some(identity(&foreign)))).await.is_err());
    assert!(meet(&optional, &trusting(&foreign, None)).await.is_err());
}

#[test]
fn wrong_files_are_refused_by_name() {
    let (ca, dir) = (Ca::new("test"), tempfile::tempdir().unwrap());
    let (cert, key) = ca.server(&["localhost"]).write(dir.path(), "one");
    let (_, other_key) = ca.server(&["localhost"]).write(dir.path(), "two");
    let message =
        |cert: &Path, key: &Path| ServerCertificate::from_files(cert, key).unwrap_err().to_string();
    assert!(message(&cert, &other_key).contains("cannot be used"));
    assert!(message(&key, &key).contains("one.key.pem: no certificate in it"));
    assert!(message(&cert, &cert).contains("one.cert.pem: no private key in it"));
    assert!(message(&dir.path().join("absent"), &key).contains("absent"));
}

#[test]
fn a_certificate_is_replaced_in_memory_and_tells_its_end() {
    let ca = Ca::new("test");
    let (one, two) = (ca.server(&["localhost"]), ca.server(&["localhost"]));
    let certificate =
        ServerCertificate::from_pem(one.chain.as_bytes(), one.key.as_bytes()).unwrap();
    assert!(certificate.replace(two.chain.as_bytes(), one.key.as_bytes()).is_err());
    certificate.replace(two.chain.as_bytes(), two.key.as_bytes()).unwrap();
    assert!(!certificate.reload().unwrap());
    assert!(certificate.not_after_ms().unwrap() > 1_735_689_600_000);
}
