//! Tests of the control plane from outside.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::too_many_lines, reason = "tables")]

mod following;
mod openapi;
mod plane;
mod policy;
mod process;
mod real;
mod replicas;
mod rest;
mod secured;
mod stores;
