//! The first meeting: the node knows the control plane by the fingerprint in its token, and the
//! control plane knows the node by the rest of it.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, Error, RootCertStore};
use tonic::Code;
use weir_model::bounds;
use weir_model::id::Digest;
use weir_model::seal::NodeKey;
use weir_model::secret::Secret;
use weir_model::sync::identity::split_join_token;
use weir_proto::sync::v1;
use weir_runtime::backoff::Backoff;
use weir_runtime::drain::Watch;
use weir_runtime::tls::provider;

use super::{ConfigError, Identity, Options, link};

/// A fresh key and the request for its certificate.
pub(super) fn request() -> Result<(Secret<Vec<u8>>, Vec<u8>), ConfigError> {
    let crypto = |e: rcgen::Error| ConfigError::Crypto(e.to_string());
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(crypto)?;
    let request = CertificateParams::default().serialize_request(&key).map_err(crypto)?;
    Ok((Secret::new(key.serialize_der()), request.der().to_vec()))
}

/// Trades the token for an identity. Tries one replica after the other until one answers, or
/// says no. Writes nothing.
///
/// # Errors
/// See [`ConfigError`]; a control plane that cannot be reached is waited for until the drain.
pub async fn enrol(options: &Options, drain: &Watch) -> Result<Identity, ConfigError> {
    let text = options.token.as_ref().ok_or(ConfigError::NoToken)?;
    let (_, authority) = split_join_token(text.expose()).ok_or(ConfigError::BadToken)?;
    let mut backoff = Backoff::new(options.timing.backoff_min, options.timing.backoff_max);
    let mut endpoints = options.endpoints.iter().cycle();
    loop {
        let endpoint = endpoints.next().ok_or(ConfigError::NoEndpoint)?;
        let error = match attempt(options, text, &authority, endpoint).await {
            Ok(Ok(identity)) => return Ok(identity),
            Ok(Err(refused)) => return Err(refused),
            Err(error) => error,
        };
        tracing::warn!(%endpoint, error, "cannot enrol yet; trying again");
        tokio::select! {
            () = backoff.sleep() => {}
            () = drain.drained() => return Err(ConfigError::Draining(error)),
        }
    }
}

/// The outer error may pass; the inner one will not.
async fn attempt(
    options: &Options,
    token: &Secret<String>,
    authority: &Digest,
    endpoint: &link::Endpoint,
) -> Result<Result<Identity, ConfigError>, String> {
    let tls = Pinned::config(*authority).map_err(|e| e.to_string())?;
    let mut client = link::connect(endpoint, tls).await?;
    let (key, certificate_request) = match request() {
        Ok(made) => made,
        Err(error) => return Ok(Err(error)),
    };
    let mut call = tonic::Request::new(v1::EnrolRequest {
        token: token.expose().trim().to_owned(),
        node: options.node.as_ref().map(ToString::to_string).unwrap_or_default(),
        certificate_request: certificate_request.into(),
    });
    call.set_timeout(Duration::from_millis(bounds::ENROL_CALL_MS));
    let answer = match client.enrol(call).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => {
            return match status.code() {
                Code::PermissionDenied | Code::InvalidArgument => {
                    Ok(Err(ConfigError::Refused(status.message().to_owned())))
                }
                _ => Err(link::chain(&status)),
            };
        }
    };
    if Digest::of(&answer.authority) != *authority {
        let why = "it has another authority than the token says".to_owned();
        return Ok(Err(ConfigError::Refused(why)));
    }
    let sealing = NodeKey::generate();
    Ok(Identity::new(answer.certificate.into(), key, answer.authority.into(), sealing))
}

/// Trusts whoever is certified by the one authority of that fingerprint, which must be in the
/// chain that the server shows.
#[derive(Debug)]
struct Pinned(Digest);

impl Pinned {
    fn config(authority: Digest) -> Result<Arc<ClientConfig>, Error> {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Self(authority)))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let authority = chain.iter().find(|c| Digest::of(c) == self.0);
        let authority =
            authority.ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|e| Error::General(e.to_string()))?;
        verifier.verify_server_cert(leaf, &[], name, ocsp, now)
    }

    weir_runtime::handshake_signatures!();
}
