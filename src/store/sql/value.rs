//! The values that go into statements and come out of rows.

use sqlx::error::BoxDynError;
use sqlx::mysql::{MySqlRow, MySqlTypeInfo, MySqlValueRef};
use sqlx::postgres::{PgRow, PgTypeInfo, PgValueRef};
use sqlx::sqlite::{SqliteRow, SqliteTypeInfo, SqliteValueRef};
use sqlx::{Decode, FromRow, MySql, Postgres, Sqlite, Type};
use uuid::Uuid;

/// A value of a statement. `None` has a type, because PostgreSQL requires it.
#[derive(Debug, Clone)]
pub(crate) enum Arg {
    Int(Option<i64>),
    /// A name or short text that is compared byte for byte: `VARBINARY` in MySQL, text elsewhere.
    Text(Option<String>),
    Bytes(Vec<u8>),
    Uuid(Uuid),
    /// For `UNNEST` of PostgreSQL only, like the other arrays.
    Ints(Vec<i64>),
    Texts(Vec<String>),
    Blobs(Vec<Vec<u8>>),
    Uuids(Vec<Uuid>),
}

impl From<i64> for Arg {
    fn from(value: i64) -> Self {
        Self::Int(Some(value))
    }
}

impl From<Option<i64>> for Arg {
    fn from(value: Option<i64>) -> Self {
        Self::Int(value)
    }
}

impl From<&str> for Arg {
    fn from(value: &str) -> Self {
        Self::Text(Some(value.to_owned()))
    }
}

impl From<String> for Arg {
    fn from(value: String) -> Self {
        Self::Text(Some(value))
    }
}

impl From<Option<String>> for Arg {
    fn from(value: Option<String>) -> Self {
        Self::Text(value)
    }
}

impl From<Vec<u8>> for Arg {
    fn from(value: Vec<u8>) -> Self {
        Self::Bytes(value)
    }
}

impl From<Uuid> for Arg {
    fn from(value: Uuid) -> Self {
        Self::Uuid(value)
    }
}

/// The values of a statement, in order.
macro_rules! args {
    ($($value:expr),* $(,)?) => { vec![$($crate::store::sql::value::Arg::from($value)),*] };
}
pub(crate) use args;

/// A number of the database. None is negative.
pub(crate) fn loaded(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

/// A row, as a tuple: sqlx decodes tuples from every database, without a derive.
pub(crate) trait AnyRow:
    for<'r> FromRow<'r, SqliteRow>
    + for<'r> FromRow<'r, PgRow>
    + for<'r> FromRow<'r, MySqlRow>
    + Send
    + Unpin
    + 'static
{
}

impl<T> AnyRow for T where
    T: for<'r> FromRow<'r, SqliteRow>
        + for<'r> FromRow<'r, PgRow>
        + for<'r> FromRow<'r, MySqlRow>
        + Send
        + Unpin
        + 'static
{
}

/// A text of a row, from a column for [`Arg::Text`]. sqlx doesn't decode `VARBINARY` as a string.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Text(pub(crate) String);

impl Type<Sqlite> for Text {
    fn type_info() -> SqliteTypeInfo {
        <String as Type<Sqlite>>::type_info()
    }
}

impl<'r> Decode<'r, Sqlite> for Text {
    fn decode(value: SqliteValueRef<'r>) -> Result<Self, BoxDynError> {
        <String as Decode<Sqlite>>::decode(value).map(Self)
    }
}

impl Type<Postgres> for Text {
    fn type_info() -> PgTypeInfo {
        <String as Type<Postgres>>::type_info()
    }

    fn compatible(column: &PgTypeInfo) -> bool {
        <String as Type<Postgres>>::compatible(column)
    }
}

impl<'r> Decode<'r, Postgres> for Text {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        <String as Decode<Postgres>>::decode(value).map(Self)
    }
}

impl Type<MySql> for Text {
    fn type_info() -> MySqlTypeInfo {
        <Vec<u8> as Type<MySql>>::type_info()
    }

    fn compatible(column: &MySqlTypeInfo) -> bool {
        <Vec<u8> as Type<MySql>>::compatible(column)
    }
}

impl<'r> Decode<'r, MySql> for Text {
    fn decode(value: MySqlValueRef<'r>) -> Result<Self, BoxDynError> {
        let bytes = <Vec<u8> as Decode<MySql>>::decode(value)?;
        // Only another program can have written bytes that are no UTF-8. A statement must not fail for
        // the one row that has them.
        Ok(Self(String::from_utf8_lossy(&bytes).into_owned()))
    }
}

impl From<Text> for Arg {
    fn from(text: Text) -> Self {
        Self::from(text.0)
    }
}

impl From<Option<Text>> for Arg {
    fn from(text: Option<Text>) -> Self {
        Self::from(text.map(|text| text.0))
    }
}
