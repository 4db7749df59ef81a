//! From the JSON form of policies, which has one construct per operator, to [`Expr`]. What is not
//! known here gives none, and the policy stays with Cedar.

use std::str::FromStr as _;
use std::sync::LazyLock;

use cedar_policy::{Entities, EvalResult, Expression, Request};
use serde_json::Value;

use super::super::arguments;
use super::super::pattern::Pattern;
use super::super::weaken::{attribute_of, conditions, is_var, single};
use super::value::{Const, Kind, Net};
use super::{Caller, Expr, Op, Path, Place, Quantity, Tag, Target, Test, Var};
use crate::policy::facts;

/// The whole condition of a policy, its scope included.
pub(in crate::policy) fn of_policy(policy: &Value) -> Option<Expr> {
    let mut all = Vec::new();
    for (var, name) in
        [(Var::Principal, "principal"), (Var::Action, "action"), (Var::Resource, "resource")]
    {
        all.push(scope(var, &policy[name])?);
    }
    for (when, body) in conditions(policy) {
        let body = expr(body)?;
        all.push(if when { body } else { Expr::Not(Box::new(body)) });
    }
    Some(conjunction(all))
}

/// All of them, in order; no deeper than the logarithm of their number.
fn conjunction(mut all: Vec<Expr>) -> Expr {
    if all.len() > 1 {
        let right = all.split_off(all.len() / 2);
        return Expr::both(conjunction(all), conjunction(right));
    }
    all.pop().unwrap_or(Expr::Const(Const::Bool(true)))
}

fn scope(var: Var, constraint: &Value) -> Option<Expr> {
    let kind = || Kind::of(constraint["entity_type"].as_str()?);
    match constraint["op"].as_str()? {
        "All" => Some(Expr::Const(Const::Bool(true))),
        "==" => equal(var, &constraint["entity"]),
        "in" => match constraint.get("entities") {
            Some(entities) => {
                let all: Option<Vec<_>> = entities.as_array()?.iter().map(entity).collect();
                Some(Expr::In(var, all?))
            }
            None => within(var, &constraint["entity"]),
        },
        "is" => {
            let is = Expr::Is(var, kind()?);
            match constraint.get("in") {
                Some(inner) => Some(Expr::both(is, within(var, &inner["entity"])?)),
                None => Some(is),
            }
        }
        _ => None,
    }
}

fn entity(reference: &Value) -> Option<(Kind, Box<str>)> {
    Some((Kind::of(reference["type"].as_str()?)?, reference["id"].as_str()?.into()))
}

fn equal(var: Var, reference: &Value) -> Option<Expr> {
    let (kind, id) = entity(reference)?;
    let other = Expr::Const(Const::Entity(kind, id));
    Some(Expr::binary(Op::Equal, Expr::Entity(var), other))
}

fn within(var: Var, reference: &Value) -> Option<Expr> {
    Some(Expr::In(var, vec![entity(reference)?]))
}

fn var(value: &Value) -> Option<Var> {
    let (op, name) = single(value)?;
    match (op, name.as_str()?) {
        ("Var", "principal") => Some(Var::Principal),
        ("Var", "action") => Some(Var::Action),
        ("Var", "resource") => Some(Var::Resource),
        _ => None,
    }
}

fn expr(value: &Value) -> Option<Expr> {
    let (op, body) = single(value)?;
    let part = |name: &str| expr(&body[name]);
    let pair = |op| Some(Expr::binary(op, part("left")?, part("right")?));
    let turned = |op| Some(Expr::binary(op, part("right")?, part("left")?));
    let unary = |test, inner: &Value| Some(Expr::Unary(test, Box::new(expr(inner)?)));
    let method = |op, swap: bool| {
        let [left, right] = body.as_array()?.as_slice() else { return None };
        let (left, right) = (expr(left)?, expr(right)?);
        Some(if swap { Expr::binary(op, right, left) } else { Expr::binary(op, left, right) })
    };
    match op {
        "Value" => constant(body).map(Expr::Const),
        "Var" => var(value).map(Expr::Entity),
        "&&" => Some(Expr::And(Box::new([part("left")?, part("right")?]))),
        "||" => Some(Expr::Or(Box::new([part("left")?, part("right")?]))),
        "!" => Some(Expr::Not(Box::new(part("arg")?))),
        "if-then-else" => Some(Expr::If(Box::new([part("if")?, part("then")?, part("else")?]))),
        "==" => pair(Op::Equal),
        "!=" => Some(Expr::Not(Box::new(pair(Op::Equal)?))),
        "<" => pair(Op::Less),
        "<=" => pair(Op::LessOrEqual),
        ">" => turned(Op::Less),
        ">=" => turned(Op::LessOrEqual),
        "+" => pair(Op::Add),
        "-" => pair(Op::Subtract),
        "*" => pair(Op::Multiply),
        "neg" => unary(Test::Negate, &body["arg"]),
        "isEmpty" => unary(Test::IsEmpty, &body["arg"]),
        "contains" | "containsAll" | "containsAny" => membership(op, body),
        "hasTag" | "getTag" => tag(op, body),
        "." => attribute(value),
        "has" => has(value),
        "like" => like(body),
        "is" => is(body),
        "in" => is_in(body),
        "Set" => set(body),
        "lessThan" => method(Op::Less, false),
        "lessThanOrEqual" => method(Op::LessOrEqual, false),
        "greaterThan" => method(Op::Less, true),
        "greaterThanOrEqual" => method(Op::LessOrEqual, true),
        "isInRange" => method(Op::InRange, false),
        "isIpv4" => unary(Test::IsIpv4, &body[0]),
        "isIpv6" => unary(Test::IsIpv6, &body[0]),
        "isLoopback" => unary(Test::IsLoopback, &body[0]),
        "isMulticast" => unary(Test::IsMulticast, &body[0]),
        "ip" | "decimal" | "datetime" => extension(op, literal(body)?).map(Expr::Const),
        _ => None,
    }
}

fn constant(value: &Value) -> Option<Const> {
    match value {
        Value::Bool(b) => Some(Const::Bool(*b)),
        Value::Number(n) => n.as_i64().map(Const::Long),
        Value::String(s) => Some(Const::Text(s.as_str().into())),
        Value::Object(_) => {
            entity(value.get("__entity")?).map(|(kind, id)| Const::Entity(kind, id))
        }
        _ => None,
    }
}

/// The text in `["text"]`, the argument of a constructor.
fn literal(arguments: &Value) -> Option<&str> {
    let [one] = arguments.as_array()?.as_slice() else { return None };
    single(one).filter(|(op, _)| *op == "Value")?.1.as_str()
}

fn extension(name: &str, text: &str) -> Option<Const> {
    match name {
        "ip" => Net::parse(text).map(Const::Net),
        "decimal" => arguments::scaled(text).map(Const::Decimal),
        _ => moment(text).map(Const::Time),
    }
}

/// Milliseconds of a `datetime` literal, as Cedar reads it.
fn moment(text: &str) -> Option<i64> {
    static NOBODY: LazyLock<Option<Request>> = LazyLock::new(|| {
        let uid = facts::uid(&facts::type_name("Server"), "none");
        let context = cedar_policy::Context::empty();
        Request::new(uid.clone(), uid.clone(), uid, context, None).ok()
    });
    let quoted = super::super::translate::literal(text);
    let since = "durationSince(datetime(\"1970-01-01\")).toMilliseconds()";
    let expression = Expression::from_str(&format!("datetime({quoted}).{since}")).ok()?;
    let nobody = (*NOBODY).as_ref()?;
    match cedar_policy::eval_expression(nobody, &Entities::empty(), &expression) {
        Ok(EvalResult::Long(milliseconds)) => Some(milliseconds),
        _ => None,
    }
}

fn membership(op: &str, body: &Value) -> Option<Expr> {
    let is_paths = single(&body["left"]).is_some_and(|(op, inner)| {
        op == "." && inner["attr"] == "paths" && is_arguments(&inner["left"])
    });
    let right = expr(&body["right"])?;
    if !is_paths {
        let op = match op {
            "contains" => Op::Contains,
            "containsAll" => Op::ContainsAll,
            _ => Op::ContainsAny,
        };
        return Some(Expr::binary(op, expr(&body["left"])?, right));
    }
    let path = |value: &Const| match value {
        Const::Text(path) => Some(Path::new(path)),
        _ => None,
    };
    match (op, &right) {
        ("contains", Expr::Const(one)) => Some(Expr::Paths(Quantity::All, vec![path(one)?])),
        (_, Expr::Const(Const::Set(all))) => {
            let paths: Option<Vec<_>> = all.iter().map(path).collect();
            let quantity = if op == "containsAll" { Quantity::All } else { Quantity::Any };
            Some(Expr::Paths(quantity, paths?))
        }
        _ => None,
    }
}

fn is_arguments(value: &Value) -> bool {
    single(value).is_some_and(|(op, _)| op == ".")
        && attribute_of(value, "context") == Some("arguments")
}

fn tag(op: &str, body: &Value) -> Option<Expr> {
    let (inner, of) = single(&body["left"])?;
    if inner != "." || !is_arguments(&of["left"]) {
        return None;
    }
    let tag = match of["attr"].as_str()? {
        "text" => Tag::Text,
        "number" => Tag::Number,
        "decimal" => Tag::Decimal,
        "flag" => Tag::Flag,
        "words" => Tag::Words,
        _ => return None,
    };
    let path = Path::new(body["right"]["Value"].as_str()?);
    Some(if op == "hasTag" { Expr::HasTag(tag, path) } else { Expr::GetTag(tag, path) })
}

fn attribute(value: &Value) -> Option<Expr> {
    if let Some(name) = attribute_of(value, "principal") {
        return caller(name).map(Expr::Caller);
    }
    if let Some(name) = attribute_of(value, "resource") {
        return target(name).map(Expr::Target);
    }
    place(attribute_of(value, "context")?).map(Expr::Place)
}

fn has(value: &Value) -> Option<Expr> {
    let yes = Expr::Const(Const::Bool(true));
    if let Some(name) = attribute_of(value, "principal") {
        return caller(name).map(|_| yes);
    }
    if let Some(name) = attribute_of(value, "resource") {
        return target(name).map(Expr::TargetHas);
    }
    match place(attribute_of(value, "context")?)? {
        Place::Peer => Some(Expr::HasPeer),
        _ => Some(yes),
    }
}

fn caller(name: &str) -> Option<Caller> {
    Some(match name {
        "subject" => Caller::Subject,
        "memberships" => Caller::Memberships,
        "scopes" => Caller::Scopes,
        "provider" => Caller::Provider,
        "proof" => Caller::Proof,
        "credential" => Caller::Credential,
        _ => return None,
    })
}

fn target(name: &str) -> Option<Target> {
    Some(match name {
        "name" => Target::Name,
        "server" => Target::Server,
        "uri" => Target::Uri,
        "readOnly" => Target::ReadOnly,
        "destructive" => Target::Destructive,
        "idempotent" => Target::Idempotent,
        "openWorld" => Target::OpenWorld,
        _ => return None,
    })
}

fn place(name: &str) -> Option<Place> {
    Some(match name {
        "region" => Place::Region,
        "now" => Place::Now,
        "epoch" => Place::Epoch,
        "hour" => Place::Hour,
        "minute" => Place::Minute,
        "weekday" => Place::Weekday,
        "peer" => Place::Peer,
        "client" => Place::Client,
        "revision" => Place::Revision,
        "era" => Place::Era,
        _ => return None,
    })
}

fn like(body: &Value) -> Option<Expr> {
    let mut segments = vec![String::new()];
    for part in body["pattern"].as_array()? {
        if part == "Wildcard" {
            segments.push(String::new());
        } else {
            segments.last_mut()?.push_str(part["Literal"].as_str()?);
        }
    }
    Some(Expr::Like(Box::new(expr(&body["left"])?), Pattern::of_segments(segments)))
}

fn is(body: &Value) -> Option<Expr> {
    let var = var(&body["left"])?;
    let is = Expr::Is(var, Kind::of(body["entity_type"].as_str()?)?);
    match body.get("in") {
        Some(inner) if !inner.is_null() => Some(Expr::both(is, entities_around(var, inner)?)),
        _ => Some(is),
    }
}

fn is_in(body: &Value) -> Option<Expr> {
    if is_var(&body["left"], "context") {
        return None;
    }
    entities_around(var(&body["left"])?, &body["right"])
}

fn entities_around(var: Var, right: &Value) -> Option<Expr> {
    match expr(right)? {
        Expr::Const(Const::Entity(kind, id)) => Some(Expr::In(var, vec![(kind, id)])),
        Expr::Const(Const::Set(all)) => {
            let entities = all.into_iter().map(|one| match one {
                Const::Entity(kind, id) => Some((kind, id)),
                _ => None,
            });
            entities.collect::<Option<Vec<_>>>().map(|all| Expr::In(var, all))
        }
        _ => None,
    }
}

fn set(body: &Value) -> Option<Expr> {
    let parts: Option<Vec<Expr>> = body.as_array()?.iter().map(expr).collect();
    let parts = parts?;
    let consts: Option<Vec<Const>> = parts
        .iter()
        .map(|part| match part {
            Expr::Const(value) => Some(value.clone()),
            _ => None,
        })
        .collect();
    Some(consts.map_or(Expr::Set(parts), |all| Expr::Const(Const::set(all))))
}
