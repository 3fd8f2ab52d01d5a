//! The feed of one watched user: every change of status once, in order, to each watcher.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use super::worker::Context;
use super::{Event, Outlet, SharedEvent, WatchRequest};
use crate::backplane::{BusTopic, Changes, Result};
use crate::domain::{ConnId, OnlineStatus, UserId};

/// How long to wait before a failed read is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// Changes held while others are read; more are dropped, as the backplane has them.
const HELD: usize = 256;

/// What a feed had asked for.
pub(crate) enum FeedEvent {
    Subscribed(Result<()>),
    Unsubscribed,
    /// The state that a new watcher asked for.
    Watched(WatchRequest, Result<OnlineStatus>),
    /// The number tells which read it was.
    Changed(u64, Result<Changes<OnlineStatus>>),
    Newest(u64, Result<OnlineStatus>),
    Again(u64),
}

#[derive(PartialEq, Eq)]
enum Subscription {
    Pending,
    Live,
    Ending,
}

struct Watcher {
    outlet: Arc<dyn Outlet>,
    /// The version it was last told.
    version: u64,
}

pub(crate) struct UserFeed {
    user: UserId,
    subscription: Subscription,
    waiting: Vec<WatchRequest>,
    watching: usize,
    watchers: HashMap<ConnId, Watcher>,
    /// The newest state seen. `None` until the first watcher's is read.
    last: Option<OnlineStatus>,
    held: Vec<OnlineStatus>,
    /// The ticket of the read that is under way, or waits to be tried again.
    reading: Option<u64>,
    again: bool,
}

impl UserFeed {
    pub fn new(context: &Context, user: UserId) -> Self {
        let feed = Self {
            user,
            subscription: Subscription::Pending,
            waiting: Vec::new(),
            watching: 0,
            watchers: HashMap::new(),
            last: None,
            held: Vec::new(),
            reading: None,
            again: false,
        };
        feed.subscribe(context);
        feed
    }

    fn subscribe(&self, context: &Context) {
        let (bus, topic) = (
            context.backplane.bus.clone(),
            BusTopic::User(self.user.clone()),
        );
        context.ask_user(&self.user, async move {
            FeedEvent::Subscribed(bus.subscribe(&topic).await)
        });
    }

    pub fn watch(&mut self, context: &mut Context, request: WatchRequest) {
        if self.subscription != Subscription::Live {
            self.waiting.push(request);
            return;
        }
        self.watching += 1;
        let (presence, user) = (context.backplane.presence.clone(), self.user.clone());
        context.read_user(&self.user, async move {
            FeedEvent::Watched(request, presence.status(&user).await)
        });
    }

    pub fn unwatch(&mut self, context: &mut Context, conn: &ConnId) {
        self.watchers.remove(conn);
        self.look_idle(context);
    }

    fn look_idle(&mut self, context: &mut Context) {
        let idle = self.watchers.is_empty() && self.watching == 0 && self.waiting.is_empty();
        if idle && self.subscription == Subscription::Live {
            self.subscription = Subscription::Ending;
            let (bus, topic) = (
                context.backplane.bus.clone(),
                BusTopic::User(self.user.clone()),
            );
            context.ask_user(&self.user, async move {
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
                    self.watch(context, request);
                }
                self.look_idle(context);
            }
            FeedEvent::Subscribed(Err(error)) => {
                for request in self.waiting.drain(..) {
                    let _ = request.done.send(Err(error.clone()));
                }
                return ControlFlow::Break(());
            }
            FeedEvent::Unsubscribed => {
                if self.waiting.is_empty() {
                    return ControlFlow::Break(());
                }
                self.last = None;
                self.held.clear();
                self.subscription = Subscription::Pending;
                self.subscribe(context);
            }
            FeedEvent::Watched(request, status) => {
                self.watching -= 1;
                self.attach(context, request, status);
                self.look_idle(context);
            }
            // A feed that began anew may still get its forerunner's answers.
            FeedEvent::Changed(ticket, _)
            | FeedEvent::Newest(ticket, _)
            | FeedEvent::Again(ticket)
                if self.reading != Some(ticket) => {}
            FeedEvent::Changed(_, Ok(Changes::Since(changes))) => {
                changes.into_iter().for_each(|status| self.tell(status));
                self.finish_reading(context);
            }
            FeedEvent::Changed(ticket, Ok(Changes::TooOld)) => {
                let (presence, user, last) = (
                    context.backplane.presence.clone(),
                    self.user.clone(),
                    self.last.clone(),
                );
                context.read_user(&self.user, async move {
                    let mut status = presence.status(&user).await;
                    if let (Ok(newest), Some(last)) = (&status, &last)
                        && newest.version < last.version
                    {
                        // It was lost; and everyone, newcomers too, shall be told the same of what becomes of the user.
                        status = match presence.recall(last).await {
                            Ok(()) => presence.status(&user).await,
                            Err(error) => Err(error),
                        };
                    }
                    FeedEvent::Newest(ticket, status)
                });
            }
            FeedEvent::Newest(_, Ok(status)) => {
                self.tell(status);
                self.finish_reading(context);
            }
            FeedEvent::Changed(ticket, Err(_)) | FeedEvent::Newest(ticket, Err(_)) => {
                context.ask_user(&self.user, async move {
                    tokio::time::sleep(RETRY).await;
                    FeedEvent::Again(ticket)
                });
            }
            FeedEvent::Again(_) => {
                self.reading = None;
                self.catch_up(context);
            }
        }
        ControlFlow::Continue(())
    }

    fn attach(
        &mut self,
        context: &mut Context,
        request: WatchRequest,
        status: Result<OnlineStatus>,
    ) {
        let status = match status {
            Ok(status) => status,
            Err(error) => {
                let _ = request.done.send(Err(error));
                return;
            }
        };
        // What the feed has seen may be newer than what was read beside it.
        let status = self
            .last
            .clone()
            .filter(|last| last.version > status.version)
            .unwrap_or(status);
        let version = status.version;
        (request.on_watched)(&status);
        request
            .outlet
            .deliver(&SharedEvent::new(Event::OnlineStatus {
                status: status.clone(),
                initial: true,
            }));
        self.watchers.insert(
            request.outlet.conn().clone(),
            Watcher {
                outlet: request.outlet,
                version,
            },
        );
        let _ = request.done.send(Ok(()));
        if self.last.is_none() {
            self.last = Some(status);
            self.merge_held(context);
        }
    }

    pub fn on_change(&mut self, context: &mut Context, status: OnlineStatus) {
        let Some(last) = self.last.as_ref().filter(|_| self.reading.is_none()) else {
            self.hold(status);
            return;
        };
        if status.version > last.version && status.previous != last.version {
            self.hold(status);
            self.catch_up(context);
        } else {
            self.tell(status);
        }
    }

    fn hold(&mut self, status: OnlineStatus) {
        if self.held.len() < HELD {
            self.held.push(status);
        } else {
            self.again = true;
        }
    }

    /// To each watcher that hasn't been told as much yet.
    fn tell(&mut self, status: OnlineStatus) {
        let version = status.version;
        if self
            .last
            .as_ref()
            .is_some_and(|last| last.version >= version)
        {
            return;
        }
        let shared = SharedEvent::new(Event::OnlineStatus {
            status: status.clone(),
            initial: false,
        });
        for watcher in self
            .watchers
            .values_mut()
            .filter(|watcher| watcher.version < version)
        {
            watcher.version = version;
            watcher.outlet.deliver(&shared);
        }
        self.last = Some(status);
    }

    /// Reads the changes after the last one.
    pub fn catch_up(&mut self, context: &mut Context) {
        let Some(last) = self.last.as_ref().filter(|_| self.reading.is_none()) else {
            self.again = true;
            return;
        };
        let ticket = context.ticket();
        self.reading = Some(ticket);
        self.again = false;
        let (presence, user, version) = (
            context.backplane.presence.clone(),
            self.user.clone(),
            last.version,
        );
        context.read_user(&self.user, async move {
            FeedEvent::Changed(ticket, presence.status_changes(&user, version).await)
        });
    }

    fn finish_reading(&mut self, context: &mut Context) {
        self.reading = None;
        self.merge_held(context);
    }

    fn merge_held(&mut self, context: &mut Context) {
        for status in std::mem::take(&mut self.held) {
            self.on_change(context, status);
        }
        if std::mem::take(&mut self.again) {
            self.catch_up(context);
        }
    }

    /// The last change that was seen, once one is known.
    pub fn version(&self) -> Option<u64> {
        self.last.as_ref().map(|last| last.version)
    }
}
