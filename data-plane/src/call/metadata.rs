//! Protected resource metadata (RFC 9728): from an endpoint to the issuers whose tokens it takes.

use bytes::Bytes;
use serde_json::json;
use weir_model::snapshot::GroupView;

const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// The endpoint path that a metadata path is about: `/acme/mcp` of
/// `/.well-known/oauth-protected-resource/acme/mcp`.
pub fn endpoint_of(path: &str) -> Option<&str> {
    path.strip_prefix(WELL_KNOWN).filter(|rest| rest.starts_with('/') && rest.len() > 1)
}

/// The URL of the metadata of an endpoint. `base` is the gateway's own URL without a path.
pub fn metadata_url(base: &str, endpoint: &str) -> String {
    format!("{}{WELL_KNOWN}{endpoint}", base.trim_end_matches('/'))
}

/// The metadata of an endpoint of a group.
pub fn document(group: &GroupView, base: &str, endpoint: &str) -> Bytes {
    let url = || format!("{}{endpoint}", base.trim_end_matches('/'));
    let resource = group.spec.audience.clone().unwrap_or_else(url);
    let mut issuers: Vec<&str> = group.providers.iter().map(|p| p.spec.issuer.as_str()).collect();
    issuers.sort_unstable();
    issuers.dedup();
    let mut document = json!({
        "resource": resource,
        "resource_name": group.spec.display_name.as_deref().unwrap_or(group.name.as_str()),
        "bearer_methods_supported": ["header"],
    });
    // RFC 9728 has no empty lists. A group without providers takes API tokens only.
    if !issuers.is_empty() {
        document["authorization_servers"] = json!(issuers);
    }
    Bytes::from(document.to_string())
}

#[cfg(test)]
mod tests {
    use weir_model::testing::World;

    use super::*;

    #[test]
    fn paths_lead_there_and_back() {
        let url = metadata_url("https://gw.example/", "/acme/mcp");
        assert_eq!(url, "https://gw.example/.well-known/oauth-protected-resource/acme/mcp");
        let path = "/.well-known/oauth-protected-resource/acme/crm/mcp";
        assert_eq!(endpoint_of(path), Some("/acme/crm/mcp"));
        for other in [
            "/.well-known/oauth-protected-resource",
            "/x",
            "/.well-known/oauth-protected-resourcex/a",
        ] {
            assert_eq!(endpoint_of(other), None, "{other}");
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
        let issuers = ["https://b.example", "https://a.example", "https://b.example"];
        let texts: Vec<String> =
            issuers.iter().enumerate().map(|(at, i)| provider(&format!("p{at}"), i)).collect();
        let world = plain.documents(&texts.join("---\n"));
        let document = read(&world, "/acme/crm/mcp");
        assert_eq!(document["resource"], "https://gw.example/acme/crm/mcp");
        let expect = json!(["https://a.example", "https://b.example"]);
        assert_eq!(document["authorization_servers"], expect);
        let named =
            world.group_with("acme", |g| g.audience = Some("https://mcp.acme.example".into()));
        assert_eq!(read(&named, "/acme/mcp")["resource"], "https://mcp.acme.example");
    }
}
