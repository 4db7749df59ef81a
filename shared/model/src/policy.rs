//! Who may do what: roles, bindings and Cedar policies of one group, compiled; pure and total.
//!
//! Default deny. A `forbid` beats every grant. A policy that fails while it is evaluated denies
//! the call (fail closed) and is named in the decision.
//!
//! Roles are answered by a matcher of our own ([`roles`]); only questions that a Cedar policy can
//! concern by its scope evaluate Cedar, and only those policies ([`cedar`]). What both mean
//! together is one Cedar policy set over [`SCHEMA`]; tests hold the two against each other.

mod arguments;
mod cedar;
mod clock;
mod facts;
mod guard;
mod native;
pub mod obligation;
mod pattern;
mod reads;
pub mod review;
mod roles;
mod scope;
#[cfg(test)]
mod tests;
mod translate;
mod weaken;

pub use cedar::SCHEMA;
pub use pattern::{Pattern, Patterns};

use std::collections::BTreeSet;
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
    grants: roles::Grants,
    cedar: cedar::Cedar,
    translation: String,
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
    /// Policies that were revoked: they permit nothing any more, and forbid what they did.
    pub powerless: BTreeSet<&'a Name>,
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

impl Action {
    /// Every action.
    pub const ALL: [Self; 4] =
        [Self::CallTool, Self::ReadResource, Self::GetPrompt, Self::UseServer];

    /// As in Cedar text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CallTool => "CallTool",
            Self::ReadResource => "ReadResource",
            Self::GetPrompt => "GetPrompt",
            Self::UseServer => "UseServer",
        }
    }

    /// The Cedar entity type of its targets.
    pub(crate) fn target_type(self) -> &'static str {
        match self {
            Self::CallTool => "Tool",
            Self::ReadResource => "Resource",
            Self::GetPrompt => "Prompt",
            Self::UseServer => "Server",
        }
    }

    /// Position in [`Action::ALL`].
    pub(crate) fn index(self) -> usize {
        self as usize
    }

    /// True when requests of the kind carry `arguments`.
    pub(crate) fn has_arguments(self) -> bool {
        matches!(self, Self::CallTool | Self::GetPrompt)
    }
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

impl Context {
    /// The generation of the protocol that the client speaks: `modern` (stateless, from
    /// 2026-07-28 on) or `legacy`.
    pub fn era(&self) -> &'static str {
        // Revisions are dates; one that is not known counts as older.
        if self.revision.as_str() >= "2026-07-28" { "modern" } else { "legacy" }
    }
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
    /// Why rules could not be evaluated, which denies. Never quotes arguments.
    pub errors: Vec<String>,
}

impl Rules {
    /// Compiles; the second part names each source that cannot be used (`Policy` text that does
    /// not parse or type-check, a binding to an unknown role, a bad pattern) and why.
    pub fn compile(sources: &RuleSources<'_>) -> (Self, Vec<(RuleSource, String)>) {
        let mut errors = Vec::new();
        let grants = roles::Grants::compile(sources, &mut errors);
        let cedar = cedar::Cedar::compile(sources, &mut errors);
        let translation = translate::bindings(sources);
        (Self { digest: digest(sources), grants, cedar, translation }, errors)
    }

    /// Decides. With `arguments: None` a rule that reads them counts as it would help the caller
    /// (a conditional permit may allow, a conditional forbid may not deny): "might be allowed".
    pub fn decide(&self, question: &Question<'_>) -> Decision {
        let question = without_strange_arguments(question);
        self.told(question.action, self.granted(&question), self.cedar.answer(&question))
    }

    /// Decides with Cedar alone, past the evaluator of our own: the same answer, for tests and for
    /// comparisons.
    #[doc(hidden)]
    pub fn decide_by_cedar(&self, question: &Question<'_>) -> Decision {
        let question = without_strange_arguments(question);
        self.told(question.action, self.granted(&question), self.cedar.by_cedar(&question))
    }

    /// Everything that can be decided before arguments and context are known; none when that is
    /// nothing. The question says whether there will be arguments.
    pub fn residual(&self, question: &Question<'_>) -> Option<Residual> {
        let question = without_strange_arguments(question);
        let residue = self.cedar.residue(&question)?;
        Some(Residual { granted: self.granted(&question), residue })
    }

    /// Decides a question that differs at most in arguments and context from the one that the
    /// residual was made of: the same answer as [`Rules::decide`].
    pub fn finish(&self, residual: &Residual, question: &Question<'_>) -> Decision {
        let question = without_strange_arguments(question);
        let answer = self
            .cedar
            .finish(&residual.residue, &question)
            .unwrap_or_else(|| self.cedar.by_cedar(&question));
        self.told(question.action, residual.granted.clone(), answer)
    }

    fn granted(&self, question: &Question<'_>) -> Vec<Arc<str>> {
        let mut granted = Vec::new();
        self.grants.collect(question, &mut granted);
        granted
    }

    fn told(&self, action: Action, granted: Vec<Arc<str>>, mut answer: cedar::Answer) -> Decision {
        let mut decision = Decision {
            reads_arguments: answer.reads_arguments,
            reads_context: answer.reads_context,
            ..Decision::default()
        };
        decision.errors.extend(answer.fault.take());
        answer.failed.sort_unstable();
        for (at, why) in &answer.failed {
            decision.errors.push(format!("{}: {why}", self.cedar.id(*at)));
        }
        let refused = !answer.forbids.is_empty() || !decision.errors.is_empty();
        let mut deciding = if refused { answer.forbids } else { answer.permits };
        if refused {
            deciding.extend(answer.failed.iter().map(|(at, _)| *at));
        } else {
            decision.rules = granted;
        }
        deciding.sort_unstable();
        deciding.dedup();
        for at in deciding {
            decision.rules.push(Arc::clone(self.cedar.id(at)));
            // A permit that only brings the server along demands nothing of connecting to it.
            if self.cedar.is_about(at, action) {
                decision.obligations.extend_from_slice(self.cedar.obligations(at));
            }
        }
        decision.allowed = !refused && !decision.rules.is_empty();
        decision
    }

    /// True when something grants, whether or not something else forbids. Slow: for denials that
    /// tell what would lift them.
    pub fn grants(&self, question: &Question<'_>) -> bool {
        let question = without_strange_arguments(question);
        !self.granted(&question).is_empty() || self.cedar.permits(&question)
    }

    /// Decides in the two steps of a proxy: what is not to be seen, whatever the arguments, is
    /// denied before they are looked at.
    pub fn decide_in_steps(&self, question: &Question<'_>) -> Decision {
        let seen = self.decide(&Question { arguments: None, ..*question });
        if seen.allowed { self.decide(question) } else { seen }
    }

    /// True when a Cedar policy can concern the question, so that [`Rules::decide`] evaluates it.
    /// False: the answer is made of roles alone, and is cheaper than a cache.
    pub fn evaluates(&self, question: &Question<'_>) -> bool {
        self.cedar.concerns(question)
    }

    /// Scopes that rules name with `@scope`, words of them, sorted: what a client may be asked for.
    pub fn scopes(&self) -> Vec<&str> {
        let named = self.cedar.all_obligations().filter(|(key, _)| key == "scope");
        let mut all: Vec<&str> =
            named.flat_map(|(_, value)| value.split_ascii_whitespace()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Every rule that concerns the caller or the target of a question, taken apart. Slow: for
    /// people who ask why.
    pub fn considered(&self, question: &Question<'_>) -> Vec<review::Considered> {
        let question = without_strange_arguments(question);
        let mut all = self.grants.considered(&question);
        all.extend(self.cedar.considered(&question));
        all
    }

    /// What the roles and bindings mean, as Cedar text over [`SCHEMA`].
    pub fn cedar_of_roles(&self) -> &str {
        &self.translation
    }
}

/// Only some requests have arguments; for others there is nothing that they could still say.
fn without_strange_arguments<'a>(question: &Question<'a>) -> Question<'a> {
    let mut question = *question;
    if !question.action.has_arguments() {
        question.arguments = Some(&serde_json::Value::Null);
    }
    question
}

/// A decision as far as it can be made without arguments and context. See [`Rules::residual`].
#[derive(Debug)]
pub struct Residual {
    granted: Vec<Arc<str>>,
    residue: cedar::Residue,
}

impl Residual {
    /// True when arguments and context cannot change the decision any more.
    pub fn is_closed(&self) -> bool {
        self.residue.is_closed()
    }

    /// Parts of conditions that it holds: what it takes in memory, about 100 bytes each.
    pub fn size(&self) -> usize {
        self.residue.size()
    }
}

/// Over the sources, framed by their lengths.
fn digest(sources: &RuleSources<'_>) -> Digest {
    let mut text = Vec::new();
    let mut push = |tag: u8, name: &str, value: serde_json::Result<Vec<u8>>| {
        // Documents of these kinds hold nothing that JSON cannot express.
        let value = value.unwrap_or_default();
        text.push(tag);
        for part in [name.as_bytes(), &value] {
            text.extend_from_slice(&(part.len() as u64).to_be_bytes());
            text.extend_from_slice(part);
        }
    };
    push(b'g', sources.group.map_or("", Name::as_str), Ok(SCHEMA.as_bytes().to_vec()));
    for (name, role) in &sources.roles {
        push(b'r', name.as_str(), serde_json::to_vec(role));
    }
    for (name, binding) in &sources.bindings {
        push(b'b', name.as_str(), serde_json::to_vec(binding));
    }
    for (name, policy) in &sources.policies {
        push(b'p', name.as_str(), serde_json::to_vec(policy));
    }
    for name in &sources.powerless {
        push(b'x', name.as_str(), Ok(Vec::new()));
    }
    Digest::of(&text)
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
