//! Collects the samples of all parts for `/metrics`.

use std::sync::Arc;

use super::archive::NodeArchive;
use super::lifecycle::ClientConnections;
use crate::backplane::Backplane;
use crate::delivery::Delivery;
use crate::features::messages::Messages;
use crate::features::messaging::Messaging;
use crate::gateway::connections::Connections;
use crate::gateway::connections::metrics::transport_samples;
use crate::gateway::socketio::metrics as engine_io;
use crate::outbox;
use crate::server::admission::Admission;
use crate::telemetry::exposition::{self, MetricsFormat};
use crate::telemetry::process;
use crate::telemetry::sample::Sample;

/// The parts that have metrics.
pub(super) struct Metrics {
    pub connections: ClientConnections,
    pub admission: Arc<Admission>,
    pub events: Arc<Connections>,
    pub messaging: Arc<Messaging>,
    pub messages: Option<Arc<Messages>>,
    pub delivery: Arc<Delivery>,
    pub backplane: Backplane,
    pub archive: Option<Arc<NodeArchive>>,
    pub outbox: Option<Arc<outbox::Worker>>,
    pub jobs: Option<Arc<outbox::JobRunner>>,
}

impl Metrics {
    /// The text of `/metrics`. May block for a while when many files are open.
    pub fn render(&self, format: MetricsFormat) -> String {
        let groups = [("hubbub", self.samples()), ("process", process::samples())];
        exposition::render(&groups, format)
    }

    fn samples(&self) -> Vec<Sample> {
        let ClientConnections { control, plain } = &self.connections;
        let mut open = engine_io::open(control);
        open.extend(plain.open_by_protocol());
        let mut counts = engine_io::counts(control);
        counts += plain.counts();
        let mut samples = transport_samples(open, counts);
        samples.extend(engine_io::samples(control));
        samples.extend(self.admission.samples());
        samples.extend(self.events.samples());
        samples.extend(self.messaging.samples());
        samples.extend(self.delivery.samples());
        samples.extend(backplane_samples(&self.backplane));
        if let Some(archive) = &self.archive {
            samples.extend(archive.samples());
        }
        if let Some(messages) = &self.messages {
            samples.extend(messages.samples());
        }
        if let Some(outbox) = &self.outbox {
            samples.extend(outbox.samples());
        }
        if let Some(jobs) = &self.jobs {
            samples.extend(jobs.samples());
        }
        let build = vec![("version", env!("CARGO_PKG_VERSION"))];
        samples.push(Sample::info("build", "The version of hubbub", build));
        samples
    }
}

/// The backplane's numbers as metrics. It may not use telemetry itself, and offers plain data.
fn backplane_samples(backplane: &Backplane) -> Vec<Sample> {
    let counters = backplane.lifecycle.counters();
    vec![
        Sample::gauge(
            "ready",
            "1 while the backplane is available, otherwise 0",
            u64::from(backplane.lifecycle.is_up()),
        ),
        Sample::counter(
            "bus_interruptions",
            "Interrupted subscriptions to the bus",
            counters.interruptions,
        ),
        Sample::counter("redis_round_trips", "Calls to Redis", counters.round_trips),
        Sample::counter(
            "redis_errors",
            "Calls to Redis that failed",
            counters.errors,
        ),
        Sample::counter(
            "presence_changes",
            "Changes of presence that this node caused: users coming and going",
            counters.presence_changes,
        ),
        Sample::counter(
            "log_scrubs",
            "Logs in Redis from which texts of deleted messages were removed",
            counters.log_scrubs,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::app::build::Parts;
    use crate::config::Config;
    use crate::config::generated::{assert_current, repository_file};
    /// Every metric with its kind. Dashboards and alarms rely on these names.
    const METRICS: [(&str, &str); 74] = [
        ("append_seconds", "histogram"),
        ("archive_backlog", "gauge"),
        ("archive_backlog_bytes", "gauge"),
        ("archive_checks", "counter"),
        ("archive_commit_failures", "counter"),
        ("archive_commit_seconds", "histogram"),
        ("archive_commits", "counter"),
        ("archive_conflicts", "counter"),
        ("archive_deleted", "counter"),
        ("archive_gaps", "counter"),
        ("archive_head_mismatches", "counter"),
        ("archive_lag_seconds", "gauge"),
        ("archive_late", "counter"),
        ("archive_left_behind", "gauge"),
        ("archive_lost", "counter"),
        ("archive_refused", "counter"),
        ("archive_rejected", "counter"),
        ("archive_rejected_waiting", "gauge"),
        ("archive_restored_rooms", "counter"),
        ("archive_retention_overdue", "gauge"),
        ("archive_swept", "counter"),
        ("archive_up", "gauge"),
        ("archived", "counter"),
        ("build", "info"),
        ("bus_interruptions", "counter"),
        ("bus_overruns", "counter"),
        ("catch_ups", "counter"),
        ("change_publish_seconds", "histogram"),
        ("connections", "gauge"),
        ("database_connections", "gauge"),
        ("database_connections_idle", "gauge"),
        ("database_connections_in_use", "gauge"),
        ("database_waiting", "gauge"),
        ("delivery_seconds", "histogram"),
        ("events_dropped", "counter"),
        ("events_rate_limited", "counter"),
        ("events_received", "counter"),
        ("events_refused", "counter"),
        ("heartbeat_timeouts", "counter"),
        ("jobs_completed", "counter"),
        ("jobs_failed", "counter"),
        ("jobs_retried", "counter"),
        ("joins", "counter"),
        ("kept_bytes", "gauge"),
        ("log_scrubs", "counter"),
        ("message_changes", "counter"),
        ("messages_duplicate", "counter"),
        ("messages_in", "counter"),
        ("messages_out", "counter"),
        ("messages_without_mentions", "counter"),
        ("outbox_failed", "counter"),
        ("outbox_published", "counter"),
        ("outbox_retries", "counter"),
        ("packets_received", "counter"),
        ("packets_sent", "counter"),
        ("presence_changes", "counter"),
        ("reactions_waiting", "gauge"),
        ("ready", "gauge"),
        ("received_bytes", "counter"),
        ("redis_errors", "counter"),
        ("redis_round_trips", "counter"),
        ("replay_reads", "counter"),
        ("replays", "counter"),
        ("replays_outrun", "counter"),
        ("room_resets", "counter"),
        ("rooms", "gauge"),
        ("sent_bytes", "counter"),
        ("sessions_evicted", "counter"),
        ("sessions_opened", "counter"),
        ("sessions_refused", "counter"),
        ("slow_consumers", "counter"),
        ("sockets_closed_rate_limited", "counter"),
        ("upgrades", "counter"),
        ("websockets_boxed", "counter"),
    ];

    const BEGIN: &str = "<!-- metrics -->\n";
    const END: &str = "<!-- /metrics -->";

    async fn samples() -> Vec<Sample> {
        let database = ("DATABASE_URL".to_owned(), "sqlite::memory:".to_owned());
        let environment = BTreeMap::from([database]);
        let config = Config::from_sources(environment, Path::new("/nonexistent/.env")).unwrap();
        let parts = Parts::start(&config).await.unwrap();
        parts.metrics().samples()
    }

    #[tokio::test]
    async fn the_names_and_kinds_of_metrics_stay_as_they_are() {
        let samples = samples().await;
        let mut metrics: Vec<_> = samples.iter().map(|s| (s.name, s.kind())).collect();
        metrics.sort_unstable();
        assert_eq!(metrics, METRICS);
    }

    #[tokio::test]
    async fn every_metric_has_a_help_text_in_one_line_without_a_full_stop() {
        for Sample { name, help, .. } in samples().await {
            assert!(help.len() > 10 && !help.ends_with('.'), "{name}: {help}");
            assert!(
                !help.contains(['\n', '|']) && !help.contains("  "),
                "{name}: {help}"
            );
        }
    }

    /// The table stands between two markers, in whichever document is for operators.
    #[tokio::test]
    async fn generated_table_of_metrics_is_committed() {
        let mut table = "| metric | kind | description |\n| --- | --- | --- |\n".to_owned();
        for sample in samples().await {
            let Sample { name, help, .. } = &sample;
            table += &format!("| `{name}` | {} | {help} |\n", sample.kind());
        }
        let (path, text) = document();
        let (before, rest) = text.split_once(BEGIN).unwrap();
        let (_, after) = rest.split_once(END).unwrap();
        assert_current(&path, &format!("{before}{BEGIN}{table}{END}{after}"));
    }

    /// The one document with the markers: its path and its text.
    fn document() -> (String, String) {
        let mut paths = vec!["README.md".to_owned()];
        for entry in std::fs::read_dir(repository_file("docs")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".md") {
                paths.push(format!("docs/{name}"));
            }
        }
        let texts = paths.into_iter().map(|path| {
            let text = std::fs::read_to_string(repository_file(&path)).unwrap();
            (path, text)
        });
        let mut found: Vec<_> = texts.filter(|(_, text)| text.contains(BEGIN)).collect();
        assert_eq!(found.len(), 1, "one document has the table of metrics");
        found.remove(0)
    }
}
