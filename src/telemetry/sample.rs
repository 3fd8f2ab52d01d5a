//! Samples: the metrics of a part, each with its name, help text and current value.

use super::meter::Histogram;

/// The labels of one value of a metric: names with their values.
pub(crate) type Labels = Vec<(&'static str, &'static str)>;

/// One metric as it stands now.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    /// The name without the prefix (`hubbub_` or `process_`), and without the suffix `_total` of a
    /// counter and `_info` of an info.
    pub name: &'static str,
    /// One sentence without a full stop; also the description in the documentation.
    pub help: &'static str,
    pub value: SampleValue,
}

/// The value of a metric, by its kind.
#[derive(Debug, Clone)]
pub(crate) enum SampleValue {
    /// A number that only rises.
    Counter(u64),
    /// One such number for each set of labels.
    Counters(Vec<(Labels, u64)>),
    /// A number that rises and falls.
    Gauge(u64),
    /// One such number for each set of labels.
    Gauges(Vec<(Labels, u64)>),
    /// Seconds that only rise.
    CounterSeconds(f64),
    /// Seconds that rise and fall.
    GaugeSeconds(f64),
    /// Facts that do not change while the process runs, as labels.
    Info(Labels),
    /// Durations: the counts of the buckets, not cumulative, and the sum in seconds.
    Histogram { counts: Vec<u64>, sum: f64 },
}

impl Sample {
    #[must_use]
    pub fn counter(name: &'static str, help: &'static str, value: u64) -> Self {
        let value = SampleValue::Counter(value);
        Self { name, help, value }
    }

    #[must_use]
    pub fn counters(name: &'static str, help: &'static str, values: Vec<(Labels, u64)>) -> Self {
        let value = SampleValue::Counters(values);
        Self { name, help, value }
    }

    #[must_use]
    pub fn gauge(name: &'static str, help: &'static str, value: u64) -> Self {
        let value = SampleValue::Gauge(value);
        Self { name, help, value }
    }

    #[must_use]
    pub fn gauges(name: &'static str, help: &'static str, values: Vec<(Labels, u64)>) -> Self {
        let value = SampleValue::Gauges(values);
        Self { name, help, value }
    }

    #[must_use]
    pub fn counter_seconds(name: &'static str, help: &'static str, value: f64) -> Self {
        let value = SampleValue::CounterSeconds(value);
        Self { name, help, value }
    }

    #[must_use]
    pub fn gauge_seconds(name: &'static str, help: &'static str, value: f64) -> Self {
        let value = SampleValue::GaugeSeconds(value);
        Self { name, help, value }
    }

    #[must_use]
    pub fn info(name: &'static str, help: &'static str, labels: Labels) -> Self {
        let value = SampleValue::Info(labels);
        Self { name, help, value }
    }

    #[must_use]
    pub fn histogram(name: &'static str, help: &'static str, histogram: &Histogram) -> Self {
        let (counts, sum) = histogram.read();
        let value = SampleValue::Histogram { counts, sum };
        Self { name, help, value }
    }

    /// The kind of the metric, as OpenMetrics names it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.value {
            SampleValue::Counter(_) | SampleValue::Counters(_) | SampleValue::CounterSeconds(_) => {
                "counter"
            }
            SampleValue::Gauge(_) | SampleValue::Gauges(_) | SampleValue::GaugeSeconds(_) => {
                "gauge"
            }
            SampleValue::Info(_) => "info",
            SampleValue::Histogram { .. } => "histogram",
        }
    }
}
