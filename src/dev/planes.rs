//! The two planes of `weir dev`, built from the parts that their own processes use.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use control_plane::index::Newest;
use control_plane::operator::Operators;
use data_plane::config::State;
use tokio::task::JoinHandle;
use weir_audit::file::{FileSettings, FileSink};
use weir_audit::{Builder, Origin, Pipeline};
use weir_runtime::clock::SystemClock;
use weir_runtime::metrics::Metrics;
use weir_runtime::ready::Ready;

use super::Surroundings;
use crate::cli::Dev;

/// Name of the proxy and of its region.
const NODE: &str = "dev";

/// Both planes, serving.
#[derive(Debug)]
pub(super) struct Planes {
    /// Where agents connect.
    pub(super) traffic: SocketAddr,
    /// Where operators connect.
    pub(super) rest: SocketAddr,
    /// The configuration as it changes.
    pub(super) newest: Newest,
    /// Who may administer.
    pub(super) operators: Operators,
    control: JoinHandle<anyhow::Result<()>>,
    data: JoinHandle<anyhow::Result<()>>,
    audits: [Pipeline; 2],
}

pub(super) async fn start(args: &Dev, around: Surroundings) -> anyhow::Result<Planes> {
    let (control, control_audit) = control(args, &around).await?;
    let (data, data_audit) = data(args, &around).await?;
    let (traffic, rest) = (data.addresses().traffic, control.addresses().rest);
    let (newest, operators) = (control.newest(), control.operators().clone());
    Ok(Planes {
        traffic,
        rest,
        newest,
        operators,
        control: tokio::spawn(control.serve()),
        data: tokio::spawn(data.serve()),
        audits: [data_audit, control_audit],
    })
}

async fn control(
    args: &Dev,
    around: &Surroundings,
) -> anyhow::Result<(control_plane::app::Bound, Pipeline)> {
    use control_plane::{app, settings::Settings};
    let mut settings = Settings { name: NODE.to_owned(), ..Settings::default() };
    settings.listen.address = args.admin_listen;
    settings.listen.plain = true;
    settings.admin.address = None;
    settings.store.path = args.data_dir.join("control/store");
    settings.vault.keys_file = args.data_dir.join("control/vault-keys");
    settings.audit.dir = args.data_dir.join("audit-control");
    let metrics = Metrics::new();
    let audit = app::open_audit(&settings, metrics.clone())?;
    let parts = app::Parts {
        store: app::open_store(&settings)?,
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
) -> anyhow::Result<(data_plane::app::Bound, Pipeline)> {
    use data_plane::{app, settings::Settings};
    let data_dir = args.data_dir.join("node");
    let mut settings = Settings { region: NODE.to_owned(), data_dir, ..Settings::default() };
    settings.listen.address = args.listen;
    settings.listen.plain = true;
    settings.admin.address = None;
    // Whoever may write documents here may run programs here anyway.
    settings.upstream.commands = vec!["*".to_owned()];
    if !args.listen.ip().is_loopback() {
        settings.hosts = vec!["*".to_owned()];
    }
    let metrics = Metrics::new();
    let sink = FileSink::open(FileSettings::new(args.data_dir.join("audit")))?;
    let origin = Origin { node: NODE.to_owned(), region: NODE.to_owned() };
    let audit = Builder::new(origin, Box::new(sink), metrics.clone()).start();
    let parts = app::Parts {
        config: Arc::new(State::default()),
        audit: audit.clone(),
        metrics,
        ready: Ready::new(),
        level: around.level.clone(),
        drain: around.drain.clone(),
        reload: around.reload.subscribe(),
        clock: SystemClock::shared(),
        control: tokio::runtime::Handle::current(),
    };
    let bound = app::build(&settings, parts).await.context("proxy")?;
    Ok((bound, audit))
}

impl Planes {
    /// Waits for the end of both, then for the last audit records.
    pub(super) async fn finished(self, patience: Duration) -> anyhow::Result<()> {
        let ended = (self.data.await, self.control.await);
        for audit in &self.audits {
            for left in audit.close(patience).await {
                tracing::error!(sink = left.sink, records = left.records, "audit records are left");
            }
        }
        ended.0??;
        ended.1??;
        Ok(())
    }
}
