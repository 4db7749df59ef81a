//! The audit pipeline: one record per request, reserved before the work, finished with the body.
//!
//! Both planes use it. A [`Pipeline`] numbers records without gaps within one epoch of one node,
//! renders each once, and hands them in order to its sink, which keeps the promise of the record's
//! class: the [`spool`] on the local disk, or [`memory`] in tests. From the spool a drain brings
//! them to a stream for others, `kafka`. [`read`] is for people who look at the files.
//!
//! What a class promises when a record is finished:
//! - `strict`: the sink has written and synced it;
//! - `durable`: the sink has written it, and syncs it shortly after, in groups;
//! - `counted`: nothing; a record that finds no room is counted, and the count is in the records
//!   that follow it.
//!
//! Room is bounded: in memory until the sink has a record for good, on the disk until the stream
//! has it. With no room, or with a sink that cannot write, `strict` and `durable` requests are
//! refused before any work is done for them.
//!
//! Each epoch is a Merkle log ([`merkle`]) whose state the node signs ([`checkpoint`], [`note`])
//! with a key that the control plane certifies ([`certificate`]). [`verify`] finds out whether
//! records are complete and unaltered; [`proof`] shows one of them to somebody who may not see the
//! others.

pub mod certificate;
pub mod checkpoint;
#[cfg(feature = "kafka")]
pub mod consume;
#[cfg(any(test, feature = "testing"))]
pub mod contract;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod leaves;
pub mod line;
pub mod memory;
pub mod merkle;
mod metrics;
pub mod note;
mod pipeline;
pub mod proof;
pub mod read;
pub mod record;
pub mod settings;
pub mod sink;
pub mod spool;
pub mod verify;
pub mod witness;

pub use pipeline::{Builder, Left, Origin, Pipeline, Slot};
pub use record::Record;
pub use sink::{Sink, SinkError};
