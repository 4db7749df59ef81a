//! The control plane as a process of its own.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use control_plane::app::{self, Bound, Parts};
use control_plane::settings::{ENV_PREFIX, Settings};
use weir_audit::Origin;
use weir_runtime::clock::SystemClock;
use weir_runtime::metrics::Metrics;
use weir_runtime::otlp::{self, Identity};
use weir_runtime::ready::Ready;
use weir_runtime::{drain, settings, signals, telemetry, tls};

/// What the last telemetry may take at the end.
const FLUSH: std::time::Duration = std::time::Duration::from_secs(5);

/// Weir's control plane.
#[derive(Debug, Parser)]
#[command(name = "weir-control-plane", version)]
struct Args {
    /// Settings file (YAML); `WEIR_CP_*` variables lie over it.
    #[arg(long, env = "WEIR_CP_CONFIG", value_name = "FILE")]
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
            let _ = writeln!(std::io::stderr(), "weir-control-plane: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    let settings: Settings = settings::of_process(args.config.as_deref(), ENV_PREFIX)?;
    settings.check()?;
    if args.check {
        return Ok(write!(std::io::stdout(), "{}", settings.shown())?);
    }
    tls::install_provider();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(settings))
}

async fn serve(settings: Settings) -> anyhow::Result<()> {
    let level = telemetry::init(&settings.log, Vec::new()).context("log")?;
    tracing::info!("settings in force:\n{}", settings.shown());
    let patience = std::time::Duration::from_millis(settings.drain_ms);
    let (drain, _) = drain::new(patience);
    let reload = signals::listen(&drain)?;
    let metrics = Metrics::new();
    metrics.observe_runtime("control", &tokio::runtime::Handle::current());
    let origin = Origin { node: settings.name.clone(), region: String::new() };
    let audit = settings.audit.open(&settings.audit_folder(), origin, metrics.clone())?;
    let identity = Identity::new("weir-control-plane", &settings.name, &[]);
    let exporter = otlp::start(&settings.telemetry.otlp, identity, &metrics)?;
    let parts = Parts {
        store: app::open_store(&settings).await?,
        vault: app::open_vault(&settings)?,
        audit: audit.clone(),
        metrics,
        ready: Ready::new(),
        level: Some(level),
        drain,
        reload: reload.subscribe(),
        clock: SystemClock::shared(),
    };
    let bound = app::build(&settings, parts).await?;
    bootstrap(&settings, &bound).await?;
    tracing::info!(addresses = ?bound.addresses(), "serving");
    let served = bound.serve().await;
    if let Some(exporter) = exporter {
        exporter.finish(FLUSH).await;
    }
    for left in audit.close(patience).await {
        tracing::error!(sink = left.sink, records = left.records, "audit records are left");
    }
    served
}

/// Hands the first admin's token out, once: to a file of its owner's, or to standard output.
async fn bootstrap(settings: &Settings, bound: &Bound) -> anyhow::Result<()> {
    let path = settings.bootstrap.token_file.as_deref();
    // Before the operator is made: a token that cannot be handed out would be lost.
    let file = path.map(private).transpose().context("bootstrap.token_file")?;
    let Some((operator, token)) = bound.operators().bootstrap().await? else { return Ok(()) };
    match (file, path) {
        (Some(mut file), Some(path)) => {
            file.set_len(0)?;
            writeln!(file, "{}", token.expose())?;
            file.sync_all()?;
            tracing::info!(id = operator.id, path = %path.display(), "the first admin's token");
        }
        _ => {
            let mut out = std::io::stdout().lock();
            writeln!(out, "The first admin's token, shown this once:\n{}", token.expose())?;
            out.flush()?;
        }
    }
    Ok(())
}

fn private(path: &std::path::Path) -> std::io::Result<std::fs::File> {
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}
