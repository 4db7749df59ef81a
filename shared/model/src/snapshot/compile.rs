//! Resources in, snapshot out.
//!
//! What has not changed since the previous snapshot is taken over as it is: whole groups, whole
//! servers, whole catalogs, single tools. What is wrong takes as little with it as possible: a
//! server that cannot be served is quarantined by itself, a group when a rule of it may be
//! missing. A group with anything wrong in it is compiled anew each time.

mod changes;
mod group;
mod report;
mod server;

use std::collections::HashMap;
use std::sync::Arc;

use super::catalog::Schemas;
use super::{GroupView, Secrets, Snapshot};
use crate::id::{Name, Revision};
use crate::resource::{Kind, Resource, ResourceKey, ResourceSet, Spec};
use crate::schema::on_large_stack;
use changes::Changes;
use report::Report;

/// Bytes of a key that seals sessions.
const SEALING_KEY_BYTES: usize = 32;
/// The keyring that seals sessions and cursors.
const SESSIONS: &str = "sessions";

pub(super) fn compile(
    revision: Revision,
    set: &ResourceSet,
    secrets: Secrets,
    previous: Option<&Snapshot>,
) -> Snapshot {
    let mut snapshot = on_large_stack(|| compile_here(set, &secrets, previous));
    snapshot.revision = revision;
    snapshot.secrets = secrets;
    snapshot
}

/// What all parts of one compilation look at.
struct Input<'a> {
    set: &'a ResourceSet,
    secrets: &'a Secrets,
    previous: Option<&'a Snapshot>,
    changes: Changes,
    schemas: Schemas,
}

fn compile_here(set: &ResourceSet, secrets: &Secrets, previous: Option<&Snapshot>) -> Snapshot {
    let changes = Changes::between(previous.map(|p| &p.source), set);
    let input = Input { set, secrets, previous, changes, schemas: Schemas::default() };
    let mut report = Report::default();
    let mut groups = HashMap::new();
    for resource in set.of_kind(Kind::Group, None) {
        let Ok(name) = resource.key.name.parse::<Name>() else { continue };
        let view = match (kept(&input, &name), &resource.spec) {
            (Some(view), _) => Arc::clone(view),
            (None, Spec::Group(spec)) => Arc::new(group::compile(&input, &name, spec, &mut report)),
            (None, Spec::Unreadable(why)) => {
                report.unusable(&resource.key, "", why);
                Arc::new(group::unreadable(&name, why))
            }
            _ => continue,
        };
        unknown_regions(set, resource, &view, &mut report);
        groups.insert(name, view);
    }
    orphans(&input, &groups, &mut report);
    let sealing = sealing(&input, &mut report);
    let Report { problems, missing_secrets, quarantined } = report;
    Snapshot {
        revision: Revision::default(),
        digest: set.digest(),
        groups,
        sealing,
        revoked_nodes: revoked_nodes(set),
        quarantined,
        problems,
        missing_secrets,
        secrets: Secrets::default(),
        source: set.clone(),
    }
}

/// Proxies that are cut off. A document that this build cannot read cuts its node off too.
fn revoked_nodes(set: &ResourceSet) -> std::collections::BTreeSet<Name> {
    set.of_kind(Kind::NodeRevocation, None).filter_map(|r| r.key.name.parse().ok()).collect()
}

/// The previous view of a group, when it may be taken over.
fn kept<'a>(input: &Input<'a>, name: &Name) -> Option<&'a Arc<GroupView>> {
    let view = input.previous?.groups.get(name)?;
    let secrets = view.credentials.values().all(|c| input.secrets.contains_key(c.secret_id()));
    (view.sound && secrets && !input.changes.touch_group(name)).then_some(view)
}

/// Regions that nobody described: most likely misspelt.
fn unknown_regions(set: &ResourceSet, resource: &Resource, group: &GroupView, report: &mut Report) {
    for (i, region) in group.spec.regions.iter().enumerate() {
        if set.get(&ResourceKey::global(Kind::Region, region.as_str())).is_none() {
            let text = format!("there is no Region {region}");
            report.problem(&resource.key, format!("spec.regions[{i}]"), text);
        }
    }
}

/// What belongs to a group that does not exist.
fn orphans(input: &Input<'_>, groups: &HashMap<Name, Arc<GroupView>>, report: &mut Report) {
    for (kind, group) in input.set.kinds_by_group() {
        // Catalogs follow their servers; the control plane clears them away by itself.
        if groups.contains_key(group) || kind == Kind::Catalog {
            continue;
        }
        for resource in input.set.of_kind(kind, Some(group)) {
            let text = format!("there is no Group {group}");
            report.unusable(&resource.key, "metadata.group", text);
        }
    }
}

fn sealing(
    input: &Input<'_>,
    report: &mut Report,
) -> Vec<(String, Arc<crate::secret::Secret<Vec<u8>>>)> {
    let key = ResourceKey::global(Kind::Keyring, SESSIONS);
    let Some(resource) = input.set.get(&key) else { return Vec::new() };
    let ring = match &resource.spec {
        Spec::Keyring(ring) => ring,
        Spec::Unreadable(why) => {
            report.unusable(&key, "", why);
            return Vec::new();
        }
        _ => return Vec::new(),
    };
    let mut keys = Vec::new();
    for (i, entry) in ring.keys.iter().enumerate() {
        let path = format!("spec.keys[{i}].key");
        match input.secrets.get(&entry.key.secret) {
            None => report.missing_secret(&resource.key, path),
            Some(secret) if secret.expose().len() != SEALING_KEY_BYTES => {
                report.unusable(&resource.key, path, "the key must be 32 bytes long");
            }
            Some(secret) => keys.push((entry.id.clone(), Arc::clone(secret))),
        }
    }
    keys
}
