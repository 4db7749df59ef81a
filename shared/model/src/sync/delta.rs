//! What leads from one view of a region to another: computed once for all nodes that need it, and
//! cut into messages one at a time, so that a node that is sent everything costs no copy of it.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::statement::SignedStatement;
use super::{Applied, PlaneFrame, UpdateHead, UpdatePart, secret_ids};
use crate::bounds;
use crate::resource::{Resource, ResourceKey, ResourceSet};

/// Bytes of one part, below the limit of a message.
const PART_BYTES: usize = bounds::SYNC_MESSAGE_BYTES_MAX / 2;
/// What framing adds to each entry.
const FRAMING_BYTES: usize = 16;

/// New and changed documents, and keys of those that are gone.
#[derive(Debug, Default)]
pub struct Delta {
    upserts: Vec<Arc<Resource>>,
    removals: Vec<ResourceKey>,
    secret_ids: Vec<String>,
    cuts: Cuts,
}

/// Where a list of entries is cut into parts, of which there is at least one.
#[derive(Debug)]
struct Cuts {
    parts: Vec<Range<usize>>,
    bytes: usize,
}

impl Default for Cuts {
    fn default() -> Self {
        Self::after(0)
    }
}

impl Cuts {
    /// Begins in a part that holds so many bytes already.
    #[allow(clippy::single_range_in_vec_init)] // The first part, which is empty so far.
    fn after(bytes: usize) -> Self {
        Self { parts: vec![0..0], bytes }
    }

    fn add(&mut self, bytes: usize) {
        let bytes = bytes + FRAMING_BYTES;
        let last = self.parts.last_mut().expect("there is a first part");
        if self.bytes > 0 && self.bytes + bytes > PART_BYTES {
            let end = last.end;
            self.parts.push(end..end + 1);
            self.bytes = bytes;
        } else {
            last.end += 1;
            self.bytes += bytes;
        }
    }
}

impl Delta {
    /// From documents and keys.
    pub fn new(upserts: Vec<Arc<Resource>>, removals: Vec<ResourceKey>) -> Self {
        let ids = upserts.iter().flat_map(|r| secret_ids(&r.spec));
        let mut secret_ids: Vec<String> = ids.map(str::to_owned).collect();
        secret_ids.sort_unstable();
        secret_ids.dedup();
        let mut cuts = Cuts::default();
        for resource in &upserts {
            cuts.add(resource.key.text_bytes() + resource.canonical.len());
        }
        removals.iter().for_each(|key| cuts.add(key.text_bytes()));
        Self { upserts, removals, secret_ids, cuts }
    }

    /// What leads from one set to another; without `from`, everything.
    pub fn between(from: Option<&ResourceSet>, to: &ResourceSet) -> Self {
        let (upserts, removals) = match from {
            Some(from) => from.diff(to),
            None => (to.iter().cloned().collect(), Vec::new()),
        };
        Self::new(upserts, removals)
    }

    /// New and changed documents.
    pub fn upserts(&self) -> &[Arc<Resource>] {
        &self.upserts
    }

    /// Documents that are gone.
    pub fn removals(&self) -> &[ResourceKey] {
        &self.removals
    }

    /// Ids of the secrets that go with it.
    pub fn secret_ids(&self) -> &[String] {
        &self.secret_ids
    }

    /// Entries of one part.
    fn entries(&self, at: usize) -> (Vec<(String, Bytes)>, Vec<String>) {
        let Range { start, end } = self.cuts.parts.get(at).cloned().unwrap_or_default();
        let all = self.upserts.len();
        let upserts = &self.upserts[start.min(all)..end.min(all)];
        let removals = &self.removals[start.max(all) - all..end.max(all) - all];
        let upsert = |r: &Arc<Resource>| (r.key.to_string(), r.canonical.clone());
        let upserts = upserts.iter().map(upsert).collect();
        (upserts, removals.iter().map(ToString::to_string).collect())
    }
}

/// What the messages of an update say besides its content.
#[derive(Debug, Clone, Copy)]
pub struct Heading {
    /// Identifies the update on the stream.
    pub nonce: u64,
    /// The state after it.
    pub target: Applied,
    /// The state before it; none when it is the whole state.
    pub base: Option<Applied>,
    /// History was rewritten.
    pub rollback: bool,
}

/// The messages of an update, made as they are asked for.
#[derive(Debug)]
pub struct Parts {
    head: UpdateHead,
    delta: Arc<Delta>,
    secrets: Vec<(String, Bytes)>,
    /// The first goes with the last part of the delta, others are parts of their own.
    cuts: Cuts,
    next: u32,
}

impl Parts {
    /// `secrets` are sealed to the node.
    pub fn new(
        heading: Heading,
        delta: Arc<Delta>,
        statement: SignedStatement,
        secrets: Vec<(String, Bytes)>,
    ) -> Self {
        let mut cuts = Cuts::after(delta.cuts.bytes);
        secrets.iter().for_each(|(id, sealed)| cuts.add(id.len() + sealed.len()));
        let parts = delta.cuts.parts.len() + cuts.parts.len() - 1;
        let Heading { nonce, target, base, rollback } = heading;
        let parts = u32::try_from(parts).unwrap_or(u32::MAX);
        let head = UpdateHead { nonce, parts, target, base, rollback, statement };
        Self { head, delta, secrets, cuts, next: 0 }
    }

    /// The next message as a frame of the stream; none after the last.
    pub fn frame(&mut self) -> Option<PlaneFrame> {
        self.next().map(|part| PlaneFrame::Update(Box::new(part)))
    }
}

impl Iterator for Parts {
    type Item = UpdatePart;

    fn next(&mut self) -> Option<UpdatePart> {
        if self.next >= self.head.parts {
            return None;
        }
        let part = self.next;
        self.next += 1;
        let at = usize::try_from(part).unwrap_or(usize::MAX);
        let (upserts, removals) = self.delta.entries(at);
        let own = (at + 1).checked_sub(self.delta.cuts.parts.len());
        let secrets = own.and_then(|at| self.cuts.parts.get(at)).cloned().unwrap_or_default();
        let secrets = self.secrets[secrets].to_vec();
        Some(UpdatePart { head: self.head.clone(), part, upserts, removals, secrets })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Digest;
    use crate::resource::Kind;

    fn policy(at: usize, bytes: usize) -> Arc<Resource> {
        let group = "g".parse().unwrap();
        let cedar = format!("forbid (principal, action, resource); //{}", "x".repeat(bytes));
        let key = ResourceKey::grouped(Kind::Policy, &group, format!("p{at}"));
        Arc::new(Resource::unreadable(key, cedar.into(), "not looked at".to_owned()))
    }

    fn parts(delta: Delta, secrets: Vec<(String, Bytes)>) -> Vec<UpdatePart> {
        let target = Applied { digest: Digest::of(b"x"), ..Applied::default() };
        let heading = Heading { nonce: 1, target, base: None, rollback: false };
        Parts::new(heading, Arc::new(delta), SignedStatement::default(), secrets).collect()
    }

    #[test]
    fn parts_hold_everything_once_and_each_fits_a_message() {
        for (documents, bytes, gone, secrets) in [
            (0, 0, 0, 0),
            (1, 10, 0, 0),
            (0, 0, 3, 0),
            (0, 0, 0, 2),
            (20, 200_000, 5, 3),
            (3, 1_400_000, 2, 0),
            (1, 1_560_000, 0, 3),
            (2, 10, 0, 40),
        ] {
            let upserts: Vec<_> = (0..documents).map(|at| policy(at, bytes)).collect();
            let removals: Vec<_> = (0..gone).map(|at| policy(at, 0).key.clone()).collect();
            let sealed = |at: usize| (format!("secret-{at}"), Bytes::from(vec![0; 100_000]));
            let sealed: Vec<_> = (0..secrets).map(sealed).collect();
            let all = parts(Delta::new(upserts.clone(), removals.clone()), sealed.clone());
            let case = format!("{documents} of {bytes}, {gone} gone, {secrets} secrets");
            assert!(all.iter().all(|part| part.bytes() < bounds::SYNC_MESSAGE_BYTES_MAX), "{case}");
            assert!(all.iter().enumerate().all(|(at, p)| p.part as usize == at), "{case}");
            assert!(all.iter().all(|p| p.head.parts as usize == all.len()), "{case}");
            let keys: Vec<_> =
                all.iter().flat_map(|p| &p.upserts).map(|(k, _)| k.clone()).collect();
            let wanted: Vec<_> = upserts.iter().map(|r| r.key.to_string()).collect();
            assert_eq!(keys, wanted, "{case}");
            assert_eq!(all.iter().map(|p| p.removals.len()).sum::<usize>(), gone, "{case}");
            let brought: Vec<_> = all.into_iter().flat_map(|p| p.secrets).collect();
            assert_eq!(brought, sealed, "{case}");
        }
    }
}
