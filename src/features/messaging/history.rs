//! Reading the messages of a room's log.

use super::Messaging;
use crate::backplane::{Entry, EntryKind, Window};
use crate::domain::policy::{Permit, Reading};
use crate::domain::{Head, Refusal};

/// The part of the log to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryWindow {
    /// The first messages after this `seq`.
    After(u64),
    /// The last messages before this `seq`.
    Before(u64),
    /// The message with this `seq`, and about as many before as after it.
    Around(u64),
    /// The last messages.
    Newest,
}

/// A part of the log.
#[derive(Debug)]
pub struct HistoryPage {
    /// The messages, in ascending `seq`.
    pub entries: Vec<Entry>,
    /// True when the log has more messages in the direction of the request; for
    /// [`HistoryWindow::Around`] when it has earlier ones.
    pub has_more: bool,
    /// True when the log has later messages. Only for [`HistoryWindow::Around`].
    pub has_more_after: Option<bool>,
    /// The log's end at that moment.
    pub head: Head,
}

/// The number of entries to read at a time, at least, behind a page without messages: it bounds the
/// reads that one request causes.
const SKIP_PAGE: usize = 128;

impl Messaging {
    /// Reads messages of a room: at most `limit`, and fewer when their records exceed `max_bytes`.
    ///
    /// # Errors
    /// `unavailable`; `internal` when stored messages can't be decoded.
    pub async fn read(
        &self,
        permit: &Permit<Reading>,
        window: HistoryWindow,
        limit: usize,
        max_bytes: usize,
    ) -> Result<HistoryPage, Refusal> {
        self.ready()?;
        let hidden = permit.hidden_seq();
        let mut window = match window {
            HistoryWindow::After(seq) => Window::After(seq.max(hidden)),
            HistoryWindow::Before(seq) => Window::Before(seq),
            HistoryWindow::Around(seq) => {
                return self.read_around(permit, seq, limit, max_bytes).await;
            }
            HistoryWindow::Newest => Window::Newest,
        };
        let mut page = limit;
        loop {
            let slice = self
                .backplane
                .log
                .read(permit.room(), window, page, max_bytes)
                .await?;
            let (mut entries, span) = (slice.entries, slice.span);
            let (has_more, next) = match window {
                Window::After(_) => {
                    let last = entries.last().map(|entry| entry.seq);
                    (
                        last.is_some_and(|seq| seq < span.head.seq),
                        last.map(Window::After),
                    )
                }
                Window::Before(_) | Window::Newest => {
                    let first = entries.first().map(|entry| entry.seq);
                    (
                        first.is_some_and(|seq| seq > hidden + 1 && span.has_before(seq)),
                        first.map(Window::Before),
                    )
                }
            };
            // Clients don't get a newer node's entries. A page with nothing else is skipped: its
            // reader could not ask for the page after it.
            entries.retain(|entry| entry.kind == EntryKind::Message && entry.seq > hidden);
            if entries.is_empty()
                && has_more
                && let Some(next) = next
            {
                window = next;
                page = limit.max(SKIP_PAGE);
                continue;
            }
            let beyond = entries.len().saturating_sub(limit);
            match window {
                Window::After(_) => entries.truncate(limit),
                Window::Before(_) | Window::Newest => drop(entries.drain(..beyond)),
            }
            return Ok(HistoryPage {
                entries,
                has_more: has_more || beyond > 0,
                has_more_after: None,
                head: span.head,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use std::sync::Arc;
    use uuid::Uuid;

    use async_trait::async_trait;

    use super::*;
    use crate::backplane::{Appended, Backplane, BackplaneLimits, Result, RoomLog, Slice, memory};
    use crate::delivery::{Delivery, DeliverySettings};
    use crate::domain::policy::{self, Relation, RoomScope};
    use crate::domain::{Limits, MessageFields, NewMessage, RoomId, UserId, Username};

    /// The embedded log, whose entries 2 to 7 are of a kind that this release doesn't know.
    struct NewerLog(Arc<dyn RoomLog>);

    #[async_trait]
    impl RoomLog for NewerLog {
        async fn append(&self, message: &NewMessage, key: Option<&str>) -> Result<Appended> {
            self.0.append(message, key).await
        }

        async fn announce(&self, room: &RoomId, id: Uuid, record: Bytes) -> Result<Appended> {
            self.0.announce(room, id, record).await
        }

        async fn read(
            &self,
            room: &RoomId,
            window: Window,
            limit: usize,
            max_bytes: usize,
        ) -> Result<Slice> {
            let mut slice = self.0.read(room, window, limit, max_bytes).await?;
            for entry in &mut slice.entries {
                if (2..=7).contains(&entry.seq) {
                    entry.kind = EntryKind::Unknown;
                }
            }
            Ok(slice)
        }

        async fn heads(&self, rooms: &[RoomId]) -> Result<Vec<Option<Head>>> {
            self.0.heads(rooms).await
        }
    }

    #[tokio::test]
    async fn entries_of_an_unknown_kind_are_not_in_the_history() {
        let embedded = memory::embedded(BackplaneLimits::default());
        let log = Arc::new(NewerLog(embedded.log.clone()));
        let backplane = Backplane { log, ..embedded };
        let delivery = Arc::new(Delivery::start(&backplane, &DeliverySettings::default()));
        let messaging = Messaging::new(backplane.clone(), delivery, Limits::default());
        let (room, user) = (RoomId::trusted("lobby"), UserId::trusted("ann"));
        for _ in 1..=8 {
            let fields = MessageFields {
                content: "hi".into(),
                ..MessageFields::default()
            };
            let message = NewMessage::new(
                room.clone(),
                user.clone(),
                Username::from(&user),
                fields,
                &Limits::default(),
            );
            backplane.log.append(&message.unwrap(), None).await.unwrap();
        }
        for (window, limit, expected, has_more) in [
            (HistoryWindow::After(0), 2, vec![1], true),
            (HistoryWindow::After(1), 2, vec![8], false),
            (HistoryWindow::Newest, 2, vec![8], true),
            (HistoryWindow::Before(8), 2, vec![1], false),
            (HistoryWindow::Before(8), 3, vec![1], false),
            (HistoryWindow::After(2), 5, vec![8], false),
        ] {
            let permit = policy::may_read(&RoomScope::Everywhere, Relation::Service, &room, None);
            let page = messaging
                .read(&permit.unwrap(), window, limit, usize::MAX)
                .await
                .unwrap();
            let seqs: Vec<_> = page.entries.iter().map(|entry| entry.seq).collect();
            assert_eq!((seqs, page.has_more), (expected, has_more), "{window:?}");
        }
    }
}
