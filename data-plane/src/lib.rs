//! The data plane: a stateless regional proxy.
//!
//! In reading order: [`listener`] (sockets, TLS, limits of connections; its threads are [`lanes`]),
//! [`call`] (**the hot path**, phase by phase), [`mcp`] (mechanics of the protocol, without policy
//! or sockets), what the phases ask ([`config`], [`keys`], [`decisions`], [`limits`], [`sessions`],
//! [`site`]), the back edge ([`upstream`]), the way to other proxies ([`hop`]), and how it is put
//! together ([`settings`], [`app`]).
//!
//! Invariants: a call sees one snapshot. Nothing reaches a server without a permit. Statuses are
//! chosen in `call/respond.rs`. Nothing on the path waits for the control plane or for Kafka. A
//! proxy keeps nothing that another proxy would miss.

pub mod app;
pub mod authorization;
pub mod call;
pub mod certificates;
pub mod config;
pub mod decisions;
pub mod gateway;
pub mod hop;
pub mod keys;
pub mod lanes;
pub mod levels;
pub mod limits;
pub mod listener;
pub mod lists;
pub mod mcp;
mod metrics;
pub mod neighbours;
pub mod replay;
pub mod sessions;
pub mod settings;
pub mod site;
pub mod traces;
pub mod upstream;
