//! One control plane with many proxies: how long a change takes to reach all of them, and what
//! size costs.
//!
//! The control plane is a process of its own, started here from its binary. The proxies live in
//! this process: each has enrolled, has a certificate and a TLS connection of its own, and runs
//! the very state machine of a proxy ([`proxy`]). One more is a real one, as the data plane has
//! it: it compiles, swaps and keeps a checkpoint. What cannot be had a thousand times on one
//! machine is the documents: simulated proxies check signature and digest of what they get and
//! share one copy of a set that has that digest.
//!
//! Everything is bounded: by the plan's counts, and by [`Plan::patience`] for each step.

pub mod edits;
pub mod plane;
pub mod proxy;
pub mod report;
pub mod seen;
pub mod storm;
pub mod world;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use data_plane::config::{Config, Endpoint, Identity, Options, enrol};
use futures_util::{StreamExt as _, stream};
use weir_model::bounds;
use weir_model::id::Revision;
use weir_model::observation::Observation;
use weir_model::secret::Secret;
use weir_model::sync::{Held, Timing};
use weir_runtime::clock::SystemClock;
use weir_runtime::drain::{self, Drain};

use plane::Plane;
use proxy::Proxy;
use report::{Figures, Report};
use seen::{Resolved, Seen};
use world::World;

/// Nodes that enrol at the same time.
const ENROLLING: usize = 16;

/// What to measure, and how large it is.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The control plane's binary.
    pub binary: PathBuf,
    /// etcd (`http://host:port`); the embedded store without.
    pub etcd: Option<String>,
    /// Simulated proxies.
    pub proxies: usize,
    /// What is configured.
    pub world: World,
    /// One-field edits to measure, of a server and of a tool each.
    pub edits: usize,
    /// How long an idle fleet is looked at.
    pub idle: Duration,
    /// For each step.
    pub patience: Duration,
}

/// Runs the plan, telling `progress` what it is at.
///
/// # Errors
/// When a step fails or takes longer than the plan's patience.
pub async fn run(plan: &Plan, progress: &dyn Fn(String)) -> anyhow::Result<Report> {
    let bound = plan.world.documents() + 1_000;
    ensure!(plan.proxies >= 1 && plan.world.servers >= 1, "at least one proxy and one server");
    ensure!(
        plan.proxies <= 10_000 && bound <= bounds::SNAPSHOT_RESOURCES_MAX,
        "at most 10000 proxies and {} documents",
        bounds::SNAPSHOT_RESOURCES_MAX
    );
    let begun = Instant::now();
    let load_before = crate::run::load();
    let mut run = Run::start(plan, progress).await?;
    run.enrol().await?;
    run.configure().await?;
    run.cold_start().await?;
    run.gather().await?;
    run.idle().await?;
    edits::of_servers(&mut run).await?;
    edits::of_tools(&mut run).await?;
    storm::all_cut(&mut run).await?;
    storm::edit_while_away(&mut run).await?;
    storm::restart(&mut run).await?;
    storm::restart_and_edit(&mut run).await?;
    let mut report = run.end(begun).await;
    report.load = (load_before, crate::run::load());
    Ok(report)
}

/// A run under way.
pub struct Run<'a> {
    plan: &'a Plan,
    progress: &'a dyn Fn(String),
    folder: tempfile::TempDir,
    plane: Plane,
    identities: Vec<Arc<Identity>>,
    seen: Arc<Seen>,
    resolved: Arc<Resolved>,
    proxies: Vec<Proxy>,
    real: Option<Real>,
    figures: Figures,
}

impl std::fmt::Debug for Run<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("proxies", &self.proxies.len()).finish_non_exhaustive()
    }
}

/// A proxy's configuration as the data plane keeps it.
struct Real {
    state: Arc<data_plane::config::State>,
    drain: Drain,
    task: tokio::task::JoinHandle<()>,
    /// Kept, so that the proxy goes on waiting for what its servers say.
    _reports: tokio::sync::mpsc::Sender<Observation>,
}

impl<'a> Run<'a> {
    async fn start(plan: &'a Plan, progress: &'a dyn Fn(String)) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("weir-fleet").tempdir()?;
        let mut plane = Plane::new(plan, folder.path())?;
        plane.start(plan.patience).await?;
        Ok(Self {
            plan,
            progress,
            folder,
            plane,
            identities: Vec::new(),
            seen: Arc::new(Seen::new(plan.proxies)),
            resolved: Arc::default(),
            proxies: Vec::new(),
            real: None,
            figures: Figures::default(),
        })
    }

    fn say(&self, text: impl Into<String>) {
        (self.progress)(text.into());
    }

    /// Every proxy enrols, as a real one does.
    async fn enrol(&mut self) -> anyhow::Result<()> {
        self.say(format!("{} proxies enrol", self.plan.proxies));
        self.plane.apply(&self.plan.world.groups()).await?;
        let begun = Instant::now();
        let (_drain, watch) = drain::new(Duration::from_secs(1));
        let one = |at: usize| {
            let (plane, watch) = (&self.plane, watch.clone());
            async move {
                let token = plane.enrolment_token("eu", &format!("proxy-{at}")).await?;
                let identity = enrol(&options(plane, PathBuf::new(), Some(token)), &watch).await?;
                anyhow::Ok(Arc::new(identity))
            }
        };
        let enrolled: Vec<_> =
            stream::iter(0..self.plan.proxies).map(one).buffered(ENROLLING).collect().await;
        self.identities = enrolled.into_iter().collect::<anyhow::Result<_>>()?;
        self.figures.enrol_secs = begun.elapsed().as_secs_f64();
        Ok(())
    }

    /// Servers come over REST, catalogs as a proxy reports them.
    async fn configure(&mut self) -> anyhow::Result<()> {
        let world = &self.plan.world;
        self.say(format!("{} servers are applied", world.servers));
        let begun = Instant::now();
        for documents in world.servers_in_batches() {
            self.plane.apply(&documents).await?;
        }
        self.figures.apply_servers_secs = begun.elapsed().as_secs_f64();
        self.say(format!("one proxy reports {} tools", world.tools()));
        let begun = Instant::now();
        let first = self.launch(0, Held::default());
        first.report(world.observations()).await;
        let patience = self.plan.patience * 4;
        first.all_stored(patience).await.context("the catalogs were not kept in time")?;
        self.figures.pin_tools_secs = begun.elapsed().as_secs_f64();
        self.proxies.push(first);
        let revision = self.plane.revision().await?;
        self.seen.reached(revision, 1, self.plan.patience).await?;
        let set = self.proxies[0].held().set.clone();
        let tools = set.of_kind(weir_model::resource::Kind::Definition, None).count();
        ensure!(tools == world.tools(), "{tools} tools arrived instead of {}", world.tools());
        self.figures.documents = set.len();
        self.figures.document_bytes = set.iter().map(|r| r.canonical.len()).sum();
        Ok(())
    }

    fn launch(&self, at: usize, held: Held) -> Proxy {
        let node = proxy::Node {
            at,
            identity: Arc::clone(&self.identities[at]),
            address: self.plane.sync_address(),
            timing: Timing::default(),
            seen: Arc::clone(&self.seen),
            resolved: Arc::clone(&self.resolved),
        };
        Proxy::launch(node, held)
    }

    /// A proxy with nothing, a real proxy with nothing, and the real one from its checkpoint.
    async fn cold_start(&mut self) -> anyhow::Result<()> {
        self.say("cold starts");
        let revision = self.plane.revision().await?;
        // The one that has reported begins anew, with nothing.
        self.proxies.remove(0).end().await;
        self.resolved.clear();
        self.seen.forget(0);
        let begun = Instant::now();
        self.proxies.push(self.launch(0, Held::default()));
        self.seen.reached(revision, 1, self.plan.patience).await?;
        self.figures.cold_receive_secs = begun.elapsed().as_secs_f64();
        self.figures.snapshot_bytes = self.seen.received(0);

        let folder = self.folder.path().join("real");
        let token = self.plane.enrolment_token("eu", "real").await?;
        let usage = crate::process::usage(&[std::process::id()]);
        let begun = Instant::now();
        let real = Real::start(&self.plane, folder.clone(), Some(token)).await?;
        real.reached(revision, self.plan.patience).await?;
        self.figures.cold_start_secs = begun.elapsed().as_secs_f64();
        let after = crate::process::usage(&[std::process::id()]);
        self.figures.real_proxy_bytes = after.resident_bytes.saturating_sub(usage.resident_bytes);
        // The end writes the checkpoint.
        real.end().await;
        let begun = Instant::now();
        let real = Real::start(&self.plane, folder, None).await?;
        real.reached(revision, self.plan.patience).await?;
        self.figures.warm_start_secs = begun.elapsed().as_secs_f64();
        self.real = Some(real);
        Ok(())
    }

    /// The other proxies come, with what they had before.
    async fn gather(&mut self) -> anyhow::Result<()> {
        self.say(format!("{} proxies connect", self.plan.proxies));
        let held = Held::clone(&self.proxies[0].held());
        let (begun, mut before) = (Instant::now(), self.seen.welcomes());
        // It is there already.
        before[0] = 0;
        for at in 1..self.plan.proxies {
            self.proxies.push(self.launch(at, held.clone()));
        }
        self.seen.all_welcomed(&before, self.plan.patience).await?;
        self.figures.gather_secs = begun.elapsed().as_secs_f64();
        Ok(())
    }

    async fn idle(&mut self) -> anyhow::Result<()> {
        self.say("nothing happens");
        let before = self.plane.usage();
        tokio::time::sleep(self.plan.idle).await;
        let after = self.plane.usage();
        self.figures.idle_cpu_share =
            (after.cpu_secs - before.cpu_secs) / self.plan.idle.as_secs_f64().max(0.1);
        self.figures.plane_bytes = after.resident_bytes;
        Ok(())
    }

    async fn end(mut self, begun: Instant) -> Report {
        let (patience, etcd) = (Duration::from_secs(10), self.plan.etcd.is_some());
        for proxy in std::mem::take(&mut self.proxies) {
            let _ = tokio::time::timeout(patience, proxy.end()).await;
        }
        if let Some(real) = self.real.take() {
            let _ = tokio::time::timeout(patience, real.end()).await;
        }
        self.figures.plane_bytes_end = self.plane.usage().resident_bytes;
        self.plane.stop().await;
        Report {
            store: if etcd { "etcd" } else { "embedded" }.to_owned(),
            proxies: self.plan.proxies,
            servers: self.plan.world.servers,
            tools: self.plan.world.tools(),
            optimised: !cfg!(debug_assertions),
            cores: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            load: (0.0, 0.0),
            seconds: begun.elapsed().as_secs_f64(),
            figures: self.figures,
        }
    }
}

fn options(plane: &Plane, folder: PathBuf, token: Option<String>) -> Options {
    Options {
        folder,
        endpoints: vec![Endpoint::Tcp(plane.sync_address())],
        token: token.map(|text| Arc::new(Secret::new(text))),
        node: None,
        timing: Timing::default(),
        clock: SystemClock::shared(),
    }
}

impl Real {
    async fn start(plane: &Plane, folder: PathBuf, token: Option<String>) -> anyhow::Result<Self> {
        let (drain, watch) = drain::new(Duration::from_secs(5));
        let config = Config::open(options(plane, folder, token), &watch).await?;
        let state = Arc::clone(config.state());
        let (reports, seen) = tokio::sync::mpsc::channel(1);
        let task = tokio::spawn(config.run(seen, watch));
        Ok(Self { state, drain, task, _reports: reports })
    }

    /// Until a revision is in force.
    async fn reached(&self, revision: Revision, patience: Duration) -> anyhow::Result<Instant> {
        let mut revisions = self.state.subscribe();
        let reached = revisions.wait_for(|newest| *newest >= revision);
        tokio::time::timeout(patience, reached)
            .await
            .context("the real proxy takes too long")??;
        Ok(Instant::now())
    }

    async fn end(self) {
        self.drain.start();
        let _ = self.task.await;
    }
}
