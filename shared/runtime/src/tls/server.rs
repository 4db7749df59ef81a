//! The listener's side of TLS.
//!
//! A [`ServerCertificate`] is read from files or set by whoever issues it, and swapped without
//! touching connections: those that are open keep what they have shaken hands with. A new file
//! that is broken, or a certificate whose key is not there yet, leaves the old one in force and
//! is reported.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use tokio::sync::watch;

use super::{TlsError, certificates, private_key, provider, read};
use crate::drain::Watch;

/// How often files are looked at when nobody asks for it.
pub const POLL: Duration = Duration::from_secs(5);

/// A listener's certificate and key, replaceable while it serves.
#[derive(Debug)]
pub struct ServerCertificate {
    current: ArcSwap<CertifiedKey>,
    files: Option<(PathBuf, PathBuf)>,
}

/// Whether clients show a certificate.
#[derive(Debug, Clone)]
pub enum ClientAuth {
    /// They are not asked.
    None,
    /// They may; one that is shown must be good.
    Optional(Arc<RootCertStore>),
    /// They must.
    Required(Arc<RootCertStore>),
    /// As this says.
    By(Arc<dyn ClientCertVerifier>),
}

impl ServerCertificate {
    /// From PEM files, the certificate's with the whole chain.
    ///
    /// # Errors
    /// When a file cannot be read or the two do not fit together.
    pub fn from_files(certificate: &Path, key: &Path) -> Result<Arc<Self>, TlsError> {
        let current = ArcSwap::from_pointee(load(certificate, key)?);
        let files = Some((certificate.to_owned(), key.to_owned()));
        Ok(Arc::new(Self { current, files }))
    }

    /// From PEM texts.
    ///
    /// # Errors
    /// When they are broken or do not fit together.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Arc<Self>, TlsError> {
        let current = ArcSwap::from_pointee(parse(certificate, key, ("certificate", "key"))?);
        Ok(Arc::new(Self { current, files: None }))
    }

    /// Puts another one in force for connections from now on.
    ///
    /// # Errors
    /// When it is broken; the one in force stays.
    pub fn replace(&self, certificate: &[u8], key: &[u8]) -> Result<(), TlsError> {
        self.current.store(Arc::new(parse(certificate, key, ("certificate", "key"))?));
        Ok(())
    }

    /// Reads the files again; true when the certificate changed.
    ///
    /// # Errors
    /// When they are broken; the one in force stays.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let Some((certificate, key)) = &self.files else { return Ok(false) };
        let loaded = load(certificate, key)?;
        let changed = loaded.cert != self.current.load().cert;
        if changed {
            self.current.store(Arc::new(loaded));
        }
        Ok(changed)
    }

    /// When the certificate in force ends, in milliseconds since the epoch.
    ///
    /// # Errors
    /// When the certificate cannot be read, which rustls would have refused before.
    pub fn not_after_ms(&self) -> Result<u64, TlsError> {
        let current = self.current.load();
        let leaf = current.cert.first().ok_or_else(|| TlsError::Certificate("empty".into()))?;
        Ok(super::peer_identity(leaf)?.not_after_ms)
    }

    /// Looks at the files every `poll` and whenever `reload` changes, until the drain.
    pub async fn keep_fresh(
        self: Arc<Self>,
        poll: Duration,
        mut reload: watch::Receiver<u64>,
        drain: Watch,
    ) {
        // The first look always reads: a file may have changed since it was loaded.
        let mut seen = None;
        let mut broken = false;
        let mut reload_open = true;
        loop {
            let asked = tokio::select! {
                () = tokio::time::sleep(poll) => false,
                changed = reload.changed(), if reload_open => {
                    reload_open = changed.is_ok();
                    reload_open
                }
                () = drain.drained() => return,
            };
            let now = Some(self.stamps());
            let news = asked || now != seen;
            if news || broken {
                seen = now;
                broken = self.reload_and_tell(news);
            }
        }
    }

    /// Reloads; true when the files are broken. A pair that stays broken is told once.
    fn reload_and_tell(&self, tell: bool) -> bool {
        match self.reload() {
            Ok(true) => tracing::info!(files = ?self.files, "certificate replaced"),
            Ok(false) => {}
            Err(error) => {
                if tell {
                    tracing::error!(
                        error = %crate::telemetry::chain(&error),
                        "the new certificate is broken; the old one stays in force"
                    );
                }
                return true;
            }
        }
        false
    }

    fn stamps(&self) -> [Option<(SystemTime, u64)>; 2] {
        let of = |path: &Path| {
            let meta = std::fs::metadata(path).ok()?;
            Some((meta.modified().ok()?, meta.len()))
        };
        match &self.files {
            Some((certificate, key)) => [of(certificate), of(key)],
            None => [None, None],
        }
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn load(certificate: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
    let names = (certificate.display().to_string(), key.display().to_string());
    parse(&read(certificate)?, &read(key)?, (&names.0, &names.1))
}

fn parse(certificate: &[u8], key: &[u8], what: (&str, &str)) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(certificate, what.0)?;
    let key = private_key(key, what.1)?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(TlsError::Unusable)
}

/// A listener's configuration: HTTP/2 and HTTP/1.1, TLS 1.2 and 1.3.
///
/// # Errors
/// When client certificates are wanted and the authorities cannot be used.
pub fn server_config(
    certificate: Arc<ServerCertificate>,
    clients: ClientAuth,
) -> Result<ServerConfig, TlsError> {
    let provider = provider();
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Unusable)?;
    let verifier = |roots, optional| -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
        let verifier = if optional { verifier.allow_unauthenticated() } else { verifier };
        verifier.build().map_err(|error| TlsError::ClientCa(error.to_string()))
    };
    let builder = match clients {
        ClientAuth::None => builder.with_no_client_auth(),
        ClientAuth::Optional(roots) => builder.with_client_cert_verifier(verifier(roots, true)?),
        ClientAuth::By(verifier) => builder.with_client_cert_verifier(verifier),
        ClientAuth::Required(roots) => builder.with_client_cert_verifier(verifier(roots, false)?),
    };
    let mut config = builder.with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests;
