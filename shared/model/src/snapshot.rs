//! What a proxy uses: resources compiled into an immutable view that the hot path looks up in.
//!
//! [`Snapshot::compile`] is the one function that turns resources into a snapshot. The control
//! plane runs it to admit a change, every proxy runs it to apply one. It never fails as a whole:
//! a resource that it cannot use is quarantined with a reason, and what touches it is refused
//! with [`crate::reason::Reason::Quarantined`]. Admission refuses a change that would quarantine.
//! No serde and no protobuf here on purpose.

mod catalog;
mod compile;
mod headers;
mod tool;
mod withdrawn;

pub use headers::param_headers;
pub use tool::{Hints, ParamHeader, ParamType, ToolView};
pub use withdrawn::Withdrawn;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use crate::id::{Digest, Name, Revision};
use crate::policy::{Patterns, Rules};
use crate::principal::Principal;
use crate::resource::{
    ClaimNames, Credential, FieldError, Group, IdentityProvider, Limit, ObservedEra, ResourceKey,
    ResourceSet, SecretRef, Server, ServerVersion,
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
    /// Proxies that are cut off, by name.
    pub revoked_nodes: BTreeSet<Name>,
    /// What could not be used, and why. What is only half of a mistake (a region that nobody
    /// described, a binding for an account that does not exist) harms nobody and is not here.
    pub quarantined: BTreeMap<ResourceKey, String>,
    /// Everything that is wrong with the set, by document and path: what admission refuses.
    pub problems: Vec<FieldError>,
    /// Secrets that documents refer to and that `secrets` does not hold. Apart from `problems`,
    /// because admission has the ids of secrets without having opened them.
    pub missing_secrets: Vec<FieldError>,
    /// Opened secrets.
    pub secrets: Secrets,
    /// What this was compiled from: tells the next compilation what has changed.
    source: ResourceSet,
}

impl Snapshot {
    /// The group of that name.
    pub fn group(&self, name: &str) -> Option<&Arc<GroupView>> {
        self.groups.get(name)
    }

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

    /// What this was compiled from.
    pub fn source(&self) -> &ResourceSet {
        &self.source
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
    pub tokens: Arc<HashMap<Digest, TokenView>>,
    /// Its servers, by name.
    pub servers: BTreeMap<Name, Arc<ServerView>>,
    /// Roles, bindings and policies, compiled.
    pub rules: Arc<Rules>,
    /// Its limits with their names.
    pub limits: Vec<(Name, Limit)>,
    /// Its credentials.
    pub credentials: HashMap<Name, Credential>,
    /// What of it may no longer be used.
    pub withdrawn: Withdrawn,
    /// True when nothing of it is wrong, so that the next compilation may take it over.
    sound: bool,
}

impl GroupView {
    /// The server that a name on the aggregated endpoint belongs to: `billing__refund`. Which of
    /// its tools or prompts it means is for the catalog of the version that serves the call to
    /// say: [`CatalogView::exposed_tool`], [`CatalogView::exposed_prompt`].
    pub fn exposing_server(&self, exposed: &str) -> Option<&Arc<ServerView>> {
        let (server, _) = crate::naming::split(exposed)?;
        self.servers.get(server)
    }
}

/// An issuer that a group trusts.
#[derive(Debug)]
pub struct ProviderView {
    /// The resource's name.
    pub name: Name,
    /// What its document says.
    pub spec: Arc<IdentityProvider>,
    /// Which claims of its tokens say what.
    pub claims: ClaimNames,
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
    /// When it was last used at this proxy since this was compiled: seconds since the epoch.
    pub used: std::sync::atomic::AtomicI64,
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
    /// [`Server::costs`], compiled.
    pub costs: Vec<(Patterns, u32)>,
    /// In the document's order; never empty.
    pub versions: Vec<Arc<VersionView>>,
}

impl ServerView {
    /// What a call of a tool costs, which says `own` of itself.
    pub fn cost(&self, tool: &str, own: u32) -> u32 {
        let said = self.costs.iter().find(|(tools, _)| tools.matches(tool));
        said.map_or(own, |(_, units)| *units)
    }

    /// The version for a call: by the traffic shares and `draw`, a number spread evenly over
    /// `0..100` that callers derive from the principal (so that one caller stays on one version).
    pub fn version(&self, draw: u8) -> &Arc<VersionView> {
        let mut left = draw % 100;
        for share in &self.spec.traffic {
            if left < share.percent
                && let Some(v) = self.versions.iter().find(|v| v.name == share.version)
            {
                return v;
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
    /// Of the `Catalog` document.
    pub digest: Digest,
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
    /// In the upstream's order.
    pub resources: Vec<Arc<PlainView>>,
    /// In the upstream's order.
    pub templates: Vec<Arc<PlainView>>,
    /// In the upstream's order.
    pub prompts: Vec<Arc<PlainView>>,
    /// Pinned definitions that are not served, by name, and why: no JSON of that kind, or a name
    /// that another one has already.
    pub dropped: Vec<(String, String)>,
    index: Index,
}

/// Where definitions are in the lists of a catalog.
#[derive(Debug, Default)]
struct Index {
    tools: HashMap<String, usize>,
    prompts: HashMap<String, usize>,
    resources: HashMap<String, usize>,
    /// Exposed names that are not just server and name.
    short_tools: HashMap<String, usize>,
    short_prompts: HashMap<String, usize>,
}

impl CatalogView {
    /// The catalog of a server that offers nothing.
    pub fn empty(era: ObservedEra) -> Self {
        Self {
            digest: Digest::default(),
            era,
            server_info: serde_json::Value::Null,
            capabilities: serde_json::Value::Null,
            instructions: None,
            tools: Vec::new(),
            resources: Vec::new(),
            templates: Vec::new(),
            prompts: Vec::new(),
            dropped: Vec::new(),
            index: Index::default(),
        }
    }

    /// The tool of that upstream name.
    pub fn tool(&self, name: &str) -> Option<&Arc<ToolView>> {
        self.index.tools.get(name).and_then(|at| self.tools.get(*at))
    }

    /// The tool of that name on the aggregated endpoint.
    pub fn exposed_tool(&self, exposed: &str) -> Option<&Arc<ToolView>> {
        let (_, name) = crate::naming::split(exposed)?;
        let short = || self.index.short_tools.get(exposed).and_then(|at| self.tools.get(*at));
        self.tool(name).filter(|tool| tool.exposed == exposed).or_else(short)
    }

    /// The prompt of that upstream name.
    pub fn prompt(&self, name: &str) -> Option<&Arc<PlainView>> {
        self.index.prompts.get(name).and_then(|at| self.prompts.get(*at))
    }

    /// The prompt of that name on the aggregated endpoint.
    pub fn exposed_prompt(&self, exposed: &str) -> Option<&Arc<PlainView>> {
        let (_, name) = crate::naming::split(exposed)?;
        let short = || self.index.short_prompts.get(exposed).and_then(|at| self.prompts.get(*at));
        self.prompt(name).filter(|prompt| prompt.exposed == exposed).or_else(short)
    }

    /// The resource of that URI.
    pub fn resource(&self, uri: &str) -> Option<&Arc<PlainView>> {
        self.index.resources.get(uri).and_then(|at| self.resources.get(*at))
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
    /// What a prompt takes, by name; none where the definition does not say.
    pub arguments: Option<Vec<PromptArgument>>,
}

/// One argument of a prompt. Its value is a string.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PromptArgument {
    /// Its name.
    pub name: String,
    /// A prompt without it cannot be rendered.
    pub required: bool,
}
