//! Regions and groups.

use super::Findings;
use super::text::{self, UrlRules};
use crate::bounds;
use crate::resource::{Group, Region, SignIn};

/// Origins of one group.
const ORIGINS_MAX: usize = 100;
/// Clients that a group knows beforehand, and redirect URIs of one.
const CLIENTS_MAX: usize = 50;
/// Scopes that clients are told to ask for.
const SCOPES_MAX: usize = 64;
/// Regions of one group.
const REGIONS_MAX: usize = 100;

pub(super) fn region(f: &mut Findings, spec: &Region) {
    f.add_if("spec.displayName", text::display(spec.display_name.as_deref()));
    if let Some(url) = &spec.url {
        let rules = UrlRules { plain: true, path: false, query: false };
        f.add_if("spec.url", text::url(url, rules));
    }
}

pub(super) fn group(f: &mut Findings, spec: &Group) {
    f.add_if("spec.displayName", text::display(spec.display_name.as_deref()));
    f.count("spec.regions", spec.regions.len(), (0, REGIONS_MAX));
    f.unique(&spec.regions, |i| format!("spec.regions[{i}]"));
    f.count("spec.origins", spec.origins.len(), (0, ORIGINS_MAX));
    for (i, origin) in spec.origins.iter().enumerate() {
        f.add_if(format!("spec.origins[{i}]"), text::origin(origin));
    }
    if let Some(audience) = &spec.audience {
        f.add_if("spec.audience", self::audience(audience));
    }
    f.count("spec.scopes", spec.scopes.len(), (0, SCOPES_MAX));
    f.unique(&spec.scopes, |i| format!("spec.scopes[{i}]"));
    for (i, scope) in spec.scopes.iter().enumerate() {
        f.add_if(format!("spec.scopes[{i}]"), text::scope(scope));
    }
    if let Some(front) = &spec.sign_in {
        sign_in(f, front);
    }
    if spec.stale_after_secs == Some(0) {
        f.add("spec.staleAfterSecs", "must be at least 1; leave it out for no limit");
    }
}

fn sign_in(f: &mut Findings, spec: &SignIn) {
    f.count("spec.signIn.metadataHosts", spec.metadata_hosts.len(), (0, ORIGINS_MAX));
    for (i, host) in spec.metadata_hosts.iter().enumerate() {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
        if host.is_empty() || !host.chars().all(fits) {
            let text = "must be a host name in lower case, without scheme, port or path";
            f.add(format!("spec.signIn.metadataHosts[{i}]"), text);
        }
    }
    f.count("spec.signIn.clients", spec.clients.len(), (0, CLIENTS_MAX));
    f.unique(spec.clients.iter().map(|c| &c.id), |i| format!("spec.signIn.clients[{i}].id"));
    for (i, client) in spec.clients.iter().enumerate() {
        let path = |field: &str| format!("spec.signIn.clients[{i}].{field}");
        f.add_if(path("id"), text::id(&client.id, 200, "-_.:/"));
        f.add_if(path("displayName"), text::display(client.display_name.as_deref()));
        f.count(&path("redirectUris"), client.redirect_uris.len(), (1, CLIENTS_MAX));
        for (at, uri) in client.redirect_uris.iter().enumerate() {
            if !uri.contains(':') || uri.contains('#') || uri.len() > bounds::URI_BYTES_MAX {
                let text = "must be an absolute URI without a fragment";
                f.add(path(&format!("redirectUris[{at}]")), text);
            }
        }
    }
    if !(60..=3_600).contains(&spec.token_secs) {
        f.add("spec.signIn.tokenSecs", "must be 60 to 3600");
    }
    if !(300..=30 * 86_400).contains(&spec.session_secs) {
        f.add("spec.signIn.sessionSecs", "must be 300 to 2592000 (30 days)");
    }
}

/// What is wrong with an OAuth audience: a URI as a rule, but some issuers use plain words.
pub(super) fn audience(text: &str) -> Option<String> {
    if text.is_empty() || text.len() > bounds::URI_BYTES_MAX {
        return Some(format!("must be 1 to {} bytes long", bounds::URI_BYTES_MAX));
    }
    if text.contains('#') {
        return Some("must not have a fragment (#...)".to_owned());
    }
    text.chars()
        .any(|c| c.is_whitespace() || c.is_control())
        .then(|| "must not have spaces or control characters".to_owned())
}
