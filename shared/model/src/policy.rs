//! Who may do what: roles, bindings and Cedar policies of one group, compiled; pure and total.
//!
//! Default deny. A `forbid` beats every grant. A policy that fails while it is evaluated denies
//! the call (fail closed) and is named in the decision.

use std::sync::Arc;

use crate::id::{Digest, Name};
use crate::principal::Principal;
use crate::resource::{Policy, Role, RoleBinding};
use crate::snapshot::Hints;

/// The compiled rules of one group.
#[derive(Debug, Default)]
pub struct Rules {
    /// Of everything that the rules were compiled from; keys cached decisions.
    pub digest: Digest,
}

/// What the rules of a group are compiled from.
#[derive(Debug, Default)]
pub struct RuleSources<'a> {
    /// Names the Cedar group entity.
    pub group: Option<&'a Name>,
    /// By name.
    pub roles: Vec<(&'a Name, &'a Role)>,
    /// By name.
    pub bindings: Vec<(&'a Name, &'a RoleBinding)>,
    /// By name.
    pub policies: Vec<(&'a Name, &'a Policy)>,
}

/// What a caller wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// `tools/call`, and whether `tools/list` shows it.
    CallTool,
    /// `resources/read`, subscriptions, and whether lists show it. The target is a URI or template.
    ReadResource,
    /// `prompts/get`, and whether `prompts/list` shows it.
    GetPrompt,
    /// Anything else on a server (lists, discovery, completion without a target): allowed when
    /// any grant of the caller reaches the server. The target is empty.
    UseServer,
}

/// One question to the rules.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Who.
    pub principal: &'a Principal,
    /// What.
    pub action: Action,
    /// On which server.
    pub server: &'a Name,
    /// Upstream's tool or prompt name, or URI; empty for `UseServer`.
    pub target: &'a str,
    /// Of the tool; the default for everything else.
    pub hints: Hints,
    /// `arguments` of a call; none while listing, when rules that read arguments count as "may".
    pub arguments: Option<&'a serde_json::Value>,
    /// Where and when.
    pub context: &'a Context,
}

/// What a rule may read beside principal and target.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// Region of the proxy.
    pub region: String,
    /// Seconds since the epoch.
    pub now: i64,
    /// Address of the peer.
    pub peer: Option<std::net::IpAddr>,
    /// The client's self-reported name; never a basis for a grant, useful for a forbid.
    pub client: Option<String>,
    /// MCP revision of the client.
    pub revision: String,
}

/// An answer, with the rules that made it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// False unless something grants and nothing forbids.
    pub allowed: bool,
    /// Ids of the deciding rules: `role:reader/binding:ci`, `policy:office-hours#0`. Empty when
    /// nothing granted.
    pub rules: Vec<Arc<str>>,
    /// True when the answer may change with `arguments`.
    pub reads_arguments: bool,
    /// True when the answer may change with `context`.
    pub reads_context: bool,
    /// Cedar annotations of the deciding rules other than `@id`: (`audit`, `full`), ...
    pub obligations: Vec<(String, String)>,
}

impl Rules {
    /// Compiles; the second part names each source that cannot be used (`Policy` text that does
    /// not parse or type-check, a binding to an unknown role, a bad pattern) and why.
    pub fn compile(sources: &RuleSources<'_>) -> (Self, Vec<(RuleSource, String)>) {
        let _ = sources;
        todo!()
    }

    /// Decides. With `arguments: None` a rule that reads them counts as it would help the caller
    /// (a conditional permit may allow, a conditional forbid may not deny): "might be allowed".
    pub fn decide(&self, question: &Question<'_>) -> Decision {
        let _ = question;
        todo!()
    }
}

/// Which source a compile error is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleSource {
    /// A `Role` by name.
    Role(Name),
    /// A `RoleBinding` by name.
    Binding(Name),
    /// A `Policy` by name.
    Policy(Name),
}
