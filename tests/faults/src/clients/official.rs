//! Clients that use the official JavaScript libraries. One Node.js process runs all of them: it
//! writes records to its standard output, and reads commands from its standard input.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::ClientState;
use crate::history::{Fact, Position, Record, Recorder};

/// The major versions of the library.
const VERSIONS: [u8; 3] = [2, 3, 4];

/// A running process with its clients.
pub struct OfficialClients {
    /// By the client's name.
    pub states: HashMap<String, Arc<ClientState>>,
    /// The users, each with the index of the address to which its client connects first (modulo the
    /// number of addresses).
    pub users: Vec<(String, usize)>,
    commands: ChildStdin,
    _child: Child,
}

/// The configuration of one client, as the process reads it.
#[derive(Debug, Clone, Serialize)]
struct OfficialClientConfig {
    name: String,
    user: String,
    rooms: Vec<String>,
    /// The major version of the library.
    version: u8,
    /// The mean time between two messages.
    send_interval_ms: u64,
}

impl OfficialClients {
    /// Starts `count_per_version` clients of each major version. Each joins all these rooms.
    pub fn start(
        prefix: &str,
        count_per_version: usize,
        rooms: &[String],
        addresses: &[SocketAddr],
        send_interval: Duration,
        recorder: &Recorder,
        log: &Path,
    ) -> anyhow::Result<Self> {
        let mut configs = Vec::new();
        for version in VERSIONS {
            for index in 0..count_per_version {
                let name = format!("{prefix}v{version}-{index}");
                configs.push(OfficialClientConfig {
                    user: format!("user-{name}"),
                    name,
                    rooms: rooms.to_vec(),
                    version,
                    send_interval_ms: u64::try_from(send_interval.as_millis())?,
                });
            }
        }
        let urls: Vec<String> = addresses
            .iter()
            .map(|address| format!("http://{address}"))
            .collect();
        let arguments = json!({
            "urls": urls,
            "clients": configs,
            "elapsed_micros": recorder.elapsed_micros(),
        });
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("js/official-clients.mjs");
        let mut child = Command::new("node")
            .arg(script)
            .arg(arguments.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(log)?)
            .kill_on_drop(true)
            .spawn()
            .context("node can't be started")?;
        let mut states = HashMap::new();
        let mut users = Vec::new();
        for (index, config) in configs.into_iter().enumerate() {
            let state = ClientState::default();
            state
                .pending_requests
                .store(config.rooms.len(), Ordering::SeqCst);
            states.insert(config.name, Arc::new(state));
            users.push((config.user, index));
        }
        let stdout = child.stdout.take().context("stdout is piped")?;
        tokio::spawn(read_records(stdout, states.clone(), recorder.clone()));
        Ok(Self {
            states,
            users,
            commands: child.stdin.take().context("stdin is piped")?,
            _child: child,
        })
    }

    pub async fn start_sending(&mut self) -> anyhow::Result<()> {
        self.command("start").await
    }

    pub async fn stop_sending(&mut self) -> anyhow::Result<()> {
        self.command("stop").await
    }

    /// Breaks the connection of each client once, at a random moment within this time.
    pub async fn drop_connections_within(&mut self, time: Duration) -> anyhow::Result<()> {
        self.command(&format!("drop {}", time.as_millis())).await
    }

    async fn command(&mut self, command: &str) -> anyhow::Result<()> {
        let line = format!("{command}\n");
        Ok(self.commands.write_all(line.as_bytes()).await?)
    }
}

async fn read_records(
    stdout: ChildStdout,
    states: HashMap<String, Arc<ClientState>>,
    recorder: Recorder,
) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        match serde_json::from_str::<Record>(&line) {
            Ok(record) => {
                if let Some(state) = states.get(&record.source) {
                    update_state(state, &record.fact);
                }
                recorder.append(record);
            }
            Err(error) => recorder.record_lab(Fact::Step {
                text: format!(
                    "a JavaScript client wrote a line that isn't a record ({error}): {line}"
                ),
            }),
        }
    }
}

/// Derives a client's state from its records.
fn update_state(state: &ClientState, fact: &Fact) {
    let set_position = |room: &str, epoch: &str, seq| {
        let position = Position {
            epoch: epoch.to_owned(),
            seq,
        };
        state.positions.lock().insert(room.to_owned(), position);
    };
    match fact {
        Fact::Connected { .. } => {
            state.connected.store(true, Ordering::SeqCst);
        }
        Fact::Disconnected => {
            state.connected.store(false, Ordering::SeqCst);
            let rooms = state.positions.lock().len();
            state.pending_requests.store(rooms.max(1), Ordering::SeqCst);
        }
        Fact::Joined {
            room,
            since,
            epoch,
            seq,
            recovered,
            replayed,
            ..
        } => {
            match since {
                Some(since) if *recovered => set_position(room, epoch, since.seq),
                _ => set_position(room, epoch, seq.saturating_sub(*replayed)),
            }
            let _ = state.pending_requests.fetch_update(
                Ordering::SeqCst,
                Ordering::SeqCst,
                |pending| pending.checked_sub(1),
            );
        }
        Fact::Received {
            room, epoch, seq, ..
        }
        | Fact::Reset {
            room, epoch, seq, ..
        } => set_position(room, epoch, *seq),
        // Each client sends one message at a time: it counts from its first attempt until its
        // acknowledgement.
        Fact::Sent { .. } => state.unacknowledged.store(1, Ordering::SeqCst),
        Fact::Acked { .. } => state.unacknowledged.store(0, Ordering::SeqCst),
        _ => {}
    }
}
