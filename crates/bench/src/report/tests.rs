//! Tests of the reports.

use super::*;

const TIMES: Quantiles = Quantiles {
    p50: 1.0,
    p90: 2.0,
    p99: 3.0,
    p999: 4.0,
    max: 5.0,
};

fn connecting(failed_attempts: u64) -> Connecting {
    Connecting {
        seconds: 0.5,
        per_second: 20.0,
        time_ms: TIMES,
        failed_attempts,
    }
}

/// A report with all of its optional parts.
fn report() -> Report {
    Report {
        clients: 10,
        rooms: 15,
        rooms_each: 3,
        members: 2.0,
        connecting: connecting(0),
        load: Some(Load {
            seconds: 2.0,
            messages_per_second: 100.0,
            deliveries_per_second: 200.0,
            latency_ms: TIMES,
            acks: Some(Acks {
                per_second: 90.0,
                latency_ms: TIMES,
                refused: 20,
            }),
            generator_cores: 0.25,
        }),
        storm: Some(connecting(7)),
        limits: Vec::new(),
        servers: Some(Servers {
            cores: vec![0.5, 1.0],
            cpu_us_per_connection: 130.0,
            cpu_us_per_delivery: Some(1.5),
            memory_before_bytes: 10_000_000,
            memory_bytes: 10_050_000,
            bytes_more: vec![20_000.0, 30_000.0],
            bytes_per_connection: 5000.0,
        }),
        checked: 400,
        checked_by: CheckedBy::Seq,
        findings: Findings::default(),
        ok: true,
    }
}

#[test]
fn the_keys_of_the_json_report_are_stable() {
    let times = r#"{"p50":1.0,"p90":2.0,"p99":3.0,"p999":4.0,"max":5.0}"#;
    let connecting = format!(r#"{{"seconds":0.5,"per_second":20.0,"time_ms":{times},"#);
    let expected = [
        r#"{"clients":10,"rooms":15,"rooms_each":3,"members":2.0,"#,
        &format!(r#""connecting":{connecting}"failed_attempts":0}},"#),
        r#""load":{"seconds":2.0,"messages_per_second":100.0,"deliveries_per_second":200.0,"#,
        &format!(r#""latency_ms":{times},"#),
        &format!(r#""acks":{{"per_second":90.0,"latency_ms":{times},"refused":20}},"#),
        r#""generator_cores":0.25},"#,
        &format!(r#""storm":{connecting}"failed_attempts":7}},"#),
        r#""servers":{"cores":[0.5,1.0],"cpu_us_per_connection":130.0,"#,
        r#""cpu_us_per_delivery":1.5,"memory_before_bytes":10000000,"#,
        r#""memory_bytes":10050000,"bytes_more":[20000.0,30000.0],"#,
        r#""bytes_per_connection":5000.0},"checked":400,"checked_by":"seq","#,
        r#""findings":{"holes":0,"repeats":0,"disorder":0,"two_orders":0,"#,
        r#""unreadable":0,"refused":0,"unacknowledged":0,"closed":0,"gaps":0},"ok":true}"#,
    ]
    .concat();
    assert_eq!(serde_json::to_string(&report()).unwrap(), expected);
}

#[test]
fn the_text_names_units_and_the_result_of_the_checks() {
    assert_eq!(
        report().to_string(),
        "\
connected   10 clients, 15 rooms of 2 members (3 rooms per client), in 0.50 s: 20/s; \
per client p50 1.00  p90 2.00  p99 3.00  p99.9 4.00  max 5.00 ms
messages    100/s, 200 deliveries/s
latency     p50 1.00  p90 2.00  p99 3.00  p99.9 4.00  max 5.00 ms
acks        90/s, p50 1.00  p90 2.00  p99 3.00  p99.9 4.00  max 5.00 ms; 20 messages refused
storm       10 clients, 15 rooms of 2 members (3 rooms per client), in 0.50 s: 20/s; \
per client p50 1.00  p90 2.00  p99 3.00  p99.9 4.00  max 5.00 ms; \
7 attempts failed and were retried
servers     0.50 + 1.00 cores; CPU 130 µs per connection, 1.50 µs per delivery; \
memory 10.0 MB before, and 5.00 KB per connection
generator   0.25 cores
checked     400 deliveries, by the server's numbers: no message missing, repeated or out of order"
    );
}

#[test]
fn the_text_of_an_idle_run_without_numbers_names_the_findings() {
    let report = Report {
        rooms_each: 1,
        load: None,
        storm: None,
        servers: None,
        checked_by: CheckedBy::Sender,
        findings: Findings {
            holes: 2,
            closed: 1,
            ..Findings::default()
        },
        ok: false,
        ..report()
    };
    assert_eq!(
        report.to_string(),
        "\
connected   10 clients, 15 rooms, in 0.50 s: 20/s; \
per client p50 1.00  p90 2.00  p99 3.00  p99.9 4.00  max 5.00 ms
checked     400 deliveries, only by each sender's own counter: FAILED: holes: 2, closed: 1"
    );
}
