//! Traces of calls: which are recorded, and what their spans say.
//!
//! A call notes when each phase was over; spans are made from that once, at its end, and only for
//! calls that are recorded. So a call that is not costs a few clock readings, and how it ended can
//! decide whether it is (a rule for refusals, for slow calls). The server gets our span as its
//! parent either way, so that its own sampling can follow ours.
//!
//! Names and attributes follow the semantic conventions for MCP and generative AI.

mod shape;

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use weir_model::audit::{Facts, Outcome};
use weir_model::id::Name;
use weir_runtime::otlp::Spans;
use weir_runtime::traceparent::{SpanId, TraceId, TraceParent};

/// Which calls are recorded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sampling {
    /// Share of the traces that begin here, from 0 to 1.
    pub share: f64,
    /// Whether a caller that records its trace is followed, whatever the share is.
    pub follow_caller: bool,
    /// Exceptions; the first that fits a call counts.
    pub rules: Vec<Rule>,
}

/// Calls of a kind, and the share of them that is recorded. What is not named fits any call.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rule {
    /// Of this group.
    pub group: Option<Name>,
    /// To this server.
    pub server: Option<Name>,
    /// With this JSON-RPC method.
    pub method: Option<String>,
    /// That ended so. Known at the end only, so the server's spans may be missing.
    pub outcome: Option<Ended>,
    /// That took at least so long. Known at the end only.
    pub slower_than_ms: Option<u64>,
    /// From 0 to 1.
    pub share: f64,
}

/// How a call ended, as rules speak of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// With anything but a result: the next three.
    Failed,
    /// The gateway refused it.
    Refused,
    /// The tool said `isError`.
    ToolError,
    /// The server answered with a JSON-RPC error.
    ProtocolError,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { share: 0.01, follow_caller: true, rules: Vec::new() }
    }
}

impl Sampling {
    /// What is wrong with it, as `(field, what to do)`.
    pub fn problems(&self) -> Vec<(&'static str, &'static str)> {
        let share = |share: f64| (0.0..=1.0).contains(&share);
        let mut bad = Vec::new();
        if !share(self.share) {
            bad.push(("telemetry.traces.share", "from 0 to 1"));
        }
        if !self.rules.iter().all(|rule| share(rule.share)) {
            bad.push(("telemetry.traces.rules", "each `share` is from 0 to 1"));
        }
        if self.rules.len() > RULES_MAX {
            bad.push(("telemetry.traces.rules", "at most 64"));
        }
        bad
    }

    /// Whether the server is told that this trace is recorded.
    fn early(&self, trace: TraceId, parent: Option<TraceParent>, facts: &Facts) -> bool {
        let known = |rule: &&Rule| rule.outcome.is_none() && rule.slower_than_ms.is_none();
        match self.rules.iter().filter(known).find(|rule| rule.fits(facts)) {
            Some(rule) => chosen(trace, rule.share),
            None if self.follow_caller && parent.is_some_and(|parent| parent.sampled) => true,
            None => chosen(trace, self.share),
        }
    }

    /// Whether a call that was not chosen early is, now that its end is known.
    fn late(&self, trace: TraceId, facts: &Facts) -> bool {
        let known = |rule: &&Rule| rule.outcome.is_some() || rule.slower_than_ms.is_some();
        let rule = self.rules.iter().filter(known).find(|rule| rule.fits(facts));
        rule.is_some_and(|rule| chosen(trace, rule.share))
    }
}

/// Rules at most: each call looks at them.
const RULES_MAX: usize = 64;

impl Rule {
    fn fits(&self, facts: &Facts) -> bool {
        let group = self.group.is_none() || self.group == facts.group;
        let server = self.server.is_none() || self.server == facts.server;
        let method = self.method.is_none() || self.method == facts.method;
        let slow = self.slower_than_ms.is_none_or(|ms| facts.duration_us / 1_000 >= ms);
        let outcome = self.outcome.is_none_or(|ended| match (ended, facts.outcome) {
            (Ended::Refused | Ended::Failed, Outcome::Refused(_))
            | (Ended::ToolError | Ended::Failed, Outcome::ToolError)
            | (Ended::ProtocolError | Ended::Failed, Outcome::ProtocolError(_)) => true,
            (_, _) => false,
        });
        group && server && method && slow && outcome
    }
}

/// The same answer for the same trace on every proxy: by the random part of its id.
#[allow(clippy::cast_precision_loss)] // 53 of 56 bits are enough
fn chosen(trace: TraceId, share: f64) -> bool {
    let mut low = [0; 8];
    low[1..].copy_from_slice(&trace.0[9..]);
    (u64::from_be_bytes(low) as f64) < share * (1_u64 << 56) as f64
}

/// Records traces; does nothing at all without an exporter.
#[derive(Debug, Clone, Default)]
pub struct Traces {
    exporting: Option<std::sync::Arc<Exporting>>,
}

#[derive(Debug)]
struct Exporting {
    spans: Spans,
    sampling: Sampling,
    region: String,
}

impl Traces {
    /// Records by these rules.
    pub fn new(spans: Spans, sampling: Sampling, region: String) -> Self {
        Self { exporting: Some(std::sync::Arc::new(Exporting { spans, sampling, region })) }
    }

    /// The trace of a call that has arrived; `random` names it when the caller did not.
    pub fn begin(&self, random: [u8; 16]) -> Option<Box<Trace>> {
        let exporting = self.exporting.clone()?;
        let halves = random.split_at(8);
        Some(Box::new(Trace {
            exporting,
            parent: None,
            trace: TraceId(random),
            // Span ids only need to differ within the trace.
            server: span_id(halves.0, 1),
            upstream: span_id(halves.1, 2),
            sampled: false,
            marks: Marks::default(),
            streamed: false,
        }))
    }
}

/// A span id out of random bytes, other than the bytes themselves.
fn span_id(random: &[u8], salt: u8) -> SpanId {
    let mut id = [0; 8];
    id.copy_from_slice(random);
    id[0] = id[0].rotate_left(3) ^ 0x5a;
    id[7] = (id[7] ^ salt) | 1; // never all zero
    SpanId(id)
}

/// When the phases of a call were over, since it arrived.
#[derive(Debug, Clone, Copy, Default)]
struct Marks([Option<Duration>; 6]);

/// The end of a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// The body was read.
    Read,
    /// The caller is known.
    Authenticated,
    /// The target is known.
    Resolved,
    /// The arguments fit.
    Validated,
    /// The call is allowed.
    Decided,
    /// Capacity and credentials are there; the server's turn begins.
    Sent,
}

/// The trace of one call.
#[derive(Debug)]
pub struct Trace {
    exporting: std::sync::Arc<Exporting>,
    parent: Option<TraceParent>,
    trace: TraceId,
    server: SpanId,
    upstream: SpanId,
    sampled: bool,
    marks: Marks,
    streamed: bool,
}

impl Trace {
    /// Continues the caller's trace, when it has one.
    pub fn under(&mut self, parent: Option<TraceParent>) {
        if let Some(parent) = parent {
            self.trace = parent.trace;
        }
        self.parent = parent;
    }

    /// The trace's id, for records and logs.
    pub fn id(&self) -> TraceId {
        self.trace
    }

    /// A phase is over.
    pub fn mark(&mut self, mark: Mark, started: Instant) {
        self.marks.0[mark as usize] = Some(started.elapsed());
    }

    /// The answer comes bit by bit: the server's turn lasts as long as it does.
    pub fn streams(&mut self) {
        self.streamed = true;
    }

    /// What the server gets as its parent.
    pub fn outgoing(&mut self, facts: &Facts) -> TraceParent {
        self.sampled = self.exporting.sampling.early(self.trace, self.parent, facts);
        TraceParent { trace: self.trace, span: self.upstream, sampled: self.sampled }
    }

    /// Hands the spans in, when this call is recorded.
    pub fn ended(&self, facts: &Facts) {
        let sampling = &self.exporting.sampling;
        // A call that never got to a server was not asked about early.
        let recorded = self.sampled
            || (self.marks.0[Mark::Sent as usize].is_none()
                && sampling.early(self.trace, self.parent, facts))
            || sampling.late(self.trace, facts);
        if recorded {
            self.exporting.spans.send(self.spans(facts));
        }
    }
}

#[cfg(test)]
mod tests;
