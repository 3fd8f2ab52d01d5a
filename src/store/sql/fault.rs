//! Errors of the drivers, classified by the reaction of the caller.

use sqlx::mysql::MySqlDatabaseError;
use sqlx::postgres::PgDatabaseError;
use sqlx::sqlite::SqliteError;

use crate::store::StoreError;

/// Why a statement or a transaction failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A deadlock, a lock that another transaction holds, or a busy database: repeating the whole
    /// transaction helps.
    Again(String),
    /// The connection is lost, perhaps because it was idle for too long. The outcome is unknown.
    Lost(String),
    /// The database is away, overloaded, stopping, read-only or full. The outcome is unknown.
    Unavailable(String),
    /// The database refuses the user, the database's name or the action.
    Refused(String),
    /// A row with this key exists.
    Taken(String),
    /// The database refused the statement.
    Broken(String),
}

pub(crate) type Outcome<T> = std::result::Result<T, Fault>;

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Again(text) | Fault::Lost(text) | Fault::Unavailable(text) => {
                Self::Unavailable(text)
            }
            Fault::Refused(text) => Self::Refused(text),
            Fault::Taken(text) | Fault::Broken(text) => Self::Broken(text),
        }
    }
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        let sqlx::Error::Database(error) = error else {
            let text = error.to_string();
            return match error {
                sqlx::Error::Io(_) => Self::Lost(text),
                sqlx::Error::Tls(_)
                | sqlx::Error::Protocol(_)
                | sqlx::Error::WorkerCrashed
                | sqlx::Error::BeginFailed => Self::Unavailable(text),
                _ => Self::Broken(text),
            };
        };
        // Without the line of the server's source that the driver adds for PostgreSQL.
        let postgres = error.try_downcast_ref::<PgDatabaseError>();
        let text = match postgres {
            Some(error) => error.message().to_owned(),
            None => error.to_string(),
        };
        if error.is_unique_violation() {
            return Self::Taken(returned(&text));
        }
        let class = if let Some(error) = error.try_downcast_ref::<MySqlDatabaseError>() {
            of_mysql(error.number())
        } else if let Some(error) = postgres {
            of_postgres(error.code())
        } else if error.try_downcast_ref::<SqliteError>().is_some() {
            of_sqlite(error.code().and_then(|code| code.parse().ok()).unwrap_or(0))
        } else {
            Class::Broken
        };
        match class {
            Class::Again => Self::Again(text),
            Class::Lost => Self::Lost(text),
            Class::Unavailable => Self::Unavailable(text),
            Class::Refused => Self::Refused(text),
            Class::Broken => Self::Broken(returned(&text)),
        }
    }
}

/// The text of an error that the database returned, as opposed to one of this server.
fn returned(text: &str) -> String {
    format!("the database returned an error: {text}")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Again,
    Lost,
    Unavailable,
    Refused,
    Broken,
}

/// By the error numbers of MySQL and MariaDB.
fn of_mysql(number: u16) -> Class {
    match number {
        // A lock wait that took too long, a deadlock, and (MariaDB) a row changed since it was read.
        1205 | 1213 | 1020 => Class::Again,
        // The connection was killed, or idle for too long.
        1927 | 4031 => Class::Lost,
        // Access denied to the database, the user, a table, a column or an action; no such database; a
        // host that is not allowed.
        1044 | 1045 | 1049 | 1130 | 1142 | 1143 | 1227 | 1370 | 1698 => Class::Refused,
        // Too many connections (of all, of the user, per hour), a host that is blocked.
        1040 | 1203 | 1226 | 1129 => Class::Unavailable,
        // Shutting down, interrupted, out of time; errors of the network.
        1053 | 1077 | 1079 | 1158..=1161 | 1184 | 1317 | 1969 | 3024 => Class::Unavailable,
        // Out of memory or of disk space; read-only.
        1021 | 1030 | 1037 | 1038 | 1041 | 1114 | 1290 | 1836 => Class::Unavailable,
        _ => Class::Broken,
    }
}

/// By SQLSTATE.
fn of_postgres(code: &str) -> Class {
    match code {
        // Serialisation failures, deadlocks, locks that weren't available in time, and a plan whose
        // table has changed.
        "40001" | "40P01" | "55P03" | "0A000" => Class::Again,
        // The server ended the session: the operator did, it stops, or the session was idle for too long.
        "57P01" | "57P02" | "57P05" | "25P03" => Class::Lost,
        // Read-only.
        "25006" => Class::Unavailable,
        // A missing right.
        "42501" => Class::Refused,
        _ => match code.get(..2).unwrap_or_default() {
            "08" => Class::Lost,
            // Authentication, an unknown database.
            "28" | "3D" => Class::Refused,
            // Resources, the operator (as by the statement timeout), the system.
            "53" | "57" | "58" => Class::Unavailable,
            _ => Class::Broken,
        },
    }
}

/// By extended result codes of SQLite, whose low byte is the primary one.
fn of_sqlite(code: i32) -> Class {
    match code & 0xff {
        // SQLITE_BUSY, SQLITE_LOCKED.
        5 | 6 => Class::Again,
        // NOMEM, READONLY, INTERRUPT, IOERR, FULL, CANTOPEN, PROTOCOL, NOLFS, AUTH.
        7 | 8 | 9 | 10 | 13 | 14 | 15 | 22 | 23 => Class::Unavailable,
        _ => Class::Broken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_apart_by_their_codes() {
        for (class, number) in [
            (Class::Again, 1213),
            (Class::Again, 1020),
            (Class::Lost, 1927),
            (Class::Lost, 4031),
            (Class::Unavailable, 1290),
            (Class::Refused, 1045),
            (Class::Refused, 1049),
            (Class::Refused, 1142),
            (Class::Broken, 1406),
            (Class::Broken, 1064),
        ] {
            assert_eq!(of_mysql(number), class, "{number}");
        }
        for (class, code) in [
            (Class::Again, "40P01"),
            (Class::Lost, "57P01"),
            (Class::Lost, "57P05"),
            (Class::Lost, "08006"),
            (Class::Unavailable, "57014"),
            (Class::Unavailable, "57P03"),
            (Class::Refused, "28P01"),
            (Class::Refused, "3D000"),
            (Class::Refused, "42501"),
            (Class::Unavailable, "53300"),
            (Class::Unavailable, "53100"),
            (Class::Broken, "42601"),
            (Class::Broken, "22021"),
            (Class::Broken, ""),
        ] {
            assert_eq!(of_postgres(code), class, "{code}");
        }
        // 517: SQLITE_BUSY_SNAPSHOT; 266: SQLITE_IOERR_READ; 13: SQLITE_FULL; 11: SQLITE_CORRUPT.
        for (class, code) in [
            (Class::Again, 517),
            (Class::Again, 5),
            (Class::Unavailable, 266),
            (Class::Unavailable, 13),
            (Class::Broken, 11),
        ] {
            assert_eq!(of_sqlite(code), class, "{code}");
        }
    }

    #[test]
    fn a_lost_connection_is_an_unavailable_database() {
        let lost = Fault::from(sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into()));
        assert!(matches!(lost, Fault::Lost(_)));
        assert!(matches!(StoreError::from(lost), StoreError::Unavailable(_)));
        let foreign = sqlx::Error::ColumnNotFound("x".to_owned());
        assert!(matches!(Fault::from(foreign), Fault::Broken(_)));
    }
}
