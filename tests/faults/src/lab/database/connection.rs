//! A connection of the lab to a database. The lab reads with SQL of its own.

use std::path::Path;

use sqlx::mysql::MySqlRow;
use sqlx::postgres::PgRow;
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection as _, FromRow, MySqlConnection, PgConnection,
    SqliteConnection,
};

use super::DatabaseKind;

pub(super) enum Connection {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
    MariaDb(MySqlConnection),
}

/// A row of any of the databases: every tuple of `i64` and `Vec<u8>` is one.
pub(super) trait AnyRow:
    for<'r> FromRow<'r, SqliteRow>
    + for<'r> FromRow<'r, PgRow>
    + for<'r> FromRow<'r, MySqlRow>
    + Send
    + Unpin
{
}

impl<T> AnyRow for T where
    T: for<'r> FromRow<'r, SqliteRow>
        + for<'r> FromRow<'r, PgRow>
        + for<'r> FromRow<'r, MySqlRow>
        + Send
        + Unpin
{
}

impl Connection {
    /// Connects. The file of an SQLite database is only read.
    pub async fn open(kind: DatabaseKind, url: &str) -> anyhow::Result<Self> {
        Ok(match kind {
            DatabaseKind::Sqlite => {
                let file = Path::new(url.trim_start_matches("sqlite://"));
                let options = SqliteConnectOptions::new().filename(file).read_only(true);
                Self::Sqlite(options.connect().await?)
            }
            DatabaseKind::Postgres => Self::Postgres(PgConnection::connect(url).await?),
            DatabaseKind::MariaDb => Self::MariaDb(MySqlConnection::connect(url).await?),
        })
    }

    pub async fn rows<T: AnyRow>(&mut self, sql: &str) -> anyhow::Result<Vec<T>> {
        let sql = AssertSqlSafe(sql.to_owned());
        Ok(match self {
            Self::Sqlite(connection) => sqlx::query_as(sql).fetch_all(connection).await?,
            Self::Postgres(connection) => sqlx::query_as(sql).fetch_all(connection).await?,
            Self::MariaDb(connection) => sqlx::query_as(sql).fetch_all(connection).await?,
        })
    }

    /// Executes statements, separated by semicolons.
    pub async fn execute(&mut self, sql: &str) -> anyhow::Result<()> {
        let sql = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        match self {
            Self::Sqlite(connection) => {
                sql.execute(connection).await?;
            }
            Self::Postgres(connection) => {
                sql.execute(connection).await?;
            }
            Self::MariaDb(connection) => {
                sql.execute(connection).await?;
            }
        }
        Ok(())
    }

    /// The expression for a column with text, as bytes.
    pub fn text(&self, column: &str) -> String {
        match self {
            Self::Sqlite(_) => format!("CAST({column} AS BLOB)"),
            Self::Postgres(_) => format!("convert_to({column}, 'UTF8')"),
            Self::MariaDb(_) => column.to_owned(),
        }
    }

    /// The expression for a column with a whole number of any size.
    pub fn number(&self, column: &str) -> String {
        match self {
            Self::Postgres(_) => format!("{column}::bigint"),
            Self::Sqlite(_) | Self::MariaDb(_) => column.to_owned(),
        }
    }

    /// The expression for a column with an id, as 16 bytes.
    pub fn uuid(&self, column: &str) -> String {
        match self {
            Self::Postgres(_) => format!("uuid_send({column})"),
            Self::Sqlite(_) | Self::MariaDb(_) => column.to_owned(),
        }
    }
}
