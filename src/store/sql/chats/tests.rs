//! The number of statements of a list.

use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::super::conn::STATEMENTS;
use super::*;
use crate::domain::{
    AccountName, Announcement, DisplayName, EmailAddress, Epoch, RoomId, Timestamp,
};
use crate::store::sql::{DatabaseUrl, Settings};
use crate::store::{
    AccountStore as _, ArchiveStore as _, ArchivedEntry, NewAccount, NewRow, Once,
    PositionStore as _, StoredKind,
};

async fn user(store: &SqlStore, name: &str) -> Uuid {
    let id = Uuid::now_v7();
    let account = NewAccount {
        id,
        username: AccountName::parse(name).unwrap(),
        email: EmailAddress::parse(&format!("{name}@example.com")).unwrap(),
        display_name: DisplayName::parse("display_name", name).unwrap(),
        password: String::new(),
        role: None,
        rows: Vec::new(),
    };
    let once = Once::without_key();
    store.create(account, None, once).await.unwrap();
    id
}

fn announce() -> Announce {
    Arc::new(|announcement: &Announcement| NewRow {
        room: Some(announcement.room.clone()),
        kind: announcement.change.event().to_owned(),
        payload: "{}".to_owned(),
    })
}

/// Each database runs the same steps, and a test has a thread of its own.
#[tokio::test]
async fn a_list_takes_three_statements_whatever_its_length() {
    let url = DatabaseUrl::parse("sqlite::memory:").unwrap();
    let store = SqlStore::open(&Settings::new(url)).await.unwrap();
    let ann = user(&store, "ann").await;
    for number in 0..150 {
        let other = user(&store, &format!("u{number}")).await;
        let opened = store.open_direct(Uuid::now_v7(), ann, other, announce());
        let (chat, _) = opened.await.unwrap().unwrap();
        let message = ArchivedEntry {
            seq: 1,
            epoch: Epoch::trusted("e"),
            at: Timestamp(1),
            kind: StoredKind::MESSAGE,
            id: Uuid::now_v7(),
            user: user_id(other),
            send_key: None,
            record: Bytes::from_static(b"{\"content\":\"hi\"}"),
        };
        let entries = [(RoomId::chat(chat), message)];
        let mut writer = store.writer(0);
        writer.commit(&entries).await.unwrap();
    }
    for limit in [1, 10, 150] {
        let before = STATEMENTS.get();
        let chats = store.chats(ann, None, limit).await.unwrap();
        let rooms: Vec<RoomId> = chats.iter().map(|chat| chat.chat.room()).collect();
        let unread = store.unread_in(&user_id(ann), &rooms).await.unwrap();
        assert_eq!(STATEMENTS.get() - before, 3, "{limit} chats");
        assert!(unread.iter().all(|room| room.unread.count == 1));
        assert_eq!(chats.len(), limit);
        for chat in chats {
            assert!(chat.peer.is_some() && chat.last_message.is_some());
        }
    }
}
