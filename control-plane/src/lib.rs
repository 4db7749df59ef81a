//! The control plane: the only writer of configuration.
//!
//! In reading order: [`store`] is where state lives, [`index`] follows it; [`admit`] decides what
//! may change and [`author`] changes it; [`vault`] seals secrets; [`operator`] says who may do
//! what; [`api`] is REST over all of it, [`mod@serve`] its socket. Towards the proxies: [`ca`] and
//! [`enrol`] let them in, [`publish`] sends them configuration, [`fleet`] knows what they run,
//! [`observe`] pins what they see of servers, [`neighbours`] makes them known to each other; [`keyring`] holds what seals sessions. [`app`] puts
//! it all together.

pub mod admit;
pub mod api;
pub mod app;
pub mod author;
pub mod budget;
pub mod ca;
pub mod enrol;
pub mod fleet;
pub mod index;
pub mod keyring;
pub mod neighbours;
pub mod observe;
pub mod operator;
pub mod publish;
pub mod revoke;
pub mod serve;
pub mod settings;
pub mod sign_ins;
pub mod store;
pub mod token;
pub mod vault;
pub mod witness;
