//! Durable state in a database, as one trait per aggregate.
//!
//! The traits' docs are the promises that the rest of the server relies on. There is one
//! implementation, `sql`, on SQLite, PostgreSQL and MySQL or MariaDB; the conformance suite in
//! `tests/store/` runs every promise on all three.

mod accounts;
mod archive;
mod bot_tokens;
mod chats;
mod deletions;
mod idempotency;
mod invites;
mod jobs;
mod messages;
mod outbox;
mod positions;
mod recovery;
mod retention;
mod settings;
pub mod sql;
#[cfg(test)]
pub(crate) mod testing;
mod transfer;
mod urgent;
mod users;

pub use accounts::{
    AccountStore, AnnounceEnd, CreateOutcome, Credential, Digest, EndedSessions, Exchange,
    ExchangeOutcome, LoginLimit, LoginName, NewAccount, NewSession, Session, SessionLimit,
};
pub use archive::{
    ArchiveStore, ArchiveWindow, ArchiveWriter, ArchivedEntry, ArchivedEpoch, ArchivedRoom,
    ArchivedSend, BATCH_BYTES, BATCH_ENTRIES, BeginOutcome, CommitOutcome, DeletedPart,
    EPOCHS_KEPT, Fence, MAX_RECORD_BYTES, MissingPage, NewEpoch, RoomAudit, RoomNumber, Run,
    StoredKind,
};
pub use bot_tokens::{BotTokenStore, NewBotToken};
pub use chats::{
    Announce, ChatChange, ChatOfMember, ChatOutcome, ChatPeer, ChatPosition, ChatRefusal,
    ChatStore, NewGroup,
};
pub use deletions::{
    DeleteOutcome, DeletionReport, DeletionStep, DeletionStore, Rewrite, Rewritten,
};
pub use idempotency::{
    ANSWERS_KEPT, DeletableContent, IdempotencyStore, IdempotentRequest, MakeAnswer, Once,
    Performed, Repeat, StoredAnswer,
};
pub use invites::{InviteStore, NewInvite};
pub use jobs::{JobEnd, JobQueue};
pub use messages::{
    Announced, ChangeOutcome, ChangeRow, Changed, Changer, Deletion, EditRecord, EditedRecord,
    MAX_PINS, MAX_VERSIONS, MessageEdit, MessageRef, MessageState, MessageStore, MessageVersion,
    Pin, PublishedChange, REACTIONS_INTERVAL_MS, ReactionChange, StoredMessage, ThreadState,
    Unrecorded, VersionPage,
};
pub use outbox::{
    Claim, NewRow, Outbox, OutboxId, OutboxRow, OwnRow, OwnRows, RowState, WantsRows,
};
pub use positions::{
    NewPosition, POSITIONS_INTERVAL_MS, PositionStore, ReadPosition, RoomUnread, ThreadCursor,
    UNREAD_CAP, Unread, UserThread,
};
pub use recovery::{MailRow, NewOneTimeToken, PasswordReset, RecoveryStore, TokenPurpose};
pub use retention::{RetentionClaim, RetentionRun};
pub use settings::DatabaseSettings;
pub use transfer::{
    ArchiveIdentity, ArchiveTransfer, DirectoryRow, DirectoryTransfer, Orphans, RoomState, RunEnd,
};
pub use urgent::{UrgentRow, UrgentRows};
pub use users::{
    AddressNotice, AuditEntry, MAX_NAMES, PasswordChange, ProfileChange, ProfileOutcome,
    UserChange, UserOutcome, UserQuery, UserStore,
};

/// Everything that is stored about users.
pub trait DirectoryStore: AccountStore + UserStore + BotTokenStore + InviteStore {}

impl<T: AccountStore + UserStore + BotTokenStore + InviteStore> DirectoryStore for T {}

/// An error of the store.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The database can't be reached or didn't reply in time. The call may or may not have taken
    /// effect; repeat it.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// The database refused a statement, or returned something unexpected: a bug of this server, or
    /// foreign data.
    #[error("{0}")]
    Broken(String),
    /// The database refuses the connection or an action: the user or the password is wrong, a right is
    /// missing, or there is no database of this name. Only a change of the configuration, or of the
    /// database's, helps.
    #[error("the database refuses access: {0}")]
    Refused(String),
}

/// The result of a call to the store.
pub type Result<T> = std::result::Result<T, StoreError>;
