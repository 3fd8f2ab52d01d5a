//! Fuzzes the addresses of databases: each is refused with a message, or has a printable form that
//! shows no password.

use hubbub_fuzz::Target;

use super::*;

/// A part of every password in the seeds. No other part of an address contains it.
const SECRET: &str = "hunter2";

const WORDS: &[&str] = &[
    "postgres://",
    "mysql://",
    "mariadb://",
    "sqlite://",
    "sqlite::memory:",
    ":///",
    "tcp(",
    "unix(",
    ")/",
    "@",
    "?",
    "&",
    "=",
    "#",
    "%2F",
    "%00",
    "%",
    "[::1]",
    ":",
    "sslmode=require",
    "password=",
    "host=/tmp",
    "tls=true",
    "ssl-mode=required",
    "mode=rwc",
    "\0",
    "ä",
];

/// The shape of the result. The password of an accepted address is in neither printed form.
fn check(result: Result<(DatabaseUrl, Option<String>), UrlError>, text: &str) -> String {
    let (url, password) = match result {
        Ok(parts) => parts,
        Err(error) => {
            let message = error.to_string();
            assert!(
                !message.is_empty() && !message.contains(SECRET),
                "{message}"
            );
            return message;
        }
    };
    let shown = format!("{url} {url:?}");
    // A mutation may repeat the password in another part of the address.
    let is_secret = password.as_ref().is_some_and(|it| it.contains(SECRET));
    if is_secret && text.matches(SECRET).count() == 1 {
        assert!(!shown.contains(SECRET), "{shown}");
    }
    let kind = match url {
        DatabaseUrl::Sqlite(_) => "sqlite",
        DatabaseUrl::Postgres(_) => "postgres",
        DatabaseUrl::MySql(_) => "mysql",
    };
    format!(
        "{kind} {} {} {}",
        password.is_some(),
        url.is_remote(),
        url.requires_tls()
    )
}

#[test]
fn fuzz_database_url() {
    let seeds: &[&[u8]] = &[
        b"postgres://ann:hunter2@db.example:5432/hubbub?sslmode=verify-full&sslrootcert=/ca.pem",
        b"postgresql:///hubbub?host=/run/postgresql&user=ann&password=hunter2",
        b"mysql://ann:hunter2@[::1]:3306/hubbub?ssl-mode=verify_identity&ssl-ca=ca.pem",
        b"mariadb://ann@localhost/hubbub?socket=/run/mysqld.sock",
        b"mysql://ann:hunter2@tcp(db:3306)/hubbub?parseTime=true",
        b"sqlite://data/hubbub.db?mode=rwc",
        b"sqlite::memory:",
    ];
    Target {
        name: "database_url",
        seeds,
        words: WORDS,
        longest: 512,
    }
    .run(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        check(DatabaseUrl::parse_with_password(&text), &text)
    });
}

#[test]
fn fuzz_data_source_name() {
    let seeds: &[&[u8]] = &[
        b"ann:hunter2@tcp(db.example:3306)/hubbub?parseTime=true&tls=skip-verify",
        b"ann:hunter2/@:@tcp([::1]:3306)/hubbub",
        b"ann:hunter2@unix(/run/mysqld/mysqld.sock)/hubbub?loc=Europe%2FBerlin",
        b"/hubbub",
        b"mysql://ann:hunter2@db/hubbub",
    ];
    Target {
        name: "data_source_name",
        seeds,
        words: WORDS,
        longest: 512,
    }
    .run(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        check(DatabaseUrl::parse_dsn(&text), &text)
    });
}
