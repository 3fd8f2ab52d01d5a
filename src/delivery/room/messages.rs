//! The order of a room's messages: hands the next one on, holds what comes too early, and reads the log where there is a hole.

use std::collections::VecDeque;

use super::super::worker::Context;
use super::super::{Event, SharedEvent};
use super::{FeedEvent, RETRY, RoomFeed};
use crate::backplane::{Entry, Result, Slice, Window};
use crate::domain::{Continuity, Head};

/// Messages held while the log is read; more are dropped, as the log has them.
const HELD: usize = 1024;
/// How many messages one catch-up read takes.
const PAGE: usize = 512;

#[derive(Default)]
pub(super) struct LogCursor {
    /// Where the last message handed on lies in the numbering that was read last (it may be from an older one). `None` until
    /// the first join tells where the log ends.
    pub at: Option<Head>,
    /// From where that numbering went on: it may be lost itself, and what it shares with its successor is still known.
    pub past: Vec<Head>,
    /// What arrived meanwhile, with the number of the read that was the last one begun then.
    held: VecDeque<(u64, Entry)>,
    /// A read is under way, or waits to be tried again.
    reading: bool,
    /// The ticket of the last read begun; later ones are greater.
    reads: u64,
    /// Something was dropped or asked for while reading, or before there was a cursor: read again.
    again: bool,
    /// The numbering is lost, and where it was left isn't known to the new one: members are told once it is seen which of
    /// the kept messages they had not had.
    lost: Option<Head>,
}

impl LogCursor {
    /// Where live members take themselves to be: in the numbering that was left, until they are told of its loss.
    pub fn told(&self) -> Option<&Head> {
        self.lost.as_ref().or(self.at.as_ref())
    }

    /// A numbering was lost, and members aren't told yet.
    pub fn has_to_tell(&self) -> bool {
        self.lost.is_some()
    }

    fn hold(&mut self, entry: Entry) {
        if self.held.len() < HELD {
            self.held.push_back((self.reads, entry));
        } else {
            self.again = true;
        }
    }
}

impl RoomFeed {
    pub fn on_message(&mut self, context: &mut Context, entry: Entry, arrived: std::time::Instant) {
        let Some(at) = self.log.at.as_ref().filter(|_| !self.log.reading) else {
            self.log.hold(entry);
            return;
        };
        if entry.epoch == at.epoch && entry.seq <= at.seq {
            return;
        }
        if entry.epoch == at.epoch && entry.seq == at.seq + 1 {
            self.hand_on(context, entry);
            context.counters.latency.observe(arrived.elapsed());
            self.meet(context);
            return;
        }
        self.log.hold(entry);
        self.catch_up(context);
    }

    /// To every live member, encoded once. Whoever has no room for it gets it, and what follows, at its own pace.
    fn hand_on(&mut self, context: &mut Context, entry: Entry) {
        let Some(at) = self.log.at.as_mut() else {
            return;
        };
        // The position counts in the numbering that was read, though the message may be from an older one that it goes on.
        let before = std::mem::replace(&mut at.seq, entry.seq);
        let (at, seq) = (at.clone(), entry.seq);
        let shared = SharedEvent::new(Event::Message(self.replays.own(entry)));
        self.replays.push(&at, &shared);
        let (mut delivered, mut full) = (0, Vec::new());
        for member in self.members.live().filter(|member| member.position < seq) {
            if member.outlet.offer(&shared) {
                delivered += 1;
            } else {
                full.push(member.outlet.conn().clone());
            }
        }
        context.counters.delivered.add(delivered);
        for conn in full {
            self.fall_behind(
                context,
                &conn,
                Head {
                    epoch: at.epoch.clone(),
                    seq: before,
                },
            );
        }
    }

    /// Reads what came after the cursor. While a read is under way another one will follow it.
    pub fn catch_up(&mut self, context: &mut Context) {
        let Some(at) = self.log.at.as_ref().filter(|_| !self.log.reading) else {
            self.log.again = true;
            return;
        };
        self.log.reading = true;
        self.log.again = false;
        let (ticket, page_bytes) = (context.ticket(), context.page_bytes);
        self.log.reads = ticket;
        context.counters.catch_ups.add(1);
        let (log, room, after) = (context.backplane.log.clone(), self.room.clone(), at.seq);
        context.read_room(&self.room, async move {
            FeedEvent::CaughtUp(
                ticket,
                log.read(&room, Window::After(after), PAGE, page_bytes)
                    .await,
            )
        });
    }

    /// Whether it is the read that the feed waits for: a feed that began anew may still get its forerunner's.
    fn awaits(&self, ticket: u64) -> bool {
        self.log.reading && self.log.reads == ticket
    }

    pub(super) fn on_catch_up_again(&mut self, context: &mut Context, ticket: u64) {
        if self.awaits(ticket) {
            self.log.reading = false;
            self.catch_up(context);
        }
    }

    pub(super) fn on_caught_up(
        &mut self,
        context: &mut Context,
        ticket: u64,
        slice: Result<Slice>,
    ) {
        if !self.awaits(ticket) {
            return;
        }
        let Ok(Slice { entries, span }) = slice else {
            // `reading` stays set: what arrives is held until the next try.
            context.ask_room(&self.room, async move {
                tokio::time::sleep(RETRY).await;
                FeedEvent::CatchUpAgain(ticket)
            });
            return;
        };
        self.log.reading = false;
        let Some(at) = self.log.at.clone() else {
            return;
        };
        let start = span.oldest.saturating_sub(1);
        let continuity = span.continuity_after(&at, &self.log.past);
        self.log.past = span.past;
        if at.epoch != span.head.epoch && !matches!(continuity, Continuity::Lost { .. }) {
            self.demote_ahead(context, &at);
        }
        match continuity {
            Continuity::Clean => {
                self.log.at = Some(Head {
                    epoch: span.head.epoch.clone(),
                    seq: at.seq,
                });
                self.hand_on_all(context, entries);
            }
            Continuity::Trimmed => {
                self.skip_to(
                    context,
                    Head {
                        epoch: span.head.epoch.clone(),
                        seq: start,
                    },
                    at.seq + 1,
                );
                self.hand_on_all(context, entries);
            }
            // What was read lies after a position that means nothing here: read again from where both agree.
            Continuity::Lost {
                last_shared: Some(end),
            } => {
                self.reset(
                    context,
                    Head {
                        epoch: span.head.epoch.clone(),
                        seq: end.max(start),
                    },
                    Some(end + 1),
                );
                self.catch_up(context);
                return;
            }
            Continuity::Lost { last_shared: None } => {
                self.log.lost.get_or_insert(at);
                self.log.at = Some(Head {
                    epoch: span.head.epoch.clone(),
                    seq: start,
                });
                self.catch_up(context);
                return;
            }
        }
        if self
            .log
            .at
            .as_ref()
            .is_some_and(|at| at.seq < span.head.seq)
        {
            self.catch_up(context);
            return;
        }
        self.tell_lost(context);
        self.merge_held(context);
        self.unpark(context, ticket);
    }

    /// What a read brought.
    fn hand_on_all(&mut self, context: &mut Context, entries: Vec<Entry>) {
        for entry in entries {
            let Some(at) = self.log.at.clone().filter(|at| entry.seq == at.seq + 1) else {
                continue;
            };
            if self
                .log
                .lost
                .as_ref()
                .is_some_and(|lost| entry.epoch == lost.epoch && entry.seq <= lost.seq)
            {
                // Kept from the numbering that was left: members had it.
                self.log.at = Some(Head {
                    epoch: at.epoch,
                    seq: entry.seq,
                });
                continue;
            }
            self.tell_lost(context);
            self.hand_on(context, entry);
        }
    }

    /// Tells of a lost numbering whose end nobody knows, once it is known where its successor goes on.
    fn tell_lost(&mut self, context: &Context) {
        if self.log.lost.take().is_some()
            && let Some(at) = self.log.at.clone()
        {
            self.reset(context, at, None);
        }
    }

    /// Goes on with what was held. A message of another epoch that had arrived before the last read was begun is an old one.
    pub(super) fn merge_held(&mut self, context: &mut Context) {
        let mut kept = VecDeque::new();
        for (read, entry) in std::mem::take(&mut self.log.held) {
            let Some(at) = &self.log.at else { return };
            if entry.epoch != at.epoch {
                if read >= self.log.reads {
                    kept.push_back((read, entry));
                }
            } else if entry.seq == at.seq + 1 {
                self.hand_on(context, entry);
            } else if entry.seq > at.seq && read >= self.log.reads {
                // A read that was begun later would have brought it, if the log had it.
                kept.push_back((read, entry));
            }
        }
        let again = self.log.again || !kept.is_empty();
        self.log.held = kept;
        if again {
            self.catch_up(context);
        }
        self.meet(context);
    }

    /// The log has been trimmed up to `head` before it was read: whoever wasn't beyond it is told what is lost.
    fn skip_to(&mut self, context: &Context, head: Head, lost_from: u64) {
        context.counters.resets.add(1);
        let lost_from = Some(lost_from);
        let shared = SharedEvent::new(Event::RoomReset {
            room: self.room.clone(),
            head: head.clone(),
            lost_from,
        });
        for member in self
            .members
            .live()
            .filter(|member| member.position < head.seq)
        {
            member.outlet.deliver(&shared);
        }
        self.log.at = Some(head);
    }

    /// Tells live members that another numbering goes on at `head`, and what may be lost.
    fn reset(&mut self, context: &Context, head: Head, lost_from: Option<u64>) {
        context.counters.resets.add(1);
        let shared = SharedEvent::new(Event::RoomReset {
            room: self.room.clone(),
            head: head.clone(),
            lost_from,
        });
        for member in self.members.live_mut() {
            // The old numbering's position says nothing about the new one.
            member.position = 0;
            member.outlet.deliver(&shared);
        }
        self.log.at = Some(head);
    }

    /// What the backplane says of the log's end, when the feed stood at `then`.
    pub fn on_head(&mut self, context: &mut Context, then: &Head, now: Option<&Head>) {
        let unmoved = self.log.at.as_ref() == Some(then) && !self.log.reading;
        let differs = match now {
            Some(now) => now != then,
            None => then.seq > 0,
        };
        if unmoved && differs {
            self.catch_up(context);
        }
    }
}
