//! The announcements of a change, each for the room or the feed that it goes to.

use super::members::StoredMember;
use crate::domain::{Announcement, Change, Chat, ChatRole, MemberChange, RoomId, UserId};
use crate::store::Announce;
use crate::store::sql::conn::Conn;
use crate::store::sql::fault::Outcome;
use crate::store::sql::outbox;

/// Adds announcements to the outbox.
pub(super) async fn add(
    conn: &mut Conn,
    announcements: Vec<Announcement>,
    announce: &Announce,
) -> Outcome<()> {
    let rows = announcements
        .iter()
        .map(|announcement| announce(announcement));
    outbox::add(conn, rows.collect()).await
}

/// Of a chat and its first members.
pub(super) fn created(chat: &Chat, members: &[StoredMember]) -> Vec<Announcement> {
    let mut announcements = Vec::new();
    for member in members {
        let change = Change::ChatCreated {
            chat: chat.clone(),
            role: member.role,
        };
        announcements.push(in_feed(&member.user, change));
    }
    announcements.extend(added(chat, members));
    announcements
}

/// Of members that were added.
pub(super) fn added(chat: &Chat, members: &[StoredMember]) -> Vec<Announcement> {
    concerning(chat, members, Change::MemberAdded)
}

/// Of members that were removed.
pub(super) fn removed(chat: &Chat, members: &[StoredMember]) -> Vec<Announcement> {
    concerning(chat, members, Change::MemberRemoved)
}

/// For the chat's room, and for the feed of each member concerned.
fn concerning(
    chat: &Chat,
    members: &[StoredMember],
    change: fn(MemberChange) -> Change,
) -> Vec<Announcement> {
    let mut announcements = Vec::new();
    for member in members {
        let change = change(MemberChange {
            chat: chat.id,
            user: member.user.clone(),
            username: member.username.clone(),
            role: member.role,
        });
        let room = chat.room();
        announcements.push(Announcement {
            room,
            change: change.clone(),
        });
        announcements.push(in_feed(&member.user, change));
    }
    announcements
}

/// For the chat's room, and for the feeds of these members.
pub(super) fn updated<'m>(
    chat: &Chat,
    members: impl IntoIterator<Item = (&'m UserId, ChatRole)>,
) -> Vec<Announcement> {
    let change = |role| Change::ChatUpdated {
        chat: chat.clone(),
        role,
    };
    let mut announcements = vec![Announcement {
        room: chat.room(),
        change: change(None),
    }];
    for (user, role) in members {
        announcements.push(in_feed(user, change(Some(role))));
    }
    announcements
}

fn in_feed(user: &UserId, change: Change) -> Announcement {
    Announcement {
        room: RoomId::personal(user),
        change,
    }
}
