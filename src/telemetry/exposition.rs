//! The text of `/metrics`, written from the samples of all parts.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::meter::BOUNDS_US;
use super::sample::{Sample, SampleValue};

#[derive(Debug)]
struct Reading(Vec<Sample>);

impl Collector for Reading {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        for sample in &self.0 {
            let kind = match sample.value {
                SampleValue::Counter(_) => MetricType::Counter,
                SampleValue::Gauge(_) | SampleValue::Gauges(_) => MetricType::Gauge,
                SampleValue::Histogram { .. } => MetricType::Histogram,
            };
            let mut metric = encoder.encode_descriptor(sample.name, sample.help, None, kind)?;
            match &sample.value {
                SampleValue::Counter(value) => ConstCounter::new(*value).encode(metric)?,
                SampleValue::Gauge(value) => ConstGauge::new(*value).encode(metric)?,
                SampleValue::Gauges(values) => {
                    for (labels, value) in values {
                        let labels = labels.as_slice();
                        ConstGauge::new(*value).encode(metric.encode_family(&labels)?)?;
                    }
                }
                SampleValue::Histogram { counts, sum } => {
                    let buckets = with_bounds(counts);
                    let count = counts.iter().sum();
                    metric.encode_histogram::<[(&str, &str); 0]>(*sum, count, &buckets, None)?;
                }
            }
        }
        Ok(())
    }
}

/// Each bucket's upper bound in seconds, with its count.
fn with_bounds(counts: &[u64]) -> Vec<(f64, u64)> {
    // Microseconds below 2^53 are exact as a double.
    let bounds = BOUNDS_US.iter().map(|us| *us as f64 / 1e6);
    bounds
        .chain([f64::INFINITY])
        .zip(counts.iter().copied())
        .collect()
}

/// The samples as OpenMetrics text, which Prometheus reads.
#[must_use]
pub fn render(samples: Vec<Sample>) -> String {
    let mut registry = Registry::with_prefix("hubbub");
    registry.register_collector(Box::new(Reading(samples)));
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = text::encode(&mut out, &registry);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::meter::Histogram;

    #[test]
    fn every_kind_of_metric_is_written() {
        let histogram = Histogram::default();
        histogram.observe(std::time::Duration::from_micros(60));
        let polling = (vec![("transport", "polling")], 1);
        let text = render(vec![
            Sample::counter("events", "Events.", 3),
            Sample::gauge("rooms", "Rooms.", 2),
            Sample::gauges("connections", "Connections.", vec![polling]),
            Sample::histogram("append_seconds", "Append.", &histogram),
        ]);
        for line in [
            "hubbub_events_total 3",
            "hubbub_rooms 2",
            "hubbub_connections{transport=\"polling\"} 1",
            "hubbub_append_seconds_count 1",
            "hubbub_append_seconds_bucket{le=\"0.0001\"} 1",
            "hubbub_append_seconds_bucket{le=\"+Inf\"} 1",
            "hubbub_append_seconds_bucket{le=\"0.00005\"} 0",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} in:\n{text}"
            );
        }
    }
}
