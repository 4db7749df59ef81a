//! Our metrics as OTLP: read from the very text that Prometheus gets, so that the two never differ.
//!
//! Names of the semantic conventions (`mcp_...`, written with underscores for Prometheus) get
//! their dots and units back; our own (`weir_...`) stay as they are, so that a dashboard finds
//! the same name whichever way it came.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
    ResourceMetrics, ScopeMetrics, Sum, number_data_point,
};

use super::{Identity, text};

/// Metrics under these prefixes are of the semantic conventions.
const CONVENTIONS: [&str; 1] = ["mcp_"];
const CUMULATIVE: i32 = AggregationTemporality::Cumulative as i32;

/// One family of the text.
#[derive(Debug, Default)]
struct Family<'t> {
    name: &'t str,
    help: &'t str,
    kind: &'t str,
    samples: Vec<Sample<'t>>,
}

/// One line of a family.
#[derive(Debug)]
struct Sample<'t> {
    /// `_total`, `_bucket` and so on.
    suffix: &'t str,
    labels: Vec<(&'t str, String)>,
    value: f64,
}

/// The text as one export; `began` and `now` in nanoseconds since the epoch.
pub(super) fn request(
    openmetrics: &str,
    identity: &Identity,
    times: (u64, u64),
) -> ExportMetricsServiceRequest {
    let metrics = families(openmetrics)
        .into_iter()
        .filter(|family| !family.samples.is_empty())
        .map(|family| metric(&family, times))
        .collect();
    let scope = InstrumentationScope { name: "weir".to_owned(), ..InstrumentationScope::default() };
    let scope_metrics = vec![ScopeMetrics { scope: Some(scope), metrics, ..Default::default() }];
    let resource = Some(identity.resource());
    let resource_metrics = vec![ResourceMetrics { resource, scope_metrics, ..Default::default() }];
    ExportMetricsServiceRequest { resource_metrics }
}

fn families(text: &str) -> Vec<Family<'_>> {
    let mut families: Vec<Family<'_>> = Vec::new();
    for line in text.lines() {
        if let Some(meta) = line.strip_prefix("# ") {
            let mut words = meta.splitn(3, ' ');
            let (Some(word), Some(name)) = (words.next(), words.next()) else { continue };
            let rest = words.next().unwrap_or_default();
            if families.last().is_none_or(|family| family.name != name) {
                families.push(Family { name, ..Family::default() });
            }
            let Some(family) = families.last_mut() else { continue };
            match word {
                "HELP" => family.help = rest.trim_end_matches('.'),
                "TYPE" => family.kind = rest,
                _ => {}
            }
        } else if let Some(family) = families.last_mut()
            && let Some(sample) = sample(line, family.name)
        {
            family.samples.push(sample);
        }
    }
    families
}

/// `name_suffix{label="value"} 1.5`; an exemplar behind it is left out.
fn sample<'t>(line: &'t str, family: &str) -> Option<Sample<'t>> {
    let rest = line.strip_prefix(family)?;
    let suffix_end = rest.find(['{', ' '])?;
    let (suffix, mut rest) = rest.split_at(suffix_end);
    let mut labels = Vec::new();
    if let Some(mut inner) = rest.strip_prefix('{') {
        loop {
            inner = inner.trim_start_matches(',');
            if let Some(after) = inner.strip_prefix('}') {
                rest = after;
                break;
            }
            let (name, value) = inner.split_once("=\"")?;
            let (value, after) = quoted(value)?;
            labels.push((name, value));
            inner = after;
        }
    }
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { suffix, labels, value })
}

/// The text up to the closing quote, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

fn metric(family: &Family<'_>, times: (u64, u64)) -> Metric {
    let conventional = CONVENTIONS.iter().any(|prefix| family.name.starts_with(prefix));
    let (name, unit) = match family.name.strip_suffix("_seconds") {
        Some(name) if conventional => (name.replace('_', "."), "s"),
        Some(_) => (family.name.to_owned(), "s"),
        None if family.name.ends_with("_bytes") => (family.name.to_owned(), "By"),
        None => (family.name.to_owned(), ""),
    };
    let name = if conventional { dotted(&name) } else { name };
    let attributes = |labels: &[(&str, String)]| -> Vec<KeyValue> {
        let key = |name: &str| if conventional { dotted(name) } else { name.to_owned() };
        labels.iter().filter(|(name, _)| *name != "le").map(|(n, v)| text(&key(n), v)).collect()
    };
    let data = match family.kind {
        "counter" => Data::Sum(Sum {
            data_points: numbers(family, "_total", &attributes, times),
            aggregation_temporality: CUMULATIVE,
            is_monotonic: true,
        }),
        "histogram" => Data::Histogram(Histogram {
            data_points: histograms(family, &attributes, times),
            aggregation_temporality: CUMULATIVE,
        }),
        "info" => Data::Gauge(Gauge { data_points: numbers(family, "_info", &attributes, times) }),
        _ => Data::Gauge(Gauge { data_points: numbers(family, "", &attributes, times) }),
    };
    let description = family.help.to_owned();
    Metric { name, description, unit: unit.to_owned(), data: Some(data), ..Metric::default() }
}

/// `mcp_method_name` is `mcp.method.name`; `gen_ai_tool_name` is `gen_ai.tool.name`.
fn dotted(name: &str) -> String {
    name.replace('_', ".").replace("gen.ai.", "gen_ai.").replace("status.code", "status_code")
}

type Attributes<'a> = &'a dyn Fn(&[(&str, String)]) -> Vec<KeyValue>;

fn numbers(
    family: &Family<'_>,
    suffix: &str,
    attributes: Attributes<'_>,
    (began, now): (u64, u64),
) -> Vec<NumberDataPoint> {
    let point = |sample: &Sample<'_>| NumberDataPoint {
        attributes: attributes(&sample.labels),
        start_time_unix_nano: began,
        time_unix_nano: now,
        value: Some(number_data_point::Value::AsDouble(sample.value)),
        ..NumberDataPoint::default()
    };
    family.samples.iter().filter(|sample| sample.suffix == suffix).map(point).collect()
}

fn histograms(
    family: &Family<'_>,
    attributes: Attributes<'_>,
    (began, now): (u64, u64),
) -> Vec<HistogramDataPoint> {
    let mut points: BTreeMap<String, HistogramDataPoint> = BTreeMap::new();
    for sample in &family.samples {
        let (le, labels): (Vec<_>, Vec<_>) =
            sample.labels.iter().cloned().partition(|(name, _)| *name == "le");
        let point = points.entry(format!("{labels:?}")).or_insert_with(|| HistogramDataPoint {
            attributes: attributes(&labels),
            start_time_unix_nano: began,
            time_unix_nano: now,
            ..HistogramDataPoint::default()
        });
        match sample.suffix {
            "_sum" => point.sum = Some(sample.value),
            "_count" => point.count = whole(sample.value),
            "_bucket" => {
                // Prometheus counts what lies below a bound, OTLP what lies between two.
                let below: u64 = point.bucket_counts.iter().sum();
                point.bucket_counts.push(whole(sample.value).saturating_sub(below));
                let bound = le.first().and_then(|(_, text)| text.parse::<f64>().ok());
                point.explicit_bounds.extend(bound.filter(|bound| bound.is_finite()));
            }
            _ => {}
        }
    }
    points.into_values().collect()
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // counts are whole and positive
fn whole(value: f64) -> u64 {
    value as u64
}
