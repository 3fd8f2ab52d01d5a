//! A real redis-server for one test, on a free port and in a temporary directory, ended when it is
//! dropped or when the tests are interrupted; and a proxy that delays its answers.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::guard::ServerGuard;

/// A running redis-server.
pub struct RedisServer {
    child: Option<Child>,
    guard: ServerGuard,
    pub port: u16,
    dir: PathBuf,
    args: Vec<String>,
}

impl RedisServer {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with additional arguments.
    pub fn start_with(args: &[&str]) -> Self {
        Self::start_on(free_port(), args)
    }

    pub fn start_on(port: u16, args: &[&str]) -> Self {
        let dir = std::env::temp_dir().join(format!("hubbub-redis-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let args = args.iter().map(ToString::to_string).collect();
        let mut server = Self {
            child: None,
            guard: ServerGuard::of(&dir),
            port,
            dir,
            args,
        };
        server.run();
        server
    }

    /// Starts a Sentinel that watches the primary under the name `hub`, with a quorum of one.
    pub fn start_sentinel(port: u16, primary: u16) -> Self {
        let dir = std::env::temp_dir().join(format!("hubbub-redis-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let settings = format!(
            "port {port}\nsentinel monitor hub 127.0.0.1 {primary} 1\nsentinel down-after-milliseconds hub 1000\nsentinel failover-timeout hub 5000\n"
        );
        std::fs::write(dir.join("sentinel.conf"), settings).unwrap();
        let mut command = Command::new("redis-server");
        command
            .arg(dir.join("sentinel.conf"))
            .arg("--sentinel")
            .current_dir(&dir);
        let mut server = Self {
            child: None,
            guard: ServerGuard::of(&dir),
            port,
            dir,
            args: Vec::new(),
        };
        server.await_start(&mut command);
        server
    }

    /// Starts the server again after `kill`, on the same port and without its data.
    pub fn run(&mut self) {
        let mut command = Command::new("redis-server");
        command.args([
            "--port",
            &self.port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        command
            .args(["--enable-debug-command", "yes", "--dir"])
            .arg(&self.dir)
            .args(&self.args);
        self.await_start(&mut command);
    }

    fn await_start(&mut self, command: &mut Command) {
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        self.guard.server_runs(child.id());
        self.child = Some(child);
        let end = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < end, "redis-server doesn't listen");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills the process.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
            self.guard.server_ended();
        }
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Sends a signal to the process: `-STOP` pauses it, `-CONT` continues it.
    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill")
            .args([signal, &self.pid().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Runs a command with redis-cli; returns its output.
    pub fn cli(&self, args: &[&str]) -> String {
        let out = Command::new("redis-cli")
            .args(["-p", &self.port.to_string()])
            .args(args)
            .output()
            .unwrap();
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }

    /// The EVALSHA calls that contain `word` and arrive while `act` runs, in the notation of
    /// redis-cli.
    pub async fn calls_during<T>(&self, word: &str, act: impl Future<Output = T>) -> Vec<String> {
        let mut monitor = tokio::process::Command::new("redis-cli")
            .args(["-p", &self.port.to_string(), "MONITOR"])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(monitor.stdout.take().unwrap()).lines();
        assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("OK"));
        act.await;
        self.cli(&["ECHO", "end of calls"]);
        let mut calls = Vec::new();
        while let Some(line) = lines
            .next_line()
            .await
            .unwrap()
            .filter(|line| !line.contains("end of calls"))
        {
            calls.extend(line.split_once("] ").map(|(_, call)| call.to_owned()));
        }
        calls.retain(|call| call.to_lowercase().starts_with("\"evalsha\"") && call.contains(word));
        calls
    }

    /// Runs one line in the notation of redis-cli; returns its output.
    pub fn line(&self, line: &str) -> String {
        let mut cli = Command::new("redis-cli")
            .args(["-p", &self.port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        cli.stdin
            .take()
            .unwrap()
            .write_all(format!("{line}\n").as_bytes())
            .unwrap();
        String::from_utf8_lossy(&cli.wait_with_output().unwrap().stdout)
            .trim()
            .to_owned()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A TCP proxy in front of a server that delays the server's answers.
pub struct DelayingProxy {
    pub port: u16,
    millis: Arc<AtomicU64>,
}

impl DelayingProxy {
    /// A proxy to the server on that port, without delay at first.
    pub async fn to(port: u16) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (proxy_port, millis) = (
            listener.local_addr().unwrap().port(),
            Arc::<AtomicU64>::default(),
        );
        let delay = millis.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = tokio::net::TcpStream::connect(("127.0.0.1", port))
                    .await
                    .unwrap();
                let ((mut asked, mut answers), (mut answered, mut asks)) =
                    (client.into_split(), server.into_split());
                tokio::spawn(async move { tokio::io::copy(&mut asked, &mut asks).await });
                let (sender, mut held) =
                    tokio::sync::mpsc::unbounded_channel::<(tokio::time::Instant, Vec<u8>)>();
                tokio::spawn(async move {
                    while let Some((due, bytes)) = held.recv().await {
                        tokio::time::sleep_until(due).await;
                        let _ = answers.write_all(&bytes).await;
                    }
                });
                let delay = delay.clone();
                tokio::spawn(async move {
                    let mut buffer = vec![0; 65_536];
                    while let Ok(read @ 1..) = answered.read(&mut buffer).await {
                        let due = tokio::time::Instant::now()
                            + Duration::from_millis(delay.load(Ordering::SeqCst));
                        let _ = sender.send((due, buffer[..read].to_vec()));
                    }
                });
            }
        });
        Self {
            port: proxy_port,
            millis,
        }
    }

    pub fn set_delay(&self, time: Duration) {
        self.millis
            .store(u64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

/// A free port, low enough for the cluster bus port (plus 10,000) that Redis Cluster also needs.
pub fn free_port() -> u16 {
    loop {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let port = 20_000 + port % 30_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok()
            && TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok()
        {
            return port;
        }
    }
}
