//! Process plumbing that both planes and the command line share.
//!
//! In reading order: [`settings`] and [`telemetry`] come up first; [`ready`], [`drain`],
//! [`signals`] and [`task`] say when the process serves and how it ends; [`metrics`] and
//! [`admin`] show it from outside, [`otlp`] tells a collector; [`traceparent`] is what joins
//! traces over processes; [`tls`] has the one TLS stack; [`clock`] and [`backoff`] are
//! time that tests can hold; [`random`] gives out names.
//!
//! Invariants: nothing here knows MCP, groups, policy or the store, and nothing here reads the
//! environment by itself: settings are given an iterator.

pub mod admin;
pub mod backoff;
pub mod build_info;
pub mod clock;
pub mod drain;
pub mod metrics;
pub mod otlp;
pub mod random;
pub mod ready;
pub mod settings;
pub mod signals;
pub mod task;
pub mod telemetry;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod tls;
pub mod traceparent;
