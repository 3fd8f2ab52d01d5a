//! Deletes a limited number of rows: a transaction that deletes everything at once may take longer than a
//! transaction may.

use super::conn::Conn;
use super::dialect::Dialect;
use super::fault::Outcome;
use super::value::Arg;

/// A statement that deletes rows, as the databases have it: its values, and then the most rows. Made by
/// [`limited_delete!`].
pub(super) struct LimitedDelete {
    /// SQLite and PostgreSQL have no limit of a deletion, and MySQL no limit of a subquery.
    pub(super) mysql: &'static str,
    pub(super) others: &'static str,
}

impl LimitedDelete {
    /// Deletes at most `limit` rows. Returns whether there may be more.
    pub(super) async fn run(
        &self,
        conn: &mut Conn,
        mut values: Vec<Arg>,
        limit: i64,
    ) -> Outcome<bool> {
        values.push(Arg::from(limit));
        let template = match conn.dialect() {
            Dialect::MySql => self.mysql,
            Dialect::Sqlite | Dialect::Postgres => self.others,
        };
        let deleted = conn.run(template, values).await?;
        Ok(i64::try_from(deleted).is_ok_and(|deleted| deleted >= limit))
    }
}

/// `limited_delete!(table, "columns of the key", condition)`.
macro_rules! limited_delete {
    ($table:literal, $keys:expr, $condition:expr) => {
        $crate::store::sql::limited_delete::LimitedDelete {
            mysql: concat!("DELETE FROM ", $table, " WHERE ", $condition, " LIMIT ?"),
            others: concat!(
                "DELETE FROM ",
                $table,
                " WHERE (",
                $keys,
                ") IN (SELECT ",
                $keys,
                " FROM ",
                $table,
                " WHERE ",
                $condition,
                " LIMIT ?)"
            ),
        }
    };
}
pub(super) use limited_delete;
