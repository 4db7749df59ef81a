//! Who may do what, how often, and with which credential.

use super::Findings;
use super::text::{self, Matches};
use crate::bounds;
use crate::resource::{Credential, Limit, Policy, Role, RoleBinding, Subject};

/// Patterns of one list.
const PATTERNS_MAX: usize = 200;
/// Units of a quota.
const QUOTA_MAX: u64 = 1_000_000_000_000;
/// Subjects of one binding.
const SUBJECTS_MAX: usize = 500;
/// Longest text in front of a secret.
const PREFIX_BYTES_MAX: usize = 256;
/// Longest id of a secret.
const SECRET_ID_CHARS_MAX: usize = 64;

fn patterns(f: &mut Findings, path: &str, list: &[String], matches: Matches) {
    f.count(path, list.len(), (0, PATTERNS_MAX));
    for (i, pattern) in list.iter().enumerate() {
        f.add_if(format!("{path}[{i}]"), text::pattern(pattern, matches));
    }
}

pub(super) fn role(f: &mut Findings, spec: &Role) {
    f.count("spec.rules", spec.rules.len(), (1, bounds::ROLE_RULES_MAX));
    for (i, rule) in spec.rules.iter().enumerate() {
        let at = format!("spec.rules[{i}]");
        f.count(&format!("{at}.servers"), rule.servers.len(), (1, PATTERNS_MAX));
        patterns(f, &format!("{at}.servers"), &rule.servers, Matches::Servers);
        patterns(f, &format!("{at}.tools"), &rule.tools, Matches::Names);
        patterns(f, &format!("{at}.resources"), &rule.resources, Matches::Uris);
        patterns(f, &format!("{at}.prompts"), &rule.prompts, Matches::Names);
        if rule.tools.is_empty() && rule.resources.is_empty() && rule.prompts.is_empty() {
            f.add(at, "grants nothing; give tools, resources or prompts (* for all)");
        }
    }
}

pub(super) fn binding(f: &mut Findings, spec: &RoleBinding) {
    f.count("spec.subjects", spec.subjects.len(), (1, SUBJECTS_MAX));
    for (i, subject) in spec.subjects.iter().enumerate() {
        let at = format!("spec.subjects[{i}]");
        match subject {
            Subject::ServiceAccount(_)
            | Subject::Authenticated(true)
            | Subject::Anonymous(true) => {}
            Subject::User(name) => f.add_if(format!("{at}.user"), text::attribute(name)),
            Subject::Membership(name) => {
                f.add_if(format!("{at}.membership"), text::attribute(name));
            }
            Subject::Authenticated(false) | Subject::Anonymous(false) => {
                f.add(at, "must be true; remove the subject to exclude it");
            }
        }
    }
}

pub(super) fn policy(f: &mut Findings, spec: &Policy) {
    if spec.cedar.trim().is_empty() {
        f.add("spec.cedar", "must hold at least one policy");
    } else if spec.cedar.len() > bounds::CEDAR_BYTES_MAX {
        f.add("spec.cedar", format!("must be at most {} bytes long", bounds::CEDAR_BYTES_MAX));
    }
}

pub(super) fn limit(f: &mut Findings, spec: &Limit) {
    patterns(f, "spec.servers", &spec.servers, Matches::Servers);
    patterns(f, "spec.tools", &spec.tools, Matches::Names);
    if spec.rate.is_none() && spec.concurrency.is_none() && spec.quota.is_none() {
        f.add("spec", "limits nothing; give rate, concurrency or quota");
    }
    if spec.quota.as_ref().is_some_and(|quota| !(1..=QUOTA_MAX).contains(&quota.calls)) {
        f.add("spec.quota.calls", format!("must be 1 to {QUOTA_MAX}"));
    }
    if let Some(rate) = &spec.rate {
        if rate.calls == 0 {
            f.add("spec.rate.calls", "must be at least 1; forbid calls with a Policy");
        }
        if rate.burst == Some(0) {
            f.add("spec.rate.burst", "must be at least 1; leave it out for the default");
        }
    }
    if spec.concurrency == Some(0) {
        f.add("spec.concurrency", "must be at least 1; forbid calls with a Policy");
    }
}

pub(super) fn credential(f: &mut Findings, spec: &Credential) {
    let Credential::Header(header) = spec;
    f.add_if("spec.header.name", text::header_name(&header.name));
    let visible = header.prefix.bytes().all(|b| (0x20..=0x7e).contains(&b));
    if !visible || header.prefix.starts_with(' ') || header.prefix.len() > PREFIX_BYTES_MAX {
        let message = format!("must be printable ASCII, at most {PREFIX_BYTES_MAX} bytes");
        f.add("spec.header.prefix", message);
    }
    let id = text::id(&header.value.secret, SECRET_ID_CHARS_MAX, "-_");
    f.add_if("spec.header.value.secret", id);
}
