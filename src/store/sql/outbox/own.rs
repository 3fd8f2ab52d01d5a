//! Rows that are claimed by the transaction that adds them, for the worker of its process. That saves the
//! search for them, and the transaction of a claim.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{loaded, millis};
use crate::domain::RoomId;
use crate::store::sql::conn::Conn;
use crate::store::sql::fault::Outcome;
use crate::store::sql::value::{Text, args};
use crate::store::{OutboxRow, OwnRow, OwnRows, WantsRows};

/// The most rows that wait for the worker; others are claimed like those of another process.
const CAPACITY: usize = 200;

/// The way of such rows to the worker; none without a worker.
#[derive(Default)]
pub(in crate::store::sql) struct OwnRowQueue(Mutex<Option<Worker>>);

struct Worker {
    rows: mpsc::Sender<OwnRow>,
    lease: Duration,
    wants_rows: WantsRows,
}

/// The right of a transaction to claim its row.
pub(in crate::store::sql) struct OwnClaim {
    place: mpsc::OwnedPermit<OwnRow>,
    lease: Duration,
}

impl OwnRowQueue {
    pub fn open(&self, lease: Duration, wants_rows: WantsRows) -> OwnRows {
        let (rows, receiver) = OwnRows::channel(CAPACITY);
        *self.0.lock() = Some(Worker {
            rows,
            lease,
            wants_rows,
        });
        receiver
    }

    /// For a transaction that begins now. `None` if there is no worker, or it wants no rows now.
    pub fn claim(&self) -> Option<OwnClaim> {
        let worker = self.0.lock();
        let worker = worker.as_ref()?;
        if !(worker.wants_rows)() {
            return None;
        }
        Some(OwnClaim {
            place: worker.rows.clone().try_reserve_owned().ok()?,
            lease: worker.lease,
        })
    }
}

impl OwnClaim {
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// Hands a row over. The transaction that has claimed it is committed.
    pub fn hand_over(self, row: OwnRow) {
        self.place.send(row);
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
) -> Outcome<Option<OwnRow>> {
    const WAITING: &str = "SELECT id, type, payload, attempts, lease_until, due_at, {now} \
        FROM hubbub_outbox WHERE room_id = ? AND state + 0 = 0 AND type <> 'read' \
        ORDER BY id LIMIT 2";
    const CLAIM: &str = "UPDATE hubbub_outbox SET attempts = 1, lease_until = ?, tried_since = ? \
        WHERE id = ? AND attempts = 0 AND state = 0";
    type Waiting = (i64, Text, Text, i64, i64, i64, i64);
    // Before the database reads its clock, so that the lease ends no earlier than it seems to.
    let claimed_at = Instant::now();
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
    if claimed == 0 {
        return Ok(None);
    }
    let row: OutboxRow = loaded((id, room, kind, payload, attempts, now), 1, now);
    Ok(Some(OwnRow { row, claimed_at }))
}
