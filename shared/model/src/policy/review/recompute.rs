//! One recorded decision, made again.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Ask, Explanation, Recorded, explain};
use crate::id::Digest;
use crate::snapshot::GroupView;

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recomputed {
    /// `node/epoch/sequence`.
    pub uid: String,
    /// What was recorded.
    pub recorded: bool,
    /// The rules that were recorded.
    pub recorded_rules: Vec<String>,
    /// Whether decision and rules are the same again; none when that cannot be told.
    pub same: Option<bool>,
    /// Why it cannot be told, or what differs; empty when it is the same.
    pub notes: Vec<String>,
    /// The decision as it is made of these documents.
    pub explanation: Explanation,
}

/// Makes a recorded decision again, of the documents of its revision. `arguments` are the call's,
/// exactly as received, where the record does not hold them.
pub fn recompute(group: &GroupView, record: &Recorded, arguments: Option<&str>) -> Recomputed {
    let mut notes = Vec::new();
    let mut certain = true;
    let mut doubt = |why: &str| {
        certain = false;
        notes.push(why.to_owned());
    };
    if group.rules.digest != record.rules_digest {
        doubt("these documents are not those that decided: the digest of the rules differs");
    }
    if !record.faithful {
        doubt("the record does not hold everything that rules can read about caller and target");
    }
    let mut ask = record.ask.clone();
    if let Some(text) = arguments {
        if record.arguments_digest != Some(Digest::of(text.as_bytes())) {
            doubt("the arguments given are not those of the call: their digest differs");
        }
        ask.arguments = serde_json::from_str(text).ok();
    }
    let none = Digest::of(b"{}");
    if ask.arguments.is_none() && record.arguments_digest.is_none_or(|digest| digest == none) {
        ask.arguments = Some(Value::Object(serde_json::Map::new()));
    }
    let decision = ask.put(|question| group.rules.decide_in_steps(question));
    let open = ask.arguments.is_none() && ask.action.has_arguments() && decision.reads_arguments;
    if open && decision.allowed {
        doubt("the rules read arguments, and the record holds only their digest: give them");
    }
    let rules: Vec<String> = decision.rules.iter().map(ToString::to_string).collect();
    let equal = decision.allowed == record.allowed && rules == record.rules;
    if certain && !equal {
        notes.push("the decision differs from the recorded one".to_owned());
    }
    // A tool that is pinned otherwise today was judged by what it said then.
    let asked = Ask { hints: record.ask.hints, ..ask };
    Recomputed {
        uid: record.uid.clone(),
        recorded: record.allowed,
        recorded_rules: record.rules.clone(),
        same: certain.then_some(equal),
        notes,
        explanation: explain(group, &asked),
    }
}
