//! The archive behind the rooms of a run: its settings, and the records of its state at the end.

use std::path::Path;

use anyhow::Context;
use serde_json::Value;
use tokio::time::Instant;

use super::database::{ArchiveReader, DatabaseKind, DatabaseServer, sqlite_file};
use super::{Lab, Node};
use crate::checker::Archive;
use crate::history::{Fact, KeptMessage, digest};

const MESSAGES_PER_PAGE: usize = 200;

impl Lab {
    /// Puts an archive in this database behind the rooms of all nodes that are started from now on.
    pub fn archive_in(&mut self, database: &DatabaseServer, promise: Archive) {
        self.settings.push(("DATABASE_URL".into(), database.url()));
        self.follow_archive(database.reader(), promise);
    }

    /// Puts an archive in a file below this directory behind the rooms of a node without Redis. The
    /// file is the node's default.
    pub fn archive_below(&mut self, data_dir: &Path, promise: Archive) {
        let directory = data_dir.display().to_string();
        self.settings.push(("DATA_DIR".into(), directory));
        let reader = ArchiveReader {
            kind: DatabaseKind::Sqlite,
            url: format!("sqlite://{}", sqlite_file(data_dir).display()),
        };
        self.follow_archive(reader, promise);
    }

    fn follow_archive(&mut self, reader: ArchiveReader, promise: Archive) {
        let ack_after = match promise {
            Archive::AckAfterLog => "log",
            Archive::AckAfterArchive => "archive",
        };
        self.settings.push(("ACK_AFTER".into(), ack_after.into()));
        self.promises.archive = Some(promise);
        self.archive = Some(reader);
    }

    /// Waits until the archive has everything up to the heads of these rooms, and records its content
    /// beside the messages that the node returns. Does nothing without an archive.
    pub async fn record_archive(&mut self, node: &Node, rooms: &[String]) -> anyhow::Result<()> {
        let Some(archive) = self.archive.clone() else {
            return Ok(());
        };
        let began = Instant::now();
        while !is_complete(&archive, node, rooms).await? {
            if began.elapsed() > self.recovery_timeout {
                // The checker finds out what is missing.
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        self.report_seconds("everything archived after", began.elapsed());
        let rooms_read = archive.read().await?;
        self.recorder.record_lab(Fact::ArchiveRead);
        for room in rooms_read {
            let name = || room.name.clone();
            self.recorder.record_lab(Fact::ArchivedRoom {
                room: name(),
                cut: room.cut,
            });
            for (first, last) in room.gaps.iter().copied() {
                let room = name();
                self.recorder
                    .record_lab(Fact::ArchivedGap { room, first, last });
            }
            for entry in room.entries {
                self.recorder.record_lab(Fact::Archived(entry));
            }
        }
        for room in rooms {
            record_log(self, node, room).await?;
        }
        Ok(())
    }
}

/// Whether the archive has everything up to the heads of these rooms, or knows that it is lost.
async fn is_complete(
    archive: &ArchiveReader,
    node: &Node,
    rooms: &[String],
) -> anyhow::Result<bool> {
    let complete = archive.complete_up_to().await?;
    for room in rooms {
        let head = node.head(room).await?;
        if complete.get(room).copied().unwrap_or(0) < head.seq {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Reads a room page by page from its first message to its head, and records the messages.
async fn record_log(lab: &Lab, node: &Node, room: &str) -> anyhow::Result<()> {
    let mut after = 0;
    loop {
        let path = format!("/rooms/{room}/messages?after_seq={after}&limit={MESSAGES_PER_PAGE}");
        let page = node.get(&path).await?;
        let messages = page["messages"].as_array().context("no messages")?;
        for message in messages {
            let logged = parse_message(message).with_context(|| format!("{path}: {message}"))?;
            after = logged.seq;
            lab.recorder.record_lab(Fact::Logged(logged));
        }
        if page["has_more"] != true || messages.is_empty() {
            return Ok(());
        }
    }
}

fn parse_message(message: &Value) -> anyhow::Result<KeptMessage> {
    let text = |name: &str| {
        let text = message[name].as_str();
        Ok::<_, anyhow::Error>(text.with_context(|| format!("no {name}"))?.to_owned())
    };
    Ok(KeptMessage {
        room: text("room_id")?,
        seq: message["seq"].as_u64().context("no seq")?,
        epoch: text("epoch")?,
        id: text("id")?,
        msg: message["client_msg_id"].as_str().map(str::to_owned),
        user: text("user_id")?,
        content: digest(&text("content")?),
    })
}
