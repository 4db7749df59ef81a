//! The composition of a control plane, in the order of dependencies. Used by the binary, by
//! `weir dev` and by tests alike: sockets are bound early and the real addresses can be asked for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use weir_audit::Pipeline;
use weir_model::sync::Timing;
use weir_runtime::admin::{self, Admin};
use weir_runtime::clock::SharedClock;
use weir_runtime::drain::Drain;
use weir_runtime::metrics::Metrics;
use weir_runtime::ready::Ready;
use weir_runtime::task;
use weir_runtime::telemetry::LogLevel;
use weir_runtime::tls::{self, ClientAuth, ServerCertificate};

use crate::api;
use crate::author::Author;
use crate::ca::Ca;
use crate::enrol::Enrolment;
use crate::fleet::{Fleet, FleetMetrics};
use crate::index::Index;
use crate::keyring::{self, Keys};
use crate::observe::Observer;
use crate::observe::intake::Intake;
use crate::operator::Operators;
use crate::publish::{self, Pipe, Publish};
use crate::serve::Listener;
use crate::settings::{EtcdSettings, Settings};
use crate::sign_ins::SignIns;
use crate::store::embedded::Embedded;
use crate::store::etcd::{self, Etcd};
use crate::store::{Store, StoreError};
use crate::vault::{LocalKeys, Vault};
use crate::witness::Witness;

/// What a control plane is given by whoever runs it.
pub struct Parts {
    /// Where state lives.
    pub store: Arc<dyn Store>,
    /// Seals secrets.
    pub vault: Vault,
    /// Where records go.
    pub audit: Pipeline,
    /// Where parts measure.
    pub metrics: Metrics,
    /// What must be there before it serves.
    pub ready: Ready,
    /// Lets operators change what is logged.
    pub level: Option<LogLevel>,
    /// The end.
    pub drain: Drain,
    /// Changes when files should be looked at again.
    pub reload: watch::Receiver<u64>,
    /// The time.
    pub clock: SharedClock,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}

/// A control plane that has its sockets and does not serve yet.
#[derive(Debug)]
pub struct Bound {
    listener: Listener,
    router: axum::Router,
    admin: Option<admin::Bound>,
    index: Index,
    author: Author,
    operators: Operators,
    sync: Sync,
    drain: Drain,
    stop: CancellationToken,
    addresses: Addresses,
}

/// What proxies follow, bound and not yet served.
#[derive(Debug)]
struct Sync {
    witnessed: Option<JoinHandle<Option<()>>>,
    publish: Publish,
    socket: Option<tokio::net::TcpListener>,
    pipe: Option<Pipe>,
    fleet: Fleet,
    enrolment: Enrolment,
    witness: Witness,
}

/// Addresses in fact bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// Of the REST listener.
    pub rest: SocketAddr,
    /// Of the listener of proxies.
    pub sync: Option<SocketAddr>,
    /// Of the admin listener.
    pub admin: Option<SocketAddr>,
}

/// How long a start waits for the control plane before it to let go of the embedded store.
const STORE_PATIENCE: Duration = Duration::from_secs(5);

/// Opens the store that the settings name. One that is in use is waited for a little: who restarts
/// a control plane may be faster than its end.
///
/// # Errors
/// When a file cannot be read, or the store cannot be opened; the message names the setting.
pub async fn open_store(settings: &Settings) -> anyhow::Result<Arc<dyn Store>> {
    match &settings.store.etcd {
        Some(etcd) => {
            let options = etcd_options(etcd)?;
            Ok(Arc::new(Etcd::new(options).context("store.etcd")?))
        }
        None => {
            let path = &settings.store.path;
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder).context("store.path")?;
            }
            let deadline = Instant::now() + STORE_PATIENCE;
            loop {
                match Embedded::open(path) {
                    Err(StoreError::Unavailable(why)) if Instant::now() < deadline => {
                        tracing::debug!(why, "the store cannot be opened yet");
                        tokio::time::sleep(STORE_PATIENCE / 50).await;
                    }
                    opened => return Ok(Arc::new(opened.context("store.path")?)),
                }
            }
        }
    }
}

fn etcd_options(settings: &EtcdSettings) -> anyhow::Result<etcd::Options> {
    let read = |path: &std::path::Path, setting: &'static str| {
        std::fs::read_to_string(path).with_context(|| format!("{setting}: {}", path.display()))
    };
    let user = match (&settings.user, &settings.password_file) {
        (Some(user), Some(file)) => {
            let password = read(file, "store.etcd.password_file")?.trim_end().to_owned();
            Some((user.clone(), weir_model::secret::Secret::new(password)))
        }
        _ => None,
    };
    let ca = match &settings.ca {
        Some(file) => Some(read(file, "store.etcd.ca")?),
        None => None,
    };
    let identity = match (&settings.certificate, &settings.key) {
        (Some(certificate), Some(key)) => {
            let key = weir_model::secret::Secret::new(read(key, "store.etcd.key")?);
            Some((read(certificate, "store.etcd.certificate")?, key))
        }
        _ => None,
    };
    let server_name = settings.server_name.clone();
    Ok(etcd::Options {
        endpoints: settings.endpoints.clone(),
        prefix: settings.prefix.clone(),
        user,
        tls: etcd::Tls { ca, identity, server_name },
    })
}

/// Opens the vault that the settings name. A control plane that runs alone makes its key file;
/// replicas are given one, since each must hold the same keys.
///
/// # Errors
/// When the keys cannot be read; the message names the setting.
pub fn open_vault(settings: &Settings) -> anyhow::Result<Vault> {
    let file = &settings.vault.keys_file;
    let keys = match (&settings.vault.keys, &settings.store.etcd) {
        (Some(keys), _) => LocalKeys::parse(keys.reveal()).context("vault.keys")?,
        (None, Some(_)) => LocalKeys::read(file).context("vault.keys_file")?,
        (None, None) => LocalKeys::read_or_make(file).context("vault.keys_file")?,
    };
    Ok(Vault::new(Arc::new(keys)))
}

/// Puts a control plane together: reads the configuration, binds its sockets.
///
/// # Errors
/// When the store cannot be read, a file is broken or an address is taken.
pub async fn build(settings: &Settings, parts: Parts) -> anyhow::Result<Bound> {
    tls::install_provider();
    let watch = parts.drain.watch();
    let stop = CancellationToken::new();
    let keys = Keys::new(
        Arc::clone(&parts.store),
        parts.vault.clone(),
        Arc::clone(&parts.clock),
        settings.keyring.timing(),
    );
    keys.ensure().await.context("the sessions' keyring")?;
    let index = Index::start(Arc::clone(&parts.store), stop.clone()).await;
    let index = index.context("the configuration cannot be read from the store")?;
    let author = Author::new(Arc::clone(&parts.store), parts.vault.clone(), index.newest());
    let operators = Operators::new(Arc::clone(&parts.store), Arc::clone(&parts.clock));
    task::spawn("compile", author.keep_compiled());
    let observer = Observer::new(Arc::clone(&parts.store), author.clone());
    let sign_ins = SignIns::new(Arc::clone(&parts.store), author.clone(), Arc::clone(&parts.clock));
    let sync =
        build_sync(settings, &parts, (index.newest(), observer.clone()), sign_ins.clone()).await?;

    let certificate = certificate(settings)?;
    let tls = match &certificate {
        Some(certificate) => {
            let config = tls::server_config(Arc::clone(certificate), ClientAuth::None);
            Some(Arc::new(config.context("listen.tls")?))
        }
        None => None,
    };
    let listener = Listener::bind(settings.listen.address, tls).await.context("listen.address")?;
    if let Some(certificate) = certificate {
        let fresh = certificate.keep_fresh(tls::server::POLL, parts.reload, watch.clone());
        task::spawn("certificate", fresh);
    }
    task::spawn("readiness", readiness(index.live(), parts.ready.clone()));
    let by = (settings.name.clone(), Arc::clone(&parts.clock));
    let kept = keyring::keep(keys.clone(), parts.audit.clone(), by, watch.clone());
    task::spawn("keyring", kept);
    let router = api::router(api::Parts {
        author: author.clone(),
        operators: operators.clone(),
        fleet: sync.fleet.clone(),
        enrolment: sync.enrolment.clone(),
        witness: sync.witness.clone(),
        sign_ins: sign_ins.clone(),
        observer,
        keys,
        audit: parts.audit,
        ready: parts.ready.clone(),
        drain: watch.clone(),
        clock: parts.clock,
    });
    let admin = match settings.admin.address {
        Some(address) => {
            let newest = index.newest();
            let admin = Admin::new(parts.ready, parts.metrics, parts.level, watch)
                .page("/config", move || config_page(&newest.borrow()));
            Some(admin.bind(address).await.context("admin.address")?)
        }
        None => None,
    };
    let addresses = Addresses {
        rest: listener.address()?,
        sync: sync.socket.as_ref().map(tokio::net::TcpListener::local_addr).transpose()?,
        admin: admin.as_ref().map(admin::Bound::address).transpose()?,
    };
    let drain = parts.drain;
    Ok(Bound { listener, router, admin, index, author, operators, sync, drain, stop, addresses })
}

/// What the listener shows of itself; none without TLS.
fn certificate(settings: &Settings) -> anyhow::Result<Option<Arc<ServerCertificate>>> {
    let Some(files) = &settings.listen.tls else { return Ok(None) };
    let own = ServerCertificate::from_files(&files.certificate, &files.key);
    Ok(Some(own.context("listen.tls")?))
}

/// What proxies need: the authority, enrolment, the fleet, and the service they follow.
async fn build_sync(
    settings: &Settings,
    parts: &Parts,
    (newest, observer): (crate::index::Newest, Observer),
    sign_ins: SignIns,
) -> anyhow::Result<Sync> {
    let now = i64::try_from(parts.clock.now_secs()).unwrap_or(i64::MAX);
    let ca = Ca::load_or_make(&*parts.store, &parts.vault, now).await;
    let ca = Arc::new(ca.context("the control plane's authority")?);
    let (store, clock) = (&parts.store, &parts.clock);
    let enrolment = Enrolment::new(Arc::clone(store), Arc::clone(&ca), Arc::clone(clock));
    enrolment.reserve(&settings.name).await.context("the name of this replica")?;
    let fleet = Fleet::new(Arc::clone(store), settings.name.clone(), Arc::clone(clock));
    parts.metrics.collector(FleetMetrics(fleet.clone()));
    let witness = Witness::load_or_make(store, &parts.vault, Arc::clone(clock)).await;
    let witness = witness.context("the witness of audit logs")?.counted(&parts.metrics);
    let witnessed = parts.audit.spool().map(|spool| {
        let own = witness.clone().follow(spool.clone(), settings.name.clone());
        task::spawn("witness", own)
    });
    let (intake, worker) = Intake::new(observer, fleet.clone());
    task::spawn("intake", worker);
    let publish = publish::Parts {
        replica: settings.name.clone(),
        newest,
        ca,
        enrolment: enrolment.clone(),
        fleet: fleet.clone(),
        intake,
        witness: witness.clone(),
        sign_ins,
        audit: Some(parts.audit.clone()),
        clock: Arc::clone(clock),
        timing: Timing::default(),
    };
    let publish = Publish::new(publish, Arc::clone(store), parts.vault.clone())?;
    let socket = match settings.sync.address {
        Some(address) => {
            Some(tokio::net::TcpListener::bind(address).await.context("sync.address")?)
        }
        None => None,
    };
    Ok(Sync { publish, socket, pipe: None, fleet, enrolment, witness, witnessed })
}

/// Not ready while the store cannot be followed: what is known here may be old.
async fn readiness(mut live: watch::Receiver<bool>, ready: Ready) {
    loop {
        let pending = (!*live.borrow_and_update()).then(|| ready.register("store"));
        if live.changed().await.is_err() {
            return;
        }
        drop(pending);
    }
}

/// Which configuration is known here, for whoever runs the process.
fn config_page(indexed: &crate::index::Indexed) -> serde_json::Value {
    serde_json::json!({
        "revision": indexed.revision,
        "digest": indexed.set.digest(),
        "documents": indexed.set.len(),
        "broken": indexed.broken,
    })
}

impl Bound {
    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Makes the first operator and more of them, for whoever runs the process.
    pub fn operators(&self) -> &Operators {
        &self.operators
    }

    /// Lets proxies in, for whoever runs the process.
    pub fn enrolment(&self) -> &Enrolment {
        &self.sync.enrolment
    }

    /// Opens an in-memory network on which proxies of this process connect, besides the socket.
    pub fn pipe(&mut self) -> tokio::sync::mpsc::Sender<tokio::io::DuplexStream> {
        let (ours, theirs) = publish::pipe();
        self.sync.pipe = Some(theirs);
        ours
    }

    /// What witnesses this process's own audit log, and keeps the store open for it. The log
    /// ends after the rest: whoever goes on without the process ends this then.
    pub fn witnessed(&mut self) -> Option<JoinHandle<Option<()>>> {
        self.sync.witnessed.take()
    }

    /// Changes documents, for whoever runs the process.
    pub fn author(&self) -> &Author {
        &self.author
    }

    /// The configuration as it changes.
    pub fn newest(&self) -> crate::index::Newest {
        self.index.newest()
    }

    /// Serves until the drain has ended: requests in flight finish.
    ///
    /// # Errors
    /// What made the drain begin, when that was a fault.
    pub async fn serve(self) -> anyhow::Result<()> {
        if let Some(admin) = self.admin {
            task::spawn("admin", admin.serve());
        }
        let watch = self.drain.watch();
        let Sync { publish, socket, pipe, fleet, .. } = self.sync;
        // The drain waits until it is written that the nodes have left.
        let last_word = watch.guard("fleet");
        let fleet = fleet.run(watch.clone());
        task::spawn("fleet", async move {
            fleet.await;
            drop(last_word);
        });
        if socket.is_some() || pipe.is_some() {
            let service = publish.serve(socket, pipe, watch.clone());
            task::essential("sync", &self.drain, service);
        }
        task::essential("rest", &self.drain, self.listener.serve(self.router, watch));
        let drained = self.drain.finished().await;
        self.stop.cancel();
        drop(self.index);
        match drained.cause {
            Some(cause) => Err(anyhow::anyhow!(cause)),
            None => Ok(()),
        }
    }
}
