//! Replies and mentions of messages, for searches: written together with the messages.

use ahash::{AHashMap, AHashSet};
use memchr::memmem;
use serde::Deserialize;
use uuid::Uuid;

use super::entries::check_name;
use crate::store::sql::conn::Conn;
use crate::store::sql::dialect::{MAX_LIST, pad};
use crate::store::sql::fault::Outcome;
use crate::store::sql::unread::{self, NewReply};
use crate::store::sql::value::{Arg, Text, args};
use crate::store::{ArchivedEntry, StoredKind};

/// A message that is a reply, or mentions users.
#[derive(Debug)]
pub(super) struct Flagged {
    pub(super) room_no: i64,
    pub(super) seq: i64,
    at: i64,
    id: Uuid,
    author: String,
    thread: Option<Uuid>,
    mentions: Vec<String>,
}

/// Whether a record may have one of the fields. Within a text of JSON their quotes would be escaped, but the
/// payload may have the same names.
pub(super) fn is_flagged(entry: &ArchivedEntry) -> bool {
    entry.kind == StoredKind::MESSAGE
        && (memmem::find(&entry.record, b"\"thread_id\":").is_some()
            || memmem::find(&entry.record, b"\"mentions\":").is_some())
}

impl Flagged {
    /// `None` for a plain message.
    pub(super) fn of(entry: &ArchivedEntry, room_no: i64, seq: i64) -> Option<Self> {
        #[derive(Deserialize)]
        struct Fields {
            #[serde(default)]
            thread_id: Option<Uuid>,
            #[serde(default)]
            mentions: Vec<String>,
        }
        if !is_flagged(entry) {
            return None;
        }
        let fields: Fields = serde_json::from_slice(&entry.record).ok()?;
        if fields.thread_id.is_none() && fields.mentions.is_empty() {
            return None;
        }
        Some(Self {
            room_no,
            seq,
            at: i64::try_from(entry.at.0).unwrap_or(i64::MAX),
            id: entry.id,
            author: entry.user.as_str().to_owned(),
            thread: fields.thread_id,
            mentions: fields.mentions,
        })
    }
}

/// Adds the replies and mentions of messages that this transaction has committed. With `are_new` none of the
/// messages was there before.
pub(super) async fn add(conn: &mut Conn, flagged: Vec<Flagged>, are_new: bool) -> Outcome<()> {
    let flagged = if are_new {
        flagged
    } else {
        unchanged(conn, flagged).await?
    };
    add_replies(conn, &flagged, are_new).await?;
    let mut mentions: Vec<Mention<'_>> = flagged
        .iter()
        .flat_map(|message| {
            let key = (message.room_no, message.seq);
            message
                .mentions
                .iter()
                .map(move |user| (key, user.as_str(), message.author.as_str()))
        })
        .collect();
    mentions.retain(|(_, user, _)| check_name(user).is_ok());
    add_mentions(conn, mentions).await
}

/// Those of the messages that are in the archive as they were committed: a repeat of a commit must not undo
/// a later edit or deletion. They are locked, so that none comes before the end of the transaction.
async fn unchanged(conn: &mut Conn, flagged: Vec<Flagged>) -> Outcome<Vec<Flagged>> {
    const LOCK: &str = "SELECT CAST(e.room_no AS {bigint}), e.seq, e.id FROM hubbub_entries e \
        WHERE e.kind = ? AND e.id IN ({list}) ORDER BY e.id {for_update}";
    // A statement of its own: PostgreSQL would not show it the changes of a transaction for whose locks
    // it has waited.
    const CHANGED: &str = "SELECT e.id FROM hubbub_entries e WHERE e.id IN ({list}) AND EXISTS \
        (SELECT 1 FROM hubbub_message_changes c \
         WHERE c.room_no = e.room_no AND c.seq = e.seq AND c.kind IN (1, 2))";
    let ids = || flagged.iter().map(|message| message.id);
    let kind = args![StoredKind::MESSAGE.0];
    let found: Vec<(i64, i64, Uuid)> = conn.all_of_list(LOCK, kind, ids()).await?;
    let found: AHashSet<(i64, i64, Uuid)> = found.into_iter().collect();
    let changed: Vec<(Uuid,)> = conn.all_of_list(CHANGED, args![], ids()).await?;
    let changed: AHashSet<Uuid> = changed.into_iter().map(|(id,)| id).collect();
    let is_unchanged = |message: &Flagged| {
        found.contains(&(message.room_no, message.seq, message.id))
            && !changed.contains(&message.id)
    };
    Ok(flagged.into_iter().filter(is_unchanged).collect())
}

async fn add_replies(conn: &mut Conn, flagged: &[Flagged], are_new: bool) -> Outcome<()> {
    const ROOTS: &str = "SELECT id, CAST(room_no AS {bigint}), seq, user_id FROM hubbub_entries \
        WHERE id IN ({list})";
    const ADD: &str = "INSERT INTO hubbub_replies (room_no, root_seq, seq, user_id) \
        VALUES {rows:4} {if_absent:room_no}";
    let mut roots: Vec<Uuid> = flagged
        .iter()
        .filter_map(|message| message.thread)
        .collect();
    roots.sort_unstable();
    roots.dedup();
    let rows: Vec<(Uuid, i64, i64, Text)> = conn.all_of_list(ROOTS, args![], roots).await?;
    let root = |(id, room_no, seq, Text(user))| ((room_no, id), (seq, user));
    let known: AHashMap<(i64, Uuid), (i64, String)> = rows.into_iter().map(root).collect();
    let mut replies = Vec::new();
    for message in flagged {
        let Some(thread) = message.thread else {
            continue;
        };
        // Retention may have deleted the root, or another writer commits it now.
        let root = known.get(&(message.room_no, thread));
        let (root_seq, root_author) = root.map_or((0, ""), |(seq, user)| (*seq, user.as_str()));
        replies.push(NewReply {
            room_no: message.room_no,
            root_seq,
            root_author,
            seq: message.seq,
            at: message.at,
            author: &message.author,
        });
    }
    let rows = replies
        .iter()
        .map(|reply| args![reply.room_no, reply.root_seq, reply.seq, reply.author]);
    insert(conn, ADD, rows.collect()).await?;
    unread::replies_added(conn, &replies, are_new).await
}

/// The key of a message, the user that it mentions, and its author.
type Mention<'a> = ((i64, i64), &'a str, &'a str);

async fn add_mentions(conn: &mut Conn, mentions: Vec<Mention<'_>>) -> Outcome<()> {
    const ADD: &str = "INSERT INTO hubbub_mentions (room_no, seq, user_id, author_id) \
        VALUES {rows:4} {if_absent:room_no}";
    let row = |((room_no, seq), user, author): Mention<'_>| args![room_no, seq, user, author];
    insert(conn, ADD, mentions.into_iter().map(row).collect()).await
}

/// Inserts rows; those that are there stay.
async fn insert(conn: &mut Conn, template: &'static str, rows: Vec<Vec<Arg>>) -> Outcome<()> {
    for part in rows.chunks(MAX_LIST) {
        let mut part = part.to_vec();
        pad(&mut part);
        let text = conn.dialect().text_of(template, part.len());
        conn.run_text(text, part.concat()).await?;
    }
    Ok(())
}

/// Replaces the mentions of a message that its author edits.
pub(in crate::store::sql) async fn replace_mentions(
    conn: &mut Conn,
    key: (i64, i64),
    author: &str,
    users: &[&str],
) -> Outcome<()> {
    const REMOVE: &str = "DELETE FROM hubbub_mentions WHERE room_no = ? AND seq = ?";
    conn.run(REMOVE, args![key.0, key.1]).await?;
    let mentions = users.iter().map(|user| (key, *user, author)).collect();
    add_mentions(conn, mentions).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Epoch, Timestamp, UserId};

    fn flagged(record: &str) -> Option<Flagged> {
        let entry = ArchivedEntry {
            seq: 1,
            epoch: Epoch::trusted("e"),
            at: Timestamp(0),
            kind: StoredKind::MESSAGE,
            id: Uuid::nil(),
            user: UserId::trusted("ann"),
            send_key: None,
            record: record.to_owned().into(),
        };
        Flagged::of(&entry, 1, 1)
    }

    #[test]
    fn only_the_fields_of_the_record_itself_count() {
        let mentions = flagged(r#"{"content":"x","mentions":["bob","@channel"]}"#).unwrap();
        assert_eq!(mentions.mentions, ["bob", "@channel"]);
        let reply = format!(r#"{{"content":"x","thread_id":"{}"}}"#, Uuid::max());
        assert_eq!(flagged(&reply).unwrap().thread, Some(Uuid::max()));
        for plain in [
            r#"{"content":"\"mentions\":[\"bob\"]"}"#,
            r#"{"payload":{"mentions":["bob"],"thread_id":"x"}}"#,
            r#"{"mentions":[]}"#,
            r#"{"mentions":"damaged"}"#,
        ] {
            assert!(flagged(plain).is_none(), "{plain}");
        }
    }
}
