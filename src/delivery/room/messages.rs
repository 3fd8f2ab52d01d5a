//! The order of a room's messages: delivers the next one, holds messages that arrive too early, and
//! reads the log where one is missing.

use super::super::context::Context;
use super::super::feed::Cursor;
use super::super::{Event, SharedEvent};
use super::{FeedEvent, RoomFeed};
use crate::backplane::{Entry, EntryKind, Result, Slice, Window, change_record};
use crate::domain::{ConnId, Continuity, Head, LogSpan, RoomKind};

/// The most messages to hold while the log is read.
const MAX_HELD_MESSAGES: usize = 1024;
/// The most messages of one catch-up read.
const CATCH_UP_PAGE: usize = 512;

/// The feed's position in the log.
pub(super) struct LogCursor {
    /// The last message delivered, in the numbering that was read last (the message itself may be
    /// from an older one). The first join makes it known.
    cursor: Cursor<Head, Entry>,
    /// The positions at which that numbering continued earlier ones. A numbering may itself be
    /// lost; these positions still show which messages it shares with its successor.
    past: Vec<Head>,
    /// The last message delivered from another numbering than the one that was read. Where the log
    /// goes on in that numbering, as after two primaries that share an archive, nothing is lost.
    older: Option<Head>,
    purpose: ReadPurpose,
}

/// The reason for which the feed reads the log.
#[derive(Debug, Default)]
enum ReadPurpose {
    /// To deliver the messages that it may have missed.
    #[default]
    CatchUp,
    /// To find the message at which a new numbering goes on: the old one is lost, and the new one
    /// doesn't know where. Live occupants are notified of the reset once a read shows which of the
    /// kept messages they haven't received.
    FindContinuation {
        /// The position of live occupants in the numbering that was lost.
        left: Head,
    },
}

impl Default for LogCursor {
    fn default() -> Self {
        Self {
            cursor: Cursor::new(MAX_HELD_MESSAGES),
            past: Vec::new(),
            older: None,
            purpose: ReadPurpose::default(),
        }
    }
}

impl LogCursor {
    pub fn position(&self) -> Option<&Head> {
        self.cursor.position()
    }

    /// Begins at the log's end, as the first join has read it.
    pub fn begin(&mut self, head: Head, past: Vec<Head>) {
        self.cursor.set_position(head);
        self.past = past;
        self.older = None;
    }

    /// Skips or goes back to a position.
    fn move_to(&mut self, head: Head) {
        self.cursor.set_position(head);
        self.older = None;
    }

    /// Where earlier numberings ended that this position continues, newest first.
    fn earlier(&self) -> Vec<Head> {
        self.older.iter().chain(&self.past).cloned().collect()
    }

    /// The position that live occupants know: in the numbering that was lost, until they are
    /// notified of its loss.
    pub fn occupants_position(&self) -> Option<&Head> {
        match &self.purpose {
            ReadPurpose::CatchUp => self.position(),
            ReadPurpose::FindContinuation { left } => Some(left),
        }
    }

    /// True while a numbering is lost and live occupants are not notified yet.
    pub fn has_unreported_loss(&self) -> bool {
        matches!(self.purpose, ReadPurpose::FindContinuation { .. })
    }

    /// True for a message that was kept from the lost numbering, and that live occupants have
    /// received in it.
    fn was_received_before_loss(&self, entry: &Entry) -> bool {
        match &self.purpose {
            ReadPurpose::CatchUp => false,
            ReadPurpose::FindContinuation { left } => {
                entry.epoch == left.epoch && entry.seq <= left.seq
            }
        }
    }
}

impl RoomFeed {
    pub fn on_message(&mut self, context: &mut Context, entry: Entry, arrived: std::time::Instant) {
        let Some(at) = self.log.cursor.ready() else {
            self.log.cursor.hold(entry);
            return;
        };
        if entry.epoch == at.epoch && entry.seq <= at.seq {
            return;
        }
        if entry.epoch == at.epoch && entry.seq == at.seq + 1 {
            self.deliver_message(context, entry);
            context.counters.latency.observe(arrived.elapsed());
            self.advance_awaiting_bus(context);
            return;
        }
        self.log.cursor.hold(entry);
        self.catch_up(context);
    }

    /// Offers the message to every live occupant, encoded once. An occupant without capacity for it
    /// gets it, and the following ones, by a replay.
    fn deliver_message(&mut self, context: &mut Context, entry: Entry) {
        let Some(at) = self.log.cursor.position_mut() else {
            return;
        };
        // The position counts in the numbering that was read, though the message may be from an
        // older one that it continues.
        let before = std::mem::replace(&mut at.seq, entry.seq);
        let (at, seq, kind) = (at.clone(), entry.seq, entry.kind);
        let shared = SharedEvent::new(Event::Message(self.replays.prepare(entry)));
        self.replays.push(&at, &shared);
        let mut changed_message = None;
        if kind == EntryKind::Change
            && let Event::Message(entry) = shared.event()
        {
            self.replays.apply(entry);
            if self.room.kind() == RoomKind::Chat {
                changed_message = self.occupants.hidden_target(entry);
            }
        }
        if !kind.is_delivered() {
            // An entry of a newer node: the cursor has moved past it, and clients don't receive it.
            return;
        }
        let (mut delivered, mut without_capacity) = (0, Vec::new());
        for occupant in self.occupants.live() {
            if occupant.position >= seq {
                continue;
            }
            // An occupant from which the message is hidden moves past the change without it.
            if changed_message.is_some_and(|target| target <= occupant.hidden_seq) {
                continue;
            }
            if occupant.outlet.offer(&shared) {
                delivered += 1;
            } else {
                without_capacity.push(occupant.outlet.conn().clone());
            }
        }
        context.counters.delivered.add(delivered);
        for conn in without_capacity {
            let last_received = Head {
                epoch: at.epoch.clone(),
                seq: before,
            };
            self.fall_behind(context, &conn, last_received);
        }
        if kind == EntryKind::Change
            && let Event::Message(entry) = shared.event()
        {
            let detached = self.detach_removed_member(context, entry);
            context.queues().changed(&self.room, entry, &detached);
        }
    }

    /// Detaches the connections of a user that a change removes from the chat: nothing that comes after
    /// the change reaches them.
    fn detach_removed_member(&mut self, context: &mut Context, entry: &Entry) -> Vec<ConnId> {
        if self.room.kind() != RoomKind::Chat {
            return Vec::new();
        }
        let removed = match change_record::member_change(&entry.record) {
            Some(member) if member.is_removed => member.user,
            _ => return Vec::new(),
        };
        let detached = self.occupants.of_user_before(&removed, entry.seq);
        for conn in &detached {
            self.leave(context, conn);
        }
        detached
    }

    /// Reads the log after the feed's position. If a read is under way, another one will follow it.
    pub fn catch_up(&mut self, context: &mut Context) {
        let Some((ticket, at)) = self.log.cursor.begin_read(context) else {
            return;
        };
        context.counters.catch_ups.add(1);
        if self.room.kind() == RoomKind::Chat {
            context.queues().chat_feeds.catches_up(&self.room);
        }
        let (log, room) = (context.backplane.log.clone(), self.room.clone());
        let page_bytes = context.page_bytes;
        context.read(&self.room, async move {
            let slice = log.read(&room, Window::After(at.seq), CATCH_UP_PAGE, page_bytes);
            FeedEvent::CaughtUp(ticket, slice.await)
        });
    }

    pub(super) fn retry_catch_up(&mut self, context: &mut Context, ticket: u64) {
        if self.log.cursor.awaits(ticket) {
            self.log.cursor.finish_read();
            self.catch_up(context);
        }
    }

    pub(super) fn on_caught_up(
        &mut self,
        context: &mut Context,
        ticket: u64,
        slice: Result<Slice>,
    ) {
        if !self.log.cursor.awaits(ticket) {
            return;
        }
        let Ok(Slice { entries, span, .. }) = slice else {
            // The read counts as under way until the retry, so messages that arrive meanwhile are
            // held.
            context.retry(&self.room, FeedEvent::RetryCatchUp(ticket));
            return;
        };
        self.log.cursor.finish_read();
        let end = span.head.seq;
        if !self.enter_read_epoch(context, span) {
            // The entries don't follow the new position.
            self.catch_up(context);
            return;
        }
        self.deliver_read(context, entries);
        if let Some(at) = self.log.position()
            && at.seq < end
        {
            self.catch_up(context);
            return;
        }
        self.report_loss(context);
        self.apply_held_messages(context);
        self.resume_after_catch_up(context, ticket);
        if self.room.kind() == RoomKind::Chat && !self.log.cursor.is_reading() {
            context.queues().chat_feeds.caught_up(&self.room);
        }
    }

    /// The feed of a chat hears each change from its first position on.
    pub(super) fn begin_chat_feed(&self, context: &Context) {
        if self.room.kind() == RoomKind::Chat {
            context.queues().chat_feeds.begin(&self.room);
        }
    }

    /// Whether the feed has still to deliver entries up to `head`.
    pub fn is_behind(&self, head: &Head) -> bool {
        match self.log.position() {
            Some(at) => at.epoch != head.epoch || at.seq < head.seq,
            None => true,
        }
    }

    /// Moves the feed's position into the epoch of the log that a catch-up has read. Returns true
    /// when the entries of that read follow the new position.
    fn enter_read_epoch(&mut self, context: &mut Context, span: LogSpan) -> bool {
        let Some(at) = self.log.position().cloned() else {
            return false;
        };
        let start_of_log = span.recent.saturating_sub(1);
        let continuity = span.continuity_after(&at, &self.log.earlier());
        self.log.past = span.past;
        let epoch = span.head.epoch;
        if at.epoch != epoch && !matches!(continuity, Continuity::Lost { .. }) {
            self.demote_ahead(context, &at);
        }
        match continuity {
            Continuity::Clean => {
                let seq = at.seq;
                self.log.cursor.set_position(Head { epoch, seq });
                true
            }
            // A read fails while the archive that it needs is away, so it never returns `Unreadable`.
            Continuity::Trimmed | Continuity::Unreadable => {
                let (seq, lost_from) = (start_of_log, at.seq + 1);
                self.skip_to(context, Head { epoch, seq }, lost_from);
                true
            }
            // The position means nothing in the new numbering. The feed goes on from the last
            // message that both numberings share.
            Continuity::Lost {
                last_shared: Some(end),
            } => {
                let seq = end.max(start_of_log);
                self.reset(context, Head { epoch, seq }, Some(end + 1));
                false
            }
            Continuity::Lost { last_shared: None } => {
                if !self.log.has_unreported_loss() {
                    self.log.purpose = ReadPurpose::FindContinuation { left: at };
                }
                let seq = start_of_log;
                self.move_to(Head { epoch, seq });
                false
            }
        }
    }

    /// Delivers the entries that a catch-up has read.
    fn deliver_read(&mut self, context: &mut Context, entries: Vec<Entry>) {
        for entry in entries {
            let was_received = self.log.was_received_before_loss(&entry);
            let Some(at) = self.log.cursor.position_mut() else {
                return;
            };
            if entry.seq != at.seq + 1 {
                continue;
            }
            if entry.epoch != at.epoch {
                self.log.older = Some(Head {
                    epoch: entry.epoch.clone(),
                    seq: entry.seq,
                });
            }
            if was_received {
                at.seq = entry.seq;
                continue;
            }
            self.report_loss(context);
            self.deliver_message(context, entry);
        }
    }

    /// Notifies live occupants that a numbering is lost. The new numbering doesn't know where the
    /// old one ended; it is called once a read has shown at which position the new one goes on.
    fn report_loss(&mut self, context: &Context) {
        let purpose = std::mem::take(&mut self.log.purpose);
        if let ReadPurpose::FindContinuation { .. } = purpose
            && let Some(at) = self.log.position().cloned()
        {
            self.reset(context, at, None);
        }
    }

    /// Delivers the held messages that follow, and keeps those that a further read may connect.
    /// Drops a message that had arrived before the last read began and still doesn't follow: in the
    /// feed's epoch, the read would have returned it if the log had it; of another epoch, it
    /// belongs to an old one.
    pub(super) fn apply_held_messages(&mut self, context: &mut Context) {
        let held = self.log.cursor.take_held();
        let mut kept = Vec::new();
        for (index, entry) in held.events.into_iter().enumerate() {
            let Some(at) = self.log.position() else {
                return;
            };
            let is_same_epoch = entry.epoch == at.epoch;
            if is_same_epoch && entry.seq == at.seq + 1 {
                self.deliver_message(context, entry);
            } else if index >= held.covered && !(is_same_epoch && entry.seq <= at.seq) {
                kept.push(entry);
            }
        }
        let read_again = self.log.cursor.take_read_again() || !kept.is_empty();
        self.log.cursor.hold_again(kept);
        if read_again {
            self.catch_up(context);
        }
        self.advance_awaiting_bus(context);
    }

    /// Skips or goes back to a position. Changes that are passed over are not applied to what was read of the
    /// log before.
    fn move_to(&mut self, head: Head) {
        self.log.move_to(head);
        self.replays.discard_reads();
    }

    /// The log was trimmed up to `head` before it was read. Notifies every live occupant that
    /// hadn't got beyond it.
    fn skip_to(&mut self, context: &Context, head: Head, lost_from: u64) {
        let shared = self.reset_event(context, &head, Some(lost_from));
        for occupant in self.occupants.live() {
            if occupant.position < head.seq {
                occupant.outlet.deliver(&shared);
            }
        }
        self.move_to(head);
        self.report_reset(context);
    }

    /// Reports that changes of a chat or of a personal feed may have been skipped.
    fn report_reset(&self, context: &Context) {
        context.queues().chat_feeds.reset(&self.room);
        match self.room.kind() {
            RoomKind::Chat | RoomKind::Personal => {
                context
                    .queues()
                    .was_reset(&self.room, self.occupants.attached());
            }
            _ => {}
        }
    }

    /// Notifies live occupants that another numbering goes on at `head`, and which messages of the
    /// old one may be lost.
    fn reset(&mut self, context: &Context, head: Head, lost_from: Option<u64>) {
        let shared = self.reset_event(context, &head, lost_from);
        for occupant in self.occupants.live_mut() {
            // A position in the old numbering means nothing in the new one.
            occupant.position = 0;
            occupant.outlet.deliver(&shared);
        }
        self.move_to(head);
        self.report_reset(context);
    }

    fn reset_event(&self, context: &Context, head: &Head, lost_from: Option<u64>) -> SharedEvent {
        context.counters.resets.add(1);
        SharedEvent::new(Event::RoomReset {
            room: self.room.clone(),
            head: head.clone(),
            lost_from,
        })
    }

    /// A comparison has read the log's head (`actual`) while the feed was at `seen`.
    pub fn on_head(&mut self, context: &mut Context, seen: &Head, actual: Option<&Head>) {
        let has_moved = self.log.cursor.ready() != Some(seen);
        let differs = match actual {
            Some(actual) => actual != seen,
            None => seen.seq > 0,
        };
        if differs && !has_moved {
            self.catch_up(context);
        }
    }
}
