//! The history of a run: one [`Record`] per line, as JSON, written by the clients and by the lab.
//! It is the checker's only input.

pub mod changes;
pub mod chats;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use self::changes::ChangeFact;
use self::chats::ChatFact;

/// The source of the records that the lab itself writes.
pub const LAB: &str = "lab";

/// A fact with its source and its time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Milliseconds since the run began. The records of one source are in the order in which it
    /// observed them. Records of different sources are ordered by `at` alone, so not more precisely
    /// than to the millisecond.
    pub at: u64,
    /// A client's name, unique in the run, or [`LAB`].
    pub source: String,
    #[serde(flatten)]
    pub fact: Fact,
}

/// Everything that a history can contain.
///
/// `msg` is the `client_msg_id` of a message, unique in the run: all attempts to send one message
/// carry the same one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "snake_case")]
pub enum Fact {
    // ---- written by clients
    /// The client is connected, and the server knows its user.
    Connected {
        user: String,
    },
    /// The connection is gone, for any reason. Another `connected` may follow.
    Disconnected,
    /// The client stops for good, by its own decision: from now on nothing has to reach it. Written
    /// before it closes its connection.
    Ended,
    /// An attempt to send a message. Each attempt may have another content.
    Sent {
        room: String,
        msg: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        content: Option<ContentDigest>,
    },
    /// A positive acknowledgement (or a 2xx response of REST).
    Acked {
        room: String,
        msg: String,
        id: String,
        epoch: String,
        seq: u64,
        duplicate: bool,
    },
    /// A negative acknowledgement. The client may try again.
    Refused {
        room: String,
        msg: String,
        code: String,
    },
    /// The acknowledgement of a `join`. `since` is the position from which the client asked to
    /// resume, if it did.
    Joined {
        room: String,
        since: Option<Position>,
        epoch: String,
        seq: u64,
        recovered: bool,
        gap: bool,
        replayed: u64,
    },
    /// The client left the room, and the server acknowledged it.
    Left {
        room: String,
    },
    /// A `message` arrived.
    Received {
        room: String,
        epoch: String,
        seq: u64,
        id: String,
        msg: Option<String>,
        user: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        content: Option<ContentDigest>,
    },
    /// A `room_reset` arrived.
    Reset {
        room: String,
        epoch: String,
        seq: u64,
        lost_from: Option<u64>,
    },
    /// A `room_users` arrived.
    RoomUsers {
        room: String,
        users: Vec<String>,
        total: u64,
    },
    /// A `user_joined` arrived.
    UserJoined {
        room: String,
        user: String,
    },
    /// A `user_left` arrived.
    UserLeft {
        room: String,
        user: String,
    },
    /// The acknowledgement of a `subscribe_status`.
    Watching {
        target: String,
        online: bool,
        version: u64,
    },
    /// A `user_online` or `user_offline` arrived.
    Status {
        target: String,
        online: bool,
        version: u64,
        initial: bool,
    },
    // ---- written by the lab
    /// A step of the scenario, as information for human readers.
    Step {
        text: String,
    },
    /// From now on, Redis may have lost its newest data: a new epoch may follow.
    DataLost,
    /// Everything acknowledged before this must survive the next loss of data.
    DataSaved,
    /// The lab made a user come online or go offline: every connected watcher must receive one
    /// event about it.
    PresenceChanged {
        target: String,
        online: bool,
    },
    /// From now until the end no fault touches this client: it must be notified of each change
    /// separately.
    Unaffected {
        client: String,
    },
    /// The head of a room at the end of the run, read over REST.
    FinalHead {
        room: String,
        epoch: String,
        seq: u64,
    },
    /// The lab read the archive's database at the end of the run, by SQL of its own. The records of
    /// its rooms follow.
    ArchiveRead,
    /// A room of the archive. Retention has deleted the entries up to `cut`.
    ArchivedRoom {
        room: String,
        cut: u64,
    },
    /// A range of numbers that the archive has recorded as lost.
    ArchivedGap {
        room: String,
        first: u64,
        last: u64,
    },
    /// An entry of the archive, in the order of the room's numbers.
    Archived(KeptMessage),
    /// A message of a room at the end of the run, read page by page over REST, from the first one to
    /// the head.
    Logged(KeptMessage),
    /// The users of a room at the end of the run, read over REST.
    FinalMembers {
        room: String,
        users: Vec<String>,
    },
    /// The status of a user at the end of the run, read over REST.
    FinalStatus {
        target: String,
        online: bool,
        version: u64,
    },
    // ---- written by the drivers and members of chats, and by the lab
    Chat(ChatFact),
    // ---- written by clients of messages that change, and by the lab
    Change(ChangeFact),
}

/// A message as the archive or the log has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptMessage {
    pub room: String,
    pub seq: u64,
    pub epoch: String,
    pub id: String,
    pub msg: Option<String>,
    pub user: String,
    pub content: ContentDigest,
}

/// Stands for the content of a message: a history must not grow with the contents.
pub type ContentDigest = u32;

/// The digest of a content: FNV-1a, which the JavaScript clients compute too.
pub fn digest(content: &str) -> ContentDigest {
    content.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

/// A position in the numbering of a room.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Position {
    pub epoch: String,
    /// The sequence number within the epoch.
    pub seq: u64,
}

/// Accepts records from every client and writes them to one file, in the order in which they
/// arrive.
#[derive(Clone)]
pub struct Recorder {
    began: Instant,
    /// Once true, later records are dropped.
    closed: Arc<AtomicBool>,
    records: mpsc::UnboundedSender<Record>,
}

/// The task that writes a [`Recorder`]'s records to the file.
pub struct FileWriter(tokio::task::JoinHandle<anyhow::Result<()>>);

impl Recorder {
    /// Creates the file. The time of the run starts now.
    ///
    /// # Errors
    /// The file can't be created.
    pub fn create(path: &Path) -> anyhow::Result<(Self, FileWriter)> {
        let file =
            File::create(path).with_context(|| format!("can't create {}", path.display()))?;
        let mut file = std::io::BufWriter::with_capacity(1 << 20, file);
        let (records, mut pending) = mpsc::unbounded_channel::<Record>();
        let task = tokio::task::spawn_blocking(move || {
            while let Some(record) = pending.blocking_recv() {
                serde_json::to_writer(&mut file, &record)?;
                file.write_all(b"\n")?;
            }
            Ok(file.flush()?)
        });
        let recorder = Self {
            began: Instant::now(),
            closed: Arc::default(),
            records,
        };
        Ok((recorder, FileWriter(task)))
    }

    /// Milliseconds since the run began.
    pub fn elapsed_millis(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Microseconds since the run began.
    pub fn elapsed_micros(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Records a fact with the present time.
    pub fn record(&self, source: &str, fact: Fact) {
        self.append(Record {
            at: self.elapsed_millis(),
            source: source.to_owned(),
            fact,
        });
    }

    /// Records a fact of the lab with the present time.
    pub fn record_lab(&self, fact: Fact) {
        self.record(LAB, fact);
    }

    /// Appends a record that another process made.
    pub fn append(&self, record: Record) {
        if !self.closed.load(Ordering::SeqCst) {
            let _ = self.records.send(record);
        }
    }

    /// Ends the history: the shutdown of the clients isn't part of it.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }
}

impl FileWriter {
    /// Waits until every clone of the [`Recorder`] is dropped and all records are in the file.
    ///
    /// # Errors
    /// The file could not be written.
    pub async fn finish(self) -> anyhow::Result<()> {
        self.0.await?
    }
}

/// Reads a history from its file.
///
/// # Errors
/// The file can't be read, or one of its lines isn't a record.
pub fn read(path: &Path) -> anyhow::Result<Vec<Record>> {
    let file = File::open(path).with_context(|| format!("can't read {}", path.display()))?;
    let mut records = Vec::new();
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let record = serde_json::from_str(&line?)
            .with_context(|| format!("{}:{}", path.display(), index + 1))?;
        records.push(record);
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_fnv_1a_of_the_bytes() {
        assert_eq!(digest(""), 0x811c_9dc5);
        assert_eq!(digest("a"), 0xe40c_292c);
        assert_eq!(digest("foobar"), 0xbf9c_f968);
    }

    #[test]
    fn a_kept_message_is_one_flat_record() {
        let record = Record {
            at: 7,
            source: LAB.into(),
            fact: Fact::Archived(KeptMessage {
                room: "lobby".into(),
                seq: 3,
                epoch: "e1".into(),
                id: "i".into(),
                msg: None,
                user: "sue".into(),
                content: 5,
            }),
        };
        let text = serde_json::to_string(&record).unwrap();
        assert!(
            text.starts_with(r#"{"at":7,"source":"lab","fact":"archived","room":"lobby","seq":3,"#),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
    }
}
