//! Deleting accounts, in a database.

use async_trait::async_trait;
use uuid::Uuid;

use super::sessions::{self, now};
use super::{admin, bot_tokens, invites, loaded_time, stored_role, user_id};
use crate::domain::{DELETED_DISPLAY_NAME, DELETED_USERNAME, Role};
use crate::store::sql::archive::rewrite::{self, Position};
use crate::store::sql::chats;
use crate::store::sql::conn::Conn;
use crate::store::sql::fault::Outcome;
use crate::store::sql::idempotency;
use crate::store::sql::limited_delete::{LimitedDelete, limited_delete};
use crate::store::sql::meta::{self, LAST_ADMIN};
use crate::store::sql::outbox;
use crate::store::sql::store::SqlStore;
use crate::store::sql::value::{Text, args};
use crate::store::{
    Announce, AnnounceEnd, DeleteOutcome, DeletionReport, DeletionStep, DeletionStore,
    EndedSessions, NewRow, Result, Rewrite,
};

/// The rows of one table that a transaction deletes.
const ROWS_PER_STEP: i64 = 5000;
/// The time between the two passes, in milliseconds.
const SECOND_PASS_DELAY: i64 = 600_000;

#[async_trait]
impl DeletionStore for SqlStore {
    async fn delete_account(
        &self,
        user: Uuid,
        verified: String,
        job: NewRow,
        announce: AnnounceEnd,
    ) -> Result<DeleteOutcome> {
        let outcome = self
            .db()
            .transaction(move |conn| {
                let (verified, job, announce) = (verified.clone(), job.clone(), announce.clone());
                Box::pin(async move { delete_in(conn, user, &verified, job, &announce).await })
            })
            .await?;
        self.announce_rows();
        Ok(outcome)
    }

    async fn leave_groups(
        &self,
        user: Uuid,
        after: Uuid,
        announce: Announce,
    ) -> Result<Option<Uuid>> {
        let left = chats::leave_groups(self.db(), user, after, &announce).await;
        // Some may have ended before a failure.
        self.announce_rows();
        left
    }

    async fn rewrite_next(
        &self,
        user: Uuid,
        rewrite: Rewrite,
        job: NewRow,
    ) -> Result<DeletionStep> {
        self.db()
            .transaction(move |conn| {
                let (rewrite, job) = (rewrite.clone(), job.clone());
                Box::pin(async move { rewrite_in(conn, user, &rewrite, job).await })
            })
            .await
    }

    async fn deletion(&self, user: Uuid) -> Result<Option<DeletionReport>> {
        const FIND: &str = "SELECT d.requested_at, d.pass, d.messages, COALESCE(s.skipped, 0), \
            d.finished_at FROM hubbub_account_deletions d \
            LEFT JOIN hubbub_deletion_skips s ON s.user_id = d.user_id WHERE d.user_id = ?";
        type Row = (i64, i64, i64, i64, Option<i64>);
        let found: Vec<Row> = self.db().all(FIND, args![user]).await?;
        let report = |(requested_at, pass, messages, skipped, finished_at): &Row| DeletionReport {
            requested_at: loaded_time(*requested_at),
            passes: u64::try_from(*pass).unwrap_or(0),
            messages: u64::try_from(*messages).unwrap_or(0),
            skipped: u64::try_from(*skipped).unwrap_or(0),
            finished_at: finished_at.map(loaded_time),
        };
        Ok(found.first().map(report))
    }
}

async fn delete_in(
    conn: &mut Conn,
    user: Uuid,
    verified: &str,
    job: NewRow,
    announce: &AnnounceEnd,
) -> Outcome<DeleteOutcome> {
    const LOCK: &str = "SELECT password, email_key, role FROM hubbub_users \
        WHERE id = ? AND deleted_at IS NULL {for_update}";
    const FORGET: &str = "UPDATE hubbub_users SET username = ?, username_key = NULL, email = NULL, \
        email_key = NULL, email_verified_at = NULL, display_name = ?, avatar_url = NULL, \
        status = NULL, search_key = '', role = 0, password = '', deleted_at = ?, updated_at = ? WHERE id = ?";
    const TOKENS: &str = "DELETE FROM hubbub_account_tokens WHERE user_id = ?";
    // The notices to former addresses: their payloads have these.
    const NOTICES: &str = "DELETE FROM hubbub_outbox \
        WHERE state IN (0, 1) AND type = 'address_changed' AND payload LIKE ?";
    const BEGIN: &str = "INSERT INTO hubbub_account_deletions \
        (user_id, requested_at, pass, at_room, at_seq, messages) VALUES (?, ?, 0, 0, 0, 0)";
    const OTHERS: &str = "SELECT id FROM hubbub_users WHERE id <> ? AND deleted_at IS NULL LIMIT 1";
    meta::lock(conn, LAST_ADMIN, "").await?;
    let found: Option<(Text, Option<Text>, i64)> = conn.first(LOCK, args![user]).await?;
    let (email, role) = match found {
        Some((Text(password), email, role)) if password == verified => (email, role),
        _ => return Ok(DeleteOutcome::Unknown),
    };
    let is_admin = role == stored_role(Role::Admin);
    let others: Option<(Uuid,)> = conn.first(OTHERS, args![user]).await?;
    if is_admin && others.is_some() && !admin::has_other_admin(conn, user).await? {
        return Ok(DeleteOutcome::LastAdmin);
    }
    let now = now(conn).await?;
    let mut ended = sessions::end_in(conn, user, EndedSessions::All, announce).await?;
    ended.extend(bot_tokens::delete_all(conn, user, announce).await?);
    idempotency::forget_user(conn, user).await?;
    idempotency::redact(conn, user_id(user).as_str()).await?;
    // The job deletes the rest.
    let _ = forget_positions(conn, user).await?;
    if let Some(Text(email)) = email {
        invites::forget_address(conn, &email).await?;
    }
    let names = args![DELETED_USERNAME, DELETED_DISPLAY_NAME, now, now, user];
    conn.run(FORGET, names).await?;
    conn.run(TOKENS, args![user]).await?;
    let notices = format!("{{\"user\":\"{}\"%", user_id(user).as_str());
    conn.run(NOTICES, args![notices]).await?;
    conn.run(BEGIN, args![user, now]).await?;
    outbox::add(conn, vec![job]).await?;
    Ok(DeleteOutcome::Deleted(ended))
}

async fn rewrite_in(
    conn: &mut Conn,
    user: Uuid,
    rewrite: &Rewrite,
    job: NewRow,
) -> Outcome<DeletionStep> {
    const FIND: &str = "SELECT pass, at_room, at_seq FROM hubbub_account_deletions \
        WHERE user_id = ? AND finished_at IS NULL {for_update}";
    const SKIPPED: &str = "SELECT skipped FROM hubbub_deletion_skips WHERE user_id = ?";
    const ADVANCE: &str = "UPDATE hubbub_account_deletions \
        SET at_room = ?, at_seq = ?, messages = messages + ? WHERE user_id = ?";
    const NEXT_PASS: &str = "UPDATE hubbub_account_deletions \
        SET pass = pass + 1, at_room = 0, at_seq = 0 WHERE user_id = ?";
    const FINISH: &str = "UPDATE hubbub_account_deletions \
        SET pass = pass + 1, finished_at = ? WHERE user_id = ?";
    let found: Option<(i64, i64, i64)> = conn.first(FIND, args![user]).await?;
    let Some((pass, room_no, seq)) = found else {
        return Ok(DeletionStep::Finished);
    };
    let skipped: Option<(i64,)> = conn.first(SKIPPED, args![user]).await?;
    let skipped = skipped.map_or(0, |(skipped,)| skipped);
    let position = Position { room_no, seq };
    if position.is_start() && forget_positions(conn, user).await? {
        return Ok(DeletionStep::More);
    }
    let user_text = user_id(user);
    let step = rewrite::next(conn, position, user_text.as_str(), rewrite).await?;
    // Each pass counts anew: it meets the same entries.
    let skipped = step.skipped + if position.is_start() { 0 } else { skipped };
    if let Some(Position { room_no, seq }) = step.position {
        let values = args![room_no, seq, step.rewritten, user];
        conn.run(ADVANCE, values).await?;
        store_skipped(conn, user, skipped).await?;
        return Ok(DeletionStep::More);
    }
    // Those of requests that were under way when the account was deleted, and of messages that were archived
    // late. The next step finds no more messages and comes here again.
    if pass > 0 && forget_positions(conn, user).await? {
        return Ok(DeletionStep::More);
    }
    let skipped = skipped + chats::count_groups(conn, user).await?;
    store_skipped(conn, user, skipped).await?;
    let now = now(conn).await?;
    if pass == 0 {
        conn.run(NEXT_PASS, args![user]).await?;
        outbox::add_at(conn, job, now + SECOND_PASS_DELAY).await?;
        return Ok(DeletionStep::FirstPassComplete);
    }
    conn.run(FINISH, args![now, user]).await?;
    Ok(DeletionStep::Finished)
}

/// Stores how many entries and groups the pass could not process so far.
async fn store_skipped(conn: &mut Conn, user: Uuid, skipped: i64) -> Outcome<()> {
    const ADD: &str =
        "INSERT INTO hubbub_deletion_skips (user_id, skipped) VALUES (?, 0) {if_absent:user_id}";
    const SET: &str = "UPDATE hubbub_deletion_skips SET skipped = ? WHERE user_id = ?";
    conn.run(ADD, args![user]).await?;
    conn.run(SET, args![skipped, user]).await.map(drop)
}

/// Removes how far the user has read, and that messages mention the user: at most [`ROWS_PER_STEP`] of each.
/// Returns whether there may be more.
async fn forget_positions(conn: &mut Conn, user: Uuid) -> Outcome<bool> {
    const OF_USER: [LimitedDelete; 3] = [
        limited_delete!("hubbub_positions", "user_id, room_no", "user_id = ?"),
        limited_delete!(
            "hubbub_thread_positions",
            "user_id, room_no, root_seq",
            "user_id = ?"
        ),
        limited_delete!("hubbub_mentions", "user_id, room_no, seq", "user_id = ?"),
    ];
    let mut has_more = false;
    for rows in OF_USER {
        let user = args![user_id(user).as_str()];
        has_more |= rows.run(conn, user, ROWS_PER_STEP).await?;
    }
    Ok(has_more)
}
