//! What operators say: declarative documents (`apiVersion: weir/v1`).
//!
//! A document is JSON or YAML; its canonical form ([`Resource::canonical`]) is compact JSON with
//! members in declaration order, and is what the store keeps, the wire carries and digests cover.
//! Secrets are never part of it: a document refers to a secret by its id ([`SecretRef`]).

mod access;
mod certificates;
mod check;
mod document;
mod group;
mod identity;
mod revocation;
mod server;
mod set;
mod sign_in;
mod system;

pub use access::{
    Credential, HeaderCredential, Limit, LimitScope, LimitUnit, Policy, Quota, QuotaWindow, Rate,
    RateUnit, Role, RoleBinding, Rule, SecretRef, Subject,
};
pub use certificates::{CertificateSubject, ClientCertificates};
pub use document::{Document, FieldError, parse_documents};
pub use group::{AuditClass, Extension, Group, PinRule, Region, SessionLimits};
pub use identity::{
    Algorithm, ApiTokenEntry, ClaimNames, ClaimOverrides, IdentityProvider, KeySource, Overage,
    Preset, ServiceAccount,
};
pub use revocation::{NodeRevocation, Revocation, Revoked, RevokedPrincipal, RevokedTool};
pub use server::{
    HttpUpstream, Server, ServerVersion, StdioUpstream, ToolCost, TrafficShare, Upstream,
};
pub use set::ResourceSet;
pub use sign_in::{ProviderClient, SignIn, SignInClient};
pub use system::{
    Catalog, CatalogEntry, Definition, DefinitionKind, Keyring, KeyringEntry, ObservedEra,
};

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{Digest, Name};

/// The version that every document names.
pub const API_VERSION: &str = "weir/v1";

/// What a document is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// A place where proxies run.
    Region,
    /// The isolation unit.
    Group,
    /// A registered MCP server of a group.
    Server,
    /// An OIDC issuer that a group trusts.
    IdentityProvider,
    /// A machine caller, with its API tokens.
    ServiceAccount,
    /// A set of permissions.
    Role,
    /// Who has a role.
    RoleBinding,
    /// Cedar text.
    Policy,
    /// A bound on calls.
    Limit,
    /// What the gateway presents to an upstream.
    Credential,
    /// Something of a group that may no longer be used.
    Revocation,
    /// A proxy that is cut off.
    NodeRevocation,
    /// What a server version was seen to offer, and which of it is pinned. Written by the
    /// control plane from what proxies report.
    Catalog,
    /// One definition of a catalog, byte for byte, named by its digest. Written likewise.
    Definition,
    /// Keys that seal session ids and cursors. Written by the control plane.
    Keyring,
}

impl Kind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[
        Self::Region,
        Self::Group,
        Self::Server,
        Self::IdentityProvider,
        Self::ServiceAccount,
        Self::Role,
        Self::RoleBinding,
        Self::Policy,
        Self::Limit,
        Self::Credential,
        Self::Revocation,
        Self::NodeRevocation,
        Self::Catalog,
        Self::Definition,
        Self::Keyring,
    ];

    /// As in the document's `kind`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Region => "Region",
            Self::Group => "Group",
            Self::Server => "Server",
            Self::IdentityProvider => "IdentityProvider",
            Self::ServiceAccount => "ServiceAccount",
            Self::Role => "Role",
            Self::RoleBinding => "RoleBinding",
            Self::Policy => "Policy",
            Self::Limit => "Limit",
            Self::Credential => "Credential",
            Self::Revocation => "Revocation",
            Self::NodeRevocation => "NodeRevocation",
            Self::Catalog => "Catalog",
            Self::Definition => "Definition",
            Self::Keyring => "Keyring",
        }
    }

    /// The kind of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|k| k.as_str() == text)
    }

    /// True for kinds whose documents belong to a group.
    pub fn is_grouped(self) -> bool {
        !matches!(
            self,
            Self::Region | Self::Group | Self::NodeRevocation | Self::Definition | Self::Keyring
        )
    }

    /// True for kinds that only the control plane itself writes; an apply of one is refused.
    pub fn is_system(self) -> bool {
        matches!(self, Self::Catalog | Self::Definition | Self::Keyring)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The identity of a document. Prints as `Server/acme/billing`, or `Region/eu`.
///
/// A `Definition` is named by the first 40 hexadecimal characters of its digest; a `Catalog` by
/// `{server}.{version}` (the one place where a name holds a dot).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceKey {
    /// What it is.
    pub kind: Kind,
    /// Of which group; none for kinds outside groups.
    pub group: Option<Name>,
    /// Its name, unique within kind and group.
    pub name: String,
}

impl ResourceKey {
    /// A key of a kind that belongs to a group.
    pub fn grouped(kind: Kind, group: &Name, name: impl Into<String>) -> Self {
        Self { kind, group: Some(group.clone()), name: name.into() }
    }
    /// A key of a kind outside groups.
    pub fn global(kind: Kind, name: impl Into<String>) -> Self {
        Self { kind, group: None, name: name.into() }
    }
    /// Reads what `Display` writes.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '/');
        let kind = Kind::parse(parts.next()?)?;
        let (a, b) = (parts.next()?, parts.next());
        let (group, name) = match (kind.is_grouped(), b) {
            (true, Some(name)) => (Some(a.parse().ok()?), name),
            (false, None) => (None, a),
            _ => return None,
        };
        Some(Self { kind, group, name: name.to_owned() })
    }
}

impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.group {
            Some(group) => write!(f, "{}/{group}/{}", self.kind, self.name),
            None => write!(f, "{}/{}", self.kind, self.name),
        }
    }
}
impl ResourceKey {
    /// Bytes of its text.
    pub fn text_bytes(&self) -> usize {
        let group = self.group.as_ref().map_or(0, |group| group.as_str().len() + 1);
        self.kind.as_str().len() + 1 + group + self.name.len()
    }
}
impl fmt::Debug for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a document says, by kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Spec {
    /// See [`Region`].
    Region(Region),
    /// See [`Group`].
    Group(Group),
    /// See [`Server`].
    Server(Server),
    /// See [`IdentityProvider`].
    IdentityProvider(IdentityProvider),
    /// See [`ServiceAccount`].
    ServiceAccount(ServiceAccount),
    /// See [`Role`].
    Role(Role),
    /// See [`RoleBinding`].
    RoleBinding(RoleBinding),
    /// See [`Policy`].
    Policy(Policy),
    /// See [`Limit`].
    Limit(Limit),
    /// See [`Credential`].
    Credential(Credential),
    /// See [`Revocation`].
    Revocation(Revocation),
    /// See [`NodeRevocation`].
    NodeRevocation(NodeRevocation),
    /// See [`Catalog`].
    Catalog(Catalog),
    /// See [`Definition`].
    Definition(Definition),
    /// See [`Keyring`].
    Keyring(Keyring),
    /// A document that this build cannot read, and why: one that a newer control plane published.
    /// A proxy keeps it, so that digests agree, and compiling quarantines what it may bear on: a
    /// `Server`, `Catalog`, `Credential`, `ServiceAccount` or `Definition` is refused alone, any
    /// other kind of a group takes the whole group with it. Never admitted, never published by
    /// a build that cannot read it.
    Unreadable(String),
}

/// One admitted document: typed, with its canonical bytes and their digest.
#[derive(Debug, Clone)]
pub struct Resource {
    /// Its identity.
    pub key: ResourceKey,
    /// What it says.
    pub spec: Spec,
    /// Compact JSON of the whole document; what store and wire carry.
    pub canonical: bytes::Bytes,
    /// Of `canonical`.
    pub digest: Digest,
}

impl Resource {
    /// A document that came from the control plane but cannot be read here; see
    /// [`Spec::Unreadable`].
    pub fn unreadable(key: ResourceKey, canonical: bytes::Bytes, why: String) -> Self {
        let digest = Digest::of(&canonical);
        Self { key, spec: Spec::Unreadable(why), canonical, digest }
    }
}

impl PartialEq for Resource {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key && self.digest == other.digest
    }
}

impl Resource {
    /// The secrets that it refers to, each with the path of the reference.
    pub fn secret_refs(&self) -> Vec<(String, &SecretRef)> {
        match &self.spec {
            Spec::Credential(Credential::Header(header)) => {
                vec![("spec.header.value".to_owned(), &header.value)]
            }
            Spec::IdentityProvider(IdentityProvider {
                sign_in: Some(ProviderClient { client_secret: Some(secret), .. }),
                ..
            }) => vec![("spec.signIn.clientSecret".to_owned(), secret)],
            Spec::Keyring(ring) => {
                let keys = ring.keys.iter().enumerate();
                keys.map(|(i, key)| (format!("spec.keys[{i}].key"), &key.key)).collect()
            }
            _ => Vec::new(),
        }
    }
}
