//! Who a peer is, by the certificate that the handshake has verified.

use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::TlsError;

/// What we read of a verified certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// URIs among its alternative names, such as SPIFFE ids, in order.
    pub uris: Vec<String>,
    /// DNS names among its alternative names, in order.
    pub dns_names: Vec<String>,
    /// Common name of its subject.
    pub common_name: Option<String>,
    /// Serial number in lower-case hex.
    pub serial: String,
    /// Start of its validity in milliseconds since the epoch.
    pub not_before_ms: u64,
    /// End of its validity in milliseconds since the epoch.
    pub not_after_ms: u64,
}

impl PeerIdentity {
    /// The one URI. A certificate with none or several says nothing that can be relied upon.
    pub fn sole_uri(&self) -> Option<&str> {
        match self.uris.as_slice() {
            [uri] => Some(uri),
            _ => None,
        }
    }
}

/// Reads a certificate. This does not verify it: the handshake has.
///
/// # Errors
/// When it is no X.509 certificate.
pub fn peer_identity(certificate: &CertificateDer<'_>) -> Result<PeerIdentity, TlsError> {
    let broken = |error: String| TlsError::Certificate(error);
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|error| broken(error.to_string()))?;
    let names = parsed.subject_alternative_name().map_err(|error| broken(error.to_string()))?;
    let (mut uris, mut dns_names) = (Vec::new(), Vec::new());
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        match name {
            GeneralName::URI(uri) => uris.push((*uri).to_owned()),
            GeneralName::DNSName(name) => dns_names.push((*name).to_owned()),
            _ => {}
        }
    }
    let ms = |secs: i64| u64::try_from(secs).unwrap_or(0).saturating_mul(1000);
    let common_name =
        parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    Ok(PeerIdentity {
        uris,
        dns_names,
        common_name: common_name.map(str::to_owned),
        serial: parsed.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(),
        not_before_ms: ms(parsed.validity().not_before.timestamp()),
        not_after_ms: ms(parsed.validity().not_after.timestamp()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Ca;
    use crate::tls::certificates;

    #[test]
    fn uris_names_and_validity_are_read() {
        let issued = Ca::new("ca").client("node-1", "spiffe://weir/region/eu/node/node-1");
        let chain = certificates(issued.chain.as_bytes(), "chain").unwrap();
        let identity = peer_identity(&chain[0]).unwrap();
        assert_eq!(identity.sole_uri(), Some("spiffe://weir/region/eu/node/node-1"));
        assert_eq!(identity.common_name.as_deref(), Some("node-1"));
        assert!(identity.not_before_ms < identity.not_after_ms);
        assert!(identity.serial.len() >= 16, "{}", identity.serial);
        let server = Ca::new("ca").server(&["localhost", "127.0.0.1"]);
        let chain = certificates(server.chain.as_bytes(), "chain").unwrap();
        let identity = peer_identity(&chain[0]).unwrap();
        assert_eq!((identity.sole_uri(), identity.dns_names.len()), (None, 1));
    }

    #[test]
    fn nonsense_is_refused() {
        for bytes in [&b""[..], b"nonsense", &[0x30, 0x82, 0xff, 0xff, 0]] {
            assert!(peer_identity(&CertificateDer::from(bytes)).is_err());
        }
    }
}
