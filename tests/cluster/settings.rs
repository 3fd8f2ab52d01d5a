//! Settings as users set them: in the environment and on the command line, and the faults that the
//! program reports.

use std::net::TcpListener;

use crate::program::Program;
use hubbub_test_support::server::free_port;

const STRONG: &str = "5f0cbb2fb1c6a1f6e1d0b4f4a1c7e9d85f0cbb2f";

/// Runs `hubbub config --strict`; returns whether it succeeded, and its output.
fn strict(settings: &[(&str, &str)]) -> (bool, String) {
    let (status, printed) = Program::start(&["config", "--strict"], settings).wait_with_status();
    (status.success(), printed)
}

#[test]
fn a_secret_that_can_be_guessed_fails_the_strict_check() {
    let (is_strong, printed) = strict(&[("JWT_SECRET", STRONG)]);
    assert!(is_strong, "{printed}");
    for (key, secret) in [
        ("JWT_SECRET", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
        ("JWT_SECRET", "your-secret-key-here-your-secret-key-here"),
        (
            "BETTER_AUTH_SECRET",
            "Change_Me_To_Something_Long_And_Random_1",
        ),
        ("JWT_SECRET", "abcdefghijabcdefghijabcdefghijabcdefghij"),
    ] {
        let (is_strong, printed) = strict(&[(key, secret)]);
        assert!(!is_strong, "{key}={secret}: {printed}");
        let expected = format!("warning: {key} ");
        assert!(printed.contains(&expected), "{key}={secret}: {printed}");
        assert!(!printed.contains(secret), "{printed}");
    }
}

#[test]
fn a_misspelt_key_of_the_environment_is_named_with_its_nearest_key() {
    for (misspelt, nearest) in [
        ("JWT_SECRTE", "JWT_SECRET"),
        ("ALOWED_ORIGINS", "ALLOWED_ORIGINS"),
        ("REDIS_HOTS", "REDIS_HOST"),
        ("RATE_EVENTS_PER_SECOND", "RATE_EVENTS_PER_SEC"),
        ("HUBBUB_SERVER_PORT", "SERVER_PORT"),
    ] {
        let settings = [("JWT_SECRET", STRONG), (misspelt, "value-8d1f")];
        let (is_right, printed) = strict(&settings);
        assert!(!is_right, "{misspelt}: {printed}");
        let warning = printed
            .lines()
            .find(|line| line.starts_with("warning:") && line.contains(misspelt));
        assert!(
            warning.is_some_and(|line| line.contains(&format!("did you mean {nearest}?"))),
            "{misspelt}: {printed}"
        );
        assert!(!printed.contains("value-8d1f"), "{printed}");
    }
    let foreign = [
        ("JWT_SECRET", STRONG),
        ("PATH", "/bin"),
        ("HOSTNAME", "a"),
        ("LOG_LEVEL", "info"),
        ("NODE_ENV", "production"),
        ("REDIS_PORT_6379_TCP_ADDR", "10.0.0.1"),
    ];
    let (is_right, printed) = strict(&foreign);
    assert!(is_right, "{printed}");
}

#[test]
fn a_command_that_does_not_use_the_settings_of_a_node_refuses_them() {
    for arguments in [
        &["bench", "--port", "7393"][..],
        &["--port", "7393", "bench"],
        &["token", "--user", "ann", "--port", "7393"],
        &["--port", "7393", "token", "--user", "ann"],
        &["config", "--docs", "env", "--port", "7393"],
        &["--port", "7393", "config", "--docs", "env"],
    ] {
        let settings = [("JWT_SECRET", STRONG)];
        let (status, printed) = Program::start(arguments, &settings).wait_with_status();
        assert!(!status.success(), "{arguments:?}: {printed}");
        assert!(printed.contains("--port"), "{arguments:?}: {printed}");
    }
    for arguments in [["config", "--port", "7393"], ["--port", "7393", "config"]] {
        let (status, printed) = Program::start(&arguments, &[]).wait_with_status();
        assert!(status.success(), "{arguments:?}: {printed}");
        assert!(
            printed.contains("SERVER_PORT=7393"),
            "{arguments:?}: {printed}"
        );
    }
}

#[test]
fn a_port_in_use_is_named_with_its_address() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let port = taken.local_addr().unwrap().port().to_string();
    let free = free_port().to_string();
    for (settings, key) in [
        (
            [("SERVER_PORT", port.as_str()), ("METRICS_ADDR", "")],
            "SERVER_PORT",
        ),
        (
            [
                ("SERVER_PORT", free.as_str()),
                ("METRICS_ADDR", address.as_str()),
            ],
            "METRICS_ADDR",
        ),
    ] {
        let (status, printed) = Program::start(&["serve"], &settings).wait_with_status();
        assert!(!status.success(), "{printed}");
        assert!(
            printed.contains(&address) && printed.contains("in use") && printed.contains(key),
            "{printed}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_sets_host_port_and_redis_before_all_other_sources() {
    let settings = [
        ("SERVER_PORT", "1"),
        ("SERVER_HOST", "192.0.2.1"),
        ("REDIS_HOST", "192.0.2.2"),
    ];
    let arguments = [
        "config",
        "--host",
        "127.0.0.1",
        "--port",
        "4321",
        "--redis-url",
        "redis://:hidden-password@127.0.0.1:6390",
    ];
    let (status, printed) = Program::start(&arguments, &settings).wait_with_status();
    assert!(status.success(), "{printed}");
    assert!(
        printed.contains("SERVER_HOST=127.0.0.1\n")
            && printed.contains("SERVER_PORT=4321\n")
            && printed.contains("127.0.0.1:6390")
            && !printed.contains("hidden-password"),
        "{printed}"
    );

    let port = free_port();
    let text = port.to_string();
    let node = Program::start(&["--port", &text], &[("SERVER_PORT", "1")]);
    node.await_ready(([127, 0, 0, 1], port).into()).await;

    let (status, printed) = Program::start(&["serve", "--port", "99999"], &[]).wait_with_status();
    assert!(
        !status.success() && printed.contains("SERVER_PORT"),
        "{printed}"
    );
}
