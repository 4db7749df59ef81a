//! Strategies for property tests.

use std::sync::Arc;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use crate::id::{Digest, Name};
use crate::resource::{
    ApiTokenEntry, AuditClass, Catalog, CatalogEntry, Credential, Definition, DefinitionKind,
    Group, HeaderCredential, HttpUpstream, IdentityProvider, Keyring, KeyringEntry, Kind, Limit,
    LimitScope, LimitUnit, ObservedEra, PinRule, Policy, Rate, RateUnit, Region, Resource,
    ResourceKey, ResourceSet, Revocation, Revoked, Role, RoleBinding, Rule, SecretRef, Server,
    ServerVersion, ServiceAccount, Spec, StdioUpstream, Subject, TrafficShare, Upstream,
};

/// A name of a few letters: names meet often, as they should.
pub fn name() -> impl Strategy<Value = Name> {
    "[a-d]{1,2}(-[0-9])?".prop_map(|text| text.parse().expect("is of the alphabet"))
}

/// Text for people, of several alphabets.
fn words() -> impl Strategy<Value = String> {
    "[A-Za-zäöü\"\\\\€ ]{0,8}[a-zß]"
}

/// A tool or prompt name as the specification has it.
pub fn tool_name() -> impl Strategy<Value = String> {
    "[A-Za-z0-9_.-]{1,128}"
}

/// Any document that an operator could apply, or the control plane could write.
pub fn resource() -> impl Strategy<Value = Resource> {
    prop_oneof![
        (name(), region()).prop_map(|(n, s)| (ResourceKey::global(Kind::Region, n.as_str()), s)),
        (name(), group()).prop_map(|(n, s)| (ResourceKey::global(Kind::Group, n.as_str()), s)),
        definition(),
        catalog(),
        (name(), name(), grouped()).prop_map(|(group, name, (kind, spec))| {
            (ResourceKey::grouped(kind, &group, name.as_str()), spec)
        }),
        secret().prop_map(|key| {
            let keys = vec![KeyringEntry { id: "k1".to_owned(), key }];
            (ResourceKey::global(Kind::Keyring, "sessions"), Spec::Keyring(Keyring { keys }))
        }),
    ]
    .prop_map(|(key, spec)| match Resource::new(key, spec) {
        Ok(resource) => resource,
        Err(errors) => panic!("the strategy makes bad documents: {errors:#?}"),
    })
}

/// A set of up to 40 resources. Nothing says that they fit together.
pub fn resource_set() -> impl Strategy<Value = ResourceSet> {
    vec(resource().prop_map(Arc::new), 0..40).prop_map(|list| list.into_iter().collect())
}

fn region() -> impl Strategy<Value = Spec> {
    proptest::option::of(words()).prop_map(|display_name| {
        Spec::Region(Region { display_name, url: Some("https://eu.example:8443".to_owned()) })
    })
}

fn group() -> impl Strategy<Value = Spec> {
    let audit = prop_oneof![Just(AuditClass::Strict), Just(AuditClass::Durable)];
    let pin = prop_oneof![Just(PinRule::First), Just(PinRule::Always), Just(PinRule::Ask)];
    let regions = proptest::collection::btree_set(name(), 0..3);
    (regions, audit, pin, any::<bool>(), proptest::option::of(1..u64::MAX)).prop_map(
        |(regions, audit, pin, anonymous, stale_after_secs)| {
            let regions = regions.into_iter().collect();
            let origins = vec!["https://app.example".to_owned()];
            let group = Group {
                regions,
                audit,
                pin,
                anonymous,
                stale_after_secs,
                origins,
                ..Group::default()
            };
            Spec::Group(group)
        },
    )
}

fn grouped() -> impl Strategy<Value = (Kind, Spec)> {
    prop_oneof![
        server().prop_map(|s| (Kind::Server, Spec::Server(s))),
        provider().prop_map(|s| (Kind::IdentityProvider, Spec::IdentityProvider(s))),
        account().prop_map(|s| (Kind::ServiceAccount, Spec::ServiceAccount(s))),
        role().prop_map(|s| (Kind::Role, Spec::Role(s))),
        binding().prop_map(|s| (Kind::RoleBinding, Spec::RoleBinding(s))),
        Just((
            Kind::Policy,
            Spec::Policy(Policy { cedar: "forbid (principal, action, resource);".to_owned() })
        )),
        limit().prop_map(|s| (Kind::Limit, Spec::Limit(s))),
        ("[a-z]{1,4}", 1..i64::MAX).prop_map(|(session, expires)| {
            let what = Revoked::Session(session);
            let revocation = Revocation { what, expires: Some(expires), because: None };
            (Kind::Revocation, Spec::Revocation(revocation))
        }),
        secret().prop_map(|value| {
            let header =
                HeaderCredential { name: "X-Api-Key".to_owned(), prefix: String::new(), value };
            (Kind::Credential, Spec::Credential(Credential::Header(header)))
        }),
    ]
}

fn secret() -> impl Strategy<Value = SecretRef> {
    "[a-f0-9]{4}".prop_map(|secret| SecretRef { secret })
}

fn upstream() -> impl Strategy<Value = Upstream> {
    let http = ("https?://[a-z]{1,8}\\.example(:[1-9][0-9]{0,3})?/[a-z]{0,4}", any::<bool>())
        .prop_map(|(url, allow_private)| Upstream::Http(HttpUpstream { url, allow_private }));
    let env = btree_map("[A-Z_]{1,6}", words(), 0..3);
    let cwd = proptest::option::of(words());
    let stdio = (words(), vec(words(), 0..3), env, cwd, 16..2_048_u64, 1..100_u32).prop_map(
        |(command, args, env, cwd, memory_mib, processes)| {
            let child = StdioUpstream { command, args, env, cwd, memory_mib, processes };
            Upstream::Stdio(child)
        },
    );
    prop_oneof![http, stdio]
}

fn server() -> impl Strategy<Value = Server> {
    let version =
        (upstream(), proptest::option::of(name()), proptest::option::of(1..3_600_000_u64));
    (btree_map(name(), version, 1..4), proptest::option::of(words()), any::<bool>()).prop_map(
        |(versions, display_name, split)| {
            let versions: Vec<ServerVersion> = versions
                .into_iter()
                .map(|(name, (upstream, credential, timeout_ms))| ServerVersion {
                    name,
                    upstream,
                    credential,
                    timeout_ms,
                })
                .collect();
            let mut traffic = Vec::new();
            if split {
                let rest = u8::try_from(versions.len() - 1).unwrap_or(0);
                traffic.extend(
                    versions.iter().map(|v| TrafficShare { version: v.name.clone(), percent: 1 }),
                );
                traffic[0].percent = 100 - rest;
            }
            Server { display_name, versions, traffic, costs: Vec::new() }
        },
    )
}

fn provider() -> impl Strategy<Value = IdentityProvider> {
    (any::<bool>(), 0..=300_u64).prop_map(|(allow_private, leeway_secs)| IdentityProvider {
        issuer: "https://id.example/realm".to_owned(),
        audiences: vec!["https://weir.example/acme".to_owned()],
        keys: crate::resource::KeySource::Discovery,
        algorithms: crate::resource::Algorithm::usual(),
        preset: crate::resource::Preset::Keycloak,
        claims: crate::resource::ClaimOverrides {
            subject: Some("email".to_owned()),
            ..crate::resource::ClaimOverrides::default()
        },
        overage: crate::resource::Overage::Refuse,
        sign_in: None,
        logout_clients: Vec::new(),
        leeway_secs,
        allow_private,
    })
}

fn account() -> impl Strategy<Value = ServiceAccount> {
    let token = (any::<[u8; 32]>(), proptest::option::of(any::<i64>()));
    let tokens = btree_map("[a-z0-9]{4}", token, 0..3);
    (tokens, vec(words(), 0..3), vec(words(), 0..3)).prop_map(|(tokens, memberships, scopes)| {
        let entry = |(id, (sha256, expires))| ApiTokenEntry { id, sha256: Digest(sha256), expires };
        let tokens = tokens.into_iter().map(entry).collect();
        ServiceAccount { display_name: None, memberships, scopes, tokens }
    })
}

fn role() -> impl Strategy<Value = Role> {
    let patterns = || vec("[a-z*_]{1,4}", 0..3);
    let rule =
        (vec("[a-z*]{1,4}", 1..3), vec("[a-z*_]{1,4}", 1..3), patterns(), patterns()).prop_map(
            |(servers, tools, resources, prompts)| Rule { servers, tools, resources, prompts },
        );
    vec(rule, 1..4).prop_map(|rules| Role { rules })
}

fn binding() -> impl Strategy<Value = RoleBinding> {
    let subject = prop_oneof![
        name().prop_map(Subject::ServiceAccount),
        words().prop_map(Subject::User),
        words().prop_map(Subject::Membership),
        Just(Subject::Authenticated(true)),
        Just(Subject::Anonymous(true)),
    ];
    (name(), vec(subject, 1..4)).prop_map(|(role, subjects)| RoleBinding { role, subjects })
}

fn limit() -> impl Strategy<Value = Limit> {
    let per =
        prop_oneof![Just(LimitScope::Group), Just(LimitScope::Principal), Just(LimitScope::Tool)];
    (per, 1..u32::MAX, proptest::option::of(1..u32::MAX)).prop_map(|(per, calls, concurrency)| {
        Limit {
            per,
            servers: vec!["*".to_owned()],
            tools: Vec::new(),
            rate: Some(Rate { calls, per: RateUnit::Minute, burst: None }),
            concurrency,
            quota: None,
            count: LimitUnit::Calls,
        }
    })
}

fn tool_json() -> impl Strategy<Value = (String, String)> {
    ("[a-z]{1,3}", words()).prop_map(|(name, text)| {
        let tool = serde_json::json!({
            "description": text, "name": name, "inputSchema": {"type": "object"}
        });
        (name, tool.to_string())
    })
}

fn definition() -> impl Strategy<Value = (ResourceKey, Spec)> {
    tool_json().prop_map(|(_, json)| {
        let name = Definition::name_of(&Digest::of(json.as_bytes()));
        (ResourceKey::global(Kind::Definition, name), Spec::Definition(Definition { json }))
    })
}

fn catalog() -> impl Strategy<Value = (ResourceKey, Spec)> {
    let tools = vec(tool_json(), 0..4).prop_map(|list| {
        list.into_iter().map(|(n, json)| (n, Digest::of(json.as_bytes()))).collect()
    });
    (name(), name(), name(), tools).prop_map(
        |(group, server, version, tools): (
            Name,
            Name,
            Name,
            std::collections::BTreeMap<String, Digest>,
        )| {
            let key =
                ResourceKey::grouped(Kind::Catalog, &group, Catalog::name_of(&server, &version));
            let entry = |(name, digest)| CatalogEntry { kind: DefinitionKind::Tool, name, digest };
            let catalog = Catalog {
                server,
                version,
                era: ObservedEra::Legacy,
                server_info: serde_json::json!({"name": "x", "version": "1.10"}),
                capabilities: serde_json::json!({"tools": {"listChanged": true}}),
                instructions: None,
                entries: tools.into_iter().map(entry).collect(),
                waiting: Vec::new(),
                waiting_instructions: None,
                absent: Vec::new(),
            };
            (key, Spec::Catalog(catalog))
        },
    )
}
