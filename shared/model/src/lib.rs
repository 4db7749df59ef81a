//! The pure core that both planes share: vocabulary, documents, policy, snapshot, sync.
//!
//! In reading order: [`id`], [`bounds`], [`reason`], [`secret`], [`principal`]; what operators
//! say in [`resource`]; what a proxy makes of it in [`snapshot`], [`schema`] and [`policy`]; what
//! a call leaves behind in [`audit`].
//!
//! Invariants: no I/O, no clock, no environment, no tokio. Nothing here knows a socket.

pub mod audit;
pub mod bounds;
pub mod budget;
pub mod id;
pub mod naming;
pub mod observation;
pub mod policy;
pub mod principal;
pub mod reason;
pub mod resource;
pub mod schema;
pub mod seal;
pub mod secret;
pub mod sign_in;
pub mod snapshot;
pub mod sync;
#[cfg(feature = "testing")]
pub mod testing;
pub mod wire;
