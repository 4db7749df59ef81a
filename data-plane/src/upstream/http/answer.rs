//! From an HTTP answer to an exchange.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use tokio::sync::mpsc;
use tracing::Instrument as _;
use weir_model::bounds;
use weir_model::reason::Refusal;
use weir_runtime::task::{on_payload, spawn_begun};

use super::super::envelope::{self, Incoming};
use super::super::hop::{Hop, Step};
use super::super::{Message, Messages, refuse};
use super::relay::Relay;
use super::{Failure, Remote};

impl Remote {
    /// The messages of a JSON body that answers one request. A batch (2025-03-26) may bring
    /// notifications along.
    pub(super) fn whole_answer(&self, hop: &Hop, body: &Bytes) -> Result<Messages, Refusal> {
        on_payload(body.len(), || self.answered(hop, body))
    }

    fn answered(&self, hop: &Hop, body: &Bytes) -> Result<Messages, Refusal> {
        let mut passed = Vec::new();
        let mut last = None;
        for part in envelope::split(body).map_err(refuse::protocol)? {
            let incoming = envelope::read(&part).map_err(refuse::protocol)?;
            if let Incoming::Notification { method, .. } = &incoming {
                self.noticed(method);
            }
            match hop.step(incoming) {
                Step::Pass(message) => passed.push(message),
                Step::Final(message) => last = Some(message?),
                Step::Ask { .. } | Step::Skip => {}
            }
        }
        let last = last.ok_or_else(|| refuse::protocol("the answer is to another request"))?;
        if passed.is_empty() {
            return Ok(Messages::One(last));
        }
        let (sink, messages) = mpsc::channel(passed.len() + 1);
        for message in passed.into_iter().chain([last]) {
            // The queue was made long enough.
            let _ = sink.try_send(Ok(message));
        }
        Ok(Messages::Stream(messages))
    }

    /// Starts to relay a stream.
    pub(super) fn streamed_answer(self: &Arc<Self>, relay: Relay) -> Messages {
        let (sink, messages) = mpsc::channel(bounds::STREAM_QUEUE_MESSAGES);
        spawn_begun(relay.run(sink).in_current_span());
        Messages::Stream(messages)
    }
}

/// Reads the JSON body of an error status: the server's own error for this request, or none when
/// it says nothing about it.
pub(super) fn own_error(hop: &Hop, body: &Bytes) -> Option<Result<Message, Refusal>> {
    let incoming = envelope::read(body).ok()?;
    match hop.step(incoming) {
        Step::Final(message) => Some(message),
        _ => None,
    }
}

/// Code, text and data of the error in a body, whatever request it names.
pub(super) fn any_error(body: &Bytes) -> Option<(i64, Bytes)> {
    match envelope::read(body).ok()? {
        Incoming::Error { code, error, .. } => Some((code, error)),
        _ => None,
    }
}

/// What an error status without an error for this request means on either wire.
pub(super) fn by_status(status: StatusCode) -> Failure {
    let refusal = super::unexpected(status);
    match status.as_u16() {
        400 | 404 | 405 | 406 | 415 => Failure::Contradiction(refusal),
        _ => Failure::Refused(refusal),
    }
}
