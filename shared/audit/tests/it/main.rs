//! The audit crate from outside: one contract for every sink, the published shape of records.

// A test may fail by unwrapping and says on standard error what it left out.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod contract;
mod disk;
mod faults;
mod foreign;
#[cfg(feature = "kafka")]
mod kafka;
mod shape;
mod witness;
