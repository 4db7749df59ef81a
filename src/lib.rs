//! The binary for people: the operator's command line, and both planes in one process.
//!
//! - [`cli`]: what can be typed; [`exit`]: what the process answers;
//! - [`settings`]: where the server and the token come from (the only reader of the environment);
//! - [`client`]: the REST client, which is all that the operator's commands know of a control
//!   plane; [`operate`]: those commands, one file each;
//! - [`audit`]: looking at the audit trail; [`table`]: how answers are laid out;
//! - [`dev`]: both planes in this process;
//! - [`connect`]: the agent's side, stdio to the nearest gateway.
//!
//! This is the only crate that may see both planes.

pub mod audit;
pub mod cli;
pub mod client;
pub mod connect;
pub mod dev;
pub mod exit;
pub mod operate;
pub mod settings;
pub mod table;
