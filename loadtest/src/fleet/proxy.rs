//! A simulated proxy: a real identity, a real stream, the real state machine. It checks what it
//! gets and says so; it serves nobody.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use data_plane::config::{Identity, connect_over};
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use weir_model::observation::Observation;
use weir_model::sync::report::Outbox;
use weir_model::sync::statement::Anchor;
use weir_model::sync::subscriber::{self, Action, Subscriber};
use weir_model::sync::{Assembled, Held, NodeFrame, Now, PlaneFrame, Refused, Timing};
use weir_model::wire;
use weir_proto::sync::v1;

use super::seen::{Resolved, Seen};

/// Reports that are under way at a time.
const REPORTS: usize = 64;
/// Reports that nobody confirmed are sent again after this long.
const REPORT_AGAIN: Duration = Duration::from_secs(30);
/// Longest attempt to connect.
const CONNECT: Duration = Duration::from_secs(15);

/// Who a proxy is, and where it tells what it has.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) at: usize,
    pub(super) identity: Arc<Identity>,
    pub(super) address: String,
    pub(super) timing: Timing,
    pub(super) seen: Arc<Seen>,
    pub(super) resolved: Arc<Resolved>,
}

/// What a proxy is asked to do.
#[derive(Debug)]
enum Order {
    Report(Vec<Observation>),
    /// The connection is cut; it may connect again after a while.
    Cut(Duration),
}

/// A proxy that runs.
#[derive(Debug)]
pub(super) struct Proxy {
    orders: mpsc::Sender<Order>,
    held: Arc<Mutex<Arc<Held>>>,
    /// Reports that the control plane has not kept yet.
    unstored: Arc<watch::Sender<usize>>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub(super) fn launch(node: Node, held: Held) -> Self {
        let (orders, taken) = mpsc::channel(16);
        let unstored = Arc::new(watch::Sender::new(0));
        let shared = Arc::new(Mutex::new(Arc::new(held.clone())));
        let machine = machine(&node, held);
        let runner = Runner {
            began: Instant::now(),
            anchor: node.identity.anchor().unwrap_or(Anchor(bytes::Bytes::new())),
            node,
            machine,
            connecting: None,
            wire: None,
            away: None,
            outbox: Outbox::default(),
            unstored: Arc::clone(&unstored),
            reported: HashSet::new(),
            sent: 0,
            again: Duration::ZERO,
            held: Arc::clone(&shared),
        };
        Self { orders, held: shared, unstored, task: tokio::spawn(runner.run(taken)) }
    }

    /// What it has.
    pub(super) fn held(&self) -> Arc<Held> {
        Arc::clone(&self.held.lock())
    }

    /// Has it report what it saw.
    pub(super) async fn report(&self, seen: Vec<Observation>) {
        self.unstored.send_modify(|left| *left += seen.len());
        // It ends with this value only.
        let _ = self.orders.send(Order::Report(seen)).await;
    }

    /// Cuts its connection; it may connect again after `away`.
    pub(super) async fn cut(&self, away: Duration) {
        let _ = self.orders.send(Order::Cut(away)).await;
    }

    /// Until the control plane has kept everything that was reported.
    pub(super) async fn all_stored(&self, patience: Duration) -> anyhow::Result<()> {
        let mut unstored = self.unstored.subscribe();
        tokio::time::timeout(patience, unstored.wait_for(|left| *left == 0)).await??;
        Ok(())
    }

    /// Leaves.
    pub(super) async fn end(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

fn machine(node: &Node, held: Held) -> Subscriber {
    let who = subscriber::Node {
        node: node.identity.id.node.clone(),
        region: node.identity.id.region.clone(),
        build: "loadtest".to_owned(),
        sealing_key: node.identity.sealing.public(),
    };
    let seed = u64::try_from(node.at).unwrap_or(0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Subscriber::new(node.timing.clone(), who, held, Vec::new(), seed)
}

struct Wire {
    frames: Streaming<v1::PlaneFrame>,
    out: mpsc::Sender<v1::NodeFrame>,
}

struct Runner {
    node: Node,
    anchor: Anchor,
    machine: Subscriber,
    began: Instant,
    connecting: Option<JoinHandle<Option<Wire>>>,
    wire: Option<Wire>,
    /// Until when it may not connect.
    away: Option<Duration>,
    outbox: Outbox,
    unstored: Arc<watch::Sender<usize>>,
    /// Reports that were sent and not confirmed yet; those up to `sent` were.
    reported: HashSet<u64>,
    sent: u64,
    /// When reports that wait are sent again.
    again: Duration,
    held: Arc<Mutex<Arc<Held>>>,
}

impl Runner {
    fn now(&self) -> Now {
        let unix = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
        Now { mono: self.began.elapsed(), unix: i64::try_from(unix).unwrap_or(i64::MAX) }
    }

    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut ticks = tokio::time::interval(self.node.timing.backoff_min);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                wire = done(&mut self.connecting) => self.connected(wire).await,
                frame = next(&mut self.wire) => self.heard(frame).await,
                order = orders.recv() => match order {
                    Some(Order::Report(seen)) => self.report(seen).await,
                    Some(Order::Cut(away)) => {
                        self.hang_up();
                        self.away = Some(self.now().mono + away);
                    }
                    None => return,
                },
                _ = ticks.tick() => self.tick().await,
            }
        }
    }

    async fn tick(&mut self) {
        let now = self.now();
        if self.away.is_some_and(|until| now.mono < until) {
            return;
        }
        let actions = self.machine.on_tick(now);
        self.act(actions).await;
        if now.mono >= self.again && self.machine.is_connected() {
            self.reported.clear();
            self.sent = 0;
            self.send_reports().await;
        }
    }

    async fn connected(&mut self, wire: Option<Wire>) {
        let now = self.now();
        match wire {
            Some(wire) => {
                self.wire = Some(wire);
                let actions = self.machine.on_connected(now);
                self.act(actions).await;
            }
            None => self.machine.on_disconnected(now),
        }
    }

    async fn heard(&mut self, frame: Option<v1::PlaneFrame>) {
        let now = self.now();
        let Some(frame) = frame.and_then(|frame| wire::from_plane_frame(frame).ok()) else {
            return self.hang_up();
        };
        if let PlaneFrame::Welcome { .. } = &frame {
            self.node.seen.welcome(self.node.at);
        }
        let actions = self.machine.on_message(frame, now);
        self.act(actions).await;
    }

    fn hang_up(&mut self) {
        self.wire = None;
        if let Some(task) = self.connecting.take() {
            task.abort();
        }
        self.machine.on_disconnected(self.now());
    }

    async fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Connect { .. } => self.connect(),
                Action::Send(frame) => self.send(frame).await,
                Action::Apply(assembled) => {
                    let nonce = assembled.nonce();
                    let outcome = self.apply(*assembled).await;
                    let more = self.machine.on_applied(nonce, outcome);
                    *self.held.lock() = Arc::clone(self.machine.held());
                    Box::pin(self.act(more)).await;
                }
                Action::Stored { sequence } => {
                    self.outbox.stored(sequence);
                    self.reported.remove(&sequence);
                    self.unstored.send_replace(self.outbox.len());
                    self.send_reports().await;
                }
                Action::Close(_) => self.hang_up(),
            }
        }
    }

    async fn send(&mut self, frame: NodeFrame) {
        if let Some(wire) = &self.wire {
            // A stream that is gone shows with the next frame.
            let _ = wire.out.send(wire::to_node_frame(frame)).await;
        }
    }

    fn connect(&mut self) {
        let (identity, address) = (Arc::clone(&self.node.identity), self.node.address.clone());
        let (seen, at) = (Arc::clone(&self.node.seen), self.node.at);
        self.connecting = Some(tokio::spawn(async move {
            let opened = async {
                let open = move || {
                    let (seen, address) = (Arc::clone(&seen), address.clone());
                    async move {
                        let stream = TcpStream::connect(address).await?;
                        stream.set_nodelay(true)?;
                        Ok(seen.wire(at, stream))
                    }
                };
                let mut client = connect_over(open, identity.tls().ok()?).await.ok()?;
                let (out, frames) = mpsc::channel(REPORTS * 2);
                let answer = client.watch(ReceiverStream::new(frames)).await.ok()?;
                Some(Wire { frames: answer.into_inner(), out })
            };
            tokio::time::timeout(CONNECT, opened).await.ok().flatten()
        }));
    }

    /// Checks an update, and says that it is in force.
    async fn apply(&mut self, update: Assembled) -> Result<(Held, Vec<Refused>), String> {
        let (now, whole) = (self.now(), update.is_whole_state());
        let (identity, anchor) = (Arc::clone(&self.node.identity), self.anchor.clone());
        let cell = self.node.resolved.of(update.target().digest);
        let mut update = Some(update);
        let first = cell
            .get_or_try_init(|| {
                let (update, region) = (update.take(), identity.id.region.clone());
                let anchor = anchor.clone();
                async move {
                    let update = update.ok_or("an update is resolved once")?;
                    let resolve = move || update.resolve(&anchor, &region, now);
                    tokio::task::spawn_blocking(resolve).await.map_err(|e| e.to_string())?
                }
            })
            .await?;
        let held = match update {
            Some(update) => {
                update.resolve_known(first.set.clone(), (&anchor, &identity.id.region), now)?
            }
            None => first.clone(),
        };
        self.node.seen.in_force(self.node.at, held.applied.revision, whole);
        Ok((held, Vec::new()))
    }

    async fn report(&mut self, seen: Vec<Observation>) {
        for observation in seen {
            self.outbox.put(observation);
        }
        self.unstored.send_replace(self.outbox.len());
        self.send_reports().await;
    }

    async fn send_reports(&mut self) {
        self.again = self.now().mono + REPORT_AGAIN;
        let room = REPORTS.saturating_sub(self.reported.len());
        for sequence in self.outbox.after(self.sent, room) {
            self.sent = sequence;
            self.reported.insert(sequence);
            for part in self.outbox.parts(sequence) {
                if let Some(frame) = self.machine.report(part) {
                    self.send(frame).await;
                }
            }
        }
    }
}

/// The end of a task; none when it failed.
async fn done(task: &mut Option<JoinHandle<Option<Wire>>>) -> Option<Wire> {
    let Some(running) = task else { return std::future::pending().await };
    let wire = running.await.ok().flatten();
    *task = None;
    wire
}

/// The next frame; none at the end of the stream.
async fn next(wire: &mut Option<Wire>) -> Option<v1::PlaneFrame> {
    let Some(wire) = wire else { return std::future::pending().await };
    wire.frames.next().await?.ok()
}
