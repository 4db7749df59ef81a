//! The data plane: a stateless regional proxy.

pub mod upstream;
