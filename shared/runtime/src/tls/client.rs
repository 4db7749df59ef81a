//! The calling side of TLS.

use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{TlsError, certificates, private_key, provider, read};

/// What a client shows of itself.
pub struct ClientIdentity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl std::fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientIdentity").field("chain", &self.chain.len()).finish_non_exhaustive()
    }
}

impl ClientIdentity {
    /// From PEM texts.
    ///
    /// # Errors
    /// When they are broken; whether they fit together shows in [`client_config`].
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        Ok(Self {
            chain: certificates(chain, "client certificate")?,
            key: private_key(key, "client key")?,
        })
    }
}

/// The authorities that the machine trusts, and those of a file when one is given.
///
/// A machine without any is fine as long as the file has some; authorities of the machine that
/// rustls cannot use are passed over.
///
/// # Errors
/// When the file cannot be used.
pub fn system_roots(extra: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::debug!(%error, "an authority of this machine cannot be read");
    }
    roots.add_parsable_certificates(native.certs);
    if let Some(path) = extra {
        for certificate in certificates(&read(path)?, &path.display().to_string())? {
            roots.add(certificate).map_err(TlsError::Unusable)?;
        }
    }
    Ok(roots)
}

/// A client's configuration. ALPN is left to the HTTP stack on top, which knows what it speaks.
///
/// # Errors
/// When the identity's key does not fit its certificate.
pub fn client_config(
    roots: RootCertStore,
    identity: Option<ClientIdentity>,
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Unusable)?
        .with_root_certificates(Arc::new(roots));
    match identity {
        None => Ok(builder.with_no_client_auth()),
        Some(identity) => {
            builder.with_client_auth_cert(identity.chain, identity.key).map_err(TlsError::Unusable)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Ca;

    #[test]
    fn an_extra_authority_comes_on_top_of_the_machine_s() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        std::fs::write(&path, Ca::new("extra").pem()).unwrap();
        let machine = system_roots(None).unwrap().len();
        assert_eq!(system_roots(Some(&path)).unwrap().len(), machine + 1);
        std::fs::write(&path, "nothing").unwrap();
        let error = system_roots(Some(&path)).unwrap_err().to_string();
        assert!(error.contains("ca.pem: no certificate in it"), "{error}");
    }

    #[test]
    fn a_foreign_key_is_refused_and_never_shown() {
        let ca = Ca::new("ca");
        let (one, two) = (ca.client("a", "spiffe://a"), ca.client("b", "spiffe://b"));
        let mixed = ClientIdentity::from_pem(one.chain.as_bytes(), two.key.as_bytes()).unwrap();
        assert_eq!(format!("{mixed:?}"), "ClientIdentity { chain: 1, .. }");
        assert!(client_config(RootCertStore::empty(), Some(mixed)).is_err());
    }
}
