//! The feed of a watched user: delivers every change of status to each watcher, once and in order.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::context::Context;
use super::feed::{Cursor, Subscription};
use super::requests::WatchRequest;
use super::{Event, Outlet, SharedEvent};
use crate::backplane::{Changes, Result};
use crate::domain::{ConnId, OnlineStatus, UserId};

/// The most changes to hold while the feed reads.
const MAX_HELD_CHANGES: usize = 256;

/// The results of the tasks that a feed starts. The number is the ticket of the read.
pub(super) enum FeedEvent {
    Subscribed(Result<()>),
    Unsubscribed,
    /// The status for a new watcher.
    Watched(WatchRequest, Result<OnlineStatus>),
    /// The changes that a catch-up has read.
    Changes(u64, Result<Changes<OnlineStatus>>),
    /// The newest status, read by a catch-up because the changes were no longer kept.
    Newest(u64, Result<OnlineStatus>),
    RetryCatchUp(u64),
}

struct Watcher {
    outlet: Arc<dyn Outlet>,
    /// The version of the last status that was delivered to it.
    version: u64,
}

pub(super) struct UserFeed {
    user: UserId,
    subscription: Subscription<WatchRequest>,
    /// The number of watchers that wait for their first status.
    attaching: usize,
    watchers: HashMap<ConnId, Watcher>,
    /// The newest status seen; the first watcher's read makes it known.
    cursor: Cursor<OnlineStatus, OnlineStatus>,
}

impl UserFeed {
    pub fn new(context: &Context, user: UserId) -> Self {
        context.subscribe(&user, FeedEvent::Subscribed);
        Self {
            user,
            subscription: Subscription::Pending(Vec::new()),
            attaching: 0,
            watchers: HashMap::new(),
            cursor: Cursor::new(MAX_HELD_CHANGES),
        }
    }

    pub fn watch(&mut self, context: &mut Context, request: WatchRequest) {
        let Some(request) = self.subscription.admit(request) else {
            return;
        };
        self.attaching += 1;
        let (presence, user) = (context.backplane.presence.clone(), self.user.clone());
        context.read(&self.user, async move {
            FeedEvent::Watched(request, presence.status(&user).await)
        });
    }

    pub fn unwatch(&mut self, context: &mut Context, conn: &ConnId) {
        self.watchers.remove(conn);
        self.end_if_idle(context);
    }

    fn end_if_idle(&mut self, context: &mut Context) {
        if self.watchers.is_empty() && self.attaching == 0 && self.subscription.is_live() {
            self.subscription.end();
            context.unsubscribe(&self.user, FeedEvent::Unsubscribed);
        }
    }

    /// `Break`: the feed has ended and is to be removed.
    pub fn on_event(&mut self, context: &mut Context, event: FeedEvent) -> ControlFlow<()> {
        match event {
            FeedEvent::Subscribed(Ok(())) => {
                for request in self.subscription.confirm() {
                    self.watch(context, request);
                }
                self.end_if_idle(context);
            }
            FeedEvent::Subscribed(Err(error)) => {
                for request in self.subscription.confirm() {
                    let _ = request.done.send(Err(error.clone()));
                }
                return ControlFlow::Break(());
            }
            FeedEvent::Unsubscribed => {
                if !self.subscription.restart() {
                    return ControlFlow::Break(());
                }
                self.cursor = Cursor::new(MAX_HELD_CHANGES);
                context.subscribe(&self.user, FeedEvent::Subscribed);
            }
            FeedEvent::Watched(request, status) => {
                self.attaching -= 1;
                match status {
                    Ok(status) => self.attach(context, request, status),
                    Err(error) => drop(request.done.send(Err(error))),
                }
                self.end_if_idle(context);
            }
            FeedEvent::Changes(ticket, changes) => self.on_changes(context, ticket, changes),
            FeedEvent::Newest(ticket, status) => self.on_newest(context, ticket, status),
            FeedEvent::RetryCatchUp(ticket) => {
                if self.cursor.awaits(ticket) {
                    self.cursor.finish_read();
                    self.catch_up(context);
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn attach(&mut self, context: &mut Context, request: WatchRequest, read: OnlineStatus) {
        // The feed may have seen a newer status than was read beside it.
        let status = match self.cursor.position() {
            Some(last) if last.version > read.version => last.clone(),
            _ => read,
        };
        (request.on_watched)(&status);
        request
            .outlet
            .deliver(&SharedEvent::new(Event::OnlineStatus {
                status: status.clone(),
                initial: true,
            }));
        let watcher = Watcher {
            outlet: request.outlet,
            version: status.version,
        };
        self.watchers.insert(watcher.outlet.conn().clone(), watcher);
        // After the delivery: when `Delivery::watch` returns, the outlet has the current status.
        let _ = request.done.send(Ok(()));
        if self.cursor.position().is_none() {
            self.cursor.set_position(status);
            self.apply_held(context);
        }
    }

    pub fn on_change(&mut self, context: &mut Context, status: OnlineStatus) {
        let Some(last) = self.cursor.ready() else {
            self.cursor.hold(status);
            return;
        };
        if status.version > last.version && status.previous != last.version {
            self.cursor.hold(status);
            self.catch_up(context);
        } else {
            self.notify(status);
        }
    }

    /// Delivers the status to each watcher that hasn't received it, or a newer one, yet.
    fn notify(&mut self, status: OnlineStatus) {
        let version = status.version;
        if let Some(last) = self.cursor.position()
            && last.version >= version
        {
            return;
        }
        let shared = SharedEvent::new(Event::OnlineStatus {
            status: status.clone(),
            initial: false,
        });
        for watcher in self.watchers.values_mut() {
            if watcher.version < version {
                watcher.version = version;
                watcher.outlet.deliver(&shared);
            }
        }
        self.cursor.set_position(status);
    }

    /// Reads the changes after the last one that was seen.
    pub fn catch_up(&mut self, context: &mut Context) {
        let Some((ticket, last)) = self.cursor.begin_read(context) else {
            return;
        };
        let (presence, user) = (context.backplane.presence.clone(), self.user.clone());
        context.read(&self.user, async move {
            let changes = presence.status_changes(&user, last.version).await;
            FeedEvent::Changes(ticket, changes)
        });
    }

    fn on_changes(
        &mut self,
        context: &mut Context,
        ticket: u64,
        changes: Result<Changes<OnlineStatus>>,
    ) {
        if !self.cursor.awaits(ticket) {
            return;
        }
        match changes {
            Ok(Changes::Since(changes)) => {
                for status in changes {
                    self.notify(status);
                }
                self.finish_catch_up(context);
            }
            Ok(Changes::TooOld) => self.read_newest(context, ticket),
            Err(_) => context.retry(&self.user, FeedEvent::RetryCatchUp(ticket)),
        }
    }

    fn read_newest(&self, context: &Context, ticket: u64) {
        let (presence, user) = (context.backplane.presence.clone(), self.user.clone());
        let last = self.cursor.position().cloned();
        context.read(&self.user, async move {
            let mut newest = presence.status(&user).await;
            if let (Ok(status), Some(last)) = (&newest, &last)
                && status.version < last.version
            {
                // The backplane has lost the status that watchers know. It gets that one back, so
                // that every watcher, later ones included, receives the same sequence of changes.
                newest = match presence.restore_status(last).await {
                    Ok(()) => presence.status(&user).await,
                    Err(error) => Err(error),
                };
            }
            FeedEvent::Newest(ticket, newest)
        });
    }

    fn on_newest(&mut self, context: &mut Context, ticket: u64, status: Result<OnlineStatus>) {
        if !self.cursor.awaits(ticket) {
            return;
        }
        match status {
            Ok(status) => {
                self.notify(status);
                self.finish_catch_up(context);
            }
            Err(_) => context.retry(&self.user, FeedEvent::RetryCatchUp(ticket)),
        }
    }

    fn finish_catch_up(&mut self, context: &mut Context) {
        self.cursor.finish_read();
        self.apply_held(context);
    }

    fn apply_held(&mut self, context: &mut Context) {
        for status in self.cursor.take_held().events {
            self.on_change(context, status);
        }
        if self.cursor.take_read_again() {
            self.catch_up(context);
        }
    }

    /// The version of the last change seen, once one is known.
    pub fn version(&self) -> Option<u64> {
        self.cursor.position().map(|last| last.version)
    }
}
