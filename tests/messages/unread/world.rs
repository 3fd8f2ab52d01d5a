//! Users and rooms on several nodes, and the model of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use hubbub::domain::RoomId;
use hubbub::store::ArchiveStore as _;
use hubbub::store::sql::SqlStore;
use serde_json::{Value, json};

use super::connections::{Connections, Occupant};
use super::model::{ModelKind, ModelRoom, UserIndex};
use super::operations::{Chooser, Operation};
use super::random::Random;
use crate::fixture::User;

/// The users of a world.
pub const USERS: usize = 5;
/// The most rooms of a world. When it has fewer, a room is sometimes replaced by a new one.
const MAX_ROOMS: usize = 24;
/// The most operations that happen at once in one room.
const MAX_AT_ONCE: usize = 12;
/// How often a request is sent at most.
const MAX_ATTEMPTS: usize = 10;
/// How long the archive may be behind the acknowledgements.
const ARCHIVE_DELAY: Duration = Duration::from_secs(20);

/// Users and rooms that no other world touches.
pub struct World {
    label: String,
    connections: Connections,
    /// The database of the nodes, for retention.
    store: SqlStore,
    /// Whether an acknowledged message is in the archive.
    is_exact: bool,
    random: Random,
    users: Vec<User>,
    names: Vec<String>,
    rooms: Vec<ModelRoom>,
    /// The rooms in which something happens.
    active: Vec<usize>,
    occupants: BTreeMap<(usize, UserIndex), Occupant>,
    /// Operations so far.
    pub operations: u64,
    /// Messages that were sent without their mentions, because the database was slow.
    pub without_mentions: u64,
}

/// The users of a world, and the rooms that it begins with.
pub struct NewWorld {
    pub label: String,
    pub seed: u64,
    pub connections: Connections,
    pub store: SqlStore,
    pub is_exact: bool,
    pub users: Vec<User>,
    pub names: Vec<String>,
}

impl World {
    pub async fn new(new: NewWorld) -> Self {
        let mut world = Self {
            label: new.label,
            connections: new.connections,
            store: new.store,
            is_exact: new.is_exact,
            random: Random::new(new.seed),
            users: new.users,
            names: new.names,
            rooms: Vec::new(),
            active: Vec::new(),
            occupants: BTreeMap::new(),
            operations: 0,
            without_mentions: 0,
        };
        use ModelKind::{All, Joined, Open};
        for kind in [Open, Open, All, Joined] {
            let index = world.add_room(kind).await;
            world.active.push(index);
        }
        world
    }

    fn node(&mut self) -> usize {
        self.random.below(self.connections.nodes())
    }

    /// A request of a user to some node, which must be answered with this status.
    async fn request(
        &mut self,
        user: UserIndex,
        (method, path): (&str, &str),
        body: Value,
        status: u16,
    ) -> Value {
        let node = self.node();
        let (connections, token) = (&self.connections, &self.users[user].token);
        let request = connections.request(node, token, (method, path), &body);
        let (found, answer) = request.await;
        let label = &self.label;
        assert_eq!(found, status, "{label}: {method} {path} {body}: {answer}");
        answer
    }

    /// A new room with the first two users.
    async fn add_room(&mut self, kind: ModelKind) -> usize {
        let index = self.rooms.len();
        let history = match kind {
            ModelKind::Open => {
                let name = format!("{}-{index}", self.label);
                self.rooms.push(ModelRoom::new(name, kind));
                self.enter(index, 0).await;
                self.enter(index, 1).await;
                return index;
            }
            ModelKind::All => "all",
            ModelKind::Joined => "joined",
        };
        let body = json!({"user_ids": [self.users[1].id], "history": history});
        let chat = self.request(0, ("POST", "/api/v1/chats"), body, 201).await;
        let name = chat["room_id"].as_str().unwrap().to_owned();
        self.rooms.push(ModelRoom::new(name, kind));
        for user in [0, 1] {
            // The creation hides nothing.
            let room = &mut self.rooms[index];
            room.enters(user, 0, false);
        }
        index
    }

    /// One step: concurrent operations in all rooms, or a change of one room's users; then some users'
    /// unread messages are compared with those of the model.
    pub async fn step(&mut self) {
        if self.random.one_in(8) {
            if !self.is_exact {
                self.check(0..USERS).await;
            }
            self.change_room().await;
            self.operations += 1;
        } else {
            self.batch().await;
        }
        if self.random.one_in(8) {
            self.check(0..USERS).await;
        } else {
            let users = [self.random.below(USERS), self.random.below(USERS)];
            self.check(users).await;
        }
    }

    async fn batch(&mut self) {
        let mut operations = Vec::new();
        for index in &self.active {
            let room = (*index, &self.rooms[*index]);
            let at_once = 1 + self.random.below(MAX_AT_ONCE);
            let mut chooser = Chooser::new(&mut self.random, room, &self.names);
            for _ in 0..at_once {
                operations.extend(chooser.next());
            }
        }
        let nodes: Vec<usize> = operations.iter().map(|_| self.node()).collect();
        let requests = operations.iter().zip(nodes);
        let requests = requests.map(|(operation, node)| self.perform(operation, node));
        let answers = futures_util::future::join_all(requests).await;
        for (operation, answer) in operations.iter().zip(&answers) {
            let mentioned = self.mentioned(operation, answer);
            operation.apply(&mut self.rooms[operation.room], answer, mentioned);
            self.operations += 1;
        }
        self.rooms.iter_mut().for_each(ModelRoom::settle);
    }

    /// Sends a request, and repeats it as a client does: a node under much load answers that it is
    /// unavailable. Each request may be made twice with the same result.
    async fn perform(&self, operation: &Operation, node: usize) -> Value {
        let room = &self.rooms[operation.room];
        let (method, path, body, status) = operation.request(room);
        let token = &self.users[operation.user].token;
        let request = || {
            self.connections
                .request(node, token, (method, &path), &body)
        };
        let mut attempts = 1;
        let (mut found, mut answer) = request().await;
        while found == 503 && attempts < MAX_ATTEMPTS {
            tokio::time::sleep(Duration::from_millis(100)).await;
            (found, answer) = request().await;
            attempts += 1;
        }
        let label = &self.label;
        assert_eq!(found, status, "{label}: {operation:?}: {answer}");
        answer
    }

    /// The users that the answer mentions, which are the expected ones. A message may be sent without them
    /// while the database is slow: such messages are counted.
    fn mentioned(&mut self, operation: &Operation, answer: &Value) -> BTreeSet<UserIndex> {
        let Some(expected) = operation.mentions() else {
            return BTreeSet::new();
        };
        let ids = answer.get("mentions").and_then(Value::as_array);
        let index = |id: &Value| {
            let mut users = self.users.iter();
            users.position(|user| user.id == *id).unwrap()
        };
        let found: BTreeSet<UserIndex> = ids.into_iter().flatten().map(index).collect();
        if found.is_empty() && !expected.is_empty() && operation.may_lack_mentions() {
            self.without_mentions += 1;
        } else {
            let label = &self.label;
            assert_eq!(&found, expected, "{label}: {operation:?}: {answer}");
        }
        found
    }

    /// A change of a room that nothing else may happen beside.
    async fn change_room(&mut self) {
        let slot = self.random.below(self.active.len());
        let index = self.active[slot];
        let user = 1 + self.random.below(USERS - 1);
        let is_present = self.rooms[index].present.contains(&user);
        match (self.random.below(20), self.rooms[index].is_chat()) {
            (0, _) if self.rooms.len() < MAX_ROOMS => {
                let kind = self.rooms[index].kind;
                self.active[slot] = self.add_room(kind).await;
            }
            (0..=3, _) => self.cut(index).await,
            (_, false) if is_present => {
                let occupant = self.occupants.remove(&(index, user)).unwrap();
                occupant.leave().await;
                self.rooms[index].leaves(user);
            }
            (_, false) => self.enter(index, user).await,
            (_, true) if is_present => self.remove(index, user).await,
            (_, true) => self.add(index, user).await,
        }
    }

    async fn enter(&mut self, index: usize, user: UserIndex) {
        let node = self.node();
        let (token, room) = (&self.users[user].token, &self.rooms[index].name);
        let occupant = self.connections.enter(node, token, room).await;
        self.occupants.insert((index, user), occupant);
        self.adopt(index, user).await;
    }

    async fn add(&mut self, index: usize, user: UserIndex) {
        let path = format!("/api/v1/chats/{}/members", self.rooms[index].chat_id());
        let body = json!({"user_id": self.users[user].id});
        self.request(0, ("POST", &path), body, 201).await;
        self.adopt(index, user).await;
    }

    async fn remove(&mut self, index: usize, user: UserIndex) {
        let chat = self.rooms[index].chat_id();
        let path = format!("/api/v1/chats/{chat}/members/{}", self.users[user].id);
        let by = if self.random.one_in(2) { 0 } else { user };
        self.request(by, ("DELETE", &path), Value::Null, 200).await;
        self.rooms[index].leaves(user);
    }

    /// Takes the position that the user has got. The one of an open room is written behind the join.
    async fn adopt(&mut self, index: usize, user: UserIndex) {
        let deadline = Instant::now() + ARCHIVE_DELAY;
        loop {
            let found = self.unread(user).await;
            if let Some(item) = found.get(&self.rooms[index].name) {
                let seq = item["last_read_seq"].as_u64().unwrap();
                self.rooms[index].enters(user, seq, self.is_exact);
                return;
            }
            assert!(Instant::now() < deadline, "{}: no position", self.label);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Retention deletes old messages, and seldom all of them. It never deletes what a node archives at
    /// the moment: an entry whose commit finds it deleted counts as another one than that of the archive.
    async fn cut(&mut self, index: usize) {
        let kept = [0, 50, 600, 3000][self.random.below(4)];
        let room = &mut self.rooms[index];
        let until = room.settled.saturating_sub(kept);
        let name = RoomId::trusted(&room.name);
        let cut = self.store.delete_up_to(&name, until, usize::MAX);
        cut.await.unwrap();
        room.messages.retain(|seq, _| *seq > until);
    }

    /// What a user's unread messages are, by room, at some node.
    async fn unread(&mut self, user: UserIndex) -> BTreeMap<String, Value> {
        let path = ("GET", "/api/v1/me/unread");
        let mut answer = self.request(user, path, Value::Null, 200).await;
        let Value::Array(items) = answer["items"].take() else {
            panic!("{answer}");
        };
        let name = |item: &Value| item["room_id"].as_str().unwrap().to_owned();
        items.into_iter().map(|item| (name(&item), item)).collect()
    }

    pub async fn check(&mut self, users: impl IntoIterator<Item = UserIndex>) {
        for user in users {
            let rooms = self.rooms.iter();
            let expected = rooms.filter_map(|room| Some((room.name.clone(), room.unread(user)?)));
            let expected: BTreeMap<String, Value> = expected.collect();
            let deadline = Instant::now() + ARCHIVE_DELAY;
            loop {
                let found = self.unread(user).await;
                if found == expected {
                    break;
                }
                let label = &self.label;
                let is_late = self.is_exact || Instant::now() > deadline;
                assert!(!is_late, "{label}: user {user}: {found:#?} {expected:#?}");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            if self.random.one_in(10) && self.is_exact {
                self.check_chats(user).await;
            }
        }
    }

    /// The list of chats has the same numbers.
    async fn check_chats(&mut self, user: UserIndex) {
        let path = ("GET", "/api/v1/chats?limit=200");
        let answer = self.request(user, path, Value::Null, 200).await;
        for chat in answer["items"].as_array().unwrap() {
            let mut rooms = self.rooms.iter();
            let room = rooms.find(|room| chat["room_id"] == room.name.as_str());
            let expected = room.and_then(|room| room.unread(user)).unwrap();
            for field in ["unread", "mentions", "last_read_seq", "capped"] {
                let (found, expected) = (chat["my"].get(field), expected.get(field));
                assert_eq!(found, expected, "{}: {field} of {chat}", self.label);
            }
        }
    }

    /// Ends the connections of occupants.
    pub async fn stop(self) {
        for occupant in self.occupants.into_values() {
            occupant.leave().await;
        }
    }
}
