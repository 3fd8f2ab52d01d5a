//! The feed of one room: its subscription, its members on this node, and where they stand.
//!
//! The parts: [`messages`] keeps the log's order for all members, [`members`] lets one in, [`replay`] brings it to where the
//! feed is, from the [`tail`] or what [`reading`] brings, and [`changes`] keeps the order of comings and goings.

mod changes;
mod members;
mod messages;
mod reading;
mod replay;
mod tail;

use std::ops::ControlFlow;
use std::time::Duration;

use tokio::time::Instant;

use super::worker::Context;
use super::{Event, JoinRequest, SharedEvent};
use crate::backplane::{
    BackplaneError, BusTopic, Changes, Joined, Result, Roster, Slice, Typing, Window,
};
use crate::domain::{ConnId, Head, RoomChange, RoomId};
use changes::ChangeCursor;
use members::Members;
use messages::LogCursor;
use replay::Replays;

pub(super) use tail::Budget;

/// How long a feed without members stays subscribed: a member who comes back within it finds it in place.
const LINGER: Duration = Duration::from_secs(5);
/// How long to wait before a failed read is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// What a feed had asked for.
pub(crate) enum FeedEvent {
    Subscribed(Result<()>),
    Unsubscribed,
    Joined(JoinRequest, Result<Joined>),
    /// The log after the feed's cursor, and which read it was.
    CaughtUp(u64, Result<Slice>),
    CatchUpAgain(u64),
    /// A part of the log for replays, and which read it was.
    Read(u64, Result<Slice>),
    ReadAgain(u64),
    /// The member can take more; the number tells which of the connection's joins asked.
    Writable(ConnId, u64),
    /// What waited before the next turn of the replays has been handled.
    Turn,
    Changed(u64, Result<Changes<RoomChange>>),
    ChangesAgain(u64),
    /// The newest state; the number, if any, is that of the read of changes that it stands for.
    Roster(Option<u64>, Result<Roster>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subscription {
    Pending,
    Live,
    Ending,
}

pub(crate) struct RoomFeed {
    room: RoomId,
    subscription: Subscription,
    /// Joins that wait for the subscription.
    waiting: Vec<JoinRequest>,
    /// Joins that the backplane has been asked for.
    joining: usize,
    idle_since: Option<Instant>,
    members: Members,
    log: LogCursor,
    replays: Replays,
    changes: ChangeCursor,
}

impl RoomFeed {
    pub fn new(context: &Context, room: RoomId) -> Self {
        let feed = Self {
            room,
            subscription: Subscription::Pending,
            waiting: Vec::new(),
            joining: 0,
            idle_since: None,
            members: Members::default(),
            log: LogCursor::default(),
            replays: Replays::default(),
            changes: ChangeCursor::default(),
        };
        feed.subscribe(context);
        feed
    }

    fn subscribe(&self, context: &Context) {
        let (bus, topic) = (
            context.backplane.bus.clone(),
            BusTopic::Room(self.room.clone()),
        );
        context.ask_room(&self.room, async move {
            FeedEvent::Subscribed(bus.subscribe(&topic).await)
        });
    }

    /// Joins go to the backplane only once the subscription is live: so nothing can fall between the two.
    pub fn join(&mut self, context: &mut Context, request: JoinRequest) {
        self.idle_since = None;
        if self.subscription != Subscription::Live {
            self.waiting.push(request);
            return;
        }
        self.joining += 1;
        let (presence, log) = (
            context.backplane.presence.clone(),
            context.backplane.log.clone(),
        );
        context.ask_room(&self.room, async move {
            let (conn, user) = (request.outlet.conn(), request.outlet.user());
            let joined = match &request.member {
                Some(username) => presence.join(conn, user, username, &request.room).await,
                // Only where the log ends is asked for; it gives one message, if it has any.
                None => log
                    .read(&request.room, Window::Newest, 1, 1)
                    .await
                    .map(|slice| Joined::listening(slice.span)),
            };
            FeedEvent::Joined(request, joined)
        });
    }

    pub fn leave(&mut self, context: &mut Context, conn: &ConnId) {
        self.members.remove(conn);
        self.look_idle(context);
    }

    fn look_idle(&mut self, context: &mut Context) {
        let idle = self.members.is_empty() && self.joining == 0 && self.waiting.is_empty();
        if idle && self.idle_since.is_none() {
            let now = Instant::now();
            self.idle_since = Some(now);
            context.call_at(now + LINGER, &self.room);
        }
    }

    pub fn on_due(&mut self, context: &mut Context, now: Instant) {
        self.on_roster_due(context, now);
        self.on_replays_due(context, now);
        let idle = self.idle_since.is_some_and(|since| now >= since + LINGER);
        if idle && self.subscription == Subscription::Live {
            self.subscription = Subscription::Ending;
            let (bus, topic) = (
                context.backplane.bus.clone(),
                BusTopic::Room(self.room.clone()),
            );
            context.ask_room(&self.room, async move {
                bus.unsubscribe(&topic).await;
                FeedEvent::Unsubscribed
            });
        }
    }

    /// Break: the feed has nobody left and can go.
    pub fn on_answer(&mut self, context: &mut Context, answer: FeedEvent) -> ControlFlow<()> {
        match answer {
            FeedEvent::Subscribed(Ok(())) => {
                self.subscription = Subscription::Live;
                for request in std::mem::take(&mut self.waiting) {
                    self.join(context, request);
                }
                self.look_idle(context);
            }
            FeedEvent::Subscribed(Err(error)) => {
                self.refuse_waiting(&error);
                return ControlFlow::Break(());
            }
            FeedEvent::Unsubscribed => {
                if self.waiting.is_empty() {
                    return ControlFlow::Break(());
                }
                // Someone came meanwhile: begin anew, as nothing that arrived before is connected to what comes.
                self.log = LogCursor::default();
                self.replays = Replays::default();
                self.changes = ChangeCursor::default();
                self.subscription = Subscription::Pending;
                self.subscribe(context);
            }
            FeedEvent::Joined(request, joined) => {
                self.joining -= 1;
                match joined {
                    Ok(joined) => self.attach(context, request, joined),
                    Err(error) => drop(request.accepted.send(Err(error))),
                }
                self.look_idle(context);
            }
            FeedEvent::CaughtUp(ticket, slice) => self.on_caught_up(context, ticket, slice),
            FeedEvent::CatchUpAgain(ticket) => self.on_catch_up_again(context, ticket),
            FeedEvent::Read(ticket, slice) => self.on_read(context, ticket, slice),
            FeedEvent::ReadAgain(ticket) => self.on_read_again(context, ticket),
            FeedEvent::Turn => self.on_turn(context),
            FeedEvent::Writable(conn, ticket) => self.on_writable(context, &conn, ticket),
            FeedEvent::Changed(ticket, changes) => self.on_changes(context, ticket, changes),
            FeedEvent::ChangesAgain(ticket) => self.on_changes_again(context, ticket),
            FeedEvent::Roster(ticket, roster) => self.on_roster(context, ticket, roster),
        }
        ControlFlow::Continue(())
    }

    fn refuse_waiting(&mut self, error: &BackplaneError) {
        for request in self.waiting.drain(..) {
            let _ = request.accepted.send(Err(error.clone()));
        }
    }

    pub fn on_interrupted(&mut self, context: &mut Context) {
        self.catch_up(context);
        self.catch_up_changes(context);
    }

    /// Typing is told to whoever is live; who is being replayed to will not miss it.
    pub fn on_typing(&self, typing: Typing) {
        let user = typing.user.clone();
        let shared = SharedEvent::new(Event::Typing(typing));
        for member in self
            .members
            .live()
            .filter(|member| *member.outlet.user() != user)
        {
            member.outlet.deliver(&shared);
        }
    }

    /// Where the feed stands, once it knows.
    pub fn head(&self) -> Option<Head> {
        self.log.at.clone()
    }

    /// The last change of membership that was seen, once one is known.
    pub fn version(&self) -> Option<u64> {
        self.changes.version
    }
}
