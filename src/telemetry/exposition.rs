//! The text of `/metrics`, written from the samples of all parts: in Prometheus's text format, or in
//! OpenMetrics.

use std::fmt::{self, Display, Write};

use super::meter::BOUNDS_US;
use super::sample::{Labels, Sample, SampleValue};

/// The formats that Prometheus and others read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricsFormat {
    /// Prometheus's own text format, version 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl MetricsFormat {
    /// The value of `Content-Type`.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The samples as text. `groups` have a prefix for the names of their samples, without the `_`.
pub(crate) fn render(groups: &[(&str, Vec<Sample>)], format: MetricsFormat) -> String {
    let mut out = String::new();
    for (prefix, samples) in groups {
        for sample in samples {
            let name = format!("{prefix}_{}", sample.name);
            // Writing to a string does not fail.
            let _ = write_metric(&mut out, &name, sample, format);
        }
    }
    if format == MetricsFormat::OpenMetrics {
        out.push_str("# EOF\n");
    }
    out
}

fn write_metric(
    out: &mut String,
    name: &str,
    sample: &Sample,
    format: MetricsFormat,
) -> fmt::Result {
    let suffix = match sample.value {
        SampleValue::Counter(_) | SampleValue::Counters(_) | SampleValue::CounterSeconds(_) => {
            "_total"
        }
        SampleValue::Info(_) => "_info",
        _ => "",
    };
    write_descriptor(out, name, suffix, sample, format)?;
    match &sample.value {
        SampleValue::Counter(value) | SampleValue::Gauge(value) => {
            writeln!(out, "{name}{suffix} {value}")
        }
        SampleValue::CounterSeconds(value) | SampleValue::GaugeSeconds(value) => {
            writeln!(out, "{name}{suffix} {value}")
        }
        SampleValue::Counters(values) | SampleValue::Gauges(values) => {
            for (labels, value) in values {
                writeln!(out, "{name}{suffix}{} {value}", LabelSet(labels))?;
            }
            Ok(())
        }
        SampleValue::Info(labels) => writeln!(out, "{name}{suffix}{} 1", LabelSet(labels)),
        SampleValue::Histogram { counts, sum } => write_histogram(out, name, counts, *sum),
    }
}

/// In Prometheus's format a metric is described under the name of its sample, and `info` is a gauge.
/// In OpenMetrics the name has no suffix, and a unit is stated.
fn write_descriptor(
    out: &mut String,
    name: &str,
    suffix: &str,
    sample: &Sample,
    format: MetricsFormat,
) -> fmt::Result {
    let (suffix, kind) = match (format, sample.kind()) {
        (MetricsFormat::Prometheus, "info") => (suffix, "gauge"),
        (MetricsFormat::Prometheus, kind) => (suffix, kind),
        (MetricsFormat::OpenMetrics, kind) => ("", kind),
    };
    writeln!(out, "# HELP {name}{suffix} {}", Escaped(sample.help))?;
    writeln!(out, "# TYPE {name}{suffix} {kind}")?;
    if format == MetricsFormat::OpenMetrics {
        for unit in ["seconds", "bytes"] {
            if name.ends_with(&format!("_{unit}")) {
                writeln!(out, "# UNIT {name} {unit}")?;
            }
        }
    }
    Ok(())
}

/// `counts` are those of the buckets, not cumulative; the last bucket has no bound.
fn write_histogram(out: &mut String, name: &str, counts: &[u64], sum: f64) -> fmt::Result {
    let mut cumulative = 0;
    for (index, count) in counts.iter().enumerate() {
        cumulative += count;
        match BOUNDS_US.get(index) {
            Some(us) => {
                // Exact: microseconds are far below 2^53. Whole seconds are written as 1.0, which is
                // their canonical form in OpenMetrics.
                let bound = *us as f64 / 1e6;
                let fraction = if bound.fract() == 0.0 { ".0" } else { "" };
                writeln!(
                    out,
                    "{name}_bucket{{le=\"{bound}{fraction}\"}} {cumulative}"
                )?;
            }
            None => writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {cumulative}")?,
        }
    }
    writeln!(out, "{name}_sum {sum}")?;
    writeln!(out, "{name}_count {cumulative}")
}

/// Labels in braces; nothing without labels.
struct LabelSet<'a>(&'a Labels);

impl Display for LabelSet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.0.iter().enumerate() {
            let separator = if index == 0 { '{' } else { ',' };
            write!(f, "{separator}{name}=\"{}\"", Escaped(value))?;
        }
        if self.0.is_empty() {
            Ok(())
        } else {
            f.write_char('}')
        }
    }
}

/// A help text or the value of a label.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                '"' => f.write_str("\\\"")?,
                _ => f.write_char(character)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::meter::Histogram;

    fn samples() -> Vec<Sample> {
        let histogram = Histogram::default();
        histogram.observe(std::time::Duration::from_micros(60));
        histogram.observe(std::time::Duration::from_secs(60));
        let polling = (vec![("transport", "polling"), ("protocol", "4")], 1);
        vec![
            Sample::counter("sent_bytes", "Bytes", 3),
            Sample::gauge("rooms", "Rooms", 2),
            Sample::gauges("connections", "Connections", vec![polling]),
            Sample::histogram("append_seconds", "Append", &histogram),
            Sample::info("build", "The build", vec![("version", "1.0")]),
        ]
    }

    #[test]
    fn prometheus_text_describes_each_metric_under_its_full_name() {
        let text = render(&[("hubbub", samples())], MetricsFormat::Prometheus);
        let (before, histogram) = text.split_once("# HELP hubbub_append_seconds").unwrap();
        assert_eq!(
            before,
            "# HELP hubbub_sent_bytes_total Bytes\n\
             # TYPE hubbub_sent_bytes_total counter\n\
             hubbub_sent_bytes_total 3\n\
             # HELP hubbub_rooms Rooms\n\
             # TYPE hubbub_rooms gauge\n\
             hubbub_rooms 2\n\
             # HELP hubbub_connections Connections\n\
             # TYPE hubbub_connections gauge\n\
             hubbub_connections{transport=\"polling\",protocol=\"4\"} 1\n"
        );
        assert!(histogram.ends_with(
            "hubbub_append_seconds_sum 60.00006\n\
             hubbub_append_seconds_count 2\n\
             # HELP hubbub_build_info The build\n\
             # TYPE hubbub_build_info gauge\n\
             hubbub_build_info{version=\"1.0\"} 1\n"
        ));
        for (bound, count) in [
            ("0.00005", 0),
            ("0.0001", 1),
            ("1.0", 1),
            ("10.0", 1),
            ("+Inf", 2),
        ] {
            let line = format!("\nhubbub_append_seconds_bucket{{le=\"{bound}\"}} {count}\n");
            assert!(histogram.contains(&line), "{line} in {histogram}");
        }
    }

    #[test]
    fn openmetrics_states_units_and_ends_with_eof() {
        let text = render(&[("hubbub", samples())], MetricsFormat::OpenMetrics);
        assert!(text.starts_with(
            "# HELP hubbub_sent_bytes Bytes\n\
             # TYPE hubbub_sent_bytes counter\n\
             # UNIT hubbub_sent_bytes bytes\n\
             hubbub_sent_bytes_total 3\n"
        ));
        assert!(
            text.contains("# UNIT hubbub_append_seconds seconds\n"),
            "{text}"
        );
        assert!(text.ends_with(
            "# HELP hubbub_build The build\n\
             # TYPE hubbub_build info\n\
             hubbub_build_info{version=\"1.0\"} 1\n\
             # EOF\n"
        ));
    }

    #[test]
    fn backslashes_quotes_and_line_ends_are_escaped() {
        let sample = Sample::info("build", "a\\b", vec![("version", "\"1\n")]);
        let text = render(&[("hubbub", vec![sample])], MetricsFormat::Prometheus);
        assert!(text.contains("info a\\\\b\n"), "{text}");
        assert!(text.contains("{version=\"\\\"1\\n\"} 1\n"), "{text}");
    }
}
