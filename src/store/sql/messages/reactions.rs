//! The reactions to messages: as they are now, and as JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{loaded, target};
use crate::domain::{Emoji, Reaction, UserId};
use crate::store::sql::conn::Conn;
use crate::store::sql::db::Db;
use crate::store::sql::fault::{Fault, Outcome};
use crate::store::sql::value::{Text, args};
use crate::store::{MessageRef, Result};

pub(super) async fn reactions(db: &Db, message: &MessageRef) -> Result<Option<Vec<Reaction>>> {
    let message = message.clone();
    db.read(move |conn| {
        let message = message.clone();
        Box::pin(async move {
            let Some(target) = target::find(conn, &message).await? else {
                return Ok(None);
            };
            let mut current = current(conn, target.room_no, &[target.seq]).await?;
            Ok(Some(current.remove(&target.seq).unwrap_or_default()))
        })
    })
    .await
}

/// The reactions to these messages, the emoji in the order of their first reactions.
pub(super) async fn current(
    conn: &mut Conn,
    room_no: i64,
    seqs: &[i64],
) -> Outcome<BTreeMap<i64, Vec<Reaction>>> {
    const FIRST_USERS: &str = "SELECT t.seq, t.emoji, t.user_id, t.at, \
        CAST(t.place AS {bigint}), CAST(t.total AS {bigint}) FROM \
        (SELECT seq, emoji, user_id, at, \
         ROW_NUMBER() OVER (PARTITION BY seq, emoji ORDER BY at, user_id) AS place, \
         COUNT(*) OVER (PARTITION BY seq, emoji) AS total \
         FROM hubbub_reactions WHERE room_no = ? AND seq IN ({list})) t WHERE t.place <= 20";
    type Row = (i64, Text, Text, i64, i64, i64);
    let seqs = seqs.iter().copied();
    let mut rows: Vec<Row> = conn.all_of_list(FIRST_USERS, args![room_no], seqs).await?;
    rows.sort_by(|a, b| (a.0, &a.1.0, a.4).cmp(&(b.0, &b.1.0, b.4)));
    let mut firsts: BTreeMap<i64, Vec<(i64, Reaction)>> = BTreeMap::new();
    for (seq, emoji, user, at, _, total) in rows {
        let reactions = firsts.entry(seq).or_default();
        let user = UserId::trusted(&user.0);
        match reactions.last_mut() {
            Some((_, last)) if last.emoji.as_str() == emoji.0 => last.users.push(user),
            _ => {
                let reaction = Reaction {
                    emoji: Emoji::trusted(&emoji.0),
                    count: loaded(total),
                    users: vec![user],
                };
                reactions.push((at, reaction));
            }
        }
    }
    let in_order = |mut reactions: Vec<(i64, Reaction)>| {
        reactions.sort_by_key(|(at, _)| *at);
        reactions
            .into_iter()
            .map(|(_, reaction)| reaction)
            .collect()
    };
    let in_order = firsts
        .into_iter()
        .map(|(seq, reactions)| (seq, in_order(reactions)));
    Ok(in_order.collect())
}

/// A reaction as it is stored. Its fields are those of the event `reactions_changed`.
#[derive(Serialize, Deserialize)]
struct Stored {
    emoji: String,
    count: u64,
    user_ids: Vec<String>,
}

pub(super) fn encode(reactions: &[Reaction]) -> String {
    let stored: Vec<Stored> = reactions
        .iter()
        .map(|reaction| Stored {
            emoji: reaction.emoji.as_str().to_owned(),
            count: reaction.count,
            user_ids: reaction
                .users
                .iter()
                .map(|user| user.as_str().to_owned())
                .collect(),
        })
        .collect();
    serde_json::to_string(&stored).expect("texts and numbers always serialise")
}

pub(super) fn decode(text: &str) -> Outcome<Vec<Reaction>> {
    let stored: Vec<Stored> = serde_json::from_str(text)
        .map_err(|error| Fault::Broken(format!("stored reactions: {error}")))?;
    let loaded = |stored: Stored| Reaction {
        emoji: Emoji::trusted(&stored.emoji),
        count: stored.count,
        users: stored
            .user_ids
            .iter()
            .map(|user| UserId::trusted(user))
            .collect(),
    };
    Ok(stored.into_iter().map(loaded).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reactions_are_read_as_they_were_stored() {
        let reactions = vec![Reaction {
            emoji: Emoji::trusted("\u{1f44d}"),
            count: 30,
            users: vec![UserId::trusted("a\"nn"), UserId::trusted("bob")],
        }];
        assert_eq!(decode(&encode(&reactions)).unwrap(), reactions);
        assert!(decode("{}").is_err());
    }
}
