//! Settings of a data-plane process: a YAML file, with `WEIR_DP_*` variables over it.
//!
//! What operators configure for the product lives in resources; what is here is about one process:
//! sockets, files, how it reaches its control plane. `docs/reference/settings-data-plane.md` has a
//! line for each field, and a test compares the two.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use weir_audit::settings::AuditSettings;
use weir_model::bounds;
use weir_model::id::Name;
use weir_runtime::otlp::OtlpSettings;
use weir_runtime::settings::{BadSettings, Problems, Tls};
use weir_runtime::telemetry::LogSettings;

use crate::traces::Sampling;

/// Prefix of the environment variables.
pub const ENV_PREFIX: &str = "WEIR_DP";

/// The settings.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where agents connect.
    pub listen: Listen,
    /// Where operators look.
    pub admin: Admin,
    /// Where other proxies ask for what only this one has.
    pub hop: Hop,
    /// Host names (without port) by which clients may call, or `*`. Loopback names work on
    /// loopback without being listed.
    pub hosts: Vec<String>,
    /// Base URL under which clients reach this proxy, for documents that name it; derived from
    /// the request where it is not set.
    pub public_url: Option<String>,
    /// Region of this proxy, until its certificate says so.
    pub region: String,
    /// Folder of the last good configuration, the node's identity and the audit spool.
    pub data_dir: PathBuf,
    /// The name that this proxy wants when it enrols, for tokens that name no node.
    pub node: Option<Name>,
    /// The control plane that it follows.
    pub control: Control,
    /// Servers that this proxy talks to.
    pub upstream: Upstream,
    /// Records of calls.
    pub audit: AuditSettings,
    /// Threads for traffic; 0 is as many as [`Settings::traffic_threads`] says.
    pub threads: usize,
    /// Runtimes of one thread each that connections are served on instead ([`crate::lanes`]); 0 is
    /// none.
    pub lanes: usize,
    /// Milliseconds that a drain waits for calls in flight.
    pub drain_ms: u64,
    /// Logs.
    pub log: LogSettings,
    /// What a collector is told.
    pub telemetry: Telemetry,
}

/// The traffic listener.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// Address and port; port 0 picks one.
    pub address: SocketAddr,
    /// Certificate and key; plain HTTP without.
    pub tls: Option<Tls>,
    /// Allows plain HTTP on other addresses than loopback (behind a load balancer that encrypts).
    pub plain: bool,
    /// Milliseconds that a stream of a client with a session waits for it to come back.
    pub resume_ms: u64,
    /// Milliseconds after which a stream of a client of 2025-11-25 is closed on our side, for it
    /// to come back and go on; never without.
    pub poll_ms: Option<u64>,
}

/// The admin listener.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Address and port; none for no admin listener.
    pub address: Option<SocketAddr>,
}

/// The listener for other proxies, by the certificates of enrolled nodes alone.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hop {
    /// Address and port; none for a proxy that is alone.
    pub address: Option<SocketAddr>,
    /// `host:port` under which other proxies reach it; the address where it is not set.
    pub advertise: Option<String>,
}

/// How the control plane is reached.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Control {
    /// Replicas, as `host:port`; one is tried after the other.
    pub addresses: Vec<String>,
    /// File with the enrolment token; needed for the first start only.
    pub token_file: Option<PathBuf>,
}

/// Traces and metrics for a collector.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// The collector.
    pub otlp: OtlpSettings,
    /// Which calls are recorded as traces.
    pub traces: Sampling,
}

/// How servers are reached.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Upstream {
    /// Programs that may be started as servers over stdio, spelled like `command` in the
    /// resource; `*` for any.
    pub commands: Vec<String>,
    /// PEM file of root certificates that are trusted besides the system's.
    pub extra_roots: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: Listen::default(),
            admin: Admin::default(),
            hop: Hop::default(),
            hosts: Vec::new(),
            public_url: None,
            region: "default".to_owned(),
            data_dir: PathBuf::from("/var/lib/weir"),
            node: None,
            control: Control::default(),
            upstream: Upstream::default(),
            audit: AuditSettings::default(),
            threads: 0,
            lanes: 0,
            drain_ms: bounds::DRAIN_MS,
            log: LogSettings::default(),
            telemetry: Telemetry::default(),
        }
    }
}

impl Hop {
    fn check(&self, bad: &mut Problems) {
        match (&self.address, &self.advertise) {
            (None, Some(_)) => bad.say("hop.address", "needed where hop.advertise is set"),
            (Some(address), None) if address.ip().is_unspecified() => {
                bad.say(
                    "hop.advertise",
                    "name the host and port by which other proxies reach this one",
                );
            }
            _ => {}
        }
        if let Some(text) = &self.advertise {
            let port = text.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            if port.is_none_or(|port| port == 0) || text.contains(['/', ' ']) {
                bad.say("hop.advertise", "give host and port, as in 10.0.0.7:7411");
            }
        }
    }
}

impl Default for Listen {
    fn default() -> Self {
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7410);
        Self { address, tls: None, plain: false, resume_ms: bounds::RESUME_MS, poll_ms: None }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self { address: Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7412)) }
    }
}

impl Settings {
    /// Checks what types cannot: every problem at once.
    ///
    /// # Errors
    /// All of them, in the order of the fields.
    pub fn check(&self) -> Result<(), BadSettings> {
        let mut bad = Problems::default();
        let loopback = self.listen.address.ip().is_loopback();
        if !loopback && self.listen.tls.is_none() && !self.listen.plain {
            bad.say(
                "listen.tls",
                "needed off loopback; or set listen.plain behind a load balancer",
            );
        }
        if self.listen.poll_ms.is_some_and(|time| time < 100) {
            bad.say("listen.poll_ms", "give at least 100; clients come back that often");
        }
        if !loopback && self.hosts.is_empty() {
            bad.say("hosts", "name the host names by which clients reach this proxy, or `*`");
        }
        for host in &self.hosts {
            if host.is_empty() || host.contains(['/', ':', ' ']) && !host.starts_with('[') {
                bad.say("hosts", "give host names without scheme, port or path");
            }
        }
        if let Some(url) = &self.public_url {
            let known = url.starts_with("https://") || url.starts_with("http://");
            if !known || url.ends_with('/') {
                bad.say("public_url", "give scheme and host, without a slash at the end");
            }
        }
        if self.admin.address.is_some_and(|address| !address.ip().is_loopback()) {
            // Shown to whoever can connect: operators put it on their own network knowingly.
            tracing::warn!("the admin listener is not on loopback and has no authentication");
        }
        self.hop.check(&mut bad);
        bad.extend(self.telemetry.otlp.problems());
        bad.extend(self.telemetry.traces.problems());
        self.audit.check(&mut bad);
        if self.drain_ms > 600_000 {
            bad.say("drain_ms", "at most 600000");
        }
        bad.verdict()
    }

    /// How many threads serve traffic: [`Self::threads`], or one for each core but one. That one is
    /// for records, the control plane and the kernel's network; a thread of traffic that has to
    /// share its core makes every call dearer and none faster.
    pub fn traffic_threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        match self.threads {
            0 => cores().saturating_sub(1).max(1),
            set => set,
        }
    }

    /// Folder of the audit files where none is set.
    pub fn audit_folder(&self) -> PathBuf {
        self.data_dir.join("audit")
    }

    /// What is in force, for people: `path = value` lines without secrets.
    pub fn shown(&self) -> String {
        weir_runtime::settings::masked(self, &["password"])
    }

    /// The names of this proxy.
    pub fn site(&self) -> crate::site::Site {
        crate::site::Site {
            region: self.region.clone(),
            public_url: self.public_url.clone(),
            hosts: self.hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(change: impl FnOnce(&mut Settings)) -> Vec<&'static str> {
        let mut settings = Settings::default();
        change(&mut settings);
        match settings.check() {
            Ok(()) => Vec::new(),
            Err(bad) => bad.0.into_iter().map(|bad| bad.path).collect(),
        }
    }

    #[test]
    fn every_problem_is_told_at_once() {
        assert!(paths(|_| ()).is_empty());
        let open = |s: &mut Settings| s.listen.address = ([0, 0, 0, 0], 80).into();
        assert_eq!(paths(open), ["listen.tls", "hosts"]);
        let balanced = |s: &mut Settings| {
            open(s);
            s.listen.plain = true;
            s.hosts = vec!["mcp.example".into()];
        };
        assert!(paths(balanced).is_empty());
        let wrong = |s: &mut Settings| {
            s.hosts = vec!["https://mcp.example".into()];
            s.public_url = Some("mcp.example/".into());
            s.drain_ms = u64::MAX;
        };
        assert_eq!(paths(wrong), ["hosts", "public_url", "drain_ms"]);
        for (address, advertise, bad) in [
            (Some([127, 0, 0, 1]), None, None),
            (Some([0, 0, 0, 0]), None, Some("hop.advertise")),
            (Some([0, 0, 0, 0]), Some("proxy-1.internal:7411"), None),
            (Some([0, 0, 0, 0]), Some("proxy-1.internal"), Some("hop.advertise")),
            (Some([0, 0, 0, 0]), Some("proxy-1.internal:0"), Some("hop.advertise")),
            (None, Some("proxy-1.internal:7411"), Some("hop.address")),
        ] {
            let hop = |s: &mut Settings| {
                s.hop.address = address.map(|ip: [u8; 4]| (ip, 7411).into());
                s.hop.advertise = advertise.map(str::to_owned);
            };
            assert_eq!(
                paths(hop),
                bad.into_iter().collect::<Vec<_>>(),
                "{address:?} {advertise:?}"
            );
        }
    }

    #[test]
    fn there_is_always_a_thread_for_traffic() {
        let with = |threads| Settings { threads, ..Settings::default() }.traffic_threads();
        let cores = std::thread::available_parallelism().unwrap().get();
        assert_eq!(with(0), if cores == 1 { 1 } else { cores - 1 });
        assert_eq!((with(1), with(7)), (1, 7));
    }

    #[test]
    fn unknown_keys_stop_the_start() {
        let env = [("WEIR_DP_LISTEN__ADRESS".to_owned(), "127.0.0.1:1".to_owned())];
        let error = weir_runtime::settings::load::<Settings>(None, ENV_PREFIX, env.into_iter())
            .unwrap_err()
            .to_string();
        assert!(error.contains("listen"), "{error}");
        let env = [("WEIR_DP_LISTEN__ADDRESS".to_owned(), "127.0.0.1:7".to_owned())];
        let settings: Settings =
            weir_runtime::settings::load(None, ENV_PREFIX, env.into_iter()).unwrap();
        assert_eq!(settings.listen.address.port(), 7);
    }

    /// Kafka with everything that can be set.
    #[cfg(feature = "kafka")]
    fn kafka() -> weir_audit::kafka::KafkaSettings {
        serde_json::from_value(serde_json::json!({
            "brokers": ["b:9092"],
            "topic": "t",
            "tls": {"ca": "c", "certificate": "c", "key": "k"},
            "sasl": {"mechanism": "PLAIN", "username": "u", "password": "p"},
        }))
        .unwrap()
    }

    /// Every field has a line in the reference, and the reference has no other.
    #[test]
    fn the_reference_names_every_setting() {
        let mut settings = Settings::default();
        settings.listen.tls = Some(Tls { certificate: "c".into(), key: "k".into() });
        settings.public_url = Some("https://a".into());
        settings.upstream.extra_roots = Some("r".into());
        settings.node = "n".parse().ok();
        settings.hop.address = Some(([127, 0, 0, 1], 7411).into());
        settings.hop.advertise = Some("a:1".into());
        settings.control.token_file = Some("t".into());
        settings.audit.dir = Some("a".into());
        settings.audit.key_file = Some("k".into());
        #[cfg(feature = "kafka")]
        {
            settings.audit.kafka = Some(kafka());
        }
        let mut known: Vec<String> = weir_runtime::settings::masked(&settings, &[])
            .lines()
            .filter_map(|line| line.split(" = ").next().map(str::to_owned))
            .collect();
        known.sort();
        let page = include_str!("../../docs/reference/settings-data-plane.md");
        let mut told: Vec<String> = page
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next().map(str::to_owned))
            .collect();
        told.sort();
        assert_eq!(known, told);
    }
}
