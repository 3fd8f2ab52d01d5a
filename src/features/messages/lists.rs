//! Reading single messages, and lists about them.

use uuid::Uuid;

use super::unrecorded::reconcile_all;
use super::{CurrentMessage, Messages, message_ref, no_such_message, refused};
use crate::domain::policy::{Permit, Reading};
use crate::domain::{Head, Reaction, Refusal, Timestamp, UserId};
use crate::store::{MessageRef, VersionPage};

/// A pinned message.
#[derive(Debug, Clone)]
pub struct PinnedMessage {
    /// The message.
    pub message: CurrentMessage,
    /// The user that has pinned it.
    pub user: UserId,
    /// When.
    pub at: Timestamp,
}

/// A page of a thread's replies, in ascending `seq`.
#[derive(Debug)]
pub struct Replies {
    /// The replies.
    pub messages: Vec<CurrentMessage>,
    /// Whether more follow.
    pub has_more: bool,
}

/// A page of a thread.
#[derive(Debug)]
pub struct ThreadPage {
    /// The root.
    pub root: CurrentMessage,
    /// Its replies.
    pub replies: Replies,
    /// The position of the room that the page reflects.
    pub as_of: Head,
}

/// A user that has read up to a message.
#[derive(Debug, Clone)]
pub struct Reader {
    /// The user.
    pub user: UserId,
    /// The user's position.
    pub last_read_seq: u64,
    /// When it moved last.
    pub at: Timestamp,
}

/// A page of readers, in the order of their ids.
#[derive(Debug)]
pub struct ReaderPage {
    /// The readers.
    pub readers: Vec<Reader>,
    /// Whether more follow.
    pub has_more: bool,
}

impl Messages {
    /// A message in its newest form.
    ///
    /// # Errors
    /// `not_found`, `unavailable`.
    pub async fn message(
        &self,
        permit: &Permit<Reading>,
        id: Uuid,
    ) -> Result<CurrentMessage, Refusal> {
        let message = message_ref(permit.room(), id);
        let found = self.find(&message, permit.hidden_seq()).await?;
        self.as_announced(&message, found.into(), permit.hidden_seq())
            .await
    }

    /// A message that was read, with the numbers of its announcements also where these are not recorded yet.
    pub(super) async fn as_announced(
        &self,
        message: &MessageRef,
        found: CurrentMessage,
        hidden_seq: u64,
    ) -> Result<CurrentMessage, Refusal> {
        if !found.state.unrecorded.is_any() {
            return Ok(found);
        }
        let head = self.head(&message.room).await?;
        let found = self.find(message, hidden_seq).await?;
        let mut current = CurrentMessage::from(found);
        let messages = std::iter::once(&mut current);
        reconcile_all(self.messaging.log(), &message.room, &head, messages).await?;
        Ok(current)
    }

    /// The forms that a message has had behind a position, oldest first, and the position of the room that
    /// they reflect. A deleted message has none.
    ///
    /// # Errors
    /// `not_found`, `unavailable`.
    pub async fn versions(
        &self,
        permit: &Permit<Reading>,
        id: Uuid,
        after: Option<u64>,
        limit: usize,
    ) -> Result<(VersionPage, Head), Refusal> {
        let as_of = self.head(permit.room()).await?;
        let message = message_ref(permit.room(), id);
        self.find(&message, permit.hidden_seq()).await?;
        let page = self.page_of_versions(&message, after, limit).await?;
        let Some((target_seq, revision)) = page.pending else {
            return Ok((page, as_of));
        };
        // Its announcement may be published already, at a number up to `as_of`, and just not be recorded yet.
        // Where it waits for the log, the page is without it.
        let room = permit.room();
        let announced = self
            .publications
            .wait_for_earlier(room, target_seq, revision);
        let _ = announced.await;
        let page = self.page_of_versions(&message, after, limit).await?;
        Ok((page, as_of))
    }

    async fn page_of_versions(
        &self,
        message: &MessageRef,
        after: Option<u64>,
        limit: usize,
    ) -> Result<VersionPage, Refusal> {
        let page = self.store.versions(message, after, limit).await;
        page.map_err(refused)?.ok_or_else(no_such_message)
    }

    /// The replies in a thread after a number, at most `limit`.
    ///
    /// # Errors
    /// `not_found`, `unavailable`.
    pub async fn thread(
        &self,
        permit: &Permit<Reading>,
        root: Uuid,
        after: u64,
        limit: usize,
    ) -> Result<ThreadPage, Refusal> {
        let head = self.head(permit.room()).await?;
        let message = message_ref(permit.room(), root);
        let root = self.find(&message, permit.hidden_seq()).await?;
        // Replies come from the archive only, and all up to `head` must be among them.
        self.messaging.log().archive_now(permit.room()).await?;
        let after = after.max(permit.hidden_seq());
        let replies = self.store.replies(&message, after, limit + 1).await;
        let mut replies = replies.map_err(refused)?.ok_or_else(no_such_message)?;
        let has_more = replies.len() > limit;
        replies.truncate(limit);
        let mut root = CurrentMessage::from(root);
        let mut messages: Vec<_> = replies.into_iter().map(CurrentMessage::from).collect();
        let all = std::iter::once(&mut root).chain(&mut messages);
        let as_of = reconcile_all(self.messaging.log(), permit.room(), &head, all).await?;
        Ok(ThreadPage {
            root,
            replies: Replies { messages, has_more },
            as_of,
        })
    }

    /// The reactions to a message as they are now.
    ///
    /// # Errors
    /// `not_found`, `unavailable`.
    pub async fn reactions(
        &self,
        permit: &Permit<Reading>,
        id: Uuid,
    ) -> Result<Vec<Reaction>, Refusal> {
        let message = message_ref(permit.room(), id);
        self.find(&message, permit.hidden_seq()).await?;
        let reactions = self.store.reactions(&message).await.map_err(refused)?;
        reactions.ok_or_else(no_such_message)
    }

    /// The pins of a room that the caller can see, the newest first, and the position of the room that they
    /// reflect.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn pins(
        &self,
        permit: &Permit<Reading>,
    ) -> Result<(Vec<PinnedMessage>, Head), Refusal> {
        let head = self.head(permit.room()).await?;
        let pins = self.store.pins(permit.room()).await.map_err(refused)?;
        let visible = pins
            .into_iter()
            .filter(|pin| pin.message.form.position.seq > permit.hidden_seq());
        let pins = visible.map(|pin| PinnedMessage {
            message: pin.message.into(),
            user: pin.user,
            at: pin.at,
        });
        let mut pins: Vec<PinnedMessage> = pins.collect();
        let messages = pins.iter_mut().map(|pin| &mut pin.message);
        let as_of = reconcile_all(self.messaging.log(), permit.room(), &head, messages).await?;
        Ok((pins, as_of))
    }

    /// The users that have read a message, with ids greater than `after`, at most `limit`.
    ///
    /// # Errors
    /// `not_found`, `unavailable`.
    pub async fn readers(
        &self,
        permit: &Permit<Reading>,
        id: Uuid,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<ReaderPage, Refusal> {
        let message = message_ref(permit.room(), id);
        let found = self.find(&message, permit.hidden_seq()).await?;
        let seq = found.form.position.seq;
        let readers = self
            .positions
            .readers(permit.room(), seq, after, limit + 1)
            .await;
        let mut readers = readers.map_err(refused)?;
        let has_more = readers.len() > limit;
        readers.truncate(limit);
        let reader = |(user, last_read_seq, at)| Reader {
            user,
            last_read_seq,
            at,
        };
        Ok(ReaderPage {
            readers: readers.into_iter().map(reader).collect(),
            has_more,
        })
    }
}
