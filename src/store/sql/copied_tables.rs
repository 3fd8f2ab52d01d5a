//! Tables whose rows are copied to another database one after another, in the order of their keys.

use std::pin::Pin;

use super::conn::Conn;
use super::db::Db;
use super::dialect::exact_parts;
use super::fault::Outcome;
use super::limited_delete::LimitedDelete;
use super::value::Arg;
use crate::store::{DirectoryRow, Result};

/// The most rows of a page.
const PAGE_ROWS: i64 = 500;
/// The bytes after which a page ends, and after which a statement takes no further row.
const PAGE_BYTES: usize = 4 * 1024 * 1024;
const STATEMENT_BYTES: usize = 1024 * 1024;
/// The rows that one transaction deletes.
const DELETED_ROWS: i64 = 5000;

/// A table: its statements, and how its rows are read. Made by [`copied_table!`] or [`table_of_room!`].
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) delete: LimitedDelete,
    pub(super) first: &'static str,
    pub(super) next: &'static str,
    pub(super) insert: &'static str,
    /// The number of columns of the key, which are the first ones.
    pub(super) keys: usize,
    pub(super) load: for<'c> fn(&'c mut Conn, &'static str, Vec<Arg>) -> Loading<'c>,
}

pub(super) type Loading<'c> = Pin<Box<dyn Future<Output = Outcome<Vec<Vec<Arg>>>> + Send + 'c>>;

impl Table {
    /// The rows behind this one. `scope`: the values of the table's condition.
    pub(super) async fn page(
        &'static self,
        db: &Db,
        scope: Vec<Arg>,
        after: Option<&DirectoryRow>,
    ) -> Result<Vec<DirectoryRow>> {
        let mut values = scope;
        let template = match after {
            None => self.first,
            Some(row) => {
                // MySQL reads a range by the first column, and none by the comparison of all of them.
                values.push(row.0[0].clone());
                values.extend_from_slice(&row.0[..self.keys]);
                self.next
            }
        };
        values.push(Arg::from(PAGE_ROWS));
        let rows = db.read(move |conn| (self.load)(conn, template, values.clone()));
        Ok(rows.await?.into_iter().map(DirectoryRow).collect())
    }

    /// Adds rows, each behind the values of `scope`.
    pub(super) async fn insert(
        &self,
        conn: &mut Conn,
        scope: &[Arg],
        rows: Vec<DirectoryRow>,
    ) -> Outcome<()> {
        let parts = parts(&rows);
        let mut rows = rows.into_iter();
        for part in parts {
            let mut values = Vec::new();
            for row in rows.by_ref().take(part) {
                values.extend_from_slice(scope);
                values.extend(row.0);
            }
            let text = conn.dialect().text_of(self.insert, part);
            conn.run_text(text, values).await?;
        }
        Ok(())
    }

    /// Deletes all rows, in several transactions. `scope`: the values of the condition of the deletion.
    pub(super) async fn clear(&'static self, db: &Db, scope: Vec<Arg>) -> Result<()> {
        loop {
            let scope = scope.clone();
            let delete = db.transaction(move |conn| {
                let scope = scope.clone();
                Box::pin(async move { self.delete.run(conn, scope, DELETED_ROWS).await })
            });
            if !delete.await? {
                return Ok(());
            }
        }
    }
}

/// The numbers of rows that go into one statement each.
fn parts(rows: &[DirectoryRow]) -> Vec<usize> {
    let mut parts = Vec::new();
    let (mut count, mut bytes) = (0, 0);
    for row in rows {
        count += 1;
        bytes += bytes_of(&row.0);
        if bytes >= STATEMENT_BYTES {
            parts.extend(exact_parts(count));
            (count, bytes) = (0, 0);
        }
    }
    parts.extend(exact_parts(count));
    parts
}

fn bytes_of(row: &[Arg]) -> usize {
    let bytes = |value: &Arg| match value {
        Arg::Text(text) => text.as_ref().map_or(0, String::len),
        Arg::Bytes(bytes) => bytes.len(),
        _ => size_of::<i64>(),
    };
    row.iter().map(bytes).sum()
}

/// The rows of a page.
#[derive(Default)]
pub(super) struct PageRows {
    rows: Vec<Vec<Arg>>,
    bytes: usize,
}

impl PageRows {
    /// Adds a row. Returns whether there is space for more.
    pub(super) fn add(&mut self, row: impl IntoArgs) -> bool {
        let row = row.into_args();
        self.bytes += bytes_of(&row);
        self.rows.push(row);
        self.bytes < PAGE_BYTES
    }

    pub(super) fn into_rows(self) -> Vec<Vec<Arg>> {
        self.rows
    }
}

/// A row as values of a statement.
pub(super) trait IntoArgs {
    fn into_args(self) -> Vec<Arg>;
}

/// Implements [`IntoArgs`] for tuples of these types, and for all shorter ones.
macro_rules! into_args {
    () => {};
    ($first:ident $($other:ident)*) => {
        impl<$first: Into<Arg>, $($other: Into<Arg>),*> IntoArgs for ($first, $($other,)*) {
            #[allow(non_snake_case, reason = "a value has the name of its type")]
            fn into_args(self) -> Vec<Arg> {
                let ($first, $($other,)*) = self;
                vec![$first.into(), $($other.into()),*]
            }
        }
        into_args!($($other)*);
    };
}
into_args!(A B C D E F G H I J K L M N O P);

/// A column as it is read: `column`, or the expression behind `as`.
macro_rules! selected {
    ($column:literal) => {
        $column
    };
    ($column:literal $selected:literal) => {
        $selected
    };
}
pub(super) use selected;

/// The mark of a column's value.
macro_rules! mark {
    ($column:literal) => {
        "?"
    };
}
pub(super) use mark;

/// A table with these columns, those of its key first: `"name" {"key": type} {"column": type}`. Rows that
/// the table has already are left out.
macro_rules! copied_table {
    ($name:literal {$key:literal: $key_type:ty $(, $keys:literal: $key_types:ty)*}
     {$($column:literal: $type:ty),+ $(,)?}) => {
        $crate::store::sql::copied_tables::table_of!(
            $name, limited_delete!($name, concat!($key $(, ", ", $keys)*), "1 = 1"),
            " WHERE 1 = 1", "", "", concat!(" {if_absent:", $key, "}"),
            {$key: $key_type $(, $keys: $key_types)*} {$($column: $type),+}
        )
    };
}
pub(super) use copied_table;

/// As [`copied_table!`], for the rows of one room: the columns follow `room_no`. A column of small numbers
/// is read as an expression: `"column" as "expression": type`.
macro_rules! table_of_room {
    ($name:literal {$key:literal: $key_type:ty $(, $keys:literal: $key_types:ty)*}
     {$($column:literal $(as $selected:literal)?: $type:ty),+ $(,)?}) => {
        $crate::store::sql::copied_tables::table_of!(
            $name, limited_delete!($name, concat!("room_no, ", $key $(, ", ", $keys)*), "room_no = ?"),
            " WHERE room_no = (SELECT no FROM hubbub_rooms WHERE name = ?)", "room_no, ", "?, ",
            " {if_absent:room_no}",
            {$key: $key_type $(, $keys: $key_types)*} {$($column $(as $selected)?: $type),+}
        )
    };
}
pub(super) use table_of_room;

macro_rules! table_of {
    ($name:literal, $delete:expr, $condition:literal, $scope:literal, $scope_mark:literal, $if_absent:expr,
     {$key:literal: $key_type:ty $(, $keys:literal: $key_types:ty)*}
     {$($column:literal $(as $selected:literal)?: $type:ty),+}) => {
        $crate::store::sql::copied_tables::Table {
            name: $name,
            delete: $delete,
            first: concat!(
                "SELECT ", $key $(, ", ", $keys)* $(, ", ", selected!($column $($selected)?))+,
                " FROM ", $name, $condition, " ORDER BY ", $key $(, ", ", $keys)*, " LIMIT ?"
            ),
            next: concat!(
                "SELECT ", $key $(, ", ", $keys)* $(, ", ", selected!($column $($selected)?))+,
                " FROM ", $name, $condition, " AND ", $key, " >= ? AND (", $key $(, ", ", $keys)*, ") > (?",
                $(", ", mark!($keys),)* ") ORDER BY ", $key $(, ", ", $keys)*, " LIMIT ?"
            ),
            insert: concat!(
                "INSERT INTO ", $name, " (", $scope, $key $(, ", ", $keys)* $(, ", ", $column)+,
                ") VALUES {rows:", $scope_mark, "?" $(, ", ", mark!($keys))* $(, ", ", mark!($column))+,
                "}", $if_absent
            ),
            keys: [$key $(, $keys)*].len(),
            load: |conn, template, args| Box::pin(async move {
                let text = conn.dialect().text(template);
                let mut page = $crate::store::sql::copied_tables::PageRows::default();
                conn.each_of_text(text, args, |row: ($key_type, $($key_types,)* $($type,)+)| page.add(row))
                    .await?;
                Ok(page.into_rows())
            }),
        }
    };
}
pub(super) use table_of;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sql::value::args;

    #[test]
    fn a_statement_takes_few_rows_if_they_are_large() {
        let rows = |sizes: &[usize]| {
            let row = |size: &usize| DirectoryRow(args![1, vec![0_u8; *size]]);
            sizes.iter().map(row).collect::<Vec<_>>()
        };
        assert_eq!(parts(&rows(&[])), Vec::<usize>::new());
        assert_eq!(parts(&rows(&[10; 300])), [128, 128, 32, 12]);
        let (large, half) = (STATEMENT_BYTES, STATEMENT_BYTES / 2);
        assert_eq!(parts(&rows(&[1, large, half, half, 1, 1])), [2, 2, 2]);
    }

    #[test]
    fn a_page_ends_behind_large_rows() {
        let mut page = PageRows::default();
        assert!(page.add((1, vec![0_u8; PAGE_BYTES - 100])));
        assert!(!page.add((2, vec![0_u8; 100])));
        assert_eq!(page.into_rows().len(), 2);
    }
}
