//! What of a group may no longer be used, as the hot path asks for it. Empty as a rule, and then
//! every question is one look at an empty map.

use std::collections::HashMap;
use std::hash::Hash;

use crate::id::{Digest, Name};
use crate::policy::Action;
use crate::principal::Principal;
use crate::resource::{Revocation, Revoked};

/// Revocations of one group. Answers name the document.
#[derive(Debug, Default)]
pub struct Withdrawn {
    tokens: HashMap<Digest, Term>,
    token_ids: HashMap<String, Term>,
    sessions: HashMap<String, Term>,
    principals: HashMap<String, Vec<(Option<i64>, Term)>>,
    servers: HashMap<Name, Term>,
    tools: HashMap<Name, HashMap<String, Term>>,
}

/// By which document, and until when.
#[derive(Debug, Clone)]
struct Term {
    name: Name,
    expires: Option<i64>,
}

impl Term {
    fn holds(&self, now: i64) -> Option<&Name> {
        self.expires.is_none_or(|expires| now < expires).then_some(&self.name)
    }

    /// The longer of two about the same thing.
    fn join(&mut self, other: Self) {
        let longer = match (self.expires, other.expires) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(mine), Some(its)) => its > mine,
        };
        if longer {
            *self = other;
        }
    }
}

impl Withdrawn {
    /// Takes a revocation up. Those of policies and bindings are for the rules to heed.
    pub(super) fn add(&mut self, name: &Name, revocation: &Revocation) {
        let term = Term { name: name.clone(), expires: revocation.expires };
        match &revocation.what {
            Revoked::Token(hash) => put(&mut self.tokens, *hash, term),
            Revoked::TokenId(id) => put(&mut self.token_ids, id.clone(), term),
            Revoked::Session(id) => put(&mut self.sessions, id.clone(), term),
            Revoked::Principal(principal) => {
                let terms = self.principals.entry(principal.id.clone()).or_default();
                terms.push((principal.issued_before, term));
            }
            Revoked::Server(server) => put(&mut self.servers, server.clone(), term),
            Revoked::Tool(tool) => {
                let tools = self.tools.entry(tool.server.clone()).or_default();
                put(tools, tool.name.clone(), term);
            }
            Revoked::Policy(_) | Revoked::RoleBinding(_) => {}
        }
    }

    /// The revocation that a caller, or what it presented, falls under.
    pub fn caller(&self, who: &Principal, now: i64) -> Option<&Name> {
        if !self.principals.is_empty()
            && let Some(terms) = self.principals.get(&who.id())
        {
            let issued = who.token.as_ref().and_then(|token| token.issued);
            let old = |before: Option<i64>| match (before, issued) {
                (Some(before), Some(issued)) => issued < before,
                _ => true,
            };
            let mut terms = terms.iter().filter(|(before, _)| old(*before));
            if let Some(name) = terms.find_map(|(_, term)| term.holds(now)) {
                return Some(name);
            }
        }
        let token = who.token.as_ref()?;
        let by_hash = self.tokens.get(&token.sha256);
        let by_id = || self.token_ids.get(token.id.as_ref()?);
        by_hash
            .or_else(by_id)
            .and_then(|term| term.holds(now))
            .or_else(|| self.session(token.session.as_ref()?, now))
            .or_else(|| self.session(token.login.as_ref()?, now))
    }

    /// The revocation that a session falls under.
    pub fn session(&self, id: &str, now: i64) -> Option<&Name> {
        self.sessions.get(id)?.holds(now)
    }

    /// The revocation that a target falls under: its server's, or its own.
    pub fn target(&self, server: &Name, action: Action, name: &str, now: i64) -> Option<&Name> {
        if let Some(name) = self.servers.get(server).and_then(|term| term.holds(now)) {
            return Some(name);
        }
        let tools = self.tools.get(server).filter(|_| action == Action::CallTool)?;
        tools.get(name)?.holds(now)
    }
}

fn put<K: Hash + Eq>(map: &mut HashMap<K, Term>, key: K, term: Term) {
    match map.entry(key) {
        std::collections::hash_map::Entry::Occupied(mut there) => there.get_mut().join(term),
        std::collections::hash_map::Entry::Vacant(free) => drop(free.insert(term)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::principal::{Presented, Proof};
    use crate::resource::{RevokedPrincipal, RevokedTool};

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn of(all: &[(&str, Revoked, Option<i64>)]) -> Withdrawn {
        let mut withdrawn = Withdrawn::default();
        for (document, what, expires) in all {
            let revocation = Revocation { what: what.clone(), expires: *expires, because: None };
            withdrawn.add(&name(document), &revocation);
        }
        withdrawn
    }

    fn alice() -> Principal {
        let token = Presented {
            sha256: Digest::of(b"token"),
            id: Some("jti-1".to_owned()),
            session: Some("sid-1".to_owned()),
            login: Some("login-1".to_owned()),
            issued: Some(100),
        };
        Principal {
            proof: Proof::Jwt,
            provider: Some(name("okta")),
            subject: "alice".into(),
            token: Some(Arc::new(token)),
            ..Principal::anonymous()
        }
    }

    #[test]
    fn a_caller_falls_under_whatever_names_it() {
        let principal = |id: &str, issued_before| {
            Revoked::Principal(RevokedPrincipal { id: id.to_owned(), issued_before })
        };
        let cases = [
            (Revoked::Token(Digest::of(b"token")), true),
            (Revoked::Token(Digest::of(b"other")), false),
            (Revoked::TokenId("jti-1".to_owned()), true),
            (Revoked::TokenId("jti-2".to_owned()), false),
            (Revoked::Session("sid-1".to_owned()), true),
            (Revoked::Session("login-1".to_owned()), true),
            (Revoked::Session("sid-2".to_owned()), false),
            (principal("jwt:okta:alice", None), true),
            (principal("jwt:okta:alice", Some(101)), true),
            (principal("jwt:okta:alice", Some(100)), false),
            (principal("jwt:auth0:alice", None), false),
        ];
        for (what, falls) in cases {
            let withdrawn = of(&[("r1", what.clone(), Some(1_000))]);
            let expect = falls.then(|| name("r1"));
            assert_eq!(withdrawn.caller(&alice(), 999).cloned(), expect, "{what:?}");
            assert_eq!(withdrawn.caller(&alice(), 1_000), None, "{what:?} has ended by itself");
        }
    }

    #[test]
    fn targets_are_servers_and_tools() {
        let tool = |server: &str, tool: &str| {
            Revoked::Tool(RevokedTool { server: name(server), name: tool.to_owned() })
        };
        let withdrawn =
            of(&[("r1", Revoked::Server(name("crm")), None), ("r2", tool("billing", "pay"), None)]);
        let by = |server: &str, action, target: &str| {
            withdrawn.target(&name(server), action, target, 0).map(ToString::to_string)
        };
        assert_eq!(by("crm", Action::ReadResource, "x:y").as_deref(), Some("r1"));
        assert_eq!(by("billing", Action::CallTool, "pay").as_deref(), Some("r2"));
        assert_eq!(by("billing", Action::GetPrompt, "pay"), None);
        assert_eq!(by("billing", Action::CallTool, "list"), None);
        assert_eq!(by("other", Action::UseServer, ""), None);
    }

    #[test]
    fn of_two_about_one_thing_the_longer_counts() {
        let session = || Revoked::Session("s".to_owned());
        for order in [[("a", Some(10)), ("b", Some(20))], [("b", Some(20)), ("a", Some(10))]] {
            let withdrawn = of(&order.map(|(name, expires)| (name, session(), expires)));
            assert_eq!(withdrawn.session("s", 15).map(Name::as_str), Some("b"));
        }
        let withdrawn = of(&[("a", session(), Some(10)), ("b", session(), None)]);
        assert_eq!(withdrawn.session("s", i64::MAX).map(Name::as_str), Some("b"));
    }
}
