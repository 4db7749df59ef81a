//! The spans of one call, from its facts and its marks.

use weir_model::audit::{Facts, Outcome};
use weir_runtime::otlp::span::{Span, Status, span::SpanKind, status::StatusCode};
use weir_runtime::otlp::{KeyValue, number, text};

use super::{Mark, Trace};
use crate::mcp::methods;

/// Longest text of a peer in a span.
const PEER_CHARS_MAX: usize = 256;
const ERROR: i32 = StatusCode::Error as i32;

impl Trace {
    /// The server span first, then one per phase that was gone through.
    pub(super) fn spans(&self, facts: &Facts) -> Vec<Span> {
        let mut spans = Vec::with_capacity(5);
        let begin = facts.time_ms.saturating_mul(1_000_000);
        let end = begin + facts.duration_us * 1_000;
        let at = |mark: Mark| {
            let since = self.marks.0[mark as usize]?;
            Some(begin + u64::try_from(since.as_nanos()).ok()?)
        };
        spans.push(self.server_span(facts, (begin, end)));
        let phases = [
            ("authenticate", Mark::Read, Mark::Authenticated),
            ("validate", Mark::Resolved, Mark::Validated),
            ("decide", Mark::Validated, Mark::Decided),
        ];
        for (name, from, to) in phases {
            let Some(from) = at(from) else { continue };
            let over = at(to);
            // A phase that was begun and not finished is the one that refused.
            let refused = over.is_none() && at(later(to)).is_none();
            if over.is_none() && !(refused && matches!(facts.outcome, Outcome::Refused(_))) {
                continue;
            }
            let mut span = self.child(name, (from, over.unwrap_or(end)));
            if refused {
                span.status = Some(Status { code: ERROR, ..Status::default() });
            }
            spans.push(span);
            if refused {
                return spans;
            }
        }
        if let Some(sent) = at(Mark::Sent) {
            let waited = sent + facts.upstream_us * 1_000;
            let over = if self.streamed { end } else { waited.min(end) };
            spans.push(self.upstream_span(facts, (sent, over)));
        }
        spans
    }

    fn bare(&self, name: String, kind: SpanKind, (begin, end): (u64, u64)) -> Span {
        Span {
            trace_id: self.trace.0.to_vec(),
            name,
            kind: kind as i32,
            start_time_unix_nano: begin,
            end_time_unix_nano: end,
            flags: u32::from(self.sampled),
            ..Span::default()
        }
    }

    fn server_span(&self, facts: &Facts, times: (u64, u64)) -> Span {
        let mut span = self.bare(name(facts), SpanKind::Server, times);
        span.span_id = self.server.0.to_vec();
        if let Some(parent) = self.parent {
            span.parent_span_id = parent.span.0.to_vec();
        }
        let attributes = &mut span.attributes;
        common(attributes, facts);
        attributes.push(text("network.transport", "tcp"));
        attributes.push(text("network.protocol.name", "http"));
        attributes.push(text("weir.request_id", &facts.request_id));
        attributes.push(text("weir.region", &self.exporting.region));
        attributes.push(number("weir.revision", i64::try_from(facts.revision.0).unwrap_or(0)));
        let optional = [
            ("mcp.protocol.version", facts.front_revision.as_deref()),
            ("client.address", facts.peer.as_deref()),
            ("weir.group", facts.group.as_ref().map(AsRef::as_ref)),
        ];
        let known = optional.iter().filter_map(|(key, value)| Some(text(key, value.as_ref()?)));
        attributes.extend(known);
        failed(&mut span, facts);
        span
    }

    fn upstream_span(&self, facts: &Facts, times: (u64, u64)) -> Span {
        let mut span = self.bare(name(facts), SpanKind::Client, times);
        span.span_id = self.upstream.0.to_vec();
        span.parent_span_id = self.server.0.to_vec();
        common(&mut span.attributes, facts);
        let optional = [
            ("mcp.protocol.version", facts.back_revision.as_deref()),
            ("weir.version", facts.version.as_ref().map(AsRef::as_ref)),
        ];
        let known = optional.iter().filter_map(|(key, value)| Some(text(key, value.as_ref()?)));
        span.attributes.extend(known);
        failed(&mut span, facts);
        span
    }

    fn child(&self, phase: &str, times: (u64, u64)) -> Span {
        let mut span = self.bare(format!("weir.{phase}"), SpanKind::Internal, times);
        let mut id = self.server.0;
        // The name's bytes keep the phases' ids apart.
        for (byte, letter) in id.iter_mut().zip(phase.bytes()) {
            *byte ^= letter;
        }
        span.span_id = id.to_vec();
        span.parent_span_id = self.server.0.to_vec();
        span
    }
}

/// The mark after which a phase cannot have been the last one.
fn later(mark: Mark) -> Mark {
    match mark {
        Mark::Authenticated => Mark::Resolved,
        Mark::Validated => Mark::Decided,
        _ => Mark::Sent,
    }
}

/// `tools/call weather`: the method, and the target where it is one of few.
fn name(facts: &Facts) -> String {
    let method = facts.method.as_deref().and_then(methods::find).map_or("other", |m| m.name);
    match (method, &facts.target, &facts.version) {
        // Only what was found in the configuration: nothing that a peer could make up.
        ("tools/call" | "prompts/get", Some(target), Some(_)) => format!("{method} {target}"),
        _ => method.to_owned(),
    }
}

fn common(attributes: &mut Vec<KeyValue>, facts: &Facts) {
    let method = facts.method.as_deref().unwrap_or_default();
    attributes.push(text("mcp.method.name", &cut(method)));
    if let Some(server) = &facts.server {
        attributes.push(text("weir.server", server.as_ref()));
    }
    // A target that was not found is the peer's own text, perhaps a secret in the wrong place.
    let Some(target) = facts.target.as_ref().filter(|_| facts.version.is_some()) else { return };
    match method {
        "tools/call" => {
            attributes.push(text("gen_ai.operation.name", "execute_tool"));
            attributes.push(text("gen_ai.tool.name", &cut(target)));
        }
        "prompts/get" => attributes.push(text("gen_ai.prompt.name", &cut(target))),
        _ => attributes.push(text("mcp.resource.uri", &cut(&without_secrets(target)))),
    }
}

fn failed(span: &mut Span, facts: &Facts) {
    let (kind, code) = match facts.outcome {
        Outcome::Success => return,
        Outcome::ToolError => ("tool_error".to_owned(), None),
        Outcome::ProtocolError(code) => (code.to_string(), Some(code)),
        Outcome::Refused(reason) => (reason.label().to_owned(), Some(i64::from(reason.code()))),
        Outcome::Aborted => ("aborted".to_owned(), None),
        Outcome::Unknown => ("unknown".to_owned(), None),
    };
    span.attributes.push(text("error.type", &kind));
    if let Some(code) = code {
        span.attributes.push(text("rpc.response.status_code", &code.to_string()));
    }
    span.status = Some(Status { code: ERROR, ..Status::default() });
}

/// A URI without its user and what stands behind `?`, which may be secrets.
pub(super) fn without_secrets(uri: &str) -> String {
    let uri = uri.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = uri.split_once("://") else { return uri.to_owned() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}

fn cut(peer: &str) -> String {
    peer.chars().take(PEER_CHARS_MAX).collect()
}
