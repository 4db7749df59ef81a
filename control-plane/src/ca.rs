//! The control plane's own certificate authority: it says which nodes are ours, what a sync
//! listener shows to them, and whose signature makes a configuration ours.
//!
//! Made on the first start of the first replica, kept in the store under the vault's seal, shared
//! by all replicas. ECDSA P-256 throughout.

use bytes::Bytes;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SigningKey as _,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use weir_model::id::{Digest, Revision};
use weir_model::sync::identity::{NodeId, PLANE_SERVER_NAME};
use weir_model::sync::statement::{Anchor, Signer};
use zeroize::Zeroize;

use crate::store::{Guard, Op, Store, StoreError};
use crate::vault::{Vault, VaultError};

/// Where the authority lives in the store.
pub const PATH: &str = "state/ca";

/// Certificates begin this much before now, for clocks that are behind.
const SKEW_SECS: i64 = 300;
/// Ten years. Replacing an authority means that every node enrols again.
const AUTHORITY_SECS: i64 = 10 * 365 * 24 * 3600;
/// Longest certificate request.
const REQUEST_BYTES_MAX: usize = 4 * 1024;

/// Why the authority cannot do it.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The vault.
    #[error("the authority's key: {0}")]
    Vault(#[from] VaultError),
    /// What the store holds is no authority.
    #[error("the stored authority is damaged: {0}")]
    Damaged(String),
    /// A certificate request that cannot be served.
    #[error("the certificate request cannot be used: {0}")]
    BadRequest(String),
    /// Making a key or a certificate failed.
    #[error("a certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
}

/// See the module.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ca").field("fingerprint", &self.fingerprint()).finish_non_exhaustive()
    }
}

/// As kept in the store, inside the vault's seal. DER.
#[derive(Serialize, Deserialize)]
struct Kept {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl Ca {
    /// The authority of this store; made when there is none. Of several replicas that start at
    /// once, one makes it and all use it.
    ///
    /// # Errors
    /// See [`CaError`].
    pub async fn load_or_make(store: &dyn Store, vault: &Vault, now: i64) -> Result<Self, CaError> {
        if let Some(ca) = Self::load(store, vault).await? {
            return Ok(ca);
        }
        let kept = make(now)?;
        let plain = zeroize::Zeroizing::new(
            serde_json::to_vec(&kept).map_err(|e| CaError::Damaged(e.to_string()))?,
        );
        let sealed = vault.seal(PATH, &plain)?;
        let guard = Guard { key: PATH.to_owned(), revision: Revision(0) };
        match store.commit(vec![guard], vec![Op::Put(PATH.to_owned(), sealed.into())]).await {
            Ok(_) => {
                let ca = Self::of(kept)?;
                tracing::info!(fingerprint = %ca.fingerprint(), "made the control plane's authority");
                Ok(ca)
            }
            Err(StoreError::Conflict) => Self::load(store, vault)
                .await?
                .ok_or_else(|| CaError::Damaged("it was made and removed at once".to_owned())),
            Err(error) => Err(error.into()),
        }
    }

    async fn load(store: &dyn Store, vault: &Vault) -> Result<Option<Self>, CaError> {
        let Some(entry) = store.get(PATH).await? else { return Ok(None) };
        let plain = vault.open(PATH, &entry.value)?;
        let kept: Kept = serde_json::from_slice(plain.expose())
            .map_err(|e| CaError::Damaged(format!("line {}", e.line())))?;
        Self::of(kept).map(Some)
    }

    fn of(mut kept: Kept) -> Result<Self, CaError> {
        let key = PrivateKeyDer::try_from(kept.key.as_slice())
            .map_err(|e| CaError::Damaged(e.to_owned()))?;
        let key = KeyPair::from_der_and_sign_algo(&key, &rcgen::PKCS_ECDSA_P256_SHA256)
            .map_err(|e| CaError::Damaged(e.to_string()))?;
        let certificate = CertificateDer::from(std::mem::take(&mut kept.certificate));
        let issuer = Issuer::from_ca_cert_der(&certificate, key)
            .map_err(|e| CaError::Damaged(e.to_string()))?;
        Ok(Self { issuer, certificate })
    }

    /// The authority's certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// SHA-256 of the certificate: what enrolment tokens carry.
    pub fn fingerprint(&self) -> Digest {
        Digest::of(&self.certificate)
    }

    /// What nodes check endorsements against.
    pub fn anchor(&self) -> Anchor {
        Anchor(Bytes::copy_from_slice(self.issuer.key().public_key_raw()))
    }

    /// A client certificate for a node and the key of its request, good for `secs`.
    ///
    /// # Errors
    /// [`CaError::BadRequest`] when the request is none, or its signature does not fit its key.
    pub fn issue_node(
        &self,
        request: &[u8],
        id: &NodeId,
        now: i64,
        secs: i64,
    ) -> Result<CertificateDer<'static>, CaError> {
        let bad = |e: String| CaError::BadRequest(e);
        if request.len() > REQUEST_BYTES_MAX {
            return Err(bad("it is too long".to_owned()));
        }
        let request = CertificateSigningRequestDer::from(request);
        let request =
            CertificateSigningRequestParams::from_der(&request).map_err(|e| bad(e.to_string()))?;
        // Nothing but the key is taken from the request.
        let mut params = params(id.node.as_str(), now, secs);
        let uri = id.uri().try_into().map_err(|_| bad("its names are no URI".to_owned()))?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        Ok(params.signed_by(&request.public_key, &self.issuer)?.into())
    }

    /// A certificate for a sync listener, with the authority's behind it, and its key. PEM.
    ///
    /// # Errors
    /// [`CaError::Make`].
    pub fn issue_listener(&self, now: i64, secs: i64) -> Result<(String, String), CaError> {
        let mut params = params(PLANE_SERVER_NAME, now, secs);
        let name = PLANE_SERVER_NAME.try_into().map_err(CaError::Make)?;
        params.subject_alt_names = vec![SanType::DnsName(name)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let chain = format!("{}{}", certificate.pem(), pem(&self.certificate));
        Ok((chain, key.serialize_pem()))
    }

    /// A fresh signer of states, good for `secs`.
    ///
    /// # Errors
    /// [`CaError::Make`].
    pub fn signer(&self, now: i64, secs: i64) -> Result<Signer, CaError> {
        Ok(Signer::new(now + secs, |bytes| self.issuer.key().sign(bytes))?)
    }
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).expect("base64 is ASCII"))
        .collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

fn params(common_name: &str, now: i64, secs: i64) -> CertificateParams {
    let at = |unix: i64| {
        let since = std::time::Duration::from_secs(u64::try_from(unix).unwrap_or(0));
        rcgen::date_time_ymd(1970, 1, 1) + since
    };
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = at(now - SKEW_SECS);
    params.not_after = at(now + secs);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params
}

fn make(now: i64) -> Result<Kept, CaError> {
    let mut params = params("Weir control plane", now, AUTHORITY_SECS);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = false;
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.self_signed(&key)?;
    Ok(Kept { certificate: certificate.der().to_vec(), key: key.serialize_der() })
}

#[cfg(test)]
mod tests;
