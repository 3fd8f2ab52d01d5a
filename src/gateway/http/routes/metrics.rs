//! `/metrics`, in the format that the caller prefers.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE, VARY};

use super::super::extract::UnlimitedService;
use super::super::{HttpState, SharedState};
use crate::domain::{Code, Refusal};
use crate::telemetry::exposition::MetricsFormat;

/// `GET /metrics`.
pub(in crate::gateway::http) async fn get(
    State(state): SharedState,
    _: UnlimitedService,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    text(&state, &headers).await
}

/// `GET /metrics` on the separate address, which authenticates no caller.
pub(in crate::gateway::http) async fn unauthenticated(
    State(state): SharedState,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    text(&state, &headers).await
}

async fn text(state: &HttpState, headers: &HeaderMap) -> Result<Response, Refusal> {
    let format = preferred(headers);
    let metrics = state.metrics.clone();
    // Blocking, because it reads files.
    let text = tokio::task::spawn_blocking(move || metrics(format))
        .await
        .map_err(|_| Refusal::new(Code::Internal, "the metrics can't be read"))?;
    let headers = [(CONTENT_TYPE, format.content_type()), (VARY, "Accept")];
    Ok((headers, text).into_response())
}

/// The format that `Accept` prefers. Prometheus's text for a caller that accepts everything, that
/// accepts neither, or that states no preference between the two.
fn preferred(headers: &HeaderMap) -> MetricsFormat {
    let mut prometheus = Quality::default();
    let mut openmetrics = Quality::default();
    let lines = headers.get_all(ACCEPT).iter();
    let ranges = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','));
    for range in ranges {
        let range = MediaRange::parse(range);
        match range.name.as_str() {
            "application/openmetrics-text" if range.has_version(&["1.0.0", "0.0.1"]) => {
                openmetrics.add(2, range.quality);
            }
            "application/*" => openmetrics.add(1, range.quality),
            "text/plain" => prometheus.add(2, range.quality),
            "text/*" => prometheus.add(1, range.quality),
            "*/*" => {
                prometheus.add(0, range.quality);
                openmetrics.add(0, range.quality);
            }
            _ => {}
        }
    }
    if openmetrics.value > prometheus.value {
        MetricsFormat::OpenMetrics
    } else {
        MetricsFormat::Prometheus
    }
}

/// The quality of a format, from the most specific range that includes it. Of equally specific ones
/// the highest counts: they differ in versions.
#[derive(Default)]
struct Quality {
    specificity: u8,
    value: f32,
}

impl Quality {
    fn add(&mut self, specificity: u8, value: f32) {
        if specificity > self.specificity {
            *self = Self { specificity, value };
        } else if specificity == self.specificity {
            self.value = self.value.max(value);
        }
    }
}

/// An entry of `Accept`.
struct MediaRange<'a> {
    name: String,
    version: Option<&'a str>,
    quality: f32,
}

impl<'a> MediaRange<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let mut range = Self {
            name: parts.next().unwrap_or_default().to_ascii_lowercase(),
            version: None,
            quality: 1.0,
        };
        for parameter in parts {
            let Some((key, value)) = parameter.split_once('=') else {
                continue;
            };
            let value = value.trim().trim_matches('"');
            match key.trim().to_ascii_lowercase().as_str() {
                "version" => range.version = Some(value),
                // A malformed quality counts as none.
                "q" => range.quality = value.parse().unwrap_or(0.0),
                _ => {}
            }
        }
        range
    }

    fn has_version(&self, versions: &[&str]) -> bool {
        self.version
            .is_none_or(|version| versions.contains(&version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_follows_accept() {
        use MetricsFormat::{OpenMetrics, Prometheus};
        for (accept, expected) in [
            ("", Prometheus),
            ("*/*", Prometheus),
            ("text/plain", Prometheus),
            ("application/json", Prometheus),
            (
                "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
                Prometheus,
            ),
            ("application/openmetrics-text", OpenMetrics),
            (
                "Application/OpenMetrics-Text; Version=\"1.0.0\"",
                OpenMetrics,
            ),
            // Prometheus 2, Prometheus 3, and Prometheus 3 with protobuf first.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;\
                 version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                OpenMetrics,
            ),
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                 application/openmetrics-text;version=0.0.1;q=0.4,\
                 text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
                 text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                OpenMetrics,
            ),
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
                 encoding=delimited;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5,\
                 text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                OpenMetrics,
            ),
            // A scraper that is configured to prefer Prometheus's text.
            (
                "text/plain;version=0.0.4;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5",
                Prometheus,
            ),
            ("text/plain, application/openmetrics-text", Prometheus),
            (
                "application/openmetrics-text;q=0, text/plain;q=0.1",
                Prometheus,
            ),
            ("application/openmetrics-text;q=0", Prometheus),
            (
                "application/openmetrics-text;version=2.0.0, */*;q=0.1",
                Prometheus,
            ),
            ("text/plain;q=0, */*", OpenMetrics),
            ("text/*;q=0.5, application/*", OpenMetrics),
            (
                "application/openmetrics-text;q=high, text/plain;q=0.1",
                Prometheus,
            ),
        ] {
            let mut headers = HeaderMap::new();
            if !accept.is_empty() {
                headers.insert(ACCEPT, accept.parse().unwrap());
            }
            assert_eq!(preferred(&headers), expected, "{accept}");
        }
    }
}
