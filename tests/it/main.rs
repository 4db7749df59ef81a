//! Tests of the whole: house rules, documents, examples, the command line, the product in one
//! process.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod audit;
mod connect;
mod examples;
mod fleet;
mod house_rules;
mod laws;
mod operating;
mod planes;
mod product;
mod quota;
mod sessions;
mod story;
mod sync;
mod telemetry;
mod way;
mod witnessed;
