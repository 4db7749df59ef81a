//! Who may talk to whom: nodes of this installation, and nobody else.
//!
//! A node has one certificate, a client's: its authority gives certificates for clients to nodes
//! alone, so demanding one on both ends keeps the control plane's own listeners (and whatever
//! else the authority may certify) out. A node is known by the URI in it, never by an address.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::Resumption;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, ClientConfig, Error, RootCertStore, ServerConfig};
use weir_model::sync::identity::NodeId;
use weir_runtime::tls::{peer_identity, provider};

use crate::config::Identity;

/// What a node calls every other one in the handshake; nobody looks at it.
pub(super) const SERVER_NAME: &str = "node.weir.internal";

/// The node that a certificate is for.
pub(super) fn node_of(certificate: &CertificateDer<'_>) -> Option<NodeId> {
    NodeId::parse_uri(peer_identity(certificate).ok()?.sole_uri()?)
}

fn nodes(authority: CertificateDer<'static>) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(authority)?;
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|e| Error::General(e.to_string()))
}

/// The listening side. A renewed certificate is shown from the next handshake on.
pub(super) fn server(identity: &Arc<ArcSwap<Identity>>) -> Result<Arc<ServerConfig>, Error> {
    let authority = identity.load().shown().2;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(nodes(authority)?)
        .with_cert_resolver(Arc::new(Own(Arc::clone(identity))));
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The asking side: only that node will do.
pub(super) fn client(own: &Identity, wanted: NodeId) -> Result<Arc<ClientConfig>, Error> {
    let (certificate, key, authority) = own.shown();
    let key =
        PrivateKeyDer::try_from(key.expose().clone()).map_err(|e| Error::General(e.into()))?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Wanted {
            node: wanted,
            nodes: nodes(authority)?,
        }))
        .with_client_auth_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed handshake shows no certificate.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct Own(Arc<ArcSwap<Identity>>);

impl ResolvesServerCert for Own {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let identity = self.0.load();
        let (certificate, key, _) = identity.shown();
        let key = PrivateKeyDer::try_from(key.expose().clone()).ok()?;
        CertifiedKey::from_der(vec![certificate], key, &provider()).ok().map(Arc::new)
    }
}

#[derive(Debug)]
struct Wanted {
    node: NodeId,
    nodes: Arc<dyn ClientCertVerifier>,
}

impl ServerCertVerifier for Wanted {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.nodes.verify_client_cert(leaf, chain, now)?;
        match node_of(leaf) {
            Some(node) if node == self.node => Ok(ServerCertVerified::assertion()),
            _ => Err(Error::InvalidCertificate(CertificateError::NotValidForName)),
        }
    }

    weir_runtime::handshake_signatures!();
}
