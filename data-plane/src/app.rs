//! The composition of a proxy, in the order of dependencies. Used by the binary, by `weir dev` and
//! by tests alike: sockets are bound early and the real addresses can be asked for.
//!
//! Traffic runs on the lanes, and without lanes on the runtime that [`build`] is called on. The admin listener, the sync stream
//! and the audit sinks can run on another one, so that a slow scrape costs no call anything.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use rustls::pki_types::CertificateDer;
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::watch;
use weir_audit::Pipeline;
use weir_model::bounds;
use weir_runtime::admin::{self, Admin};
use weir_runtime::clock::SharedClock;
use weir_runtime::drain::Drain;
use weir_runtime::metrics::Metrics;
use weir_runtime::otlp::Spans;
use weir_runtime::ready::Ready;
use weir_runtime::task;
use weir_runtime::telemetry::LogLevel;
use weir_runtime::tls::{self, ClientAuth, ServerCertificate};

use crate::authorization::Front;
use crate::authorization::ledger::Ledger;
use crate::certificates::{Asking, Certificates};
use crate::config::{ConfigMetrics, Identity, State};
use crate::decisions::Decisions;
use crate::gateway::Gateway;
use crate::hop::{self, Hop};
use crate::keys::{Fetch, KeyMetrics, Keys};
use crate::lanes::Lanes;
use crate::limits::Limits;
use crate::listener::Listener;
use crate::lists::Lists;
use crate::metrics::CallMetrics;
use crate::neighbours::{Answering, NeighbourMetrics, Neighbours};
use crate::replay::Replays;
use crate::sessions::{Ended, Live};
use crate::settings::Settings;
use crate::traces::Traces;
use crate::upstream::fetch::Fetcher;
use crate::upstream::metrics::UpstreamMetrics;
use crate::upstream::{self, Commands, Upstreams};

/// What a proxy is given by whoever runs it.
#[derive(Debug)]
pub struct Parts {
    /// The configuration; filled by the sync stream.
    pub config: Arc<State>,
    /// Who this proxy is; needed where it has a listener for other proxies.
    pub identity: Option<Arc<ArcSwap<Identity>>>,
    /// Counts what is good once in a sign-in, over all proxies.
    pub ledger: Arc<dyn Ledger>,
    /// Where records go.
    pub audit: Pipeline,
    /// Where parts measure.
    pub metrics: Metrics,
    /// What must be there before calls are welcome.
    pub ready: Ready,
    /// Lets operators change what is logged.
    pub level: Option<LogLevel>,
    /// The end.
    pub drain: Drain,
    /// Changes when files should be looked at again.
    pub reload: watch::Receiver<u64>,
    /// The time.
    pub clock: SharedClock,
    /// The runtime of the admin listener.
    pub control: Handle,
    /// Where connections are served.
    pub lanes: Lanes,
    /// Where spans go; none where nobody collects them.
    pub spans: Option<Spans>,
}

/// A proxy that has its sockets and does not serve yet.
#[derive(Debug)]
pub struct Bound {
    listener: Listener,
    admin: Option<admin::Bound>,
    hop: Option<hop::Listener>,
    gateway: Arc<Gateway>,
    drain: Drain,
    control: Handle,
    addresses: Addresses,
}

/// Addresses in fact bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// Of the traffic listener.
    pub traffic: SocketAddr,
    /// Of the admin listener.
    pub admin: Option<SocketAddr>,
    /// Of the listener for other proxies.
    pub hop: Option<SocketAddr>,
}

/// Puts a proxy together and binds its sockets.
///
/// # Errors
/// When a file is broken or an address is taken; the message names the setting.
pub async fn build(settings: &Settings, parts: Parts) -> anyhow::Result<Bound> {
    tls::install_provider();
    let watch = parts.drain.watch();
    let certificate = certificate(settings)?;
    let asking = || ClientAuth::By(Asking::verifier(Arc::clone(&parts.config)));
    let tls = certificate.as_ref().map(|own| tls::server_config(Arc::clone(own), asking()));
    let tls = tls.transpose().context("listen.tls")?.map(Arc::new);
    let (hop_listener, hop) = bind_hop(settings, &parts).await?;
    let listener = Listener::bind(settings.listen.address, tls, parts.lanes.clone());
    let listener = listener.await.context("listen.address")?;
    if let Some(certificate) = certificate {
        let fresh = certificate.keep_fresh(tls::server::POLL, parts.reload.clone(), watch.clone());
        task::spawn("certificate", fresh);
    }

    let roots = extra_roots(settings)?;
    parts.metrics.collector(ConfigMetrics(Arc::clone(&parts.config)));
    let upstreams = open_upstreams(settings, roots.clone(), parts.lanes.count())?;
    parts.metrics.collector(UpstreamMetrics::new(upstreams.clone(), Arc::clone(&parts.config)));
    let (ended, neighbours) = neighbours(&hop, &parts.clock, &parts.metrics);
    let fetch: Arc<dyn Fetch> = Arc::new(Fetcher::new(&roots)?);
    let gateway = Arc::new(Gateway {
        config: Arc::clone(&parts.config),
        certificates: Certificates::default(),
        front: Front::new(Arc::clone(&fetch)),
        ledger: parts.ledger,
        keys: Keys::new(fetch, KeyMetrics::register(&parts.metrics)),
        decisions: decisions(&parts.metrics),
        lists: Lists::default(),
        limits: limits(&parts.clock, &parts.metrics),
        upstreams,
        audit: parts.audit,
        site: settings.site(),
        ended,
        live: Live::new(i64::try_from(parts.clock.now_secs()).unwrap_or(i64::MAX)),
        in_flight: Default::default(),
        subscriptions: Default::default(),
        levels: Default::default(),
        makers: Default::default(),
        streams: Default::default(),
        replays: replays(settings),
        hop,
        neighbours,
        parking: Default::default(),
        sealer: Default::default(),
        metrics: CallMetrics::register(&parts.metrics),
        traces: traces(settings, parts.spans),
        clock: parts.clock,
        drain: watch.clone(),
    });

    gateway.hop.answered_by(Arc::new(Answering(Arc::downgrade(&gateway))));
    await_configuration(&parts.ready, Arc::clone(&parts.config));
    let shown = Arc::clone(&gateway);
    let admin = Admin::new(parts.ready, parts.metrics, parts.level, watch)
        .page("/config", move || config_page(&shown));
    let admin = match settings.admin.address {
        Some(address) => {
            let bound = parts.control.spawn(admin.bind(address)).await?;
            Some(bound.context("admin.address")?)
        }
        None => None,
    };
    let addresses = Addresses {
        traffic: listener.address()?,
        admin: admin.as_ref().map(admin::Bound::address).transpose()?,
        hop: hop_listener.as_ref().map(hop::Listener::address).transpose()?,
    };
    let (drain, control) = (parts.drain, parts.control);
    Ok(Bound { listener, admin, hop: hop_listener, gateway, drain, control, addresses })
}

/// What the listener shows of itself; none without TLS.
fn certificate(settings: &Settings) -> anyhow::Result<Option<Arc<ServerCertificate>>> {
    let Some(files) = &settings.listen.tls else { return Ok(None) };
    let own = ServerCertificate::from_files(&files.certificate, &files.key);
    Ok(Some(own.context("listen.tls")?))
}

fn open_upstreams(
    settings: &Settings,
    extra_roots: Vec<CertificateDer<'static>>,
    lanes: usize,
) -> anyhow::Result<Upstreams> {
    let commands = commands(settings);
    Ok(Upstreams::new(upstream::Settings { extra_roots, commands, lanes })?)
}

/// Authorities that are trusted besides the system's.
fn extra_roots(settings: &Settings) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let Some(path) = &settings.upstream.extra_roots else { return Ok(Vec::new()) };
    let pem = std::fs::read(path).context("upstream.extra_roots")?;
    Ok(tls::certificates(&pem, "upstream.extra_roots")?)
}

/// The listener for other proxies where the settings want one, and this proxy's end of the hop.
async fn bind_hop(
    settings: &Settings,
    parts: &Parts,
) -> anyhow::Result<(Option<hop::Listener>, Hop)> {
    let listener = match settings.hop.address {
        Some(address) => {
            anyhow::ensure!(parts.identity.is_some(), "hop.address: this proxy has not enrolled");
            Some(hop::Listener::bind(address).await.context("hop.address")?)
        }
        None => None,
    };
    let own = listener.as_ref().map(hop::Listener::address).transpose()?;
    let advertised = settings.hop.advertise.clone().or(own.map(|own| own.to_string()));
    Ok((listener, Hop::new(parts.identity.clone(), advertised, &parts.metrics)))
}

fn limits(clock: &SharedClock, metrics: &Metrics) -> Arc<Limits> {
    Limits::new(bounds::LIMIT_BUCKETS_MAX, Arc::clone(clock)).measured(metrics)
}

/// What was ended, and who is told of it.
fn neighbours(hop: &Hop, clock: &SharedClock, metrics: &Metrics) -> (Ended, Neighbours) {
    let ended = Ended::default();
    let neighbours = Neighbours::new(hop.clone(), ended.clone(), Arc::clone(clock));
    metrics.collector(NeighbourMetrics(neighbours.clone()));
    (ended, neighbours)
}

fn decisions(metrics: &Metrics) -> Arc<Decisions> {
    let decisions = Decisions::default();
    decisions.register(metrics);
    Arc::new(decisions)
}

fn traces(settings: &Settings, spans: Option<Spans>) -> Traces {
    let Some(spans) = spans else { return Traces::default() };
    Traces::new(spans, settings.telemetry.traces.clone(), settings.region.clone())
}

/// A proxy without any configuration would refuse whatever comes.
fn await_configuration(ready: &Ready, config: Arc<State>) {
    let pending = ready.register("configuration");
    task::spawn("first configuration", async move {
        let mut revisions = config.subscribe();
        // An error means that the configuration is gone, and the process with it.
        let _ = revisions.wait_for(|revision| revision.0 > 0).await;
        drop(pending);
    });
}

/// Streams that can be asked for again, with the times of the settings.
fn replays(settings: &Settings) -> Replays {
    let listen = &settings.listen;
    let grace = Duration::from_millis(listen.resume_ms);
    Replays::new(grace, listen.poll_ms.map(Duration::from_millis))
}

fn commands(settings: &Settings) -> Commands {
    if settings.upstream.commands.iter().any(|command| command == "*") {
        Commands::Any
    } else {
        Commands::Only(settings.upstream.commands.clone())
    }
}

/// Which configuration is in force, for operators.
fn config_page(gateway: &Gateway) -> serde_json::Value {
    let snapshot = gateway.config.current();
    let quarantined: Vec<_> = snapshot
        .quarantined
        .iter()
        .map(|(key, why)| json!({ "resource": key.to_string(), "why": why }))
        .collect();
    json!({
        "revision": snapshot.revision,
        "digest": snapshot.digest,
        "age_secs": gateway.config.age().as_secs(),
        "groups": snapshot.groups.len(),
        "quarantined": quarantined,
    })
}

impl Bound {
    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// What calls share; for whoever feeds the configuration or looks at the servers.
    pub fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }

    /// Serves until the drain has ended: calls in flight finish, streams end, servers are told.
    ///
    /// # Errors
    /// What made the drain begin, when that was a fault.
    pub async fn serve(self) -> anyhow::Result<()> {
        if let Some(admin) = self.admin {
            self.control.spawn(admin.serve());
        }
        let upstreams = self.gateway.upstreams.clone();
        if let Some(hop) = self.hop {
            let config = Arc::clone(&self.gateway.config);
            let serve = hop.serve(self.gateway.hop.clone(), config, self.drain.watch());
            task::essential("hop", &self.drain, serve);
        }
        task::essential("listener", &self.drain, self.listener.serve(self.gateway));
        let drained = self.drain.finished().await;
        upstreams.close().await;
        match drained.cause {
            Some(cause) => Err(anyhow::anyhow!(cause)),
            None => Ok(()),
        }
    }
}
