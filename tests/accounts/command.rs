//! `hubbub user`, and the accounts that a node has by it.

use std::io::Write as _;
use std::process::{Command, Stdio};

use hubbub_test_support::database::{DatabaseKind, TestDatabase};
use hubbub_test_support::node::Cluster;

use crate::fixture::{Rest, SECRET, assert_refused, expect, log_in};

/// Runs the command; returns its exit code and its output.
fn run(arguments: &[&str], input: &str, url: &str) -> (i32, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_hubbub"))
        .env_clear()
        .env("DATABASE_URL", url)
        .current_dir(std::env::temp_dir())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap(),
        String::from_utf8(text).unwrap(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_administers_the_accounts_of_a_running_node() {
    let database = TestDatabase::new(DatabaseKind::Postgres);
    let url = database.url.as_str();
    let settings = [SECRET, ("DATABASE_URL", url), ("SIGNUP", "closed")];
    let node = Cluster::alone(&settings).await;
    let address = node.address(0);
    let done = |arguments: &[&str], input: &str| {
        let (code, text) = run(&[&["user"], arguments].concat(), input, url);
        assert_eq!(code, 0, "{text}");
        text
    };
    let root = [
        "create",
        "--username",
        "root",
        "--email",
        "root@example.com",
    ];
    let printed = done(&[&root[..], &["--role", "admin"]].concat(), "");
    let password = printed.lines().next().unwrap();
    let password = password.strip_prefix("password: ").unwrap();
    let admin = expect(log_in(address, "root", password).await, 200);
    assert_eq!(admin["user"]["role"], "admin");

    let ann = ["create", "--username", "ann", "--email", "ann@example.com"];
    let printed = done(
        &[&ann[..], &["--password-stdin"]].concat(),
        "correct horse\n",
    );
    assert!(!printed.contains("correct horse") && printed.lines().count() == 1);
    let logged_in = expect(log_in(address, "ann", "correct horse").await, 200);
    assert_eq!(logged_in["user"]["role"], "user");
    let list = done(&["list"], "");
    let lines: Vec<&str> = list.lines().collect();
    assert_eq!(lines.len(), 2, "{list}");
    assert!(
        lines[0].ends_with("\tann\tann@example.com\tuser\tenabled"),
        "{list}"
    );
    assert_eq!(done(&["list", "roo"], "").lines().count(), 1);

    let rest = Rest::of(address, &logged_in);
    assert!(done(&["role", "ANN", "admin"], "").contains("\tadmin\t"));
    assert_eq!(rest.me().await.1["role"], "admin");
    assert!(done(&["disable", "ann@example.com"], "").contains("\tdisabled"));
    assert_refused(&rest.me().await, 401, "unauthorized");
    done(&["enable", "ann"], "");
    for _ in 0..10 {
        let answer = log_in(address, "ann", "wrong horse!").await;
        assert_refused(&answer, 401, "invalid_credentials");
    }
    let answer = log_in(address, "ann", "correct horse").await;
    assert_refused(&answer, 429, "rate_limited");
    // A new password forgets the failures.
    let printed = done(&["reset-password", "ann"], "");
    let password = printed.lines().next().unwrap();
    let password = password.strip_prefix("password: ").unwrap();
    assert_eq!(log_in(address, "ann", password).await.0, 200);
    let old = log_in(address, "ann", "correct horse").await;
    assert_refused(&old, 401, "invalid_credentials");

    let short = [&ann[..], &["--password-stdin"]].concat();
    for (arguments, input, reason) in [
        (&["disable", "nobody"][..], "", "not_found"),
        (&short, "short", "bad_request"),
        (&ann, "", "username_taken"),
    ] {
        let (code, text) = run(&[&["user"], arguments].concat(), input, url);
        assert!(code != 0 && text.contains(reason), "{code} {text}");
    }
    done(&["disable", "ann"], "");
    let (code, text) = run(&["user", "role", "root", "user"], "", url);
    assert!(code != 0 && text.contains("last admin"), "{text}");
    let audit = Rest::of(address, &admin).get("/api/v1/audit?limit=1").await;
    let audit = expect(audit, 200);
    assert_eq!(audit["items"][0]["action"], "user_disabled");
    assert!(audit["items"][0]["actor_id"].is_null());
    node.stop().await;
}
