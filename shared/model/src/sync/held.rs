//! From the parts of an update to a state that is checked: what a node holds, and keeps on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::publisher::Plan;
use super::statement::{Anchor, SignedStatement};
use super::{Applied, Now, PlaneFrame, UpdateHead, UpdatePart, secret_ids};
use crate::bounds;
use crate::id::Name;
use crate::resource::{Resource, ResourceKey, ResourceSet};

/// A node's configuration as it was received: what the checkpoint keeps.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Held {
    /// Revision and digest.
    pub applied: Applied,
    /// The documents.
    pub set: ResourceSet,
    /// Secrets by id, still sealed to the node.
    pub sealed: BTreeMap<String, Bytes>,
    /// The control plane's signature; none when nothing is held.
    pub statement: Option<SignedStatement>,
}

/// An update with all its parts.
#[derive(Debug)]
pub struct Assembled {
    head: UpdateHead,
    base: Option<Arc<Held>>,
    upserts: Vec<(String, Bytes)>,
    removals: Vec<String>,
    secrets: Vec<(String, Bytes)>,
}

impl Assembled {
    /// Identifies the update in `on_applied`.
    pub fn nonce(&self) -> u64 {
        self.head.nonce
    }

    /// The state after the update, checked: its digest is the announced one, and the control
    /// plane signed it for this region. Documents that this build cannot read are kept as
    /// [`Spec::Unreadable`]. Takes time; not for threads that serve calls.
    ///
    /// # Errors
    /// A sentence for the control plane; the node asks for the whole state.
    pub fn resolve(self, anchor: &Anchor, region: &Name, now: Now) -> Result<Held, String> {
        self.resolve_at(anchor, region, Some(now.unix))
    }

    fn resolve_at(self, anchor: &Anchor, region: &Name, unix: Option<i64>) -> Result<Held, String> {
        let target = self.head.target;
        let statement = self.head.statement;
        statement
            .verify(anchor, region, target, unix)
            .map_err(|e| format!("the update is not signed as it should be: {e}"))?;
        let (mut set, mut sealed) = match &self.base {
            Some(base) => (base.set.clone(), base.sealed.clone()),
            None => Default::default(),
        };
        for (key, canonical) in self.upserts {
            set.insert(Arc::new(read(&key, canonical)?));
        }
        for key in &self.removals {
            let key = ResourceKey::parse(key).ok_or_else(|| format!("no such key: {key}"))?;
            set.remove(&key);
        }
        let digest = set.digest();
        if digest != target.digest {
            return Err(format!(
                "the digest after the update is {} instead of {}",
                digest.short(),
                target.digest.short()
            ));
        }
        sealed.extend(self.secrets);
        let wanted: BTreeSet<&str> = set.iter().flat_map(|r| secret_ids(&r.spec)).collect();
        sealed.retain(|id, _| wanted.contains(id.as_str()));
        Ok(Held { applied: target, set, sealed, statement: Some(statement) })
    }
}

/// Reads one document as it came, or keeps it unread.
fn read(key: &str, canonical: Bytes) -> Result<Resource, String> {
    let parsed = ResourceKey::parse(key).ok_or_else(|| format!("no such key: {key}"))?;
    match Resource::from_canonical(canonical.clone()) {
        Ok(resource) if resource.key == parsed && resource.canonical == canonical => Ok(resource),
        Ok(_) => Err(format!("the document of {key} is not what its key says")),
        Err(errors) => {
            let why =
                errors.first().map_or_else(String::new, |e| format!("{}: {}", e.path, e.message));
            Ok(Resource::unreadable(parsed, canonical, why))
        }
    }
}

impl Held {
    /// True when every secret that the documents refer to is here.
    pub fn is_complete(&self) -> bool {
        self.set.iter().flat_map(|r| secret_ids(&r.spec)).all(|id| self.sealed.contains_key(id))
    }

    /// The update that leads from nothing to here: what a checkpoint keeps. Empty when nothing
    /// is held.
    pub fn to_parts(&self) -> Vec<UpdatePart> {
        let Some(statement) = self.statement.clone() else { return Vec::new() };
        let plan = Plan {
            nonce: 1,
            target: self.applied,
            base: None,
            rollback: false,
            upserts: self.set.iter().cloned().collect(),
            removals: Vec::new(),
        };
        let sealed = self.sealed.iter().map(|(id, bytes)| (id.clone(), bytes.clone()));
        let frames = plan.into_parts(statement, sealed.collect());
        let part = |frame| match frame {
            PlaneFrame::Update(part) => Some(*part),
            _ => None,
        };
        frames.into_iter().filter_map(part).collect()
    }

    /// Reads what [`Self::to_parts`] gave, and checks digest and signature. The signer's
    /// endorsement may have ended: it was good when the state came.
    ///
    /// # Errors
    /// A sentence, when it is not what the control plane signed for this region.
    pub fn from_parts(
        parts: Vec<UpdatePart>,
        anchor: &Anchor,
        region: &Name,
    ) -> Result<Self, String> {
        let mut parts = parts.into_iter();
        let first = parts.next().ok_or("it is empty")?;
        let mut whole = Assembling::of(first.head.clone());
        whole.push(first)?;
        parts.try_for_each(|part| whole.push(part))?;
        if !whole.is_whole() || whole.head.base.is_some() {
            return Err("it is not whole".to_owned());
        }
        whole.into_assembled(None).resolve_at(anchor, region, None)
    }
}

/// An update that is being put together.
#[derive(Debug)]
pub(super) struct Assembling {
    pub(super) head: UpdateHead,
    next: u32,
    bytes: usize,
    upserts: Vec<(String, Bytes)>,
    removals: Vec<String>,
    secrets: Vec<(String, Bytes)>,
}

impl Assembling {
    pub(super) fn of(head: UpdateHead) -> Self {
        let (upserts, removals, secrets) = Default::default();
        Self { head, next: 0, bytes: 0, upserts, removals, secrets }
    }

    pub(super) fn into_assembled(self, base: Option<Arc<Held>>) -> Assembled {
        let Self { head, upserts, removals, secrets, .. } = self;
        Assembled { head, base, upserts, removals, secrets }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.next >= self.head.parts
    }

    pub(super) fn push(&mut self, part: UpdatePart) -> Result<(), &'static str> {
        if part.part < self.next {
            return Ok(());
        }
        if part.part > self.next || part.head != self.head {
            return Err("a part of an update does not follow the one before");
        }
        let parts = usize::try_from(part.head.parts).unwrap_or(usize::MAX);
        self.bytes += part.bytes();
        let entries = self.upserts.len() + part.upserts.len() + part.removals.len();
        if parts > bounds::SYNC_PARTS_MAX
            || self.bytes > bounds::SNAPSHOT_BYTES_MAX
            || entries > bounds::SNAPSHOT_RESOURCES_MAX * 2
            || part.upserts.iter().any(|(_, d)| d.len() > bounds::RESOURCE_BYTES_MAX)
        {
            return Err("an update is larger than any that is allowed");
        }
        self.upserts.extend(part.upserts);
        self.removals.extend(part.removals);
        self.secrets.extend(part.secrets);
        self.next += 1;
        Ok(())
    }
}
