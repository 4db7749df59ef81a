//! How long it takes to compile, change and view large configurations.
//!
//! `cargo bench -p weir-model --bench snapshot -- 100000` prints one line per figure.

#![allow(clippy::print_stdout)] // Its figures are its output.

use std::sync::Arc;
use std::time::Instant;

use serde_json::json;
use weir_model::id::{Name, Revision};
use weir_model::resource::{Resource, ResourceKey, ResourceSet};
use weir_model::snapshot::Snapshot;
use weir_model::testing::World;

const TOOLS_PER_SERVER: usize = 50;

fn world(tools: usize) -> World {
    let mut world = World::new().group("acme").account("acme", "ci").allow("acme", "ci", "*", "*");
    for server in 0..tools / TOOLS_PER_SERVER {
        let name = format!("s{server}");
        world = world.server("acme", &name, "http://127.0.0.1:9/mcp");
        for tool in 0..TOOLS_PER_SERVER {
            let definition = json!({
                "name": format!("tool_{tool}"),
                "description": format!("Does the thing number {tool} of server {server}, at length. ").repeat(3),
                "inputSchema": {"type": "object", "required": ["customer"], "properties": {
                    "customer": {"type": "string", "description": format!("customer {server}/{tool}")},
                    "limit": {"type": "integer", "minimum": 1, "maximum": 100},
                    "filters": {"type": "array", "items": {"type": "object", "required": ["field"],
                        "properties": {"field": {"type": "string"}, "op": {"enum": ["eq", "lt", "gt"]}}}},
                    "verbose": {"type": "boolean"}}}
            });
            world = world.tool_of("acme", &name, &definition);
        }
    }
    world
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = work();
    println!("{what}: {:?}, {} MiB resident", started.elapsed(), resident_mib());
    result
}

/// Resident memory of the process, where the system tells.
fn resident_mib() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|n| n.parse::<usize>().ok()).unwrap_or(0);
    pages * 4 / 1024
}

fn main() {
    let tools = std::env::args().filter_map(|a| a.parse().ok()).next().unwrap_or(10_000);
    let world = world(tools);
    let set = timed("build the set", || world.set());
    let documents: Vec<_> = set.iter().map(|r| r.canonical.clone()).collect();
    println!("{} documents, {} bytes", set.len(), documents.iter().map(|d| d.len()).sum::<usize>());
    let read: ResourceSet = timed("read all documents", || {
        let read = |bytes: &bytes::Bytes| Resource::from_canonical(bytes.clone());
        documents.iter().map(read).map(|r| Arc::new(r.expect("was written by us"))).collect()
    });
    timed("digest of the set", || read.digest());
    let compile = |set: &ResourceSet, previous: Option<&Snapshot>| {
        Snapshot::compile(Revision(1), set, world.secrets(), previous)
    };
    let first = timed("compile", || compile(&set, None));
    let key = ResourceKey::parse("Server/acme/s1").expect("is a key");
    let edit = |set: &ResourceSet, port: u16| {
        let changed = World::new().server("acme", "s1", &format!("http://127.0.0.1:{port}/mcp"));
        let mut next = set.clone();
        next.insert(Arc::clone(changed.set().get(&key).expect("is there")));
        next
    };
    let changed = timed("edit one server", || edit(&set, 10));
    timed("digest after it", || changed.digest());
    timed("difference", || set.diff(&changed).0.len());
    let second = timed("compile after it", || compile(&changed, Some(&first)));
    let third = timed("compile after another", || compile(&edit(&changed, 11), Some(&second)));
    let region: Name = "eu".parse().expect("is a name");
    timed("view of a region", || third.source().for_region(&region).len());
}
