//! Sending messages.

use std::time::{Duration, Instant};

use super::{Appended, Commit, ConnectionState, Messaging};
use crate::domain::policy::{Action, Permit, Sending};
use crate::domain::{MessageFields, NewMessage, Refusal, RoomId, RoomKind, UserId, Username};
use crate::features::messages::{Mentions, not_configured};

/// How long a message waits for the ids of the users that it mentions. Then it is sent without them:
/// where messages are acknowledged without the database, a database that is away must not stop them.
const MENTIONS_TIMEOUT: Duration = Duration::from_millis(200);

impl Messaging {
    /// Sends a message in the name of the connection's user. Returns as soon as the message has its
    /// position; it may be acknowledged once its commit is done.
    ///
    /// # Errors
    /// `forbidden`, `bad_request`, `too_large`, `unavailable`, `overloaded`.
    pub async fn send(
        &self,
        connection: &ConnectionState,
        permit: Permit<Sending>,
        fields: MessageFields,
    ) -> Result<(Appended, Commit), Refusal> {
        let authenticated = connection.authenticated()?;
        let (user, username) = (&authenticated.user, &authenticated.username);
        self.authorize(Action::Send, user, permit.room()).await?;
        self.post(permit, user.clone(), username.clone(), fields)
            .await
    }

    /// As [`send`](Self::send), in the name of a user that is authenticated without a connection.
    ///
    /// # Errors
    /// `forbidden`, `bad_request`, `too_large`, `unavailable`, `overloaded`.
    pub async fn send_as(
        &self,
        user: UserId,
        username: Username,
        permit: Permit<Sending>,
        fields: MessageFields,
    ) -> Result<(Appended, Commit), Refusal> {
        self.authorize(Action::Send, &user, permit.room()).await?;
        self.post(permit, user, username, fields).await
    }

    /// As [`send`](Self::send), in the name of any user: for trusted services.
    ///
    /// # Errors
    /// `bad_request`, `too_large`, `unavailable`, `overloaded`.
    pub async fn post(
        &self,
        permit: Permit<Sending>,
        user: UserId,
        username: Username,
        fields: MessageFields,
    ) -> Result<(Appended, Commit), Refusal> {
        let has_thread = fields.thread.is_some();
        let mut mentions = Vec::new();
        if has_thread || (self.messages.is_some() && Mentions::are_possible(&fields.content)) {
            // From the heap: most messages need neither.
            mentions = Box::pin(self.check_references(&permit, &user, &fields)).await?;
        }
        let room = permit.into_room();
        let mut message = NewMessage::new(room, user, username, fields, &self.limits)?;
        message.mentions = mentions;
        if self.backplane.bus.is_lossless() {
            self.delivery.wait_for_capacity(&message.room).await;
        }
        self.ready()?;
        let key = message.client_msg_id.as_ref().map(|id| id.as_str());
        let began = Instant::now();
        let (appended, commit) = self.backplane.log.place(&message, key).await?;
        self.counters.append.observe(began.elapsed());
        if appended.duplicate {
            self.counters.duplicates.add(1);
        } else {
            self.counters.sent.add(1);
        }
        Ok((appended, commit))
    }

    /// Checks the thread that a message names, and finds the users that it mentions: none while the
    /// database is away or slow.
    ///
    /// # Errors
    /// `bad_request`, `not_found`, `message_deleted`, `not_configured`, `unavailable`.
    async fn check_references(
        &self,
        permit: &Permit<Sending>,
        user: &UserId,
        fields: &MessageFields,
    ) -> Result<Vec<UserId>, Refusal> {
        let messages = self.messages.as_ref().ok_or_else(not_configured)?;
        self.ready()?;
        if let Some(root) = fields.thread {
            self.check_root(&*messages.store, permit, root).await?;
        }
        if !Mentions::are_possible(&fields.content) || permit.room().kind() == RoomKind::Broadcast {
            return Ok(Vec::new());
        }
        let mentions = messages.mentions.of(permit, user, &fields.content);
        if self.archive_status().is_some_and(|status| !status.is_up) {
            self.counters.without_mentions.add(1);
            return Ok(Vec::new());
        }
        match tokio::time::timeout(MENTIONS_TIMEOUT, mentions).await {
            Ok(Ok(mentions)) => return Ok(mentions),
            Ok(Err(refusal)) => {
                tracing::debug!(room = %permit.room(), ?refusal, "a message is sent without its mentions");
            }
            Err(_) => {
                tracing::debug!(room = %permit.room(), "mentions were not found in time");
            }
        }
        self.counters.without_mentions.add(1);
        Ok(Vec::new())
    }

    /// Returns when every event of the room that had arrived before the call has been offered to
    /// the connections here, the sender's own included. A connection that sends many messages calls
    /// it now and then, so that the messages that come back don't overflow its outbox.
    pub async fn flush(&self, room: &RoomId) {
        self.delivery.flush(room).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt;

    use super::*;
    use crate::backplane::{BackplaneLimits, BusTopic, memory};
    use crate::delivery::{Delivery, DeliverySettings};
    use crate::domain::Limits;
    use crate::domain::policy::{self, Relation, RoomScope};

    #[tokio::test]
    async fn a_sender_waits_while_the_backlog_of_the_worker_is_full() {
        let backplane = memory::embedded(BackplaneLimits::default());
        let settings = DeliverySettings {
            backlog_bytes: 2000,
            ..DeliverySettings::default()
        };
        let delivery = Arc::new(Delivery::start(&backplane, &settings));
        let messaging = Messaging::new(backplane.clone(), delivery, Limits::default());
        let (room, user) = (RoomId::trusted("room"), UserId::trusted("ann"));
        backplane
            .bus
            .subscribe(&BusTopic::Room(room.clone()))
            .await
            .unwrap();
        let post = || {
            let permit =
                policy::may_send(&RoomScope::Everywhere, Relation::Service, &room, None).unwrap();
            let fields = MessageFields {
                content: "x".repeat(1000),
                ..MessageFields::default()
            };
            messaging.post(permit, user.clone(), Username::from(&user), fields)
        };
        // Nothing yields before the third message, so the worker delivers nothing until then.
        for _ in 0..2 {
            assert!(post().now_or_never().unwrap().is_ok());
        }
        assert!(post().now_or_never().is_none());
        assert_eq!(
            post().await.unwrap().0.seq,
            3,
            "the cancelled message was not sent"
        );
    }
}
