//! Conditions on a question, evaluated.

use super::super::Question;
use super::super::arguments;
use super::super::clock::Moment;
use super::super::facts;
use super::value::{Elements, Failed, Id, Kind, Net, Val};
use super::{Caller, Expr, Op, Path, Place, Quantity, Tag, Target, Test, Var};
use crate::id::Name;
use crate::policy::Action;
use crate::principal::Proof;

/// A question, and the group that it is about.
#[derive(Debug, Clone, Copy)]
pub(in crate::policy) struct Scene<'a> {
    pub question: &'a Question<'a>,
    pub group: Option<&'a Name>,
}

/// Whether the condition is met.
///
/// # Errors
/// Where evaluation fails, or is not known to be the same as Cedar's.
pub(in crate::policy) fn holds(expr: &Expr, scene: Scene<'_>) -> Result<bool, Failed> {
    match expr {
        Expr::And(both) => Ok(holds(&both[0], scene)? && holds(&both[1], scene)?),
        Expr::Or(both) => Ok(holds(&both[0], scene)? || holds(&both[1], scene)?),
        Expr::Not(inner) => Ok(!holds(inner, scene)?),
        other => scene.value(other)?.truth(),
    }
}

/// Moments that Cedar's text form can say.
const SECONDS_MAX: i64 = 253_402_300_799;

impl<'a> Scene<'a> {
    pub(super) fn value(self, expr: &'a Expr) -> Result<Val<'a>, Failed> {
        Ok(match expr {
            Expr::Const(value) => value.value(),
            Expr::Fails => return Err(Failed),
            Expr::And(_) | Expr::Or(_) | Expr::Not(_) => Val::Bool(holds(expr, self)?),
            Expr::If(parts) => {
                let at = if holds(&parts[0], self)? { 1 } else { 2 };
                self.value(&parts[at])?
            }
            Expr::Caller(attribute) => self.caller(*attribute),
            Expr::Target(attribute) => self.target(*attribute).ok_or(Failed)?,
            Expr::TargetHas(attribute) => Val::Bool(self.target(*attribute).is_some()),
            Expr::Place(attribute) => self.place(*attribute)?,
            Expr::HasPeer => Val::Bool(self.question.context.peer.is_some()),
            Expr::Entity(var) => {
                let (kind, id) = self.entity(*var);
                Val::Entity(kind, id)
            }
            Expr::Is(var, kind) => Val::Bool(self.entity(*var).0 == *kind),
            Expr::In(var, all) => {
                Val::Bool(all.iter().any(|(kind, id)| self.within(*var, *kind, id)))
            }
            Expr::HasTag(tag, path) => Val::Bool(self.tag(*tag, path).is_some()),
            Expr::GetTag(tag, path) => self.tag(*tag, path).ok_or(Failed)?,
            Expr::Paths(quantity, paths) => Val::Bool(self.paths(*quantity, paths)),
            Expr::Set(parts) => {
                let all: Result<Vec<_>, _> = parts.iter().map(|part| self.value(part)).collect();
                Val::Set(Elements::Built(all?))
            }
            Expr::Like(inner, pattern) => match self.value(inner)? {
                Val::Text(text) => Val::Bool(pattern.matches(text)),
                _ => return Err(Failed),
            },
            Expr::Unary(test, inner) => unary(*test, &self.value(inner)?)?,
            Expr::Binary(op, sides) => {
                binary(*op, &self.value(&sides[0])?, &self.value(&sides[1])?)?
            }
        })
    }

    fn caller(self, attribute: Caller) -> Val<'a> {
        let who = self.question.principal;
        match attribute {
            Caller::Subject => Val::Text(&who.subject),
            Caller::Memberships => Val::Set(Elements::Names(&who.memberships)),
            Caller::Scopes => Val::Set(Elements::Names(&who.scopes)),
            Caller::Provider => Val::Text(who.provider.as_ref().map_or("", Name::as_str)),
            Caller::Proof => Val::Text(facts::proof(who.proof)),
            Caller::Credential => Val::Text(who.credential.as_deref().unwrap_or("")),
        }
    }

    fn target(self, attribute: Target) -> Option<Val<'a>> {
        let question = self.question;
        let of_tool = |flag| (question.action == Action::CallTool).then_some(Val::Bool(flag));
        match attribute {
            Target::Server => Some(Val::Text(question.server.as_str())),
            Target::Name if question.action == Action::UseServer => {
                Some(Val::Text(question.server.as_str()))
            }
            Target::Name => Some(Val::Text(question.target)),
            Target::Uri => {
                (question.action == Action::ReadResource).then_some(Val::Text(question.target))
            }
            Target::ReadOnly => of_tool(question.hints.read_only),
            Target::Destructive => of_tool(question.hints.destructive),
            Target::Idempotent => of_tool(question.hints.idempotent),
            Target::OpenWorld => of_tool(question.hints.open_world),
        }
    }

    fn place(self, attribute: Place) -> Result<Val<'a>, Failed> {
        let context = self.question.context;
        let moment = Moment::at(context.now);
        Ok(match attribute {
            Place::Region => Val::Text(&context.region),
            Place::Now if (0..=SECONDS_MAX).contains(&context.now) => {
                Val::Time(context.now * 1_000)
            }
            Place::Now => return Err(Failed),
            Place::Epoch => Val::Long(context.now),
            Place::Hour => Val::Long(moment.hour),
            Place::Minute => Val::Long(moment.minute),
            Place::Weekday => Val::Long(moment.weekday),
            Place::Peer => Val::Net(Net::host(context.peer.ok_or(Failed)?.to_canonical())),
            Place::Client => Val::Text(context.client.as_deref().unwrap_or("")),
            Place::Revision => Val::Text(&context.revision),
            Place::Era => Val::Text(context.era()),
        })
    }

    fn entity(self, var: Var) -> (Kind, Id<'a>) {
        let question = self.question;
        let on = Id::On(question.server.as_str(), question.target);
        match (var, question.action) {
            (Var::Principal, _) => {
                let kind = match question.principal.proof {
                    Proof::Jwt => Kind::User,
                    Proof::ApiToken => Kind::ServiceAccount,
                    Proof::Certificate => Kind::Certificate,
                    Proof::Anonymous => Kind::Anonymous,
                };
                (kind, Id::Whole(&question.principal.subject))
            }
            (Var::Action, action) => (Kind::Action, Id::Whole(action.as_str())),
            (Var::Resource, Action::CallTool) => (Kind::Tool, on),
            (Var::Resource, Action::ReadResource) => (Kind::Resource, on),
            (Var::Resource, Action::GetPrompt) => (Kind::Prompt, on),
            (Var::Resource, Action::UseServer) => {
                (Kind::Server, Id::Whole(question.server.as_str()))
            }
        }
    }

    /// An entity is in itself; a target in its server, and both in the group.
    fn within(self, var: Var, kind: Kind, id: &str) -> bool {
        let (own, own_id) = self.entity(var);
        if own == kind && own_id.is(id) {
            return true;
        }
        match (var, kind) {
            (Var::Resource, Kind::Server) => self.question.server.as_str() == id,
            (Var::Resource, Kind::Group) => self.group.is_some_and(|group| group.as_str() == id),
            _ => false,
        }
    }

    fn tag(self, tag: Tag, path: &Path) -> Option<Val<'a>> {
        let found = path.find(self.question.arguments?)?;
        match tag {
            Tag::Text => found.as_str().map(Val::Text),
            Tag::Flag => found.as_bool().map(Val::Bool),
            Tag::Number => arguments::long(found).map(Val::Long),
            Tag::Decimal => arguments::decimal(found).map(Val::Decimal),
            Tag::Words => {
                let items = found.as_array()?;
                let strings = items.iter().all(serde_json::Value::is_string);
                strings.then_some(Val::Set(Elements::Strings(items)))
            }
        }
    }

    fn paths(self, quantity: Quantity, paths: &[Path]) -> bool {
        let there =
            |path: &Path| self.question.arguments.is_some_and(|given| path.find(given).is_some());
        match quantity {
            Quantity::All => paths.iter().all(there),
            Quantity::Any => paths.iter().any(there),
        }
    }
}

impl Path {
    pub(super) fn new(path: &str) -> Self {
        Self(path.into())
    }

    fn find<'v>(&self, given: &'v serde_json::Value) -> Option<&'v serde_json::Value> {
        arguments::look_up(given, &self.0)
    }
}

fn unary<'a>(test: Test, value: &Val<'_>) -> Result<Val<'a>, Failed> {
    Ok(match (test, value) {
        (Test::Negate, Val::Long(n)) => Val::Long(n.checked_neg().ok_or(Failed)?),
        (Test::IsEmpty, Val::Set(all)) => Val::Bool(all.len() == 0),
        (Test::IsIpv4, Val::Net(net)) => Val::Bool(net.addr.is_ipv4()),
        (Test::IsIpv6, Val::Net(net)) => Val::Bool(net.addr.is_ipv6()),
        (Test::IsLoopback, Val::Net(net)) => Val::Bool(net.is_loopback()),
        (Test::IsMulticast, Val::Net(net)) => Val::Bool(net.is_multicast()),
        _ => return Err(Failed),
    })
}

fn binary<'a>(op: Op, left: &Val<'_>, right: &Val<'_>) -> Result<Val<'a>, Failed> {
    let whole = |apply: fn(i64, i64) -> Option<i64>| match (left, right) {
        (Val::Long(a), Val::Long(b)) => apply(*a, *b).map(Val::Long).ok_or(Failed),
        _ => Err(Failed),
    };
    let sets = |apply: fn(&Elements<'_>, &Elements<'_>) -> Result<bool, Failed>| match (left, right)
    {
        (Val::Set(a), Val::Set(b)) => apply(a, b).map(Val::Bool),
        _ => Err(Failed),
    };
    match op {
        Op::Equal => left.equals(right).map(Val::Bool),
        Op::Less => Ok(Val::Bool(left.order(right)?.is_lt())),
        Op::LessOrEqual => Ok(Val::Bool(left.order(right)?.is_le())),
        Op::Add => whole(i64::checked_add),
        Op::Subtract => whole(i64::checked_sub),
        Op::Multiply => whole(i64::checked_mul),
        Op::Contains => match left {
            Val::Set(all) => all.contains(right).map(Val::Bool),
            _ => Err(Failed),
        },
        Op::ContainsAll => sets(|a, b| a.contains_all(b)),
        Op::ContainsAny => sets(|a, b| a.contains_any(b)),
        Op::InRange => match (left, right) {
            (Val::Net(a), Val::Net(b)) => Ok(Val::Bool(a.within(*b))),
            _ => Err(Failed),
        },
    }
}
