//! The rows of threads, which have the number of replies, the last reply and the first authors: so reads
//! count nothing.
//!
//! The row of a thread is the lock of its totals. Replies change it in the transactions that add and delete
//! them. Retention deletes a root, and its row, no later than the replies: the root has a lower number.

use std::collections::BTreeMap;

use crate::store::ThreadState;
use crate::store::sql::conn::Conn;
use crate::store::sql::dialect::{MAX_LIST, pad};
use crate::store::sql::fault::{Fault, Outcome};
use crate::store::sql::value::{Arg, Text, args};

/// A reply that a transaction has added.
pub(in crate::store::sql) struct NewReply<'a> {
    pub room_no: i64,
    /// 0 if the archive does not have the root.
    pub root_seq: i64,
    pub root_author: &'a str,
    pub seq: i64,
    pub at: i64,
    pub author: &'a str,
}

/// The totals of a thread.
#[derive(Debug, Default)]
struct Totals {
    replies: i64,
    last_seq: i64,
    last_at: i64,
    participants: Vec<String>,
}

/// Replies were added. With `are_new` none of them was there before.
pub(in crate::store::sql) async fn replies_added(
    conn: &mut Conn,
    replies: &[NewReply<'_>],
    are_new: bool,
) -> Outcome<()> {
    let mut rooms: BTreeMap<i64, BTreeMap<i64, Vec<&NewReply<'_>>>> = BTreeMap::new();
    for reply in replies.iter().filter(|reply| reply.root_seq > 0) {
        let threads = rooms.entry(reply.room_no).or_default();
        threads.entry(reply.root_seq).or_default().push(reply);
    }
    // In the order of their keys, so that two transactions rarely form a deadlock. They may where one of them
    // adds rows; then it is repeated.
    for (room_no, mut threads) in rooms {
        let roots: Vec<(i64, &str)> = threads
            .iter()
            .map(|(root_seq, replies)| (*root_seq, replies[0].root_author))
            .collect();
        for part in roots.chunks(MAX_LIST) {
            for (root_seq, known) in lock_or_add(conn, room_no, part).await? {
                let mut added = threads.remove(&root_seq).unwrap_or_default();
                added.sort_unstable_by_key(|reply| reply.seq);
                let is_behind = |totals: &Totals| {
                    let first = added.first();
                    first.is_some_and(|first| first.seq > totals.last_seq)
                };
                let totals = match known {
                    Some(mut totals) if are_new && is_behind(&totals) => {
                        for reply in added {
                            totals.add(reply);
                        }
                        totals
                    }
                    _ => Totals::count(conn, (room_no, root_seq)).await?,
                };
                totals.store(conn, (room_no, root_seq)).await?;
            }
        }
    }
    Ok(())
}

/// Deletes a message from the replies of its thread, if it is one.
pub(in crate::store::sql) async fn delete_reply(
    conn: &mut Conn,
    (room_no, seq): (i64, i64),
) -> Outcome<()> {
    const ROOT: &str = "SELECT root_seq FROM hubbub_replies WHERE room_no = ? AND seq = ?";
    const DELETE: &str = "DELETE FROM hubbub_replies WHERE room_no = ? AND seq = ?";
    // A reply has a second row if its root was archived between two commits of it.
    let roots: Vec<(i64,)> = conn.all(ROOT, args![room_no, seq]).await?;
    if roots.is_empty() {
        return Ok(());
    }
    let roots: Vec<i64> = roots.into_iter().map(|(root_seq,)| root_seq).collect();
    let known = lock(conn, room_no, &roots).await?;
    conn.run(DELETE, args![room_no, seq]).await?;
    for (root_seq, _) in known {
        let totals = Totals::count(conn, (room_no, root_seq)).await?;
        totals.store(conn, (room_no, root_seq)).await?;
    }
    Ok(())
}

/// Locks the threads of a room with these roots and their authors. Those without a row get one.
async fn lock_or_add(conn: &mut Conn, room_no: i64, roots: &[(i64, &str)]) -> Outcome<Vec<Locked>> {
    const ADD: &str = "INSERT INTO hubbub_threads \
        (room_no, root_seq, replies, last_seq, last_at, root_user_id, participants) \
        VALUES {rows:7} {if_absent:room_no}";
    let seqs: Vec<i64> = roots.iter().map(|(seq, _)| *seq).collect();
    let found = lock(conn, room_no, &seqs).await?;
    let is_absent = |seq: i64| !found.iter().any(|(known, _)| *known == seq);
    let absent = roots.iter().filter(|(seq, _)| is_absent(*seq));
    let mut absent: Vec<Vec<Arg>> = absent
        .map(|(seq, author)| args![room_no, *seq, 0_i64, 0_i64, 0_i64, *author, "[]"])
        .collect();
    if absent.is_empty() {
        return Ok(found);
    }
    pad(&mut absent);
    let text = conn.dialect().text_of(ADD, absent.len());
    conn.run_text(text, absent.concat()).await?;
    let found = lock(conn, room_no, &seqs).await?;
    if found.len() < roots.len() {
        return Err(Fault::Again("a thread was removed".to_owned()));
    }
    Ok(found)
}

/// The root of a thread that is locked, and its totals; `None` if they are damaged.
type Locked = (i64, Option<Totals>);

async fn lock(conn: &mut Conn, room_no: i64, roots: &[i64]) -> Outcome<Vec<Locked>> {
    const LOCK: &str = "SELECT root_seq, replies, last_seq, last_at, participants \
        FROM hubbub_threads WHERE room_no = ? AND root_seq IN ({list}) \
        ORDER BY root_seq {for_update}";
    type Row = (i64, i64, i64, i64, Text);
    let rows: Vec<Row> = conn
        .all_of_list(LOCK, args![room_no], roots.iter().copied())
        .await?;
    let mut found = Vec::with_capacity(rows.len());
    for (root_seq, replies, last_seq, last_at, participants) in rows {
        let totals = decode(&participants.0).map(|participants| Totals {
            replies,
            last_seq,
            last_at,
            participants,
        });
        found.push((root_seq, totals));
    }
    Ok(found)
}

impl Totals {
    /// Adds a reply behind all others.
    fn add(&mut self, reply: &NewReply<'_>) {
        self.replies += 1;
        self.last_seq = reply.seq;
        self.last_at = reply.at;
        let is_known = self.participants.iter().any(|known| known == reply.author);
        if !is_known && self.participants.len() < ThreadState::PARTICIPANTS {
            self.participants.push(reply.author.to_owned());
        }
    }

    /// Counts a thread that is locked.
    async fn count(conn: &mut Conn, (room_no, root_seq): (i64, i64)) -> Outcome<Self> {
        const COUNT: &str = "SELECT COUNT(*), COALESCE(MAX(seq), 0) FROM hubbub_replies \
            WHERE room_no = ? AND root_seq = ?";
        const LAST: &str = "SELECT at FROM hubbub_entries WHERE room_no = ? AND seq = ?";
        const PARTICIPANTS: &str = "SELECT user_id FROM hubbub_replies \
            WHERE room_no = ? AND root_seq = ? GROUP BY user_id ORDER BY MIN(seq) LIMIT ?";
        let count: Option<(i64, i64)> = conn.first(COUNT, args![room_no, root_seq]).await?;
        let (replies, last_seq) = count.unwrap_or_default();
        let last: Option<(i64,)> = conn.first(LAST, args![room_no, last_seq]).await?;
        let limit = i64::try_from(ThreadState::PARTICIPANTS).unwrap_or(i64::MAX);
        let values = args![room_no, root_seq, limit];
        let participants: Vec<(Text,)> = conn.all(PARTICIPANTS, values).await?;
        Ok(Self {
            replies,
            last_seq,
            last_at: last.map_or(0, |(at,)| at),
            participants: participants.into_iter().map(|(user,)| user.0).collect(),
        })
    }

    /// Stores the totals of a thread that is locked. One without replies has no row.
    async fn store(&self, conn: &mut Conn, (room_no, root_seq): (i64, i64)) -> Outcome<()> {
        const STORE: &str = "UPDATE hubbub_threads \
            SET replies = ?, last_seq = ?, last_at = ?, participants = ? \
            WHERE room_no = ? AND root_seq = ?";
        const DELETE: &str = "DELETE FROM hubbub_threads WHERE room_no = ? AND root_seq = ?";
        if self.replies == 0 {
            return conn.run(DELETE, args![room_no, root_seq]).await.map(drop);
        }
        let participants = serde_json::to_string(&self.participants);
        let participants = participants.expect("a list of texts always serialises");
        let (replies, last_seq, last_at) = (self.replies, self.last_seq, self.last_at);
        let values = args![replies, last_seq, last_at, participants, room_no, root_seq];
        conn.run(STORE, values).await.map(drop)
    }
}

/// The participants of a thread, as its row has them; `None` if they are damaged.
pub(in crate::store::sql) fn decode(participants: &str) -> Option<Vec<String>> {
    serde_json::from_str(participants).ok()
}
