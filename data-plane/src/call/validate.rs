//! Phase 4: the arguments of a tool against its registered schema, before the call leaves, and
//! its result before it comes back.

use bytes::Bytes;
use serde_json::Value;
use weir_model::reason::{Reason, Refusal};
use weir_model::snapshot::ToolView;

use super::inbound::Call;
use super::resolve::{Errand, Upstream};
use crate::mcp::envelope::utf8;
use crate::mcp::headers;
use crate::mcp::members::{self, Members};
use crate::mcp::methods::Kind;

/// Arguments that fit their schema, parsed once.
#[derive(Debug)]
pub struct Arguments(pub Option<Value>);

/// Checks the arguments of a tool call; other calls have none that a schema describes.
///
/// # Errors
/// [`Reason::InvalidArguments`] with every path and rule that is broken, [`Reason::DuplicateKey`],
/// [`Reason::HeaderMismatch`], [`Reason::Quarantined`] when the schema itself cannot be used.
pub fn arguments(call: &Call<'_>, target: &Upstream, modern: bool) -> Result<Arguments, Refusal> {
    let Some(params) = call.message().and_then(|message| message.params()) else {
        return Ok(Arguments(None));
    };
    if !matches!(&target.errand, Errand::Request(method) if method.kind == Kind::CallTool) {
        let prompt = params.arguments.as_ref().map(|raw| members::strict_value(utf8(raw)));
        return Ok(Arguments(prompt.transpose().map_err(Refusal::from)?));
    }
    let raw = params.arguments.as_deref().map_or("{}", utf8);
    let value = members::strict_value(raw).map_err(Refusal::from)?;
    if let Some(tool) = &target.tool {
        let validator = tool.input.as_ref().map_err(|why| unusable(tool, why))?;
        if !validator.is_valid(&value) {
            return Err(invalid(tool, &validator.violations(&value)));
        }
        // Verbs come without mirrors: the gateway makes those that a server needs.
        let mirrors = modern && call.verb.is_none();
        if let (true, Ok(declared)) = (mirrors, &tool.param_headers) {
            headers::check_params(call.headers, declared, &value)?;
        }
    }
    Ok(Arguments(Some(value)))
}

fn unusable(tool: &ToolView, why: &str) -> Refusal {
    Refusal::new(Reason::Quarantined, format!("schema of {}: {why}", tool.name))
}

/// In words by which a model can correct itself.
fn invalid(tool: &ToolView, violations: &[weir_model::schema::Violation]) -> Refusal {
    let mut text = format!("The arguments do not fit the input schema of {}:", tool.name);
    for violation in violations {
        let path = if violation.path.is_empty() { "/" } else { &violation.path };
        text.push_str(&format!("\n- {path}: {}", violation.rule));
    }
    Refusal::new(Reason::InvalidArguments, format!("{} violations", violations.len())).hint(text)
}

/// What the result of a call says, as far as we have to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// The tool ran and failed.
    pub tool_error: bool,
}

/// Checks the result of a tool call against the tool's output schema.
///
/// # Errors
/// [`Reason::InvalidResult`], [`Reason::Quarantined`] when the schema cannot be used.
pub fn result(tool: Option<&ToolView>, raw: &Bytes) -> Result<Verdict, Refusal> {
    let broken = |_| Refusal::new(Reason::UpstreamProtocol, "the result is no object");
    let text = std::str::from_utf8(raw)
        .map_err(|_| Refusal::new(Reason::UpstreamProtocol, "the result is not UTF-8"))?;
    let output = tool.and_then(|tool| tool.output.as_ref().map(|output| (tool, output)));
    if output.is_none() && !text.contains("\"isError\"") {
        return Ok(Verdict { tool_error: false });
    }
    let members = Members::parse(text).map_err(broken)?;
    let tool_error = members.get("isError").is_some_and(|raw| raw.get() == "true");
    let complete = members.text("resultType").is_none_or(|kind| kind == "complete");
    if let (Some((tool, output)), false, true) = (output, tool_error, complete) {
        let validator = output.as_ref().map_err(|why| unusable(tool, why))?;
        let content = members.get("structuredContent").ok_or_else(|| {
            Refusal::new(Reason::InvalidResult, format!("{}: no structuredContent", tool.name))
        })?;
        let value = members::strict_value(content.get())
            .map_err(|_| Refusal::new(Reason::UpstreamProtocol, "structuredContent"))?;
        if !validator.is_valid(&value) {
            let first = validator.violations(&value).into_iter().next();
            let detail = first.map_or_else(String::new, |v| format!("{}: {}", v.path, v.rule));
            let detail = format!("{}: {detail}", tool.name);
            return Err(Refusal::new(Reason::InvalidResult, detail));
        }
    }
    Ok(Verdict { tool_error })
}
