//! A load tool for MCP gateways: several targets in one run, every answer checked.
//!
//! - [`scenario`]: what to run, from a TOML file;
//! - [`target`]: one endpoint, and how a session is opened with it;
//! - [`driver`]: closed loop (as fast as N connections go) and open loop (a fixed arrival rate,
//!   latencies counted from the intended start, so that a stall is not hidden);
//! - [`apply`]: how long a change takes from the control plane to the proxies' decisions;
//! - [`process`]: the target's CPU and memory from the process table;
//! - [`report`]: medians and ratios over interleaved rounds;
//! - [`upstream`] and [`floor`]: a fast MCP server, and a bare proxy in front of it, which show
//!   what the machine allows.
//!
//! Figures of one run compare with each other, never with those of another run.

pub mod apply;
pub mod driver;
pub mod floor;
pub mod process;
pub mod report;
pub mod scenario;
pub mod target;
pub mod upstream;
