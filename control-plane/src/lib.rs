//! The control plane: the only writer of configuration.

pub mod index;
pub mod store;
pub mod vault;
