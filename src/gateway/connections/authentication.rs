//! A connection's user: binding it, and notifying the client of it.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::connection::{Connection, stopping};
use super::{CloseReason, Connections, EndReason};
use crate::auth::Identity;
use crate::domain::{Code, Cost, Refusal, RoomId, RoomKind};
use crate::features::messaging::{ConnectionState, NewUser};
use crate::gateway::wire::{Authenticated, Exception, ServerEvent, to_json};

/// The time between two attempts to check the rights of a connection again.
const RECHECK_INTERVAL: Duration = Duration::from_secs(1);

impl Connection {
    /// Binds the connection to the user that its handshake identified.
    ///
    /// It runs in a task of its own, because the caller may be dropped before it is done: then the
    /// loss is processed after it and undoes it.
    ///
    /// # Errors
    /// `rate_limited`, `too_many_connections`, `unavailable`.
    pub async fn authenticate(self: &Arc<Self>, identity: Identity) -> Result<(), Refusal> {
        let this = self.clone();
        let bound = tokio::spawn(async move {
            let mut state = this.state.lock().await;
            if this.inbox.lock().is_closed() {
                // The loss may have been processed already. It would not be processed again.
                return Err(Refusal::new(Code::Unavailable, "the connection is gone"));
            }
            this.bind(&mut state, identity).await.map(drop)
        });
        bound.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// Binds the connection to a user, or replaces its user's name and rights. Returns the rooms
    /// that the connection had to leave, because the new rights do not cover them.
    pub(super) async fn bind(
        self: &Arc<Self>,
        state: &mut ConnectionState,
        identity: Identity,
    ) -> Result<Vec<RoomId>, Refusal> {
        let messaging = &self.connections.messaging;
        let users = &self.connections.users;
        let is_new = state.authenticated().is_err();
        if is_new {
            messaging
                .user_rates()
                .spend(&identity.user, Cost::CONNECT)
                .map_err(|exceeded| Refusal::rate_limited(exceeded, " of this user"))?;
        }
        // Inserted before the backplane counts the connection, so that a request to end the user's
        // connections never misses one that counts.
        users.insert(&identity.user, self.number, self);
        let new = NewUser {
            user: identity.user.clone(),
            username: identity.username.clone(),
            scope: identity.scope.clone(),
            has_account: identity.session.is_some(),
            is_admin: identity.is_admin(),
        };
        let authenticated = messaging.authenticate(state, new).await;
        let rooms_left = match authenticated {
            Ok(rooms_left) => rooms_left,
            Err(refusal) => {
                if is_new {
                    users.remove(&identity.user, self.number);
                }
                return Err(refusal);
            }
        };
        let session = identity.session;
        *self.identity.lock() = Some(identity);
        if let Some(session) = session
            && let Err(refusal) = self.follow_session(state, session).await
        {
            // The connection has its user's rights already, so it has to end.
            match refusal.code {
                Code::Unauthorized => self.disconnect(&refusal, EndReason::SessionEnded),
                _ => self.close_transport(CloseReason::Fault),
            }
            return Err(refusal);
        }
        self.transport.mark_authenticated();
        self.set_expiry_deadline();
        Ok(rooms_left)
    }

    /// Attaches the connection to its user's personal feed, which also tells the end of its session.
    async fn follow_session(
        &self,
        state: &mut ConnectionState,
        session: Uuid,
    ) -> Result<(), Refusal> {
        let Connections {
            messaging, auth, ..
        } = &*self.connections;
        messaging.hear_personal_feed(state).await?;
        // The session may have ended after the token was verified, and before the feed was heard.
        if auth.is_session_open(session).await? {
            return Ok(());
        }
        Err(session_ended())
    }

    /// Ends the connection if it belongs to that session, which has ended.
    pub(super) fn end_with_session(self: &Arc<Self>, session: Uuid) {
        let is_of_session = match &*self.identity.lock() {
            Some(identity) => identity.session == Some(session),
            None => false,
        };
        if is_of_session {
            self.disconnect(&session_ended(), EndReason::SessionEnded);
        }
    }

    /// Sends `authenticated` if the connection has a user.
    pub fn announce_identity(&self) {
        if let Some(identity) = self.identity() {
            self.send_authenticated(&identity);
        }
    }

    pub(super) fn send_authenticated(&self, identity: &Identity) {
        self.transport.send_event(
            ServerEvent::Authenticated,
            &to_json(&Authenticated::event(identity)),
        );
    }

    /// Ends the connection if its session has ended, and takes it out of a chat if its user is no member
    /// any more: the announcement of that may have been skipped, or is late. Waits until the database
    /// answers.
    pub(super) fn recheck(self: &Arc<Self>, room: RoomId) {
        let this = self.clone();
        tokio::spawn(async move {
            while let Err(refusal) = this.recheck_once(&room).await {
                if refusal.code != Code::Unavailable || this.inbox.lock().is_closed() {
                    return;
                }
                tokio::time::sleep(RECHECK_INTERVAL).await;
            }
        });
    }

    async fn recheck_once(self: &Arc<Self>, room: &RoomId) -> Result<(), Refusal> {
        let Connections {
            messaging,
            auth,
            rechecks,
            ..
        } = &*self.connections;
        // Without a session the connection has no account, and left its chats when it became so.
        let Some((user, session)) = self
            .identity()
            .and_then(|identity| Some((identity.user, identity.session?)))
        else {
            return Ok(());
        };
        let _turn = rechecks.acquire().await;
        if room.kind() == RoomKind::Chat {
            // The feed may not have heard of the removal.
            let trusts_feed = false;
            if messaging
                .stored_membership_of(&user, room, trusts_feed)
                .await?
                .is_none()
            {
                // Before anything waits for the state, which a request of the connection may hold for as
                // long as its replay takes.
                messaging.detach(&self.conn, room).await;
                self.remove_from(room.clone());
            }
            return Ok(());
        }
        if !auth.is_session_open(session).await? {
            self.end_with_session(session);
        }
        Ok(())
    }

    /// Takes the connection out of a chat that its user was removed from, and notifies the client. The
    /// room's feed has detached it already.
    pub(super) fn remove_from(self: &Arc<Self>, room: RoomId) {
        let this = self.clone();
        tokio::spawn(async move {
            let mut state = this.state.lock().await;
            if !this
                .connections
                .messaging
                .remove_from(&mut state, &room)
                .await
            {
                return;
            }
            let refusal = Refusal::new(Code::Forbidden, "you were removed from this chat");
            this.transport.send_event(
                ServerEvent::Exception,
                &to_json(&Exception::of(&refusal, None).about(&room)),
            );
        });
    }

    /// Notifies the client of a room that it left because its new token does not cover it.
    pub(super) fn send_room_left(&self, room: &RoomId) {
        let refusal = Refusal::new(
            Code::Forbidden,
            "the new token doesn't reach this room: you have left it",
        );
        self.transport.send_event(
            ServerEvent::Exception,
            &to_json(&Exception::of(&refusal, None).about(room)),
        );
    }
}

fn session_ended() -> Refusal {
    Refusal::new(Code::Unauthorized, "the session has ended: log in again")
}
