//! Clients on the official JavaScript client, in one Node process: it writes records, and takes orders as lines.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use super::Standing;
use crate::history::{Fact, History, Position, Record};

/// A running process with its clients.
pub struct Fleet {
    /// By client's name.
    pub standings: HashMap<String, Arc<Standing>>,
    /// By user, the index of the door that it knocks at first.
    pub homes: Vec<(String, usize)>,
    orders: ChildStdin,
    _child: Child,
}

/// What a client of a fleet is to do.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Part {
    pub name: String,
    pub user: String,
    pub rooms: Vec<String>,
    /// 2, 3 or 4.
    pub version: u8,
    /// Mean milliseconds between two messages; 0: it doesn't send.
    pub pace: u64,
}

impl Fleet {
    /// Starts so many clients of each major version, all in these rooms.
    pub fn start(
        prefix: &str,
        each: usize,
        rooms: &[String],
        doors: &[SocketAddr],
        pace: Duration,
        history: &History,
        log: &Path,
    ) -> anyhow::Result<Self> {
        let mut parts = Vec::new();
        for version in [2, 3, 4] {
            for index in 0..each {
                let name = format!("{prefix}v{version}-{index}");
                let pace = u64::try_from(pace.as_millis())?;
                parts.push(Part {
                    user: format!("user-{name}"),
                    name,
                    rooms: rooms.to_vec(),
                    version,
                    pace,
                });
            }
        }
        let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
        let urls: Vec<String> = doors.iter().map(|door| format!("http://{door}")).collect();
        let task = json!({"doors": urls, "clients": parts, "micros": history.micros()});
        let mut child = Command::new("node")
            .arg(tests.join("js/fleet.mjs"))
            .arg(task.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(log)?)
            .kill_on_drop(true)
            .spawn()
            .context("node is installed")?;
        let standings: HashMap<_, _> = parts
            .iter()
            .map(|part| (part.name.clone(), Arc::new(Standing::default())))
            .collect();
        let mut lines = BufReader::new(child.stdout.take().context("piped")?).lines();
        let (known, history) = (standings.clone(), history.clone());
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                match serde_json::from_str::<Record>(&line) {
                    Ok(record) => {
                        if let Some(standing) = known.get(&record.who) {
                            follow(standing, &record.fact);
                        }
                        history.append(record);
                    }
                    Err(error) => history.write(
                        "lab",
                        Fact::Step {
                            text: format!("not a record ({error}): {line}"),
                        },
                    ),
                }
            }
        });
        for (part, standing) in parts.iter().map(|part| (part, &standings[&part.name])) {
            standing.asking.store(part.rooms.len(), Ordering::SeqCst);
        }
        let homes = parts
            .iter()
            .enumerate()
            .map(|(index, part)| (part.user.clone(), index))
            .collect();
        Ok(Self {
            standings,
            homes,
            orders: child.stdin.take().context("piped")?,
            _child: child,
        })
    }

    /// Gives all clients an order: `loud`, `quiet`, or `drop <milliseconds>`.
    pub async fn order(&mut self, line: &str) -> anyhow::Result<()> {
        Ok(self
            .orders
            .write_all(format!("{line}\n").as_bytes())
            .await?)
    }
}

/// Keeps up with what a client writes.
fn follow(standing: &Standing, fact: &Fact) {
    let stand = |room: &str, epoch: &str, seq| {
        standing.at.lock().insert(
            room.to_owned(),
            Position {
                epoch: epoch.to_owned(),
                seq,
            },
        );
    };
    match fact {
        Fact::Opened { .. } => {
            standing.connected.store(true, Ordering::SeqCst);
        }
        Fact::Closed => {
            standing.connected.store(false, Ordering::SeqCst);
            standing
                .asking
                .store(standing.at.lock().len().max(1), Ordering::SeqCst);
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
                Some(at) if *recovered => stand(room, epoch, at.seq),
                _ => stand(room, epoch, seq.saturating_sub(*replayed)),
            }
            let _ = standing
                .asking
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                    left.checked_sub(1)
                });
        }
        Fact::Got {
            room, epoch, seq, ..
        }
        | Fact::Reset {
            room, epoch, seq, ..
        } => stand(room, epoch, *seq),
        // One message is under way at a time: it counts from its first attempt to its ack.
        Fact::Sent { .. } => standing.unanswered.store(1, Ordering::SeqCst),
        Fact::Acked { .. } => standing.unanswered.store(0, Ordering::SeqCst),
        _ => {}
    }
}
