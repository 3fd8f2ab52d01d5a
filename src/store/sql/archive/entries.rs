//! Entries: their rows, and reading them.

use bytes::Bytes;
use sqlx::FromRow;
use uuid::Uuid;

use super::form::{self, Columns};
use super::numbers::Numbers;
use super::{loaded, rows, stored};
use crate::domain::{Epoch, RoomId, Timestamp, UserId};
use crate::store::sql::conn::Conn;
use crate::store::sql::db::Db;
use crate::store::sql::dialect::{Dialect, pad_with};
use crate::store::sql::fault::{Fault, Outcome};
use crate::store::sql::value::{Arg, Text, args};
use crate::store::{
    ArchiveWindow, ArchivedEntry, ArchivedSend, MAX_RECORD_BYTES, Result, StoredKind,
};

/// The longest name, and the longest key of a send, in bytes. MySQL would cut longer ones.
const MAX_NAME: usize = 128;
const MAX_SEND_KEY: usize = 64;

/// A row of `hubbub_entries`.
pub(super) struct Row {
    pub(super) room_no: i64,
    pub(super) epoch_no: i64,
    pub(super) seq: i64,
    pub(super) at: i64,
    pub(super) kind: i64,
    pub(super) form: i64,
    pub(super) id: Uuid,
    pub(super) user: String,
    pub(super) send_key: Vec<u8>,
    pub(super) record: Vec<u8>,
}

impl Row {
    /// The row of an entry.
    pub(super) fn new(
        room: &RoomId,
        entry: &ArchivedEntry,
        (room_no, epoch_no): Numbers,
    ) -> Outcome<Self> {
        let user = entry.user.as_str();
        let send_key = entry.send_key.as_deref();
        // Changes and their announcements belong to nobody.
        if !matches!(entry.kind, StoredKind::CHANGE | StoredKind::POINTER) {
            check_name(user)?;
        }
        if send_key.is_some_and(|key| key.is_empty() || key.len() > MAX_SEND_KEY) {
            return Err(Fault::Broken(
                "a key of a send has 1 to 64 bytes".to_owned(),
            ));
        }
        if entry.record.len() > MAX_RECORD_BYTES {
            return Err(Fault::Broken("a record is too large".to_owned()));
        }
        let columns = Columns {
            id: entry.id,
            room: room.as_str(),
            user,
            send_key,
        };
        let (form, record) = form::shorten(&entry.record, &columns);
        Ok(Self {
            room_no,
            epoch_no,
            seq: stored(entry.seq)?,
            at: stored(entry.at.0)?,
            kind: entry.kind.0,
            form,
            id: entry.id,
            user: user.to_owned(),
            send_key: send_key.unwrap_or_default().as_bytes().to_vec(),
            record,
        })
    }

    /// A row that is refused beside this one, to fill a list.
    fn padding(&self) -> Self {
        Self {
            user: String::new(),
            send_key: Vec::new(),
            record: Vec::new(),
            ..*self
        }
    }

    fn into_args(self, args: &mut Vec<Arg>) {
        args.extend([
            Arg::from(self.room_no),
            Arg::from(self.epoch_no),
            Arg::from(self.seq),
            Arg::from(self.at),
            Arg::from(self.kind),
            Arg::from(self.form),
            Arg::from(self.id),
            Arg::from(self.user),
            Arg::from(self.send_key),
            Arg::from(self.record),
        ]);
    }
}

/// Checks a name that goes into the database.
pub(super) fn check_name(name: &str) -> Outcome<()> {
    if name.is_empty() || name.len() > MAX_NAME || name.contains('\0') {
        let text = format!("{name:?} is not a name of 1 to {MAX_NAME} bytes");
        return Err(Fault::Broken(text));
    }
    Ok(())
}

const INSERT_SQLITE: &str = "INSERT INTO hubbub_entries \
    (room_no, epoch_no, seq, at, kind, form, id, user_id, send_key, record) \
    VALUES {rows:10} ON CONFLICT DO NOTHING";

/// `ON DUPLICATE KEY UPDATE` would count rows that exist, so that new rows could not be counted. IGNORE
/// would also cut values that are too long: `Row::new` refuses them.
const INSERT_MYSQL: &str = "INSERT IGNORE INTO hubbub_entries \
    (room_no, epoch_no, seq, at, kind, form, id, user_id, send_key, record) VALUES {rows:10}";

const INSERT_POSTGRES: &str = "INSERT INTO hubbub_entries \
    (room_no, epoch_no, seq, at, kind, form, id, user_id, send_key, record) \
    SELECT * FROM UNNEST(CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), \
    CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS BIGINT[]), CAST(? AS UUID[]), \
    CAST(? AS TEXT[]), CAST(? AS BYTEA[]), CAST(? AS BYTEA[])) ON CONFLICT DO NOTHING";

pub(super) const SELECT_KEYS_BY_ID: &str =
    "SELECT CAST(room_no AS {bigint}), seq, id FROM hubbub_entries WHERE id IN ({list})";

/// Inserts rows whose keys and ids are new. Returns their number.
pub(super) async fn insert_rows(conn: &mut Conn, mut rows: Vec<Row>) -> Outcome<u64> {
    let template = match conn.dialect() {
        Dialect::Postgres => return conn.run(INSERT_POSTGRES, arrays(rows)).await,
        Dialect::Sqlite => INSERT_SQLITE,
        Dialect::MySql => INSERT_MYSQL,
    };
    pad_with(&mut rows, Row::padding);
    let length = rows.len();
    let mut args = Vec::with_capacity(length * 10);
    for row in rows {
        row.into_args(&mut args);
    }
    conn.run_text(conn.dialect().text_of(template, length), args)
        .await
}

/// The columns of rows, as arrays.
fn arrays(rows: Vec<Row>) -> Vec<Arg> {
    let ints = |of: fn(&Row) -> i64| Arg::Ints(rows.iter().map(of).collect());
    let mut args = vec![
        ints(|row| row.room_no),
        ints(|row| row.epoch_no),
        ints(|row| row.seq),
        ints(|row| row.at),
        ints(|row| row.kind),
        ints(|row| row.form),
        Arg::Uuids(rows.iter().map(|row| row.id).collect()),
    ];
    let (mut users, mut keys, mut records) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        users.push(row.user);
        keys.push(row.send_key);
        records.push(row.record);
    }
    args.extend([Arg::Texts(users), Arg::Blobs(keys), Arg::Blobs(records)]);
    args
}

/// The columns of an entry `e`, as [`EntryRow`] has them. The epoch's name is a subquery, not a join: so no
/// database can choose to begin with the epochs.
macro_rules! entry_columns {
    () => {
        "e.seq, e.at, CAST(e.kind AS {bigint}), CAST(e.form AS {bigint}), e.id, e.user_id, \
         e.send_key, e.record, (SELECT p.name FROM hubbub_epochs p \
         WHERE p.room_no = e.room_no AND p.epoch_no = e.epoch_no)"
    };
}
pub(in crate::store::sql) use entry_columns;

const READ_AFTER: &str = concat!(
    "SELECT ",
    entry_columns!(),
    " FROM hubbub_entries e WHERE e.room_no = (SELECT no FROM hubbub_rooms WHERE name = ?) \
     AND e.seq > ? ORDER BY e.seq LIMIT ?"
);

const READ_BEFORE: &str = concat!(
    "SELECT ",
    entry_columns!(),
    " FROM hubbub_entries e WHERE e.room_no = (SELECT no FROM hubbub_rooms WHERE name = ?) \
     AND e.seq < ? ORDER BY e.seq DESC LIMIT ?"
);

pub(in crate::store::sql) type EntryRow = (
    i64,
    i64,
    i64,
    i64,
    Uuid,
    Text,
    Vec<u8>,
    Vec<u8>,
    Option<Text>,
);

/// The number of the columns of an [`EntryRow`].
const ENTRY_COLUMNS: usize = 9;

/// An entry, and the columns that a statement has behind those of the entry.
pub(in crate::store::sql) struct WithEntry<T> {
    pub entry: EntryRow,
    pub others: T,
}

impl<'r, R, T> FromRow<'r, R> for WithEntry<T>
where
    R: sqlx::Row,
    EntryRow: FromRow<'r, R>,
    T: OtherColumns<'r, R>,
{
    fn from_row(row: &'r R) -> sqlx::Result<Self> {
        Ok(Self {
            entry: EntryRow::from_row(row)?,
            others: T::of(row)?,
        })
    }
}

/// The columns behind those of an entry.
pub(in crate::store::sql) trait OtherColumns<'r, R>: Sized {
    fn of(row: &'r R) -> sqlx::Result<Self>;
}

macro_rules! other_columns {
    ($($column:ident $index:literal),+) => {
        impl<'r, R, $($column),+> OtherColumns<'r, R> for ($($column,)+)
        where
            R: sqlx::Row,
            usize: sqlx::ColumnIndex<R>,
            $($column: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>),+
        {
            fn of(row: &'r R) -> sqlx::Result<Self> {
                Ok(($(row.try_get::<$column, _>(ENTRY_COLUMNS + $index)?,)+))
            }
        }
    };
}
other_columns!(A 0, B 1);
other_columns!(A 0, B 1, C 2);
other_columns!(A 0, B 1, C 2, D 3, E 4, F 5, G 6);

pub(super) async fn read(
    db: &Db,
    room: &RoomId,
    window: ArchiveWindow,
    limit: usize,
    max_bytes: usize,
) -> Result<Vec<ArchivedEntry>> {
    let (template, bound) = match window {
        ArchiveWindow::After(seq) => (READ_AFTER, seq),
        ArchiveWindow::Before(seq) => (READ_BEFORE, seq),
    };
    // A greater number than any.
    let bound = i64::try_from(bound).unwrap_or(i64::MAX);
    let (room, text) = (room.clone(), db.dialect().text(template));
    let mut entries = db
        .read(move |conn| {
            let room = room.clone();
            Box::pin(async move {
                let mut page = Page::new(max_bytes);
                let args = args![room.as_str(), bound, rows(limit)];
                conn.each_of_text(text, args, |row| page.add(&room, row))
                    .await?;
                page.entries.into_iter().collect::<Outcome<Vec<_>>>()
            })
        })
        .await?;
    if matches!(window, ArchiveWindow::Before(_)) {
        entries.reverse();
    }
    Ok(entries)
}

/// Entries up to a number of bytes.
struct Page {
    entries: Vec<Outcome<ArchivedEntry>>,
    bytes: usize,
    max_bytes: usize,
}

impl Page {
    fn new(max_bytes: usize) -> Self {
        Self {
            entries: Vec::new(),
            bytes: 0,
            max_bytes,
        }
    }

    /// Adds an entry, unless the page is full. Returns whether there is space for more.
    fn add(&mut self, room: &RoomId, row: EntryRow) -> bool {
        let entry = entry(room, row);
        let bytes = entry.as_ref().map_or(0, |entry| entry.record.len());
        if !self.entries.is_empty() && self.bytes + bytes > self.max_bytes {
            return false;
        }
        self.bytes += bytes;
        self.entries.push(entry);
        true
    }
}

fn entry(room: &RoomId, row: EntryRow) -> Outcome<ArchivedEntry> {
    let seq = row.0;
    decoded(room, row).map_err(|fault| match fault {
        Fault::Broken(text) => Fault::Broken(format!("message {seq}: {text}")),
        fault => fault,
    })
}

pub(in crate::store::sql) fn decoded(room: &RoomId, row: EntryRow) -> Outcome<ArchivedEntry> {
    let (seq, at, kind, form, id, user, send_key, record, epoch) = row;
    let send_key = key_text(send_key)?;
    let columns = Columns {
        id,
        room: room.as_str(),
        user: &user.0,
        send_key: send_key.as_deref(),
    };
    let record: Bytes = form::restore(form, record, &columns);
    Ok(ArchivedEntry {
        seq: loaded(seq),
        epoch: epoch_name(epoch)?,
        at: Timestamp(loaded(at)),
        kind: StoredKind(kind),
        id,
        user: UserId::trusted(&user.0),
        send_key,
        record,
    })
}

/// Form and stored part of a record of this entry's message.
pub(in crate::store::sql) fn shortened(
    room: &RoomId,
    entry: &ArchivedEntry,
    record: &[u8],
) -> (i64, Vec<u8>) {
    let columns = Columns {
        id: entry.id,
        room: room.as_str(),
        user: entry.user.as_str(),
        send_key: entry.send_key.as_deref(),
    };
    form::shorten(record, &columns)
}

/// A record of the message with this id, room, author and key of its send, from its form and its stored part.
pub(in crate::store::sql) fn restored(
    (id, room, user): (Uuid, &RoomId, &str),
    send_key: Vec<u8>,
    form: i64,
    stored: Vec<u8>,
) -> Outcome<Bytes> {
    let send_key = key_text(send_key)?;
    let columns = Columns {
        id,
        room: room.as_str(),
        user,
        send_key: send_key.as_deref(),
    };
    Ok(form::restore(form, stored, &columns))
}

/// The key of a send; empty without one.
pub(super) fn key_text(bytes: Vec<u8>) -> Outcome<Option<Box<str>>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let text = String::from_utf8(bytes);
    let text = text.map_err(|_| Fault::Broken("the key of a send is not text".to_owned()))?;
    Ok(Some(text.into()))
}

fn epoch_name(name: Option<Text>) -> Outcome<Epoch> {
    let name = name.ok_or_else(|| Fault::Broken("an entry's epoch is missing".to_owned()))?;
    Ok(Epoch::trusted(&name.0))
}

const RECENT: &str = "SELECT e.seq, e.at, e.id, e.user_id, e.send_key, \
    (SELECT p.name FROM hubbub_epochs p WHERE p.room_no = e.room_no AND p.epoch_no = e.epoch_no) \
    FROM hubbub_entries e WHERE e.room_no = (SELECT no FROM hubbub_rooms WHERE name = ?) \
    AND e.seq < ? ORDER BY e.seq DESC LIMIT ?";

/// Entries that are read at once, and the number of older ones that ends the search for sends: the
/// clock may have gone back a little between two entries.
const RECENT_PAGE: usize = 256;

type SendRow = (i64, i64, Uuid, Text, Vec<u8>, Option<Text>);

pub(super) async fn recent_sends(
    db: &Db,
    room: &RoomId,
    since: Timestamp,
    limit: usize,
) -> Result<Vec<ArchivedSend>> {
    let mut sends = Vec::new();
    let mut before = i64::MAX;
    loop {
        let args = args![room.as_str(), before, rows(RECENT_PAGE)];
        let page: Vec<SendRow> = db.all(RECENT, args).await?;
        let is_last = page.len() < RECENT_PAGE;
        before = page.last().map_or(0, |row| row.0);
        let mut has_recent = false;
        for row in page.into_iter().filter(|row| loaded(row.1) >= since.0) {
            has_recent = true;
            if sends.len() < limit {
                sends.extend(send(row)?);
            }
        }
        if is_last || !has_recent || sends.len() >= limit {
            return Ok(sends);
        }
    }
}

/// The send with a key of a row.
fn send((seq, at, id, user, key, epoch): SendRow) -> Outcome<Option<ArchivedSend>> {
    let Some(key) = key_text(key)? else {
        return Ok(None);
    };
    Ok(Some(ArchivedSend {
        user: UserId::trusted(&user.0),
        key,
        id,
        seq: loaded(seq),
        epoch: epoch_name(epoch)?,
        at: Timestamp(loaded(at)),
    }))
}
