//! The state of chats at the end of a run: the rights that the nodes grant, the outbox, the tables, and
//! the archive.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::Lab;
use super::database::{ArchiveReader, OutboxRow};
use crate::clients::Requests;
use crate::clients::chat::Account;
use crate::history::Fact;
use crate::history::chats::{ChatFact, room_of};

/// The outbox is empty after this time: rows that a dead node has claimed are due after its lease of 15
/// seconds.
const OUTBOX_TIMEOUT: Duration = Duration::from_secs(30);
/// The archive has everything once nothing is added for this time.
const ARCHIVE_PAUSE: Duration = Duration::from_millis(1500);
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// By room: the number of its last entry, as a node answered.
pub type Heads = BTreeMap<String, u64>;

impl Lab {
    pub fn record_chat(&self, fact: ChatFact) {
        self.recorder.record_lab(Fact::Chat(fact));
    }

    /// Waits until the outbox is empty, and records what is left in it.
    pub async fn record_outbox(&mut self, archive: &ArchiveReader) -> anyhow::Result<()> {
        for row in self.wait_for_outbox(archive).await? {
            self.record_chat(ChatFact::LeftInOutbox {
                row: row.id,
                kind: row.kind,
                failed: row.failed,
            });
        }
        Ok(())
    }

    /// Waits until the outbox is empty. Returns the rows that are left in it.
    pub async fn wait_for_outbox(
        &mut self,
        archive: &ArchiveReader,
    ) -> anyhow::Result<Vec<OutboxRow>> {
        let began = Instant::now();
        loop {
            let rows = archive.outbox().await?;
            if rows.is_empty() {
                self.report_seconds("the outbox was empty after", began.elapsed());
                return Ok(rows);
            }
            if began.elapsed() > OUTBOX_TIMEOUT {
                return Ok(rows);
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Records the rights of each user in each chat, as each node grants them. Returns the heads of the
    /// rooms and feeds.
    pub async fn record_rights(
        &self,
        users: &[Account],
        chats: &[String],
        addresses: &[SocketAddr],
    ) -> anyhow::Result<Heads> {
        let mut heads = Heads::new();
        for (node, address) in addresses.iter().enumerate() {
            for user in users {
                let mut requests = Requests::open(*address, user)
                    .await
                    .with_context(|| format!("{} can't connect to node-{node}", user.id))?;
                let feed = requests.ask("sync", &json!({})).await?;
                add_head(&mut heads, &feed["feed"]);
                for chat in chats {
                    let room = room_of(chat);
                    let answer = requests.ask("join", &json!({"room_id": room})).await?;
                    add_head(&mut heads, &answer);
                    let path = format!("/api/v1/rooms/{room}/messages?limit=1");
                    let read = user.get(*address, &path).await;
                    let granted = [
                        ("join", granted(answer["ok"] == true, &answer["code"])),
                        ("read", granted(read.status == 200, &read.body["code"])),
                    ];
                    for (request, granted) in granted {
                        let granted = granted.with_context(|| {
                            format!("node-{node}: {request}: {answer}, {read:?}")
                        })?;
                        self.record_chat(ChatFact::FinalRight {
                            chat: chat.clone(),
                            user: user.id.clone(),
                            node,
                            request: request.to_owned(),
                            granted,
                        });
                    }
                }
            }
        }
        Ok(heads)
    }

    /// Waits until the archive has everything, and records the tables of chats and the archive.
    pub async fn record_chat_tables(
        &mut self,
        archive: &ArchiveReader,
        heads: &Heads,
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut last = (archive.count_entries().await?, Instant::now());
        while began.elapsed() < self.recovery_timeout {
            let complete = archive.complete_up_to().await?;
            let has_head = |(room, head): (&String, &u64)| complete.get(room) >= Some(head);
            let count = archive.count_entries().await?;
            if count != last.0 {
                last = (count, Instant::now());
            }
            if heads.iter().all(has_head) && last.1.elapsed() > ARCHIVE_PAUSE {
                break;
            }
            sleep(POLL_INTERVAL).await;
        }
        for fact in archive.read_chats().await? {
            self.record_chat(fact);
        }
        self.record_chat(ChatFact::TablesRead);
        Ok(())
    }
}

/// `None` if the answer is neither a success nor a refusal for lack of a right.
fn granted(is_success: bool, code: &Value) -> Option<bool> {
    match code.as_str() {
        _ if is_success => Some(true),
        Some("forbidden" | "not_found") => Some(false),
        _ => None,
    }
}

fn add_head(heads: &mut Heads, answer: &Value) {
    if let (Some(room), Some(seq)) = (answer["room_id"].as_str(), answer["seq"].as_u64()) {
        let head = heads.entry(room.to_owned()).or_default();
        *head = seq.max(*head);
    }
}
