//! What roles and bindings mean, told in Cedar: for people who ask why, and for the tests that
//! hold the fast matcher against it.

use std::fmt::Write as _;

use super::RuleSources;
use super::roles::rule_id;
use crate::id::Name;
use crate::resource::{Role, RoleBinding, Rule, Subject};

/// Cedar text of every binding, one policy for each rule and action, in order.
pub(super) fn bindings(sources: &RuleSources<'_>) -> String {
    let mut text = String::new();
    for (name, binding) in &sources.bindings {
        if let Some((_, role)) = sources.roles.iter().find(|(role, _)| **role == binding.role) {
            one(&mut text, name, binding, role);
        }
    }
    text
}

fn one(text: &mut String, name: &Name, binding: &RoleBinding, role: &Role) {
    let subjects: Vec<String> = binding.subjects.iter().map(subject).collect();
    let id = literal(&rule_id(&binding.role, name));
    for rule in &role.rules {
        for (action, kind, patterns) in targets(rule) {
            let mut when = vec![any(&subjects), likes("resource.server", &rule.servers)];
            if let Some(patterns) = patterns {
                when.push(likes("resource.name", patterns));
            }
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "@id({id})\npermit (principal, action == Action::\"{action}\", resource is {kind})\nwhen {{ {} }};\n",
                when.join(" && ")
            );
        }
    }
}

type Target<'a> = (&'static str, &'static str, Option<&'a [String]>);

fn targets(rule: &Rule) -> Vec<Target<'_>> {
    let mut all: Vec<Target<'_>> = [
        ("CallTool", "Tool", &rule.tools),
        ("ReadResource", "Resource", &rule.resources),
        ("GetPrompt", "Prompt", &rule.prompts),
    ]
    .into_iter()
    .filter(|(_, _, patterns)| !patterns.is_empty())
    .map(|(action, kind, patterns)| (action, kind, Some(patterns.as_slice())))
    .collect();
    all.push(("UseServer", "Server", None));
    all
}

fn subject(subject: &Subject) -> String {
    match subject {
        Subject::ServiceAccount(name) => {
            format!("principal == ServiceAccount::{}", literal(name.as_str()))
        }
        Subject::User(user) => format!("principal == User::{}", literal(user)),
        Subject::Membership(m) => format!("principal.memberships.contains({})", literal(m)),
        Subject::Authenticated(_) => "!(principal is Anonymous)".to_owned(),
        Subject::Anonymous(_) => "principal is Anonymous".to_owned(),
    }
}

fn likes(attribute: &str, patterns: &[String]) -> String {
    let tests: Vec<String> =
        patterns.iter().map(|p| format!("{attribute} like {}", literal(p))).collect();
    any(&tests)
}

fn any(tests: &[String]) -> String {
    format!("({})", tests.join(" || "))
}

/// A Cedar string literal. `*` stays the wildcard that it is in our patterns.
pub(super) fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
