//! The client's truth against the records.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::BufRead;

use anyhow::Context as _;
use serde_json::Value;

use super::truth::{Became, Call, Truth};

/// Findings that are told one by one.
const TOLD_MAX: usize = 20;
/// How long before the kill of a proxy an answer may have left whose `counted` record was still in
/// memory: they are gathered for milliseconds, on a busy machine for longer.
const IN_MEMORY_MS: u64 = 1_000;
/// How long after the kill a client on a busy machine may note the time of an answer that left before
/// it. The next proxy starts a second later.
const NOTED_LATE_MS: u64 = 500;

/// What was promised to a group's calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// `strict` and `durable`: no answer without a record.
    Kept,
    /// `counted`: what is lost is counted.
    Counted,
}

/// The records of one group, and what all records say of losses.
#[derive(Debug, Default)]
pub struct Stream {
    /// By their event id.
    records: BTreeMap<String, Record>,
    /// Event ids, by the digest of the arguments.
    calls: BTreeMap<String, Vec<String>>,
    /// The largest count of lost records, by node and epoch.
    lost: BTreeMap<(String, u64), u64>,
    /// Records that came again.
    repeats: u64,
    /// What is wrong with the stream itself.
    wrong: Vec<String>,
}

#[derive(Debug)]
struct Record {
    bytes: u64,
    request: String,
    status: String,
}

/// The judgement.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Answered calls, those with exactly one record, and those that the gateway refused because it
    /// could keep none.
    pub answered: u64,
    /// Of them, with exactly one record.
    pub recorded: u64,
    /// Refused for want of a record.
    pub refused: u64,
    /// Sent and never answered.
    pub unanswered: u64,
    /// Of them, with a record.
    pub unanswered_recorded: u64,
    /// Never sent.
    pub unsent: u64,
    /// Answered calls of class `counted` without a record.
    pub lost: u64,
    /// Of them, those that may have been in the memory of a proxy that was killed.
    pub in_memory: u64,
    /// What the gateway counted.
    pub counted: u64,
    /// Records that were delivered again.
    pub repeats: u64,
    /// What is not as it must be.
    pub wrong: Vec<String>,
}

impl Stream {
    /// Reads an export: records of every group, and checkpoints.
    ///
    /// # Errors
    /// When a line cannot be read or is no JSON.
    pub fn read(lines: impl BufRead, group: &str) -> anyhow::Result<Self> {
        let mut stream = Self::default();
        for line in lines.split(b'\n') {
            let line = line?;
            let event: Value = serde_json::from_slice(&line).context("a line of the stream")?;
            stream.losses(&event["unmapped"]);
            if event["class_uid"] == 6003 {
                stream.record(&line, &event, group);
            }
        }
        Ok(stream)
    }

    /// Records and checkpoints say how many were lost by then.
    fn losses(&mut self, unmapped: &Value) {
        let node = unmapped["node"].as_str().unwrap_or_default().to_owned();
        let epoch = unmapped["epoch"].as_u64().unwrap_or_default();
        let most = self.lost.entry((node, epoch)).or_default();
        *most = unmapped["lost"].as_u64().unwrap_or_default().max(*most);
    }

    fn record(&mut self, line: &[u8], event: &Value, group: &str) {
        let text = |at: &str| event.pointer(at).and_then(Value::as_str).unwrap_or_default();
        let uid = text("/metadata/uid").to_owned();
        if text("/metadata/tenant_uid") != group || text("/api/operation") != "tools/call" {
            return;
        }
        let mut hasher = DefaultHasher::new();
        line.hash(&mut hasher);
        let bytes = hasher.finish();
        if let Some(known) = self.records.get(&uid) {
            self.repeats += 1;
            if known.bytes != bytes {
                self.wrong.push(format!("{uid}: two records have this name"));
            }
            return;
        }
        let request = text("/api/request/uid").to_owned();
        let status = text("/status_code").to_owned();
        let arguments = text("/unmapped/arguments_sha256").to_owned();
        self.calls.entry(arguments).or_default().push(uid.clone());
        self.records.insert(uid, Record { bytes, request, status });
    }

    /// What the gateway says that it lost, over all nodes and epochs.
    pub fn counted(&self) -> u64 {
        self.lost.values().sum()
    }

    /// How the newest records of a node and its metric differ.
    pub fn unlike_metric(&self, node: &str, metric: u64) -> Option<String> {
        let newest = self.lost.iter().rfind(|((of, _), _)| of == node);
        let lost = newest.map_or(0, |(_, lost)| *lost);
        (lost != metric)
            .then(|| format!("{node}: its records say {lost} were lost, its metric says {metric}"))
    }

    /// Holds the client's truth against the records. `kills` are the times at which a proxy was
    /// killed, in milliseconds since the epoch.
    pub fn compare(&self, truth: &Truth, promise: Promise, kills: &[u64]) -> Verdict {
        let mut verdict = Verdict {
            counted: self.counted(),
            repeats: self.repeats,
            wrong: self.wrong.clone(),
            ..Verdict::default()
        };
        let mut unanswered_lost = 0;
        for call in truth.calls.values() {
            let found = self.calls.get(&call.arguments).map_or(&[][..], Vec::as_slice);
            if found.len() > 1 {
                let names = found.join(", ");
                verdict.wrong.push(format!("call {} has several records: {names}", call.number));
            }
            let one = !found.is_empty();
            match &call.became {
                Became::Unsent => {
                    verdict.unsent += 1;
                    if one {
                        let (number, uid) = (call.number, &found[0]);
                        verdict.wrong.push(format!("call {number} was never sent: {uid}"));
                    }
                }
                Became::Unanswered(_) => {
                    verdict.unanswered += 1;
                    verdict.unanswered_recorded += u64::from(one);
                    unanswered_lost += u64::from(!one);
                }
                Became::NoRecord => verdict.refused += 1,
                Became::Served | Became::Failed(_) if one => {
                    verdict.answered += 1;
                    verdict.recorded += u64::from(found.len() == 1);
                    verdict.wrong.extend(self.unlike(call, &found[0]));
                }
                Became::Served | Became::Failed(_) => {
                    verdict.answered += 1;
                    self.missing(call, (promise, kills), &mut verdict);
                }
            }
        }
        for (arguments, names) in &self.calls {
            if !truth.calls.contains_key(arguments) {
                verdict.wrong.push(format!("nobody made the call of {}", names.join(", ")));
            }
        }
        // What was lost around a kill may have been counted, and calls without an answer too.
        let (least, most) = (verdict.lost - verdict.in_memory, verdict.lost + unanswered_lost);
        if promise == Promise::Counted && !(least..=most).contains(&verdict.counted) {
            let Verdict { lost, counted, in_memory, .. } = verdict;
            verdict.wrong.push(format!(
                "{lost} answered calls have no record ({in_memory} of them around a kill), and {counted} are \
                 counted as lost"
            ));
        }
        verdict
    }

    fn missing(&self, call: &Call, (promise, kills): (Promise, &[u64]), verdict: &mut Verdict) {
        if promise == Promise::Counted {
            verdict.lost += 1;
            let near = |kill: &u64| {
                (kill.saturating_sub(IN_MEMORY_MS)..=kill + NOTED_LATE_MS).contains(&call.over_ms)
            };
            verdict.in_memory += u64::from(kills.iter().any(near));
            return;
        }
        let Call { number, over_ms, became, .. } = call;
        let request = call.request.as_deref().unwrap_or("without id");
        verdict.wrong.push(format!(
            "call {number} was answered ({became:?}, request {request}, at {over_ms}) and has no record"
        ));
    }

    /// How record and answer differ.
    fn unlike(&self, call: &Call, uid: &str) -> Option<String> {
        let record = self.records.get(uid)?;
        let number = call.number;
        if call.request.as_ref() != Some(&record.request) {
            return Some(format!(
                "call {number} was answered as request {:?}, {uid} is {}",
                call.request, record.request
            ));
        }
        let served = call.became == Became::Served;
        (served != (record.status == "success")).then(|| {
            format!("call {number} became {:?}, and {uid} says {}", call.became, record.status)
        })
    }
}

impl Verdict {
    /// What was found, for people. The last line has the figures.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for wrong in self.wrong.iter().take(TOLD_MAX) {
            let _ = writeln!(text, "WRONG  {wrong}");
        }
        if self.wrong.len() > TOLD_MAX {
            let _ = writeln!(text, "WRONG  and {} more", self.wrong.len() - TOLD_MAX);
        }
        let _ = writeln!(
            text,
            "{} answered, {} with exactly one record; {} refused for want of one; {} unanswered, {} with \
             one; {} never sent; lost {}, counted {}, lost around a kill {}; {} delivered again",
            self.answered,
            self.recorded,
            self.refused,
            self.unanswered,
            self.unanswered_recorded,
            self.unsent,
            self.lost,
            self.counted,
            self.in_memory,
            self.repeats,
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(number: u64, became: Became) -> Call {
        let request = Some(format!("r{number}"));
        let arguments = format!("a{number}");
        Call { number, arguments, sent_ms: 5_000, over_ms: 5_001, became, request }
    }

    fn truth(calls: &[Call]) -> Truth {
        let lines: Vec<_> = calls.iter().map(|c| serde_json::to_string(c).unwrap()).collect();
        Truth::parse(&lines.join("\n")).unwrap()
    }

    fn record(sequence: u64, number: u64, lost: u64) -> String {
        serde_json::json!({
            "class_uid": 6003, "status_code": "success",
            "metadata": {"uid": format!("n/1/{sequence}"), "tenant_uid": "g"},
            "api": {"operation": "tools/call", "request": {"uid": format!("r{number}")}},
            "unmapped": {"node": "n", "epoch": 1, "arguments_sha256": format!("a{number}"), "lost": lost},
        })
        .to_string()
    }

    #[track_caller]
    fn check(calls: &[Call], records: &[String], promise: Promise, wrong: usize) -> Verdict {
        let stream = Stream::read(records.join("\n").as_bytes(), "g").unwrap();
        let verdict = stream.compare(&truth(calls), promise, &[5_500]);
        assert_eq!(verdict.wrong.len(), wrong, "{}", verdict.text());
        verdict
    }

    #[test]
    fn one_record_each_and_repeats_by_name_are_fine() {
        let calls = [call(0, Became::Served), call(1, Became::Served)];
        let records = [record(1, 0, 0), record(2, 1, 0), record(1, 0, 0)];
        let verdict = check(&calls, &records, Promise::Kept, 0);
        assert_eq!((verdict.answered, verdict.recorded, verdict.repeats), (2, 2, 1));
    }

    #[test]
    fn what_is_missing_double_or_foreign_is_told() {
        let calls = [call(0, Became::Served), call(1, Became::Served)];
        check(&calls, &[record(1, 0, 0)], Promise::Kept, 1);
        let twice = [record(1, 0, 0), record(2, 1, 0), record(3, 1, 0)];
        check(&calls, &twice, Promise::Kept, 1);
        let foreign = [record(1, 0, 0), record(2, 1, 0), record(3, 9, 0)];
        check(&calls, &foreign, Promise::Kept, 1);
        let renamed = [record(1, 0, 0), record(2, 1, 0), record(2, 0, 0)];
        check(&calls, &renamed, Promise::Kept, 1);
        let failed = [call(0, Became::Failed("x".to_owned()))];
        check(&failed, &[record(1, 0, 0)], Promise::Kept, 1);
    }

    #[test]
    fn calls_without_an_answer_may_have_a_record_and_those_never_sent_may_not() {
        let broken = || Became::Unanswered("x".to_owned());
        let calls = [call(0, broken()), call(1, broken()), call(2, Became::NoRecord)];
        let verdict = check(&calls, &[record(1, 0, 0)], Promise::Kept, 0);
        assert_eq!((verdict.unanswered, verdict.unanswered_recorded, verdict.refused), (2, 1, 1));
        check(&[call(0, Became::Unsent)], &[record(1, 0, 0)], Promise::Kept, 1);
    }

    #[test]
    fn losses_must_equal_the_count_but_for_what_a_killed_proxy_had_in_memory() {
        let mut early = call(0, Became::Served);
        early.over_ms = 1_000;
        let calls = [early, call(1, Became::Served), call(2, Became::Served)];
        let verdict = check(&calls, &[record(1, 2, 1)], Promise::Counted, 0);
        assert_eq!((verdict.lost, verdict.in_memory, verdict.counted), (2, 1, 1));
        check(&calls, &[record(1, 2, 0)], Promise::Counted, 1);
        // It was written down before the kill.
        check(&calls, &[record(1, 2, 2)], Promise::Counted, 0);
        check(&calls, &[record(1, 2, 3)], Promise::Counted, 1);
        let stream = Stream::read(record(1, 2, 1).as_bytes(), "g").unwrap();
        assert_eq!(stream.unlike_metric("n", 1), None);
        assert!(stream.unlike_metric("n", 2).is_some());
    }
}
