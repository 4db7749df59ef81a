//! The two planes of `weir dev`, built from the parts that their own processes use.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use control_plane::index::Newest;
use control_plane::operator::Operators;
use data_plane::config::{Config, Endpoint, Options};
use data_plane::upstream::observe::{Observer, Pace};
use tokio::task::JoinHandle;
use weir_audit::{Origin, Pipeline};
use weir_model::id::Name;
use weir_model::sync::Timing;
use weir_runtime::clock::SystemClock;
use weir_runtime::metrics::Metrics;
use weir_runtime::otlp::{self, Exporter, Identity};
use weir_runtime::ready::Ready;
use weir_runtime::task;

use super::Surroundings;
use crate::cli::Dev;

/// Name of the proxy and of its region.
const NODE: &str = "dev";
/// The control plane's audit log has a name of its own.
const CONTROL: &str = "dev-control";
/// Seconds in which the proxy joins.
const JOIN_SECS: i64 = 60;
/// Observations that wait for the stream to the control plane.
const REPORTS: usize = 256;

/// Both planes, serving.
#[derive(Debug)]
pub(super) struct Planes {
    /// Where agents connect.
    pub(super) traffic: SocketAddr,
    /// Where metrics are, of the proxy and of the control plane.
    pub(super) metrics: [Option<SocketAddr>; 2],
    /// Where operators connect.
    pub(super) rest: SocketAddr,
    /// The configuration as it changes.
    pub(super) newest: Newest,
    /// Who may administer.
    pub(super) operators: Operators,
    control: JoinHandle<anyhow::Result<()>>,
    data: JoinHandle<anyhow::Result<()>>,
    audits: [Pipeline; 2],
    exporter: Option<Exporter>,
    witnessed: Option<JoinHandle<Option<()>>>,
}

pub(super) async fn start(args: &Dev, around: Surroundings) -> anyhow::Result<Planes> {
    let (mut control, control_audit) = control(args, &around).await?;
    let rest = control.addresses().rest;
    let control_metrics = control.addresses().admin;
    let (newest, operators) = (control.newest(), control.operators().clone());
    let witnessed = control.witnessed();
    let (pipe, enrolment) = (control.pipe(), control.enrolment().clone());
    let control = tokio::spawn(control.serve());
    // A new proxy joins as any other does: with a one-time token, over the same service.
    let region: Name = NODE.parse()?;
    let (pending, token) = enrolment.mint(region.clone(), Some(region), JOIN_SECS).await?;
    let options = Options {
        folder: args.data_dir.join("node"),
        endpoints: vec![Endpoint::Pipe(pipe)],
        token: Some(Arc::new(token)),
        node: None,
        timing: Timing::default(),
        clock: SystemClock::shared(),
    };
    let config = Config::open(options, &around.drain.watch()).await.context("proxy")?;
    // One that had joined before did not need it.
    enrolment.revoke(&pending.id).await?;
    let (data, data_audit, exporter) = data(args, &around, &config).await?;
    let traffic = data.addresses().traffic;
    let metrics = [data.addresses().admin, control_metrics];
    if let Some(spool) = data_audit.spool() {
        task::spawn("witness", config.witness(spool.clone()));
    }
    follow(&data, config, &around);
    let data = tokio::spawn(data.serve());
    let audits = [data_audit, control_audit];
    Ok(Planes {
        metrics,
        traffic,
        rest,
        newest,
        operators,
        control,
        data,
        audits,
        exporter,
        witnessed,
    })
}

/// Lets the proxy follow the control plane, and report what servers offer.
fn follow(data: &data_plane::app::Bound, config: Config, around: &Surroundings) {
    let (reports, received) = tokio::sync::mpsc::channel(REPORTS);
    let upstreams = data.gateway().upstreams.clone();
    let state = Arc::clone(config.state());
    let observer = Observer::new(upstreams, state, reports, Pace::default());
    task::spawn("observer", observer.run(around.drain.watch()));
    let limits = Arc::clone(&data.gateway().limits);
    task::spawn("limits", config.accountant().run(limits, around.drain.watch()));
    task::spawn("config", config.run(received, around.drain.watch()));
}

async fn control(
    args: &Dev,
    around: &Surroundings,
) -> anyhow::Result<(control_plane::app::Bound, Pipeline)> {
    use control_plane::{app, settings::Settings};
    let mut settings = Settings { name: CONTROL.to_owned(), ..Settings::default() };
    settings.listen.address = args.admin_listen;
    settings.listen.plain = true;
    settings.admin.address = args.control_metrics_listen;
    settings.sync.address = None;
    settings.store.path = args.data_dir.join("control/store");
    settings.vault.keys_file = args.data_dir.join("control/vault-keys");
    let metrics = Metrics::new();
    let origin = Origin { node: settings.name.clone(), region: String::new() };
    let audit =
        settings.audit.open(&args.data_dir.join("audit-control"), origin, metrics.clone())?;
    let parts = app::Parts {
        store: app::open_store(&settings).await?,
        vault: app::open_vault(&settings)?,
        audit: audit.clone(),
        metrics,
        ready: Ready::new(),
        level: around.level.clone(),
        drain: around.drain.clone(),
        reload: around.reload.subscribe(),
        clock: SystemClock::shared(),
    };
    let bound = app::build(&settings, parts).await.context("control plane")?;
    Ok((bound, audit))
}

async fn data(
    args: &Dev,
    around: &Surroundings,
    config: &Config,
) -> anyhow::Result<(data_plane::app::Bound, Pipeline, Option<Exporter>)> {
    use data_plane::{app, settings::Settings};
    let data_dir = args.data_dir.join("node");
    let mut settings = Settings { region: NODE.to_owned(), data_dir, ..Settings::default() };
    settings.listen.address = args.listen;
    settings.listen.plain = true;
    settings.admin.address = args.metrics_listen;
    // Whoever may write documents here may run programs here anyway.
    settings.upstream.commands = vec!["*".to_owned()];
    if !args.listen.ip().is_loopback() {
        settings.hosts = vec!["*".to_owned()];
    }
    let metrics = Metrics::new();
    metrics.observe_runtime("dev", &tokio::runtime::Handle::current());
    let origin = Origin { node: NODE.to_owned(), region: NODE.to_owned() };
    let audit = settings.audit.open(&args.data_dir.join("audit"), origin, metrics.clone())?;
    settings.telemetry.otlp.endpoint = args.otlp.clone();
    // Somebody who asks for traces of a trial wants to see them all.
    settings.telemetry.traces.share = 1.0;
    let identity = Identity::new("weir-dev", NODE, &[]);
    let exporter = otlp::start(&settings.telemetry.otlp, identity, &metrics)?;
    let parts = app::Parts {
        config: Arc::clone(config.state()),
        identity: Some(config.identity()),
        ledger: config.ledger(),
        audit: audit.clone(),
        metrics,
        ready: Ready::new(),
        level: around.level.clone(),
        drain: around.drain.clone(),
        reload: around.reload.subscribe(),
        clock: SystemClock::shared(),
        control: tokio::runtime::Handle::current(),
        lanes: Default::default(),
        spans: exporter.as_ref().map(Exporter::spans),
    };
    let bound = app::build(&settings, parts).await.context("proxy")?;
    Ok((bound, audit, exporter))
}

impl Planes {
    /// Waits for the end of both, then for the last audit records.
    pub(super) async fn finished(self, patience: Duration) -> anyhow::Result<()> {
        let ended = (self.data.await, self.control.await);
        if let Some(exporter) = self.exporter {
            exporter.finish(patience).await;
        }
        for audit in &self.audits {
            for left in audit.close(patience).await {
                tracing::error!(sink = left.sink, records = left.records, "audit records are left");
            }
        }
        if let Some(witnessing) = self.witnessed {
            // It keeps the store open. What it has not seen it sees at the next start.
            witnessing.abort();
            drop(witnessing.await);
        }
        ended.0??;
        ended.1??;
        Ok(())
    }
}
