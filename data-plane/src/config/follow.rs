//! The stream: moves frames between gRPC and the state machine, and does what the machine asks.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use weir_model::bounds;
use weir_model::observation::Observation;
use weir_model::sync::report::Outbox;
use weir_model::sync::subscriber::{Action, Node, Subscriber};
use weir_model::sync::{Assembled, Held, NodeFrame, Now, PlaneFrame, Refused};
use weir_model::wire;
use weir_proto::sync::v1;
use weir_runtime::drain::Watch;

use super::uses::Uses;
use super::{Config, apply, checkpoint, link};

/// Reports that nobody confirmed are sent again after this long.
const REPORT_AGAIN: Duration = Duration::from_secs(30);

/// Reports that are under way at a time. The control plane takes them one after the other, and has
/// room for a few of each node.
const REPORTS_MAX: usize = 32;

/// Runs until the drain.
pub(super) async fn run(config: Config, reports: mpsc::Receiver<Observation>, drain: Watch) {
    let (keep, kept) = watch::channel(None);
    let state = Arc::clone(&config.state);
    let folder = config.options.folder.clone();
    let keeper = weir_runtime::task::spawn(
        "checkpoint",
        checkpoint::keep(folder, kept, move || state.age()),
    );
    let follower = Follower::new(config, keep);
    follower.run(reports, drain).await;
    // The sender is gone: what is left is written.
    if let Err(error) = keeper.await {
        tracing::error!(%error, "the checkpoint's task ended");
    }
}

type Applying = JoinHandle<(u64, Result<(Held, Vec<Refused>), String>)>;

/// A stream that is up.
struct Wire {
    frames: Streaming<v1::PlaneFrame>,
    out: mpsc::Sender<v1::NodeFrame>,
}

struct Follower {
    config: Config,
    machine: Subscriber,
    began: Instant,
    /// Which of the endpoints is next.
    endpoint: usize,
    connecting: Option<JoinHandle<Result<Wire, String>>>,
    wire: Option<Wire>,
    applying: Option<Applying>,
    /// The update that is being applied.
    nonce: u64,
    queue: VecDeque<NodeFrame>,
    outbox: Outbox,
    due: VecDeque<u64>,
    /// Reports that were sent and not confirmed yet.
    reported: HashSet<u64>,
    due_again: Duration,
    uses: Uses,
    uses_due: Duration,
    keep: watch::Sender<Option<Arc<Held>>>,
}

/// What a turn of the loop was about. Lives for that turn alone, so its size does not matter.
#[allow(clippy::large_enum_variant)]
enum Turn {
    Connected(Result<Wire, String>),
    Frame(Option<Result<v1::PlaneFrame, Status>>),
    Applied(u64, Result<(Held, Vec<Refused>), String>),
    Observed(Observation),
    Sent,
    Lost,
    Tick,
    End,
}

impl Drop for Follower {
    fn drop(&mut self) {
        if let Some(task) = &self.connecting {
            task.abort();
        }
    }
}

impl Follower {
    fn new(mut config: Config, keep: watch::Sender<Option<Arc<Held>>>) -> Self {
        let identity = config.identity.load_full();
        let node = Node {
            node: identity.id.node.clone(),
            region: identity.id.region.clone(),
            build: weir_runtime::build_info::current().to_string(),
            sealing_key: identity.sealing.public(),
        };
        let seed = seed();
        let timing = config.options.timing.clone();
        let held = std::mem::take(&mut config.held);
        let refused = std::mem::take(&mut config.refused);
        let mut machine = Subscriber::new(timing, node, held, refused, seed);
        if config.wanting {
            machine.want_everything();
        }
        // Proxies that start together do not all go to the same replica.
        let endpoint = usize::try_from(seed % 1024).unwrap_or(0);
        Self {
            config,
            machine,
            began: Instant::now(),
            endpoint,
            connecting: None,
            wire: None,
            applying: None,
            nonce: 0,
            queue: VecDeque::new(),
            outbox: Outbox::default(),
            due: VecDeque::new(),
            reported: HashSet::new(),
            due_again: Duration::ZERO,
            uses: Uses::default(),
            uses_due: Duration::ZERO,
            keep,
        }
    }

    fn now(&self) -> Now {
        let unix = i64::try_from(self.config.options.clock.now_secs()).unwrap_or(i64::MAX);
        Now { mono: self.began.elapsed(), unix }
    }

    async fn run(mut self, mut reports: mpsc::Receiver<Observation>, drain: Watch) {
        let beat = self.config.options.timing.heartbeat / 5;
        let beat = beat.min(self.config.options.timing.backoff_min / 2);
        let mut ticks = tokio::time::interval(beat.max(Duration::from_millis(5)));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut reporting = true;
        loop {
            let turn = tokio::select! {
                connected = done(&mut self.connecting) => {
                    Turn::Connected(connected.unwrap_or_else(|| Err("connecting aborted".into())))
                }
                turn = moved(&mut self.wire, &mut self.queue) => turn,
                applied = done(&mut self.applying) => match applied {
                    Some((nonce, outcome)) => Turn::Applied(nonce, outcome),
                    None => Turn::Lost,
                },
                seen = reports.recv(), if reporting => match seen {
                    Some(observation) => Turn::Observed(observation),
                    None => {
                        reporting = false;
                        continue;
                    }
                },
                _ = ticks.tick() => Turn::Tick,
                () = drain.drained() => Turn::End,
            };
            if !self.turn(turn) {
                return self.settle().await;
            }
            self.feed();
        }
    }

    /// What is put in force as the end comes is served until then, and kept like all before it: who
    /// starts again must not fall back behind it.
    async fn settle(&mut self) {
        if self.applying.is_some()
            && let Some((nonce, outcome)) = done(&mut self.applying).await
        {
            self.applied(nonce, outcome);
        }
    }

    /// False at the end.
    fn turn(&mut self, turn: Turn) -> bool {
        let now = self.now();
        let actions = match turn {
            Turn::Connected(Ok(wire)) => {
                self.wire = Some(wire);
                self.machine.on_connected(now)
            }
            Turn::Connected(Err(error)) => {
                tracing::warn!(error, "the control plane cannot be reached; trying again");
                self.disconnected(now);
                Vec::new()
            }
            Turn::Frame(Some(Ok(frame))) => self.heard(frame, now),
            Turn::Frame(Some(Err(status))) => {
                let error = link::chain(&status);
                tracing::warn!(error, "the stream from the control plane broke; connecting again");
                self.disconnected(now);
                Vec::new()
            }
            Turn::Frame(None) => {
                tracing::info!("the control plane ended the stream; connecting again");
                self.disconnected(now);
                Vec::new()
            }
            Turn::Applied(nonce, outcome) => self.applied(nonce, outcome),
            Turn::Lost => {
                // Compiling panicked: what is in force stays.
                self.applied(self.nonce, Err("applying it aborted".to_owned()))
            }
            Turn::Observed(observation) => {
                let sequence = self.outbox.put(observation);
                if self.machine.is_connected() {
                    self.due.push_back(sequence);
                }
                Vec::new()
            }
            Turn::Sent => Vec::new(),
            Turn::Tick => {
                self.tell_uses(now);
                self.machine.on_tick(now)
            }
            Turn::End => return false,
        };
        for action in actions {
            self.act(action, now);
        }
        true
    }

    fn heard(&mut self, frame: v1::PlaneFrame, now: Now) -> Vec<Action> {
        let frame = match wire::from_plane_frame(frame) {
            Ok(frame) => frame,
            Err(error) => {
                tracing::error!(%error, "the control plane sent nonsense");
                self.disconnected(now);
                return Vec::new();
            }
        };
        self.config.state.heard();
        if let PlaneFrame::Welcome { replica, revision } = &frame {
            tracing::info!(replica, %revision, "following the control plane");
            self.all_due(now.mono);
        }
        self.machine.on_message(frame, now)
    }

    fn disconnected(&mut self, now: Now) {
        if !self.machine.is_connected() {
            // It never answered: somebody else may.
            self.endpoint = self.endpoint.wrapping_add(1);
        }
        self.hang_up();
        self.machine.on_disconnected(now);
    }

    fn hang_up(&mut self) {
        self.wire = None;
        self.queue.clear();
        self.due.clear();
    }

    fn act(&mut self, action: Action, now: Now) {
        match action {
            Action::Connect { .. } => self.connect(),
            Action::Send(frame) => self.queue.push_back(frame),
            Action::Apply(assembled) => self.apply(*assembled, now),
            Action::Stored { sequence } => {
                self.outbox.stored(sequence);
                self.reported.remove(&sequence);
                self.due_again = now.mono + REPORT_AGAIN;
            }
            Action::Close(reason) => {
                tracing::warn!(reason, "leaving the control plane's stream; connecting again");
                self.hang_up();
            }
        }
    }

    fn connect(&mut self) {
        let endpoints = &self.config.options.endpoints;
        let endpoint = endpoints[self.endpoint % endpoints.len()].clone();
        let identity = self.config.identity.load_full();
        self.connecting = Some(tokio::spawn(async move {
            let limit = Duration::from_millis(bounds::ENROL_CALL_MS);
            let opened = tokio::time::timeout(limit, open(&endpoint, &identity)).await;
            let opened = opened.unwrap_or_else(|_| Err("it takes too long".to_owned()));
            opened.map_err(|error| format!("{endpoint}: {error}"))
        }));
    }

    /// Resolves, compiles and swaps on another thread.
    fn apply(&mut self, assembled: Assembled, now: Now) {
        let nonce = assembled.nonce();
        self.nonce = nonce;
        let identity = self.config.identity.load_full();
        let state = Arc::clone(&self.config.state);
        self.applying = Some(tokio::task::spawn_blocking(move || {
            let outcome = (|| {
                let anchor = identity.anchor().map_err(|e| e.to_string())?;
                let held = assembled.resolve(&anchor, &identity.id.region, now)?;
                let applied = apply::compile(&held, &identity.sealing, &state.current());
                state.store(Arc::new(applied.snapshot));
                Ok((held, applied.refused))
            })();
            (nonce, outcome)
        }));
    }

    fn applied(
        &mut self,
        nonce: u64,
        outcome: Result<(Held, Vec<Refused>), String>,
    ) -> Vec<Action> {
        match &outcome {
            Ok((held, refused)) => {
                let (revision, digest) = (held.applied.revision, held.applied.digest.short());
                let refused = refused.len();
                tracing::info!(%revision, digest, refused, "a configuration is in force");
            }
            Err(why) => tracing::error!(why, "an update cannot be used"),
        }
        let good = outcome.is_ok();
        let actions = self.machine.on_applied(nonce, outcome);
        if good {
            self.keep.send_replace(Some(Arc::clone(self.machine.held())));
        }
        actions
    }

    /// Tells now and then when API tokens were last used.
    fn tell_uses(&mut self, now: Now) {
        if !self.machine.is_connected() || now.mono < self.uses_due {
            return;
        }
        self.uses_due = now.mono + Duration::from_secs(bounds::TOKEN_USES_SECS);
        let uses = self.uses.news(&self.config.state.current());
        if !uses.is_empty() {
            self.queue.push_back(NodeFrame::TokensUsed(uses));
        }
    }

    /// Everything that waits is to be sent (again).
    fn all_due(&mut self, now: Duration) {
        self.due = self.outbox.sequences().into();
        self.reported.clear();
        self.due_again = now + REPORT_AGAIN;
    }

    /// Puts the next report into the queue when there is nothing before it, and not too many are
    /// under way.
    fn feed(&mut self) {
        if !self.machine.is_connected() || !self.queue.is_empty() {
            return;
        }
        let now = self.began.elapsed();
        if now >= self.due_again {
            self.all_due(now);
        }
        while self.reported.len() < REPORTS_MAX {
            let Some(sequence) = self.due.pop_front() else { return };
            let parts = self.outbox.parts(sequence);
            self.queue.extend(parts.into_iter().filter_map(|part| self.machine.report(part)));
            if !self.queue.is_empty() {
                self.reported.insert(sequence);
                return;
            }
        }
    }
}

async fn open(endpoint: &link::Endpoint, identity: &super::Identity) -> Result<Wire, String> {
    let tls = identity.tls().map_err(|e| e.to_string())?;
    let mut client = link::connect(endpoint, tls).await?;
    let (out, frames) = mpsc::channel(bounds::SYNC_QUEUE_FRAMES);
    let answer = client.watch(ReceiverStream::new(frames)).await;
    let frames = answer.map_err(|status| link::chain(&status))?.into_inner();
    Ok(Wire { frames, out })
}

/// The end of a task; none when it panicked.
async fn done<T>(task: &mut Option<JoinHandle<T>>) -> Option<T> {
    let Some(running) = task else { return std::future::pending().await };
    let result = running.await.ok();
    *task = None;
    result
}

/// The next thing that happens on the stream: a frame comes, or one from the queue goes.
async fn moved(wire: &mut Option<Wire>, queue: &mut VecDeque<NodeFrame>) -> Turn {
    let Some(wire) = wire else { return std::future::pending().await };
    tokio::select! {
        frame = wire.frames.next() => Turn::Frame(frame),
        room = wire.out.reserve(), if !queue.is_empty() => match room {
            Ok(room) => {
                if let Some(frame) = queue.pop_front() {
                    room.send(wire::to_node_frame(frame));
                }
                Turn::Sent
            }
            Err(_) => Turn::Frame(None),
        },
    }
}

fn seed() -> u64 {
    let mut bytes = [0; 8];
    // Without randomness all nodes wait alike, which is no fault.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}
