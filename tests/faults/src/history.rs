//! What clients and the lab write down: one [`Record`] a line, as JSON. The checker reads nothing else.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// A fact, by whom, and when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Milliseconds since the run began. Records of one `who` come in the order in which things happened to it; between
    /// two of them only `at` says anything, and no finer than its unit.
    pub at: u64,
    /// A client's name, unique in the run, or `lab`.
    pub who: String,
    /// What happened.
    #[serde(flatten)]
    pub fact: Fact,
}

/// What can happen.
///
/// `msg` is a client's own name for a message (`client_msg_id`), unique in the run: all attempts to send the same message bear the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Fact {
    // ---- what clients write
    /// The client is connected, and the server knows its user.
    Opened { user: String },
    /// The connection is gone, by whatever cause. Another `opened` may follow.
    Closed,
    /// The client ends here by its own will: nothing is owed to it any more. Written before it closes its connection.
    Ended,
    /// An attempt to send.
    Sent { room: String, msg: String },
    /// A positive ack (or 2xx of REST).
    Acked {
        room: String,
        msg: String,
        id: String,
        epoch: String,
        seq: u64,
        duplicate: bool,
    },
    /// A negative ack. The client may try again.
    Refused {
        room: String,
        msg: String,
        code: String,
    },
    /// An ack of `join`. `since` is what the client gave, if it did.
    Joined {
        room: String,
        since: Option<Position>,
        epoch: String,
        seq: u64,
        recovered: bool,
        gap: bool,
        replayed: u64,
    },
    /// The client left the room, and that was acknowledged.
    Left { room: String },
    /// A message came.
    Got {
        room: String,
        epoch: String,
        seq: u64,
        id: String,
        msg: Option<String>,
        user: String,
    },
    /// `room_reset` came.
    Reset {
        room: String,
        epoch: String,
        seq: u64,
        lost_from: Option<u64>,
    },
    /// `room_users` came.
    Roster {
        room: String,
        users: Vec<String>,
        total: u64,
    },
    /// `user_joined` came.
    Entered { room: String, user: String },
    /// `user_left` came.
    Went { room: String, user: String },
    /// An ack of `subscribe_status`.
    Watching {
        target: String,
        online: bool,
        version: u64,
    },
    /// `user_online` or `user_offline` came.
    Status {
        target: String,
        online: bool,
        version: u64,
        initial: bool,
    },
    // ---- what the lab writes
    /// A step of the scenario, for readers.
    Step { text: String },
    /// From here on the data of Redis may have gone back in time: a new epoch may follow.
    DataLost,
    /// What was acknowledged before this must outlive the next loss of data.
    Saved,
    /// The truth about a user's presence changed: each watcher that is connected is owed one event.
    Change { target: String, online: bool },
    /// From now until the end this client is as far from all faults as can be: it must be told of each change singly.
    Calm { client: String },
    /// The head of a room when all was over, read over REST.
    Head {
        room: String,
        epoch: String,
        seq: u64,
    },
    /// The users of a room when all was over, read over REST.
    Members { room: String, users: Vec<String> },
    /// The state of a user when all was over, read over REST.
    State {
        target: String,
        online: bool,
        version: u64,
    },
}

/// A place in a room's numbering.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The life of the numbering.
    pub epoch: String,
    /// The number in it.
    pub seq: u64,
}

/// Takes records from everywhere and writes them to one file, in the order in which they come.
#[derive(Clone)]
pub struct History {
    began: Instant,
    /// Once true, nothing more is written.
    closed: Arc<AtomicBool>,
    lines: mpsc::UnboundedSender<Record>,
}

/// The file's end of a [`History`].
pub struct Written(tokio::task::JoinHandle<anyhow::Result<()>>);

impl History {
    /// Opens a new file. The run begins now.
    ///
    /// # Errors
    /// The file can't be made.
    pub fn create(path: &Path) -> anyhow::Result<(Self, Written)> {
        let file =
            File::create(path).with_context(|| format!("{} can't be made", path.display()))?;
        let mut file = std::io::BufWriter::with_capacity(1 << 20, file);
        let (lines, mut written) = mpsc::unbounded_channel::<Record>();
        let task = tokio::task::spawn_blocking(move || {
            while let Some(record) = written.blocking_recv() {
                serde_json::to_writer(&mut file, &record)?;
                file.write_all(b"\n")?;
            }
            Ok(file.flush()?)
        });
        Ok((
            Self {
                began: Instant::now(),
                closed: Arc::default(),
                lines,
            },
            Written(task),
        ))
    }

    /// Milliseconds since the run began.
    pub fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Microseconds since the run began.
    pub fn micros(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Writes a fact down, as of now.
    pub fn write(&self, who: &str, fact: Fact) {
        self.append(Record {
            at: self.now(),
            who: who.to_owned(),
            fact,
        });
    }

    /// Writes down what another process saw.
    pub fn append(&self, record: Record) {
        if !self.closed.load(Ordering::SeqCst) {
            let _ = self.lines.send(record);
        }
    }

    /// The run is over: how its clients are taken down isn't part of it.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }
}

impl Written {
    /// Waits until every [`History`] is dropped and all is in the file.
    ///
    /// # Errors
    /// The file could not be written.
    pub async fn end(self) -> anyhow::Result<()> {
        self.0.await?
    }
}

/// Reads a file back.
///
/// # Errors
/// The file can't be read, or a line of it is no record.
pub fn read(path: &Path) -> anyhow::Result<Vec<Record>> {
    let file = File::open(path).with_context(|| format!("{} can't be read", path.display()))?;
    let lines = BufReader::new(file).lines().enumerate();
    lines
        .map(|(number, line)| {
            serde_json::from_str(&line?)
                .with_context(|| format!("{}:{}", path.display(), number + 1))
        })
        .collect()
}
