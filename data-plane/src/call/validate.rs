//! Phase 4: the arguments of a tool against its registered schema, those of a prompt against what
//! it declares, before the call leaves; and a tool's result before it comes back.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use weir_model::reason::{Reason, Refusal};
use weir_model::schema::{Schema, VIOLATIONS_MAX, Validator, Violation};
use weir_model::snapshot::{PlainView, PromptArgument, ToolView};
use weir_runtime::task::on_payload;

use super::inbound::Call;
use super::resolve::{Errand, Upstream};
use crate::mcp::envelope::utf8;
use crate::mcp::headers;
use crate::mcp::members::{self, Members};
use crate::mcp::methods::Kind;

/// Arguments that fit their schema, parsed once.
#[derive(Debug)]
pub struct Arguments(pub Option<Value>);

/// Checks the arguments of a tool call or a prompt; other calls have none.
///
/// # Errors
/// [`Reason::InvalidArguments`] (of a prompt [`Reason::InvalidParams`]) with every path and rule that is
/// broken, [`Reason::DuplicateKey`], [`Reason::HeaderMismatch`], [`Reason::Quarantined`] when the
/// schema itself cannot be used.
pub fn arguments(call: &Call<'_>, target: &Upstream, modern: bool) -> Result<Arguments, Refusal> {
    let Some(params) = call.message().and_then(|message| message.params()) else {
        return Ok(Arguments(None));
    };
    let kind = match &target.errand {
        Errand::Request(method) => method.kind,
        _ => return Ok(Arguments(None)),
    };
    // Left out they are none, which rules can read; only what has no arguments leaves them open.
    if !matches!(kind, Kind::CallTool | Kind::GetPrompt) {
        return Ok(Arguments(None));
    }
    let raw = params.arguments.as_deref().map_or("{}", utf8);
    on_payload(raw.len(), || checked(call, target, (kind, raw), modern))
}

fn checked(
    call: &Call<'_>,
    target: &Upstream,
    (kind, raw): (Kind, &str),
    modern: bool,
) -> Result<Arguments, Refusal> {
    let value = members::strict_value(raw).map_err(Refusal::from)?;
    if kind == Kind::GetPrompt {
        let catalog = target.version.catalog.as_deref();
        let prompt = catalog.zip(target.name.as_deref()).and_then(|(c, name)| c.prompt(name));
        check_prompt(target.name.as_deref().unwrap_or_default(), prompt, &value)?;
        return Ok(Arguments(Some(value)));
    }
    if let Some(tool) = &target.tool {
        let validator = usable(tool, &tool.input)?;
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

/// Arguments of a prompt are strings, those that are required are there, and where the definition
/// names some there are no others.
fn check_prompt(name: &str, prompt: Option<&Arc<PlainView>>, value: &Value) -> Result<(), Refusal> {
    let Value::Object(given) = value else {
        return Err(Refusal::new(Reason::InvalidParams, "arguments"));
    };
    let declared = prompt.and_then(|prompt| prompt.arguments.as_deref());
    let found = broken(given, declared);
    if found.is_empty() {
        return Ok(());
    }
    let text = listed(format!("The arguments do not fit the prompt {name}:"), &found);
    let told: Vec<Value> =
        found.iter().map(|one| json!({ "path": one.path, "rule": one.rule })).collect();
    Err(Refusal::new(Reason::InvalidParams, format!("{} violations of a prompt", found.len()))
        .hint(text)
        .data(json!({ "violations": told })))
}

/// Longest name of an argument that an answer repeats.
const NAME_CHARS_MAX: usize = 100;

/// At most [`VIOLATIONS_MAX`].
fn broken(
    given: &serde_json::Map<String, Value>,
    declared: Option<&[PromptArgument]>,
) -> Vec<Violation> {
    let all = declared.unwrap_or_default();
    let at = |name: &str, rule: &str| {
        let name: String = name.chars().take(NAME_CHARS_MAX).collect();
        let name = name.replace('~', "~0").replace('/', "~1");
        Violation { path: format!("/{name}"), rule: rule.to_owned() }
    };
    let missing = all
        .iter()
        .filter(|argument| argument.required && !given.contains_key(&argument.name))
        .map(|argument| at(&argument.name, "is required"));
    let knows =
        |name: &str| all.binary_search_by(|argument| argument.name.as_str().cmp(name)).is_ok();
    let wrong = given.iter().filter_map(|(name, value)| match value {
        _ if declared.is_some() && !knows(name) => {
            let known: Vec<&str> = all.iter().take(20).map(|a| a.name.as_str()).collect();
            let rule = match known.is_empty() {
                true => "is not taken: the prompt has no arguments".to_owned(),
                false => format!("is not taken; the prompt has: {}", known.join(", ")),
            };
            Some(at(name, &rule))
        }
        Value::String(_) => None,
        _ => Some(at(name, "must be a string")),
    });
    missing.chain(wrong).take(VIOLATIONS_MAX).collect()
}

/// What values are held against, when the schema can be used.
fn usable<'s>(
    tool: &ToolView,
    schema: &'s Result<Arc<Schema>, String>,
) -> Result<&'s Validator, Refusal> {
    let validator = schema.as_ref().map_err(String::as_str).and_then(|schema| schema.validator());
    validator
        .map_err(|why| Refusal::new(Reason::Quarantined, format!("schema of {}: {why}", tool.name)))
}

/// In words by which a model can correct itself.
fn invalid(tool: &ToolView, violations: &[Violation]) -> Refusal {
    let head = format!("The arguments do not fit the input schema of {}:", tool.name);
    let text = listed(head, violations);
    Refusal::new(Reason::InvalidArguments, format!("{} violations", violations.len())).hint(text)
}

fn listed(mut text: String, violations: &[Violation]) -> String {
    for violation in violations {
        let path = if violation.path.is_empty() { "/" } else { &violation.path };
        text.push_str(&format!("\n- {path}: {}", violation.rule));
    }
    text
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
    // A task is no result yet.
    let task = members.get("content").is_none() && members.get("task").is_some();
    let complete = !task && members.text("resultType").is_none_or(|kind| kind == "complete");
    if let (Some((tool, output)), false, true) = (output, tool_error, complete) {
        let validator = usable(tool, output)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(list: &[(&str, bool)]) -> Vec<PromptArgument> {
        let one = |(name, required): &(&str, bool)| PromptArgument {
            name: (*name).to_owned(),
            required: *required,
        };
        let mut all: Vec<_> = list.iter().map(one).collect();
        all.sort();
        all
    }

    #[test]
    fn a_prompt_gets_the_strings_that_it_declares() {
        let two = declared(&[("topic", true), ("a/b", false)]);
        let all = "is not taken; the prompt has: a/b, topic";
        // what is declared, what is given, which paths break which rules
        type Row<'a> = (Option<&'a [PromptArgument]>, Value, Vec<(&'a str, &'a str)>);
        let table: Vec<Row<'_>> = vec![
            (Some(&two), json!({"topic": "x"}), vec![]),
            (Some(&two), json!({"topic": "x", "a/b": ""}), vec![]),
            (Some(&two), json!({}), vec![("/topic", "is required")]),
            (Some(&two), json!({"topic": 1}), vec![("/topic", "must be a string")]),
            (Some(&two), json!({"topic": null}), vec![("/topic", "must be a string")]),
            (Some(&two), json!({"topic": "x", "a/b": {}}), vec![("/a~1b", "must be a string")]),
            (Some(&two), json!({"Topic": "x"}), vec![("/topic", "is required"), ("/Topic", all)]),
            (
                Some(&[]),
                json!({"x": "y"}),
                vec![("/x", "is not taken: the prompt has no arguments")],
            ),
            (Some(&[]), json!({}), vec![]),
            (None, json!({"x": "y"}), vec![]),
            (None, json!({"x": true}), vec![("/x", "must be a string")]),
        ];
        for (declared, given, expected) in table {
            let found = broken(given.as_object().unwrap(), declared);
            let got: Vec<_> = found.iter().map(|v| (v.path.as_str(), v.rule.as_str())).collect();
            assert_eq!(got, expected, "{given}");
        }
        let many = (0..1_000).map(|n| (format!("p{n}"), json!(n))).collect();
        assert_eq!(broken(&many, Some(&two)).len(), VIOLATIONS_MAX);
    }
}
