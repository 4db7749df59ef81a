//! Which questions a Cedar policy can concern at all, read from its scope.

use cedar_policy::{ActionConstraint, EntityUid, Policy, ResourceConstraint};

use super::Action;
use crate::id::Name;

/// Where a policy applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Anywhere in the group.
    Group,
    /// On one server.
    Server(String),
    /// On one target of a server: the server, and the whole identifier.
    Target(String, String),
}

impl Place {
    /// True when the question is about what is there.
    pub(super) fn covers(&self, question: &super::Question<'_>) -> bool {
        let server = question.server.as_str();
        match self {
            Self::Group => true,
            Self::Server(own) => own == server,
            Self::Target(own, _) if question.action == Action::UseServer => own == server,
            Self::Target(_, id) => *id == super::facts::target_id(server, question.target),
        }
    }
}

/// What a policy applies to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scope {
    /// By [`Action::index`].
    pub actions: [bool; 4],
    pub place: Place,
}

impl Scope {
    /// # Errors
    /// A sentence, when the scope names something that cannot be in this group.
    pub(super) fn of(policy: &Policy, group: Option<&Name>) -> Result<Self, String> {
        check_literals(policy, group)?;
        let mut actions = match policy.action_constraint() {
            ActionConstraint::Any => [true; 4],
            ActionConstraint::Eq(uid) => actions(&[uid]),
            ActionConstraint::In(uids) => actions(&uids),
        };
        let narrow = |actions: &mut [bool; 4], kind: &str| {
            for action in Action::ALL {
                actions[action.index()] &= action.target_type() == kind;
            }
        };
        let place = match policy.resource_constraint() {
            ResourceConstraint::Any => Place::Group,
            ResourceConstraint::Is(kind) => {
                narrow(&mut actions, &kind.to_string());
                Place::Group
            }
            ResourceConstraint::Eq(uid) => {
                narrow(&mut actions, &uid.type_name().to_string());
                place(&uid)
            }
            ResourceConstraint::In(uid) => place(&uid),
            ResourceConstraint::IsIn(kind, uid) => {
                narrow(&mut actions, &kind.to_string());
                place(&uid)
            }
        };
        Ok(Self { actions, place })
    }
}

fn actions(uids: &[EntityUid]) -> [bool; 4] {
    Action::ALL.map(|action| uids.iter().any(|uid| uid.id().unescaped() == action.as_str()))
}

fn place(uid: &EntityUid) -> Place {
    let id: &str = uid.id().unescaped();
    match (uid.type_name().to_string().as_str(), id.split_once('/')) {
        ("Server", _) => Place::Server(id.to_owned()),
        ("Tool" | "Resource" | "Prompt", Some((server, _))) => {
            Place::Target(server.to_owned(), id.to_owned())
        }
        _ => Place::Group,
    }
}

/// Names that can never match are mistakes, and in a forbid they would leave a door open.
fn check_literals(policy: &Policy, group: Option<&Name>) -> Result<(), String> {
    for uid in policy.entity_literals() {
        let id: &str = uid.id().unescaped();
        let kind = uid.type_name().to_string();
        match kind.as_str() {
            "Group" if group.is_some_and(|group| group.as_str() != id) => {
                return Err(format!("{uid} is another group; a policy sees its own group only"));
            }
            "Server" | "ServiceAccount" if id.parse::<Name>().is_err() => {
                return Err(format!("{uid} can never match: that is no resource name"));
            }
            "Tool" | "Resource" | "Prompt" => {
                let server = id.split_once('/').map(|(server, _)| server);
                if server.is_none_or(|server| server.parse::<Name>().is_err()) {
                    let remedy = format!("write {kind}::\"server/name\"");
                    return Err(format!("{uid} can never match; {remedy}"));
                }
            }
            "Anonymous" if id != "anonymous" => {
                return Err(format!("{uid} can never match; write `principal is Anonymous`"));
            }
            _ => {}
        }
    }
    Ok(())
}
