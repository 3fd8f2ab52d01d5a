//! The lock on a database file of SQLite: one process at a time may add messages or change tables.
//! SQLite itself would let several in, and each would number messages by the heads of rooms in its own
//! memory.
//!
//! The lock is on a file beside the database. The operating system releases it with the process,
//! however that ends. Two kinds of processes do without it: those that only read, and
//! `hubbub db prune`, which must work while a node runs. It deletes old messages as the node's own
//! retention does, and numbers none. SQLite's write lock, which each transaction waits for (busy
//! timeout), keeps its transactions and the node's apart.

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::migrate::MigrateError;

/// How long a process waits for one that doesn't stay: a migration.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a process waits for a node: it may be about to end.
const NODE_TIMEOUT: Duration = Duration::from_secs(2);
const RETRY_INTERVAL: Duration = Duration::from_millis(50);
/// The first bytes of a database file that is not empty.
const FILE_BEGINNING: &[u8] = b"SQLite format 3\0";
/// The symbolic links that are followed one after another, as many as Linux follows.
const MAX_LINKS: usize = 40;

/// The process that holds a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// A node: it holds the lock as long as it runs.
    Node,
    /// A command, which ends by itself.
    Command,
}

/// The right to add to a database file. Dropping it gives the right back.
#[derive(Debug)]
pub struct FileLock {
    _file: File,
}

impl FileLock {
    /// Waits for the lock of a database file, for two seconds if a node holds it, else for a minute.
    ///
    /// # Errors
    /// `InUse`; `NotADatabase` and `NoDirectory`, without a trace in the directory; `File` if the lock
    /// file can't be created there.
    pub async fn acquire(database: &Path, holder: Holder) -> Result<Self, MigrateError> {
        let fault = |error: std::io::Error| MigrateError::File {
            path: database.to_owned(),
            error: error.to_string(),
        };
        check_place(database)?;
        let mut file = open(&lock_path(database)).map_err(fault)?;
        let begin = Instant::now();
        let mut is_logged = false;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(fault(error)),
                Err(TryLockError::WouldBlock) => {}
            }
            let owner = Owner::read(&mut file);
            if begin.elapsed() >= owner.timeout() {
                return Err(MigrateError::InUse {
                    path: database.to_owned(),
                    owner: owner.to_string(),
                });
            }
            if !owner.is_node && !std::mem::replace(&mut is_logged, true) {
                tracing::info!(%owner, "waiting for a command that uses the database file");
            }
            sleep(RETRY_INTERVAL).await;
        }
        Owner::write(&mut file, holder).map_err(fault)?;
        Ok(Self { _file: file })
    }

    /// Takes the lock for a command if no process has it, and the lock file can be written.
    #[must_use]
    pub fn try_acquire(database: &Path) -> Option<Self> {
        let mut file = open(&lock_path(database)).ok()?;
        file.try_lock().ok()?;
        Owner::write(&mut file, Holder::Command).ok()?;
        Some(Self { _file: file })
    }
}

fn open(lock_file: &Path) -> std::io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(lock_file)
}

/// Fails if there is something else than a database file, or can be no file.
fn check_place(database: &Path) -> Result<(), MigrateError> {
    let is_other = |problem: &'static str| MigrateError::NotADatabase {
        path: database.to_owned(),
        problem,
    };
    if database.is_dir() {
        return Err(is_other("is a directory"));
    }
    let directory = directory_of(database);
    if !directory.exists() {
        return Err(MigrateError::NoDirectory {
            path: directory.to_owned(),
        });
    }
    let mut beginning = Vec::new();
    // A file that is missing is created, and one that can't be read fails when it is opened.
    if let Ok(file) = File::open(database) {
        let _ = file
            .take(FILE_BEGINNING.len() as u64)
            .read_to_end(&mut beginning);
    }
    if beginning.is_empty() || beginning == FILE_BEGINNING {
        Ok(())
    } else {
        Err(is_other("is no database of SQLite"))
    }
}

fn directory_of(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// `NAME.lock` beside the database `NAME`, which is the same for each of its names by symbolic links.
fn lock_path(database: &Path) -> PathBuf {
    beside(database, ".lock")
}

/// The path of a file that belongs to a database: SQLite has its log under such a path, too.
pub(super) fn beside(database: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(real_path(database, MAX_LINKS));
    name.push(ending);
    PathBuf::from(name)
}

/// The path without symbolic links. The file, or its directory, may be missing.
fn real_path(file: &Path, links: usize) -> PathBuf {
    if let Ok(path) = file.canonicalize() {
        return path;
    }
    let directory = directory_of(file);
    // A link whose target is missing: SQLite creates the target.
    if let Ok(target) = file.read_link()
        && links > 0
    {
        return real_path(&directory.join(target), links - 1);
    }
    match (directory.canonicalize(), file.file_name()) {
        (Ok(directory), Some(name)) => directory.join(name),
        _ => file.to_owned(),
    }
}

/// The content of the lock file, for messages.
struct Owner {
    is_node: bool,
    pid: Option<u32>,
}

impl Owner {
    /// Reads the owner from the file, whose text may be incomplete for a moment.
    fn read(file: &mut File) -> Self {
        let mut text = String::new();
        let _ = file.rewind();
        // A text that can't be read leaves the owner unknown.
        let _ = file.take(64).read_to_string(&mut text);
        let (kind, pid) = text.trim().split_once(' ').unwrap_or_default();
        Self {
            is_node: kind == "node",
            pid: pid.parse().ok(),
        }
    }

    fn write(file: &mut File, holder: Holder) -> std::io::Result<()> {
        let kind = match holder {
            Holder::Node => "node",
            Holder::Command => "command",
        };
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{kind} {}", std::process::id())
    }

    fn timeout(&self) -> Duration {
        if self.is_node {
            NODE_TIMEOUT
        } else {
            COMMAND_TIMEOUT
        }
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_node { "a node" } else { "a process" })?;
        match self.pid {
            Some(pid) => write!(f, " (process id {pid})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sql::testing::TestDirectory;

    #[tokio::test(start_paused = true)]
    async fn a_second_node_is_refused_and_told_of_the_first() {
        let directory = TestDirectory::new();
        let file = directory.0.join("hubbub.db");
        let first = FileLock::acquire(&file, Holder::Node).await.unwrap();
        for holder in [Holder::Node, Holder::Command] {
            let refused = FileLock::acquire(&file, holder).await.unwrap_err();
            let text = refused.to_string();
            let expected = format!("in use by a node (process id {})", std::process::id());
            assert!(text.contains(&expected), "{text}");
        }
        drop(first);
        FileLock::acquire(&file, Holder::Node).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_waits_for_a_command() {
        let directory = TestDirectory::new();
        let file = directory.0.join("hubbub.db");
        let command = FileLock::acquire(&file, Holder::Command).await.unwrap();
        let waiting = tokio::spawn({
            let file = file.clone();
            async move { FileLock::acquire(&file, Holder::Node).await }
        });
        sleep(Duration::from_secs(30)).await;
        assert!(!waiting.is_finished());
        drop(command);
        waiting.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_with_several_names_has_one_lock() {
        let directory = TestDirectory::new();
        let file = directory.0.join("hubbub.db");
        let (to_file, to_directory) = (directory.0.join("link.db"), directory.0.join("link"));
        std::os::unix::fs::symlink("hubbub.db", &to_file).unwrap();
        std::os::unix::fs::symlink(&directory.0, &to_directory).unwrap();
        // First without the file, so that the link leads to nothing.
        for _ in 0..2 {
            let _first = FileLock::acquire(&file, Holder::Node).await.unwrap();
            for name in [&to_file, &to_directory.join("hubbub.db")] {
                let second = FileLock::acquire(name, Holder::Node).await;
                assert!(
                    matches!(second, Err(MigrateError::InUse { .. })),
                    "{name:?}"
                );
            }
            File::create(&file).unwrap();
        }
    }

    #[tokio::test]
    async fn a_missing_directory_is_an_error_with_the_path() {
        let file = Path::new("/nonexistent/hubbub.db");
        let error = FileLock::acquire(file, Holder::Node).await.unwrap_err();
        let expected = "the directory /nonexistent doesn't exist";
        assert!(error.to_string().contains(expected), "{error}");
    }
}
