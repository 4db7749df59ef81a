//! The fixture's tools that answer in one go, and those that ask one thing while they run.

use std::time::Duration;

use rmcp::RoleServer;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ClientCapabilities, ClientResult,
    ErrorData, LoggingLevel, LoggingMessageNotificationParam, ProgressNotificationParam,
    ProtocolVersion, ServerRequest,
};
use rmcp::service::RequestContext;
use serde_json::{Value, json};

use super::offer::{PNG, WAV};
use super::{Changed, Fixture, inputs, wire};

type Context = RequestContext<RoleServer>;

/// The pause that the suite wants between messages.
const BEAT: Duration = Duration::from_millis(50);

pub(super) fn text(text: &str) -> Result<CallToolResponse, ErrorData> {
    result(json!({ "content": [{ "type": "text", "text": text }] }))
}

fn result(mut value: Value) -> Result<CallToolResponse, ErrorData> {
    // The library takes it out again for legacy clients.
    value["resultType"] = json!("complete");
    Ok(wire::<CallToolResult>(value)?.into())
}

pub(super) async fn call(
    fixture: &Fixture,
    request: CallToolRequestParams,
    context: Context,
) -> Result<CallToolResponse, ErrorData> {
    let arguments = request.arguments.clone().map(Value::Object).unwrap_or_default();
    let word = |name: &str| arguments[name].as_str().unwrap_or_default().to_owned();
    match &*request.name {
        "test_simple_text" => text("This is a simple text response for testing."),
        "test_image_content" => result(json!({ "content": [image()] })),
        "test_audio_content" => {
            let audio = json!({ "type": "audio", "data": WAV, "mimeType": "audio/wav" });
            result(json!({ "content": [audio] }))
        }
        "test_embedded_resource" | "test_multiple_content_types" => embedded(&request.name),
        "test_error_handling" => result(json!({
            "isError": true,
            "content": [{ "type": "text",
                "text": "This tool intentionally returns an error for testing" }],
        })),
        "test_tool_with_logging" | "test_logging_tool" => log(fixture, &context).await,
        "test_tool_with_progress" => progress(&context).await,
        "test_sampling" => sample(&word("prompt"), &request, &context).await,
        "test_elicitation" => {
            let question = elicitation(&word("message"), &user_schema());
            ask(question, "User response", &request, &context).await
        }
        "test_elicitation_sep1034_defaults" => {
            let question = elicitation("Please fill in", &defaults());
            ask(question, "Elicitation completed", &request, &context).await
        }
        "test_elicitation_sep1330_enums" => {
            let question = elicitation("Please choose", &enumerations());
            ask(question, "Elicitation completed", &request, &context).await
        }
        "test_reconnection" => {
            tokio::time::sleep(2 * BEAT).await;
            text("Reconnection test completed")
        }
        "test_missing_capability" => needs_sampling(&context),
        "test_trigger_tool_change" => {
            fixture.change(Changed::Tools);
            text("The list of tools has changed")
        }
        "test_trigger_prompt_change" => {
            fixture.change(Changed::Prompts);
            text("The list of prompts has changed")
        }
        "test_header_param" => text(&format!("region {}", word("region"))),
        "json_schema_2020_12_tool" => text(&arguments.to_string()),
        other => {
            let message = format!("there is no tool {other}");
            Err(ErrorData::invalid_params(message, None))
        }
    }
}

fn image() -> Value {
    json!({ "type": "image", "data": PNG, "mimeType": "image/png" })
}

fn embedded(tool: &str) -> Result<CallToolResponse, ErrorData> {
    let resource = |uri: &str, kind: &str, text: &str| {
        let resource = json!({ "uri": uri, "mimeType": kind, "text": text });
        json!({ "type": "resource", "resource": resource })
    };
    if tool == "test_embedded_resource" {
        let text = "This is an embedded resource content.";
        let one = resource("test://embedded-resource", "text/plain", text);
        return result(json!({ "content": [one] }));
    }
    let data = r#"{"test":"data","value":123}"#;
    let json = resource("test://mixed-content-resource", "application/json", data);
    let text = json!({ "type": "text", "text": "Multiple content types test:" });
    result(json!({ "content": [text, image(), json] }))
}

pub(super) fn is_modern(context: &Context) -> bool {
    context.protocol_version().is_some_and(|version| version >= ProtocolVersion::V_2026_07_28)
}

/// A modern request says itself whether it wants logs; a legacy session has said so before.
async fn log(fixture: &Fixture, context: &Context) -> Result<CallToolResponse, ErrorData> {
    let wanted = match is_modern(context) {
        true => context.meta.log_level().is_some(),
        false => {
            let level = fixture.shared.lock().level;
            level.is_none_or(|level| matches!(level, LoggingLevel::Debug | LoggingLevel::Info))
        }
    };
    for message in ["Tool execution started", "Tool processing data", "Tool execution completed"] {
        if wanted {
            let params = LoggingMessageNotificationParam::new(LoggingLevel::Info, json!(message));
            // A client that has left hears nothing; the call ends by itself.
            drop(context.peer.notify_logging_message(params).await);
        }
        tokio::time::sleep(BEAT).await;
    }
    text("Tool with logging executed")
}

async fn progress(context: &Context) -> Result<CallToolResponse, ErrorData> {
    for step in [0.0, 50.0, 100.0] {
        if let Some(token) = context.meta.get_progress_token() {
            let params = ProgressNotificationParam::new(token, step).with_total(100.0);
            drop(context.peer.notify_progress(params).await);
        }
        tokio::time::sleep(BEAT).await;
    }
    text("Tool with progress executed")
}

fn needs_sampling(context: &Context) -> Result<CallToolResponse, ErrorData> {
    let able = context.client_capabilities().is_some_and(|able| able.sampling.is_some());
    if able {
        return text("The client can sample");
    }
    let required: ClientCapabilities = wire(json!({ "sampling": {} }))?;
    Err(ErrorData::missing_required_client_capability(required))
}

async fn sample(
    prompt: &str,
    request: &CallToolRequestParams,
    context: &Context,
) -> Result<CallToolResponse, ErrorData> {
    let question = json!({
        "method": "sampling/createMessage",
        "params": {
            "messages": [{ "role": "user", "content": { "type": "text", "text": prompt } }],
            "maxTokens": 100,
        },
    });
    match inputs::one(question, request, context).await? {
        Ok(answer) => {
            let said = answer["content"]["text"].as_str().unwrap_or_default();
            text(&format!("LLM response: {said}"))
        }
        Err(asks) => Ok(asks),
    }
}

fn elicitation(message: &str, schema: &Value) -> Value {
    json!({
        "method": "elicitation/create",
        "params": { "message": message, "requestedSchema": schema },
    })
}

async fn ask(
    question: Value,
    begin: &str,
    request: &CallToolRequestParams,
    context: &Context,
) -> Result<CallToolResponse, ErrorData> {
    match inputs::one(question, request, context).await? {
        Ok(answer) => {
            let action = answer["action"].as_str().unwrap_or_default();
            text(&format!("{begin}: action={action}, content={}", answer["content"]))
        }
        Err(asks) => Ok(asks),
    }
}

#[allow(clippy::needless_pass_by_value, reason = "it is what `map_err` takes")]
pub(super) fn internal(error: impl ToString) -> ErrorData {
    ErrorData::internal_error(error.to_string(), None)
}

pub(super) async fn answer(request: ServerRequest, context: &Context) -> Result<Value, ErrorData> {
    let result: ClientResult = context.peer.send_request(request).await.map_err(internal)?;
    serde_json::to_value(result).map_err(internal)
}

fn user_schema() -> Value {
    let text = |about: &str| json!({ "type": "string", "description": about });
    json!({
        "type": "object",
        "properties": { "username": text("User's response"), "email": text("User's email address") },
        "required": ["username", "email"],
    })
}

fn defaults() -> Value {
    json!({ "type": "object", "properties": {
        "name": { "type": "string", "default": "John Doe" },
        "age": { "type": "integer", "default": 30 },
        "score": { "type": "number", "default": 95.5 },
        "status": { "type": "string", "enum": ["active", "inactive", "pending"],
                    "default": "active" },
        "verified": { "type": "boolean", "default": true },
    } })
}

fn enumerations() -> Value {
    let plain = ["option1", "option2", "option3"];
    let titled = |titles: [&str; 3]| {
        let values = ["value1", "value2", "value3"];
        let pairs = values.iter().zip(titles);
        let list = pairs.map(|(value, title)| json!({ "const": value, "title": title }));
        list.collect::<Vec<_>>()
    };
    json!({ "type": "object", "properties": {
        "untitledSingle": { "type": "string", "enum": plain },
        "titledSingle": { "type": "string",
            "oneOf": titled(["First Option", "Second Option", "Third Option"]) },
        "legacyEnum": { "type": "string", "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option One", "Option Two", "Option Three"] },
        "untitledMulti": { "type": "array", "items": { "type": "string", "enum": plain } },
        "titledMulti": { "type": "array",
            "items": { "anyOf": titled(["First Choice", "Second Choice", "Third Choice"]) } },
    } })
}
