//! The lines of a segment and the messages of a topic: records, checkpoints, and the heads of
//! segments.
//!
//! All are JSON objects. A record and a checkpoint are OCSF events; the first line of a segment is
//! not, and never leaves its file.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use weir_model::audit::EventId;

use crate::checkpoint::{Checkpoint, Head};
use crate::leaves::Leaves;
use crate::merkle::{Hash, Tree};
use crate::note::Note;
use crate::record::{LOG_VERSION, OCSF_VERSION, product};

/// Version of the segments' format. Others are not opened.
pub const FORMAT: u32 = 1;
/// `metadata.log_name` of records and of checkpoints.
pub const RECORD_LOG: &str = "weir.audit";
/// See [`RECORD_LOG`].
pub const CHECKPOINT_LOG: &str = "weir.audit.checkpoint";

/// A line that is none of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no line of an audit log: {0}")]
pub struct BadLine(pub String);

/// What a line is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// The head of a segment.
    Segment(SegmentHead),
    /// A record.
    Record(RecordHead),
    /// A checkpoint.
    Checkpoint(Box<Sealed>),
}

/// What a record is called and when it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordHead {
    /// Its name.
    pub id: EventId,
    /// Its group.
    pub group: Option<String>,
    /// When the request arrived, in milliseconds since the epoch.
    pub time_ms: u64,
}

/// The first line of a segment: where in which log it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentHead {
    /// The node.
    pub node: String,
    /// Its region.
    pub region: String,
    /// The epoch; a segment belongs to one.
    pub epoch: u64,
    /// The log up to this segment.
    pub tree: Tree,
    /// The last state of the epoch before.
    pub previous: Option<Head>,
}

/// A signed checkpoint with what is needed to check its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// What it says.
    pub checkpoint: Checkpoint,
    /// As it was signed.
    pub note: Note,
    /// The perfect subtrees under the root: whoever lost what is before can go on from here.
    pub peaks: Option<Vec<Hash>>,
    /// The leaves that it adds, where the note speaks of them.
    pub leaves: Option<Leaves>,
    /// The node's public key.
    pub key: [u8; 32],
    /// The control plane's word that this is the node's key; none before the node has heard it.
    pub certificate: Option<Arc<str>>,
    /// Region of the node.
    pub region: String,
    /// When it was signed, in milliseconds since the epoch.
    pub time_ms: u64,
}

impl Sealed {
    /// Names it for ever, as consumers see it.
    pub fn uid(&self) -> String {
        let Checkpoint { node, head, end, .. } = &self.checkpoint;
        let kind = if *end { "end" } else { "checkpoint" };
        format!("{node}/{}/{kind}-{}", head.epoch, head.size)
    }

    /// The event.
    pub fn render(&self) -> String {
        let Checkpoint { node, head, .. } = &self.checkpoint;
        let mut event = json!({
            "metadata": {
                "uid": self.uid(),
                "version": OCSF_VERSION,
                "product": product(),
                "log_name": CHECKPOINT_LOG,
                "log_version": LOG_VERSION,
            },
            "time": self.time_ms,
            "category_uid": 0,
            "category_name": "Uncategorized",
            "class_uid": 0,
            "class_name": "Base Event",
            "activity_id": 99,
            "activity_name": "checkpoint",
            "type_uid": 99,
            "severity_id": 1,
            "unmapped": {
                "node": node,
                "region": self.region,
                "epoch": head.epoch,
                "size": head.size,
                "note": self.note.to_string(),
                "key": BASE64.encode(self.key),
            },
        });
        if self.checkpoint.lost > 0 {
            event["unmapped"]["lost"] = Value::from(self.checkpoint.lost);
        }
        if let Some(peaks) = &self.peaks {
            event["unmapped"]["peaks"] = peaks.iter().map(|peak| BASE64.encode(peak.0)).collect();
        }
        if let Some(leaves) = &self.leaves {
            event["unmapped"]["leaves"] = Value::from(leaves.encode());
        }
        if let Some(certificate) = &self.certificate {
            event["unmapped"]["certificate"] = Value::from(&**certificate);
        }
        event.to_string()
    }

    fn read(event: &Value) -> Option<Self> {
        let unmapped = &event["unmapped"];
        let text = |name: &str| unmapped[name].as_str();
        let note: Note = text("note")?.parse().ok()?;
        let peaks = match unmapped.get("peaks") {
            Some(peaks) => {
                let hash =
                    |text: &Value| Some(Hash(BASE64.decode(text.as_str()?).ok()?.try_into().ok()?));
                Some(peaks.as_array()?.iter().map(hash).collect::<Option<Vec<_>>>()?)
            }
            None => None,
        };
        let checkpoint: Checkpoint = note.text().parse().ok()?;
        // A list that is not the one that was signed for tells nothing.
        let leaves = checkpoint
            .leaves
            .and_then(|listed| Leaves::decode(text("leaves")?, listed, checkpoint.head.size));
        Some(Self {
            checkpoint,
            note,
            peaks,
            leaves,
            key: BASE64.decode(text("key")?).ok()?.try_into().ok()?,
            certificate: text("certificate").map(Arc::from),
            region: text("region")?.to_owned(),
            time_ms: event["time"].as_u64()?,
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SegmentLine {
    weir_audit_segment: SegmentBody,
}

#[derive(Serialize, Deserialize)]
struct SegmentBody {
    format: u32,
    node: String,
    region: String,
    epoch: u64,
    size: u64,
    peaks: Vec<String>,
    previous: Option<Previous>,
}

#[derive(Serialize, Deserialize)]
struct Previous {
    epoch: u64,
    size: u64,
    root: String,
}

impl fmt::Display for SegmentHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encode = |hash: &Hash| BASE64.encode(hash.0);
        let body = SegmentBody {
            format: FORMAT,
            node: self.node.clone(),
            region: self.region.clone(),
            epoch: self.epoch,
            size: self.tree.size(),
            peaks: self.tree.peaks().iter().map(encode).collect(),
            previous: self.previous.as_ref().map(|head| Previous {
                epoch: head.epoch,
                size: head.size,
                root: encode(&head.root),
            }),
        };
        let text = serde_json::to_string(&SegmentLine { weir_audit_segment: body });
        f.write_str(&text.map_err(|_| fmt::Error)?)
    }
}

impl SegmentBody {
    fn read(self) -> Option<SegmentHead> {
        let hash = |text: &String| Some(Hash(BASE64.decode(text).ok()?.try_into().ok()?));
        let peaks = self.peaks.iter().map(hash).collect::<Option<Vec<_>>>()?;
        let previous = match &self.previous {
            Some(Previous { epoch, size, root }) => {
                Some(Head { epoch: *epoch, size: *size, root: hash(root)? })
            }
            None => None,
        };
        let tree = Tree::from_peaks(self.size, peaks)?;
        let Self { node, region, epoch, .. } = self;
        Some(SegmentHead { node, region, epoch, tree, previous })
    }
}

/// As much of an event as says what it is.
#[derive(Deserialize)]
struct Probe<'a> {
    #[serde(borrow)]
    metadata: Option<Metadata<'a>>,
    time: Option<u64>,
    weir_audit_segment: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow)]
    uid: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    log_name: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow)]
    tenant_uid: Option<std::borrow::Cow<'a, str>>,
}

/// What a line is.
///
/// # Errors
/// When it is none of ours, or the head of a segment in another format.
pub fn parse(line: &[u8]) -> Result<Line, BadLine> {
    let bad = |why: &str| BadLine(why.to_owned());
    let probe: Probe<'_> = serde_json::from_slice(line).map_err(|e| BadLine(e.to_string()))?;
    if probe.weir_audit_segment.is_some() {
        let line: SegmentLine = serde_json::from_slice(line).map_err(|e| BadLine(e.to_string()))?;
        let body = line.weir_audit_segment;
        if body.format != FORMAT {
            let format = body.format;
            return Err(BadLine(format!(
                "a segment of format {format}; this build reads {FORMAT}"
            )));
        }
        return body.read().map(Line::Segment).ok_or_else(|| bad("a segment's head"));
    }
    let metadata = probe.metadata.ok_or_else(|| bad("no `metadata`"))?;
    if metadata.log_name.as_deref() == Some(CHECKPOINT_LOG) {
        let event: Value = serde_json::from_slice(line).map_err(|e| BadLine(e.to_string()))?;
        let sealed = Sealed::read(&event).ok_or_else(|| bad("a checkpoint"))?;
        return Ok(Line::Checkpoint(Box::new(sealed)));
    }
    let id = event_id(&metadata.uid).ok_or_else(|| bad("`metadata.uid`"))?;
    let group = metadata.tenant_uid.map(std::borrow::Cow::into_owned);
    Ok(Line::Record(RecordHead { id, group, time_ms: probe.time.unwrap_or(0) }))
}

/// `node/epoch/sequence`.
pub fn event_id(uid: &str) -> Option<EventId> {
    let (rest, sequence) = uid.rsplit_once('/')?;
    let (node, epoch) = rest.rsplit_once('/')?;
    let id = EventId {
        node: node.to_owned(),
        epoch: epoch.parse().ok()?,
        sequence: sequence.parse().ok()?,
    };
    // One spelling per record.
    (format!("{node}/{}/{}", id.epoch, id.sequence) == uid).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle::leaf;
    use crate::note::Signer;

    #[test]
    fn every_sort_of_line_reads_as_it_was_written() {
        let mut tree = Tree::default();
        (0..5u8).for_each(|n| tree.push(leaf(&[n])));
        let head = Head { epoch: 41, size: 7, root: tree.root() };
        let node = "eu-1".to_owned();
        for previous in [Some(head), None] {
            let (node, tree, region) = (node.clone(), tree.clone(), "eu".to_owned());
            let segment = SegmentHead { node, region, epoch: 42, tree, previous };
            let line = segment.to_string();
            assert_eq!(parse(line.as_bytes()), Ok(Line::Segment(segment)));
            let later = line.replace("\"format\":1", "\"format\":2");
            let error = parse(later.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("format 2"), "{error}");
        }
        let signer = Signer::generate().unwrap();
        let leaves = Leaves::of(3, (3..=7u8).map(|n| leaf(&[n])).collect::<Vec<_>>().into_iter());
        let listed = leaves.as_ref().map(Leaves::listed);
        let checkpoint =
            Checkpoint { node, head, previous: None, leaves: listed, lost: 2, end: true };
        for certificate in [None, Some(Arc::from("a\n\nb\n"))] {
            let sealed = Sealed {
                note: checkpoint.sign(&signer).unwrap(),
                checkpoint: checkpoint.clone(),
                peaks: certificate.is_some().then(|| tree.peaks().to_vec()),
                leaves: leaves.clone(),
                key: signer.public(),
                certificate,
                region: "eu".to_owned(),
                time_ms: 9,
            };
            let line = sealed.render();
            assert!(line.contains("\"uid\":\"eu-1/41/end-7\"") && !line.contains('\n'), "{line}");
            assert_eq!(parse(line.as_bytes()), Ok(Line::Checkpoint(Box::new(sealed))));
        }
        let record = br#"{"metadata":{"uid":"a/b/3/4","tenant_uid":"g"},"time":5,"more":[{}]}"#;
        let Ok(Line::Record(read)) = parse(record) else { panic!("a record") };
        assert_eq!((read.id.node.as_str(), read.id.epoch, read.id.sequence), ("a/b", 3, 4));
        assert_eq!((read.group.as_deref(), read.time_ms), (Some("g"), 5));
        for bad in ["", "{}", "[]", "7", r#"{"metadata":{"uid":"a/1/02"}}"#, "{\"metadata\":{}}"] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
