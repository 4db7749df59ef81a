//! Logs: one subscriber per process, text for people or JSON for machines, level changeable.
//!
//! Further layers (an exporter of traces) are given to [`init`] boxed, so this module stays
//! without their dependencies; what they need flushed at the end belongs to whoever made them.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};
use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Identity, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

/// How lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// What is logged and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// Directives of `tracing`: `info,data_plane=debug`.
    pub filter: String,
    /// Text or JSON.
    pub format: Format,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { filter: "info,rdkafka=warn,librdkafka=info".to_owned(), format: Format::Text }
    }
}

/// What goes wrong with logs.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter does not parse.
    #[error("log filter `{0}` is not valid: {1}")]
    Filter(String, String),
    /// Another subscriber is there already.
    #[error("logs are set up already")]
    Twice,
    /// The subscriber behind a handle is gone.
    #[error("the log subscriber is gone")]
    Gone,
}

/// A further layer, such as an exporter of traces.
pub type ExtraLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Reads and changes what is logged while the process runs.
#[derive(Clone)]
pub struct LogLevel {
    handle: reload::Handle<EnvFilter, Layered>,
}

type Layered = tracing_subscriber::layer::Layered<Vec<ExtraLayer>, Registry>;

impl fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogLevel").field(&self.get()).finish()
    }
}

impl LogLevel {
    /// The directives in force.
    pub fn get(&self) -> String {
        self.handle.with_current(ToString::to_string).unwrap_or_default()
    }

    /// Puts other directives in force.
    ///
    /// # Errors
    /// When they do not parse; those in force stay.
    pub fn set(&self, directives: &str) -> Result<(), TelemetryError> {
        let filter = parse(directives)?;
        self.handle.reload(filter).map_err(|_| TelemetryError::Gone)
    }
}

/// Sets up the logs of this process, written to standard error.
///
/// # Errors
/// When the filter does not parse or logs are set up already.
pub fn init(settings: &LogSettings, extra: Vec<ExtraLayer>) -> Result<LogLevel, TelemetryError> {
    let (subscriber, level) = subscriber(settings, extra, io::stderr)?;
    subscriber.try_init().map_err(|_| TelemetryError::Twice)?;
    Ok(level)
}

/// The subscriber that [`init`] installs, writing elsewhere.
///
/// # Errors
/// When the filter does not parse.
pub fn subscriber<W>(
    settings: &LogSettings,
    mut extra: Vec<ExtraLayer>,
    writer: W,
) -> Result<(impl Subscriber + Send + Sync + 'static, LogLevel), TelemetryError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    // An empty list of layers would switch everything off.
    extra.push(Identity::new().boxed());
    let (filter, handle) = reload::Layer::new(parse(&settings.filter)?);
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines = match settings.format {
        Format::Text => lines.with_ansi(false).boxed(),
        Format::Json => lines.json().flatten_event(true).with_current_span(true).boxed(),
    };
    let subscriber = Registry::default().with(extra).with(filter).with(lines);
    Ok((subscriber, LogLevel { handle }))
}

fn parse(directives: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::try_new(directives)
        .map_err(|error| TelemetryError::Filter(directives.to_owned(), error.to_string()))
}

/// Shows an error with everything that caused it, on one line.
pub fn chain<'e>(error: &'e (dyn std::error::Error + 'static)) -> impl fmt::Display + 'e {
    struct Chain<'e>(&'e (dyn std::error::Error + 'static));
    impl fmt::Display for Chain<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let mut shown = self.0.to_string();
            f.write_str(&shown)?;
            let mut source = self.0.source();
            while let Some(cause) = source {
                let text = cause.to_string();
                // Some errors print their source themselves; once is enough.
                if !shown.ends_with(&text) {
                    write!(f, ": {text}")?;
                    shown = text;
                }
                source = cause.source();
            }
            Ok(())
        }
    }
    Chain(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::LogCapture;

    #[test]
    fn json_lines_carry_fields_and_the_level_changes_at_run_time() {
        let capture = LogCapture::default();
        let settings = LogSettings { filter: "info".into(), format: Format::Json };
        let (subscriber, level) = subscriber(&settings, vec![], capture.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!(n = 1, "hidden");
            tracing::info_span!("call", request_id = "r1")
                .in_scope(|| tracing::info!(n = 2, "shown"));
            level.set("debug").unwrap();
            tracing::debug!(n = 3, "now shown");
            assert!(level.set("no=such=filter").is_err());
            assert_eq!(level.get(), "debug");
        });
        let lines: Vec<serde_json::Value> =
            capture.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.iter().map(|l| l["n"].as_u64()).collect::<Vec<_>>(), [Some(2), Some(3)]);
        assert_eq!(lines[0]["span"]["request_id"], "r1");
    }

    #[test]
    fn a_chain_shows_each_cause_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot start")]
        struct Outer(#[source] Middle);
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read: {0}")]
        struct Middle(#[source] std::io::Error);
        let error = Outer(Middle(std::io::Error::other("disk on fire")));
        assert_eq!(chain(&error).to_string(), "cannot start: cannot read: disk on fire");
    }
}
