//! Cedar texts, checked and compiled: parsed with room on the stack, type-checked strictly against
//! the published schema, and cut into slices so that a question meets the few policies that can
//! concern it.

mod diagnose;
mod explain;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock};

use cedar_policy::{
    Authorizer, Decision as Verdict, Effect, Policy, PolicyId, PolicySet, Schema, ValidationMode,
    ValidationWarning, Validator,
};

use super::facts::{Facts, target_id};
use super::guard;
use super::native::{self, Expr, Scene};
use super::obligation;
use super::reads::{Reads, Wanted};
use super::scope::{Place, Scope};
use super::weaken::{self, Open};
use super::{Action, Question, RuleSource, RuleSources};
use crate::bounds;
use crate::id::Name;
use diagnose::diagnose;

/// The schema that rules are checked against, as published.
pub const SCHEMA: &str = include_str!("weir.cedarschema");

static VALIDATOR: LazyLock<Validator> = LazyLock::new(|| {
    let (schema, _warnings) =
        Schema::from_cedarschema_str(SCHEMA).expect("the schema of this build is well formed");
    Validator::new(schema)
});

/// The Cedar policies of a group.
#[derive(Debug, Default)]
pub(super) struct Cedar {
    group: Option<Name>,
    rules: Vec<Rule>,
    by_id: HashMap<PolicyId, usize>,
    whole: Shelf,
    servers: HashMap<String, Shelf>,
    targets: HashMap<(Action, String), Slice>,
}

#[derive(Debug)]
struct Rule {
    id: Arc<str>,
    effect: Effect,
    scope: Scope,
    reads: Reads,
    full: Policy,
    /// Arguments left open.
    may: Policy,
    /// Of a permit: target left open, too.
    reach: Option<Policy>,
    reach_differs: bool,
    /// The three of them, where they need no Cedar.
    tests: Tests,
    obligations: Vec<(String, String)>,
}

/// Conditions that are evaluated without Cedar.
#[derive(Debug)]
struct Tests {
    full: Option<Arc<Expr>>,
    may: Option<Arc<Expr>>,
    reach: Option<Arc<Expr>>,
}

/// What a failed policy adds to an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    Grants,
    Nothing,
    Denies,
}

/// Slices by [`Action::index`].
type Shelf = [Slice; 4];

/// Policies that one kind of question meets.
#[derive(Debug, Default)]
struct Slice {
    /// All, for Cedar.
    all: Sets,
    /// Those that only Cedar can evaluate.
    foreign: Option<Sets>,
    own: Vec<Own>,
    reads: Reads,
    filled: bool,
}

/// Policies as they are, and with part of the question left open.
#[derive(Debug, Default)]
struct Sets {
    full: PolicySet,
    may: PolicySet,
}

/// A policy of a slice that needs no Cedar.
#[derive(Debug)]
struct Own {
    at: usize,
    full: Arc<Expr>,
    may: Arc<Expr>,
}

/// What is left of the policies that concern a question when everything but its arguments and its
/// context is known.
#[derive(Debug)]
pub(super) struct Residue {
    permits: Vec<usize>,
    forbids: Vec<usize>,
    open: Vec<(usize, Expr)>,
    /// All paths of the arguments are wanted, so that there may not be too many.
    paths: bool,
    reads_arguments: bool,
    reads_context: bool,
}

impl Residue {
    /// True when nothing that is still to come can change the answer.
    pub(super) fn is_closed(&self) -> bool {
        self.open.is_empty() && !self.paths
    }

    /// Parts of conditions that are kept.
    pub(super) fn size(&self) -> usize {
        self.open.iter().map(|(_, left)| left.size()).sum()
    }
}

/// What the Cedar policies say to a question.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// Satisfied permits, by position.
    pub permits: Vec<usize>,
    /// Satisfied forbids, by position.
    pub forbids: Vec<usize>,
    /// Policies that failed, by position, with the reason. One is enough to deny.
    pub failed: Vec<(usize, String)>,
    /// Set when the question itself could not be put; denies.
    pub fault: Option<String>,
    pub reads_arguments: bool,
    pub reads_context: bool,
}

impl Cedar {
    pub(super) fn compile(
        sources: &RuleSources<'_>,
        errors: &mut Vec<(RuleSource, String)>,
    ) -> Self {
        let mut cedar = Self { group: sources.group.cloned(), ..Self::default() };
        if sources.policies.is_empty() {
            return cedar;
        }
        let compiled = on_a_deep_stack(|| {
            let one = |(name, policy): &(&Name, &crate::resource::Policy)| {
                ((*name).clone(), compile_text(name, &policy.cedar, sources.group))
            };
            sources.policies.iter().map(one).collect::<Vec<_>>()
        });
        let compiled = compiled.unwrap_or_else(|why| {
            let names = sources.policies.iter().map(|(name, _)| (*name).clone());
            names.map(|name| (name, Err(why.clone()))).collect()
        });
        for (name, result) in compiled {
            match result {
                Ok(rules) => {
                    let powerless = sources.powerless.contains(&name);
                    let counts = |rule: &Rule| !powerless || rule.effect == Effect::Forbid;
                    rules.into_iter().filter(counts).for_each(|rule| cedar.put(rule));
                }
                Err(why) => errors.push((RuleSource::Policy(name), why)),
            }
        }
        cedar
    }

    pub(super) fn id(&self, at: usize) -> &Arc<str> {
        &self.rules[at].id
    }

    pub(super) fn all_obligations(&self) -> impl Iterator<Item = &(String, String)> {
        self.rules.iter().flat_map(|rule| &rule.obligations)
    }

    /// True when the scope of a policy names the action.
    pub(super) fn is_about(&self, at: usize, action: Action) -> bool {
        self.rules[at].scope.actions[action.index()]
    }

    pub(super) fn obligations(&self, at: usize) -> &[(String, String)] {
        &self.rules[at].obligations
    }

    fn put(&mut self, rule: Rule) {
        for action in Action::ALL {
            if rule.scope.actions[action.index()] && action != Action::UseServer {
                let slice = match &rule.scope.place {
                    Place::Group => &mut self.whole[action.index()],
                    Place::Server(server) => {
                        &mut self.servers.entry(server.clone()).or_default()[action.index()]
                    }
                    Place::Target(_, id) => self.targets.entry((action, id.clone())).or_default(),
                };
                let tests = (rule.tests.full.as_ref(), rule.tests.may.as_ref());
                slice.add((&rule.full, &rule.may), tests, (self.rules.len(), &rule.reads));
            }
        }
        // A permit of anything on a server reaches the server; a forbid has to say so itself.
        let using = Action::UseServer.index();
        let reach = match &rule.reach {
            Some(reach) => Some((reach, rule.tests.reach.as_ref())),
            None if rule.scope.actions[using] => Some((&rule.may, rule.tests.may.as_ref())),
            None => None,
        };
        if let Some((reach, test)) = reach {
            let shelf = match &rule.scope.place {
                Place::Group => &mut self.whole,
                Place::Server(server) | Place::Target(server, _) => {
                    self.servers.entry(server.clone()).or_default()
                }
            };
            let tests = (rule.tests.full.as_ref(), test);
            shelf[using].add((&rule.full, reach), tests, (self.rules.len(), &rule.reads));
        }
        self.by_id.insert(PolicyId::new(&*rule.id), self.rules.len());
        self.rules.push(rule);
    }

    /// True when a policy can concern the question.
    pub(super) fn concerns(&self, question: &Question<'_>) -> bool {
        !self.rules.is_empty() && self.slices(question).iter().flatten().next().is_some()
    }

    /// Slices that hold a policy: of the group, of the server, of the target.
    fn slices(&self, question: &Question<'_>) -> [Option<&Slice>; 3] {
        let at = question.action.index();
        let server = self.servers.get(question.server.as_str()).map(|shelf| &shelf[at]);
        let target = if self.targets.is_empty() {
            None
        } else {
            let id = target_id(question.server.as_str(), question.target);
            self.targets.get(&(question.action, id))
        };
        [Some(&self.whole[at]), server, target].map(|slice| slice.filter(|s| s.filled))
    }

    pub(super) fn answer(&self, question: &Question<'_>) -> Answer {
        if self.rules.is_empty() {
            return Answer::default();
        }
        let slices: Vec<&Slice> = self.slices(question).into_iter().flatten().collect();
        if slices.is_empty() {
            return Answer::default();
        }
        self.natively(question, &slices).unwrap_or_else(|| self.by_cedar(question))
    }

    /// Answers without Cedar, apart from policies that need it; none where something fails.
    fn natively(&self, question: &Question<'_>, slices: &[&Slice]) -> Option<Answer> {
        let reads: Vec<&Reads> = slices.iter().map(|slice| &slice.reads).collect();
        let wanted = Wanted(&reads);
        let mut answer = self.open_answer(question, wanted);
        if answer.reads_arguments && wanted.paths().is_none() && !affordable(question) {
            return None;
        }
        let open = open_part(question);
        let scene = Scene { question, group: self.group.as_ref() };
        for own in slices.iter().flat_map(|slice| &slice.own) {
            let test = if open.is_some() { &own.may } else { &own.full };
            if native::holds(test, scene).ok()? {
                self.side(&mut answer, own.at).push(own.at);
            }
        }
        if slices.iter().any(|slice| slice.foreign.is_some()) {
            let facts = Facts::new(question, self.group.as_ref(), wanted).ok()?;
            for sets in slices.iter().filter_map(|slice| slice.foreign.as_ref()) {
                self.ask(sets.pick(open), &facts, open, &mut answer);
            }
        }
        Some(answer)
    }

    /// Where a satisfied policy counts.
    fn side<'a>(&self, answer: &'a mut Answer, at: usize) -> &'a mut Vec<usize> {
        match self.rules[at].effect {
            Effect::Permit => &mut answer.permits,
            Effect::Forbid => &mut answer.forbids,
        }
    }

    fn open_answer(&self, question: &Question<'_>, wanted: Wanted<'_>) -> Answer {
        Answer {
            reads_context: wanted.any(|reads| &reads.context),
            reads_arguments: wanted.arguments() && question.action.has_arguments(),
            ..Answer::default()
        }
    }

    /// What is left when everything but arguments and context is known; none when Cedar is needed.
    pub(super) fn residue(&self, question: &Question<'_>) -> Option<Residue> {
        let slices: Vec<&Slice> = self.slices(question).into_iter().flatten().collect();
        if slices.iter().any(|slice| slice.foreign.is_some()) {
            return None;
        }
        let reads: Vec<&Reads> = slices.iter().map(|slice| &slice.reads).collect();
        let wanted = Wanted(&reads);
        let mut answer = self.open_answer(question, wanted);
        let paths = answer.reads_arguments && wanted.paths().is_none();
        let paths = paths && question.arguments.is_some();
        let scene = Scene { question, group: self.group.as_ref() };
        let mut open = Vec::new();
        for own in slices.iter().flat_map(|slice| &slice.own) {
            let test = if open_part(question).is_some() { &own.may } else { &own.full };
            let left = native::fold(test, scene);
            match left.known() {
                Some(true) => self.side(&mut answer, own.at).push(own.at),
                Some(false) => {}
                None => open.push((own.at, left)),
            }
        }
        Some(Residue {
            permits: answer.permits,
            forbids: answer.forbids,
            open,
            paths,
            reads_arguments: answer.reads_arguments,
            reads_context: answer.reads_context,
        })
    }

    /// The answer to a question that the residue is of; none where something fails.
    pub(super) fn finish(&self, residue: &Residue, question: &Question<'_>) -> Option<Answer> {
        if residue.paths && !affordable(question) {
            return None;
        }
        let mut answer = Answer {
            permits: residue.permits.clone(),
            forbids: residue.forbids.clone(),
            reads_arguments: residue.reads_arguments,
            reads_context: residue.reads_context,
            ..Answer::default()
        };
        let scene = Scene { question, group: self.group.as_ref() };
        for (at, left) in &residue.open {
            if native::holds(left, scene).ok()? {
                self.side(&mut answer, *at).push(*at);
            }
        }
        Some(answer)
    }

    /// Answers with Cedar alone.
    pub(super) fn by_cedar(&self, question: &Question<'_>) -> Answer {
        let slices: Vec<&Slice> = self.slices(question).into_iter().flatten().collect();
        let reads: Vec<&Reads> = slices.iter().map(|slice| &slice.reads).collect();
        let wanted = Wanted(&reads);
        let mut answer = self.open_answer(question, wanted);
        let open = open_part(question);
        match Facts::new(question, self.group.as_ref(), wanted) {
            Ok(facts) => slices.iter().for_each(|slice| {
                self.ask(slice.all.pick(open), &facts, open, &mut answer);
            }),
            Err(why) => answer.fault = Some(why),
        }
        answer
    }

    fn ask(&self, policies: &PolicySet, facts: &Facts, open: Option<Open>, answer: &mut Answer) {
        let response = Authorizer::new().is_authorized(&facts.request, policies, &facts.entities);
        let satisfied = response.diagnostics().reason().filter_map(|id| self.by_id.get(id));
        match response.decision() {
            Verdict::Allow => answer.permits.extend(satisfied),
            Verdict::Deny => answer.forbids.extend(satisfied),
        }
        for error in response.diagnostics().errors() {
            let cedar_policy::AuthorizationError::PolicyEvaluationError(error) = error;
            let Some(at) = self.by_id.get(error.policy_id()).copied() else { continue };
            match self.rules[at].failing(open) {
                Failure::Grants => answer.permits.push(at),
                Failure::Nothing => {}
                Failure::Denies => answer.failed.push((at, error.inner().to_string())),
            }
        }
    }
}

/// What the question leaves open.
fn open_part(question: &Question<'_>) -> Option<Open> {
    match question.action {
        Action::UseServer => Some(Open::Target),
        _ => question.arguments.is_none().then_some(Open::Arguments),
    }
}

/// False when the arguments have more paths than rules may ask for.
fn affordable(question: &Question<'_>) -> bool {
    question.arguments.is_none_or(super::arguments::affordable)
}

impl Rule {
    /// What it means when the policy fails. What was rewritten may fail where the full policy
    /// would not get to (see [`weaken`]); a permit of something else on a server that fails says
    /// nothing about the server.
    fn failing(&self, open: Option<Open>) -> Failure {
        let rewritten = match open {
            None => false,
            Some(Open::Arguments) => self.reads.arguments,
            Some(Open::Target) => self.reads.arguments || self.reach_differs,
        };
        let own = self.scope.actions[Action::UseServer.index()];
        match (rewritten, self.effect, open) {
            (true, Effect::Permit, _) => Failure::Grants,
            (true, Effect::Forbid, _) => Failure::Nothing,
            (false, Effect::Permit, Some(Open::Target)) if !own => Failure::Nothing,
            (false, ..) => Failure::Denies,
        }
    }
}

impl Sets {
    fn pick(&self, open: Option<Open>) -> &PolicySet {
        if open.is_some() { &self.may } else { &self.full }
    }

    fn add(&mut self, full: &Policy, may: &Policy) {
        // Ids are unique within the group, so this cannot fail.
        let added = self.full.add(full.clone()).is_ok() && self.may.add(may.clone()).is_ok();
        debug_assert!(added, "two policies with one id");
    }
}

impl Slice {
    fn add(
        &mut self,
        (full, may): (&Policy, &Policy),
        tests: (Option<&Arc<Expr>>, Option<&Arc<Expr>>),
        (at, reads): (usize, &Reads),
    ) {
        self.filled = true;
        self.all.add(full, may);
        match tests {
            (Some(full), Some(may)) => {
                self.own.push(Own { at, full: Arc::clone(full), may: Arc::clone(may) });
            }
            _ => self.foreign.get_or_insert_default().add(full, may),
        }
        self.reads.merge(reads);
    }
}

/// # Errors
/// A sentence about the machine, when it has no room for one more thread.
fn on_a_deep_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("cedar".to_owned())
            .stack_size(bounds::COMPILE_STACK_BYTES)
            .spawn_scoped(scope, work)
            .map_err(|e| format!("no thread to compile policies on: {e}"))?;
        thread.join().map_err(|_| "compiling the policies panicked".to_owned())
    })
}

fn compile_text(name: &Name, text: &str, group: Option<&Name>) -> Result<Vec<Rule>, String> {
    guard::check(text)?;
    let parsed: PolicySet = text.parse().map_err(|e| diagnose(text, &e))?;
    if let Some(template) = parsed.templates().next() {
        return Err(format!("{}: templates (`?principal`) are not supported", template.id()));
    }
    let count = parsed.num_of_policies();
    if count == 0 {
        return Err("the text holds no policy".to_owned());
    }
    if count > bounds::CEDAR_POLICIES_MAX {
        let most = bounds::CEDAR_POLICIES_MAX;
        return Err(format!("{count} policies in one text, at most {most} are allowed; split it"));
    }
    let forms = forms(&parsed)?;
    type_check(text, &parsed)?;
    let mut ids = HashSet::new();
    let mut rules = Vec::with_capacity(count);
    for (at, (policy, json)) in forms.into_iter().enumerate() {
        let label = match policy.annotation("id") {
            Some(id) => checked_id(id)?,
            None => at.to_string(),
        };
        if !ids.insert(label.clone()) {
            return Err(format!("two policies with the id {label:?}"));
        }
        let id = format!("policy:{name}#{label}");
        rules.push(compile_policy(id, &policy, &json, group)?);
    }
    Ok(rules)
}

/// The policies in the order of the text with their JSON forms, if none of them nests too deep.
fn forms(parsed: &PolicySet) -> Result<Vec<(Policy, serde_json::Value)>, String> {
    let mut all = Vec::new();
    for policy in parsed.policies() {
        let json = policy.to_json().map_err(|e| e.to_string())?;
        if weaken::depth(&json) > bounds::CEDAR_EXPRESSION_DEPTH_MAX {
            let most = bounds::CEDAR_EXPRESSION_DEPTH_MAX;
            return Err(format!(
                "{}: a condition nests (or chains operators) deeper than {most}; \
                 use sets and `contains`, or several policies",
                policy.id()
            ));
        }
        if weaken::reads_named_entity(&json) {
            let why = "attributes of a named entity cannot be read; compare `resource` with it";
            return Err(format!("{}: {why}", policy.id()));
        }
        all.push((policy.clone(), json));
    }
    // The parser numbers policies `policy0`, `policy1`, ... in the order of the text.
    let number = |policy: &Policy| {
        AsRef::<str>::as_ref(policy.id()).trim_start_matches("policy").parse::<usize>().ok()
    };
    all.sort_by_key(|(policy, _)| number(policy));
    Ok(all)
}

fn type_check(text: &str, parsed: &PolicySet) -> Result<(), String> {
    let result = VALIDATOR.validate(parsed, ValidationMode::Strict);
    let mut found: Vec<String> = result.validation_errors().map(|e| diagnose(text, e)).collect();
    for warning in result.validation_warnings() {
        // A rule that never applies is a mistake, and a forbid of that kind an open door. Text
        // that reads in another order than it looks may be an attack on the reviewer.
        match warning {
            ValidationWarning::ImpossiblePolicy(_)
            | ValidationWarning::InvalidActionApplication(_)
            | ValidationWarning::BidiCharsInString(_)
            | ValidationWarning::BidiCharsInIdentifier(_) => found.push(diagnose(text, warning)),
            _ => {}
        }
    }
    found.dedup();
    found.truncate(10);
    if found.is_empty() { Ok(()) } else { Err(found.join("; ")) }
}

fn checked_id(id: &str) -> Result<String, String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if id.is_empty() || id.len() > bounds::NAME_CHARS_MAX || !id.chars().all(fine) {
        let most = bounds::NAME_CHARS_MAX;
        return Err(format!("@id({id:?}): 1 to {most} characters of A-Z a-z 0-9 '-' '_' '.'"));
    }
    Ok(id.to_owned())
}

fn compile_policy(
    id: String,
    policy: &Policy,
    json: &serde_json::Value,
    group: Option<&Name>,
) -> Result<Rule, String> {
    let scope = Scope::of(policy, group).map_err(|why| format!("{id}: {why}"))?;
    let cedar_id = PolicyId::new(&id);
    let read =
        |json| Policy::from_json(Some(cedar_id.clone()), json).map_err(|e| format!("{id}: {e}"));
    let reaching = weaken::weaken(json, Open::Target);
    let reach_differs = reaching["conditions"] != json["conditions"];
    let reads = Reads::of_policy(json);
    let full = policy.new_id(cedar_id.clone());
    let open = weaken::weaken(json, Open::Arguments);
    let test = |json: &serde_json::Value| native::of_policy(json).map(Arc::new);
    let tests = Tests { full: test(json), may: test(&open), reach: test(&reaching) };
    let may = if reads.arguments { read(open)? } else { full.clone() };
    let reach = match policy.effect() {
        Effect::Permit => Some(read(reaching)?),
        Effect::Forbid => None,
    };
    let (id, effect): (Arc<str>, _) = (id.into(), policy.effect());
    let mut obligations = Vec::new();
    for (key, value) in policy.annotations().filter(|(key, _)| *key != "id") {
        let checked = obligation::check(key, value, effect == Effect::Permit);
        checked.map_err(|why| format!("{id}: {why}"))?;
        obligations.push((key.to_owned(), value.to_owned()));
    }
    Ok(Rule { id, effect, scope, reads, full, may, reach, reach_differs, tests, obligations })
}
