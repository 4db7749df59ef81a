//! The data plane as a process of its own.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use data_plane::app::{self, Parts};
use data_plane::config::{Config, Endpoint, Options};
use data_plane::lanes::{self, Lanes};
use data_plane::settings::{ENV_PREFIX, Settings};
use data_plane::upstream::observe::{Observer, Pace};
use tokio::runtime::{Builder, Handle};
use tokio::sync::mpsc;
use weir_audit::Origin;
use weir_model::secret::Secret;
use weir_runtime::clock::SystemClock;
use weir_runtime::metrics::Metrics;
use weir_runtime::otlp::{self, Exporter, Identity};
use weir_runtime::ready::Ready;
use weir_runtime::{drain, settings, signals, task, telemetry, tls};

#[cfg(not(feature = "system-allocator"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Observations that wait for the stream to the control plane.
const REPORTS: usize = 256;
/// What the last telemetry may take at the end.
const FLUSH: Duration = Duration::from_secs(5);

/// Weir's data plane: a regional proxy.
#[derive(Debug, Parser)]
#[command(name = "weir-data-plane", version)]
struct Args {
    /// Settings file (YAML); `WEIR_DP_*` variables lie over it.
    #[arg(long, env = "WEIR_DP_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the settings, show them with secrets masked, and end.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Before the logs are set up nothing else would show it.
            let _ = writeln!(std::io::stderr(), "weir-data-plane: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    let settings: Settings = settings::of_process(args.config.as_deref(), ENV_PREFIX)?;
    let mut bad = settings.check().err().unwrap_or_default();
    if settings.control.addresses.is_empty() {
        let message = "name the control plane as `host:port`".to_owned();
        bad.0.push(settings::BadSetting { path: "control.addresses", message });
    }
    if !bad.0.is_empty() {
        return Err(bad.into());
    }
    if args.check {
        return Ok(write!(std::io::stdout(), "{}", settings.shown())?);
    }
    tls::install_provider();
    // Traffic apart from all else: a slow scrape or a large configuration costs no call anything.
    let mut traffic = Builder::new_multi_thread();
    traffic.thread_name("traffic").enable_all().worker_threads(settings.traffic_threads());
    let traffic = traffic.build()?;
    let control = Builder::new_multi_thread()
        .thread_name("control")
        .worker_threads(1)
        .enable_all()
        .build()?;
    let lanes = (settings.lanes > 0).then(|| lanes::start(settings.lanes)).transpose()?;
    let seats = lanes.as_ref().map_or_else(Lanes::default, |running| running.lanes().clone());
    control.block_on(serve(settings, (traffic.handle().clone(), seats)))
}

async fn serve(mut settings: Settings, (traffic, lanes): (Handle, Lanes)) -> anyhow::Result<()> {
    let level = telemetry::init(&settings.log, Vec::new()).context("log")?;
    tracing::info!("settings in force:\n{}", settings.shown());
    let patience = Duration::from_millis(settings.drain_ms);
    let (drain, watch) = drain::new(patience);
    let reload = signals::listen(&drain)?;
    let config = Config::open(options(&settings)?, &watch).await.context("configuration")?;
    let node = config.node();
    settings.region = node.region.to_string();

    let metrics = Metrics::new();
    for runtime in std::iter::once(&traffic).chain(lanes.runtimes()) {
        metrics.observe_runtime("traffic", runtime);
    }
    metrics.observe_runtime("control", &Handle::current());
    let origin = Origin { node: node.node.to_string(), region: settings.region.clone() };
    let audit = settings.audit.open(&settings.audit_folder(), origin, metrics.clone())?;
    let (name, region) = (node.node.to_string(), settings.region.clone());
    let identity = Identity::new("weir-data-plane", &name, &[("weir.region", &region)]);
    let exporter = otlp::start(&settings.telemetry.otlp, identity, &metrics)?;
    let parts = Parts {
        config: Arc::clone(config.state()),
        identity: Some(config.identity()),
        ledger: config.ledger(),
        audit: audit.clone(),
        metrics,
        ready: Ready::new(),
        level: Some(level),
        drain: drain.clone(),
        reload: reload.subscribe(),
        clock: SystemClock::shared(),
        control: Handle::current(),
        lanes,
        spans: exporter.as_ref().map(Exporter::spans),
    };
    let served = traffic.spawn(serve_traffic(settings, parts, config)).await?;
    if let Some(exporter) = exporter {
        exporter.finish(FLUSH).await;
    }
    for left in audit.close(patience).await {
        tracing::error!(sink = left.sink, records = left.records, "audit records are left");
    }
    served
}

/// Runs on the runtime of traffic; what follows the control plane runs on the other one.
async fn serve_traffic(settings: Settings, parts: Parts, config: Config) -> anyhow::Result<()> {
    let (drain, control) = (parts.drain.clone(), parts.control.clone());
    if let Some(spool) = parts.audit.spool() {
        control.spawn(config.witness(spool.clone()));
    }
    let pending = parts.ready.register("other proxies");
    let bound = app::build(&settings, parts).await?;
    let (reports, received) = mpsc::channel(REPORTS);
    let upstreams = bound.gateway().upstreams.clone();
    let state = Arc::clone(config.state());
    let observer = Observer::new(upstreams, state, reports, Pace::default());
    task::spawn("observer", observer.run(drain.watch()));
    let limits = Arc::clone(&bound.gateway().limits);
    let neighbours = bound.gateway().neighbours.clone();
    control.spawn(config.directory().run(neighbours, pending, drain.watch()));
    control.spawn(config.accountant().run(limits, drain.watch()));
    control.spawn(config.run(received, drain.watch()));
    tracing::info!(addresses = ?bound.addresses(), "serving");
    bound.serve().await
}

fn options(settings: &Settings) -> anyhow::Result<Options> {
    let token = match &settings.control.token_file {
        Some(path) => match std::fs::read_to_string(path) {
            Ok(text) => Some(Arc::new(Secret::new(text.trim().to_owned()))),
            // Operators take it away once the proxy has enrolled.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).context("control.token_file"),
        },
        None => None,
    };
    Ok(Options {
        folder: settings.data_dir.join("node"),
        endpoints: settings.control.addresses.iter().cloned().map(Endpoint::Tcp).collect(),
        token,
        node: settings.node.clone(),
        timing: weir_model::sync::Timing::default(),
        clock: SystemClock::shared(),
    })
}
