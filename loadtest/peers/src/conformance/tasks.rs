//! The fixture's tools that become tasks (the extension `io.modelcontextprotocol/tasks`).

use std::time::Duration;

use rmcp::RoleServer;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ClientCapabilities, CreateTaskResult,
    ErrorData, InputRequest,
};
use rmcp::service::RequestContext;
use rmcp::task_manager::{TaskContext, TaskExit, TaskFuture, TaskOptions};
use serde_json::{Value, json};

use super::{Fixture, inputs, tools, wire};

/// How long work takes that takes long for a test.
const WORK: Duration = Duration::from_secs(1);
/// How often clients may ask, in milliseconds.
const POLL_MS: u64 = 200;

/// Names and descriptions of the tools here that take no argument.
pub(super) const PLAIN: [(&str, &str); 5] = [
    ("failing_job", "A task that fails"),
    ("protocol_error_job", "A task that breaks down"),
    ("confirm_delete", "A task that asks"),
    ("multi_input", "A task that asks two things at once"),
    ("test_tool_with_task", "Asks, then becomes a task"),
];

/// The answer, when the tool is one of these.
pub(super) async fn call(
    fixture: &Fixture,
    request: &CallToolRequestParams,
    context: &RequestContext<RoleServer>,
) -> Option<Result<CallToolResponse, ErrorData>> {
    let arguments = request.arguments.clone().map(Value::Object).unwrap_or_default();
    let able = context.client_capabilities().is_some_and(|able| able.supports_tasks());
    let seconds = Duration::from_secs(arguments["seconds"].as_u64().unwrap_or_default());
    let name = request.name.as_ref();
    Some(match name {
        "greet" => {
            tools::text(&format!("Hello, {}!", arguments["name"].as_str().unwrap_or_default()))
        }
        "slow_compute" if able && !seconds.is_zero() => {
            start(fixture, move |task| Box::pin(compute(task, seconds)))
        }
        "slow_compute" => {
            tokio::time::sleep(seconds).await;
            tools::text("computed")
        }
        "test_tool_with_task" => with_task(fixture, request),
        _ if !PLAIN.iter().any(|(plain, _)| *plain == name) => return None,
        _ if !able => Err(ErrorData::missing_required_client_capability(
            ClientCapabilities::builder().enable_tasks().build(),
        )),
        "failing_job" => start(fixture, |_| Box::pin(fail())),
        "protocol_error_job" => start(fixture, |_| Box::pin(break_down())),
        "confirm_delete" => start(fixture, |task| Box::pin(confirm(task))),
        _ => start(fixture, |task| Box::pin(ask_twice(task))),
    })
}

fn start(
    fixture: &Fixture,
    work: impl FnOnce(TaskContext) -> TaskFuture,
) -> Result<CallToolResponse, ErrorData> {
    let options = TaskOptions::new().with_poll_interval_ms(POLL_MS);
    let task = fixture.tasks.spawn(options, work);
    Ok(CallToolResponse::Task(CreateTaskResult::new(task)))
}

fn said(text: &str) -> Result<CallToolResult, TaskExit> {
    let result = json!({ "resultType": "complete", "content": [{ "type": "text", "text": text }] });
    Ok(wire(result)?)
}

async fn compute(task: TaskContext, seconds: Duration) -> Result<CallToolResult, TaskExit> {
    tokio::select! {
        () = tokio::time::sleep(seconds) => said("computed"),
        () = task.cancelled() => Err(TaskExit::Cancelled),
    }
}

async fn fail() -> Result<CallToolResult, TaskExit> {
    tokio::time::sleep(WORK).await;
    let text = json!({ "type": "text", "text": "The job failed" });
    Ok(wire(json!({ "resultType": "complete", "isError": true, "content": [text] }))?)
}

async fn break_down() -> Result<CallToolResult, TaskExit> {
    tokio::time::sleep(WORK).await;
    Err(ErrorData::internal_error("the job broke down", None).into())
}

fn question(message: &str, member: &str, kind: &str) -> Result<InputRequest, ErrorData> {
    wire(inputs::elicit(message, member, kind))
}

async fn confirm(task: TaskContext) -> Result<CallToolResult, TaskExit> {
    let answer = task.request_input("confirm", question("Really?", "confirm", "boolean")?).await?;
    match answer["content"]["confirm"] == true {
        true => said("deleted"),
        false => said("kept"),
    }
}

async fn ask_twice(task: TaskContext) -> Result<CallToolResult, TaskExit> {
    let name = task.request_input("name", question("What is your name?", "name", "string")?);
    let sure = task.request_input("confirm", question("Really?", "confirm", "boolean")?);
    let (name, sure) = futures_util::future::join(name, sure).await;
    name.and(sure)?;
    said("both answers arrived")
}

/// First asks as any tool may, then becomes a task that knows the answer.
fn with_task(
    fixture: &Fixture,
    request: &CallToolRequestParams,
) -> Result<CallToolResponse, ErrorData> {
    let answers = request.input_responses.clone().unwrap_or_default();
    let Some(answer) = answers.get("user_name") else { return inputs::ask_for_name() };
    let name = answer["content"]["name"].as_str().unwrap_or_default().to_owned();
    start(fixture, move |_| Box::pin(async move { said(&format!("Hello, {name}!")) }))
}
