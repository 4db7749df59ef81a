//! Regions and groups.

use super::Findings;
use super::text::{self, UrlRules};
use crate::bounds;
use crate::resource::{ClientCertificates, Extension, Group, Region, SessionLimits, SignIn};

/// Origins of one group.
const ORIGINS_MAX: usize = 100;
/// Clients that a group knows beforehand, and redirect URIs of one.
const CLIENTS_MAX: usize = 50;
/// PEM text of the authorities of client certificates.
const AUTHORITIES_BYTES_MAX: usize = 64 * 1024;
/// Scopes that clients are told to ask for.
const SCOPES_MAX: usize = 64;
/// Extensions of one group, and methods of one extension.
const EXTENSIONS_MAX: usize = 32;
/// Id of an extension, name of a method.
const EXTENSION_CHARS_MAX: usize = 128;
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
    if let Some(certificates) = &spec.certificates {
        client_certificates(f, certificates);
    }
    if let Some(front) = &spec.sign_in {
        sign_in(f, front);
    }
    sessions(f, spec.sessions);
    extensions(f, &spec.extensions);
    if spec.stale_after_secs == Some(0) {
        f.add("spec.staleAfterSecs", "must be at least 1; leave it out for no limit");
    }
}

fn sessions(f: &mut Findings, spec: SessionLimits) {
    let day = u32::try_from(bounds::SESSION_SECS_MAX).unwrap_or(u32::MAX);
    let count = |most: usize| u32::try_from(most).unwrap_or(u32::MAX);
    for (name, value, (least, most)) in [
        ("idleSecs", spec.idle_secs, (60, day)),
        ("lifeSecs", spec.life_secs, (60, day)),
        ("perPrincipal", spec.per_principal, (1, bounds::SESSIONS_PER_PRINCIPAL_MAX)),
        (
            "streamsPerPrincipal",
            spec.streams_per_principal,
            (1, count(bounds::STREAMS_PER_PRINCIPAL_MAX)),
        ),
        (
            "parkedPerPrincipal",
            spec.parked_per_principal,
            (1, count(bounds::PARKED_PER_PRINCIPAL_MAX)),
        ),
    ] {
        if value.is_some_and(|value| !(least..=most).contains(&value)) {
            f.add(format!("spec.sessions.{name}"), format!("must be {least} to {most}"));
        }
    }
}

fn client_certificates(f: &mut Findings, spec: &ClientCertificates) {
    let path = "spec.certificates.authorities";
    if spec.authorities.len() > AUTHORITIES_BYTES_MAX {
        f.add(path, format!("must be at most {AUTHORITIES_BYTES_MAX} bytes long"));
    }
    if spec.authorities.contains("PRIVATE KEY") {
        f.add(path, "must not have a private key; give the certificates alone");
    } else if !spec.authorities.contains("-----BEGIN CERTIFICATE-----") {
        f.add(path, "must be PEM certificates");
    }
    for (name, list) in [("memberships", &spec.memberships), ("scopes", &spec.scopes)] {
        let path = format!("spec.certificates.{name}");
        f.count(&path, list.len(), (0, bounds::PRINCIPAL_ATTRIBUTES_MAX));
        for (i, item) in list.iter().enumerate() {
            f.add_if(format!("{path}[{i}]"), text::attribute(item));
        }
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
    if spec.consent_secs > 365 * 86_400 {
        f.add("spec.signIn.consentSecs", "must be at most 31536000 (365 days)");
    }
}

fn extensions(f: &mut Findings, extensions: &[Extension]) {
    f.count("spec.extensions", extensions.len(), (0, EXTENSIONS_MAX));
    f.unique(extensions.iter().map(|e| &e.id), |i| format!("spec.extensions[{i}].id"));
    for (i, extension) in extensions.iter().enumerate() {
        let path = format!("spec.extensions[{i}]");
        f.add_if(format!("{path}.id"), extension_id(&extension.id));
        f.count(&format!("{path}.methods"), extension.methods.len(), (0, EXTENSIONS_MAX));
        for (j, method) in extension.methods.iter().enumerate() {
            f.add_if(format!("{path}.methods[{j}]"), extension_method(method));
        }
    }
}

/// What is wrong with the id of an extension (2026-07-28, grammar of `_meta` keys).
fn extension_id(text: &str) -> Option<String> {
    let label = |part: &str| {
        let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
        edge(part.bytes().next())
            && edge(part.bytes().last())
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    let good = text.len() <= EXTENSION_CHARS_MAX
        && text
            .split_once('/')
            .is_some_and(|(prefix, name)| prefix.split('.').all(label) && label(name));
    (!good).then(|| "must be a prefix, a slash and a name, as in com.acme/search".to_owned())
}

/// What is wrong with a method: those of the specification are not an operator's to add.
fn extension_method(text: &str) -> Option<String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./".contains(&b);
    if text.is_empty() || text.len() > EXTENSION_CHARS_MAX || !text.bytes().all(plain) {
        return Some(format!("must be 1 to {EXTENSION_CHARS_MAX} letters, digits and -_./"));
    }
    let own = [
        "tools/",
        "resources/",
        "prompts/",
        "completion/",
        "logging/",
        "server/",
        "subscriptions/",
        "tasks/",
        "skills/",
        "notifications/",
        "roots/",
        "sampling/",
        "elicitation/",
    ];
    let reserved =
        text == "initialize" || text == "ping" || own.iter().any(|p| text.starts_with(p));
    reserved.then(|| "belongs to MCP itself".to_owned())
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
