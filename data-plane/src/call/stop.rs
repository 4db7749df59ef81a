//! The end of a call that is not served: what the caller is told, and what the record says.

use std::sync::Arc;

use serde_json::Value;
use weir_model::policy::obligation;
use weir_model::reason::{Reason, Refusal};

use super::authorize::{About, Denial};

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
    /// What the rules were asked about, when they were.
    pub about: Option<Box<About>>,
    /// The arguments, where the rules want them in the record.
    pub kept: Option<Box<Value>>,
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, truth: None, rules: Box::default(), scope: None, about: None, kept: None }
    }
}

impl From<Reason> for Stop {
    fn from(reason: Reason) -> Self {
        Refusal::from(reason).into()
    }
}

impl Stop {
    /// A denial that is told as `told`, unless the rules want the caller to know what it takes.
    pub fn denied(denial: Denial, told: Refusal) -> Self {
        let Denial { refusal, rules, scope, about } = denial;
        let step_up =
            matches!(refusal.reason, Reason::InsufficientScope | Reason::ApprovalRequired);
        let told = if step_up { refusal } else { Refusal { detail: refusal.detail, ..told } };
        Self {
            refusal: told,
            truth: (!step_up).then_some(Reason::Denied),
            rules: rules.into(),
            scope,
            about: Some(about),
            kept: None,
        }
    }

    /// Keeps the arguments for the record, where the rules that decided want that.
    #[must_use]
    pub fn keeping(mut self, arguments: Option<&Value>) -> Self {
        let obligations = self.about.as_ref().map(|about| about.obligations.as_slice());
        self.kept = obligations
            .zip(arguments)
            .and_then(|(wanted, arguments)| obligation::kept(wanted, arguments))
            .map(Box::new);
        self
    }
}
