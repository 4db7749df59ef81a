//! The configuration in force on this proxy.

mod state;

pub use state::State;
