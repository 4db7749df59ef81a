//! What the process answers to its caller, so that scripts need not read prose.

/// How a command ended, apart from well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// The server cannot be reached, or something broke.
    Failed = 1,
    /// The command line makes no sense (clap's own code).
    Usage = 2,
    /// The documents have errors; they are listed.
    Refused = 3,
    /// Somebody else changed the configuration meanwhile; read again.
    Conflict = 4,
    /// No token, a wrong one, or one that may not do this.
    NotAllowed = 5,
    /// There is no such thing.
    NotFound = 6,
    /// The change is stored, but not every proxy has it within the time given.
    NotInForce = 7,
    /// Audit records are missing or altered, or a proof does not hold.
    Tampered = 8,
    /// `diff --exit-code` found differences.
    Differs = 10,
}

/// An error with the code that it ends the process with. Any other error ends it with
/// [`Exit::Failed`].
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Ended {
    /// The code.
    pub exit: Exit,
    /// For people; may have several lines.
    pub message: String,
}

impl Ended {
    /// An error of that code.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }
}

/// The code of an error.
pub fn code(error: &anyhow::Error) -> u8 {
    error.downcast_ref::<Ended>().map_or(Exit::Failed as u8, |ended| ended.exit as u8)
}
