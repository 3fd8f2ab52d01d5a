//! Reading the messages of a room's log.

use std::collections::BTreeMap;

use super::Messaging;
use crate::backplane::{Entry, Traces, Window};
use crate::domain::policy::{Permit, Reading};
use crate::domain::{Head, LogSpan, Refusal};
use crate::features::messages::{MessageState, is_listed};

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

impl HistoryWindow {
    /// The number that the window is given by.
    #[must_use]
    pub const fn seq(self) -> Option<u64> {
        match self {
            Self::After(seq) | Self::Before(seq) | Self::Around(seq) => Some(seq),
            Self::Newest => None,
        }
    }
}

/// A part of the log.
#[derive(Debug)]
pub struct HistoryPage {
    /// The messages, in ascending `seq`. None before the end of the room if too many other entries lie
    /// there: the next page goes on behind these.
    pub entries: Vec<Entry>,
    /// True when the log has more messages in the direction of the request; for
    /// [`HistoryWindow::Around`] when it has earlier ones.
    pub has_more: bool,
    /// The window of those messages, if `has_more`.
    pub next: Option<HistoryWindow>,
    /// True when the log has later messages. Only for [`HistoryWindow::Around`].
    pub has_more_after: Option<bool>,
    /// The position of the room that the page reflects: the log's end at that moment, or a lower one.
    pub head: Head,
    /// The state of messages that have any, by their `seq`: with [`Messaging::history`] only.
    pub states: BTreeMap<u64, MessageState>,
    /// What the hot log knew of changes of the messages.
    pub(super) traces: Traces,
}

/// The number of entries to read at a time, at least, behind a page without messages.
const SKIP_PAGE: usize = 128;
/// The most pages that one call of [`Messaging::messages`] reads.
const MAX_PAGES: usize = 20;

/// Messages that were read in one direction.
pub(super) struct MessagesRead {
    /// In ascending `seq`, without a hole but those of other entries.
    pub(super) entries: Vec<Entry>,
    /// Whether entries follow in the direction, behind `position`.
    pub(super) has_more: bool,
    /// The last number that was read in the direction; `None` if there was none.
    pub(super) position: Option<u64>,
    pub(super) span: LogSpan,
    pub(super) traces: Traces,
}

impl Messaging {
    /// Reads messages of a room as [`read`](Self::read), with their state. While the database is away the page
    /// comes without, and reflects a lower position.
    ///
    /// # Errors
    /// As `read`.
    pub async fn history(
        &self,
        permit: &Permit<Reading>,
        window: HistoryWindow,
        limit: usize,
        max_bytes: usize,
    ) -> Result<HistoryPage, Refusal> {
        let mut page = self.read(permit, window, limit, max_bytes).await?;
        if let Some(messages) = &self.messages {
            self.add_states(&*messages.store, permit.room(), &mut page)
                .await?;
        }
        Ok(page)
    }

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
        let window = match window {
            HistoryWindow::After(seq) => Window::After(seq.max(permit.hidden_seq())),
            HistoryWindow::Before(seq) => Window::Before(seq),
            HistoryWindow::Around(seq) => {
                return self.read_around(permit, seq, limit, max_bytes).await;
            }
            HistoryWindow::Newest => Window::Newest,
        };
        let read = self.messages(permit, window, limit, max_bytes).await?;
        let next = match window {
            Window::After(_) => HistoryWindow::After,
            Window::Before(_) | Window::Newest => HistoryWindow::Before,
        };
        Ok(HistoryPage {
            entries: read.entries,
            has_more: read.has_more,
            next: read.position.filter(|_| read.has_more).map(next),
            has_more_after: None,
            head: read.span.head,
            states: BTreeMap::new(),
            traces: read.traces,
        })
    }

    /// Reads messages as [`read`](Self::read). Clients get neither changes nor entries of a newer node
    /// here, so pages with nothing else are skipped, up to [`MAX_PAGES`].
    pub(super) async fn messages(
        &self,
        permit: &Permit<Reading>,
        mut window: Window,
        limit: usize,
        max_bytes: usize,
    ) -> Result<MessagesRead, Refusal> {
        let mut page = limit;
        for _ in 1..MAX_PAGES {
            let read = self.page(permit, window, page, max_bytes).await?;
            let position = match read.position {
                Some(position) if read.has_more && read.entries.is_empty() => position,
                _ => return Ok(read.truncated(window, limit)),
            };
            window = match window {
                Window::After(_) => Window::After(position),
                Window::Before(_) | Window::Newest => Window::Before(position),
            };
            page = limit.max(SKIP_PAGE);
        }
        let last = self.page(permit, window, page, max_bytes).await?;
        Ok(last.truncated(window, limit))
    }

    async fn page(
        &self,
        permit: &Permit<Reading>,
        window: Window,
        page: usize,
        max_bytes: usize,
    ) -> Result<MessagesRead, Refusal> {
        let hidden = permit.hidden_seq();
        let log = &self.backplane.log;
        let slice = log.read(permit.room(), window, page, max_bytes).await?;
        let (mut entries, span, traces) = (slice.entries, slice.span, slice.traces);
        let last = match window {
            Window::After(_) => entries.last(),
            Window::Before(_) | Window::Newest => entries.first(),
        };
        let position = last.map(|entry| entry.seq);
        let has_more = position.is_some_and(|seq| match window {
            Window::After(_) => seq < span.head.seq,
            Window::Before(_) | Window::Newest => seq > hidden + 1 && span.has_before(seq),
        });
        entries.retain(|entry| is_listed(entry) && entry.seq > hidden);
        Ok(MessagesRead {
            entries,
            has_more,
            position,
            span,
            traces,
        })
    }
}

impl MessagesRead {
    /// At most `limit` of the messages.
    fn truncated(mut self, window: Window, limit: usize) -> Self {
        let beyond = self.entries.len().saturating_sub(limit);
        if beyond == 0 {
            return self;
        }
        let last = match window {
            Window::After(_) => {
                self.entries.truncate(limit);
                self.entries.last()
            }
            Window::Before(_) | Window::Newest => {
                self.entries.drain(..beyond);
                self.entries.first()
            }
        };
        self.position = last.map(|entry| entry.seq).or(self.position);
        self.has_more = true;
        self
    }
}

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;

    use super::*;
    use crate::backplane::{
        Appended, Backplane, BackplaneLimits, EntryKind, NewChange, Result, RoomLog, Slice, memory,
    };
    use crate::delivery::{Delivery, DeliverySettings};
    use crate::domain::policy::{self, Relation, RoomScope};
    use crate::domain::{Limits, MessageFields, NewMessage, RoomId, UserId, Username};

    /// The embedded log, in which a range of entries is of a kind that this release doesn't know.
    struct NewerLog {
        log: Arc<dyn RoomLog>,
        unknown: RangeInclusive<u64>,
        reads: AtomicUsize,
    }

    #[async_trait]
    impl RoomLog for NewerLog {
        async fn append(&self, message: &NewMessage, key: Option<&str>) -> Result<Appended> {
            self.log.append(message, key).await
        }

        async fn announce_all(
            &self,
            room: &RoomId,
            changes: &[NewChange],
        ) -> (Vec<Appended>, Result<()>) {
            self.log.announce_all(room, changes).await
        }

        async fn read(
            &self,
            room: &RoomId,
            window: Window,
            limit: usize,
            max_bytes: usize,
        ) -> Result<Slice> {
            self.reads.fetch_add(1, Ordering::SeqCst);
            let mut slice = self.log.read(room, window, limit, max_bytes).await?;
            for entry in &mut slice.entries {
                if self.unknown.contains(&entry.seq) {
                    entry.kind = EntryKind::Unknown;
                }
            }
            Ok(slice)
        }

        async fn heads(&self, rooms: &[RoomId]) -> Result<Vec<Option<Head>>> {
            self.log.heads(rooms).await
        }
    }

    fn permit() -> Permit<Reading> {
        let room = RoomId::trusted("lobby");
        policy::may_read(&RoomScope::Everywhere, Relation::Service, &room, None).unwrap()
    }

    /// A room with so many entries.
    async fn room_with(
        entries: u64,
        unknown: RangeInclusive<u64>,
    ) -> (Arc<Messaging>, Arc<NewerLog>) {
        let embedded = memory::embedded(BackplaneLimits {
            history_size: 10_000,
            ..BackplaneLimits::default()
        });
        let log = Arc::new(NewerLog {
            log: embedded.log.clone(),
            unknown,
            reads: AtomicUsize::new(0),
        });
        let backplane = Backplane {
            log: log.clone(),
            ..embedded
        };
        let delivery = Arc::new(Delivery::start(&backplane, &DeliverySettings::default()));
        let messaging = Messaging::new(backplane.clone(), delivery, Limits::default());
        let (room, user) = (RoomId::trusted("lobby"), UserId::trusted("ann"));
        for _ in 1..=entries {
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
        (Arc::new(messaging), log)
    }

    fn seqs(page: &HistoryPage) -> Vec<u64> {
        page.entries.iter().map(|entry| entry.seq).collect()
    }

    #[tokio::test]
    async fn entries_of_an_unknown_kind_are_not_in_the_history() {
        let (messaging, _) = room_with(8, 2..=7).await;
        for (window, limit, expected, has_more) in [
            (HistoryWindow::After(0), 2, vec![1], true),
            (HistoryWindow::After(1), 2, vec![8], false),
            (HistoryWindow::Newest, 2, vec![8], true),
            (HistoryWindow::Before(8), 2, vec![1], false),
            (HistoryWindow::Before(8), 3, vec![1], false),
            (HistoryWindow::After(2), 5, vec![8], false),
            (HistoryWindow::Around(4), 1, vec![8], true),
            (HistoryWindow::Around(4), 2, vec![1, 8], false),
        ] {
            let page = messaging.read(&permit(), window, limit, usize::MAX).await;
            let page = page.unwrap();
            assert_eq!(
                (seqs(&page), page.has_more),
                (expected, has_more),
                "{window:?}"
            );
            assert_eq!(page.next.is_some(), has_more);
        }
    }

    #[tokio::test]
    async fn a_long_run_of_other_entries_is_crossed_in_pages_of_bounded_cost() {
        let (messaging, log) = room_with(6002, 2..=6001).await;
        for (first, expected, empty_pages) in [
            (HistoryWindow::Newest, vec![6002, 1], 2),
            (HistoryWindow::After(0), vec![1, 6002], 2),
            (HistoryWindow::Around(3000), vec![1], 1),
            (HistoryWindow::Around(6000), vec![6002, 1], 1),
        ] {
            let (mut window, mut found, mut empty) = (first, Vec::new(), 0);
            loop {
                let before = log.reads.load(Ordering::SeqCst);
                let page = messaging.read(&permit(), window, 2, usize::MAX).await;
                let page = page.unwrap();
                let reads = log.reads.load(Ordering::SeqCst) - before;
                assert!(reads <= 2 * MAX_PAGES, "{reads} reads for {window:?}");
                found.extend(seqs(&page));
                if page.entries.is_empty() {
                    empty += 1;
                }
                assert_eq!(page.next.is_some(), page.has_more);
                match page.next {
                    Some(next) => window = next,
                    None => break,
                }
            }
            assert_eq!((found, empty), (expected, empty_pages), "{first:?}");
        }
    }
}
