//! Tests of the control plane from outside.

mod real;
mod stores;
