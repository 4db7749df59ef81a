//! The fixture's tools that end a round with questions and wait for the client's next request.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use rmcp::RoleServer;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, ErrorData, GetPromptRequestParams, GetPromptResponse,
    GetPromptResult, InputRequiredResult,
};
use rmcp::service::RequestContext;
use serde_json::{Value, json};

use super::tools::text;
use super::{Fixture, tools, wire};

/// Questions by key, and state for the next round.
fn required(requests: Value, state: Option<String>) -> Result<InputRequiredResult, ErrorData> {
    Ok(InputRequiredResult::new(Some(wire(requests)?), state))
}

pub(super) fn elicit(message: &str, member: &str, kind: &str) -> Value {
    json!({ "method": "elicitation/create", "params": {
        "message": message,
        "requestedSchema": {
            "type": "object",
            "properties": { member: { "type": kind } },
            "required": [member],
        },
    } })
}

fn sample(prompt: &str, tokens: u32) -> Value {
    json!({ "method": "sampling/createMessage", "params": {
        "messages": [{ "role": "user", "content": { "type": "text", "text": prompt } }],
        "maxTokens": tokens,
    } })
}

fn roots() -> Value {
    json!({ "method": "roots/list", "params": {} })
}

pub(super) fn ask_for_name() -> Result<CallToolResponse, ErrorData> {
    let question = elicit("What is your name?", "name", "string");
    Ok(required(json!({ "user_name": question }), None)?.into())
}

impl Fixture {
    /// A tag that nobody else can make for this text.
    fn tag(&self, text: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.key, text, self.key).hash(&mut hasher);
        hasher.finish()
    }

    fn seal(&self, text: &str) -> String {
        format!("{text}.{:016x}", self.tag(text))
    }

    /// The text of a state that this fixture sealed.
    fn open(&self, state: &str) -> Result<String, ErrorData> {
        let parts = state.rsplit_once('.');
        let sealed = parts.filter(|(text, tag)| *tag == format!("{:016x}", self.tag(text)));
        let refused = || ErrorData::invalid_params("the request state was changed", None);
        sealed.map(|(text, _)| text.to_owned()).ok_or_else(refused)
    }
}

/// Rounds that an older client may be led through: longer chains are loops.
const ROUNDS_MAX: usize = 8;

/// A newer client answers by calling again; an older one is asked while the call runs.
pub(super) async fn rounds(
    fixture: &Fixture,
    mut request: CallToolRequestParams,
    context: &RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    for _ in 0..ROUNDS_MAX {
        let asked = match call(fixture, &request, context)? {
            CallToolResponse::InputRequired(asked) if !tools::is_modern(context) => asked,
            answer => return Ok(answer),
        };
        request.request_state.clone_from(&asked.request_state);
        request.input_responses = Some(ask(asked, context).await?.into_iter().collect());
    }
    Err(tools::internal("the tool never stops asking"))
}

/// The same for the prompt that asks.
pub(super) async fn prompt_rounds(
    mut request: GetPromptRequestParams,
    context: &RequestContext<RoleServer>,
) -> Result<GetPromptResponse, ErrorData> {
    match prompt(&request)? {
        GetPromptResponse::InputRequired(asked) if !tools::is_modern(context) => {
            request.input_responses = Some(ask(asked, context).await?.into_iter().collect());
            prompt(&request)
        }
        answer => Ok(answer),
    }
}

/// Asks an older client everything at once.
async fn ask(
    asked: InputRequiredResult,
    context: &RequestContext<RoleServer>,
) -> Result<Vec<(String, Value)>, ErrorData> {
    let questions = asked.input_requests.into_iter().flatten().map(|(key, question)| async move {
        let question = serde_json::to_value(question).map_err(tools::internal)?;
        Ok((key, tools::answer(wire(question)?, context).await?))
    });
    futures_util::future::try_join_all(questions).await
}

/// The one question of a tool of the older revisions: put to an older client while the call runs, to
/// a newer one as the end of the round.
pub(super) async fn one(
    question: Value,
    request: &CallToolRequestParams,
    context: &RequestContext<RoleServer>,
) -> Result<Result<Value, CallToolResponse>, ErrorData> {
    const KEY: &str = "answer";
    if !tools::is_modern(context) {
        return Ok(Ok(tools::answer(wire(question)?, context).await?));
    }
    let answers = request.input_responses.as_ref();
    match answers.and_then(|answers| answers.get(KEY)) {
        Some(answer) => Ok(Ok(serde_json::to_value(answer).map_err(tools::internal)?)),
        None => Ok(Err(required(json!({ KEY: question }), None)?.into())),
    }
}

fn call(
    fixture: &Fixture,
    request: &CallToolRequestParams,
    context: &RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    let state = request.request_state.as_deref().map(|state| fixture.open(state)).transpose()?;
    let answers = request.input_responses.clone().unwrap_or_default();
    let name = request.name.trim_start_matches("test_input_required_result_");
    match name {
        "elicitation" => match answers.get("user_name").and_then(|a| a["content"]["name"].as_str())
        {
            Some(name) => text(&format!("Hello, {name}!")),
            None => ask_for_name(),
        },
        "sampling" => match answers.get("capital_question") {
            Some(answer) => text(answer["content"]["text"].as_str().unwrap_or_default()),
            None => {
                let question = sample("What is the capital of France?", 100);
                Ok(required(json!({ "capital_question": question }), None)?.into())
            }
        },
        "list_roots" => match answers.get("client_roots") {
            Some(answer) => text(&format!("Roots: {}", answer["roots"])),
            None => Ok(required(json!({ "client_roots": roots() }), None)?.into()),
        },
        "request_state" | "tampered_state" => match (state.as_deref(), answers.get("confirm")) {
            (Some("confirm"), Some(_)) => text("state-ok"),
            _ => {
                let question = elicit("Please confirm", "ok", "boolean");
                let state = fixture.seal("confirm");
                Ok(required(json!({ "confirm": question }), Some(state))?.into())
            }
        },
        "multiple_inputs" => {
            let all = ["user_name", "greeting", "client_roots"];
            if all.iter().all(|key| answers.contains_key(*key)) {
                return text("All three answers arrived");
            }
            let questions = json!({
                "user_name": elicit("What is your name?", "name", "string"),
                "greeting": sample("Generate a greeting", 50),
                "client_roots": roots(),
            });
            Ok(required(questions, Some(fixture.seal("multiple")))?.into())
        }
        "multi_round" => multi_round(fixture, state.as_deref(), |key| answers.get(key).cloned()),
        "capabilities" => capabilities(fixture, context, !answers.is_empty()),
        _ if request.name == "test_streaming_elicitation" => match answers.get("user_name") {
            Some(_) => text("Thank you"),
            None => ask_for_name(),
        },
        other => {
            let message = format!("there is no tool {other}");
            Err(ErrorData::invalid_params(message, None))
        }
    }
}

fn multi_round(
    fixture: &Fixture,
    state: Option<&str>,
    answer: impl Fn(&str) -> Option<Value>,
) -> Result<CallToolResponse, ErrorData> {
    match (state, answer("step1"), answer("step2")) {
        (Some("round-1"), Some(_), _) => {
            let question = elicit("Step 2: What is your favorite color?", "color", "string");
            let state = fixture.seal("round-2");
            Ok(required(json!({ "step2": question }), Some(state))?.into())
        }
        (Some("round-2"), _, Some(_)) => text("Both rounds are done"),
        _ => {
            let question = elicit("Step 1: What is your name?", "name", "string");
            let state = fixture.seal("round-1");
            Ok(required(json!({ "step1": question }), Some(state))?.into())
        }
    }
}

/// Asks only for what the client has said that it can do.
fn capabilities(
    fixture: &Fixture,
    context: &RequestContext<RoleServer>,
    answered: bool,
) -> Result<CallToolResponse, ErrorData> {
    let able = context.client_capabilities().unwrap_or_default();
    let mut questions = serde_json::Map::new();
    if able.elicitation.is_some() {
        questions.insert("name".into(), elicit("What is your name?", "name", "string"));
    }
    if able.sampling.is_some() {
        questions.insert("greeting".into(), sample("Generate a greeting", 50));
    }
    if able.roots.is_some() {
        questions.insert("roots".into(), roots());
    }
    if answered || questions.is_empty() {
        return text("Nothing more to ask");
    }
    let state = fixture.seal("capabilities");
    Ok(required(Value::Object(questions), Some(state))?.into())
}

fn prompt(request: &GetPromptRequestParams) -> Result<GetPromptResponse, ErrorData> {
    let answers = request.input_responses.clone().unwrap_or_default();
    let Some(answer) = answers.get("user_context") else {
        let question = elicit("What context should the prompt use?", "context", "string");
        return Ok(required(json!({ "user_context": question }), None)?.into());
    };
    let context = answer["content"]["context"].as_str().unwrap_or_default();
    let message = json!({ "role": "user", "content": { "type": "text", "text": context } });
    Ok(GetPromptResult::new(wire(json!([message]))?).into())
}
