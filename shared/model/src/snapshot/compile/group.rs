//! Compiles one group.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::report::Report;
use super::{Input, server};
use crate::id::{Digest, Name};
use crate::policy::{RuleSource, RuleSources, Rules};
use crate::principal::{Principal, Proof};
use crate::resource::{
    Credential, Group, Kind, Resource, ResourceKey, Revoked, ServiceAccount, Spec, Subject,
};
use crate::snapshot::{GroupView, ProviderView, TokenView, Withdrawn};

/// A group whose own document cannot be read: it is known, and nothing of it is served.
pub(super) fn unreadable(name: &Name, why: &str) -> GroupView {
    GroupView {
        name: name.clone(),
        spec: Group::default(),
        quarantined: Some(why.to_owned()),
        providers: Vec::new(),
        tokens: Arc::default(),
        servers: BTreeMap::new(),
        rules: Arc::default(),
        limits: Vec::new(),
        credentials: HashMap::new(),
        withdrawn: Withdrawn::default(),
        sound: false,
    }
}

/// Kinds of which one unreadable document harms nothing but what refers to it.
const ALONE: [Kind; 4] = [Kind::Server, Kind::Catalog, Kind::Credential, Kind::ServiceAccount];

/// Reports documents of the group that this build cannot read. Gives back why nothing of the
/// group is served, when one of them may be a rule, a limit or an issuer.
fn unreadables(
    input: &Input<'_>,
    group: &Name,
    previous: Option<&Arc<GroupView>>,
    report: &mut Report,
) -> Option<String> {
    let mut whole = None;
    let mut look = |resource: &Resource| {
        if let Spec::Unreadable(why) = &resource.spec {
            report.unusable(&resource.key, "", why);
            if !ALONE.contains(&resource.key.kind) {
                whole.get_or_insert_with(|| format!("{}: {why}", resource.key));
            }
        }
    };
    match (previous.filter(|p| p.sound), input.changes.in_group(group)) {
        // All that was there could be read.
        (Some(_), Some(changed)) => {
            changed.filter_map(|key| input.set.get(key)).for_each(|resource| look(resource));
        }
        _ => {
            let kinds = Kind::ALL.iter().filter(|kind| kind.is_grouped());
            let all = kinds.flat_map(|kind| input.set.of_kind(*kind, Some(group)));
            all.for_each(|resource| look(resource));
        }
    }
    whole
}

/// Compiles a group and everything in it.
pub(super) fn compile(
    input: &Input<'_>,
    name: &Name,
    spec: &Group,
    report: &mut Report,
) -> GroupView {
    let before = report.findings();
    let previous = input.previous.and_then(|p| p.groups.get(name));
    let unreadable = unreadables(input, name, previous, report);
    let (rules, broken) = rules(input, name, previous, report);
    let credentials = credentials(input, name);
    let servers = servers(input, name, previous, &credentials, report);
    GroupView {
        name: name.clone(),
        spec: spec.clone(),
        quarantined: unreadable.or(broken),
        providers: providers(input, name),
        tokens: tokens(input, name, previous, report),
        servers,
        rules,
        limits: limits(input, name),
        credentials,
        withdrawn: withdrawn(input, name),
        sound: report.findings() == before,
    }
}

/// Typed specs of one kind in a group, by name.
macro_rules! specs {
    ($input:expr, $group:expr, $kind:ident) => {
        $input.set.of_kind(Kind::$kind, Some($group)).filter_map(|resource| {
            match (&resource.spec, resource.key.name.parse::<Name>()) {
                (Spec::$kind(spec), Ok(name)) => Some((resource, name, spec)),
                _ => None,
            }
        })
    };
}
fn providers(input: &Input<'_>, group: &Name) -> Vec<ProviderView> {
    specs!(input, group, IdentityProvider)
        .map(|(resource, name, spec)| ProviderView {
            name,
            spec: Arc::new(spec.clone()),
            claims: spec.claim_names(),
            digest: resource.digest,
        })
        .collect()
}

fn withdrawn(input: &Input<'_>, group: &Name) -> Withdrawn {
    let mut withdrawn = Withdrawn::default();
    specs!(input, group, Revocation).for_each(|(_, name, spec)| withdrawn.add(&name, spec));
    withdrawn
}

fn credentials(input: &Input<'_>, group: &Name) -> HashMap<Name, Credential> {
    specs!(input, group, Credential).map(|(_, name, spec)| (name, spec.clone())).collect()
}

fn limits(input: &Input<'_>, group: &Name) -> Vec<(Name, crate::resource::Limit)> {
    specs!(input, group, Limit).map(|(_, name, spec)| (name, spec.clone())).collect()
}

/// The rules of a group and, when one of them may be missing, why nothing of it is served.
fn rules(
    input: &Input<'_>,
    group: &Name,
    previous: Option<&Arc<GroupView>>,
    report: &mut Report,
) -> (Arc<Rules>, Option<String>) {
    let kinds = [Kind::Role, Kind::RoleBinding, Kind::Policy, Kind::Revocation];
    let revoked: Vec<_> = specs!(input, group, Revocation).map(|(_, _, r)| &r.what).collect();
    let roles: Vec<_> = specs!(input, group, Role).collect();
    let bindings: Vec<_> = specs!(input, group, RoleBinding).collect();
    let policies: Vec<_> = specs!(input, group, Policy).collect();
    let names: BTreeSet<&Name> = roles.iter().map(|(_, name, _)| name).collect();
    for (resource, _, binding) in &bindings {
        if !names.contains(&binding.role) {
            report.unusable(
                &resource.key,
                "spec.role",
                format!("there is no Role {}", binding.role),
            );
        }
        unknown_accounts(input, group, resource, &binding.subjects, report);
    }
    if let Some(previous) = previous.filter(|p| p.quarantined.is_none())
        && !input.changes.touch_kinds(group, &kinds)
    {
        return (Arc::clone(&previous.rules), None);
    }
    let sources = RuleSources {
        group: Some(group),
        roles: roles.iter().map(|(_, name, spec)| (name, *spec)).collect(),
        bindings: bindings
            .iter()
            .filter(|(_, name, _)| !revoked.contains(&&Revoked::RoleBinding(name.clone())))
            .map(|(_, name, spec)| (name, *spec))
            .collect(),
        policies: policies.iter().map(|(_, name, spec)| (name, *spec)).collect(),
        powerless: revoked
            .iter()
            .filter_map(|what| match what {
                Revoked::Policy(name) => Some(name),
                _ => None,
            })
            .collect(),
    };
    let (rules, errors) = Rules::compile(&sources);
    for (source, message) in &errors {
        let (kind, name, path) = match source {
            RuleSource::Role(name) => (Kind::Role, name, "spec.rules"),
            RuleSource::Binding(name) => (Kind::RoleBinding, name, "spec"),
            RuleSource::Policy(name) => (Kind::Policy, name, "spec.cedar"),
        };
        let key = ResourceKey::grouped(kind, group, name.as_str());
        if !report.quarantined.contains_key(&key) {
            report.unusable(&key, path, message.clone());
        }
    }
    let first = report
        .quarantined
        .iter()
        .find(|(key, _)| key.group.as_ref() == Some(group) && kinds.contains(&key.kind));
    (Arc::new(rules), first.map(|(key, reason)| format!("{key}: {reason}")))
}

/// A binding for somebody who does not exist grants nothing; it is a mistake all the same.
fn unknown_accounts(
    input: &Input<'_>,
    group: &Name,
    resource: &Resource,
    subjects: &[Subject],
    report: &mut Report,
) {
    for (i, subject) in subjects.iter().enumerate() {
        if let Subject::ServiceAccount(account) = subject {
            let key = ResourceKey::grouped(Kind::ServiceAccount, group, account.as_str());
            if input.set.get(&key).is_none() {
                let path = format!("spec.subjects[{i}].serviceAccount");
                report.problem(
                    &resource.key,
                    path,
                    format!("there is no ServiceAccount {account}"),
                );
            }
        }
    }
}

/// API tokens of all service accounts. A token that two accounts claim proves neither.
fn tokens(
    input: &Input<'_>,
    group: &Name,
    previous: Option<&Arc<GroupView>>,
    report: &mut Report,
) -> Arc<HashMap<Digest, TokenView>> {
    if let Some(previous) = previous.filter(|p| p.sound)
        && !input.changes.touch_kinds(group, &[Kind::ServiceAccount])
    {
        return Arc::clone(&previous.tokens);
    }
    let mut ids: HashMap<&str, &ResourceKey> = HashMap::new();
    let mut hashes: HashMap<Digest, &ResourceKey> = HashMap::new();
    let mut tokens = HashMap::new();
    for (resource, name, account) in specs!(input, group, ServiceAccount) {
        let mut clash = false;
        for (i, entry) in account.tokens.iter().enumerate() {
            let other = ids.insert(&entry.id, &resource.key);
            let other = other.or(hashes.insert(entry.sha256, &resource.key));
            if let Some(other) = other {
                let text = format!("{other} has a token of the same id or hash");
                report.unusable(&resource.key, format!("spec.tokens[{i}]"), text);
                clash = true;
            }
        }
        if !clash {
            tokens.extend(views(&name, account));
        }
    }
    Arc::new(tokens)
}

fn views<'a>(
    name: &'a Name,
    account: &'a ServiceAccount,
) -> impl Iterator<Item = (Digest, TokenView)> + 'a {
    let sorted = |words: &[String]| -> Arc<[Arc<str>]> {
        let words: BTreeSet<&str> = words.iter().map(String::as_str).collect();
        words.into_iter().map(Arc::from).collect()
    };
    let (memberships, scopes) = (sorted(&account.memberships), sorted(&account.scopes));
    account.tokens.iter().map(move |entry| {
        let principal = Principal {
            proof: Proof::ApiToken,
            provider: None,
            subject: name.as_str().into(),
            memberships: Arc::clone(&memberships),
            scopes: Arc::clone(&scopes),
            credential: Some(entry.id.as_str().into()),
            expires: entry.expires,
            token: None,
        };
        let principal = Arc::new(principal);
        let (id, expires, used) = (entry.id.clone(), entry.expires, Default::default());
        (entry.sha256, TokenView { id, expires, principal, used })
    })
}

fn servers(
    input: &Input<'_>,
    group: &Name,
    previous: Option<&Arc<GroupView>>,
    credentials: &HashMap<Name, Credential>,
    report: &mut Report,
) -> BTreeMap<Name, Arc<crate::snapshot::ServerView>> {
    let usable = server::usable_credentials(input, group, credentials, report);
    let compile = |name: &Name, report: &mut Report| {
        let key = ResourceKey::grouped(Kind::Server, group, name.as_str());
        let Spec::Server(spec) = &input.set.get(&key)?.spec else { return None };
        let site = server::Site { group, name, key: &key, spec };
        let previous = previous.and_then(|p| p.servers.get(name));
        Some(server::compile(input, &site, &usable, previous, report))
    };
    // Nothing was wrong, and the credentials are what they were: a server is touched by its own
    // document and its catalogs alone.
    let sound = previous
        .filter(|p| p.sound)
        .filter(|_| !input.changes.touch_kinds(group, &[Kind::Credential]) && usable.all());
    if let (Some(previous), Some(changed)) = (sound, input.changes.in_group(group)) {
        let mut servers = previous.servers.clone();
        let named = |key: &ResourceKey| match key.kind {
            Kind::Server => key.name.parse::<Name>().ok(),
            Kind::Catalog => key.name.split_once('.').and_then(|(server, _)| server.parse().ok()),
            _ => None,
        };
        let changed: BTreeSet<Name> = changed.filter_map(named).collect();
        for name in changed {
            match compile(&name, report) {
                Some(view) => drop(servers.insert(name, view)),
                None => drop(servers.remove(&name)),
            }
        }
        return servers;
    }
    specs!(input, group, Server)
        .filter_map(|(_, name, _)| Some((name.clone(), compile(&name, report)?)))
        .collect()
}
