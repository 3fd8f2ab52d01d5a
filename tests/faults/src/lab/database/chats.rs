//! Reads chats, their members, the outbox, and the archive of chats and feeds.

use anyhow::{Context, ensure};
use serde_json::Value;

use super::ArchiveReader;
use super::reader::{KNOWN_FORMS, MESSAGE, complete_record, number, text, uuid_text};
use crate::history::chats::{ChatEvent, ChatFact, Role};

/// The number of the kind "change".
const CHANGE: i64 = 2;
const OWNER: i64 = 1;

/// A row of the outbox.
#[derive(Debug)]
pub struct OutboxRow {
    pub id: u64,
    pub kind: String,
    pub failed: bool,
}

/// A row of `hubbub_entries`: room, seq, kind, id, user, send_key, form, record.
type EntryRow = (Vec<u8>, i64, i64, Vec<u8>, Vec<u8>, Vec<u8>, i64, Vec<u8>);

impl ArchiveReader {
    /// The rows that wait in the outbox or have failed, jobs included.
    pub async fn outbox(&self) -> anyhow::Result<Vec<OutboxRow>> {
        let mut connection = self.connect().await?;
        let sql = format!(
            "SELECT id, {}, state FROM hubbub_outbox ORDER BY id",
            connection.text("type")
        );
        let mut rows = Vec::new();
        for (id, kind, state) in connection.rows::<(i64, Vec<u8>, i64)>(&sql).await? {
            rows.push(OutboxRow {
                id: number(id)?,
                kind: text(kind)?,
                failed: state != 0,
            });
        }
        Ok(rows)
    }

    /// The ids of the chats of the archive's rooms, whether or not they exist still.
    pub async fn archived_chats(&self) -> anyhow::Result<Vec<String>> {
        let mut connection = self.connect().await?;
        let sql = format!(
            "SELECT {} FROM hubbub_rooms r WHERE r.name LIKE 'chat:%'",
            connection.text("r.name")
        );
        let mut chats = Vec::new();
        for (room,) in connection.rows::<(Vec<u8>,)>(&sql).await? {
            let room = text(room)?;
            chats.push(room.trim_start_matches("chat:").to_owned());
        }
        chats.sort();
        Ok(chats)
    }

    /// The number of entries in the archive.
    pub async fn count_entries(&self) -> anyhow::Result<i64> {
        let mut connection = self.connect().await?;
        let sql = "SELECT COUNT(*) FROM hubbub_entries";
        let rows = connection.rows::<(i64,)>(sql).await?;
        Ok(rows.first().context("no count")?.0)
    }

    /// The tables of chats and members, and the archive's entries of chats and feeds, each room in the
    /// order of its numbers.
    pub async fn read_chats(&self) -> anyhow::Result<Vec<ChatFact>> {
        let mut facts = Vec::new();
        let mut connection = self.connect().await?;
        let sql = format!(
            "SELECT {}, {} FROM hubbub_chats",
            connection.uuid("id"),
            connection.text("name"),
        );
        for (chat, name) in connection.rows::<(Vec<u8>, Option<Vec<u8>>)>(&sql).await? {
            facts.push(ChatFact::KeptChat {
                chat: uuid_text(&chat)?,
                name: name.map(text).transpose()?,
            });
        }
        let sql = format!(
            "SELECT {}, {}, role FROM hubbub_chat_members",
            connection.uuid("chat_id"),
            connection.uuid("user_id"),
        );
        for (chat, user, role) in connection.rows::<(Vec<u8>, Vec<u8>, i64)>(&sql).await? {
            facts.push(ChatFact::KeptMember {
                chat: uuid_text(&chat)?,
                user: uuid_text(&user)?,
                role: if role == OWNER {
                    Role::Owner
                } else {
                    Role::Member
                },
            });
        }
        let sql = format!(
            "SELECT {}, e.seq, {}, {}, {}, e.send_key, {}, e.record FROM hubbub_entries e \
             JOIN hubbub_rooms r ON r.no = e.room_no \
             WHERE r.name LIKE 'chat:%' OR r.name LIKE 'user:%' ORDER BY e.room_no, e.seq",
            connection.text("r.name"),
            connection.number("e.kind"),
            connection.uuid("e.id"),
            connection.text("e.user_id"),
            connection.number("e.form"),
        );
        for row in connection.rows::<EntryRow>(&sql).await? {
            facts.push(parse_entry(row)?);
        }
        Ok(facts)
    }
}

fn parse_entry(row: EntryRow) -> anyhow::Result<ChatFact> {
    let (room, seq, kind, id, user, key, form, stored) = row;
    let (room, user, key) = (text(room)?, text(user)?, text(key)?);
    let (seq, id) = (number(seq)?, uuid_text(&id)?);
    ensure!(form & !KNOWN_FORMS == 0, "the form {form} is unknown");
    let json = complete_record(form, &text(stored)?, [&id, &room, &user, &key]);
    let record: Value = serde_json::from_str(&json).with_context(|| format!("record {json}"))?;
    let (name, id_field) = match kind {
        MESSAGE => ("message", "id"),
        CHANGE => (record["event"].as_str().context("no event")?, "entry_id"),
        _ => anyhow::bail!("the kind is {kind}"),
    };
    ensure!(
        record[id_field] == id.as_str() && record["room_id"] == room.as_str(),
        "entry {seq} of {room}: its columns are not those of its record {json}"
    );
    let event = ChatEvent::of(name, &record)
        .with_context(|| format!("entry {seq} of {room} is no event of a chat: {json}"))?;
    Ok(ChatFact::KeptEntry {
        room,
        seq,
        id,
        event,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_message_or_a_change_of_its_room() {
        let uuid = "01010101-0101-0101-0101-010101010101";
        let row = |kind: i64, record: String| {
            let (user, key) = (b"sue".to_vec(), b"m".to_vec());
            let room = b"chat:c".to_vec();
            parse_entry((room, 4, kind, vec![1; 16], user, key, 0, record.into()))
        };
        let message = format!(
            r#"{{"id":"{uuid}","room_id":"chat:c","user_id":"sue","content":"","client_msg_id":"m"}}"#
        );
        let change = format!(
            r#"{{"event":"member_removed","entry_id":"{uuid}","room_id":"chat:c","chat_id":"c","user_id":"sue","role":"member"}}"#
        );
        let event = |fact| match fact {
            ChatFact::KeptEntry { event, .. } => event,
            other => panic!("{other:?}"),
        };
        let expected = ChatEvent::Message {
            msg: Some("m".into()),
            sender: "sue".into(),
        };
        assert_eq!(event(row(1, message.clone()).unwrap()), expected);
        let expected = ChatEvent::MemberRemoved {
            chat: "c".into(),
            user: "sue".into(),
            role: Some(Role::Member),
        };
        assert_eq!(event(row(2, change.clone()).unwrap()), expected);
        assert!(row(1, message.replace("chat:c", "chat:d")).is_err());
        assert!(row(2, change.replace("member_removed", "unknown")).is_err());
        assert!(row(3, change).is_err());
    }
}
