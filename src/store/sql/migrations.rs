//! The steps of the schema, from the folder `migrations/` of the repository.
//!
//! A step must be safe to repeat after it was interrupted anywhere, because MySQL commits each of its
//! statements; and a node of the previous release must work on its result. So a step adds tables,
//! columns and indexes, and unused ones are removed a release later.

use std::borrow::Cow;

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};

use super::dialect::Dialect;

/// The table that records the applied steps. An application that shares the database may use sqlx,
/// too, whose table has another name.
pub(super) const TABLE: &str = "hubbub_migrations";

/// A step on one kind of database.
pub(super) struct Step {
    /// The name of its files, which begins with its version.
    pub name: &'static str,
    pub up: &'static str,
    pub down: &'static str,
}

macro_rules! steps {
    ($folder:literal) => {
        steps!($folder: "0001_rooms", "0002_entries", "0003_retention_runs", "0004_accounts", "0005_outbox", "0006_account_administration", "0007_chats", "0008_account_tokens", "0009_idempotency", "0010_messages")
    };
    ($folder:literal: $($name:literal),*) => {
        &[$(Step {
            name: $name,
            up: include_str!(concat!(
                "../../../migrations/", $folder, "/", $name, ".up.sql"
            )),
            down: include_str!(concat!(
                "../../../migrations/", $folder, "/", $name, ".down.sql"
            )),
        }),*]
    };
}

const SQLITE: &[Step] = steps!("sqlite");
const POSTGRES: &[Step] = steps!("postgres");
const MYSQL: &[Step] = steps!("mysql");

/// The steps in the order of their versions.
pub(super) fn steps(dialect: Dialect) -> &'static [Step] {
    match dialect {
        Dialect::Sqlite => SQLITE,
        Dialect::Postgres => POSTGRES,
        Dialect::MySql => MYSQL,
    }
}

impl Step {
    /// The number at the beginning of the name.
    pub fn version(&self) -> i64 {
        let (number, _) = self.name.split_once('_').unwrap_or((self.name, ""));
        number.parse().expect("a step's name begins with a number")
    }

    fn migration(&self, kind: MigrationType, sql: &'static str) -> Migration {
        let (_, description) = self.name.split_once('_').unwrap_or(("", self.name));
        Migration::new(
            self.version(),
            Cow::Borrowed(description),
            kind,
            sql.into_sql_str(),
            false,
        )
    }

    /// The step as sqlx applies it; its checksum shows whether the database has this text of it.
    pub fn up_migration(&self) -> Migration {
        self.migration(MigrationType::ReversibleUp, self.up)
    }

    fn down_migration(&self) -> Migration {
        self.migration(MigrationType::ReversibleDown, self.down)
    }
}

/// All steps, without sqlx's locks: on SQLite they do nothing, and MariaDB refuses them.
pub(super) fn migrator(dialect: Dialect) -> Migrator {
    let steps = steps(dialect).iter();
    let migrations = steps.flat_map(|step| [step.up_migration(), step.down_migration()]);
    let mut migrator = Migrator::with_migrations(migrations.collect());
    migrator.set_locking(false);
    migrator.dangerous_set_table_name(TABLE);
    migrator
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIALECTS: [(Dialect, &str); 3] = [
        (Dialect::Sqlite, "sqlite"),
        (Dialect::Postgres, "postgres"),
        (Dialect::MySql, "mysql"),
    ];

    /// Databases have recorded the checksums of the steps of a release, and refuse others.
    #[test]
    fn released_steps_never_change() {
        use sha2::{Digest as _, Sha256};
        const RELEASED: usize = 9;
        for (dialect, expected) in [
            (
                Dialect::Sqlite,
                "ef7e3cf4713163952d56e1ceb789d2a71baebd9467057f6785afb1199d1ae5e2",
            ),
            (
                Dialect::Postgres,
                "0bd7467bc458596bf068f367f5e5139858b3d473154dd7284e95e47709827285",
            ),
            (
                Dialect::MySql,
                "efda0c016c10ba79f9fb93a888c9979cf03eb17effeb8200f9ca26ad62af6bc2",
            ),
        ] {
            let mut digest = Sha256::new();
            for step in &steps(dialect)[..RELEASED] {
                digest.update(&step.up_migration().checksum);
            }
            let digest: String = digest
                .finalize()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            assert_eq!(digest, expected, "{dialect:?}");
        }
    }

    #[test]
    fn the_three_folders_have_the_same_steps_and_all_of_them_are_embedded() {
        for (dialect, folder) in DIALECTS {
            let folder = format!("{}/migrations/{folder}", env!("CARGO_MANIFEST_DIR"));
            let entries = std::fs::read_dir(&folder).unwrap();
            let mut found: Vec<String> = entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            found.sort_unstable();
            let mut expected: Vec<String> = steps(dialect)
                .iter()
                .flat_map(|step| ["down", "up"].map(|way| format!("{}.{way}.sql", step.name)))
                .collect();
            expected.sort_unstable();
            assert_eq!(found, expected, "{folder}");
        }
    }

    #[test]
    fn versions_rise_by_one() {
        for (dialect, _) in DIALECTS {
            let versions = steps(dialect).iter().map(Step::version);
            let expected = 1..=i64::try_from(steps(dialect).len()).unwrap();
            assert!(versions.eq(expected), "{dialect:?}");
        }
    }

    /// The statements of a step, without comments.
    fn statements(sql: &str) -> Vec<String> {
        let lines = sql
            .lines()
            .filter(|line| !line.trim_start().starts_with("--"));
        let code: Vec<&str> = lines.collect();
        let code = code.join("\n");
        let statements = code.split(';').map(|text| text.trim().to_owned());
        statements.filter(|text| !text.is_empty()).collect()
    }

    #[test]
    fn every_statement_of_a_step_may_be_repeated() {
        const REPEATABLE_UP: [&str; 3] = [
            "CREATE TABLE IF NOT EXISTS ",
            "CREATE INDEX IF NOT EXISTS ",
            "CREATE UNIQUE INDEX IF NOT EXISTS ",
        ];
        const REPEATABLE_DOWN: [&str; 2] = ["DROP TABLE IF EXISTS ", "DROP INDEX IF EXISTS "];
        for (dialect, folder) in DIALECTS {
            for step in steps(dialect) {
                for (sql, beginnings) in
                    [(step.up, &REPEATABLE_UP[..]), (step.down, &REPEATABLE_DOWN)]
                {
                    for statement in statements(sql) {
                        let is_repeatable = beginnings.iter().any(|it| statement.starts_with(it));
                        assert!(is_repeatable, "{folder}/{}: {statement}", step.name);
                    }
                }
            }
        }
    }

    #[test]
    fn every_table_has_our_prefix_and_in_mysql_a_binary_collation() {
        for (dialect, folder) in DIALECTS {
            for step in steps(dialect) {
                for statement in statements(step.up) {
                    let Some(rest) = statement.strip_prefix("CREATE TABLE IF NOT EXISTS ") else {
                        continue;
                    };
                    let name = format!("{folder}/{}: {statement}", step.name);
                    assert!(rest.starts_with("hubbub_"), "{name}");
                    let ending = "CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";
                    let has_collation = statement.ends_with(ending);
                    assert_eq!(has_collation, dialect == Dialect::MySql, "{name}");
                }
            }
        }
    }
}
