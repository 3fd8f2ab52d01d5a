//! Reads of the log for replays: one of a room at a time, and what it brings serves everyone in its range.
//!
//! Either it lengthens the tail backwards, as far as those who wait need it, or, for who lies further back than a tail
//! reaches, it brings a page after whoever has waited longest.

use super::super::worker::Context;
use super::super::{CloseReason, Event, SharedEvent};
use super::members::{Occupant, Stage};
use super::replay::PAGE;
use super::tail::{MESSAGES, Tail};
use super::{FeedEvent, RETRY, RoomFeed};
use crate::backplane::{Result, Slice, Window};
use crate::domain::{ConnId, Continuity, Epoch, LogSpan};

/// Messages read beyond what is needed, for who comes next and has missed a little more.
const SPARE: usize = 8;

#[derive(Clone, Copy)]
pub(super) struct Reading {
    ticket: u64,
    window: Window,
    limit: usize,
    bytes: usize,
    /// The position that a tail is to reach back to.
    reach: u64,
}

/// A part of the log, for members who waited for it.
pub(super) struct Page {
    entries: Vec<SharedEvent>,
    /// The number of the first.
    first: u64,
    pub span: LogSpan,
}

impl Page {
    /// What follows for a member in that place.
    pub fn after(&self, epoch: &Epoch, position: u64) -> Option<&[SharedEvent]> {
        let place = usize::try_from((position + 1).checked_sub(self.first)?).ok()?;
        let clean = self.span.continuity(Some(epoch), position) == Continuity::Clean;
        self.entries
            .get(place..)
            .filter(|rest| clean && !rest.is_empty())
    }
}

impl RoomFeed {
    pub(super) fn await_log(&mut self, context: &mut Context, conn: &ConnId) {
        let ticket = context.ticket();
        self.members.set_stage(conn, Stage::Unread(ticket));
        self.replays.waiting.push_back((conn.clone(), ticket));
        self.read_on(context);
    }

    /// Begins the next read, if someone waits for one, and whoever is served by the last one is served.
    pub(super) fn read_on(&mut self, context: &mut Context) {
        if self.replays.reading.is_some() || !self.replays.ready.is_empty() {
            return;
        }
        self.replays.page = None;
        let members = &self.members;
        self.replays
            .waiting
            .retain(|(conn, ticket)| members.stage(conn) == Some(Stage::Unread(*ticket)));
        let Some(position) = self.page_start() else {
            return;
        };
        let ticket = context.ticket();
        let page = Window::After(position);
        let page = Reading {
            ticket,
            window: page,
            limit: PAGE,
            bytes: context.page_bytes,
            reach: position,
        };
        let reading = self.lengthen(context, ticket).unwrap_or(page);
        self.replays.reading = Some(reading);
        self.read(context, reading);
    }

    /// Where a page for whoever has waited longest begins: as much earlier as lets it serve others, too.
    fn page_start(&self) -> Option<u64> {
        let mut positions = self
            .replays
            .waiting
            .iter()
            .filter_map(|(conn, _)| Some(self.members.get(conn)?.position));
        let first_in_line = positions.next()?;
        let within = |position: &u64| {
            (first_in_line.saturating_sub(PAGE as u64 - 1)..=first_in_line).contains(position)
        };
        Some(positions.filter(within).fold(first_in_line, u64::min))
    }

    /// From now on the feed keeps what it hands on.
    pub(super) fn keep_tail(&mut self, context: &mut Context) {
        if let Some(at) = &self.log.at
            && self.replays.tail_at(at).is_none()
        {
            let tail = Tail::begin(at.clone(), context.budget.clone());
            context.call_at(tail.due, &self.room);
            self.replays.tail = Some(tail);
        }
    }

    /// The read that makes the tail reach back to those who wait. `None` when the first of them lies too far back.
    fn lengthen(&mut self, context: &mut Context, ticket: u64) -> Option<Reading> {
        let at = self.log.at.clone()?;
        let near = |member: &Occupant| {
            let same = member
                .replay
                .as_ref()
                .is_some_and(|replay| replay.epoch == at.epoch);
            let missed = at
                .seq
                .checked_sub(member.position)
                .filter(|missed| same && *missed > 0)?;
            (missed <= MESSAGES as u64).then_some(member.position)
        };
        let waiting = &self.replays.waiting;
        let mut near = waiting
            .iter()
            .map(|(conn, _)| self.members.get(conn).and_then(near));
        let first_in_line = near.next()??;
        let reach = near.flatten().fold(first_in_line, u64::min);
        let alone = self.joining == 0 && waiting.len() == 1;
        self.keep_tail(context);
        let tail = self.replays.tail.as_ref()?;
        let (messages, bytes) = tail.spare()?;
        let missing = |position: u64| {
            usize::try_from((tail.first() - 1).saturating_sub(position)).unwrap_or(usize::MAX)
        };
        if missing(first_in_line) > messages {
            return None;
        }
        // Where several come back, the tail is made to reach twice as far as it need: so there are few reads, in whatever
        // order they come. One who comes alone may be the first of them.
        let further = if alone && tail.kept() == 0 {
            missing(reach) / 4
        } else {
            tail.kept() + missing(reach)
        };
        let limit = (missing(reach) + further + SPARE).min(messages);
        Some(Reading {
            ticket,
            window: Window::Before(tail.first()),
            limit,
            bytes,
            reach,
        })
    }

    fn read(&self, context: &Context, reading: Reading) {
        context.counters.replay_reads.add(1);
        let (log, room) = (context.backplane.log.clone(), self.room.clone());
        let Reading {
            ticket,
            window,
            limit,
            bytes,
            ..
        } = reading;
        context.read_room(&self.room, async move {
            FeedEvent::Read(ticket, log.read(&room, window, limit, bytes).await)
        });
    }

    pub(super) fn on_read_again(&mut self, context: &Context, ticket: u64) {
        if let Some(reading) = self
            .replays
            .reading
            .filter(|reading| reading.ticket == ticket)
        {
            self.read(context, reading);
        }
    }

    pub(super) fn on_read(&mut self, context: &mut Context, ticket: u64, slice: Result<Slice>) {
        let Some(reading) = self
            .replays
            .reading
            .filter(|reading| reading.ticket == ticket)
        else {
            return;
        };
        let Ok(slice) = slice else {
            context.ask_room(&self.room, async move {
                tokio::time::sleep(RETRY).await;
                FeedEvent::ReadAgain(ticket)
            });
            return;
        };
        match reading.window {
            Window::After(after) => self.on_page(context, ticket, after, slice),
            Window::Before(_) | Window::Newest => self.on_lengthened(context, &reading, slice),
        }
        self.replays.reading = None;
        self.read_on(context);
    }

    fn on_lengthened(&mut self, context: &mut Context, reading: &Reading, slice: Slice) {
        let Some(at) = self.log.at.clone() else {
            return;
        };
        if slice.span.head.epoch != at.epoch {
            // The feed looks first, then the members.
            for (conn, _) in std::mem::take(&mut self.replays.waiting) {
                self.members.set_stage(&conn, Stage::Parked);
            }
            self.catch_up(context);
            return;
        }
        if let Some(tail) = self.replays.tail_at(&at) {
            tail.prepend(slice.entries);
            if tail.first() > reading.reach + 1 {
                tail.close_front();
            }
        }
        for (conn, ticket) in std::mem::take(&mut self.replays.waiting) {
            let Some(member) = self.members.get_mut(&conn) else {
                continue;
            };
            let Some(replay) = member
                .replay
                .as_ref()
                .filter(|replay| replay.stage == Stage::Unread(ticket))
            else {
                continue;
            };
            let reaches =
                |tail: &Tail| replay.epoch == at.epoch && tail.first() <= member.position + 1;
            if self.replays.tail.as_ref().is_some_and(reaches) {
                self.make_ready(context, &conn);
            } else {
                self.replays.waiting.push_back((conn, ticket));
            }
        }
    }

    fn on_page(&mut self, context: &mut Context, read: u64, after: u64, slice: Slice) {
        let Slice { entries, span } = slice;
        let first = entries.first().map_or(after + 1, |entry| entry.seq);
        let entries = entries
            .into_iter()
            .map(|entry| SharedEvent::new(Event::Message(entry)))
            .collect();
        let page = self.replays.page.insert(Page {
            entries,
            first,
            span,
        });
        let mut ready = Vec::new();
        let mut outrun = Vec::new();
        self.replays.waiting.retain(|(conn, asked)| {
            let Some(member) = self.members.get_mut(conn) else {
                return false;
            };
            let Some(replay) = member
                .replay
                .as_mut()
                .filter(|replay| replay.stage == Stage::Unread(*asked))
            else {
                return false;
            };
            let clean =
                page.span.continuity(Some(&replay.epoch), member.position) == Continuity::Clean;
            let nothing = member.position >= page.span.head.seq
                || member.position == after && page.entries.is_empty();
            let promised = replay
                .opening
                .as_ref()
                .is_some_and(|opening| member.position < opening.until);
            if page.after(&replay.epoch, member.position).is_some() {
                ready.push(conn.clone());
            } else if *asked > read {
                // What it was told may be newer than what was read.
                return true;
            } else if !clean || nothing && promised {
                outrun.push(conn.clone());
            } else if nothing {
                replay.epoch = page.span.head.epoch.clone();
                ready.push(conn.clone());
            } else {
                return true;
            }
            false
        });
        for conn in outrun {
            // The client resumes at its own position, and is then told `gap`.
            if let Some(member) = self.members.get(&conn) {
                context.counters.outrun.add(1);
                member.outlet.close(CloseReason::ReplayOutrun);
            }
            self.leave(context, &conn);
        }
        ready.iter().for_each(|conn| self.make_ready(context, conn));
    }
}
