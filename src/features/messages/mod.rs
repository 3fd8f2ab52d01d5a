//! Messages that change: editing, deleting, pinning and reacting, what users have read, and threads.
//!
//! A change is a transaction of the store, which an outbox row announces in the room. A call is answered
//! once the announcement has its number.

mod change;
mod changing_user;
mod edit;
mod first_joins;
mod form;
mod lists;
mod mentions;
mod metrics;
mod positions;
mod reaction_batches;
mod receipts;
mod threads;
mod unrecorded;

use std::sync::Arc;

use uuid::Uuid;

use crate::backplane::{Presence, Window};
use crate::domain::{Code, Head, Refusal, RoomId, Timestamp, UserId};
use crate::features::messaging::Messaging;
use crate::outbox::Publications;
use crate::store::{
    ChatStore, DirectoryStore, MessageRef, MessageStore, PositionStore, StoreError, StoredMessage,
};

pub use crate::backplane::Entry;
pub use crate::backplane::message_form::encode_reactions;
pub use crate::store::{
    MessageState, MessageVersion, ReadPosition, RoomUnread, ThreadCursor, ThreadState, Unread,
    UserThread, VersionPage,
};
pub use change::{AnnouncedChange, Attempt, ChangeRefused, MadeChange};
pub use changing_user::ChangingUser;
pub use edit::{EditFields, Replacement};
pub use first_joins::FirstJoins;
pub use form::{CurrentMessage, is_listed};
pub use lists::{PinnedMessage, Reader, ReaderPage, Replies, ThreadPage};
pub use mentions::Mentions;
pub use reaction_batches::ReactionBatches;
pub(in crate::features) use unrecorded::reconcile;

/// No message waits longer for its commit to the archive, as long as the archive takes any.
const MAX_UNARCHIVED_SECS: u64 = 24 * 60 * 60;

/// The parts that sending, joining and histories use, too.
pub struct MessageParts {
    /// The changes of messages.
    pub store: Arc<dyn MessageStore>,
    /// Finds the users that a content mentions.
    pub mentions: Mentions,
    /// Records the positions of users that join an open room for the first time.
    pub first_joins: FirstJoins,
}

/// A user that reads or moves a position.
#[derive(Debug, Clone)]
pub struct ReadingUser {
    /// The user.
    pub user: UserId,
    /// Whether the user has an account, and so a personal feed.
    pub has_account: bool,
}

/// The use cases of messages that change.
pub struct Messages {
    messaging: Arc<Messaging>,
    store: Arc<dyn MessageStore>,
    positions: Arc<dyn PositionStore>,
    reactions: ReactionBatches,
    publications: Arc<Publications>,
    parts: Arc<MessageParts>,
    chats: Option<Arc<dyn ChatStore>>,
    audiences: receipts::Audiences,
    counters: metrics::ChangeCounters,
}

/// The stores of messages that change.
pub struct MessageStores {
    /// Changes of messages.
    pub messages: Arc<dyn MessageStore>,
    /// Read positions.
    pub positions: Arc<dyn PositionStore>,
    /// Members of chats; `None` where there are no accounts.
    pub chats: Option<Arc<dyn ChatStore>>,
}

impl MessageStores {
    /// The parts on these stores. `accounts`: where there are any.
    #[must_use]
    pub fn parts(
        &self,
        accounts: Option<Arc<dyn DirectoryStore>>,
        presence: Arc<dyn Presence>,
    ) -> Arc<MessageParts> {
        Arc::new(MessageParts {
            store: self.messages.clone(),
            mentions: Mentions::new(accounts, self.chats.clone(), presence),
            first_joins: FirstJoins::start(self.positions.clone()),
        })
    }
}

impl Messages {
    /// The use cases on these stores. `messaging` must have the same parts.
    #[must_use]
    pub fn new(
        messaging: Arc<Messaging>,
        parts: Arc<MessageParts>,
        stores: MessageStores,
        publications: Arc<Publications>,
    ) -> Self {
        Self {
            messaging,
            reactions: ReactionBatches::new(stores.messages.clone()),
            store: stores.messages,
            positions: stores.positions,
            publications,
            parts,
            chats: stores.chats,
            audiences: receipts::Audiences::default(),
            counters: metrics::ChangeCounters::default(),
        }
    }

    /// The message, once it is archived: a message that was just sent may not be yet.
    async fn find(&self, message: &MessageRef, hidden_seq: u64) -> Result<StoredMessage, Refusal> {
        let found = find(&*self.store, &self.messaging, message).await?;
        if found.form.position.seq <= hidden_seq {
            return Err(no_such_message());
        }
        Ok(found)
    }

    /// The position of the room that an answer reflects. To be read before the answer: later changes may
    /// be in it as well.
    async fn head(&self, room: &RoomId) -> Result<Head, Refusal> {
        let log = self.messaging.log();
        if let Some(Some(head)) = log.heads(std::slice::from_ref(room)).await?.pop() {
            return Ok(head);
        }
        let slice = log.read(room, Window::Newest, 1, 1).await?;
        Ok(slice.span.head)
    }
}

/// The message. If the archive does not have it, the archive follows the log, and is asked again.
pub(super) async fn find(
    store: &dyn MessageStore,
    messaging: &Messaging,
    message: &MessageRef,
) -> Result<StoredMessage, Refusal> {
    if let Some(found) = store.message(message).await.map_err(refused)? {
        return Ok(found);
    }
    if !may_be_unarchived(message.id) {
        return Err(no_such_message());
    }
    messaging.log().archive_now(&message.room).await?;
    let found = store.message(message).await.map_err(refused)?;
    found.ok_or_else(no_such_message)
}

/// Whether a message of this id may be in the log only: ids have the time at which they were made. The
/// archive is not asked to follow the log for ids that are older, or made up.
fn may_be_unarchived(id: Uuid) -> bool {
    let Some(made) = id.get_timestamp() else {
        return false;
    };
    let (seconds, _) = made.to_unix();
    let now = Timestamp::now().0 / 1000;
    id.get_version_num() == 7 && now.abs_diff(seconds) <= MAX_UNARCHIVED_SECS
}

fn message_ref(room: &RoomId, id: Uuid) -> MessageRef {
    let room = room.clone();
    MessageRef { room, id }
}

pub(super) fn no_such_message() -> Refusal {
    Refusal::new(Code::NotFound, "there is no such message")
}

pub(super) fn message_deleted() -> Refusal {
    Refusal::new(Code::MessageDeleted, "the message is deleted")
}

/// The refusal where there is no database.
#[must_use]
pub fn not_configured() -> Refusal {
    Refusal::new(
        Code::NotConfigured,
        "messages change only with a database (DATABASE_URL)",
    )
}

/// The refusal of a request for which the store failed.
pub(super) fn refused(error: StoreError) -> Refusal {
    match error {
        StoreError::Unavailable(_) => {
            Refusal::new(Code::Unavailable, "the database can't be reached")
        }
        StoreError::Broken(_) | StoreError::Refused(_) => {
            tracing::error!(%error, "messages: the database refused a request");
            Refusal::new(Code::Internal, "the database refused the request")
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::{NoContext, Timestamp as Time};

    use super::*;

    #[test]
    fn only_messages_of_the_last_day_may_be_unarchived() {
        let made_at = |seconds| Uuid::new_v7(Time::from_unix(NoContext, seconds, 0));
        let now = Timestamp::now().0 / 1000;
        for (id, expected) in [
            (Uuid::now_v7(), true),
            (made_at(now - 80_000), true),
            (made_at(now - 100_000), false),
            (made_at(now + 100_000), false),
            (Uuid::nil(), false),
            (Uuid::max(), false),
            (Uuid::from_u128(7), false),
        ] {
            assert_eq!(may_be_unarchived(id), expected, "{id}");
        }
    }
}
