//! Client certificates as a login.

use serde::{Deserialize, Serialize};

/// Lets callers in by a TLS client certificate in place of a token, where the proxy's own listener
/// speaks TLS with them. They are `certificate:SUBJECT`, and still need a binding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientCertificates {
    /// PEM certificates of the authorities that issue them.
    pub authorities: String,
    /// Which name of a certificate says whom it is for.
    #[serde(default)]
    pub subject: CertificateSubject,
    /// Memberships of whoever comes with one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub memberships: Vec<String>,
    /// Scopes of whoever comes with one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
}

/// A name in a certificate. One with several of a sort says nothing that can be relied upon.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificateSubject {
    /// The URI among its alternative names, such as a SPIFFE id.
    #[default]
    Uri,
    /// The DNS name among its alternative names.
    Dns,
    /// The common name of its subject.
    CommonName,
}
