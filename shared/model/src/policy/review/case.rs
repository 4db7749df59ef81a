//! Cases: what must be true of the rules, written down.

use serde::{Deserialize, Serialize};

use super::{Ask, Call, Caller, Explanation, Place, explain};
use crate::id::Name;
use crate::snapshot::GroupView;

/// A file of cases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cases {
    /// The group that they are about.
    pub group: Name,
    /// In order.
    pub cases: Vec<Case>,
}

/// One case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Case {
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Who.
    pub caller: Caller,
    /// What.
    pub call: Call,
    /// Where and when.
    #[serde(default)]
    pub at: Place,
    /// What must come of it.
    pub expect: Expect,
    /// The deciding rules, all of them, in any order; not looked at when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<String>>,
}

/// What must come of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// The call goes.
    Allowed,
    /// It does not, and looks like one to an unknown name.
    Denied,
    /// It does not, and the caller is told which scope would do.
    InsufficientScope,
    /// It does not before somebody approves.
    ApprovalRequired,
    /// Lists show it.
    Listed,
    /// Lists do not show it.
    Hidden,
}

/// How a case went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// Its name, or its number from 1.
    pub name: String,
    /// Whether what must be true is.
    pub passed: bool,
    /// What is wrong; empty when it passed.
    pub message: String,
    /// Of a case that did not pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<Explanation>,
}

impl Expect {
    fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::InsufficientScope => "insufficient_scope",
            Self::ApprovalRequired => "approval_required",
            Self::Listed => "listed",
            Self::Hidden => "hidden",
        }
    }
}

impl Case {
    /// Checks the case against the rules of a group. `number` is its place from 1, `now` seconds
    /// since the epoch for a case that names no time.
    pub fn check(&self, group: &GroupView, number: usize, now: i64) -> Verdict {
        let name = self.name.clone().unwrap_or_else(|| number.to_string());
        let ask = match Ask::new(group, (&self.caller, &self.call, &self.at), now) {
            Ok(ask) => ask,
            Err(message) => return Verdict { name, passed: false, message, explanation: None },
        };
        let found = explain(group, &ask);
        let got = match self.expect {
            Expect::Listed | Expect::Hidden if found.listed => "listed",
            Expect::Listed | Expect::Hidden => "hidden",
            _ => found.answer.as_str(),
        };
        let mut message = String::new();
        if got != self.expect.as_str() {
            message = format!("expected {}, got {got}", self.expect.as_str());
        } else if let Some(wanted) = &self.rules {
            let sorted = |list: &[String]| {
                let mut all = list.to_vec();
                all.sort();
                all.join(", ")
            };
            let (wanted, have) = (sorted(wanted), sorted(&found.rules));
            if wanted != have {
                message = format!("expected the rules [{wanted}], decided by [{have}]");
            }
        }
        let passed = message.is_empty();
        Verdict { name, passed, message, explanation: (!passed).then_some(found) }
    }
}
