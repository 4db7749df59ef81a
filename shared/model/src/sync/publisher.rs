//! The control plane's end of one node's stream.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::delta::{Delta, Heading, Parts};
use super::report::ReportPart;
use super::statement::SignedStatement;
use super::{Applied, Hello, NodeFrame, Now, PlaneFrame, Refused, SCHEMA, Timing};
use crate::id::{Digest, Revision};
use crate::resource::ResourceSet;

/// Whole states in a row that a node may ask for before its stream is ended.
const RESYNCS_MAX: u32 = 3;

/// What a region sees at a revision. Shared by the streams of all its nodes.
#[derive(Debug, Default)]
pub struct View {
    /// Revision and digest.
    pub applied: Applied,
    /// The documents.
    pub set: ResourceSet,
}

impl View {
    /// The view of a set at a revision.
    pub fn new(revision: Revision, set: ResourceSet) -> Self {
        Self { applied: Applied { revision, digest: set.digest() }, set }
    }
}

/// What the shell of a [`Publisher`] has to do.
#[derive(Debug)]
pub enum Action {
    /// Send a frame.
    Send(PlaneFrame),
    /// Sign the target, seal the secrets, and send the parts ([`Plan::into_parts`]).
    Publish(Plan),
    /// A part of an observation came.
    Report(Box<ReportPart>),
    /// End the stream, for that reason.
    Close(String),
}

/// An update to be sent.
#[derive(Debug)]
pub struct Plan {
    /// What its messages say besides the content.
    pub heading: Heading,
    /// From here; none when it is the whole state.
    pub from: Option<Arc<View>>,
    /// To here.
    pub to: Arc<View>,
}

impl Plan {
    /// The content. The same for every node that goes the same way: keep it.
    pub fn delta(&self) -> Delta {
        Delta::between(self.from.as_ref().map(|from| &from.set), &self.to.set)
    }

    /// Names the way: plans of the same way have the same content.
    pub fn way(&self) -> (Option<Digest>, Digest) {
        (self.from.as_ref().map(|from| from.applied.digest), self.to.applied.digest)
    }

    /// The messages. `secrets` are sealed to the node.
    pub fn into_parts(
        self,
        delta: Arc<Delta>,
        statement: SignedStatement,
        secrets: Vec<(String, Bytes)>,
    ) -> Parts {
        Parts::new(self.heading, delta, statement, secrets)
    }
}

#[derive(Debug)]
struct InFlight {
    nonce: u64,
    view: Arc<View>,
    since: Duration,
}

/// See the module.
#[derive(Debug)]
pub struct Publisher {
    timing: Timing,
    replica: String,
    newest: Arc<View>,
    /// Views that a node may still have; used for its Hello, then dropped.
    known: Vec<Arc<View>>,
    hello: Option<Hello>,
    /// What the node has, as it said.
    applied: Applied,
    refused: Vec<Refused>,
    /// What the node has, when we have it too.
    base: Option<Arc<View>>,
    in_flight: Option<InFlight>,
    nonce: u64,
    resyncs: u32,
    behind_since: Option<Duration>,
    heard: Duration,
    beat: Duration,
    closed: bool,
}

impl Publisher {
    /// A fresh stream. `known` holds earlier views of the region, so that a node that comes back
    /// gets only what changed.
    pub fn new(
        timing: Timing,
        replica: String,
        newest: Arc<View>,
        known: Vec<Arc<View>>,
        now: Now,
    ) -> Self {
        Self {
            timing,
            replica,
            newest,
            known,
            hello: None,
            applied: Applied::default(),
            refused: Vec::new(),
            base: None,
            in_flight: None,
            nonce: 0,
            resyncs: 0,
            behind_since: None,
            heard: now.mono,
            beat: now.mono,
            closed: false,
        }
    }

    /// One more earlier view that the node may still have. To be told before its Hello.
    pub fn recall(&mut self, view: Arc<View>) {
        self.known.push(view);
    }

    /// True when `applied` is nothing, or a view that this stream knows.
    pub fn knows(&self, applied: Applied) -> bool {
        let mut views = std::iter::once(&self.newest).chain(&self.known);
        applied.revision == Revision(0) || views.any(|v| v.applied.digest == applied.digest)
    }

    /// Who is at the other end; none before its Hello.
    pub fn hello(&self) -> Option<&Hello> {
        self.hello.as_ref()
    }

    /// What the node last said that it has, and what it refuses of that.
    pub fn status(&self) -> (Applied, &[Refused]) {
        (self.applied, &self.refused)
    }

    /// True when the node has the newest state.
    pub fn is_current(&self) -> bool {
        self.hello.is_some() && self.applied == self.newest.applied
    }

    /// The region has a new view. Views that nobody could send yet are skipped.
    pub fn on_change(&mut self, view: Arc<View>, now: Now) -> Vec<Action> {
        self.newest = view;
        self.advance(now)
    }

    /// Heartbeats, and patience that has run out.
    pub fn on_tick(&mut self, now: Now) -> Vec<Action> {
        if self.closed {
            return Vec::new();
        }
        if now.mono.saturating_sub(self.heard) > self.timing.silence() {
            return self.close("the node has been silent for too long");
        }
        if self.in_flight.as_ref().is_some_and(|f| now.mono - f.since > self.timing.ack) {
            return self.close("the node did not acknowledge an update in time");
        }
        let mut actions = Vec::new();
        if self.hello.is_some() && now.mono.saturating_sub(self.beat) >= self.timing.heartbeat {
            self.beat = now.mono;
            actions.push(Action::Send(PlaneFrame::Heartbeat(self.applied)));
        }
        actions.extend(self.advance(now));
        actions
    }

    /// The node has sent a frame.
    pub fn on_message(&mut self, frame: NodeFrame, now: Now) -> Vec<Action> {
        if self.closed {
            return Vec::new();
        }
        self.heard = now.mono;
        match (frame, self.hello.is_some()) {
            (NodeFrame::Hello(hello), false) => self.on_hello(hello, now),
            (_, false) => self.close("the first message must be Hello"),
            (NodeFrame::Hello(hello), true) if self.hello.as_ref() == Some(&hello) => Vec::new(),
            (NodeFrame::Hello(_), true) => self.close("a second Hello"),
            (NodeFrame::Ack { nonce, applied, refused }, true) => {
                self.on_ack(nonce, applied, refused, now)
            }
            (NodeFrame::Heartbeat(applied), true) => self.on_heartbeat(applied, now),
            (NodeFrame::Resync { nonce, message }, true) => self.on_resync(nonce, &message, now),
            (NodeFrame::Report(part), true) => vec![Action::Report(part)],
            // Whoever drives the machine takes note of them.
            (NodeFrame::TokensUsed(_), true) => Vec::new(),
        }
    }

    fn on_hello(&mut self, hello: Hello, now: Now) -> Vec<Action> {
        if hello.schema < SCHEMA {
            return self.close("the node reads an older document schema only: upgrade it");
        }
        self.applied = hello.applied;
        self.refused.clone_from(&hello.refused);
        self.hello = Some(hello);
        let known = std::mem::take(&mut self.known);
        if self.applied.revision != Revision(0) {
            let digest = self.applied.digest;
            let mut views = std::iter::once(&self.newest).chain(known.iter().rev());
            self.base = views.find(|v| v.applied.digest == digest).cloned();
        }
        let revision = self.newest.applied.revision;
        let welcome = PlaneFrame::Welcome { replica: self.replica.clone(), revision };
        let mut actions = vec![Action::Send(welcome)];
        actions.extend(self.advance(now));
        actions
    }

    fn on_ack(
        &mut self,
        nonce: u64,
        applied: Applied,
        refused: Vec<Refused>,
        now: Now,
    ) -> Vec<Action> {
        let Some(flight) = self.in_flight.take_if(|f| f.nonce == nonce) else {
            return Vec::new();
        };
        if applied != flight.view.applied {
            return self.on_resync(nonce, "the node acknowledged another state", now);
        }
        self.applied = applied;
        self.refused = refused;
        self.base = Some(flight.view);
        self.resyncs = 0;
        self.advance(now)
    }

    fn on_heartbeat(&mut self, applied: Applied, now: Now) -> Vec<Action> {
        if self.in_flight.is_some() || applied == self.applied {
            return Vec::new();
        }
        // Late news from before an acknowledgement, or a node that differs from what it said.
        self.applied = applied;
        self.on_resync(0, "the node has another state than it said", now)
    }

    fn on_resync(&mut self, nonce: u64, message: &str, now: Now) -> Vec<Action> {
        if nonce != 0 && nonce != self.nonce {
            return Vec::new();
        }
        self.in_flight = None;
        self.base = None;
        self.resyncs += 1;
        if self.resyncs > RESYNCS_MAX {
            return self.close(&format!("the node asks for the whole state again: {message}"));
        }
        self.publish(now)
    }

    /// Sends what there is to send, when the node is ready for it.
    fn advance(&mut self, now: Now) -> Vec<Action> {
        if self.hello.is_none() || self.in_flight.is_some() || self.closed {
            return Vec::new();
        }
        let newest = self.newest.applied;
        if newest == self.applied && self.base.is_some() || newest.revision == Revision(0) {
            return Vec::new();
        }
        if newest.revision >= self.applied.revision {
            self.behind_since = None;
        } else {
            let since = *self.behind_since.get_or_insert(now.mono);
            if now.mono - since < self.timing.lag {
                return Vec::new();
            }
        }
        self.publish(now)
    }

    fn publish(&mut self, now: Now) -> Vec<Action> {
        self.behind_since = None;
        let view = Arc::clone(&self.newest);
        let rollback = view.applied.revision <= self.applied.revision;
        let from = if rollback { None } else { self.base.clone() };
        let base = from.as_ref().map(|_| self.applied);
        self.nonce += 1;
        let nonce = self.nonce;
        let target = view.applied;
        let to = Arc::clone(&view);
        self.in_flight = Some(InFlight { nonce, view, since: now.mono });
        let heading = Heading { nonce, target, base, rollback };
        vec![Action::Publish(Plan { heading, from, to })]
    }

    fn close(&mut self, reason: &str) -> Vec<Action> {
        self.closed = true;
        vec![Action::Close(reason.to_owned())]
    }
}
