//! What an endpoint shows one caller: the servers whose lists it joins, where a resource comes from,
//! whose part is missing, and which of what a caller names is registered at all.

use std::sync::Arc;

use weir_model::id::{Digest, Name};
use weir_model::policy::Action;
use weir_model::principal::Principal;
use weir_model::snapshot::{CatalogView, Hints, ServerView, VersionView};

use crate::call::endpoint::Endpoint;
use crate::call::forward::Scope;
use crate::call::sight::Sight;
use crate::mcp::list::Source;
use crate::mcp::template;
use crate::upstream::Upstreams;

/// True when a catalog lists the URI, or a template that it is an expansion of.
pub(super) fn has_resource(catalog: &CatalogView, uri: &str) -> bool {
    catalog.resource(uri).is_some()
        || catalog.templates.iter().any(|t| template::matches(&t.name, uri))
}

/// True when a catalog has no say about a URI: it lists neither resources nor templates.
pub(super) fn lists_no_resources(catalog: &CatalogView) -> bool {
    catalog.resources.is_empty() && catalog.templates.is_empty()
}

/// True when a completion may be about it: a resource, or a template by its own text.
pub(super) fn has_reference(catalog: &CatalogView, uri: &str) -> bool {
    has_resource(catalog, uri) || catalog.templates.iter().any(|t| t.name == uri)
}

/// What a caller hears of a URI that is nobody's: how the variables of templates that begin like it
/// are to be filled, as far as the caller sees those templates.
pub(super) fn near(endpoint: &Endpoint, sight: &Sight, uri: &str) -> Vec<String> {
    /// Templates that one answer tells of.
    const TOLD_MAX: usize = 3;
    let draw = draw(&sight.who);
    let servers = endpoint.group.servers.values();
    let servers = servers.filter(|s| endpoint.server.as_ref().is_none_or(|only| *only == s.name));
    let mut told = Vec::new();
    for server in servers.filter(|server| server.quarantined.is_none()) {
        let catalog = server.version(draw).catalog.as_deref();
        for view in catalog.into_iter().flat_map(|catalog| &catalog.templates) {
            let Some(rule) = template::near(&view.name, uri) else { continue };
            if sight.may(&server.name, Action::ReadResource, &view.name, Hints::default()) {
                told.push(rule);
            }
            if told.len() == TOLD_MAX {
                return told;
            }
        }
    }
    told
}

/// A number spread evenly over `0..100` that stays the same for one principal.
pub(super) fn draw(who: &Principal) -> u8 {
    let Digest(bytes) = Digest::of(who.id().as_bytes());
    let number = u16::from_be_bytes([bytes[0], bytes[1]]) % 100;
    u8::try_from(number).unwrap_or_default()
}

/// The catalogs of the servers that an endpoint shows this caller, in the order of names; for
/// `lasting` see [`Sight::sees`].
pub fn sources<'a>(endpoint: &'a Endpoint, sight: &Sight, lasting: &mut bool) -> Vec<Source<'a>> {
    let draw = draw(&sight.who);
    endpoint
        .group
        .servers
        .values()
        .filter(|s| endpoint.server.as_ref().is_none_or(|only| *only == s.name))
        .filter(|s| s.quarantined.is_none())
        .filter(|s| sight.sees((&s.name, Action::UseServer), ("", Hints::default()), lasting))
        .filter_map(|s| {
            let catalog = s.version(draw).catalog.as_deref()?;
            Some(Source { server: &s.name, catalog })
        })
        .collect()
}

/// The server version that a resource is read from on an endpoint; none when there is none that
/// the caller may read it from.
pub fn home_of(
    endpoint: &Endpoint,
    who: &Principal,
    sight: &Sight,
    uri: &str,
) -> Option<Arc<VersionView>> {
    let may = |server: &ServerView| {
        server.quarantined.is_none()
            && sight.may(&server.name, Action::ReadResource, uri, Hints::default())
    };
    if !template::is_plain(uri) {
        return None;
    }
    let servers = &endpoint.group.servers;
    let draw = draw(who);
    match &endpoint.server {
        Some(name) => {
            let server = servers.get(name).filter(|server| may(server))?;
            let version = server.version(draw);
            let listed = |c: &CatalogView| lists_no_resources(c) || has_resource(c, uri);
            version.catalog.as_deref().is_none_or(listed).then(|| Arc::clone(version))
        }
        None => servers.values().find_map(|server| {
            let version = server.version(draw);
            let has = version.catalog.as_deref().is_some_and(|c| has_resource(c, uri));
            (has && may(server)).then(|| Arc::clone(version))
        }),
    }
}

/// The servers of the joined endpoint whose part is missing or does not work at the moment, with
/// the reason, as far as the caller may know of them.
pub fn shortfalls(scope: Scope<'_>, upstreams: &Upstreams) -> Vec<(Name, &'static str)> {
    if scope.endpoint.server.is_some() {
        return Vec::new();
    }
    let draw = draw(&scope.sight.who);
    let why = |server: &ServerView| {
        let version = server.version(draw);
        if server.quarantined.is_some() {
            Some("quarantined")
        } else if version.catalog.is_none() {
            Some("unobserved")
        } else {
            upstreams.held(&version.key).then_some("unreachable")
        }
    };
    let servers = scope.endpoint.group.servers.values();
    let short = servers.filter_map(|server| Some((server.name.clone(), why(server)?)));
    short
        .filter(|(name, _)| scope.sight.may(name, Action::UseServer, "", Hints::default()))
        .collect()
}
