//! The sink for everybody else: a Kafka topic.
//!
//! An idempotent producer with `acks=all` and zstd. The key is the group, so that a group's
//! records stay in order; the header `weir-event-id` names the record, so that consumers can drop
//! duplicates without parsing. A write waits for the delivery report of each record; what
//! the brokers did not confirm within `message_timeout_ms` is reported back and sent again. A
//! producer that broke for good is replaced.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer};
use serde::{Deserialize, Serialize};
use weir_runtime::settings::Masked;

use crate::record::Record;
use crate::sink::{Sink, SinkError};

/// Name of the header that carries `node/epoch/sequence`.
pub const EVENT_ID_HEADER: &str = "weir-event-id";
pub use crate::record::NO_GROUP_KEY;

/// What librdkafka must have been built with, whatever the settings say.
const FEATURES_ALWAYS: [&str; 1] = ["zstd"];
/// How long to wait before a full send queue is tried again.
const QUEUE_FULL_WAIT: Duration = Duration::from_millis(10);

/// Where the topic is and how to get in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaSettings {
    /// `host:port` of some brokers.
    pub brokers: Vec<String>,
    /// The topic. It has to be there.
    #[serde(default = "topic_default")]
    pub topic: String,
    /// TLS; plain text when absent.
    #[serde(default)]
    pub tls: Option<KafkaTls>,
    /// SASL; none when absent.
    #[serde(default)]
    pub sasl: Option<KafkaSasl>,
    /// How long the brokers may take to confirm a record before it is sent anew.
    #[serde(default = "message_timeout_ms_default")]
    pub message_timeout_ms: u64,
    /// Memory for records on their way.
    #[serde(default = "buffer_kbytes_default")]
    pub buffer_kbytes: u32,
}

/// TLS towards the brokers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaTls {
    /// PEM file of the authorities; the machine's when absent.
    pub ca: Option<PathBuf>,
    /// PEM file of our certificate, when the brokers ask for one.
    pub certificate: Option<PathBuf>,
    /// PEM file of its key.
    pub key: Option<PathBuf>,
}

/// SASL towards the brokers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaSasl {
    /// How the password is proved.
    pub mechanism: Mechanism,
    /// Who we are.
    pub username: String,
    /// Never shown.
    pub password: Masked<String>,
}

/// SASL mechanisms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mechanism {
    /// The password itself; only with TLS.
    #[serde(rename = "PLAIN")]
    Plain,
    /// SCRAM with SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// SCRAM with SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

fn topic_default() -> String {
    "weir.audit".to_owned()
}
fn message_timeout_ms_default() -> u64 {
    30_000
}
fn buffer_kbytes_default() -> u32 {
    65_536
}

impl KafkaSettings {
    /// The defaults for these brokers, in plain text.
    pub fn new(brokers: Vec<String>, topic: impl Into<String>) -> Self {
        Self {
            brokers,
            topic: topic.into(),
            tls: None,
            sasl: None,
            message_timeout_ms: message_timeout_ms_default(),
            buffer_kbytes: buffer_kbytes_default(),
        }
    }
}

/// Why a producer cannot be made. Brokers that are away are no such reason.
#[derive(Debug, thiserror::Error)]
pub enum KafkaSinkError {
    /// The settings contradict themselves.
    #[error("kafka settings: {0}")]
    Settings(&'static str),
    /// This build's librdkafka lacks something.
    #[error("this build's librdkafka lacks `{0}`")]
    Feature(String),
    /// librdkafka refuses the settings.
    #[error("kafka producer: {0}")]
    Producer(#[source] KafkaError),
}

/// The sink.
pub struct KafkaSink {
    config: ClientConfig,
    producer: FutureProducer,
    topic: String,
    patience: Duration,
}

impl std::fmt::Debug for KafkaSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaSink").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl KafkaSink {
    /// A producer, which connects when there is something to send.
    ///
    /// # Errors
    /// When the settings contradict themselves or this build cannot do what they want.
    pub fn new(settings: &KafkaSettings) -> Result<Self, KafkaSinkError> {
        let config = config(settings)?;
        assert_features(settings, &config)?;
        let producer = config.create().map_err(KafkaSinkError::Producer)?;
        Ok(Self {
            config,
            producer,
            topic: settings.topic.clone(),
            patience: Duration::from_millis(settings.message_timeout_ms),
        })
    }

    /// Queues one record; `None` when that failed for good.
    async fn send(&self, record: &Record, give_up: tokio::time::Instant) -> Sent {
        let key = record.key();
        let uid = record.uid();
        loop {
            let header = Header { key: EVENT_ID_HEADER, value: Some(uid.as_str()) };
            let message = FutureRecord::to(&self.topic)
                .key(key)
                .payload(record.bytes().as_ref())
                .headers(OwnedHeaders::new_with_capacity(1).insert(header));
            match self.producer.send_result(message) {
                Ok(delivery) => return Sent::Queued(delivery),
                Err((error, _)) => {
                    let full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
                    if !full || tokio::time::Instant::now() >= give_up {
                        return Sent::Refused(error);
                    }
                }
            }
            tokio::time::sleep(QUEUE_FULL_WAIT).await;
        }
    }

    /// A producer that met a fatal error sends nothing any more.
    fn replace_if_fatal(&mut self) {
        let Some((code, reason)) = self.producer.client().fatal_error() else { return };
        tracing::error!(?code, reason, "kafka producer broke for good; making a new one");
        match self.config.create() {
            Ok(producer) => self.producer = producer,
            Err(error) => tracing::error!(%error, "no new kafka producer"),
        }
    }
}

enum Sent {
    Queued(DeliveryFuture),
    Refused(KafkaError),
}

#[async_trait]
impl Sink for KafkaSink {
    fn name(&self) -> &'static str {
        "kafka"
    }

    async fn write(&mut self, batch: &[Record]) -> Result<(), SinkError> {
        let give_up = tokio::time::Instant::now() + self.patience;
        let mut sent = Vec::with_capacity(batch.len());
        for record in batch {
            sent.push(self.send(record, give_up).await);
        }
        let (mut failed, mut message) = (Vec::new(), String::new());
        for (index, sent) in sent.into_iter().enumerate() {
            let problem = match sent {
                Sent::Refused(error) => error.to_string(),
                Sent::Queued(delivery) => match delivery.await {
                    Ok(Ok(_)) => continue,
                    Ok(Err((error, _))) => error.to_string(),
                    Err(_) => "the producer dropped the record".to_owned(),
                },
            };
            failed.push(index);
            if message.is_empty() {
                message = problem;
            }
        }
        if failed.is_empty() {
            return Ok(());
        }
        self.replace_if_fatal();
        Err(SinkError { failed, rewound: false, message })
    }

    fn flush(&mut self) -> BoxFuture<'static, Result<(), SinkError>> {
        // A write has waited for every delivery report.
        std::future::ready(Ok(())).boxed()
    }
}

fn config(settings: &KafkaSettings) -> Result<ClientConfig, KafkaSinkError> {
    let mut config = client(settings)?;
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("compression.type", "zstd")
        .set("linger.ms", "5")
        // The partition of a key is where Java's clients look for it.
        .set("partitioner", "murmur2_random")
        .set("message.timeout.ms", settings.message_timeout_ms.to_string())
        .set("queue.buffering.max.kbytes", settings.buffer_kbytes.to_string());
    Ok(config)
}

/// What producers and consumers need to get in.
pub(crate) fn client(settings: &KafkaSettings) -> Result<ClientConfig, KafkaSinkError> {
    if settings.brokers.is_empty() {
        return Err(KafkaSinkError::Settings("`brokers` must name at least one broker"));
    }
    if settings.topic.is_empty() {
        return Err(KafkaSinkError::Settings("`topic` must not be empty"));
    }
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", settings.brokers.join(","))
        .set("client.id", "weir")
        .set("log.connection.close", "false");
    let protocol = match (&settings.tls, &settings.sasl) {
        (None, None) => "plaintext",
        (Some(_), None) => "ssl",
        (None, Some(_)) => "sasl_plaintext",
        (Some(_), Some(_)) => "sasl_ssl",
    };
    config.set("security.protocol", protocol);
    if let Some(tls) = &settings.tls {
        let mut path = |key: &str, path: &Option<PathBuf>| {
            if let Some(path) = path {
                config.set(key, path.display().to_string());
            }
        };
        path("ssl.ca.location", &tls.ca);
        path("ssl.certificate.location", &tls.certificate);
        path("ssl.key.location", &tls.key);
    }
    if let Some(sasl) = &settings.sasl {
        let mechanism = match sasl.mechanism {
            Mechanism::Plain if settings.tls.is_none() => {
                return Err(KafkaSinkError::Settings("SASL PLAIN shows the password: set `tls`"));
            }
            Mechanism::Plain => "PLAIN",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha512 => "SCRAM-SHA-512",
        };
        config
            .set("sasl.mechanism", mechanism)
            .set("sasl.username", &sasl.username)
            .set("sasl.password", sasl.password.reveal());
    }
    Ok(config)
}

/// Refuses to start with a librdkafka that would drop what the settings ask for.
fn assert_features(settings: &KafkaSettings, config: &ClientConfig) -> Result<(), KafkaSinkError> {
    let native = config.create_native_config().map_err(KafkaSinkError::Producer)?;
    let built = native.get("builtin.features").map_err(KafkaSinkError::Producer)?;
    let built: Vec<&str> = built.split(',').map(str::trim).collect();
    let mut needed = FEATURES_ALWAYS.to_vec();
    needed.extend(settings.tls.iter().map(|_| "ssl"));
    needed.extend(settings.sasl.iter().map(|sasl| match sasl.mechanism {
        Mechanism::Plain => "sasl_plain",
        Mechanism::ScramSha256 | Mechanism::ScramSha512 => "sasl_scram",
    }));
    match needed.into_iter().find(|feature| !built.contains(feature)) {
        Some(missing) => Err(KafkaSinkError::Feature(missing.to_owned())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> KafkaSettings {
        KafkaSettings::new(vec!["127.0.0.1:9".to_owned()], "t")
    }

    fn sasl(mechanism: Mechanism) -> Option<KafkaSasl> {
        let password = Masked::new("hunter2".to_owned());
        Some(KafkaSasl { mechanism, username: "weir".to_owned(), password })
    }

    #[test]
    fn settings_that_contradict_themselves_are_refused() {
        let plain = KafkaSettings { sasl: sasl(Mechanism::Plain), ..settings() };
        for bad in [
            KafkaSettings { brokers: vec![], ..settings() },
            KafkaSettings { topic: String::new(), ..settings() },
            plain.clone(),
        ] {
            assert!(matches!(KafkaSink::new(&bad), Err(KafkaSinkError::Settings(_))), "{bad:?}");
        }
        assert!(!format!("{plain:?}").contains("hunter2"));
        assert!(!serde_json::to_string(&plain).unwrap().contains("hunter2"));
    }

    #[test]
    fn this_build_can_do_everything_that_settings_may_ask_for() {
        let tls = Some(KafkaTls::default());
        for mechanism in [Mechanism::Plain, Mechanism::ScramSha256, Mechanism::ScramSha512] {
            let settings = KafkaSettings { tls: tls.clone(), sasl: sasl(mechanism), ..settings() };
            KafkaSink::new(&settings).unwrap();
        }
    }

    #[test]
    fn settings_read_as_documented() {
        let yaml = "brokers: [a:9092, b:9092]\ntls: { ca: /ca.pem }\nsasl: { mechanism: \
                    SCRAM-SHA-512, username: weir, password: x }\n";
        let read: KafkaSettings = serde_json::from_value(
            weir_runtime::settings::load::<serde_json::Value>(
                Some(write(yaml).path()),
                "X",
                std::iter::empty(),
            )
            .unwrap(),
        )
        .unwrap();
        assert_eq!((read.topic.as_str(), read.message_timeout_ms), ("weir.audit", 30_000));
        assert_eq!(read.sasl.unwrap().mechanism, Mechanism::ScramSha512);
    }

    fn write(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }
}
