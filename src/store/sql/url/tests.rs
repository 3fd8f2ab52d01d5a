//! Tests of addresses.

use super::*;

fn shown(text: &str) -> String {
    DatabaseUrl::parse(text).unwrap().to_string()
}

fn password(text: &str) -> Option<String> {
    DatabaseUrl::parse_with_password(text).unwrap().1
}

fn error(text: &str) -> String {
    DatabaseUrl::parse(text).unwrap_err().to_string()
}

#[test]
fn files_of_sqlite_have_a_path_as_it_is() {
    for (text, path) in [
        ("sqlite://data/hubbub.db", "data/hubbub.db"),
        ("sqlite:///var/lib/a%20b.db", "/var/lib/a b.db"),
        ("sqlite:hubbub+1.db", "hubbub+1.db"),
        ("SQLITE://a&b.db?mode=rwc", "a&b.db"),
    ] {
        let url = DatabaseUrl::parse(text).unwrap();
        assert_eq!(url.file(), Some(Path::new(path)), "{text}");
        assert!(!url.is_in_memory(), "{text}");
    }
    for text in ["sqlite::memory:", "sqlite://:memory:"] {
        let url = DatabaseUrl::parse(text).unwrap();
        assert!(url.is_in_memory(), "{text}");
        assert_eq!(url.to_string(), "sqlite::memory:");
    }
    for full in ["full", "FULL"] {
        let full = shown(&format!("sqlite:hubbub.db?synchronous={full}"));
        assert_eq!(full, "sqlite://hubbub.db?synchronous=full");
    }
    assert_eq!(shown("sqlite:a.db?synchronous=normal"), "sqlite://a.db");
}

#[test]
fn servers_are_shown_without_password_and_parameters() {
    for (text, expected) in [
        (
            "postgres://ann:hunter2@db.example:5433/hubbub?sslmode=require",
            "postgres://ann@db.example:5433/hubbub",
        ),
        (
            "postgresql:///hubbub?host=/run/postgresql&user=ann&password=hunter2",
            "postgres://ann@/run/postgresql/hubbub",
        ),
        (
            "mariadb://ann:hunter2@[::1]/hubbub",
            "mysql://ann@[::1]:3306/hubbub",
        ),
        (
            "mysql://ann:hunter2@tcp(db)/hubbub",
            "mysql://ann@db:3306/hubbub",
        ),
        (
            "mysql://ann:hunter2@(db)/hubbub",
            "mysql://ann@db:3306/hubbub",
        ),
    ] {
        assert_eq!(shown(text), expected);
        let debug = format!("{:?}", DatabaseUrl::parse(text));
        assert!(!debug.contains("hunter2"), "{debug}");
        assert_eq!(password(text).as_deref(), Some("hunter2"), "{text}");
    }
}

#[test]
fn a_password_is_decoded() {
    let decoded = password("postgres://a:p%40+%2F%23@h/d");
    assert_eq!(decoded.as_deref(), Some("p@+/#"));
    assert_eq!(password("sqlite://a.db"), None);
    assert_eq!(password("postgres://a@h/d"), None);
}

#[test]
fn whether_tls_is_required_and_a_network_is_passed_follows_from_the_url() {
    for (text, requires_tls, is_remote) in [
        ("sqlite://a.db", false, false),
        ("postgres://a@db/d", false, true),
        ("postgres://a@db/d?sslmode=prefer", false, true),
        ("postgres://a@db/d?sslmode=require", true, true),
        ("postgres://a@127.0.0.1/d?sslmode=verify-full", true, false),
        ("postgres:///d?host=/run/postgresql", false, false),
        ("mysql://a@db/d", false, true),
        ("mysql://a@db/d?ssl-mode=verify_ca", true, true),
        ("mysql://a@db/d?socket=/run/my.sock", false, false),
        ("mysql://a@localhost/d", false, false),
    ] {
        let url = DatabaseUrl::parse(text).unwrap();
        let facts = (url.requires_tls(), url.is_remote());
        assert_eq!(facts, (requires_tls, is_remote), "{text}");
    }
}

#[test]
fn addresses_that_would_not_work_are_refused() {
    for (text, expected) in [
        ("", "must begin with"),
        ("redis://h", "must begin with"),
        ("/var/lib/hubbub.db", "must begin with"),
        ("postgres://a@h", "must name a database"),
        ("mysql://a@h/", "must name a database"),
        ("postgres://a:p#ss@h/d", "no valid URL"),
        ("postgres://a:p@h/d#x", "written as %23"),
        ("postgres://a:p@h:port/d", "no valid URL"),
        ("postgres://a:p@h:99999/d", "has the port 99999"),
        ("mysql://a:p@h:65536/d", "has the port 65536"),
        ("postgres://a:p/1:99999@h/d", "no valid URL"),
        ("postgres://a@h1,h2/d", "one host"),
        ("postgres://a@h/d?schema=x", "sslmode"),
        ("postgres://a@h/d?sslmode=on", "value that PostgreSQL"),
        ("mysql://a@h/d?sslmode=on", "value that MySQL"),
        ("sqlite://", "the path of a file"),
        ("sqlite:///var/lib/", "the path of a file"),
        ("sqlite://a.db?mode=ro", "parameter"),
        ("sqlite://file:a.db", "the path of a file"),
        ("sqlite://a%FF.db", "the path of a file"),
    ] {
        let message = error(text);
        assert!(message.contains(expected), "{text}: {message}");
    }
}

#[test]
fn parameters_of_other_clients_are_left_out() {
    for text in [
        "postgres://a@h/d?channel_binding=require&sslmode=require",
        "mysql://a@h/d?charset=utf8mb4&parseTime=true",
    ] {
        assert!(DatabaseUrl::parse(text).is_ok(), "{text}");
    }
}

#[test]
fn a_data_source_name_of_another_database_is_sent_to_the_right_key() {
    for text in ["postgres://a:hunter2@h/d", "SQLITE://a.db"] {
        let message = DatabaseUrl::parse_dsn(text).unwrap_err().to_string();
        assert!(message.contains("DATABASE_URL"), "{text}: {message}");
        assert!(!message.contains("hunter2"), "{text}: {message}");
    }
}
