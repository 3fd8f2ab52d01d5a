//! Rows that are claimed by the transaction that adds them, for the worker of its process. That saves the
//! search for them, and the transaction of a claim.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Row, loaded, millis};
use crate::domain::RoomId;
use crate::store::sql::conn::Conn;
use crate::store::sql::fault::Outcome;
use crate::store::sql::value::{Text, args};
use crate::store::{OutboxRow, OwnRow, OwnRows};

/// The most rows that wait for the worker; others are claimed like those of another process.
const CAPACITY: usize = 200;

/// The way of such rows to the worker; none without a worker.
#[derive(Default)]
pub(in crate::store::sql) struct OwnRowQueue(Mutex<Option<Worker>>);

struct Worker {
    rows: mpsc::Sender<OwnRow>,
    lease: Duration,
}

/// The right of a transaction to claim its row.
pub(in crate::store::sql) struct OwnClaim {
    place: mpsc::OwnedPermit<OwnRow>,
    lease: Duration,
    began_at: Instant,
}

impl OwnRowQueue {
    pub fn open(&self, lease: Duration) -> OwnRows {
        let (rows, receiver) = OwnRows::channel(CAPACITY);
        *self.0.lock() = Some(Worker { rows, lease });
        receiver
    }

    /// For a transaction that begins now. `None` if there is no worker, or it has enough rows.
    pub fn claim(&self) -> Option<OwnClaim> {
        let (rows, lease) = {
            let worker = self.0.lock();
            let worker = worker.as_ref()?;
            (worker.rows.clone(), worker.lease)
        };
        Some(OwnClaim {
            place: rows.try_reserve_owned().ok()?,
            lease,
            began_at: Instant::now(),
        })
    }
}

impl OwnClaim {
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// Hands the row over, whose transaction is committed.
    pub fn hand_over(self, row: OutboxRow) {
        self.place.send(OwnRow {
            row,
            claimed_at: self.began_at,
        });
    }
}

/// Claims the row of a room that this transaction has added, if no other row of the room waits. Rows that
/// announce positions don't count.
///
/// A row of the room that another transaction adds meanwhile may be published at the same time. So what
/// depends on the order must be done under a lock that both transactions take.
pub(in crate::store::sql) async fn claim_own(
    conn: &mut Conn,
    room: &RoomId,
    lease: Duration,
) -> Outcome<Option<OutboxRow>> {
    const WAITING: &str = "SELECT id, type, payload, attempts, lease_until, due_at, {now} \
        FROM hubbub_outbox WHERE room_id = ? AND state + 0 = 0 AND type <> 'read' \
        ORDER BY id LIMIT 2";
    const CLAIM: &str = "UPDATE hubbub_outbox SET attempts = 1, lease_until = ?, tried_since = ? \
        WHERE id = ? AND attempts = 0 AND state = 0";
    type Waiting = (i64, Text, Text, i64, i64, i64, i64);
    let mut waiting: Vec<Waiting> = conn.all(WAITING, args![room.as_str()]).await?;
    let (Some(row), true) = (waiting.pop(), waiting.is_empty()) else {
        return Ok(None);
    };
    let (id, kind, payload, attempts, lease_until, due_at, now) = row;
    if attempts > 0 || lease_until > now || due_at > now {
        return Ok(None);
    }
    let claimed = conn.run(CLAIM, args![now + millis(lease), now, id]).await?;
    let room = Some(Text(room.as_str().to_owned()));
    let row: Row = (id, room, kind, payload, attempts, now);
    Ok((claimed > 0).then(|| loaded(row, 1, now)))
}
