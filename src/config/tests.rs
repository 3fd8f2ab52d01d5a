//! Tests of the whole configuration: sources, precedence, errors and derived values.

use super::*;
use crate::config::generated::repository_file;
use crate::config::identity::AuthMode;
use crate::config::key::{KeyDefault, Unit};
use crate::gateway::origins::Origins;

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
    assert_eq!(config.server.address.to_string(), "127.0.0.1:8080");
    assert_eq!(
        (config.identity.mode, config.origins.origins),
        (AuthMode::Open, Origins::Any)
    );
    assert!(config.redis.is_none());
    assert_eq!(config.warnings.len(), 1);
}

#[test]
fn the_environment_takes_precedence_over_dotenv() {
    let config = load(
        &[("SERVER_PORT", "9001"), ("PORT", "1")],
        "SERVER_PORT=9002\nHISTORY_SIZE=\"7\"\n",
    )
    .unwrap();
    assert_eq!(
        (config.server.address.port(), config.backplane.history_size),
        (9001, 7)
    );
    let platform = load(&[("PORT", "9003")], "").unwrap();
    assert_eq!(platform.server.address.port(), 9003);
}

#[test]
fn dotenv_takes_precedence_over_the_toml_file() {
    let path = std::env::temp_dir().join(format!("hubbub-{}.toml", uuid::Uuid::new_v4()));
    std::fs::write(&path, "history_size = 5\nmax_rooms = 9\n").unwrap();
    let file = ("HUBBUB_CONFIG", path.to_str().unwrap());
    let config = load(&[file], "MAX_ROOMS=8").unwrap();
    assert_eq!(
        (config.backplane.history_size, config.backplane.rooms),
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
fn every_error_names_its_key() {
    for (key, value) in [
        ("SERVER_PORT", "http"),
        ("SERVER_PORT", "70000"),
        ("HISTORY_SIZE", "-1"),
        ("HISTORY_SIZE", "0"),
        ("AUTH_MODE", "none"),
        ("LOG_FORMAT", "xml"),
        ("REDIS_URL", "http://a"),
        ("REDIS_PREFIX", "a{b"),
        ("REDIS_PREFIX", "*"),
        ("METRICS_ADDR", "9100"),
        ("TRUSTED_PROXIES", "10.0.0.0/8,proxy"),
        ("ALLOWED_ORIGINS", "*.example.com"),
        ("ALLOWED_ORIGINS", "https://a.example,https://*.b.example"),
        ("ALLOWED_ORIGINS", "chat.example.com"),
        ("ALLOWED_ORIGINS", "https://a.example/app"),
        ("KEEP_ALIVE_SECS", "0"),
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
fn allowed_origins_are_origins_and_no_patterns() {
    let origins = |list| {
        load(&[("ALLOWED_ORIGINS", list)], "")
            .unwrap()
            .origins
            .origins
    };
    assert_eq!(
        origins("HTTPS://Chat.Example.com:443/, capacitor://localhost,file://,null"),
        origins("https://chat.example.com,capacitor://LOCALHOST/,FILE://,NULL")
    );
    assert_eq!(origins("*"), Origins::Any);
    let message = error(
        &[],
        "ALLOWED_ORIGINS=https://a.example,https://*.hunter2.example",
    );
    assert!(
        message.starts_with("ALLOWED_ORIGINS entry 2 is a pattern") && !message.contains("hunter2"),
        "{message}"
    );
}

#[test]
fn idle_connections_are_kept_longer_than_load_balancers_keep_them() {
    let seconds = |environment: &[_]| load(environment, "").unwrap().server.keep_alive.as_secs();
    assert_eq!(seconds(&[]), 75);
    assert_eq!(seconds(&[("KEEP_ALIVE_SECS", "20")]), 20);
}

#[test]
fn key_files_with_a_byte_order_mark_are_read() {
    let file = std::env::temp_dir().join(format!("hubbub-{}", uuid::Uuid::new_v4()));
    let path = file.to_str().unwrap();
    let pem = |name: &str| {
        let path = format!("{}/src/auth/testdata/{name}", env!("CARGO_MANIFEST_DIR"));
        format!("\u{feff}{}", std::fs::read_to_string(path).unwrap())
    };
    for (key, algorithm, text) in [
        ("JWT_PUBLIC_KEY_FILE", "RS256", pem("rsa.pub.pem")),
        ("JWT_PUBLIC_KEY_FILE", "ES256", pem("ec.pub.pem")),
        ("JWT_PUBLIC_KEY_FILE", "EdDSA", pem("ed.pub.pem")),
        (
            "JWT_JWKS_FILE",
            "EdDSA",
            "\u{feff}{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\
             \"x\":\"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc\"}]}"
                .to_owned(),
        ),
    ] {
        let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        for bytes in [text.as_bytes(), &utf16] {
            std::fs::write(&file, bytes).unwrap();
            let settings = [(key, path), ("JWT_ALGORITHM", algorithm)];
            assert!(load(&settings, "").is_ok(), "{key} {algorithm}");
        }
    }
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn a_public_address_needs_a_token_key_or_an_explicit_open_mode() {
    let public = ("SERVER_HOST", "0.0.0.0");
    assert!(error(&[public], "").contains("JWT_SECRET"));
    assert_eq!(
        load(&[public, ("AUTH_MODE", "open")], "")
            .unwrap()
            .identity
            .mode,
        AuthMode::Open
    );
    let config = load(&[public, SECRET], "").unwrap();
    assert_eq!(
        (config.identity.mode, config.origins.origins),
        (AuthMode::Jwt, Origins::Listed(vec![]))
    );
    assert!(error(&[("AUTH_MODE", "jwt")], "").contains("JWT_SECRET"));
}

#[test]
fn tokens_are_verified_with_keys_of_one_kind() {
    let key = |name: &str| format!("{}/src/auth/testdata/{name}", env!("CARGO_MANIFEST_DIR"));
    let (rsa, private, short) = (key("rsa.pub.pem"), key("rsa.pem"), key("rsa-1024.pub.pem"));
    let pem = |path| ("JWT_PUBLIC_KEY_FILE", path);
    let (rs256, url) = (
        ("JWT_ALGORITHM", "RS256"),
        ("JWT_JWKS_URL", "https://app.example.com/api/auth/jwks"),
    );
    let mode = |environment: &[_]| load(environment, "").unwrap().identity.mode;
    assert_eq!(mode(&[pem(rsa.as_str()), rs256]), AuthMode::Jwt);
    assert_eq!(
        mode(&[url, ("JWT_ALGORITHM", "EdDSA, RS256")]),
        AuthMode::Jwt
    );
    assert_eq!(mode(&[("BETTER_AUTH_SECRET", SECRET.1)]), AuthMode::Jwt);
    // The application's own secret is ignored beside its public keys.
    let config = load(
        &[
            ("BETTER_AUTH_SECRET", SECRET.1),
            url,
            ("JWT_ALGORITHM", "EdDSA"),
        ],
        "",
    )
    .unwrap();
    assert!(config.identity.authenticator.needs_token() && config.identity.signer.is_none());
    for (environment, expected) in [
        (
            vec![SECRET, url, ("DATABASE_URL", "none")],
            "JWT_SECRET and JWT_JWKS_URL",
        ),
        (
            vec![SECRET, url, rs256, pem(rsa.as_str())],
            "JWT_PUBLIC_KEY_FILE and JWT_JWKS_URL",
        ),
        (
            vec![("JWT_SECRET", "short"), url, rs256],
            "JWT_SECRET can't be used",
        ),
        (
            vec![SECRET, ("JWT_SECRET_PREVIOUS", "short"), url, rs256],
            "JWT_SECRET_PREVIOUS can't be used",
        ),
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
            message.contains(expected) && !message.contains(":secret@"),
            "{environment:?}: {message}"
        );
    }
}

#[test]
fn beside_public_keys_a_secret_signs_the_tokens_of_accounts() {
    let rsa = format!(
        "{}/src/auth/testdata/rsa.pub.pem",
        env!("CARGO_MANIFEST_DIR")
    );
    let public = [
        ("JWT_PUBLIC_KEY_FILE", rsa.as_str()),
        ("JWT_ALGORITHM", "RS256"),
    ];
    let previous = (
        "JWT_SECRET_PREVIOUS",
        "9876543210987654321098765432109876543210",
    );
    let config = load(&[&public[..], &[SECRET, previous]].concat(), "").unwrap();
    assert_eq!(config.identity.mode, AuthMode::Jwt);
    assert!(config.identity.signer.is_none());
    let secrets = vec![SECRET.1.to_owned(), previous.1.to_owned()];
    assert_eq!(config.accounts.unwrap().key, AccountKey::Secrets(secrets));
    // Without a secret of its own, the node makes one.
    let config = load(&public, "").unwrap();
    assert!(matches!(config.accounts.unwrap().key, AccountKey::File(_)));
}

#[test]
fn the_issuer_of_accounts_is_no_outside_issuer() {
    const SECRET: (&str, &str) = ("JWT_SECRET", "0f1e2d3c4b5a69788796a5b4c3d2e1f0");
    let issuer = ("JWT_ISSUER", "https://app.example.com, hubbub");
    let text = error(&[SECRET, issuer, ("DATABASE_URL", "sqlite::memory:")], "");
    assert!(text.contains("JWT_ISSUER"), "{text}");
    let without_accounts = [SECRET, issuer, ("DATABASE_URL", "none")];
    assert!(load(&without_accounts, "").is_ok());
}

#[test]
fn a_jwk_set_over_plain_http_causes_a_warning() {
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
    assert_eq!(config.identity.signer.unwrap().secret, SECRET.1);
    let keys = config.identity.api_keys;
    assert!(keys.contains("007") && keys.contains("abc") && !keys.contains("7"));
}

#[test]
fn secrets_are_not_printed() {
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
fn the_redis_url_is_built_from_its_parts() {
    let redis = |environment: &[_]| load(environment, "").unwrap().redis.unwrap().url;
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
fn rates_that_are_not_set_follow_from_those_of_a_connection() {
    let config = load(&[], "").unwrap();
    assert_eq!(config.limits.socket, Limits::default().socket);
    assert_eq!(config.limits.user, Limits::default().user);
    assert!(
        config.caps.address.are_off(),
        "without TRUSTED_PROXIES it is unknown which addresses belong to clients"
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
            raised.limits.user.events.per_sec,
            raised.limits.user.joins.per_sec
        ),
        (8000, 7)
    );
    let direct = load(&[("TRUSTED_PROXIES", "none")], "").unwrap();
    assert_eq!(
        (
            direct.caps.address.events.per_sec,
            direct.caps.address.connects.burst
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
    assert!(off.limits.socket.are_off() && off.limits.user.are_off());
    assert!(error(&[("RATE_POSTS_PER_SEC", "many")], "").contains("RATE_POSTS_PER_SEC"));
}

#[test]
fn the_committed_example_is_a_configuration_and_each_line_of_it_too() {
    // Each of these refers to a file, or needs other keys.
    const NOT_ALONE: [&str; 11] = [
        "AUTH_MODE",
        "HUBBUB_CONFIG",
        "JWT_JWKS_FILE",
        "JWT_JWKS_URL",
        "JWT_PUBLIC_KEY_FILE",
        "JWT_ALGORITHM",
        "TLS_CERT",
        "TLS_KEY",
        "REDIS_CA",
        "SMTP_HOST",
        "SMTP_USERNAME",
    ];
    let example = std::fs::read_to_string(repository_file(".env.example")).unwrap();
    load(&[], &example).unwrap();
    let mut settings = example
        .lines()
        .filter_map(|line| line.strip_prefix('#')?.split_once('='))
        .filter(|(key, _)| !key.contains(' '));
    for key in keys() {
        let (name, value) = settings.next().unwrap();
        assert_eq!(name, key.name);
        if !NOT_ALONE.contains(&name) {
            load(&[], &format!("{name}={value}")).unwrap();
        }
    }
    assert_eq!(settings.next(), None);
}

#[test]
fn every_key_is_read_and_has_its_documented_default() {
    let config = load(&[], "").unwrap();
    for key in keys() {
        let effective = config.effective.get(key.name);
        match key.default {
            _ if ["PORT", "HUBBUB_CONFIG"].contains(&key.name) => assert!(effective.is_none()),
            KeyDefault::Value(value) => assert_eq!(effective, Some(&Some(value.to_owned()))),
            // The example of a derived number is its value when nothing is set.
            KeyDefault::Derived(_) if key.unit != Unit::None => {
                assert_eq!(effective, Some(&Some(key.example.to_owned())));
            }
            KeyDefault::Derived(_) => assert!(effective.is_some(), "{} is not read", key.name),
            KeyDefault::Unset => assert_eq!(effective, Some(&None), "{}", key.name),
        }
    }
}

#[test]
fn an_unknown_key_that_may_be_a_secret_is_not_shown() {
    assert!(error(&[], "MAX_ROOM=5").starts_with("MAX_ROOM is not a key of hubbub (in .env)"));
    assert!(error(&[], "AWS_S3_BUCKET=a").contains("AWS_S3_BUCKET"));
    for line in ["c2VjcmV0LW9mLWFubg==", "hunter2hunter2=", "SecretOfAnn=5"] {
        let message = error(&[], line);
        assert!(message.contains("not a key"), "{message}");
        for part in ["c2Vj", "hunter2", "SecretOf"] {
            assert!(!message.contains(part), "{message}");
        }
    }
}

#[test]
fn queries_of_urls_are_not_printed() {
    let url = "https://app.example/allow?key=hunter2";
    let shown = load(&[("AUTHORIZE_URL", url)], "").unwrap().render();
    assert!(
        shown.contains("AUTHORIZE_URL=https://app.example/allow?***"),
        "{shown}"
    );
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn pem_text_in_place_of_a_path_is_refused_without_showing_it() {
    let pem = "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----";
    for key in ["TLS_KEY", "TLS_CERT", "REDIS_CA", "JWT_PUBLIC_KEY_FILE"] {
        let message = error(&[(key, pem)], "");
        assert!(message.starts_with(&format!("{key} must be the path of a file")));
        assert!(!message.contains("hunter2"));
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
    for key in keys().map(|key| key.name) {
        for value in VALUES {
            // With the keys that this one needs to be looked at.
            let mut environment = vec![(key, value)];
            match key {
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
            if !message.contains(key) || message.contains("hunter2") {
                faults.push(format!("{key}={value}: {message}"));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}
