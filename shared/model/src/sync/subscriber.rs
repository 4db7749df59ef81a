//! The node's end of the stream.

use std::sync::Arc;
use std::time::Duration;

use super::held::{Assembled, Assembling, Held};
use super::report::ReportPart;
use super::{
    Applied, Hello, Jitter, NodeFrame, Now, PlaneFrame, Refused, SCHEMA, Timing, UpdateHead,
    UpdatePart,
};
use crate::id::{Digest, Name, Revision};
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
