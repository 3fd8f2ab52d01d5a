//! Reads the archive from its database.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, ensure};
use serde::Deserialize;

use super::DatabaseKind;
use super::connection::Connection;
use crate::history::{KeptMessage, digest};

/// The number of the kind "message".
pub(super) const MESSAGE: i64 = 1;

/// Reads the archive of a deployment.
#[derive(Clone)]
pub struct ArchiveReader {
    pub kind: DatabaseKind,
    pub url: String,
}

/// A room of the archive.
#[derive(Debug)]
pub struct RoomArchive {
    pub name: String,
    pub cut: u64,
    /// First and last number of each range that is recorded as lost.
    pub gaps: Vec<(u64, u64)>,
    pub entries: Vec<KeptMessage>,
}

/// The record of a message, as far as the lab compares it.
#[derive(Deserialize)]
struct MessageRecord {
    id: String,
    room_id: String,
    user_id: String,
    content: String,
    client_msg_id: Option<String>,
}

/// The bits of the column `form`: parts of a record that are left out, because other columns have
/// them.
const WITHOUT_HEAD: i64 = 1;
const WITHOUT_NAME: i64 = 2;
const WITHOUT_KEY: i64 = 4;
const WITHOUT_TAIL: i64 = 8;
const WITHOUT_NAME_KEY: i64 = 16;
pub(super) const KNOWN_FORMS: i64 = 31;

/// A row of `hubbub_entries`: seq, kind, epoch, id, user, send_key, form, record.
type EntryRow = (
    i64,
    i64,
    Option<Vec<u8>>,
    Vec<u8>,
    Vec<u8>,
    Vec<u8>,
    i64,
    Vec<u8>,
);

impl ArchiveReader {
    /// By room: up to which number the archive is complete, if nothing is missing before it.
    pub async fn complete_up_to(&self) -> anyhow::Result<HashMap<String, u64>> {
        let mut connection = self.connect().await?;
        let mut known: HashMap<String, u64> = HashMap::new();
        let sql = format!(
            "SELECT {}, r.cut_seq, COUNT(e.seq) FROM hubbub_rooms r \
             LEFT JOIN hubbub_entries e ON e.room_no = r.no GROUP BY r.no, r.name, r.cut_seq",
            connection.text("r.name")
        );
        for (name, cut, entries) in connection.rows::<(Vec<u8>, i64, i64)>(&sql).await? {
            known.insert(text(name)?, number(cut)? + number(entries)?);
        }
        let sql = format!(
            "SELECT {}, g.first_seq, g.last_seq FROM hubbub_gaps g \
             JOIN hubbub_rooms r ON r.no = g.room_no",
            connection.text("r.name")
        );
        for (name, first, last) in connection.rows::<(Vec<u8>, i64, i64)>(&sql).await? {
            *known.entry(text(name)?).or_default() += number(last - first + 1)?;
        }
        Ok(known)
    }

    /// Reads everything, in the order of the rooms' names and of their numbers.
    pub async fn read(&self) -> anyhow::Result<Vec<RoomArchive>> {
        let mut connection = self.connect().await?;
        let sql = format!(
            "SELECT {}, {}, r.cut_seq FROM hubbub_rooms r",
            connection.number("r.no"),
            connection.text("r.name")
        );
        let mut rooms = BTreeMap::new();
        for (no, name, cut) in connection.rows::<(i64, Vec<u8>, i64)>(&sql).await? {
            rooms.insert(text(name)?, (no, number(cut)?));
        }
        let mut archive = Vec::new();
        for (name, (no, cut)) in rooms {
            archive.push(RoomArchive {
                gaps: read_gaps(&mut connection, no).await?,
                entries: read_entries(&mut connection, no, &name).await?,
                name,
                cut,
            });
        }
        Ok(archive)
    }

    pub(super) async fn connect(&self) -> anyhow::Result<Connection> {
        Connection::open(self.kind, &self.url)
            .await
            .with_context(|| format!("the lab can't read {}", self.url))
    }
}

async fn read_gaps(connection: &mut Connection, room: i64) -> anyhow::Result<Vec<(u64, u64)>> {
    let sql = format!(
        "SELECT first_seq, last_seq FROM hubbub_gaps WHERE room_no = {room} ORDER BY first_seq"
    );
    let mut gaps = Vec::new();
    for (first, last) in connection.rows::<(i64, i64)>(&sql).await? {
        gaps.push((number(first)?, number(last)?));
    }
    Ok(gaps)
}

async fn read_entries(
    connection: &mut Connection,
    no: i64,
    room: &str,
) -> anyhow::Result<Vec<KeptMessage>> {
    let sql = format!(
        "SELECT e.seq, {}, {}, {}, {}, e.send_key, {}, e.record FROM hubbub_entries e \
         LEFT JOIN hubbub_epochs p ON p.room_no = e.room_no AND p.epoch_no = e.epoch_no \
         WHERE e.room_no = {no} ORDER BY e.seq",
        connection.number("e.kind"),
        connection.text("p.name"),
        connection.uuid("e.id"),
        connection.text("e.user_id"),
        connection.number("e.form"),
    );
    let mut entries = Vec::new();
    for row in connection.rows::<EntryRow>(&sql).await? {
        let seq = row.0;
        let entry = parse_entry(row, room);
        entries.push(entry.with_context(|| format!("entry {seq} of {room} in the archive"))?);
    }
    Ok(entries)
}

/// An entry's columns must agree with its record.
fn parse_entry(row: EntryRow, room: &str) -> anyhow::Result<KeptMessage> {
    let (seq, kind, epoch, id, user, key, form, stored) = row;
    ensure!(kind == MESSAGE, "the kind is {kind}");
    ensure!(form & !KNOWN_FORMS == 0, "the form {form} is unknown");
    let id = uuid_text(&id)?;
    let (user, key) = (text(user)?, text(key)?);
    let json = complete_record(form, &text(stored)?, [&id, room, &user, &key]);
    let record: MessageRecord =
        serde_json::from_str(&json).with_context(|| format!("its record is {json}"))?;
    let columns_agree = record.id == id
        && record.room_id == room
        && record.user_id == user
        && record.client_msg_id.as_deref().unwrap_or_default() == key;
    ensure!(columns_agree, "its columns are not those of its record");
    Ok(KeptMessage {
        room: record.room_id,
        seq: number(seq)?,
        epoch: text(epoch.context("it has no epoch")?)?,
        id: record.id,
        msg: record.client_msg_id,
        user: record.user_id,
        content: digest(&record.content),
    })
}

/// A record with the parts that are left out of its stored form.
pub(super) fn complete_record(form: i64, stored: &str, columns: [&str; 4]) -> String {
    let [id, room, user, key] = columns.map(|text| serde_json::Value::from(text).to_string());
    let mut json = String::new();
    if form & WITHOUT_HEAD != 0 {
        json.push_str(&format!(r#"{{"id":{id},"room_id":{room},"user_id":{user}"#));
    }
    if form & WITHOUT_NAME != 0 {
        json.push_str(&format!(r#","username":{user},"content":""#));
    }
    if form & WITHOUT_NAME_KEY != 0 {
        json.push_str(r#","username":""#);
    }
    json.push_str(stored);
    if form & WITHOUT_TAIL != 0 {
        json.push_str(r#"","type":"text","attachment_urls":[]"#);
    }
    if form & WITHOUT_KEY != 0 {
        json.push_str(&format!(r#","client_msg_id":{key}}}"#));
    } else if form & WITHOUT_TAIL != 0 {
        json.push('}');
    }
    json
}

pub(super) fn uuid_text(bytes: &[u8]) -> anyhow::Result<String> {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    ensure!(hex.len() == 32, "the id has {} bytes", bytes.len());
    let (a, b, c, d, e) = (
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    );
    Ok(format!("{a}-{b}-{c}-{d}-{e}"))
}

pub(super) fn text(bytes: Vec<u8>) -> anyhow::Result<String> {
    Ok(String::from_utf8(bytes)?)
}

pub(super) fn number(value: i64) -> anyhow::Result<u64> {
    u64::try_from(value).context("a negative number")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: u8, user: &str, form: i64, record: &str) -> EntryRow {
        (
            4,
            1,
            Some(b"e1".to_vec()),
            vec![id; 16],
            user.into(),
            b"m".to_vec(),
            form,
            record.into(),
        )
    }

    const HEAD: &str =
        r#"{"id":"01010101-0101-0101-0101-010101010101","room_id":"lobby","user_id":"sue""#;
    const NAME: &str = r#","username":"sue","content":""#;
    const TAIL: &str = r#"","type":"text","attachment_urls":[]"#;
    const KEY: &str = r#","client_msg_id":"m"}"#;

    #[test]
    fn an_entry_is_read_from_each_form_of_its_record() {
        for (form, record) in [
            (0, format!("{HEAD}{NAME}a{TAIL}{KEY}")),
            (1, format!("{NAME}a{TAIL}{KEY}")),
            (3, format!("a{TAIL}{KEY}")),
            (4, format!("{HEAD}{NAME}a{TAIL}")),
            (15, "a".to_owned()),
            (29, r#"System","content":"a"#.to_owned()),
        ] {
            let entry = parse_entry(row(1, "sue", form, &record), "lobby").unwrap();
            assert_eq!(
                (
                    entry.seq,
                    &*entry.epoch,
                    entry.msg.as_deref(),
                    entry.content
                ),
                (4, "e1", Some("m"), digest("a"))
            );
        }
    }

    #[test]
    fn the_columns_of_an_entry_agree_with_its_record() {
        let record = format!("{HEAD}{NAME}a{TAIL}{KEY}");
        for (id, user, room) in [
            (2, "sue", "lobby"),
            (1, "eve", "lobby"),
            (1, "sue", "other"),
        ] {
            assert!(parse_entry(row(id, user, 0, &record), room).is_err());
        }
        assert!(parse_entry(row(1, "sue", 32, &record), "lobby").is_err());
        let keyless = format!("{HEAD}{NAME}a{TAIL}}}");
        assert!(parse_entry(row(1, "sue", 0, &keyless), "lobby").is_err());
    }
}
