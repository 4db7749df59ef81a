//! One node's stream: moves frames between gRPC and the state machine.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use weir_model::bounds;
use weir_model::id::{Digest, Revision};
use weir_model::sync::delta::Parts;
use weir_model::sync::identity::NodeId;
use weir_model::sync::publisher::{Action, Plan, Publisher, View};
use weir_model::sync::report::Assembly;
use weir_model::sync::{Applied, Hello, NodeFrame, PlaneFrame};
use weir_model::wire;
use weir_proto::sync::v1;
use weir_runtime::drain::Watch;

use super::{Identity, Shared};
use crate::fleet::{Connected, Presence};

type Out = mpsc::Sender<Result<v1::PlaneFrame, Status>>;

/// Begins a node's stream.
pub(super) fn open(
    shared: &Arc<Shared>,
    peer: Identity,
    frames: Streaming<v1::NodeFrame>,
    drain: Watch,
) -> impl Stream<Item = Result<v1::PlaneFrame, Status>> + Send + use<> {
    let (out, answers) = mpsc::channel(bounds::SYNC_QUEUE_FRAMES);
    let shared = Arc::clone(shared);
    weir_runtime::task::spawn("sync-stream", async move {
        let id = peer.id.clone();
        let (views, known) = shared.regions.follow(&id.region);
        let newest = views.borrow().clone();
        let timing = shared.parts.timing.clone();
        let replica = shared.parts.replica.clone();
        let machine = Publisher::new(timing, replica, newest, known, shared.now());
        let (stored_tell, stored) = mpsc::channel(bounds::OBSERVE_QUEUE);
        let link = Link {
            shared,
            peer,
            machine,
            views,
            queue: VecDeque::new(),
            update: None,
            preparing: None,
            reports: Assembly::default(),
            presence: None,
            stored_tell,
            stored,
            drain,
        };
        let end = link.run(frames, &out).await;
        tracing::info!(node = %id, reason = end.message(), "a node's stream ended");
        // The node may be gone already.
        let _ = tokio::time::timeout(Duration::from_secs(1), out.send(Err(end))).await;
    });
    ReceiverStream::new(answers)
}

struct Link {
    shared: Arc<Shared>,
    peer: Identity,
    machine: Publisher,
    views: watch::Receiver<Arc<View>>,
    /// Frames that wait for the node to take them.
    queue: VecDeque<PlaneFrame>,
    /// The update that goes after them; its messages are made one at a time.
    update: Option<Parts>,
    /// The update that is being sealed and signed.
    preparing: Option<JoinHandle<Option<Parts>>>,
    reports: Assembly,
    presence: Option<Connected>,
    stored_tell: mpsc::Sender<u64>,
    stored: mpsc::Receiver<u64>,
    drain: Watch,
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(task) = &self.preparing {
            task.abort();
        }
    }
}

/// What a turn of the loop was about. Lives for that turn alone, so its size does not matter.
#[allow(clippy::large_enum_variant)]
enum Turn {
    Frame(Option<Result<v1::NodeFrame, Status>>),
    View,
    Prepared(Option<Parts>),
    Stored(u64),
    Sent,
    Tick,
    End(Status),
}

impl Link {
    async fn run(mut self, mut frames: Streaming<v1::NodeFrame>, out: &Out) -> Status {
        let beat = self.shared.parts.timing.heartbeat / 5;
        let mut ticks = tokio::time::interval(beat.max(Duration::from_millis(10)));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let turn = tokio::select! {
                frame = frames.next() => Turn::Frame(frame),
                changed = self.views.changed() => match changed {
                    Ok(()) => Turn::View,
                    Err(_) => Turn::End(Status::unavailable("this replica is going away")),
                },
                prepared = prepared(&mut self.preparing) => Turn::Prepared(prepared),
                Some(sequence) = self.stored.recv() => Turn::Stored(sequence),
                room = out.reserve(), if !self.queue.is_empty() || self.update.is_some() => match room {
                    Ok(room) => {
                        if let Some(frame) = self.next_frame() {
                            room.send(Ok(wire::to_plane_frame(frame)));
                        }
                        Turn::Sent
                    }
                    Err(_) => Turn::End(Status::cancelled("the node has left")),
                },
                _ = ticks.tick() => Turn::Tick,
                () = self.drain.drained() => {
                    Turn::End(Status::unavailable("this replica is going away"))
                }
            };
            if let Turn::Frame(Some(Ok(frame))) = &turn
                && let Some(v1::node_frame::Body::Hello(hello)) = &frame.body
            {
                self.recall(hello).await;
            }
            if let Err(end) = self.turn(turn) {
                return end;
            }
        }
    }

    /// A node that comes back may have what this stream does not know, since this replica has
    /// started anew or the node was away for long: then the store's history may know it.
    async fn recall(&mut self, hello: &v1::Hello) {
        let Ok(digest) = hello.digest.as_ref().try_into() else { return };
        let applied = Applied { revision: Revision(hello.revision), digest: Digest(digest) };
        if self.machine.hello().is_some() || self.machine.knows(applied) {
            return;
        }
        let (shared, region) = (&self.shared, &self.peer.id.region);
        if let Some(view) = shared.regions.past(region, applied).await {
            self.machine.recall(view);
        }
    }

    fn next_frame(&mut self) -> Option<PlaneFrame> {
        self.queue.pop_front().or_else(|| {
            let frame = self.update.as_mut()?.frame();
            if frame.is_none() {
                self.update = None;
            }
            frame
        })
    }

    fn turn(&mut self, turn: Turn) -> Result<(), Status> {
        let now = self.shared.now();
        let actions = match turn {
            Turn::Frame(None) => return Err(Status::cancelled("the node has left")),
            Turn::Frame(Some(Err(status))) => {
                return Err(Status::cancelled(format!("the connection broke: {status}")));
            }
            Turn::Frame(Some(Ok(frame))) => {
                let frame = wire::from_node_frame(frame)
                    .map_err(|e| Status::invalid_argument(e.to_string()))?;
                if let NodeFrame::Hello(hello) = &frame {
                    self.greet(hello)?;
                }
                if let (NodeFrame::TokensUsed(uses), Some(_)) = (&frame, &self.presence) {
                    self.shared.parts.fleet.tokens_used(uses.clone());
                }
                let actions = self.machine.on_message(frame, now);
                if let Some(presence) = &self.presence {
                    let (applied, refused) = self.machine.status();
                    presence.status(applied, refused);
                }
                actions
            }
            Turn::View => {
                self.belongs()?;
                let view = self.views.borrow_and_update().clone();
                self.machine.on_change(view, now)
            }
            Turn::Prepared(update) => {
                self.update = update;
                Vec::new()
            }
            Turn::Stored(sequence) => {
                self.queue.push_back(PlaneFrame::ReportStored { sequence });
                Vec::new()
            }
            Turn::Sent => Vec::new(),
            Turn::Tick => {
                if self.peer.not_after <= now.unix {
                    return Err(Status::unauthenticated("the certificate has ended: renew it"));
                }
                self.belongs()?;
                self.machine.on_tick(now)
            }
            Turn::End(status) => return Err(status),
        };
        actions.into_iter().try_for_each(|action| self.act(action))
    }

    /// The node is not cut off. Looked at with every view and every tick: a stream may have begun while
    /// its region's view of the change was being made, and then hears of no change.
    fn belongs(&self) -> Result<(), Status> {
        match self.shared.regions.revoked(&self.peer.id.node) {
            true => Err(Status::permission_denied(super::CUT_OFF)),
            false => Ok(()),
        }
    }

    /// The node says who it is; its certificate has said so before.
    fn greet(&mut self, hello: &Hello) -> Result<(), Status> {
        let claimed = NodeId { region: hello.region.clone(), node: hello.node.clone() };
        if claimed != self.peer.id {
            return Err(Status::permission_denied(format!(
                "the certificate is for {}, not for {claimed}",
                self.peer.id
            )));
        }
        if self.presence.is_none() {
            let (build, schema) = (hello.build.chars().take(100).collect(), hello.schema);
            let presence = Presence { id: claimed, build, schema };
            self.presence = Some(self.shared.parts.fleet.connected(presence));
        }
        Ok(())
    }

    fn act(&mut self, action: Action) -> Result<(), Status> {
        match action {
            Action::Send(frame) => self.queue.push_back(frame),
            Action::Publish(plan) => self.prepare(plan),
            Action::Report(part) => match self.reports.push(*part) {
                Ok(None) => {}
                Ok(Some((sequence, observation))) => {
                    let stored = self.stored_tell.clone();
                    let intake = &self.shared.parts.intake;
                    // When it has no room the node sends it again on its next stream.
                    intake.take(self.peer.id.clone(), observation, move || {
                        let _ = stored.try_send(sequence);
                    });
                }
                Err(message) => return Err(Status::invalid_argument(message)),
            },
            Action::Close(reason) => return Err(Status::aborted(reason)),
        }
        Ok(())
    }

    /// Compares, seals and signs in a task: the stream stays alive meanwhile. What is the same for
    /// all nodes of the region is done once.
    fn prepare(&mut self, plan: Plan) {
        let Some(hello) = self.machine.hello() else { return };
        let (region, key) = (hello.region.clone(), hello.sealing_key);
        let shared = Arc::clone(&self.shared);
        // The latest wins: what is left of an update before is no longer wanted.
        self.update = None;
        let task = tokio::spawn(async move {
            let delta = shared.ways.delta(&plan).await?;
            let signer = shared.signer.load_full();
            let statement = shared.ways.statement(&region, plan.heading.target, &signer);
            let secrets = shared.opened.sealed(delta.secret_ids(), key).await;
            Some(plan.into_parts(delta, statement, secrets))
        });
        if let Some(before) = self.preparing.replace(task) {
            before.abort();
        }
    }
}

async fn prepared(task: &mut Option<JoinHandle<Option<Parts>>>) -> Option<Parts> {
    let Some(running) = task else { return std::future::pending().await };
    // A task that failed sends nothing: the node does not acknowledge, and the stream ends.
    let parts = running.await.ok().flatten();
    *task = None;
    parts
}
