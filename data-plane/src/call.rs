//! The phases of a call.

pub mod authenticate;
pub mod authorize;
pub mod metadata;
