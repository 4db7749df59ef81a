//! The audit pipeline: one record per request, reserved before the work, finished with the body.
//!
//! Both planes use it. A [`Pipeline`] numbers records without gaps within one epoch of one node,
//! renders each once, and hands them in order to its sinks: the first one keeps the promise of
//! the record's class, the others follow at their own pace. [`file`](mod@file) is the sink on the
//! local disk, `kafka` the stream for others, [`memory`] for tests. [`read`] is for people who
//! look at the files.
//!
//! What a class promises when a record is finished:
//! - `strict`: the first sink has written and synced it;
//! - `durable`: the first sink has written it, and syncs it shortly after, in groups;
//! - `counted`: nothing; a record that finds no room is counted, and the count is in the records
//!   that follow it.
//!
//! Room is bounded: a record takes it from its reservation until every sink has it for good. With
//! no room, or with a first sink that cannot write, `strict` and `durable` requests are refused
//! before any work is done for them.

pub mod checkpoint;
#[cfg(any(test, feature = "testing"))]
pub mod contract;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod line;
pub mod memory;
pub mod merkle;
mod metrics;
pub mod note;
mod pipeline;
pub mod read;
pub mod record;
pub mod sink;
pub mod spool;

pub use pipeline::{Builder, Left, Origin, Pipeline, Slot};
pub use record::Record;
pub use sink::{Sink, SinkError};
