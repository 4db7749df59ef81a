//! What the fixture lists and reads, as wire JSON. Names and texts are the suite's.

use serde_json::{Value, json};

use super::tasks;

/// One red pixel.
pub(super) const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==";
/// A WAV header without samples.
pub(super) const WAV: &str = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA=";

/// A tool with these properties, all of them required.
pub(super) fn tool(name: &str, description: &str, properties: &Value) -> Value {
    let required = properties.as_object().map(|map| map.keys().cloned().collect::<Vec<_>>());
    let mut schema = json!({ "type": "object", "properties": properties });
    if let Some(required) = required.filter(|names| !names.is_empty()) {
        schema["required"] = json!(required);
    }
    json!({ "name": name, "description": description, "inputSchema": schema })
}

pub(super) fn tools() -> Vec<Value> {
    let plain = [
        ("test_simple_text", "Returns text"),
        ("test_image_content", "Returns an image"),
        ("test_audio_content", "Returns audio"),
        ("test_embedded_resource", "Returns an embedded resource"),
        ("test_multiple_content_types", "Returns content of several types"),
        ("test_tool_with_logging", "Logs while it runs"),
        ("test_tool_with_progress", "Reports progress"),
        ("test_error_handling", "Fails"),
        ("test_elicitation_sep1034_defaults", "Asks with defaults"),
        ("test_elicitation_sep1330_enums", "Asks with enumerations"),
        ("test_reconnection", "Takes a moment"),
        ("test_missing_capability", "Needs a client that samples"),
        ("test_streaming_elicitation", "Asks on a stream"),
        ("test_logging_tool", "Logs when the request allows it"),
        ("test_trigger_tool_change", "Changes the list of tools"),
        ("test_trigger_prompt_change", "Changes the list of prompts"),
        ("test_input_required_result_elicitation", "Asks for a name"),
        ("test_input_required_result_sampling", "Asks for a completion"),
        ("test_input_required_result_list_roots", "Asks for roots"),
        ("test_input_required_result_request_state", "Asks, with state"),
        ("test_input_required_result_multiple_inputs", "Asks three things at once"),
        ("test_input_required_result_multi_round", "Asks twice"),
        ("test_input_required_result_tampered_state", "Notices changed state"),
        ("test_input_required_result_capabilities", "Asks what the client can answer"),
    ];
    let plain = plain.iter().chain(&tasks::PLAIN);
    let mut tools: Vec<_> = plain.map(|(name, about)| tool(name, about, &json!({}))).collect();
    let number = json!({ "type": "integer", "minimum": 0 });
    let mut slow =
        tool("slow_compute", "A task that takes its time", &json!({ "seconds": number }));
    slow["inputSchema"]["properties"]["label"] = json!({ "type": "string" });
    tools.push(slow);
    tools.push(tool("greet", "Greets at once", &json!({ "name": { "type": "string" } })));
    let text = json!({ "type": "string" });
    tools.push(tool("test_sampling", "Samples", &json!({ "prompt": text })));
    tools.push(tool("test_elicitation", "Asks the user", &json!({ "message": text })));
    let region = json!({ "type": "string", "x-mcp-header": "Region" });
    tools.push(tool("test_header_param", "Mirrors an argument", &json!({ "region": region })));
    tools.push(rich_schema());
    tools
}

/// The schema whose every keyword the suite expects back.
fn rich_schema() -> Value {
    json!({
        "name": "json_schema_2020_12_tool",
        "description": "Tool with JSON Schema 2020-12 features",
        "inputSchema": {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "$defs": { "address": {
                "$anchor": "addressDef",
                "type": "object",
                "properties": { "street": { "type": "string" }, "city": { "type": "string" } },
            } },
            "properties": {
                "name": { "type": "string" },
                "address": { "$ref": "#/$defs/address" },
                "contactMethod": { "type": "string", "enum": ["phone", "email"] },
                "phone": { "type": "string" },
                "email": { "type": "string" },
            },
            "allOf": [{ "anyOf": [{ "required": ["phone"] }, { "required": ["email"] }] }],
            "if": {
                "properties": { "contactMethod": { "const": "phone" } },
                "required": ["contactMethod"],
            },
            "then": { "required": ["phone"] },
            "else": { "required": ["email"] },
            "additionalProperties": false,
        },
    })
}

pub(super) fn resources() -> Value {
    json!([
        { "uri": "test://static-text", "name": "static-text", "mimeType": "text/plain",
          "description": "A text" },
        { "uri": "test://static-binary", "name": "static-binary", "mimeType": "image/png",
          "description": "An image" },
        { "uri": "test://watched-resource", "name": "watched-resource", "mimeType": "text/plain",
          "description": "Something to watch" },
    ])
}

pub(super) fn templates() -> Value {
    json!([{
        "uriTemplate": "test://template/{id}/data", "name": "template",
        "mimeType": "application/json", "description": "Data by id",
    }])
}

pub(super) fn content(uri: &str) -> Option<Value> {
    let text = |kind: &str, text: &str| json!({ "uri": uri, "mimeType": kind, "text": text });
    match uri {
        "test://static-text" => {
            Some(text("text/plain", "This is the content of the static text resource."))
        }
        "test://static-binary" => Some(json!({ "uri": uri, "mimeType": "image/png", "blob": PNG })),
        "test://watched-resource" => Some(text("text/plain", "Nothing has happened yet.")),
        _ => {
            let id = uri.strip_prefix("test://template/")?.strip_suffix("/data")?;
            let about = format!("Data for ID: {id}");
            let data = json!({ "id": id, "templateTest": true, "data": about });
            Some(text("application/json", &data.to_string()))
        }
    }
}

pub(super) fn prompts() -> Vec<Value> {
    let prompt = |name: &str, arguments: &[&str]| {
        let arguments = arguments
            .iter()
            .map(|name| json!({ "name": name, "description": "An argument", "required": true }))
            .collect::<Vec<_>>();
        json!({ "name": name, "description": format!("The prompt {name}"), "arguments": arguments })
    };
    vec![
        prompt("test_simple_prompt", &[]),
        prompt("test_prompt_with_arguments", &["arg1", "arg2"]),
        prompt("test_prompt_with_embedded_resource", &["resourceUri"]),
        prompt("test_prompt_with_image", &[]),
        prompt("test_input_required_result_prompt", &[]),
    ]
}

pub(super) fn prompt(name: &str, arguments: &Value) -> Option<Value> {
    let user = |content: Value| json!({ "role": "user", "content": content });
    let text = |text: &str| user(json!({ "type": "text", "text": text }));
    let word = |name: &str| arguments[name].as_str().unwrap_or_default();
    match name {
        "test_simple_prompt" => Some(json!([text("This is a simple prompt for testing.")])),
        "test_prompt_with_arguments" => {
            let (one, two) = (word("arg1"), word("arg2"));
            Some(json!([text(&format!("Prompt with arguments: arg1='{one}', arg2='{two}'"))]))
        }
        "test_prompt_with_embedded_resource" => {
            let resource = json!({
                "uri": word("resourceUri"), "mimeType": "text/plain",
                "text": "Embedded resource content for testing.",
            });
            let embedded = user(json!({ "type": "resource", "resource": resource }));
            Some(json!([embedded, text("Please process the embedded resource above.")]))
        }
        "test_prompt_with_image" => {
            let image = user(json!({ "type": "image", "data": PNG, "mimeType": "image/png" }));
            Some(json!([image, text("Please analyze the image above.")]))
        }
        _ => None,
    }
}
