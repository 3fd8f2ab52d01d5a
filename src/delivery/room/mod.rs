//! The feed of a room: its subscription, its connections on this node, and their positions in the
//! room's log.
//!
//! [`messages`] keeps the order of the log for all connections. [`attach`] adds a connection to the
//! [`occupants`], and [`replay`] brings it to the feed's position, with messages from the [`tail`]
//! or from the log ([`replay_reads`]). [`changes`] keeps the order of joins and leaves, which
//! [`roster`] replaces by lists where necessary.

mod attach;
mod changes;
mod changes_during_read;
mod messages;
mod occupants;
mod replay;
mod replay_reads;
mod roster;
mod tail;

use std::ops::ControlFlow;
use std::time::Duration;

use tokio::time::Instant;

use super::context::Context;
use super::feed::Subscription;
use super::requests::JoinRequest;
use super::{Event, SharedEvent};
use crate::backplane::{
    Changes, Joined, ReadReceipt, ReceiptAudience, Result, Roster, Slice, Typing, Window,
};
use crate::domain::{ConnId, Head, RoomChange, RoomId};
use changes::ChangeCursor;
use messages::LogCursor;
use occupants::Occupants;
use replay::Replays;
use roster::RosterPurpose;

pub(super) use tail::TailBudget;

/// How long a feed without connections stays subscribed. A connection that comes back within this
/// time finds it in place.
const LINGER: Duration = Duration::from_secs(5);

/// The results of the tasks that a feed starts. A number is the ticket of the read or wait that it
/// answers.
pub(super) enum FeedEvent {
    Subscribed(Result<()>),
    Unsubscribed,
    Joined(JoinRequest, Result<Joined>),
    /// The log after the feed's position.
    CaughtUp(u64, Result<Slice>),
    RetryCatchUp(u64),
    /// A part of the log for replays.
    ReplayRead(u64, Result<Slice>),
    RetryReplayReads,
    /// The connection's outlet has capacity again; the ticket is that of its join.
    Writable(ConnId, u64),
    /// The commands that were queued before the next slice of replays have been processed, so the
    /// slice may begin.
    NextSlice,
    /// The changes after the feed's version.
    Changes(u64, Result<Changes<RoomChange>>),
    RetryChanges(u64),
    /// The room's current occupants.
    Roster(RosterPurpose, Result<Roster>),
}

pub(super) struct RoomFeed {
    room: RoomId,
    subscription: Subscription<JoinRequest>,
    /// The number of joins that wait for an answer of the backplane.
    joining: usize,
    idle_since: Option<Instant>,
    occupants: Occupants,
    log: LogCursor,
    replays: Replays,
    changes: ChangeCursor,
}

impl RoomFeed {
    pub fn new(context: &Context, room: RoomId) -> Self {
        context.subscribe(&room, FeedEvent::Subscribed);
        Self {
            room,
            subscription: Subscription::Pending(Vec::new()),
            joining: 0,
            idle_since: None,
            occupants: Occupants::default(),
            log: LogCursor::default(),
            replays: Replays::default(),
            changes: ChangeCursor::default(),
        }
    }

    pub fn join(&mut self, context: &mut Context, request: JoinRequest) {
        self.idle_since = None;
        let Some(request) = self.subscription.admit(request) else {
            return;
        };
        self.joining += 1;
        let (presence, log) = (
            context.backplane.presence.clone(),
            context.backplane.log.clone(),
        );
        context.spawn(&self.room, async move {
            let (conn, user) = (request.outlet.conn(), request.outlet.user());
            let mut joined = match &request.username {
                Some(username) => presence.join(conn, user, username, &request.room).await,
                // Only the log's end is needed. A read returns at least one message, if there is
                // one.
                None => log
                    .read(&request.room, Window::Newest, 1, 1)
                    .await
                    .map(|slice| Joined::listening(slice.span)),
            };
            if let Ok(joined) = &mut joined
                && attach::needs_archive(&request.start, &joined.span)
            {
                let seen = request.start.epoch();
                joined.span = log.reach(&request.room, joined.span.clone(), seen).await;
            }
            FeedEvent::Joined(request, joined)
        });
    }

    pub fn leave(&mut self, context: &mut Context, conn: &ConnId) {
        self.occupants.remove(conn);
        self.linger_if_idle(context);
    }

    fn linger_if_idle(&mut self, context: &mut Context) {
        let is_idle = self.occupants.is_empty() && self.joining == 0 && self.subscription.is_live();
        if is_idle && self.idle_since.is_none() {
            let now = Instant::now();
            self.idle_since = Some(now);
            context.call_at(now + LINGER, &self.room);
        }
    }

    pub fn on_timer(&mut self, context: &mut Context, now: Instant) {
        self.on_roster_timer(context, now);
        self.on_replay_timer(context, now);
        let is_idle = self.idle_since.is_some_and(|since| now >= since + LINGER);
        if is_idle && self.subscription.is_live() {
            self.subscription.end();
            context.queues().chat_feeds.end(&self.room);
            context.unsubscribe(&self.room, FeedEvent::Unsubscribed);
        }
    }

    /// `Break`: the feed has ended and is to be removed.
    pub fn on_event(&mut self, context: &mut Context, event: FeedEvent) -> ControlFlow<()> {
        match event {
            FeedEvent::Subscribed(Ok(())) => {
                for request in self.subscription.confirm() {
                    self.join(context, request);
                }
                self.linger_if_idle(context);
            }
            FeedEvent::Subscribed(Err(error)) => {
                for request in self.subscription.confirm() {
                    let _ = request.accepted.send(Err(error.clone()));
                }
                return ControlFlow::Break(());
            }
            FeedEvent::Unsubscribed => {
                if !self.subscription.restart() {
                    return ControlFlow::Break(());
                }
                // The feed begins anew, as events may be missing between those before the new
                // subscription and after it.
                self.log = LogCursor::default();
                self.replays = Replays::default();
                self.changes = ChangeCursor::default();
                context.subscribe(&self.room, FeedEvent::Subscribed);
            }
            FeedEvent::Joined(request, joined) => {
                self.joining -= 1;
                match joined {
                    Ok(joined) => self.attach(context, request, joined),
                    Err(error) => drop(request.accepted.send(Err(error))),
                }
                self.linger_if_idle(context);
            }
            FeedEvent::CaughtUp(ticket, slice) => self.on_caught_up(context, ticket, slice),
            FeedEvent::RetryCatchUp(ticket) => self.retry_catch_up(context, ticket),
            FeedEvent::ReplayRead(ticket, slice) => self.on_replay_read(context, ticket, slice),
            FeedEvent::RetryReplayReads => self.retry_replay_reads(context),
            FeedEvent::NextSlice => self.replay_slice(context),
            FeedEvent::Writable(conn, ticket) => self.on_writable(context, &conn, ticket),
            FeedEvent::Changes(ticket, changes) => self.on_changes(context, ticket, changes),
            FeedEvent::RetryChanges(ticket) => self.retry_changes(context, ticket),
            FeedEvent::Roster(purpose, roster) => self.on_roster(context, purpose, roster),
        }
        ControlFlow::Continue(())
    }

    pub fn on_interrupted(&mut self, context: &mut Context) {
        self.catch_up(context);
        self.catch_up_changes(context);
    }

    /// Delivers a typing event to every live connection of other users. A connection that is still
    /// being replayed to doesn't need it.
    pub fn on_typing(&self, typing: Typing) {
        let user = typing.user.clone();
        let shared = SharedEvent::new(Event::Typing(typing));
        for occupant in self.occupants.live() {
            if *occupant.outlet.user() != user {
                occupant.outlet.deliver(&shared);
            }
        }
    }

    /// Delivers a read receipt to every live connection that it is for: of other users, or of the user.
    pub fn on_receipt(&self, receipt: ReadReceipt) {
        let user = receipt.user.clone();
        let is_for_others = receipt.audience == ReceiptAudience::Others;
        let shared = SharedEvent::new(Event::Receipt(receipt));
        for occupant in self.occupants.live() {
            let is_other = *occupant.outlet.user() != user;
            if is_other == is_for_others {
                occupant.outlet.deliver(&shared);
            }
        }
    }

    /// The feed's position in the log, once it is known.
    pub fn head(&self) -> Option<Head> {
        self.log.position().cloned()
    }

    /// The version of the last change of occupants that was seen, once one is known.
    pub fn version(&self) -> Option<u64> {
        self.changes.version()
    }
}
