//! Rules as operators write them, and what they decide.

mod bad_input;
mod decisions;
mod documented;
mod oracle;
