//! From the parts of an update to a state that is checked: what a node holds, and keeps on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::delta::{Delta, Heading, Parts};
use super::statement::{Anchor, SignedStatement};
use super::{Applied, Now, UpdateHead, UpdatePart, secrets_of};
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

    /// True when the update holds the whole state, false when it changes what the node has.
    pub fn is_whole_state(&self) -> bool {
        self.head.base.is_none()
    }

    /// The state that the update leads to.
    pub fn target(&self) -> Applied {
        self.head.target
    }

    /// [`Self::resolve`] for who already has the documents of the state after the update, say
    /// because another node of the same process resolved it: a set is known by its digest. The
    /// signature is checked all the same.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub fn resolve_known(
        self,
        set: ResourceSet,
        (anchor, region): (&Anchor, &Name),
        now: Now,
    ) -> Result<Held, String> {
        self.check_statement(anchor, region, Some(now.unix))?;
        let sealed = self.base.as_ref().map(|base| base.sealed.clone()).unwrap_or_default();
        finished(self.head, set, (sealed, self.secrets))
    }

    fn check_statement(
        &self,
        anchor: &Anchor,
        region: &Name,
        unix: Option<i64>,
    ) -> Result<(), String> {
        let UpdateHead { target, statement, .. } = &self.head;
        statement
            .verify(anchor, region, *target, unix)
            .map_err(|e| format!("the update is not signed as it should be: {e}"))
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
        self.check_statement(anchor, region, unix)?;
        let (mut set, sealed) = match &self.base {
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
        finished(self.head, set, (sealed, self.secrets))
    }
}

/// A state whose digest is the announced one.
fn finished(
    head: UpdateHead,
    set: ResourceSet,
    (mut sealed, secrets): (BTreeMap<String, Bytes>, Vec<(String, Bytes)>),
) -> Result<Held, String> {
    let (digest, target) = (set.digest(), head.target);
    if digest != target.digest {
        return Err(format!(
            "the digest after the update is {} instead of {}",
            digest.short(),
            target.digest.short()
        ));
    }
    sealed.extend(secrets);
    let wanted: BTreeSet<&str> = secrets_of(&set).collect();
    sealed.retain(|id, _| wanted.contains(id.as_str()));
    Ok(Held { applied: target, set, sealed, statement: Some(head.statement) })
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
        secrets_of(&self.set).all(|id| self.sealed.contains_key(id))
    }

    /// The update that leads from nothing to here: what a checkpoint keeps. Empty when nothing
    /// is held.
    pub fn to_parts(&self) -> impl Iterator<Item = UpdatePart> + use<> {
        self.update(None)
    }

    /// The update that leads from an earlier state to here: what is added to a checkpoint.
    pub fn parts_since(&self, before: &Self) -> impl Iterator<Item = UpdatePart> + use<> {
        self.update(Some(before))
    }

    fn update(&self, before: Option<&Self>) -> impl Iterator<Item = UpdatePart> + use<> {
        let parts = self.statement.clone().map(|statement| {
            let delta = Delta::between(before.map(|before| &before.set), &self.set);
            let known = |id: &String| before.and_then(|before| before.sealed.get(id));
            let new = self.sealed.iter().filter(|(id, bytes)| known(id) != Some(bytes));
            let secrets = new.map(|(id, bytes)| (id.clone(), bytes.clone())).collect();
            let base = before.map(|before| before.applied);
            let heading = Heading { nonce: 1, target: self.applied, base, rollback: false };
            Parts::new(heading, Arc::new(delta), statement, secrets)
        });
        parts.into_iter().flatten()
    }

    /// The state after an update that [`Self::parts_since`] gave for this one, checked as by
    /// [`Self::from_parts`].
    ///
    /// # Errors
    /// A sentence, when it is not what the control plane signed, or belongs to another state.
    pub fn advanced(
        self: &Arc<Self>,
        parts: Vec<UpdatePart>,
        (anchor, region): (&Anchor, &Name),
    ) -> Result<Self, String> {
        let whole = assembled(parts)?;
        if whole.head.base != Some(self.applied) {
            return Err("it does not follow what was before".to_owned());
        }
        whole.into_assembled(Some(Arc::clone(self))).resolve_at(anchor, region, None)
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
        let whole = assembled(parts)?;
        if whole.head.base.is_some() {
            return Err("it is not whole".to_owned());
        }
        whole.into_assembled(None).resolve_at(anchor, region, None)
    }
}

/// An update from all its parts.
fn assembled(parts: Vec<UpdatePart>) -> Result<Assembling, String> {
    let mut parts = parts.into_iter();
    let first = parts.next().ok_or("it is empty")?;
    let mut whole = Assembling::of(first.head.clone());
    whole.push(first)?;
    parts.try_for_each(|part| whole.push(part))?;
    if whole.is_whole() { Ok(whole) } else { Err("it is not whole".to_owned()) }
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
