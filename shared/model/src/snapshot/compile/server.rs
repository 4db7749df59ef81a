//! Compiles one server with its versions and their catalogs.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::Input;
use super::report::Report;
use crate::id::{Digest, Name};
use crate::policy::Patterns;
use crate::resource::{Catalog, Credential, Definition, Kind, ResourceKey, Server, Spec};
use crate::snapshot::catalog::{self, Lender};
use crate::snapshot::{CatalogView, ServerView, UpstreamKey, VersionView};

/// The server that is being compiled.
pub(super) struct Site<'a> {
    pub(super) group: &'a Name,
    pub(super) name: &'a Name,
    pub(super) key: &'a ResourceKey,
    pub(super) spec: &'a Server,
}

/// Credentials of a group: those that exist, and of them those whose secrets are here.
pub(super) struct Usable<'a> {
    known: &'a HashMap<Name, Credential>,
    usable: HashSet<&'a Name>,
}

impl Usable<'_> {
    /// True when all that exist can be used.
    pub(super) fn all(&self) -> bool {
        self.usable.len() == self.known.len()
    }
}

/// Finds out which credentials can be used.
pub(super) fn usable_credentials<'a>(
    input: &Input<'_>,
    group: &Name,
    known: &'a HashMap<Name, Credential>,
    report: &mut Report,
) -> Usable<'a> {
    let mut usable = HashSet::new();
    // What is found is told in an order that depends on the set alone.
    let mut known_in_order: Vec<_> = known.iter().collect();
    known_in_order.sort_by_key(|(name, _)| *name);
    for (name, credential) in known_in_order {
        if input.secrets.contains_key(credential.secret_id()) {
            usable.insert(name);
        } else {
            let key = ResourceKey::grouped(Kind::Credential, group, name.as_str());
            report.missing_secret(&key, "spec.header.value");
        }
    }
    Usable { known, usable }
}

/// Compiles a server, or takes it over.
pub(super) fn compile(
    input: &Input<'_>,
    site: &Site<'_>,
    credentials: &Usable<'_>,
    previous: Option<&Arc<ServerView>>,
    report: &mut Report,
) -> Arc<ServerView> {
    let wrong = wrong_credentials(site, credentials, report);
    let catalogs: Vec<ResourceKey> = site
        .spec
        .versions
        .iter()
        .map(|v| {
            let name = Catalog::name_of(site.name, &v.name);
            ResourceKey::grouped(Kind::Catalog, site.group, name)
        })
        .collect();
    if let Some(view) = previous.filter(|view| view.quarantined.is_none() && wrong.is_none())
        && !input.changes.touch_keys(catalogs.iter().chain([site.key]))
    {
        return Arc::clone(view);
    }
    let lender = Lender::of(previous.map(Arc::as_ref));
    let mut quarantined = wrong;
    let mut versions = Vec::with_capacity(catalogs.len());
    for (spec, key) in site.spec.versions.iter().zip(&catalogs) {
        let known = previous.and_then(|p| p.versions.iter().find(|v| v.name == spec.name));
        let known = known.and_then(|v| v.catalog.as_ref());
        let catalog = match compile_catalog(input, site.name, key, (known, &lender)) {
            Ok(catalog) => catalog,
            Err(broken) => {
                if let Broken::Missing(at, digest) = broken {
                    let text = format!("there is no Definition with the digest {}", digest.short());
                    report.unusable(key, format!("spec.entries[{at}].digest"), text);
                }
                quarantined.get_or_insert_with(|| format!("{key} cannot be used"));
                None
            }
        };
        let upstream = UpstreamKey {
            group: site.group.clone(),
            server: site.name.clone(),
            version: spec.name.clone(),
        };
        let view =
            VersionView { key: upstream, name: spec.name.clone(), spec: spec.clone(), catalog };
        versions.push(Arc::new(view));
    }
    let (name, spec) = (site.name.clone(), site.spec.clone());
    let costs = spec.costs.iter();
    let costs = costs.filter_map(|cost| Some((Patterns::parse(&cost.tools).ok()?, cost.units)));
    let costs = costs.collect();
    Arc::new(ServerView { name, spec, quarantined, costs, versions })
}

/// Why the server cannot be served, when a credential of it cannot be used.
fn wrong_credentials(
    site: &Site<'_>,
    credentials: &Usable<'_>,
    report: &mut Report,
) -> Option<String> {
    let mut wrong = None;
    for (i, version) in site.spec.versions.iter().enumerate() {
        let Some(name) = &version.credential else { continue };
        let key = ResourceKey::grouped(Kind::Credential, site.group, name.as_str());
        if !credentials.known.contains_key(name) && report.quarantined.contains_key(&key) {
            wrong.get_or_insert_with(|| format!("{key} cannot be used"));
        } else if !credentials.known.contains_key(name) {
            let text = format!("there is no Credential {name}");
            report.unusable(site.key, format!("spec.versions[{i}].credential"), text.clone());
            wrong.get_or_insert(text);
        } else if !credentials.usable.contains(name) {
            wrong.get_or_insert_with(|| format!("the secret of Credential {name} is not here"));
        }
    }
    wrong
}

/// Why a catalog cannot be used.
enum Broken {
    /// It was reported already.
    Unreadable,
    /// The entry whose definition is missing.
    Missing(usize, Digest),
}

/// The catalog of a server version; none while nothing was observed and pinned.
fn compile_catalog(
    input: &Input<'_>,
    server: &Name,
    key: &ResourceKey,
    (known, lender): (Option<&Arc<CatalogView>>, &Lender<'_>),
) -> Result<Option<Arc<CatalogView>>, Broken> {
    let Some(resource) = input.set.get(key) else { return Ok(None) };
    let Spec::Catalog(catalog) = &resource.spec else { return Err(Broken::Unreadable) };
    let definition = |digest: &Digest| {
        let key = ResourceKey::global(Kind::Definition, Definition::name_of(digest));
        input.set.get(&key).map(|resource| &resource.spec)
    };
    if let Some(known) = known.filter(|known| known.digest == resource.digest)
        && !input.changes.touch_keys([key])
    {
        return Ok(Some(Arc::clone(known)));
    }
    let view =
        catalog::compile(server, (catalog, resource.digest), (lender, &input.schemas), definition)
            .map_err(|(at, digest)| Broken::Missing(at, digest))?;
    Ok(Some(Arc::new(view)))
}
