//! Fixtures for the tests of every crate: worlds that read like sentences, and strategies.
//!
//! ```
//! use weir_model::testing::World;
//!
//! let world = World::new()
//!     .group("acme")
//!     .server("acme", "billing", "http://127.0.0.1:9/mcp")
//!     .tool("acme", "billing", "refund")
//!     .account("acme", "ci")
//!     .allow("acme", "ci", "billing", "refund");
//! let snapshot = world.snapshot();
//! assert!(snapshot.problems.is_empty());
//! assert!(snapshot.groups["acme"].exposing_server("billing__refund").is_some());
//! ```

pub mod oracle;
pub mod questions;
pub mod strategies;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::id::{Digest, Name, Revision};
use crate::resource::{
    ApiTokenEntry, Catalog, CatalogEntry, Credential, Definition, DefinitionKind, Group,
    HeaderCredential, HttpUpstream, Keyring, KeyringEntry, Kind, ObservedEra, Policy, Region,
    Resource, ResourceKey, ResourceSet, Role, RoleBinding, Rule, SecretRef, Server, ServerVersion,
    ServiceAccount, Spec, Subject, Upstream, parse_documents,
};
use crate::secret::Secret;
use crate::snapshot::{Secrets, Snapshot};

/// A configuration under construction. Methods panic on what no operator could write, because a
/// fixture that is wrong must not pass for a test.
#[derive(Debug, Clone, Default)]
pub struct World {
    specs: BTreeMap<ResourceKey, Spec>,
    secrets: BTreeMap<String, Vec<u8>>,
}

/// The one version that [`World::server`] makes.
pub const VERSION: &str = "v1";

fn name(text: &str) -> Name {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is no name"))
}

impl World {
    /// A world with nothing in it but keys that seal sessions.
    pub fn new() -> Self {
        let mut world = Self::default();
        world.secrets.insert("sessions-1".to_owned(), vec![7; 32]);
        let key = SecretRef { secret: "sessions-1".to_owned() };
        let keys = vec![KeyringEntry { id: "k1".to_owned(), key }];
        world.put(ResourceKey::global(Kind::Keyring, "sessions"), Spec::Keyring(Keyring { keys }))
    }

    /// Puts any resource in, or replaces it.
    #[must_use]
    pub fn put(mut self, key: ResourceKey, spec: Spec) -> Self {
        self.specs.insert(key, spec);
        self
    }

    /// Takes a resource out: `Server/acme/billing`.
    #[must_use]
    pub fn without(mut self, key: &str) -> Self {
        let key = ResourceKey::parse(key).unwrap_or_else(|| panic!("{key:?} is no key"));
        assert!(self.specs.remove(&key).is_some(), "{key} is not in the world");
        self
    }

    /// Puts the documents of a text in, as an operator would apply them.
    #[must_use]
    pub fn documents(mut self, text: &str) -> Self {
        let mut count = self.secrets.len();
        let mut new_id = || {
            count += 1;
            format!("secret-{count}")
        };
        let documents = match parse_documents(text, &mut new_id) {
            Ok(documents) => documents,
            Err(errors) => panic!("{errors:#?}"),
        };
        for document in documents {
            for (id, secret) in &document.secrets {
                self.secrets.insert(id.clone(), secret.expose().clone().into_bytes());
            }
            self.specs.insert(document.resource.key, document.resource.spec);
        }
        self
    }

    /// A region.
    #[must_use]
    pub fn region(self, region: &str) -> Self {
        self.put(ResourceKey::global(Kind::Region, region), Spec::Region(Region::default()))
    }

    /// A group with the defaults.
    #[must_use]
    pub fn group(self, group: &str) -> Self {
        self.group_with(group, |_| {})
    }

    /// A group, changed; made when it is not there.
    #[must_use]
    pub fn group_with(mut self, group: &str, change: impl FnOnce(&mut Group)) -> Self {
        let key = ResourceKey::global(Kind::Group, group);
        let spec = self.specs.entry(key).or_insert_with(|| Spec::Group(Group::default()));
        if let Spec::Group(spec) = spec {
            change(spec);
        }
        self
    }

    /// A server over HTTP with one version, [`VERSION`], on any address.
    #[must_use]
    pub fn server(self, group: &str, server: &str, url: &str) -> Self {
        let http = HttpUpstream { url: url.to_owned(), allow_private: true };
        self.server_at(group, server, Upstream::Http(http))
    }

    /// A server with one version, [`VERSION`].
    #[must_use]
    pub fn server_at(self, group: &str, server: &str, upstream: Upstream) -> Self {
        let version =
            ServerVersion { name: name(VERSION), upstream, credential: None, timeout_ms: None };
        let spec = Server {
            display_name: None,
            versions: vec![version],
            traffic: Vec::new(),
            costs: Vec::new(),
        };
        let key = ResourceKey::grouped(Kind::Server, &name(group), server);
        self.put(key, Spec::Server(spec))
    }

    /// A server that is in the world, changed.
    #[must_use]
    pub fn server_with(
        mut self,
        group: &str,
        server: &str,
        change: impl FnOnce(&mut Server),
    ) -> Self {
        let key = ResourceKey::grouped(Kind::Server, &name(group), server);
        match self.specs.get_mut(&key) {
            Some(Spec::Server(spec)) => change(spec),
            _ => panic!("{key} is not in the world"),
        }
        self
    }

    /// A pinned tool that takes any object.
    #[must_use]
    pub fn tool(self, group: &str, server: &str, tool: &str) -> Self {
        self.tool_of(group, server, &json!({"name": tool, "inputSchema": {"type": "object"}}))
    }

    /// A pinned tool by its definition.
    #[must_use]
    pub fn tool_of(self, group: &str, server: &str, definition: &Value) -> Self {
        self.define(group, server, DefinitionKind::Tool, definition)
    }

    /// A pinned definition of any kind, of version [`VERSION`].
    #[must_use]
    pub fn define(self, group: &str, server: &str, kind: DefinitionKind, json: &Value) -> Self {
        let member = match kind {
            DefinitionKind::Tool | DefinitionKind::Prompt => "name",
            DefinitionKind::Resource => "uri",
            DefinitionKind::Template => "uriTemplate",
        };
        let own = json[member].as_str().unwrap_or_else(|| panic!("{json} has no {member}"));
        self.define_raw(group, server, (kind, own), &json.to_string())
    }

    /// A pinned definition by its exact text, under a name.
    #[must_use]
    pub fn define_raw(
        mut self,
        group: &str,
        server: &str,
        (kind, own): (DefinitionKind, &str),
        text: &str,
    ) -> Self {
        let (server, version) = (name(server), name(VERSION));
        let digest = Digest::of(text.as_bytes());
        let key = ResourceKey::global(Kind::Definition, Definition::name_of(&digest));
        self.specs.insert(key, Spec::Definition(Definition { json: text.to_owned() }));
        let catalog = Catalog::name_of(&server, &version);
        let key = ResourceKey::grouped(Kind::Catalog, &name(group), catalog);
        let catalog = self.specs.entry(key).or_insert_with(|| {
            Spec::Catalog(Catalog {
                server,
                version,
                era: ObservedEra::Dual,
                server_info: json!({"name": "fixture", "version": "1"}),
                capabilities: json!({"tools": {}, "resources": {}, "prompts": {}}),
                instructions: None,
                entries: Vec::new(),
                waiting: Vec::new(),
                waiting_instructions: None,
                absent: Vec::new(),
            })
        });
        if let Spec::Catalog(catalog) = catalog {
            catalog.entries.push(CatalogEntry { kind, name: own.to_owned(), digest });
        }
        self
    }

    /// The era that a server with a catalog was seen to speak.
    #[must_use]
    pub fn era(self, group: &str, server: &str, era: ObservedEra) -> Self {
        self.catalog(group, server, |catalog| catalog.era = era)
    }

    /// What else is in the catalog of a server that has one.
    #[must_use]
    pub fn catalog(mut self, group: &str, server: &str, change: impl FnOnce(&mut Catalog)) -> Self {
        let catalog = Catalog::name_of(&name(server), &name(VERSION));
        let key = ResourceKey::grouped(Kind::Catalog, &name(group), catalog);
        match self.specs.get_mut(&key) {
            Some(Spec::Catalog(catalog)) => change(catalog),
            _ => panic!("{server} has no catalog"),
        }
        self
    }

    /// A service account with one token, [`World::token`].
    #[must_use]
    pub fn account(self, group: &str, account: &str) -> Self {
        let entry = ApiTokenEntry {
            id: token_id(group, account),
            sha256: Digest::of(Self::token(group, account).as_bytes()),
            expires: None,
        };
        let spec = ServiceAccount { tokens: vec![entry], ..ServiceAccount::default() };
        let key = ResourceKey::grouped(Kind::ServiceAccount, &name(group), account);
        self.put(key, Spec::ServiceAccount(spec))
    }

    /// The token of an account.
    pub fn token(group: &str, account: &str) -> String {
        let id = token_id(group, account);
        let random = Digest::of(format!("{group}/{account}").as_bytes()).hex();
        format!("weir_at_{id}_{}", &random[..43])
    }

    /// Lets a service account call the tools of a server that match a pattern.
    #[must_use]
    pub fn allow(self, group: &str, account: &str, servers: &str, tools: &str) -> Self {
        let rule = Rule {
            servers: vec![servers.to_owned()],
            tools: vec![tools.to_owned()],
            ..Rule::default()
        };
        self.grant(group, vec![rule], vec![Subject::ServiceAccount(name(account))])
    }

    /// Lets subjects do what rules say, by a role and a binding of their own.
    #[must_use]
    pub fn grant(self, group: &str, rules: Vec<Rule>, subjects: Vec<Subject>) -> Self {
        let group = name(group);
        let grants = self.specs.keys().filter(|key| key.kind == Kind::Role).count();
        let role = name(&format!("grant-{}", grants + 1));
        let binding = RoleBinding { role: role.clone(), subjects };
        let at = |kind| ResourceKey::grouped(kind, &group, role.as_str());
        let (role, bound) = (at(Kind::Role), at(Kind::RoleBinding));
        self.put(role, Spec::Role(Role { rules })).put(bound, Spec::RoleBinding(binding))
    }

    /// Cedar text.
    #[must_use]
    pub fn policy(self, group: &str, policy: &str, cedar: &str) -> Self {
        let key = ResourceKey::grouped(Kind::Policy, &name(group), policy);
        self.put(key, Spec::Policy(Policy { cedar: cedar.to_owned() }))
    }

    /// A header credential that every version of a server presents.
    #[must_use]
    pub fn credential(mut self, group: &str, server: &str, header: &str, secret: &str) -> Self {
        let id = format!("{group}-{server}-{header}").to_lowercase();
        self.secrets.insert(id.clone(), secret.as_bytes().to_vec());
        let value = SecretRef { secret: id };
        let header = HeaderCredential { name: header.to_owned(), prefix: String::new(), value };
        let key = ResourceKey::grouped(Kind::Credential, &name(group), server);
        self.put(key, Spec::Credential(Credential::Header(header))).server_with(
            group,
            server,
            |s| {
                s.versions.iter_mut().for_each(|v| v.credential = Some(name(server)));
            },
        )
    }

    /// The resources. Panics on documents that break the rules of their kinds.
    pub fn set(&self) -> ResourceSet {
        let resources =
            self.specs.iter().map(|(key, spec)| match Resource::new(key.clone(), spec.clone()) {
                Ok(resource) => Arc::new(resource),
                Err(errors) => panic!("{errors:#?}"),
            });
        resources.collect()
    }

    /// The secrets, opened.
    pub fn secrets(&self) -> Secrets {
        let opened =
            |(id, bytes): (&String, &Vec<u8>)| (id.clone(), Arc::new(Secret::new(bytes.clone())));
        self.secrets.iter().map(opened).collect()
    }

    /// The compiled world, at revision 1.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::compile(Revision(1), &self.set(), self.secrets(), None)
    }

    /// The compiled world as the successor of another.
    pub fn after(&self, previous: &Snapshot) -> Snapshot {
        let revision = Revision(previous.revision.0 + 1);
        Snapshot::compile(revision, &self.set(), self.secrets(), Some(previous))
    }
}

fn token_id(group: &str, account: &str) -> String {
    format!("{group}0{account}").replace('-', "1")
}
