//! A deleted account leaves its groups.

use uuid::Uuid;

use super::change::LockedChat;
use super::members::{self, StoredMember};
use super::{announcements, stored_kind};
use crate::domain::{Announcement, ChatKind, ChatRole};
use crate::store::sql::conn::Conn;
use crate::store::sql::db::Db;
use crate::store::sql::fault::Outcome;
use crate::store::sql::value::args;
use crate::store::{Announce, Result, StoreError};

/// The groups that one call leaves.
const GROUPS_PER_CALL: i64 = 100;

/// Ends memberships of an account that is being deleted, each in a transaction of its own, so that one
/// lock is held at a time: in groups after that one, in the order of their ids. Returns the last group;
/// `None` if there are no more.
pub(in crate::store::sql) async fn leave_groups(
    db: &Db,
    user: Uuid,
    after: Uuid,
    announce: &Announce,
) -> Result<Option<Uuid>> {
    const GROUPS: &str = "SELECT m.chat_id FROM hubbub_chat_members m \
        JOIN hubbub_chats c ON c.id = m.chat_id \
        JOIN hubbub_account_deletions d ON d.user_id = m.user_id \
        WHERE m.user_id = ? AND m.chat_id > ? AND c.kind = ? AND d.finished_at IS NULL \
        ORDER BY m.chat_id LIMIT ?";
    let values = args![user, after, stored_kind(ChatKind::Group), GROUPS_PER_CALL];
    let groups: Vec<(Uuid,)> = db.all(GROUPS, values).await?;
    for (chat,) in &groups {
        let (chat, announce) = (*chat, announce.clone());
        let left = db.transaction(move |conn| {
            let announce = announce.clone();
            Box::pin(async move { leave(conn, chat, user, &announce).await })
        });
        match left.await {
            Ok(()) => {}
            // It must not keep the user in the groups that follow.
            Err(StoreError::Broken(error)) => {
                tracing::error!(%chat, %user, error, "a deleted account can't leave a group");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(groups.last().map(|(chat,)| *chat))
}

/// The groups that a user is a member of.
pub(in crate::store::sql) async fn count_groups(conn: &mut Conn, user: Uuid) -> Outcome<i64> {
    const COUNT: &str = "SELECT COUNT(*) FROM hubbub_chat_members m \
        JOIN hubbub_chats c ON c.id = m.chat_id WHERE m.user_id = ? AND c.kind = ?";
    let values = args![user, stored_kind(ChatKind::Group)];
    let count: Option<(i64,)> = conn.first(COUNT, values).await?;
    Ok(count.map_or(0, |(count,)| count))
}

async fn leave(conn: &mut Conn, chat: Uuid, user: Uuid, announce: &Announce) -> Outcome<()> {
    const DELETE: &str = "DELETE FROM hubbub_chats WHERE id = ?";
    let Some(mut locked) = LockedChat::find(conn, chat).await? else {
        return Ok(());
    };
    let position = locked.members.iter().position(|member| member.id == user);
    let Some(position) = position else {
        return Ok(());
    };
    members::remove(conn, chat, user).await?;
    let gone = locked.members.remove(position);
    locked.chat.members = locked.chat.members.saturating_sub(1);
    // The feed of a deleted account has no readers.
    let mut rows = announcements::removed(&locked.chat, std::slice::from_ref(&gone));
    rows.retain(|announcement| announcement.room == locked.chat.room());
    if locked.members.is_empty() {
        conn.run(DELETE, args![chat]).await?;
    } else if gone.role == ChatRole::Owner {
        rows.extend(hand_over(conn, &locked).await?);
    }
    announcements::add(conn, rows, announce).await
}

/// Makes a member the owner, if none is left.
async fn hand_over(conn: &mut Conn, locked: &LockedChat) -> Outcome<Vec<Announcement>> {
    // A disabled owner keeps the role, and counts only where no other member can use its account.
    let rank = |member: &&StoredMember| {
        let is_owner = member.role == ChatRole::Owner;
        (!member.is_usable, !is_owner, member.joined_at, member.id)
    };
    match locked.members.iter().min_by_key(rank) {
        Some(heir) if heir.role != ChatRole::Owner => {
            members::set_role(conn, locked.chat.id, heir.id, ChatRole::Owner).await?;
            let heir = (&heir.user, ChatRole::Owner);
            Ok(announcements::updated(&locked.chat, [heir]))
        }
        _ => Ok(Vec::new()),
    }
}
