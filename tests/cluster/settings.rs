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

/// Variables that shells, CI systems, Docker, Kubernetes and Heroku set.
const FOREIGN: &[(&str, &str)] = &[
    ("CI", "true"),
    ("CI_COMMIT_SHA", "5f0cbb2f"),
    ("CI_SERVER_HOST", "gitlab.example.com"),
    ("CI_SERVER_PORT", "443"),
    ("COLUMNS", "80"),
    ("DOCKER_CERT_PATH", "/certs/client"),
    ("DOCKER_HOST", "tcp://docker:2376"),
    ("DOCKER_TLS_CERTDIR", "/certs"),
    ("DYNO", "web.1"),
    ("EDITOR", "vi"),
    ("GITHUB_ACTIONS", "true"),
    ("GITHUB_SERVER_URL", "https://github.example.com"),
    ("HEROKU_APP_NAME", "app"),
    ("HISTFILE", "/root/.zsh_history"),
    ("HISTFILESIZE", "2000"),
    ("HISTORY_FILE", "/root/.history"),
    ("HISTSIZE", "1000"),
    ("HOME", "/root"),
    ("HOSTNAME", "a"),
    ("INVOCATION_ID", "5f0cbb2fb1c6a1f6e1d0b4f4a1c7e9d8"),
    ("KUBERNETES_PORT", "tcp://10.0.0.1:443"),
    ("KUBERNETES_PORT_443_TCP", "tcp://10.0.0.1:443"),
    ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
    ("KUBERNETES_SERVICE_PORT", "443"),
    ("KUBERNETES_SERVICE_PORT_HTTPS", "443"),
    ("LANG", "C.UTF-8"),
    ("LC_ALL", "C"),
    ("LOGNAME", "root"),
    ("LOG_FILE", "/var/log/app"),
    ("LOG_LEVEL", "info"),
    ("NODE_ENV", "production"),
    ("NODE_NAME", "worker-1"),
    ("NOTIFY_SOCKET", "/run/systemd/notify"),
    ("OTEL_SERVICE_NAME", "hubbub"),
    ("PATH", "/bin"),
    ("POD_IP", "10.0.0.2"),
    ("POD_NAME", "hubbub-0"),
    ("POD_NAMESPACE", "hubbub"),
    ("PORT", "8080"),
    ("PS1", "$ "),
    ("PWD", "/"),
    ("REDIS_CERT", "/etc/redis.crt"),
    ("REDIS_DB", "0"),
    ("REDIS_TLS_URL", "rediss://10.0.0.1:6380"),
    ("REDIS_USER", "app"),
    ("RUNNER_TEMP", "/tmp"),
    ("RUST_BACKTRACE", "1"),
    ("SERVER_NAME", "a"),
    ("SHELL", "/bin/bash"),
    ("SHLVL", "1"),
    ("SSH_AUTH_SOCK", "/tmp/agent"),
    ("SSL_CERT_DIR", "/etc/ssl/certs"),
    ("SSL_CERT_FILE", "/etc/ssl/cert.pem"),
    ("TERM", "xterm"),
    ("TMPDIR", "/tmp"),
    ("TZ", "UTC"),
    ("USER", "root"),
    ("XDG_RUNTIME_DIR", "/run/user/0"),
    // The links of Kubernetes to Services named hubbub, hubbub-redis, hubbub-server and redis.
    ("HUBBUB_PORT", "tcp://10.0.0.1:8080"),
    ("HUBBUB_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
    ("HUBBUB_PORT_8080_TCP_ADDR", "10.0.0.1"),
    ("HUBBUB_PORT_8080_TCP_PORT", "8080"),
    ("HUBBUB_PORT_8080_TCP_PROTO", "tcp"),
    ("HUBBUB_SERVICE_HOST", "10.0.0.1"),
    ("HUBBUB_SERVICE_PORT", "8080"),
    ("HUBBUB_SERVICE_PORT_HTTP", "8080"),
    ("HUBBUB_REDIS_PORT", "tcp://10.0.0.1:6379"),
    ("HUBBUB_REDIS_SERVICE_HOST", "10.0.0.1"),
    ("HUBBUB_SERVER_PORT", "udp://10.0.0.1:8080"),
    ("REDIS_PORT_6379_TCP", "tcp://10.0.0.1:6379"),
    ("REDIS_PORT_6379_TCP_ADDR", "10.0.0.1"),
    ("REDIS_PORT_6379_TCP_PORT", "6379"),
    ("REDIS_PORT_6379_TCP_PROTO", "tcp"),
    ("REDIS_SERVICE_HOST", "10.0.0.1"),
    ("REDIS_SERVICE_PORT", "6379"),
    ("REDIS_SERVICE_PORT_REDIS", "6379"),
];

#[test]
fn variables_of_shells_ci_and_platforms_cause_no_warning() {
    let settings: Vec<_> = [("JWT_SECRET", STRONG)]
        .into_iter()
        .chain(FOREIGN.iter().copied())
        .collect();
    let (is_right, printed) = strict(&settings);
    assert!(is_right, "{printed}");
}

#[test]
fn a_service_link_in_place_of_a_port_is_explained() {
    for key in ["REDIS_PORT", "SERVER_PORT"] {
        let settings = [("JWT_SECRET", STRONG), (key, "tcp://10.0.0.1:6379")];
        let (is_right, printed) = strict(&settings);
        assert!(!is_right, "{printed}");
        assert!(
            printed.contains(key)
                && printed.contains("enableServiceLinks: false")
                && printed.contains("in the environment")
                && !printed.contains("10.0.0.1"),
            "{printed}"
        );
    }
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
