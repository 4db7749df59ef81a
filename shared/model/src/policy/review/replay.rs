//! Recorded calls, put to the documents of today and to a candidate.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Recorded;
use crate::snapshot::GroupView;

/// Who gains or loses what. Reports of parts add up, see [`Replay::add`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Replay {
    /// Records read.
    pub records: u64,
    /// Of them, those that tell of no decision of this group.
    pub skipped: u64,
    /// Decided the same.
    pub unchanged: u64,
    /// The rules read arguments, and the record holds only their digest, or the record does not
    /// hold all of the caller.
    pub undecided: u64,
    /// Recorded otherwise than the rules of today decide: the rules were others then.
    pub outdated: u64,
    /// Calls that would be allowed, most frequent first.
    pub gained: Vec<Moved>,
    /// Calls that would be denied, most frequent first.
    pub lost: Vec<Moved>,
}

/// A caller and a target whose calls change sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Moved {
    /// As in audit records.
    pub principal: String,
    /// `CallTool`, `ReadResource`, `GetPrompt` or `UseServer`.
    pub action: String,
    /// `server/name`, or the server.
    pub target: String,
    /// Calls.
    pub count: u64,
    /// One of them.
    pub example: Example,
}

/// One call that changes sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Example {
    /// Of the record.
    pub uid: String,
    /// Milliseconds since the epoch.
    pub time_ms: u64,
    /// The rules that decide today.
    pub before: Vec<String>,
    /// The rules that would decide.
    pub after: Vec<String>,
}

enum Change {
    Skipped,
    Undecided,
    Same,
    Moved(bool, Moved),
}

/// Puts records to both; `group` is today's.
pub fn replay<'r>(
    group: &GroupView,
    candidate: &GroupView,
    records: impl IntoIterator<Item = &'r serde_json::Value>,
) -> Replay {
    let mut report = Replay::default();
    for record in records {
        report.records += 1;
        let read = Recorded::read(record).filter(|record| record.group == group.name);
        let change = read.map_or(Change::Skipped, |record| {
            let (change, outdated) = compare(group, candidate, &record);
            report.outdated += u64::from(outdated);
            change
        });
        match change {
            Change::Skipped => report.skipped += 1,
            Change::Undecided => report.undecided += 1,
            Change::Same => report.unchanged += 1,
            Change::Moved(true, moved) => note(&mut report.gained, moved),
            Change::Moved(false, moved) => note(&mut report.lost, moved),
        }
    }
    sort(&mut report.gained);
    sort(&mut report.lost);
    report
}

fn compare(group: &GroupView, candidate: &GroupView, record: &Recorded) -> (Change, bool) {
    let ask = &record.ask;
    let (before, after) = (ask.decide(&group.rules), ask.decide(&candidate.rules));
    let open = |reads: bool| ask.arguments.is_none() && ask.action.has_arguments() && reads;
    let outdated =
        record.faithful && !open(before.reads_arguments) && before.allowed != record.allowed;
    // With open arguments "denied" is certain and "allowed" is not. What was recorded is certain.
    let had = match open(before.reads_arguments) && before.allowed {
        true if group.rules.digest == record.rules_digest => Some(record.allowed),
        true => None,
        false => Some(before.allowed),
    };
    let has = (!open(after.reads_arguments) || !after.allowed).then_some(after.allowed);
    let same_rules = group.rules.digest == candidate.rules.digest;
    let change = match (had, has) {
        _ if same_rules => Change::Same,
        _ if !record.faithful => Change::Undecided,
        (Some(had), Some(has)) if had == has => Change::Same,
        (Some(_), Some(has)) => {
            let words = |rules: &[std::sync::Arc<str>]| {
                rules.iter().map(ToString::to_string).collect::<Vec<_>>()
            };
            let target = match ask.target.as_str() {
                "" => ask.server.to_string(),
                target => format!("{}/{target}", ask.server),
            };
            let example = Example {
                uid: record.uid.clone(),
                time_ms: record.time_ms,
                before: words(&before.rules),
                after: words(&after.rules),
            };
            let (principal, action) = (ask.principal.id(), ask.action.as_str().to_owned());
            Change::Moved(has, Moved { principal, action, target, count: 1, example })
        }
        _ => Change::Undecided,
    };
    (change, outdated)
}

fn note(all: &mut Vec<Moved>, moved: Moved) {
    let same = |known: &&mut Moved| {
        (&known.principal, &known.action, &known.target)
            == (&moved.principal, &moved.action, &moved.target)
    };
    match all.iter_mut().find(same) {
        Some(known) => known.count += moved.count,
        None => all.push(moved),
    }
}

fn sort(all: &mut [Moved]) {
    all.sort_by(|a, b| {
        b.count
            .cmp(&a.count)
            .then_with(|| (&a.principal, &a.target).cmp(&(&b.principal, &b.target)))
    });
}

impl Replay {
    /// Adds the report of further records.
    pub fn add(&mut self, other: Self) {
        self.records += other.records;
        self.skipped += other.skipped;
        self.unchanged += other.unchanged;
        self.undecided += other.undecided;
        self.outdated += other.outdated;
        for (mine, theirs) in [(&mut self.gained, other.gained), (&mut self.lost, other.lost)] {
            let mut known: BTreeMap<_, Moved> = BTreeMap::new();
            for moved in std::mem::take(mine).into_iter().chain(theirs) {
                let key = (moved.principal.clone(), moved.action.clone(), moved.target.clone());
                known.entry(key).and_modify(|m| m.count += moved.count).or_insert(moved);
            }
            *mine = known.into_values().collect();
            sort(mine);
        }
    }
}
