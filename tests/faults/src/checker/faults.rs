//! The faults found: what kinds there are, and how they are told.

use std::collections::BTreeMap;

/// So many faults of one kind are spelled out.
const SPELLED: usize = 20;

/// What can be wrong. In the order in which a reader should look at them: the first ones make later ones likely.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// The history contradicts itself: the lab or a client is wrong, or a client was told what can't be.
    Malformed,
    /// One place with two messages, one message with two places, or one nobody sent.
    Meaning,
    /// Two acks of the same place that both say that it is new.
    NewTwice,
    /// Something came to who wasn't in the room.
    Uninvited,
    /// An answer to `join` that can't be true.
    Answer,
    /// The client resumed from elsewhere than where it stood.
    Resume,
    /// Replay, `room_users` and live messages in another order than that.
    Opening,
    /// The same place came again.
    Repeat,
    /// A place below the last one, or an epoch that had been left.
    Disorder,
    /// A place was skipped.
    Hole,
    /// A loss was announced where none may be.
    Announced,
    /// Epochs in two orders, or numbers that went back without a new epoch.
    Epochs,
    /// A message never came to who was owed it.
    Missing,
    /// An acknowledged message isn't in the log.
    FalseAck,
    /// A message was not acknowledged, though all had come to rest.
    Unanswered,
    /// The same version of a user's state with two meanings.
    StatusMeaning,
    /// A state that is older than, or the same as, one told before.
    StatusOrder,
    /// A calm watcher was told of more changes than there were.
    Noise,
    /// A calm watcher was not told of a change.
    Missed,
    /// A version that no calm watcher heard of.
    Invented,
    /// What a watcher knows in the end isn't so.
    FinalState,
    /// Someone entered who was in.
    EnteredTwice,
    /// Someone went who wasn't in.
    WentAbsent,
    /// A client was told of its own user.
    OwnUser,
    /// A `room_users` that can't be true, or an event without one before it.
    Roster,
    /// A calm member was told of comings and goings that were none.
    RoomNoise,
    /// Who a member believes to be in the room in the end isn't.
    FinalMembers,
}

impl Kind {
    /// How a fault's text begins.
    pub fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Meaning => "two meanings",
            Self::NewTwice => "new twice",
            Self::Uninvited => "uninvited",
            Self::Answer => "impossible answer",
            Self::Resume => "resumed elsewhere",
            Self::Opening => "opening out of order",
            Self::Repeat => "repeat",
            Self::Disorder => "disorder",
            Self::Hole => "hole",
            Self::Announced => "announced loss",
            Self::Epochs => "order of epochs",
            Self::Missing => "never came",
            Self::FalseAck => "false ack",
            Self::Unanswered => "unanswered",
            Self::StatusMeaning => "status with two meanings",
            Self::StatusOrder => "old status",
            Self::Noise => "noise",
            Self::Missed => "missed change",
            Self::Invented => "invented version",
            Self::FinalState => "wrong state in the end",
            Self::EnteredTwice => "came twice",
            Self::WentAbsent => "went without being in",
            Self::OwnUser => "told of itself",
            Self::Roster => "wrong room_users",
            Self::RoomNoise => "noise in a room",
            Self::FinalMembers => "wrong members in the end",
        }
    }
}

#[derive(Default)]
pub(super) struct Faults {
    kinds: BTreeMap<Kind, Found>,
}

#[derive(Default)]
struct Found {
    count: u64,
    spelled: Vec<(u64, String)>,
}

impl Faults {
    /// Notes one. `at` is milliseconds since the run began; `text` is only asked for when it will be shown.
    pub fn add(&mut self, kind: Kind, at: u64, text: impl FnOnce() -> String) {
        let found = self.kinds.entry(kind).or_default();
        found.count += 1;
        if found.spelled.len() < SPELLED {
            found.spelled.push((at, text()));
        }
    }

    pub fn count(&self, kind: Kind) -> u64 {
        self.kinds.get(&kind).map_or(0, |found| found.count)
    }

    /// All of them as text: kind by kind, and by time.
    pub fn into_texts(self) -> Vec<String> {
        let mut texts = Vec::new();
        for (kind, mut found) in self.kinds {
            found.spelled.sort();
            let more = found.count - found.spelled.len() as u64;
            let spelled = found.spelled.into_iter();
            texts.extend(
                spelled.map(|(at, text)| format!("{}: at {}: {text}", kind.label(), Seconds(at))),
            );
            if more > 0 {
                texts.push(format!("{}: and {more} more", kind.label()));
            }
        }
        texts
    }
}

/// Milliseconds, told as seconds.
pub(super) struct Seconds(pub u64);

impl std::fmt::Display for Seconds {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "{}.{:03} s", self.0 / 1000, self.0 % 1000)
    }
}
