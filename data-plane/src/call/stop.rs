//! The end of a call that is not served: what the caller is told, and what the record says.

use std::sync::Arc;

use weir_model::reason::{Reason, Refusal};

use super::authorize::Denial;

/// Why a call stops.
#[derive(Debug, Clone)]
pub struct Stop {
    /// For the caller.
    pub refusal: Refusal,
    /// For the record, where the caller is not told the truth: that something exists which it may
    /// not use.
    pub truth: Option<Reason>,
    /// Ids of the rules that decided.
    pub rules: Box<[Arc<str>]>,
    /// Scopes for the challenge.
    pub scope: Option<Box<str>>,
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, truth: None, rules: Box::default(), scope: None }
    }
}

impl From<Reason> for Stop {
    fn from(reason: Reason) -> Self {
        Refusal::from(reason).into()
    }
}

impl Stop {
    /// A denial that is told as `told`, unless the rules want the caller to step up.
    pub fn denied(denial: Denial, told: Refusal) -> Self {
        let Denial { refusal, rules, scope } = denial;
        let step_up = refusal.reason == Reason::InsufficientScope;
        let told = if step_up { refusal } else { Refusal { detail: refusal.detail, ..told } };
        Self {
            refusal: told,
            truth: (!step_up).then_some(Reason::Denied),
            rules: rules.into(),
            scope,
        }
    }
}
