//! What a caller is told of things that do not exist, or not for it: the same words.

use serde_json::json;
use weir_model::bounds;
use weir_model::reason::{Reason, Refusal};

use crate::call::endpoint::Endpoint;
use crate::call::sight::Sight;

fn shown(name: &str) -> String {
    name.chars().take(bounds::TOOL_NAME_CHARS_MAX).collect()
}

/// No such tool, or none for this caller.
pub(super) fn unknown_tool(name: &str) -> Refusal {
    Refusal::new(Reason::UnknownTarget, "tool").hint(format!("Unknown tool: {}", shown(name)))
}

/// The same of a prompt.
pub(super) fn unknown_prompt(name: &str) -> Refusal {
    Refusal::new(Reason::UnknownTarget, "prompt").hint(format!("Unknown prompt: {}", shown(name)))
}

/// The same of a resource, with templates that it could have been meant for.
pub(super) fn unknown_resource((endpoint, sight): (&Endpoint, &Sight), uri: &str) -> Refusal {
    let told: String = uri.chars().take(bounds::URI_BYTES_MAX).collect();
    let mut text = String::from("Resource not found");
    for (at, rule) in super::shown::near(endpoint, sight, uri).iter().enumerate() {
        text.push_str(if at == 0 { ". Templates that begin like it: " } else { " | " });
        text.push_str(rule);
    }
    Refusal::new(Reason::UnknownTarget, "resource").hint(text).data(json!({ "uri": told }))
}
