//! Node certificates: ours and in time, or ours and ended not too long ago.
//!
//! The handshake lets an ended certificate through within the grace, so that a node that was cut
//! off for longer than its certificate's life can still renew it; everything but renewal refuses
//! it. A node without any certificate may only enrol.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DistinguishedName, Error, RootCertStore};
use weir_model::bounds;
use weir_runtime::tls::{TlsError, peer_identity, provider};

#[derive(Debug)]
pub(super) struct Verifier {
    inner: Arc<dyn ClientCertVerifier>,
}

impl Verifier {
    pub(super) fn new(authority: &CertificateDer<'static>) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone()).map_err(TlsError::Unusable)?;
        let inner = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .allow_unauthenticated()
            .build()
            .map_err(|e| TlsError::ClientCa(e.to_string()))?;
        Ok(Self { inner })
    }
}

/// A moment at which the certificate was still good, when it has ended within the grace.
fn within_grace(certificate: &CertificateDer<'_>, now: UnixTime) -> Option<UnixTime> {
    let end = peer_identity(certificate).ok()?.not_after_ms / 1000;
    let grace = u64::try_from(bounds::NODE_RENEW_GRACE_SECS).ok()?;
    let ended = now.as_secs().checked_sub(end)?;
    (ended <= grace).then(|| UnixTime::since_unix_epoch(Duration::from_secs(end)))
}

impl ClientCertVerifier for Verifier {
    fn offer_client_auth(&self) -> bool {
        true
    }
    fn client_auth_mandatory(&self) -> bool {
        false
    }
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let ended = |error: &Error| {
            matches!(
                error,
                Error::InvalidCertificate(
                    CertificateError::Expired | CertificateError::ExpiredContext { .. }
                )
            )
        };
        match self.inner.verify_client_cert(leaf, between, now) {
            Err(error) if ended(&error) => match within_grace(leaf, now) {
                Some(then) => self.inner.verify_client_cert(leaf, between, then),
                None => Err(error),
            },
            other => other,
        }
    }

    weir_runtime::handshake_signatures!();
}
