//! The order of a room's messages: hands the next one on, holds what comes too early, and reads the log where there is a hole.

use std::collections::VecDeque;

use super::super::worker::Context;
use super::super::{Event, Shared};
use super::{Answer, RETRY, RoomFeed};
use crate::backplane::{Entry, Result, Slice, Window};
use crate::domain::{Continuity, Head};

/// Messages held while the log is read; more are dropped, as the log has them.
const HELD: usize = 1024;
/// How much one catch-up read takes.
const PAGE: usize = 512;
const PAGE_BYTES: usize = 1 << 20;

#[derive(Default)]
pub(super) struct LogCursor {
    /// The last message handed on. `None` until the first join tells where the log ends.
    pub at: Option<Head>,
    /// What arrived meanwhile, with the number of the read that was the last one begun then.
    held: VecDeque<(u64, Entry)>,
    /// A read is under way, or waits to be tried again.
    reading: bool,
    /// Counts reads.
    reads: u64,
    /// Something was dropped or asked for while reading: read again.
    again: bool,
}

impl LogCursor {
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
            return;
        }
        self.log.hold(entry);
        self.catch_up(context);
    }

    /// To every live member, encoded once.
    fn hand_on(&mut self, context: &Context, entry: Entry) {
        let head = Head { epoch: entry.epoch.clone(), seq: entry.seq };
        let shared = Shared::new(Event::Message(entry));
        let mut delivered = 0;
        for member in self.members.live().filter(|member| member.position < head.seq) {
            member.outlet.deliver(&shared);
            delivered += 1;
        }
        context.counters.delivered.add(delivered);
        self.log.at = Some(head);
    }

    /// Reads what came after the cursor. While a read is under way another one will follow it.
    pub fn catch_up(&mut self, context: &mut Context) {
        let Some(at) = &self.log.at else { return };
        if self.log.reading {
            self.log.again = true;
            return;
        }
        self.log.reading = true;
        self.log.again = false;
        self.log.reads += 1;
        context.counters.catch_ups.add(1);
        let (log, room, after) = (context.backplane.log.clone(), self.room.clone(), at.seq);
        context.read_room(&self.room, async move {
            Answer::CaughtUp(log.read(&room, Window::After(after), PAGE, PAGE_BYTES).await)
        });
    }

    pub(super) fn on_catch_up_again(&mut self, context: &mut Context) {
        self.log.reading = false;
        self.catch_up(context);
    }

    pub(super) fn on_caught_up(&mut self, context: &mut Context, slice: Result<Slice>) {
        let Ok(Slice { entries, span }) = slice else {
            // `reading` stays set: what arrives is held until the next try.
            context.ask_room(&self.room, async {
                tokio::time::sleep(RETRY).await;
                Answer::CatchUpAgain
            });
            return;
        };
        self.log.reading = false;
        let Some(at) = self.log.at.clone() else { return };
        match span.continuity(Some(&at.epoch), at.seq) {
            Continuity::Clean => self.hand_on_all(context, entries),
            Continuity::Trimmed => {
                let head = Head { epoch: span.head.epoch.clone(), seq: span.oldest - 1 };
                self.reset(context, head, Some(at.seq + 1));
                self.hand_on_all(context, entries);
            }
            Continuity::Lost { last_shared } => {
                // What was read lies after a position that means nothing here: read again from where both agree.
                let seq = last_shared.unwrap_or(0).max(span.oldest - 1);
                let head = Head { epoch: span.head.epoch.clone(), seq };
                self.reset(context, head, last_shared.map(|seq| seq + 1));
                self.catch_up(context);
                return;
            }
        }
        let Some(at) = &mut self.log.at else { return };
        if at.seq < span.head.seq {
            self.catch_up(context);
            return;
        }
        if at.seq == span.head.seq {
            at.epoch = span.head.epoch;
        }
        self.merge_held(context);
        self.unpark(context);
    }

    fn hand_on_all(&mut self, context: &Context, entries: Vec<Entry>) {
        for entry in entries {
            if self.log.at.as_ref().is_some_and(|at| entry.seq == at.seq + 1) {
                self.hand_on(context, entry);
            }
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
            } else if entry.seq > at.seq {
                kept.push_back((read, entry));
            }
        }
        let again = self.log.again || !kept.is_empty();
        self.log.held = kept;
        if again {
            self.catch_up(context);
        }
    }

    /// Tells live members that the numbering goes on at `head`, and what may be lost.
    fn reset(&mut self, context: &Context, head: Head, lost_from: Option<u64>) {
        context.counters.resets.add(1);
        let shared = Shared::new(Event::RoomReset { room: self.room.clone(), head: head.clone(), lost_from });
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
