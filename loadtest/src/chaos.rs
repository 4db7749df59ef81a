//! The client's side of the chaos test: what was asked and what was answered, whatever is killed
//! meanwhile, and whether the audit stream says the same.
//!
//! - [`drive`]: calls at a fixed rate, each under arguments of its own, and a file of what became of
//!   each ([`truth`]). It does not mind that nobody listens: it goes on calling.
//! - [`compare`]: holds that file against the records. Every answered call has exactly one; what
//!   was refused for want of a record, or never answered, has at most one; nothing else is there.
//!   A record that was delivered twice is one, by its name.
//!
//! Records are found by the digest of the arguments, which the client computes itself, and must
//! carry the request id that the answer carried.

pub mod compare;
pub mod drive;
pub mod truth;
