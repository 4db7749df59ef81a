//! The data plane: a stateless regional proxy.

pub mod call;
pub mod decisions;
pub mod keys;
pub mod limits;
pub mod mcp;
pub mod upstream;
