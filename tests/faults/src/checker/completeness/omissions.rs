//! The messages that one client did not receive.

use std::collections::{BTreeMap, BTreeSet};

use super::CompletenessCheck;
use super::room::{Room, RoomMessage};
use crate::checker::cursor::{Segment, SegmentStart};
use crate::checker::deliveries::ClientCursor;
use crate::checker::faults::FaultKind;

/// The reason why a client did not receive a message. A client that joins anew may pass over a
/// message twice: then the first reason counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Omission {
    /// The message did not have to reach the client.
    NotExpected,
    /// Its loss was announced.
    Announced,
    LostWithData,
    Missing,
}

/// By index of the message in its room.
type Omissions = BTreeMap<usize, Omission>;

impl CompletenessCheck<'_, '_> {
    pub(super) fn check_client(&mut self, room: &Room<'_>, client: &ClientCursor) {
        let segments = &client.cursor.segments;
        let mut omissions = Omissions::new();
        for pair in segments.windows(2) {
            let [before, next] = pair else { continue };
            let from = room.index_after(before.epoch, before.until);
            let to = room.index_after(next.epoch, next.after);
            for index in from..to {
                omissions
                    .entry(index)
                    .or_insert_with(|| self.omission_before(next, &room.messages[index]));
            }
        }
        let must_be_at_head = !client.finished;
        if must_be_at_head
            && self.check_final_position(room, client)
            && let Some(last) = segments.last()
        {
            for index in room.index_after(last.epoch, last.until)..room.messages.len() {
                omissions
                    .entry(index)
                    .or_insert_with(|| self.omission_at_end(room, &room.messages[index]));
            }
        }
        omissions.retain(|index, _| {
            let message = &room.messages[*index];
            !client.cursor.has_received(message.epoch, message.seq)
        });
        self.report_saved_but_lost(room, client, &omissions);
        self.report_archived_but_lost(room, client, &omissions);
        self.report_missing(room, client, &omissions);
        self.count_losses(room, client, &omissions);
    }

    /// Judges a message between a segment and the one before it.
    fn omission_before(&self, next: &Segment, message: &RoomMessage) -> Omission {
        match next.start {
            SegmentStart::JoinedAnew | SegmentStart::FaultReported => Omission::NotExpected,
            SegmentStart::LossAnnounced => Omission::Announced,
            // The data went back to a point before this message, so its number, or a later one,
            // belongs to another message now. All messages below that point are kept.
            SegmentStart::Continued
                if self.data_loss && (message.seq > next.after || !message.epoch_observed) =>
            {
                Omission::LostWithData
            }
            SegmentStart::Continued => Omission::Missing,
        }
    }

    /// Judges a message after the last segment of a client that is still in the room.
    fn omission_at_end(&self, room: &Room<'_>, message: &RoomMessage) -> Omission {
        match room.head {
            // Reported as a false ack, or by the client that received the message.
            Some(head) if message.seq > head.seq && head.epoch == message.epoch => {
                Omission::NotExpected
            }
            Some(head) if message.seq > head.seq && self.data_loss => Omission::LostWithData,
            Some(_) if self.data_loss && !message.epoch_observed => Omission::LostWithData,
            _ => Omission::Missing,
        }
    }

    /// Whether a client that is still in the room has reached the room's head. If not, this is
    /// reported.
    fn check_final_position(&mut self, room: &Room<'_>, client: &ClientCursor) -> bool {
        let (Some(head), Some(position)) = (room.head, client.cursor.position) else {
            return true;
        };
        let same_epoch = position.epoch == head.epoch || !head.epoch_has_messages;
        if position.seq == head.seq && same_epoch {
            return true;
        }
        let client = self.interner.text(client.client);
        let epoch = self.interner.text(position.epoch);
        let head_epoch = self.interner.text(head.epoch);
        self.faults.add(FaultKind::Missing, head.at, || {
            let positions = format!(
                "{client} in {} is at {epoch}/{}, and the head of the room is {head_epoch}/{}",
                room.name, position.seq, head.seq
            );
            if position.seq < head.seq {
                let first = position.seq + 1;
                format!("{positions}: {first}..{} never came", head.seq)
            } else {
                positions
            }
        });
        false
    }

    /// Reports messages that were lost although they had been acknowledged at a time when the loss
    /// of data could not affect them.
    fn report_saved_but_lost(
        &mut self,
        room: &Room<'_>,
        client: &ClientCursor,
        omissions: &Omissions,
    ) {
        if !self.data_loss || self.loss_windows.is_empty() || self.is_archived {
            return;
        }
        let client = self.interner.text(client.client);
        for (index, omission) in omissions {
            let is_lost = matches!(omission, Omission::LostWithData | Omission::Announced);
            let message = &room.messages[*index];
            let Some(acked) = message.acked else { continue };
            let may_be_lost = self
                .loss_windows
                .iter()
                .any(|window| window.contains(&acked));
            if is_lost && !may_be_lost {
                let epoch = self.interner.text(message.epoch);
                self.faults.add(FaultKind::Missing, acked, || {
                    format!(
                        "{client} in {} did not receive {epoch}/{}, which had been saved",
                        room.name, message.seq
                    )
                });
            }
        }
    }

    /// Reports messages whose loss was announced to the client, or that it passed over in a new epoch,
    /// although the archive has them.
    fn report_archived_but_lost(
        &mut self,
        room: &Room<'_>,
        client: &ClientCursor,
        omissions: &Omissions,
    ) {
        let lost: BTreeSet<usize> = omissions
            .iter()
            .filter(|(_, omission)| {
                matches!(omission, Omission::LostWithData | Omission::Announced)
            })
            .map(|(index, _)| *index)
            .filter(|index| room.messages[*index].archived)
            .collect();
        let Some(first) = lost.first() else { return };
        let client = self.interner.text(client.client);
        self.faults
            .add(FaultKind::Missing, room.messages[*first].at, || {
                format!(
                    "{client} in {} did not receive {}, which the archive has",
                    room.name,
                    room.describe_ranges(&lost, self.interner)
                )
            });
    }

    fn report_missing(&mut self, room: &Room<'_>, client: &ClientCursor, omissions: &Omissions) {
        let missing: BTreeSet<usize> = omissions
            .iter()
            .filter(|(_, omission)| **omission == Omission::Missing)
            .map(|(index, _)| *index)
            .collect();
        let Some(first) = missing.first() else { return };
        let client = self.interner.text(client.client);
        let at = room.messages[*first].at;
        self.faults.add(FaultKind::Missing, at, || {
            let acked = missing
                .iter()
                .filter(|index| room.messages[**index].acked.is_some())
                .count();
            format!(
                "{client} in {} did not receive {} ({} messages, {acked} of them acknowledged)",
                room.name,
                room.describe_ranges(&missing, self.interner),
                missing.len()
            )
        });
    }

    fn count_losses(&mut self, room: &Room<'_>, client: &ClientCursor, omissions: &Omissions) {
        let acked_with = |wanted: Omission| {
            omissions
                .iter()
                .filter(|(index, omission)| {
                    **omission == wanted && room.messages[**index].acked.is_some()
                })
                .count() as u64
        };
        let announced = acked_with(Omission::Announced);
        if announced > 0 {
            let client = self.interner.text(client.client).to_owned();
            *self.stats.announced_lost.entry(client).or_default() += announced;
        }
        self.stats.lost_with_data += acked_with(Omission::LostWithData);
    }
}
