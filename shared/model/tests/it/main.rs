//! Tests of the public API of the model.

mod documents;
mod laws;
