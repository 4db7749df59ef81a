//! What is left of a condition when everything but arguments and context is known.

use super::eval::Scene;
use super::value::Const;
use super::{Expr, Op};

/// The condition with every part computed that does not read arguments or context. It holds on a
/// question whenever the whole condition does, and fails whenever that does.
pub(in crate::policy) fn fold(expr: &Expr, scene: Scene<'_>) -> Expr {
    if !is_open(expr) {
        return scene.value(expr).map_or(Expr::Fails, |value| Expr::Const(value.keep()));
    }
    let one = |part: &Expr| Box::new(fold(part, scene));
    let two = |parts: &[Expr; 2]| Box::new([fold(&parts[0], scene), fold(&parts[1], scene)]);
    match expr {
        Expr::And(parts) => short(&parts[0], &parts[1], (true, scene)),
        Expr::Or(parts) => short(&parts[0], &parts[1], (false, scene)),
        Expr::Not(inner) => match fold(inner, scene) {
            Expr::Const(Const::Bool(known)) => Expr::Const(Const::Bool(!known)),
            Expr::Fails => Expr::Fails,
            left => Expr::Not(Box::new(left)),
        },
        Expr::If(parts) => match fold(&parts[0], scene) {
            Expr::Const(Const::Bool(known)) => fold(&parts[if known { 1 } else { 2 }], scene),
            Expr::Fails => Expr::Fails,
            test => Expr::If(Box::new([test, fold(&parts[1], scene), fold(&parts[2], scene)])),
        },
        Expr::Binary(op, parts) => Expr::Binary(*op, two(parts)),
        Expr::Unary(test, inner) => Expr::Unary(*test, one(inner)),
        Expr::Like(inner, pattern) => Expr::Like(one(inner), pattern.clone()),
        Expr::Set(parts) => Expr::Set(parts.iter().map(|part| fold(part, scene)).collect()),
        leaf => leaf.clone(),
    }
}

/// `left && right`, or `left || right`: the right side counts when the left one is `goes_on`.
fn short(left: &Expr, right: &Expr, (goes_on, scene): (bool, Scene<'_>)) -> Expr {
    match fold(left, scene) {
        Expr::Const(Const::Bool(known)) if known != goes_on => Expr::Const(Const::Bool(known)),
        Expr::Const(Const::Bool(_)) => fold(right, scene),
        Expr::Fails => Expr::Fails,
        left if goes_on => Expr::And(Box::new([left, fold(right, scene)])),
        left => Expr::Or(Box::new([left, fold(right, scene)])),
    }
}

/// True when a part of it reads arguments or context.
fn is_open(expr: &Expr) -> bool {
    match expr {
        Expr::Place(_) | Expr::HasPeer | Expr::HasTag(..) | Expr::GetTag(..) | Expr::Paths(..) => {
            true
        }
        Expr::Const(_)
        | Expr::Fails
        | Expr::Caller(_)
        | Expr::Target(_)
        | Expr::TargetHas(_)
        | Expr::Entity(_)
        | Expr::Is(..)
        | Expr::In(..) => false,
        Expr::And(parts) | Expr::Or(parts) => parts.iter().any(is_open),
        Expr::Binary(_, parts) => parts.iter().any(is_open),
        Expr::If(parts) => parts.iter().any(is_open),
        Expr::Not(inner) | Expr::Unary(_, inner) | Expr::Like(inner, _) => is_open(inner),
        Expr::Set(parts) => parts.iter().any(is_open),
    }
}

impl Expr {
    /// True when arguments or context decide.
    pub(in crate::policy) fn known(&self) -> Option<bool> {
        match self {
            Self::Const(Const::Bool(known)) => Some(*known),
            _ => None,
        }
    }

    /// How many parts it has.
    pub(in crate::policy) fn size(&self) -> usize {
        let all = |parts: &[Self]| parts.iter().map(Self::size).sum::<usize>();
        1 + match self {
            Self::And(parts) | Self::Or(parts) | Self::Binary(_, parts) => all(&**parts),
            Self::If(parts) => all(&**parts),
            Self::Not(inner) | Self::Unary(_, inner) | Self::Like(inner, _) => inner.size(),
            Self::Set(parts) => all(parts),
            Self::Const(Const::Set(words)) => words.len(),
            Self::Paths(_, paths) => paths.len(),
            _ => 0,
        }
    }

    pub(super) fn both(left: Self, right: Self) -> Self {
        match (left, right) {
            (Self::Const(Const::Bool(true)), other) | (other, Self::Const(Const::Bool(true))) => {
                other
            }
            (left, right) => Self::And(Box::new([left, right])),
        }
    }

    pub(super) fn binary(op: Op, left: Self, right: Self) -> Self {
        Self::Binary(op, Box::new([left, right]))
    }
}
