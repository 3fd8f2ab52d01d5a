//! Real PostgreSQL and MariaDB servers for tests, started as an unprivileged user on free ports and in
//! temporary directories; and an empty database for each test.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::guard::ServerGuard;
use crate::server::free_port;

/// A database that the store supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseKind {
    Sqlite,
    Postgres,
    MariaDb,
}

/// A running database server, ended when it is dropped or when this process ends.
pub struct DatabaseServer {
    kind: DatabaseKind,
    pub port: u16,
    dir: PathBuf,
    is_durable: bool,
    child: Option<Child>,
    guard: ServerGuard,
}

/// The user in the servers.
const USER: &str = "hubbub";

impl DatabaseServer {
    /// Starts a server that is fast, because it doesn't wait for the disk.
    pub fn start(kind: DatabaseKind) -> Self {
        Self::start_on(kind, free_port(), false)
    }

    /// Starts a server with its usual durability: what it has committed survives `kill`.
    pub fn start_durable(kind: DatabaseKind) -> Self {
        Self::start_on(kind, free_port(), true)
    }

    fn start_on(kind: DatabaseKind, port: u16, is_durable: bool) -> Self {
        let name = format!("hubbub-{kind:?}-{}-{port}", std::process::id()).to_lowercase();
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        let mut server = Self {
            kind,
            port,
            guard: ServerGuard::of(&dir),
            dir,
            is_durable,
            child: None,
        };
        server.install();
        server.run();
        server
    }

    /// The server that the tests of this process share. It ends with the process: a static value is never
    /// dropped.
    pub fn shared(kind: DatabaseKind) -> &'static Self {
        static POSTGRES: OnceLock<DatabaseServer> = OnceLock::new();
        static MARIADB: OnceLock<DatabaseServer> = OnceLock::new();
        let shared = match kind {
            DatabaseKind::Postgres => &POSTGRES,
            DatabaseKind::MariaDb => &MARIADB,
            DatabaseKind::Sqlite => panic!("SQLite has no server"),
        };
        shared.get_or_init(|| Self::start(kind))
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// A program of the server, as an unprivileged user: both servers refuse to run as root.
    fn program(&self, path: &Path) -> Command {
        let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
        let mut command = if is_root {
            let user = match self.kind {
                DatabaseKind::MariaDb => "mysql",
                _ => "postgres",
            };
            let chown = Command::new("chown").arg(user).arg(&self.dir).status();
            assert!(chown.unwrap().success());
            let mut command = Command::new("setpriv");
            command.args([format!("--reuid={user}"), format!("--regid={user}")]);
            command.arg("--clear-groups").arg(path);
            command
        } else {
            Command::new(path)
        };
        command
            .current_dir(&self.dir)
            // Temporary tables of two servers would have the same names.
            .env("TMPDIR", &self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(self.log());
        command
    }

    fn log(&self) -> std::fs::File {
        let path = self.dir.join("server.log");
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(path);
        log.unwrap()
    }

    /// Makes the directory of data.
    fn install(&mut self) {
        let mut command = match self.kind {
            DatabaseKind::Postgres => {
                let mut command = self.program(&postgres_program("initdb"));
                command.arg("-D").arg(self.data());
                command.args(["-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"]);
                command.args(["--no-sync", "--no-instructions"]);
                command
            }
            DatabaseKind::MariaDb => {
                let mut command = self.program(Path::new("mariadb-install-db"));
                command.arg("--no-defaults");
                command.arg(format!("--datadir={}", self.data().display()));
                command.args(["--auth-root-authentication-method=normal", "--skip-test-db"]);
                command.arg("--skip-name-resolve");
                command
            }
            DatabaseKind::Sqlite => panic!("SQLite has no server"),
        };
        let mut child = command.spawn().expect("the server is installed");
        self.guard.server_runs(child.id());
        let status = child.wait().unwrap();
        self.guard.server_ended();
        assert!(status.success(), "{}", self.log_text());
        if self.kind == DatabaseKind::MariaDb {
            // Runs once, when the server starts for the first time.
            let script = format!(
                "CREATE USER {USER}@'127.0.0.1';\nGRANT ALL ON *.* TO {USER}@'127.0.0.1' WITH GRANT OPTION;\n"
            );
            std::fs::write(self.dir.join("first.sql"), script).unwrap();
        }
    }

    /// Starts the server: again after `kill` or `stop`, on the same port and with its data.
    pub fn run(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let child = self.command().spawn().expect("the server is installed");
            self.guard.server_runs(child.id());
            self.child = Some(child);
            if self.await_start(deadline) {
                return;
            }
            self.guard.server_ended();
            assert!(Instant::now() < deadline, "{}", self.log_text());
            // The processes of a server that was killed need a moment to end.
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn command(&self) -> Command {
        match self.kind {
            DatabaseKind::Postgres => self.postgres_command(),
            DatabaseKind::MariaDb => self.mariadb_command(),
            DatabaseKind::Sqlite => panic!("SQLite has no server"),
        }
    }

    fn postgres_command(&self) -> Command {
        let mut command = self.program(&postgres_program("postgres"));
        command.arg("-D").arg(self.data());
        command.args(["-p", &self.port.to_string()]);
        command.arg("-k").arg(&self.dir);
        command.args([
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            "max_connections=200",
        ]);
        if !self.is_durable {
            command.args(["-c", "fsync=off", "-c", "full_page_writes=off"]);
        }
        command
    }

    fn mariadb_command(&self) -> Command {
        let mut command = self.program(Path::new("mariadbd"));
        command.arg("--no-defaults");
        command.arg(format!("--datadir={}", self.data().display()));
        command.arg(format!("--port={}", self.port));
        command.arg(format!("--socket={}", self.dir.join("s.sock").display()));
        command.args(["--bind-address=127.0.0.1", "--skip-name-resolve"]);
        command.args(["--innodb-buffer-pool-size=64M", "--max-connections=200"]);
        let first = self.dir.join("first.sql");
        if first.exists() {
            command.arg(format!("--init-file={}", first.display()));
        }
        if !self.is_durable {
            command.arg("--innodb-flush-log-at-trx-commit=0");
        }
        command
    }

    /// Waits until the server answers. Returns false if it ended.
    fn await_start(&mut self, deadline: Instant) -> bool {
        while Instant::now() < deadline {
            if self.try_sql(None, "SELECT 1").is_some() {
                let _ = std::fs::remove_file(self.dir.join("first.sql"));
                return true;
            }
            let child = self.child.as_mut().expect("it was started");
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the server doesn't answer: {}", self.log_text());
    }

    fn log_text(&self) -> String {
        std::fs::read_to_string(self.dir.join("server.log")).unwrap_or_default()
    }

    /// Kills the server's processes, as a power cut would.
    pub fn kill(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        for pid in with_children(child.id()) {
            send_signal("-KILL", pid);
        }
        let _ = child.wait();
        self.guard.server_ended();
    }

    /// Stops the server in order.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        // PostgreSQL: a fast shutdown, which ends the sessions.
        let signal = if self.kind == DatabaseKind::Postgres {
            "-INT"
        } else {
            "-TERM"
        };
        send_signal(signal, child.id());
        let _ = child.wait();
        self.guard.server_ended();
    }

    /// The id of the server's main process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Sends a signal to all processes of the server: `-STOP` pauses it, `-CONT` continues it.
    pub fn signal(&self, signal: &str) {
        for pid in with_children(self.pid()) {
            send_signal(signal, pid);
        }
    }

    /// The URL of a database of the server.
    pub fn url(&self, database: &str) -> String {
        let scheme = match self.kind {
            DatabaseKind::MariaDb => "mysql",
            _ => "postgres",
        };
        format!("{scheme}://{USER}@127.0.0.1:{}/{database}", self.port)
    }

    /// Creates an empty database, and returns its URL.
    pub fn create_database(&self, name: &str) -> String {
        self.sql(None, &format!("CREATE DATABASE {name}"));
        self.url(name)
    }

    /// Runs a statement in a database (or in none), past the code under test. Returns the rows, with
    /// tabs between the columns.
    pub fn sql(&self, database: Option<&str>, text: &str) -> String {
        let output = self.try_sql(database, text);
        output.unwrap_or_else(|| panic!("{text}: {}", self.log_text()))
    }

    fn try_sql(&self, database: Option<&str>, text: &str) -> Option<String> {
        let port = self.port.to_string();
        let mut command;
        if self.kind == DatabaseKind::MariaDb {
            command = Command::new("mariadb");
            command.args(["--no-defaults", "-h", "127.0.0.1", "-P", &port, "-u", USER]);
            command.args(["-N", "-B", "-e", text]);
            command.args(database);
        } else {
            command = Command::new("psql");
            command.args(["-X", "-q", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1"]);
            command.args(["-h", "127.0.0.1", "-p", &port, "-U", USER, "-c", text]);
            command.args(["-d", database.unwrap_or("postgres")]);
        }
        let output = command.stdin(Stdio::null()).output();
        let output = output.expect("the client of the database is installed");
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then_some(text)
    }
}

impl Drop for DatabaseServer {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A program of PostgreSQL, which Debian keeps out of the path.
fn postgres_program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let mut found: Vec<PathBuf> = versions
        .filter_map(Result::ok)
        .map(|version| version.path().join("bin").join(name))
        .filter(|path| path.exists())
        .collect();
    found.sort();
    found.pop().unwrap_or_else(|| PathBuf::from(name))
}

/// A process and its children.
fn with_children(pid: u32) -> Vec<u32> {
    let mut pids = vec![pid];
    let list = format!("/proc/{pid}/task/{pid}/children");
    let children = std::fs::read_to_string(list).unwrap_or_default();
    pids.extend(
        children
            .split_whitespace()
            .filter_map(|pid| pid.parse::<u32>().ok()),
    );
    pids
}

fn send_signal(signal: &str, pid: u32) {
    let _ = Command::new("kill")
        .args([signal, &pid.to_string()])
        .stderr(Stdio::null())
        .status();
}

/// An empty database for one test.
pub struct TestDatabase {
    pub kind: DatabaseKind,
    pub url: String,
    name: String,
    /// The directory of a database of SQLite.
    dir: Option<PathBuf>,
}

impl TestDatabase {
    pub fn new(kind: DatabaseKind) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{}_{number}", std::process::id());
        let (url, dir) = if kind == DatabaseKind::Sqlite {
            let dir = std::env::temp_dir().join(format!("hubbub-sqlite-{name}"));
            std::fs::create_dir_all(&dir).unwrap();
            let file = dir.join("hubbub.db");
            (format!("sqlite://{}", file.display()), Some(dir))
        } else {
            let server = DatabaseServer::shared(kind);
            (server.create_database(&name), None)
        };
        Self {
            kind,
            url,
            name,
            dir,
        }
    }

    /// Runs a statement past the code under test; not for SQLite.
    pub fn sql(&self, text: &str) -> String {
        DatabaseServer::shared(self.kind).sql(Some(&self.name), text)
    }

    /// The file of a database of SQLite.
    pub fn file(&self) -> PathBuf {
        let dir = self.dir.as_ref().expect("only SQLite has a file");
        dir.join("hubbub.db")
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        if let Some(dir) = &self.dir {
            let _ = std::fs::remove_dir_all(dir);
        }
    }
}
