//! Reads the topic, for people: all of it up to now, the newest, or as it comes.
//!
//! No consumer group is joined and nothing is committed: looking leaves no trace.
//!
//! A checkpoint stands in another partition than the records that it signs for. They were taken by
//! the brokers before it was sent, so they are there when it is; but whoever reads partitions one
//! beside the other may meet it first. Here it comes after them, always: what was given so far can
//! be verified at any moment.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::Message as _;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::kafka::{KafkaSettings, KafkaSinkError, client};
use crate::line::{self, Line};

/// How long brokers may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long they may take to say how far a partition has come, while others are read.
const END_PATIENCE: Duration = Duration::from_secs(2);
/// How often they are asked.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// Events that may have come while brokers were tried.
const EVENTS_MAX: usize = 100;
/// Checkpoints that wait for their records; more are given without.
const HELD_MAX: usize = 10_000;

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// With the oldest message.
    Beginning,
    /// With so many of the newest of each partition.
    Newest(u64),
    /// With so many of the newest of one partition, and in the others with what was written since
    /// the first of them: nothing is left out from there on.
    NewestTogether(u64),
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
    /// The brokers cannot be reached, or do not let us in.
    #[error("kafka topic `{topic}`: {error}: {told}")]
    Unreached {
        /// The topic.
        topic: String,
        /// What failed.
        error: KafkaError,
        /// What the client said of it last: a wrong password is told here.
        told: String,
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

/// How far one partition is read.
#[derive(Debug, Clone, Copy)]
struct Partition {
    number: i32,
    /// The next offset.
    next: i64,
    /// The end at the time of opening: the first look, and a second after all of the first. What a
    /// checkpoint before the first end signs for is before the second, in every partition.
    ends: (i64, i64),
    /// The oldest messages are gone, or left out.
    cut: bool,
}

/// A checkpoint whose records may not have been given yet.
#[derive(Debug)]
struct Held {
    bytes: Vec<u8>,
    partition: i32,
    offset: i64,
    /// How far partitions had come when it was seen, once that is known.
    behind: Option<Vec<(i32, i64)>>,
}

/// What the client said last of what is wrong.
#[derive(Default)]
struct Told(Mutex<Option<String>>);

impl ClientContext for Told {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka");
        // That all are down follows from the reason before it, which says more.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            *self.0.lock() = Some(reason.to_owned());
        }
    }
}

impl ConsumerContext for Told {}

/// A reader of one topic.
pub struct Consumer {
    consumer: BaseConsumer<Told>,
    topic: String,
    partitions: Vec<Partition>,
    held: VecDeque<Held>,
    asked: Option<Instant>,
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
        config
            .set("group.id", "weir-audit-reader")
            .set("enable.auto.commit", "false")
            // What is given twice does no harm.
            .set("auto.offset.reset", "earliest");
        let consumer: BaseConsumer<Told> =
            config.create_with_context(Told::default()).map_err(failed)?;
        let known = consumer.fetch_metadata(Some(&topic), PATIENCE);
        let known = known.map_err(|error| unreached(&consumer, &topic, error))?;
        let known = known.topics().iter().flat_map(|topic| topic.partitions());
        let known: Vec<i32> = known.map(|partition| partition.id()).collect();
        if known.is_empty() {
            return Err(ConsumeError::NoTopic(topic));
        }
        let mut partitions = Vec::new();
        for number in known {
            let (low, high) =
                consumer.fetch_watermarks(&topic, number, PATIENCE).map_err(failed)?;
            let next = match from {
                From::Beginning | From::Time(_) => low,
                From::Newest(count) | From::NewestTogether(count) => {
                    low.max(high.saturating_sub(i64::try_from(count).unwrap_or(i64::MAX)))
                }
            };
            let cut = next > 0 || matches!(from, From::Time(_));
            partitions.push(Partition { number, next, ends: (high, high), cut });
        }
        for partition in &mut partitions {
            let number = partition.number;
            let later = consumer.fetch_watermarks(&topic, number, PATIENCE).map_err(failed)?;
            partition.ends.1 = later.1;
        }
        let held = VecDeque::new();
        let mut this = Self { consumer, topic, partitions, held, asked: None };
        match from {
            From::Time(ms) => this.begin_at(i64::try_from(ms).unwrap_or(i64::MAX))?,
            From::NewestTogether(_) => {
                if let Some(ms) = this.latest_beginning()? {
                    this.begin_at(ms)?;
                }
            }
            From::Beginning | From::Newest(_) => {}
        }
        let begin: Vec<_> = this.partitions.iter().map(|p| (p.number, p.next)).collect();
        this.assign(&begin)?;
        Ok(this)
    }

    fn failed(&self, error: KafkaError) -> ConsumeError {
        ConsumeError::Kafka { topic: self.topic.clone(), error }
    }

    fn list(&self, offsets: &[(i32, i64)]) -> Result<TopicPartitionList, ConsumeError> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in offsets {
            list.add_partition_offset(&self.topic, *partition, Offset::Offset(*offset))
                .map_err(|error| self.failed(error))?;
        }
        Ok(list)
    }

    fn assign(&self, offsets: &[(i32, i64)]) -> Result<(), ConsumeError> {
        self.consumer.assign(&self.list(offsets)?).map_err(|error| self.failed(error))
    }

    /// Begins with what was written at this time or later.
    fn begin_at(&mut self, ms: i64) -> Result<(), ConsumeError> {
        let asked: Vec<_> = self.partitions.iter().map(|p| (p.number, ms)).collect();
        let found = self.consumer.offsets_for_times(self.list(&asked)?, PATIENCE);
        let found = found.map_err(|error| self.failed(error))?;
        for partition in &mut self.partitions {
            let found = found.find_partition(&self.topic, partition.number);
            partition.next = match found.map(|found| found.offset()) {
                Some(Offset::Offset(offset)) => offset,
                _ => partition.ends.1,
            };
            partition.cut |= partition.next > 0;
        }
        Ok(())
    }

    /// When the first message was written of the partition that begins last; none when all of them
    /// are read from their beginning.
    fn latest_beginning(&self) -> Result<Option<i64>, ConsumeError> {
        let begins = self.partitions.iter().filter(|p| p.cut && p.next < p.ends.0);
        let mut left: Vec<(i32, i64)> = begins.map(|p| (p.number, p.next)).collect();
        let (mut latest, begun) = (None, Instant::now());
        self.assign(&left)?;
        while !left.is_empty() {
            if begun.elapsed() > PATIENCE {
                return Err(ConsumeError::Stalled(self.topic.clone()));
            }
            let message = match self.consumer.poll(ASK_EVERY) {
                None => continue,
                Some(Err(error)) if passes(&error) => continue,
                Some(message) => message.map_err(|error| self.failed(error))?,
            };
            let known = left.iter().position(|(number, _)| *number == message.partition());
            if let Some(at) = known {
                left.swap_remove(at);
                latest = latest.max(message.timestamp().to_millis());
            }
        }
        Ok(latest)
    }

    fn cut(&self, partition: i32) -> bool {
        self.partitions.iter().any(|known| known.number == partition && known.cut)
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
        while self.partitions.iter().any(|partition| partition.next < partition.ends.1) {
            let Some(message) = self.message(Duration::from_millis(500))? else {
                if last.elapsed() > PATIENCE {
                    return Err(ConsumeError::Stalled(self.topic.clone()).into());
                }
                continue;
            };
            last = Instant::now();
            let (bytes, partition, offset) = message;
            let known = self.partitions.iter().find(|known| known.number == partition);
            let firm = known.is_none_or(|known| offset < known.ends.0);
            if firm || !is_checkpoint(&bytes) {
                let cut = self.cut(partition);
                each(Seen { bytes: &bytes, partition, offset, cut })?;
            } else {
                self.hold(bytes, (partition, offset));
            }
        }
        Ok(())
    }

    /// What came within this time; false when nothing did. Checkpoints wait for their records.
    ///
    /// # Errors
    /// When the topic is gone or closed to us, or `each` says so. Brokers that are away are waited for.
    pub fn poll<E: std::convert::From<ConsumeError>>(
        &mut self,
        wait: Duration,
        mut each: impl FnMut(Seen<'_>) -> Result<(), E>,
    ) -> Result<bool, E> {
        let message = self.message(wait)?;
        let came = message.is_some();
        if let Some((bytes, partition, offset)) = message {
            match is_checkpoint(&bytes) {
                true => self.hold(bytes, (partition, offset)),
                false => {
                    let cut = self.cut(partition);
                    each(Seen { bytes: &bytes, partition, offset, cut })?;
                }
            }
        }
        self.find_ends();
        while let Some(held) = self.held.front()
            && (released(held, &self.partitions) || self.held.len() > HELD_MAX)
            && let Some(Held { bytes, partition, offset, .. }) = self.held.pop_front()
        {
            let cut = self.cut(partition);
            each(Seen { bytes: &bytes, partition, offset, cut })?;
        }
        Ok(came)
    }

    fn hold(&mut self, bytes: Vec<u8>, (partition, offset): (i32, i64)) {
        self.held.push_back(Held { bytes, partition, offset, behind: None });
    }

    /// The next message, its partition and its offset.
    fn message(&mut self, wait: Duration) -> Result<Option<(Vec<u8>, i32, i64)>, ConsumeError> {
        let Some(message) = self.consumer.poll(wait) else { return Ok(None) };
        let message = match message {
            Ok(message) => message,
            Err(error) if passes(&error) => {
                tracing::warn!(topic = self.topic, %error, "the brokers are waited for");
                return Ok(None);
            }
            Err(error) => return Err(self.failed(error)),
        };
        let (partition, offset) = (message.partition(), message.offset());
        if let Some(known) = self.partitions.iter_mut().find(|p| p.number == partition) {
            known.next = offset + 1;
        }
        Ok(Some((message.payload().unwrap_or_default().to_vec(), partition, offset)))
    }

    /// Finds out how far partitions have come, for the checkpoints that do not know.
    fn find_ends(&mut self) {
        let unknown = self.held.back().is_some_and(|held| held.behind.is_none());
        if !unknown || self.asked.is_some_and(|asked| asked.elapsed() < ASK_EVERY) {
            return;
        }
        self.asked = Some(Instant::now());
        let mut ends = Vec::with_capacity(self.partitions.len());
        for Partition { number, .. } in &self.partitions {
            match self.consumer.fetch_watermarks(&self.topic, *number, END_PATIENCE) {
                // An empty partition holds nobody up.
                Ok((low, high)) if low < high => ends.push((*number, high)),
                Ok(_) => {}
                // Asked again.
                Err(_) => return,
            }
        }
        for held in self.held.iter_mut().filter(|held| held.behind.is_none()) {
            held.behind = Some(ends.clone());
        }
    }
}

fn unreached(consumer: &BaseConsumer<Told>, topic: &str, error: KafkaError) -> ConsumeError {
    // What is wrong waits to be heard.
    for _ in 0..EVENTS_MAX {
        drop(consumer.poll(Duration::ZERO));
    }
    let topic = topic.to_owned();
    match consumer.context().0.lock().take() {
        Some(told) => ConsumeError::Unreached { topic, error, told },
        None => ConsumeError::Kafka { topic, error },
    }
}

fn is_checkpoint(bytes: &[u8]) -> bool {
    matches!(line::parse(bytes), Ok(Line::Checkpoint(_)))
}

/// Everything that was in the topic when the checkpoint was seen has been given.
fn released(held: &Held, partitions: &[Partition]) -> bool {
    let read = |(number, end): &(i32, i64)| {
        partitions.iter().any(|known| known.number == *number && known.next >= *end)
    };
    held.behind.as_ref().is_some_and(|behind| behind.iter().all(read))
}

/// Faults that the client mends itself, and tells of nevertheless.
fn passes(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{
        AllBrokersDown, BrokerTransportFailure, LeaderNotAvailable, NotLeaderForPartition,
        OperationTimedOut, RequestTimedOut, Resolve,
    };
    let code = error.rdkafka_error_code();
    code.is_some_and(|code| {
        [
            AllBrokersDown,
            BrokerTransportFailure,
            LeaderNotAvailable,
            NotLeaderForPartition,
            OperationTimedOut,
            RequestTimedOut,
            Resolve,
        ]
        .contains(&code)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_given_when_everything_before_it_was() {
        let partition = |number, next| Partition { number, next, ends: (0, 0), cut: false };
        let mut partitions = [partition(0, 7), partition(1, 3)];
        let mut held = Held { bytes: Vec::new(), partition: 1, offset: 2, behind: None };
        assert!(!released(&held, &partitions), "nobody knows");
        held.behind = Some(vec![(0, 8), (1, 3)]);
        assert!(!released(&held, &partitions), "a record is missing");
        partitions[0].next = 8;
        assert!(released(&held, &partitions));
    }

    #[test]
    fn brokers_that_are_away_are_waited_for_and_closed_doors_are_not() {
        let error = KafkaError::MessageConsumption;
        assert!(passes(&error(RDKafkaErrorCode::AllBrokersDown)));
        assert!(!passes(&error(RDKafkaErrorCode::TopicAuthorizationFailed)));
        assert!(!passes(&error(RDKafkaErrorCode::UnknownTopicOrPartition)));
    }
}
