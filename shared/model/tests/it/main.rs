//! Tests of the public API of the model.

mod documents;
mod laws;
mod sync_sim;
