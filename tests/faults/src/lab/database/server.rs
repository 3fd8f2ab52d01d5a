//! Private servers: PostgreSQL and MariaDB, from the machine's packages.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use super::connection::Connection;
use super::{ArchiveReader, DatabaseKind};
use crate::lab::eventually;
use crate::lab::process::Process;
use crate::lab::system::free_port;

const START_TIMEOUT: Duration = Duration::from_secs(60);
/// The user that runs the servers if the lab runs as root: PostgreSQL refuses to run as root.
const UNPRIVILEGED_USER: &str = "nobody";

/// A database server. Its port and its data outlive its process.
pub struct DatabaseServer {
    pub kind: DatabaseKind,
    port: u16,
    /// The data: not below the directory of the run, where an unprivileged user may not get.
    dir: PathBuf,
    log: PathBuf,
    user: Option<User>,
    process: Option<Process>,
}

#[derive(Clone, Copy)]
struct User {
    uid: u32,
    gid: u32,
}

impl DatabaseServer {
    /// Creates an empty database, and starts its server. The server flushes each transaction to the
    /// disk before it confirms the commit, as both do by default.
    pub async fn start(log_dir: &Path, kind: DatabaseKind) -> anyhow::Result<Self> {
        let port = free_port();
        let name = match kind {
            DatabaseKind::Postgres => "postgres",
            DatabaseKind::MariaDb => "mariadb",
            DatabaseKind::Sqlite => bail!("SQLite has no server"),
        };
        let dir = std::env::temp_dir().join(format!("hubbub-faults-{name}-{port}"));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir)?;
        let user = unprivileged_user()?;
        if let Some(user) = user {
            chown(&dir, Some(user.uid), Some(user.gid))?;
        }
        let mut server = Self {
            kind,
            port,
            log: log_dir.join(format!("{name}-{port}.log")),
            dir,
            user,
            process: None,
        };
        server.initialize().await?;
        server.run().await?;
        if kind == DatabaseKind::MariaDb {
            let mut connection = Connection::open(kind, &server.url_of("mysql")).await?;
            connection.execute("CREATE DATABASE hubbub").await?;
        }
        Ok(server)
    }

    /// Starts the server's process, also after an earlier one has ended: with the same port and
    /// data. Waits until it answers, after its recovery.
    pub async fn run(&mut self) -> anyhow::Result<()> {
        let mut command = self.server_command()?;
        self.process = Some(Process::start(&mut command, &self.log)?);
        let (kind, url) = (self.kind, self.url_of(self.first_database()));
        eventually("the database answers", START_TIMEOUT, async || {
            Connection::open(kind, &url).await.is_ok()
        })
        .await
    }

    /// Kills the server with all its processes (SIGKILL).
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill_tree();
        }
    }

    /// Suspends the server with all its processes (SIGSTOP), if it is running.
    pub fn suspend(&self) {
        if let Some(process) = &self.process {
            process.suspend_tree();
        }
    }

    /// Lets the server continue (SIGCONT), if it is running.
    pub fn resume(&self) {
        if let Some(process) = &self.process {
            process.resume_tree();
        }
    }

    /// The value for `DATABASE_URL`.
    pub fn url(&self) -> String {
        let database = match self.kind {
            DatabaseKind::MariaDb => "hubbub",
            _ => self.first_database(),
        };
        self.url_of(database)
    }

    pub fn reader(&self) -> ArchiveReader {
        ArchiveReader {
            kind: self.kind,
            url: self.url(),
        }
    }

    /// A database that exists from the start.
    fn first_database(&self) -> &'static str {
        match self.kind {
            DatabaseKind::MariaDb => "mysql",
            _ => "postgres",
        }
    }

    fn url_of(&self, database: &str) -> String {
        let port = self.port;
        match self.kind {
            DatabaseKind::MariaDb => format!("mysql://root@127.0.0.1:{port}/{database}"),
            _ => format!("postgres://hubbub@127.0.0.1:{port}/{database}"),
        }
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Creates the files of the database.
    async fn initialize(&self) -> anyhow::Result<()> {
        let mut command = match self.kind {
            DatabaseKind::MariaDb => {
                let mut command = Command::new("mariadb-install-db");
                command
                    .arg("--no-defaults")
                    .arg(format!("--datadir={}", self.data().display()))
                    .args(["--auth-root-authentication-method=normal", "--skip-test-db"])
                    .arg("--skip-name-resolve");
                command
            }
            _ => {
                let mut command = Command::new(postgres_program("initdb")?);
                command
                    .arg("-D")
                    .arg(self.data())
                    .args(["-U", "hubbub", "-A", "trust", "-E", "UTF8"])
                    .args(["--locale=C", "--no-instructions"]);
                command
            }
        };
        self.as_user(&mut command);
        let output = tokio::task::spawn_blocking(move || command.output())
            .await?
            .context("the database's programs can't be started")?;
        ensure!(
            output.status.success(),
            "the database can't be created: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    fn server_command(&self) -> anyhow::Result<Command> {
        let port = self.port;
        let mut command = match self.kind {
            DatabaseKind::MariaDb => {
                let program = program("mariadbd").context("MariaDB is not installed")?;
                let mut command = Command::new(program);
                command
                    .arg("--no-defaults")
                    .arg(format!("--datadir={}", self.data().display()))
                    .arg(format!("--socket={}", self.dir.join("socket").display()))
                    .arg(format!("--port={port}"))
                    .args(["--bind-address=127.0.0.1", "--skip-name-resolve"])
                    .arg("--innodb-buffer-pool-size=64M");
                command
            }
            _ => {
                let mut command = Command::new(postgres_program("postgres")?);
                command
                    .arg("-D")
                    .arg(self.data())
                    .arg("-k")
                    .arg(&self.dir)
                    .args(["-p", &port.to_string()])
                    .args(["-c", "listen_addresses=127.0.0.1"]);
                command
            }
        };
        self.as_user(&mut command);
        Ok(command)
    }

    fn as_user(&self, command: &mut Command) {
        command.current_dir(&self.dir);
        if let Some(user) = self.user {
            command.uid(user.uid).gid(user.gid);
        }
    }
}

impl Drop for DatabaseServer {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// The user that runs the servers; `None` if the lab isn't root.
fn unprivileged_user() -> anyhow::Result<Option<User>> {
    if !rustix::process::getuid().is_root() {
        return Ok(None);
    }
    let id = |option: &str| -> anyhow::Result<u32> {
        let output = Command::new("id")
            .args([option, UNPRIVILEGED_USER])
            .output()?;
        Ok(String::from_utf8(output.stdout)?.trim().parse()?)
    };
    Ok(Some(User {
        uid: id("-u")?,
        gid: id("-g")?,
    }))
}

/// The path of a program of PostgreSQL. Debian keeps most of them out of `PATH`.
fn postgres_program(name: &str) -> anyhow::Result<PathBuf> {
    let mut found = Vec::new();
    for version in std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
    {
        let path = version?.path().join("bin").join(name);
        if path.exists() {
            found.push(path);
        }
    }
    found.sort();
    found
        .pop()
        .or_else(|| program(name))
        .context("PostgreSQL is not installed")
}

/// The path of a program in `PATH`, or in the directories of servers.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|directory| directory.join(name))
        .find(|path| path.exists())
}
