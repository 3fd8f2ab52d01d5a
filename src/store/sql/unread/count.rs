//! Counting unread messages.
//!
//! One statement finds the rooms of a user, each by lookups in keys, with everything that most rooms
//! need: the number of unread entries behind the blocks, and the first four blocks after the position. A room
//! whose row shows that the user has more than [`UNREAD_CAP`] has no blocks read. A second statement
//! reads further blocks of the rooms whose messages the first four don't decide: those with many entries
//! that don't count, or with one user that writes most of them.

use ahash::AHashMap;
use uuid::Uuid;

use super::block::{Author, BLOCK, Block, block_of};
use crate::domain::{RoomId, UserId};
use crate::store::sql::conn::Conn;
use crate::store::sql::dialect::{Dialect, MAX_LIST, pad};
use crate::store::sql::fault::{Fault, Outcome};
use crate::store::sql::store::SqlStore;
use crate::store::sql::value::{Arg, Text, args, loaded};
use crate::store::{Result, RoomUnread, UNREAD_CAP, Unread};

/// The blocks that `select_unread!` reads of a room.
const BLOCKS: i64 = 4;
/// Unread entries behind the blocks of a room that make a reader note it for the projection.
const LONG_TAIL: i64 = 64;

/// The number of unread entries behind the blocks, up to one more than [`UNREAD_CAP`].
macro_rules! tail {
    () => {
        "(SELECT COUNT(*) FROM (SELECT 1 FROM hubbub_entries e WHERE e.room_no = t.no \
          AND e.seq > CASE WHEN t.start > t.projected THEN t.start ELSE t.projected END \
          AND e.kind = 1 AND e.user_id <> ? AND NOT EXISTS (SELECT 1 FROM hubbub_replies y \
           WHERE y.room_no = e.room_no AND y.seq = e.seq) LIMIT 1001) l)"
    };
}

/// The same for MySQL, where only a scalar subquery can be limited by the row it belongs to.
macro_rules! tail_mysql {
    () => {
        "(SELECT CASE WHEN (SELECT e.seq FROM hubbub_entries e WHERE e.room_no = t.no \
          AND e.seq > CASE WHEN t.start > t.projected THEN t.start ELSE t.projected END \
          AND e.kind = 1 AND e.user_id <> ? AND NOT EXISTS (SELECT 1 FROM hubbub_replies y \
           WHERE y.room_no = e.room_no AND y.seq = e.seq) ORDER BY e.seq LIMIT 1 OFFSET 1000) \
          IS NOT NULL THEN 1001 ELSE (SELECT COUNT(*) FROM hubbub_entries e WHERE e.room_no = t.no \
          AND e.seq > CASE WHEN t.start > t.projected THEN t.start ELSE t.projected END \
          AND e.kind = 1 AND e.user_id <> ? AND NOT EXISTS (SELECT 1 FROM hubbub_replies y \
           WHERE y.room_no = e.room_no AND y.seq = e.seq)) END)"
    };
}

/// A block after the position: `$n` blocks after the first one.
macro_rules! block {
    ($n:literal) => {
        concat!(
            "CASE WHEN t.pos > t.capped AND t.start < t.projected \
             AND ((t.start + 1) >> 9) + ",
            $n,
            " <= (t.projected >> 9) \
             THEN (SELECT b.map FROM hubbub_unread_blocks b WHERE b.room_no = t.no \
              AND b.block = ((t.start + 1) >> 9) + ",
            $n,
            ") END"
        )
    };
}

/// A statement that selects [`CountRow`]s. `$rooms` selects rooms: `no` (NULL for one that the archive does
/// not know), `name`, `pos`, `cut`, `projected`, `capped`. Its values follow those of [`own_values`].
macro_rules! select_unread {
    ($tail:expr, $rooms:expr) => {
        concat!(
            "SELECT CAST(COALESCE(t.no, 0) AS {bigint}), t.name, t.pos, t.start, t.projected, \
             t.capped, \
             CAST(CASE WHEN t.no IS NULL OR t.pos <= t.capped THEN 0 ELSE ",
            $tail,
            " END AS {bigint}), \
             CAST(CASE WHEN t.no IS NULL THEN 0 ELSE (SELECT COUNT(DISTINCT n.seq) FROM hubbub_mentions n \
              WHERE n.user_id IN (?, '@channel') AND n.room_no = t.no AND n.seq > t.start \
              AND n.author_id <> ?) END AS {bigint}), ",
            block!("0"),
            ", ",
            block!("1"),
            ", ",
            block!("2"),
            ", ",
            block!("3"),
            " FROM (SELECT s.no, s.name, s.pos, s.projected, s.capped, \
             CASE WHEN s.pos < s.cut THEN s.cut ELSE s.pos END AS start FROM (",
            $rooms,
            ") s) t"
        )
    };
}

/// The text of a statement for each dialect.
macro_rules! for_dialects {
    ($rooms:expr) => {
        [
            select_unread!(tail!(), $rooms),
            select_unread!(tail_mysql!(), $rooms),
        ]
    };
}

/// The columns of `select_unread!`: number, name, position, the last number that is not counted, the last
/// projected number, `capped_seq`, unread entries behind it, mentions, and blocks.
type CountRow = (
    i64,
    Text,
    i64,
    i64,
    i64,
    i64,
    i64,
    i64,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
);

/// The chats of a member, without the condition that selects them. The room of a chat may be unknown.
macro_rules! memberships {
    () => {
        "SELECT r.no AS no, c.room_id AS name, \
         CASE WHEN p.read_seq IS NULL THEN m.joined_seq \
          WHEN c.history = 1 AND p.read_seq < m.joined_seq THEN m.joined_seq \
          ELSE p.read_seq END AS pos, \
         COALESCE(r.cut_seq, 0) AS cut, COALESCE(u.projected_seq, 0) AS projected, \
         COALESCE(u.capped_seq, -1) AS capped \
         FROM hubbub_chat_members m JOIN hubbub_chats c ON c.id = m.chat_id \
         LEFT JOIN hubbub_rooms r ON r.name = c.room_id \
         LEFT JOIN hubbub_unread_rooms u ON u.room_no = r.no \
         LEFT JOIN hubbub_positions p ON p.user_id = ? AND p.room_no = r.no \
         WHERE m.user_id = ?"
    };
}

/// The open rooms with a position of a user.
macro_rules! open_rooms {
    () => {
        "SELECT r.no AS no, r.name AS name, p.read_seq AS pos, r.cut_seq AS cut, \
         COALESCE(u.projected_seq, 0) AS projected, COALESCE(u.capped_seq, -1) AS capped \
         FROM hubbub_positions p JOIN hubbub_rooms r ON r.no = p.room_no \
         LEFT JOIN hubbub_unread_rooms u ON u.room_no = r.no \
         WHERE p.user_id = ? AND SUBSTR(r.name, 1, 5) <> 'chat:'"
    };
}

const ALL: [&str; 2] = for_dialects!(concat!(memberships!(), " UNION ALL ", open_rooms!()));

const OF_ROOMS: [&str; 2] = for_dialects!(concat!(
    memberships!(),
    " AND m.chat_id IN ({list}) UNION ALL ",
    open_rooms!(),
    " AND r.name IN ({list})"
));

const AT_POSITION: [&str; 2] = for_dialects!(
    "SELECT r.no AS no, r.name AS name, CAST(? AS {bigint}) AS pos, r.cut_seq AS cut, \
     COALESCE(u.projected_seq, 0) AS projected, COALESCE(u.capped_seq, -1) AS capped \
     FROM hubbub_rooms r LEFT JOIN hubbub_unread_rooms u ON u.room_no = r.no WHERE r.no = ?"
);

fn text_for(dialect: Dialect, texts: [&'static str; 2]) -> &'static str {
    let [other, mysql] = texts;
    match dialect {
        Dialect::MySql => mysql,
        Dialect::Sqlite | Dialect::Postgres => other,
    }
}

/// The values of `select_unread!` before those of its rooms.
fn own_values(dialect: Dialect, user: &str) -> Vec<Arg> {
    let count = if dialect == Dialect::MySql { 4 } else { 3 };
    vec![Arg::from(user); count]
}

/// The id of an account as members of chats have it. No account has the id of zeros.
fn account_id(user: &UserId) -> Uuid {
    Uuid::try_parse(user.as_str()).unwrap_or(Uuid::nil())
}

pub(super) async fn all(store: &SqlStore, user: &UserId) -> Result<Vec<RoomUnread>> {
    let user = user.clone();
    let read = store.db().read(move |conn| {
        let user = user.clone();
        Box::pin(async move {
            let id = user.as_str();
            let dialect = conn.dialect();
            let mut values = own_values(dialect, id);
            values.extend(args![id, account_id(&user), id]);
            let rows: Vec<CountRow> = conn.all(text_for(dialect, ALL), values).await?;
            counted(conn, &user, rows).await
        })
    });
    let counted = read.await?;
    Ok(noted(store, counted))
}

pub(super) async fn of_rooms(
    store: &SqlStore,
    user: &UserId,
    rooms: &[RoomId],
) -> Result<Vec<RoomUnread>> {
    let mut found = Vec::new();
    for part in rooms.chunks(MAX_LIST) {
        let (user, part) = (user.clone(), part.to_vec());
        let read = store.db().read(move |conn| {
            let (user, part) = (user.clone(), part.clone());
            Box::pin(async move {
                let rows = rows_of(conn, &user, &part).await?;
                counted(conn, &user, rows).await
            })
        });
        let counted = read.await?;
        found.extend(noted(store, counted));
    }
    Ok(found)
}

async fn rows_of(conn: &mut Conn, user: &UserId, rooms: &[RoomId]) -> Outcome<Vec<CountRow>> {
    let id = user.as_str();
    let dialect = conn.dialect();
    let mut names: Vec<&RoomId> = rooms.iter().collect();
    pad(&mut names);
    let chat = |room: &&RoomId| Arg::from(room.chat_id().unwrap_or(Uuid::nil()));
    let mut values = own_values(dialect, id);
    values.extend(args![id, account_id(user)]);
    values.extend(names.iter().map(chat));
    values.extend(args![id]);
    values.extend(names.iter().map(|room| Arg::from(room.as_str())));
    let text = dialect.text_of(text_for(dialect, OF_ROOMS), names.len());
    conn.all_of_text(text, values).await
}

/// The unread messages of a user with this position in a room that the archive knows.
pub(super) async fn at_position(
    conn: &mut Conn,
    user: &UserId,
    room_no: i64,
    position: i64,
) -> Outcome<Unread> {
    let dialect = conn.dialect();
    let mut values = own_values(dialect, user.as_str());
    values.extend(args![position, room_no]);
    let rows: Vec<CountRow> = conn.all(text_for(dialect, AT_POSITION), values).await?;
    let counted = counted(conn, user, rows).await?;
    Ok(counted
        .rooms
        .first()
        .map(|room| room.unread)
        .unwrap_or_default())
}

/// Counted rooms.
struct Counted {
    rooms: Vec<RoomUnread>,
    /// The numbers of those with many unprojected entries.
    behind: Vec<i64>,
}

fn noted(store: &SqlStore, counted: Counted) -> Vec<RoomUnread> {
    store.behind().note(counted.behind);
    counted.rooms
}

/// A room whose count goes on with further blocks.
struct Undecided {
    /// Its place in the result.
    index: usize,
    count: u64,
    projected: i64,
}

async fn counted(conn: &mut Conn, user: &UserId, rows: Vec<CountRow>) -> Outcome<Counted> {
    let author = Author::of(user.as_str());
    let mut rooms = Vec::with_capacity(rows.len());
    let mut behind = Vec::new();
    let mut undecided = AHashMap::new();
    let mut next_blocks = Vec::new();
    for row in rows {
        let (no, name, position, start, projected, capped, tail, mentions, ..) = row;
        let (.., first, second, third, fourth) = row;
        let first_block = block_of(start + 1);
        let mut count = loaded(tail);
        for (number, map) in (first_block..).zip([first, second, third, fourth]) {
            if let Some(map) = map {
                let block = Block::decode(&map)?;
                count += block.count_of_others(author, number, start, projected);
            }
        }
        if position <= capped {
            count = UNREAD_CAP + 1;
        } else if count <= UNREAD_CAP && block_of(projected) >= first_block + BLOCKS {
            next_blocks.push((no, first_block + BLOCKS));
            let room = Undecided {
                index: rooms.len(),
                count,
                projected,
            };
            undecided.insert(no, room);
        }
        if tail >= LONG_TAIL {
            behind.push(no);
        }
        rooms.push(RoomUnread {
            room: RoomId::trusted(&name.0),
            last_read_seq: loaded(position),
            unread: capped_at(count),
            mentions: loaded(mentions),
        });
    }
    if !undecided.is_empty() {
        add_blocks(conn, author, &next_blocks, &mut undecided).await?;
        for room in undecided.values() {
            rooms[room.index].unread = capped_at(room.count);
        }
    }
    Ok(Counted { rooms, behind })
}

fn capped_at(count: u64) -> Unread {
    Unread {
        count: count.min(UNREAD_CAP),
        is_capped: count > UNREAD_CAP,
    }
}

/// Adds the messages of all blocks from these ones on, of rooms that are not decided yet.
async fn add_blocks(
    conn: &mut Conn,
    author: Author,
    from: &[(i64, i64)],
    rooms: &mut AHashMap<i64, Undecided>,
) -> Outcome<()> {
    let (text, values) = blocks_from(conn.dialect(), from);
    let text = conn.dialect().text(text);
    let mut fault: Option<Fault> = None;
    conn.each_of_text(text, values, |(no, number, map): (i64, i64, Vec<u8>)| {
        if let Some(room) = rooms.get_mut(&no)
            && room.count <= UNREAD_CAP
        {
            match Block::decode(&map) {
                Ok(block) => {
                    let all = number * BLOCK - 1;
                    room.count += block.count_of_others(author, number, all, room.projected);
                }
                Err(damaged) => fault = Some(damaged),
            }
        }
        fault.is_none()
    })
    .await?;
    fault.map_or(Ok(()), Err)
}

/// A statement that selects the blocks of rooms, each from a number on. The rooms are one value, so that
/// one statement takes any number of them.
fn blocks_from(dialect: Dialect, from: &[(i64, i64)]) -> (&'static str, Vec<Arg>) {
    const SQLITE: &str = "SELECT b.room_no, b.block, b.map FROM json_each(?) w \
        JOIN hubbub_unread_blocks b ON b.room_no = json_extract(w.value, '$[0]') \
        AND b.block >= json_extract(w.value, '$[1]')";
    const POSTGRES: &str = "SELECT CAST(b.room_no AS BIGINT), b.block, b.map \
        FROM UNNEST(CAST(? AS BIGINT[]), CAST(? AS BIGINT[])) AS w(no, block) \
        JOIN hubbub_unread_blocks b ON b.room_no = w.no AND b.block >= w.block";
    const MYSQL: &str = "SELECT CAST(b.room_no AS SIGNED), b.block, b.map \
        FROM JSON_TABLE(CONVERT(? USING utf8mb4), '$[*]' \
         COLUMNS (no INT PATH '$[0]', block BIGINT PATH '$[1]')) w \
        JOIN hubbub_unread_blocks b ON b.room_no = w.no AND b.block >= w.block";
    let json = || {
        let pairs = from.iter().map(|(no, block)| format!("[{no},{block}]"));
        let pairs: Vec<String> = pairs.collect();
        args![format!("[{}]", pairs.join(","))]
    };
    match dialect {
        Dialect::Sqlite => (SQLITE, json()),
        Dialect::MySql => (MYSQL, json()),
        Dialect::Postgres => {
            let (rooms, blocks) = from.iter().copied().unzip();
            (POSTGRES, vec![Arg::Ints(rooms), Arg::Ints(blocks)])
        }
    }
}
