//! Mails to the users of accounts, and what they are for, with a mail server.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hubbub::app::App;
use hubbub_test_support::certificates::Pair;
use hubbub_test_support::database::{DatabaseKind, TestDatabase};
use hubbub_test_support::node::{self, SharedStorage, metric};
use hubbub_test_support::smtp::{ReceivedMail, SmtpBehaviour, SmtpSink};
use serde_json::{Value, json};

use crate::fixture::{MEMORY, Rest, SECRET, assert_refused, log_in, sign_up};
use crate::worker::Worker;

const FORGOT: &str = "/api/v1/auth/password/forgot";
const RESET: &str = "/api/v1/auth/password/reset";
const VERIFY: &str = "/api/v1/auth/email/verify";

/// A node that sends its mails to a server on this port.
async fn start(port: u16, settings: &[(&str, &str)]) -> App {
    let port = port.to_string();
    let own = [
        SECRET,
        ("SMTP_HOST", "127.0.0.1"),
        ("SMTP_PORT", port.as_str()),
        ("MAIL_FROM", "Hubbub <no-reply@example.com>"),
        ("PUBLIC_URL", "https://chat.example.com"),
        ("METRICS_ADDR", "127.0.0.1:0"),
    ];
    node::start(&[&own, settings].concat()).await
}

async fn post(address: SocketAddr, path: &str, body: &Value) -> (u16, Value) {
    Rest::anonymous(address).post(path, body.clone()).await
}

async fn me(address: SocketAddr, access_token: &Value) -> (u16, Value) {
    let rest = Rest::with_token(address, access_token.as_str().unwrap());
    rest.me().await
}

async fn forgot(address: SocketAddr, email: &str) -> (u16, Value) {
    post(address, FORGOT, &json!({"email": email})).await
}

async fn reset(address: SocketAddr, token: &str, password: &str) -> (u16, Value) {
    post(
        address,
        RESET,
        &json!({"token": token, "password": password}),
    )
    .await
}

async fn await_metric(node: &App, name: &str, least: u64) {
    let address = node.metrics_address().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while metric(address, name).await < least {
        assert!(Instant::now() < deadline, "{name} stays below {least}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn is_about_password(mail: &ReceivedMail) -> bool {
    mail.text.contains("Subject: Reset your password\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_password_is_reset_by_a_mail_and_all_sessions_end() {
    let sink = SmtpSink::start().await;
    let node = start(sink.port(), &[MEMORY]).await;
    let address = node.address();
    let ann = sign_up(address, "ann").await;
    sink.await_mails(1).await;
    assert_eq!(forgot(address, "Ann@Example.com").await.0, 200);
    let mails = sink.await_mails(2).await;
    let mail = &mails[1];
    assert!(is_about_password(mail), "{}", mail.text);
    assert_eq!(mail.from, "no-reply@example.com");
    assert_eq!(mail.to, ["ann@example.com"]);
    let link = "https://chat.example.com/reset-password#token=";
    assert!(mail.text.contains(link), "{}", mail.text);
    let token = mail.token();

    let (status, refused) = reset(address, &token, "short").await;
    assert_eq!((status, &refused["code"]), (400, &json!("bad_request")));
    assert_eq!(me(address, &ann["access_token"]).await.0, 200);
    let (status, answer) = reset(address, &token, "another horse").await;
    assert_eq!(
        (status, &answer),
        (200, &json!({"ok": true, "sessions": 1}))
    );
    assert_eq!(me(address, &ann["access_token"]).await.0, 401);
    assert_eq!(log_in(address, "ann", "correct horse").await.0, 401);
    let (status, again) = log_in(address, "ann", "another horse").await;
    assert_eq!(
        (status, &again["user"]["email_verified"]),
        (200, &json!(true))
    );
    // The token was used.
    let (status, refused) = reset(address, &token, "a third horse").await;
    assert_eq!((status, &refused["code"]), (400, &json!("bad_request")));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_to_a_forgotten_password_does_not_tell_whether_the_address_exists() {
    let sink = SmtpSink::start().await;
    let node = start(sink.port(), &[MEMORY]).await;
    let address = node.address();
    sign_up(address, "ann").await;
    sink.await_mails(1).await;
    // The limit is the same, too.
    for attempt in 0..7 {
        let mut known = forgot(address, "ann@example.com").await;
        let mut unknown = forgot(address, "bob@example.com").await;
        let expected = if attempt < 5 { 200 } else { 429 };
        for (status, answer) in [&mut known, &mut unknown] {
            assert_eq!(*status, expected, "{answer}");
            answer["request_id"].take();
        }
        assert_eq!(known, unknown);
    }
    let mails = sink.await_mails(6).await;
    assert!(mails.iter().all(|mail| mail.to == ["ann@example.com"]));
    // Of both addresses five requests, each a job, and of ann five mails, beside that of the sign-up.
    await_metric(&node, "hubbub_jobs_completed_total", 16).await;
    assert_eq!(sink.mails().len(), 6);
    for email in ["", "ann", "a@b\r\nBcc: x@example.com"] {
        let (status, answer) = forgot(address, email).await;
        assert_eq!((status, &answer["code"]), (400, &json!("bad_request")));
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_user_proves_the_address_by_a_mail() {
    let sink = SmtpSink::start().await;
    let node = start(sink.port(), &[MEMORY]).await;
    let address = node.address();
    let ann = sign_up(address, "ann").await;
    assert_eq!(ann["user"]["email_verified"], false);
    let mails = sink.await_mails(1).await;
    assert_eq!(mails[0].to, ["ann@example.com"]);
    let token = mails[0].token();
    // A token is good for its own purpose only.
    assert_eq!(reset(address, &token, "another horse").await.0, 400);
    let verify = async |token: &str| post(address, VERIFY, &json!({"token": token})).await;
    for token in ["", "x", &token[1..], &"A".repeat(43)] {
        assert_eq!(verify(token).await.0, 400, "{token}");
    }
    assert_eq!(
        me(address, &ann["access_token"]).await.1["email_verified"],
        false
    );
    assert_eq!(verify(&token).await, (200, json!({"ok": true})));
    assert_eq!(
        me(address, &ann["access_token"]).await.1["email_verified"],
        true
    );
    assert_eq!(verify(&token).await.0, 400, "it was used");
    node.stop().await;
}

async fn change_email(address: SocketAddr, access_token: &Value, email: &str) -> (u16, Value) {
    let rest = Rest::with_token(address, access_token.as_str().unwrap());
    let body = json!({"email": email});
    rest.send("PATCH", "/api/v1/me", &body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_former_address_gets_a_notice_of_its_change() {
    let sink = SmtpSink::start().await;
    let node = start(sink.port(), &[MEMORY]).await;
    let address = node.address();
    let ann = sign_up(address, "ann").await;
    let token = &ann["access_token"];
    sink.await_mails(1).await;
    let (status, changed) = change_email(address, token, "new@example.org").await;
    assert_eq!(
        (status, &changed["email"]),
        (200, &json!("new@example.org"))
    );
    let mails = sink.await_mails(2).await;
    let notice = &mails[1];
    assert_eq!(notice.to, ["ann@example.com"]);
    let subject = "Subject: The e-mail address of your account was changed\r\n";
    assert!(notice.text.contains(subject), "{}", notice.text);
    // It has no link, and does not reveal the new address.
    assert!(!notice.text.contains("http") && !notice.text.contains("example.org"));

    // The same address in another letter case is no change.
    assert_eq!(change_email(address, token, "New@example.org").await.0, 200);
    // The number of notices is limited.
    for number in 1..7 {
        let email = format!("{number}@example.org");
        let answer = change_email(address, token, &email).await;
        match number {
            1..5 => assert_eq!(answer.0, 200, "{answer:?}"),
            _ => assert_refused(&answer, 429, "rate_limited"),
        }
    }
    let mails = sink.await_mails(6).await;
    // Mails are sent side by side.
    let mut to: Vec<&str> = mails[2..].iter().map(|mail| mail.to[0].as_str()).collect();
    to.sort_unstable();
    let expected = [
        "1@example.org",
        "2@example.org",
        "3@example.org",
        "New@example.org",
    ];
    assert_eq!(to, expected);
    // Other changes stay possible.
    let rest = Rest::with_token(address, token.as_str().unwrap());
    let status = rest
        .send("PATCH", "/api/v1/me", &json!({"status": "x"}))
        .await;
    assert_eq!(status.0, 200);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_address_ends_the_links_to_the_former_one() {
    let sink = SmtpSink::start().await;
    let node = start(sink.port(), &[MEMORY]).await;
    let address = node.address();
    let ann = sign_up(address, "ann").await;
    sink.await_mails(1).await;
    assert_eq!(forgot(address, "ann@example.com").await.0, 200);
    let mails = sink.await_mails(2).await;
    let tokens = [mails[0].token(), mails[1].token()];
    // Also if the address is changed back.
    for email in ["new@example.org", "ann@example.com"] {
        let changed = change_email(address, &ann["access_token"], email).await;
        assert_eq!(changed.0, 200);
        assert_eq!(reset(address, &tokens[1], "another horse").await.0, 400);
        let verified = post(address, VERIFY, &json!({"token": tokens[0]})).await;
        assert_eq!(verified.0, 400, "{email}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_mail_server_a_public_node_sends_no_mails() {
    let node = node::start(&[SECRET, MEMORY, ("SERVER_HOST", "0.0.0.0")]).await;
    let address = SocketAddr::from(([127, 0, 0, 1], node.address().port()));
    sign_up(address, "ann").await;
    let token = "A".repeat(43);
    for (path, body) in [
        (FORGOT, json!({"email": "ann@example.com"})),
        (RESET, json!({"token": token, "password": "another horse"})),
        (VERIFY, json!({"token": token})),
    ] {
        let (status, answer) = post(address, path, &body).await;
        assert_eq!((status, &answer["code"]), (501, &json!("not_configured")));
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_to_a_server_that_refuses_starttls() {
    for refuses_starttls in [true, false] {
        let behaviour = SmtpBehaviour {
            refuses_starttls,
            ..SmtpBehaviour::default()
        };
        let sink = SmtpSink::on(0, behaviour).await;
        let settings = [&[MEMORY, ("SMTP_TLS", "starttls")][..], &CREDENTIALS].concat();
        let node = start(sink.port(), &settings).await;
        sign_up(node.address(), "ann").await;
        await_metric(&node, "hubbub_jobs_retried_total", 2).await;
        let commands = sink.commands();
        for command in &commands {
            let name = command.split(' ').next().unwrap();
            assert!(["EHLO", "STARTTLS", "QUIT"].contains(&name), "{commands:?}");
        }
        assert_eq!(commands.iter().any(|it| it == "STARTTLS"), refuses_starttls);
        node.stop().await;
    }
}

const CREDENTIALS: [(&str, &str); 2] = [
    ("SMTP_USERNAME", "hubbub"),
    ("SMTP_PASSWORD", "secret of the mail server"),
];

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_to_a_server_without_a_valid_certificate() {
    let certificate = Pair::generate();
    let sink = SmtpSink::with_starttls(&certificate).await;
    let settings = [&[MEMORY, ("SMTP_TLS", "starttls")][..], &CREDENTIALS].concat();
    let node = start(sink.port(), &settings).await;
    sign_up(node.address(), "ann").await;
    await_metric(&node, "hubbub_jobs_retried_total", 2).await;
    let commands = sink.commands();
    assert!(commands.contains(&"STARTTLS".to_owned()), "{commands:?}");
    for command in &commands {
        let name = command.split(' ').next().unwrap();
        assert!(["EHLO", "STARTTLS"].contains(&name), "{commands:?}");
    }
    assert!(sink.encrypted_commands().is_empty());
    node.stop().await;
}

/// A process trusts the certificates of its system: here those of a file that its environment names.
#[tokio::test(flavor = "multi_thread")]
async fn mails_and_passwords_are_sent_by_starttls_to_a_server_with_a_valid_certificate() {
    let certificate = Pair::generate();
    let sink = SmtpSink::with_starttls(&certificate).await;
    let port = sink.port().to_string();
    let database = TestDatabase::new(DatabaseKind::Postgres);
    let storage = SharedStorage::new(&database.url);
    let settings = storage.settings(&[
        SECRET,
        ("SMTP_HOST", "127.0.0.1"),
        ("SMTP_PORT", &port),
        ("SMTP_TLS", "starttls"),
        ("MAIL_FROM", "no-reply@example.com"),
    ]);
    let settings = [&settings[..], &CREDENTIALS].concat();
    let off = [("WORKERS", "off")];
    let node = node::start(&[&settings, &off[..]].concat()).await;
    sign_up(node.address(), "ann").await;
    let authority = certificate.path("ca.pem");
    let trusted = [("SSL_CERT_FILE", authority.as_str())];
    let _worker = Worker::start(&[&settings[..], &trusted].concat());
    assert_eq!(sink.await_mails(1).await[0].to, ["ann@example.com"]);
    let commands = sink.commands();
    let names: Vec<&str> = commands
        .iter()
        .filter_map(|it| it.split(' ').next())
        .collect();
    assert_eq!(names, ["EHLO", "STARTTLS"]);
    let encrypted = sink.encrypted_commands();
    let names: Vec<&str> = encrypted
        .iter()
        .filter_map(|it| it.split([' ', ':']).next())
        .collect();
    assert_eq!(names[..5], ["EHLO", "AUTH", "MAIL", "RCPT", "DATA"]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_can_not_be_sent_is_sent_once_after_a_restart() {
    let database = TestDatabase::new(DatabaseKind::Sqlite);
    let settings = [("DATABASE_URL", database.url.as_str())];
    let sink = SmtpSink::start().await;
    let port = sink.port();
    sink.stop().await;
    let node = start(port, &settings).await;
    sign_up(node.address(), "ann").await;
    await_metric(&node, "hubbub_jobs_retried_total", 1).await;
    node.stop().await;

    let sink = SmtpSink::on(port, SmtpBehaviour::default()).await;
    let node = start(port, &settings).await;
    let mails = sink.await_mails(1).await;
    assert_eq!(mails[0].to, ["ann@example.com"]);
    // The mails of later jobs come later: by then a second one to ann would have come.
    sign_up(node.address(), "bob").await;
    let mails = sink.await_mails(2).await;
    assert_eq!(mails[1].to, ["bob@example.com"]);
    await_metric(&node, "hubbub_jobs_completed_total", 2).await;
    let token = mails[0].token();
    let verified = post(node.address(), VERIFY, &json!({"token": token})).await;
    assert_eq!(verified.0, 200);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_to_an_address_that_the_server_refuses_is_given_up() {
    let behaviour = SmtpBehaviour {
        refuses_recipients: true,
        ..SmtpBehaviour::default()
    };
    let sink = SmtpSink::on(0, behaviour).await;
    let node = start(sink.port(), &[MEMORY]).await;
    let ann = sign_up(node.address(), "ann").await;
    await_metric(&node, "hubbub_jobs_failed_total", 1).await;
    // A notice to a former address is done then: its row would keep the address.
    let changed = change_email(node.address(), &ann["access_token"], "new@example.org").await;
    assert_eq!(changed.0, 200);
    await_metric(&node, "hubbub_jobs_completed_total", 1).await;
    let metrics = node.metrics_address().unwrap();
    assert_eq!(metric(metrics, "hubbub_jobs_failed_total").await, 1);
    assert_eq!(metric(metrics, "hubbub_jobs_retried_total").await, 0);
    assert!(sink.mails().is_empty());
    node.stop().await;
}
