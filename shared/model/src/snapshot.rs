//! What a proxy uses: resources compiled into an immutable view that the hot path looks up in.
//!
//! [`Snapshot::compile`] is the one function that turns resources into a snapshot. The control
//! plane runs it to admit a change, every proxy runs it to apply one. It never fails as a whole:
//! a resource that it cannot use is quarantined with a reason, and what touches it is refused
//! with [`crate::reason::Reason::Quarantined`]. Admission refuses a change that would quarantine.
//! No serde and no protobuf here on purpose.

mod compile;
mod tool;

pub use tool::{Hints, ParamHeader, ParamType, ToolView};

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use crate::id::{Digest, Name, Revision};
use crate::policy::Rules;
use crate::principal::Principal;
use crate::resource::{
    Credential, Group, IdentityProvider, Limit, ObservedEra, ResourceKey, ResourceSet, SecretRef,
    Server, ServerVersion,
};
use crate::secret::Secret;

/// Secrets by id, opened for this process.
pub type Secrets = HashMap<String, Arc<Secret<Vec<u8>>>>;

/// One revision, compiled.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Of the store when this was published.
    pub revision: Revision,
    /// Of the resource set that this was compiled from.
    pub digest: Digest,
    /// By name.
    pub groups: HashMap<Name, Arc<GroupView>>,
    /// Keys that seal sessions and cursors, newest first: id and 32 bytes.
    pub sealing: Vec<(String, Arc<Secret<Vec<u8>>>)>,
    /// What could not be used, and why.
    pub quarantined: BTreeMap<ResourceKey, String>,
    /// Opened secrets.
    pub secrets: Secrets,
}

impl Snapshot {
    /// Compiles a resource set. `previous` lends what has not changed (tool views, rules).
    ///
    /// Takes milliseconds per thousand changed tools; run it off the hot path, on a thread with
    /// [`crate::bounds::COMPILE_STACK_BYTES`] of stack (this function sees to that itself).
    pub fn compile(
        revision: Revision,
        set: &ResourceSet,
        secrets: Secrets,
        previous: Option<&Snapshot>,
    ) -> Self {
        compile::compile(revision, set, secrets, previous)
    }

    /// The secret that a resource refers to.
    pub fn secret(&self, reference: &SecretRef) -> Option<&Arc<Secret<Vec<u8>>>> {
        self.secrets.get(&reference.secret)
    }
}

/// A group as the hot path sees it.
#[derive(Debug)]
pub struct GroupView {
    /// Its name.
    pub name: Name,
    /// What its document says.
    pub spec: Group,
    /// Set when the group's own document, an identity provider, a role, a binding or a policy of
    /// it cannot be used: nothing of the group is served, since a rule may be missing.
    pub quarantined: Option<String>,
    /// Issuers that it trusts.
    pub providers: Vec<ProviderView>,
    /// API tokens by SHA-256 of the whole token.
    pub tokens: HashMap<Digest, TokenView>,
    /// Its servers, by name.
    pub servers: BTreeMap<Name, Arc<ServerView>>,
    /// Roles, bindings and policies, compiled.
    pub rules: Arc<Rules>,
    /// Its limits with their names.
    pub limits: Vec<(Name, Limit)>,
    /// Its credentials.
    pub credentials: HashMap<Name, Credential>,
    /// Names of `/{group}/mcp`: exposed tool or prompt name to server and upstream name.
    pub exposed: HashMap<String, (Name, String)>,
}

/// An issuer that a group trusts.
#[derive(Debug)]
pub struct ProviderView {
    /// The resource's name.
    pub name: Name,
    /// What its document says.
    pub spec: Arc<IdentityProvider>,
    /// Of the document: keys the cache of its key set.
    pub digest: Digest,
}

/// An API token that a group knows.
#[derive(Debug)]
pub struct TokenView {
    /// Public part.
    pub id: String,
    /// Seconds since the epoch.
    pub expires: Option<i64>,
    /// Whom it proves.
    pub principal: Arc<Principal>,
}

/// A server as the hot path sees it.
#[derive(Debug)]
pub struct ServerView {
    /// Its name.
    pub name: Name,
    /// What its document says.
    pub spec: Server,
    /// Why it is not served.
    pub quarantined: Option<String>,
    /// In the document's order; never empty.
    pub versions: Vec<Arc<VersionView>>,
}

impl ServerView {
    /// The version for a call: by the traffic shares and `draw`, a number spread evenly over
    /// `0..100` that callers derive from the principal (so that one caller stays on one version).
    pub fn version(&self, draw: u8) -> &Arc<VersionView> {
        let mut left = draw % 100;
        for share in &self.spec.traffic {
            if left < share.percent {
                if let Some(v) = self.versions.iter().find(|v| v.name == share.version) {
                    return v;
                }
            }
            left = left.saturating_sub(share.percent);
        }
        &self.versions[0]
    }
}

/// One version of a server as the hot path sees it.
#[derive(Debug)]
pub struct VersionView {
    /// Group, server and version: the identity under which connections and children are kept.
    pub key: UpstreamKey,
    /// Its name.
    pub name: Name,
    /// What the document says.
    pub spec: ServerVersion,
    /// What is pinned of it; none until it was observed and pinned.
    pub catalog: Option<Arc<CatalogView>>,
}

/// What connections, children, health and catalogs belong to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpstreamKey {
    /// Group.
    pub group: Name,
    /// Server.
    pub server: Name,
    /// Version.
    pub version: Name,
}

impl std::fmt::Display for UpstreamKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}@{}", self.group, self.server, self.version)
    }
}

/// The pinned definitions of one server version.
#[derive(Debug)]
pub struct CatalogView {
    /// The era that the server was seen to speak.
    pub era: ObservedEra,
    /// `serverInfo`, JSON.
    pub server_info: serde_json::Value,
    /// `capabilities`, JSON object.
    pub capabilities: serde_json::Value,
    /// `instructions`.
    pub instructions: Option<String>,
    /// In the upstream's order.
    pub tools: Vec<Arc<ToolView>>,
    /// Index into `tools` by the upstream's name.
    pub tool_index: HashMap<String, usize>,
    /// In the upstream's order.
    pub resources: Vec<Arc<PlainView>>,
    /// In the upstream's order.
    pub templates: Vec<Arc<PlainView>>,
    /// In the upstream's order.
    pub prompts: Vec<Arc<PlainView>>,
}

impl CatalogView {
    /// The tool of that upstream name.
    pub fn tool(&self, name: &str) -> Option<&Arc<ToolView>> {
        self.tool_index.get(name).and_then(|at| self.tools.get(*at))
    }
}

/// A resource, template or prompt definition.
#[derive(Debug)]
pub struct PlainView {
    /// URI, URI template or prompt name, as the upstream has it.
    pub name: String,
    /// The name on the aggregated endpoint (prompts; URIs are left as they are).
    pub exposed: String,
    /// The definition byte for byte.
    pub raw: Bytes,
    /// The same with the exposed name in place of the upstream's.
    pub raw_exposed: Bytes,
    /// Of `raw`.
    pub digest: Digest,
}
