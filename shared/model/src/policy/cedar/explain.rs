//! Rules taken apart: which of their conditions are met. Slow, by Cedar alone, for people.

use cedar_policy::{Authorizer, Decision as Verdict, Effect, Policy, PolicySet};
use serde_json::{Value, json};

use super::super::facts::Facts;
use super::super::reads::{Reads, Wanted};
use super::super::review::{Clause, Considered};
use super::super::weaken::{self, Open};
use super::{Answer, Cedar, Question, Rule, Slice, open_part};
use crate::id::Name;
use crate::policy::Action;

impl Cedar {
    /// Every rule that can concern the question by its scope, in order.
    pub(in crate::policy) fn considered(&self, question: &Question<'_>) -> Vec<Considered> {
        let mut all = Vec::new();
        for rule in self.rules.iter().filter(|rule| rule.concerns(question)) {
            let clauses = rule.clauses(question, self.group.as_ref());
            all.push(Considered {
                rule: rule.id.to_string(),
                effect: if rule.effect == Effect::Permit { "permit" } else { "forbid" }.to_owned(),
                applies: clauses.iter().all(|clause| clause.met == Some(true)),
                clauses,
            });
        }
        all
    }

    /// True when a permit is satisfied, whatever is forbidden. By Cedar alone.
    pub(in crate::policy) fn permits(&self, question: &Question<'_>) -> bool {
        let slices: Vec<&Slice> = self.slices(question).into_iter().flatten().collect();
        let reads: Vec<&Reads> = slices.iter().map(|slice| &slice.reads).collect();
        let open = open_part(question);
        let Ok(facts) = Facts::new(question, self.group.as_ref(), Wanted(&reads)) else {
            return false;
        };
        let all = slices.iter().flat_map(|slice| slice.all.pick(open).policies());
        let permits = all.filter(|policy| policy.effect() == Effect::Permit).cloned();
        let Ok(permits) = PolicySet::from_policies(permits) else { return false };
        let mut answer = Answer::default();
        self.ask(&permits, &facts, open, &mut answer);
        !answer.permits.is_empty()
    }
}

impl Rule {
    fn concerns(&self, question: &Question<'_>) -> bool {
        let using = question.action == Action::UseServer;
        let place = self.scope.place.covers(question);
        let reaches = using && self.effect == Effect::Permit;
        place && (reaches || self.scope.actions[question.action.index()])
    }

    /// The scope, then each condition.
    fn clauses(&self, question: &Question<'_>, group: Option<&Name>) -> Vec<Clause> {
        let Ok(written) = self.full.to_json() else { return Vec::new() };
        let weakened = match open_part(question) {
            Some(Open::Target) if self.effect == Effect::Forbid => {
                weaken::weaken(&written, Open::Arguments)
            }
            Some(open) => weaken::weaken(&written, open),
            None => written.clone(),
        };
        let head = |policy: &Value| {
            json!({ "effect": "permit", "principal": policy["principal"],
                "action": policy["action"], "resource": policy["resource"], "conditions": [] })
        };
        let body = |condition: &Value| {
            json!({ "effect": "permit", "principal": {"op": "All"}, "action": {"op": "All"},
                "resource": {"op": "All"}, "conditions": [condition] })
        };
        let count = written["conditions"].as_array().map_or(0, Vec::len);
        let parts = std::iter::once((head(&written), head(&weakened))).chain(
            (0..count)
                .map(|at| (body(&written["conditions"][at]), body(&weakened["conditions"][at]))),
        );
        parts
            .enumerate()
            .filter_map(|(at, (written, weakened))| {
                let policy = Policy::from_json(None, written.clone()).ok()?;
                let text = text_of(&policy, at > 0);
                // What was rewritten depends on what is not known.
                let met = if at > 0 && written != weakened {
                    None
                } else {
                    self.met(&weakened, question, group)
                };
                Some(Clause { text, met })
            })
            .collect()
    }

    fn met(&self, policy: &Value, question: &Question<'_>, group: Option<&Name>) -> Option<bool> {
        let policy = Policy::from_json(None, policy.clone()).ok()?;
        let mut policies = PolicySet::new();
        policies.add(policy).ok()?;
        let facts = Facts::new(question, group, Wanted(&[&self.reads])).ok()?;
        let response = Authorizer::new().is_authorized(&facts.request, &policies, &facts.entities);
        let failed = response.diagnostics().errors().next().is_some();
        (!failed).then_some(response.decision() == Verdict::Allow)
    }
}

/// The conditions of a policy, or its scope, on one line.
fn text_of(policy: &Policy, condition: bool) -> String {
    let text = policy.to_string();
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = line.trim_end_matches(';');
    if condition {
        let at = line.find(" when ").into_iter().chain(line.find(" unless ")).min();
        return at.map_or(line, |at| &line[at..]).trim().to_owned();
    }
    let scope = line.trim_start_matches("permit").trim();
    scope.trim_start_matches('(').trim_end_matches(')').trim().trim_end_matches(',').to_owned()
}
