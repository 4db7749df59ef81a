//! What a record costs, by class, and the same group commits in redb.
//!
//! `cargo bench -p weir-audit --bench spool [FOLDER]`: 64 callers at a time, CPU of the whole
//! process (callers, rendering, Merkle tree, writes and syncs), in microseconds a record. FOLDER
//! is where the disk is; a temporary one without.

// A program for people: it says what it measured.
#![allow(clippy::unwrap_used)]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use weir_audit::spool::{Spool, SpoolSettings};
use weir_audit::{Builder, Origin};
use weir_model::audit::{Facts, Outcome};
use weir_model::id::{Digest, Revision};
use weir_model::principal::Proof;
use weir_model::resource::AuditClass;
use weir_runtime::metrics::Metrics;

const RECORDS: u64 = 200_000;
const CALLERS: u64 = 64;
/// Wait of a caller that finds no room.
const PAUSE: Duration = Duration::from_millis(1);
/// Records of one transaction in the comparison: what one group commit held here under load.
const GROUP: u64 = 32;

fn facts(class: AuditClass) -> Facts {
    Facts {
        class,
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
        client: Some("claude-code 2.1.0".into()),
        front_revision: Some("2026-07-28".into()),
        back_revision: Some("2025-11-25".into()),
        method: Some("tools/call".into()),
        server: Some("billing".parse().unwrap()),
        version: Some("v2".parse().unwrap()),
        target: Some("refund".into()),
        definition: Some(Digest::of(b"definition")),
        allowed: Some(true),
        rules: vec!["role/ops#0".into()],
        arguments: Some(Digest::of(b"arguments")),
        request_bytes: 321,
        response_bytes: 654,
        outcome: Outcome::Success,
        ..Facts::default()
    }
}

/// User and system time of this process, to 10 ms.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// Runs it and says what it cost.
fn measured(what: &str, records: u64, run: impl FnOnce()) {
    let (begun, before) = (Instant::now(), cpu());
    run();
    let (wall, cpu) = (begun.elapsed().as_secs_f64(), (cpu() - before).as_secs_f64());
    #[allow(clippy::cast_precision_loss)]
    let records = records as f64;
    let line = format!(
        "{what:<34} {:>7.2} us CPU a record, {:>8.0} a core and second, {:>8.0} a second here",
        cpu * 1e6 / records,
        records / cpu,
        records / wall
    );
    writeln!(std::io::stdout().lock(), "{line}").unwrap();
}

fn classes(folder: &Path) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    for class in [AuditClass::Counted, AuditClass::Durable, AuditClass::Strict] {
        let records = if class == AuditClass::Strict { RECORDS / 10 } else { RECORDS };
        let dir = folder.join(format!("{class:?}"));
        let spool = Spool::open(SpoolSettings::new(dir)).unwrap();
        let origin = Origin { node: "eu-1".into(), region: "eu".into() };
        let pipeline =
            runtime.block_on(async { Builder::spooled(origin, spool, Metrics::new()).start() });
        measured(&format!("spool, {class:?}").to_lowercase(), records, || {
            runtime.block_on(async {
                let callers: Vec<_> = (0..CALLERS)
                    .map(|_| {
                        let pipeline = pipeline.clone();
                        tokio::spawn(async move {
                            for _ in 0..records / CALLERS {
                                // Faster than the disk syncs: as a refused caller would, later.
                                let slot = loop {
                                    match pipeline.reserve(class) {
                                        Ok(slot) => break slot,
                                        Err(_) => tokio::time::sleep(PAUSE).await,
                                    }
                                };
                                slot.finish(facts(class)).await.unwrap();
                            }
                        })
                    })
                    .collect();
                for caller in callers {
                    caller.await.unwrap();
                }
                pipeline.close(Duration::from_secs(60)).await;
            });
        });
        let lost = pipeline.lost();
        if lost > 0 {
            writeln!(std::io::stdout().lock(), "  of these {lost} counted as lost").unwrap();
        }
    }
    measured("facts alone (no audit)", RECORDS, || {
        for _ in 0..RECORDS {
            std::hint::black_box(facts(AuditClass::Durable));
        }
    });
}

/// The same bytes in redb, `GROUP` records a transaction; durable means a sync each.
fn redb(folder: &Path) {
    const TABLE: redb::TableDefinition<'_, u64, &[u8]> = redb::TableDefinition::new("records");
    let record = vec![b'x'; 1_300];
    for (what, durability, records) in [
        ("redb, no sync", redb::Durability::None, RECORDS / 4),
        ("redb, a sync a group", redb::Durability::Immediate, RECORDS / 20),
    ] {
        let store = redb::Database::create(folder.join(what.replace(' ', "-"))).unwrap();
        measured(what, records, || {
            for group in 0..records / GROUP {
                let mut write = store.begin_write().unwrap();
                write.set_durability(durability).unwrap();
                {
                    let mut table = write.open_table(TABLE).unwrap();
                    for at in 0..GROUP {
                        table.insert(group * GROUP + at, record.as_slice()).unwrap();
                    }
                }
                write.commit().unwrap();
            }
        });
    }
}

fn main() {
    let given = std::env::args().nth(1).filter(|given| !given.starts_with('-'));
    let temporary = tempfile::tempdir().unwrap();
    let folder = given.map_or_else(|| temporary.path().to_owned(), PathBuf::from);
    std::fs::create_dir_all(&folder).unwrap();
    classes(&folder);
    redb(&folder);
}
