//! A record as its consumers see it: one line of JSON, rendered once.
//!
//! The shape is OCSF's API Activity (class 6003) with what has no place there under `unmapped`;
//! `docs/reference/audit-event.md` tells every member and `audit-event.schema.json` beside it is
//! the contract. A record holds names, digests and numbers, and arguments only where a rule asks for them.
//! Texts that a peer chose are bounded and scrubbed of what looks like a credential.

mod json;
mod judged;
mod shape;
mod text;

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use weir_model::audit::{EventId, Facts};
use weir_model::id::Name;

use crate::line::{RecordHead, Sealed};

/// Version of the record's shape, in `metadata.log_version`.
pub const LOG_VERSION: &str = "3";
/// Key of records that belong to no group. No group can be called that.
pub const NO_GROUP_KEY: &str = "-";

pub(crate) use shape::{OCSF_VERSION, product};

/// Who writes records: one run of one node.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) node: String,
    pub(crate) region: String,
    pub(crate) epoch: u64,
}

/// A record, or a checkpoint between records, on its way to the sinks. Clones share the bytes.
#[derive(Clone)]
pub struct Record {
    run: Arc<Run>,
    sequence: u64,
    /// The name of a checkpoint.
    checkpoint: Option<Arc<str>>,
    group: Option<Name>,
    bytes: Bytes,
    queued_at: Instant,
    /// Room in the pipeline, given back when the last sink lets go of the record.
    room: Option<Arc<OwnedSemaphorePermit>>,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Record({})", self.uid())
    }
}

impl Record {
    /// Names this record for ever.
    pub fn id(&self) -> EventId {
        let run = &self.run;
        EventId { node: run.node.clone(), epoch: run.epoch, sequence: self.sequence }
    }
    /// [`Self::id`] as consumers see it: `node/epoch/sequence`. Of a checkpoint
    /// `node/epoch/checkpoint-size`.
    pub fn uid(&self) -> String {
        match &self.checkpoint {
            Some(uid) => uid.to_string(),
            None => format!("{}/{}/{}", self.run.node, self.run.epoch, self.sequence),
        }
    }
    /// What keeps it in order with others of its sort: the group of a record, the node of a
    /// checkpoint.
    pub fn key(&self) -> &str {
        match (&self.checkpoint, &self.group) {
            (Some(_), _) => &self.run.node,
            (None, Some(group)) => group.as_str(),
            (None, None) => NO_GROUP_KEY,
        }
    }
    /// True of a checkpoint, which speaks of the records before it.
    pub fn is_checkpoint(&self) -> bool {
        self.checkpoint.is_some()
    }
    pub(crate) fn run(&self) -> &Arc<Run> {
        &self.run
    }

    /// A record as a segment has it. Records of one epoch share their run.
    pub(crate) fn from_disk(head: RecordHead, bytes: Bytes, run: &mut Option<Arc<Run>>) -> Self {
        let RecordHead { id, group, .. } = head;
        Self {
            run: shared(run, &id.node, id.epoch),
            sequence: id.sequence,
            checkpoint: None,
            group: group.and_then(|group| group.parse().ok()),
            bytes,
            queued_at: Instant::now(),
            room: None,
        }
    }

    pub(crate) fn of_checkpoint(sealed: &Sealed, bytes: Bytes, run: &mut Option<Arc<Run>>) -> Self {
        let checkpoint = &sealed.checkpoint;
        Self {
            run: shared(run, &checkpoint.node, checkpoint.head.epoch),
            sequence: checkpoint.head.size,
            checkpoint: Some(sealed.uid().into()),
            group: None,
            bytes,
            queued_at: Instant::now(),
            room: None,
        }
    }

    /// From 1, without gaps within an epoch. Of a checkpoint: how many records it covers.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
    /// The group that it belongs to, when the request named one that exists.
    pub fn group(&self) -> Option<&Name> {
        self.group.as_ref()
    }
    /// The record itself: one JSON object without line breaks.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
    /// A copy that takes no room, for whoever keeps records for longer.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self { room: None, ..self.clone() }
    }
    /// True while it takes room in the pipeline.
    pub fn is_attached(&self) -> bool {
        self.room.is_some()
    }
    /// When it was finished.
    pub fn queued_at(&self) -> Instant {
        self.queued_at
    }
}

fn shared(run: &mut Option<Arc<Run>>, node: &str, epoch: u64) -> Arc<Run> {
    match run {
        Some(run) if run.node == node && run.epoch == epoch => Arc::clone(run),
        run => {
            let new = Run { node: node.to_owned(), region: String::new(), epoch };
            Arc::clone(run.insert(Arc::new(new)))
        }
    }
}

/// A record that lacks its number: rendered outside of the lock that gives numbers out.
#[derive(Debug)]
pub(crate) struct Draft {
    group: Option<Name>,
    /// Three JSON objects, one after the other.
    body: Vec<u8>,
    /// Where the first ends.
    metadata: usize,
    /// Where the second ends.
    unmapped: usize,
}

/// Most records are shorter.
const BODY_BYTES: usize = 4_096;
/// What numbering adds, but for the node's name.
const HEAD_BYTES: usize = 128;

fn json(out: &mut Vec<u8>, value: &impl serde::Serialize) {
    json::append(out, value).expect("strings, numbers and lists always have a JSON form");
}

impl Draft {
    pub(crate) fn render(facts: &Facts, run: &Run) -> Self {
        let shape = shape::Shape::of(facts, run);
        let mut body = Vec::with_capacity(BODY_BYTES);
        json(&mut body, &shape.metadata);
        let metadata = body.len();
        json(&mut body, &shape.unmapped);
        let unmapped = body.len();
        json(&mut body, &shape.event);
        Self { group: facts.group.clone(), body, metadata, unmapped }
    }

    /// Gives the draft its number. `lost` is how many records of this run found no room so far.
    pub(crate) fn number(
        self,
        run: &Arc<Run>,
        sequence: u64,
        lost: u64,
        room: OwnedSemaphorePermit,
    ) -> Record {
        Record {
            run: Arc::clone(run),
            sequence,
            checkpoint: None,
            bytes: self.numbered(run, sequence, lost).into(),
            group: self.group,
            queued_at: Instant::now(),
            room: Some(Arc::new(room)),
        }
    }

    fn numbered(&self, run: &Run, sequence: u64, lost: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.body.len() + run.node.len() + HEAD_BYTES);
        // Each part is a JSON object with at least one member; its opening brace goes.
        out.extend_from_slice(b"{\"metadata\":{\"uid\":\"");
        json::append_escaped(&mut out, &run.node);
        out.push(b'/');
        json(&mut out, &run.epoch);
        out.push(b'/');
        json(&mut out, &sequence);
        out.extend_from_slice(b"\",\"sequence\":");
        json(&mut out, &sequence);
        out.push(b',');
        out.extend_from_slice(&self.body[1..self.metadata]);
        out.extend_from_slice(b",\"unmapped\":{\"lost\":");
        json(&mut out, &lost);
        out.push(b',');
        out.extend_from_slice(&self.body[self.metadata + 1..self.unmapped]);
        out.push(b',');
        out.extend_from_slice(&self.body[self.unmapped + 1..]);
        out
    }
}

/// Renders records without a pipeline, to measure what that alone costs.
#[cfg(feature = "testing")]
#[derive(Debug)]
pub struct Renderer(Run);

#[cfg(feature = "testing")]
impl Renderer {
    /// For records of `node` in `region`.
    pub fn new(node: &str, region: &str) -> Self {
        Self(Run { node: node.to_owned(), region: region.to_owned(), epoch: 1_790_000_000_000 })
    }
    /// The bytes of the record of these facts.
    pub fn render(&self, facts: &Facts, sequence: u64) -> Vec<u8> {
        Draft::render(facts, &self.0).numbered(&self.0, sequence, 0)
    }
}

#[cfg(test)]
mod tests;
