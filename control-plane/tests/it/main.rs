//! Tests of the control plane from outside.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "what was left out is said")]

mod following;
mod openapi;
mod plane;
mod process;
mod real;
mod replicas;
mod rest;
mod secured;
mod stores;
