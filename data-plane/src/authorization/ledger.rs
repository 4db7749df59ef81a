//! What is good once in a sign-in is asked for where the whole fleet is counted.
//!
//! The control plane keeps the turns ([`weir_model::sign_in`]); a proxy that reaches no replica of
//! it grants nothing: a code is refused for the moment and may be shown again while it lasts, and
//! so is a refresh token, unless the group's document says `refreshAlone`. Then the proxy goes by
//! what it remembers itself, and a copy that is used at another proxy meanwhile is found out at the
//! next turn that is counted.

use async_trait::async_trait;
use weir_model::id::Name;
use weir_model::sign_in::{Step, Turn, Verdict};

/// Nobody answered who counts turns; a sentence for logs.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct Unreachable(pub String);

/// Who counts turns.
#[async_trait]
pub trait Ledger: Send + Sync + std::fmt::Debug {
    /// Takes one step of a sign-in.
    ///
    /// # Errors
    /// When nobody answered; the step may have been taken all the same.
    async fn step(&self, group: &Name, step: Step) -> Result<Verdict, Unreachable>;
}

/// One turn as a proxy takes it now.
pub(super) fn turn(session: &str, number: u64, until: i64) -> Turn {
    let attempt = super::sealed::random();
    Turn { session: session.to_owned(), number, attempt, until }
}
