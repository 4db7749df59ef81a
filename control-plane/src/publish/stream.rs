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
use weir_model::sync::identity::NodeId;
use weir_model::sync::publisher::{Action, Plan, Publisher, View};
use weir_model::sync::report::Assembly;
use weir_model::sync::{Hello, NodeFrame, PlaneFrame};
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
    /// The update that is being sealed, signed and cut into parts.
    preparing: Option<JoinHandle<Vec<PlaneFrame>>>,
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
    Prepared(Vec<PlaneFrame>),
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
                room = out.reserve(), if !self.queue.is_empty() => match room {
                    Ok(room) => {
                        if let Some(frame) = self.queue.pop_front() {
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
            if let Err(end) = self.turn(turn) {
                return end;
            }
        }
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
                if self.shared.regions.revoked(&self.peer.id.node) {
                    return Err(Status::permission_denied(super::CUT_OFF));
                }
                let view = self.views.borrow_and_update().clone();
                self.machine.on_change(view, now)
            }
            Turn::Prepared(frames) => {
                self.queue.extend(frames);
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
                self.machine.on_tick(now)
            }
            Turn::End(status) => return Err(status),
        };
        actions.into_iter().try_for_each(|action| self.act(action))
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

    /// Seals, signs and cuts in a task: the stream stays alive meanwhile.
    fn prepare(&mut self, plan: Plan) {
        let Some(hello) = self.machine.hello() else { return };
        let (region, key) = (hello.region.clone(), hello.sealing_key);
        let shared = Arc::clone(&self.shared);
        // The latest wins: what is left of an update before is no longer wanted.
        self.queue.retain(|frame| !matches!(frame, PlaneFrame::Update(_)));
        let task = tokio::spawn(async move {
            let secrets = shared.opened.sealed(plan.secret_ids(), key).await;
            let cut = tokio::task::spawn_blocking(move || {
                let statement = shared.signer.load().sign(&region, plan.target);
                plan.into_parts(statement, secrets)
            });
            cut.await.unwrap_or_default()
        });
        if let Some(before) = self.preparing.replace(task) {
            before.abort();
        }
    }
}

async fn prepared(task: &mut Option<JoinHandle<Vec<PlaneFrame>>>) -> Vec<PlaneFrame> {
    let Some(running) = task else { return std::future::pending().await };
    // A task that failed sends nothing: the node does not acknowledge, and the stream ends.
    let frames = running.await.unwrap_or_default();
    *task = None;
    frames
}
