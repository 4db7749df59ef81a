//! Lines of audit logs, wherever they are: every line, of every sort, with its place.

use std::fmt::Display;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use weir_audit::line::{self, Line};
use weir_audit::read;
use weir_audit::verify::Order;
use weir_model::bounds;

use crate::cli::Source;

/// Gets one line and where it was read.
pub(super) type Each<'a> = &'a mut dyn FnMut(&[u8], &dyn Place) -> anyhow::Result<()>;

/// Where a line was read.
pub(super) trait Place: Display {
    /// The part of the data, when it has lost its beginning apart from others.
    fn cut(&self) -> Option<i32> {
        None
    }
}

impl Place for String {}

#[cfg(feature = "kafka")]
impl Place for weir_audit::consume::Seen<'_> {
    fn cut(&self) -> Option<i32> {
        self.cut.then_some(self.partition)
    }
}

/// Where lines come from.
#[derive(Debug)]
pub(super) enum Input {
    /// Segments, or one file.
    Files(PathBuf),
    /// Standard input: what a consumer of a topic prints.
    Pipe,
    /// The topic, from this time on.
    #[cfg(feature = "kafka")]
    Topic(weir_audit::kafka::KafkaSettings, Option<u64>),
}

impl Input {
    pub(super) fn open(source: &Source) -> anyhow::Result<Self> {
        if let Some(kafka) = &source.kafka {
            return topic(kafka, source.topic.as_deref());
        }
        Ok(match source.dir.as_os_str() == "-" {
            true => Self::Pipe,
            false => Self::Files(source.dir.clone()),
        })
    }

    /// Only what was written at this time or later, where that can be had.
    #[cfg_attr(not(feature = "kafka"), allow(unused_variables))]
    pub(super) fn since(self, since_ms: Option<u64>) -> Self {
        match self {
            #[cfg(feature = "kafka")]
            Self::Topic(settings, _) => Self::Topic(settings, since_ms),
            other => other,
        }
    }

    /// How lines come. A file that does not begin with the head of a segment was exported, perhaps
    /// from a topic, which has an order within each partition only.
    pub(super) fn order(&self) -> Order {
        match self {
            Self::Files(path) if !is_export(path) => Order::Written,
            _ => Order::Any,
        }
    }

    /// Every line up to now.
    pub(super) fn each(self, each: Each<'_>) -> anyhow::Result<()> {
        match self {
            Self::Files(path) => {
                for file in read::files(&path)? {
                    let open = std::fs::File::open(&file);
                    let open = open.with_context(|| format!("open {}", file.display()))?;
                    lines(BufReader::with_capacity(1 << 18, open), &file, each)?;
                }
                Ok(())
            }
            Self::Pipe => lines(std::io::stdin().lock(), Path::new("standard input"), each),
            #[cfg(feature = "kafka")]
            Self::Topic(settings, since_ms) => {
                use weir_audit::consume::{Consumer, From};
                let from = since_ms.map_or(From::Beginning, From::Time);
                let mut consumer = Consumer::open(&settings, from)?;
                consumer.up_to_now(|seen| each(seen.bytes, &seen))
            }
        }
    }
}

#[cfg(feature = "kafka")]
fn topic(kafka: &str, topic: Option<&str>) -> anyhow::Result<Input> {
    Ok(Input::Topic(kafka_settings(kafka, topic)?, None))
}

#[cfg(not(feature = "kafka"))]
fn topic(_: &str, _: Option<&str>) -> anyhow::Result<Input> {
    anyhow::bail!("this build has no Kafka")
}

/// Brokers in a row, or a file with everything.
#[cfg(feature = "kafka")]
pub(super) fn kafka_settings(
    kafka: &str,
    topic: Option<&str>,
) -> anyhow::Result<weir_audit::kafka::KafkaSettings> {
    use weir_audit::kafka::KafkaSettings;
    let mut settings = match Path::new(kafka).is_file() {
        true => {
            let path = Path::new(kafka);
            let env = crate::settings::kafka_environment();
            weir_runtime::settings::load(Some(path), crate::settings::KAFKA_PREFIX, env)?
        }
        false => KafkaSettings::new(kafka.split(',').map(str::to_owned).collect(), "weir.audit"),
    };
    if let Some(topic) = topic {
        topic.clone_into(&mut settings.topic);
    }
    Ok(settings)
}

fn is_export(path: &Path) -> bool {
    let begins = || {
        let mut first = Vec::new();
        let reader = BufReader::new(std::fs::File::open(path)?);
        let limit = bounds::AUDIT_RECORD_BYTES_MAX as u64;
        reader.take(limit).read_until(b'\n', &mut first).map(|_| first)
    };
    let head = |line: &[u8]| matches!(line::parse(line), Ok(Line::Segment(_)));
    path.is_file() && !begins().is_ok_and(|line: Vec<u8>| head(line.trim_ascii_end()))
}

/// Whole lines, and the start of those that are too long to be ours. What a writer has begun and
/// not ended is not there yet.
fn lines(mut reader: impl BufRead, path: &Path, each: Each<'_>) -> anyhow::Result<()> {
    let (mut line, mut number) = (Vec::new(), 0u64);
    loop {
        line.clear();
        let limit = bounds::AUDIT_LINE_BYTES_MAX as u64 + 1;
        let read = reader.by_ref().take(limit).read_until(b'\n', &mut line);
        if read.with_context(|| format!("read {}", path.display()))? == 0 {
            return Ok(());
        }
        number += 1;
        if line.pop_if(|last| *last == b'\n').is_none() {
            if (line.len() as u64) < limit {
                return Ok(());
            }
            reader.skip_until(b'\n')?;
        }
        each(&line, &format!("{}, line {number}", path.display()))?;
    }
}
