//! How a process keeps its audit log: a section of both planes' settings.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use weir_model::bounds;
use weir_runtime::metrics::Metrics;
use weir_runtime::settings::Problems;

#[cfg(feature = "kafka")]
use crate::kafka::{KafkaSettings, KafkaSink, KafkaSinkError};
use crate::spool::{Spool, SpoolError, SpoolSettings};
use crate::{Builder, Origin, Pipeline};

/// The section `audit`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuditSettings {
    /// Folder of the files; the process has one of its own where it is not set.
    pub dir: Option<PathBuf>,
    /// Most bytes that the spool in it may take. With Kafka they bound the backlog: when it is
    /// reached, the group's audit class decides. Without, the oldest records are deleted.
    pub spool_bytes: u64,
    /// Size at which a file of the spool is followed by the next.
    pub segment_bytes: u64,
    /// File of the key that signs checkpoints; made when it is not there. Beside the folder where
    /// it is not set.
    pub key_file: Option<PathBuf>,
    /// Kafka as well, when it is set.
    #[cfg(feature = "kafka")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kafka: Option<KafkaSettings>,
}

impl Default for AuditSettings {
    fn default() -> Self {
        Self {
            dir: None,
            spool_bytes: bounds::AUDIT_SPOOL_BYTES,
            segment_bytes: bounds::AUDIT_SEGMENT_BYTES,
            key_file: None,
            #[cfg(feature = "kafka")]
            kafka: None,
        }
    }
}

/// Why the log cannot be opened. Names the setting.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder, or what is in it.
    #[error("audit.dir: {0}")]
    Spool(#[from] SpoolError),
    /// Kafka's settings.
    #[cfg(feature = "kafka")]
    #[error("audit.kafka: {0}")]
    Kafka(#[from] KafkaSinkError),
}

impl AuditSettings {
    /// Says what types cannot.
    pub fn check(&self, problems: &mut Problems) {
        if self.segment_bytes < bounds::AUDIT_SEGMENT_BYTES_MIN {
            problems.say("audit.segment_bytes", "at least 1048576");
        }
        if self.spool_bytes < 2 * self.segment_bytes {
            problems.say("audit.spool_bytes", "at least twice audit.segment_bytes");
        }
    }

    /// Starts the pipeline: files keep the promise, Kafka follows. `folder` is taken where none is
    /// set; `origin` stands in every record.
    ///
    /// # Errors
    /// When the folder or Kafka's settings cannot be used.
    pub fn open(
        &self,
        folder: &Path,
        origin: Origin,
        metrics: Metrics,
    ) -> Result<Pipeline, OpenError> {
        let spool = Spool::open(self.spool(folder))?;
        #[cfg(feature = "kafka")]
        let drain = match &self.kafka {
            Some(kafka) => {
                let sink = KafkaSink::new(kafka)?;
                let clock = weir_runtime::clock::SystemClock::shared();
                Some(spool.handle().drain(Box::new(sink), clock)?)
            }
            None => None,
        };
        let builder = Builder::spooled(origin, spool, metrics);
        #[cfg(feature = "kafka")]
        let builder = match drain {
            Some(drain) => builder.drain(drain),
            None => builder,
        };
        Ok(builder.start())
    }

    fn spool(&self, folder: &Path) -> SpoolSettings {
        let mut spool = SpoolSettings::new(self.dir.as_deref().unwrap_or(folder));
        (spool.spool_bytes, spool.segment_bytes) = (self.spool_bytes, self.segment_bytes);
        if let Some(file) = &self.key_file {
            spool.key_file.clone_from(file);
        }
        spool
    }
}
