use weir_model::reason::Reason;
use weir_runtime::otlp::span::{Span, span::SpanKind};
use weir_runtime::otlp::text;

use super::*;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn facts(outcome: Outcome) -> Facts {
    Facts {
        request_id: "r1".into(),
        time_ms: 1_000,
        duration_us: 5_000,
        upstream_us: 3_000,
        group: "prod".parse().ok(),
        server: "weather".parse().ok(),
        version: "v1".parse().ok(),
        method: Some("tools/call".into()),
        target: Some("forecast".into()),
        front_revision: Some("2025-11-25".into()),
        back_revision: Some("2025-06-18".into()),
        outcome,
        ..Facts::default()
    }
}

fn traces(sampling: Sampling) -> (Traces, tokio::sync::mpsc::Receiver<Vec<Span>>) {
    let (spans, waiting) = Spans::to_test(8);
    (Traces::new(spans, sampling, "eu".into()), waiting)
}

/// A call that went through everything.
fn whole(trace: &mut Trace) {
    let started = Instant::now();
    let marks = [Mark::Read, Mark::Authenticated, Mark::Resolved, Mark::Validated, Mark::Decided];
    for mark in marks.into_iter().chain([Mark::Sent]) {
        trace.mark(mark, started);
    }
}

fn sampling(share: f64, rules: Vec<Rule>) -> Sampling {
    Sampling { share, rules, follow_caller: true }
}

#[test]
fn a_call_is_one_trace_from_the_caller_to_the_server() {
    let (traces, mut got) = traces(sampling(0.0, vec![]));
    let mut trace = traces.begin([7; 16]).unwrap();
    let parent = TraceParent::parse(PARENT).unwrap();
    trace.under(Some(parent));
    whole(&mut trace);
    let facts = facts(Outcome::ToolError);
    let outgoing = trace.outgoing(&facts);
    trace.ended(&facts);
    let spans = got.try_recv().unwrap();
    let names: Vec<_> = spans.iter().map(|span| span.name.as_str()).collect();
    let phases = ["weir.authenticate", "weir.validate", "weir.decide"];
    assert_eq!(names[0], "tools/call forecast");
    assert_eq!(names[1..4], phases);
    assert_eq!(names[4], "tools/call forecast");
    let server = &spans[0];
    assert_eq!(server.parent_span_id, parent.span.0);
    assert_eq!(server.kind, SpanKind::Server as i32);
    assert_eq!(server.end_time_unix_nano - server.start_time_unix_nano, 5_000_000);
    for attribute in [
        text("mcp.method.name", "tools/call"),
        text("gen_ai.tool.name", "forecast"),
        text("mcp.protocol.version", "2025-11-25"),
        text("error.type", "tool_error"),
    ] {
        assert!(server.attributes.contains(&attribute), "{attribute:?}");
    }
    let ids: std::collections::BTreeSet<_> = spans.iter().map(|s| s.span_id.clone()).collect();
    assert_eq!(ids.len(), spans.len());
    for child in &spans[1..] {
        assert_eq!(child.parent_span_id, server.span_id);
    }
    assert!(spans.iter().all(|span| span.trace_id == parent.trace.0));
    let upstream = &spans[4];
    assert_eq!(upstream.kind, SpanKind::Client as i32);
    assert_eq!(upstream.span_id, outgoing.span.0);
    assert!(upstream.attributes.contains(&text("mcp.protocol.version", "2025-06-18")));
    assert!(outgoing.sampled && outgoing.trace == parent.trace);
}

#[test]
fn rules_decide_early_what_can_be_known_and_late_what_cannot() {
    let quiet = TraceParent { sampled: false, ..TraceParent::parse(PARENT).unwrap() };
    let rule = |change: fn(&mut Rule)| {
        let mut rule = Rule { share: 1.0, ..Rule::default() };
        change(&mut rule);
        rule
    };
    let loud = TraceParent::parse(PARENT).unwrap();
    let none = || vec![Rule { method: Some("tools/call".into()), ..Rule::default() }];
    let refused = Outcome::Refused(Reason::Denied);
    // Sampling, the caller's parent, the end, told to the server, recorded.
    let table = [
        (sampling(0.0, vec![]), quiet, Outcome::Success, false, false),
        (sampling(1.0, vec![]), quiet, Outcome::Success, true, true),
        (sampling(0.0, vec![]), loud, Outcome::Success, true, true),
        (sampling(1.0, none()), loud, Outcome::Success, false, false),
        (sampling(0.0, vec![rule(|r| r.group = "prod".parse().ok())]), quiet, refused, true, true),
        (sampling(0.0, vec![rule(|r| r.server = "no".parse().ok())]), quiet, refused, false, false),
        (
            sampling(0.0, vec![rule(|r| r.outcome = Some(Ended::Failed))]),
            quiet,
            refused,
            false,
            true,
        ),
        (
            sampling(0.0, vec![rule(|r| r.outcome = Some(Ended::ToolError))]),
            quiet,
            refused,
            false,
            false,
        ),
        (
            sampling(0.0, vec![rule(|r| r.slower_than_ms = Some(5))]),
            quiet,
            Outcome::Success,
            false,
            true,
        ),
        (
            sampling(0.0, vec![rule(|r| r.slower_than_ms = Some(6))]),
            quiet,
            Outcome::Success,
            false,
            false,
        ),
    ];
    for (row, (sampling, parent, outcome, told, recorded)) in table.into_iter().enumerate() {
        let (traces, mut got) = traces(sampling);
        let mut trace = traces.begin([9; 16]).unwrap();
        trace.under(Some(parent));
        whole(&mut trace);
        let facts = facts(outcome);
        assert_eq!(trace.outgoing(&facts).sampled, told, "row {row}");
        trace.ended(&facts);
        assert_eq!(got.try_recv().is_ok(), recorded, "row {row}");
    }
}

#[test]
fn the_phase_that_refused_is_marked() {
    let (traces, mut got) = traces(sampling(1.0, vec![]));
    let mut trace = traces.begin([9; 16]).unwrap();
    for mark in [Mark::Read, Mark::Authenticated, Mark::Resolved, Mark::Validated] {
        trace.mark(mark, Instant::now());
    }
    trace.ended(&facts(Outcome::Refused(Reason::Denied)));
    let spans = got.try_recv().unwrap();
    let last = spans.last().unwrap();
    assert_eq!(last.name, "weir.decide");
    assert!(last.status.is_some());
    assert!(spans[0].attributes.contains(&text("error.type", Reason::Denied.label())));
    assert!(spans.iter().all(|span| span.kind != SpanKind::Client as i32));
}

#[test]
fn shares_are_kept_and_agree_between_proxies() {
    let trace = |n: u64| {
        let mut id = [0; 16];
        id[8..].copy_from_slice(&(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_be_bytes());
        TraceId(id)
    };
    let hits = (1..=10_000).filter(|n| chosen(trace(*n), 0.25)).count();
    assert!((2_300..2_700).contains(&hits), "{hits}");
    assert!((1..100).all(|n| chosen(trace(n), 1.0) && !chosen(trace(n), 0.0)));
}

#[test]
fn without_a_collector_there_is_no_trace() {
    assert!(Traces::default().begin([1; 16]).is_none());
}

#[test]
fn uris_are_told_without_what_may_be_secret() {
    for (uri, told) in [
        ("files://t/a", "files://t/a"),
        ("files://me:pw@t/a?sig=1#x", "files://t/a"),
        ("files://t/a@b", "files://t/a@b"),
        ("urn:a?b", "urn:a"),
    ] {
        assert_eq!(shape::without_secrets(uri), told);
    }
}
