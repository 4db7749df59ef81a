//! Tests of the public API of the model.

#![allow(clippy::unwrap_used, clippy::needless_pass_by_value)]

mod compile;
mod documents;
mod frames;
mod laws;
mod reference;
mod schemas;
mod sync_sim;
