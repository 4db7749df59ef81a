//! Why a decision is as it is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Ask, by_name, told};
use crate::policy::{Action, obligation};
use crate::principal::Proof;
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
    /// What else decides about such a call, whatever the rules say, in sentences.
    #[serde(default)]
    pub notes: Vec<String>,
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
    let grants_it = decision.allowed || ask.put(|question| group.rules.grants(question));
    let answer = told(&decision, || grants_it);
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
        notes: notes(group, ask, grants_it || decision.rules.is_empty()),
    }
}

/// What refuses a call before any rule is asked, and that it takes more than to lift a `forbid`
/// where nothing grants.
fn notes(group: &GroupView, ask: &Ask, granted: bool) -> Vec<String> {
    let mut notes = Vec::new();
    let (who, now) = (&ask.principal, ask.context.now);
    let known = match (who.proof, &who.provider) {
        (Proof::Anonymous, _) => group.spec.anonymous,
        (Proof::Jwt, Some(provider)) => group.providers.iter().any(|p| p.name == *provider),
        (Proof::Jwt, None) => !group.providers.is_empty(),
        (Proof::ApiToken, _) => {
            group.tokens.values().any(|token| token.principal.subject == who.subject)
        }
        (Proof::Certificate, _) => group.spec.certificates.is_some(),
    };
    if !known {
        notes.push(match who.proof {
            Proof::Anonymous => "the group lets nobody in without a token".to_owned(),
            Proof::Jwt => "the group has no such identity provider".to_owned(),
            Proof::ApiToken => {
                format!("no token of a service account {} is in force in the group", who.subject)
            }
            Proof::Certificate => "the group takes no client certificates".to_owned(),
        });
    }
    if let Some(name) = group.withdrawn.caller(who, now) {
        notes.push(format!("the caller is revoked by Revocation {name}"));
    }
    let withdrawn = group.withdrawn.target(&ask.server, ask.action, &ask.target, now);
    if let Some(name) = withdrawn {
        notes.push(format!("the target is revoked by Revocation {name}"));
    }
    notes.extend(missing(group, ask));
    if !granted {
        notes.push(format!(
            "nothing grants it either: it takes a role or a permit for {}",
            what(ask)
        ));
    }
    notes
}

/// The target, as people write it.
fn what(ask: &Ask) -> String {
    match ask.target.as_str() {
        "" => ask.server.to_string(),
        target => format!("{}/{target}", ask.server),
    }
}

/// Why nothing would answer.
fn missing(group: &GroupView, ask: &Ask) -> Option<String> {
    let (server, target) = (&ask.server, ask.target.as_str());
    let Some(view) = group.servers.get(server) else {
        return Some(format!("the group has no server {server}"));
    };
    if let Some(why) = &view.quarantined {
        return Some(format!("the server {server} serves nobody until it is mended: {why}"));
    }
    let mut catalogs = view.versions.iter().filter_map(|version| version.catalog.as_ref());
    let what = match ask.action {
        Action::CallTool => "tool",
        Action::GetPrompt => "prompt",
        // Which template a URI belongs to is for the proxy to say.
        Action::ReadResource | Action::UseServer => return None,
    };
    if view.versions.iter().all(|version| version.catalog.is_none()) {
        return Some(format!("nothing is pinned of the server {server} yet"));
    }
    let there = catalogs.any(|catalog| match ask.action {
        Action::CallTool => catalog.tool(target).is_some(),
        _ => catalog.prompt(target).is_some(),
    });
    (!there).then(|| format!("no version of the server {server} has a {what} {target}"))
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
        needed.push(format!("a role or a permit that names {}: none does", what(ask)));
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
