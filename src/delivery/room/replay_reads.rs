//! Reads of the log for replays: one at a time in a room, and each serves every occupant in its
//! range.
//!
//! A read extends the tail backwards, as far as the waiting occupants need. For occupants that are
//! further back than a tail reaches, it fetches a page for the one that has waited longest.

use std::time::Duration;

use tokio::time::Instant;

use super::super::context::Context;
use super::super::{CloseReason, Event, SharedEvent};
use super::changes_during_read::ChangesDuringRead;
use super::occupants::{Occupant, Occupants, Stage};
use super::replay::REPLAY_PAGE;
use super::tail::{self, MAX_MESSAGES, Tail};
use super::{FeedEvent, RoomFeed};
use crate::backplane::{AppliedChange, BackplaneError, Entry, Result, Slice, Window};
use crate::domain::{ConnId, Continuity, Epoch, LogSpan};

/// Messages to read beyond those that are needed, for a next occupant that has missed a few more.
const SPARE_MESSAGES: usize = 8;

/// How long the reads for an occupant may fail. Then its connection is closed: the client resumes, and
/// is refused while an archive that it needs is away. Other events of a connection wait behind its
/// replay, so it must not wait for ever.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// An occupant that waits for a read of the log.
#[derive(Clone)]
pub(super) struct Waiting {
    conn: ConnId,
    /// Tells since when it waits.
    ticket: u64,
    /// Since when its reads have failed while the backplane was up.
    failing_since: Option<Instant>,
}

/// A read of the log that is under way.
#[derive(Clone, Copy)]
pub(super) struct ReplayRead {
    ticket: u64,
    purpose: ReplayPurpose,
}

/// The purpose of a read.
#[derive(Clone, Copy)]
enum ReplayPurpose {
    /// The messages after a position, for occupants that are further back than a tail can reach.
    Page { after: u64 },
    /// Messages before the first one of the tail, so that the tail reaches back to the waiting
    /// occupants.
    ExtendTail {
        /// The tail's first message.
        before: u64,
        limit: usize,
        bytes: usize,
        /// The position to which the tail has to reach back.
        reach: u64,
    },
}

impl Waiting {
    /// False once the occupant has left, has joined again, or goes on by other means.
    fn still_waits(&self, occupants: &Occupants) -> bool {
        occupants.stage(&self.conn) == Some(Stage::AwaitingRead(self.ticket))
    }
}

/// A part of the log, for the occupants that waited for it.
pub(super) struct Page {
    entries: Vec<SharedEvent>,
    /// The `seq` of the first entry.
    first: u64,
    pub span: LogSpan,
}

impl Page {
    fn new(after: u64, entries: Vec<Entry>, span: LogSpan) -> Self {
        let first = entries.first().map_or(after + 1, |entry| entry.seq);
        let entries = entries
            .into_iter()
            .map(|entry| SharedEvent::new(Event::Message(entry)))
            .collect();
        Self {
            entries,
            first,
            span,
        }
    }

    /// The messages that follow a position, if the page has the next one.
    pub fn after(&self, epoch: &Epoch, position: u64) -> Option<&[SharedEvent]> {
        let index = usize::try_from((position + 1).checked_sub(self.first)?).ok()?;
        let following = self.entries.get(index..)?;
        if following.is_empty() || !self.continues(epoch, position) {
            return None;
        }
        Some(following)
    }

    /// Gives the entries about the message of a change their newest form.
    pub fn apply(&mut self, change: &AppliedChange<'_>) {
        for shared in &mut self.entries {
            if let Some(changed) = tail::apply(change, shared) {
                *shared = changed;
            }
        }
    }

    /// True when the log still has every message after that position.
    fn continues(&self, epoch: &Epoch, position: u64) -> bool {
        self.span.continuity(Some(epoch), position) == Continuity::Clean
    }
}

/// The effect of a page on an occupant that waited for a read.
enum Served {
    /// It can go on.
    Ready,
    /// It needs a further read.
    NotYet,
    /// The log doesn't have its next message any more.
    Outrun,
    /// It doesn't wait for a read any more.
    Gone,
}

impl RoomFeed {
    /// The occupant's replay waits for a read of the log.
    pub(super) fn await_read(&mut self, context: &mut Context, conn: &ConnId) {
        let ticket = context.ticket();
        self.occupants.set_stage(conn, Stage::AwaitingRead(ticket));
        self.replays.waiting.push_back(Waiting {
            conn: conn.clone(),
            ticket,
            failing_since: None,
        });
        self.start_next_read(context);
    }

    /// Starts the next read, if an occupant waits for one, and every occupant that the last one
    /// serves has been served.
    pub(super) fn start_next_read(&mut self, context: &mut Context) {
        if self.replays.read.is_some() || !self.replays.queue.is_empty() {
            return;
        }
        self.replays.page = None;
        let occupants = &self.occupants;
        self.replays
            .waiting
            .retain(|waiting| waiting.still_waits(occupants));
        let Some(after) = self.page_start() else {
            return;
        };
        let purpose = match self.plan_tail_extension(context) {
            Some(extend_tail) => extend_tail,
            None => ReplayPurpose::Page { after },
        };
        self.start_read(context, purpose);
    }

    /// The position at which a page begins for the occupant that has waited longest: so much
    /// earlier that it serves other occupants too. `None` when no occupant waits.
    fn page_start(&self) -> Option<u64> {
        let mut positions = self
            .replays
            .waiting
            .iter()
            .filter_map(|waiting| Some(self.occupants.get(&waiting.conn)?.position));
        let longest_waiting = positions.next()?;
        let earliest = longest_waiting.saturating_sub(REPLAY_PAGE as u64 - 1);
        let in_reach = |position: &u64| (earliest..=longest_waiting).contains(position);
        Some(positions.filter(in_reach).fold(longest_waiting, u64::min))
    }

    /// Makes the feed keep the messages that it delivers from now on.
    pub(super) fn keep_tail(&mut self, context: &mut Context) {
        if let Some(at) = self.log.position()
            && self.replays.tail_at(at).is_none()
        {
            let tail = Tail::new(at.clone(), context.budget.clone());
            context.call_at(tail.check_at, &self.room);
            self.replays.tail = Some(tail);
        }
    }

    /// Plans the read that makes the tail reach back to the waiting occupants. `None` when the one
    /// that has waited longest is too far back.
    fn plan_tail_extension(&mut self, context: &mut Context) -> Option<ReplayPurpose> {
        let mut positions = self
            .replays
            .waiting
            .iter()
            .map(|waiting| self.position_near_feed(self.occupants.get(&waiting.conn)?));
        let longest_waiting = positions.next()??;
        let reach = positions.flatten().fold(longest_waiting, u64::min);
        let is_alone = self.joining == 0 && self.replays.waiting.len() == 1;
        self.keep_tail(context);
        let tail = self.replays.tail.as_ref()?;
        let capacity = tail.capacity_before()?;
        let before = tail.first_seq();
        let missing = |position: u64| {
            usize::try_from((before - 1).saturating_sub(position)).unwrap_or(usize::MAX)
        };
        if missing(longest_waiting) > capacity.messages {
            return None;
        }
        // When several occupants come back, the tail is made to reach twice as far as needed, so
        // that few reads suffice in any order of their positions. An occupant that comes alone may
        // be the first of several, so 25 % is added for it.
        let further = if is_alone && tail.is_empty() {
            missing(reach) / 4
        } else {
            tail.len() + missing(reach)
        };
        Some(ReplayPurpose::ExtendTail {
            before,
            limit: (missing(reach) + further + SPARE_MESSAGES).min(capacity.messages),
            bytes: capacity.bytes,
            reach,
        })
    }

    /// The occupant's position, if it has missed so few messages of the feed's epoch that a tail
    /// can hold them.
    fn position_near_feed(&self, occupant: &Occupant) -> Option<u64> {
        let at = self.log.position()?;
        let replay = occupant.replay.as_ref()?;
        let missed = at.seq.checked_sub(occupant.position)?;
        if replay.epoch == at.epoch && (1..=MAX_MESSAGES as u64).contains(&missed) {
            Some(occupant.position)
        } else {
            None
        }
    }

    fn start_read(&mut self, context: &mut Context, purpose: ReplayPurpose) {
        let read = ReplayRead {
            ticket: context.ticket(),
            purpose,
        };
        self.replays.read = Some(read);
        self.replays.changes_during_read = ChangesDuringRead::default();
        context.counters.replay_reads.add(1);
        let (log, room) = (context.backplane.log.clone(), self.room.clone());
        let (window, limit, bytes) = match read.purpose {
            ReplayPurpose::Page { after } => {
                (Window::After(after), REPLAY_PAGE, context.page_bytes)
            }
            ReplayPurpose::ExtendTail {
                before,
                limit,
                bytes,
                ..
            } => (Window::Before(before), limit, bytes),
        };
        context.read(&self.room, async move {
            let slice = log.read(&room, window, limit, bytes).await;
            FeedEvent::ReplayRead(read.ticket, slice)
        });
    }

    /// The read under way, if it has that ticket. A feed that has restarted may still get results
    /// of its predecessor's reads.
    fn awaited_replay_read(&self, ticket: u64) -> Option<ReplayRead> {
        self.replays.read.filter(|read| read.ticket == ticket)
    }

    pub(super) fn retry_replay_reads(&mut self, context: &mut Context) {
        let failed = std::mem::take(&mut self.replays.failed);
        self.replays.waiting.extend(failed);
        self.start_next_read(context);
    }

    pub(super) fn on_replay_read(
        &mut self,
        context: &mut Context,
        ticket: u64,
        slice: Result<Slice>,
    ) {
        let Some(read) = self.awaited_replay_read(ticket) else {
            return;
        };
        let mut slice = match slice {
            Ok(slice) => slice,
            Err(error) => return self.on_failed_read(context, read, &error),
        };
        // The read may have found forms that were replaced since.
        let changes = std::mem::take(&mut self.replays.changes_during_read);
        if !changes.apply(&mut slice.entries) {
            self.replays.read = None;
            self.start_next_read(context);
            return;
        }
        match read.purpose {
            ReplayPurpose::Page { after } => self.on_page(context, ticket, after, slice),
            ReplayPurpose::ExtendTail { reach, .. } => self.on_tail_read(context, reach, slice),
        }
        self.replays.read = None;
        self.start_next_read(context);
    }

    /// Sets the occupants aside for which the read would fail again, so that reads for others go on, or
    /// closes those for which that has lasted too long.
    fn on_failed_read(&mut self, context: &mut Context, read: ReplayRead, error: &BackplaneError) {
        self.replays.read = None;
        let is_unreadable = matches!(error, BackplaneError::Unreadable(_));
        let start = match read.purpose {
            ReplayPurpose::Page { after } => after,
            // It read further back than the occupants need.
            ReplayPurpose::ExtendTail { .. } if is_unreadable => {
                if let Some(after) = self.page_start() {
                    self.start_read(context, ReplayPurpose::Page { after });
                }
                return;
            }
            ReplayPurpose::ExtendTail { reach, .. } => reach,
        };
        // Where the archive is away, all occupants that are further back need it too. But of those that a
        // page with a broken message would have served, only the first needs that message for sure.
        let affected = match self.page_front() {
            Some(front) if !is_unreadable => front.max(start),
            _ => start,
        };
        let is_up = context.backplane.lifecycle.is_up();
        let mut closed = Vec::new();
        for mut waiting in std::mem::take(&mut self.replays.waiting) {
            let Some(occupant) = self.occupants.get(&waiting.conn) else {
                continue;
            };
            if !waiting.still_waits(&self.occupants) {
                continue;
            }
            if occupant.position > affected {
                self.replays.waiting.push_back(waiting);
                continue;
            }
            let since = *waiting.failing_since.get_or_insert_with(Instant::now);
            if !is_up {
                // Clients could not resume now.
                waiting.failing_since = None;
            } else if is_unreadable || since.elapsed() >= READ_TIMEOUT {
                closed.push(waiting.conn);
                continue;
            }
            if self.replays.failed.is_empty() {
                context.retry(&self.room, FeedEvent::RetryReplayReads);
            }
            self.replays.failed.push(waiting);
        }
        self.close_failed(context, &closed, error);
        self.start_next_read(context);
    }

    /// The position of the occupant that has waited longest.
    fn page_front(&self) -> Option<u64> {
        let front = self.replays.waiting.front()?;
        Some(self.occupants.get(&front.conn)?.position)
    }

    /// Closes connections whose replays can't go on.
    fn close_failed(&mut self, context: &mut Context, conns: &[ConnId], error: &BackplaneError) {
        if conns.is_empty() {
            return;
        }
        tracing::warn!(
            room = %self.room, connections = conns.len(), %error,
            "the log can't be read: connections that wait for a replay are closed"
        );
        for conn in conns {
            if let Some(occupant) = self.occupants.get(conn) {
                occupant.outlet.close(CloseReason::ReplayFailed);
            }
            self.leave(context, conn);
        }
    }

    fn on_tail_read(&mut self, context: &mut Context, reach: u64, slice: Slice) {
        let Some(at) = self.log.position().cloned() else {
            return;
        };
        if slice.span.head.epoch != at.epoch {
            // The log is in another epoch. The feed reads it first, then the occupants go on.
            for waiting in std::mem::take(&mut self.replays.waiting) {
                if waiting.still_waits(&self.occupants) {
                    let conn = &waiting.conn;
                    self.occupants.set_stage(conn, Stage::AwaitingCatchUp);
                }
            }
            self.catch_up(context);
            return;
        }
        if let Some(tail) = self.replays.tail_at(&at) {
            tail.prepend(slice.entries);
            if tail.first_seq() > reach + 1 {
                tail.close_front();
            }
        }
        for waiting in std::mem::take(&mut self.replays.waiting) {
            if !waiting.still_waits(&self.occupants) {
                continue;
            }
            let Some(occupant) = self.occupants.get(&waiting.conn) else {
                continue;
            };
            let is_reached = match (&self.replays.tail, &occupant.replay) {
                (Some(tail), Some(replay)) => {
                    replay.epoch == at.epoch && tail.first_seq() <= occupant.position + 1
                }
                _ => false,
            };
            if is_reached {
                self.enqueue(context, &waiting.conn);
            } else {
                self.replays.waiting.push_back(waiting);
            }
        }
    }

    fn on_page(&mut self, context: &mut Context, read: u64, after: u64, slice: Slice) {
        let page = Page::new(after, slice.entries, slice.span);
        let mut outrun = Vec::new();
        let mut ready = Vec::new();
        for waiting in std::mem::take(&mut self.replays.waiting) {
            match self.serve(&page, read, after, &waiting.conn, waiting.ticket) {
                Served::Ready => ready.push(waiting.conn),
                Served::NotYet => self.replays.waiting.push_back(waiting),
                Served::Outrun => outrun.push(waiting.conn),
                Served::Gone => {}
            }
        }
        self.replays.page = Some(page);
        for conn in outrun {
            // The client resumes at its own position, and is told of the gap then.
            if let Some(occupant) = self.occupants.get(&conn) {
                context.counters.outrun.add(1);
                occupant.outlet.close(CloseReason::ReplayOutrun);
            }
            self.leave(context, &conn);
        }
        for conn in ready {
            self.enqueue(context, &conn);
        }
    }

    /// The effect of the page on an occupant that waits since `since`. The read of ticket `read`
    /// has fetched the page, after position `after`.
    fn serve(&mut self, page: &Page, read: u64, after: u64, conn: &ConnId, since: u64) -> Served {
        let Some(occupant) = self.occupants.get_mut(conn) else {
            return Served::Gone;
        };
        let is_promised_more = occupant.is_promised_more();
        let Some(replay) = &mut occupant.replay else {
            return Served::Gone;
        };
        if replay.stage != Stage::AwaitingRead(since) {
            return Served::Gone;
        }
        if page.after(&replay.epoch, occupant.position).is_some() {
            return Served::Ready;
        }
        if since > read {
            // Its acknowledgement may be newer than the page.
            return Served::NotYet;
        }
        let is_at_end = occupant.position >= page.span.head.seq
            || occupant.position == after && page.entries.is_empty();
        if !page.continues(&replay.epoch, occupant.position) || is_at_end && is_promised_more {
            return Served::Outrun;
        }
        if is_at_end {
            replay.epoch = page.span.head.epoch.clone();
            return Served::Ready;
        }
        Served::NotYet
    }
}
