//! Configuration by chance: whatever is written, the start goes on with sound values, or ends with a word about them.

use std::fs;
use std::path::PathBuf;

use hubbub_fuzz::Target;

use super::*;

/// In every secret that is set.
const SECRET: &str = "hunter2hunter2hunter2hunter2hunter2";

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

/// Whether every secret in `written` stands behind a key of its own, so that no message may show it.
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

/// The shape: the end of what is said, as it may begin with a key. No name of a host is looked up.
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
            let settings = &config.settings;
            let shown = config.render();
            let secrets = [
                &settings.jwt_secret,
                &settings.redis_password,
                &settings.api_keys,
            ];
            // A secret that is also the value of another key is none.
            let others = settings
                .shown()
                .into_iter()
                .filter(|(key, _)| !SECRETS.contains(key));
            let others: String = others.map(|(_, value)| value).collect();
            for secret in secrets
                .into_iter()
                .flatten()
                .filter(|secret| secret.contains(SECRET))
            {
                assert!(
                    others.contains(SECRET) || !shown.contains(secret.as_str()),
                    "{shown}"
                );
            }
            assert!(
                settings.max_event_bytes > 0
                    && settings.history_size > 0
                    && settings.ping_interval_ms >= 100
            );
            assert!(
                settings.max_outbox_bytes / 4 >= settings.max_event_bytes
                    && settings.jwt_leeway_secs <= 30
            );
            assert!(
                config.auth_mode == AuthMode::Open || config.authenticator().unwrap().needs_token()
            );
            let _ = (
                config.limits(),
                config.backplane_limits(),
                config.caps(),
                config.api_keys(),
            );
            format!(
                "{:?} {:?} {}",
                config.auth_mode,
                config.log_format,
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
        "JWT_SECRET={SECRET}\nREDIS_PASSWORD='{SECRET} x'\nREDIS_URL=\"rediss://u:{SECRET}@h/0?sentinelPassword={SECRET}\"\n"
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
    let every: String = Settings::KEYS
        .iter()
        .map(|key| format!("{}=7\n", key.to_uppercase()))
        .collect();
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
