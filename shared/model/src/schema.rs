//! JSON Schemas that upstreams publish: untrusted input, bounded before it is compiled.
//!
//! A schema can be small and still cost an hour, or the process. So its shape is measured first
//! ([`guard`]), it is compiled on a thread with room, patterns have a step limit, and nothing is
//! ever fetched. What a value may cost is bounded too: a value that is too large or too deep for
//! its schema does not fit.

mod guard;

use std::sync::OnceLock;

use bytes::Bytes;
use jsonschema::PatternOptions;
use jsonschema::error::ValidationErrorKind;
use serde_json::Value;

use crate::bounds;
use guard::{Detail, Shape};

/// Violations that one answer lists.
pub const VIOLATIONS_MAX: usize = 10;
/// Longest text about one violation: it may list the words of an enum.
const RULE_CHARS_MAX: usize = 400;
/// Alternatives of which one text says what is wrong.
const ALTERNATIVES_MAX: usize = 5;

/// A compiled schema. Never fetches a `$ref`.
#[derive(Debug)]
pub struct Validator {
    inner: jsonschema::Validator,
    shape: Shape,
}

/// A schema that is compiled when the first value is held against it, and then stays so: of the
/// tools that are configured few are called, and a compiled schema takes fifty times its text.
#[derive(Debug)]
pub struct Schema {
    text: Bytes,
    compiled: OnceLock<Result<Validator, String>>,
}

impl Schema {
    /// Takes a schema whose shape is within bounds; `value` is what `text` says.
    ///
    /// # Errors
    /// A sentence that says which bound it breaks.
    pub(crate) fn new(text: Bytes, value: &Value) -> Result<Self, String> {
        guard::measure(value)?;
        Ok(Self { text, compiled: OnceLock::new() })
    }

    /// What values are held against.
    ///
    /// # Errors
    /// As [`Validator::compile`], each time.
    pub fn validator(&self) -> Result<&Validator, &str> {
        let compiled = self.compiled.get_or_init(|| {
            let value = serde_json::from_slice(&self.text).map_err(|e| format!("is no JSON: {e}"));
            Validator::compile(&value?)
        });
        compiled.as_ref().map_err(String::as_str)
    }
}

/// What is wrong with a value, in a form by which a model can correct itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// JSON pointer into the value.
    pub path: String,
    /// The rule that is broken, without the value itself.
    pub rule: String,
}

impl Validator {
    /// Compiles a schema after checking every bound of [`crate::bounds`]. The default dialect is
    /// 2020-12; an unknown `$schema` is an error. Formats are annotations, as 2020-12 has it.
    ///
    /// # Errors
    /// A sentence that says which bound or rule the schema breaks.
    pub fn compile(schema: &Value) -> Result<Self, String> {
        on_large_stack(|| Self::compile_here(schema))
    }

    /// Compiles a schema on this thread, which must have the stack of [`on_large_stack`].
    fn compile_here(schema: &Value) -> Result<Self, String> {
        let shape = guard::measure(schema)?;
        let patterns = PatternOptions::fancy_regex()
            .backtrack_limit(bounds::SCHEMA_PATTERN_STEPS_MAX)
            .size_limit(bounds::SCHEMA_PATTERN_BYTES_MAX)
            .dfa_size_limit(bounds::SCHEMA_PATTERN_BYTES_MAX);
        let inner = jsonschema::options()
            .offline()
            .should_validate_formats(false)
            .with_pattern_options(patterns)
            .build(schema)
            .map_err(|error| cut(format!("is no valid schema: {}", error.masked())))?;
        Ok(Self { inner, shape })
    }

    /// True when the value fits.
    pub fn is_valid(&self, value: &Value) -> bool {
        self.shape.affords(value).is_ok() && self.inner.is_valid(value)
    }

    /// At most ten violations. Where listing them would take too long, the first, or only that
    /// there is one.
    pub fn violations(&self, value: &Value) -> Vec<Violation> {
        let detail = match self.shape.affords(value) {
            Ok(detail) => detail,
            Err(rule) => return vec![Violation { path: String::new(), rule }],
        };
        if self.inner.is_valid(value) {
            return Vec::new();
        }
        match detail {
            Detail::All => {
                let errors = self.inner.iter_errors(value).take(VIOLATIONS_MAX);
                errors.map(|error| Violation::of(&error)).collect()
            }
            Detail::First => self.inner.validate(value).err().iter().map(Violation::of).collect(),
            Detail::Verdict => {
                let rule = "does not fit its schema, which is too intricate to say more";
                vec![Violation { path: String::new(), rule: rule.to_owned() }]
            }
        }
    }
}

impl Violation {
    fn of(error: &jsonschema::ValidationError<'_>) -> Self {
        let path = cut(error.instance_path().to_string());
        Self { path, rule: cut(masked(error)) }
    }
}

/// What a broken rule demands, without values. Names of members may be said, as in the path: a
/// model that misspelt one could not mend it otherwise.
fn masked(error: &jsonschema::ValidationError<'_>) -> String {
    match error.kind() {
        ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } => {
            alternatives(&error.instance_path().to_string(), context)
        }
        kind => one_masked(kind, error),
    }
}

/// What would do, when there are several ways: a list of words where each is a word, else the first
/// thing that is wrong with each. Alternatives within alternatives are not told apart.
fn alternatives(at: &str, context: &[Vec<jsonschema::ValidationError<'_>>]) -> String {
    let words = |errors: &Vec<jsonschema::ValidationError<'_>>| match errors.first()?.kind() {
        ValidationErrorKind::Constant { expected_value } => Some(vec![expected_value.to_string()]),
        ValidationErrorKind::Enum { options } => {
            Some(options.as_array()?.iter().map(Value::to_string).collect())
        }
        _ => None,
    };
    let all: Option<Vec<Vec<String>>> = context.iter().map(words).collect();
    if let Some(words) = all {
        return format!("must be one of: {}", words.concat().join(", "));
    }
    let first = |errors: &Vec<jsonschema::ValidationError<'_>>| {
        let error = errors.first()?;
        let path = error.instance_path().to_string();
        let below = path.strip_prefix(at).filter(|below| !below.is_empty());
        let text = one_masked(error.kind(), error);
        Some(below.map_or_else(|| text.clone(), |below| format!("{below}: {text}")))
    };
    let shown: Vec<String> = context.iter().take(ALTERNATIVES_MAX).filter_map(first).collect();
    let more = if context.len() > shown.len() { "; ..." } else { "" };
    format!("fits none of the alternatives: {}{more}", shown.join("; "))
}

fn one_masked(kind: &ValidationErrorKind, error: &jsonschema::ValidationError<'_>) -> String {
    match kind {
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            let shown: Vec<&str> = unexpected.iter().take(5).map(String::as_str).collect();
            let more = if unexpected.len() > shown.len() { ", ..." } else { "" };
            format!("has properties that the schema does not name: {}{more}", shown.join(", "))
        }
        ValidationErrorKind::PropertyNames { .. } => {
            "has a property whose name the schema does not allow".to_owned()
        }
        ValidationErrorKind::Referencing(_)
        | ValidationErrorKind::BacktrackLimitExceeded { .. }
        | ValidationErrorKind::RegexEngineFailure { .. }
        | ValidationErrorKind::Custom { .. } => "cannot be checked".to_owned(),
        _ => error.masked().to_string(),
    }
}

fn cut(mut text: String) -> String {
    if let Some((at, _)) = text.char_indices().nth(RULE_CHARS_MAX) {
        text.truncate(at);
        text.push('…');
    }
    text
}

/// Runs work that recurses as deep as its input says on a thread that has room for it.
pub(crate) fn on_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let handle = std::thread::Builder::new()
            .name("compile".to_owned())
            .stack_size(bounds::COMPILE_STACK_BYTES)
            .spawn_scoped(scope, work)
            .expect("a process that may start no thread cannot serve");
        handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
