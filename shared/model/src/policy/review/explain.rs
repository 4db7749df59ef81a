//! Why a decision is as it is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Ask, by_name, told};
use crate::policy::obligation;
use crate::snapshot::GroupView;

/// A decision, every rule that had a say, and what would change it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The decision.
    pub allowed: bool,
    /// Whether lists show it.
    pub listed: bool,
    /// `allowed`, or the refusal: `denied` (told as unknown), `insufficient_scope`,
    /// `approval_required`.
    pub answer: String,
    /// Ids of the deciding rules; empty when nothing granted.
    pub rules: Vec<String>,
    /// Annotations of the deciding rules.
    pub obligations: BTreeMap<String, Vec<String>>,
    /// Rules that could not be evaluated, which denies.
    pub errors: Vec<String>,
    /// Every rule that concerns the target or the caller.
    pub considered: Vec<Considered>,
    /// What it would take for the call to be allowed, in sentences; each way by itself.
    pub needed: Vec<String>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Considered {
    /// Its id.
    pub rule: String,
    /// `permit` or `forbid`.
    pub effect: String,
    /// Whether all of it is met.
    pub applies: bool,
    /// Its parts.
    pub clauses: Vec<Clause>,
}

/// One part of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Clause {
    /// As Cedar, or as a sentence for a part of a role.
    pub text: String,
    /// Whether it is met; none when that depends on what is not known, or cannot be evaluated.
    pub met: Option<bool>,
}

/// The part of a role about its target.
pub(in crate::policy) const ROLE_NAMES: &str = "the role names the target";

/// Explains the decision about a question.
pub fn explain(group: &GroupView, ask: &Ask) -> Explanation {
    let decision = ask.decide(&group.rules);
    let considered = ask.put(|question| group.rules.considered(question));
    let answer = told(&decision);
    let mut needed = Vec::new();
    if let Some(why) = &group.quarantined {
        needed.push(format!("the group serves nobody until its documents are mended: {why}"));
    }
    match answer {
        "allowed" => {}
        "approval_required" => {
            let from = obligation::approvers(&decision.obligations).join(", ");
            needed.push(format!("the approval of {from}"));
        }
        _ if !decision.errors.is_empty() => needed.extend(
            decision.errors.iter().map(|why| format!("a rule that can be evaluated: {why}")),
        ),
        _ if decision.rules.is_empty() => grants(ask, &considered, &mut needed),
        _ => lifts(&decision.rules, (&decision.obligations, answer), &considered, &mut needed),
    }
    Explanation {
        allowed: decision.allowed,
        listed: ask.listed(&group.rules),
        answer: answer.to_owned(),
        rules: decision.rules.iter().map(ToString::to_string).collect(),
        obligations: by_name(&decision.obligations),
        errors: decision.errors,
        considered,
        needed,
    }
}

/// Nothing grants: what would.
fn grants(ask: &Ask, considered: &[Considered], needed: &mut Vec<String>) {
    // A role that does not name the target has nothing to do with it.
    let elsewhere = |rule: &Considered| {
        rule.rule.starts_with("role:")
            && rule.clauses.iter().any(|c| c.text == ROLE_NAMES && c.met == Some(false))
    };
    for rule in considered.iter().filter(|rule| rule.effect == "permit" && !elsewhere(rule)) {
        needed.push(format!("for {}: {}", rule.rule, unmet(rule)));
    }
    if needed.is_empty() {
        let what = match ask.target.as_str() {
            "" => ask.server.to_string(),
            target => format!("{}/{target}", ask.server),
        };
        needed.push(format!("a role or a permit that names {what}: none does"));
    }
}

/// Something forbids: what would lift it.
fn lifts(
    rules: &[std::sync::Arc<str>],
    (obligations, answer): (&[(String, String)], &str),
    considered: &[Considered],
    needed: &mut Vec<String>,
) {
    if answer == "insufficient_scope" {
        let named = obligations.iter().filter(|(key, _)| key == obligation::SCOPE);
        let scopes: Vec<&str> = named.map(|(_, scopes)| scopes.as_str()).collect();
        needed.push(format!("a token with the scope: {}", scopes.join(" ")));
        return;
    }
    for id in rules {
        let Some(rule) = considered.iter().find(|rule| rule.rule == **id) else { continue };
        // The scope comes first; it holds for as long as the caller asks for this.
        let parts: Vec<String> =
            rule.clauses.iter().skip(1).map(|clause| format!("`{}`", clause.text)).collect();
        needed.push(match parts.is_empty() {
            true => format!("that {id} is taken out: it forbids this whatever else is true"),
            false => format!(
                "that {id} does not apply, because one of these is not met: {}",
                parts.join(", ")
            ),
        });
    }
}

fn unmet(rule: &Considered) -> String {
    let open = rule.clauses.iter().filter(|clause| clause.met != Some(true));
    let parts: Vec<String> = open.map(|clause| format!("`{}`", clause.text)).collect();
    parts.join(" and ")
}
