//! The one TLS stack: rustls with aws-lc-rs.
//!
//! [`server`] makes listeners' configurations whose certificate can change while they serve;
//! [`client`] makes those of outgoing connections; [`identity`] reads who a peer is from its
//! certificate. Keys and certificates are PEM.

pub mod client;
pub mod identity;
pub mod server;
mod signatures;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

pub use client::{ClientIdentity, client_config, system_roots};
pub use identity::{PeerIdentity, peer_identity};
pub use server::{ClientAuth, ServerCertificate, server_config};

/// What goes wrong with keys and certificates. Never quotes key material.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// Of the file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something is no PEM of the wanted kind.
    #[error("{what}: {message}")]
    Pem {
        /// The file, or what the bytes were given as.
        what: String,
        /// Why.
        message: String,
    },
    /// Key and certificate do not fit, or rustls refuses them.
    #[error("certificate and key cannot be used: {0}")]
    Unusable(#[source] rustls::Error),
    /// A verifier of client certificates cannot be made.
    #[error("client certificates cannot be verified: {0}")]
    ClientCa(String),
    /// A peer's certificate cannot be read.
    #[error("certificate cannot be read: {0}")]
    Certificate(String),
}

/// Makes aws-lc-rs the provider of the process. Every `main` and test calls it first; calling it
/// again does nothing.
pub fn install_provider() {
    // An error means that a provider is there already, and there is only one in the graph.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// The provider, for configurations built without the process's default.
pub fn provider() -> Arc<CryptoProvider> {
    install_provider();
    match CryptoProvider::get_default() {
        Some(provider) => Arc::clone(provider),
        None => Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
    }
}

/// Reads a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

/// All certificates of a PEM text, at least one. `what` names it in errors.
///
/// # Errors
/// When the text holds no certificate or a broken one.
pub fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let broken = |message: String| TlsError::Pem { what: what.to_owned(), message };
    let chain = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| broken(format!("no valid certificate: {error:?}")))?;
    if chain.is_empty() {
        return Err(broken("no certificate in it".to_owned()));
    }
    Ok(chain)
}

/// The first private key of a PEM text. `what` names it in errors.
///
/// # Errors
/// When the text holds no private key.
pub fn private_key(pem: &[u8], what: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| TlsError::Pem {
        what: what.to_owned(),
        message: "no private key in it".to_owned(),
    })
}

/// Trust in the given authorities and nobody else.
///
/// # Errors
/// When one of them is no usable authority.
pub fn roots_from_pem(pem: &[u8], what: &str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem, what)? {
        roots.add(certificate).map_err(TlsError::Unusable)?;
    }
    Ok(roots)
}
