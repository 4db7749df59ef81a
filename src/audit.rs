//! `weir audit`: looks at records, in files and in Kafka, and judges them.

mod judge;
mod source;
mod tail;

use std::io::Write;

use anyhow::Context as _;
use serde_json::Value;
use weir_audit::line::{self, Line};
use weir_audit::read::Query;

use crate::cli::{Audit, AuditExport, AuditSearch, RecordFormat, Wanted};
use source::Input;

pub use tail::tail;

/// Where the control plane shows what it has witnessed.
pub const WITNESS_PATH: &str = "/v1/audit/witness";

/// Asks the control plane for what it has witnessed.
pub type Ask<'a> = &'a dyn Fn() -> anyhow::Result<Value>;

/// Runs one of the commands.
///
/// # Errors
/// When records cannot be read, are not what they should be, or nobody reads what is printed.
pub fn run(command: &Audit, ask: Ask<'_>, out: &mut impl Write) -> anyhow::Result<()> {
    match command {
        Audit::Tail(args) => tail(args, out),
        Audit::Search(args) => search(args, out),
        Audit::Export(args) => export(args, out),
        Audit::Verify(args) => judge::verify(args, ask, out),
        Audit::Prove(args) => judge::prove(args, out),
        Audit::Check(args) => judge::check(args, out),
        Audit::Witness => {
            let witness = serde_json::to_string_pretty(&ask()?).context("the answer")?;
            Ok(writeln!(out, "{witness}")?)
        }
    }
}

impl Wanted {
    fn query(&self) -> Query {
        Query {
            group: self.group.clone(),
            principal: self.principal.clone(),
            status: self.status.clone(),
            ..Query::default()
        }
    }
}

fn search(args: &AuditSearch, out: &mut impl Write) -> anyhow::Result<()> {
    let query = Query {
        server: args.server_name.clone(),
        target: args.target.clone(),
        method: args.method.clone(),
        request: args.request.clone(),
        since_ms: args.since,
        until_ms: args.until,
        ..args.wanted.query()
    };
    if args.format == RecordFormat::Line {
        writeln!(out, "{}", tail::header())?;
    }
    let begin = args.since;
    Input::open(&args.source)?.since(begin).each(&mut |bytes, _| {
        if !matches!(line::parse(bytes), Ok(Line::Record(_))) {
            return Ok(());
        }
        let json: Value = serde_json::from_slice(bytes)?;
        match query.matches(&json) {
            true => tail::write_record(args.format, bytes, &json, out),
            false => Ok(()),
        }
    })
}

fn export(args: &AuditExport, out: &mut impl Write) -> anyhow::Result<()> {
    let within = |time: u64| {
        args.since.is_none_or(|since| time >= since) && args.until.is_none_or(|end| time < end)
    };
    let of = |node: &str| args.node.as_deref().is_none_or(|wanted| wanted == node);
    Input::open(&args.source)?.since(args.since).each(&mut |bytes, _| {
        let wanted = match line::parse(bytes) {
            Ok(Line::Record(head)) => of(&head.id.node) && within(head.time_ms),
            Ok(Line::Checkpoint(sealed)) => of(&sealed.checkpoint.node) && within(sealed.time_ms),
            // A head says what was before the first segment that is left.
            Ok(Line::Segment(head)) => of(&head.node) && args.since.is_none(),
            // Damage is exported too: it is for others to judge.
            Err(_) => args.node.is_none(),
        };
        if wanted {
            out.write_all(bytes)?;
            out.write_all(b"\n")?;
        }
        Ok(())
    })
}
