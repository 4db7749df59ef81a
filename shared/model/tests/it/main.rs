//! Tests of the public API of the model.

mod compile;
mod documents;
mod laws;
mod schemas;
mod sync_sim;
