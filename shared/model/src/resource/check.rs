//! What types cannot say: each kind's own rules, found all at once, each with its path.
//!
//! Only what a document can know by itself. What it says about other documents is checked where
//! they come together, in [`crate::snapshot`].

mod access;
mod identity;
mod place;
mod revocation;
mod server;
mod system;
mod text;

pub(super) use system::{definition_json, entry_name};

use super::{ResourceKey, Spec};
use crate::id::Name;

/// Paths and sentences.
type Found = Vec<(String, String)>;

/// What is wrong with the key of a document, by itself and together with what the document says.
pub(super) fn identity(key: &ResourceKey, spec: &Spec) -> Found {
    let mut findings = Findings::default();
    if Some(key.kind) != spec.kind() {
        findings.add("kind", "is another than that of the spec");
    }
    match (key.kind.is_grouped(), &key.group) {
        (true, None) => findings.add("metadata.group", "is missing; name the group it belongs to"),
        (false, Some(_)) => {
            findings.add("metadata.group", "must not be given: this kind belongs to no group");
        }
        _ => {}
    }
    match spec {
        Spec::Catalog(spec) => system::catalog_name(&mut findings, &key.name, spec),
        Spec::Definition(spec) => system::definition_name(&mut findings, &key.name, spec),
        _ => {
            if let Err(error) = key.name.parse::<Name>() {
                findings.add("metadata.name", error.to_string());
            }
        }
    }
    findings.found
}

/// What is wrong with what a document says.
pub(super) fn spec(spec: &Spec) -> Found {
    let mut findings = Findings::default();
    let f = &mut findings;
    match spec {
        Spec::Region(spec) => place::region(f, spec),
        Spec::Group(spec) => place::group(f, spec),
        Spec::Server(spec) => server::server(f, spec),
        Spec::IdentityProvider(spec) => identity::provider(f, spec),
        Spec::ServiceAccount(spec) => identity::account(f, spec),
        Spec::Role(spec) => access::role(f, spec),
        Spec::RoleBinding(spec) => access::binding(f, spec),
        Spec::Policy(spec) => access::policy(f, spec),
        Spec::Limit(spec) => access::limit(f, spec),
        Spec::Credential(spec) => access::credential(f, spec),
        Spec::Revocation(spec) => revocation::revocation(f, spec),
        Spec::NodeRevocation(spec) => revocation::node(f, spec),
        Spec::Catalog(spec) => system::catalog(f, spec),
        Spec::Definition(spec) => system::definition(f, spec),
        Spec::Keyring(spec) => system::keyring(f, spec),
        Spec::Unreadable(why) => f.add("spec", format!("cannot be read by this build: {why}")),
    }
    findings.found
}

/// Collects what is wrong.
#[derive(Debug, Default)]
struct Findings {
    found: Found,
}

impl Findings {
    fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.found.push((path.into(), message.into()));
    }

    /// Adds the message when there is one.
    fn add_if(&mut self, path: impl Into<String>, message: Option<String>) {
        if let Some(message) = message {
            self.add(path, message);
        }
    }

    /// A list must have from `min` to `max` elements.
    fn count(&mut self, path: &str, len: usize, (min, max): (usize, usize)) {
        if len < min {
            self.add(
                path,
                if min == 1 {
                    "needs at least one".to_owned()
                } else {
                    format!("needs at least {min}")
                },
            );
        } else if len > max {
            self.add(path, format!("has {len}, at most {max} are possible"));
        }
    }

    /// Elements of a list must differ.
    fn unique<T: Ord>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        path: impl Fn(usize) -> String,
    ) {
        let mut seen = std::collections::BTreeSet::new();
        for (index, item) in items.into_iter().enumerate() {
            if !seen.insert(item) {
                self.add(path(index), "is given twice; keep one");
            }
        }
    }
}
