//! A small language for rules and questions, for tests: what it cannot read is a mistake in a test,
//! and panics.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

use std::net::IpAddr;
use std::sync::Arc;

use crate::id::Name;
use crate::policy::review::Ask;
use crate::policy::{Action, Context, RuleSource, RuleSources, Rules};
use crate::principal::{Principal, Proof};
use crate::resource::{Policy, Role, RoleBinding, Rule, Subject};
use crate::snapshot::Hints;

/// A name.
pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn words(list: &str) -> Vec<String> {
    list.split(',').filter(|s| !s.is_empty()).map(str::to_owned).collect()
}

fn sorted(list: &str) -> Arc<[Arc<str>]> {
    let mut all: Vec<Arc<str>> = words(list).into_iter().map(Into::into).collect();
    all.sort();
    all.into()
}

/// Documents of one group.
#[derive(Debug, Clone, Default)]
pub struct Docs {
    /// By name.
    pub roles: Vec<(Name, Role)>,
    /// By name.
    pub bindings: Vec<(Name, RoleBinding)>,
    /// By name.
    pub policies: Vec<(Name, Policy)>,
    /// Policies that were revoked.
    pub powerless: Vec<Name>,
}

impl Docs {
    /// `rule("billing", "refund*", "", "")`: comma-separated patterns.
    pub fn rule(servers: &str, tools: &str, resources: &str, prompts: &str) -> Rule {
        Rule {
            servers: words(servers),
            tools: words(tools),
            resources: words(resources),
            prompts: words(prompts),
        }
    }
    /// Adds a role.
    #[must_use]
    pub fn role(mut self, role: &str, rules: Vec<Rule>) -> Self {
        self.roles.push((name(role), Role { rules }));
        self
    }
    /// Binds a role.
    #[must_use]
    pub fn bind(mut self, binding: &str, role: &str, subjects: Vec<Subject>) -> Self {
        self.bindings.push((name(binding), RoleBinding { role: name(role), subjects }));
        self
    }
    /// Adds Cedar text.
    #[must_use]
    pub fn policy(mut self, policy: &str, cedar: &str) -> Self {
        self.policies.push((name(policy), Policy { cedar: cedar.to_owned() }));
        self
    }
    /// Revokes a policy.
    #[must_use]
    pub fn revoke(mut self, policy: &str) -> Self {
        self.powerless.push(name(policy));
        self
    }
    /// A role that grants everything to everybody who proved who they are.
    #[must_use]
    pub fn open(self) -> Self {
        self.role("all", vec![Self::rule("*", "*", "*", "*")]).bind(
            "everyone",
            "all",
            vec![Subject::Authenticated(true)],
        )
    }
    /// The rules, and what is wrong with the documents.
    pub fn try_compile(&self) -> (Rules, Vec<(RuleSource, String)>) {
        let group = name("acme");
        Rules::compile(&RuleSources {
            powerless: self.powerless.iter().collect(),
            group: Some(&group),
            roles: self.roles.iter().map(|(n, r)| (n, r)).collect(),
            bindings: self.bindings.iter().map(|(n, r)| (n, r)).collect(),
            policies: self.policies.iter().map(|(n, r)| (n, r)).collect(),
        })
    }
    /// The rules of documents without a fault.
    pub fn compile(&self) -> Rules {
        let (rules, errors) = self.try_compile();
        assert!(errors.is_empty(), "{errors:?}");
        rules
    }
}

/// `ask("user:alice groups=a,b", "call billing/refund {...}", "hour=9 peer=10.0.0.1")`.
/// Without arguments the call carries `{}`; `?` instead of them leaves them open.
pub fn ask(who: &str, what: &str, place: &str) -> Ask {
    let mut parts = what.splitn(3, ' ');
    let (verb, target) = (parts.next().unwrap(), parts.next().unwrap());
    let action = match verb {
        "call" => Action::CallTool,
        "read" => Action::ReadResource,
        "prompt" => Action::GetPrompt,
        "use" => Action::UseServer,
        other => panic!("{other}"),
    };
    let (server, target) = target.split_once('/').unwrap_or((target, ""));
    let mut hints = Hints::default();
    let arguments = match parts.next() {
        None | Some("read-only") => Some(serde_json::json!({})),
        Some("?") => None,
        Some(json) => Some(serde_json::from_str(json).unwrap()),
    };
    if what.ends_with("read-only") {
        hints = Hints { read_only: true, destructive: false, ..hints };
    }
    Ask {
        principal: caller(who),
        action,
        server: name(server),
        target: target.to_owned(),
        hints,
        arguments,
        context: context(place),
    }
}

/// `user:alice groups=a,b scopes=x provider=okta client=cli`, `account:ci`, `anonymous`.
pub fn caller(text: &str) -> Principal {
    let mut parts = text.split(' ');
    let who = parts.next().unwrap();
    let mut principal = Principal::anonymous();
    if let Some((kind, subject)) = who.split_once(':') {
        principal.subject = subject.into();
        principal.proof = match kind {
            "user" => Proof::Jwt,
            "account" => Proof::ApiToken,
            "certificate" => Proof::Certificate,
            other => panic!("{other}"),
        };
    }
    for part in parts {
        let (key, value) = part.split_once('=').unwrap();
        match key {
            "groups" => principal.memberships = sorted(value),
            "scopes" => principal.scopes = sorted(value),
            "provider" => principal.provider = Some(name(value)),
            "credential" => principal.credential = Some(value.into()),
            other => panic!("{other}"),
        }
    }
    principal
}

/// `region=eu hour=9 weekday=1 date=2026-11-23 peer=10.0.0.1 client=cursor`.
pub fn context(text: &str) -> Context {
    // Monday, 2026-11-23, 00:00 UTC.
    let (mut day, mut hour) = (1_795_392_000_i64, 12_i64);
    let mut context = Context { revision: "2025-11-25".to_owned(), ..Context::default() };
    for part in text.split(' ').filter(|s| !s.is_empty()) {
        let (key, value) = part.split_once('=').unwrap();
        match key {
            "region" => context.region = value.to_owned(),
            "hour" => hour = value.parse().unwrap(),
            "weekday" => day += 86_400 * (value.parse::<i64>().unwrap() - 1),
            "date" => {
                day = format!("{value}T00:00:00Z").parse::<jiff::Timestamp>().unwrap().as_second()
            }
            "peer" => context.peer = Some(value.parse::<IpAddr>().unwrap()),
            "client" => context.client = Some(value.to_owned()),
            "revision" => context.revision = value.to_owned(),
            other => panic!("{other}"),
        }
    }
    context.now = day + hour * 3_600;
    context
}
