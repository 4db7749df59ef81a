//! `policy explain | test | replay | recompute`.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};
use weir_model::bounds;
use weir_model::id::Revision;
use weir_model::policy::review::{
    Cases, Explanation, Moved, Recomputed, Recorded, Replay, Verdict,
};
use weir_model::resource::{ResourceSet, parse_documents};
use weir_model::snapshot::{Secrets, Snapshot};

use super::documents::Documents;
use super::get::part;
use crate::cli::{Format, PolicyExplain, PolicyRecompute, PolicyReplay, PolicyTest, Review};
use crate::client::Client;
use crate::exit::{Ended, Exit};
use crate::table;

/// Runs one of the commands.
pub(super) async fn run(client: &Client, command: Review) -> anyhow::Result<String> {
    match command {
        Review::Explain(args) => explain(client, args).await,
        Review::Test(args) => test(client, args).await,
        Review::Replay(args) => replay(client, args).await,
        Review::Recompute(args) => recompute(client, args).await,
    }
}

fn path(group: &str, what: &str) -> String {
    format!("/v1/groups/{}/policy/{what}", part(group))
}

async fn explain(client: &Client, args: PolicyExplain) -> anyhow::Result<String> {
    let mut body = json!({ "caller": args.caller()?, "call": args.call()?, "at": args.place() });
    if let Some(revision) = args.at {
        body["revision"] = revision.into();
    }
    let answer = client.post(&path(&args.group, "explain"), &body).await?;
    if args.output.output == Format::Json {
        return Ok(format!("{answer:#}\n"));
    }
    let explanation: Explanation = serde_json::from_value(without(answer.clone(), "revision"))?;
    Ok(format!("revision {}\n{}", answer["revision"], told(&explanation)))
}

fn without(mut value: Value, member: &str) -> Value {
    if let Value::Object(members) = &mut value {
        members.shift_remove(member);
    }
    value
}

fn told(explanation: &Explanation) -> String {
    let seen = if explanation.listed { "listed" } else { "not listed" };
    let mut text = format!("{}, {seen}\n", explanation.answer);
    if !explanation.rules.is_empty() {
        let _ = writeln!(text, "decided by {}", explanation.rules.join(", "));
    }
    for note in &explanation.notes {
        let _ = writeln!(text, "note: {note}");
    }
    for (name, values) in &explanation.obligations {
        for value in values {
            let _ = writeln!(text, "demands @{name}({value:?})");
        }
    }
    for rule in &explanation.considered {
        let applies = if rule.applies { "applies" } else { "does not apply" };
        let _ = writeln!(text, "\n{} {}: {applies}", rule.effect, rule.rule);
        for clause in &rule.clauses {
            let mark = match clause.met {
                Some(true) => "yes",
                Some(false) => "no ",
                None => "?  ",
            };
            let _ = writeln!(text, "  {mark}  {}", clause.text);
        }
    }
    if !explanation.needed.is_empty() {
        text += "\nwould be needed, each by itself:\n";
        for need in &explanation.needed {
            let _ = writeln!(text, "  - {need}");
        }
    }
    text
}

async fn test(client: &Client, args: PolicyTest) -> anyhow::Result<String> {
    let cases = read_cases(&args.cases)?;
    let mut verdicts = Vec::new();
    for some in cases.cases.chunks(bounds::REVIEW_RECORDS_MAX) {
        let body = json!({ "cases": some });
        let answer = client.post(&path(cases.group.as_str(), "test"), &body).await?;
        verdicts.extend(serde_json::from_value::<Vec<Verdict>>(answer["cases"].clone())?);
    }
    judged(&verdicts)
}

/// `policy test` with files: without a control plane.
///
/// # Errors
/// When a case does not pass, or the files have errors.
pub fn test_files(args: &PolicyTest) -> anyhow::Result<String> {
    judged(&offline(&args.files, &read_cases(&args.cases)?)?)
}

fn read_cases(file: &Path) -> anyhow::Result<Cases> {
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let cases = serde_saphyr::from_str(&text);
    cases.map_err(|e| Ended::new(Exit::Refused, format!("{}: {e}", file.display())).into())
}

fn judged(verdicts: &[Verdict]) -> anyhow::Result<String> {
    let failed: Vec<&Verdict> = verdicts.iter().filter(|verdict| !verdict.passed).collect();
    let mut text = String::new();
    for verdict in &failed {
        let _ = writeln!(text, "{}: {}", verdict.name, verdict.message);
        if let Some(explanation) = &verdict.explanation {
            for line in told(explanation).lines() {
                let _ = writeln!(text, "    {line}");
            }
        }
    }
    let _ = writeln!(text, "{} of {} cases pass", verdicts.len() - failed.len(), verdicts.len());
    if failed.is_empty() { Ok(text) } else { Err(Ended::new(Exit::Failed, text.trim_end()).into()) }
}

/// Checks cases against files, without a control plane.
fn offline(files: &[std::path::PathBuf], cases: &Cases) -> anyhow::Result<Vec<Verdict>> {
    let documents = Documents::read(files)?;
    let mut count = 0;
    let mut new_id = || {
        count += 1;
        format!("unsent-{count}")
    };
    let mut set = ResourceSet::default();
    let parsed = parse_documents(&documents.text, &mut new_id);
    for document in parsed.map_err(|errors| refused(&errors))? {
        set.insert(document.resource.into());
    }
    let snapshot = Snapshot::compile(Revision(0), &set, Secrets::new(), None);
    if !snapshot.problems.is_empty() {
        return Err(refused(&snapshot.problems).into());
    }
    let group = snapshot.group(cases.group.as_str()).ok_or_else(|| {
        Ended::new(Exit::NotFound, format!("the files have no Group {}", cases.group))
    })?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    let each = cases.cases.iter().enumerate();
    Ok(each.map(|(at, case)| case.check(group, at + 1, now)).collect())
}

fn refused(errors: &[weir_model::resource::FieldError]) -> Ended {
    let row = |e: &weir_model::resource::FieldError| {
        vec![e.document.clone(), e.path.clone(), e.message.clone()]
    };
    let rows = errors.iter().map(row).collect::<Vec<_>>();
    Ended::new(Exit::Refused, table::columns(&["DOCUMENT", "PATH", "WHAT TO MEND"], &rows))
}

async fn replay(client: &Client, args: PolicyReplay) -> anyhow::Result<String> {
    let apply = match args.files.is_empty() {
        true => String::new(),
        false => Documents::read(&args.files)?.text,
    };
    let documents = json!({ "apply": apply, "delete": args.delete });
    let mut report = Replay::default();
    let mut some = Vec::new();
    let mut bytes = 0;
    let mut records = Records::open(&args.records)?;
    loop {
        let next = records.next().transpose()?;
        let last = next.is_none();
        if let Some((line, record)) = next {
            bytes += line;
            some.push(record);
        }
        let full = some.len() == bounds::REVIEW_RECORDS_MAX || bytes > BATCH_BYTES;
        // Without any record the documents are tried all the same.
        if full || (last && (!some.is_empty() || report.records == 0)) {
            let body = json!({ "records": some, "documents": documents });
            let answer = client.post(&path(&args.group, "replay"), &body).await?;
            report.add(serde_json::from_value(without(answer, "revision"))?);
            some = Vec::new();
            bytes = 0;
        }
        if last {
            break;
        }
    }
    if args.output.output == Format::Json {
        return Ok(format!("{:#}\n", serde_json::to_value(&report)?));
    }
    let mut text = compared(&report);
    if records.unread > 0 {
        let _ = writeln!(text, "{} lines are no records and were passed over", records.unread);
    }
    Ok(text)
}

/// Bytes of records sent in one request.
const BATCH_BYTES: usize = 1024 * 1024;
/// Longest line that is read.
const LINE_BYTES_MAX: u64 = 1024 * 1024;

fn compared(report: &Replay) -> String {
    let mut text = format!(
        "{} records: {} unchanged, {} undecided (the records lack the arguments), {} not about this group or no decision\n",
        report.records, report.unchanged, report.undecided, report.skipped
    );
    if report.outdated > 0 {
        let _ =
            writeln!(text, "{} were decided by other rules than those of today", report.outdated);
    }
    for (title, moved) in [("GAINS", &report.gained), ("LOSES", &report.lost)] {
        if moved.is_empty() {
            continue;
        }
        let row = |m: &Moved| {
            let rules =
                if m.example.after.is_empty() { &m.example.before } else { &m.example.after };
            vec![
                m.principal.clone(),
                m.target.clone(),
                m.count.to_string(),
                rules.join(", "),
                m.example.uid.clone(),
            ]
        };
        let rows = moved.iter().map(row).collect::<Vec<_>>();
        let header = [
            "WHO ".to_owned() + title,
            "WHAT".into(),
            "CALLS".into(),
            "RULES".into(),
            "EXAMPLE".into(),
        ];
        let header: Vec<&str> = header.iter().map(String::as_str).collect();
        let _ = write!(text, "\n{}", table::columns(&header, &rows));
    }
    text
}

/// Records from a file, the files of a folder by name, or standard input, a line each.
struct Records {
    open: Vec<Box<dyn BufRead>>,
    /// Lines that were passed over.
    unread: u64,
}

impl Records {
    fn open(from: &Path) -> anyhow::Result<Self> {
        if from.as_os_str() == "-" {
            return Ok(Self { open: vec![Box::new(BufReader::new(std::io::stdin()))], unread: 0 });
        }
        let place = || format!("read {}", from.display());
        let mut files = vec![from.to_owned()];
        if from.is_dir() {
            files.clear();
            for entry in std::fs::read_dir(from).with_context(place)? {
                let file = entry.with_context(place)?.path();
                if file.extension().is_some_and(|end| end == "jsonl" || end == "ndjson") {
                    files.push(file);
                }
            }
            files.sort();
            files.reverse();
        }
        let mut open: Vec<Box<dyn BufRead>> = Vec::new();
        for file in files {
            let opened =
                std::fs::File::open(&file).with_context(|| format!("read {}", file.display()));
            open.push(Box::new(BufReader::new(opened?)));
        }
        Ok(Self { open, unread: 0 })
    }
}

impl Iterator for Records {
    type Item = anyhow::Result<(usize, Value)>;

    /// Lines that are no JSON are passed over: the last one may be half written.
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let reader = self.open.last_mut()?;
            let mut line = Vec::new();
            match reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
                Ok(0) => drop(self.open.pop()),
                Ok(length) => {
                    if let Ok(record @ Value::Object(_)) = serde_json::from_slice(&line) {
                        return Some(Ok((length, record)));
                    }
                    self.unread += u64::from(!line.trim_ascii().is_empty());
                }
                Err(error) => return Some(Err(error.into())),
            }
        }
    }
}

async fn recompute(client: &Client, args: PolicyRecompute) -> anyhow::Result<String> {
    let record = wanted(Records::open(&args.records)?, args.uid.as_deref())?;
    let Some(group) = record["metadata"]["tenant_uid"].as_str() else {
        return Err(Ended::new(Exit::Refused, "the record names no group").into());
    };
    let mut body = json!({ "record": record });
    if let Some(file) = &args.arguments {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        body["arguments"] = text.trim_end_matches(['\n', '\r']).into();
    }
    let answer = client.post(&path(group, "recompute"), &body).await?;
    let same = answer["same"].as_bool();
    let text = match args.output.output {
        Format::Json => format!("{answer:#}\n"),
        _ => {
            let made: Recomputed = serde_json::from_value(without(answer.clone(), "revision"))?;
            remade(&made, &answer["revision"])
        }
    };
    match same {
        Some(true) => Ok(text),
        Some(false) => Err(Ended::new(Exit::Differs, text.trim_end()).into()),
        None => Err(Ended::new(Exit::Failed, text.trim_end()).into()),
    }
}

/// The record of that name; without one, the first that tells of a decision.
fn wanted(records: Records, uid: Option<&str>) -> anyhow::Result<Value> {
    for next in records {
        let (_, record) = next?;
        let found = match uid {
            Some(uid) => record["metadata"]["uid"] == uid,
            None => Recorded::read(&record).is_some(),
        };
        if found {
            return Ok(record);
        }
    }
    let text = match uid {
        Some(uid) => format!("there is no record {uid}"),
        None => "no record tells of a decision".to_owned(),
    };
    Err(Ended::new(Exit::NotFound, text).into())
}

fn remade(made: &Recomputed, revision: &Value) -> String {
    let word = |allowed| if allowed { "allowed" } else { "denied" };
    let verdict = match made.same {
        Some(true) => "the same again",
        Some(false) => "NOT the same",
        None => "cannot be told",
    };
    let mut text = format!(
        "{} at revision {revision}: {verdict}\nrecorded: {} by [{}]\n",
        made.uid,
        word(made.recorded),
        made.recorded_rules.join(", ")
    );
    for note in &made.notes {
        let _ = writeln!(text, "note: {note}");
    }
    text + "\n" + &told(&made.explanation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_past_what_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let decision = json!({
            "metadata": {"uid": "n/1/2", "tenant_uid": "acme"}, "time": 1, "action_id": 1,
            "actor": {"user": {"uid": "account:ci"}},
            "api": {"operation": "tools/call", "service": {"name": "crm"}},
            "resources": [{"name": "get"}],
            "unmapped": {"revision": 3, "judged": {"at": 1,
                "rules_sha256": weir_model::id::Digest::of(b"r")}},
        });
        let other = json!({"metadata": {"uid": "n/1/1"}});
        let put = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        put("b.jsonl", &format!("{decision}\n{{\"half"));
        put("a.jsonl", &format!("nonsense\n\n7\n{other}\n"));
        put("c.txt", "not a record at all");
        let open = || Records::open(dir.path()).unwrap();
        let mut all = open();
        let uids: Vec<_> =
            all.by_ref().map(|r| r.unwrap().1["metadata"]["uid"].to_string()).collect();
        assert_eq!(uids, ["\"n/1/1\"", "\"n/1/2\""], "files by name, lines in order");
        assert_eq!(all.unread, 3);
        assert_eq!(wanted(open(), None).unwrap(), decision, "the first decision");
        assert_eq!(wanted(open(), Some("n/1/1")).unwrap(), other);
        for (uid, said) in [(Some("n/1/9"), "no record n/1/9"), (None, "tells of a decision")] {
            let records = match uid {
                Some(_) => open(),
                None => Records { open: Vec::new(), unread: 0 },
            };
            let error = wanted(records, uid).unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
            assert_eq!(crate::exit::code(&error), Exit::NotFound as u8);
        }
    }

    const DOCUMENTS: &str = "
apiVersion: weir/v1
kind: Group
metadata: {name: acme}
spec: {}
---
apiVersion: weir/v1
kind: Policy
metadata: {group: acme, name: search}
spec:
  cedar: permit (principal, action, resource == Tool::\"docs/search\");
";

    fn run(cases: &str) -> anyhow::Result<Vec<Verdict>> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("acme.yaml");
        std::fs::write(&file, DOCUMENTS).unwrap();
        offline(&[file], &serde_saphyr::from_str(cases).unwrap())
    }

    #[test]
    fn cases_are_checked_against_files_alone() {
        let verdicts = run("
group: acme
cases:
  - caller: {user: alice}
    call: {tool: docs/search}
    expect: allowed
    rules: ['policy:search#0']
  - name: editing
    caller: {anonymous: true}
    call: {tool: docs/edit}
    at: {time: 2026-11-23T09:30:00Z, peer: 10.0.0.1}
    expect: hidden
  - name: wrong
    caller: {serviceAccount: ci}
    call: {tool: docs/edit}
    expect: allowed
")
        .unwrap();
        let passed: Vec<bool> = verdicts.iter().map(|verdict| verdict.passed).collect();
        assert_eq!(passed, [true, true, false], "{verdicts:?}");
        let text = told(verdicts[2].explanation.as_ref().unwrap());
        assert!(
            text.contains("would be needed") && text.contains("docs/edit: none does"),
            "{text}"
        );
        let other = run("{group: other, cases: []}").unwrap_err();
        assert_eq!(crate::exit::code(&other), Exit::NotFound as u8);
    }
}
