//! What it costs to read the envelope of a request and the members that the gateway looks at.
//!
//! `cargo bench -p data-plane --bench envelope` prints one line per figure.

#![allow(clippy::print_stdout)] // Its figures are its output.

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use data_plane::mcp::envelope;
use serde_json::json;

const ROUNDS: u32 = 50_000;

fn measure(what: &str, body: &serde_json::Value) {
    let body = Bytes::from(body.to_string());
    let rounds = ROUNDS / u32::try_from(1 + body.len() / 4_096).unwrap_or(1);
    assert!(envelope::read(&body).is_ok(), "{what} is a message");
    (0..rounds / 10).for_each(|_| drop(black_box(envelope::read(black_box(&body)))));
    let started = Instant::now();
    (0..rounds).for_each(|_| drop(black_box(envelope::read(black_box(&body)))));
    println!("{what}, {} bytes: {:?}", body.len(), started.elapsed() / rounds);
}

fn main() {
    let call = |bytes: usize| {
        json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {
            "name": "billing__refund",
            "arguments": {"customer": "c-17", "amount": 12.5, "note": "x".repeat(bytes)},
            "_meta": {"progressToken": "p-1", "io.modelcontextprotocol/protocolVersion": "2026-07-28"},
        }})
    };
    measure("tools/list", &json!({"jsonrpc": "2.0", "id": "a", "method": "tools/list"}));
    measure("tools/call", &call(64));
    measure("tools/call", &call(4_096));
    measure("tools/call", &call(262_144));
    let nested = (0..60).fold(json!(1), |inner, _| json!({ "a": inner }));
    let nested = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "t", "arguments": nested}});
    measure("tools/call, arguments 60 deep", &nested);
    let wide: serde_json::Map<_, _> = (0..500).map(|at| (format!("m{at}"), json!(at))).collect();
    let wide = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "t", "arguments": wide}});
    measure("tools/call, 500 arguments", &wide);
    measure("notification", &json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
}
