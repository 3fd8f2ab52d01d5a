//! Makes a database ready for a node that starts.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::file_lock::{FileLock, Holder};
use super::migrate::{MigrateError, check_unchanged, status, up_unlocked};
use crate::store::DatabaseSettings;

/// A database whose tables are those that this version needs. On SQLite it is also this process's
/// alone until this value is dropped: keep it as long as the node runs.
#[derive(Debug)]
pub struct PreparedDatabase {
    _lock: Option<FileLock>,
    /// The names of the migrations that were applied now.
    pub applied: Vec<String>,
}

/// Creates the directory and the file of a database of SQLite, takes its lock, and applies pending
/// migrations unless the settings forbid it. Nodes that start at once wait for each other.
///
/// If nothing is pending, the database's user needs no right to create tables.
///
/// # Errors
/// Each with a text that names the remedy. `Store(Unavailable)` while the database is away: the call
/// may be repeated.
pub async fn prepare(settings: &DatabaseSettings) -> Result<PreparedDatabase, MigrateError> {
    let url = &settings.url;
    if url.is_in_memory() {
        return Ok(PreparedDatabase {
            _lock: None,
            applied: Vec::new(),
        });
    }
    let lock = match url.file() {
        Some(file) => Some(take_file(file, settings.data_dir.as_deref()).await?),
        None => None,
    };
    let steps = status(url).await?;
    check_unchanged(&steps)?;
    let pending: Vec<&str> = steps
        .iter()
        .filter(|step| step.state.is_pending())
        .map(|step| step.name.as_str())
        .collect();
    let mut applied = Vec::new();
    if !pending.is_empty() {
        if !settings.migrates {
            return Err(MigrateError::Pending(pending.join(", ")));
        }
        applied = up_unlocked(url).await?;
    }
    Ok(PreparedDatabase {
        _lock: lock,
        applied,
    })
}

/// Creates the file, and `data_dir` if it has to be created, readable by this user only; and locks it.
async fn take_file(file: &Path, data_dir: Option<&Path>) -> Result<FileLock, MigrateError> {
    if let Some(path) = data_dir {
        let created = DirBuilder::new().recursive(true).mode(0o700).create(path);
        created.map_err(|error| MigrateError::DataDir {
            path: path.to_owned(),
            error: error.to_string(),
        })?;
    }
    let opened = async {
        let lock = FileLock::acquire(file, Holder::Node).await?;
        create_private(file).map_err(|error| MigrateError::File {
            path: file.to_owned(),
            error: error.to_string(),
        })?;
        Ok(lock)
    };
    match (opened.await, data_dir) {
        // The configuration names the directory, not the file.
        (Err(MigrateError::File { error, .. }), Some(path)) => Err(MigrateError::DataDir {
            path: path.to_owned(),
            error,
        }),
        (result, _) => result,
    }
}

/// SQLite gives its files beside the database the same mode.
fn create_private(file: &Path) -> std::io::Result<File> {
    File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::store::sql::DatabaseUrl;
    use crate::store::sql::testing::TestDirectory;

    /// The settings of a file in a directory below this one, which doesn't exist.
    fn settings_in(directory: &TestDirectory) -> DatabaseSettings {
        let data_dir = directory.0.join("new/data");
        DatabaseSettings {
            data_dir: Some(data_dir.clone()),
            ..DatabaseSettings::new(DatabaseUrl::sqlite(&data_dir.join("hubbub.db")))
        }
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn the_directory_and_the_file_are_for_this_user_only() {
        let directory = TestDirectory::new();
        let settings = settings_in(&directory);
        let prepared = prepare(&settings).await.unwrap();
        assert_eq!(prepared.applied[0], "0001_rooms");
        let file = settings.url.file().unwrap();
        assert_eq!(mode(file.parent().unwrap()), 0o700);
        assert_eq!(mode(file), 0o600);
        drop(prepared);
        let again = prepare(&settings).await.unwrap();
        assert_eq!(again.applied, Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_directory_that_cannot_be_written_names_both_ways_out() {
        let directory = TestDirectory::new();
        std::fs::write(directory.0.join("new"), "a file").unwrap();
        let error = prepare(&settings_in(&directory))
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("DATA_DIR") && error.contains("DATABASE_URL=none"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn without_the_right_to_migrate_pending_steps_end_the_start() {
        let directory = TestDirectory::new();
        let settings = DatabaseSettings {
            migrates: false,
            ..settings_in(&directory)
        };
        let error = prepare(&settings).await.unwrap_err();
        assert!(matches!(error, MigrateError::Pending(_)), "{error}");
        prepare(&settings_in(&directory)).await.unwrap();
        prepare(&settings).await.unwrap();
    }

    #[tokio::test]
    async fn a_database_in_memory_is_ready_at_once() {
        let url = DatabaseUrl::parse("sqlite::memory:").unwrap();
        prepare(&DatabaseSettings::new(url)).await.unwrap();
    }
}
