//! Configuration from random input: every input is either refused with a message, or yields values
//! within their limits. No secret is printed in either case.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use hubbub_fuzz::Target;

use super::*;
use crate::config::identity::AuthMode;

/// A part of every secret that the seeds set.
const SECRET: &str = "hunter2hunter2hunter2hunter2hunter2";

/// Keys whose values are printed without the passwords in them.
const ADDRESSES: [&str; 3] = ["REDIS_URL", "DATABASE_URL", "MYSQL_DSN"];

struct Files(PathBuf);

impl Files {
    fn new() -> Self {
        let directory =
            std::env::temp_dir().join(format!("hubbub-config-fuzz-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(&directory).unwrap();
        Self(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Whether every secret in `written` follows a key for secrets on its line, so that no message may
/// show it.
fn in_its_place(written: &str) -> bool {
    const KEYS: [&str; 6] = [
        "JWT_SECRET=",
        "REDIS_PASSWORD=",
        "API_KEYS=",
        "jwt_secret =",
        "redis_password =",
        "api_keys =",
    ];
    let placed = |line: &str| {
        KEYS.iter().any(|key| {
            line.strip_prefix(key)
                .is_some_and(|value| !value.contains('='))
        })
    };
    written
        .lines()
        .filter(|line| line.contains(SECRET))
        .all(placed)
}

/// Returns the shape of the result: of an error its end, as it may begin with a key. Host names are
/// not resolved.
fn check(
    mut environment: BTreeMap<String, String>,
    dotenv: &Path,
    toml: Option<&Path>,
    written: &[u8],
) -> String {
    environment
        .retain(|key, _| !["server_host", "hubbub_config"].contains(&key.to_lowercase().as_str()));
    environment.insert("SERVER_HOST".to_owned(), "127.0.0.1".to_owned());
    let toml = toml.unwrap_or(Path::new("/dev/null"));
    environment.insert(
        "HUBBUB_CONFIG".to_owned(),
        toml.to_str().unwrap().to_owned(),
    );
    match Config::from_sources(environment, dotenv) {
        Ok(config) => {
            assert_secrets_are_hidden(&config);
            assert!(config.limits.event_bytes > 0 && config.backplane.history_size > 0);
            assert!(config.connections.socketio.ping_interval >= Duration::from_millis(100));
            assert!(config.connections.outbox_bytes / 4 >= config.limits.event_bytes);
            let leeway = config.effective["JWT_LEEWAY_SECS"].as_deref().unwrap();
            assert!(leeway.trim().parse::<u64>().unwrap() <= 30);
            let is_open = config.identity.mode == AuthMode::Open;
            assert!(is_open || config.identity.authenticator.needs_token());
            format!(
                "{:?} {:?} {}",
                config.identity.mode,
                config.log.format,
                config.redis.is_some()
            )
        }
        Err(error) => {
            let text = error.to_string();
            assert!(!text.is_empty());
            assert!(
                !text.contains(SECRET) || !in_its_place(&String::from_utf8_lossy(written)),
                "{text}"
            );
            text.chars().rev().take(30).collect()
        }
    }
}

/// A secret that is also the value of another key may be printed there.
fn assert_secrets_are_hidden(config: &Config) {
    let shown = config.render();
    let values = |is_secret: bool| {
        keys()
            .filter(move |key| (key.secret && !ADDRESSES.contains(&key.name)) == is_secret)
            .filter_map(|key| config.effective.get(key.name)?.as_deref())
    };
    let others: String = values(false).collect();
    for secret in values(true).filter(|secret| secret.contains(SECRET)) {
        assert!(
            others.contains(SECRET) || !shown.contains(secret),
            "{shown}"
        );
    }
}

const WORDS: &[&str] = &[
    "\n",
    "=",
    "#",
    "\"",
    "'",
    "\\",
    "${JWT_SECRET}",
    "$",
    "export ",
    "\u{feff}",
    "AUTH_MODE=jwt\n",
    "HISTORY_SIZE=",
    "MAX_EVENT_BYTES=",
    "REDIS_URL=redis://",
    "-1",
    "18446744073709551615",
    "1e9",
    "true",
    "[[",
    "{",
    "]",
    "auth_mode = \"open\"\n",
    "history_size = ",
];

#[test]
fn fuzz_dotenv() {
    let secrets = format!(
        "JWT_SECRET={SECRET}\nREDIS_PASSWORD='{SECRET} x'\nREDIS_URL=\"rediss://u:{SECRET}@h/0?sentinelPassword={SECRET}\"\n\
         DATABASE_URL=postgres://u:{SECRET}@h/d\nMYSQL_DSN='u:{SECRET}@tcp(h)/d'\n"
    );
    let example = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/.env.example")).unwrap();
    let seeds: &[&[u8]] = &[
        secrets.as_bytes(),
        b"SERVER_PORT=80\nLOG_FORMAT=json\nTLS_CERT=a\nTLS_KEY=b\n",
        &example,
    ];
    let files = Files::new();
    let path = files.path(".env");
    Target {
        name: "dotenv",
        seeds,
        words: WORDS,
        longest: 8192,
    }
    .run(|text| {
        fs::write(&path, text).unwrap();
        check(BTreeMap::new(), &path, None, text)
    });
}

#[test]
fn fuzz_toml() {
    let secrets = format!("jwt_secret = \"{SECRET}\"\napi_keys = '{SECRET}'\n");
    let seeds: &[&[u8]] = &[
        secrets.as_bytes(),
        b"server_port = 80\nhistory_size = \"5\"\nmax_rooms = 1_000\nauth_mode = \"open\"\n",
    ];
    let files = Files::new();
    let path = files.path("hubbub.toml");
    Target {
        name: "toml",
        seeds,
        words: WORDS,
        longest: 8192,
    }
    .run(|text| {
        fs::write(&path, text).unwrap();
        check(
            BTreeMap::new(),
            Path::new("/nonexistent/.env"),
            Some(&path),
            text,
        )
    });
}

#[test]
fn fuzz_environment() {
    let secrets =
        format!("JWT_SECRET={SECRET}\nREDIS_URL=redis://:{SECRET}@h:1\nAPI_KEYS={SECRET}, b");
    let every: String = keys().map(|key| format!("{}=7\n", key.name)).collect();
    let seeds: &[&[u8]] = &[
        secrets.as_bytes(),
        every.as_bytes(),
        b"PORT=1\nALLOWED_ORIGINS=*,https://a.example/\nMETRICS_ADDR=[::1]:9",
    ];
    Target {
        name: "environment",
        seeds,
        words: WORDS,
        longest: 8192,
    }
    .run(|text| {
        let lines = String::from_utf8_lossy(text);
        let pairs = lines.lines().filter_map(|line| line.split_once('='));
        let environment = pairs
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        check(environment, Path::new("/nonexistent/.env"), None, text)
    });
}
