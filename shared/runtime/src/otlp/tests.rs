//! Against a collector that is a tonic server, and against none.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1 as metrics_service;
use opentelemetry_proto::tonic::collector::trace::v1 as trace_service;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

use super::*;
use crate::testing::eventually;

/// Keeps what it is sent.
#[derive(Debug, Clone)]
struct Kept {
    spans: mpsc::Sender<(Option<String>, trace_service::ExportTraceServiceRequest)>,
    metrics: mpsc::Sender<metrics_service::ExportMetricsServiceRequest>,
}

#[tonic::async_trait]
impl trace_service::trace_service_server::TraceService for Kept {
    async fn export(
        &self,
        request: Request<trace_service::ExportTraceServiceRequest>,
    ) -> Result<Response<trace_service::ExportTraceServiceResponse>, Status> {
        let key = request.metadata().get("x-key").and_then(|key| key.to_str().ok());
        let key = key.map(str::to_owned);
        self.spans.send((key, request.into_inner())).await.unwrap();
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl metrics_service::metrics_service_server::MetricsService for Kept {
    async fn export(
        &self,
        request: Request<metrics_service::ExportMetricsServiceRequest>,
    ) -> Result<Response<metrics_service::ExportMetricsServiceResponse>, Status> {
        self.metrics.send(request.into_inner()).await.unwrap();
        Ok(Response::new(Default::default()))
    }
}

fn settings(endpoint: &str) -> OtlpSettings {
    OtlpSettings {
        endpoint: Some(endpoint.to_owned()),
        headers: Masked::new(vec!["X-Key=secret".to_owned()]),
        timeout_ms: 2_000,
        ..OtlpSettings::default()
    }
}

fn a_span(name: &str) -> span::Span {
    span::Span { name: name.to_owned(), ..span::Span::default() }
}

#[tokio::test]
async fn spans_and_metrics_arrive_and_the_end_flushes() {
    let (spans, mut got_spans) = mpsc::channel(8);
    let (measured, mut got_metrics) = mpsc::channel(8);
    let kept = Kept { spans, metrics: measured };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = futures_util::stream::unfold(listener, |listener| async move {
        Some((listener.accept().await.map(|(stream, _)| stream), listener))
    });
    let server = tonic::transport::Server::builder()
        .add_service(trace_service::trace_service_server::TraceServiceServer::new(kept.clone()))
        .add_service(metrics_service::metrics_service_server::MetricsServiceServer::new(kept))
        .serve_with_incoming(incoming);
    tokio::spawn(server);

    let metrics = Metrics::new();
    metrics.counter("calls", "Calls").inc_by(3);
    let identity = Identity::new("weir-test", "n1", &[("weir.region", "eu")]);
    let exporter = start(&settings(&format!("http://{address}")), identity, &metrics);
    let exporter = exporter.unwrap().unwrap();
    exporter.spans().send(vec![a_span("one"), a_span("two")]);
    exporter.finish(Duration::from_secs(20)).await;

    let (key, batch) = got_spans.recv().await.unwrap();
    assert_eq!(key.as_deref(), Some("secret"));
    let names: Vec<_> =
        batch.resource_spans[0].scope_spans[0].spans.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["one", "two"]);
    let resource = batch.resource_spans[0].resource.clone().unwrap();
    assert!(resource.attributes.contains(&text("service.name", "weir-test")));
    assert!(resource.attributes.contains(&text("weir.region", "eu")));
    let batch = got_metrics.recv().await.unwrap();
    let names = &batch.resource_metrics[0].scope_metrics[0].metrics;
    assert!(names.iter().any(|metric| metric.name == "weir_calls"), "{names:?}");
    assert!(metrics.render().contains("weir_spans_total{result=\"sent\"} 2"));
}

fn counted(metrics: &Metrics, result: &str) -> u64 {
    let line = format!("weir_spans_total{{result=\"{result}\"}} ");
    let text = metrics.render();
    text.lines().find_map(|l| l.strip_prefix(&line)?.parse::<u64>().ok()).unwrap_or(0)
}

#[tokio::test]
async fn a_collector_that_is_away_costs_counted_spans_and_no_time() {
    let metrics = Metrics::new();
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    drop(taken);
    let settings = OtlpSettings { queue: 64, ..settings(&format!("http://{address}")) };
    let identity = Identity::new("weir-test", "n1", &[]);
    let exporter = start(&settings, identity, &metrics).unwrap().unwrap();
    for _ in 0..1_000 {
        exporter.spans().send(vec![a_span("lost")]);
    }
    let all = async || counted(&metrics, "dropped") + counted(&metrics, "failed") == 1_000;
    assert!(eventually(Duration::from_secs(20), all).await);
    assert!(counted(&metrics, "dropped") > 0);
}

/// A collector that takes connections and says nothing holds no more than the queue and a batch of
/// its size, however slowly the spans come.
#[tokio::test]
async fn a_collector_that_hangs_holds_two_queues_at_most() {
    let metrics = Metrics::new();
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = settings(&format!("http://{}", silent.local_addr().unwrap()));
    let settings = OtlpSettings { queue: 64, ..settings };
    let identity = Identity::new("weir-test", "n1", &[]);
    let exporter = start(&settings, identity, &metrics).unwrap().unwrap();
    for _ in 0..400 {
        exporter.spans().send(vec![a_span("held")]);
        tokio::task::yield_now().await;
    }
    let gone = counted(&metrics, "dropped") + counted(&metrics, "failed");
    assert!(gone >= 400 - 2 * 64, "{gone}");
    assert_eq!(counted(&metrics, "sent"), 0);
}

#[test]
fn what_prometheus_reads_is_what_the_collector_gets() {
    let metrics = Metrics::new();
    let histogram = metrics.conventional(
        "mcp_server_operation_duration_seconds",
        "Duration",
        Histogram::new([0.5, 1.0]),
    );
    for seconds in [0.1, 0.7, 0.8, 9.0] {
        histogram.observe(seconds);
    }
    let labelled = Family::<Became, Counter>::default();
    metrics.register("spans", "Spans", labelled.clone());
    labelled.get_or_create(&Became { result: "say \"a\\b\"" }).inc_by(7);
    let identity = Identity::new("s", "i", &[]);
    let batch = convert::request(&metrics.render(), &identity, (1, 2));
    let all = &batch.resource_metrics[0].scope_metrics[0].metrics;
    let find = |name: &str| all.iter().find(|metric| metric.name == name).unwrap();
    let metric = find("mcp.server.operation.duration");
    assert_eq!(metric.unit, "s");
    let Some(Data::Histogram(histogram)) = &metric.data else { panic!("{metric:?}") };
    let point = &histogram.data_points[0];
    assert_eq!(point.explicit_bounds, [0.5, 1.0]);
    assert_eq!(point.bucket_counts, [1, 2, 1]);
    assert_eq!((point.count, point.sum), (4, Some(10.6)));
    let Some(Data::Sum(sum)) = &find("weir_spans").data else { panic!("no sum") };
    assert_eq!(sum.data_points[0].attributes, [text("result", "say \"a\\b\"")]);
    assert!(sum.is_monotonic);
    // Every line of the text is a point of the export.
    let sample = "weir_process_memory_bytes ";
    let lines = metrics.render().lines().filter(|line| line.starts_with(sample)).count();
    assert_eq!(lines, 1);
    assert_eq!(find("weir_process_memory_bytes").unit, "By");
}

#[test]
fn settings_that_cannot_work_are_named() {
    let bad = OtlpSettings {
        endpoint: Some("collector:4317".into()),
        headers: Masked::new(vec!["key".into()]),
        metrics_interval_ms: 1,
        timeout_ms: 0,
        queue: 0,
        ..OtlpSettings::default()
    };
    let named: Vec<_> = bad.problems().into_iter().map(|(field, _)| field).collect();
    let tails: Vec<_> = named.iter().filter_map(|path| path.rsplit('.').next()).collect();
    assert_eq!(tails, ["endpoint", "headers", "metrics_interval_ms", "timeout_ms", "queue"]);
    assert!(OtlpSettings::default().problems().is_empty());
    let shown = format!("{:?}", settings("http://a:1"));
    assert!(!shown.contains("secret"), "{shown}");
}
