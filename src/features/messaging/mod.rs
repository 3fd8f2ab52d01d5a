//! The use cases of messaging. Each rule is stated once here, for Socket.IO, plain WebSockets and
//! REST alike.

mod around;
mod authenticate;
mod connection_state;
mod disconnect;
mod history;
mod join;
mod listen;
mod metrics;
mod occupants;
mod personal_feed;
mod send;
mod states;
mod sync;
#[cfg(test)]
mod tests;
mod typing;
mod user_rates;
mod watch;

use std::sync::Arc;

use async_trait::async_trait;

use crate::backplane::{Backplane, BackplaneError, ReadReceipt, RoomLog};
use crate::delivery::{ChatFeed, Delivery};
use crate::domain::policy::Action;
use crate::domain::{Code, Limits, Membership, Refusal, RoomId, UserId};
use crate::features::chats::Memberships;
use crate::features::messages::MessageParts;
use crate::telemetry::meter::{Counter, Histogram};

pub use crate::backplane::{Appended, ArchiveStatus, Commit, OccupantPage};
pub use connection_state::{AuthenticatedUser, ConnectionState, NewUser};
pub use disconnect::Disconnected;
pub use history::{HistoryPage, HistoryWindow};
pub use sync::{SyncOutcome, SyncRequest};
pub use user_rates::UserRateLimiter;

/// The counters of the use cases.
#[derive(Debug, Default)]
pub struct MessagingCounters {
    /// Messages appended.
    pub sent: Counter,
    /// Sends that repeated an earlier one and appended nothing.
    pub duplicates: Counter,
    /// Messages that were sent without their mentions.
    pub without_mentions: Counter,
    /// Joins that succeeded.
    pub joins: Counter,
    /// Seconds that the backplane took for each append.
    pub append: Histogram,
}

/// An external service that also decides which actions users may take. Actions of trusted services
/// are not submitted to it.
#[async_trait]
pub trait AuthorizationHook: Send + Sync {
    /// Decides whether the user may take the action in the room.
    ///
    /// # Errors
    /// `forbidden`; `unavailable` when the service gives no decision.
    async fn authorize(&self, action: Action, user: &UserId, room: &RoomId) -> Result<(), Refusal>;
}

/// Messaging, as the gateway uses it.
pub struct Messaging {
    backplane: Backplane,
    delivery: Arc<Delivery>,
    limits: Limits,
    authorization_hook: Option<Box<dyn AuthorizationHook>>,
    memberships: Option<Arc<Memberships>>,
    messages: Option<Arc<MessageParts>>,
    user_rates: Arc<UserRateLimiter>,
    counters: MessagingCounters,
}

impl From<BackplaneError> for Refusal {
    fn from(error: BackplaneError) -> Self {
        match error {
            BackplaneError::Unavailable(_) => Self::new(Code::Unavailable, "try again in a moment"),
            BackplaneError::Full => Self::new(
                Code::Overloaded,
                "this node holds its maximum number of rooms",
            ),
            BackplaneError::TooManyConnections => Self::new(
                Code::TooManyConnections,
                "this user has the maximum number of connections",
            ),
            BackplaneError::TooLarge => Self::new(
                Code::TooLarge,
                "the message is larger than the archive can keep",
            ),
            BackplaneError::Broken(reason) => {
                tracing::error!(reason, "the backplane returned an invalid answer");
                Self::new(Code::Internal, "internal error of the server")
            }
            BackplaneError::Unreadable(_) => {
                Self::new(Code::Internal, "stored messages cannot be read")
            }
        }
    }
}

impl Messaging {
    /// Messaging on that backplane and its feeds.
    #[must_use]
    pub fn new(backplane: Backplane, delivery: Arc<Delivery>, limits: Limits) -> Self {
        let user_rates = UserRateLimiter::new(limits.user, backplane.rate_limiter.clone());
        let user_rates = Arc::new(user_rates);
        Self {
            backplane,
            delivery,
            limits,
            authorization_hook: None,
            memberships: None,
            messages: None,
            user_rates,
            counters: MessagingCounters::default(),
        }
    }

    /// Submits users' joins and sends to an external service too.
    #[must_use]
    pub fn with_authorization_hook(mut self, hook: Box<dyn AuthorizationHook>) -> Self {
        self.authorization_hook = Some(hook);
        self
    }

    /// Has chats, with these rights. Without, nobody is a member of a chat.
    #[must_use]
    pub fn with_memberships(mut self, memberships: Arc<Memberships>) -> Self {
        self.memberships = Some(memberships);
        self
    }

    /// Has messages that change. Without, there are no threads and no mentions.
    #[must_use]
    pub fn with_messages(mut self, messages: Arc<MessageParts>) -> Self {
        self.messages = Some(messages);
        self
    }

    /// The rooms' logs.
    pub(in crate::features) fn log(&self) -> &dyn RoomLog {
        &*self.backplane.log
    }

    /// Asks the authorization hook whether the user may send to the room.
    ///
    /// # Errors
    /// `forbidden`, `unavailable`.
    pub(in crate::features) async fn authorize_sending(
        &self,
        user: &UserId,
        room: &RoomId,
    ) -> Result<(), Refusal> {
        self.ready()?;
        self.authorize(Action::Send, user, room).await
    }

    /// Publishes a read receipt to the occupants of its room.
    ///
    /// # Errors
    /// `unavailable`.
    pub(in crate::features) async fn publish_receipt(
        &self,
        receipt: &ReadReceipt,
    ) -> Result<(), Refusal> {
        self.ready()?;
        Ok(self.backplane.bus.publish_receipt(receipt).await?)
    }

    /// The rights of a connection's user in the room's chat. `None` without any, and for other
    /// rooms.
    ///
    /// # Errors
    /// `unauthorized`, `unavailable`.
    pub async fn membership(
        &self,
        connection: &ConnectionState,
        room: &RoomId,
    ) -> Result<Option<Membership>, Refusal> {
        let authenticated = connection.authenticated()?;
        if !authenticated.has_account {
            return Ok(None);
        }
        self.membership_of(&authenticated.user, room).await
    }

    /// As [`membership`](Self::membership), for a user with an account that is proved otherwise.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn membership_of(
        &self,
        account: &UserId,
        room: &RoomId,
    ) -> Result<Option<Membership>, Refusal> {
        match &self.memberships {
            Some(memberships) => {
                let feed = || self.chat_feed(room);
                memberships.find(room, account, feed).await
            }
            None => Ok(None),
        }
    }

    /// The rights of a user in a chat have changed.
    pub fn membership_changed(&self, room: &RoomId, user: &UserId) {
        if let Some(memberships) = &self.memberships {
            memberships.changed(room, user);
        }
    }

    /// As [`membership_of`](Self::membership_of), always by the store while the database answers. While
    /// it is away, what the chat's feed has heard counts only where `trusts_feed`.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn stored_membership_of(
        &self,
        account: &UserId,
        room: &RoomId,
        trusts_feed: bool,
    ) -> Result<Option<Membership>, Refusal> {
        let feed = || {
            let feed = self.chat_feed(room)?;
            let is_current = feed.is_current && trusts_feed;
            Some(ChatFeed { is_current, ..feed })
        };
        match &self.memberships {
            Some(memberships) => memberships.stored(room, account, feed).await,
            None => Ok(None),
        }
    }

    /// The chat's feed on this node. While the backplane is down, changes may be missing.
    fn chat_feed(&self, room: &RoomId) -> Option<ChatFeed> {
        let feed = self.delivery.chat_feed(room)?;
        let is_current = feed.is_current && self.is_ready();
        Some(ChatFeed { is_current, ..feed })
    }

    async fn authorize(&self, action: Action, user: &UserId, room: &RoomId) -> Result<(), Refusal> {
        match &self.authorization_hook {
            Some(hook) => hook.authorize(action, user, room).await,
            None => Ok(()),
        }
    }

    /// The counters since the start.
    #[must_use]
    pub fn counters(&self) -> &MessagingCounters {
        &self.counters
    }

    /// The rate limiter of all users. A task has to [`UserRateLimiter::run`].
    #[must_use]
    pub fn user_rates(&self) -> &Arc<UserRateLimiter> {
        &self.user_rates
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// True on a node that shares nothing with other nodes and has no authorization hook. Most use
    /// cases complete there without waiting.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.backplane.rate_limiter.is_none() && self.authorization_hook.is_none()
    }

    /// False while the backplane can't be reached: this node should receive no new work then.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.backplane.lifecycle.is_up()
    }

    /// The state of the archive; `None` on a node without a database.
    #[must_use]
    pub fn archive_status(&self) -> Option<ArchiveStatus> {
        self.backplane.log.archive_status()
    }

    /// Refuses at once while the backplane is known to be down. Otherwise each call would wait for
    /// its time-out.
    fn ready(&self) -> Result<(), Refusal> {
        if self.is_ready() {
            Ok(())
        } else {
            Err(BackplaneError::Unavailable("known to be down".to_owned()).into())
        }
    }

    /// The backplane's kind, as the health check reports it: `embedded` or `redis`.
    #[must_use]
    pub fn backplane_kind(&self) -> &'static str {
        self.backplane.lifecycle.kind().as_str()
    }
}
