//! Tests of the configuration.

use super::*;

fn load(environment: &[(&str, &str)], dotenv: &str) -> Result<Config, ConfigError> {
    let directory = std::env::temp_dir().join(format!("hubbub-config-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join(".env");
    std::fs::write(&path, dotenv).unwrap();
    let environment = environment
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let config = Config::from_sources(environment, &path);
    std::fs::remove_dir_all(directory).unwrap();
    config
}

fn error(environment: &[(&str, &str)], dotenv: &str) -> String {
    load(environment, dotenv).unwrap_err().to_string()
}

const SECRET: (&str, &str) = ("JWT_SECRET", "0123456789012345678901234567890123456789");

#[test]
fn with_nothing_set_a_node_is_open_on_loopback() {
    let config = load(&[], "").unwrap();
    assert_eq!(config.address.to_string(), "127.0.0.1:8080");
    assert_eq!(
        (config.auth_mode, config.origins, config.redis),
        (AuthMode::Open, Origins::Any, None)
    );
    assert_eq!(config.warnings.len(), 1);
}

#[test]
fn the_environment_wins_over_dotenv() {
    let config = load(
        &[("SERVER_PORT", "9001"), ("PORT", "1")],
        "SERVER_PORT=9002\nHISTORY_SIZE=\"7\"\n",
    )
    .unwrap();
    assert_eq!(
        (config.address.port(), config.settings.history_size),
        (9001, 7)
    );
    assert_eq!(load(&[("PORT", "9003")], "").unwrap().address.port(), 9003);
}

#[test]
fn toml_comes_last() {
    let path = std::env::temp_dir().join(format!("hubbub-{}.toml", uuid::Uuid::new_v4()));
    std::fs::write(&path, "history_size = 5\nmax_rooms = 9\n").unwrap();
    let file = ("HUBBUB_CONFIG", path.to_str().unwrap());
    let config = load(&[file], "MAX_ROOMS=8").unwrap();
    assert_eq!(
        (config.settings.history_size, config.settings.max_rooms),
        (5, 8)
    );
    std::fs::write(&path, "history = 5\n").unwrap();
    assert!(error(&[file], "").contains("history is not a key"));
    std::fs::write(&path, "jwt_secret = hunter2\n").unwrap();
    assert!(!error(&[file], "").contains("hunter2"));
    std::fs::write(&path, "history_size = \n").unwrap();
    assert!(error(&[file], "").contains("HUBBUB_CONFIG"));
    std::fs::remove_file(&path).unwrap();
    assert!(error(&[file], "").contains("HUBBUB_CONFIG"));
}

#[test]
fn what_is_wrong_is_said_with_its_key() {
    for (key, value) in [
        ("SERVER_PORT", "http"),
        ("SERVER_PORT", "70000"),
        ("HISTORY_SIZE", "-1"),
        ("HISTORY_SIZE", "0"),
        ("AUTH_MODE", "none"),
        ("LOG_FORMAT", "xml"),
        ("REDIS_URL", "http://a"),
        ("METRICS_ADDR", "9100"),
        ("TRUSTED_PROXIES", "10.0.0.0/8,proxy"),
        ("JWT_SECRET", "short"),
        ("JWT_LEEWAY_SECS", "31"),
        ("API_KEYS", "fine,sha256:abc"),
        ("AUTHORIZE_URL", "allow.example.com"),
        ("AUTHORIZE_URL", "http://"),
        ("AUTHORIZE_SECRET", "of nobody"),
        ("AUTHORIZE_TIMEOUT_MS", "0"),
        ("AUTHORIZE_TIMEOUT_MS", "10001"),
        ("AUTHORIZE_CACHE_SECS", "3601"),
        ("SERVER_HOST", "not a host"),
        ("MAX_OUTBOX_BYTES", "10"),
        ("MAX_EVENT_BYTES", "9223372036854775808"),
        ("TLS_CERT", "cert.pem"),
        ("TLS_KEY", "key.pem"),
        ("REDIS_CA", "ca.pem"),
        ("DEDUPE_TTL_SECS", "18446744073709551615"),
    ] {
        let message = error(&[(key, value)], "");
        assert!(message.contains(key), "{key}={value}: {message}");
    }
    assert!(error(&[], "HISTROY_SIZE=5").contains("HISTROY_SIZE"));
    assert!(error(&[("HISTORY_SIZE", "x")], "").contains("the environment"));
    let secret_line = error(&[], "JWT_SECRET='unfinished");
    assert!(secret_line.contains(".env") && !secret_line.contains("unfinished"));
}

#[test]
fn a_public_address_needs_a_secret_or_a_word() {
    let public = ("SERVER_HOST", "0.0.0.0");
    assert!(error(&[public], "").contains("JWT_SECRET"));
    assert_eq!(
        load(&[public, ("AUTH_MODE", "open")], "")
            .unwrap()
            .auth_mode,
        AuthMode::Open
    );
    let config = load(&[public, SECRET], "").unwrap();
    assert_eq!(
        (config.auth_mode, config.origins),
        (AuthMode::Jwt, Origins::Listed(vec![]))
    );
    assert!(error(&[("AUTH_MODE", "jwt")], "").contains("JWT_SECRET"));
}

#[test]
fn tokens_are_checked_by_keys_of_one_kind() {
    let key = |name: &str| format!("{}/src/auth/testdata/{name}", env!("CARGO_MANIFEST_DIR"));
    let (rsa, private, short) = (key("rsa.pub.pem"), key("rsa.pem"), key("rsa-1024.pub.pem"));
    let pem = |path| ("JWT_PUBLIC_KEY_FILE", path);
    let (rs256, url) = (
        ("JWT_ALGORITHM", "RS256"),
        ("JWT_JWKS_URL", "https://app.example.com/api/auth/jwks"),
    );
    let mode = |environment: &[_]| load(environment, "").unwrap().auth_mode;
    assert_eq!(mode(&[pem(rsa.as_str()), rs256]), AuthMode::Jwt);
    assert_eq!(
        mode(&[url, ("JWT_ALGORITHM", "EdDSA, RS256")]),
        AuthMode::Jwt
    );
    assert_eq!(mode(&[("BETTER_AUTH_SECRET", SECRET.1)]), AuthMode::Jwt);
    // An application's own secret beside its public keys is none of ours.
    let config = load(
        &[
            ("BETTER_AUTH_SECRET", SECRET.1),
            url,
            ("JWT_ALGORITHM", "EdDSA"),
        ],
        "",
    )
    .unwrap();
    assert!(matches!(
        config.tokens.unwrap().keys,
        crate::auth::KeySource::Url(_)
    ));
    for (environment, said) in [
        (vec![SECRET, url], "JWT_SECRET and JWT_JWKS_URL"),
        (vec![url], "JWT_ALGORITHM is needed"),
        (
            vec![url, ("JWT_ALGORITHM", "HS256")],
            "JWT_ALGORITHM doesn't go",
        ),
        (
            vec![url, ("JWT_ALGORITHM", "none")],
            "JWT_ALGORITHM must be",
        ),
        (vec![SECRET, rs256], "JWT_ALGORITHM doesn't go"),
        (
            vec![SECRET, ("JWT_SECRET_PREVIOUS", "short")],
            "JWT_SECRET_PREVIOUS can't be used",
        ),
        (
            vec![("JWT_SECRET_PREVIOUS", SECRET.1)],
            "JWT_SECRET_PREVIOUS means nothing",
        ),
        (
            vec![pem(private.as_str()), rs256],
            "JWT_PUBLIC_KEY_FILE can't be used",
        ),
        (
            vec![pem(short.as_str()), rs256],
            "JWT_PUBLIC_KEY_FILE can't be used",
        ),
        (
            vec![pem(rsa.as_str()), ("JWT_ALGORITHM", "EdDSA")],
            "JWT_PUBLIC_KEY_FILE can't be used",
        ),
        (
            vec![pem("/nonexistent"), rs256],
            "JWT_PUBLIC_KEY_FILE names",
        ),
        (
            vec![("JWT_JWKS_FILE", rsa.as_str()), rs256],
            "JWT_JWKS_FILE can't be used",
        ),
        (
            vec![("JWT_JWKS_URL", "ftp://a/b"), rs256],
            "JWT_JWKS_URL must be",
        ),
        (
            vec![("JWT_JWKS_URL", "https://ann:secret@a/b"), rs256],
            "JWT_JWKS_URL must be",
        ),
    ] {
        let message = error(&environment, "");
        assert!(
            message.contains(said) && !message.contains(":secret@"),
            "{environment:?}: {message}"
        );
    }
}

#[test]
fn a_published_set_over_plain_http_is_warned_of() {
    let warnings = |url| {
        load(&[("JWT_JWKS_URL", url), ("JWT_ALGORITHM", "EdDSA")], "")
            .unwrap()
            .warnings
            .len()
    };
    assert_eq!(warnings("http://auth.example.com/jwks"), 1);
    for fine in [
        "https://auth.example.com/jwks",
        "http://127.0.0.1/jwks",
        "http://[::1]:1/jwks",
        "http://localhost/jwks",
    ] {
        assert_eq!(warnings(fine), 0, "{fine}");
    }
}

#[test]
fn a_secret_of_digits_stays_text() {
    let config = load(&[SECRET], "API_KEYS=007,abc").unwrap();
    assert_eq!(config.settings.jwt_secret.as_deref(), Some(SECRET.1));
    let keys = config.api_keys().unwrap();
    assert!(keys.contains("007") && keys.contains("abc") && !keys.contains("7"));
}

#[test]
fn secrets_are_not_shown() {
    let config = load(
        &[
            SECRET,
            (
                "REDIS_URL",
                "redis://user:hunter2@host:1/0?sentinelPassword=hunter3#hunter4",
            ),
        ],
        "",
    )
    .unwrap();
    let shown = config.render();
    assert!(
        !shown.contains(SECRET.1) && !shown.contains("hunter"),
        "{shown}"
    );
    assert!(shown.contains("JWT_SECRET=***") && shown.contains("AUTH_MODE=jwt"));
}

#[test]
fn redis_is_put_together_from_its_parts() {
    let redis = |environment: &[_]| load(environment, "").unwrap().redis.unwrap();
    assert_eq!(redis(&[("REDIS_HOST", "r")]), "redis://r:6379");
    assert_eq!(
        redis(&[("REDIS_HOST", "r"), ("REDIS_PASSWORD", "")]),
        "redis://r:6379"
    );
    assert_eq!(
        redis(&[("REDIS_HOST", "r"), ("REDIS_PASSWORD", "p@s s")]),
        "redis://:p%40s%20s@r:6379"
    );
    assert_eq!(
        redis(&[("REDIS_HOST", "r"), ("REDIS_URL", "redis://x")]),
        "redis://x"
    );
}

#[test]
fn rates_follow_from_those_of_a_socket() {
    let config = load(&[], "").unwrap();
    assert_eq!(config.limits().socket, Limits::default().socket);
    assert_eq!(config.limits().user, Limits::default().user);
    assert!(
        config.address_rates().are_off(),
        "nobody said whose address is whose"
    );
    let raised = load(
        &[
            ("RATE_EVENTS_PER_SEC", "1000"),
            ("RATE_USER_JOINS_PER_SEC", "7"),
        ],
        "",
    )
    .unwrap();
    assert_eq!(
        (
            raised.user_rates().events.per_sec,
            raised.user_rates().joins.per_sec
        ),
        (8000, 7)
    );
    let direct = load(&[("TRUSTED_PROXIES", "none")], "").unwrap();
    assert_eq!(
        (
            direct.address_rates().events.per_sec,
            direct.address_rates().connects.burst
        ),
        (2000, 5000)
    );
    let off = load(
        &[
            ("RATE_EVENTS_PER_SEC", "0"),
            ("RATE_USER_CONNECTS_PER_SEC", "0"),
        ],
        "",
    )
    .unwrap();
    assert!(off.socket_rates().are_off() && off.user_rates().are_off());
    assert!(error(&[("RATE_POSTS_PER_SEC", "many")], "").contains("RATE_POSTS_PER_SEC"));
}

#[test]
fn the_example_is_a_configuration() {
    let example =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/.env.example")).unwrap();
    load(&[], &example).unwrap();
    // Every key is explained there, set or commented out.
    for key in Settings::KEYS {
        assert!(
            example.contains(&key.to_uppercase()),
            "{key} is missing in .env.example"
        );
    }
    // And what is commented out would be understood, too.
    let commented = example
        .lines()
        .filter_map(|line| line.trim_start_matches(['#', ' ']).split_once('='));
    for (key, _) in commented.filter(|(key, _)| {
        !key.is_empty() && key.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')
    }) {
        let known = Settings::KEYS.contains(&key.to_lowercase().as_str());
        assert!(
            known || ["PORT", "HUBBUB_CONFIG"].contains(&key),
            "{key} in .env.example is not a key"
        );
    }
}

#[test]
fn an_error_names_the_key_and_never_shows_the_value() {
    const VALUES: [&str; 3] = [
        "hunter2",
        "hunter2 hunter2,[{(hunter2",
        "https://hunter2:hunter2@a/?hunter2",
    ];
    let mut faults = Vec::new();
    for key in Settings::KEYS {
        let key = key.to_uppercase();
        for value in VALUES {
            // With the keys that this one needs to be looked at.
            let mut environment = vec![(key.as_str(), value)];
            match key.as_str() {
                "TLS_CERT" => environment.push(("TLS_KEY", "key.pem")),
                "JWT_PUBLIC_KEY_FILE" | "JWT_JWKS_FILE" => {
                    environment.push(("JWT_ALGORITHM", "RS256"));
                }
                _ => {}
            }
            let Err(error) = load(&environment, "") else {
                continue;
            };
            let message = error.to_string();
            if !message.contains(&key) || message.contains("hunter2") {
                faults.push(format!("{key}={value}: {message}"));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}
