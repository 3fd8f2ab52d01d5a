//! A measurement of reads of unread messages, which runs only on request:
//! `cargo test --release --test store -- --ignored --nocapture --test-threads=1 measure_unread`.

use std::time::{Duration, Instant};

use hubbub::domain::UserId;
use hubbub::store::sql::SqlStore;
use hubbub::store::{ArchiveStore as _, PositionStore as _};
use hubbub_test_support::database::DatabaseKind;
use uuid::Uuid;

use crate::fixture::TestStore;

const ROOMS: u64 = 2_000;
const MESSAGES: u64 = 2_500;
const AUTHORS: u64 = 8;
const READS: usize = 100;
const ROOMS_PER_STATEMENT: usize = 50;

/// A table of the numbers 1 to `count`, for a statement that fills others.
fn series(kind: DatabaseKind, name: &str, count: u64) -> String {
    match kind {
        DatabaseKind::Sqlite => format!(
            "(WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {count}) \
             SELECT n FROM c) {name}"
        ),
        DatabaseKind::Postgres => format!("generate_series(1, {count}) AS {name}(n)"),
        DatabaseKind::MariaDb => format!("(SELECT seq AS n FROM seq_1_to_{count}) {name}"),
    }
}

/// The expression for an id that is unique for a room and a number.
fn id(kind: DatabaseKind) -> &'static str {
    match kind {
        DatabaseKind::Sqlite => "CAST(printf('%08d%08d', r.n, s.n) AS BLOB)",
        DatabaseKind::Postgres => {
            "CAST(lpad(r.n::text, 16, '0') || lpad(s.n::text, 16, '0') AS UUID)"
        }
        DatabaseKind::MariaDb => "CONCAT(LPAD(r.n, 8, '0'), LPAD(s.n, 8, '0'))",
    }
}

fn blob(kind: DatabaseKind, bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut hex = String::new();
    for byte in bytes {
        write!(hex, "{byte:02x}").unwrap();
    }
    match kind {
        DatabaseKind::Postgres => format!("CAST('{hex}' AS UUID)"),
        DatabaseKind::Sqlite | DatabaseKind::MariaDb => format!("X'{hex}'"),
    }
}

fn concat(kind: DatabaseKind, parts: &[&str]) -> String {
    match kind {
        DatabaseKind::MariaDb => format!("CONCAT({})", parts.join(", ")),
        DatabaseKind::Sqlite | DatabaseKind::Postgres => parts.join(" || "),
    }
}

/// Fills chats of a user, half of whose messages are by the user and seven others.
async fn fill(test: &TestStore, user: Uuid) {
    let kind = test.kind();
    let rooms = series(kind, "r", ROOMS);
    let numbers = series(kind, "s", MESSAGES);
    let user_text = user.to_string();
    let member = blob(kind, user.as_bytes());
    let (text, hex) = match kind {
        DatabaseKind::Sqlite => ("printf('%012d', r.n)", "CAST(printf('%016d', r.n) AS BLOB)"),
        DatabaseKind::Postgres => (
            "lpad(r.n::text, 12, '0')",
            "CAST(lpad(r.n::text, 32, '0') AS UUID)",
        ),
        DatabaseKind::MariaDb => ("LPAD(r.n, 12, '0')", "CAST(LPAD(r.n, 16, '0') AS BINARY)"),
    };
    let name = concat(kind, &["'chat:00000000-0000-0000-0000-'", text]);
    let empty = if kind == DatabaseKind::Postgres {
        "''::bytea"
    } else {
        "X''"
    };
    let record = match kind {
        DatabaseKind::Postgres => "convert_to(repeat('x', 200), 'UTF8')",
        DatabaseKind::Sqlite => "zeroblob(200)",
        DatabaseKind::MariaDb => "REPEAT('x', 200)",
    };
    let author = concat(kind, &["'user-'", &format!("(s.n + r.n) % {AUTHORS}")]);
    let author = match kind {
        DatabaseKind::Postgres => author.replace(
            &format!("(s.n + r.n) % {AUTHORS}"),
            &format!("((s.n + r.n) % {AUTHORS})::text"),
        ),
        _ => author.replace(
            &format!("(s.n + r.n) % {AUTHORS}"),
            &format!("((s.n + r.n) % {AUTHORS})"),
        ),
    };
    for statement in [
        format!("INSERT INTO hubbub_rooms (no, name) SELECT r.n, {name} FROM {rooms}"),
        format!(
            "INSERT INTO hubbub_chats (id, room_id, kind, name, history, direct_key, created_by, created_at, updated_at) \
             SELECT {hex}, {name}, 1, NULL, 0, NULL, {member}, 0, 0 FROM {rooms}"
        ),
        format!(
            "INSERT INTO hubbub_chat_members (chat_id, user_id, role, joined_at, joined_seq) \
             SELECT {hex}, {member}, 0, 0, 0 FROM {rooms}"
        ),
        format!(
            "INSERT INTO hubbub_positions (room_no, read_seq, user_id, at) \
             SELECT r.n, 0, '{user_text}', 0 FROM {rooms}"
        ),
    ] {
        test.execute(&statement).await;
    }
    // In the order of the keys, and in transactions that the databases' caches can hold.
    let join = match kind {
        DatabaseKind::MariaDb => "STRAIGHT_JOIN",
        _ => "CROSS JOIN",
    };
    for first in (0..ROOMS).step_by(ROOMS_PER_STATEMENT) {
        let last = first + ROOMS_PER_STATEMENT as u64;
        let entries = format!(
            "INSERT INTO hubbub_entries (room_no, epoch_no, seq, at, kind, form, id, user_id, send_key, record) \
             SELECT r.n, 1, s.n, s.n, 1, 0, {}, CASE WHEN (s.n + r.n) % {AUTHORS} = 0 THEN '{user_text}' ELSE {author} END, {empty}, {record} \
             FROM {rooms} {join} {numbers} WHERE r.n > {first} AND r.n <= {last}",
            id(kind)
        );
        test.execute(&entries).await;
    }
}

async fn analyze(test: &TestStore) {
    let analyze = match test.kind() {
        DatabaseKind::Sqlite => "ANALYZE",
        DatabaseKind::Postgres => "VACUUM ANALYZE",
        DatabaseKind::MariaDb => "ANALYZE TABLE hubbub_entries, hubbub_unread_blocks, hubbub_rooms",
    };
    test.execute(analyze).await;
}

async fn report(store: &SqlStore, kind: DatabaseKind, user: &UserId, what: &str) {
    let mut times: Vec<Duration> = Vec::new();
    for _ in 0..READS {
        let started = Instant::now();
        let rooms = store.unread(user).await.unwrap();
        times.push(started.elapsed());
        assert_eq!(rooms.len() as u64, ROOMS);
    }
    times.sort();
    let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    println!("{kind:?}: {what}: p50 {p50:?}, p99 {p99:?}");
}

async fn measure(kind: DatabaseKind) {
    let test = TestStore::new(kind).await;
    let user = Uuid::now_v7();
    let started = Instant::now();
    fill(&test, user).await;
    println!("{kind:?}: filled in {:?}", started.elapsed());
    let user = UserId::trusted(&user.to_string());
    let started = Instant::now();
    let first = test.store.unread(&user).await.map(|rooms| rooms.len());
    println!(
        "{kind:?}: before the projection: {first:?} in {:?}",
        started.elapsed()
    );
    let started = Instant::now();
    let mut after = Some(0);
    while let Some(number) = after {
        after = test.store.project_unread_after(number).await.unwrap();
    }
    println!("{kind:?}: projected in {:?}", started.elapsed());
    analyze(&test).await;
    for (what, position) in [
        ("all at 0", "0".to_owned()),
        ("at random", format!("(room_no * 7919) % {MESSAGES}")),
        ("all at 1500", "1500".to_owned()),
        ("all at the head", MESSAGES.to_string()),
    ] {
        test.execute(&format!(
            "UPDATE hubbub_positions SET read_seq = {position}"
        ))
        .await;
        report(&test.store, kind, &user, what).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn measure_unread_sqlite() {
    measure(DatabaseKind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn measure_unread_postgres() {
    measure(DatabaseKind::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn measure_unread_mariadb() {
    measure(DatabaseKind::MariaDb).await;
}
