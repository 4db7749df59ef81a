//! Who this proxy is: its certificate and keys, in one file for the proxy alone.

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, Serialize};
use weir_model::seal::NodeKey;
use weir_model::secret::Secret;
use weir_model::sync::identity::NodeId;
use weir_model::sync::statement::Anchor;
use weir_runtime::tls::{peer_identity, provider};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroize as _;

use super::{ConfigError, files};

const FILE: &str = "identity.json";
const VERSION: u32 = 1;

/// Who this proxy is, proved by the control plane's authority.
pub struct Identity {
    /// Region and name.
    pub id: NodeId,
    /// What secrets are sealed to.
    pub sealing: NodeKey,
    pub(super) certificate: CertificateDer<'static>,
    pub(super) key: Secret<Vec<u8>>,
    pub(super) authority: CertificateDer<'static>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The file. Binary members are base64 of DER, or of the bare key.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Kept {
    version: u32,
    certificate: String,
    key: String,
    authority: String,
    sealing_key: String,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.key.zeroize();
        self.sealing_key.zeroize();
    }
}

fn crypto(error: impl std::fmt::Display) -> ConfigError {
    ConfigError::Crypto(error.to_string())
}

impl Identity {
    /// From what enrolling or renewing gave: certificates and key in DER.
    ///
    /// # Errors
    /// When they do not fit together, or name no node.
    pub fn new(
        certificate: Vec<u8>,
        key: Secret<Vec<u8>>,
        authority: Vec<u8>,
        sealing: NodeKey,
    ) -> Result<Self, ConfigError> {
        let certificate = CertificateDer::from(certificate);
        let peer = peer_identity(&certificate).map_err(crypto)?;
        let id = peer.sole_uri().and_then(NodeId::parse_uri);
        let id = id.ok_or_else(|| crypto("the certificate names no node"))?;
        let identity =
            Self { id, sealing, certificate, key, authority: CertificateDer::from(authority) };
        identity.tls()?;
        identity.anchor()?;
        Ok(identity)
    }

    /// What is in the folder; none when the proxy is new.
    pub(super) fn load(folder: &Path) -> Result<Option<Self>, ConfigError> {
        let path = folder.join(FILE);
        let failed = |e: String| files::failed(&path, e);
        let text = match std::fs::read(&path) {
            Ok(text) => Secret::new(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error.to_string())),
        };
        // Errors of the parser may quote what they read.
        let kept: Kept = serde_json::from_slice(text.expose())
            .map_err(|e| failed(format!("line {} is not as it was written", e.line())))?;
        if kept.version != VERSION {
            return Err(failed(format!("written by another version of Weir ({})", kept.version)));
        }
        let bytes = |what: &str, text: &str| {
            STANDARD.decode(text).map_err(|_| failed(format!("{what} is not base64")))
        };
        let sealing = Secret::new(bytes("sealingKey", &kept.sealing_key)?);
        let sealing = NodeKey::from_bytes(sealing.expose()).map_err(|e| failed(e.to_string()))?;
        let identity = Self::new(
            bytes("certificate", &kept.certificate)?,
            Secret::new(bytes("key", &kept.key)?),
            bytes("authority", &kept.authority)?,
            sealing,
        );
        identity.map(Some).map_err(|e| failed(e.to_string()))
    }

    pub(super) fn save(&self, folder: &Path) -> Result<(), ConfigError> {
        let path = folder.join(FILE);
        let kept = Kept {
            version: VERSION,
            certificate: STANDARD.encode(&self.certificate),
            key: STANDARD.encode(self.key.expose()),
            authority: STANDARD.encode(&self.authority),
            sealing_key: STANDARD.encode(self.sealing.to_bytes().expose()),
        };
        let text = serde_json::to_vec_pretty(&kept).map_err(|e| files::failed(&path, e))?;
        let text = Secret::new(text);
        files::replace(&path, |file| std::io::Write::write_all(file, text.expose()))
            .map_err(|e| files::failed(&path, e))
    }

    /// The authority's key, against which the control plane's signatures are checked.
    ///
    /// # Errors
    /// When the authority's certificate cannot be read.
    pub fn anchor(&self) -> Result<Anchor, ConfigError> {
        let (_, parsed) = X509Certificate::from_der(&self.authority).map_err(crypto)?;
        Ok(Anchor(Bytes::copy_from_slice(&parsed.public_key().subject_public_key.data)))
    }

    /// TLS towards the control plane: this node's certificate, that authority, nobody else.
    ///
    /// # Errors
    /// When key and certificates do not fit together.
    pub fn tls(&self) -> Result<Arc<ClientConfig>, ConfigError> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.clone()).map_err(crypto)?;
        let key = PrivateKeyDer::try_from(self.key.expose().clone()).map_err(crypto)?;
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(crypto)?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![self.certificate.clone()], key)
            .map_err(crypto)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }

    /// What it shows to other nodes: its certificate and key, and the authority behind both.
    pub(crate) fn shown(
        &self,
    ) -> (CertificateDer<'static>, &Secret<Vec<u8>>, CertificateDer<'static>) {
        (self.certificate.clone(), &self.key, self.authority.clone())
    }

    /// When two thirds of the certificate's life are over, in seconds since the epoch.
    pub(super) fn renew_at(&self) -> i64 {
        let Ok(peer) = peer_identity(&self.certificate) else { return 0 };
        let life = peer.not_after_ms.saturating_sub(peer.not_before_ms);
        i64::try_from((peer.not_before_ms + life / 3 * 2) / 1000).unwrap_or(0)
    }
}
