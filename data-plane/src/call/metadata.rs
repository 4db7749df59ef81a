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
}
