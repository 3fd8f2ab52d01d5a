//! The rows of a room, as the entries that they become.
//!
//! A change of a message is rendered when it is published, because its row only points to the message: the
//! announcement carries the newest form. The version of a form is the number of an announcement, and known
//! once the row of that is done. So rows of one room are published in parts, which have at most one row of
//! each message.

use std::collections::{HashSet, VecDeque};

use bytes::Bytes;
use futures_util::future::join_all;
use uuid::Uuid;

use super::progress::Progress;
use super::{Worker, ids};
use crate::backplane::{NewChange, Pointer, change_record};
use crate::domain::{Amendment, Change, MessageChangeKind, MessageForm, RoomId, UserId};
use crate::store::{ChangeRow, OutboxRow, StoreError};

/// Forms of messages that a worker reads at once, for all rooms: each read takes a connection of the database.
pub(super) const CONCURRENT_READS: usize = 4;

/// A row that can be published.
pub(super) struct Announcement {
    pub row: OutboxRow,
    /// The id of the entry.
    pub id: Uuid,
    pub content: Content,
}

pub(super) enum Content {
    /// The entry's record.
    Complete(Bytes),
    MessageChange(MessageChangeKind, ChangeRow),
}

/// The entry of a row; `None` if there is nothing to announce any more.
type Rendered = Option<NewChange>;

impl Worker {
    /// The announcements of the rows that can be published.
    pub(super) fn announcements(
        &self,
        room: &RoomId,
        rows: Vec<OutboxRow>,
        progress: &mut Progress,
    ) -> VecDeque<Announcement> {
        let mut announcements = VecDeque::with_capacity(rows.len());
        for row in rows {
            let id = ids::of_row(self.deployment, row.id, row.first_claimed);
            match content(room, &row, id) {
                Ok(content) => announcements.push_back(Announcement { row, id, content }),
                Err(reason) => progress.fail(&row, reason),
            }
        }
        announcements
    }

    /// Renders the first part. Rows that have nothing to announce leave `left`, as well as a row at the
    /// beginning that can never be rendered. Ends before a row that must wait; its error is in `progress`.
    pub(super) async fn render(
        &self,
        room: &RoomId,
        left: &mut VecDeque<Announcement>,
        progress: &mut Progress,
    ) -> Vec<NewChange> {
        let length = first_part(left);
        let part = &left.make_contiguous()[..length];
        let (rendered, error) = self.rendered(room, part).await;
        if let Some(error) = error {
            match error {
                StoreError::Unavailable(_) | StoreError::Refused(_) => {
                    progress.postponed = Some(error.to_string());
                }
                // Rows before it are published first.
                StoreError::Broken(_) => {
                    if rendered.is_empty()
                        && let Some(first) = left.pop_front()
                    {
                        progress.fail(&first.row, error.to_string());
                    }
                }
            }
        }
        let mut rendered = rendered.into_iter();
        let mut changes = Vec::new();
        left.retain(|announcement| match rendered.next() {
            Some(Some(change)) => {
                changes.push(change);
                true
            }
            Some(None) => {
                progress.skip(&announcement.row);
                false
            }
            None => true,
        });
        changes
    }

    /// Renders these rows, up to the first for which the store fails.
    async fn rendered(
        &self,
        room: &RoomId,
        part: &[Announcement],
    ) -> (Vec<Rendered>, Option<StoreError>) {
        let mut rendered = Vec::with_capacity(part.len());
        for announcements in part.chunks(CONCURRENT_READS) {
            let reads = announcements.iter().map(|row| self.rendered_row(room, row));
            for outcome in join_all(reads).await {
                match outcome {
                    Ok(change) => rendered.push(change),
                    Err(error) => return (rendered, Some(error)),
                }
            }
        }
        (rendered, None)
    }

    async fn rendered_row(
        &self,
        room: &RoomId,
        announcement: &Announcement,
    ) -> Result<Rendered, StoreError> {
        let id = announcement.id;
        let (kind, row) = match &announcement.content {
            Content::Complete(record) => return Ok(Some(NewChange::complete(id, record.clone()))),
            Content::MessageChange(kind, row) => (*kind, row),
        };
        let read = async {
            let _permit = self.reads.acquire().await;
            self.messages.to_publish(room, row).await
        };
        let form = read.await?;
        Ok(form.map(|form| message_change(room, id, kind, row, form)))
    }
}

/// The content of a row's entry.
///
/// # Errors
/// The reason for which the row can never be published.
fn content(room: &RoomId, row: &OutboxRow, id: Uuid) -> Result<Content, String> {
    if let Err(refusal) = RoomId::parse("room_id", room.as_str()) {
        return Err(refusal.text.to_string());
    }
    if let Some(decoded) = ChangeRow::decode(&row.kind, &row.payload) {
        let (kind, row) = decoded?;
        return Ok(Content::MessageChange(kind, row));
    }
    if !Change::EVENTS.contains(&row.kind.as_str()) {
        return Err(format!("this release has no event {:?}", row.kind));
    }
    if !change_record::is_payload(&row.payload) {
        return Err("the payload is not a JSON object with a field".to_owned());
    }
    let record = change_record::encode(room, &row.kind, id, &row.payload);
    Ok(Content::Complete(record))
}

fn message_change(
    room: &RoomId,
    entry_id: Uuid,
    kind: MessageChangeKind,
    row: &ChangeRow,
    form: MessageForm,
) -> NewChange {
    let pointer = Pointer {
        kind,
        entry_id,
        room: room.clone(),
        id: row.id,
        target_seq: row.target_seq,
        user: row.user_id.as_deref().map(UserId::trusted),
    };
    let amendment = Amendment {
        raises_version: kind.raises_version(),
        form,
    };
    NewChange {
        id: entry_id,
        record: pointer.encode(),
        amendment: Some(Box::new(amendment)),
    }
}

/// The number of rows that can be rendered before one of them is done.
fn first_part(rows: &VecDeque<Announcement>) -> usize {
    let mut messages = HashSet::new();
    for (index, announcement) in rows.iter().enumerate() {
        let Content::MessageChange(_, row) = &announcement.content else {
            continue;
        };
        if !messages.insert(row.target_seq) {
            return index;
        }
    }
    rows.len()
}
