//! `weir audit tail`: the newest records of a folder of segments, and those that come.

use std::collections::HashSet;
use std::io::Write;
use std::time::Duration;

use serde_json::Value;
use weir_audit::read::{self, Entry, Follow, Query};

use crate::cli::{AuditTail, RecordFormat};

/// Time between two looks for new records.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Records that one look takes in.
const LOOK_RECORDS: usize = 1_000;

/// Prints the last records, then new ones until the reader or the process goes away.
///
/// # Errors
/// When the folder cannot be read, or nobody reads what is printed.
pub fn tail(args: &AuditTail, out: &mut impl Write) -> anyhow::Result<()> {
    let query = Query {
        group: args.group.clone(),
        principal: args.principal.clone(),
        status: args.status.clone(),
        ..Query::default()
    };
    // Begun before the last records are read, so that none falls in between.
    let mut follow = match args.no_follow {
        true => None,
        false => Some(Follow::from_end(&args.dir)?),
    };
    if args.format == RecordFormat::Line {
        writeln!(out, "{}", header())?;
    }
    let mut shown = HashSet::new();
    for entry in last(args, &query)? {
        shown.extend(entry.uid().map(str::to_owned));
        write_entry(args.format, &entry, out)?;
    }
    out.flush()?;
    while let Some(follow) = &mut follow {
        let found = follow.poll(LOOK_RECORDS)?;
        if found.is_empty() {
            std::thread::sleep(LOOK_EVERY);
        }
        for entry in found {
            match entry {
                Ok(entry) if entry.uid().is_some_and(|uid| shown.remove(uid)) => {}
                Ok(entry) if query.matches(&entry.json) => write_entry(args.format, &entry, out)?,
                Ok(_) => {}
                Err(error) => writeln!(out, "{error}")?,
            }
        }
        out.flush()?;
    }
    Ok(())
}

/// The last wanted records; unreadable lines are passed over.
fn last(args: &AuditTail, query: &Query) -> anyhow::Result<Vec<Entry>> {
    if *query == Query::default() {
        return Ok(read::tail(&args.dir, args.lines)?);
    }
    let mut last = std::collections::VecDeque::new();
    for entry in read::search(&args.dir, query.clone())?.flatten() {
        if last.len() == args.lines {
            last.pop_front();
        }
        last.push_back(entry);
    }
    Ok(last.into())
}

fn write_entry(format: RecordFormat, entry: &Entry, out: &mut impl Write) -> std::io::Result<()> {
    match format {
        RecordFormat::Json => {
            out.write_all(&entry.line)?;
            out.write_all(b"\n")
        }
        RecordFormat::Line => writeln!(out, "{}", line(&entry.json)),
    }
}

fn header() -> String {
    columns(["TIME (UTC)", "GROUP", "PRINCIPAL", "METHOD", "SERVER", "TARGET", "OUTCOME", "MS"])
}

/// One record as a line: when, who, what, how it ended, how long it took.
fn line(record: &Value) -> String {
    let text = |at: &str| record.pointer(at).and_then(Value::as_str).unwrap_or("-");
    let micros = record["unmapped"]["duration_us"].as_u64().unwrap_or_default();
    columns([
        &clock(record["time"].as_u64().unwrap_or_default()),
        text("/metadata/tenant_uid"),
        text("/actor/user/uid"),
        text("/api/operation"),
        text("/api/service/name"),
        text("/resources/0/name"),
        text("/status_code"),
        &format!("{}.{}", micros / 1_000, micros % 1_000 / 100),
    ])
}

/// Records come one by one, so the widths are fixed.
fn columns(cells: [&str; 8]) -> String {
    let [time, group, principal, method, server, target, outcome, ms] = cells;
    format!(
        "{time:<13} {group:<8} {principal:<17} {method:<25} {server:<8} {target:<22} {outcome:<18} {ms:>7}"
    )
}

/// Time of day.
fn clock(ms: u64) -> String {
    let (seconds, ms) = (ms / 1_000 % 86_400, ms % 1_000);
    format!("{:02}:{:02}:{:02}.{ms:03}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_line() {
        let record = serde_json::json!({
            "time": 3_661_042, "status_code": "denied",
            "metadata": { "tenant_uid": "demo" },
            "actor": { "user": { "uid": "account:support" } },
            "api": { "operation": "tools/call", "service": { "name": "orders" } },
            "resources": [{ "name": "refund_order" }],
            "unmapped": { "duration_us": 1_234 },
        });
        let line = line(&record);
        let words = line.split_whitespace().collect::<Vec<_>>();
        let expected =
            "01:01:01.042 demo account:support tools/call orders refund_order denied 1.2";
        assert_eq!(words.join(" "), expected);
        assert!(super::line(&Value::Null).starts_with("00:00:00.000  -"));
    }
}
