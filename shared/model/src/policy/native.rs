//! Conditions of Cedar policies, evaluated by ourselves where that is provably the same.
//!
//! Cedar needs entities built for every question and interprets its tree; most conditions only
//! compare a few attributes and arguments. Those are compiled to [`Expr`] and evaluated on the
//! question as it stands, without building anything. What is not compiled here (records, durations,
//! computed tag names, ...), and every question on which something fails, is left to Cedar: this
//! evaluator says what is true and what is false, and never what went wrong.
//!
//! Policies are type-checked strictly before they get here, so operands have the types that
//! operators want; what does not fit all the same counts as failed.

mod eval;
mod fold;
mod parse;
mod value;

pub(super) use eval::{Scene, holds};
pub(super) use fold::fold;
pub(super) use parse::of_policy;

use super::pattern::Pattern;
use value::{Const, Kind};

/// A condition, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expr {
    Const(Const),
    /// Fails whenever it is reached.
    Fails,
    /// An attribute of the caller, the target or the circumstances.
    Caller(Caller),
    Target(Target),
    Place(Place),
    /// `resource has x`.
    TargetHas(Target),
    /// `context has peer`.
    HasPeer,
    /// `principal`, `action` or `resource` itself.
    Entity(Var),
    HasTag(Tag, Path),
    GetTag(Tag, Path),
    /// `context.arguments.paths` has one, all, or any of them.
    Paths(Quantity, Vec<Path>),
    And(Box<[Expr; 2]>),
    Or(Box<[Expr; 2]>),
    Not(Box<Expr>),
    If(Box<[Expr; 3]>),
    Binary(Op, Box<[Expr; 2]>),
    Unary(Test, Box<Expr>),
    Like(Box<Expr>, Pattern),
    Set(Vec<Expr>),
    /// `principal is User`.
    Is(Var, Kind),
    /// `resource in Server::"crm"`, or in one of several.
    In(Var, Vec<(Kind, Box<str>)>),
}

/// Variables that stand for entities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Var {
    Principal,
    Action,
    Resource,
}

/// Attributes of callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    Subject,
    Memberships,
    Scopes,
    Provider,
    Proof,
    Credential,
}

/// Attributes of targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Name,
    Server,
    Uri,
    ReadOnly,
    Destructive,
    Idempotent,
    OpenWorld,
}

/// Attributes of the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Region,
    Now,
    Epoch,
    Hour,
    Minute,
    Weekday,
    Peer,
    Client,
    Revision,
    Era,
}

/// Types of arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tag {
    Text,
    Number,
    Decimal,
    Flag,
    Words,
}

/// How many of a list of paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quantity {
    All,
    Any,
}

/// The path of an argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path(Box<str>);

/// Operators over two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Equal,
    Less,
    LessOrEqual,
    Add,
    Subtract,
    Multiply,
    Contains,
    ContainsAll,
    ContainsAny,
    InRange,
}

/// Operators over one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Test {
    Negate,
    IsEmpty,
    IsIpv4,
    IsIpv6,
    IsLoopback,
    IsMulticast,
}

#[cfg(test)]
mod tests;
