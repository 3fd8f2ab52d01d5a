//! How far users have read threads, and the threads that they take part in.

use uuid::Uuid;

use crate::domain::{RoomId, Timestamp, UserId};
use crate::store::sql::accounts::loaded_time;
use crate::store::sql::conn::Conn;
use crate::store::sql::db::Db;
use crate::store::sql::fault::{Fault, Outcome};
use crate::store::sql::value::{Text, args, loaded};
use crate::store::{
    MessageRef, ReadPosition, Result, StoredKind, ThreadCursor, UNREAD_CAP, Unread, UserThread,
};

pub(super) async fn read(
    db: &Db,
    root: &MessageRef,
    user: &UserId,
    seq: u64,
) -> Result<Option<ReadPosition>> {
    let (root, user) = (root.clone(), user.clone());
    db.transaction(move |conn| {
        let (root, user) = (root.clone(), user.clone());
        Box::pin(async move { read_in(conn, &root, &user, seq).await })
    })
    .await
}

/// A thread: the numbers of its room and of its root.
type Thread = (i64, i64);

async fn read_in(
    conn: &mut Conn,
    root: &MessageRef,
    user: &UserId,
    seq: u64,
) -> Outcome<Option<ReadPosition>> {
    const ADD: &str = "INSERT INTO hubbub_thread_positions (user_id, room_no, root_seq, read_seq) \
        VALUES (?, ?, ?, ?) {if_absent:user_id}";
    const MOVE: &str = "UPDATE hubbub_thread_positions SET read_seq = ? \
        WHERE user_id = ? AND room_no = ? AND root_seq = ?";
    let Some(thread) = find(conn, root).await? else {
        return Ok(None);
    };
    let (room_no, root_seq) = thread;
    let wanted = i64::try_from(seq).unwrap_or(i64::MAX);
    let stored = lock(conn, user, thread).await?;
    let has_moved = wanted > stored.unwrap_or(0);
    if has_moved && stored.is_some() {
        let values = args![wanted, user.as_str(), room_no, root_seq];
        conn.run(MOVE, values).await?;
    } else if has_moved {
        let values = args![user.as_str(), room_no, root_seq, wanted];
        conn.run(ADD, values).await?;
        // Waits for another call that has added it, whose position counts.
        if lock(conn, user, thread).await? != Some(wanted) {
            return Err(Fault::Again(
                "another call has moved the position".to_owned(),
            ));
        }
    }
    let position = wanted.max(stored.unwrap_or(0));
    Ok(Some(ReadPosition {
        last_read_seq: loaded(position),
        unread: unread(conn, user, thread, position).await?,
        has_moved,
    }))
}

async fn find(conn: &mut Conn, root: &MessageRef) -> Outcome<Option<Thread>> {
    const FIND: &str = "SELECT CAST(e.room_no AS {bigint}), e.seq FROM hubbub_entries e \
        JOIN hubbub_rooms r ON r.no = e.room_no WHERE e.id = ? AND r.name = ? AND e.kind IN (?, ?)";
    let (message, deleted) = (StoredKind::MESSAGE.0, StoredKind::DELETED.0);
    let values = args![root.id, root.room.as_str(), message, deleted];
    conn.first(FIND, values).await
}

async fn lock(conn: &mut Conn, user: &UserId, (room_no, root_seq): Thread) -> Outcome<Option<i64>> {
    const LOCK: &str = "SELECT read_seq FROM hubbub_thread_positions \
        WHERE user_id = ? AND room_no = ? AND root_seq = ? {for_update}";
    let values = args![user.as_str(), room_no, root_seq];
    let found: Option<(i64,)> = conn.first(LOCK, values).await?;
    Ok(found.map(|(seq,)| seq))
}

async fn unread(
    conn: &mut Conn,
    user: &UserId,
    (room_no, root_seq): Thread,
    position: i64,
) -> Outcome<Unread> {
    const COUNT: &str = "SELECT COUNT(*) FROM hubbub_replies \
        WHERE room_no = ? AND root_seq = ? AND seq > ? AND user_id <> ?";
    let values = args![room_no, root_seq, position, user.as_str()];
    let count: Option<(i64,)> = conn.first(COUNT, values).await?;
    Ok(capped(count.map_or(0, |(count,)| count)))
}

fn capped(count: i64) -> Unread {
    let count = loaded(count);
    Unread {
        count: count.min(UNREAD_CAP),
        is_capped: count > UNREAD_CAP,
    }
}

/// Room, its number, root, its number, number and time of the last reply, position, and unread replies.
type ThreadRow = (Text, i64, Uuid, i64, i64, i64, i64, i64);

/// Threads in rooms that the user can still read; of a chat that shows only what came after joining,
/// those with such a reply. Replies of others are counted in the threads of the page only.
pub(super) async fn page(
    db: &Db,
    user: &UserId,
    before: Option<ThreadCursor>,
    limit: usize,
) -> Result<Vec<UserThread>> {
    const PAGE: &str = "SELECT l.name, CAST(l.room_no AS {bigint}), l.id, l.root_seq, l.last_seq, \
        l.last_at, l.read_seq, \
        (SELECT COUNT(*) FROM hubbub_replies y WHERE y.room_no = l.room_no \
         AND y.root_seq = l.root_seq AND y.user_id <> ? \
         AND y.seq > CASE WHEN l.hidden > l.read_seq THEN l.hidden ELSE l.read_seq END) \
        FROM (SELECT r.name, root.id, x.room_no, x.root_seq, x.last_seq, x.last_at, \
         COALESCE(p.read_seq, 0) AS read_seq, \
         CASE WHEN v.history = 1 THEN v.joined_seq ELSE 0 END AS hidden \
         FROM (SELECT room_no, root_seq FROM hubbub_replies WHERE user_id = ? \
           UNION SELECT room_no, root_seq FROM hubbub_threads WHERE root_user_id = ?) k \
         JOIN hubbub_threads x ON x.room_no = k.room_no AND x.root_seq = k.root_seq \
         JOIN hubbub_rooms r ON r.no = x.room_no \
         JOIN hubbub_entries root ON root.room_no = x.room_no AND root.seq = x.root_seq \
         LEFT JOIN hubbub_thread_positions p \
          ON p.user_id = ? AND p.room_no = x.room_no AND p.root_seq = x.root_seq \
         LEFT JOIN (SELECT c.room_id, c.history, m.joined_seq FROM hubbub_chat_members m \
           JOIN hubbub_chats c ON c.id = m.chat_id WHERE m.user_id = ?) v ON v.room_id = r.name \
         WHERE (SUBSTR(r.name, 1, 5) <> 'chat:' OR v.room_id IS NOT NULL) \
         AND (x.last_at < ? OR (x.last_at = ? AND \
          (x.room_no < ? OR (x.room_no = ? AND x.root_seq < ?)))) \
         AND x.last_seq > CASE WHEN v.history = 1 THEN v.joined_seq ELSE 0 END \
         ORDER BY x.last_at DESC, x.room_no DESC, x.root_seq DESC LIMIT ?) l \
        ORDER BY l.last_at DESC, l.room_no DESC, l.root_seq DESC";
    let first = ThreadCursor {
        last_at: Timestamp(u64::MAX),
        room_no: u64::MAX,
        root_seq: u64::MAX,
    };
    let before = before.unwrap_or(first);
    let stored = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let (at, room_no) = (stored(before.last_at.0), stored(before.room_no));
    let root_seq = stored(before.root_seq);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let id = user.as_str();
    let account = Uuid::try_parse(id).unwrap_or(Uuid::nil());
    let position = args![at, at, room_no, room_no, root_seq, limit];
    let values = [args![id, id, id, id, account], position].concat();
    let found: Vec<ThreadRow> = db.all(PAGE, values).await?;
    Ok(found.into_iter().map(thread).collect())
}

fn thread(
    (room, room_no, root, root_seq, last_seq, last_at, read_seq, count): ThreadRow,
) -> UserThread {
    UserThread {
        room: RoomId::trusted(&room.0),
        room_no: loaded(room_no),
        root,
        root_seq: loaded(root_seq),
        last_seq: loaded(last_seq),
        last_at: loaded_time(last_at),
        last_read_seq: loaded(read_seq),
        unread: capped(count),
    }
}
