//! A load tool for MCP gateways: several targets in one run, every answer checked.
//!
//! - [`plan`]: targets, scenarios and goals, from a TOML file;
//! - [`target`]: one endpoint, in every revision ([`era`]), with [`push`] and [`events`] for what
//!   comes as streams;
//! - [`driver`]: closed loop (as fast as N connections go) and open loop (a fixed arrival rate,
//!   latencies counted from the intended start, so that a stall is not hidden);
//! - [`hold`]: sessions and streams that are opened and kept, and what they cost in memory;
//! - [`process`]: the target's CPU and memory from the process table;
//! - [`run`]: interleaves targets and rounds; [`report`]: medians and ratios as Markdown, JSON and
//!   HTML; [`goal`]: what figures are held against;
//! - [`flame`]: flame graphs of what `perf` saw;
//! - [`chaos`]: what became of every call while everything is killed, against the audit records;
//! - [`apply`]: how long a change takes from the control plane to the proxies' decisions;
//! - [`fleet`]: one control plane with many proxies, and what size costs there;
//! - [`upstream`] and [`floor`]: a fast MCP server, and a bare proxy in front of it, which show
//!   what the machine allows; [`issuer`]: a key and a token, for gateways that want one.
//!
//! Figures of one run compare with each other, never with those of another run.

pub mod apply;
pub mod chaos;
pub mod driver;
pub mod era;
pub mod events;
pub mod flame;
pub mod fleet;
pub mod floor;
pub mod goal;
pub mod hold;
pub mod issuer;
pub mod plan;
pub mod process;
pub mod push;
pub mod report;
pub mod run;
pub mod settings;
pub mod target;
pub mod upstream;
