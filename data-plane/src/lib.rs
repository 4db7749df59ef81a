//! The data plane: a stateless regional proxy.

pub mod mcp;
pub mod upstream;
