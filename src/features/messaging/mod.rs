//! The use cases: one place for each rule, whichever door a request came in by.

mod connection_state;
mod disconnect;
mod history;
mod metrics;
mod user_rates;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use async_trait::async_trait;

use crate::backplane::{Backplane, BackplaneError, Typing};
use crate::delivery::{Delivery, JoinOutcome, Outlet, ReplayFrom};
use crate::domain::policy::{Action, Joining, Listening, Permit, Reading, RoomScope, Sending};
use crate::domain::{
    Code, Limits, MessageFields, NewMessage, OnlineStatus, Refusal, RoomId, UserId, Username,
};
use crate::telemetry::meter::{Counter, Histogram};

pub use crate::backplane::{Appended, OccupantPage};
pub use connection_state::{AuthenticatedUser, ConnectionState};
pub use disconnect::Disconnected;
pub use history::{HistoryPage, HistoryWindow};
pub use user_rates::UserRateLimiter;

/// What the use cases count.
#[derive(Debug, Default)]
pub struct ChatCounters {
    /// Messages that got a place.
    pub sent: Counter,
    /// Sends that were repeats.
    pub duplicates: Counter,
    /// Joins that were answered.
    pub joins: Counter,
    /// Seconds that the backplane took to give a message its place.
    pub append: Histogram,
}

/// Someone outside who has a say, too, in what users do. Services aren't asked about.
#[async_trait]
pub trait AuthorizationHook: Send + Sync {
    /// Whether the user may do that in the room.
    ///
    /// # Errors
    /// `forbidden`; `unavailable` when nobody can say.
    async fn given(&self, action: Action, user: &UserId, room: &RoomId) -> Result<(), Refusal>;
}

/// Messaging as its doors see it.
pub struct Messaging {
    backplane: Backplane,
    delivery: Arc<Delivery>,
    limits: Limits,
    consent: Option<Box<dyn AuthorizationHook>>,
    user_rates: UserRateLimiter,
    counters: ChatCounters,
}

/// Told once how a join went, before anything of the room reaches the outlet.
pub type JoinReply = Box<dyn FnOnce(Result<JoinOutcome, Refusal>) + Send>;

/// Told once a watched user's status, before it is delivered.
pub type WatchReply = Box<dyn FnOnce(Result<&OnlineStatus, Refusal>) + Send>;

impl From<BackplaneError> for Refusal {
    fn from(error: BackplaneError) -> Self {
        match error {
            BackplaneError::Unavailable(_) => Self::new(Code::Unavailable, "try again in a moment"),
            BackplaneError::Full => {
                Self::new(Code::Overloaded, "this node holds as many rooms as it may")
            }
            BackplaneError::TooManyConnections => Self::new(
                Code::TooManyConnections,
                "this user has as many connections as one may have",
            ),
            BackplaneError::Broken(what) => {
                tracing::error!(what, "the backplane answered nonsense");
                Self::new(Code::Internal, "a fault of the server")
            }
        }
    }
}

impl Messaging {
    /// Messaging on that backplane and those feeds.
    #[must_use]
    pub fn new(backplane: Backplane, delivery: Arc<Delivery>, limits: Limits) -> Self {
        let user_rates = UserRateLimiter::new(limits.user, backplane.rate_limiter.clone());
        Self {
            backplane,
            delivery,
            limits,
            consent: None,
            user_rates,
            counters: ChatCounters::default(),
        }
    }

    /// The same, where someone else has a say.
    #[must_use]
    pub fn with_authorization_hook(mut self, consent: Box<dyn AuthorizationHook>) -> Self {
        self.consent = Some(consent);
        self
    }

    async fn consent(&self, action: Action, user: &UserId, room: &RoomId) -> Result<(), Refusal> {
        match &self.consent {
            Some(consent) => consent.given(action, user, room).await,
            None => Ok(()),
        }
    }

    /// What has been counted.
    #[must_use]
    pub fn counters(&self) -> &ChatCounters {
        &self.counters
    }

    /// What users may spend. Someone has to [`UserRateLimiter::keep_telling`].
    #[must_use]
    pub fn user_rates(&self) -> &UserRateLimiter {
        &self.user_rates
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether nobody else is asked about what users do: then most of it is done without waiting.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.backplane.rate_limiter.is_none() && self.consent.is_none()
    }

    /// False while the backplane can't be reached: this node should not be sent new work.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.backplane.lifecycle.is_up()
    }

    /// A backplane that is known to be away isn't asked: each request would wait for its time-out.
    fn ready(&self) -> Result<(), Refusal> {
        if self.is_ready() {
            Ok(())
        } else {
            Err(BackplaneError::Unavailable("known to be down".to_owned()).into())
        }
    }

    /// `embedded` or `redis`.
    #[must_use]
    pub fn backplane_kind(&self) -> &'static str {
        if self.backplane.lifecycle.describe().starts_with("redis") {
            "redis"
        } else {
            "embedded"
        }
    }

    /// Binds the session to its user, or (again, for the same user) renames it and sets its reach anew. Takes it out of the rooms
    /// that it no longer reaches, and returns those: nothing of them reaches it after the call.
    ///
    /// # Errors
    /// `already_authenticated` for another user, `too_many_connections`, `unavailable`.
    pub async fn authenticate(
        &self,
        session: &mut ConnectionState,
        user: UserId,
        username: Username,
        reach: RoomScope,
    ) -> Result<Vec<RoomId>, Refusal> {
        if session
            .member
            .as_ref()
            .is_some_and(|member| member.user != user)
        {
            return Err(Refusal::new(
                Code::AlreadyAuthenticated,
                "this connection belongs to another user",
            ));
        }
        self.ready()?;
        // Also under the same name again: another connection may have given the user another one meanwhile.
        self.backplane
            .presence
            .connect(&session.conn, &user, &username)
            .await?;
        let (mut left, lost): (Vec<RoomId>, Vec<RoomId>) = (Vec::new(), session.beyond(&reach));
        session.bind(user.clone(), username, reach);
        for room in lost {
            // Not the other way round: whether or not the backplane can be told, nothing more is heard of the room.
            self.delivery.leave(&room, &session.conn).await;
            let was_in = if self
                .backplane
                .presence
                .leave(&session.conn, &user, &room)
                .await
                .is_ok()
            {
                session.rooms.remove(&room)
            } else {
                // The backplane may still count it there: it is told when the connection is lost.
                session.rooms.insert(room.clone(), false)
            };
            left.extend(was_in.unwrap_or(false).then_some(room));
        }
        if session.listens
            && let Err(_) = session.may_listen()
        {
            left.extend(self.end_listening(session).await);
        }
        Ok(left)
    }

    /// Puts the session into the room, as [`Delivery::join`]; returns when the replay is over.
    pub async fn join(
        &self,
        session: &mut ConnectionState,
        permit: Permit<Joining>,
        start: ReplayFrom,
        reply: JoinReply,
    ) {
        let room = permit.into_room();
        let member = match self.ready().and_then(|()| session.member()) {
            Ok(member) => member.clone(),
            Err(refusal) => return reply(Err(refusal)),
        };
        let sure = session.rooms.values().filter(|sure| **sure).count();
        let most = self.limits.rooms_per_socket;
        // Joins that failed are remembered, too, and not without bound.
        if session.rooms.get(&room) != Some(&true)
            && (sure >= most || session.rooms.len() >= 4 * most)
        {
            let text = format!("a connection may be in at most {most} rooms");
            return reply(Err(Refusal::new(Code::TooManyRooms, text)));
        }
        if let Err(refusal) = self.consent(Action::Join, &member.user, &room).await {
            return reply(Err(refusal));
        }
        // Until the answer is known the backplane may or may not count this connection: so it is to be told of its loss.
        session.rooms.entry(room.clone()).or_insert(false);
        let joined = Arc::new(AtomicBool::new(false));
        let note = joined.clone();
        let tell = Box::new(move |outcome: Result<JoinOutcome, BackplaneError>| {
            note.store(outcome.is_ok(), Ordering::Release);
            reply(outcome.map_err(Refusal::from));
        });
        self.delivery
            .join(room.clone(), member.outlet, member.username, start, tell)
            .await;
        if joined.load(Ordering::Acquire) {
            self.counters.joins.add(1);
            session.rooms.insert(room, true);
        }
    }

    /// Lets the outlet hear broadcasts, as [`Delivery::listen`]; returns when the replay is over. It is told until the session
    /// is lost.
    pub async fn listen(
        &self,
        session: &mut ConnectionState,
        permit: Permit<Listening>,
        outlet: Arc<dyn Outlet>,
        start: ReplayFrom,
        reply: JoinReply,
    ) {
        if let Err(refusal) = self.ready() {
            return reply(Err(refusal));
        }
        session.listens = true;
        let tell = Box::new(move |outcome: Result<JoinOutcome, BackplaneError>| {
            reply(outcome.map_err(Refusal::from))
        });
        self.delivery
            .listen(permit.into_room(), outlet, start, tell)
            .await;
    }

    /// Nothing of the broadcasts reaches the session after the call. Returns their room.
    async fn end_listening(&self, session: &mut ConnectionState) -> Option<RoomId> {
        let room = RoomId::broadcast();
        if !std::mem::take(&mut session.listens) {
            return None;
        }
        self.delivery.leave(&room, &session.conn).await;
        Some(room)
    }

    /// Takes the session out of the room. Nothing of the room reaches it after the call.
    ///
    /// # Errors
    /// `not_in_room`, `unavailable` (it is still in the room then).
    pub async fn leave(&self, session: &mut ConnectionState, room: &RoomId) -> Result<(), Refusal> {
        let user = session.member()?.user.clone();
        // A join whose answer never came may have happened: it can be left, too.
        if !session.rooms.contains_key(room) {
            return Err(Refusal::new(Code::NotInRoom, "join the room first"));
        }
        self.ready()?;
        self.backplane
            .presence
            .leave(&session.conn, &user, room)
            .await?;
        self.delivery.leave(room, &session.conn).await;
        session.rooms.remove(room);
        Ok(())
    }

    /// Sends a message in the name of the session's user.
    ///
    /// # Errors
    /// `forbidden`, `bad_request`, `too_large`, `unavailable`, `overloaded`.
    pub async fn send(
        &self,
        session: &ConnectionState,
        permit: Permit<Sending>,
        fields: MessageFields,
    ) -> Result<Appended, Refusal> {
        let member = session.member()?;
        self.consent(Action::Send, &member.user, permit.room())
            .await?;
        self.post(permit, member.user.clone(), member.username.clone(), fields)
            .await
    }

    /// Returns when what had arrived of the room before the call has been handed to the members here, the sender among
    /// them: who sends much must not be overrun by what comes back.
    pub async fn settle(&self, room: &RoomId) {
        self.delivery.settle(room).await;
    }

    /// Sends a message in any user's name: for trusted services.
    ///
    /// # Errors
    /// `bad_request`, `too_large`, `unavailable`, `overloaded`.
    pub async fn post(
        &self,
        permit: Permit<Sending>,
        user: UserId,
        username: Username,
        fields: MessageFields,
    ) -> Result<Appended, Refusal> {
        let draft = NewMessage::new(permit.into_room(), user, username, fields, &self.limits)?;
        if self.backplane.bus.is_lossless() {
            self.delivery.keep_pace(&draft.room).await;
        }
        self.ready()?;
        let key = draft.client_msg_id.as_ref().map(|id| id.as_str());
        let began = Instant::now();
        let appended = self.backplane.log.append(&draft, key).await?;
        self.counters.append.observe(began.elapsed());
        if appended.duplicate {
            self.counters.duplicates.add(1);
        } else {
            self.counters.sent.add(1);
        }
        Ok(appended)
    }

    /// Tells the room's other members that the session's user types, or has stopped.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn typing(
        &self,
        session: &ConnectionState,
        permit: Permit<Sending>,
        typing: bool,
    ) -> Result<(), Refusal> {
        let member = session.member()?;
        let (user, username) = (member.user.clone(), member.username.clone());
        self.ready()?;
        self.backplane
            .bus
            .publish_typing(&Typing {
                room: permit.into_room(),
                user,
                username,
                typing,
            })
            .await?;
        Ok(())
    }

    /// Watches a user: `reply` first, then the current state, then every change.
    pub async fn watch(&self, session: &mut ConnectionState, target: UserId, reply: WatchReply) {
        let outlet = match self.ready().and_then(|()| session.member()) {
            Ok(member) => member.outlet.clone(),
            Err(refusal) => return reply(Err(refusal)),
        };
        if !session.watched.contains(&target)
            && session.watched.len() >= self.limits.status_subscriptions
        {
            let text = format!(
                "a connection may watch at most {} users",
                self.limits.status_subscriptions
            );
            return reply(Err(Refusal::new(Code::TooManySubscriptions, text)));
        }
        let new = session.watched.insert(target.clone());
        let failed = Arc::new(AtomicBool::new(false));
        let note = failed.clone();
        let tell = Box::new(move |status: Result<&OnlineStatus, BackplaneError>| {
            note.store(status.is_err(), Ordering::Release);
            reply(status.map_err(Refusal::from));
        });
        self.delivery.watch(target.clone(), outlet, tell).await;
        // One that was watched before is still watched.
        if new && failed.load(Ordering::Acquire) {
            session.watched.remove(&target);
        }
    }

    /// Ends watching a user; not having watched is no fault.
    ///
    /// # Errors
    /// `unauthorized`.
    pub async fn unwatch(
        &self,
        session: &mut ConnectionState,
        target: &UserId,
    ) -> Result<(), Refusal> {
        session.member()?;
        if session.watched.remove(target) {
            self.delivery.unwatch(target, &session.conn).await;
        }
        Ok(())
    }

    /// The connection is lost: nothing reaches it any more, and its graces begin.
    pub async fn lost(&self, session: &mut ConnectionState) {
        let Some(member) = session.member.take() else {
            return;
        };
        self.end_listening(session).await;
        for user in session.watched.drain() {
            self.delivery.unwatch(&user, &session.conn).await;
        }
        let rooms: Vec<RoomId> = session.rooms.drain().map(|(room, _)| room).collect();
        for room in &rooms {
            self.delivery.leave(room, &session.conn).await;
        }
        self.backplane
            .presence
            .lost(&session.conn, &member.user, &rooms)
            .await;
    }

    /// A page of a room's members.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn members(
        &self,
        permit: &Permit<Reading>,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<OccupantPage, Refusal> {
        self.ready()?;
        Ok(self
            .backplane
            .presence
            .members(permit.room(), after, limit)
            .await?)
    }

    /// Whether the user is in the room now.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn is_occupant(&self, room: &RoomId, user: &UserId) -> Result<bool, Refusal> {
        self.ready()?;
        Ok(self.backplane.presence.is_occupant(room, user).await?)
    }

    /// Whether the user is online.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn status(&self, user: &UserId) -> Result<OnlineStatus, Refusal> {
        self.ready()?;
        Ok(self.backplane.presence.status(user).await?)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::backplane::{BackplaneLimits, BusTopic, memory};
    use crate::delivery::DeliverySettings;
    use crate::domain::policy::{self, Relation};

    #[tokio::test]
    async fn who_sends_waits_for_who_hands_on() {
        let backplane = memory::embedded(BackplaneLimits::default());
        let settings = DeliverySettings {
            ahead_bytes: 2000,
            ..DeliverySettings::default()
        };
        let delivery = Arc::new(Delivery::start(&backplane, &settings));
        let chat = Messaging::new(backplane.clone(), delivery, Limits::default());
        let (room, user) = (RoomId::trusted("room"), UserId::trusted("ann"));
        backplane
            .bus
            .subscribe(&BusTopic::Room(room.clone()))
            .await
            .unwrap();
        let post = || {
            let permit =
                policy::may_send(&RoomScope::Everywhere, Relation::Service, &room).unwrap();
            let fields = MessageFields {
                content: "x".repeat(1000),
                ..MessageFields::default()
            };
            chat.post(permit, user.clone(), Username::from(&user), fields)
        };
        // Nothing here waits before that, so the worker has had no turn.
        for _ in 0..2 {
            assert!(post().now_or_never().unwrap().is_ok());
        }
        assert!(post().now_or_never().is_none());
        assert_eq!(
            post().await.unwrap().seq,
            3,
            "the one that was given up was not sent"
        );
    }
}
