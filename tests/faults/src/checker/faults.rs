//! The faults that the checker finds: their kinds, and how they are reported.

use std::collections::BTreeMap;

/// This many faults of one kind are reported in full; of the others only the number is reported.
const MAX_DETAILED: usize = 20;

/// The kinds of faults, in the order in which a reader should look at them: a fault of an early
/// kind often causes faults of later kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FaultKind {
    /// The history contradicts itself: the lab or a client has a bug, or the server sent something
    /// impossible.
    Malformed,
    /// One position with two messages, one message with two positions, or a message that no client
    /// sent.
    ConflictingMessage,
    /// Two acknowledgements of the same position both say that the message is new.
    AckedNewTwice,
    /// An event reached a client that isn't in the room, or doesn't watch the user.
    NotSubscribed,
    /// An answer to `join` that can't be true.
    ImpossibleJoinAnswer,
    /// The client resumed from another position than its own.
    WrongResumePosition,
    /// After a join, the replay, `room_users` and the live messages came in another order than this
    /// one.
    JoinSequence,
    /// The client received the same position again.
    Repeat,
    /// A position below the client's last one, or in an epoch that the client had left.
    OutOfOrder,
    /// Sequence numbers were skipped without an announcement.
    Hole,
    /// A loss was announced where none is allowed.
    UnexpectedLoss,
    /// Two clients saw epochs in different orders, or numbers went down within one epoch.
    EpochOrder,
    /// A message did not reach a client that should have received it.
    Missing,
    /// An acknowledged message isn't in the log.
    FalseAck,
    /// A message was still unacknowledged at the end of the run.
    Unacknowledged,
    /// The archive has a number, an id or a send twice.
    ArchivedTwice,
    /// An acknowledged message isn't in the archive.
    NotArchived,
    /// A number of the archive is missing and not recorded as lost, or is recorded as lost although
    /// nothing was.
    ArchiveHole,
    /// The server returns other messages than those in the archive.
    ArchiveDiffers,
    /// The server refused a change of a chat or of a message for no reason.
    ChangeRefused,
    /// A change of a chat was not announced, to the room or to a user's feed.
    LostAnnouncement,
    /// A change of a chat was announced twice.
    DoubledAnnouncement,
    /// The changes of a user's membership were announced in another order than they were made.
    AnnouncementOrder,
    /// Two users received the announcements of a room in different orders, or one number with different
    /// announcements.
    RoomOrder,
    /// The tables of chats are not the result of the announced changes.
    TablesDiffer,
    /// An event reached a user after the user's removal from the chat.
    AfterRemoval,
    /// A node granted or refused a right against the table of members.
    WrongRight,
    /// A row stayed in the outbox.
    LeftInOutbox,
    /// The announcement of an edit came without the edited form of the message.
    StaleForm,
    /// A client's folded state, or a node's history, differs from the history of another node.
    FoldDiffers,
    /// Two edits that named the same version were acknowledged.
    EditedTwice,
    /// An acknowledged change of a message is not in the history.
    LostChange,
    /// The content of a message was shown after its deletion was acknowledged.
    ShownAfterDeletion,
    /// The reactions of a message were announced too often.
    TooManyAnnouncements,
    /// One version of a user's status was reported both as online and as offline.
    ConflictingStatus,
    /// A status that is older than one that the watcher knew, or a change with the version that it
    /// knew.
    StaleStatus,
    /// An unaffected watcher was notified of more changes than there were, or a watcher was
    /// notified that a user is offline that had not been away for long enough.
    UnexpectedStatusChange,
    /// An unaffected watcher was not notified of a change.
    MissedStatusChange,
    /// A status version that no unaffected watcher was notified of.
    UnknownStatusVersion,
    /// At the end, a watcher has a wrong status of a user.
    WrongFinalStatus,
    /// `user_joined` for a user that was in the room already.
    JoinedTwice,
    /// `user_left` for a user that wasn't in the room.
    LeftWhileAbsent,
    /// A client was notified that its own user joined or left.
    OwnUser,
    /// A `room_users` that can't be true, or an event that came without a `room_users` before it.
    WrongRoomUsers,
    /// An unaffected member was notified of more joins or departures than there were, or a member
    /// was notified that a user left that had not been away for long enough.
    UnexpectedMembershipChange,
    /// At the end, a member has a wrong set of the room's users.
    WrongFinalMembers,
}

impl FaultKind {
    /// The first words of the report of a fault.
    pub fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed history",
            Self::ConflictingMessage => "conflicting messages",
            Self::AckedNewTwice => "acknowledged as new twice",
            Self::NotSubscribed => "not subscribed",
            Self::ImpossibleJoinAnswer => "impossible answer to join",
            Self::WrongResumePosition => "wrong resume position",
            Self::JoinSequence => "wrong sequence after join",
            Self::Repeat => "repeated message",
            Self::OutOfOrder => "out of order",
            Self::Hole => "hole",
            Self::UnexpectedLoss => "unexpected announcement of a loss",
            Self::EpochOrder => "order of epochs",
            Self::Missing => "missing message",
            Self::FalseAck => "false ack",
            Self::Unacknowledged => "unacknowledged message",
            Self::ArchivedTwice => "archived twice",
            Self::NotArchived => "not archived",
            Self::ArchiveHole => "hole in the archive",
            Self::ArchiveDiffers => "log and archive differ",
            Self::ChangeRefused => "refused change",
            Self::LostAnnouncement => "lost announcement",
            Self::DoubledAnnouncement => "doubled announcement",
            Self::AnnouncementOrder => "order of announcements",
            Self::RoomOrder => "order in a room",
            Self::TablesDiffer => "tables and announcements differ",
            Self::AfterRemoval => "received after the removal",
            Self::WrongRight => "wrong right",
            Self::LeftInOutbox => "left in the outbox",
            Self::StaleForm => "stale form",
            Self::FoldDiffers => "history and folded state differ",
            Self::EditedTwice => "one version edited twice",
            Self::LostChange => "lost change",
            Self::ShownAfterDeletion => "shown after the deletion",
            Self::TooManyAnnouncements => "too many announcements",
            Self::ConflictingStatus => "conflicting status",
            Self::StaleStatus => "stale status",
            Self::UnexpectedStatusChange => "unexpected status change",
            Self::MissedStatusChange => "missed status change",
            Self::UnknownStatusVersion => "unknown status version",
            Self::WrongFinalStatus => "wrong final status",
            Self::JoinedTwice => "user joined twice",
            Self::LeftWhileAbsent => "absent user left",
            Self::OwnUser => "notified of its own user",
            Self::WrongRoomUsers => "wrong room_users",
            Self::UnexpectedMembershipChange => "unexpected membership change",
            Self::WrongFinalMembers => "wrong final members",
        }
    }
}

#[derive(Default)]
pub(super) struct Faults {
    by_kind: BTreeMap<FaultKind, FaultsOfKind>,
}

#[derive(Default)]
struct FaultsOfKind {
    count: u64,
    /// Time and text of the first [`MAX_DETAILED`] faults.
    detailed: Vec<(u64, String)>,
}

impl Faults {
    /// Adds a fault. `at` is in milliseconds since the run began; `text` is called only if the text
    /// will be reported.
    pub fn add(&mut self, kind: FaultKind, at: u64, text: impl FnOnce() -> String) {
        let found = self.by_kind.entry(kind).or_default();
        found.count += 1;
        if found.detailed.len() < MAX_DETAILED {
            found.detailed.push((at, text()));
        }
    }

    pub fn count(&self, kind: FaultKind) -> u64 {
        self.by_kind.get(&kind).map_or(0, |found| found.count)
    }

    /// All faults as texts: ordered by kind, then by time.
    pub fn into_texts(self) -> Vec<String> {
        let mut texts = Vec::new();
        for (kind, mut found) in self.by_kind {
            let label = kind.label();
            found.detailed.sort();
            let omitted = found.count - found.detailed.len() as u64;
            for (at, text) in found.detailed {
                texts.push(format!("{label}: at {}: {text}", Seconds(at)));
            }
            if omitted > 0 {
                texts.push(format!("{label}: and {omitted} more"));
            }
        }
        texts
    }
}

/// A number of milliseconds that is displayed in seconds.
struct Seconds(u64);

impl std::fmt::Display for Seconds {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}.{:03} s", self.0 / 1000, self.0 % 1000)
    }
}
