//! What tests of both planes share: a throw-away authority, waiting with a bound, captured logs.
//!
//! Behind the feature `testing`; no product binary switches it on.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};

/// An authority that lives as long as the test.
#[derive(Debug)]
pub struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key as PEM texts.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate.
    pub chain: String,
    /// Its private key.
    pub key: String,
}

impl Ca {
    /// A new one.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key can be made");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority can be made");
        Self { issuer }
    }

    /// Its certificate.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// For a listener with these DNS names and addresses.
    pub fn server(&self, names: &[&str]) -> Issued {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("test names are valid");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(&params)
    }

    /// For a client with one URI.
    pub fn client(&self, common_name: &str, uri: &str) -> Issued {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        let uri = uri.try_into().expect("test URIs are ASCII");
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(&params)
    }

    /// For whatever the parameters say.
    pub fn issue(&self, params: &CertificateParams) -> Issued {
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate can be made");
        Issued { chain: certificate.pem(), key: key.serialize_pem() }
    }
}

impl Issued {
    /// Writes `NAME.cert.pem` and `NAME.key.pem`.
    pub fn write(&self, dir: &Path, name: &str) -> (PathBuf, PathBuf) {
        let cert = dir.join(format!("{name}.cert.pem"));
        let key = dir.join(format!("{name}.key.pem"));
        std::fs::write(&cert, &self.chain).expect("test folders can be written");
        std::fs::write(&key, &self.key).expect("test folders can be written");
        (cert, key)
    }
}

/// Waits until the condition holds; false when it did not within the bound. The condition is
/// tried once more at the end, so that a slow machine gets its answer.
pub async fn eventually<F: AsyncFnMut() -> bool>(bound: Duration, mut condition: F) -> bool {
    let deadline = tokio::time::Instant::now() + bound;
    while tokio::time::Instant::now() < deadline {
        if condition().await {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    condition().await
}

/// Collects what a subscriber writes. Clones share one text.
#[derive(Debug, Clone, Default)]
pub struct LogCapture {
    text: Arc<Mutex<Vec<u8>>>,
}

/// Has every thread of a test listen to everything that is logged, and keep nothing. Where only
/// some threads have a subscriber, what others log first may stay silent for all: `tracing`
/// remembers by place whether anybody wanted to hear.
pub fn listen_to_everything() {
    // Somebody may have done it before.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry());
}

impl LogCapture {
    /// Everything so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.text.lock()).into_owned()
    }
}

impl io::Write for LogCapture {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl tracing_subscriber::fmt::MakeWriter<'_> for LogCapture {
    type Writer = Self;
    fn make_writer(&self) -> Self {
        self.clone()
    }
}
