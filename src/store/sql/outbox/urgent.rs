//! Reads the urgent rows that are not published.

use async_trait::async_trait;

use crate::domain::{Change, RoomId};
use crate::store::sql::store::SqlStore;
use crate::store::sql::value::{Text, args};
use crate::store::{OutboxId, Result, UrgentRow, UrgentRows};

#[async_trait]
impl UrgentRows for SqlStore {
    async fn urgent(&self, after: OutboxId, limit: usize) -> Result<Vec<UrgentRow>> {
        // Each part is the beginning of a range of the index of states and types: with one condition for
        // all, the databases may read every row in the order of the numbers.
        const URGENT: &str = "SELECT u.id, u.room_id, u.type, u.payload FROM ( \
            SELECT a.* FROM (SELECT id, room_id, type, payload FROM hubbub_outbox \
             WHERE state = 0 AND type = ? AND id > ? ORDER BY id LIMIT ?) a \
            UNION ALL SELECT b.* FROM (SELECT id, room_id, type, payload FROM hubbub_outbox \
             WHERE state = 0 AND type = ? AND id > ? ORDER BY id LIMIT ?) b \
            UNION ALL SELECT c.* FROM (SELECT id, room_id, type, payload FROM hubbub_outbox \
             WHERE state = 1 AND type = ? AND id > ? ORDER BY id LIMIT ?) c \
            UNION ALL SELECT d.* FROM (SELECT id, room_id, type, payload FROM hubbub_outbox \
             WHERE state = 1 AND type = ? AND id > ? ORDER BY id LIMIT ?) d \
            ) u WHERE u.room_id IS NOT NULL ORDER BY u.id LIMIT ?";
        type Row = (i64, Text, Text, Text);
        let [one, other] = Change::URGENT_EVENTS;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let part = |event: &str| args![event, after, limit];
        let values = [part(one), part(other), part(one), part(other), args![limit]].concat();
        let rows: Vec<Row> = self.db().all(URGENT, values).await?;
        let urgent = |(id, room, kind, payload): Row| UrgentRow {
            id,
            room: RoomId::trusted(&room.0),
            kind: kind.0,
            payload: payload.0,
        };
        Ok(rows.into_iter().map(urgent).collect())
    }
}
