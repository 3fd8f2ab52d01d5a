//! The versions of a message.
//!
//! The row of an edit has the content *before* it. So the content of a version lies with the edit that ended
//! it, and the newest content with the entry; its number and its time lie with the edit that made it.

use uuid::Uuid;

use super::{EDITED, MESSAGE_KINDS, loaded};
use crate::domain::{RoomId, Timestamp};
use crate::store::sql::archive::entries;
use crate::store::sql::conn::Conn;
use crate::store::sql::db::Db;
use crate::store::sql::fault::Outcome;
use crate::store::sql::value::{Text, args};
use crate::store::{MAX_VERSIONS, MessageRef, MessageVersion, Result, StoredKind, VersionPage};

/// The bytes of records after which a page ends.
const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// The key of the newest version, which no edit has ended.
const NEWEST: i64 = i64::MAX;

/// Of an edit, or of the entry: `revision`, `change_seq`, whether the edit is about to be announced, `at`,
/// `form`, `record`. Of the entry: `id`, `seq`, `at`, `kind`, `user_id`, `send_key`.
type Row = (
    i64,
    Option<i64>,
    i64,
    i64,
    i64,
    Vec<u8>,
    Uuid,
    i64,
    i64,
    i64,
    Text,
    Vec<u8>,
);

/// One statement, so that the newest content and those before it are of one moment.
const VERSIONS: &str = "SELECT * FROM (SELECT c.revision AS revision, c.change_seq, \
     CAST(CASE WHEN c.change_seq IS NULL AND EXISTS (SELECT 1 FROM hubbub_outbox o \
      WHERE o.id = c.outbox_id AND o.state = 0) THEN 1 ELSE 0 END AS {bigint}) AS waits, c.at, \
     CAST(c.form AS {bigint}) AS form, c.record, e.id, e.seq, e.at AS sent_at, \
     CAST(e.kind AS {bigint}) AS kind, e.user_id, e.send_key FROM hubbub_entries e \
     JOIN hubbub_message_changes c ON c.room_no = e.room_no AND c.seq = e.seq AND c.kind = ? \
     WHERE e.id = ? AND e.room_no = (SELECT no FROM hubbub_rooms WHERE name = ?) \
     AND c.revision >= ? ORDER BY c.revision LIMIT ?) t \
    UNION ALL SELECT CAST(? AS {bigint}), NULL, 0, e.at, CAST(e.form AS {bigint}), e.record, e.id, \
     e.seq, e.at, CAST(e.kind AS {bigint}), e.user_id, e.send_key FROM hubbub_entries e \
     WHERE e.id = ? AND e.room_no = (SELECT no FROM hubbub_rooms WHERE name = ?) \
    ORDER BY revision";

pub(super) async fn versions(
    db: &Db,
    message: &MessageRef,
    after: Option<u64>,
    limit: usize,
) -> Result<Option<VersionPage>> {
    let message = message.clone();
    let after = after.map(|after| i64::try_from(after).unwrap_or(NEWEST));
    db.read(move |conn| {
        let message = message.clone();
        Box::pin(async move { read(conn, &message, after, limit).await })
    })
    .await
}

async fn read(
    conn: &mut Conn,
    message: &MessageRef,
    after: Option<i64>,
    limit: usize,
) -> Outcome<Option<VersionPage>> {
    // Beside the versions of the page: the edit that made the first of them, and one without a content.
    let edits = i64::try_from(limit).unwrap_or(NEWEST).saturating_add(2);
    let (id, room) = (message.id, message.room.as_str());
    let values = args![
        EDITED,
        id,
        room,
        after.unwrap_or(0),
        edits,
        NEWEST,
        id,
        room
    ];
    let text = conn.dialect().text(VERSIONS);
    let mut page = PageReader::new(&message.room, after, limit, edits);
    conn.each_of_text(text, values, |row| page.add(row)).await?;
    page.end()
}

/// Makes a page of the rows of [`VERSIONS`].
struct PageReader<'a> {
    room: &'a RoomId,
    after: Option<i64>,
    limit: usize,
    /// The most edits that the statement reads, and those that were read.
    edits: (i64, i64),
    bytes: usize,
    /// The key of the last row that was read.
    last: i64,
    /// The number and the time of the version that the next row ends; `None` if they are not known.
    begun: Option<(u64, Timestamp)>,
    page: Outcome<Option<VersionPage>>,
}

impl<'a> PageReader<'a> {
    fn new(room: &'a RoomId, after: Option<i64>, limit: usize, edits: i64) -> Self {
        Self {
            room,
            after,
            limit,
            edits: (edits, 0),
            bytes: 0,
            last: 0,
            begun: None,
            page: Ok(None),
        }
    }

    /// Adds the version that a row ends. Returns whether there is space for more.
    fn add(&mut self, row: Row) -> bool {
        let (revision, change_seq, waits, at, form, record, id, seq, sent_at, kind, user, key) =
            row;
        if !MESSAGE_KINDS.contains(&StoredKind(kind)) {
            return false;
        }
        let is_first = matches!(self.page, Ok(None));
        let Ok(page) = &mut self.page else {
            return false;
        };
        let page = page.get_or_insert_default();
        if StoredKind(kind) == StoredKind::DELETED {
            return false;
        }
        let is_full = page.versions.len() >= self.limit || self.bytes >= PAGE_BYTES;
        // There are edits that the statement has left out.
        let is_cut = revision == NEWEST && self.edits.1 >= self.edits.0;
        if is_full || is_cut {
            page.next = Some(loaded(self.last));
            return false;
        }
        if is_first && self.after.is_none() {
            self.begun = Some((loaded(seq), Timestamp(loaded(sent_at))));
        }
        if waits != 0 {
            page.pending = Some((loaded(seq), loaded(revision)));
        }
        self.last = revision;
        self.edits.1 += 1;
        let begun = self
            .begun
            .replace((change_seq.map_or(0, loaded), Timestamp(loaded(at))));
        // A content is empty if it is no longer kept.
        let (Some((version, at)), false) = (begun, record.is_empty()) else {
            return true;
        };
        match entries::restored((id, self.room, &user.0), key, form, record) {
            Ok(record) => {
                self.bytes += record.len();
                let version = MessageVersion {
                    version,
                    at,
                    record,
                };
                page.versions.push(version);
                true
            }
            Err(fault) => {
                self.page = Err(fault);
                false
            }
        }
    }

    fn end(self) -> Outcome<Option<VersionPage>> {
        self.page
    }
}

/// Removes the oldest contents of a message that has more versions than are kept.
pub(super) async fn forget_oldest(
    conn: &mut Conn,
    (room_no, seq): (i64, i64),
    revision: i64,
) -> Outcome<()> {
    const OLDEST: &str = "SELECT revision FROM hubbub_message_changes \
        WHERE room_no = ? AND seq = ? AND kind = ? ORDER BY revision DESC LIMIT 1 OFFSET ?";
    // The edit stays, as the beginning of the oldest version.
    const EMPTY: &str = "UPDATE hubbub_message_changes SET form = 0, record = ? \
        WHERE room_no = ? AND seq = ? AND revision = ?";
    const FORGET: &str = "DELETE FROM hubbub_message_changes \
        WHERE room_no = ? AND seq = ? AND kind = ? AND revision < ?";
    let most = i64::try_from(MAX_VERSIONS).unwrap_or(i64::MAX);
    if revision < most {
        return Ok(());
    }
    let oldest: Option<(i64,)> = conn
        .first(OLDEST, args![room_no, seq, EDITED, most - 1])
        .await?;
    let Some((oldest,)) = oldest else {
        return Ok(());
    };
    conn.run(EMPTY, args![Vec::<u8>::new(), room_no, seq, oldest])
        .await?;
    conn.run(FORGET, args![room_no, seq, EDITED, oldest])
        .await
        .map(drop)
}
