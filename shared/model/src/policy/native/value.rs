//! Values that conditions compute with.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;

/// Something went wrong; Cedar will say what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::policy) struct Failed;

/// Types of entities that have identifiers of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::policy) enum Kind {
    User,
    ServiceAccount,
    Certificate,
    Anonymous,
    Group,
    Server,
    Tool,
    Resource,
    Prompt,
    Action,
}

impl Kind {
    pub(super) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "User" => Self::User,
            "ServiceAccount" => Self::ServiceAccount,
            "Certificate" => Self::Certificate,
            "Anonymous" => Self::Anonymous,
            "Group" => Self::Group,
            "Server" => Self::Server,
            "Tool" => Self::Tool,
            "Resource" => Self::Resource,
            "Prompt" => Self::Prompt,
            "Action" => Self::Action,
            _ => return None,
        })
    }
}

/// An address or a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::policy) struct Net {
    pub addr: IpAddr,
    pub prefix: u8,
}

impl Net {
    pub(super) fn host(addr: IpAddr) -> Self {
        Self { addr, prefix: if addr.is_ipv4() { 32 } else { 128 } }
    }

    /// Reads what Cedar was seen to accept.
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text.split_once('/') {
            None => text.parse().ok().map(Self::host),
            Some((addr, prefix)) => {
                let (host, prefix) = (Self::host(addr.parse().ok()?), prefix.parse().ok()?);
                (prefix <= host.prefix).then_some(Self { prefix, ..host })
            }
        }
    }

    /// First and last address, as numbers of the family's width.
    fn ends(self) -> (u128, u128) {
        let (bits, number) = match self.addr {
            IpAddr::V4(v4) => (32, u128::from(u32::from(v4))),
            IpAddr::V6(v6) => (128, u128::from(v6)),
        };
        let hosts = bits - u32::from(self.prefix);
        let mask = if hosts == 128 { u128::MAX } else { (1_u128 << hosts) - 1 };
        (number & !mask, number | mask)
    }

    pub(super) fn within(self, other: Self) -> bool {
        let ((first, last), (from, to)) = (self.ends(), other.ends());
        self.addr.is_ipv4() == other.addr.is_ipv4() && from <= first && last <= to
    }

    pub(super) fn is_loopback(self) -> bool {
        self.addr.is_loopback() && self.prefix >= if self.addr.is_ipv4() { 8 } else { 128 }
    }

    pub(super) fn is_multicast(self) -> bool {
        self.addr.is_multicast() && self.prefix >= if self.addr.is_ipv4() { 4 } else { 8 }
    }
}

/// A value that is known at compile time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::policy) enum Const {
    Bool(bool),
    Long(i64),
    Text(Box<str>),
    /// Ten-thousandths.
    Decimal(i64),
    /// Milliseconds since the epoch.
    Time(i64),
    Net(Net),
    Entity(Kind, Box<str>),
    /// Sorted, without doubles.
    Set(Vec<Const>),
}

/// A value while a condition is evaluated.
#[derive(Debug, Clone)]
pub(super) enum Val<'a> {
    Bool(bool),
    Long(i64),
    Text(&'a str),
    Decimal(i64),
    Time(i64),
    Net(Net),
    Entity(Kind, Id<'a>),
    Set(Elements<'a>),
}

/// The identifier of an entity.
#[derive(Debug, Clone, Copy)]
pub(super) enum Id<'a> {
    Whole(&'a str),
    /// Of a target: the server, and its name there.
    On(&'a str, &'a str),
}

impl Id<'_> {
    pub(super) fn is(self, text: &str) -> bool {
        match self {
            Self::Whole(own) => own == text,
            Self::On(server, name) => text
                .strip_prefix(server)
                .and_then(|rest| rest.strip_prefix('/'))
                .is_some_and(|rest| rest == name),
        }
    }

    fn equals(self, other: Self) -> bool {
        match (self, other) {
            // The name of a server holds no slash, so the cut is where it is.
            (Self::On(a, b), Self::On(c, d)) => (a, b) == (c, d),
            (one, Self::Whole(text)) | (Self::Whole(text), one) => one.is(text),
        }
    }
}

/// The elements of a set, wherever they are.
#[derive(Debug, Clone)]
pub(super) enum Elements<'a> {
    Consts(&'a [Const]),
    Names(&'a [Arc<str>]),
    /// Strings, checked.
    Strings(&'a [Value]),
    Built(Vec<Val<'a>>),
}

/// Comparisons of one element with all others that are done here; beyond, Cedar's sorted sets
/// are quicker.
const PAIRS_MAX: usize = 10_000;

impl<'a> Elements<'a> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Consts(all) => all.len(),
            Self::Names(all) => all.len(),
            Self::Strings(all) => all.len(),
            Self::Built(all) => all.len(),
        }
    }

    fn at(&self, position: usize) -> Val<'_> {
        match self {
            Self::Consts(all) => all[position].value(),
            Self::Names(all) => Val::Text(&all[position]),
            Self::Strings(all) => Val::Text(all[position].as_str().unwrap_or_default()),
            Self::Built(all) => all[position].clone(),
        }
    }

    pub(super) fn contains(&self, wanted: &Val<'_>) -> Result<bool, Failed> {
        if let (Self::Consts(all), Val::Text(text)) = (self, wanted) {
            let compare = |probe: &Const| match probe {
                Const::Text(own) => (**own).cmp(text),
                Const::Bool(_) | Const::Long(_) => Ordering::Less,
                _ => Ordering::Greater,
            };
            return Ok(all.binary_search_by(compare).is_ok());
        }
        for at in 0..self.len() {
            if self.at(at).equals(wanted)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn contains_all(&self, others: &Self) -> Result<bool, Failed> {
        self.affordable(others)?;
        for at in 0..others.len() {
            if !self.contains(&others.at(at))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(super) fn contains_any(&self, others: &Self) -> Result<bool, Failed> {
        self.affordable(others)?;
        for at in 0..others.len() {
            if self.contains(&others.at(at))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn affordable(&self, others: &Self) -> Result<(), Failed> {
        let pairs = self.len().saturating_mul(others.len());
        if pairs > PAIRS_MAX { Err(Failed) } else { Ok(()) }
    }
}

impl Const {
    pub(super) fn set(mut all: Vec<Self>) -> Self {
        all.sort_unstable();
        all.dedup();
        Self::Set(all)
    }

    pub(super) fn value(&self) -> Val<'_> {
        match self {
            Self::Bool(b) => Val::Bool(*b),
            Self::Long(n) => Val::Long(*n),
            Self::Text(s) => Val::Text(s),
            Self::Decimal(n) => Val::Decimal(*n),
            Self::Time(n) => Val::Time(*n),
            Self::Net(net) => Val::Net(*net),
            Self::Entity(kind, id) => Val::Entity(*kind, Id::Whole(id)),
            Self::Set(all) => Val::Set(Elements::Consts(all)),
        }
    }
}

impl Val<'_> {
    pub(super) fn truth(&self) -> Result<bool, Failed> {
        if let Self::Bool(b) = self { Ok(*b) } else { Err(Failed) }
    }

    /// Values of different types are not compared here.
    pub(super) fn equals(&self, other: &Val<'_>) -> Result<bool, Failed> {
        Ok(match (self, other) {
            (Val::Bool(a), Val::Bool(b)) => a == b,
            (Val::Long(a), Val::Long(b))
            | (Val::Decimal(a), Val::Decimal(b))
            | (Val::Time(a), Val::Time(b)) => a == b,
            (Val::Text(a), Val::Text(b)) => a == b,
            (Val::Net(a), Val::Net(b)) => a == b,
            (Val::Entity(a, b), Val::Entity(c, d)) => a == c && b.equals(*d),
            (Val::Set(a), Val::Set(b)) => a.contains_all(b)? && b.contains_all(a)?,
            _ => return Err(Failed),
        })
    }

    pub(super) fn order(&self, other: &Val<'_>) -> Result<Ordering, Failed> {
        match (self, other) {
            (Val::Long(a), Val::Long(b))
            | (Val::Decimal(a), Val::Decimal(b))
            | (Val::Time(a), Val::Time(b)) => Ok(a.cmp(b)),
            _ => Err(Failed),
        }
    }

    /// The value as it can be kept.
    pub(super) fn keep(&self) -> Const {
        match self {
            Val::Bool(b) => Const::Bool(*b),
            Val::Long(n) => Const::Long(*n),
            Val::Text(s) => Const::Text((*s).into()),
            Val::Decimal(n) => Const::Decimal(*n),
            Val::Time(n) => Const::Time(*n),
            Val::Net(net) => Const::Net(*net),
            Val::Entity(kind, Id::Whole(id)) => Const::Entity(*kind, (*id).into()),
            Val::Entity(kind, Id::On(server, name)) => {
                Const::Entity(*kind, format!("{server}/{name}").into())
            }
            Val::Set(all) => Const::set((0..all.len()).map(|at| all.at(at).keep()).collect()),
        }
    }
}
