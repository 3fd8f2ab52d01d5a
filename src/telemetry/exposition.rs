//! The text of `/metrics`, made from a reading of every counter.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::meter::{BOUNDS_US, Histogram};

/// One metric as it stands.
#[derive(Debug, Clone)]
pub enum Sample {
    /// Name, help, value: only rises.
    Counter(&'static str, &'static str, u64),
    /// Name, help, value: as of now.
    Gauge(&'static str, &'static str, u64),
    /// Name, help, and a value for each set of labels: as of now.
    Gauges(
        &'static str,
        &'static str,
        Vec<(Vec<(&'static str, &'static str)>, u64)>,
    ),
    /// Name, help, counts of the buckets, sum in seconds.
    Histogram(&'static str, &'static str, Vec<u64>, f64),
}

impl Sample {
    /// Of that histogram.
    #[must_use]
    pub fn histogram(name: &'static str, help: &'static str, histogram: &Histogram) -> Self {
        let (counts, sum) = histogram.read();
        Self::Histogram(name, help, counts, sum)
    }
}

#[derive(Debug)]
struct Reading(Vec<Sample>);

impl Collector for Reading {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        for sample in &self.0 {
            match sample {
                Sample::Counter(name, help, value) => {
                    let metric =
                        encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
                    ConstCounter::new(*value).encode(metric)?;
                }
                Sample::Gauge(name, help, value) => {
                    let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
                    ConstGauge::new(*value).encode(metric)?;
                }
                Sample::Gauges(name, help, values) => {
                    let mut metric =
                        encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
                    for (labels, value) in values {
                        ConstGauge::new(*value)
                            .encode(metric.encode_family(&labels.as_slice())?)?;
                    }
                }
                Sample::Histogram(name, help, counts, sum) => {
                    let mut metric =
                        encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
                    // Microseconds below 2^53 are exact as a double.
                    let bounds = BOUNDS_US
                        .iter()
                        .map(|us| *us as f64 / 1e6)
                        .chain([f64::INFINITY]);
                    let buckets: Vec<_> = bounds.zip(counts.iter().copied()).collect();
                    metric.encode_histogram::<[(&str, &str); 0]>(
                        *sum,
                        counts.iter().sum(),
                        &buckets,
                        None,
                    )?;
                }
            }
        }
        Ok(())
    }
}

/// The samples as OpenMetrics text, which Prometheus reads.
#[must_use]
pub fn render(samples: Vec<Sample>) -> String {
    let mut registry = Registry::with_prefix("hubbub");
    registry.register_collector(Box::new(Reading(samples)));
    let mut out = String::new();
    // Writing to a string can't fail.
    let _ = text::encode(&mut out, &registry);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_written() {
        let histogram = Histogram::default();
        histogram.observe(std::time::Duration::from_micros(60));
        let text = render(vec![
            Sample::Counter("events", "Events.", 3),
            Sample::Gauge("rooms", "Rooms.", 2),
            Sample::Gauges(
                "connections",
                "Connections.",
                vec![(vec![("transport", "polling")], 1)],
            ),
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
