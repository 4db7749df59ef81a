//! The contract suite against a real broker, whose address is in `WEIR_TEST_KAFKA`.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use weir_audit::consume::{self, ConsumeError, From};
use weir_audit::contract::{Bench, delivers_in_order, drains_and_reopens, retries_after_failure};
use weir_audit::kafka::{
    EVENT_ID_HEADER, KafkaSasl, KafkaSettings, KafkaSink, KafkaTls, Mechanism, NO_GROUP_KEY,
};
use weir_audit::line::{self, Line};
use weir_audit::spool::{Spool, SpoolSettings};
use weir_audit::verify::{Order, Report, Trust, Verification};
use weir_audit::{Builder, Origin, Pipeline, Sink, read};
use weir_model::audit::{Facts, Outcome};
use weir_model::resource::AuditClass;
use weir_runtime::clock::SystemClock;
use weir_runtime::metrics::Metrics;
use weir_runtime::settings::Masked;
use weir_runtime::testing::eventually;

const WAIT: Duration = Duration::from_secs(30);
const PARTITIONS: i32 = 3;

/// The broker's address. Without one the test is left out, loudly; where real components are
/// demanded that is a failure.
fn broker(test: &str) -> Option<String> {
    let broker = std::env::var("WEIR_TEST_KAFKA").ok().filter(|address| !address.is_empty());
    if broker.is_none() {
        let demanded =
            std::env::var("WEIR_REQUIRE_REAL").is_ok_and(|value| !matches!(&*value, "" | "0"));
        assert!(!demanded, "WEIR_REQUIRE_REAL is set but WEIR_TEST_KAFKA names no broker");
        eprintln!("LEFT OUT: {test} needs a Kafka broker in WEIR_TEST_KAFKA");
    }
    broker
}

struct Topic {
    broker: String,
    name: String,
    admin: AdminClient<DefaultClientContext>,
}

impl Topic {
    async fn create(broker: String) -> Self {
        let name = format!("weir-test-{}", uuid::Uuid::new_v4().simple());
        let config: ClientConfig = [("bootstrap.servers", broker.as_str())]
            .map(|(k, v)| (k.into(), v.into()))
            .into_iter()
            .collect();
        let admin: AdminClient<_> = config.create().unwrap();
        let topic = NewTopic::new(&name, PARTITIONS, TopicReplication::Fixed(1));
        admin.create_topics([&topic], &options()).await.unwrap().remove(0).unwrap();
        let made = Self { broker, name, admin };
        // The broker says that it is made before it tells others of it.
        let settings = made.settings();
        let known = async || consume::Consumer::open(&settings, From::Beginning).is_ok();
        assert!(eventually(WAIT, known).await, "no topic {}", made.name);
        made
    }

    fn settings(&self) -> KafkaSettings {
        let mut settings = KafkaSettings::new(vec![self.broker.clone()], &self.name);
        settings.message_timeout_ms = 5_000;
        settings
    }

    async fn largest_message(&self, bytes: &str) {
        let config =
            AlterConfig::new(ResourceSpecifier::Topic(&self.name)).set("max.message.bytes", bytes);
        self.admin.alter_configs([&config], &options()).await.unwrap().remove(0).unwrap();
    }

    /// Writes lines by hand.
    async fn forge(&self, lines: &[Numbered]) {
        let producer: FutureProducer =
            ClientConfig::new().set("bootstrap.servers", &self.broker).create().unwrap();
        for (number, line) in lines {
            let key = number.unwrap_or(0).to_string();
            let record = FutureRecord::to(&self.name).key(&key).payload(line);
            producer.send(record, WAIT).await.unwrap();
        }
    }

    /// Key, event id and payload of every record, partition after partition.
    fn consume(&self) -> Vec<(String, String, Vec<u8>)> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.broker)
            .set("group.id", &self.name)
            .set("enable.auto.commit", "false")
            .create()
            .unwrap();
        let (mut assignment, mut left) = (TopicPartitionList::new(), 0);
        for partition in 0..PARTITIONS {
            let (low, high) = consumer.fetch_watermarks(&self.name, partition, WAIT).unwrap();
            assignment.add_partition_offset(&self.name, partition, Offset::Beginning).unwrap();
            left += high - low;
        }
        consumer.assign(&assignment).unwrap();
        let mut partitions = vec![Vec::new(); PARTITIONS as usize];
        for _ in 0..left {
            let message = consumer.poll(WAIT).expect("as many as the watermarks say").unwrap();
            let header = message.headers().unwrap().get(0);
            assert_eq!(header.key, EVENT_ID_HEADER);
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            partitions[message.partition() as usize].push((
                text(message.key().unwrap()),
                text(header.value.unwrap()),
                message.payload().unwrap().to_vec(),
            ));
        }
        partitions.concat()
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(WAIT)).operation_timeout(Some(WAIT))
}

#[async_trait]
impl Bench for Topic {
    async fn open(&self) -> Box<dyn Sink> {
        Box::new(KafkaSink::new(&self.settings()).unwrap())
    }
    async fn seen(&self) -> Vec<Vec<u8>> {
        self.consume().into_iter().map(|(_, _, payload)| payload).collect()
    }
    async fn break_down(&self) {
        self.largest_message("16").await;
    }
    async fn mend(&self) {
        self.largest_message("1048588").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_delivers_in_order() {
    let Some(broker) = broker("kafka_delivers_in_order") else { return };
    delivers_in_order(&Topic::create(broker).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_retries_after_failure() {
    let Some(broker) = broker("kafka_retries_after_failure") else { return };
    retries_after_failure(&Topic::create(broker).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_drains_and_reopens() {
    let Some(broker) = broker("kafka_drains_and_reopens") else { return };
    drains_and_reopens(&Topic::create(broker).await).await;
}

fn facts(group: Option<&str>) -> Facts {
    let group = group.map(|group| group.parse().unwrap());
    Facts { group, outcome: Outcome::Success, ..Facts::default() }
}

/// A pipeline on a spool of 200 kB that is drained into `sink`.
fn spooled(origin: Origin, dir: &Path, sink: Box<dyn Sink>, metrics: &Metrics) -> Pipeline {
    let key_file = dir.join("key");
    let settings = SpoolSettings { spool_bytes: 200_000, key_file, ..SpoolSettings::new(dir) };
    let spool = Spool::open(settings).unwrap();
    let drain = spool.handle().drain(sink, SystemClock::shared()).unwrap();
    Builder::spooled(origin, spool, metrics.clone()).drain(drain).start()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_topic_says_what_the_file_says() {
    let Some(broker) = broker("the_topic_says_what_the_file_says") else { return };
    let (topic, dir) = (Topic::create(broker).await, tempfile::tempdir().unwrap());
    let origin = Origin { node: "node-1".into(), region: "eu".into() };
    let pipeline = spooled(origin, dir.path(), topic.open().await, &Metrics::new());
    for n in 0..200 {
        let group = [Some("dev"), Some("prod"), None][n % 3];
        pipeline.reserve(AuditClass::Durable).unwrap().finish(facts(group)).await.unwrap();
    }
    assert_eq!(pipeline.close(WAIT).await, []);
    let (mut consumed, sealed): (Vec<_>, Vec<_>) = topic
        .consume()
        .into_iter()
        .partition(|(_, _, payload)| matches!(line::parse(payload).unwrap(), Line::Record(_)));
    let (key, uid, _) = sealed.last().expect("a checkpoint ends the epoch");
    assert_eq!((key.as_str(), uid.rsplit('/').next()), ("node-1", Some("end-200")));
    for (key, uid, payload) in &consumed {
        let json: serde_json::Value = serde_json::from_slice(payload).unwrap();
        assert_eq!(json["metadata"]["uid"], uid.as_str());
        assert_eq!(json["metadata"]["tenant_uid"].as_str().unwrap_or(NO_GROUP_KEY), key);
    }
    let sequence = |uid: &str| uid.rsplit('/').next().unwrap().parse::<u64>().unwrap();
    consumed.sort_by_key(|(_, uid, _)| sequence(uid));
    let filed: Vec<Vec<u8>> =
        read::entries(dir.path()).unwrap().map(|entry| entry.unwrap().line).collect();
    assert_eq!(consumed.into_iter().map(|(_, _, p)| p).collect::<Vec<_>>(), filed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_send_queue_slows_down_and_loses_nothing() {
    let Some(broker) = broker("a_full_send_queue_slows_down_and_loses_nothing") else { return };
    let (topic, metrics) = (Topic::create(broker).await, Metrics::new());
    let mut settings = topic.settings();
    // Room for a handful of records, of which one write brings hundreds.
    settings.buffer_kbytes = 6;
    let origin = Origin { node: "node-1".into(), region: "eu".into() };
    let sink = KafkaSink::new(&settings).unwrap();
    let pipeline = Builder::new(origin, Box::new(sink), metrics.clone()).start();
    let counted = || Facts { class: AuditClass::Counted, ..facts(Some("dev")) };
    for _ in 0..400 {
        pipeline.reserve(AuditClass::Counted).unwrap().finish(counted()).await.unwrap();
    }
    assert_eq!(pipeline.close(WAIT).await, []);
    let uids: Vec<String> = topic.consume().into_iter().map(|(_, uid, _)| uid).collect();
    let expect: Vec<String> =
        (1..=400).map(|n| format!("node-1/{}/{n}", pipeline.epoch())).collect();
    assert_eq!(uids, expect);
    assert!(metrics.render().contains("weir_audit_failed_writes_total{sink=\"kafka\"} 0\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_that_are_away_bound_the_backlog_and_lose_nothing_promised() {
    // Nobody listens on the discard port: a broker that is away needs no broker.
    let dir = tempfile::tempdir().unwrap();
    let mut settings = KafkaSettings::new(vec!["127.0.0.1:9".into()], "weir.audit");
    settings.message_timeout_ms = 500;
    let metrics = Metrics::new();
    let origin = Origin { node: "node-1".into(), region: "eu".into() };
    let sink = Box::new(KafkaSink::new(&settings).unwrap());
    let pipeline = spooled(origin, dir.path(), sink, &metrics);
    let mut kept = 0;
    while let Ok(slot) = pipeline.reserve(AuditClass::Durable) {
        slot.finish(facts(Some("dev"))).await.unwrap();
        kept += 1;
    }
    assert!(kept > 50, "the spool keeps promises until it is full: {kept}");
    for _ in 0..7 {
        let slot = pipeline.reserve(AuditClass::Counted).unwrap();
        let counted = Facts { class: AuditClass::Counted, ..facts(Some("dev")) };
        slot.finish(counted).await.unwrap();
    }
    assert_eq!(pipeline.lost(), 7);
    let failed = eventually(WAIT, async || {
        metrics.render().lines().any(|line| {
            line.strip_prefix("weir_audit_failed_writes_total{sink=\"kafka\"} ")
                .is_some_and(|count| count != "0")
        })
    });
    assert!(failed.await, "failures show");
    assert!(!pipeline.is_failing(), "the stream's health breaks no promise");
    let left = pipeline.close(Duration::from_millis(300)).await;
    assert_eq!(left.iter().map(|l| (l.sink, l.records)).collect::<Vec<_>>(), [("kafka", kept)]);
    assert_eq!(read::entries(dir.path()).unwrap().count() as u64, kept);
}

/// What a verification says of the whole topic.
fn verified(settings: &KafkaSettings, trust: Trust) -> Report {
    let mut verification = Verification::new(Order::Any, trust);
    let mut consumer = consume::Consumer::open(settings, From::Beginning).unwrap();
    let taken: Result<(), ConsumeError> = consumer.up_to_now(|seen| {
        verification.line_of(seen.cut.then_some(seen.partition), seen.bytes, &seen);
        Ok(())
    });
    taken.unwrap();
    verification.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_is_verified_and_the_backlog_comes_after_a_restart() {
    let Some(broker) = broker("a_topic_is_verified_and_the_backlog_comes_after_a_restart") else {
        return;
    };
    let (topic, dir) = (Topic::create(broker).await, tempfile::tempdir().unwrap());
    let origin = || Origin { node: "node-1".into(), region: "eu".into() };
    // Nobody takes anything of the first run.
    topic.break_down().await;
    let pipeline = spooled(origin(), dir.path(), topic.open().await, &Metrics::new());
    for _ in 0..30 {
        pipeline.reserve(AuditClass::Strict).unwrap().finish(facts(Some("dev"))).await.unwrap();
    }
    let left = pipeline.close(Duration::from_millis(300)).await;
    assert_eq!(left.iter().map(|l| (l.sink, l.records)).collect::<Vec<_>>(), [("kafka", 30)]);
    topic.mend().await;
    let pipeline = spooled(origin(), dir.path(), topic.open().await, &Metrics::new());
    for _ in 0..30 {
        pipeline.reserve(AuditClass::Durable).unwrap().finish(facts(Some("prod"))).await.unwrap();
    }
    assert_eq!(pipeline.close(WAIT).await, []);
    let settings = topic.settings();
    let report = tokio::task::spawn_blocking(move || verified(&settings, Trust::default()));
    let report = report.await.unwrap();
    assert!(report.is_good(), "{report:#?}");
    let epochs: Vec<_> = report.epochs.iter().map(|e| (e.records, e.signed, e.ended)).collect();
    assert_eq!(epochs, [((1, 30), 30, true); 2]);
}

/// A line of a log, with the number of the record that it is.
type Numbered = (Option<u64>, Vec<u8>);

/// What is done to a log, and the first record that is then named.
type Tamper = (&'static str, fn(&mut Vec<Numbered>), Option<u64>);

fn at(lines: &[Numbered], number: u64) -> usize {
    lines.iter().position(|(n, _)| *n == Some(number)).unwrap()
}

fn changed(line: &[u8]) -> Vec<u8> {
    String::from_utf8(line.to_vec()).unwrap().replacen("success", "failure", 1).into_bytes()
}

/// Whoever may write to the topic can write anything; what it says is found out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_was_tampered_with_names_the_first_record_where_it_was() {
    let test = "a_topic_that_was_tampered_with_names_the_first_record_where_it_was";
    let Some(broker) = broker(test) else { return };
    let dir = tempfile::tempdir().unwrap();
    let pipeline = crate::disk::start(crate::disk::settings(dir.path())).await;
    for n in 1..=12 {
        let request_id = format!("request {n}");
        let facts = Facts { request_id, outcome: Outcome::Success, ..facts(Some("dev")) };
        pipeline.reserve(AuditClass::Durable).unwrap().finish(facts).await.unwrap();
    }
    crate::disk::close(&pipeline).await;
    let content = crate::disk::content(dir.path());
    let newest = content.sealed.last().unwrap().note.clone();
    let records = content.records.into_iter().zip(1..).map(|(line, n)| (Some(n), line));
    let sealed = content.sealed.iter().map(|sealed| (None, sealed.render().into_bytes()));
    let whole: Vec<Numbered> = records.chain(sealed).collect();
    let cases: [Tamper; 7] = [
        ("nothing", |_| (), None),
        ("removed", |all| drop(all.remove(at(all, 5))), Some(5)),
        (
            "changed",
            |all| {
                let at = at(all, 7);
                all[at].1 = changed(&all[at].1);
            },
            Some(7),
        ),
        (
            "contents swapped",
            |all| {
                let (one, two) = (at(all, 3), at(all, 4));
                let named = |line: &[u8], from: &str, to: &str| {
                    String::from_utf8(line.to_vec()).unwrap().replace(from, to).into_bytes()
                };
                let third = named(&all[one].1, "/3\",\"sequence\":3,", "/4\",\"sequence\":4,");
                let fourth = named(&all[two].1, "/4\",\"sequence\":4,", "/3\",\"sequence\":3,");
                (all[one].1, all[two].1) = (fourth, third);
            },
            Some(3),
        ),
        (
            "inserted",
            |all| {
                let at = at(all, 9);
                let forged = changed(&all[at].1);
                all.insert(at, (None, forged));
            },
            Some(9),
        ),
        // At least once is what a topic promises.
        ("doubled", |all| all.push(all[at(all, 2)].clone()), None),
        (
            "end cut, with what was signed for it",
            |all| {
                all.retain(|(number, _)| number.is_some_and(|number| number <= 10));
            },
            Some(11),
        ),
    ];
    for (what, tamper, named) in cases {
        let topic = Topic::create(broker.clone()).await;
        let mut lines = whole.clone();
        tamper(&mut lines);
        topic.forge(&lines).await;
        let (settings, witnessed) = (topic.settings(), vec![newest.clone()]);
        let trust = Trust { witnessed, ..Trust::default() };
        let report = tokio::task::spawn_blocking(move || verified(&settings, trust));
        let report = report.await.unwrap();
        let first = report.findings.first().map(|finding| finding.at.2);
        assert_eq!(first, named, "{what}: {report:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scram_over_tls_lets_in_who_knows_the_password() {
    let test = "scram_over_tls_lets_in_who_knows_the_password";
    let Some(plain) = broker(test) else { return };
    let secured = (std::env::var("WEIR_TEST_KAFKA_SECURED"), std::env::var("WEIR_TEST_KAFKA_CA"));
    let (Ok(address), Ok(ca)) = secured else {
        eprintln!("LEFT OUT: {test} needs WEIR_TEST_KAFKA_SECURED and WEIR_TEST_KAFKA_CA");
        return;
    };
    let (topic, dir) = (Topic::create(plain).await, tempfile::tempdir().unwrap());
    let with = |password: &str, ca: Option<std::path::PathBuf>| {
        let mut settings = topic.settings();
        settings.brokers = vec![address.clone()];
        settings.message_timeout_ms = 3_000;
        settings.tls = Some(KafkaTls { ca, ..KafkaTls::default() });
        settings.sasl = Some(KafkaSasl {
            mechanism: Mechanism::ScramSha512,
            username: "weir".to_owned(),
            password: Masked::new(password.to_owned()),
        });
        settings
    };
    let ca = Some(std::path::PathBuf::from(ca));
    let good = with("a-password-for-tests", ca.clone());
    let origin = || Origin { node: "node-1".into(), region: "eu".into() };
    // Neither a wrong password nor an unknown authority gets a record through, and none is lost.
    for bad in [with("another", ca), with("a-password-for-tests", None)] {
        let sink = Box::new(KafkaSink::new(&bad).unwrap());
        let pipeline = spooled(origin(), dir.path(), sink, &Metrics::new());
        pipeline.reserve(AuditClass::Durable).unwrap().finish(facts(Some("dev"))).await.unwrap();
        let left = pipeline.close(Duration::from_secs(2)).await;
        assert_eq!(left.len(), 1, "{left:?}");
    }
    assert!(topic.consume().is_empty());
    let sink = Box::new(KafkaSink::new(&good).unwrap());
    let pipeline = spooled(origin(), dir.path(), sink, &Metrics::new());
    pipeline.reserve(AuditClass::Durable).unwrap().finish(facts(Some("dev"))).await.unwrap();
    assert_eq!(pipeline.close(WAIT).await, []);
    let report =
        tokio::task::spawn_blocking(move || verified(&good, Trust::default())).await.unwrap();
    assert!(report.is_good() && report.epochs.len() == 3, "{report:#?}");
}

/// What a verification says of the topic from here on, as a tail gives it in so many milliseconds.
fn tailed(settings: &KafkaSettings, from: From, ms: u64) -> Report {
    let mut verification = Verification::new(Order::Any, Trust::default());
    let mut consumer = consume::Consumer::open(settings, from).unwrap();
    let mut each = |seen: consume::Seen<'_>| {
        // As through a pipe, which does not tell partitions apart.
        verification.line(seen.bytes, &seen);
        Ok::<(), ConsumeError>(())
    };
    consumer.up_to_now(&mut each).unwrap();
    let end = std::time::Instant::now() + Duration::from_millis(ms);
    while std::time::Instant::now() < end {
        consumer.poll(Duration::from_millis(20), &mut each).unwrap();
    }
    verification.finish()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_topic_is_good_at_every_moment_while_records_flow() {
    let test = "a_topic_is_good_at_every_moment_while_records_flow";
    let Some(broker) = broker(test) else { return };
    let (topic, dir) = (Topic::create(broker).await, tempfile::tempdir().unwrap());
    let spool = Spool::open(SpoolSettings::new(dir.path().join("audit"))).unwrap();
    let drain = spool.handle().drain(topic.open().await, SystemClock::shared()).unwrap();
    let origin = Origin { node: "node-1".into(), region: "eu".into() };
    // Checkpoints so often that one is on its way at most moments.
    let pipeline = Builder::spooled(origin, spool, Metrics::new())
        .checkpoint_every(Duration::from_millis(50))
        .drain(drain)
        .start();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let writing = {
        let pipeline = pipeline.clone();
        tokio::spawn(async move {
            let mut written = 0;
            // At a rate that brokers keep up with.
            let mut pace = tokio::time::interval(Duration::from_millis(2));
            while !*stopped.borrow() {
                pace.tick().await;
                // Three groups: three partitions, and a fourth key for the checkpoints.
                let group = [Some("dev"), Some("prod"), Some("payments")][written % 3];
                pipeline.reserve(AuditClass::Durable).unwrap().finish(facts(group)).await.unwrap();
                written += 1;
            }
            written
        })
    };
    for look in 0..12 {
        let settings = topic.settings();
        let report = tokio::task::spawn_blocking(move || match look % 3 {
            0 => verified(&settings, Trust::default()),
            1 => tailed(&settings, From::Beginning, 40),
            _ => tailed(&settings, From::NewestTogether(40), 40),
        });
        let report = report.await.unwrap();
        assert!(report.is_good(), "look {look}: {report:#?}");
    }
    stop.send_replace(true);
    assert!(writing.await.unwrap() > 0);
    assert_eq!(pipeline.close(WAIT).await, []);
    let settings = topic.settings();
    let report =
        tokio::task::spawn_blocking(move || verified(&settings, Trust::default())).await.unwrap();
    assert!(report.is_good() && report.epochs[0].ended, "{report:#?}");
}
