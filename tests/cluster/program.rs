//! The hubbub program as a process of its own, with the output that it prints.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use hubbub_test_support::node::http;
use serde_json::Value;
use tokio::net::TcpStream;

const TIMEOUT: Duration = Duration::from_secs(30);

/// A running hubbub process. It is killed when the value is dropped.
pub struct Program {
    child: Child,
    /// The working directory, with the output in the file `printed`.
    directory: PathBuf,
}

impl Program {
    /// Starts the program in an empty directory, with no other environment than `settings`.
    pub fn start(arguments: &[&str], settings: &[(&str, &str)]) -> Self {
        let name = format!("hubbub-program-{}", uuid::Uuid::new_v4());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        let printed = File::create(directory.join("printed")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_hubbub"))
            .args(arguments)
            .current_dir(&directory)
            .env_clear()
            .envs(settings.iter().copied())
            .stdout(printed.try_clone().unwrap())
            .stderr(printed)
            .spawn()
            .unwrap();
        Self { child, directory }
    }

    /// Returns once the node is ready.
    pub async fn await_ready(&self, address: SocketAddr) {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let listens = TcpStream::connect(address).await.is_ok();
            if listens && http(address, "GET", "/readyz", &[], "").await.0 == 200 {
                return;
            }
            assert!(Instant::now() < deadline, "not ready: {}", self.printed());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The output so far.
    pub fn printed(&self) -> String {
        let printed = std::fs::read(self.directory.join("printed")).unwrap();
        String::from_utf8_lossy(&printed).into_owned()
    }

    /// Waits until `find` returns a value for the output, and returns that value.
    pub async fn await_printed<T>(&self, find: impl Fn(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let printed = self.printed();
            if let Some(found) = find(&printed) {
                return found;
            }
            assert!(Instant::now() < deadline, "missing in:\n{printed}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The lines of a JSON log with that message, once there are `count` of them.
    pub async fn await_lines(&self, message: &str, count: usize) -> Vec<Value> {
        self.await_printed(|printed| {
            let lines = lines(printed, message);
            (lines.len() >= count).then_some(lines)
        })
        .await
    }

    /// Sends SIGTERM: the node drains.
    pub fn terminate(&self) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(status.unwrap().success());
    }

    /// Kills the process; returns its output.
    pub fn kill(mut self) -> String {
        self.child.kill().unwrap();
        self.wait_for_end();
        self.printed()
    }

    /// Waits for the end of the process; returns its output.
    pub fn wait(self) -> String {
        self.wait_with_status().1
    }

    /// Waits for the end of the process; returns its status and output.
    pub fn wait_with_status(mut self) -> (ExitStatus, String) {
        let status = self.wait_for_end();
        (status, self.printed())
    }

    fn wait_for_end(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Fails if the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// The lines of a JSON log with that message.
pub fn lines(printed: &str, message: &str) -> Vec<Value> {
    let lines = printed.lines();
    let parsed = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    parsed.filter(|line| line["message"] == message).collect()
}
