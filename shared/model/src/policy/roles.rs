//! Roles and bindings, compiled for the hot path: from the caller to the few role grants that
//! concern it, by hash look-ups, then name patterns. No Cedar is evaluated for them; what they
//! mean in Cedar is told by [`super::translate`].

use std::collections::HashMap;
use std::sync::Arc;

use super::pattern::Patterns;
use super::review::{Clause, Considered, ROLE_NAMES};
use super::{Action, Question, RuleSource, RuleSources};
use crate::bounds;
use crate::id::Name;
use crate::principal::{Principal, Proof};
use crate::resource::{Role, RoleBinding, Rule, Subject};

/// Every pair of a role and a binding of it, indexed by subject.
#[derive(Debug, Default)]
pub(super) struct Grants {
    pairs: Vec<Pair>,
    accounts: HashMap<Box<str>, Vec<usize>>,
    users: HashMap<Box<str>, Vec<usize>>,
    memberships: HashMap<Box<str>, Vec<usize>>,
    authenticated: Vec<usize>,
    anonymous: Vec<usize>,
}

#[derive(Debug)]
struct Pair {
    id: Arc<str>,
    /// For people.
    subjects: Vec<Subject>,
    rules: Arc<[RoleRule]>,
}

#[derive(Debug)]
struct RoleRule {
    servers: Patterns,
    tools: Patterns,
    resources: Patterns,
    prompts: Patterns,
}

impl RoleRule {
    fn compile(rule: &Rule) -> Result<Self, String> {
        if rule.servers.is_empty() {
            return Err("name at least one server pattern ('*' for all)".to_owned());
        }
        if rule.tools.is_empty() && rule.resources.is_empty() && rule.prompts.is_empty() {
            let remedy = "add tools, resources or prompts ('*' for all)";
            return Err(format!("it grants nothing; {remedy}"));
        }
        Ok(Self {
            servers: Patterns::parse(&rule.servers).map_err(|why| format!("servers: {why}"))?,
            tools: Patterns::parse(&rule.tools).map_err(|why| format!("tools: {why}"))?,
            resources: Patterns::parse(&rule.resources).map_err(|w| format!("resources: {w}"))?,
            prompts: Patterns::parse(&rule.prompts).map_err(|why| format!("prompts: {why}"))?,
        })
    }

    fn grants(&self, question: &Question<'_>) -> bool {
        self.servers.matches(question.server.as_str())
            && match question.action {
                Action::CallTool => self.tools.matches(question.target),
                Action::ReadResource => self.resources.matches(question.target),
                Action::GetPrompt => self.prompts.matches(question.target),
                Action::UseServer => true,
            }
    }
}

/// The id of what a binding of a role grants.
pub(super) fn rule_id(role: &Name, binding: &Name) -> String {
    format!("role:{role}/binding:{binding}")
}

impl Grants {
    pub(super) fn compile(
        sources: &RuleSources<'_>,
        errors: &mut Vec<(RuleSource, String)>,
    ) -> Self {
        let mut roles: HashMap<&Name, Arc<[RoleRule]>> = HashMap::new();
        for (name, role) in &sources.roles {
            match compile_role(role) {
                Ok(rules) => drop(roles.insert(name, rules)),
                Err(why) => errors.push((RuleSource::Role((*name).clone()), why)),
            }
        }
        let mut grants = Self::default();
        for (name, binding) in &sources.bindings {
            let source = || RuleSource::Binding((*name).clone());
            if !sources.roles.iter().any(|(role, _)| **role == binding.role) {
                let why = format!("role {} does not exist in this group", binding.role);
                errors.push((source(), why));
            } else if let Err(why) = check_subjects(binding) {
                errors.push((source(), why));
            } else if let Some(rules) = roles.get(&binding.role) {
                grants.bind(name, binding, rules);
            }
        }
        grants
    }

    fn bind(&mut self, name: &Name, binding: &RoleBinding, rules: &Arc<[RoleRule]>) {
        let at = self.pairs.len();
        let id = rule_id(&binding.role, name).into();
        let subjects = binding.subjects.clone();
        self.pairs.push(Pair { id, subjects, rules: Arc::clone(rules) });
        for subject in &binding.subjects {
            let list = match subject {
                Subject::ServiceAccount(name) => {
                    self.accounts.entry(name.as_str().into()).or_default()
                }
                Subject::User(user) => self.users.entry(user.as_str().into()).or_default(),
                Subject::Membership(m) => self.memberships.entry(m.as_str().into()).or_default(),
                Subject::Authenticated(_) => &mut self.authenticated,
                Subject::Anonymous(_) => &mut self.anonymous,
            };
            list.push(at);
        }
    }

    /// Adds the ids of every pair that grants, in the order of the bindings.
    pub(super) fn collect(&self, question: &Question<'_>, into: &mut Vec<Arc<str>>) {
        if self.pairs.is_empty() {
            return;
        }
        for at in self.of(question.principal) {
            let pair = &self.pairs[at];
            if pair.rules.iter().any(|rule| rule.grants(question)) {
                into.push(Arc::clone(&pair.id));
            }
        }
    }

    /// Every pair that concerns the caller or the target.
    pub(super) fn considered(&self, question: &Question<'_>) -> Vec<Considered> {
        let mine = self.of(question.principal);
        let mut all = Vec::new();
        for (at, pair) in self.pairs.iter().enumerate() {
            let bound = mine.contains(&at);
            let granted = pair.rules.iter().any(|rule| rule.grants(question));
            if !bound && !granted {
                continue;
            }
            let subjects: Vec<String> = pair.subjects.iter().map(told).collect();
            all.push(Considered {
                rule: pair.id.to_string(),
                effect: "permit".to_owned(),
                applies: bound && granted,
                clauses: vec![
                    Clause {
                        text: format!("the caller is one of: {}", subjects.join(", ")),
                        met: Some(bound),
                    },
                    Clause { text: ROLE_NAMES.to_owned(), met: Some(granted) },
                ],
            });
        }
        all
    }

    fn of(&self, principal: &Principal) -> Vec<usize> {
        let mut found = Vec::new();
        let mut add = |list: Option<&Vec<usize>>| found.extend(list.into_iter().flatten());
        match principal.proof {
            Proof::Anonymous => add(Some(&self.anonymous)),
            Proof::ApiToken => add(self.accounts.get(&*principal.subject)),
            Proof::Jwt => add(self.users.get(&*principal.subject)),
            Proof::Certificate => {}
        }
        if principal.proof != Proof::Anonymous {
            add(Some(&self.authenticated));
        }
        if !self.memberships.is_empty() {
            principal.memberships.iter().for_each(|m| add(self.memberships.get(&**m)));
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

fn told(subject: &Subject) -> String {
    match subject {
        Subject::ServiceAccount(name) => format!("service account {name}"),
        Subject::User(user) => format!("user {user}"),
        Subject::Membership(membership) => format!("a member of {membership}"),
        Subject::Authenticated(_) => "anybody who proved who they are".to_owned(),
        Subject::Anonymous(_) => "anonymous".to_owned(),
    }
}

fn compile_role(role: &Role) -> Result<Arc<[RoleRule]>, String> {
    if role.rules.is_empty() {
        return Err("rules: a role needs at least one rule".to_owned());
    }
    if role.rules.len() > bounds::ROLE_RULES_MAX {
        return Err(format!("rules: a role has at most {}", bounds::ROLE_RULES_MAX));
    }
    let compiled = role.rules.iter().enumerate();
    compiled
        .map(|(at, rule)| RoleRule::compile(rule).map_err(|why| format!("rules[{at}]: {why}")))
        .collect()
}

fn check_subjects(binding: &RoleBinding) -> Result<(), String> {
    if binding.subjects.is_empty() {
        return Err("subjects: name at least one subject".to_owned());
    }
    for (at, subject) in binding.subjects.iter().enumerate() {
        let why = match subject {
            Subject::User(text) | Subject::Membership(text) if text.is_empty() => {
                "must not be empty"
            }
            Subject::Authenticated(false) | Subject::Anonymous(false) => {
                "must be true; leave the subject out to exclude it"
            }
            _ => continue,
        };
        return Err(format!("subjects[{at}]: {why}"));
    }
    Ok(())
}
