//! Random operations on a store and on the model of it.

use hubbub::domain::{AccountName, DisplayName, EmailAddress, RoomId};
use hubbub::domain::{ChatHistory, ChatRole, UserId};
use hubbub::store::sql::SqlStore;
use hubbub::store::{
    AccountStore as _, ArchiveStore as _, ArchivedEntry, ChangeOutcome, Changer, ChatChange,
    ChatStore as _, Fence, MessageRef, MessageStore as _, NewAccount, NewGroup, NewPosition, Once,
    PositionStore, StoredKind,
};
use serde_json::json;
use uuid::Uuid;

use super::model::{ModelEntry, ModelKind, ModelRoom};
use crate::chats::announce;
use crate::fixture::{Stored, entry, in_room, room};

/// A generator of numbers that a seed determines.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    fn pick<'t, T>(&mut self, of: &'t [T]) -> &'t T {
        let length = of.len() as u64;
        &of[usize::try_from(self.below(length)).unwrap()]
    }
}

/// A store and its model.
pub struct World {
    store: SqlStore,
    random: Random,
    rooms: Vec<ModelRoom>,
    /// Users with accounts; the last one has none.
    users: Vec<String>,
}

async fn account(store: &SqlStore, name: &str) -> Uuid {
    let account = NewAccount {
        id: Uuid::now_v7(),
        username: AccountName::parse(name).unwrap(),
        email: EmailAddress::parse(&format!("{name}@example.com")).unwrap(),
        display_name: DisplayName::parse("display_name", name).unwrap(),
        password: String::new(),
        role: None,
        rows: Vec::new(),
    };
    let id = account.id;
    let once = Once::without_key();
    store.create(account, None, once).await.unwrap();
    id
}

impl World {
    pub async fn new(store: SqlStore, seed: u64) -> Self {
        let mut users = Vec::new();
        for name in ["ann", "bob", "cyd", "dee"] {
            users.push(account(&store, name).await);
        }
        let mut rooms = vec![
            ModelRoom::new("lobby", ModelKind::Open),
            ModelRoom::new("chat-like", ModelKind::Open),
        ];
        for (history, kind) in [
            (ChatHistory::All, ModelKind::All),
            (ChatHistory::Joined, ModelKind::Joined),
        ] {
            let group = NewGroup {
                id: Uuid::now_v7(),
                name: None,
                history,
                owner: users[0],
                members: vec![users[1]],
            };
            let mut room = ModelRoom::new(RoomId::chat(group.id).as_str(), kind);
            let created = store.create_group(group, announce()).await.unwrap();
            created.unwrap();
            for member in &users[..2] {
                room.members.insert(member.to_string(), 0);
            }
            rooms.push(room);
        }
        let mut users: Vec<String> = users.iter().map(Uuid::to_string).collect();
        users.push("zoë".to_owned());
        Self {
            store,
            random: Random::new(seed),
            rooms,
            users,
        }
    }

    /// One random operation, and the check of what it may have changed.
    pub async fn step(&mut self) {
        let index = usize::try_from(self.random.below(self.rooms.len() as u64)).unwrap();
        let user = self.random.pick(&self.users).clone();
        match self.random.below(100) {
            0..=34 => self.send(index).await,
            35..=42 => self.delete(index).await,
            43..=62 => self.move_position(index, &user).await,
            63..=68 => self.join(index, &user).await,
            69..=70 => self.leave(index, &user).await,
            71 => self.cut(index).await,
            72..=77 => self.commit_withheld(index).await,
            _ => self.project(index).await,
        }
        self.check(index, &user).await;
        if self.random.below(50) == 0 {
            self.check_all(&user).await;
            self.check_threads(index, &user).await;
        }
    }

    /// Sends a burst. Some rooms have one busy author, and bursts of changes and replies.
    async fn send(&mut self, index: usize) {
        let length = 1 + self.random.below(30);
        let authors = 1 + self.random.below(self.users.len() as u64);
        let style = self.random.below(8);
        let mut entries = Vec::new();
        for _ in 0..length {
            let room = &mut self.rooms[index];
            room.last += 1;
            let seq = room.last;
            if self.random.below(40) == 0 {
                self.rooms[index].withheld.insert(seq);
                continue;
            }
            entries.push(self.new_entry(index, seq, authors, style));
        }
        // Each is fresh or late, by turns: both have entries of the same room.
        self.commit(index, entries, Fence::None).await;
    }

    fn new_entry(&mut self, index: usize, seq: u64, authors: u64, style: u64) -> ArchivedEntry {
        let random = &mut self.random;
        let author = self.users[usize::try_from(random.below(authors)).unwrap()].clone();
        let is_change = random.below(if style == 0 { 2 } else { 20 }) == 0;
        let is_reply = random.below(if style == 1 { 2 } else { 20 }) == 0;
        let mut record = json!({"content": "hi"});
        let mut mentions = Vec::new();
        if random.below(15) == 0 {
            let mentioned = match random.below(3) {
                0 => "@channel".to_owned(),
                _ => random.pick(&self.users).clone(),
            };
            mentions.push(mentioned);
            record["mentions"] = json!(mentions);
        }
        let room = &mut self.rooms[index];
        // A reply has a higher number than its root.
        let mut roots = room.entries.range(..seq).rev();
        let root = roots.find(|(_, entry)| entry.is_live && entry.root.is_none());
        let root = root
            .map(|(seq, entry)| (*seq, entry.id))
            .filter(|_| is_reply);
        if let Some((_, id)) = root {
            record["thread_id"] = json!(id);
        }
        let archived = ArchivedEntry {
            user: UserId::trusted(&author),
            record: record.to_string().into_bytes().into(),
            ..entry(seq)
        };
        let (archived, author) = if is_change {
            let change = ArchivedEntry {
                kind: StoredKind::CHANGE,
                user: UserId::nobody(),
                record: "{}".into(),
                ..archived
            };
            (change, String::new())
        } else {
            (archived, author)
        };
        let known = ModelEntry {
            id: archived.id,
            author,
            is_live: !is_change,
            root: root.map(|(seq, _)| seq),
            mentions,
        };
        room.entries.insert(seq, known);
        archived
    }

    async fn commit(&self, index: usize, entries: Vec<ArchivedEntry>, fence: Fence) {
        if entries.is_empty() {
            return;
        }
        let rows = in_room(&self.rooms[index].name, &entries);
        let mut writer = self.store.writer(0);
        let outcomes = writer.commit_with(&rows, fence).await.unwrap();
        assert!(outcomes.iter().all(|outcome| *outcome == Stored));
    }

    /// Commits a late entry, as the sweeper does.
    async fn commit_withheld(&mut self, index: usize) {
        let Some(seq) = self.rooms[index].withheld.pop_first() else {
            return;
        };
        let style = self.random.below(8);
        let entry = self.new_entry(index, seq, 5, style);
        if seq <= self.rooms[index].cut {
            self.rooms[index].entries.remove(&seq);
        }
        self.commit(index, vec![entry], Fence::EpochEnds).await;
    }

    /// A number, most often one of the last.
    fn number(&mut self, index: usize) -> u64 {
        let last = self.rooms[index].last;
        let back = match self.random.below(4) {
            0 => 4000,
            1 => 1500,
            _ => 30,
        };
        last.saturating_sub(self.random.below(back))
    }

    async fn delete(&mut self, index: usize) {
        let from = self.number(index);
        let room = &mut self.rooms[index];
        let found = room
            .entries
            .range_mut(from..)
            .find(|(_, entry)| entry.is_live);
        let Some((_, entry)) = found else { return };
        entry.is_live = false;
        let message = MessageRef {
            room: crate::fixture::room(&room.name),
            id: entry.id,
        };
        let by = Changer {
            user: UserId::trusted(&entry.author),
            is_moderator: false,
            hidden_seq: 0,
        };
        let deleted = self.store.delete(&message, &by).await.unwrap();
        assert!(matches!(deleted, ChangeOutcome::Changed(_)), "{deleted:?}");
    }

    async fn move_position(&mut self, index: usize, user: &str) {
        let room = &self.rooms[index];
        if room.kind != ModelKind::Open && !room.members.contains_key(user) {
            return;
        }
        let seq = self.number(index);
        let only_up = self.random.below(3) > 0;
        let room = &mut self.rooms[index];
        let position = NewPosition {
            user: UserId::trusted(user),
            room: crate::fixture::room(&room.name),
            seq,
            hidden_seq: room.hidden(user),
            has_feed: Uuid::try_parse(user).is_ok(),
        };
        let expected = room.move_to(user, seq, only_up);
        let moved = if only_up {
            PositionStore::read(&self.store, &position).await.unwrap()
        } else {
            self.store.set(&position).await.unwrap()
        };
        assert_eq!(moved, expected, "{user} to {seq} in {}", room.name);
    }

    async fn join(&mut self, index: usize, user: &str) {
        let room = &mut self.rooms[index];
        let head = room.head();
        if room.kind == ModelKind::Open {
            let joined = (
                UserId::trusted(user),
                crate::fixture::room(&room.name),
                head,
            );
            self.store.joined(&[joined]).await.unwrap();
            room.positions.entry(user.to_owned()).or_insert(head);
        } else if let Ok(id) = Uuid::try_parse(user)
            && !room.members.contains_key(user)
        {
            room.members.insert(user.to_owned(), head);
            let change = ChatChange::Add {
                users: vec![id],
                role: ChatRole::Member,
                head: Some(head),
            };
            self.change(index, change).await;
        }
    }

    async fn leave(&mut self, index: usize, user: &str) {
        let is_owner = user == self.users[0];
        if !is_owner && self.rooms[index].members.remove(user).is_some() {
            let id = Uuid::try_parse(user).unwrap();
            self.change(index, ChatChange::Remove(id)).await;
        }
    }

    async fn change(&self, index: usize, change: ChatChange) {
        let chat = room(&self.rooms[index].name).chat_id().unwrap();
        let owner = Uuid::try_parse(&self.users[0]).unwrap();
        let changed = self.store.change_chat(chat, owner, change, announce());
        changed.await.unwrap().unwrap();
    }

    /// Retention deletes old entries, and seldom all of them.
    async fn cut(&mut self, index: usize) {
        let room = &mut self.rooms[index];
        let kept = [0, 10, 600, 3000][usize::try_from(self.random.below(4)).unwrap()];
        let until = room.last.saturating_sub(kept);
        let last = room.entries.range(..=until).next_back();
        let Some((last, _)) = last.map(|(seq, entry)| (*seq, entry)) else {
            return;
        };
        room.entries.retain(|seq, _| *seq > last);
        room.cut = room.cut.max(last);
        let name = crate::fixture::room(&room.name);
        let deleted = self.store.delete_up_to(&name, until, usize::MAX);
        deleted.await.unwrap();
    }

    async fn project(&mut self, index: usize) {
        let room = crate::fixture::room(&self.rooms[index].name);
        if self.random.below(30) == 0 {
            let mut after = Some(0);
            while let Some(number) = after {
                after = self.store.project_unread_after(number).await.unwrap();
            }
            return;
        }
        self.store.project_unread(&[room]).await.unwrap();
    }

    async fn check(&self, index: usize, user: &str) {
        let room = &self.rooms[index];
        let names = [crate::fixture::room(&room.name)];
        let id = UserId::trusted(user);
        let found = self.store.unread_in(&id, &names).await.unwrap();
        let expected: Vec<_> = room.unread(user).into_iter().collect();
        assert_eq!(found, expected, "{user} in {}", room.name);
    }

    async fn check_threads(&self, index: usize, user: &str) {
        let checked = &self.rooms[index];
        let name = room(&checked.name);
        let states = self.store.states(&name, 1..=checked.last, true);
        let states = states.await.unwrap().into_iter();
        let found: Vec<_> = states
            .filter_map(|(seq, state)| Some((seq, state.thread?)))
            .collect();
        assert_eq!(
            found,
            checked.thread_states(),
            "threads of {}",
            checked.name
        );
        let id = UserId::trusted(user);
        let mut found = Vec::new();
        let mut before = None;
        loop {
            let page = self.store.threads(&id, before, 7).await.unwrap();
            let Some(last) = page.last() else { break };
            before = Some(last.cursor());
            found.extend(page.into_iter().map(|thread| {
                let room = thread.room.as_str().to_owned();
                (room, thread.root_seq, thread.last_seq, thread.unread.count)
            }));
        }
        found.sort();
        let mut expected = Vec::new();
        for room in &self.rooms {
            let threads = room.user_threads(user).into_iter();
            expected.extend(
                threads.map(|(root, last, unread)| (room.name.clone(), root, last, unread)),
            );
        }
        expected.sort();
        assert_eq!(found, expected, "threads of {user}");
    }

    pub async fn check_all(&self, user: &str) {
        let id = UserId::trusted(user);
        let mut found = self.store.unread(&id).await.unwrap();
        found.sort_by(|one, other| one.room.cmp(&other.room));
        let mut expected: Vec<_> = self
            .rooms
            .iter()
            .filter_map(|room| room.unread(user))
            .collect();
        expected.sort_by(|one, other| one.room.cmp(&other.room));
        assert_eq!(found, expected, "{user}");
    }
}
