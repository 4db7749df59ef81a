//! Regions and groups.

use super::Findings;
use super::text::{self, UrlRules};
use crate::bounds;
use crate::resource::{Group, Region};

/// Origins of one group.
const ORIGINS_MAX: usize = 100;
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
    if spec.stale_after_secs == Some(0) {
        f.add("spec.staleAfterSecs", "must be at least 1; leave it out for no limit");
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
