//! What a caller is told of things that do not exist, or not for it: the same words.

use serde_json::json;
use weir_model::bounds;
use weir_model::reason::{Reason, Refusal};

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

/// The same of a resource.
pub(super) fn unknown_resource(uri: &str) -> Refusal {
    let uri: String = uri.chars().take(bounds::URI_BYTES_MAX).collect();
    Refusal::new(Reason::UnknownTarget, "resource")
        .hint("Resource not found")
        .data(json!({ "uri": uri }))
}
