//! `weir dev`: both planes in this process, on embedded parts.
//!
//! The control plane keeps its state in an embedded store; the proxy follows it over the same
//! gRPC service that a fleet uses, through a pipe in memory. Audit records go to files. Documents
//! given with `--apply` go in over REST, as an operator's would. Everything lives in one folder:
//!
//! ```text
//! .weir/admin-token       of the first admin, for its owner's eyes
//! .weir/control/          the store, and the keys that seal its secrets
//! .weir/node/             the proxy's identity and last good configuration
//! .weir/audit/            what agents did; .weir/audit-control/: what operators did
//! ```

mod greeting;
mod planes;

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use control_plane::index::Newest;
use control_plane::operator::{Operators, Role, Wanted};
use weir_model::resource::{Kind, ResourceKey, Spec};
use weir_model::secret::Secret;
use weir_runtime::drain::{self, Drain};
use weir_runtime::signals::{self, Reload};
use weir_runtime::telemetry::{self, LogLevel, LogSettings};

use crate::cli::{Apply, Command, Dev, Files, Wait};
use crate::client::Client;
use crate::operate;
use crate::settings::Server;

pub use greeting::Whereabouts;

/// How long a drain waits for calls in flight.
const PATIENCE: Duration = Duration::from_secs(5);
/// Seconds for the documents of `--apply` to be in force.
const IN_FORCE_SECS: u64 = 20;
/// How long the start waits for servers to say what they offer.
const OFFERS: Duration = Duration::from_secs(10);

/// Runs until a signal ends it. `out` is told where everything is.
///
/// # Errors
/// When an address or the data folder cannot be had, or a part fails.
pub fn run(args: &Dev, out: &mut impl Write) -> anyhow::Result<()> {
    let log = LogSettings { filter: args.log.clone(), ..LogSettings::default() };
    let level = telemetry::init(&log, Vec::new())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let (drain, _) = drain::new(PATIENCE);
        let reload = signals::listen(&drain)?;
        let running = start(args, Surroundings { drain, reload, level: Some(level) }).await?;
        out.write_all(running.whereabouts.tell().as_bytes())?;
        for server in &running.silent {
            writeln!(out, "\n{server} has not said yet what it offers; see the log")?;
        }
        out.flush()?;
        if let Some(file) = &args.ready_file {
            running.whereabouts.write(file)?;
        }
        running.finished().await
    })
}

/// What the process around it gives.
#[derive(Debug)]
pub struct Surroundings {
    /// The end.
    pub drain: Drain,
    /// Asks to look at files again.
    pub reload: Reload,
    /// Lets operators change what is logged.
    pub level: Option<LogLevel>,
}

/// Both planes, serving.
#[derive(Debug)]
pub struct Running {
    /// Where everything is.
    pub whereabouts: Whereabouts,
    /// Servers that have not said what they offer.
    pub silent: Vec<String>,
    planes: planes::Planes,
}

impl Running {
    /// Waits for the end of both planes.
    ///
    /// # Errors
    /// What made one of them end, when that was a fault.
    pub async fn finished(self) -> anyhow::Result<()> {
        self.planes.finished(PATIENCE).await
    }
}

/// Starts both planes, applies the documents, and waits for servers to say what they offer.
///
/// # Errors
/// When an address or the data folder cannot be had, or the documents are refused.
pub async fn start(args: &Dev, around: Surroundings) -> anyhow::Result<Running> {
    let data = &args.data_dir;
    for folder in ["control", "node"] {
        let folder = data.join(folder);
        std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    }
    let drain = around.drain.clone();
    let planes = planes::start(args, around).await?;
    let token = admin_token(&planes.operators, &data.join("admin-token")).await?;
    let mut whereabouts = Whereabouts {
        url: format!("http://{}", planes.traffic),
        admin_url: format!("http://{}", planes.rest),
        admin_token: token,
        data_dir: data.display().to_string(),
        groups: Vec::new(),
        metrics: planes.metrics,
    };
    if let Err(error) = apply(args, &whereabouts).await {
        drain.now();
        return Err(error);
    }
    // Without `--apply` the catalogs are those of the last time.
    let silent = match args.apply.is_empty() {
        true => Vec::new(),
        false => wait_for_offers(planes.newest.clone()).await,
    };
    whereabouts.groups = groups(&planes.newest);
    Ok(Running { whereabouts, silent, planes })
}

/// The admin's token from the last time, when it is still good; else a fresh one.
async fn admin_token(operators: &Operators, file: &Path) -> anyhow::Result<Secret<String>> {
    let first = operators.bootstrap().await?;
    if first.is_none()
        && let Ok(kept) = std::fs::read_to_string(file)
        && operators.authenticate(kept.trim()).await.is_ok()
    {
        return Ok(Secret::new(kept.trim().to_owned()));
    }
    let token = match first {
        Some((_, token)) => token,
        None => {
            let name = "weir dev".to_owned();
            let wanted = Wanted { name, role: Role::Admin, groups: Vec::new(), expires_in: None };
            operators.mint(wanted, "weir dev").await?.1
        }
    };
    greeting::write_private(file, &format!("{}\n", token.expose()))?;
    Ok(token)
}

async fn apply(args: &Dev, whereabouts: &Whereabouts) -> anyhow::Result<()> {
    if args.apply.is_empty() {
        return Ok(());
    }
    let server = Server {
        url: whereabouts.admin_url.clone(),
        token: whereabouts.admin_token.clone(),
        ca: None,
    };
    let apply = Apply {
        files: Files { files: args.apply.clone() },
        dry_run: false,
        expect: None,
        wait: Wait { wait: true, timeout: IN_FORCE_SECS },
    };
    let told = operate::run(&Client::new(server)?, Command::Apply(apply)).await?;
    tracing::info!("applied\n{told}");
    Ok(())
}

/// Waits until every version of every server has a catalog; gives those that have none in time.
async fn wait_for_offers(mut newest: Newest) -> Vec<String> {
    let all = newest.wait_for(|indexed| missing(indexed).is_empty());
    // Ends early too when the index does: then the drain tells why.
    drop(tokio::time::timeout(OFFERS, all).await);
    missing(&newest.borrow())
}

fn missing(indexed: &control_plane::index::Indexed) -> Vec<String> {
    let mut missing = Vec::new();
    for resource in indexed.set.iter() {
        let (Spec::Server(server), Some(group)) = (&resource.spec, &resource.key.group) else {
            continue;
        };
        for version in &server.versions {
            let name = format!("{}.{}", resource.key.name, version.name);
            let catalog = ResourceKey::grouped(Kind::Catalog, group, name);
            if indexed.set.get(&catalog).is_none() {
                missing.push(format!("{group}/{} {}", resource.key.name, version.name));
            }
        }
    }
    missing
}

fn groups(newest: &Newest) -> Vec<String> {
    let indexed = newest.borrow();
    let groups = indexed.set.iter().filter(|resource| resource.key.kind == Kind::Group);
    groups.map(|resource| resource.key.name.clone()).collect()
}
