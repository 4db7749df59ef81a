//! Sends spans in batches: what has come, at most [`BATCH`] spans or a queue full, at the latest after
//! [`LINGER`].

use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use tokio::sync::{mpsc, watch};

use super::{Collector, Counts, Identity};

/// Spans that a call has at most.
pub(super) const PER_CALL: usize = 6;
/// Spans of one export.
const BATCH: usize = 512;
/// How long a span waits for others.
const LINGER: Duration = Duration::from_secs(1);

/// Waits for the order to end.
pub(super) async fn ending(closed: &mut watch::Receiver<bool>) {
    // An error means that nobody is left to give the order.
    let _ = closed.wait_for(|closed| *closed).await;
}

/// What sends.
pub(super) struct Out {
    pub(super) collector: Collector,
    pub(super) identity: Identity,
    pub(super) counts: Counts,
    pub(super) closed: watch::Receiver<bool>,
    /// Spans that may wait: a batch is no second queue beside a small one.
    pub(super) queue: usize,
}

impl Out {
    /// Sends until it is told to end and the queue is empty.
    pub(super) async fn run(mut self, mut waiting: mpsc::Receiver<Vec<Span>>) {
        let mut failing = false;
        loop {
            let first = tokio::select! {
                first = waiting.recv() => first,
                () = ending(&mut self.closed) => waiting.try_recv().ok(),
            };
            let Some(mut batch) = first else { return };
            let full = tokio::time::sleep(LINGER);
            tokio::pin!(full);
            while batch.len() < BATCH.min(self.queue) {
                tokio::select! {
                    more = waiting.recv() => match more {
                        Some(more) => batch.extend(more),
                        None => break,
                    },
                    () = &mut full => break,
                    () = ending(&mut self.closed) => break,
                }
            }
            failing = self.export(batch, failing).await;
        }
    }

    /// Sends a batch; whether that failed. The first failure of a row is logged.
    async fn export(&self, spans: Vec<Span>, failing: bool) -> bool {
        let number = spans.len();
        let build = crate::build_info::current();
        let scope = InstrumentationScope {
            name: "weir".to_owned(),
            version: build.version.to_owned(),
            ..InstrumentationScope::default()
        };
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }];
        let resource = Some(self.identity.resource());
        let resource_spans = ResourceSpans { resource, scope_spans, ..ResourceSpans::default() };
        let request = ExportTraceServiceRequest { resource_spans: vec![resource_spans] };
        match self.collector.spans(request).await {
            Ok(refused) => {
                let refused = usize::try_from(refused).unwrap_or(number).min(number);
                self.counts.add("sent", number - refused);
                if refused > 0 {
                    self.counts.add("failed", refused);
                }
                false
            }
            Err(status) => {
                self.counts.add("failed", number);
                if !failing {
                    tracing::warn!(code = ?status.code(), "spans cannot be sent to the collector");
                }
                true
            }
        }
    }
}
