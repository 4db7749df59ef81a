//! Documents that tell clients where to log in: protected resource metadata (RFC 9728) of every
//! endpoint, in each of the places where clients look for it.

use bytes::Bytes;
use serde_json::json;
use weir_model::snapshot::{GroupView, Snapshot};

const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// The endpoint path that a metadata path is about: `/acme/mcp` of
/// `/.well-known/oauth-protected-resource/acme/mcp` (RFC 9728, section 3.1), and of the form that
/// some clients build by appending, `/acme/mcp/.well-known/oauth-protected-resource`. The root
/// form names no endpoint; it stands for the endpoint of the only group that there is.
pub fn endpoint_of<'a>(path: &'a str, snapshot: &Snapshot) -> Option<std::borrow::Cow<'a, str>> {
    if let Some(rest) = path.strip_prefix(WELL_KNOWN) {
        return match rest.trim_end_matches('/') {
            "" => only_group(snapshot).map(|group| format!("/{}/mcp", group.name).into()),
            rest if rest.starts_with('/') => Some(rest.into()),
            _ => None,
        };
    }
    path.strip_suffix(WELL_KNOWN).filter(|rest| rest.len() > 1).map(Into::into)
}

/// True when the gateway is the group's authorization server.
pub fn signs_in(group: &GroupView) -> bool {
    group.spec.sign_in.is_some() && group.providers.iter().any(|p| p.spec.sign_in.is_some())
}

/// The group, when there is one and no other.
pub fn only_group(snapshot: &Snapshot) -> Option<&GroupView> {
    let mut groups = snapshot.groups.values();
    groups.next().filter(|_| groups.next().is_none()).map(|group| &**group)
}

/// The URL of the metadata of an endpoint. `base` is the gateway's own URL without a path.
pub fn metadata_url(base: &str, endpoint: &str) -> String {
    format!("{}{WELL_KNOWN}{endpoint}", base.trim_end_matches('/'))
}

/// The URL of an endpoint, as clients write it: no slash at the end.
pub fn resource_url(base: &str, endpoint: &str) -> String {
    format!("{}{}", base.trim_end_matches('/'), endpoint.trim_end_matches('/'))
}

/// The metadata of an endpoint of a group. `resource` is always the URL that the client used:
/// clients refuse metadata that names another one, be it by a slash.
pub fn document(group: &GroupView, base: &str, endpoint: &str) -> Bytes {
    let own = base.trim_end_matches('/');
    let mut issuers: Vec<&str> = match signs_in(group) {
        true => vec![own],
        false => group.providers.iter().map(|p| p.spec.issuer.as_str()).collect(),
    };
    issuers.sort_unstable();
    issuers.dedup();
    let mut document = json!({
        "resource": resource_url(base, endpoint),
        "resource_name": group.spec.display_name.as_deref().unwrap_or(group.name.as_str()),
        "bearer_methods_supported": ["header"],
    });
    // RFC 9728 has no empty lists. A group without providers takes API tokens only.
    if !issuers.is_empty() {
        document["authorization_servers"] = json!(issuers);
    }
    // What everybody needs, and no more: what a rule wants of some calls is told when it is wanted.
    if !group.spec.scopes.is_empty() {
        document["scopes_supported"] = json!(group.spec.scopes);
    }
    Bytes::from(document.to_string())
}

/// The scopes of a challenge: what everybody needs, and what this call needs besides. All of them
/// at once, since many clients ask for what the last challenge says and nothing else.
pub fn scopes(group: &GroupView, missing: Option<&str>) -> Option<String> {
    let mut all: Vec<&str> = group.spec.scopes.iter().map(String::as_str).collect();
    for scope in missing.unwrap_or_default().split_ascii_whitespace() {
        if !all.contains(&scope) {
            all.push(scope);
        }
    }
    (!all.is_empty()).then(|| all.join(" "))
}

#[cfg(test)]
mod tests {
    use weir_model::testing::World;

    use super::*;

    #[test]
    fn paths_lead_there_and_back() {
        let url = metadata_url("https://gw.example/", "/acme/mcp");
        assert_eq!(url, "https://gw.example/.well-known/oauth-protected-resource/acme/mcp");
        let (one, two) = (World::new().group("acme"), World::new().group("acme").group("beta"));
        let (one, two) = (one.snapshot(), two.snapshot());
        // path, in a world of one group, in a world of two
        for (path, alone, among) in [
            ("/.well-known/oauth-protected-resource/acme/crm/mcp", Some("/acme/crm/mcp"), true),
            ("/.well-known/oauth-protected-resource/acme/mcp/", Some("/acme/mcp"), true),
            ("/acme/crm/mcp/.well-known/oauth-protected-resource", Some("/acme/crm/mcp"), true),
            ("/.well-known/oauth-protected-resource", Some("/acme/mcp"), false),
            ("/.well-known/oauth-protected-resource/", Some("/acme/mcp"), false),
            ("/.well-known/oauth-protected-resourcex/a", None, false),
            ("/acme/mcp", None, false),
            ("/x", None, false),
        ] {
            assert_eq!(endpoint_of(path, &one).as_deref(), alone, "{path}");
            let expect = if among { alone } else { None };
            assert_eq!(endpoint_of(path, &two).as_deref(), expect, "{path}");
        }
    }

    #[test]
    fn documents_name_the_endpoint_and_its_issuers() {
        let provider = |name: &str, issuer: &str| {
            format!(
                "apiVersion: weir/v1\nkind: IdentityProvider\nmetadata: {{group: acme, name: {name}}}\n\
                 spec: {{issuer: '{issuer}', audiences: [weir]}}\n"
            )
        };
        let read = |world: &World, endpoint: &str| {
            let snapshot = world.snapshot();
            let body = document(&snapshot.groups["acme"], "https://gw.example/", endpoint);
            serde_json::from_slice::<serde_json::Value>(&body).unwrap()
        };
        let plain = World::new().group("acme");
        let document = read(&plain, "/acme/mcp");
        assert_eq!(document["resource"], "https://gw.example/acme/mcp");
        assert_eq!(document.get("authorization_servers"), None, "API tokens only");
        assert_eq!(document.get("scopes_supported"), None);
        let issuers = ["https://b.example", "https://a.example", "https://b.example"];
        let texts: Vec<String> =
            issuers.iter().enumerate().map(|(at, i)| provider(&format!("p{at}"), i)).collect();
        let world = plain.documents(&texts.join("---\n"));
        let document = read(&world, "/acme/crm/mcp/");
        assert_eq!(document["resource"], "https://gw.example/acme/crm/mcp");
        let expect = json!(["https://a.example", "https://b.example"]);
        assert_eq!(document["authorization_servers"], expect);
        let named = world.group_with("acme", |g| {
            g.audience = Some("https://mcp.acme.example".into());
            g.scopes = vec!["mcp".into()];
        });
        let document = read(&named, "/acme/mcp");
        assert_eq!(document["resource"], "https://gw.example/acme/mcp", "what the client used");
        assert_eq!(document["scopes_supported"], json!(["mcp"]));
    }

    #[test]
    fn challenges_name_every_scope_at_once() {
        let world = World::new().group_with("acme", |g| g.scopes = vec!["mcp".into()]);
        let (with, without) = (world.snapshot(), World::new().group("acme").snapshot());
        let (with, without) = (&with.groups["acme"], &without.groups["acme"]);
        assert_eq!(scopes(with, None).as_deref(), Some("mcp"));
        assert_eq!(scopes(with, Some("pay mcp")).as_deref(), Some("mcp pay"));
        assert_eq!(scopes(without, Some("pay")).as_deref(), Some("pay"));
        assert_eq!(scopes(without, None), None);
    }
}
