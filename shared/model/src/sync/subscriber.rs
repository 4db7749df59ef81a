//! The node's end of the stream.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::publisher::Plan;
use super::report::ReportPart;
use super::statement::Anchor;
use super::{
    Applied, Held, Hello, Jitter, NodeFrame, Now, PlaneFrame, Refused, SCHEMA, Timing, UpdateHead,
    UpdatePart, secret_ids,
};
use crate::bounds;
use crate::id::{Digest, Name, Revision};
use crate::resource::{Resource, ResourceKey, Spec};
use crate::seal::NodePublic;

/// What the shell of a [`Subscriber`] has to do.
#[derive(Debug)]
pub enum Action {
    /// Connect to a replica; answer with `on_connected` or `on_disconnected`.
    Connect {
        /// Attempts since the last success; tells which replica is next.
        attempt: u32,
    },
    /// Send a frame.
    Send(NodeFrame),
    /// Off the threads that serve calls: resolve, compile and swap; then say `on_applied`.
    Apply(Box<Assembled>),
    /// A report is kept by the control plane.
    Stored {
        /// Of the report.
        sequence: u64,
    },
    /// Drop the connection, for that reason. The machine already counts as disconnected.
    Close(String),
}

/// Who a node is.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its name.
    pub node: Name,
    /// Its region.
    pub region: Name,
    /// Version and commit, for people.
    pub build: String,
    /// What secrets are sealed to.
    pub sealing_key: NodePublic,
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
        let wanted: std::collections::BTreeSet<&str> =
            set.iter().flat_map(|r| secret_ids(&r.spec)).collect();
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
    /// What compiling cannot see: documents that this build cannot read.
    pub fn unreadable(&self) -> Vec<Refused> {
        let unreadable = self.set.iter().filter_map(|r| match &r.spec {
            Spec::Unreadable(why) => Some(Refused { key: r.key.to_string(), message: why.clone() }),
            _ => None,
        });
        unreadable.collect()
    }

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

#[derive(Debug)]
struct Assembling {
    head: UpdateHead,
    next: u32,
    bytes: usize,
    upserts: Vec<(String, Bytes)>,
    removals: Vec<String>,
    secrets: Vec<(String, Bytes)>,
}

#[derive(Debug, PartialEq)]
enum Link {
    Down { until: Duration },
    Connecting,
    Up { heard: Duration, beat: Duration, greeted: bool },
}

/// See the module.
#[derive(Debug)]
pub struct Subscriber {
    timing: Timing,
    node: Node,
    jitter: Jitter,
    held: Arc<Held>,
    refused: Vec<Refused>,
    /// The node has the documents but not all that belongs to them: it needs a whole state.
    wanting: bool,
    link: Link,
    attempt: u32,
    assembling: Option<Assembling>,
    /// The update that the shell works on, and whether the stream that brought it is still up.
    applying: Option<(u64, bool)>,
    /// Updates up to this one are done with, on the stream that is up.
    done: u64,
}

impl Subscriber {
    /// A node that has `held` from its checkpoint (or nothing) and refuses `refused` of it.
    pub fn new(timing: Timing, node: Node, held: Held, refused: Vec<Refused>, seed: u64) -> Self {
        Self {
            timing,
            node,
            jitter: Jitter(seed),
            wanting: !held.is_complete(),
            held: Arc::new(held),
            refused,
            link: Link::Down { until: Duration::ZERO },
            attempt: 0,
            assembling: None,
            applying: None,
            done: 0,
        }
    }

    /// What the node has.
    pub fn held(&self) -> &Arc<Held> {
        &self.held
    }

    /// True while a stream is up and the control plane has answered on it.
    pub fn is_connected(&self) -> bool {
        matches!(self.link, Link::Up { greeted: true, .. })
    }

    /// What is kept cannot be used as it is (a secret does not open): ask for the whole state
    /// when the next stream begins.
    pub fn want_everything(&mut self) {
        self.wanting = true;
    }

    /// Heartbeats, attempts to connect, and patience that has run out.
    pub fn on_tick(&mut self, now: Now) -> Vec<Action> {
        match &mut self.link {
            Link::Down { until } if now.mono >= *until && self.applying.is_none() => {
                self.link = Link::Connecting;
                vec![Action::Connect { attempt: self.attempt }]
            }
            Link::Down { .. } | Link::Connecting => Vec::new(),
            Link::Up { heard, .. } if now.mono.saturating_sub(*heard) > self.timing.silence() => {
                self.close("the control plane has been silent for too long", now)
            }
            Link::Up { beat, .. } if now.mono.saturating_sub(*beat) >= self.timing.heartbeat => {
                *beat = now.mono;
                vec![Action::Send(NodeFrame::Heartbeat(self.claim()))]
            }
            Link::Up { .. } => Vec::new(),
        }
    }

    /// A connection is there.
    pub fn on_connected(&mut self, now: Now) -> Vec<Action> {
        self.link = Link::Up { heard: now.mono, beat: now.mono, greeted: false };
        self.assembling = None;
        self.done = 0;
        vec![Action::Send(NodeFrame::Hello(Hello {
            node: self.node.node.clone(),
            region: self.node.region.clone(),
            build: self.node.build.clone(),
            schema: SCHEMA,
            applied: self.claim(),
            sealing_key: self.node.sealing_key,
            refused: self.refused.clone(),
        }))]
    }

    /// The connection is gone, or could not be made.
    pub fn on_disconnected(&mut self, now: Now) {
        if matches!(self.link, Link::Down { .. }) {
            return;
        }
        let factor = 2_u32.saturating_pow(self.attempt.min(16));
        let pause = self.timing.backoff_min.saturating_mul(factor).min(self.timing.backoff_max);
        self.link = Link::Down { until: now.mono + pause.mul_f64(self.jitter.factor()) };
        self.attempt = self.attempt.saturating_add(1);
        self.assembling = None;
        if let Some((_, live)) = &mut self.applying {
            *live = false;
        }
    }

    /// The control plane has sent a frame.
    pub fn on_message(&mut self, frame: PlaneFrame, now: Now) -> Vec<Action> {
        let Link::Up { heard, greeted, .. } = &mut self.link else { return Vec::new() };
        *heard = now.mono;
        match frame {
            PlaneFrame::Welcome { .. } => {
                *greeted = true;
                Vec::new()
            }
            PlaneFrame::Update(part) => self.on_part(*part, now),
            PlaneFrame::Heartbeat(applied) => self.on_heartbeat(applied),
            PlaneFrame::ReportStored { sequence } => vec![Action::Stored { sequence }],
        }
    }

    /// The frame that carries a part of a report, when there is a stream to send it on.
    pub fn report(&self, part: ReportPart) -> Option<NodeFrame> {
        self.is_connected().then_some(NodeFrame::Report(Box::new(part)))
    }

    /// The shell is done with an update: it is in force except for what is refused of it, or it
    /// could not be used at all.
    pub fn on_applied(
        &mut self,
        nonce: u64,
        outcome: Result<(Held, Vec<Refused>), String>,
    ) -> Vec<Action> {
        let Some((_, live)) = self.applying.take_if(|(n, _)| *n == nonce) else {
            return Vec::new();
        };
        let mut actions = self.answer(nonce, live, outcome);
        if self.assembling.as_ref().is_some_and(Assembling::is_whole) {
            actions.extend(self.finish());
        }
        actions
    }

    fn answer(
        &mut self,
        nonce: u64,
        live: bool,
        outcome: Result<(Held, Vec<Refused>), String>,
    ) -> Vec<Action> {
        match outcome {
            Ok((held, refused)) => {
                // What it brought is all that the control plane could give.
                self.wanting = false;
                self.held = Arc::new(held);
                self.refused.clone_from(&refused);
                if !live {
                    return Vec::new();
                }
                self.attempt = 0;
                let applied = self.held.applied;
                vec![Action::Send(NodeFrame::Ack { nonce, applied, refused })]
            }
            Err(message) if live => vec![Action::Send(NodeFrame::Resync { nonce, message })],
            Err(_) => Vec::new(),
        }
    }

    /// What the node says that it has.
    fn claim(&self) -> Applied {
        if self.wanting {
            // The digest is that of nothing known, so that the answer is a whole state; the
            // revision still guards against going back.
            return Applied { revision: self.held.applied.revision, digest: Digest::default() };
        }
        self.held.applied
    }

    fn on_heartbeat(&mut self, believed: Applied) -> Vec<Action> {
        let mine = self.claim();
        if self.applying.is_some() || self.assembling.is_some() {
            return Vec::new();
        }
        if believed == mine {
            self.attempt = 0;
        } else if believed.revision == mine.revision && mine.revision != Revision(0) {
            let message = "a heartbeat tells of another digest".to_owned();
            return vec![Action::Send(NodeFrame::Resync { nonce: 0, message })];
        }
        Vec::new()
    }

    fn on_part(&mut self, part: UpdatePart, now: Now) -> Vec<Action> {
        let nonce = part.head.nonce;
        if nonce <= self.done {
            return Vec::new();
        }
        if self.assembling.as_ref().is_none_or(|a| nonce > a.head.nonce) {
            // The latest wins: what was being put together is no longer wanted.
            self.assembling = None;
            if self.is_there(&part.head) {
                return self.confirm(nonce);
            }
            if let Err(message) = self.check(&part.head) {
                self.done = nonce;
                return vec![Action::Send(NodeFrame::Resync { nonce, message })];
            }
            self.assembling = Some(Assembling::of(part.head.clone()));
        }
        let Some(assembling) = self.assembling.as_mut().filter(|a| a.head.nonce == nonce) else {
            return Vec::new();
        };
        match assembling.push(part) {
            Ok(()) if assembling.is_whole() && self.applying.is_none() => self.finish(),
            Ok(()) => Vec::new(),
            Err(reason) => self.close(reason, now),
        }
    }

    /// Why an update cannot be used, as far as its head tells.
    fn check(&self, head: &UpdateHead) -> Result<(), String> {
        let held = self.held.applied;
        let mine =
            |base: Applied| base.digest == held.digest && !self.wanting && self.applying.is_none();
        if head.base.is_some_and(|base| !mine(base)) {
            return Err("the update is based on another state than mine".to_owned());
        }
        if head.target.revision <= held.revision && !head.rollback {
            return Err(format!(
                "the update leads to revision {}, which is not after mine ({})",
                head.target.revision, held.revision
            ));
        }
        Ok(())
    }

    /// True when the node already has what an update leads to.
    fn is_there(&self, head: &UpdateHead) -> bool {
        head.target == self.held.applied && !self.wanting && self.applying.is_none()
    }

    fn confirm(&mut self, nonce: u64) -> Vec<Action> {
        self.done = nonce;
        let (applied, refused) = (self.held.applied, self.refused.clone());
        vec![Action::Send(NodeFrame::Ack { nonce, applied, refused })]
    }

    fn finish(&mut self) -> Vec<Action> {
        let Some(whole) = self.assembling.take() else { return Vec::new() };
        let nonce = whole.head.nonce;
        if self.is_there(&whole.head) {
            return self.confirm(nonce);
        }
        self.done = nonce;
        if let Err(message) = self.check(&whole.head) {
            return vec![Action::Send(NodeFrame::Resync { nonce, message })];
        }
        self.applying = Some((nonce, true));
        let base = whole.head.base.map(|_| Arc::clone(&self.held));
        vec![Action::Apply(Box::new(whole.into_assembled(base)))]
    }

    fn close(&mut self, reason: &str, now: Now) -> Vec<Action> {
        self.on_disconnected(now);
        vec![Action::Close(reason.to_owned())]
    }
}

impl Assembling {
    fn of(head: UpdateHead) -> Self {
        let (upserts, removals, secrets) = Default::default();
        Self { head, next: 0, bytes: 0, upserts, removals, secrets }
    }

    fn into_assembled(self, base: Option<Arc<Held>>) -> Assembled {
        let Self { head, upserts, removals, secrets, .. } = self;
        Assembled { head, base, upserts, removals, secrets }
    }

    fn is_whole(&self) -> bool {
        self.next >= self.head.parts
    }

    fn push(&mut self, part: UpdatePart) -> Result<(), &'static str> {
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
