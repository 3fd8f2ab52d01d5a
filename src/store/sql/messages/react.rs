//! Sets and removes reactions.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::loaded;
use super::target::{self, TargetKey};
use crate::domain::{Emoji, MessageChangeKind, Reaction};
use crate::store::sql::accounts::now;
use crate::store::sql::conn::Conn;
use crate::store::sql::db::Db;
use crate::store::sql::dialect::MAX_LIST;
use crate::store::sql::fault::Outcome;
use crate::store::sql::outbox;
use crate::store::sql::value::{Arg, Text, args};
use crate::store::{
    Announced, ChangeOutcome, ChangeRow, OutboxId, REACTIONS_INTERVAL_MS, ReactionChange, Result,
};

pub(super) async fn react(db: &Db, changes: &[ReactionChange]) -> Result<Vec<ChangeOutcome>> {
    if changes.is_empty() {
        return Ok(Vec::new());
    }
    let changes = changes.to_vec();
    db.transaction(move |conn| {
        let changes = changes.clone();
        Box::pin(async move { react_in(conn, &changes).await })
    })
    .await
}

/// The reactions of users to a message with one emoji that change.
#[derive(Default)]
struct Users<'a> {
    /// Whether each user reacts with it, after the changes so far.
    react: BTreeMap<&'a str, bool>,
    before: BTreeSet<String>,
}

async fn react_in(conn: &mut Conn, changes: &[ReactionChange]) -> Outcome<Vec<ChangeOutcome>> {
    let ids = changes.iter().map(|change| change.message.id).collect();
    let targets = target::lock_keys(conn, ids).await?;
    let mut outcomes = vec![ChangeOutcome::NotFound; changes.len()];
    let mut changed = Vec::new();
    for target in &targets {
        let of_target: Vec<usize> = (0..changes.len())
            .filter(|index| changes[*index].message.id == target.id)
            .filter(|index| target.is_visible(&changes[*index].message, &changes[*index].by))
            .collect();
        if target.is_deleted() {
            for index in of_target {
                outcomes[index] = ChangeOutcome::Deleted;
            }
            continue;
        }
        let mut by_emoji: BTreeMap<&Emoji, Vec<usize>> = BTreeMap::new();
        for index in of_target {
            by_emoji
                .entry(&changes[index].emoji)
                .or_default()
                .push(index);
        }
        let mut has_changed = false;
        for (emoji, indices) in by_emoji {
            let of_emoji: Vec<&ReactionChange> =
                indices.iter().map(|index| &changes[*index]).collect();
            let can_add = can_add(conn, target, emoji, &of_emoji).await?;
            for index in indices {
                outcomes[index] = if changes[index].on && !can_add {
                    ChangeOutcome::Full
                } else {
                    target.changed(Announced::At(0))
                };
            }
            if can_add {
                has_changed |= apply(conn, target, emoji, &of_emoji).await?;
            }
        }
        if has_changed {
            changed.push(target);
        }
    }
    announce(conn, changed).await?;
    Ok(outcomes)
}

/// Whether the message may have this emoji. Without it, and without space for it, nobody has reacted with
/// it.
async fn can_add(
    conn: &mut Conn,
    target: &TargetKey,
    emoji: &Emoji,
    changes: &[&ReactionChange],
) -> Outcome<bool> {
    const HAS: &str = "SELECT seq FROM hubbub_reactions \
        WHERE room_no = ? AND seq = ? AND emoji = ? LIMIT 1";
    const EMOJIS: &str =
        "SELECT COUNT(DISTINCT emoji) FROM hubbub_reactions WHERE room_no = ? AND seq = ?";
    if !changes.iter().any(|change| change.on) {
        return Ok(true);
    }
    let values = args![target.room_no, target.seq, emoji.as_str()];
    let has: Option<(i64,)> = conn.first(HAS, values).await?;
    if has.is_some() {
        return Ok(true);
    }
    let count: Option<(i64,)> = conn
        .first(EMOJIS, args![target.room_no, target.seq])
        .await?;
    Ok(count.is_none_or(|(count,)| count < Reaction::EMOJIS.cast_signed()))
}

/// Makes the changes with one emoji. Returns whether they have an effect.
async fn apply(
    conn: &mut Conn,
    target: &TargetKey,
    emoji: &Emoji,
    changes: &[&ReactionChange],
) -> Outcome<bool> {
    let mut users = Users::default();
    for change in changes {
        users.react.insert(change.by.user.as_str(), change.on);
    }
    let names: Vec<&str> = users.react.keys().copied().collect();
    users.before = reacting(conn, target, emoji, &names).await?;
    let is_new = |(user, on): &(&&str, &bool)| **on && !users.before.contains(**user);
    let is_gone = |(user, on): &(&&str, &bool)| !**on && users.before.contains(**user);
    let added: Vec<&str> = users.react.iter().filter(is_new).map(|(u, _)| *u).collect();
    let removed: Vec<&str> = users
        .react
        .iter()
        .filter(is_gone)
        .map(|(u, _)| *u)
        .collect();
    insert(conn, target, emoji, &added).await?;
    remove(conn, target, emoji, &removed).await?;
    Ok(!added.is_empty() || !removed.is_empty())
}

/// Those of the users who react with this emoji.
async fn reacting(
    conn: &mut Conn,
    target: &TargetKey,
    emoji: &Emoji,
    users: &[&str],
) -> Outcome<BTreeSet<String>> {
    const FIND: &str = "SELECT user_id FROM hubbub_reactions \
        WHERE room_no = ? AND seq = ? AND emoji = ? AND user_id IN ({list})";
    let values = args![target.room_no, target.seq, emoji.as_str()];
    let users = users.iter().copied();
    let rows: Vec<(Text,)> = conn.all_of_list(FIND, values, users).await?;
    Ok(rows.into_iter().map(|(user,)| user.0).collect())
}

async fn insert(conn: &mut Conn, target: &TargetKey, emoji: &Emoji, users: &[&str]) -> Outcome<()> {
    const ADD: &str = "INSERT INTO hubbub_reactions (room_no, seq, emoji, user_id, at) \
        VALUES {rows:5} {if_absent:room_no}";
    if users.is_empty() {
        return Ok(());
    }
    let now = now(conn).await?;
    for part in users.chunks(MAX_LIST) {
        let (text, users) = conn.dialect().with_list(ADD, part.iter().copied());
        let mut values = Vec::with_capacity(5 * users.len());
        for user in users {
            values.extend(args![target.room_no, target.seq, emoji.as_str(), user, now]);
        }
        conn.run_text(text, values).await?;
    }
    Ok(())
}

async fn remove(conn: &mut Conn, target: &TargetKey, emoji: &Emoji, users: &[&str]) -> Outcome<()> {
    const REMOVE: &str = "DELETE FROM hubbub_reactions \
        WHERE room_no = ? AND seq = ? AND emoji = ? AND user_id IN ({list})";
    for part in users.chunks(MAX_LIST) {
        let list = part.iter().map(|user| Arg::from(*user));
        let (text, list) = conn.dialect().with_list(REMOVE, list);
        let values = [args![target.room_no, target.seq, emoji.as_str()], list].concat();
        conn.run_text(text, values).await?;
    }
    Ok(())
}

/// The last row that announces the reactions to a message, and when the next may be announced.
type ReactionsState = (Option<OutboxId>, i64);

/// Adds the rows that announce the reactions to these messages; not for those with a row that no worker has
/// claimed yet.
///
/// All reactions are written before: the rows that wait are locked as late as possible, in the order of
/// their ids, since claims leave locked rows out.
async fn announce(conn: &mut Conn, mut targets: Vec<&TargetKey>) -> Outcome<()> {
    const SET: &str = "UPDATE hubbub_messages SET reactions_row = ?, reactions_due_at = ? \
        WHERE room_no = ? AND seq = ?";
    if targets.is_empty() {
        return Ok(());
    }
    targets.sort_unstable_by_key(|target| (target.room_no, target.seq));
    let kind = MessageChangeKind::ReactionsChanged;
    let states = reactions_states(conn, &targets).await?;
    let waiting = lock_waiting(conn, &states).await?;
    let now = now(conn).await?;
    for target in targets {
        let announcement = ChangeRow {
            id: target.id,
            target_seq: loaded(target.seq),
            revision: 0,
            user_id: None,
        };
        let row = target::new_row(&target.room, kind, &announcement);
        let (last, due_at) = states.get(&target.id).copied().unwrap_or_default();
        let payload = last.and_then(|last| waiting.get(&last));
        if payload == Some(&row.payload) {
            continue;
        }
        // The clock may have gone back since.
        let due_at = due_at.clamp(now, now + REACTIONS_INTERVAL_MS.cast_signed());
        let id = outbox::add_one(conn, row, due_at).await?;
        target::ensure_state_row(conn, (target.room_no, target.seq)).await?;
        let next = due_at + REACTIONS_INTERVAL_MS.cast_signed();
        conn.run(SET, args![id, next, target.room_no, target.seq])
            .await?;
    }
    Ok(())
}

/// The state of the announcements of locked messages, by id; nothing for those without any.
async fn reactions_states(
    conn: &mut Conn,
    targets: &[&TargetKey],
) -> Outcome<BTreeMap<Uuid, ReactionsState>> {
    const STATES: &str = "SELECT e.id, s.reactions_row, s.reactions_due_at FROM hubbub_entries e \
        JOIN hubbub_messages s ON s.room_no = e.room_no AND s.seq = e.seq WHERE e.id IN ({list})";
    let ids = targets.iter().map(|target| target.id);
    let rows: Vec<(Uuid, Option<i64>, i64)> = conn.all_of_list(STATES, args![], ids).await?;
    let state = |(id, row, due_at)| (id, (row, due_at));
    Ok(rows.into_iter().map(state).collect())
}

/// Locks those of the rows that no worker has claimed. Returns their payloads.
async fn lock_waiting(
    conn: &mut Conn,
    states: &BTreeMap<Uuid, ReactionsState>,
) -> Outcome<BTreeMap<OutboxId, String>> {
    const LOCK: &str = "SELECT id, payload FROM hubbub_outbox WHERE id IN ({list}) \
        AND attempts = 0 AND state = 0 AND type = ? ORDER BY id {for_update}";
    let mut rows: Vec<OutboxId> = states.values().filter_map(|(row, _)| *row).collect();
    rows.sort_unstable();
    let mut waiting = BTreeMap::new();
    for part in rows.chunks(MAX_LIST) {
        let list = part.iter().map(|row| Arg::from(*row));
        let (text, list) = conn.dialect().with_list(LOCK, list);
        let kind = MessageChangeKind::ReactionsChanged.event();
        let found: Vec<(i64, Text)> = conn.all_of_text(text, [list, args![kind]].concat()).await?;
        waiting.extend(found.into_iter().map(|(id, payload)| (id, payload.0)));
    }
    Ok(waiting)
}
