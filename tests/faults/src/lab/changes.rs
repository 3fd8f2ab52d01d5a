//! The state of messages at the end of a run, as nodes answer it by event and over REST.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::Lab;
use super::chats::{Heads, POLL_INTERVAL};
use super::database::ArchiveReader;
use crate::clients::Requests;
use crate::clients::changes::final_message;
use crate::clients::chat::Account;
use crate::history::Fact;
use crate::history::changes::{ChangeFact, FinalMessage};

const PAGE: u64 = 200;

impl Lab {
    pub fn record_change(&self, fact: ChangeFact) {
        self.recorder.record_lab(Fact::Change(fact));
    }

    /// Waits until the outbox is empty, and records what is left in it.
    pub async fn record_outbox_of_changes(
        &mut self,
        archive: &ArchiveReader,
    ) -> anyhow::Result<()> {
        for row in self.wait_for_outbox(archive).await? {
            self.record_change(ChangeFact::LeftInOutbox {
                row: row.id,
                kind: row.kind,
                failed: row.failed,
            });
        }
        Ok(())
    }

    /// The heads of rooms, as a node answers them.
    pub async fn heads_of(
        &self,
        address: SocketAddr,
        user: &Account,
        rooms: &[String],
    ) -> anyhow::Result<Heads> {
        let mut heads = Heads::new();
        for room in rooms {
            let path = format!("/api/v1/rooms/{room}/messages?limit=1");
            let page = user.get(address, &path).await;
            let head = page.body["as_of"]["seq"].as_u64();
            heads.insert(room.clone(), head.with_context(|| format!("{page:?}"))?);
        }
        Ok(heads)
    }

    /// Waits until the archive has everything up to these heads.
    pub async fn wait_for_archive(
        &self,
        archive: &ArchiveReader,
        heads: &Heads,
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let complete = archive.complete_up_to().await?;
            let has_head = |(room, head): (&String, &u64)| complete.get(room) >= Some(head);
            if heads.iter().all(has_head) {
                return Ok(());
            }
            ensure!(
                began.elapsed() < self.recovery_timeout,
                "the archive has {complete:?} of {heads:?}"
            );
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Records the histories of rooms, as each node answers them by event and over REST.
    pub async fn record_histories(
        &self,
        addresses: &[SocketAddr],
        user: &Account,
        rooms: &[String],
    ) -> anyhow::Result<()> {
        for (node, address) in addresses.iter().enumerate() {
            let mut requests = Requests::open(*address, user)
                .await
                .with_context(|| format!("can't connect to node-{node}"))?;
            for room in rooms {
                let by_event = by_event(&mut requests, room).await?;
                let over_rest = over_rest(*address, user, room).await?;
                for (how, messages) in [("by event", by_event), ("over REST", over_rest)] {
                    self.record_change(ChangeFact::Final {
                        observer: format!("node-{node} {how}"),
                        is_history: true,
                        room: room.clone(),
                        messages,
                    });
                }
            }
        }
        Ok(())
    }
}

async fn by_event(requests: &mut Requests, room: &str) -> anyhow::Result<Vec<FinalMessage>> {
    let join = json!({"room_id": room, "limit": 1});
    let joined = requests.ask("join", &join).await?;
    ensure!(joined["ok"] == true, "join was refused: {joined}");
    let mut messages = Vec::new();
    let mut after = 0;
    loop {
        let payload = json!({"room_id": room, "after_seq": after, "limit": PAGE});
        let page = requests.ask("history", &payload).await?;
        ensure!(page["ok"] == true, "history was refused: {page}");
        add_page(&mut messages, &page["messages"])?;
        if page["has_more"] != true {
            return Ok(messages);
        }
        let last = messages.last().map_or(after, |message| message.seq);
        let next = page["next_seq"].as_u64().unwrap_or(last);
        ensure!(next > after, "a page behind {after} ends at {next}");
        after = next;
    }
}

async fn over_rest(
    address: SocketAddr,
    user: &Account,
    room: &str,
) -> anyhow::Result<Vec<FinalMessage>> {
    let mut messages = Vec::new();
    let mut position = "after_seq=0".to_owned();
    loop {
        let path = format!("/api/v1/rooms/{room}/messages?limit={PAGE}&{position}");
        let page = user.get(address, &path).await;
        ensure!(page.status == 200, "{path}: {page:?}");
        add_page(&mut messages, &page.body["items"])?;
        match page.body["next_cursor"].as_str() {
            Some(cursor) if page.body["has_more"] == true => position = format!("cursor={cursor}"),
            _ => return Ok(messages),
        }
    }
}

fn add_page(messages: &mut Vec<FinalMessage>, page: &Value) -> anyhow::Result<()> {
    for message in page.as_array().context("no messages")? {
        messages.push(final_message(message)?);
    }
    Ok(())
}
