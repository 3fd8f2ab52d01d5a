//! Operations that may happen at the same time, in any order, with the same result: each moves another
//! position, or changes another message.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::model::{ModelMessage, ModelRoom, UserIndex};
use super::random::Random;

/// A number beyond every room's head.
const BEYOND: u64 = 1 << 40;

/// A request of a user in a room.
#[derive(Debug, Clone)]
pub struct Operation {
    pub room: usize,
    pub user: UserIndex,
    pub kind: OperationKind,
}

#[derive(Debug, Clone)]
pub enum OperationKind {
    Send {
        content: String,
        mentions: BTreeSet<UserIndex>,
        root: Option<String>,
    },
    Edit {
        seq: u64,
        id: String,
        content: String,
        mentions: BTreeSet<UserIndex>,
    },
    Delete {
        seq: u64,
        id: String,
    },
    Read(u64),
    MarkUnread(u64),
}

/// An id for a message that is repeated after a refusal.
fn id_of(content: &str) -> String {
    content
        .chars()
        .filter(char::is_ascii_digit)
        .take(64)
        .collect()
}

impl Operation {
    /// The method, the path, the body and the status of the answer.
    pub fn request(&self, room: &ModelRoom) -> (&'static str, String, Value, u16) {
        let path = format!("/api/v1/rooms/{}", room.name);
        match &self.kind {
            OperationKind::Send { content, root, .. } => {
                // The content is unique, too.
                let mut body = json!({"content": content, "client_msg_id": id_of(content)});
                if let Some(root) = root {
                    body["thread_id"] = json!(root);
                }
                ("POST", format!("{path}/messages"), body, 201)
            }
            OperationKind::Edit { id, content, .. } => {
                let body = json!({"content": content});
                ("PATCH", format!("{path}/messages/{id}"), body, 200)
            }
            OperationKind::Delete { id, .. } => {
                let path = format!("{path}/messages/{id}");
                ("DELETE", path, Value::Null, 200)
            }
            OperationKind::Read(seq) => ("PUT", format!("{path}/read"), json!({"seq": seq}), 200),
            OperationKind::MarkUnread(seq) => {
                ("POST", format!("{path}/unread"), json!({"seq": seq}), 200)
            }
        }
    }

    /// The users that the answer must mention; `None` for operations that mention nobody.
    pub fn mentions(&self) -> Option<&BTreeSet<UserIndex>> {
        match &self.kind {
            OperationKind::Send { mentions, .. } | OperationKind::Edit { mentions, .. } => {
                Some(mentions)
            }
            _ => None,
        }
    }

    /// Whether the answer may lack mentions: a message waits only shortly for the database. An edit waits.
    pub fn may_lack_mentions(&self) -> bool {
        matches!(self.kind, OperationKind::Send { .. })
    }

    /// Applies the operation to the model. `mentions`: those that the answer has.
    pub fn apply(&self, room: &mut ModelRoom, answer: &Value, mentioned: BTreeSet<UserIndex>) {
        let number = |name: &str| answer[name].as_u64().unwrap();
        match &self.kind {
            OperationKind::Send { root, .. } => {
                let message = ModelMessage {
                    id: answer["id"].as_str().unwrap().to_owned(),
                    author: self.user,
                    is_live: true,
                    is_reply: root.is_some(),
                    mentions: mentioned,
                };
                let before = room.messages.insert(number("seq"), message);
                assert!(before.is_none(), "two messages have a number: {answer}");
                room.last = room.last.max(number("seq"));
            }
            OperationKind::Edit { seq, .. } => {
                room.messages.get_mut(seq).unwrap().mentions = mentioned;
                room.last = room.last.max(number("version"));
            }
            OperationKind::Delete { seq, .. } => {
                room.messages.get_mut(seq).unwrap().is_live = false;
                room.last = room.last.max(number("seq"));
            }
            OperationKind::Read(BEYOND) => {
                // The head at some moment of the batch.
                let found = number("last_read_seq");
                assert!(found >= room.position(self.user).unwrap(), "{answer}");
                room.read(self.user, found);
            }
            OperationKind::Read(seq) => {
                let expected = room.read(self.user, *seq);
                assert_eq!(answer["last_read_seq"], expected, "{answer}");
            }
            OperationKind::MarkUnread(seq) => {
                let expected = room.mark_unread(self.user, *seq);
                assert_eq!(answer["last_read_seq"], expected, "{answer}");
            }
        }
    }
}

/// Chooses the operations of one batch in one room.
pub struct Chooser<'a> {
    pub random: &'a mut Random,
    pub room: &'a ModelRoom,
    pub index: usize,
    pub names: &'a [String],
    /// Users whose positions are moved.
    moved: BTreeSet<UserIndex>,
    /// Messages that are changed or replied to.
    used: BTreeSet<u64>,
}

impl<'a> Chooser<'a> {
    pub fn new(
        random: &'a mut Random,
        (index, room): (usize, &'a ModelRoom),
        names: &'a [String],
    ) -> Self {
        Self {
            random,
            room,
            index,
            names,
            moved: BTreeSet::new(),
            used: BTreeSet::new(),
        }
    }

    /// An operation of a user in the room.
    pub fn next(&mut self) -> Option<Operation> {
        let present: Vec<UserIndex> = self.room.present.iter().copied().collect();
        // The first users write more than the last ones, which therefore have more unread messages.
        let user = self.random.below(present.len());
        let user = present.get(self.random.below(user + 1)).copied()?;
        let kind = match self.random.below(100) {
            0..=59 => Some(self.send(user)),
            60..=69 => self.edit(user),
            70..=79 => self.delete(user),
            80..=93 => self.read(user),
            _ => self.mark_unread(user),
        }?;
        let room = self.index;
        Some(Operation { room, user, kind })
    }

    fn send(&mut self, user: UserIndex) -> OperationKind {
        let root = if self.random.one_in(6) {
            self.root(user)
        } else {
            None
        };
        let (content, mentions) = self.content(user);
        OperationKind::Send {
            content,
            mentions,
            root,
        }
    }

    /// A text, and the users that it mentions.
    fn content(&mut self, user: UserIndex) -> (String, BTreeSet<UserIndex>) {
        // No two are equal: an edit that changes nothing is not announced.
        let mut content = format!("text {}", self.random.number());
        let mut mentions = BTreeSet::new();
        if self.random.one_in(4) {
            let named = self.random.below(self.names.len());
            content += &format!(" and @{}, hi", self.names[named]);
            mentions.insert(named);
        }
        match self.random.below(20) {
            // Chats have no occupants here.
            0 => {
                content += " @here";
                if !self.room.is_chat() {
                    mentions.extend(&self.room.present);
                }
            }
            1 => {
                content += " @channel";
                mentions.extend(&self.room.present);
            }
            2 => content += " mail@example.com @nobody",
            _ => {}
        }
        mentions.remove(&user);
        (content, mentions)
    }

    /// A live message that the user can see, most often one of the last.
    fn target(
        &mut self,
        user: UserIndex,
        is_wanted: impl Fn(&ModelMessage) -> bool,
    ) -> Option<(u64, String)> {
        let first = self.near_the_end().max(self.room.hidden(user) + 1);
        let mut found = self.room.messages.range(first..);
        let (seq, message) = found.find(|(seq, message)| {
            message.is_live && is_wanted(message) && !self.used.contains(seq)
        })?;
        self.used.insert(*seq);
        Some((*seq, message.id.clone()))
    }

    fn root(&mut self, user: UserIndex) -> Option<String> {
        let root = self.target(user, |message| !message.is_reply);
        root.map(|(_, id)| id)
    }

    fn edit(&mut self, user: UserIndex) -> Option<OperationKind> {
        let (seq, id) = self.target(user, |message| message.author == user)?;
        let (content, mentions) = self.content(user);
        Some(OperationKind::Edit {
            seq,
            id,
            content,
            mentions,
        })
    }

    fn delete(&mut self, user: UserIndex) -> Option<OperationKind> {
        let is_owner = self.room.is_chat() && user == 0;
        let deletable = |message: &ModelMessage| is_owner || message.author == user;
        let (seq, id) = self.target(user, deletable)?;
        Some(OperationKind::Delete { seq, id })
    }

    fn read(&mut self, user: UserIndex) -> Option<OperationKind> {
        // The last user seldom reads: its unread messages reach the cap.
        if user + 1 == self.names.len() && !self.random.one_in(50) {
            return None;
        }
        if !self.moved.insert(user) {
            return None;
        }
        if self.random.one_in(5) {
            return Some(OperationKind::Read(BEYOND));
        }
        let last = self.room.last;
        Some(OperationKind::Read(self.near_the_end().min(last)))
    }

    fn mark_unread(&mut self, user: UserIndex) -> Option<OperationKind> {
        if self.room.last == 0 || !self.moved.insert(user) {
            return None;
        }
        Some(OperationKind::MarkUnread(self.near_the_end().max(1)))
    }

    /// A number, most often one of the last.
    fn near_the_end(&mut self) -> u64 {
        let back = match self.random.below(8) {
            0 => 4000,
            1 => 1500,
            _ => 40,
        };
        let back = u64::try_from(self.random.below(back)).unwrap();
        self.room.last.saturating_sub(back)
    }
}
