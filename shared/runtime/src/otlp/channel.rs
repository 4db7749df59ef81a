//! The connection to the collector: made when it is first needed, and again when it broke.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use super::{OtlpError, OtlpSettings};

/// The collector. Clones share one connection.
#[derive(Debug, Clone)]
pub struct Collector {
    channel: Channel,
    headers: Vec<(AsciiMetadataKey, AsciiMetadataValue)>,
    timeout: Duration,
}

impl Collector {
    /// The one that the settings name, if they name one. Does not connect yet.
    ///
    /// # Errors
    /// When the endpoint, a header or the authorities cannot be used.
    pub fn new(settings: &OtlpSettings) -> Result<Option<Self>, OtlpError> {
        let Some(endpoint) = &settings.endpoint else { return Ok(None) };
        let bad = |what: &dyn std::fmt::Display| OtlpError::Setting("endpoint", what.to_string());
        let timeout = Duration::from_millis(settings.timeout_ms);
        let mut target = Endpoint::from_shared(endpoint.clone())
            .map_err(|error| bad(&error))?
            .connect_timeout(timeout)
            .timeout(timeout);
        if endpoint.starts_with("https://") {
            let mut tls = ClientTlsConfig::new().with_native_roots();
            if let Some(path) = &settings.ca {
                let pem = std::fs::read(path)
                    .map_err(|error| OtlpError::Setting("ca", error.to_string()))?;
                tls = tls.ca_certificate(Certificate::from_pem(pem));
            }
            let chain = |error| bad(&crate::telemetry::chain(&error));
            target = target.tls_config(tls).map_err(chain)?;
        }
        let headers = settings.headers.reveal().iter().map(|pair| header(pair));
        let headers = headers.collect::<Result<_, _>>()?;
        Ok(Some(Self { channel: target.connect_lazy(), headers, timeout }))
    }

    /// Sends spans; how many the collector refused.
    ///
    /// # Errors
    /// What the collector, or the way to it, says.
    pub async fn spans(&self, batch: ExportTraceServiceRequest) -> Result<u64, tonic::Status> {
        let mut client = TraceServiceClient::new(self.channel.clone());
        let answer = client.export(self.request(batch)).await?.into_inner();
        let refused = answer.partial_success.map_or(0, |partial| partial.rejected_spans);
        Ok(u64::try_from(refused).unwrap_or(0))
    }

    /// Sends metrics.
    ///
    /// # Errors
    /// What the collector, or the way to it, says.
    pub async fn metrics(&self, batch: ExportMetricsServiceRequest) -> Result<(), tonic::Status> {
        let mut client = MetricsServiceClient::new(self.channel.clone());
        client.export(self.request(batch)).await.map(drop)
    }

    fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.set_timeout(self.timeout);
        for (name, value) in &self.headers {
            request.metadata_mut().insert(name.clone(), value.clone());
        }
        request
    }
}

/// `name=value`; the message never shows the value.
fn header(pair: &str) -> Result<(AsciiMetadataKey, AsciiMetadataValue), OtlpError> {
    let bad = |what: &str| OtlpError::Setting("headers", what.to_owned());
    let (name, value) = pair.split_once('=').ok_or_else(|| bad("give `name=value` pairs"))?;
    let name = name.trim().to_ascii_lowercase();
    let key = name.parse().map_err(|_| bad("a name that cannot stand in a header"))?;
    let mut value: AsciiMetadataValue =
        value.trim().parse().map_err(|_| bad("a value that cannot stand in a header"))?;
    value.set_sensitive(true);
    Ok((key, value))
}
