//! The schema: what its tables are like, and that the code knows all of them.

use std::collections::BTreeSet;

use hubbub::store::sql::MESSAGE_TABLES;
use hubbub_test_support::database::DatabaseKind;
use sqlx::{ConnectOptions as _, Row as _};

use crate::fixture::{TestStore, migrations};

crate::on_every_database!(retention_deletes_from_every_table_with_data_of_messages);

/// The tables that have both columns.
async fn tables_with(store: &TestStore, columns: [&str; 2]) -> BTreeSet<String> {
    let [first, second] = columns;
    let text = if store.kind() == DatabaseKind::Sqlite {
        format!(
            "SELECT m.name FROM sqlite_master m \
             WHERE m.type = 'table' AND m.name LIKE 'hubbub%' \
             AND EXISTS (SELECT 1 FROM pragma_table_info(m.name) c WHERE c.name = '{first}') \
             AND EXISTS (SELECT 1 FROM pragma_table_info(m.name) c WHERE c.name = '{second}')"
        )
    } else {
        let schema = match store.kind() {
            DatabaseKind::Postgres => "current_schema()",
            _ => "DATABASE()",
        };
        format!(
            "SELECT a.table_name FROM information_schema.columns a \
             JOIN information_schema.columns b \
             ON b.table_schema = a.table_schema AND b.table_name = a.table_name \
             WHERE a.table_schema = {schema} \
             AND a.column_name = '{first}' AND b.column_name = '{second}'"
        )
    };
    if store.kind() != DatabaseKind::Sqlite {
        return store
            .database
            .sql(&text)
            .lines()
            .map(str::to_owned)
            .collect();
    }
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(store.database.file());
    let mut connection = options.connect().await.unwrap();
    let rows = sqlx::raw_sql(sqlx::AssertSqlSafe(text));
    let rows = rows.fetch_all(&mut connection).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

async fn retention_deletes_from_every_table_with_data_of_messages(store: &TestStore) {
    let known = || MESSAGE_TABLES.iter().map(|table| (*table).to_owned());
    let found = tables_with(store, ["room_no", "seq"]).await;
    assert_eq!(found, known().collect::<BTreeSet<_>>());
    // The test finds tables by their columns: so a new one is found.
    store
        .execute("CREATE TABLE hubbub_new (room_no INTEGER, seq INTEGER, text INTEGER)")
        .await;
    let found = tables_with(store, ["room_no", "seq"]).await;
    let expected: BTreeSet<String> = known().chain(["hubbub_new".to_owned()]).collect();
    assert_eq!(found, expected);
}

#[test]
fn the_databases_have_the_same_migrations_each_with_its_way_back() {
    let files = |kind| -> BTreeSet<String> {
        let files = std::fs::read_dir(migrations(kind)).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.collect()
    };
    let sqlite = files(DatabaseKind::Sqlite);
    assert!(!sqlite.is_empty());
    assert_eq!(files(DatabaseKind::Postgres), sqlite);
    assert_eq!(files(DatabaseKind::MariaDb), sqlite);
    for name in &sqlite {
        let other = match name.strip_suffix(".up.sql") {
            Some(stem) => format!("{stem}.down.sql"),
            None => name.replace(".down.sql", ".up.sql"),
        };
        assert!(sqlite.contains(&other), "{other} is missing");
    }
}

/// Without them the server's configuration would decide how texts are compared and cut.
#[test]
fn every_table_of_mysql_names_its_engine_and_character_set() {
    for file in std::fs::read_dir(migrations(DatabaseKind::MariaDb)).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let tables = text.matches("CREATE TABLE").count();
        let tail = "ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";
        assert_eq!(text.matches(tail).count(), tables);
        assert!(!text.contains("VARCHAR"), "ids are VARBINARY");
        assert!(!text.contains(" TEXT"), "TEXT ends at 64 KiB");
    }
}
