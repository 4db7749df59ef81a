//! What it costs to render one record: that of a tool call by somebody with a JWT.
//!
//! `cargo bench -p weir-audit --no-default-features --bench render [ROUNDS]`: wall time of the
//! fastest of ROUNDS (100) rounds of 2,000 records on one thread, in nanoseconds a record. One
//! round for tools that count instructions.

// A program for people: it says what it measured.
#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::io::Write as _;
use std::time::Instant;

use weir_audit::record::Renderer;
use weir_model::audit::{Facts, Judged, Outcome};
use weir_model::id::{Digest, Revision};
use weir_model::principal::Proof;
use weir_model::resource::AuditClass;

const RECORDS: u64 = 2_000;
const ROUNDS: u32 = 100;

/// As the proxy fills them.
fn facts() -> Facts {
    Facts {
        class: AuditClass::Durable,
        request_id: "4bf92f3577b34da6a3ce929d0e0e4736".into(),
        trace_id: Some("0af7651916cd43dd8448eb211c80319c".into()),
        time_ms: 1_790_000_123_456,
        duration_us: 12_345,
        upstream_us: 11_000,
        region: "eu".into(),
        peer: Some("192.0.2.7".into()),
        group: Some("payments".parse().unwrap()),
        revision: Revision(42),
        principal: Some("jwt:okta:alice".into()),
        proof: Some(Proof::Jwt),
        credential: Some("claude-desktop".into()),
        token: Some("b6fd2d0c-3f5e-4f0e-9d5d-0a3c1be1a2f4".into()),
        client: Some("claude-code 2.1.0".into()),
        front_revision: Some("2026-07-28".into()),
        back_revision: Some("2025-11-25".into()),
        method: Some("tools/call".into()),
        server: Some("billing".parse().unwrap()),
        version: Some("v2".parse().unwrap()),
        target: Some("refund".into()),
        definition: Some(Digest::of(b"definition")),
        input_schema: Some(Digest::of(b"input")),
        output_schema: Some(Digest::of(b"output")),
        allowed: Some(true),
        rules: vec!["role/ops#0".into()],
        judged: Some(Judged {
            rules: Digest::of(b"rules"),
            principal: Digest::of(b"principal"),
            at: 1_790_000_123,
            memberships: ["finance".into(), "ops".into()].into(),
            scopes: ["mcp:tools".into()].into(),
            client: Some("claude-code".into()),
            ..Judged::default()
        }),
        arguments: Some(Digest::of(b"arguments")),
        result: Some(Digest::of(b"result")),
        request_bytes: 321,
        response_bytes: 654,
        outcome: Outcome::Success,
        ..Facts::default()
    }
}

fn main() {
    let given = std::env::args().skip(1).find_map(|given| given.parse().ok());
    let renderer = Renderer::new("eu-1", "eu");
    let facts = facts();
    let mut fastest = u128::MAX;
    for _ in 0..given.unwrap_or(ROUNDS) {
        let begun = Instant::now();
        for sequence in 1..=RECORDS {
            black_box(renderer.render(black_box(&facts), sequence));
        }
        fastest = fastest.min(begun.elapsed().as_nanos());
    }
    let bytes = renderer.render(&facts, 1).len();
    let nanos = fastest / u128::from(RECORDS);
    writeln!(std::io::stdout().lock(), "render: {nanos} ns a record of {bytes} bytes").unwrap();
}
