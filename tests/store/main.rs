//! The conformance suite of the store: every promise of its traits on a SQLite file, PostgreSQL and
//! MariaDB.

// A test that cannot go on should stop and say where.
#![allow(clippy::unwrap_used)]

mod accounts;
mod bot_tokens;
mod chats;
mod checks;
mod commits;
mod concurrency;
mod deletion;
mod deletion_races;
mod deletion_skips;
mod epochs;
mod extremes;
mod faults;
mod fences;
mod fixture;
mod gaps;
mod idempotency;
mod invites;
mod jobs;
mod measure;
mod measure_outbox;
mod measure_unread;
mod memberships;
mod messages;
mod migrations;
mod outbox;
mod outbox_locks;
mod reads;
mod recovery;
mod retention;
mod schema;
mod transfer;
mod unread;
mod urgent;
mod users;

/// Makes a test of each function for each database. A function takes the [`fixture::TestStore`].
macro_rules! on_every_database {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $crate::on_one_database!(Sqlite, $($name),*);
        }
        mod postgres {
            $crate::on_one_database!(Postgres, $($name),*);
        }
        mod mariadb {
            $crate::on_one_database!(MariaDb, $($name),*);
        }
    };
}
pub(crate) use on_every_database;

macro_rules! on_one_database {
    ($kind:ident, $($name:ident),*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                use hubbub_test_support::database::DatabaseKind;
                let store = $crate::fixture::TestStore::new(DatabaseKind::$kind).await;
                super::$name(&store).await;
            }
        )*
    };
}
pub(crate) use on_one_database;
