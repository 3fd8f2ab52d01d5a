//! Options and exit codes.

use std::process::Command;

use hubbub_test_support::database::TestDatabase;

use crate::fixture::{Ended, Sqlite, command, run, seeded};

#[test]
fn every_command_explains_itself() {
    let help = run(&["--help"]);
    assert_eq!(help.code, 0);
    for name in ["verify", "copy", "seed", "prune"] {
        assert!(help.stdout.contains(name), "{}", help.stdout);
        let help = run(&[name, "--help"]);
        assert_eq!(help.code, 0);
        assert!(help.stdout.contains("--database-url"), "{}", help.stdout);
        assert!(help.stdout.contains("--json"), "{}", help.stdout);
    }
}

#[test]
fn a_command_that_cannot_run_exits_with_2_and_says_why() {
    let before = Command::new(env!("CARGO_BIN_EXE_hubbub"))
        .args(["--port", "1", "db", "verify"])
        .output();
    let ended = Ended::of(before.unwrap());
    assert_eq!(ended.code, 2);
    assert!(ended.stderr.contains("--port"), "{}", ended.stderr);
    let missing = TestDatabase::new(Sqlite);
    let url = missing.url.as_str();
    for (arguments, reason) in [
        (&["verify", "--database-url", url][..], "doesn't exist"),
        (
            &["prune", "--older-than", "1", "--database-url", url],
            "doesn't exist",
        ),
        (
            &["copy", "--to", "sqlite:///tmp/x.db", "--database-url", url],
            "doesn't exist",
        ),
        (
            &["copy", "--to", url, "--database-url", url],
            "the database itself",
        ),
        (&["copy", "--database-url", url], "--to"),
        (
            &["verify", "--database-url", "none"],
            "DATABASE_URL is none",
        ),
        (
            &["verify", "--database-url", "sqlite::memory:"],
            "in memory",
        ),
        (
            &["verify", "--database-url", "mongodb://h/d"],
            "DATABASE_URL",
        ),
        (
            &["verify", "--database-url", "postgres://u@127.0.0.1:1/d"],
            "127.0.0.1",
        ),
        (
            &[
                "seed",
                "--rooms",
                "9",
                "--messages",
                "3",
                "--database-url",
                url,
            ],
            "--messages",
        ),
        (&["seed", "--rooms", "0", "--database-url", url], "0"),
        (&["nonsense"], "nonsense"),
    ] {
        let ended = run(arguments);
        assert_eq!(ended.code, 2, "{arguments:?}: {}", ended.stderr);
        assert!(
            ended.stderr.contains(reason),
            "{arguments:?}: {}",
            ended.stderr
        );
        assert_eq!(ended.stdout, "", "{arguments:?}");
    }
    assert!(!missing.file().exists(), "no command made the file");
}

#[test]
fn a_summary_is_text_unless_json_is_asked_for() {
    let database = seeded(Sqlite, 1, 10);
    let ended = run(&["verify", "--database-url", &database.url]);
    assert_eq!(ended.code, 0);
    assert!(ended.stdout.contains("messages: 10\n"), "{}", ended.stdout);
    assert!(
        ended.stdout.contains("is complete: true\n"),
        "{}",
        ended.stdout
    );
}

#[test]
fn the_database_of_the_environment_is_used_unless_one_is_named() {
    let database = seeded(Sqlite, 1, 10);
    let mut verify = command(&["verify"]);
    verify.env("DATABASE_URL", &database.url);
    let output = verify.output().unwrap();
    assert!(output.status.success());
}
