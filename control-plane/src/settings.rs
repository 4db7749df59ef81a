//! Settings of a control-plane process: a YAML file, with `WEIR_CP_*` variables over it.
//!
//! What operators configure for the product lives in documents; what is here is about one
//! process. `docs/reference/settings-control-plane.md` has a line for each field, and a test
//! compares the two. Passwords and keys are given as files, so that no file of settings holds a
//! secret; the vault's keys may also come from the environment.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use weir_audit::settings::AuditSettings;
use weir_model::bounds;
use weir_runtime::otlp::OtlpSettings;
use weir_runtime::settings::{BadSettings, Masked, Problems, Tls};
use weir_runtime::telemetry::LogSettings;

use crate::keyring::Timing;

/// Prefix of the environment variables.
pub const ENV_PREFIX: &str = "WEIR_CP";
/// Name of a replica that has none of its own.
const NAME: &str = "control-plane";

/// The settings.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Name of this replica in audit records; unique among replicas and proxies.
    pub name: String,
    /// Where operators connect (REST).
    pub listen: Listen,
    /// Where proxies connect (gRPC).
    pub sync: Sync,
    /// Where probes and scrapers look.
    pub admin: Admin,
    /// Where state lives.
    pub store: StoreSettings,
    /// Keys that seal secrets.
    pub vault: VaultSettings,
    /// Keys that seal what travels through clients.
    pub keyring: KeyringSettings,
    /// The first start.
    pub bootstrap: Bootstrap,
    /// Records of what operators do.
    pub audit: AuditSettings,
    /// Milliseconds that a drain waits for requests in flight.
    pub drain_ms: u64,
    /// Logs.
    pub log: LogSettings,
    /// What a collector is told.
    pub telemetry: Telemetry,
}

/// The REST listener.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// Address and port; port 0 picks one.
    pub address: SocketAddr,
    /// Certificate and key; plain HTTP without.
    pub tls: Option<Tls>,
    /// Allows plain HTTP on other addresses than loopback (behind a load balancer that encrypts).
    pub plain: bool,
}

/// The listener of proxies. Its certificate comes from the control plane's own authority.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sync {
    /// Address and port; port 0 picks one; none for no listener (proxies of the same process
    /// need none).
    pub address: Option<SocketAddr>,
}

/// The admin listener.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Address and port; none for no admin listener.
    pub address: Option<SocketAddr>,
}

/// Where state lives: etcd where it is set, else a file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreSettings {
    /// File of the embedded store; for a control plane that runs alone.
    pub path: PathBuf,
    /// etcd; for replicas.
    pub etcd: Option<EtcdSettings>,
}

/// How etcd is reached.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EtcdSettings {
    /// `http://host:port` or `https://host:port`, in order of preference.
    pub endpoints: Vec<String>,
    /// Everything lives under it; ends in `/`.
    #[serde(default = "weir_prefix")]
    pub prefix: String,
    /// User, when etcd asks for one.
    #[serde(default)]
    pub user: Option<String>,
    /// File with the user's password.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// PEM file of the authorities to trust instead of the system's.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// PEM file of our certificate.
    #[serde(default)]
    pub certificate: Option<PathBuf>,
    /// PEM file of its key.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// Name to expect in etcd's certificate instead of the endpoint's host.
    #[serde(default)]
    pub server_name: Option<String>,
}

fn weir_prefix() -> String {
    "/weir/".to_owned()
}

/// Keys that seal secrets at rest.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VaultSettings {
    /// File of keys: one per line, 32 bytes in base64, newest first. With the embedded store it is
    /// made when it is missing; replicas need the same file everywhere.
    pub keys_file: PathBuf,
    /// The same text, for the environment (`WEIR_CP_VAULT__KEYS`); wins over the file.
    pub keys: Option<Masked<String>>,
}

/// Keys that seal session ids, cursors, task ids and the like, and how they are rotated.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeyringSettings {
    /// Seconds that a key seals; 0 for ever.
    pub rotate_secs: u64,
    /// Seconds that it opens after that.
    pub overlap_secs: u64,
    /// Seconds that a new key is given to reach every proxy before it seals.
    pub settle_secs: u64,
}

impl KeyringSettings {
    /// As the keyring takes them.
    pub fn timing(&self) -> Timing {
        Timing {
            rotate: Duration::from_secs(self.rotate_secs),
            overlap: Duration::from_secs(self.overlap_secs),
            settle: Duration::from_secs(self.settle_secs),
        }
    }
}

impl Default for KeyringSettings {
    fn default() -> Self {
        Self { rotate_secs: 30 * 86_400, overlap_secs: 14 * 86_400, settle_secs: 600 }
    }
}

/// The first start.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bootstrap {
    /// File to which the first admin's token is written, readable by its owner alone. Without it
    /// the token is printed once, to standard output.
    pub token_file: Option<PathBuf>,
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// Metrics for a collector.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// The collector.
    pub otlp: OtlpSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: NAME.to_owned(),
            listen: Listen::default(),
            sync: Sync::default(),
            admin: Admin::default(),
            store: StoreSettings::default(),
            vault: VaultSettings::default(),
            keyring: KeyringSettings::default(),
            bootstrap: Bootstrap::default(),
            audit: AuditSettings::default(),
            drain_ms: bounds::DRAIN_MS,
            log: LogSettings::default(),
            telemetry: Telemetry::default(),
        }
    }
}

impl Default for Listen {
    fn default() -> Self {
        Self { address: loopback(7400), tls: None, plain: false }
    }
}

impl Default for Sync {
    fn default() -> Self {
        Self { address: Some(loopback(7401)) }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self { address: Some(loopback(7402)) }
    }
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self { path: PathBuf::from("/var/lib/weir/store"), etcd: None }
    }
}

impl Default for VaultSettings {
    fn default() -> Self {
        Self { keys_file: PathBuf::from("/var/lib/weir/vault-keys"), keys: None }
    }
}

impl Settings {
    /// Checks what types cannot: every problem at once.
    ///
    /// # Errors
    /// All of them, in the order of the fields.
    pub fn check(&self) -> Result<(), BadSettings> {
        let mut bad = Problems::default();
        // It names an audit log: part of signed texts, where `+` and `/` have a meaning.
        let fits = |b: u8| b.is_ascii_graphic() && !matches!(b, b'+' | b'/');
        if !(1..=100).contains(&self.name.len()) || !self.name.bytes().all(fits) {
            bad.say("name", "give 1 to 100 printable characters without spaces, `+` and `/`");
        } else if self.store.etcd.is_some() && self.name == NAME {
            bad.say("name", "replicas on etcd need a name each, for their audit records");
        }
        let open = !self.listen.address.ip().is_loopback();
        if open && self.listen.tls.is_none() && !self.listen.plain {
            bad.say(
                "listen.tls",
                "needed off loopback; or set listen.plain behind a load balancer",
            );
        }
        if let Some(etcd) = &self.store.etcd {
            if etcd.endpoints.is_empty() {
                bad.say("store.etcd.endpoints", "name at least one member of etcd");
            }
            if etcd.user.is_some() != etcd.password_file.is_some() {
                bad.say("store.etcd.password_file", "user and password_file go together");
            }
            if etcd.certificate.is_some() != etcd.key.is_some() {
                bad.say("store.etcd.key", "certificate and key go together");
            }
        }
        let keyring = &self.keyring;
        if keyring.overlap_secs < bounds::SESSION_SECS_MAX.unsigned_abs() {
            bad.say("keyring.overlap_secs", "at least 86400, the longest life of a session");
        }
        let rotation = keyring.overlap_secs.saturating_add(keyring.settle_secs);
        if keyring.rotate_secs != 0 && keyring.rotate_secs < rotation {
            let text = "at least overlap_secs and settle_secs together, or 0 for no rotation";
            bad.say("keyring.rotate_secs", text);
        }
        bad.extend(self.telemetry.otlp.problems());
        self.audit.check(&mut bad);
        if self.drain_ms > 600_000 {
            bad.say("drain_ms", "at most 600000");
        }
        bad.verdict()
    }

    /// Folder of the audit files where none is set.
    pub fn audit_folder(&self) -> PathBuf {
        PathBuf::from("/var/lib/weir/audit")
    }

    /// The settings in force, as lines; secrets are masked.
    pub fn shown(&self) -> String {
        weir_runtime::settings::masked(self, &["keys"])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(env: &[(&str, &str)]) -> Result<Settings, String> {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        weir_runtime::settings::load(None, ENV_PREFIX, env).map_err(|error| error.to_string())
    }

    fn full() -> Settings {
        let mut settings = Settings::default();
        settings.listen.tls = Some(Tls { certificate: "c".into(), key: "k".into() });
        settings.bootstrap.token_file = Some("t".into());
        settings.vault.keys = Some(Masked::new("c2VjcmV0".to_owned()));
        settings.store.etcd = Some(EtcdSettings {
            endpoints: vec!["http://a:2379".into()],
            prefix: weir_prefix(),
            user: Some("weir".into()),
            password_file: Some("p".into()),
            ca: Some("ca".into()),
            certificate: Some("c".into()),
            key: Some("k".into()),
            server_name: Some("etcd".into()),
        });
        settings
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let paths = |change: &dyn Fn(&mut Settings)| -> Vec<&'static str> {
            let mut settings = Settings::default();
            change(&mut settings);
            match settings.check() {
                Ok(()) => Vec::new(),
                Err(bad) => bad.0.into_iter().map(|bad| bad.path).collect(),
            }
        };
        assert!(paths(&|_| ()).is_empty());
        let open = |s: &mut Settings| {
            s.listen.address = ([0, 0, 0, 0], 80).into();
            s.drain_ms = u64::MAX;
        };
        assert_eq!(paths(&open), ["listen.tls", "drain_ms"]);
        let replica = |s: &mut Settings| {
            *s = full();
            let etcd = s.store.etcd.as_mut().unwrap();
            (etcd.endpoints, etcd.user, etcd.key) = (vec![], None, None);
        };
        let bad = ["name", "store.etcd.endpoints", "store.etcd.password_file", "store.etcd.key"];
        assert_eq!(paths(&replica), bad);
    }

    #[test]
    fn the_environment_lies_over_the_file_and_unknown_keys_stop_the_start() {
        let settings = load(&[
            ("WEIR_CP_LISTEN__ADDRESS", "127.0.0.1:9"),
            ("WEIR_CP_STORE__ETCD__ENDPOINTS", "http://a:1,http://b:1"),
            ("WEIR_CP_VAULT__KEYS", "c2VjcmV0"),
        ])
        .unwrap();
        assert_eq!(settings.listen.address.port(), 9);
        assert_eq!(settings.store.etcd.as_ref().unwrap().endpoints.len(), 2);
        assert!(!settings.shown().contains("c2VjcmV0") && !format!("{settings:?}").contains("c2V"));
        let error = load(&[("WEIR_CP_LISTEN__ADRESS", "127.0.0.1:1")]).unwrap_err();
        assert!(error.contains("listen"), "{error}");
    }

    /// Every field has a line in the reference, and the reference has no other.
    #[cfg(feature = "kafka")]
    #[test]
    fn the_reference_names_every_setting() {
        let mut settings = full();
        let mut kafka = weir_audit::kafka::KafkaSettings::new(vec!["k:1".into()], "t");
        kafka.tls = Some(weir_audit::kafka::KafkaTls::default());
        kafka.sasl = Some(weir_audit::kafka::KafkaSasl {
            mechanism: weir_audit::kafka::Mechanism::Plain,
            username: "weir".into(),
            password: Masked::new("hunter2".into()),
        });
        settings.audit.kafka = Some(kafka);
        settings.audit.dir = Some("d".into());
        settings.audit.key_file = Some("k".into());
        assert!(!settings.shown().contains("hunter2"));
        let mut known: Vec<String> = settings
            .shown()
            .lines()
            .filter_map(|line| line.split(" = ").next().map(str::to_owned))
            .collect();
        known.sort();
        let page = include_str!("../../docs/reference/settings-control-plane.md");
        let mut told: Vec<String> = page
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next().map(str::to_owned))
            .collect();
        told.sort();
        assert_eq!(known, told);
    }
}
