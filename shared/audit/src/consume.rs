//! Reads the topic, for people: all of it up to now, the newest, or as it comes.
//!
//! No consumer group is joined and nothing is committed: looking leaves no trace.

use std::time::{Duration, Instant};

use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::kafka::{KafkaSettings, KafkaSinkError, client};

/// How long brokers may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// With the oldest message.
    Beginning,
    /// With so many of the newest of each partition.
    Newest(u64),
    /// With the first message written at this time, in milliseconds since the epoch.
    Time(u64),
}

/// Why the topic cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ConsumeError {
    /// The settings.
    #[error(transparent)]
    Settings(#[from] KafkaSinkError),
    /// The brokers.
    #[error("kafka topic `{topic}`: {error}")]
    Kafka {
        /// The topic.
        topic: String,
        /// Why.
        error: KafkaError,
    },
    /// There is no such topic.
    #[error("kafka has no topic `{0}`")]
    NoTopic(String),
    /// The brokers stopped sending before the end.
    #[error("kafka topic `{0}`: nothing more came, and this was not the end")]
    Stalled(String),
}

/// One message.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// Its partition.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// The partition has lost its beginning: retention does that to each by itself.
    pub cut: bool,
}

impl std::fmt::Display for Seen<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "partition {}, offset {}", self.partition, self.offset)
    }
}

/// A reader of one topic.
pub struct Consumer {
    consumer: BaseConsumer,
    topic: String,
    /// Per partition: the next offset, and the end at the time of opening.
    left: Vec<(i32, i64, i64)>,
    /// Partitions of which the oldest messages are gone.
    cut: Vec<i32>,
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl Consumer {
    /// Connects and finds out where the topic begins and ends now.
    ///
    /// # Errors
    /// When the settings are wrong, the brokers do not answer, or there is no such topic.
    pub fn open(settings: &KafkaSettings, from: From) -> Result<Self, ConsumeError> {
        let topic = settings.topic.clone();
        let failed = |error| ConsumeError::Kafka { topic: topic.clone(), error };
        let mut config = client(settings)?;
        config.set("group.id", "weir-audit-reader").set("enable.auto.commit", "false");
        let consumer: BaseConsumer = config.create().map_err(failed)?;
        let known = consumer.fetch_metadata(Some(&topic), PATIENCE).map_err(failed)?;
        let partitions = known.topics().iter().flat_map(|topic| topic.partitions());
        let partitions: Vec<i32> = partitions.map(|partition| partition.id()).collect();
        if partitions.is_empty() {
            return Err(ConsumeError::NoTopic(topic));
        }
        let (mut left, mut cut) = (Vec::new(), Vec::new());
        for partition in partitions {
            let (low, high) =
                consumer.fetch_watermarks(&topic, partition, PATIENCE).map_err(failed)?;
            if low > 0 || from != From::Beginning {
                cut.push(partition);
            }
            let begin = match from {
                From::Beginning | From::Time(_) => low,
                From::Newest(count) => {
                    low.max(high.saturating_sub(i64::try_from(count).unwrap_or(i64::MAX)))
                }
            };
            left.push((partition, begin, high));
        }
        if let From::Time(ms) = from {
            let mut asked = TopicPartitionList::new();
            for (partition, ..) in &left {
                let at = Offset::Offset(i64::try_from(ms).unwrap_or(i64::MAX));
                asked.add_partition_offset(&topic, *partition, at).map_err(failed)?;
            }
            let found = consumer.offsets_for_times(asked, PATIENCE).map_err(failed)?;
            for (partition, begin, high) in &mut left {
                let found = found.find_partition(&topic, *partition).map(|found| found.offset());
                *begin = match found {
                    Some(Offset::Offset(offset)) => offset,
                    _ => *high,
                };
            }
        }
        let mut assigned = TopicPartitionList::new();
        for (partition, begin, _) in &left {
            let at = Offset::Offset(*begin);
            assigned.add_partition_offset(&topic, *partition, at).map_err(failed)?;
        }
        consumer.assign(&assigned).map_err(failed)?;
        Ok(Self { consumer, topic, left, cut })
    }

    fn is_done(&self) -> bool {
        self.left.iter().all(|(_, next, high)| next >= high)
    }

    /// Every message up to the end as it was when the topic was opened.
    ///
    /// # Errors
    /// When the brokers do not give all of it, or `each` says so.
    pub fn up_to_now<E: std::convert::From<ConsumeError>>(
        &mut self,
        mut each: impl FnMut(Seen<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut last = Instant::now();
        while !self.is_done() {
            match self.poll(Duration::from_millis(500), &mut each)? {
                true => last = Instant::now(),
                false if last.elapsed() > PATIENCE => {
                    return Err(ConsumeError::Stalled(self.topic.clone()).into());
                }
                false => {}
            }
        }
        Ok(())
    }

    /// The next message within this time; false when none came.
    ///
    /// # Errors
    /// As above.
    pub fn poll<E: std::convert::From<ConsumeError>>(
        &mut self,
        wait: Duration,
        mut each: impl FnMut(Seen<'_>) -> Result<(), E>,
    ) -> Result<bool, E> {
        let Some(message) = self.consumer.poll(wait) else { return Ok(false) };
        let failed = |error| ConsumeError::Kafka { topic: self.topic.clone(), error };
        let message = message.map_err(failed)?;
        let (partition, offset) = (message.partition(), message.offset());
        if let Some((_, next, _)) = self.left.iter_mut().find(|(p, ..)| *p == partition) {
            *next = offset + 1;
        }
        let cut = self.cut.contains(&partition);
        each(Seen { bytes: message.payload().unwrap_or_default(), partition, offset, cut })?;
        Ok(true)
    }
}
