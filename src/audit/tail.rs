//! `weir audit tail`: the newest records of a folder or a topic, and those that come.

use std::collections::HashSet;
use std::io::Write;
use std::time::Duration;

use serde_json::Value;
#[cfg(feature = "kafka")]
use weir_audit::line::{self, Line};
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
    let query = args.wanted.query();
    #[cfg(feature = "kafka")]
    if let Some(kafka) = &args.source.kafka {
        let settings = super::source::kafka_settings(kafka, args.source.topic.as_deref())?;
        return stream(args, &query, &settings, out);
    }
    // Begun before the last records are read, so that none falls in between.
    let mut follow = match args.no_follow {
        true => None,
        false => Some(Follow::from_end(&args.source.dir)?),
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
        return Ok(read::tail(&args.source.dir, args.lines)?);
    }
    let mut last = std::collections::VecDeque::new();
    for entry in read::search(&args.source.dir, query.clone())?.flatten() {
        if last.len() == args.lines {
            last.pop_front();
        }
        last.push_back(entry);
    }
    Ok(last.into())
}

/// The same from a topic. With `--output json` checkpoints come too, so that the output can be
/// verified.
#[cfg(feature = "kafka")]
fn stream(
    args: &AuditTail,
    query: &Query,
    settings: &weir_audit::kafka::KafkaSettings,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    use weir_audit::consume::{Consumer, From, Seen};
    if args.format == RecordFormat::Line {
        writeln!(out, "{}", header())?;
    }
    let all = *query == Query::default() && args.format == RecordFormat::Json;
    // What is to be verified must not begin in each partition elsewhere.
    let from = if all { From::NewestTogether } else { From::Newest };
    let mut consumer = Consumer::open(settings, from(args.lines as u64))?;
    let mut each = |seen: Seen<'_>| -> anyhow::Result<()> {
        let record = matches!(line::parse(seen.bytes), Ok(Line::Record(_)));
        let json: Value = serde_json::from_slice(seen.bytes).unwrap_or_default();
        if all || (record && query.matches(&json)) {
            write_record(args.format, seen.bytes, &json, out)?;
            out.flush()?;
        }
        Ok(())
    };
    consumer.up_to_now(&mut each)?;
    if args.no_follow {
        return Ok(());
    }
    loop {
        consumer.poll(LOOK_EVERY, &mut each)?;
    }
}

fn write_entry(format: RecordFormat, entry: &Entry, out: &mut impl Write) -> anyhow::Result<()> {
    write_record(format, &entry.line, &entry.json, out)
}

/// One record as `--output` says.
pub(super) fn write_record(
    format: RecordFormat,
    bytes: &[u8],
    json: &Value,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    match format {
        RecordFormat::Json => {
            out.write_all(bytes)?;
            out.write_all(b"\n")?;
        }
        RecordFormat::Line => writeln!(out, "{}", row(json))?,
    }
    Ok(())
}

/// Names of the columns.
pub(super) fn header() -> String {
    columns(["TIME (UTC)", "GROUP", "PRINCIPAL", "METHOD", "SERVER", "TARGET", "OUTCOME", "MS"])
}

/// One record as a line: when, who, what, how it ended, how long it took.
fn row(record: &Value) -> String {
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
        let line = row(&record);
        let words = line.split_whitespace().collect::<Vec<_>>();
        let expected =
            "01:01:01.042 demo account:support tools/call orders refund_order denied 1.2";
        assert_eq!(words.join(" "), expected);
        assert!(row(&Value::Null).starts_with("00:00:00.000  -"));
    }
}
