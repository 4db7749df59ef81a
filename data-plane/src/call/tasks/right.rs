//! The right to a task is the right to call the tool that made it, today.
//!
//! Rules may have changed since the task began: what they deny now, or what is no longer pinned,
//! is told as an unknown task, its result with it. A task whose tool is not known is held against
//! every tool that could have made it. What a task came to is held against the tool's output
//! schema like the result of a plain call.

use bytes::Bytes;
use weir_model::id::Name;
use weir_model::policy::Action;
use weir_model::reason::Refusal;
use weir_model::snapshot::{CatalogView, Hints, ToolView};

use crate::call::authorize::Denial;
use crate::call::sight::Sight;
use crate::call::validate::{self, Verdict};
use crate::mcp::envelope::utf8;
use crate::mcp::members::{self, Members};
use crate::mcp::methods::Method;

/// Checks that the caller may have a task of `server`; `tool` made it, where that is known.
///
/// # Errors
/// The [`Denial`]; none where the tool, or what could be it, is not there any more.
pub fn check(
    sight: &Sight,
    (server, catalog): (&Name, Option<&CatalogView>),
    tool: Option<&str>,
) -> Result<(), Option<Denial>> {
    let one = |name: &str, hints: Hints| {
        sight
            .decide(server, Action::CallTool, (name, hints), None)
            .and_then(|permit| permit.approved(hints))
            .map(drop)
            .map_err(Some)
    };
    match (tool, catalog) {
        (Some(name), Some(catalog)) => one(name, catalog.tool(name).ok_or(None)?.hints),
        (Some(name), None) => one(name, Hints::default()),
        (None, Some(catalog)) => {
            let declared = catalog.tools.iter().any(|tool| makes_tasks(tool));
            let could = catalog.tools.iter().filter(|tool| !declared || makes_tasks(tool));
            could.into_iter().try_for_each(|tool| one(&tool.name, tool.hints))
        }
        (None, None) => Err(None),
    }
}

/// True for a tool of 2025-11-25 that says that it can be run as a task. Stateless servers
/// decide that call by call.
pub fn makes_tasks(tool: &ToolView) -> bool {
    support(tool).is_some_and(|support| support != "forbidden")
}

/// True for a tool of 2025-11-25 that runs as a task and in no other way.
pub fn only_as_task(tool: &ToolView) -> bool {
    support(tool).as_deref() == Some("required")
}

/// `execution.taskSupport` of a definition.
fn support(tool: &ToolView) -> Option<String> {
    let text = std::str::from_utf8(&tool.raw).ok().filter(|text| text.contains("taskSupport"))?;
    let members = Members::parse(text).ok()?;
    let execution = members.get("execution").filter(|raw| members::is_object(raw))?;
    Members::parse(execution.get()).ok()?.text("taskSupport").map(|text| text.into_owned())
}

/// Holds the result that an answer about a task brings against the schema of its tool; an answer
/// that brings none passes.
///
/// # Errors
/// See [`validate::result`].
pub fn result(tool: Option<&ToolView>, method: &Method, raw: &Bytes) -> Result<Verdict, Refusal> {
    match method.name {
        "tasks/result" => validate::result(tool, raw),
        "tasks/get" => {
            inside(tool, utf8(raw))?;
            Ok(Verdict { tool_error: false })
        }
        _ => Ok(Verdict { tool_error: false }),
    }
}

/// The same for a task that holds its `result`, as those of the extension do.
///
/// # Errors
/// See [`validate::result`].
pub fn inside(tool: Option<&ToolView>, task: &str) -> Result<(), Refusal> {
    if !task.contains("\"result\"") {
        return Ok(());
    }
    let members = Members::parse(task).map_err(Refusal::from)?;
    match members.get("result") {
        Some(made) => {
            validate::result(tool, &Bytes::copy_from_slice(made.get().as_bytes())).map(drop)
        }
        None => Ok(()),
    }
}
