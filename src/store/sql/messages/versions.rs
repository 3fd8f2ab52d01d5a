//! The versions of a message.

use super::{EDITED, loaded, target};
use crate::domain::Timestamp;
use crate::store::sql::archive::entries;
use crate::store::sql::conn::Conn;
use crate::store::sql::db::Db;
use crate::store::sql::fault::Outcome;
use crate::store::sql::value::args;
use crate::store::{MessageRef, MessageVersion, Result};

pub(super) async fn versions(db: &Db, message: &MessageRef) -> Result<Option<Vec<MessageVersion>>> {
    let message = message.clone();
    // A transaction, so that the newest content and those before it are of one moment.
    db.transaction(move |conn| {
        let message = message.clone();
        Box::pin(async move { read(conn, &message).await })
    })
    .await
}

async fn read(conn: &mut Conn, message: &MessageRef) -> Outcome<Option<Vec<MessageVersion>>> {
    const EDITS: &str = "SELECT change_seq, at, CAST(form AS {bigint}), record \
        FROM hubbub_message_changes WHERE room_no = ? AND seq = ? AND kind = ? ORDER BY revision";
    let Some(target) = target::lock_any(conn, message).await? else {
        return Ok(None);
    };
    if target.is_deleted() {
        return Ok(Some(Vec::new()));
    }
    let values = args![target.room_no, target.seq, EDITED];
    let edits: Vec<(Option<i64>, i64, i64, Vec<u8>)> = conn.all(EDITS, values).await?;
    let mut versions = Vec::with_capacity(edits.len() + 1);
    let (mut version, mut made_at) = (target.entry.seq, target.entry.at);
    for (seq, at, form, record) in edits {
        versions.push(MessageVersion {
            version,
            at: made_at,
            record: entries::restored(&target.room, &target.entry, form, record),
        });
        version = seq.map_or(0, loaded);
        made_at = Timestamp(loaded(at));
    }
    versions.push(MessageVersion {
        version,
        at: made_at,
        record: target.entry.record,
    });
    Ok(Some(versions))
}
